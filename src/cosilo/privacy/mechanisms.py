"""Mechanisms whose output may leave: what noise was added to what, under which neighbour relation.

A `Release` is one use of a mechanism on the owner's records. Messages carry it, the book adds releases
up, and `privacy.composition` says what several of them spend together.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Literal, Protocol

from msgspec import Meta

from cosilo.types import Amount, Count, Probability, Value

Positive = Annotated[float, Meta(gt=0, le=sys.float_info.max)]
Name = Annotated[str, Meta(max_length=200)]

Neighbours = Literal["add_or_remove", "replace"]
"""What tells two neighbouring data sets apart: one record (or group) more, or another one."""

Unit = Literal["record", "group", "text"]
"""What the guarantee is for: each record alone; all records of one person, customer or household; or
the words of the text that the message is about, each of which could have been another one. How many
they are is known then, so that is no guarantee for a record, and the book of records has no line of it.
"""


class Mechanism(Value, frozen=True, kw_only=True, tag_field="mechanism", tag=True):
    """How one output was made private; see the classes below. What their numbers may be is declared
    with them, and checked wherever a release is read from bytes."""


class Gaussian(Mechanism, frozen=True, kw_only=True):
    """A vector plus independent Gaussian noise.

    Attributes:
        sigma: the noise's standard deviation; 0 for none, which promises nothing.
        sensitivity: how far the vector moves between neighbours, in the Euclidean norm.
    """

    sigma: Amount
    sensitivity: Positive = 1.0

    def __str__(self) -> str:
        return f"Gaussian, σ = {self.sigma:.4g}, sensitivity {self.sensitivity:.4g}"


class Laplace(Mechanism, frozen=True, kw_only=True):
    """A vector plus independent Laplace noise.

    Attributes:
        scale: the noise's, b in exp(−|x|/b).
        sensitivity: how far the vector moves between neighbours, in the sum of absolute values.
    """

    scale: Positive
    sensitivity: Positive = 1.0

    def __str__(self) -> str:
        return f"Laplace, scale {self.scale:.4g}, sensitivity {self.sensitivity:.4g}"


class SampledGaussian(Mechanism, frozen=True, kw_only=True):
    """Steps of DP-SGD: each draws every record with the same chance, independently (Poisson), bounds
    what each drawn one adds, and adds Gaussian noise to the sum.

    Attributes:
        noise: the noise's standard deviation over the bound on what one record adds.
        rate: the chance of a record to be drawn in a step.
        steps: how many.
    """

    noise: Positive
    rate: Annotated[float, Meta(gt=0, le=1)]
    steps: Annotated[int, Meta(ge=1, le=1 << 32)] = 1

    def __str__(self) -> str:
        return f"{self.steps} steps of DP-SGD, noise {self.noise:.4g}, rate {self.rate:.3g}"


class Stated(Mechanism, frozen=True, kw_only=True):
    """Any mechanism that is known to be (ε, δ)-private, and of which no more is known or used:
    randomised response, the exponential mechanism, what a package reports.

    Attributes:
        what: its name.
    """

    epsilon: Amount
    delta: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    what: Name = "stated"

    def __str__(self) -> str:
        more = f", δ = {self.delta:.3g}" if self.delta else ""
        return f"{self.what}, ε = {self.epsilon:.4g}{more}"


class WordNoise(Mechanism, frozen=True, kw_only=True):
    """A text whose words were each replaced at random; see `privacy.word_noise`.

    Attributes:
        kind: "santext": ε is for each unit of distance between two words. "custext": ε is for two words
            of one group, and two of different groups can be told apart for certain. "rantext": ε is a
            setting, and promises nothing.
        epsilon: of one word.
        words: how many there are, which everybody sees.
        bound: what all words spend together at most, as their relation in `kind` has it; None where
            there is none.
        kept: of the vocabulary's commonest words so many are not protected;
        chance: each of those stays as it is so often.
        group: words that stand for each other, at least ("custext").
        vocabulary: where the words and their vectors are from, and how many there are.
    """

    kind: Literal["santext", "custext", "rantext"]
    epsilon: Positive
    words: Count
    bound: Amount | None = None
    kept: Count = 0
    chance: Probability = 1.0
    group: Count = 0
    vocabulary: tuple[Name, Count]

    def __str__(self) -> str:
        spent = "no guarantee" if self.bound is None else f"ε = {self.bound:.4g} for all words"
        return f"{self.kind}, ε = {self.epsilon:.4g} a word, {self.words} words, {spent}"


class RadialNoise(Mechanism, frozen=True, kw_only=True):
    """Vectors cut to a length, each with noise in any direction; see `privacy.radial_noise`.

    Attributes:
        eta: of each vector; two vectors are told apart by exp(η × their distance) at most.
        clip: how long a vector may be.
        vectors: how many.
    """

    eta: Positive
    clip: Positive
    vectors: Count

    @property
    def bound(self) -> float:
        """ε between any two texts of so many tokens, all vectors together."""
        return 2 * self.eta * self.clip * self.vectors

    def __str__(self) -> str:
        return f"noise on {self.vectors} vectors, η = {self.eta:.4g}, ε = {self.bound:.4g} for all"


def randomised_response(keep: float, answers: int) -> Stated:
    """A record's answer among so many is kept with probability `keep`, and drawn from all of them
    evenly otherwise: ε = ln(1 + answers · keep / (1 − keep)) for replacing the record.

    Raises:
        ValueError: `keep` is not from 0 to below 1, or there are fewer than two answers.
    """
    if not 0 <= keep < 1 or answers < 2:
        raise ValueError(f"keep = {keep!r} of {answers!r} answers is no randomised response")
    return Stated(epsilon=math.log1p(answers * keep / (1 - keep)), what="randomised response")


class Release(Value, frozen=True, kw_only=True):
    """One output of a mechanism over the owner's records, as a message carries it.

    Attributes:
        mechanism: what made it.
        neighbours: what one record (or group) more or less means for its sensitivity.
        unit: what that relation is about.
        series: names the preparation that it belongs to, where its noise is derived under a key, so
            that doing all of it again says the same; empty where noise is drawn afresh.
        draw: names the very draw in it: the same question under the same key. Two releases of one draw
            are one, and are spent once.
    """

    mechanism: Gaussian | Laplace | SampledGaussian | Stated | WordNoise | RadialNoise
    neighbours: Neighbours = "add_or_remove"
    unit: Unit = "record"
    series: Name = ""
    draw: Name = ""


class Booking(Protocol):
    """What keeps the books of an owner's records, as a strategy and the boundary use it; see
    `privacy.account.PrivacyAccount`."""

    async def require(self, releases: Sequence[Release]) -> None:
        """Refuse, before anything is sent, what the budget cannot bear.

        Raises:
            PrivacyBudgetError: a record would have spent more than it may.
        """

    def spending(
        self, release: Release | None, epsilon: float = 0.0
    ) -> AbstractAsyncContextManager[None]:
        """Around the departure of a message that carries `release`, or says that it spent `epsilon`.

        Raises:
            PrivacyBudgetError: a record would have spent more than it may; the message does not leave.
        """
