"""The gateway's configuration: one TOML file, or what `cosilo serve RUN` makes of a run.

[server]           host, port, workers, limits
[store]            where keys, budgets and the record are kept
[models.NAME]      kind = "…" and what that kind takes; [models.NAME.breaker] for a large one
[defences.NAME]    options of a defence, as in a plan
[[points]]         name, strategy and its options, defences, as in a plan; and how it is served:
                   small = "NAME"   large = "NAME" or ["NAME", "NEXT"]   embedder = "NAME"
                   (tried in that order; or all together, where the strategy speaks to several)
                   fallback = "refuse" | "small"   timeout_seconds = …   sampling = {…}
                   fields = {NAME = "pass" | "drop" | "refuse"}   local_only = true
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeGuard

from cosilo.defences.base import defences
from cosilo.errors import ConfigError
from cosilo.gateway.record.store import default_url, folder_of, is_postgres
from cosilo.gateway.serving.breaker import Breaker, BreakerConfig
from cosilo.gateway.serving.fields import Policy
from cosilo.gateway.serving.points import Recipe, Serving
from cosilo.gateway.serving.upstreams import Absent, Upstream
from cosilo.gateway.web.cors import check_origins
from cosilo.models.base import Embedder, TextModel
from cosilo.models.base import models as model_kinds
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.remote import ELSEWHERE, LargeModel
from cosilo.privacy.account import PrivacyConfig
from cosilo.registry import Loads, unknown
from cosilo.session import (
    DefenceConfig,
    ModelConfig,
    PointConfig,
    check_options,
    loads_of,
    make_large,
    make_model,
    read_defence,
    read_model,
    with_instructions,
)
from cosilo.strategies.base import strategies
from cosilo.tables import Table, convert, options_of, read
from cosilo.types import Sampling

MOST_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """How the server listens, and how much it takes.

    Attributes:
        workers: processes.
        drain_seconds: how long requests may still take once the server is told to stop.
        max_body_bytes: the largest request body.
        held_body_bytes: of all bodies being held by one worker at the same moment.
        header_seconds, body_seconds, write_seconds: how long a client may take to send a request's
            head, its body, and to take what it is sent.
        keep_alive_seconds: how long an idle connection stays open.
        most_at_once: requests one worker answers at the same moment.
        file_pages, file_seconds: how many pages a PDF that a client sends may have, and how long a file
            may take to be read.
        ocr: the program, and what it is told, that prints the text of the image in `{file}`; without
            one, images are refused.
        access_log: a JSON line per request on standard error; it holds no text of a request.
        cors: the origins of web pages that may call the API from a browser; "*" for every page.
    """

    host: str = "127.0.0.1"
    port: int = 8400
    workers: int = 1
    drain_seconds: float = 30.0
    max_body_bytes: int = 8 << 20
    held_body_bytes: int = 64 << 20
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    write_seconds: float = 60.0
    keep_alive_seconds: float = 30.0
    most_at_once: int = MOST_AT_ONCE
    file_pages: int = 200
    file_seconds: float = 20.0
    ocr: tuple[str, ...] = ()
    access_log: bool = True
    cors: str | tuple[str, ...] = ()

    @property
    def origins(self) -> tuple[str, ...]:
        return (self.cors,) if isinstance(self.cors, str) else self.cors

    def __post_init__(self) -> None:
        check_origins(self.origins)
        if not 0 <= self.port < 65536:
            raise ValueError(f"port = {self.port!r} is not between 0 and 65535")
        if not 1 <= self.workers <= 256:
            raise ValueError(f"workers = {self.workers!r} is not between 1 and 256")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise ValueError(f"{item.name} = {value!r} is negative or no number")
        if self.held_body_bytes < self.max_body_bytes:
            raise ValueError("held_body_bytes is smaller than max_body_bytes")


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Where keys, budgets and the record are kept.

    Attributes:
        url: a folder, or postgresql://…; $COSILO_STORE, or `cosilo-gateway` where we are now, as
            `cosilo keys` has it.
        secret: the file of the gateway's secret; in a folder it is kept there.
        keep: of what crosses, `digest` or also the `content`.
        content_keys: the file of the keys that contents are sealed with.
        retention_days: after which contents are forgotten; digests stay.
        requests_days: after which finished requests are forgotten; what keys spent in all stays.
    """

    url: str | None = None
    secret: Path | None = None
    keep: Literal["digest", "content"] = "digest"
    content_keys: Path | None = None
    retention_days: float | None = None
    requests_days: float | None = None

    def __post_init__(self) -> None:
        for name in ("retention_days", "requests_days"):
            days = getattr(self, name)
            if days is not None and not 0 < days < math.inf:
                raise ValueError(f"{name} = {days!r} is not positive")
        if self.keep == "digest" and (self.content_keys or self.retention_days):
            raise ValueError('content_keys and retention_days need keep = "content"')
        if self.keep == "content" and self.content_keys is None:
            raise ValueError('keep = "content" needs content_keys, which seal what is kept')

    @property
    def loads(self) -> Loads:
        """The optional packages it needs."""
        named = self.url or default_url()
        driver = ("psycopg",) if is_postgres(named) else ()
        return Loads(packages=(*driver, *(("cryptography",) if self.content_keys else ())))


@dataclass(frozen=True)
class PointParts:
    """Models, loaded, and what each point is made of."""

    upstreams: Mapping[str, Upstream]
    recipes: Sequence[Recipe]


@dataclass(frozen=True)
class Layout:
    """All a worker needs to open its points.

    Attributes:
        base: where relative paths start.
        load: loads the models; once for each worker.
        loads: the model files and optional packages that `load` and preparing need.
        points: their names, known without loading anything; empty where a run has them.
    """

    base: Path
    server: ServerConfig
    store: StoreConfig
    load: Callable[[], PointParts]
    loads: Loads = Loads()
    points: tuple[str, ...] = ()


def store_url(layout: Layout) -> str:
    """Where the keys, budgets and record of `layout` are kept."""
    url = layout.store.url or default_url()
    return url if is_postgres(url) else str(layout.base / folder_of(url))


@dataclass(frozen=True, kw_only=True)
class SamplingDefaults:
    """How answers are drawn where the client leaves it open."""

    max_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens = {self.max_tokens!r} is not positive")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature = {self.temperature!r} is no number from 0 on")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p = {self.top_p!r} is not above 0 and at most 1")


@dataclass(frozen=True, kw_only=True)
class _File:
    """The keys the file may have at its top."""

    models: Mapping[str, Mapping[str, object]]
    points: tuple[Mapping[str, object], ...]
    server: ServerConfig = field(default_factory=ServerConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    defences: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Served:
    """The keys of a point that say how it is served; all others are its strategy's options."""

    strategy: str
    name: str = ""
    small: str | None = None
    large: str | tuple[str, ...] = ()
    embedder: str | None = None
    defences: tuple[str, ...] = ()
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    system: str = ""
    fallback: str = "refuse"
    timeout_seconds: float = Serving.timeout_seconds
    idle_seconds: float = Serving.idle_seconds
    stream_seconds: float = Serving.stream_seconds
    most_kb: float | None = None
    fields: Mapping[str, Policy] = field(default_factory=dict)
    local_only: bool = False

    @property
    def upstreams(self) -> tuple[str, ...]:
        return (self.large,) if isinstance(self.large, str) else self.large


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """The keys of the file beside a run, whose points come from the run."""

    server: ServerConfig = field(default_factory=ServerConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    serving: Serving = field(default_factory=Serving)
    privacy: PrivacyConfig | None = None


def load_gateway(path: Path) -> Layout:
    """The configuration in the file `path`.

    Raises:
        ConfigError: the file cannot be read, or something in it is unknown, missing, of the wrong
            type or refused; the message names the file, the table and the nearest name.
    """
    return parse_gateway(_text(path), path.absolute())


def load_tables(
    path: Path | None,
) -> tuple[ServerConfig, StoreConfig, Serving, PrivacyConfig | None]:
    """[server], [store], [serving] and [privacy] of the file beside a run; the defaults without one.

    Raises:
        ConfigError: as for `load_gateway`.
    """
    found = (
        _Tables() if path is None else read(_Tables, _toml(_text(path), path.name), where=path.name)
    )
    privacy = found.privacy.beside(path.absolute().parent) if path and found.privacy else None
    return found.server, found.store, found.serving, privacy


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}") from None


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {error}") from None


def parse_gateway(text: str, path: Path) -> Layout:
    """The configuration that `text` spells out, as if it stood in the file `path`.

    Raises:
        ConfigError: as for `load_gateway`.
    """
    where = path.name
    file = read(_File, _toml(text, where), where=where)
    models: dict[str, ModelConfig] = {}
    breakers: dict[str, BreakerConfig] = {}
    for name, table in file.models.items():
        at = f"{where}: [models.{name}]"
        rest = {k: v for k, v in table.items() if k != "breaker"}
        models[name] = busier(read_model(rest, where=at, base=path.parent))
        if "breaker" in table:
            breakers[name] = convert(table["breaker"], BreakerConfig, where=f"{at}: breaker")
    around = {
        name: for_serving(read_defence(name, table, where=f"{where}: [defences.{name}]"))
        for name, table in file.defences.items()
    }
    points = _points(file.points, models, around, where)
    used = {name for served, _ in points for name in served.upstreams}
    used |= {served.embedder for served, _ in points if _remote(served.embedder, models)}
    for name in breakers.keys() - used:
        raise ConfigError(f"{where}: [models.{name}.breaker]: no point has it as its large model")
    return Layout(
        base=path.parent,
        server=file.server,
        store=file.store,
        load=lambda: PointParts(
            {name: open_upstream(name, models[name], breakers.get(name)) for name in used},
            _recipes(points, models),
        ),
        points=tuple(p.name for _, p in points),
        loads=loads_of(
            [models[name] for name in sorted(used | _at_home(points))], [p for _, p in points]
        ),
    )


_REMOTE = ("openai", *ELSEWHERE)


def _remote(name: str | None, models: Mapping[str, ModelConfig]) -> TypeGuard[str]:
    """Whether the model of that name is somewhere else."""
    return name is not None and models[name].kind in _REMOTE


def _at_home(points: Sequence[tuple[_Served, PointConfig]]) -> set[str]:
    """The models that points use as their small one or to embed texts."""
    return {name for served, _ in points for name in (served.small, served.embedder) if name}


def open_upstream(
    name: str,
    config: ModelConfig,
    breaker: BreakerConfig | None = None,
    *,
    model: LargeModel | None = None,
) -> Upstream:
    """The large model that `config` describes, or `model`, loaded already."""
    return Upstream(
        name,
        model if model is not None else make_large(config),
        config.exposes,
        config.price,
        Breaker(name, breaker),
        config.body,
    )


def _points(
    tables: Sequence[Table],
    models: Mapping[str, ModelConfig],
    around: Mapping[str, DefenceConfig],
    where: str,
) -> list[tuple[_Served, PointConfig]]:
    known = {f.name for f in fields(_Served)}
    found: list[tuple[_Served, PointConfig]] = []
    for number, table in enumerate(tables, 1):
        at = f"{where}: [[points]] {number}"
        served = read(_Served, {k: v for k, v in table.items() if k in known}, where=at)
        _check_served(served, models, at)
        # An option of the strategy may be called like one of ours; then it is not the strategy's.
        rest = {k: v for k, v in table.items() if k not in known}
        options = check_options(strategies, served.strategy, rest, where=at, also=known)
        chosen = tuple(_defence(name, around, at) for name in served.defences)
        found.append(
            (served, PointConfig(served.name or served.strategy, served.strategy, options, chosen))
        )
    if not found:
        raise ConfigError(f"{where}: no [[points]] are given, so there is nothing to serve")
    names = [point.name for _, point in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: two points are named {name!r}")
        if not name.isprintable() or "/" in name or len(name) > 100:
            raise ConfigError(f"{where}: {name!r} cannot name a point")
    return found


def _check_served(served: _Served, models: Mapping[str, ModelConfig], where: str) -> None:
    if served.fallback not in ("refuse", "small"):
        raise ConfigError(
            f"{where}: fallback: {unknown('value', served.fallback, ('refuse', 'small'))}"
        )
    for role, names in (
        ("small", [served.small]),
        ("large", served.upstreams),
        ("embedder", [served.embedder]),
    ):
        for name in names:
            if name is not None and name not in models:
                raise ConfigError(f"{where}: {role}: {unknown('model', name, models)}")
    try:
        options_of(strategies.get(served.strategy))
        _serving(served)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from None


def busier(config: ModelConfig) -> ModelConfig:
    """A model's configuration for serving: `concurrency` is raised unless it states one."""
    known = options_of(model_kinds.get(config.kind))
    if "concurrency" in config.options or "concurrency" not in known:
        return config
    return replace(config, options={**config.options, "concurrency": MOST_AT_ONCE})


# What a defence does in a gateway where it can, and its options do not say otherwise.
_SERVED: dict[str, object] = {
    # A client sends its conversation with each request, so the first turn tells which it is.
    "conversation": "first-turn",
    # Nobody waits for what somebody else has sent.
    "apart": True,
}


def for_serving(config: DefenceConfig) -> DefenceConfig:
    """A defence's configuration with the defaults that a gateway needs, where it states no others.

    A defence that takes `conversation` keeps its placeholders for all requests of a conversation,
    and one that takes `apart` does its work in a process of its own.
    """
    known = options_of(defences.get(config.kind))
    served = {k: v for k, v in _SERVED.items() if k in known}
    return replace(config, options={**served, **config.options})


def _defence(name: str, around: Mapping[str, DefenceConfig], where: str) -> DefenceConfig:
    if name in around:
        return around[name]
    if name in defences.names():
        return for_serving(DefenceConfig(name, name))
    raise ConfigError(f"{where}: {unknown('defence', name, {*around, *defences.names()})}")


def _serving(served: _Served) -> Serving:
    return Serving(
        fallback="small" if served.fallback == "small" else "refuse",
        timeout_seconds=served.timeout_seconds,
        idle_seconds=served.idle_seconds,
        stream_seconds=served.stream_seconds,
        most_kb=served.most_kb,
        fields=served.fields,
        local_only=served.local_only,
    )


def _recipes(
    points: Sequence[tuple[_Served, PointConfig]], models: Mapping[str, ModelConfig]
) -> list[Recipe]:
    loaded: dict[str, TextModel] = {}

    def load(name: str) -> TextModel:
        if name not in loaded:
            loaded[name] = make_model(models[name])
        return loaded[name]

    recipes = []
    for served, point in points:
        small: TextModel = load(served.small) if served.small else Absent("small")
        remote = served.embedder if _remote(served.embedder, models) else ""
        embedder: Any = load(served.embedder) if served.embedder and not remote else None
        if embedder is not None and not isinstance(embedder, Embedder):
            raise ConfigError(f"point {point.name!r}: model {served.embedder!r} cannot embed text")
        recipes.append(
            Recipe(
                config=with_instructions(point, served.system),
                owner=DataOwner(small, embedder=embedder),
                upstreams=served.upstreams,
                sampling=Sampling(**asdict(served.sampling)),
                serving=_serving(served),
                system=served.system,
                small=models[served.small] if served.small else None,
                embedder=remote,
            )
        )
    return recipes
