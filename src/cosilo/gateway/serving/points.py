"""An operating point, opened for serving: a prepared strategy and the ways it can be answered.

Recipe (what it is made of) ──prepare──▶ Point ── routes, tried in order:
                                                  the first upstream, the next, …, small alone
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Ask, Embed, Message
from cosilo.boundary.meter import Budget, Meter, Price
from cosilo.boundary.record.ledger import Ledger
from cosilo.boundary.transports.base import Handles
from cosilo.defences.base import Defence
from cosilo.errors import ConfigError, LocalOnlyError
from cosilo.gateway.refusals import RequestError
from cosilo.gateway.serving.fields import NO_FIELDS, Policy, Sorted, check_policies, sort
from cosilo.gateway.serving.tabs import Personal, Tab, Till
from cosilo.gateway.serving.upstreams import Absent, Fuse, Upstream
from cosilo.interrupts import in_thread
from cosilo.models.base import Embedder, Shows, honours
from cosilo.parties.around.exposed import Exposed
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.exposure import Peer
from cosilo.parties.remote import way_to
from cosilo.privacy.account import PrivacyConfig
from cosilo.privacy.mechanisms import Booking
from cosilo.registry import unknown
from cosilo.session import (
    ModelConfig,
    PointConfig,
    Side,
    account_of,
    make_defences,
    make_strategy,
    open_session,
    owned,
    require_all,
)
from cosilo.strategies.base import ONE, Session, Strategy, close
from cosilo.strategies.inference.ends import Large, Small
from cosilo.types import Sampling

PREFIX = "cosilo/"

Fallback = Literal["refuse", "small"]


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a point is served.

    Attributes:
        fallback: what happens when no upstream answers: `refuse` the request, or let the `small`
            model answer alone.
        timeout_seconds: how long one upstream may take for an answer, or for its first piece.
        idle_seconds: how long it may take between two pieces.
        stream_seconds: how long a whole stream may take.
        most_kb: how much text a request may hold, once for each answer it asks for. Where it is not
            given: what the point's defences are sure to be done with in time, whatever stands in it.
        fields: what becomes of further fields of a request, `pass`, `drop` or `refuse` by their names,
            where that is not what `serving.fields.RULES` says.
        local_only: no request leaves for a large model: the small one answers alone, or the strategy
            where it sends nothing.
    """

    fallback: Fallback = "refuse"
    timeout_seconds: float = 120.0
    idle_seconds: float = 60.0
    stream_seconds: float = 900.0
    most_kb: float | None = None
    fields: Mapping[str, Policy] = field(default_factory=dict)
    local_only: bool = False

    def __post_init__(self) -> None:
        check_policies(self.fields)
        if self.most_kb is not None and not 0 < self.most_kb < math.inf:
            raise ValueError(f"most_kb = {self.most_kb!r} is not positive")
        for name in ("timeout_seconds", "idle_seconds", "stream_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not positive")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a point is made of, before anything is opened.

    Attributes:
        config: strategy, options and defences.
        owner: the data owner with the small model; its calibration data is what `prepare` reads.
        upstreams: the names of the large models, in the order they are tried; may be empty. Of a
            strategy that speaks to several at once, all of those.
        answers: what stands in for an upstream while the strategy is prepared, by its name, e.g. the
            recorded answers of the run it comes from, so that nothing is paid twice.
        sampling: how answers were drawn when the point was measured; it holds for what the client
            leaves open.
        budget: what one request may cost, as when the point was measured.
        system: what a conversation begins with that has no system turn of its own, e.g. the task's
            instructions, with which the point was measured.
        privacy: which book notes what is spent of the owner's records, and how much may be.
        small: how the owner's small model is described, where it can be made again.
        embedder: the name of the upstream that turns texts into vectors, where the owner's own model
            does not.
    """

    config: PointConfig
    owner: DataOwner
    upstreams: tuple[str, ...] = ()
    answers: Mapping[str, Handles] = field(default_factory=dict)
    sampling: Sampling = Sampling()
    serving: Serving = field(default_factory=Serving)
    budget: Budget | None = None
    system: str = ""
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    small: ModelConfig | None = None
    embedder: str = ""

    @property
    def name(self) -> str:
        return self.config.name


@dataclass(frozen=True)
class Route:
    """One way to an answer: a prepared strategy in a session towards an upstream, or towards several
    that are asked together; towards none where the small model answers alone."""

    strategy: Strategy
    session: Session
    upstreams: tuple[Upstream, ...]

    @property
    def name(self) -> str:
        return "+".join(upstream.name for upstream in self.upstreams) or "small"

    def honours(self, field: str) -> bool:
        """Whether whoever answers here does what a further field of that name says: each large model,
        the small one where the strategy may ask it, and the strategy itself, where it does not draw
        tokens by itself.
        """
        if not self.strategy.needs.sends <= {Ask}:
            return False
        asked: list[object] = [upstream.model for upstream in self.upstreams]
        small = self.session.owner.model
        if not isinstance(self.strategy, Large) and not isinstance(small, Absent):
            asked.append(small)
        return bool(asked) and all(honours(model, field) for model in asked)


@dataclass(frozen=True)
class RemoteEmbedder:
    """Somebody else's model that turns texts into vectors, and the road to it."""

    upstream: Upstream
    channel: Boundary


@dataclass(frozen=True)
class ServedPoint:
    """A point that answers requests.

    Attributes:
        home: the way to an answer for requests that may not leave; None where there is none.
        embedder: turns texts into vectors, in this process; or `remote_embedder` does, elsewhere.
        parting: the session in which what the point holds is ended.
    """

    name: str
    strategy: str
    serving: Serving
    sampling: Sampling
    routes: tuple[Route, ...]
    defences: tuple[Defence, ...]
    embedder: Embedder | None
    budget: Budget | None = None
    system: str = ""
    home: Route | None = None
    remote_embedder: RemoteEmbedder | None = None
    parting: Session | None = None

    @property
    def model(self) -> str:
        """Its name in the API."""
        return PREFIX + self.name

    async def close(self) -> None:
        """End what its strategy holds, once its requests are over. Models and defences may be those of
        other points, too."""
        held = {id(route.strategy): route.strategy for route in self.routes}
        for strategy in held.values():
            await close(strategy, self.parting or self.routes[0].session)

    def ways(self, *, local_only: bool) -> tuple[Route, ...]:
        """The routes of a request, in the order that they are tried.

        Raises:
            LocalOnlyError: it may not leave, and nothing at home answers.
        """
        if not local_only:
            return self.routes
        if self.home is None:
            raise LocalOnlyError(
                f"this request may not leave for a large model, and {self.model!r} has no model at "
                "home that answers alone; nothing was sent"
            )
        return (self.home,)

    def sorted(self, given: Mapping[str, bytes], *, local_only: bool = False) -> Sorted:
        """What becomes of the further fields of a request, JSON by their names.

        Raises:
            RequestError: one is refused.
        """
        if not given:
            return NO_FIELDS
        route = self.ways(local_only=local_only)[0]
        return sort(given, self.serving.fields, route.honours)

    @cached_property
    def sends(self) -> bool:
        """Whether anything can leave the building."""
        return any(r.upstreams and r.strategy.needs.sends for r in self.routes)

    @property
    def most_bytes(self) -> float:
        """How much text a request may hold, once for each answer that it asks for."""
        if self.serving.most_kb is not None:
            return self.serving.most_kb * 1000
        if not self.defences:
            return math.inf
        # Half of the time that an answer may take; the rest is the model's.
        found = (d.most_bytes(self.serving.timeout_seconds / 2) for d in self.defences)
        return min(found, default=math.inf)

    @cached_property
    def together(self) -> int:
        """How many upstreams one question goes to at once, at most."""
        return max((len(route.upstreams) for route in self.routes), default=0)

    @cached_property
    def price(self) -> Price:
        """A price in which each figure is the highest among the point's upstreams: an upper bound
        for any of them.
        """
        prices = [upstream.price for r in self.routes for upstream in r.upstreams]
        return Price(
            max((p.usd_per_m_in for p in prices), default=0.0),
            max((p.usd_per_m_out for p in prices), default=0.0),
            max((p.reasoning for p in prices), default=0),
            max((p.attempts for p in prices), default=1),
            usd_per_hour=max((p.usd_per_hour for p in prices), default=0.0),
            longest_s=max((p.longest_s for p in prices), default=0.0),
            usd_per_gb=max((p.usd_per_gb for p in prices), default=0.0),
        )


async def open_recipe(
    recipe: Recipe,
    upstreams: Mapping[str, Upstream],
    *,
    tabs: dict[str, Tab],
    ledger: Ledger,
    beside: Callable[[str], Ledger] | None = None,
) -> ServedPoint:
    """The point that `recipe` describes, prepared.

    Args:
        tabs: the open tabs by request, which its guards charge.
        ledger: where its crossings are recorded.
        beside: where those with one of several upstreams that are asked together are recorded, the
            first of them apart.

    Raises:
        ConfigError: it names an upstream that does not exist, too few of them, or options that are
            refused.
        CapabilityError: a model shows less than the strategy needs; nothing has been sent.
        ModelError: a model failed while the strategy was being prepared.
    """
    # A detector's words and rules are read here; others are served meanwhile.
    defences = await in_thread(lambda: make_defences(recipe.config))
    opened: list[Defence] = []
    try:
        for defence in defences:
            await defence.open()
            opened.append(defence)
        return await _open(recipe, upstreams, defences, tabs, ledger, beside)
    except BaseException:
        for defence in opened:
            await defence.close()
        raise


async def _open(
    recipe: Recipe,
    upstreams: Mapping[str, Upstream],
    defences: tuple[Defence, ...],
    tabs: dict[str, Tab],
    ledger: Ledger,
    beside: Callable[[str], Ledger] | None,
) -> ServedPoint:
    strategy, sampling = make_strategy(recipe.config), recipe.sampling
    ways = _ways(recipe, strategy, upstreams)
    for defence in defences:
        if isinstance(defence, Personal):
            defence.bind(lambda request: tabs[request].caller if request in tabs else b"")
    fallback = recipe.serving.fallback
    if isinstance(recipe.owner.model, Absent) and (
        fallback == "small" or isinstance(strategy, Small)
    ):
        raise ConfigError(f"point {recipe.name!r}: small must be given, as it is to answer alone")
    for first, *others in ways:
        require_all(
            recipe.owner,
            _owner(first),
            strategy,
            by=f"point {recipe.name!r}",
            others={other.name: _owner(other) for other in others},
        )
    ledgers = {"": ledger}
    for other in ways[0][1:] if ways else ():
        if beside is None:
            raise ConfigError(f"point {recipe.name!r}: there is no record for {other.name!r}")
        # Opening one may wait for a database; others are served meanwhile.
        ledgers[other.name] = await asyncio.to_thread(beside, other.name)
    session = _preparing(recipe, strategy, ways[0] if ways else (), defences, ledgers)
    prepared, session = await strategy.prepare(session.bind(f"prepare/{recipe.name}"))
    async with AsyncExitStack() as failing:
        failing.push_async_callback(close, prepared, session)
        routes = [
            Route(
                prepared, _towards(way, session, prepared, defences, tabs, ledgers, sampling), way
            )
            for way in ways
        ]
        alone = _alone(session, sampling)
        parting = _parting(recipe, ways, session, prepared, defences, ledgers) if ways else alone
        home = None if isinstance(session.owner.model, Absent) else Route(Small(), alone, ())
        if not prepared.needs.sends:
            home = Route(prepared, alone, ())
        if not routes:
            routes = [Route(prepared, alone, ())]
        elif fallback == "small":
            routes.append(Route(Small(), alone, ()))
        if recipe.serving.local_only and home is None:
            raise ConfigError(
                f"point {recipe.name!r}: local_only needs small, which answers alone, or a strategy "
                "that sends nothing"
            )
        point = ServedPoint(
            name=recipe.name,
            strategy=recipe.config.strategy,
            serving=recipe.serving,
            sampling=sampling,
            routes=tuple(routes),
            defences=defences,
            embedder=recipe.owner.embedder,
            budget=recipe.budget,
            system=recipe.system,
            home=home,
            parting=parting,
            remote_embedder=_embedder(recipe, upstreams, session, defences, tabs, ledger),
        )
        failing.pop_all()
    return point


def _embedder(
    recipe: Recipe,
    upstreams: Mapping[str, Upstream],
    session: Session,
    defences: Sequence[Defence],
    tabs: dict[str, Tab],
    ledger: Ledger,
) -> RemoteEmbedder | None:
    if not recipe.embedder:
        return None
    upstream = _named(recipe.embedder, upstreams, recipe.name)
    shown = replace(upstream, exposes=upstream.exposes | Embed.shows)  # it is named for just this
    declared = frozenset({Embed})
    channel = _road(shown, declared, defences, tabs, ledger, session.account)
    return RemoteEmbedder(upstream, channel)


def _alone(session: Session, sampling: Sampling) -> Session:
    """The session for answers that are made at home: no message can cross in it."""
    nobody = owned(Absent("large"), Shows.NOTHING)
    channel = Boundary(way_to(nobody), declared=frozenset())
    return Session(session.owner, channel, sampling, session.cards, session.account)


def _parting(
    recipe: Recipe,
    ways: Sequence[Sequence[Upstream]],
    session: Session,
    strategy: Strategy,
    defences: Sequence[Defence],
    ledgers: Mapping[str, Ledger],
) -> Session:
    """The session in which what the point holds is ended, at all upstreams: behind the same defences,
    and without tabs, as it is of no request."""
    channels = {
        upstream.name: Boundary(
            way_to(_owner(upstream)),
            declared=strategy.needs.sends,
            guards=tuple(defences),
            meter=Meter(price=upstream.price),
            ledger=ledgers.get(upstream.name, ledgers[""]),
            request=f"close/{recipe.name}",
            account=session.account,
        )
        for way in ways
        for upstream in way
    }
    return Session(
        session.owner,
        channels[ways[0][0].name],
        recipe.sampling,
        account=session.account,
        peers=channels,
    )


def _ways(
    recipe: Recipe, strategy: Strategy, upstreams: Mapping[str, Upstream]
) -> list[tuple[Upstream, ...]]:
    """The upstreams of each route, in the order that routes are tried.

    Raises:
        ConfigError: one is named that does not exist, one twice, or another number than it takes.
    """
    chosen = [_named(name, upstreams, recipe.name) for name in recipe.upstreams]
    needs, kind = strategy.needs, recipe.config.strategy
    if needs.sends and not chosen:
        raise ConfigError(f"point {recipe.name!r}: strategy {kind!r} needs large")
    if not needs.sends or (needs.peers == 1 and not needs.every):
        return [(upstream,) for upstream in chosen]
    wrong = len(chosen) < needs.peers or (len(chosen) > needs.peers and not needs.every)
    if wrong or len(set(recipe.upstreams)) < len(chosen):
        raise ConfigError(
            f"point {recipe.name!r}: strategy {kind!r} asks {needs.peers} large models "
            f"{'or more ' if needs.every else ''}together, but large names {len(set(recipe.upstreams))}"
        )
    return [tuple(chosen)]


def _preparing(
    recipe: Recipe,
    strategy: Strategy,
    way: Sequence[Upstream],
    defences: Sequence[Defence],
    ledgers: Mapping[str, Ledger],
) -> Session:
    """The session that the point is prepared in: without tabs, and with the recorded answers."""

    def side(upstream: Upstream, ledger: Ledger) -> Side:
        answers = recipe.answers.get(upstream.name)
        lm = _owner(upstream)
        return Side(
            lm=lm if answers is None else Exposed(answers, upstream.exposes),
            meter=Meter(price=upstream.price),
            ledger=ledger,
        )

    account = account_of(recipe.privacy, recipe.owner, spender=f"gateway/{recipe.name}")
    first = side(way[0], ledgers[""]) if way else None
    return open_session(
        recipe.owner,
        first.lm if first else owned(Absent("large"), Shows.TEXT),
        strategy,
        defences=defences,
        sampling=recipe.sampling,
        meter=first.meter if first else None,
        ledger=ledgers[""],
        account=account,
        name=way[0].name if way else ONE,
        others={other.name: side(other, ledgers[other.name]) for other in way[1:]},
    )


def _towards(
    way: Sequence[Upstream],
    session: Session,
    strategy: Strategy,
    defences: Sequence[Defence],
    tabs: dict[str, Tab],
    ledgers: Mapping[str, Ledger],
    sampling: Sampling,
) -> Session:
    channels = {
        upstream.name: _road(
            upstream,
            strategy.needs.sends,
            defences,
            tabs,
            ledgers[upstream.name if at else ""],
            session.account,
        )
        for at, upstream in enumerate(way)
    }
    return Session(
        session.owner,
        channels[way[0].name],
        sampling,
        account=session.account,
        peers=channels,
        defended=bool(defences),
    )


def _road(
    upstream: Upstream,
    declared: frozenset[type[Message]],
    defences: Sequence[Defence],
    tabs: dict[str, Tab],
    ledger: Ledger,
    account: Booking | None,
) -> Boundary:
    """The only kind of road on which a client's request leaves."""
    till = Till(tabs, upstream.price, defences, place=upstream.place)
    return Boundary(
        way_to(_owner(upstream)),
        declared=declared,
        guards=(Fuse(upstream.breaker), *defences, till),
        meter=Meter(price=upstream.price),
        ledger=ledger,
        account=account,
    )


def _owner(upstream: Upstream) -> Peer:
    return owned(upstream.model, upstream.exposes, upstream.body)


def _named(name: str, upstreams: Mapping[str, Upstream], point: str) -> Upstream:
    try:
        return upstreams[name]
    except KeyError:
        raise ConfigError(f"point {point!r}: {unknown('model', name, upstreams)}") from None


def find(points: Mapping[str, ServedPoint], model: str) -> ServedPoint:
    """The point that a request's `model` names.

    Raises:
        RequestError: there is none (404); the message gives the nearest.
    """
    point = points.get(model)
    if point is None:
        text = unknown("model", model, points)
        raise RequestError(text, status=404, param="model", code="model_not_found")
    return point
