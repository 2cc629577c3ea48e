"""A model of tokens as one of bytes: every way to cut the text into tokens counts.

    text so far   r e f u n|d ?          a token may have ended at any place of the text
    boundaries    ▲     ▲   ▲            each with the probability that one did, α, and what comes
                  │     └ α p(und…)      behind it; those whose tokens go on as the text does stay open
                  └ α p(refund…)

    P(next byte b) = Σ over boundaries  α(m) · p(tokens behind m that begin with text[m:] + b)
    α(n)           = Σ over boundaries  α(m) · p(the token text[m:n])

That is the forward algorithm. It is exact for the process in which a token is drawn, joined to the
text, and the text cut anew before the next (which is how replies grow on a thread): what follows a
boundary depends on the text in front of it alone. See Vieira et al., arXiv 2412.03719, and Phan et al.,
arXiv 2410.09303, for models that never cut anew.

Three things make it inexact, all of them measured (docs/results.md):

* a boundary that is less likely than `least` is not asked about, so its tokens are left out;
* of a model that tells its likeliest tokens only, the others together are taken to go on, and to end,
  as those of another model do;
* where a model cannot be asked, within a character, the same is done with all that it would have said.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import ModelError
from cosilo.strategies.mixing.numbers import Row
from cosilo.strategies.mixing.spelling import ENDED, Spellings

UNITS = 257
"""All bytes, and the end of the reply."""
END = 256

_GONE = 1e-12  # the share of what is open below which a boundary is forgotten


@dataclass(frozen=True, eq=False)
class Behind:
    """What a model says behind a boundary.

    Attributes:
        spelling: of the tokens that it tells of.
        p: their probabilities, in the spelling's order.
        ids: the tokens themselves, in that order.
        end: the probability that the reply ends here.
        rest: what all other tokens have together.
    """

    spelling: Spellings
    p: NDArray[np.float64]
    ids: NDArray[np.int64]
    end: float
    rest: float = 0.0


Ask = Callable[[bytes, tuple[int, ...]], Awaitable[Behind | None]]
"""(the text, those of its tokens that are parts of its last character) → what comes; None where that
cannot be asked."""


@dataclass
class _Open:
    """A boundary some of whose tokens go on as the text does: those from `low` to `high`."""

    behind: Behind
    tail: tuple[int, ...]
    weight: float
    low: int
    high: int
    depth: int = 0

    @property
    def mass(self) -> float:
        return self.weight * float(self.behind.p[self.low : self.high].sum())


class Lattice:
    """One model's opinion of a text that grows byte by byte.

    Args:
        least: of all ways to have come to a place, the share below which that a token ends here is
            not followed; 0 follows everything.

    Attributes:
        asked: how many boundaries the model was asked about.
    """

    def __init__(self, ask: Ask, *, least: float) -> None:
        self.asked = 0
        self._ask = ask
        self._least = least
        self._text = b""
        self._tail: tuple[int, ...] = ()
        self._open: list[_Open] = []
        self._ended = 1.0  # the share of all ways in which a token ends where the text does
        self._rest = 0.0
        self._shown: Row = np.zeros(UNITS)

    async def next(self, other: Row | None = None) -> Row:
        """The probability of each byte, and of the end. The sum is 1.

        Args:
            other: another model's, for what this one does not tell of.
        """
        await self._look()
        found = self._summed(other)
        if not found.any():  # nothing that it told of goes on so: it is asked anew from here
            self._open, self._rest, self._ended = [], 0.0, 1.0
            await self._look()
            found = self._summed(other)
        if not found.any():
            raise ModelError("a model gave no probabilities: it takes every token for impossible")
        self._shown = found
        return np.asarray(found / found.sum())

    def _summed(self, other: Row | None) -> Row:
        found = np.zeros(UNITS)
        for one in self._open:
            column = one.behind.spelling.column(one.low, one.high, one.depth)
            counted = np.bincount(column, one.behind.p[one.low : one.high], minlength=UNITS)
            found[:ENDED] += one.weight * counted[:ENDED]
            if not one.depth:
                found[END] += one.weight * one.behind.end
        if self._rest and other is not None:
            found += self._rest * other
        return found

    def take(self, byte: int, other: Row | None = None, ending: float = 0.0) -> float:
        """The text goes on with `byte`, after `next`. Where that held it impossible, the model is asked
        anew from there.

        Args:
            other: as for `next`.
            ending: what this returned for the other model.

        Returns:
            the probability that a token ends where the text does now.
        """
        total = float(self._shown[byte])
        self._text += bytes([byte])
        if not total > 0:
            self._open, self._rest, self._ended, self._tail = [], 0.0, 1.0, ()
            return 1.0
        ended, heaviest = 0.0, 0.0
        left: list[_Open] = []
        for one in self._open:
            low, middle, high = one.behind.spelling.narrowed(one.low, one.high, one.depth, byte)
            one.weight /= total
            here = one.weight * float(one.behind.p[low:middle].sum())
            if here > heaviest:
                token = low + int(np.argmax(one.behind.p[low:middle]))
                heaviest, self._tail = here, (*one.tail, int(one.behind.ids[token]))
            ended += here
            one.low, one.high, one.depth = middle, high, one.depth + 1
            if high > middle and one.mass > _GONE:
                left.append(one)
        self._open = left
        if self._rest and other is not None:
            rest = self._rest * float(other[byte]) / total
            ended, self._rest = ended + rest * ending, rest * (1.0 - ending)
        self._ended = ended
        if is_whole(self._text):
            self._tail = ()
        return ended

    async def _look(self) -> None:
        """Ask what comes behind a token that ends here, if one may."""
        ended, self._ended = self._ended, 0.0
        goes_on = self._rest + sum(one.mass for one in self._open)
        if not ended or (ended < self._least * (ended + goes_on) and goes_on):
            return
        behind = await self._ask(self._text, self._tail)
        if behind is None:
            self._rest += ended
            return
        self.asked += 1
        self._rest += ended * behind.rest
        self._open.append(_Open(behind, self._tail, ended, 0, len(behind.spelling)))


def is_whole(text: bytes) -> bool:
    """Whether the beginning of a text does not end within a character."""
    for back in range(1, min(4, len(text)) + 1):
        byte = text[-back]
        if byte < 0x80 or byte >= 0xC0:  # here its last character begins
            return back == (1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
    return True
