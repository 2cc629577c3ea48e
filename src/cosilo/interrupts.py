"""Ctrl-C: a word at once, then an orderly end; a second one ends the process where it is.

first    ─▶ the word on stderr ─▶ what runs is cancelled, closes its files ─▶ exit code 130
             └─ what does not let go of the event loop (a model that is loaded, or trained) is
                broken off after `PATIENCE` seconds
second   ─▶ exit code 130

Where the process was started with SIGINT ignored, as a shell does in the background, it stays so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

EXIT_CODE = 130
WORD = "stopping; what is done is kept (Ctrl-C again ends at once)"
PATIENCE = 2.0
_SHOW_CURSOR = b"\x1b[?25h"


class _Listener:
    """The handler of SIGINT. `stop` ends what runs; without it, KeyboardInterrupt is raised."""

    def __init__(self) -> None:
        self.heard = False
        self.stop: Callable[[], object] | None = None
        self._breaking = False

    def break_off(self) -> None:
        """Raise KeyboardInterrupt in the main thread, whatever it is at; called from another."""
        self._breaking = True
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def __call__(self, signum: int, frame: object) -> None:
        if self._breaking:
            self._breaking = False
            raise KeyboardInterrupt
        if self.heard:
            if sys.stderr.isatty():  # progress bars hide it
                os.write(2, _SHOW_CURSOR)
            os._exit(EXIT_CODE)
        self.heard = True
        say(WORD)
        if self.stop is None:
            raise KeyboardInterrupt
        self.stop()


def say(text: str) -> None:
    """A line on stderr, written at once whatever else is being written."""
    try:
        os.write(
            2,
            f"\ncosilo: {text}\n".encode() if sys.stderr.isatty() else f"cosilo: {text}\n".encode(),
        )
    except OSError:  # nobody reads it
        return


@contextmanager
def listening() -> Iterator[None]:
    """A context that handles SIGINT, unless it is ignored or another handler is installed."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _Listener())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def stopping(stop: Callable[[], object]) -> Iterator[None]:
    """Have `stop` called at Ctrl-C, in the main thread, between any two steps of what runs in here."""
    listener = signal.getsignal(signal.SIGINT)
    if not isinstance(listener, _Listener):
        yield
        return
    before, listener.stop = listener.stop, stop
    try:
        yield
    finally:
        listener.stop = before


def heard() -> bool:
    """Whether Ctrl-C was pressed while `listening`."""
    listener = signal.getsignal(signal.SIGINT)
    return isinstance(listener, _Listener) and listener.heard


async def in_thread(work: Callable[[], T]) -> T:
    """The result of `work()`, in a thread of its own that nobody waits for who is told to stop."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def end(result: Callable[[], None]) -> None:
        if not done.done():
            result()

    def run() -> None:
        try:
            found = work()
        except BaseException as error:
            failure = error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
            told = partial(done.set_exception, failure)
        else:
            told = partial(done.set_result, found)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(end, told)

    threading.Thread(target=run, daemon=True).start()
    return await done


def run(
    main: Callable[[], Coroutine[Any, Any, T]],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """The result of `main()` in an event loop of its own; Ctrl-C cancels it.

    Raises:
        KeyboardInterrupt: it was cancelled by Ctrl-C, and has cleaned up.
    """

    async def held() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        listener = signal.getsignal(signal.SIGINT)
        assert task is not None
        reached = threading.Event()

        def cancel() -> None:
            reached.set()
            task.cancel()

        def watch() -> None:
            if not reached.wait(PATIENCE) and isinstance(listener, _Listener):
                # The task that is broken off ends with KeyboardInterrupt, which nobody collects.
                loop.set_exception_handler(lambda loop, context: None)
                listener.break_off()

        def stop() -> None:
            loop.call_soon_threadsafe(cancel)
            threading.Thread(target=watch, daemon=True).start()

        with stopping(stop):
            return await main()

    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(held())
    except asyncio.CancelledError:
        if heard():
            raise KeyboardInterrupt from None
        raise
