"""Importing this package registers the models a plan can name; what they need is imported when used."""

from cosilo.models import (  # noqa: F401
    classifier,
    llamacpp,
    openai_compatible,
    recorded,
    scripted,
    torch_lm,
)
