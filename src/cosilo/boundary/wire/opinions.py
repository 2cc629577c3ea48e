"""What a model would have said at each place of texts that both sides have, on the wire.

    logits, tokens ─ spoken ─▶ PublicOpinions ─ pack ─▶ bytes ─ unpack, by the texts ─▶ the same

At each place the likeliest tokens, and in any case the one that stands there. So how likely a model
holds a reply is read off what it sent, and is no number beside it that could be another one. Ids are
spelt out, so that a model with other tokens can read them; of the texts only the cuts cross.

    version │ length of the packed log-probabilities │ these │ zlib of the rest, see `_Rest`
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.wire import logits
from cosilo.boundary.wire.logits import Floats, TopK, places_in, top_k
from cosilo.errors import CapabilityError, UnexpectedReplyError

LEAST_TOP, MOST_TOP = 2, 256
"""Tokens that may be named at a place: the likeliest and the one that stands there, as otherwise a
small probability would be rounded by much; and as many as one byte tells apart."""

MOST_NUMBERS = 1 << 24
"""Log-probabilities in one message."""

_VERSION = 0x4F
_HEAD = struct.Struct("<BI")
_LONGEST = 1 << 12  # bytes that a token stands for
_MOST_SPELT = 1 << 25  # bytes that all tokens stand for together
_SLACK = 1 << 10


@dataclass(frozen=True, eq=False)
class PublicOpinions:
    """What a model would have said at each place of some replies, one after the other.

    Attributes:
        top: the likeliest tokens, and the one that stands there, shape (places, k).
        own: which of a row's tokens that is, shape (places,).
        pieces: of each reply what its tokens stand for, the end of its turn, b"", among them.
        spelt: what each id in `top` stands for.
        vocabulary: a hash of the tokeniser; ids mean the same where it is the same.
    """

    top: TopK
    own: NDArray[np.int64]
    pieces: tuple[tuple[bytes, ...], ...]
    spelt: Mapping[int, bytes]
    vocabulary: str

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many places each reply has."""
        return tuple(map(len, self.pieces))

    def losses(self) -> NDArray[np.float64]:
        """−log p of each reply with the end of its turn, in nats. It is of the whole reply and no mean
        of its tokens, so that models that cut it otherwise can be compared."""
        each = np.take_along_axis(self.top.logprobs, self.own[:, None], axis=1)[:, 0]
        bounds = [0, *accumulate(self.lengths)]
        return np.array([-float(each[a:b].sum(dtype=np.float64)) for a, b in pairwise(bounds)])

    def each(self) -> Iterator[tuple[tuple[bytes, ...], TopK, NDArray[np.int64]]]:
        """Of each reply its pieces, what is known of its places, and which token stands there."""
        bounds = [0, *accumulate(self.lengths)]
        for pieces, (a, b) in zip(self.pieces, pairwise(bounds), strict=True):
            yield pieces, self.top.rows(slice(a, b)), self.own[a:b]


class _Rest(msgspec.Struct, array_like=True, frozen=True):
    """Arrays as little-endian bytes.

    Attributes:
        vocabulary: see `PublicOpinions`.
        lengths: places of each reply, u4.
        cuts: bytes that each place's token stands for, u2.
        own: see `PublicOpinions`, u1.
        spelt: bytes of what each named id stands for, from the lowest id up, u2; then
        letters: all of these.
    """

    vocabulary: str
    lengths: bytes
    cuts: bytes
    own: bytes
    spelt: bytes
    letters: bytes


def spoken(rows: Floats, k: int, ids: NDArray[np.int32]) -> tuple[TopK, NDArray[np.int64]]:
    """The `k` likeliest tokens of each row of logits, the last of them left out for the one that stands
    there where that is none of them; and which of the row it is.

    Args:
        rows: shape (n, vocabulary).
        ids: the tokens that stand there, shape (n,).

    Raises:
        ValueError: k is not from `LEAST_TOP` to `MOST_TOP`, or a row is no distribution.
    """
    if not LEAST_TOP <= k <= MOST_TOP:
        raise ValueError(f"k = {k!r} is not from {LEAST_TOP} to {MOST_TOP}")
    found = top_k(rows, k)
    assert found.ids is not None
    named, logprobs, rest = found.ids.copy(), found.logprobs.copy(), found.rest.astype(np.float64)
    for i in np.flatnonzero((named != ids[:, None]).all(axis=1)):
        least = int(logprobs[i].argmin())
        own = logprobs[i, least] + float(rows[i, ids[i]]) - float(rows[i, named[i, least]])
        mass = np.exp(rest[i]) + np.exp(float(logprobs[i, least])) - np.exp(own)
        named[i, least], logprobs[i, least] = ids[i], own
        with np.errstate(divide="ignore"):
            rest[i] = np.log(max(mass, 0.0))
        order = named[i].argsort()
        named[i], logprobs[i] = named[i, order], logprobs[i, order]
    top = TopK(named, logprobs, rest.astype(np.float32), found.size)
    return top, (named == ids[:, None]).argmax(axis=1)


def pack(opinions: PublicOpinions) -> bytes:
    """`opinions` in few bytes: the same for the same.

    Raises:
        CapabilityError: the tokeniser's tokens are not what the replies are made of, or they are more
            than a message holds.
    """
    top = opinions.top
    assert top.ids is not None
    if top.logprobs.size > MOST_NUMBERS:
        n, k = top.logprobs.shape
        raise CapabilityError(
            f"{n} places with {k} tokens each are more than the {MOST_NUMBERS} numbers of a message: "
            "take fewer public texts, or a smaller top"
        )
    try:
        _check(opinions)
    except ValueError as error:
        raise CapabilityError(
            f"the model's tokeniser rewrites texts, so what it says of their tokens is of no use to "
            f"another one ({error})"
        ) from None
    known = [opinions.spelt[i] for i in np.unique(top.ids).tolist()]
    cuts = [len(piece) for pieces in opinions.pieces for piece in pieces]
    rest = _Rest(
        opinions.vocabulary,
        np.array(opinions.lengths, "<u4").tobytes(),
        np.array(cuts, "<u2").tobytes(),
        opinions.own.astype("u1").tobytes(),
        np.array([len(piece) for piece in known], "<u2").tobytes(),
        b"".join(known),
    )
    packed = logits.pack(top)
    tail = zlib.compress(msgspec.msgpack.encode(rest), 9)
    return _HEAD.pack(_VERSION, len(packed)) + packed + tail


def is_packed(data: bytes) -> bool:
    """Whether `data` begins as what `pack` gives."""
    return data[:1] == bytes([_VERSION])


def turned(data: bytes) -> bytes:
    """What `pack` gave, with the same probability for the tokens that stand there, and of the others at
    each place the likeliest the least likely: what a hostile model would say to be believed."""
    size = _HEAD.unpack_from(data)[1]
    front, tail = data[_HEAD.size : _HEAD.size + size], data[_HEAD.size + size :]
    top = logits.unpack(front)
    rest = msgspec.msgpack.decode(zlib.decompress(tail), type=_Rest)
    logprobs = top.logprobs.copy()
    for row, own in zip(logprobs, _numbers(rest.own, "u1").tolist(), strict=True):
        others = np.delete(np.arange(len(row)), own)
        order = others[row[others].argsort()]
        row[order] = row[order[::-1]]
    packed = logits.pack(replace(top, logprobs=logprobs))
    return _HEAD.pack(_VERSION, len(packed)) + packed + tail


def named_in(data: bytes) -> int:
    """How many places what `pack` gave says that it holds; 0 where it is something else."""
    return places_in(data[_HEAD.size :]) if is_packed(data) else 0


def most_bytes(replies: Sequence[str], top: int) -> int:
    """Upper bound on what `pack` gives for opinions of these replies."""
    # An id, its step and what it stands for; the place's rest mass, its cut, and which it is.
    return _SLACK + places_bound(replies) * (16 + top * 24) + 4 * len(replies)


def places_bound(replies: Sequence[str]) -> int:
    """Upper bound on the tokens of all replies, the ends of their turns among them."""
    return sum(len(reply.encode()) + 1 for reply in replies)


def digest_of(texts: Sequence[object]) -> str:
    """A hash of public examples, in their order."""
    return hashlib.sha256(msgspec.json.encode(texts)).hexdigest()[:32]


def unpack(data: bytes, replies: Sequence[str], top: int) -> PublicOpinions:
    """What `pack` was given, the log-probabilities rounded.

    Args:
        replies: what the opinions are of.
        top: tokens that may be named at a place.

    Raises:
        UnexpectedReplyError: the bytes are no opinions, too many, or not of these replies.
    """
    try:
        return _unpack(data, [reply.encode() for reply in replies], top)
    except (
        struct.error,
        zlib.error,
        msgspec.MsgspecError,
        UnicodeDecodeError,
        ValueError,
    ) as error:
        raise UnexpectedReplyError(
            f"{len(data)} bytes are no opinions of these texts ({error})"
        ) from None


def _unpack(data: bytes, texts: Sequence[bytes], most: int) -> PublicOpinions:
    version, size = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise ValueError(f"format {version} is unknown")
    packed, tail = data[_HEAD.size : _HEAD.size + size], data[_HEAD.size + size :]
    bound = sum(len(text) + 1 for text in texts)
    if places_in(packed) > bound:
        raise ValueError("more places than the texts can have")
    top = logits.unpack(packed, most=bound * most)
    if top.ids is None or top.logprobs.shape[1] > most:
        raise ValueError(f"not {most} tokens a place with their ids")
    known = np.unique(top.ids)
    rest = _rest(tail, len(top), len(known), len(texts))
    lengths, cuts = _numbers(rest.lengths, "<u4"), _numbers(rest.cuts, "<u2")
    spelt = _split(rest.letters, _numbers(rest.spelt, "<u2"))
    own = _numbers(rest.own, "u1")
    if len(lengths) != len(texts) or int(lengths.sum()) != len(top):
        raise ValueError("not so many places as log-probabilities")
    if len(cuts) != len(top) or len(own) != len(top) or len(spelt) != len(known):
        raise ValueError("not one of each for every place and id")
    if (own >= top.logprobs.shape[1]).any():
        raise ValueError("a place names no token that stands there")
    bounds = [0, *accumulate(lengths.tolist())]
    pieces = tuple(
        tuple(_split(text, cuts[a:b])) for text, (a, b) in zip(texts, pairwise(bounds), strict=True)
    )
    found = PublicOpinions(
        top, own, pieces, dict(zip(known.tolist(), spelt, strict=True)), rest.vocabulary
    )
    _check(found)
    return found


def _rest(tail: bytes, places: int, known: int, replies: int) -> _Rest:
    most = _SLACK + 4 * replies + 3 * places + 2 * known + min(known * _LONGEST, _MOST_SPELT)
    decoder = zlib.decompressobj()
    plain = decoder.decompress(tail, most)
    if not decoder.eof or decoder.unused_data:
        raise ValueError("the cuts and spellings are cut, or too long")
    rest = msgspec.msgpack.decode(plain, type=_Rest)
    if len(rest.vocabulary) > 64:
        raise ValueError("the tokeniser's hash is none")
    return rest


def _numbers(data: bytes, of: str) -> NDArray[np.int64]:
    return np.frombuffer(data, of).astype(np.int64)


def _split(text: bytes, lengths: NDArray[np.int64]) -> list[bytes]:
    if int(lengths.sum()) != len(text):
        raise ValueError("the pieces do not add up to their text")
    bounds = [0, *accumulate(lengths.tolist())]
    return [text[a:b] for a, b in pairwise(bounds)]


def _check(opinions: PublicOpinions) -> None:
    """That the token which is said to stand at a place does: else a reply would be judged, and taught,
    by another one's probability."""
    assert opinions.top.ids is not None
    ids = np.take_along_axis(opinions.top.ids, opinions.own[:, None], axis=1)[:, 0].tolist()
    at = 0
    for pieces in opinions.pieces:
        if not pieces or pieces[-1] or any(len(piece) > _LONGEST for piece in pieces):
            raise ValueError("a reply has no end, or a token is too long")
        for place, piece in enumerate(pieces):
            spelt = opinions.spelt[ids[at]]
            # Some tokenisers put a space in front of any text, which is none of the reply.
            if spelt != piece and not (place == 0 and spelt == b" " + piece):
                raise ValueError("a place's token is spelt otherwise than the text")
            at += 1
