"""How much of a document has left, and no more than a stated share of it ever does.

    document   the lace plant produces perforations in its leaves through pcd …
    sent       "Lace-plant PRODUCES perforations"        ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  aligned: 27 letters

Texts are compared as letters and digits alone, in one case, so that spaces, capitals, signs and line
breaks make no difference. A letter of the document has left where it stands in a stretch of `RUN` or
more that was sent, or between two such stretches that lie no further apart than that: a quotation with
a word changed here and there. What was sent and stands in no such stretch is counted as well, letter
for letter, because it may say what the document says in other words or in code: so whatever a plan asks
for, no more letters leave than the share allows.
"""

from __future__ import annotations

import hashlib
import sqlite3
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from cosilo.databases import made_private
from cosilo.errors import StoreError, UnprotectableError

RUN = 16
"""Letters in a row, about three words, that are no coincidence."""

_KEPT_LIMIT_S = 10.0

Places = NDArray[np.bool_]


def letters(text: str) -> str:
    """The letters and digits of `text` in one case, without the spaces and signs between them."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def aligned(document: str, sent: str) -> tuple[Places, int]:
    """Which letters of `document` left with `sent`, and how many letters of `sent` are none of them.

    Args:
        document, sent: as `letters` gives them.

    Returns:
        a mask over the letters of `document`; the number of letters in `sent` outside all stretches
        of `RUN` that stand in `document`, too.
    """
    wanted: dict[str, list[int]] = {}
    for at in range(len(sent) - RUN + 1):
        wanted.setdefault(sent[at : at + RUN], []).append(at)
    # Changes of +1 and -1 at the ends of stretches, summed up at the end.
    here, there = np.zeros(len(document) + 1, np.int64), np.zeros(len(sent) + 1, np.int64)
    if wanted:
        for at in range(len(document) - RUN + 1):
            if (found := wanted.get(document[at : at + RUN])) is not None:
                here[at] += 1
                here[at + RUN] -= 1
                for place in found:
                    there[place] += 1
                    there[place + RUN] -= 1
                found.clear()  # that it stands there a second time says no more of `sent`
    return bridged(np.cumsum(here[:-1]) > 0), int(np.sum(np.cumsum(there[:-1]) <= 0))


def bridged(places: Places) -> Places:
    """`places` with the gaps of up to `RUN` between two of them filled."""
    at = np.flatnonzero(places)
    filled = places.copy()
    for i in np.flatnonzero((np.diff(at) > 1) & (np.diff(at) <= RUN + 1)):
        filled[at[i] : at[i + 1]] = True
    return filled


@dataclass
class LeftHome:
    """What has left of one document.

    Attributes:
        places: which of its letters.
        loose: letters that were sent about it and are none of its.
    """

    places: Places
    loose: int = 0

    @property
    def letters(self) -> int:
        return int(np.sum(self.places)) + self.loose


class InMemory:
    """Keeps what has left for as long as the process lives."""

    def __init__(self) -> None:
        self._found: dict[bytes, tuple[bytes, int]] = {}
        self._lock = Lock()  # requests at once count in threads of their own

    @contextmanager
    def changing(self, keys: Sequence[bytes]) -> Iterator[dict[bytes, tuple[bytes, int]]]:
        """What is kept under `keys`; what it is when the block ends well is kept. Others wait."""
        with self._lock:
            found = {key: self._found[key] for key in keys if key in self._found}
            yield found
            self._found.update(found)


class InFile:
    """Keeps it in an SQLite file, for all processes of its owner that name it; no text, and what is
    there without the documents only says how much of how many has left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def changing(self, keys: Sequence[bytes]) -> Iterator[dict[bytes, tuple[bytes, int]]]:
        """As `InMemory.changing`; other processes wait until the block ends."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(
                sqlite3.connect(
                    made_private(self._path), timeout=_KEPT_LIMIT_S, isolation_level=None
                )
            ) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS left_home "
                    "(document BLOB PRIMARY KEY, places BLOB NOT NULL, loose INTEGER NOT NULL)"
                )
                found: dict[bytes, tuple[bytes, int]] = {}
                for key in keys:
                    row = connection.execute(
                        "SELECT places, loose FROM left_home WHERE document = ?", (key,)
                    ).fetchone()
                    if row is not None:
                        found[key] = (bytes(row[0]), int(row[1]))
                yield found
                connection.executemany(
                    "INSERT OR REPLACE INTO left_home VALUES (?, ?, ?)",
                    [(key, places, loose) for key, (places, loose) in found.items()],
                )
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            what = type(error).__name__
            raise StoreError(
                f"what has left of documents cannot be kept in {str(self._path)!r} ({what})"
            ) from None


@dataclass(frozen=True)
class ShareMeter:
    """Lets no more than the share `most` of any document leave, over all requests that it has seen.

    Documents are known by what they say, so the same one counts on in the next request, whatever its
    spaces and capitals.

    Attributes:
        most: 0 to 1.
        kept: where it is kept what has left.
    """

    most: float
    kept: InMemory | InFile = field(default_factory=InMemory)

    def begin(self, documents: Sequence[str], said: str) -> None:
        """Count what stands of `documents` in the question itself, which is the user's own choice to
        send.

        Raises:
            UnprotectableError: it holds more of one than may leave.
            StoreError: it cannot be kept.
        """

        def add(document: str, left: LeftHome) -> LeftHome:
            places, _ = aligned(document, letters(said))
            return LeftHome(left.places | places, left.loose)

        if not all(self._change(documents, lambda _: add, known=True)):
            raise UnprotectableError(
                f"the chat itself holds more than the share {self.most:g} of a document, so nothing "
                "was sent"
            )

    def admit(self, documents: Sequence[str], of: int, text: str) -> bool:
        """Whether `text`, which was found in document number `of`, may leave; then it counts as sent.

        Raises:
            StoreError: it cannot be kept.
        """
        sent = letters(text)

        def adding(which: int) -> Callable[[str, LeftHome], LeftHome]:
            def add(document: str, left: LeftHome) -> LeftHome:
                places, loose = aligned(document, sent)
                return LeftHome(left.places | places, left.loose + (loose if which == of else 0))

            return add

        return all(self._change(documents, adding))

    def share(self, document: str) -> float:
        """The share of `document` that has left; 0 of an empty one."""
        whole = letters(document)
        key = _key(whole)
        with self.kept.changing([key]) as found:
            return _left(found.get(key), len(whole)).letters / len(whole) if whole else 0.0

    def _change(
        self,
        documents: Sequence[str],
        adding: Callable[[int], Callable[[str, LeftHome], LeftHome]],
        *,
        known: bool = False,
    ) -> list[bool]:
        """Whether each document may have that much left; only if all may, it is kept so.

        Args:
            known: a document of which nothing more leaves passes, however much had left before.
        """
        wholes = [letters(document) for document in documents]
        keys = [_key(whole) for whole in wholes]
        with self.kept.changing(keys) as found:
            new: dict[bytes, tuple[bytes, int]] = {}
            passed = []
            for i, (key, whole) in enumerate(zip(keys, wholes, strict=True)):
                before = _left(new.get(key, found.get(key)), len(whole))
                after = adding(i)(whole, before)
                fits = after.letters <= self.most * len(whole)
                passed.append(fits or (known and after.letters == before.letters))
                new[key] = (np.packbits(after.places).tobytes(), after.loose)
            if all(passed):
                found.update(new)
        return passed


def _key(whole: str) -> bytes:
    return hashlib.sha256(whole.encode()).digest()


def _left(kept: tuple[bytes, int] | None, length: int) -> LeftHome:
    if kept is None:
        return LeftHome(np.zeros(length, np.bool_))
    packed, loose = kept
    places = np.unpackbits(np.frombuffer(packed, np.uint8), count=length).astype(np.bool_)
    return LeftHome(places, loose)
