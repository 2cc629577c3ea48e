"""What keeps private things private. Importing this package registers every defence it holds."""

from cosilo.defences import pseudonyms, text_dp

__all__ = ["pseudonyms", "text_dp"]
