"""Hiding in a process of its own, so that a long message keeps nobody waiting and its time limit holds.

    Elsewhere.hide ──▶ Apart ──▶ the process of looking.py ──▶ the message with placeholders
                         └ ends it when a turn takes too long, and starts another

All defences of an event loop share one process. When it dies, the message whose turn it was fails,
and those of others are looked through again by the next.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from cosilo.boundary.messages.passages import Passage
from cosilo.defences.entities import ONE_THREAD
from cosilo.defences.hiding import M, Settings
from cosilo.defences.looking import (
    Began,
    Failed,
    Hidden,
    LookingJob,
    Open,
    Order,
    Placeholders,
    Report,
    SettingsOpened,
    SettingsRefused,
    Stop,
    frame,
    read_frame,
    read_report,
)
from cosilo.defences.vault import Vault
from cosilo.errors import ConfigError, PrivacyError

LONGEST_TURN = 5.0  # seconds; a turn is some milliseconds unless a detector hangs
_START_SECONDS = 120.0
_PAUSE = 0.5  # seconds before one that died young is followed by another
_MAIN = "from cosilo.defences.looking import main; main()"


class _DiedError(Exception):
    """The process has ended unexpectedly; `turn` is the job that it was working on. Where that is
    `unsure`, it is none: several were read together, or it had not said that it began.
    """

    def __init__(self, turn: int | None, *, unsure: bool = False) -> None:
        self.turn = turn
        self.unsure = unsure


class Elsewhere:
    """Hides as `Hiding` does, in the process that this event loop's defences share.

    Opened when it is first used, or before, so that what cannot work is said early. Once closed it
    hides nothing more.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._apart: Apart | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def open(self) -> None:
        """Raises:
        ConfigError: the detectors cannot be loaded.
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        apart = Apart.shared()
        await apart.open(self._settings)
        if self._loop is loop or self._closed:  # somebody was quicker
            await apart.close()
        else:
            self._apart, self._loop = (
                apart,
                loop,
            )  # a loop before has ended, and its process with it

    async def close(self) -> None:
        self._closed = True
        apart, self._apart = self._apart, None
        if apart is not None:
            await apart.close()

    async def hide(self, message: M, vault: Vault) -> M:
        """`message` with a placeholder of `vault` for each private value.

        Raises:
            PrivacyError: it could not be looked through; nothing of it was let out.
            TimeoutError: it took longer than it may.
        """
        await self.open()
        if self._apart is None:
            raise PrivacyError("the detectors are closed, so nothing was sent")
        async with asyncio.timeout(self._settings.seconds):
            texts = await self._apart.hidden(self._settings, message.passages(), vault)
        said = iter(texts)
        return message.with_passages(lambda _: next(said))


class Apart:
    """The process for one event loop, started again whenever it ends."""

    _of_loops: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Apart]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._users = 0
        self._known: dict[Settings, int] = {}
        self._numbers = itertools.count()
        self._child: asyncio.Task[_Child] | None = None

    @classmethod
    def shared(cls) -> Apart:
        return cls._of_loops.setdefault(asyncio.get_running_loop(), cls())

    async def open(self, settings: Settings) -> None:
        """Raises:
        ConfigError: the detectors cannot be loaded.
        """
        self._users += 1
        try:
            child = await self._ready()
            number = self._known.get(settings)
            if number is None:
                number = next(self._numbers)
            await child.open(number, settings)
            self._known[settings] = number  # from now on every process begins with them
        except BaseException as error:
            await self.close()
            if isinstance(error, _DiedError):
                raise ConfigError("the process that looks for private values ended") from None
            raise

    async def close(self) -> None:
        self._users -= 1
        if not self._users and self._child is not None:
            task, self._child = self._child, None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled() and task.exception() is None:
                await task.result().end()

    async def hidden(self, settings: Settings, passages: list[Passage], vault: Vault) -> list[str]:
        alone = False
        while True:
            child = await self._ready()
            try:
                number = self._known[settings]
                return await child.hidden(number, settings.seconds, passages, vault, alone=alone)
            except _DiedError as error:
                alone = alone or error.unsure
                if error.turn is not None:
                    raise PrivacyError(
                        "the process that looks for private values ended while it read this message, "
                        "so nothing was sent"
                    ) from None

    async def _ready(self) -> _Child:
        """The process, started where there is none."""
        task = self._child
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            self._child = asyncio.create_task(self._started())
        assert self._child is not None
        return await asyncio.shield(self._child)

    async def _started(self) -> _Child:
        while True:
            child = _Child(self._ended)
            try:
                await child.begin()
                for settings, number in self._known.items():
                    await child.open(number, settings)
            except _DiedError:
                await child.end()
                await asyncio.sleep(_PAUSE)
            except BaseException:
                await child.end()
                raise
            else:
                return child

    def _ended(self) -> None:
        """Called when the process has ended: starts another at once, so that the next message need
        not wait for it.
        """
        if self._users and self._child is not None and self._child.done():
            self._child = asyncio.create_task(self._started())
            self._child.add_done_callback(lambda task: task.cancelled() or task.exception())


class _Waiting:
    """A job, and who waits for it."""

    def __init__(self, seconds: float, vault: Vault) -> None:
        self.longest_turn = min(seconds, LONGEST_TURN)
        self.vault = vault
        self.hidden: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()


class _Child:
    """One process, from its beginning to its end."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._jobs: dict[int, _Waiting] = {}
        self._under_way: set[int] = set()  # also those for which nobody waits any more
        self._numbers = itertools.count()
        self._opened: dict[int, asyncio.Future[None]] = {}
        self._turn: int | None = None
        self._unsure = False  # whether others are read in that turn, too, or it is only supposed
        self._watch: asyncio.TimerHandle | None = None
        self._alive = False

    async def begin(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _start(theirs)
        self._alive = True
        self._reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 20)
        self._reading = self._loop.create_task(self._read())

    async def open(self, number: int, settings: Settings) -> None:
        """Raises:
        ConfigError: the settings cannot work.
        """
        if number not in self._opened:
            self._opened[number] = self._loop.create_future()
            self._send(Open(number, settings))
        try:
            async with asyncio.timeout(_START_SECONDS):
                await asyncio.shield(self._opened[number])
        except TimeoutError:
            raise ConfigError(
                f"the detectors were not loaded within {_START_SECONDS:g} s"
            ) from None

    async def hidden(
        self,
        settings: int,
        seconds: float,
        passages: list[Passage],
        vault: Vault,
        *,
        alone: bool,
    ) -> list[str]:
        number = next(self._numbers)
        job = self._jobs[number] = _Waiting(seconds, vault)
        try:
            issued = list(vault.issued)
            sole = not (self._under_way or alone)
            self._send(
                LookingJob(number, settings, passages, vault.key, vault.scope, issued, alone, sole)
            )
            self._under_way.add(number)
            if sole:
                self._began(number, supposed=True)
            return await job.hidden
        finally:
            del self._jobs[number]
            if not job.hidden.done() or job.hidden.cancelled():
                self._send(Stop(number), dead_is_fine=True)

    async def end(self) -> None:
        self._over()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    def _send(self, order: Order, *, dead_is_fine: bool = False) -> None:
        if self._alive:
            self._writer.write(frame(order))
        elif not dead_is_fine:
            raise _DiedError(None)

    async def _read(self) -> None:
        try:
            while True:
                self._take(read_report(await read_frame(self._reader)))
        except (EOFError, OSError, ValueError, MemoryError):
            pass
        finally:
            self._over()
        self._ended()

    def _take(self, report: Report) -> None:
        match report:
            case SettingsOpened(number):
                self._settle(self._opened.get(number), None)
            case SettingsRefused(number, why):
                self._settle(self._opened.get(number), ConfigError(why))
            case Began(number, together):
                self._began(number, together=together)
            case Placeholders(number, issued):
                if (job := self._jobs.get(number)) is not None:
                    job.vault.take(issued)
            case Hidden(number, texts, written):
                self._done(number)
                if (job := self._jobs.get(number)) is not None and not job.hidden.done():
                    job.vault.restorer.written.update(written)
                    job.hidden.set_result(texts)
            case Failed(number, what, why):
                self._done(number)
                if (job := self._jobs.get(number)) is not None:
                    text = f"private values could not be looked for ({what}), so nothing was sent"
                    self._settle(job.hidden, PrivacyError(why or text))

    def _began(self, number: int, *, together: bool = False, supposed: bool = False) -> None:
        self._turn, self._unsure = number, together or supposed
        self._unwatch()
        job = self._jobs.get(number)
        limit = LONGEST_TURN if job is None else job.longest_turn
        self._watch = self._loop.call_later(limit, self._hangs, together)

    def _hangs(self, together: bool) -> None:
        self._unsure = together
        self._process.kill()

    def _done(self, number: int) -> None:
        self._under_way.discard(number)
        if self._turn == number:
            self._turn = None
            self._unwatch()

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _over(self) -> None:
        if not self._alive:
            return
        self._alive = False
        self._unwatch()
        self._process.kill()
        self._process.wait()
        self._writer.close()
        for future in self._opened.values():
            self._settle(future, _DiedError(None))
        unsure = self._turn is not None and self._unsure
        turn = None if unsure else self._turn
        for number, job in self._jobs.items():
            self._settle(job.hidden, _DiedError(turn if number == turn else None, unsure=unsure))

    @staticmethod
    def _settle(future: asyncio.Future[Any] | None, error: Exception | None) -> None:
        if future is None or future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _start(end: socket.socket) -> subprocess.Popen[bytes]:
    """The process, over its end of a socket pair. Not a fork: a worker's memory, sockets and threads
    are no business of it.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _MAIN, str(end.fileno()), str(os.getpid())],
        pass_fds=[end.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | dict([ONE_THREAD]),
    )
