"""Where Cosilo keeps what can be fetched or worked out again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """A folder under $XDG_CACHE_HOME or ~/.cache."""
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # By the XDG specification, a path that is not absolute does not count.
    return (chosen if chosen.is_absolute() else Path.home() / ".cache") / "cosilo"
