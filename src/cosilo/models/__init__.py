"""Importing this package registers the models a plan can name; what they need is imported when used."""

from cosilo.models import classifier, llamacpp, recorded, scripted  # noqa: F401
