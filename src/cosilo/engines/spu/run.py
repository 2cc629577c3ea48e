"""A joint run, as one side of it sees: the processes that run here, and the links to others.

    start ──▶ hello: versions agree? ──▶ memory? ──▶ compile ──▶ link ▶ share ▶ compute … ▶ end
    nothing has been sent up to here ───────────────────────────────────────────────┘     setup   online

In a trial on one machine all parties run here, and this machine holds all shares. What ends one
party, or any link, ends all that runs here; shares are in the memory of the processes alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from cosilo.engines.base import (
    DATA_OWNER,
    LM_OWNER,
    Array,
    JointResult,
    PartySpent,
    Program,
    Setting,
)
from cosilo.engines.proxies import Counted, LinkProxy
from cosilo.engines.spu import compiled
from cosilo.engines.spu.environment import Environment, require
from cosilo.engines.spu.party import WORKER, SpuParty, packed, printable, unpacked
from cosilo.errors import CapabilityError, ConfigError, EngineError

_HELLO_S, _COMPILE_S, _END_S = 60.0, 900.0, 20.0
START_S = _HELLO_S + _COMPILE_S
"""Within which a party has started and compiled, or has failed."""

_LOOK_S, _LOOKS = 0.005, 3  # how often links are looked at, which are at rest when all looks say so
_CGROUP = Path("/sys/fs/cgroup")
_OWNED, _GIVEN, _BROUGHT = 0, 1, 2  # which of a program's arrays
_TOLD = {"data owner": (DATA_OWNER,), "LM's owner": (LM_OWNER,), "both": (LM_OWNER, DATA_OWNER)}
T = TypeVar("T")


@dataclass(frozen=True)
class Deadlines:
    """How long things may take.

    Attributes:
        step_s: sharing the weights, or one computation.
        silent_s: a party that is waited for.
        connect_s: until all parties have found each other.
    """

    step_s: float = 600.0
    silent_s: float = 60.0
    connect_s: float = 30.0


@dataclass(frozen=True)
class Reached:
    """How a party on another machine is reached, and reaches this one.

    Attributes:
        address: host and port of its side's proxy.
        connect: the TLS to connect with; None on this machine, in a trial.
        server_name: by which name its certificate is checked.
    """

    address: tuple[str, int]
    connect: ssl.SSLContext | None = None
    server_name: str = ""


@dataclass(frozen=True)
class Ready:
    """What a party is agreed on before anything starts: the same at all of them, or there is no run."""

    agreed: str
    sizes: tuple[tuple[tuple[int, ...], ...], ...] = field(compare=False)
    versions: Mapping[str, str] = field(compare=False)

    @property
    def elements(self) -> int:
        total = 0
        for sizes in self.sizes:
            for size in sizes:
                n = 1
                for length in size:
                    n *= length
                total += n
        return total


class JointRun:
    """The parties of a run that are on this side.

    Args:
        ranks: which parties run here; all of them in a trial.
        deadlines: how long things may take.
        environment: what they run in; the installed one, when None.
        worker: the script that they run.

    Raises:
        ConfigError: the setting protects nothing, or its field is too small.
        CatalogError: there is no environment.
    """

    def __init__(
        self,
        program: Program,
        setting: Setting,
        *,
        ranks: Sequence[int] | None = None,
        deadlines: Deadlines | None = None,
        environment: Environment | None = None,
        worker: Path = WORKER,
    ) -> None:
        setting.require()
        self._program, self._setting = program, setting
        self._ranks = tuple(range(setting.parties) if ranks is None else ranks)
        self._deadlines = deadlines or Deadlines()
        self._environment = environment or require()
        self._worker = worker
        self._parties: dict[int, SpuParty] = {}
        self._ports: dict[int, socket.socket] = {}
        self._out: dict[tuple[int, int], LinkProxy] = {}
        self._in: dict[tuple[int, int], LinkProxy] = {}
        self._marks: dict[int, tuple[int, int]] = {}  # by rank: bytes, messages
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._told: tuple[int, ...] = ()
        self._digest = ""
        self._ended = False
        self._ending: asyncio.Future[None] | None = None
        self.hello: Ready | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def pids(self) -> dict[int, int]:
        """The processes of the parties that run here."""
        return {rank: party.pid for rank, party in self._parties.items()}

    @property
    def memory(self) -> int:
        """The most bytes that the processes here held, all together."""
        return sum(party.memory for party in self._parties.values())

    @property
    def payload(self) -> int:
        """Bytes that passed the proxies on their way out from here, and came back on these links."""
        return sum(proxy.out.bytes + proxy.back.bytes for proxy in self._out.values())

    @property
    def alive(self) -> bool:
        """Whether nothing has ended it."""
        return not self._ended and not self._failed.done()

    def passed(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Bytes and whole frames that went from one party to another, of all links that end here."""
        found: dict[tuple[int, int], tuple[int, int]] = {}

        def add(sender: int, receiver: int, counted: Counted) -> None:
            size, frames = found.get((sender, receiver), (0, 0))
            found[sender, receiver] = size + counted.bytes, frames + counted.frames

        for (one, other), proxy in (*self._out.items(), *self._in.items()):
            add(one, other, proxy.out)
            add(other, one, proxy.back)
        return found

    def allow(self, most: int) -> None:
        """Let no more than so many bytes pass from any party to any other, from now on; what passes
        them ends the run."""
        for proxy in self._proxies():
            proxy.out.allow(most)
            proxy.back.allow(most)

    async def quiet(self) -> None:
        """Wait until nothing is under way on any link that ends here.

        Raises:
            EngineError: the run ends over it.
        """
        await self._watched(self._quiet())

    async def _quiet(self) -> None:
        now = asyncio.get_running_loop().time
        end, still, before = now() + self._deadlines.silent_s, 0, self.passed()
        while still < _LOOKS:  # what an engine is about to send has passed no proxy yet
            if now() > end:
                raise EngineError("the links of a joint run do not come to rest")
            await asyncio.sleep(_LOOK_S)
            quiet = all(proxy.quiet for proxy in self._proxies())
            passed = self.passed()
            still = still + 1 if quiet and passed == before else 0
            before = passed

    async def start(self) -> Ready:
        """Start the processes and ask what is in them; nothing is sent to anyone.

        Raises:
            EngineError: a process does not start, or what they say differs.
            ConfigError: there is no such program, or it does not take such sizes.
            CapabilityError: they would need more memory than is free.
        """
        for rank in self._ranks:
            self._parties[rank] = await SpuParty.start(rank, self._environment, worker=self._worker)
            if self._ended:  # closed meanwhile
                await self.close()
                raise EngineError("this joint run has ended")
            self._ports[rank] = reserved_port()
        said = await self._all("hello", _HELLO_S, program=self._program.name, shape=self._shape())
        hellos = [self._hello(each) for each in said.values()]
        require_agreed([each.agreed for each in hellos])
        self.hello = hellos[0]
        needed = len(self._ranks) * self._setting.memory(self.hello.elements)
        free = free_memory()
        if needed > free:
            await self.close()
            raise CapabilityError(
                f"{self._program.name!r} has {self.hello.elements:,} numbers to share: "
                f"{len(self._ranks)} "
                f"{'party needs' if len(self._ranks) == 1 else 'parties need'} about "
                f"{needed / 1e9:.1f} GB here, and {free / 1e9:.1f} GB are free"
            )
        return self.hello

    async def compile(self) -> None:
        """Compile the program at every party here, or take what was compiled before."""
        assert self.hello is not None, "start it first"
        cache = compiled.folder()
        for rank in self._ranks:  # one after the other: all but the first find what it has compiled
            said = await self._one(
                rank,
                "compile",
                _COMPILE_S,
                program=self._program.name,
                shape=self._shape(),
                protocol=self._setting.protocol.upper(),
                field=self._setting.field,
                bits=self._setting.bits,
                agreed=self.hello.agreed,
                cache=str(cache),
            )
            self._told = _TOLD[str(said["sees"])]
            self._digest = str(said["digest"])
        await asyncio.to_thread(compiled.note_used, self.hello.agreed)

    async def listen(
        self,
        accept: ssl.SSLContext | None,
        admits: Callable[[Mapping[str, Any] | None], bool],
        *,
        host: str,
        port: int = 0,
        rank: int | None = None,
        other: int | None = None,
    ) -> int:
        """Let another party reach one that runs here; the port.

        Args:
            accept: the TLS it listens with; None in a trial, where both are on one machine.
            admits: whether a certificate is that of the other party's machine.
            rank: the party here; the only one, when None.
            other: the party that may connect; the other one of two, when None.

        Raises:
            OSError: the address is in use, or not ours.
        """
        if rank is None:
            (rank,) = self._ranks
        if other is None:
            (other,) = set(range(self._setting.parties)) - {rank}
        proxy = LinkProxy(
            f"from party {other} to party {rank}",
            ("127.0.0.1", self._port(rank)),
            self._fault,
            accept=accept,
            admits=admits,
        )
        self._in[other, rank] = proxy
        opened = await proxy.open(host, port)
        if self._ended:  # closed meanwhile
            await proxy.close()
            raise EngineError("this joint run has ended")
        return opened

    async def link(self, name: str = "", reached: Mapping[int, Reached] | None = None) -> None:
        """Have all parties find each other, and say that they are about to run the same.

        Args:
            name: of this very run, the same at all sides; drawn, in a trial.
            reached: how parties on other machines are reached.

        Raises:
            ConfigError: there are not as many addresses as the protocol has parties.
            EngineError: they do not find each other.
        """
        reached = reached or {}
        have = {*self._ranks, *reached}
        if have != set(range(self._setting.parties)):
            raise ConfigError(
                f"{self._setting.protocol!r} is computed by {self._setting.parties} parties, and there "
                f"are addresses of {len(have)}: the third is a helper, on a machine of neither owner; "
                "two parties alone can take 'cheetah'"
                if self._setting.parties == 3
                else f"{self._setting.protocol!r} is computed by two parties; there are addresses of "
                f"{len(have)}"
            )
        for rank in self._ranks:
            for other in range(self._setting.parties):
                if other == rank:
                    continue
                far = reached.get(other)
                self._out[rank, other] = proxy = LinkProxy(
                    f"from party {rank} to party {other}",
                    far.address if far else ("127.0.0.1", self._port(other)),
                    self._fault,
                    connect=far.connect if far else None,
                    server_name=far.server_name or far.address[0] if far else None,
                )
                await proxy.open()
        name = name or secrets.token_hex(16)
        assert self.hello is not None
        agreed = f"{self.hello.agreed} {self._digest}"

        async def linked(rank: int) -> dict[str, Any]:
            addresses = [
                f"127.0.0.1:{self._port(rank) if other == rank else self._out[rank, other].port}"
                for other in range(self._setting.parties)
            ]
            return await self._parties[rank].ask(
                "link",
                self._deadlines.connect_s + self._deadlines.silent_s,
                id=name,
                rank=rank,
                addresses=addresses,
                agreed=agreed,
                silent_ms=int(1000 * self._deadlines.silent_s),
                connect_ms=int(1000 * self._deadlines.connect_s),
            )

        await self._watched(asyncio.gather(*(linked(rank) for rank in self._ranks)))

    async def share(self, owned: Sequence[Array] | None = None) -> JointResult:
        """Share the LM owner's arrays, once for all computations that follow.

        Args:
            owned: them, where the LM's owner is on this side.
        """
        return await self._step("share", [(_OWNED, LM_OWNER, owned)], ())

    async def compute(
        self, given: Sequence[Array] | None = None, brought: Sequence[Array] | None = None
    ) -> JointResult:
        """Share what the owners bring to this computation, do it, and tell whom the program tells.

        Args:
            given: the data owner's arrays, where it is on this side.
            brought: the LM owner's for this computation alone, where it is on this side and the program
                has such.
        """
        assert self.hello is not None, "start it first"
        parts = [(_GIVEN, DATA_OWNER, given)]
        if len(self.hello.sizes) > _BROUGHT and self.hello.sizes[_BROUGHT]:
            parts.append((_BROUGHT, LM_OWNER, brought))
        elif brought:
            raise ConfigError(f"the program {self._program.name!r} is brought nothing each time")
        return await self._step("run", parts, self._told)

    async def end(self) -> JointResult:
        """Part; what the parting took, and what was still under way before."""
        for proxy in self._proxies():
            proxy.closing()
        said: dict[int, dict[str, Any]] = {}
        with suppress(EngineError):  # results are known: how the last one parts changes nothing
            said = await self._all("end", _END_S)
        await self.close()
        return JointResult((), self._since(said))

    async def close(self) -> None:
        """End all that runs here, in whatever state it is; calling it twice is harmless."""
        self._ended = True
        await asyncio.gather(*(party.end() for party in self._parties.values()))
        await asyncio.gather(*(proxy.close() for proxy in self._proxies()))
        for held in self._ports.values():
            held.close()

    async def _step(
        self,
        do: str,
        parts: Sequence[tuple[int, int, Sequence[Array] | None]],
        told: tuple[int, ...],
    ) -> JointResult:
        """Have every party here do it, each with the arrays that are its own; `parts` are which of the
        program's arrays, whose, and these where their owner runs here."""
        for _, owner, arrays in parts:
            if (owner in self._ranks) != (arrays is not None):
                raise ConfigError(f"the arrays of party {owner} are handed in where it runs")
        ready = [
            (which, owner, [packed(a) for a in arrays or ()]) for which, owner, arrays in parts
        ]

        async def one(rank: int) -> dict[str, Any]:
            own = [
                {"which": which, "owner": owner, "arrays": arrays if rank == owner else []}
                for which, owner, arrays in ready
            ]
            return await self._parties[rank].ask(
                do, self._deadlines.step_s, parts=own, told=list(told)
            )

        said = dict(
            zip(
                self._ranks,
                await self._watched(asyncio.gather(*(one(rank) for rank in self._ranks))),
                strict=True,
            )
        )
        here = next((rank for rank in told if rank in self._ranks), None)
        outputs = () if here is None else tuple(unpacked(a) for a in said[here]["arrays"])
        return JointResult(outputs, self._since(said))

    async def _one(self, rank: int, do: str, within_s: float, **fields: Any) -> dict[str, Any]:
        return await self._watched(self._parties[rank].ask(do, within_s, **fields))

    async def _all(self, do: str, within_s: float, **fields: Any) -> dict[int, dict[str, Any]]:
        asked = (party.ask(do, within_s, **fields) for party in self._parties.values())
        said = await self._watched(asyncio.gather(*asked))
        return dict(zip(self._parties, said, strict=True))

    async def _watched(self, work: Awaitable[T]) -> T:
        """What `work` gives; whatever goes wrong meanwhile ends all that runs here."""
        task = asyncio.ensure_future(work)
        try:
            if self._failed.done():
                self._failed.result()
            if self._ended:
                raise EngineError("this joint run has ended")
            both: set[asyncio.Future[Any]] = {task, self._failed}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            self._failed.result()
            raise AssertionError("a fault is an exception")
        except BaseException:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.close()
            raise

    def _fault(self, error: EngineError) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)
            self._failed.exception()  # it may come while nobody waits; the next step raises it
            self._ending = asyncio.ensure_future(self.close())

    def _proxies(self) -> list[LinkProxy]:
        return [*self._out.values(), *self._in.values()]

    def _since(self, said: Mapping[int, Mapping[str, Any]]) -> dict[int, PartySpent]:
        """What each party here spent since this was asked last."""
        now = {
            rank: (
                sum(size for (sender, _), (size, _) in self.passed().items() if sender == rank),
                sum(proxy.out.frames for (one, _), proxy in self._out.items() if one == rank),
            )
            for rank in self._ranks
        }
        before, self._marks = self._marks, now
        return {
            rank: PartySpent(
                size - before.get(rank, (0, 0))[0],
                frames - before.get(rank, (0, 0))[1],
                float(said.get(rank, {}).get("cpu_s", 0.0)),
            )
            for rank, (size, frames) in now.items()
        }

    def _port(self, rank: int) -> int:
        return int(self._ports[rank].getsockname()[1])

    def _shape(self) -> dict[str, Any]:
        return dict(self._program.shape)

    def _hello(self, said: Mapping[str, Any]) -> Ready:
        if refused := said.get("refused"):
            raise ConfigError(f"the program {self._program.name!r}: {printable(refused)}")
        try:
            versions = msgspec.convert(said["versions"], dict[str, str])
            sizes = msgspec.convert(
                said["sizes"],
                tuple[tuple[tuple[int, ...], ...], ...],
                strict=False,
            )
            facts = (
                sorted(versions.items()),
                str(said["sources"]),
                self._program.name,
                self._shape(),
                (self._setting.protocol, self._setting.field, self._setting.bits),
            )
        except (KeyError, msgspec.ValidationError):
            raise EngineError("a party did not say what is installed with it") from None
        encoded = msgspec.json.encode(facts, order="sorted")
        return Ready(hashlib.sha256(encoded).hexdigest(), sizes, versions)


def require_agreed(agreed: Sequence[str]) -> None:
    """Refuse parties that would not compute the same.

    Raises:
        EngineError: they would not.
    """
    if len(set(agreed)) > 1:
        raise EngineError(
            "the parties have not the same versions of the engine, the same programs, or the same "
            "settings; install the same Cosilo at all, and run `cosilo engines install spu`"
        )


def free_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes that can be had without pushing anything out, on this machine and in this container."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) << 10
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # "max" is no number, and no limit
            left = int((cgroup / most).read_text()) - int((cgroup / used).read_text())
            free = min(free, max(0, left))
    return free


def reserved_port() -> socket.socket:
    """A port of this machine's, held so that nobody else is given it, at which an engine can listen all
    the same: the socket that holds it does not."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held
