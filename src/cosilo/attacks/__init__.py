"""What each side can learn from what crossed. Importing this package registers every attack."""

from cosilo.attacks import output_layer, relink, secrets, surrogate
from cosilo.attacks.tampering import Tampering

__all__ = ["Tampering", "output_layer", "relink", "secrets", "surrogate"]
