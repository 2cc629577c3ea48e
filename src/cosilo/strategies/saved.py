"""Arrays that a strategy has learned, read back from a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from cosilo.errors import ConfigError


@contextmanager
def reading(file: Path, what: str) -> Iterator[Any]:
    """The arrays of `file`, by name; nothing is unpickled. What else is read of its folder may be read
    within, too.

    Raises:
        ConfigError: the folder holds no `what`: the file is not there, or what is read is not in it, or
            has another form.
    """
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as held:
            yield held
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
        place = str(file.parent)
        raise ConfigError(f"{place!r} holds no {what}: {type(error).__name__}") from None
