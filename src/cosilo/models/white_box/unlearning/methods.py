"""Ways to unlearn, by name. Most are a loss over records to forget and to keep; one is arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from cosilo.models.white_box.unlearning import losses
from cosilo.models.white_box.unlearning.reading import Said, Seen
from cosilo.registry import Registry


@runtime_checkable
class UnlearningMethod(Protocol):
    """A loss that is trained on."""

    def loss(self, seen: Seen) -> Any:
        """A scalar with its gradient."""


methods: Registry[UnlearningMethod | TaskVector] = Registry("unlearning method")


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} = {value!r} is not a positive number")


def _from_zero(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} = {value!r} is not a number from 0 on")


def _usual(said: Said) -> Any:
    return losses.token_mean(said.nll, said.tokens)


def _holding(found: Any, retain: float, seen: Seen) -> Any:
    """`found`, and `retain` times the usual loss on records to keep, which is not read for nothing."""
    return found + retain * _usual(seen.retain) if retain else found


@methods.register("ga")
@dataclass(frozen=True, kw_only=True)
class GradientAscent:
    """Training backwards: what is to be forgotten becomes less likely, and nothing holds the rest. The
    records to keep only say when to stop."""

    def loss(self, seen: Seen) -> Any:
        return -_usual(seen.forget)


@methods.register("graddiff")
@dataclass(frozen=True, kw_only=True)
class GradientDifference:
    """Backwards on what is to be forgotten, forwards on what is to be kept.

    Attributes:
        forget, retain: what each counts.
    """

    forget: float = 1.0
    retain: float = 1.0

    def __post_init__(self) -> None:
        _positive(forget=self.forget, retain=self.retain)

    def loss(self, seen: Seen) -> Any:
        return self.retain * _usual(seen.retain) - self.forget * _usual(seen.forget)


@methods.register("kl")
@dataclass(frozen=True, kw_only=True)
class HeldByDivergence:
    """Backwards on what is to be forgotten, while what is said of the rest stays as it was.

    Attributes:
        forget, retain: what each counts.
    """

    forget: float = 1.0
    retain: float = 1.0

    def __post_init__(self) -> None:
        _positive(forget=self.forget, retain=self.retain)

    def loss(self, seen: Seen) -> Any:
        kept = losses.divergence(seen.retain.logits, seen.retain_before.logits)
        return self.retain * kept - self.forget * _usual(seen.forget)


@methods.register("npo")
@dataclass(frozen=True, kw_only=True)
class NegativePreference:
    """NPO: what is to be forgotten is a reply that is not preferred, and pushed less the further down.

    Attributes:
        beta: how soon the push fades; towards 0 it is gradient ascent.
        retain: what the usual loss on records to keep counts.
    """

    beta: float = 0.1
    retain: float = 1.0

    def __post_init__(self) -> None:
        _positive(beta=self.beta)
        _from_zero(retain=self.retain)

    def loss(self, seen: Seen) -> Any:
        found = losses.preference(seen.forget.nll, seen.forget_nll_before, self.beta)
        return _holding(found, self.retain, seen)


@methods.register("simnpo")
@dataclass(frozen=True, kw_only=True)
class SimplePreference:
    """SimNPO: as NPO, by nats a token, and without the model as it came.

    Attributes:
        beta: how soon the push fades.
        delta: nats a token from which on it does.
        retain: what the usual loss on records to keep counts.
    """

    beta: float = 2.5
    delta: float = 0.0
    retain: float = 1.0

    def __post_init__(self) -> None:
        _positive(beta=self.beta)
        _from_zero(delta=self.delta, retain=self.retain)

    def loss(self, seen: Seen) -> Any:
        found = losses.simple_preference(seen.forget.nll, seen.forget.tokens, self.beta, self.delta)
        return _holding(found, self.retain, seen)


@methods.register("dpo")
@dataclass(frozen=True, kw_only=True)
class RatherNothing:
    """DPO: a reply that knows nothing is preferred to the one that is to be forgotten.

    Attributes:
        beta: how soon the push fades.
        retain: what the usual loss on records to keep counts.
    """

    beta: float = 0.1
    retain: float = 1.0

    def __post_init__(self) -> None:
        _positive(beta=self.beta)
        _from_zero(retain=self.retain)

    def loss(self, seen: Seen) -> Any:
        found = losses.rather(
            seen.forget.nll,
            seen.forget_nll_before,
            seen.instead.nll,
            seen.instead_nll_before,
            self.beta,
        )
        return _holding(found, self.retain, seen)


@methods.register("rmu")
@dataclass(frozen=True, kw_only=True)
class Misdirection:
    """RMU: the states of what is to be forgotten are led into one random direction, in the middle of
    the layers that are trained; those of the rest stay.

    Attributes:
        scale: how long they are to be, in former lengths.
        retain: what moving the others' states counts.
    """

    scale: float = 2.0
    retain: float = 10.0

    def __post_init__(self) -> None:
        _positive(scale=self.scale)
        _from_zero(retain=self.retain)

    def loss(self, seen: Seen) -> Any:
        now, before = seen.forget_states
        moved = losses.misdirection(now, before, seen.drawn, self.scale)
        return moved + self.retain * losses.kept_states(*seen.retain_states)


@methods.register("undial")
@dataclass(frozen=True, kw_only=True)
class AdjustedDistillation:
    """UNDIAL: the model learns what it said itself, with the true tokens made less likely.

    Attributes:
        less: by how much of their logits.
        retain: what the usual loss on records to keep counts.
    """

    less: float = 10.0
    retain: float = 1.0

    def __post_init__(self) -> None:
        _positive(less=self.less)
        _from_zero(retain=self.retain)

    def loss(self, seen: Seen) -> Any:
        found = losses.adjusted_distillation(
            seen.forget.logits, seen.forget_before.logits, seen.forget.targets, self.less
        )
        return _holding(found, self.retain, seen)


@methods.register("bad_teacher")
@dataclass(frozen=True, kw_only=True)
class BadTeacher:
    """Of what is to be forgotten the model learns to say what one says that never saw it: the model as
    it was before it was tuned. Chundawat et al., arXiv 2205.08096, where a model of random weights
    teaches; this one knows the language, and of the records nothing.

    Attributes:
        forget: what the distance to it counts.
        retain: what the usual loss on records to keep counts.
    """

    forget: float = 2.0
    retain: float = 1.0

    def __post_init__(self) -> None:
        _positive(forget=self.forget)
        _from_zero(retain=self.retain)

    def loss(self, seen: Seen) -> Any:
        found = self.forget * losses.divergence(seen.forget.logits, seen.forget_never.logits)
        return _holding(found, self.retain, seen)


@methods.register("task_vector")
@dataclass(frozen=True, kw_only=True)
class TaskVector:
    """What training further on the records to forget would change is taken away instead:
    θ − a (θ′ − θ). Ilharco et al., arXiv 2212.04089.

    Attributes:
        shares: values of a to choose from, by what the owner measures.
    """

    shares: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)

    def __post_init__(self) -> None:
        if not isinstance(self.shares, tuple | list) or not self.shares:
            raise ValueError(f"shares = {self.shares!r} is no list of numbers")
        _positive(**{f"a share of {s!r}": s for s in self.shares})
