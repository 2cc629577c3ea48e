"""Importing this package registers the models a plan can name; what they need is imported when used."""

from cosilo.models.encoder import classifier  # noqa: F401
from cosilo.models.fit import lending, mutual, taught, tunable  # noqa: F401
from cosilo.models.gguf import llamacpp  # noqa: F401
from cosilo.models.kept import recorded, scripted  # noqa: F401
from cosilo.models.remote import openai_compatible  # noqa: F401
from cosilo.models.white_box import lm  # noqa: F401
