"""Models of different vocabularies, mixed byte by byte: see `lattice`.

    text so far ─┬─▶ a lattice for each model at home, over its whole vocabulary ─┐
                 │                                                                ├─▶ mixture ─▶ byte
                 └─ Step ─▶ LM ─ Steps ─▶ its likeliest tokens, as they are spelt ┘
                    (only where a token of the LM's may have ended)

A mixture of bytes is another distribution than what the same rule makes of tokens: a product of
probabilities is renormalised at each byte. Temperature and the like are of a byte, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from weakref import WeakKeyDictionary

import numpy as np

from cosilo.models.base import ThreadModel
from cosilo.strategies.mixing.lattice import END, UNITS, Behind, Lattice, is_whole
from cosilo.strategies.mixing.mixture import Mixture
from cosilo.strategies.mixing.numbers import Row, normalised
from cosilo.strategies.mixing.reading import HomeReader, pieces_of
from cosilo.strategies.mixing.spelling import Spellings
from cosilo.strategies.thread import Thread

LEAST = 1e-3
"""See `Lattice`. So much is taken to be spread over all bytes, so that none is impossible."""


class ByteSource:
    """The reply's bytes.

    Args:
        thread: of the prompt that the LM is to see.
        readers: the models at home, each in front of its own prompt.
        least: see `Lattice`, for all models.
    """

    def __init__(
        self,
        mixture: Mixture,
        thread: Thread,
        readers: Sequence[HomeReader],
        *,
        least: float = LEAST,
    ) -> None:
        self._mixture = mixture
        self._thread = thread
        self._words = readers[0].model
        self._readers = readers
        self._least = least
        self._homes = [Lattice(_Home(reader).behind, least=least) for reader in readers]
        self._large = Lattice(self._theirs, least=least)
        self._text = b""
        self._shown: tuple[Row, Row] | None = None  # what comes next, and the prior's own opinion

    @property
    def ends(self) -> Sequence[int]:
        return (END,)

    @property
    def count(self) -> int:
        """Tokens of the first model at home that the reply has."""
        whole = self._text.decode("utf-8", "ignore")
        return len(self._words.cut(whole)[0]) if whole else 0

    @property
    def asked(self) -> int:
        return self._large.asked

    def piece(self, token: int) -> bytes:
        return bytes([token]) if token != END else b""

    def first(self, piece: bytes) -> bytes:
        return piece

    def units(self, text: str) -> Sequence[int]:
        return list(text.encode())

    async def prompt_tokens(self) -> int:
        return await self._readers[0].prompt_tokens()

    async def next(self) -> Row:
        """What comes next.

        Raises:
            what models, the thread and its channel raise.
        """
        homes = [await lattice.next() for lattice in self._homes]
        prior = homes[self._mixture.prior]
        large = await self._large.next(prior)
        rows = [self._logs(p) for p in homes]
        row = self._mixture.joined(self._logs(large), rows)
        self._shown = (normalised(row + _possible(_unfinished(self._text))), prior)
        return self._shown[0]

    def fits(self, unit: int) -> bool:
        return bool(np.isfinite(_possible(_unfinished(self._text))[unit]))

    async def take(self, unit: int) -> None:
        if self._shown is None:
            await self.next()
        assert self._shown is not None
        prior, self._shown = self._shown[1], None
        ending = [lattice.take(unit) for lattice in self._homes]
        self._large.take(unit, prior, ending[self._mixture.prior])
        self._text += bytes([unit])

    def _logs(self, p: Row) -> Row:
        with np.errstate(divide="ignore"):
            return np.asarray(np.log((1 - self._least) * p + self._least / UNITS))

    async def _theirs(self, text: bytes, tail: tuple[int, ...]) -> Behind | None:
        """What the LM says behind `text`; it cannot be asked within a character."""
        if not is_whole(text):
            return None
        new = text[len(self._thread.text) :].decode()
        said = await self._thread.go_on(new, spell=True)
        assert said.top.ids is not None
        ids, p = said.top.ids[0], np.exp(said.top.logprobs[0].astype(np.float64))
        pieces = [said.spelt[int(i)] for i in ids]
        spelling = Spellings(pieces)
        end = sum(float(x) for i, x in zip(ids.tolist(), p, strict=True) if i in self._thread.ends)
        order = spelling.order
        rest = float(np.exp(said.top.rest[0]))
        return Behind(spelling, p[order], ids[order].astype(np.int64), end, rest)


_first: WeakKeyDictionary[ThreadModel, Spellings] = WeakKeyDictionary()
_later: WeakKeyDictionary[ThreadModel, Spellings] = WeakKeyDictionary()


class _Home:
    """A model at home, as a lattice asks it."""

    def __init__(self, reader: HomeReader) -> None:
        self._reader = reader

    async def behind(self, text: bytes, tail: tuple[int, ...]) -> Behind:
        model = self._reader.model
        before = len(text) - sum(len(model.piece(token)) for token in tail)
        whole = text[: max(0, before)].decode("utf-8", "ignore")
        cut = list(model.cut(whole)[0]) if whole else []
        row = np.exp(await self._reader.at([*cut, *tail]))
        spelling = await asyncio.to_thread(_spelling, model, bool(text))
        end = float(row[sorted(model.ends)].sum())
        return Behind(spelling, row[spelling.order], spelling.order, end)


def _spelling(model: ThreadModel, within: bool) -> Spellings:
    """Of the model's vocabulary, within a reply or at its beginning."""
    kept = _later if within else _first
    if model not in kept:
        size = model.vocabulary_size
        pieces = pieces_of(model) if within else [model.spelt([i])[0] for i in range(size)]
        kept[model] = Spellings([b"" if i in model.ends else p for i, p in enumerate(pieces)])
    return kept[model]


def _unfinished(text: bytes) -> bytes:
    """The beginning of a character that a text ends with."""
    for back in range(1, min(3, len(text)) + 1):
        if not is_whole(text[-back:]) and text[-back] >= 0xC0:
            return text[-back:]
    return b""


@cache
def _possible(begun: bytes) -> Row:
    """0 for each byte that goes on with a text which ends with `begun`, and for the end where it may
    end; else -inf."""
    row = np.full(UNITS, -np.inf)
    for byte in range(256):
        found = begun + bytes([byte])
        try:
            found.decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                continue
        row[byte] = 0.0
    if not begun:
        row[END] = 0.0
    row.setflags(write=False)
    return row
