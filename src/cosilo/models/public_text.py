"""Files of public text, which models are made, lent and calibrated on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cosilo.errors import DataError


def public_texts(files: Sequence[Path]) -> list[str]:
    """The texts of `files`; without any, the manual that every Python has, which is public."""
    if not files:
        from pydoc_data.topics import topics

        return [" ".join(text.split()) for _, text in sorted(topics.items())]
    return [text for file in files for text in _read(file)]


def _read(file: Path) -> list[str]:
    try:
        whole = file.read_text("utf-8")
        if file.suffix != ".jsonl":
            return [whole]
        return [str(json.loads(line)["text"]) for line in whole.splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{str(file)!r} cannot be read as text ({type(error).__name__}): .txt, or .jsonl with "
            'a key "text" in each line'
        ) from None
