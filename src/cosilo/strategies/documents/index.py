"""Finds passages of documents by their words and by their meaning: an index in one SQLite file, or in
memory.

    documents ─▶ parts ─▶ passages ─┬─▶ FTS5: words, ranked by BM25
                                    └─▶ vectors of the owner's encoder, if there is one
    query ─▶ both rankings ─▶ one, by the sum of 1 / (60 + rank)

Cormack et al., "Reciprocal Rank Fusion Outperforms Condorcet" (SIGIR 2009), for the last step. FTS5
comes with Python's own sqlite3; vectors are compared one by one, exactly.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from cosilo.databases import made_private
from cosilo.errors import ConfigError, StoreError
from cosilo.models.base import Array
from cosilo.strategies.documents.parting import parts, pieces

FORMAT = "1"
_FUSED = 60
_RANKED = 200
"""Passages of either ranking that are looked at."""
_AT_ONCE = 256
_WORD = re.compile(r"[^\W_]+")


class Encodes(Protocol):
    """What is needed of an encoder."""

    def embed(self, texts: list[str], /) -> Array: ...


@dataclass(frozen=True)
class PassageFound:
    """Attributes:
    document: the name of the document that it stands in.
    part: the number of the part of it, from 1.
    """

    document: str
    part: int
    text: str


@dataclass(frozen=True)
class IndexChange:
    """How many documents an update read anew, found as they were, and took out."""

    read: int
    same: int
    gone: int


class PassageIndex:
    """Args:
    path: the file; None for one in memory.
    encoder: turns passages and queries into vectors; without one they are found by words alone.
    encoded_by: what the encoder is known by; vectors of another one are made anew.
    passage: words of a passage, at most.
    part: words of a part, which holds whole passages.

    Raises:
        ConfigError: this Python's SQLite has no FTS5.
        StoreError: the file cannot be read or written, or is something else.
    """

    def __init__(
        self,
        path: Path | None = None,
        encoder: Encodes | None = None,
        *,
        encoded_by: str = "",
        passage: int = 40,
        part: int = 300,
    ) -> None:
        self._encoder = encoder
        self._passage, self._part = passage, part
        self._where = ":memory:" if path is None else str(path)
        self._vectors: tuple[list[int], Array] | None = None
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                made_private(path)
            self._db = sqlite3.connect(
                self._where, timeout=30, isolation_level=None, check_same_thread=False
            )
        except (sqlite3.Error, OSError) as error:
            raise self._fault(error) from None
        made = f"{FORMAT}:{passage}:{part}:{encoded_by if encoder is not None else ''}"
        try:
            self._open(made)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def _fault(self, error: Exception) -> StoreError:
        what = type(error).__name__
        return StoreError(f"the index of documents {self._where!r} cannot be used ({what})")

    def _open(self, made: str) -> None:
        run = self._db.execute
        try:
            run("PRAGMA foreign_keys = ON")
            run("BEGIN IMMEDIATE")
            run("CREATE TABLE IF NOT EXISTS made_with (made TEXT NOT NULL)")
            held = run("SELECT made FROM made_with").fetchone()
            if held is not None and held[0] != made:  # with other settings: all is read anew
                for table in ("vectors", "passages", "words", "documents", "made_with"):
                    run(f"DROP TABLE IF EXISTS {table}")
                run("CREATE TABLE made_with (made TEXT NOT NULL)")
                held = None
            if held is None:
                run("INSERT INTO made_with VALUES (?)", (made,))
                run(
                    "CREATE TABLE documents "
                    "(id INTEGER PRIMARY KEY, name TEXT UNIQUE, digest BLOB, text TEXT)"
                )
                run(
                    "CREATE TABLE passages (id INTEGER PRIMARY KEY, document INTEGER NOT NULL, "
                    "part INTEGER NOT NULL, text TEXT NOT NULL)"
                )
                run("CREATE INDEX passages_of ON passages (document)")
                run("CREATE TABLE vectors (passage INTEGER PRIMARY KEY, numbers BLOB NOT NULL)")
                run("CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = 'porter unicode61')")
            run("COMMIT")
        except sqlite3.Error as error:
            if "fts5" in str(error):
                raise ConfigError(
                    "this Python's SQLite has no FTS5, which documents are searched with; a Python "
                    "from python.org or a distribution has it"
                ) from None
            raise self._fault(error) from None

    def update(self, documents: Mapping[str, str]) -> IndexChange:
        """Make the index that of `documents`, name → text; only what changed is read.

        Raises:
            StoreError: it cannot be written; it is as it was then.
        """
        run = self._db.execute
        try:
            run("BEGIN IMMEDIATE")
            try:
                held = {str(n): (int(i), bytes(d)) for i, n, d in run(
                    "SELECT id, name, digest FROM documents")}  # fmt: skip
                digests = {n: hashlib.sha256(t.encode()).digest() for n, t in documents.items()}
                stale = [i for n, (i, d) in held.items() if digests.get(n) != d]
                for document in stale:
                    self._forget(document)
                fresh = [n for n, d in digests.items() if n not in held or held[n][1] != d]
                for name in fresh:
                    self._add(name, documents[name], digests[name])
                run("COMMIT")
            except BaseException:
                run("ROLLBACK")
                raise
        except (sqlite3.Error, OSError) as error:
            raise self._fault(error) from None
        finally:
            self._vectors = None
        gone = len(held.keys() - documents.keys())
        return IndexChange(read=len(fresh), same=len(documents) - len(fresh), gone=gone)

    def _forget(self, document: int) -> None:
        run = self._db.execute
        of = "SELECT id FROM passages WHERE document = ?"
        run(f"DELETE FROM words WHERE rowid IN ({of})", (document,))
        run(f"DELETE FROM vectors WHERE passage IN ({of})", (document,))
        run("DELETE FROM passages WHERE document = ?", (document,))
        run("DELETE FROM documents WHERE id = ?", (document,))

    def _add(self, name: str, text: str, digest: bytes) -> None:
        run = self._db.execute
        document = run(
            "INSERT INTO documents VALUES (NULL, ?, ?, ?)", (name, digest, text)
        ).lastrowid
        made: list[tuple[int, str]] = []
        for number, part in enumerate(parts(text, self._part), start=1):
            for passage in pieces(part, self._passage):
                into = "INSERT INTO passages VALUES (NULL, ?, ?, ?)"
                row = run(into, (document, number, passage)).lastrowid
                run("INSERT INTO words (rowid, text) VALUES (?, ?)", (row, passage))
                made.append((int(row or 0), passage))
        if self._encoder is None:
            return
        for at in range(0, len(made), _AT_ONCE):
            some = made[at : at + _AT_ONCE]
            rows = np.asarray(self._encoder.embed([text for _, text in some]), np.float32)
            self._db.executemany(
                "INSERT INTO vectors VALUES (?, ?)",
                [(row, vector.tobytes()) for (row, _), vector in zip(some, rows, strict=True)],
            )

    def parts(self) -> dict[str, int]:
        """The name of each document → how many parts it has."""
        found = self._db.execute(
            "SELECT name, coalesce(max(part), 0) FROM documents LEFT JOIN passages "
            "ON document = documents.id GROUP BY documents.id ORDER BY documents.id"
        )
        return {str(name): int(parts) for name, parts in found}

    def text(self, document: str) -> str:
        """The whole text of a document."""
        found = self._db.execute(
            "SELECT text FROM documents WHERE name = ?", (document,)
        ).fetchone()
        return str(found[0])

    def search(
        self, query: str, count: int, *, within: Collection[tuple[str, int]] | None = None
    ) -> list[PassageFound]:
        """The `count` passages that fit `query` best, best first; fewer where there are fewer that
        share a word with it or have a vector.

        Args:
            within: only in these parts, each as (document, number).

        Raises:
            StoreError: it cannot be read.
        """
        try:
            scores: dict[int, float] = {}
            for ranking in (self._by_words(query), self._by_meaning(query)):
                for rank, passage in enumerate(ranking):
                    scores[passage] = scores.get(passage, 0.0) + 1 / (_FUSED + rank)
            found = []
            for passage in sorted(scores, key=lambda p: (-scores[p], p)):
                name, part, text = self._db.execute(
                    "SELECT name, part, passages.text FROM passages JOIN documents "
                    "ON documents.id = document WHERE passages.id = ?",
                    (passage,),
                ).fetchone()
                if within is None or (name, part) in within:
                    found.append(PassageFound(str(name), int(part), str(text)))
                if len(found) == count:
                    break
            return found
        except sqlite3.Error as error:
            raise self._fault(error) from None

    def _by_words(self, query: str) -> list[int]:
        words = dict.fromkeys(_WORD.findall(query))
        if not words:
            return []
        wanted = " OR ".join(f'"{word}"' for word in words)
        found = self._db.execute(
            "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank, rowid LIMIT ?",
            (wanted, _RANKED),
        )
        return [int(row) for (row,) in found]

    def _by_meaning(self, query: str) -> list[int]:
        if self._encoder is None or not query.strip():
            return []
        if self._vectors is None:
            rows = self._db.execute(
                "SELECT passage, numbers FROM vectors ORDER BY passage"
            ).fetchall()
            ids = [int(passage) for passage, _ in rows]
            width = len(rows[0][1]) // 4 if rows else 0
            joined = b"".join(bytes(numbers) for _, numbers in rows)
            self._vectors = ids, np.frombuffer(joined, np.float32).reshape(len(ids), width)
        ids, vectors = self._vectors
        if not ids:
            return []
        nearness = vectors @ np.asarray(self._encoder.embed([query]), np.float32)[0]
        return [ids[i] for i in np.argsort(-nearness, kind="stable")[:_RANKED]]
