"""What keeps private things private. Importing this package registers every defence it holds."""

from cosilo.defences import pseudonyms

__all__ = ["pseudonyms"]
