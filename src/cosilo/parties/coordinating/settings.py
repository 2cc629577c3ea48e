"""How a federation goes: who takes part, how many rounds, how updates are put together."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from cosilo.boundary.wire.codecs import codec
from cosilo.boundary.wire.opinions import LEAST_TOP, MOST_TOP
from cosilo.errors import ConfigError
from cosilo.federation.momentum import ServerStep
from cosilo.federation.rules import Aggregate, AggregationRule, Ranks, require_securable, rules
from cosilo.federation.scalars import SCALARS
from cosilo.federation.secure import keys
from cosilo.federation.secure.fixed_point import FixedPoint
from cosilo.federation.updates import Shapes, Tensors, vetted
from cosilo.models.low_rank import Layers, first_matrices, matrix_shapes
from cosilo.tables import check

_MAY_CHANGE = ("deadline_s", "quorum", "held_s", "step_s", "forgets")
_LARGEST = 8.0
_LARGEST_SCALAR = 1024.0


@dataclass(frozen=True, kw_only=True)
class FederationSettings:
    """The table [federation] of a host, or the options of the model kind "federation".

    Attributes:
        owners: who takes part, by the names that their certificates bear; anybody when empty, and then
            the federation begins as soon as `quorum` owners are there.
        rounds: how many.
        rule: how updates are put together, a name in `federation.rules`.
        rule_options: its options.
        sample: so many owners, drawn anew for each round, train in it, and the others wait; all of them
            when unset.
        quorum: so many updates must be good for a round to count; of all owners, or those that are
            drawn, when unset.
        deadline_s: seconds from a round's beginning after which it closes with what has come, or fails
            where that is less than the quorum; the same for the owners to enrol.
        rank: of the adapters that owners train; at most, where the rule takes several ranks.
        scale: alpha / rank: what an adapter's product is multiplied by.
        codec: what arrays come and go in.
        seed: what the first adapter is drawn by, for all owners the same.
        counts: weigh updates by how many examples an owner trains on; an owner that does not say how
            many is refused. Otherwise each counts the same.
        largest_norm: an update whose product has a larger Frobenius norm, over all layers, is dropped.
        base: the hash of base model and tokeniser that owners must have; that of the first who enrols
            when empty.
        held_s: how long a request for the next round may be held.
        method: "adapter": owners send the adapters that they trained; "scalars": one number for each of
            `directions` shared ones (FedKSeed), along which their adapters move; "opinions": what their
            models, which may be any, say of public texts (FedMKT).
        top: with "opinions", tokens that are named at each place of these texts.
        directions: how many numbers that are.
        rate: with "scalars", how far a step goes for each unit of its number.
        momentum, server_rate: how far owners go on where a round's updates lead, and how much of the
            last round's step comes again; see `federation.momentum`.
        secure: sum updates so that nobody sees one of them, the coordinator neither; for named owners,
            all of one rank, and a rule that reads nothing but the sum.
        secure_bits: of the numbers that are summed, 32 or 64.
        secure_largest: the largest magnitude of a number in an update, counted from where the round
            began; an owner with a larger one drops out. 8 when unset, of scalars 1024.
        most_examples: with `secure` and `counts`, an owner of so many examples weighs 1, one of fewer
            so much less, and none more; what an owner has is in the sum alone.
        step_s: with `secure`, seconds for each of the steps that follow an owner's training.
        keep_updates: of so many rounds that closed last all updates are kept, so that one that is to be
            forgotten can be left out of a round without owners' training it again. They are private to
            their owners, who are told, and take part only where they allow it.
        forgets: what becomes of rounds that an owner's updates are in when it asks that these be
            forgotten: "again": they are taken back, and trained again without it; "approximately": they
            are put together again without it, of updates that had learned from its own, where all of
            these are kept; "no": nothing.

    Raises:
        ValueError: a number is out of its range, or a name is unknown.
    """

    owners: tuple[str, ...] = ()
    rounds: int = 3
    rule: str = "average"
    rule_options: Mapping[str, object] = field(default_factory=dict)
    sample: int | None = None
    quorum: int | None = None
    deadline_s: float = 3600.0
    rank: int = 8
    scale: float = 2.0
    codec: str = "fp32"
    seed: int = 0
    counts: bool = False
    largest_norm: float = 1000.0
    base: str = ""
    held_s: float = 20.0
    method: Literal["adapter", "scalars", "opinions"] = "adapter"
    top: int = 32
    directions: int = 2048
    rate: float = 1e-3
    momentum: float = 0.0
    server_rate: float = 1.0
    secure: bool = False
    secure_bits: int = 32
    secure_largest: float | None = None
    most_examples: int = 0
    step_s: float = 120.0
    keep_updates: int = 0
    forgets: Literal["again", "approximately", "no"] = "again"

    def __post_init__(self) -> None:
        for name in ("rounds", "rank", "deadline_s", "largest_norm", "scale", "step_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not positive")
        if not 0 <= self.held_s < math.inf or self.seed < 0:
            raise ValueError("held_s and seed begin at 0")
        try:
            self.made_rule()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if self.ranks == "stacked" and not (self.owners or self.rule_options.get("rank")):
            raise ValueError(
                f"{self.rule} stacks the adapters of all owners: name the owners, or limit it by "
                "rule_options = {rank = …}"
            )
        codec(self.codec)
        if len(set(self.owners)) != len(self.owners):
            raise ValueError("an owner is named twice in owners")
        if self.sample is not None and not 1 <= self.sample <= len(self.owners):
            raise ValueError(
                f"sample = {self.sample!r} is not from 1 to the number of owners that are named, "
                f"{len(self.owners)}"
            )
        most = self.sample or len(self.owners)
        if self.quorum is not None and not 1 <= self.quorum <= (most or self.quorum):
            raise ValueError(
                f"quorum = {self.quorum!r} is not from 1 to the number of owners, {most}"
            )
        if not 1 <= self.directions <= 1 << 20 or not 0 < self.rate < math.inf:
            raise ValueError(
                f"directions = {self.directions!r} and rate = {self.rate!r}: 1 to 2²⁰, and positive"
            )
        if self.method == "scalars" and self.ranks != "one":
            raise ValueError(
                f"{self.rule} puts adapters together, and scalars are none: leave one of the two out"
            )
        if not self.server_step.whole:
            self._check_step()
        if self.keep_updates < 0 or (self.keep_updates and self.secure):
            raise ValueError(
                f"keep_updates = {self.keep_updates!r}: 0 or more, and with secure there are none"
            )
        if not LEAST_TOP <= self.top <= MOST_TOP:
            raise ValueError(f"top = {self.top!r} is not from {LEAST_TOP} to {MOST_TOP}")
        if self.method == "opinions":
            self._check_opinions()
        if self.secure:
            self._check_sums()

    def _check_opinions(self) -> None:
        """Of opinions no two are put together: for each text one is learned from."""
        if self.rule != "average" or self.rule_options:
            raise ValueError(
                f"{self.rule} puts adapters together, and opinions are none: leave it out"
            )
        if self.secure or self.counts or self.base:
            raise ValueError(
                "opinions are looked at one by one, weigh by how well they know a text, and are of any "
                "base model: leave out secure, counts and base"
            )

    def _check_step(self) -> None:
        if self.method != "adapter":
            raise ValueError(
                f"momentum and server_rate are of adapters, and {self.method} go as far as they say: "
                "leave them out"
            )
        if self.ranks == "stacked":
            raise ValueError(
                f"what comes of {self.rule} is added to weights and owners begin anew, so there is no "
                "step to go on with: leave out momentum and server_rate, or average"
            )
        if self.ranks != "one":
            raise ValueError(
                f"{self.rule} fills up smaller ranks with zeros, and momentum would go on towards "
                "them: leave out momentum and server_rate, or let all owners have one rank and average"
            )

    def _check_sums(self) -> None:
        try:
            require_securable(self.rule)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if len(self.owners) < 2:
            raise ValueError("secure sums the updates of named owners: name two or more")
        if self.sample is not None:
            raise ValueError("secure sums the updates of all owners, so sample cannot draw some")
        if self.needed < 2:
            raise ValueError("quorum = 1 with secure would show one owner's update: two at least")
        if self.counts and self.most_examples < 1:
            raise ValueError(
                "secure and counts: set most_examples, the most that any owner may have, which weighs 1"
            )
        keys.require_cryptography()
        FixedPoint(len(self.owners), self.sums_largest, self.secure_bits)

    def without(self, gone: Set[str]) -> FederationSettings | None:
        """As it goes on when these owners have left; None where it cannot."""
        if not gone & set(self.owners):
            return self
        left = tuple(owner for owner in self.owners if owner not in gone)
        try:
            return replace(self, owners=left) if left else None
        except ValueError:  # too few
            return None

    @property
    def sums_largest(self) -> float:
        """The largest magnitude of a number in an update that is summed."""
        usual = _LARGEST if self.method == "adapter" else _LARGEST_SCALAR
        return usual if self.secure_largest is None else self.secure_largest

    @property
    def needed(self) -> int:
        """Good updates that a round needs."""
        return self.quorum or self.sample or len(self.owners) or 1

    def drawn(self, number: int) -> set[str]:
        """The owners that train in the round."""
        if self.sample is None:
            return set(self.owners)
        return set(random.Random(f"{self.seed} {number}").sample(sorted(self.owners), self.sample))

    @property
    def ranks(self) -> Ranks:
        """Of which ranks owners' adapters may be."""
        return self.made_rule().ranks

    @property
    def largest_rank(self) -> int:
        """Of an adapter that comes back."""
        if self.ranks != "stacked":
            return self.rank
        stacked = self.rank * (self.sample or len(self.owners))
        return int(self.rule_options.get("rank") or stacked)  # type: ignore[call-overload, no-any-return]

    @property
    def server_step(self) -> ServerStep:
        """What is made of a rule's result before owners go on from it."""
        return ServerStep(self.momentum, self.server_rate)

    def stepped(self, made: Aggregate, before: Tensors, earlier: Tensors | None) -> Aggregate:
        """What owners go on from after a round; see `ServerStep`.

        Raises:
            ValueError: it holds what is no number, or is larger than an update may be.
        """
        step = self.server_step
        found = step(made, before, earlier)
        if step.whole:
            return found
        shapes = {name: tensor.shape for name, tensor in before.items()}
        wrong = vetted(found.tensors, shapes, largest_norm=self.largest_norm, scale=self.scale)
        if wrong:
            raise ValueError(
                f"where momentum and server_rate lead cannot be used: {wrong}; smaller ones may help"
            )
        return found

    def shapes(self, layers: Layers, rank: int) -> Shapes:
        """Of what an owner sends, of an adapter of that rank."""
        if self.method == "scalars":
            return {SCALARS: (self.directions,)}
        return matrix_shapes(layers, rank)

    def first(self, layers: Layers) -> Tensors:
        """What the first round begins with."""
        if self.method == "scalars":
            return {SCALARS: np.zeros(self.directions, np.float32)}
        return first_matrices(layers, self.rank, self.seed)

    def made_rule(self) -> AggregationRule:
        """The rule, with its options.

        Raises:
            ConfigError: there is none of that name, or it does not take such options.
        """
        factory = rules.get(self.rule)
        options = check(factory, dict(self.rule_options), where="rule_options")
        return rules.create(self.rule, **options)

    @property
    def lasting(self) -> dict[str, Any]:
        """What must not change while the federation lasts."""
        found = {name: value for name, value in asdict(self).items() if name not in _MAY_CHANGE}
        if self.sample is None:
            del found["sample"]  # as in the files of federations from before there was one
        return found


def changed(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Which settings are others; what there was not when it began was as it is when unset."""
    unset = json.loads(json.dumps(FederationSettings().lasting))

    def value(settings: Mapping[str, object], name: str) -> object:
        return settings.get(name, unset.get(name))

    return [n for n in sorted(before.keys() | now.keys()) if value(before, n) != value(now, n)]
