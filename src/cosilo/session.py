"""Opens models, parties, strategies and defences from configuration: the one way, for benchmark and
gateway.

TOML tables ──▶ ModelConfig, DefenceConfig, PointConfig ──▶ models, parties ──▶ open_point
                                                                                 │
                                 (strategy, session), ready to `prepare` ◀───────┘
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from inspect import signature
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

# Importing these packages registers what they hold.
import cosilo.defences
import cosilo.models
import cosilo.strategies  # noqa: F401
from cosilo.boundary.channel import Boundary
from cosilo.boundary.meter import Link, Meter, Price
from cosilo.boundary.record.ledger import Ledger
from cosilo.boundary.transports.base import Transport
from cosilo.defences.at_home import with_finder
from cosilo.defences.base import Defence, defences
from cosilo.errors import CapabilityError, ConfigError, StoreError
from cosilo.models import catalog
from cosilo.models.base import Shows, TextModel, models, require, require_trainable
from cosilo.models.parts import has_parts
from cosilo.models.sharded import Sharding
from cosilo.parties.bodies import BodyTuning, ClientBodies
from cosilo.parties.coordinating.kind import Coordinating
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.exposure import Peer, requires_threads
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.remote import ELSEWHERE, FILES, LargeModel, RemoteOwner, way_to
from cosilo.privacy.account import PrivacyAccount, PrivacyConfig
from cosilo.privacy.book import groups_of
from cosilo.registry import Loads, Registry, unknown
from cosilo.strategies.base import ONE, Session, Strategy, strategies
from cosilo.strategies.cards import Card
from cosilo.tables import Table, check, options_of, read
from cosilo.types import Sampling


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model as a plan or a gateway's configuration describes it.

    Attributes:
        kind: its name in the registry of models.
        exposes: what its owner lets the other party see, where it is the LM.
        usd_per_m_in, usd_per_m_out: dollars per million prompt and completion tokens.
        usd_per_m_cached: per million prompt tokens that the model's owner says it had read before;
            `usd_per_m_in` when unset.
        usd_per_hour: per hour that requests are worked on, for a machine that is rented.
        longest_s: seconds that one try of a request may take, where hours cost money; the kind's own
            `timeout_s` when unset.
        usd_per_gb: per 10⁹ bytes of messages, both ways.
        link: the network to its owner, where it is another than the plan's.
        train: fit it on the private training data when the session opens, where it is the SM.
        train_items: use the first so many of them only; the rest are the pool without gold targets.
        shards: train in shards, where it is the SM, so that to forget a record trains one again.
        body: how its owner trains adapters on its layers for others, where it is the LM; by default it
            does not.
        options: what the kind itself is told.
    """

    kind: str
    exposes: Shows = Shows.TEXT
    usd_per_m_in: float = 0.0
    usd_per_m_out: float = 0.0
    usd_per_m_cached: float | None = None
    usd_per_hour: float = 0.0
    longest_s: float | None = None
    usd_per_gb: float = 0.0
    link: Link | None = None
    train: bool = False
    train_items: int | None = None
    shards: Sharding | None = None
    body: BodyTuning | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("usd_per_m_in", "usd_per_m_out", "usd_per_hour", "usd_per_gb"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)!r} is no price from 0 on")
        cached, longest = self.usd_per_m_cached, self.longest_s
        if cached is not None and not 0 <= cached <= self.usd_per_m_in:
            raise ValueError(f"usd_per_m_cached = {cached!r} is not between 0 and usd_per_m_in")
        if longest is not None and not 0 < longest < math.inf:
            raise ValueError(f"longest_s = {longest!r} is no positive number of seconds")
        if self.train_items is not None and self.train_items < 1:
            raise ValueError(f"train_items = {self.train_items!r} is not positive")

    @property
    def price(self) -> Price:
        """What the model's owner bills, its reasoning allowance, and how often a request may be tried.

        Raises:
            ConfigError: hours cost money, and nothing says how long a request may take.
        """
        longest = 0.0
        if self.usd_per_hour:
            longest = self.longest_s or self._told("timeout_s")
            if not longest:
                raise ConfigError(
                    f"usd_per_hour needs longest_s: models of kind {self.kind!r} have no timeout_s, so "
                    "nothing bounds what a request can cost"
                )
        return Price(
            self.usd_per_m_in,
            self.usd_per_m_out,
            reasoning=int(self._told("reasoning")),
            attempts=1 + int(self._told("retries")),
            usd_per_m_cached=self.usd_per_m_cached,
            usd_per_hour=self.usd_per_hour,
            longest_s=longest,
            usd_per_gb=self.usd_per_gb,
        )

    def _told(self, option: str) -> float:
        """The number that the kind is given for `option`, or its default; 0 where it has no such
        option.
        """
        known = signature(models.get(self.kind)).parameters
        return float(self.options.get(option, known[option].default if option in known else 0))


@dataclass(frozen=True)
class DefenceConfig:
    """A defence under the name that points use for it: its kind, or a variant with own options."""

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PointConfig:
    """An operating point: a strategy, its options, and the defences around it, outermost first.

    Attributes:
        peers: the names of the large models that it may speak to, the first of them `Session.lm`; all
            there are when empty.
    """

    name: str
    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    defences: tuple[DefenceConfig, ...] = ()
    peers: tuple[str, ...] = ()


def read_model(table: Table, *, where: str, base: Path) -> ModelConfig:
    """The model that `table` describes; relative paths in it are taken from `base`.

    Raises:
        ConfigError: an unknown kind or key, a missing key, or a value of the wrong type.
    """
    common = {f.name for f in fields(ModelConfig)} - {"options"}
    options = {k: v for k, v in table.items() if k not in common}
    config = read(ModelConfig, {k: table[k] for k in table.keys() & common}, where=where)
    found = check_options(models, config.kind, options, where=where, also=common)
    named = set(models.loads(config.kind, found).models) - set(catalog.entries())
    for key, value in found.items():  # a name of the catalog or a folder: then it is the folder
        if isinstance(value, str) and value in named and (base / value).is_dir():
            found[key] = base / value
    if config.kind in ELSEWHERE:  # text, as no file of its own decides what the owner answers
        found |= {key: str(base / found[key]) for key in FILES if found.get(key)}
    own = {k: getattr(config, k) for k in common}
    if config.body is not None and config.body.folder is not None:
        own["body"] = replace(config.body, folder=base / config.body.folder)
    made = ModelConfig(**own, options=_absolute(found, base))
    try:
        made.price  # noqa: B018 — says what it lacks
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return made


def read_defence(name: str, table: Table, *, where: str, base: Path | None = None) -> DefenceConfig:
    """The defence that `table` describes under `name`; relative paths in it are taken from `base`.

    Raises:
        ConfigError: an unknown kind or key, a missing key, or a value of the wrong type.
    """
    kind = table.get("kind", name)
    if not isinstance(kind, str):
        raise ConfigError(f"{where}: kind must be text")
    options = {k: v for k, v in table.items() if k != "kind"}
    found = check_options(defences, kind, options, where=where)
    return DefenceConfig(name, kind, _absolute(found, base))


def _absolute(options: Mapping[str, Any], base: Path | None) -> dict[str, Any]:
    if base is None:
        return dict(options)
    return {k: base / v if isinstance(v, Path) else v for k, v in options.items()}


def check_options(
    registry: Registry[Any],
    name: str,
    options: Table,
    *,
    where: str,
    also: Sequence[str] | set[str] = (),
) -> dict[str, Any]:
    """`options` as what `registry`'s `name` takes, converted; `also` are keys read elsewhere.

    Raises:
        ConfigError: an unknown name or option, or a value of the wrong type.
    """
    try:
        factory = registry.get(name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    known = options_of(factory)
    for key in options:
        if key not in known:
            what = f"option of {registry.kind} {name!r}"
            raise ConfigError(f"{where}: {unknown(what, key, {*known, *also})}")
    return check(factory, options, where=where)


def make_model(config: ModelConfig) -> TextModel:
    """The model, loaded.

    Raises:
        ConfigError: it refuses its options, or is another owner's.
        CatalogError: a model file is missing or not what it claims to be.
    """
    made = make_large(config)
    if isinstance(made, RemoteOwner):
        raise ConfigError(f"kind = {config.kind!r} is another owner, so only `large` can be it")
    return made


def make_large(config: ModelConfig) -> LargeModel:
    """A large model, loaded; or its owner, where that is on another machine.

    Raises:
        what `make_model` does.
    """
    made = models.create(config.kind, **config.options)
    return made if isinstance(made, RemoteOwner) else cast(TextModel, made)


def owned(large: LargeModel, exposes: Shows, body: BodyTuning | None = None) -> Peer:
    """The owner of a large model, who exposes that much of it.

    Args:
        body: how it trains adapters for others. Owners of one model train the same ones.

    Raises:
        ConfigError: the model has no layers to train them on.
    """
    if isinstance(large, RemoteOwner):
        if body is not None:
            raise ConfigError("body: only the owner of a model elsewhere says how it is trained")
        return replace(large, exposes=exposes)
    federation = large.federation if isinstance(large, Coordinating) else None
    return LMOwner(large, exposes, federation=federation, bodies=bodies_of(large, body))


def bodies_of(model: TextModel, body: BodyTuning | None) -> ClientBodies | None:
    """The adapters that the owner of `model` trains on its layers: one table for each model.

    Raises:
        ConfigError: it has no layers to train them on.
    """
    if body is None:
        return None
    if not has_parts(model):
        raise ConfigError(
            f"body: adapters can be trained on a torch model's layers, and {model.name!r} is none"
        )
    return _bodies.setdefault(model, ClientBodies(body))


_bodies: WeakKeyDictionary[object, ClientBodies] = WeakKeyDictionary()


def with_instructions(point: PointConfig, *texts: str) -> PointConfig:
    """`point`, its strategy and its defences told which texts are the task's own and no private ones,
    where they can be told and the plan does not tell them.
    """
    own = tuple(text for text in texts if text)

    def told(made: Callable[..., object], options: Mapping[str, Any]) -> Mapping[str, Any]:
        if "instructions" not in options_of(made) or "instructions" in options:
            return options
        return {**options, "instructions": own}

    return replace(
        point,
        options=told(strategies.get(point.strategy), point.options),
        defences=tuple(
            replace(each, options=told(defences.get(each.kind), each.options))
            for each in point.defences
        ),
    )


def make_strategy(point: PointConfig) -> Strategy:
    """The strategy of `point`, not prepared.

    Raises:
        ConfigError: an unknown strategy, or options it refuses.
    """
    return strategies.create(point.strategy, **point.options)


def make_defences(point: PointConfig) -> tuple[Defence, ...]:
    """The defences of `point`, outermost first.

    Raises:
        ConfigError: an unknown defence, or options it refuses.
    """
    return tuple(defences.create(d.kind, **d.options) for d in point.defences)


def loads_of(used: Iterable[ModelConfig], points: Iterable[PointConfig]) -> Loads:
    """The model files and optional packages that these models and points load, defaults counted.

    Raises:
        ConfigError: something is named that does not exist.
    """
    found = Loads()
    for config in used:
        found |= models.loads(config.kind, config.options)
    for point in points:
        found |= make_strategy(point).needs.loads
        for defence in point.defences:
            found |= defences.loads(defence.kind, defence.options)
    return found


def require_all(
    owner: DataOwner,
    lm: Peer,
    strategy: Strategy,
    *,
    by: str,
    others: Mapping[str, Peer] | None = None,
) -> None:
    """Refuse what cannot work before anything is spent.

    Args:
        others: the LM owners beside the first, by name.

    Raises:
        CapabilityError: a model shows less than the strategy needs, or cannot go on from what it has
            read where that is needed, or there are fewer large models.
    """
    needs, beside = strategy.needs, others or {}
    require(owner.model, needs.small, by=by)
    if needs.trainable:
        require_trainable(owner.model, by=by)
    if not needs.sends:
        return
    if needs.peers > 1 + len(beside):
        raise CapabilityError(
            f"{by} needs {needs.peers} large models, but there {'are' if beside else 'is'} "
            f"{1 + len(beside)}"
        )
    for found, which in ((lm, "the large model"), *((o, f"{n!r}") for n, o in beside.items())):
        if needs.shown not in found.exposes:
            raise CapabilityError(
                f"{by} needs {needs.shown & ~found.exposes} of {which}, but {found.name} exposes "
                f"only {found.exposes}"
            )
        if any(message.on_threads for message in needs.sends):
            requires_threads(found, by=by)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the other sides of a session beside the first, with what it is counted and recorded by.

    Attributes:
        transport: how messages reach `lm`; within the process by default.
        meter, ledger: its own; fresh ones by default.
        watch: guards around the session's defences, for this side alone.
    """

    lm: Peer
    transport: Transport | None = None
    meter: Meter | None = None
    ledger: Ledger | None = None
    watch: Sequence[Defence] = ()


def open_session(
    owner: DataOwner,
    lm: Peer,
    strategy: Strategy,
    *,
    defences: Sequence[Defence] = (),
    sampling: Sampling | None = None,
    meter: Meter | None = None,
    ledger: Ledger | None = None,
    transport: Transport | None = None,
    account: PrivacyAccount | None = None,
    watch: Sequence[Defence] = (),
    name: str = ONE,
    others: Mapping[str, Side] | None = None,
) -> Session:
    """A session in which `strategy` can be prepared and can answer.

    Args:
        defences: outermost first; around what crosses to any of the LM owners.
        account: books what messages spent of the owner's records; see `account_of`.
        transport: how messages reach `lm`; within the process by default.
        watch: guards around the defences, for messages to `lm` alone.
        name: of `lm` among the session's peers.
        others: the LM owners beside it, by name.

    Raises:
        CapabilityError: a model shows less than the strategy needs, or there are fewer large models;
            nothing has been sent.
    """
    beside = dict(others or {})
    require_all(
        owner,
        lm,
        strategy,
        by=type(strategy).__name__,
        others={n: side.lm for n, side in beside.items()},
    )
    for defence in defences:
        owner = defence.protect(owner)
    owner = with_finder(owner)
    first = Side(lm=lm, transport=transport, meter=meter, ledger=ledger, watch=watch)
    channels = {
        called: Boundary(
            side.transport or way_to(side.lm),
            declared=strategy.needs.sends,
            guards=(*side.watch, *defences),
            meter=side.meter,
            ledger=side.ledger,
            account=account,
        )
        for called, side in {name: first, **beside}.items()
    }
    return Session(
        owner,
        channels[name],
        sampling or Sampling(),
        account=account,
        peers=channels,
        defended=bool(defences),
    )


def open_point(
    point: PointConfig,
    owner: DataOwner,
    lm: Peer,
    *,
    sampling: Sampling | None = None,
    meter: Meter | None = None,
    ledger: Ledger | None = None,
    transport: Transport | None = None,
    account: PrivacyAccount | None = None,
    watch: Sequence[Defence] = (),
    name: str = ONE,
    others: Mapping[str, Side] | None = None,
) -> tuple[Strategy, Session]:
    """The strategy of `point` and a session to `prepare` it in.

    Args:
        watch: guards around the point's own defences; they see messages as the owner does. Those of
            `others` have their own.
        name, others: as for `open_session`.

    Raises:
        ConfigError: the point names or sets something that does not exist.
        CapabilityError: a model shows less than the strategy needs; nothing has been sent.
    """
    strategy = make_strategy(point)
    session = open_session(
        owner,
        lm,
        strategy,
        defences=make_defences(point),
        sampling=sampling,
        meter=meter,
        ledger=ledger,
        transport=transport,
        account=account,
        watch=watch,
        name=name,
        others=others,
    )
    return strategy, session


def account_of(privacy: PrivacyConfig, owner: DataOwner, *, spender: str) -> PrivacyAccount | None:
    """The account that all of the owner's records have in the book; None where none is kept.

    All of them: whatever a strategy made a release of is among them.

    Args:
        spender: whose releases they will be, for readers of the book.
    """
    records = (*owner.private, *owner.pool, *owner.calibration)
    return privacy.account(records, spender=spender)


def with_book(session: Session, account: PrivacyAccount | None) -> Session:
    """The session with a card that says what the records of `account` have spent with all that is
    booked, where something was booked there.
    """
    if account is None or not account.spent:
        return session
    try:
        return session.with_card(_booked(account))
    except (ConfigError, StoreError) as error:  # it is in the book, and only cannot be added up now
        facts = {"not added up": str(error)}
        return session.with_card(Card(by="privacy", title=_BOOKED, facts=facts))


_BOOKED = "ε of the records, with all that is booked"


def _booked(account: PrivacyAccount) -> Card:
    facts: dict[str, float | str] = {}
    for figure in account.figures():
        bound = "" if figure.exact else ", at most"
        facts[f"ε of a {figure.unit}{bound}"] = _said(figure.epsilon)
        facts[f"neighbours of a {figure.unit}"] = figure.neighbours
    lines = account.lines()
    facts |= {"δ": account.config.delta, "releases": len(lines)}
    if account.config.epsilon is not None:
        facts["ε that a record may spend"] = account.config.epsilon
    made = {str(part): part.alone(account.config.delta) for part in groups_of(lines)}
    facts |= {part: _said(epsilon) for part, epsilon in made.items() if math.isinf(epsilon)}
    return Card(
        by="privacy",
        title=_BOOKED,
        facts=facts,
        tables={"ε alone": {p: epsilon for p, epsilon in made.items() if epsilon < math.inf}},
    )


def _said(epsilon: float) -> float | str:
    return epsilon if epsilon < math.inf else "∞: no guarantee"
