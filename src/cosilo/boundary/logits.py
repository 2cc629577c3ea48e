"""The k most probable tokens at each place of a text, in few bytes.

    logits ─ top_k ─▶ TopK ─ pack ─▶ bytes ─ unpack ─▶ TopK
    (n, V)            ids, log-probabilities, rest mass

An id and its place are one number, id × places + place; these are sorted and their gaps coded, so a
token that is likely at many places costs little at each. Log-probabilities are quantised as steps
below the place's top one, and what the tokens left out have together, the rest mass, goes along:
what comes out is a distribution again. Gaps and steps pass through Huffman codes (zlib's).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import UnexpectedReplyError

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

STEP = 0.0625
"""Natural-log units between neighbouring values; the mean error is a quarter of it."""

_HEAD = struct.Struct("<BBIIIf5I")
_VERSION = 1
_WITH_IDS = 1
_ESCAPE = 255  # a symbol that says: more is in the list of what did not fit
_DEEPEST = 65_535
_MOST = 1 << 24  # numbers in one message, and tokens in a vocabulary
_LOGIT = 2_048.0  # steps per unit of the rest mass's log-odds


@dataclass(frozen=True, eq=False)
class TopK:
    """What is known of `n` next-token distributions.

    Attributes:
        ids: the tokens, shape (n, k), ascending in each row; None where only the sorted values
            were given.
        logprobs: their natural-log probabilities, shape (n, k); without ids descending.
        rest: log of the probability that all other tokens have together, shape (n,); -inf when
            there are none.
        size: how many tokens the vocabulary has.
        error: the standard deviation that rounding added to `logprobs`.
    """

    ids: NDArray[np.int32] | None
    logprobs: Floats
    rest: Floats
    size: int
    error: float = 0.0

    def __len__(self) -> int:
        return len(self.rest)

    def parts(self, lengths: Sequence[int]) -> list[TopK]:
        """Cut into pieces of these lengths: undoes `joined`.

        Raises:
            UnexpectedReplyError: the lengths do not add up.
        """
        if sum(lengths) != len(self) or min(lengths, default=0) < 0:
            raise UnexpectedReplyError(
                f"log-probabilities came for {len(self)} places, not for {sum(lengths)}"
            )
        ends = np.cumsum(lengths)
        return [
            self.rows(np.arange(end - length, end))
            for length, end in zip(lengths, ends, strict=True)
        ]

    def rows(self, places: Integers) -> TopK:
        """What is known at some of the places."""
        ids = None if self.ids is None else self.ids[places]
        return TopK(ids, self.logprobs[places], self.rest[places], self.size, self.error)


def joined(tops: Sequence[TopK]) -> TopK:
    """One after the other; all of one vocabulary, and of as many tokens a place."""
    ids = [t.ids for t in tops if t.ids is not None]
    return TopK(
        np.concatenate(ids) if ids else None,
        np.concatenate([t.logprobs for t in tops]),
        np.concatenate([t.rest for t in tops]),
        tops[0].size,
        max(t.error for t in tops),
    )


def top_k(logits: Floats, k: int, *, ids: bool = True) -> TopK:
    """The `k` most probable tokens of each row of `logits`, exactly.

    Args:
        logits: shape (n, vocabulary), not normalised.
        ids: say which tokens they are.

    Raises:
        ValueError: k < 1, or a row that is no distribution (NaN, +inf, all -inf).
    """
    size = logits.shape[1]
    if k < 1:
        raise ValueError(f"k = {k!r} is not positive")
    if not np.isfinite(logits.max(axis=1, initial=-np.inf)).all():
        raise ValueError("a row of logits holds no number, or an infinite one")
    k = min(k, size)
    chosen = np.argpartition(logits, size - k, axis=1)[:, size - k :]
    chosen.sort(axis=1)
    top = logits.max(axis=1, keepdims=True)
    weights = logits - top
    np.exp(weights, out=weights)
    total = weights.sum(axis=1, dtype=np.float64)
    kept = np.take_along_axis(logits, chosen, axis=1)
    logprobs = (kept - top - np.log(total)[:, None]).astype(np.float32)
    np.put_along_axis(weights, chosen, 0.0, axis=1)
    with np.errstate(divide="ignore"):
        rest = np.log(weights.sum(axis=1, dtype=np.float64) / total).astype(np.float32)
    if not ids:
        return TopK(None, -np.sort(-logprobs, axis=1), rest, size)
    return TopK(chosen.astype(np.int32), logprobs, rest, size)


def pack(top: TopK, *, step: float = STEP) -> bytes:
    """`top` in few bytes, its values rounded to multiples of `step` below each row's top one."""
    n, k = top.logprobs.shape
    below = (top.logprobs.max(axis=1, initial=-np.inf, keepdims=True) - top.logprobs) / step
    steps = np.minimum(np.rint(below), _DEEPEST).astype(np.int64)
    deepest = steps.max(axis=1, initial=0)
    if top.ids is None:
        steps.sort(axis=1)
        gaps = _coded(np.empty(0, np.int64))
        symbols = np.diff(steps, axis=1, prepend=0).ravel()
    else:
        keys = (top.ids.astype(np.int64) * n + np.arange(n)[:, None]).ravel()
        order = np.argsort(keys)
        gaps = _coded(np.diff(keys[order], prepend=-1) - 1)
        symbols = (deepest[:, None] - steps).ravel()[order]
    sections = (*gaps, *_symbols(symbols), _rests(top.rest, deepest))
    head = _HEAD.pack(
        _VERSION, _WITH_IDS * (top.ids is not None), n, k, top.size, step, *map(len, sections)
    )
    return b"".join((head, *sections))


def unpack(data: bytes) -> TopK:
    """What `pack` was given, its values rounded.

    Raises:
        UnexpectedReplyError: the bytes are no packed log-probabilities. Memory is taken only in
            proportion to their length.
    """
    try:
        return _unpack(data)
    except (struct.error, zlib.error, ValueError, IndexError) as error:
        raise UnexpectedReplyError(
            f"{len(data)} bytes are no packed log-probabilities ({error})"
        ) from None


def _unpack(data: bytes) -> TopK:
    version, with_ids, n, k, size, step, *lengths = _HEAD.unpack_from(data)
    if version != _VERSION or with_ids not in (0, _WITH_IDS):
        raise ValueError(f"format {version}/{with_ids} is unknown")
    if not (0 < k <= size <= _MOST and 0 < step < 1e3):
        raise ValueError("the header makes no sense")
    if sum(lengths) + _HEAD.size != len(data):
        raise ValueError("the sections are cut")
    # A Huffman code takes at least one bit a symbol, so what the header claims can be believed.
    if n * k > min(8 * lengths[2], _MOST) or 4 * n != lengths[4]:
        raise ValueError("the header claims more than the bytes can hold")
    ends = np.cumsum([_HEAD.size, *lengths])
    classes, low, plain, more, rests = (data[a:b] for a, b in pairwise(ends))
    symbols = _unsymbols(plain, more, n * k)
    rest, deepest = _unrests(rests)
    if with_ids:
        gaps = _uncoded(classes, low, n * k)
        if gaps.sum(dtype=np.float64) + n * k > n * size:  # in floats, which do not wrap around
            raise ValueError("a token id is out of range")
        keys = np.cumsum(gaps + 1) - 1
        rows, ids = keys % max(n, 1), keys // max(n, 1)
        order = np.argsort(rows, kind="stable")
        if (np.bincount(rows, minlength=n) != k).any():
            raise ValueError("a row has not k tokens")
        ids = ids[order].reshape(n, k)
        steps = deepest[:, None] - symbols[order].reshape(n, k)
    else:
        steps = np.cumsum(symbols.reshape(n, k), axis=1)
    if (steps < 0).any():
        raise ValueError("a probability is above the top one")
    below = -step * (steps - steps.min(axis=1, initial=_DEEPEST, keepdims=True))
    kept = np.log1p(-np.exp(rest)) - np.log(np.exp(below).sum(axis=1))
    logprobs = below + kept[:, None]
    return TopK(
        ids.astype(np.int32) if with_ids else None,
        logprobs.astype(np.float32),
        rest.astype(np.float32),
        size,
        step / math.sqrt(12),
    )


def _huffman(symbols: NDArray[np.uint8]) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(symbols.tobytes()) + coder.flush()


def _unhuffman(data: bytes, count: int) -> NDArray[np.uint8]:
    decoder = zlib.decompressobj(-15)
    found = decoder.decompress(data, count + 1)
    if len(found) != count:
        raise ValueError("a section does not hold what the header says")
    return np.frombuffer(found, np.uint8)


def _coded(numbers: Integers) -> tuple[bytes, bytes]:
    """Numbers ≥ 0: each one's length in bits, Huffman-coded, and the bits below its leading one."""
    lengths = _bit_lengths(numbers)
    extra = np.maximum(lengths - 1, 0)
    starts = np.cumsum(extra) - extra
    bits = np.zeros(int(extra.sum()), np.uint8)
    for j in range(int(extra.max(initial=0))):
        has = extra > j
        bits[starts[has] + j] = (numbers[has] >> (extra[has] - 1 - j)) & 1
    return _huffman(lengths.astype(np.uint8)), np.packbits(bits).tobytes()


def _uncoded(classes: bytes, low: bytes, count: int) -> Integers:
    lengths = _unhuffman(classes, count).astype(np.int64)
    if lengths.max(initial=0) > 52:
        raise ValueError("a number is too large")
    extra = np.maximum(lengths - 1, 0)
    starts = np.cumsum(extra) - extra
    if (int(extra.sum()) + 7) // 8 != len(low):
        raise ValueError("the bits are cut")
    bits = np.unpackbits(np.frombuffer(low, np.uint8))
    numbers = (lengths > 0).astype(np.int64)
    for j in range(int(extra.max(initial=0))):
        has = extra > j
        numbers[has] = numbers[has] << 1 | bits[starts[has] + j]
    return numbers


def _bit_lengths(numbers: Integers) -> Integers:
    # frexp's exponent is exact below 2**53, which ids × places stay under.
    return np.where(numbers > 0, np.frexp(numbers.astype(np.float64))[1], 0).astype(np.int64)


def _symbols(numbers: Integers) -> tuple[bytes, bytes]:
    plain = np.minimum(numbers, _ESCAPE)
    more = numbers[plain == _ESCAPE] - _ESCAPE
    return _huffman(plain.astype(np.uint8)), more.astype("<u2").tobytes()


def _unsymbols(plain: bytes, more: bytes, count: int) -> Integers:
    numbers = _unhuffman(plain, count).astype(np.int64)
    at = numbers == _ESCAPE
    if 2 * int(at.sum()) != len(more):
        raise ValueError("a section does not hold what the header says")
    numbers[at] += np.frombuffer(more, "<u2")
    return numbers


def _rests(rest: Floats, deepest: Integers) -> bytes:
    """Two bytes for the log-odds of the rest mass (0: there is none), two for the deepest step."""
    mass = np.exp(rest.astype(np.float64))
    with np.errstate(divide="ignore"):
        odds = np.log(mass) - np.log1p(-np.minimum(mass, 1 - 1e-12))
    coded = np.where(mass > 0, np.clip(np.rint(odds * _LOGIT) + 32_768, 1, _DEEPEST), 0)
    return np.stack([coded, deepest], axis=1).astype("<u2").tobytes()


def _unrests(data: bytes) -> tuple[Any, Integers]:
    coded, deepest = np.frombuffer(data, "<u2").reshape(-1, 2).astype(np.int64).T
    odds = (coded - 32_768) / _LOGIT
    rest = np.where(coded > 0, -np.logaddexp(0.0, -odds), -np.inf)
    return rest, deepest
