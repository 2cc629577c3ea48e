"""Importing this package registers the models a plan can name; what they need is imported when used."""

from cosilo.models import classifier, llamacpp, openai_compatible, recorded, scripted  # noqa: F401
