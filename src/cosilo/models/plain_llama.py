"""A Llama whose owner computes jointly with others: its weights as plain numbers, and on what terms.

A model knows nothing of engines; `parties.joint_llama` proves that these numbers fit into one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeGuard

from cosilo.models.base import Array, TextModel


@dataclass(frozen=True)
class PlainLlama:
    """Some layers, with what stands below and above them. Matrices are (in, out).

    Attributes:
        mixed: queries, keys and values side by side, for each layer; `out` what follows attention.
        gated: gate and up side by side; `down` what follows them.
        table: the embedding; `head` the rows of the head, the same array where they are tied.
        gain: of the last norm. Those of the others, and attention's 1/√d, are in the matrices.
        groups: of heads that share keys.
    """

    mixed: Array = field(repr=False)
    out: Array = field(repr=False)
    gated: Array = field(repr=False)
    down: Array = field(repr=False)
    table: Array = field(repr=False)
    head: Array = field(repr=False)
    gain: Array = field(repr=False)
    heads: int
    groups: int
    theta: float
    eps: float


@dataclass(frozen=True, kw_only=True)
class JointTerms:
    """What a Llama's owner lets others compute jointly with it: the likeliest token, and no number.

    Attributes:
        calibrated_on: public texts, `.txt` or `.jsonl`, like those that will be asked about: on them
            the ranges of states are measured.
        texts: the first so many of them.
        tokens: the longest that a text may be, with what it is filled up to.
        layers: the last so many layers go on from states that the data owner makes itself; 0 for none.
        whole: all layers go on from tokens, which takes gigabytes of memory and traffic.
    """

    calibrated_on: Path
    texts: int = 32
    tokens: int = 128
    layers: int = 1
    whole: bool = False

    def __post_init__(self) -> None:
        if self.texts < 1 or self.layers < 0 or not 2 <= self.tokens <= 1 << 12:
            raise ValueError("texts must be 1 or more, layers 0 or more, tokens from 2 to 4,096")
        if not (self.layers or self.whole):
            raise ValueError("layers = 0 without whole = true leaves nothing to compute jointly")


class PlainLlamaModel(Protocol):
    """A model that may be one. What is called here runs in a thread of the caller's."""

    @property
    def joint(self) -> JointTerms | None:
        """On what terms; None where its owner takes part in nothing."""

    @property
    def identity(self) -> str:
        """A hash of what decides its answers."""

    @property
    def vocabulary(self) -> str:
        """A hash of the tokeniser."""

    @property
    def layers(self) -> int:
        """How many it has."""

    def plain_llama(self, first: int) -> PlainLlama:
        """The layers behind the first `first`.

        Raises:
            CapabilityError: it is no Llama, or one of a kind that no program computes.
        """

    def below(self, layers: int) -> str:
        """A hash of the tokeniser, the embedding and the first `layers` layers: whose are equal, their
        states after these layers are.

        Raises:
            CapabilityError: as above.
        """

    def public_prompts(self) -> Sequence[Sequence[int]]:
        """The tokens of the texts that it is calibrated on, as it is asked.

        Raises:
            DataError: they cannot be read.
        """

    def states_after(self, ids: Sequence[int], layers: int) -> Array:
        """What `ids` are after the first `layers` layers, (n, width); 0 for the embedding."""

    def said_after(self, ids: Sequence[int]) -> Array:
        """The logits of what follows `ids`."""


def has_plain_llama(model: TextModel) -> TypeGuard[PlainLlamaModel]:
    """Whether it may be one. Asked of its class: its properties may have to load it."""
    return hasattr(type(model), "plain_llama")
