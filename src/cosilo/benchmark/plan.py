"""A plan: one TOML file that says what is compared, on what data, with which models.

    name = "desk"                     concurrency = 8          seed = 0
    [task]                            the data and how answers are graded
    [models.small]  [models.large]    kind = "…", and what that kind takes
    [models.large.NAME]               where there are several other sides, one for each
    [models.embedder]                 optional: turns text into vectors for routers and attacks
    [[points]]                        strategy = "…", its options, defences = ["…"]
    [defences.NAME]                   options of a defence, or a variant: kind = "…"
    [search]                          tries points from ranges {low, high, log} instead of a grid
    [limits]  [at_least]              what a point must hold to be certified
    [budget]                          for the whole run
    [privacy]                         what a record may spend of ε in all, and the book of it
    [request_budget]                  for one request: more is refused, so its mean can be certified
    [link]  [attacks]  [replay]       the network stated for latency; who attacks; a shared store
    [links.NAME]                      networks that preparing is stated for; three if there is none

An option whose value is a list is a grid, unless the strategy takes a list there: one point per
value. `defences` and `peers` may be a list of lists, for one point per combination.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from cosilo.attacks.base import attacks
from cosilo.benchmark.peers import chosen, declared_twice, read_names, read_peers
from cosilo.boundary.meter import Budget
from cosilo.defences.base import defences
from cosilo.errors import ConfigError
from cosilo.objectives.base import Link, objectives
from cosilo.objectives.links import LINKS
from cosilo.privacy.account import PrivacyConfig
from cosilo.registry import unknown
from cosilo.selection import parse_limit
from cosilo.session import (
    DefenceConfig,
    ModelConfig,
    PointConfig,
    make_strategy,
    read_defence,
    read_model,
)
from cosilo.strategies.base import ONE, strategies
from cosilo.tables import Table, convert, options_of, read
from cosilo.tasks.config import TaskConfig, parse_task


@dataclass(frozen=True, kw_only=True)
class Range:
    """Values to search: from `low` to `high`, evenly or by order of magnitude (`log`)."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low!r} is not below high = {self.high!r}")
        if self.log and self.low <= 0:
            raise ValueError(f"low = {self.low!r} must be above 0 when log = true")


@dataclass(frozen=True)
class Space:
    """Points to search: `point` with each of `ranges` set; `whole` names the whole-number ones."""

    point: PointConfig
    ranges: Mapping[str, Range]
    whole: frozenset[str] = frozenset()

    @property
    def lowest(self) -> PointConfig:
        """The point at the low end of every range."""
        return self.at({key: r.low for key, r in self.ranges.items()})

    def at(self, values: Mapping[str, float]) -> PointConfig:
        """The point with these values, whole numbers where they are wanted."""
        chosen = {k: int(v) if k in self.whole else v for k, v in values.items()}
        shown = "-".join(f"{key}={value:.4g}" for key, value in chosen.items())
        return replace(
            self.point,
            name=f"{self.point.name}-{shown}",
            options={**self.point.options, **chosen},
        )


@dataclass(frozen=True, kw_only=True)
class Search:
    """How ranges are searched: `trials` points, for the best trade-offs between `objectives`."""

    trials: int
    objectives: tuple[str, ...] = ("utility", "usd_per_1k")

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"trials = {self.trials!r} is not positive")


@dataclass(frozen=True, kw_only=True)
class Attacks:
    """Who attacks the record: `names` (all that are known when unset), the share of the LM's replies
    that is tampered with when integrity is measured, and whether the small model is `published`,
    given away or its answers sold, so that it is attacked as well. Of several large models, `tamper_by`
    names those whose replies are tampered with; those of all are when it is empty."""

    names: tuple[str, ...] | None = None
    tamper_share: float = 0.1
    published: bool = False
    tamper_by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.tamper_share <= 1:
            raise ValueError(f"tamper_share = {self.tamper_share!r} is not between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Where LM answers are kept: in the run's folder, or in `path` to share them between runs."""

    path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class RequestBudget:
    """What one item or served request may cost at most. A request that might cost more is refused
    before anything is sent, and counts as answered wrongly; None means unlimited.

    What comes back is bounded far above what it usually is, so `bytes_down` is not limited here.
    """

    messages: int | None = None
    bytes_up: int | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    usd: float | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            limit = getattr(self, f.name)
            if limit is not None and not 0 < limit < math.inf:
                raise ValueError(f"{f.name} = {limit!r} is not positive")

    @property
    def budget(self) -> Budget | None:
        """These limits as a meter's `Budget`; None when nothing is limited."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return Budget(**given) if any(v is not None for v in given.values()) else None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan, read and checked.

    Attributes:
        path: the file it came from; relative paths start beside it.
        text: the file, as it was.
        large: the large model; the first of them where there are several.
        peers: name → large model, of all other sides; the first is `large`.
        points: fixed operating points, grids spelt out.
        spaces: points with ranges, for `search`.
        unreadable: the share of a point's first replies that may hold no answer; more stop the point.
    """

    path: Path
    text: str
    name: str
    task: TaskConfig
    small: ModelConfig
    large: ModelConfig
    points: tuple[PointConfig, ...]
    spaces: tuple[Space, ...] = ()
    peers: Mapping[str, ModelConfig] = field(default_factory=dict)
    embedder: ModelConfig | None = None
    seed: int = 0
    concurrency: int = 8
    link: Link = Link()
    links: Mapping[str, Link] = field(default_factory=lambda: LINKS)
    budget: Budget = field(default_factory=Budget)
    request_budget: RequestBudget = RequestBudget()
    limits: Mapping[str, float | str] = field(default_factory=dict)
    at_least: Mapping[str, float | str] = field(default_factory=dict)
    delta: float = 0.05
    unreadable: float = 0.5
    search: Search | None = None
    attacks: Attacks = Attacks()
    replay: Replay = Replay()
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)

    def __post_init__(self) -> None:
        if len(self.peers) < 2:  # then `large` alone says what it is
            object.__setattr__(self, "peers", {next(iter(self.peers), ONE): self.large})

    @property
    def base(self) -> Path:
        return self.path.parent

    def peers_of(self, point: PointConfig) -> dict[str, ModelConfig]:
        """The large models that `point` speaks to, by name; none where nothing crosses."""
        needs = make_strategy(point).needs
        return chosen(point.peers, needs, self.peers, where=f"point {point.name!r}")

    def tampers(self, peer: str) -> bool:
        """Whether the replies of the large model called `peer` are tampered with, where integrity is
        measured."""
        return not self.attacks.tamper_by or peer in self.attacks.tamper_by


@dataclass(frozen=True, kw_only=True)
class _File:
    """The keys a plan may have at its top."""

    name: str
    task: Mapping[str, object]
    models: Mapping[str, object]
    points: tuple[Mapping[str, object], ...]
    seed: int = 0
    concurrency: int = 8
    link: Link = Link()
    links: Mapping[str, Link] = field(default_factory=lambda: LINKS)
    budget: Budget = field(default_factory=Budget)
    request_budget: RequestBudget = RequestBudget()
    limits: Mapping[str, float | str] = field(default_factory=dict)
    at_least: Mapping[str, float | str] = field(default_factory=dict)
    delta: float = 0.05
    unreadable: float = 0.5
    defences: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    search: Search | None = None
    attacks: Attacks = Attacks()
    replay: Replay = Replay()
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"concurrency = {self.concurrency!r} is not positive")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta = {self.delta!r} is not between 0 and 1")
        if not 0 <= self.unreadable <= 1:
            raise ValueError(f"unreadable = {self.unreadable!r} is not between 0 and 1")
        if not all(each.mbit_per_s > 0 <= each.rtt_ms for each in self.links.values()):
            raise ValueError("a link of [links] needs mbit_per_s above 0, and rtt_ms of 0 or more")
        if not self.name or any(c in self.name for c in "/\\\0"):
            raise ValueError(f"name = {self.name!r} cannot name a folder")


def load_plan(path: Path, *, base: Path | None = None) -> Plan:
    """The plan in the file `path`; `base` is where its relative paths start, if not beside it.

    Raises:
        ConfigError: the file cannot be read, or something in it is unknown, missing, of the wrong
            type or refused; the message names the file, the table and the nearest name.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"cannot read the plan {str(path)!r}: {error.strerror}") from None
    return parse_plan(text, (base or path.absolute().parent) / path.name)


def parse_plan(text: str, path: Path) -> Plan:
    """The plan that `text` spells out, as if it stood in the file `path`.

    Raises:
        ConfigError: as for `load_plan`.
    """
    where = path.name
    try:
        file = read(_File, tomllib.loads(text), where=where)
    except tomllib.TOMLDecodeError as error:
        twice = declared_twice(error, where)
        raise twice or ConfigError(f"{where}: not TOML: {error}") from None
    roles = ("small", "large", "embedder")
    for role in file.models:
        if role not in roles:
            raise ConfigError(f"{where}: [models]: {unknown('model', role, roles)}")
    for role in roles[:2]:
        if role not in file.models:
            raise ConfigError(f"{where}: [models.{role}] must be given")
    peers = read_peers(file.models["large"], where=where, base=path.parent)
    described = {
        role: read_model(
            convert(table, Mapping[str, object], where=f"{where}: [models.{role}]"),
            where=f"{where}: [models.{role}]",
            base=path.parent,
        )
        for role, table in file.models.items()
        if role != "large"
    }
    for name in file.attacks.names or ():
        if name not in attacks.names():
            raise ConfigError(f"{where}: [attacks]: {unknown('attack', name, attacks.names())}")
    for name in file.attacks.tamper_by:
        if name not in peers:
            raise ConfigError(
                f"{where}: [attacks] tamper_by: {unknown('large model', name, peers)}"
            )
    points, spaces = _points(file, peers, where, path.parent)
    _check_limits(file, None if spaces else [p.name for p in points], where)
    return Plan(
        path=path,
        text=text,
        name=file.name,
        task=parse_task(file.task, where=f"{where}: [task]"),
        small=described["small"],
        large=next(iter(peers.values())),
        peers=peers,
        embedder=described.get("embedder"),
        points=points,
        spaces=spaces,
        seed=file.seed,
        concurrency=file.concurrency,
        link=file.link,
        links=file.links,
        budget=file.budget,
        request_budget=file.request_budget,
        limits=file.limits,
        at_least=file.at_least,
        delta=file.delta,
        unreadable=file.unreadable,
        search=file.search,
        attacks=file.attacks,
        replay=_beside(file.replay, path.parent),
        privacy=file.privacy.beside(path.parent),
    )


_OWN = ("strategy", "name", "defences", "peers")
"""The keys of a point that are no options of its strategy."""


def limit_texts(
    limits: Mapping[str, float | str], at_least: Mapping[str, float | str]
) -> tuple[list[str], list[str]]:
    """A plan's limits as the flags of `cosilo select` would state them: at most, at least."""

    def stated(some: Mapping[str, float | str]) -> list[str]:
        return [f"{name}={value}" for name, value in some.items()]

    return stated(limits), stated(at_least)


def _check_limits(file: _File, points: list[str] | None, where: str) -> None:
    """Refuse a limit on something that does not exist before anything is spent."""
    import cosilo.objectives  # noqa: F401 — registers them

    known = {name: objectives.create(name).objective for name in objectives.names()}
    at_most, at_least = limit_texts(file.limits, file.at_least)
    try:
        for text in at_most:
            parse_limit(text, known, points=points, direction="at most")
        for text in at_least:
            parse_limit(text, known, points=points, direction="at least")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _beside(replay: Replay, base: Path) -> Replay:
    return Replay(path=base / replay.path) if replay.path is not None else replay


def _points(
    file: _File, peers: Mapping[str, ModelConfig], where: str, base: Path
) -> tuple[tuple[PointConfig, ...], tuple[Space, ...]]:
    known = {
        name: read_defence(name, table, where=f"{where}: [defences.{name}]", base=base)
        for name, table in file.defences.items()
    }
    points: list[PointConfig] = []
    spaces: list[Space] = []
    for number, table in enumerate(file.points, 1):
        for found in _spelt_out(
            table, known, peers, file.seed, where=f"{where}: [[points]] {number}", base=base
        ):
            (spaces if isinstance(found, Space) else points).append(found)  # type: ignore[arg-type]
    if not points and not spaces:
        raise ConfigError(f"{where}: no [[points]] are given, so there is nothing to compare")
    if spaces and file.search is None:
        raise ConfigError(
            f"{where}: point {spaces[0].point.name!r} has ranges: add a [search] table with trials"
        )
    if file.search is not None and not spaces:
        raise ConfigError(f"{where}: [search] needs an option given as {{low = …, high = …}}")
    names = [p.name for p in points] + [s.point.name for s in spaces]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: two points are named {name!r}; give one a name of its own")
    return tuple(points), tuple(spaces)


def _spelt_out(
    table: Table,
    known: Mapping[str, DefenceConfig],
    peers: Mapping[str, ModelConfig],
    seed: int,
    *,
    where: str,
    base: Path,
) -> list[PointConfig | Space]:
    """One point per combination of the values that `table` lists."""
    strategy = table.get("strategy")
    if not isinstance(strategy, str):
        raise ConfigError(f"{where}: strategy must be given as text")
    try:
        accepted = options_of(strategies.get(strategy))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    name = convert(table.get("name", strategy), str, where=f"{where}: name")
    axes: dict[str, list[Any]] = {"seed": [seed]} if "seed" in accepted else {}
    ranges: dict[str, Range] = {}
    for key, value in table.items():
        if key in _OWN:
            continue
        if key not in accepted:
            what = f"option of strategy {strategy!r}"
            raise ConfigError(f"{where}: {unknown(what, key, {*accepted, *_OWN[1:]})}")
        found = _values(value, accepted[key].type, where=f"{where}: {key}")
        if isinstance(found, Range):
            ranges[key] = found
        else:
            axes[key] = [base / v if isinstance(v, Path) else v for v in found]
    whole = frozenset(k for k in ranges if accepted[k].type in (int, int | None))
    made: list[PointConfig | Space] = []
    sides = read_names(table.get("peers", []), where=f"{where}: peers")
    combined = _combinations(table.get("defences", []), known, where=f"{where}: defences")
    for around, asked in product(combined, sides):
        for values in product(*axes.values()):
            options = dict(zip(axes, values, strict=True))
            shown = [f"{k}={_short(v)}" for k, v in options.items() if len(axes[k]) > 1]
            full = "-".join([name, *shown])
            full += "".join(f"@{peer}" for peer in asked if len(sides) > 1)
            full += "".join(f"+{d.name}" for d in around)
            point = PointConfig(full, strategy, options, around, asked)
            if ranges:
                space = Space(point, ranges, whole)
                _check(space.lowest, peers, where)
                made.append(space)
            else:
                _check(point, peers, where)
                made.append(point)
    return made


def _check(point: PointConfig, peers: Mapping[str, ModelConfig], where: str) -> None:
    try:
        needs = make_strategy(point).needs  # asks the inner strategies, too
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    chosen(point.peers, needs, peers, where=where)


def _values(value: object, wanted: object, *, where: str) -> list[Any] | Range:
    """The values an option takes: one, a list of them where no list is wanted, or a range."""
    try:
        return [convert(value, wanted, where=where)]
    except ConfigError:
        if isinstance(value, Mapping) and {"low", "high"} & value.keys():
            return read(Range, value, where=where)
        if not isinstance(value, list):
            raise
    if not value:
        raise ConfigError(f"{where} is an empty list, so there would be no point")
    return [convert(v, wanted, where=f"{where}[{i}]") for i, v in enumerate(value)]


def _combinations(
    value: object, known: Mapping[str, DefenceConfig], *, where: str
) -> list[tuple[DefenceConfig, ...]]:
    if not isinstance(value, list):
        raise ConfigError(f"{where} must be a list of names, or a list of such lists")
    nested = value if value and all(isinstance(v, list) for v in value) else [value]
    return [tuple(_defence(name, known, where=where) for name in names) for names in nested]


def _defence(name: object, known: Mapping[str, DefenceConfig], *, where: str) -> DefenceConfig:
    if not isinstance(name, str):
        raise ConfigError(f"{where} must be a list of names, or a list of such lists")
    if name in known:
        return known[name]
    if name in defences.names():
        return DefenceConfig(name, name)
    raise ConfigError(f"{where}: {unknown('defence', name, {*known, *defences.names()})}")


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
