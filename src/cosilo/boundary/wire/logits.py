"""The k most probable tokens at each place of a text, in few bytes.

    logits ─ top_k ─▶ TopK ─ pack ─▶ bytes ─ unpack ─▶ TopK
    (n, V)            ids, log-probabilities, rest mass

An id and its place are one number, id × places + place; these are sorted and their gaps coded, so a
token that is likely at many places costs little at each. Log-probabilities are quantised as steps
below the place's top one, and what the tokens left out have together, the rest mass, goes along:
what comes out is a distribution again. Gaps and steps pass through Huffman codes (zlib's).

Of a place or two that would be mostly code tables. `pack_few` codes each place by itself, without any,
where that is shorter.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.wire import rice
from cosilo.errors import UnexpectedReplyError

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

STEP = 0.0625
"""Natural-log units between neighbouring values; the mean error is a quarter of it."""

_HEAD = struct.Struct("<BBIIIf5I")
_FEW = struct.Struct("<BHHI")  # version, places, tokens a place, tokens in the vocabulary
_FEW_PLACE = struct.Struct("<BHH")  # two parameters, rest mass, deepest step
_FEW_PLACES, _FEW_TOKENS = 16, 1024  # that are still few
_VERSION, _VERSION_FEW = 1, 2
_WITH_IDS = 1
_ESCAPE = 255  # a symbol that says: more is in the list of what did not fit
_DEEPEST = 65_535
_MOST = 1 << 24  # numbers in one message, and tokens in a vocabulary
_BLOCK = 1 << 14  # numbers that are worked with at a time, so that only what results takes memory
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
            self.rows(slice(end - length, end)) for length, end in zip(lengths, ends, strict=True)
        ]

    def rows(self, places: Integers | slice) -> TopK:
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


def pack_few(top: TopK) -> bytes:
    """`top` as `pack` has it or, of a few places with ids, without code tables: what is shorter."""
    n, k = top.logprobs.shape
    if top.ids is None or not 0 < n <= _FEW_PLACES or k > _FEW_TOKENS:
        return pack(top)
    below = (top.logprobs.max(axis=1, keepdims=True) - top.logprobs) / STEP
    steps = np.minimum(np.rint(below), _DEEPEST).astype(np.int64)
    deepest = steps.max(axis=1, initial=0)
    heads, digits = [], []
    rests = _rests(top.rest, deepest)
    for i in range(n):
        gaps = (np.diff(top.ids[i].astype(np.int64), prepend=-1) - 1).tolist()
        above = (deepest[i] - steps[i]).tolist()
        r, s = rice.parameter(gaps), rice.parameter(above)
        heads.append(bytes([r << 4 | s]) + rests[4 * i : 4 * i + 4])
        digits += [rice.bits(gaps, r), rice.bits(above, s)]
    found = _FEW.pack(_VERSION_FEW, n, k, top.size) + b"".join(heads) + rice.packed("".join(digits))
    return found if n == 1 else min(found, pack(top), key=len)  # tables never pay for one place


def unpack(data: bytes, *, most: int = 1 << 22) -> TopK:
    """What `pack` or `pack_few` was given, its values rounded.

    Args:
        most: numbers that may come; a message that claims more is refused before it takes memory.

    Raises:
        UnexpectedReplyError: the bytes are no packed log-probabilities, or too many.
    """
    few = data[:1] == bytes([_VERSION_FEW])
    try:
        return (_unpack_few if few else _unpack)(data, min(most, _MOST))
    except (struct.error, zlib.error, ValueError, IndexError) as error:
        raise UnexpectedReplyError(
            f"{len(data)} bytes are no packed log-probabilities ({error})"
        ) from None


def places_in(data: bytes) -> int:
    """How many places `data`, of `pack` or `pack_few`, says that it holds; 0 where it is neither."""
    few = data[:1] == bytes([_VERSION_FEW])
    head = _FEW if few else _HEAD
    if len(data) < head.size:
        return 0
    return int(head.unpack_from(data)[1 if few else 2])


def _unpack_few(data: bytes, most: int) -> TopK:
    _, n, k, size = _FEW.unpack_from(data)
    start = _FEW.size + n * _FEW_PLACE.size
    if not (0 < n <= _FEW_PLACES and 0 < k <= min(size, _FEW_TOKENS) and size <= _MOST):
        raise ValueError("the header makes no sense")
    if 2 * n * k > 8 * (len(data) - start):  # every number takes a bit
        raise ValueError("the header claims more than the bytes can hold")
    if n * k > most:
        raise ValueError(f"{n} places of {k} numbers are more than the {most} that may come")
    ids, steps = np.empty((n, k), np.int64), np.empty((n, k), np.int64)
    heads = [_FEW_PLACE.unpack_from(data, _FEW.size + i * _FEW_PLACE.size) for i in range(n)]
    digits, at = rice.unpacked(data[start:]), 0
    for i, (parameters, _, deepest) in enumerate(heads):
        for row, r in ((ids[i], parameters >> 4), (steps[i], parameters & 15)):
            found = list(islice(rice.numbers(digits, at, r), k))
            row[:] = [min(number, _MOST) for number, _ in found]
            at = found[-1][1]
        ids[i] = np.cumsum(ids[i] + 1) - 1
        steps[i] = deepest - steps[i]
    if "0" in digits[at:] or len(digits) - at > 7:
        raise ValueError("something stands behind the last number")
    if ids.max() >= size:
        raise ValueError("a token id is out of range")
    logprobs = steps.astype(np.float32)
    rest, _ = _unrests(b"".join(struct.pack("<HH", *head[1:]) for head in heads))
    _normalise(logprobs, rest, STEP)
    return TopK(ids.astype(np.int32), logprobs, rest.astype(np.float32), size, STEP / math.sqrt(12))


def _unpack(data: bytes, most: int) -> TopK:
    version, with_ids, n, k, size, step, *lengths = _HEAD.unpack_from(data)
    if version != _VERSION or with_ids not in (0, _WITH_IDS):
        raise ValueError(f"format {version}/{with_ids} is unknown")
    if not (0 < k <= size <= _MOST and 0 < step < 1e3):
        raise ValueError("the header makes no sense")
    if sum(lengths) + _HEAD.size != len(data):
        raise ValueError("the sections are cut")
    # A Huffman code takes at least one bit a symbol, so what the header claims can be believed.
    bits = 8 * min(lengths[0], lengths[2]) if with_ids else 8 * lengths[2]
    if n * k > bits or 4 * n != lengths[4]:
        raise ValueError("the header claims more than the bytes can hold")
    if n * k > most:
        raise ValueError(f"{n} places of {k} numbers are more than the {most} that may come")
    ends = np.cumsum([_HEAD.size, *lengths])
    classes, low, plain, more, rests = (data[a:b] for a, b in pairwise(ends))
    symbols = _Symbols(plain, more, n * k)
    rest, deepest = _unrests(rests)
    logprobs = np.empty((n, k), np.float32)
    ids = np.empty((n, k), np.int32) if with_ids else None
    if ids is not None:
        _place(_Gaps(classes, low, n * k), symbols, ids, logprobs, size)
        np.subtract(deepest[:, None], logprobs, out=logprobs)
    else:
        _climb(symbols, logprobs)
    _normalise(logprobs, rest, step)
    return TopK(ids, logprobs, rest.astype(np.float32), size, step / math.sqrt(12))


def _place(
    gaps: _Gaps, symbols: _Symbols, ids: NDArray[np.int32], found: Floats, size: int
) -> None:
    """Put each number where its key says: its token into `ids`, its symbol into `found`."""
    n, k = ids.shape
    filled, before = np.zeros(n, np.int64), -1
    for start in range(0, n * k, _BLOCK):
        end = min(n * k, start + _BLOCK)
        keys = gaps.read(start, end)
        if keys.sum(dtype=np.float64) > n * size:  # in floats, which do not wrap around
            raise ValueError("a token id is out of range")
        keys += 1
        np.cumsum(keys, out=keys)
        keys += before
        before = int(keys[-1])
        if before >= n * size:
            raise ValueError("a token id is out of range")
        tokens, places = np.divmod(keys, n)
        order = np.argsort(places, kind="stable")
        places = places[order]
        begins = np.flatnonzero(np.diff(places, prepend=-1))
        counts = np.diff(begins, append=len(places))
        among = np.arange(len(places)) - np.repeat(begins, counts)  # which it is of its place's
        at = filled[places] + among
        if (at >= k).any():
            raise ValueError("a place has not k tokens")
        ids[places, at] = tokens[order]
        found[places, at] = symbols.read(start, end)[order]
        filled[places[begins]] += counts


def _climb(symbols: _Symbols, steps: Floats) -> None:
    """Each row's steps from how much each is deeper than the one before it."""
    n, k = steps.shape
    rows = max(1, _BLOCK // k)
    for row in range(0, n, rows):
        last = min(n, row + rows)
        depth = np.zeros((last - row, 1), np.int64)
        for column in range(0, k, _BLOCK):
            end = min(k, column + _BLOCK)
            # Only of a single row does a block end within it.
            first = row * k + column
            found = symbols.read(first, first + (last - row) * (end - column))
            block = found.reshape(last - row, end - column)
            np.cumsum(block, axis=1, out=block)
            block += depth
            depth = block[:, -1:].copy()
            if (depth > _DEEPEST).any():
                raise ValueError("a place's steps are too deep")
            steps[row:last, column:end] = block


def _normalise(steps: Floats, rest: Any, step: float) -> None:
    """Make log-probabilities of `steps`, in their place."""
    n, k = steps.shape
    rows = max(1, _BLOCK // k)
    for row in range(0, n, rows):
        last = min(n, row + rows)
        parts = [
            steps[row:last, column : min(k, column + _BLOCK)] for column in range(0, k, _BLOCK)
        ]
        if (
            any((part < 0).any() or (part > _DEEPEST).any() for part in parts)
            or (np.min([part.min(axis=1) for part in parts], axis=0) != 0).any()
        ):
            raise ValueError("a place's steps do not begin at its top one")
        total: Any = sum(np.exp(-step * part.astype(np.float64)).sum(axis=1) for part in parts)
        kept = np.log1p(-np.exp(rest[row:last])) - np.log(total)
        for part in parts:
            part[:] = -step * part.astype(np.float64) + kept[:, None]
            if not np.isfinite(part).all():
                raise ValueError("a probability is no number")


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


class _Gaps:
    """What `_coded` coded, read from the beginning on, some at a time."""

    def __init__(self, classes: bytes, low: bytes, count: int) -> None:
        self._lengths = _unhuffman(classes, count)
        if self._lengths.max(initial=0) > 52:
            raise ValueError("a number is too large")
        bits = int(self._lengths.sum(dtype=np.int64)) - int(np.count_nonzero(self._lengths))
        if (bits + 7) // 8 != len(low):
            raise ValueError("the bits are cut")
        self._low = np.frombuffer(low, np.uint8)
        self._bit = 0

    def read(self, start: int, end: int) -> Integers:
        lengths = self._lengths[start:end]
        numbers = (lengths > 0).astype(np.int64)
        longer = np.flatnonzero(lengths > 1)
        extra = lengths[longer].astype(np.int64) - 1
        ends = np.cumsum(extra)
        total = int(ends[-1]) if len(ends) else 0
        byte, begin = divmod(self._bit, 8)
        bits = np.unpackbits(self._low[byte : byte + (begin + total + 7) // 8])
        starts = begin + ends - extra
        for j in range(int(extra.max(initial=0))):
            has = extra > j
            at = longer[has]
            numbers[at] = numbers[at] << 1 | bits[starts[has] + j]
        self._bit += total
        return numbers


def _bit_lengths(numbers: Integers) -> Integers:
    # frexp's exponent is exact below 2**53, which ids × places stay under.
    return np.where(numbers > 0, np.frexp(numbers.astype(np.float64))[1], 0).astype(np.int64)


def _symbols(numbers: Integers) -> tuple[bytes, bytes]:
    plain = np.minimum(numbers, _ESCAPE)
    more = numbers[plain == _ESCAPE] - _ESCAPE
    return _huffman(plain.astype(np.uint8)), more.astype("<u2").tobytes()


class _Symbols:
    """What `_symbols` coded, read from the beginning on, some at a time."""

    def __init__(self, plain: bytes, more: bytes, count: int) -> None:
        self._plain = _unhuffman(plain, count)
        if 2 * int(np.count_nonzero(self._plain == _ESCAPE)) != len(more):
            raise ValueError("a section does not hold what the header says")
        self._more = np.frombuffer(more, "<u2")

    def read(self, start: int, end: int) -> Integers:
        numbers = self._plain[start:end].astype(np.int64)
        at = np.flatnonzero(numbers == _ESCAPE)
        numbers[at] += self._more[: len(at)]
        self._more = self._more[len(at) :]
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
