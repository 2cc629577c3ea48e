"""Models that take part in a joint computation: what is wanted of one, and what it brings.

    Wanted (by the data owner) ──▶ takes_part ──▶ JointPart: a program, its public sizes, its weights

A model knows nothing of engines: what it brings are plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, TypeGuard, runtime_checkable

from msgspec import Meta

from cosilo.models.base import Array, TextModel
from cosilo.types import Value

ProgramName = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_]{0,31}\Z")]
"""A module of `engines/spu/inside/programs`."""

JointProtocol = Literal["aby3", "cheetah", "semi2k"]

Tells = Literal["label", "logits", "states"]
"""What the data owner is told of a computation, and nobody else is."""

TokenId = Annotated[int, Meta(ge=0, lt=1 << 24)]


class Wanted(Value, frozen=True, kw_only=True):
    """What a data owner would compute with another's weights.

    Attributes:
        program: what is computed.
        protocol: how the two are hidden from each other.
        insecure: a protocol is wanted that protects nothing, to compare costs; an owner takes part
            in it only in a trial on one machine.
        base: the identity of what makes the vectors or states at home; of the tokens, where the
            program begins with them.
        starts: what the data owner hands in.
        tells: what it is told.
        layers: the last so many of the model's; all where it is 0.
        tokens: the padded length of a text, or of what of it is computed on in secret.
        before: so many tokens stand in front of it that the LM's owner is told in clear.
        candidates: ids of tokens that are chosen among; of all, where there are none.
    """

    program: ProgramName
    protocol: JointProtocol = "aby3"
    insecure: bool = False
    base: Annotated[str, Meta(max_length=256)] = ""
    starts: Literal["vector", "tokens", "states"] = "vector"
    tells: Tells = "label"
    layers: Annotated[int, Meta(ge=0, le=1 << 10)] = 0
    tokens: Annotated[int, Meta(ge=0, le=1 << 16)] = 0
    before: Annotated[int, Meta(ge=0, le=1 << 16)] = 0
    candidates: Annotated[tuple[TokenId, ...], Meta(max_length=1 << 12)] = ()


Brings = Callable[[tuple[Array, ...], tuple[int, ...]], tuple[Array, ...]]


class Counting(Protocol):
    """Counts what each client was told; see `models.encoder.allowance`."""

    def left(self, client: str) -> int: ...
    def take(self, client: str) -> None: ...


@dataclass(frozen=True)
class JointPart:
    """The LM owner's part of a joint computation.

    Attributes:
        program: what is computed.
        shape: its public sizes, as the program's `build` takes them.
        owned: the LM owner's arrays, which nobody else sees.
        weights: a digest of them, which is kept here: a run is of one of them.
        once, each: the most bytes of payload on the link between any two parties, for sharing
            `owned`, and for one computation; a run that passes them ends.
        labels: what the numbers that are told stand for, where they have names.
        tells: what the data owner is told.
        allowance: of how many computations that tell more than a label each client is told; none where
            there is none.
        field, bits: the ring, and how many of its bits are after the point.
        brings: the LM owner's arrays for one computation, given `owned`, which it keeps no other copy
            of, and the tokens that it is told in clear; None where it brings none.
    """

    program: str
    shape: Mapping[str, Any]
    owned: tuple[Array, ...] = field(repr=False)
    weights: str
    once: int
    each: int
    labels: tuple[str, ...] = ()
    tells: Tells = "label"
    allowance: Counting | None = None
    field: Literal[32, 64, 128] = 64
    bits: int = 18
    brings: Brings | None = None


@runtime_checkable
class TakesPart(Protocol):
    """A model that its owner lets take part in joint computations."""

    def takes_part(self, wanted: Wanted) -> JointPart:
        """What it brings to what is wanted. Called in a thread, and again for each run.

        Raises:
            CapabilityError: it takes no part in that; the message says in what it does.
        """


def takes_part(model: TextModel) -> TypeGuard[TakesPart]:
    return isinstance(model, TakesPart)
