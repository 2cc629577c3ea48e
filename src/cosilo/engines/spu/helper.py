"""The third party of ABY3, on a machine of neither owner: it computes on shares for runs that both
owners open, and is told nothing.

    owner 0 ──open──▶ ┌────────┐ ◀──open── owner 1        the same program, sizes, ring and hash
            ◀──at───  │ helper │  ───at──▶               where its proxy listens for each of them
            ──step──▶ └────────┘ ◀──step──                begins when both have said so
            ◀──done──             ──done──▶               what crossed its links

Each owner keeps a connection for each run; when either ends, the run does. Frames are four bytes of
length, then JSON.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, TypeVar

import msgspec
from msgspec import Meta

from cosilo.engines.base import DATA_OWNER, HELPER, LM_OWNER, Program, Setting
from cosilo.engines.spu.run import START_S, Deadlines, JointRun, Reached
from cosilo.errors import CosiloError, EngineError

LARGEST = 1 << 18
"""Bytes of a frame."""

Passed = dict[tuple[int, int], tuple[int, int]]
"""(sender, receiver) → bytes and whole frames."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Where a run without certificates may be."""

NameOf = Callable[[Mapping[str, Any] | None], str]
Where = tuple[str, int]

T = TypeVar("T")
_Rank = Literal[0, 1]
_Host = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9.:-]{1,253}\Z")]
_Port = Annotated[int, Meta(ge=1, le=65535)]
_Bytes = Annotated[int, Meta(ge=0, le=1 << 48)]
_Link = tuple[Annotated[int, Meta(ge=0, le=2)], Annotated[int, Meta(ge=0, le=2)], _Bytes, _Bytes]


class _Open(msgspec.Struct, frozen=True, tag="open"):
    run: Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    rank: _Rank
    program: Annotated[str, Meta(max_length=64)]
    shape: dict[str, Any]
    field: Literal[32, 64, 128]
    bits: Annotated[int, Meta(ge=1, le=64)]
    agreed: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    at: tuple[_Host, _Port]

    @property
    def what(self) -> tuple[object, ...]:
        """All that both owners must say alike."""
        return self.program, self.shape, self.field, self.bits, self.agreed


class _Step(msgspec.Struct, frozen=True, tag="step"):
    number: Annotated[int, Meta(ge=0, le=1 << 31)]
    most: _Bytes


class _Count(msgspec.Struct, frozen=True, tag="count"):
    """Asks what has crossed so far."""


class _At(msgspec.Struct, frozen=True, tag="at"):
    at: tuple[_Host, _Port]


class _Done(msgspec.Struct, frozen=True, tag="done"):
    links: Annotated[tuple[_Link, ...], Meta(max_length=6)]


class _Fault(msgspec.Struct, frozen=True, tag="fault"):
    why: str


@dataclass(frozen=True)
class Listens:
    """Where links are listened for, and how this machine is reached there.

    Attributes:
        host: the address that is listened at.
        name: what others connect to, the name in the certificate.
        ports: the first and the last that may be used; any, when None.
        accept, connect: the TLS of both ends; None in a trial on one machine.
        name_of: whom a verified certificate names.
        hosts: by that name, the host where a party is connected to.
    """

    host: str = "127.0.0.1"
    name: str = "127.0.0.1"
    ports: tuple[int, int] | None = None
    accept: ssl.SSLContext | None = None
    connect: ssl.SSLContext | None = None
    name_of: NameOf = lambda _: ""
    hosts: Mapping[str, str] = field(default_factory=dict)

    async def listen(self, run: JointRun, rank: int, other: int, named: str) -> Where:
        """Listen for the party `other`, whose certificate bears the name `named`: where.

        Raises:
            EngineError: no port is free.
        """
        low, high = self.ports or (0, 0)
        for port in range(low, high + 1):
            with suppress(OSError):
                got = await run.listen(
                    self.accept,
                    lambda shown: self.name_of(shown) == named,
                    host=self.host,
                    port=port,
                    rank=rank,
                    other=other,
                )
                return self.name, got
        raise EngineError(f"no port of {low} to {high} is free at {self.host!r} for a joint run")

    def reached(self, at: Where, named: str) -> Reached:
        """The party of the name `named`, which says that it listens there, as this machine reaches it.
        Where it is, is no affair of its own: this machine would connect to whatever it said.

        Raises:
            EngineError: it is not the host that is known of it.
        """
        if self.connect is None:
            if at[0] not in LOOPBACK:
                raise EngineError("without certificates a joint run stays on one machine")
            return Reached(at)
        if at[0] != self.hosts.get(named):
            raise EngineError(
                f"{named!r} says that it listens at a host that is not the one known of it here: hosts "
                "in the network file say where each party is connected to, and may lack it"
            )
        return Reached(at, self.connect, at[0])


@dataclass(eq=False)
class _Opened:
    """A run, as far as owners have opened it."""

    owners: dict[int, tuple[_Open, str]] = field(default_factory=dict)
    both: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    at: dict[int, Where] = field(default_factory=dict)
    run: JointRun | None = None
    waiting: dict[int, _Step] = field(default_factory=dict)
    done: asyncio.Future[Passed] | None = None
    next: int = 0
    ended: bool = False

    def end(self) -> None:
        """From now on it has ended, and whoever waits for it hears so."""
        self.ended = True
        self.both.set()
        self.ready.set()

    def passed(self) -> Passed:
        """What has crossed so far.

        Raises:
            EngineError: the run has not begun, or has ended.
        """
        if self.run is None or not self.run.alive:
            raise EngineError("the run has ended at the helper")
        return self.run.passed()


class Helper:
    """Computes with shares for owners.

    Args:
        listens: where their engines reach it.
        owners: the names of those that it serves; whoever connects, in a trial.
        most: runs at the same time.
        idle_s: how long a run may be asked for nothing.
        deadlines: how long things may take.
    """

    def __init__(
        self,
        listens: Listens,
        *,
        owners: frozenset[str] | None = None,
        most: int = 4,
        idle_s: float = 600.0,
        deadlines: Deadlines | None = None,
    ) -> None:
        self._listens, self._owners, self._most, self._idle_s = listens, owners, most, idle_s
        self._deadlines = deadlines or Deadlines()
        self._runs: dict[str, _Opened] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Future[None]] = set()

    @property
    def runs(self) -> int:
        """How many there are."""
        return len(self._runs)

    async def open(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen for owners; the port.

        Raises:
            OSError: the address is in use, or not ours.
        """
        self._server = await asyncio.start_server(self._came, host, port, ssl=self._listens.accept)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """End all runs and listen no longer."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for name in list(self._runs):
            await self._end(name)
        await asyncio.gather(*self._closing)

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= 4 * self._most:
            writer.transport.abort()
            return
        self._tasks.add(task)
        name = ""
        try:
            owner = self._listens.name_of(writer.get_extra_info("peercert"))
            if self._owners is not None and owner not in self._owners:
                raise EngineError("this helper knows no owner of that certificate's name")
            opening = await _within(
                self._deadlines.connect_s, _read(reader, _Open), "no run was opened in time"
            )
            opened = self._joined(opening, owner)
            name = opening.run
            await _write(writer, _At(await self._ready(opening, opened)))
            while True:
                reading = _read(reader, _Step | _Count)
                asked = await _within(self._idle_s, reading, "nothing was asked for too long")
                if isinstance(asked, _Step):
                    passed = await self._step(opening, opened, asked)
                else:
                    passed = opened.passed()
                links = tuple((*pair, *counted) for pair, counted in sorted(passed.items()))
                await _write(writer, _Done(links))
        except CosiloError as error:
            with suppress(OSError):
                await _write(writer, _Fault(str(error)))
        except (OSError, EOFError):
            pass  # an owner parted
        except asyncio.CancelledError:
            if self._server is not None and self._server.is_serving():
                raise
        finally:
            self._tasks.discard(task)
            writer.close()
            if name:
                await self._end(name)

    def _joined(self, opening: _Open, owner: str) -> _Opened:
        self._listens.reached(opening.at, owner)
        opened = self._runs.get(opening.run)
        if (opened is None and len(self._runs) >= self._most) or self._has_enough(opening, owner):
            raise EngineError("the helper computes as many runs as it may; try again later")
        if opened is None:
            opened = self._runs[opening.run] = _Opened()
        others = [(o, n) for rank, (o, n) in opened.owners.items() if rank != opening.rank]
        if opening.rank in opened.owners or any(n == owner != "" for _, n in others):
            raise EngineError("a run has two owners, each under a name of its own")
        if any(o.what != opening.what for o, _ in others):
            opened.end()  # so that the other one hears of it, too
            raise EngineError("the two owners opened different runs, or have different versions")
        opened.owners[opening.rank] = opening, owner
        return opened

    def _has_enough(self, opening: _Open, owner: str) -> bool:
        """Whether half of all runs are this owner's: those that it is the data owner of, and those that
        only it has opened so far. An LM's owner is in all of them, with whoever asks it."""
        if not self._owners or (opening.rank == LM_OWNER and opening.run in self._runs):
            return False
        names = [{rank: n for rank, (_, n) in o.owners.items()} for o in self._runs.values()]
        own = sum(n.get(DATA_OWNER, "") == owner or set(n.values()) == {owner} for n in names)
        return 2 * own >= self._most > 1

    async def _ready(self, opening: _Open, opened: _Opened) -> Where:
        """Where this owner reaches the helper, once both have opened the run."""
        if len(opened.owners) == 2:
            opened.both.set()
            try:
                await self._start(opening, opened)
            finally:
                opened.ready.set()
        late = f"the other owner has not opened the run within {_BOTH_S:g} s"
        await _within(_BOTH_S, opened.both.wait(), late)
        late = f"the helper has not compiled the program within {START_S:g} s"
        await _within(START_S, opened.ready.wait(), late)
        if opened.ended or opening.rank not in opened.at:
            raise EngineError("the run did not begin at the helper")
        return opened.at[opening.rank]

    async def _start(self, opening: _Open, opened: _Opened) -> None:
        setting = Setting("aby3", opening.field, opening.bits)
        program = Program(opening.program, opening.shape)
        opened.run = run = JointRun(program, setting, ranks=(HELPER,), deadlines=self._deadlines)
        hello = await run.start()
        if hello.agreed != opening.agreed:
            raise EngineError(
                "the helper has not the same version of the engine, or other programs, than the owners"
            )
        await run.compile()
        opened.at = {
            rank: await self._listens.listen(run, HELPER, rank, owner)
            for rank, (_, owner) in opened.owners.items()
        }

    async def _step(self, opening: _Open, opened: _Opened, step: _Step) -> Passed:
        """Do what both owners ask for: whoever asks last begins it."""
        if opened.ended or step.number != opened.next or opening.rank in opened.waiting:
            raise EngineError("this is not what the run comes to next")
        if opened.done is None:
            opened.done = asyncio.get_running_loop().create_future()
        done = opened.done
        opened.waiting[opening.rank] = step
        if len(opened.waiting) == 2:
            try:
                if len({*opened.waiting.values()}) > 1:
                    raise EngineError("the two owners ask for different steps")
                passed = await self._computed(opened, step)
            except CosiloError as error:
                if not done.done():
                    done.set_exception(EngineError(str(error)))
                    done.exception()
                raise
            opened.waiting, opened.done = {}, None
            opened.next += 1
            if not done.done():
                done.set_result(passed)
            return passed
        within = self._deadlines.step_s
        late = f"the other owner and the helper have not done the step within {within:g} s"
        return await _within(within, asyncio.shield(done), late)

    async def _computed(self, opened: _Opened, step: _Step) -> Passed:
        assert opened.run is not None
        run = opened.run
        run.allow(step.most)
        if step.number == 0:
            name = next(iter(opened.owners.values()))[0].run
            reached = {
                rank: self._listens.reached(o.at, owner)
                for rank, (o, owner) in opened.owners.items()
            }
            await run.link(name, reached)
            run.allow(step.most)
            await run.share()
        else:
            await run.compute()
        await run.quiet()
        return run.passed()

    async def _end(self, name: str) -> None:
        opened = self._runs.pop(name, None)
        if opened is None:
            return
        opened.end()
        if opened.done is not None and not opened.done.done():
            opened.done.set_exception(EngineError("an owner of the run has parted"))
            opened.done.exception()
        if opened.run is not None:  # to its end, also where who asked for it is cancelled
            closing = asyncio.ensure_future(opened.run.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            await asyncio.shield(closing)


_BOTH_S = 120.0  # until the second owner has opened a run, too


class AtHelper:
    """An owner's connection to the helper, for one run. `AtHelper.open` makes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.at: Where = ("", 0)

    @classmethod
    async def open(
        cls,
        helper: Where,
        listens: Listens,
        *,
        run: str,
        rank: Literal[0, 1],
        program: Program,
        setting: Setting,
        agreed: str,
        at: Where,
    ) -> Self:
        """Open the run at the helper; back when the other owner has, too.

        Args:
            at: where this owner's proxy listens for the helper's.

        Raises:
            EngineError: the helper cannot be reached, or refuses.
        """
        host, port = helper
        name = host if listens.connect else None
        try:
            async with asyncio.timeout(_CONNECT_S):
                streams = await asyncio.open_connection(
                    host, port, ssl=listens.connect, server_hostname=name
                )
        except (OSError, TimeoutError):
            raise EngineError(
                f"the helper at {host}:{port} cannot be reached; `cosilo engines serve spu` runs one"
            ) from None
        made = cls(*streams)
        shape = dict(program.shape)
        opening = _Open(run, rank, program.name, shape, setting.field, setting.bits, agreed, at)
        try:
            said = await made._asked(opening, _At, _BOTH_S + START_S + _CONNECT_S)
        except BaseException:
            made.close()
            raise
        made.at = said.at
        return made

    async def step(self, number: int, most: int, within_s: float) -> Passed:
        """Have the helper do its part; what has crossed its links so far.

        Raises:
            EngineError: it failed.
        """
        return _passed(await self._asked(_Step(number, most), _Done, within_s))

    async def count(self) -> Passed:
        """What has crossed its links so far.

        Raises:
            EngineError: the run has ended there.
        """
        return _passed(await self._asked(_Count(), _Done, _CONNECT_S))

    def close(self) -> None:
        self._writer.close()

    async def _asked(self, asked: msgspec.Struct, kind: Any, within_s: float) -> Any:
        try:
            async with asyncio.timeout(within_s):
                await _write(self._writer, asked)
                said = await _read(self._reader, kind | _Fault)
        except TimeoutError:
            raise EngineError("the helper stalled") from None
        except (OSError, EOFError):
            raise EngineError("the helper has ended the run") from None
        if isinstance(said, _Fault):
            raise EngineError(
                f"the helper: {''.join(c for c in said.why if c.isprintable())[:300]}"
            )
        return said


_CONNECT_S = 10.0


def _passed(said: _Done) -> Passed:
    return {(a, b): (size, frames) for a, b, size, frames in said.links}


def since(before: Passed, now: Passed) -> Passed:
    """What passed since `before`."""
    found = {}
    for pair, (size, frames) in now.items():
        had = before.get(pair, (0, 0))
        found[pair] = size - had[0], frames - had[1]
    return found


async def _within(seconds: float, work: Awaitable[T], late: str) -> T:
    """What `work` gives.

    Raises:
        EngineError: it took longer, which is `late`.
    """
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise EngineError(late) from None


async def _read(reader: asyncio.StreamReader, kind: Any) -> Any:
    try:
        length = int.from_bytes(await reader.readexactly(4), "big")
        if length > LARGEST:
            raise EngineError("what came is no frame of a helper's")
        return msgspec.json.decode(await reader.readexactly(length), type=kind)
    except msgspec.DecodeError:
        raise EngineError("what came is no frame of a helper's") from None


async def _write(writer: asyncio.StreamWriter, frame: msgspec.Struct) -> None:
    body = msgspec.json.encode(frame)
    writer.write(len(body).to_bytes(4, "big") + body)
    await writer.drain()
