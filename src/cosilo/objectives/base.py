"""What a run is judged by. A measure is a pure function of the recorded run.

So scoring again never means running again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cosilo.attacks.base import Guess
from cosilo.boundary.meter import Link as Link
from cosilo.boundary.meter import Price
from cosilo.boundary.record.ledger import Entry
from cosilo.registry import Registry
from cosilo.tasks.base import Example
from cosilo.types import Answer, Chat

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Objective:
    """What is measured: its name, family, direction, and the range of its values.

    Attributes:
    name: what limits and tables call it, e.g. "utility", "usd_per_1k".
    family: which of the five it belongs to.
    bounds: the range of one item's value; None where it has no bound: then a mean cannot be
        certified.
    quantile: set where the number is not the mean of the items' values but this quantile of them.
    partial: which items it applies to depends on what the point did with them. The value of the
        others is NaN, and the number is the mean over those that have one.
    """

    name: str
    family: Literal["utility", "privacy", "efficiency", "exposure", "integrity"]
    goal: Literal["min", "max"]
    unit: str
    bounds: tuple[float, float] | None = (0.0, 1.0)
    quantile: float | None = None
    partial: bool = False


@dataclass(frozen=True)
class Measurement:
    """A number with its n and 95 % interval.

    Attributes:
        baseline: the same number for the base rate: majority class, attacker without the record, …
        note: what a reader must know, e.g. which attack was the strongest.
    """

    objective: Objective
    value: float
    n: int
    low: float
    high: float
    baseline: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Item:
    """One answered example.

    Attributes:
        small_text: what the small model alone would say; empty when it was not asked.
        seconds: local wall time, waiting for the LM not counted.
        cpu_seconds: local CPU time of the small model and the guards.
        faults: what is amiss with the reply ("cut", "empty", "unreadable"), as far as it was looked at.
    """

    example: Example
    answer: Answer
    grade: float
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    small_text: str = ""
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """The record of one operating point on one split: everything a measure may read.

    Attributes:
        items: the answered examples of one split.
        entries: reads the record of these items, lazily; request is the example's id.
        prepare: reads the record of `prepare`.
        background: the owner's other examples (train and tune) that `prepare` or a prompt may have
            shown; without them, what `prepare` leaked stays uncounted.
        members: ids of those that `prepare` was given to learn from, with their answers.
        learned: ids of those that the small model was given to learn from in the end; empty where
            that is not known, or where it was given none of them.
        guesses: attack name → its guesses on this run's record.
        priors: attack name → the same attack's guesses without the record.
        tampered: the same items answered while a share of the LM's replies was tampered with.
        tampered_ids: items whose replies were tampered with there.
        labels: the closed set of answers, where there is one.
        peak_memory: bytes, of the process that ran it, and earlier points before it.
        public: public chats and their replies that all parties have, where what crossed is about them.
        sides: where there are several other sides, name → this run as that one saw it: its own record,
            price, link and guesses. Then `entries`, `prepare` and the guesses above are of all of them
            together, as if they told one another everything.
    """

    items: tuple[Item, ...]
    entries: Callable[[], Iterator[Entry]]
    prepare: Callable[[], Iterator[Entry]] = lambda: iter(())
    background: tuple[Example, ...] = ()
    members: frozenset[str] = frozenset()
    learned: frozenset[str] = frozenset()
    price: Price = Price()
    link: Link = Link()
    guesses: Mapping[str, tuple[Guess, ...]] = field(default_factory=dict)
    priors: Mapping[str, tuple[Guess, ...]] = field(default_factory=dict)
    tampered: tuple[Item, ...] = ()
    tampered_ids: frozenset[str] = frozenset()
    labels: tuple[str, ...] = ()
    gold_secrets: bool = True
    peak_memory: int = 0
    public: tuple[tuple[Chat, str], ...] = ()
    sides: Mapping[str, Run] = field(default_factory=dict)


class Measure(Protocol):
    @property
    def objective(self) -> Objective: ...

    def __call__(self, run: Run) -> Measurement | None:
        """The number, or None when this run has nothing to measure it on."""

    def values(self, run: Run) -> Floats | None:
        """One value per item the objective applies to, in the items' order; None where there are
        none. Which items it applies to depends on the examples alone, never on the point, but for
        a `partial` objective.

        The certificate tests these: their mean is the number, or their `objective.quantile` where
        that is set. An objective whose values depend on one another gives none.
        """


objectives: Registry[Measure] = Registry("objective")
