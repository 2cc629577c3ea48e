"""The data of a report: one `Report`, filled by the code that read the run and drawn by this
package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cosilo.boundary.meter import Price, Totals
from cosilo.boundary.record.ledger import Direction
from cosilo.clock import Effort
from cosilo.objectives.base import Link, Objective
from cosilo.objectives.links import OverLinks
from cosilo.objectives.reliability import Reliability
from cosilo.report.made_from import MadeFromRecords
from cosilo.selection import Certificate, Limit, Point, objectives_of, passed_over
from cosilo.strategies.cards import Card


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What a report says of the task and its data.

    Attributes:
    kind: of grading, e.g. "classification".
    items: split → how many examples it holds.
    labels: size of the closed set of answers; 0 where answers are free.
    gold_secrets: False when secrets were detected, not given.
    notes: what a reader must know of the data.
    """

    name: str
    kind: str
    items: Mapping[str, int]
    labels: int = 0
    gold_secrets: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a report says of one model.

    Attributes:
    name: what a reader knows it by, e.g. "qwen2.5-coder-1.5b-instruct-q4_k_m".
    access: what it shows to the other party, or to its own one, e.g. "text", "logprobs".
    kind: its back end, e.g. "llamacpp".
    licence: as its owner states it; empty when not known.
    """

    role: Literal["small", "large", "embedder"]
    name: str
    access: str
    kind: str = ""
    licence: str = ""
    price: Price = Price()


@dataclass(frozen=True)
class Tally:
    """How often one kind of message crossed in one direction, and its encoded bytes."""

    direction: Direction
    kind: str
    count: int
    size: int


@dataclass(frozen=True)
class Shown:
    """A message as an example of what crossed; `text` went through `masking`."""

    direction: Direction
    kind: str
    text: str


@dataclass(frozen=True)
class ShownCrossing:
    """What crossed between the data owner and one of several other sides.

    Attributes:
        tallies: of the test items, by direction and kind of message.
        usd_per_1k: what that side's LM cost for 1,000 items; None where contents were not kept.
    """

    tallies: tuple[Tally, ...]
    usd_per_1k: float | None = None


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """What left the building, and what came back, while one point answered the test items.

    Attributes:
        items: test items answered.
        asked: how many of them anything left for.
        refused: how many a guard or a model refused; these count as answered wrongly.
        tallies: by direction and kind of message.
        prepare: the same while the point was prepared, once.
        sides: where there are several other sides, name → what crossed to and from that one.
        replaced: kind of entity → how many placeholders left in its place.
        secrets: kind of secret → (how many left readable, how many the items hold).
        background: the same of the owner's other examples, in `prepare` and as worked examples.
        examples: messages with their secrets masked; what cannot be masked is not in here.
    """

    items: int
    asked: int
    refused: int = 0
    tallies: tuple[Tally, ...] = ()
    prepare: tuple[Tally, ...] = ()
    sides: Mapping[str, ShownCrossing] = field(default_factory=dict)
    replaced: Mapping[str, int] = field(default_factory=dict)
    secrets: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    background: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    examples: tuple[Shown, ...] = ()

    def size(self, direction: Direction) -> int:
        """Encoded bytes of the test items' messages."""
        return sum(tally.size for tally in self.tallies if tally.direction == direction)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one test item took, on average, and what preparing the point took once.

    Attributes:
        calls, tokens_in, tokens_out, usd: of the LM, per item.
        local_seconds, network_seconds, lm_seconds: the parts of an item's latency: on the owner's
            machine, on the stated link, and the LM's own service time.
        p50_seconds, p95_seconds: of the items' whole latency.
        cpu_seconds: the owner's CPU time per item.
        peak_memory: bytes, of the whole process, with what earlier points loaded.
        prepare: all that crossed in `prepare`.
        prepare_seconds: the LM's service time in `prepare`.
    """

    items: int
    calls: float
    tokens_in: float
    tokens_out: float
    usd: float
    local_seconds: float
    network_seconds: float
    lm_seconds: float
    p50_seconds: float
    p95_seconds: float
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    prepare: Totals = field(default_factory=Totals)
    prepare_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The utility that preparing a point gained, and what it cost.

    Attributes:
        value, low, high: utility after less utility of the small model alone, paired, with its 95 %
            interval, as shares.
        items: test items both answered.
        up, down, usd: bytes either way and money that preparing took, in all.
    """

    value: float
    low: float
    high: float
    items: int
    up: int
    down: int
    usd: float

    @property
    def size(self) -> int:
        """Bytes both ways."""
        return self.up + self.down


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What preparing a point found, and what it gained.

    Attributes:
    cards: what the point's strategies found while preparing.
    gain: None where the run has no point that is the small model alone.
    over_links: what its record says of other networks, where it went by rounds or steps.
    effort: what preparing took of the owner's machine; None where that was not noted.
    """

    cards: tuple[Card, ...]
    gain: Gain | None = None
    over_links: OverLinks | None = None
    effort: Effort | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a report shows. Private text is in it only as masked examples.

    Attributes:
        front: names of the points that no other dominates on `front_objectives`, validation split.
        hypervolume: of the front, up to `reference` (objective → worst value that counts); None
            when not worked out.
        certificate: None when no limit was given.
        crossed, costs: by point name; a point may be missing.
        prepared: the same, of the points whose preparing found something to tell.
        reliability: whose confidence on what, e.g. "small model alone, test items" → its diagram.
        unfinished: point name → why it has no numbers.
        damaged: those of them whose record of what crossed is not whole; then nothing is certified.
        notes: what a reader must know, beyond what the report says of itself.
        versions: package or part → version.
        quoted: whether messages may be shown, their secrets masked.
        commands: what reproduces the run and this file, one shell line each.
        made_from: what was made from the records; None where nobody noted it.
        made: when, as the reader shall see it; empty leaves it out.
    """

    title: str
    task: TaskFacts
    models: tuple[ModelFacts, ...]
    link: Link
    points: tuple[Point, ...]
    front: frozenset[str]
    front_objectives: tuple[str, ...]
    hypervolume: float | None = None
    reference: Mapping[str, float] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    certificate: Certificate | None = None
    crossed: Mapping[str, Crossed] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    prepared: Mapping[str, Prepared] = field(default_factory=dict)
    reliability: Mapping[str, Reliability] = field(default_factory=dict)
    unfinished: Mapping[str, str] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    quoted: bool = False
    commands: tuple[str, ...] = ()
    made_from: MadeFromRecords | None = None
    made: str = ""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All that were measured, by family: utility, privacy, efficiency, exposure, integrity."""
        found = objectives_of(self.points).values()
        return tuple(sorted(found, key=lambda o: FAMILIES.index(o.family)))

    @property
    def secrets_known(self) -> bool:
        """False when none were given and none detected: then no number says how private a point is."""
        kinds = [k for c in self.crossed.values() for k in (c.secrets, c.background)]
        return self.task.gold_secrets or not kinds or any(kinds)

    @property
    def passed_over(self) -> list[str]:
        """Why points with a defence more than one that is shown are not on the front, or not chosen."""
        return passed_over(self.points, self.front, self.front_objectives, self.certificate)

    @property
    def chosen(self) -> str | None:
        """The name of the point that the certificate chose."""
        held = self.certificate.chosen if self.certificate is not None else None
        return held.point if held is not None else None


FAMILIES = ("utility", "privacy", "efficiency", "exposure", "integrity")
