"""How far a run is, per trial and in total, with the time it will still take."""

from __future__ import annotations

from time import monotonic
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)


class Reports(Protocol):
    """Told by the runner what happens."""

    def begin(self, trials: int, items: int) -> None:
        """`items` answers of `trials` trials are to be made."""

    def trial(self, name: str, items: int) -> None:
        """A trial starts, with `items` answers to make; the one before it has ended."""

    def note(self, text: str) -> None:
        """Something a reader should know; never private text."""

    def advance(self, items: int, calls: int, usd: float) -> None:
        """`items` more answers are kept; this process has made `calls` for `usd` so far."""

    def end(self) -> None:
        """No more will come."""


class Silent:
    """Says nothing."""

    def begin(self, trials: int, items: int) -> None: ...
    def trial(self, name: str, items: int) -> None: ...
    def note(self, text: str) -> None: ...
    def advance(self, items: int, calls: int, usd: float) -> None: ...
    def end(self) -> None: ...


class Lines:
    """Plain lines, for logs: one when a trial starts, then one every `every_s` seconds."""

    def __init__(self, stream: TextIO, *, every_s: float = 10.0) -> None:
        self._stream = stream
        self._every = every_s
        self._trials = self._items = self._done = self._number = 0
        self._started = self._last = 0.0

    def begin(self, trials: int, items: int) -> None:
        self._trials, self._items = trials, items
        self._started = self._last = monotonic()

    def trial(self, name: str, items: int) -> None:
        self._number += 1
        self._say(f"trial {self._number}/{self._trials}: {name} ({items} answers)")

    def note(self, text: str) -> None:
        self._say(text)

    def advance(self, items: int, calls: int, usd: float) -> None:
        self._done += items
        now = monotonic()
        if now - self._last < self._every and self._done < self._items:
            return
        self._last = now
        left = (now - self._started) / self._done * (self._items - self._done)
        self._say(
            f"{self._done}/{self._items} answers, {calls} calls, ${usd:.4f} so far, "
            f"about {clock(left)} left"
        )

    def end(self) -> None: ...

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Bars:
    """Two bars on a terminal: this trial, and the whole run."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[spent]}"),
            console=console,
        )
        self._total = self._bars.add_task("all", total=None, spent="")
        self._trial = self._bars.add_task("", total=None, visible=False, spent="")
        self._trials = self._number = 0

    def begin(self, trials: int, items: int) -> None:
        self._trials = trials
        self._bars.update(self._total, total=items)
        self._bars.start()

    def trial(self, name: str, items: int) -> None:
        self._number += 1
        self._bars.reset(self._trial, total=items, visible=True)
        self._bars.update(self._trial, description=f"{self._number}/{self._trials} {name}")

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def advance(self, items: int, calls: int, usd: float) -> None:
        self._bars.advance(self._trial, items)
        self._bars.update(self._total, advance=items, spent=f"{calls} calls ${usd:.4f}")

    def end(self) -> None:
        self._bars.stop()


def clock(seconds: float) -> str:
    """Seconds as a reader says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
