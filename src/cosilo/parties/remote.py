"""The LM's owner on another machine, as the data owner's side asks it.

What went over the network, with the ids that the host has it under, can be put on record here: then the
two records are held against each other (`cosilo audit compare`), and a request that was under way when
this process was killed is asked for again under its id, so that nobody pays for it twice.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from cosilo.boundary.messages import Ask, Completion, Message, encode
from cosilo.boundary.record.ledger import Entry, SqliteLedger, connect, keys_of, opened
from cosilo.boundary.transports.agreed import new_id
from cosilo.boundary.transports.base import Transport
from cosilo.boundary.transports.far_end import Arrived, reply_in
from cosilo.boundary.transports.flower.owner import OverFlower
from cosilo.boundary.transports.http import Https
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import ConfigError, CosiloError, StoreError
from cosilo.models.base import EVERYTHING, Access, Shows, TextModel, models
from cosilo.parties.exposure import Peer
from cosilo.registry import Loads
from cosilo.types import Delta, assemble
from cosilo.types import closing as ending

PARTY = "party"
"""The kind of a large model that is not a model here but its owner elsewhere."""

FLOWER = "flower"
"""The same, where Flower carries what crosses."""

ELSEWHERE = (PARTY, FLOWER)
"""The kinds of large models that are their owners elsewhere."""

NETWORK = "network.sqlite"
"""The file in a run's folder that says what crossed to another machine."""

FILES = ("ca", "cert", "key", "python")
"""Its options that name files."""


class Way(Transport, Protocol):
    """A transport to another machine.

    Attributes:
        where: its address.
    """

    @property
    def where(self) -> str: ...
    async def carry(self, payload: bytes, *, name: str = "") -> bytes: ...
    def carry_stream(self, payload: bytes, *, name: str = "") -> AsyncIterator[bytes]: ...
    async def close(self) -> None: ...


class Network:
    """What went over the network to one host: a ledger of its own, whose requests are the ids.

    Args:
        path: the ledger's file; each process that writes to it begins a chain of its own.
        peer: what the host is called here.
    """

    def __init__(self, path: Path, peer: str) -> None:
        self.ledger = SqliteLedger(path, f"{peer}/{secrets.token_hex(4)}", keep="digest")
        self._unanswered = _unanswered(path, peer)

    def unanswered(self, payload: bytes) -> str:
        """The id of a request of the same bytes that an earlier process sent and had no answer to; each
        is told once. Empty where there is none."""
        ids = self._unanswered.get(hashlib.sha256(payload).digest())
        return ids.pop() if ids else ""


@dataclass(frozen=True)
class RemoteOwner:
    """An LM's owner behind a transport.

    Attributes:
        identity: what its recorded answers are kept under.
        exposes: what the data owner expects of it; it decides itself what it shows.
        network: where what crosses is put on record.
    """

    transport: Way
    name: str
    identity: str
    exposes: Shows = EVERYTHING
    network: Network | None = field(default=None, compare=False)

    @property
    def place(self) -> str:
        """The host that it is asked at."""
        return self.transport.where

    @property
    def access(self) -> Access:
        """As much as its owner shows of it."""
        return Access.WEIGHTS

    def honours(self, field: str) -> bool:
        """Whether a further field of a request is sent on: the owner takes it or refuses."""
        return True

    async def handle(self, message: Message) -> Message:
        """The owner's reply.

        Raises:
            UnreachableError: it did not answer.
            CosiloError: it refused.
        """
        payload = encode(message)
        if self.network is not None and (name := self.network.unanswered(payload)):
            try:
                return await self._crossed(message, payload, name)
            except CosiloError:
                pass  # what is no answer is asked for anew
        return await self._crossed(message, payload, new_id())

    async def handle_stream(self, ask: Ask) -> AsyncGenerator[Delta, None]:
        """The owner's reply in pieces; raises what `handle` does."""
        payload, name = encode(ask), new_id()
        number = await self._note(name, ask, payload)
        said: list[Delta] = []
        attempts = 1
        arrived = Arrived(quoted=self.transport.remote)
        try:
            async with ending(self.transport.carry_stream(payload, name=name)) as pieces:
                async for data in pieces:
                    said.append(arrived.take(data))
                    yield said[-1]
        except BaseException as error:
            attempts = getattr(error, "worked", None) or 1
            raise
        finally:
            if said and self.network is not None:
                whole = Completion(generation=assemble(said, attempts=attempts))
                await self.network.ledger.append(name, "down", whole, encode(whole), number)

    async def close(self) -> None:
        await self.transport.close()
        if self.network is not None:
            self.network.ledger.close()

    async def _crossed(self, message: Message, payload: bytes, name: str) -> Message:
        number = await self._note(name, message, payload)
        answer = await self.transport.carry(payload, name=name)
        reply = reply_in(answer, message, quoted=self.transport.remote)
        if self.network is not None:
            await self.network.ledger.append(name, "down", reply, answer, number)
        return reply

    async def _note(self, name: str, message: Message, payload: bytes) -> int | None:
        if self.network is None:
            return None
        return await self.network.ledger.append(name, "up", message, payload)


def noted(owner: RemoteOwner, path: Path, peer: str) -> RemoteOwner:
    """`owner`, what crosses put on record in the file `path` under the name `peer`.

    Raises:
        StoreError: the file cannot be opened.
    """
    return replace(owner, network=Network(path, peer))


def way_to(peer: Peer) -> Transport:
    """How messages reach `peer`: over its network, or within this process."""
    if isinstance(peer, RemoteOwner) and peer.network is None:
        return peer.transport
    return InProcess(peer)


LargeModel = TextModel | RemoteOwner
"""A large model: in this process, or its owner elsewhere."""


@models.register(PARTY)
def party(
    url: str,
    ca: str = "",
    cert: str = "",
    key: str = "",
    server_name: str = "",
    plain: bool = False,
    model: str = "",
    reasoning: int = 0,
    patience_s: float = 60.0,
    timeout_s: float = 600.0,
) -> RemoteOwner:
    """A large model that its owner serves with `cosilo host`; for `large` only.

    Args:
        url: https://NAME:PORT.
        ca: the file of the authority that vouches for the host.
        cert: the file of the data owner's certificate.
        key: the file of its key.
        server_name: the name in the host's certificate, where it is not the URL's.
        plain: send without TLS to another machine all the same.
        model: the name of the model that the host must serve; any, when empty.
        reasoning: tokens the model may think of before it answers, on top of the answer's.
        patience_s: how long a broken connection is tried again before a request fails.
        timeout_s: seconds for a whole reply, or between two pieces of one.

    Raises:
        ConfigError: the URL or the certificates cannot be used.
    """
    if reasoning < 0:
        raise ConfigError(f"reasoning must be 0 or more, not {reasoning}")
    transport = Https(
        url,
        ca=Path(ca) if ca else None,
        cert=Path(cert) if cert else None,
        key=Path(key) if key else None,
        server_name=server_name,
        plain=plain,
        model=model,
        patience_s=patience_s,
        timeout_s=timeout_s,
    )
    return RemoteOwner(transport, model or transport.where, f"party/{transport.url}/{model}")


def _of_flower(python: str) -> Loads:
    return Loads(packages=("cryptography",) if python else ("cryptography", "flwr"))


@models.register(FLOWER, loads=_of_flower)
def flower(
    superlink: str, ca: str, key: str, python: str = "", patience_s: float = 600.0
) -> RemoteOwner:
    """The coordinator of a federation that Flower carries; for `large` only.

    Args:
        superlink: HOST:PORT of the SuperLink that `cosilo host` runs.
        ca: the file of the authority that vouches for it.
        key: the file of the data owner's key, whose certificate the coordinator has.
        python: the file of the Python of the environment that Flower is installed in; this one's, when
            empty.
        patience_s: how long a reply may take.

    Raises:
        ConfigError: the address or a file cannot be used.
    """
    transport = OverFlower(
        superlink, ca=Path(ca), key=Path(key), python=python, patience_s=patience_s
    )
    return RemoteOwner(transport, superlink, f"flower/{superlink}")


def _unanswered(path: Path, peer: str) -> dict[bytes, list[str]]:
    """Digest → the ids of requests to `peer` that have no answer."""
    query = (
        "SELECT * FROM entries AS sent WHERE direction = 'up' AND chain GLOB ?"
        " AND NOT EXISTS (SELECT 1 FROM entries WHERE request = sent.request AND direction = 'down')"
    )
    found: dict[bytes, list[str]] = {}
    try:
        with closing(connect(path)) as db, closing(keys_of(db)) as keys:
            for row in db.execute(query, (f"{peer}/????????",)):
                entry = opened(Entry(*row), keys)
                if (digest := entry.content_digest) is not None:
                    found.setdefault(digest, []).append(entry.request)
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {str(path)!r}: {error}") from None
    return found
