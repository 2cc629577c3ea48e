"""The process that looks for private values, beside the one that answers requests.

    Open(settings) ──▶ detectors loaded ──▶ Opened, or Refused
    Job(passages)  ──▶ Began … Issued … ──▶ Hidden, or Failed
    Stop(job)      ──▶ Failed

It keeps nothing of a message but where its values are; jobs have turns of some milliseconds. Short
ones of one caller that wait at the same time are read together. Its input is one end of a socket pair,
and it ends when the other end does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial

import msgspec

from cosilo.boundary.messages.passages import Passage
from cosilo.defences.hiding import Hiding, Settings
from cosilo.defences.restoring import Written
from cosilo.defences.vault import Issued, Vault
from cosilo.errors import CosiloError, PrivacyError

LARGEST = 64 << 20  # bytes of a frame
_AT_ONCE = 200  # placeholders in a frame, so that taking them on does not hold up the other side
_SHORT = 2_000  # characters that are new in a message that may be read together with others
_TOGETHER = 4_000  # characters that are read together at most, some tens of milliseconds
_EVERY = 0.1  # seconds between two signs of life of one job
_MEASURED = 0.5  # seconds after which it is looked how much memory is used
_MOST_GROWTH = 400 << 20  # bytes: spaCy keeps every word that it has seen
_PR_SET_PDEATHSIG = 1


class Open(msgspec.Struct, frozen=True, tag=True):
    """Load what `settings` name; jobs refer to them by `number`."""

    number: int
    settings: Settings


class LookingJob(msgspec.Struct, frozen=True, tag=True):
    """Hide what is private in a message's `passages`.

    Attributes:
        settings: the number under which they were opened.
        key, scope: what placeholders are derived under, and what is remembered (`Vault`).
        issued: those that the conversation has already.
        alone: it is not read together with others: the process died when it was.
        sole: nothing else was under way when it was sent, so that its turn is known to begin now.
    """

    number: int
    settings: int
    passages: list[Passage]
    key: bytes
    scope: bytes
    issued: list[Issued]
    alone: bool = False
    sole: bool = False


class Stop(msgspec.Struct, frozen=True, tag=True):
    """An order to give the job up: nobody waits for it any more."""

    number: int


class SettingsOpened(msgspec.Struct, frozen=True, tag=True):
    number: int


class SettingsRefused(msgspec.Struct, frozen=True, tag=True):
    """The settings cannot work; `why` is a text of ours."""

    number: int
    why: str


class Began(msgspec.Struct, frozen=True, tag=True):
    """The job has its turn now; with `together`, others are read in it as well."""

    number: int
    together: bool = False


class Placeholders(msgspec.Struct, frozen=True, tag=True):
    """Some of those that the job has issued."""

    number: int
    issued: list[Issued]


class Hidden(msgspec.Struct, frozen=True, tag=True):
    """What each of the job's passages says with placeholders, and how their values stood there."""

    number: int
    texts: list[str]
    written: Written


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The job is over without a result.

    Attributes:
        what: the class of the error; its text may quote the message.
        why: the text where it is ours; else empty.
    """

    number: int
    what: str
    why: str = ""


Order = Open | LookingJob | Stop
Report = SettingsOpened | SettingsRefused | Began | Placeholders | Hidden | Failed

_encoder = msgspec.msgpack.Encoder()
_orders = msgspec.msgpack.Decoder(Order)
_reports = msgspec.msgpack.Decoder(Report)
read_report = _reports.decode


def frame(item: Order | Report) -> bytes:
    """`item` as it stands on the wire: its length in four bytes, then msgpack.

    Raises:
        ValueError: it is too large.
    """
    data = _encoder.encode(item)
    if len(data) > LARGEST:
        raise ValueError(f"a frame of {len(data)} bytes")
    return len(data).to_bytes(4) + data


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Raises:
    EOFError: the other end is gone, or says what it cannot mean.
    """
    size = int.from_bytes(await reader.readexactly(4))
    if size > LARGEST:
        raise EOFError
    return await reader.readexactly(size)


class Looking:
    """Answers orders until there are no more."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._hidings: dict[int, Hiding] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._turn: tuple[object, float] = (None, 0.0)  # whose it was last said to be, and when
        self._waiting: dict[int, LookingJob] = {}  # those whose texts may be read together
        self._reading: asyncio.Event | None = None  # set when those read together have been read
        self._before: int | None = None
        self._measured = 0.0  # when it was last looked how much memory is used

    async def serve(self) -> None:
        while True:
            try:
                order = _orders.decode(await read_frame(self._reader))
            except EOFError:
                return
            match order:
                case Open():
                    self._say(self._opened(order))
                    gc.collect()
                    gc.freeze()
                    self._before = _resident()
                case LookingJob():
                    if order.sole:
                        self._turn = ((order.number, False), time.monotonic())
                    self._waiting[order.number] = order
                    self._tasks[order.number] = task = asyncio.create_task(self._do(order))
                    task.add_done_callback(partial(self._over, order.number))
                case Stop():
                    self._waiting.pop(order.number, None)
                    if (stopped := self._tasks.pop(order.number, None)) is not None:
                        stopped.cancel()

    def _opened(self, order: Open) -> Report:
        try:
            self._hidings[order.number] = Hiding(order.settings)
        except CosiloError as error:
            return SettingsRefused(order.number, str(error))
        except Exception as error:
            why = f"a detector cannot be loaded ({type(error).__name__})"
            return SettingsRefused(order.number, why)
        return SettingsOpened(order.number)

    async def _do(self, job: LookingJob) -> None:
        try:
            self._say(*await self._hidden(job))
        except asyncio.CancelledError:
            raise
        except PrivacyError as error:
            self._say(Failed(job.number, type(error).__name__, str(error)))
        except Exception as error:
            self._say(Failed(job.number, type(error).__name__))
        except BaseException:
            os._exit(1)  # Python would print what it holds
        finally:
            self._tasks.pop(job.number, None)
            self._waiting.pop(job.number, None)
            self._turn = (None, 0.0)
        if self._has_grown() and not self._tasks:
            self._writer.close()
            await self._writer.wait_closed()
            os._exit(0)  # another is started in its place

    def _over(self, number: int, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # perhaps before it began
            self._say(Failed(number, "CancelledError"))

    def _has_grown(self) -> bool:
        """Whether much more memory is used than after what was loaded; it is looked now and then."""
        now = time.monotonic()
        if self._before is None or now - self._measured < _MEASURED:
            return False
        self._measured = now
        return _resident() - self._before > _MOST_GROWTH

    async def _hidden(self, job: LookingJob) -> tuple[Report, ...]:
        """What is said of `job` at its end, at once: each message costs the parent's waking."""
        vault = Vault.under(job.key, job.scope, job.issued)
        hiding, told = self._hidings[job.settings], self._told(job.number)
        await self._read_with_others(job, hiding)
        texts = await hiding.hidden(job.passages, vault, told)
        new = vault.issued[len(job.issued) :]
        while len(new) > _AT_ONCE:
            self._say(Placeholders(job.number, new[:_AT_ONCE]))
            await self._writer.drain()
            new = new[_AT_ONCE:]
        hidden = Hidden(job.number, texts, vault.restorer.written)
        return (Placeholders(job.number, new), hidden) if new else (hidden,)

    async def _read_with_others(self, job: LookingJob, hiding: Hiding) -> None:
        """Have what is new in `job` read together with other short jobs that wait. One that is alone,
        or long, waits for none.
        """
        alone = job.alone or (len(self._waiting) == 1 and self._reading is None)
        if alone or hiding.unread(job.passages, job.scope) > _SHORT:
            del self._waiting[job.number]
            return
        while job.number in self._waiting:
            if self._reading is not None:
                await self._reading.wait()
                continue
            some = self._with_others(job, hiding)
            self._reading = done = asyncio.Event()
            try:
                if len(some) > 1:
                    texts = [each.passages for each in some]
                    told = self._told(job.number, together=True)
                    await hiding.read_together(texts, job.scope, told)
            except Exception:
                pass  # whose text it is finds that out when it is read alone
            finally:
                for each in some:
                    self._waiting.pop(each.number, None)
                self._reading = None
                done.set()

    def _with_others(self, job: LookingJob, hiding: Hiding) -> list[LookingJob]:
        """`job` and others of its caller that wait, in the order in which they came. Those of two are
        not read together: how long it takes would tell whether their texts are alike.
        """
        some, size = [job], hiding.unread(job.passages, job.scope)
        for other in self._waiting.values():
            same = (other.settings, other.scope) == (job.settings, job.scope) and not other.alone
            if same and other.number != job.number:
                more = hiding.unread(other.passages, other.scope)
                if more <= _SHORT and size + more <= _TOGETHER:
                    size += more
                    some.append(other)
        return some

    def _told(self, number: int, *, together: bool = False) -> Callable[[], None]:
        """A function that a job calls when its turn begins. It tells the parent, so that if the
        turn never ends it is known which job hangs.
        """

        def tell() -> None:
            now = time.monotonic()
            whose, since = self._turn
            if whose != (number, together) or now - since > _EVERY:
                self._turn = ((number, together), now)
                self._say(Began(number, together))

        return tell

    def _say(self, *reports: Report) -> None:
        self._writer.write(b"".join(map(frame, reports)))


def _resident() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        return 0


async def _serve(descriptor: int) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # it may hold private text
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor))
    await Looking(reader, writer).serve()
    os._exit(0)  # whatever is under way: nobody waits for it


def main() -> None:
    """Arguments: the descriptor of the socket, and the parent's process id."""
    descriptor, parent = map(int, sys.argv[1:3])
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # the parent decides when it ends
    with contextlib.suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == parent:
        asyncio.run(_serve(descriptor))
