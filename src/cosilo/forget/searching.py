"""A byte search for what is left of records, over every file of some folders.

A text is looked for by pieces of itself that no other record has, in the forms that files have it in:
as it is, and as JSON and CSV escape it. Database pages, logs and free space are bytes like any others.
A database cuts a long text in pieces, so several pieces of a text are looked for, and one is enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosilo.forget.files import overwrite, replace_file
from cosilo.lineage.requests import ForgetRequest, Method

PIECE = 24
"""Bytes of a piece: shorter ones stand in other texts by chance."""

_MOST = 12  # pieces of one text in one form
_BLOCK = 1 << 20


def pieces_of(texts: Iterable[str], others: Iterable[str]) -> tuple[tuple[bytes, ...], int]:
    """What to look for, and of how many texts nothing can be looked for: they are too short, or all of
    them stands in `others`, too."""
    rest = b"\0".join(form for other in others for form in _forms(other))
    found: list[bytes] = []
    without = 0
    for text in texts:
        mine = [[piece for piece in _pieces(f) if piece not in rest] for f in _forms(text)]
        without += not any(mine)
        for some in mine:
            found += some[:: max(1, len(some) // _MOST)][:_MOST]
    return tuple(dict.fromkeys(found)), without


def _forms(text: str) -> list[bytes]:
    """As it is, and as JSON (of ASCII alone, and not) and CSV have it."""
    escaped = json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]
    forms = dict.fromkeys((text, *escaped, text.replace('"', '""')))
    return [form.encode(errors="surrogatepass") for form in forms]


def _pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data) - PIECE + 1, max(1, PIECE // 3)):
        yield data[start : start + PIECE]


@dataclass(frozen=True)
class Searched:
    """What a search came to.

    Attributes:
        found: files that hold something of what was looked for.
        unread: files that nobody could look into.
        read: how many files were read.
    """

    found: tuple[Path, ...]
    unread: tuple[Path, ...]
    read: int

    @property
    def note(self) -> str:
        """What has to be done before it can be said that nothing is left; empty where it can."""
        said = [
            f"still found in {_some(self.found)}: delete it there" if self.found else "",
            f"nobody can read {_some(self.unread)}: let it be read" if self.unread else "",
        ]
        told = "; ".join(filter(None, said))
        return f"{told}, then forget again" if told else ""


def holding(pieces: Sequence[bytes], places: Iterable[Path]) -> Searched:
    """Look for the pieces in all files among or below `places`."""
    found, unread, read = [], [], 0
    for path in sorted({f for place in places for f in _files(place)}):
        try:
            if _holds(path, pieces):
                found.append(path)
            read += 1
        except FileNotFoundError:
            pass  # a database's log, say, that went while others were read
        except OSError:
            unread.append(path)
    return Searched(tuple(found), tuple(unread), read)


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:5])) + (", …" if len(paths) > 5 else "")


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
