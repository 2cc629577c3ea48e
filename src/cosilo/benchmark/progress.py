"""How far a run is, per trial and in total, with the time it will still take."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
)


@dataclass(frozen=True)
class RunSpent:
    """LM calls since this process began with the run, and US dollars of the whole run."""

    calls: int
    usd: float

    def __str__(self) -> str:
        return f"{self.calls} calls, ${self.usd:.4f}"


class Reports(Protocol):
    """Receives the progress of a run; the runner calls it."""

    def begin(self, trials: int, items: int) -> None:
        """`items` answers of `trials` trials are to be made."""

    def trial(self, name: str, items: int) -> None:
        """A trial starts, with `items` answers to make; the one before it has ended."""

    def note(self, text: str) -> None:
        """Something a reader should know; never private text."""

    def advance(self, items: int, spent: RunSpent, left: float, here: float) -> None:
        """`items` more answers are kept. The run will take `left` more seconds, the trial `here`."""

    def end(self) -> None:
        """No more will come."""


class Silent:
    """Says nothing."""

    def begin(self, trials: int, items: int) -> None: ...
    def trial(self, name: str, items: int) -> None: ...
    def note(self, text: str) -> None: ...
    def advance(self, items: int, spent: RunSpent, left: float, here: float) -> None: ...
    def end(self) -> None: ...


class Lines:
    """Plain lines, for logs: one when a trial starts, then one every `every_s` seconds."""

    def __init__(self, stream: TextIO, *, every_s: float = 10.0) -> None:
        self._stream = stream
        self._every = every_s
        self._trials = self._items = self._done = self._number = 0
        self._last = 0.0

    def begin(self, trials: int, items: int) -> None:
        self._trials, self._items = trials, items
        self._last = monotonic()

    def trial(self, name: str, items: int) -> None:
        self._number += 1
        self._say(f"trial {self._number}/{self._trials}: {name} ({items} answers)")

    def note(self, text: str) -> None:
        self._say(text)

    def advance(self, items: int, spent: RunSpent, left: float, here: float) -> None:
        self._done += items
        now = monotonic()
        if now - self._last < self._every and self._done < self._items:
            return
        self._last = now
        self._say(f"{self._done}/{self._items} answers, {spent} so far, about {clock(left)} left")

    def end(self) -> None: ...

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Bars:
    """Bars on a terminal: the whole run, and this trial where there is a `single` one at a time."""

    def __init__(self, console: Console, *, single: bool = True) -> None:
        self._single = single
        self._bars = Progress(
            SpinnerColumn("line" if console.options.ascii_only else "dots"),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[spent]}"),
            console=console,
        )
        self._total = self._bars.add_task("all", total=None, spent="", left="")
        self._trial = self._bars.add_task("", total=None, visible=False, spent="", left="")
        self._trials = self._number = 0

    def begin(self, trials: int, items: int) -> None:
        self._trials = trials
        self._bars.update(self._total, total=items)
        self._bars.start()

    def trial(self, name: str, items: int) -> None:
        self._number += 1
        self._bars.reset(
            self._trial, total=items, visible=self._single, left="", spent="",
            description=f"{self._number}/{self._trials} {name}",
        )  # fmt: skip

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def advance(self, items: int, spent: RunSpent, left: float, here: float) -> None:
        self._bars.update(self._trial, advance=items, left=clock(here))
        self._bars.update(self._total, advance=items, left=clock(left), spent=str(spent))

    def end(self) -> None:
        self._bars.stop()


def clock(seconds: float) -> str:
    """Seconds as a reader says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
