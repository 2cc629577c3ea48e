"""What each side can learn from what crossed. Importing this package registers every attack."""

from cosilo.attacks import (
    federated_updates,
    membership,
    opinions,
    output_layer,
    published,
    relink,
    secrets,
    surrogate,
    words,
)
from cosilo.attacks.tampering import Tampering

__all__ = [
    "Tampering",
    "federated_updates",
    "membership",
    "opinions",
    "output_layer",
    "published",
    "relink",
    "secrets",
    "surrogate",
    "words",
]
