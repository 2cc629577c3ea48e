"""A byte search for what is left of records, over every file of some folders.

A text is looked for by pieces of itself that no other record has, in the forms that files have it in:
as it is, and as JSON escapes it. Database pages, logs and free space are bytes like any others. A
database cuts a long text in pieces, so several pieces of a text are looked for, and one is enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from cosilo.forget.files import overwrite, replace_file
from cosilo.lineage.requests import ForgetRequest, Method

PIECE = 24
"""Bytes of a piece: shorter ones stand in other texts by chance."""

_MOST = 12  # pieces of one text
_BLOCK = 1 << 20


def pieces_of(texts: Iterable[str], others: Iterable[str]) -> tuple[tuple[bytes, ...], int]:
    """What to look for, and of how many texts nothing can be looked for: they are too short, or all of
    them stands in `others`, too."""
    rest = "\0".join(others).encode(errors="surrogatepass")
    found: list[bytes] = []
    without = 0
    for text in texts:
        mine = [piece for piece in _pieces(text) if piece not in rest]
        without += not mine
        found += mine[:: max(1, len(mine) // _MOST)][:_MOST]
    return tuple(dict.fromkeys(found)), without


def _pieces(text: str) -> Iterator[bytes]:
    for form in dict.fromkeys((text, json.dumps(text)[1:-1])):
        data = form.encode(errors="surrogatepass")
        for start in range(0, len(data) - PIECE + 1, max(1, PIECE // 3)):
            yield data[start : start + PIECE]


def holding(pieces: Sequence[bytes], places: Iterable[Path]) -> tuple[list[Path], int]:
    """The files among or below `places` that hold any of the pieces, and how many were read."""
    found, read = [], 0
    for path in sorted({f for place in places for f in _files(place)}):
        read += 1
        if _holds(path, pieces):
            found.append(path)
    return found, read


def pieces_file(folder: Path, request: str) -> Path:
    """Where is kept what the search for a request looks for: what it is of is gone by then."""
    return folder / f".forget-{request[:12]}.pieces"


def keep_pieces(path: Path, kept: Mapping[str, object]) -> None:
    """Keep it until the search has ended, for its owner alone to read."""
    replace_file(path, json.dumps(kept).encode())


def drop_kept(folder: Path, requests: Iterable[ForgetRequest]) -> None:
    """Delete what is kept in `folder` for none of `requests` that still has to search: whoever kept it
    was stopped before its request began, or once its search had ended."""
    known = {request.id[:12]: request for request in requests}
    for path in folder.glob(".forget-*"):
        request = known.get(path.name.removeprefix(".forget-")[:12])
        over = path.suffix == ".pieces" and request is not None and not _searches(request)
        if path.is_file() and (request is None or over):
            with path.open("r+b") as file:
                overwrite(file.fileno())
            path.unlink()


def _searches(request: ForgetRequest) -> bool:
    return any(step.method is Method.VERIFY and not step.settled for step in request.steps)


def _files(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from (f for f in place.rglob("*") if f.is_file() and not f.is_symlink())
    elif place.is_file():
        yield place


def _holds(path: Path, pieces: Sequence[bytes]) -> bool:
    before = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            held = before + block
            if any(piece in held for piece in pieces):
                return True
            before = held[-PIECE:]
    return False
