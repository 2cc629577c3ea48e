"""The host's configuration: one TOML file.

name = "lm-owner"      books = "host"      keep = "digest"
[model]                kind = "…", and what that kind takes; exposes, prices: as in a plan
[federation]           the host coordinates one, beside a model or without: see `FederationSettings`
[model.body]           how adapters on its layers are trained for clients
[listen]               host, port; how long and how large things may be
[tls]                  ca, cert, key: the authority of the clients, and who the host is
[flower]               Flower carries what clients ask, in place of HTTPS
[joint]                how joint computations with clients reach other machines
[answers]              how long an answer is kept for a client that did not receive it
[forget]               what becomes of the record of what a client asks to forget
[clients.NAME]         NAME is the one that the client's certificate bears
[clients.NAME.total]   limits in all: messages, tokens_in, tokens_out, usd, logits, states,
[clients.NAME.day]     gradients, prompts; and for one day of UTC
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from cosilo.boundary.meter import Price
from cosilo.errors import ConfigError
from cosilo.host.books import KeptAnswers
from cosilo.host.certificates import NAME
from cosilo.host.forgets import ForgetTerms
from cosilo.host.limits import ClientLimits
from cosilo.models.base import Shows
from cosilo.parties.coordinating.kind import FEDERATION
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.registry import unknown
from cosilo.session import ModelConfig, read_model
from cosilo.tables import read


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where the host listens, and what it takes of a client.

    Attributes:
        max_body_bytes: of one request.
        body_seconds: for a request's body to come.
        write_seconds: for a client to take the next part of a reply.
        first_seconds: from a connection's beginning to its first request.
        connections: of one client at the same time.
        linger_seconds: how long a request goes on whose client is gone, and may come back.
        drain_seconds: how long requests may still take once the host is told to stop.
    """

    host: str = "127.0.0.1"
    port: int = 8443
    max_body_bytes: int = 64 << 20
    body_seconds: float = 60.0
    write_seconds: float = 60.0
    first_seconds: float = 30.0
    connections: int = 64
    linger_seconds: float = 30.0
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ValueError(f"port = {self.port!r} is not between 0 and 65535")
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise ValueError(f"{item.name} = {value!r} is negative or no number")


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """The authority whose clients are served, and the host's certificate and key."""

    ca: Path
    cert: Path
    key: Path


@dataclass(frozen=True, kw_only=True)
class FlowerConfig:
    """That Flower carries what clients ask: at [listen], in place of HTTPS, a SuperLink is reached.

    Attributes:
        certificates: the folder with each client's certificate, client-NAME.pem, as `cosilo host certs`
            makes it: a node is the client whose key it has.
        python: of the environment that Flower is installed in; this one's, when unset.
    """

    certificates: Path
    python: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """What one client may do.

    Attributes:
        total, day: limits in all and for one day of UTC.
        exposes: what it may see, where that is less than what the model's owner exposes.
        at_once: how many of its requests are worked on at the same time.
    """

    total: ClientLimits = field(default_factory=ClientLimits)
    day: ClientLimits = field(default_factory=ClientLimits)
    exposes: Shows | None = None
    at_once: int = 8

    def __post_init__(self) -> None:
        if self.at_once < 1:
            raise ValueError(f"at_once = {self.at_once!r} is not positive")


@dataclass(frozen=True, kw_only=True)
class HostedJoint:
    """How joint computations are taken part in.

    Attributes:
        network: the file that says how engines reach each other; see `parties.network`.
        each, most: runs of one client, and of all, at the same time.
        idle_s: how long one may be asked for nothing.
        step_s: how long sharing the weights may take, or one computation.
        silent_s: how long a party that is waited for may say nothing.
    """

    network: Path
    each: int = 2
    most: int = 8
    idle_s: float = 600.0
    step_s: float = 600.0
    silent_s: float = 60.0

    def __post_init__(self) -> None:
        if not 1 <= self.each <= self.most:
            raise ValueError("each must be 1 or more, and most no less")
        for name in ("idle_s", "step_s", "silent_s"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name} = {value!r} is no positive number of seconds")


@dataclass(frozen=True, kw_only=True)
class HostedFederation:
    """The federation that a host coordinates.

    Attributes:
        file: where it lives.
    """

    settings: FederationSettings
    file: Path


@dataclass(frozen=True, kw_only=True)
class HostConfig:
    """A host's configuration, read and checked; paths in it are absolute.

    Attributes:
        model: None where it only coordinates a federation.
        flower: None where clients ask over HTTPS.
        forget: what becomes of the record of what a client asks to forget.
        joint: None where the host takes part in no joint computations.
    """

    name: str
    model: ModelConfig | None
    federation: HostedFederation | None
    books: Path
    keep: Literal["digest", "content"]
    listen: Listening
    tls: TlsFiles
    answers: KeptAnswers
    clients: Mapping[str, ClientConfig]
    flower: FlowerConfig | None = None
    forget: ForgetTerms = field(default_factory=ForgetTerms)
    joint: HostedJoint | None = None

    def exposes(self, client: str) -> Shows:
        """What `client` may see."""
        own = self.clients[client].exposes
        most = self.model.exposes if self.model is not None else Shows.NOTHING
        return most if own is None else own & most

    @property
    def price(self) -> Price:
        """What a client pays: it asks once; how often the model is asked until it answers is its
        owner's affair."""
        return replace(self.model.price, attempts=1) if self.model is not None else Price()


@dataclass(frozen=True, kw_only=True)
class _File:
    """The keys the file may have at its top."""

    tls: TlsFiles
    clients: Mapping[str, ClientConfig]
    model: Mapping[str, object] | None = None
    federation: Mapping[str, object] | None = None
    flower: FlowerConfig | None = None
    name: str = "lm-owner"
    books: Path = Path("host")
    keep: Literal["digest", "content"] = "digest"
    listen: Listening = field(default_factory=Listening)
    answers: KeptAnswers = field(default_factory=KeptAnswers)
    forget: ForgetTerms = field(default_factory=ForgetTerms)
    joint: HostedJoint | None = None


def load_host(path: Path) -> HostConfig:
    """The configuration in the file `path`; relative paths in it start beside it.

    Raises:
        ConfigError: the file cannot be read, or something in it is unknown, missing, of the wrong
            type or refused; the message names the file, the table and the nearest name.
    """
    where, base = path.name, path.absolute().parent
    try:
        file = read(_File, tomllib.loads(path.read_bytes().decode()), where=where)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {error}") from None
    if not file.clients:
        raise ConfigError(f"{where}: no [clients.NAME] is given, so nobody could ask")
    for name in file.clients:
        if not NAME.fullmatch(name):
            raise ConfigError(f"{where}: [clients.{name}]: a certificate bears no such name")
    if file.model is None and file.federation is None:
        raise ConfigError(f"{where}: neither [model] nor [federation] is given: nothing to serve")
    model = None
    if file.model is not None:
        model = read_model(file.model, where=f"{where}: [model]", base=base)
        if model.train:
            raise ConfigError(f"{where}: [model]: train is for a plan's small model")
        if model.kind == FEDERATION:
            raise ConfigError(f"{where}: [model]: a host coordinates by a table [federation]")
    flower = file.flower
    if flower is not None:
        python = base / flower.python if flower.python is not None else None
        flower = FlowerConfig(certificates=base / flower.certificates, python=python)
    federation = None
    if file.federation is not None:
        federation = _federation(file, f"{where}: [federation]", base)
    return HostConfig(
        name=file.name,
        model=model,
        federation=federation,
        books=base / file.books,
        keep=file.keep,
        listen=file.listen,
        tls=TlsFiles(ca=base / file.tls.ca, cert=base / file.tls.cert, key=base / file.tls.key),
        answers=file.answers,
        clients=file.clients,
        flower=flower,
        forget=file.forget,
        joint=replace(file.joint, network=base / file.joint.network) if file.joint else None,
    )


def _federation(file: _File, where: str, base: Path) -> HostedFederation:
    """The federation that the table describes: of all clients, where it names no owners."""
    table = dict(file.federation or {})
    place = table.pop("state_file", None)
    if place is not None and not isinstance(place, str):
        raise ConfigError(f"{where}: state_file must be text")
    settings = read(FederationSettings, {"owners": sorted(file.clients), **table}, where=where)
    for owner in settings.owners:
        if owner not in file.clients:
            raise ConfigError(f"{where}: owners: {unknown('client', owner, file.clients)}")
    if not settings.owners:
        raise ConfigError(f"{where}: owners = [] leaves nobody to take part")
    return HostedFederation(
        settings=settings, file=base / (place or file.books / "federation.sqlite")
    )
