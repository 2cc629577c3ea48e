"""Eight, four or two bits a number: multiples of a step that a group of columns of a row shares.

    columns with the largest numbers ──▶ fp16
    the others, in groups ──▶ a step for each (fp16) and a whole number for each number

The columns kept apart are those with the largest magnitudes of any row: in a language model's states
a few columns hold numbers hundreds of times as large as all others, and would make their group's step
as large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.wire.codecs.base import Floats, checked, finite, sized
from cosilo.boundary.wire.codecs.floats import Fp16
from cosilo.errors import UnexpectedReplyError

GROUPS = {8: 0, 4: 64, 2: 32}
"""Bits → columns that share a step, when nobody says; 0 for all."""

APART = 8
"""Columns that are kept apart; of few columns, an eighth."""

_FP16 = Fp16()
_MIDDLE = {8: 128.0, 4: 8.0, 2: 1.5}  # the level of zero; two bits have none for it
_REACH = {8: 127.0, 4: 7.0, 2: 1.5}
_HIGHEST = np.float32(3.4e38)
_NARROWER = {8: (1.0,), 4: (1.0, 0.85), 2: (1.0, 0.85, 0.7, 0.55)}


@dataclass(frozen=True)
class Grouped:
    """Steps of groups.

    With 8 bits a number is at most 0.57 steps from what comes out, a step being a 127th of its
    group's largest magnitude. With fewer, the step is the one, of a few, that loses least in
    squares, and large numbers are cut: a group never loses more than if each of its numbers were half
    a step off, a step being a 7th of the largest magnitude (4 bits) or two thirds of it (2 bits).

    Attributes:
        bits: 8, 4 or 2.
        group: how many columns share a step; 0 for all of a row.
        apart: how many columns are kept apart, at most.

    Raises:
        ValueError: there are no such groups.
    """

    bits: int
    group: int
    apart: int = APART

    def __post_init__(self) -> None:
        if self.bits not in GROUPS or not 0 <= self.group <= 1 << 16:
            raise ValueError(f"no groups of {self.group} columns with {self.bits} bits")

    @property
    def name(self) -> str:
        usual = self.group == GROUPS[self.bits]
        return f"int{self.bits}" if usual else f"int{self.bits}:{self.group}"

    def size(self, n: int, d: int) -> int:
        apart, rest, groups = self._parts(d)
        first = 4 * apart + (_FP16.size(n, apart) if apart else 0)
        return first + _FP16.size(n, groups) + n * -(-rest * self.bits // 8)

    def pack(self, array: NDArray[np.floating]) -> bytes:
        rows = checked(array)
        n, d = rows.shape
        apart, rest, groups = self._parts(d)
        by_size = np.argsort(-np.abs(rows).max(axis=0), kind="stable")
        chosen, left = np.sort(by_size[:apart]), np.sort(by_size[apart:])
        packed = chosen.astype("<u4").tobytes()
        if apart:
            packed += _FP16.pack(rows[:, chosen])
        width = self.group or rest
        padded = np.zeros((n, groups * width), np.float32)
        padded[:, :rest] = rows[:, left]
        numbers = padded.reshape(n, groups, width)
        # A step short of the largest float32, so that no level is rounded beyond it.
        largest = np.minimum(np.abs(numbers).max(axis=2), _HIGHEST) / _REACH[self.bits]
        best, steps = np.full((n, groups), np.inf), np.zeros((n, groups), np.float32)
        for factor in _NARROWER[self.bits]:
            tried = largest * np.float32(factor)
            lost = self._levels(numbers, tried) - _MIDDLE[self.bits]
            lost *= tried[:, :, None]
            lost -= numbers
            squares = np.einsum("ngw,ngw->ng", lost, lost, dtype=np.float64)
            steps = np.where(squares < best, tried, steps)
            best = np.minimum(squares, best)
        packed_steps = _FP16.pack(steps)
        steps = _FP16.unpack(packed_steps, n, groups)
        levels = self._levels(numbers, steps).astype(np.uint8)
        return packed + packed_steps + self._bits(levels.reshape(n, -1)[:, :rest])

    def unpack(self, packed: bytes, n: int, d: int) -> Floats:
        sized(self, packed, n, d)
        apart, rest, groups = self._parts(d)
        chosen = np.frombuffer(packed, "<u4", apart).astype(np.int64)
        if (np.diff(chosen, prepend=-1, append=d) <= 0).any():
            raise UnexpectedReplyError("the columns kept apart are not in order")
        at = 4 * apart
        found = np.empty((n, d), np.float32)
        if apart:
            end = at + _FP16.size(n, apart)
            found[:, chosen] = _FP16.unpack(packed[at:end], n, apart)
            at = end
        end = at + _FP16.size(n, groups)
        steps = _FP16.unpack(packed[at:end], n, groups)
        levels = self._numbers(np.frombuffer(packed, np.uint8, offset=end).reshape(n, -1), rest)
        if (steps < 0).any() or (self.bits > 2 and not levels.all()):
            raise UnexpectedReplyError("an array has a level that there is not")
        left = np.ones(d, bool)
        left[chosen] = False
        with np.errstate(over="ignore"):  # looked at below
            numbers = (levels - np.float32(_MIDDLE[self.bits])).astype(np.float32, copy=False)
            width = self.group or rest
            for group in range(groups):
                numbers[:, group * width : (group + 1) * width] *= steps[:, group, None]
        found[:, left] = numbers
        return finite(found)

    def _parts(self, d: int) -> tuple[int, int, int]:
        """How many columns are kept apart, how many are not, and in how many groups these are."""
        apart = min(self.apart, d // 8)
        rest = d - apart
        return apart, rest, -(-rest // (self.group or rest))

    def _levels(self, numbers: Floats, steps: Floats) -> Floats:
        """The level nearest to each number; of a group whose step is 0, any."""
        scale = np.where(steps > 0, 1 / np.where(steps > 0, steps.astype(np.float64), 1), 0)
        levels = np.rint(numbers * scale[:, :, None] + _MIDDLE[self.bits])
        lowest = 1 if self.bits > 2 else 0
        found: Floats = levels.clip(lowest, 2**self.bits - 1).astype(np.float32)
        return found

    def _bits(self, levels: NDArray[np.uint8]) -> bytes:
        """Each row's levels, a byte's first one in its lowest bits."""
        each = 8 // self.bits
        n, rest = levels.shape
        padded = np.zeros((n, -(-rest // each), each), np.uint8)
        padded.reshape(n, -1)[:, :rest] = levels
        found = np.zeros(padded.shape[:2], np.uint8)
        for place in range(each):
            found |= padded[:, :, place] << np.uint8(place * self.bits)
        return found.tobytes()

    def _numbers(self, packed: NDArray[np.uint8], rest: int) -> NDArray[np.uint8]:
        each = 8 // self.bits
        levels = np.empty((*packed.shape, each), np.uint8)
        for place in range(each):
            levels[:, :, place] = packed >> np.uint8(place * self.bits) & np.uint8(2**self.bits - 1)
        found = levels.reshape(len(packed), -1)
        if found[:, rest:].any():
            raise UnexpectedReplyError("something stands behind a row's last number")
        return found[:, :rest]
