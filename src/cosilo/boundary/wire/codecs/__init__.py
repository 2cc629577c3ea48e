"""Arrays of numbers in few bytes: what states, gradients and weights are sent as.

    array (n, d) ─ pack ─▶ size(n, d) bytes ─ unpack(·, n, d) ─▶ array (n, d), float32

A codec is named by a text, so that a plan and a message can name it. Bytes for each number, where a
row has d = 576 of them (and rows are many, so that what there is once a message does not count):

    fp32            4       as they are
    fp16            2       one power of two for all
    int8            1.02    steps by row, the eight columns with the largest numbers apart as fp16
    int8:64                 …, steps by groups of so many columns
    int4            0.55    …, by groups of 64
    int2            0.34    …, by groups of 32
    topk:0.1        0.27    each row's largest tenth, as fp16
    topk:0.1:int8   0.17    …, as int8
    lowrank:8       8 · (1/d + 1/n) · 2: the closest matrix of rank 8

Plain int8 loses because of a few columns with massive numbers (Sun et al., "Massive Activations in
Large Language Models", arXiv 2402.17762): they set the step for all others. So they are kept apart.

How many bytes come out depends on the shape alone, never on the numbers, and is checked before anything
is unpacked. What is packed twice is the same bytes. Fewer bytes are no privacy: an attacker reads
int8 states as well as exact ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cosilo.boundary.wire.codecs.base import Codec as Codec
from cosilo.boundary.wire.codecs.feedback import pack_with_feedback as pack_with_feedback
from cosilo.boundary.wire.codecs.floats import Fp16, Fp32
from cosilo.boundary.wire.codecs.groups import GROUPS, Grouped
from cosilo.boundary.wire.codecs.low_rank import LowRank
from cosilo.boundary.wire.codecs.sparse import Largest


def codec(name: str) -> Codec:
    """The codec of that name.

    Raises:
        ValueError: there is none.
    """
    kind, *options = name.split(":")
    try:
        return _KINDS[kind](options)
    except (KeyError, ValueError, TypeError) as error:
        known = "fp32, fp16, int8, int4, int2, topk:FRACTION, lowrank:RANK"
        why = f": {error}" if kind in _KINDS else ""
        raise ValueError(f"no codec named {name!r}{why} (known: {known})") from None


def _grouped(bits: int) -> Callable[[Sequence[str]], Codec]:
    def make(options: Sequence[str]) -> Codec:
        group = _one(options) if options else GROUPS[bits]
        return Grouped(bits, int(group))

    return make


def _largest(options: Sequence[str]) -> Codec:
    fraction, *values = options
    if values not in ([], ["int8"]):
        raise ValueError("what is kept is fp16, or int8")
    return Largest(float(fraction), eight=bool(values))


def _low_rank(options: Sequence[str]) -> Codec:
    return LowRank(int(_one(options)))


def _plain(made: Codec) -> Callable[[Sequence[str]], Codec]:
    def make(options: Sequence[str]) -> Codec:
        if options:
            raise ValueError("it has no options")
        return made

    return make


def _one(options: Sequence[str]) -> str:
    (option,) = options
    return option


_KINDS: dict[str, Callable[[Sequence[str]], Codec]] = {
    "fp32": _plain(Fp32()),
    "fp16": _plain(Fp16()),
    "int8": _grouped(8),
    "int4": _grouped(4),
    "int2": _grouped(2),
    "topk": _largest,
    "lowrank": _low_rank,
}
