"""Very many owners on one machine: Flower's simulation engine, with our coordinator and our owners.

    coordinator ── whom it waits for ──▶ Flower's server app ── bytes ──▶ client app ──▶ owner
         ▲                                     │    ▲                                     │
         └─────────────────────────────────────┘    └──────── what it asks next ──────────┘

An owner takes part as it would anywhere: it opens a session with the party that it is given, and
prepares its strategy. Here it is begun anew for each message, given the answers that it had so far, and
left where it asks what has none: so hundreds of them need no more memory than run at once. The last
update that it made must be in a folder of its own (`checkpoints`), for the next beginning to find.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cosilo.boundary.messages import Contribute, decode
from cosilo.boundary.transports.agreed import new_id
from cosilo.boundary.transports.answering import answered
from cosilo.boundary.transports.flower.child import quieted
from cosilo.errors import CapabilityError, FederationError
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.kind import NoModel
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.remote import RemoteOwner

TakesPart = Callable[[int, RemoteOwner], Awaitable[object]]
"""An owner, by its number: prepares a strategy in a session with the party it is given. It is sent to
other processes, so a function of a module, or made of such."""

_LOOK_S = 0.1
_HELD_S = 1e6
"""Nobody is told to wait: an owner that has nothing to do costs nothing."""


@dataclass
class Simulated:
    """What a simulation took.

    Attributes:
        seconds: from the beginning of each round that it closed to its end.
        in_owners: seconds in owners' own code in each of them, over all owners.
        calls: messages to owners in each of them.
    """

    seconds: list[float] = field(default_factory=list)
    in_owners: list[float] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)


def simulate(
    takes_part: TakesPart,
    settings: FederationSettings,
    *,
    path: Path | None = None,
    at_once: int = 2,
    told: Callable[[Simulated], None] | None = None,
) -> Simulated:
    """A federation, until its last round has closed.

    A federation that was begun in the file `path` goes on where it was.

    Args:
        settings: of its `owners`, whose numbers are their places there, `sample` take part in a round.
        at_once: so many owners work at the same time, each in a process of Ray's.
        told: called as each round closes.

    Raises:
        FederationError: it ended without a result, or an owner's own code failed.
        ConfigError: the file `path` is of another federation.
    """
    os.environ.update(quieted(os.environ))
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    federation = Federation(replace(settings, held_s=_HELD_S), path)
    served = _Served(federation, settings.owners, told)
    server = ServerApp()
    server.main()(lambda grid, context: served.run(grid))
    try:
        run_simulation(
            server_app=server,
            client_app=_client(takes_part),
            num_supernodes=len(settings.owners),
            backend_config={
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                "init_args": {"num_cpus": at_once, "include_dashboard": False},
            },
        )
    finally:
        federation.close()
    return served.took


class _Asked:
    """An owner's way to the coordinator, as far as it has got.

    Attributes:
        asks: what it asks that has no answer yet.
    """

    remote = True
    where = "simulation"

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._answers = list(answers)
        self.asks: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def carry(self, payload: bytes, *, name: str = "") -> bytes:
        if self._answers:
            return self._answers.pop(0)
        self.asks.set_result(payload)
        await asyncio.Event().wait()
        raise AssertionError("nobody goes on from here")

    def carry_stream(self, payload: bytes, *, name: str = "") -> Any:
        raise CapabilityError("a simulation carries no replies in pieces: ask for whole ones")

    async def close(self) -> None: ...


async def asks_next(takes_part: TakesPart, number: int, answers: Sequence[bytes]) -> bytes:
    """What the owner asks after it had `answers`, encoded; nothing where it has done.

    Raises:
        what it raises.
    """
    way = _Asked(answers)
    party = RemoteOwner(way, "coordinator", f"simulation/{number}")
    owner: asyncio.Future[Any] = asyncio.ensure_future(takes_part(number, party))
    try:
        await asyncio.wait({owner, way.asks}, return_when=asyncio.FIRST_COMPLETED)
        if owner.done():
            owner.result()
            return b""
        return way.asks.result()
    finally:
        owner.cancel()
        await asyncio.gather(owner, return_exceptions=True)


def _client(takes_part: TakesPart) -> Any:
    from flwr.app import ConfigRecord, Message
    from flwr.clientapp import ClientApp

    from cosilo.boundary.transports.flower.couriers.parcels import opened, parcel

    app = ClientApp()

    def carry(message: Any, context: Any) -> Any:
        words, body = opened(message.content)
        number = int(context.node_config["partition-id"])
        if words.get("id") == "who":
            return Message(parcel({"id": str(number)}), reply_to=message)
        answers = list(context.state["answers"]["had"]) if words.get("id") else []
        answers += [body] if words.get("id") else []
        began = time.monotonic()
        try:
            asks = asyncio.run(asks_next(takes_part, number, answers))
            said = {"id": new_id() if asks else ""}
        except Exception as error:  # its class: the text may quote what it failed on
            asks, said = b"", {"failed": type(error).__name__}
        context.state["answers"] = ConfigRecord({"had": answers})
        said["seconds"] = str(time.monotonic() - began)
        return Message(parcel(said, asks), reply_to=message)

    app.query()(carry)
    return app


class _Served:
    """The server's side: speaks to those whom the coordinator waits for, and to nobody else."""

    def __init__(
        self,
        federation: Federation,
        owners: Sequence[str],
        told: Callable[[Simulated], None] | None,
    ) -> None:
        self.took = Simulated()
        self._told = told
        self._federation = federation
        self._owners = owners
        self._waits: dict[str, asyncio.Future[Any]] = {}
        self._in_owners, self._calls = 0.0, 0

    def run(self, grid: Any) -> None:
        asyncio.run(self._run(grid))

    async def _run(self, grid: Any) -> None:
        with ThreadPoolExecutor(1) as thread:
            self._thread, self._grid = thread, grid
            both = [asyncio.create_task(self._rounds()), asyncio.create_task(self._pull())]
            try:
                done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)

    async def _rounds(self) -> None:
        nodes = await self._nodes()
        sittings: dict[str, asyncio.Task[None]] = {}
        began, closed = time.monotonic(), self._federation.closed
        while not self._federation.over:
            for name in await self._federation.waits_for():
                if name in nodes and name not in sittings:
                    sittings[name] = asyncio.create_task(self._sitting(name, nodes[name]))
            await asyncio.wait(
                {*sittings.values(), asyncio.create_task(asyncio.sleep(_LOOK_S))},
                return_when=asyncio.FIRST_COMPLETED,
            )
            for name in [n for n, sitting in sittings.items() if sitting.done()]:
                sittings.pop(name).result()
            if self._federation.closed > closed:
                closed, now = self._federation.closed, time.monotonic()
                self.took.seconds.append(now - began)
                self.took.in_owners.append(self._in_owners)
                self.took.calls.append(self._calls)
                began, self._in_owners, self._calls = now, 0.0, 0
                if self._told is not None:
                    self._told(self.took)
        if self._federation.failed:
            raise FederationError(self._federation.failed)

    async def _sitting(self, name: str, node: int) -> None:
        """One owner's part in a round: until its update is in, or it has nothing more to ask."""
        party = LMOwner(NoModel(), client=name, federation=self._federation)
        words, body = await self._ask(node, {}, b"")
        while words.get("id"):
            answer = await answered(party, body)
            if isinstance(decode(body), Contribute):
                return
            words, body = await self._ask(node, {"id": words["id"]}, answer)

    async def _nodes(self) -> dict[str, int]:
        """Owners' names → Flower's ids of their nodes."""
        ids: list[int] = []
        while len(ids) < len(self._owners):  # they come one after another
            await asyncio.sleep(_LOOK_S)
            ids = list(self._grid.get_node_ids())
        told = await asyncio.gather(*(self._ask(node, {"id": "who"}, b"") for node in ids))
        return {self._owners[int(w["id"])]: n for (w, _), n in zip(told, ids, strict=True)}

    async def _ask(self, node: int, words: dict[str, str], body: bytes) -> tuple[Any, bytes]:
        from flwr.app import Message

        from cosilo.boundary.transports.flower.couriers.parcels import opened, parcel

        message = Message(parcel(words, body), node, "query")
        (sent,) = await self._do(lambda: self._grid.push_messages([message]))
        self._waits[sent] = reply = asyncio.get_running_loop().create_future()
        came = await reply
        if came.has_error():
            raise FederationError(f"Flower's engine failed an owner: {came.error.reason[:300]}")
        said, back = opened(came.content)
        if said.get("failed"):
            raise FederationError(f"an owner's own code failed ({said['failed']})")
        self._in_owners += float(said.get("seconds", 0.0))
        self._calls += 1
        return said, back

    async def _pull(self) -> None:
        while True:
            for reply in await self._do(self._pulled):
                waiting = self._waits.pop(reply.metadata.reply_to_message_id)
                if not waiting.done():
                    waiting.set_result(reply)
            await asyncio.sleep(_LOOK_S)

    def _pulled(self) -> list[Any]:
        wanted = list(self._waits)
        return list(self._grid.pull_messages(wanted)) if wanted else []

    async def _do(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
