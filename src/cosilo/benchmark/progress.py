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
)


class Reports(Protocol):
    """Told by the runner what happens."""

    def begin(self, trials: int, items: int, calls: int) -> None:
        """`items` answers of `trials` trials are to be made, with at most `calls` LM calls."""

    def trial(self, name: str, items: int) -> None:
        """A trial starts, with `items` answers to make; the one before it has ended."""

    def note(self, text: str) -> None:
        """Something a reader should know; never private text."""

    def advance(self, items: int, calls: int, usd: float) -> None:
        """`items` more answers are kept; since `begin` there were `calls` in all, and the run has
        cost `usd`."""

    def end(self) -> None:
        """No more will come."""


class Silent:
    """Says nothing."""

    def begin(self, trials: int, items: int, calls: int) -> None: ...
    def trial(self, name: str, items: int) -> None: ...
    def note(self, text: str) -> None: ...
    def advance(self, items: int, calls: int, usd: float) -> None: ...
    def end(self) -> None: ...


class Left:
    """How long it will still take: by the LM calls while there are any to come, since most answers
    may be free; then by the answers. Calls that answers could have needed and did not are not waited
    for.

    Args:
        items, calls: how many there will be, of calls at most.
        now: seconds, of any clock.
    """

    def __init__(self, items: int, calls: int, now: float) -> None:
        self._items, self._calls, self._started = items, calls, now
        self._made = 0
        self._since = (now, 0)  # when the last call was made, and the answers there were then

    def seconds(self, done: int, calls: int, now: float) -> float:
        """Once `done` answers were kept and `calls` were made."""
        if calls > self._made:
            self._made, self._since = calls, (now, done)
        if done >= self._items:
            return 0.0
        if 0 < calls < self._calls:
            share = (self._items - done) / self._items
            left = min(self._calls - calls, self._calls * share)
            return (now - self._started) / calls * left
        began, free = self._since
        if done == free:
            began, free = self._started, 0
        return (now - began) / max(1, done - free) * (self._items - done)


class Lines:
    """Plain lines, for logs: one when a trial starts, then one every `every_s` seconds."""

    def __init__(self, stream: TextIO, *, every_s: float = 10.0) -> None:
        self._stream = stream
        self._every = every_s
        self._trials = self._items = self._done = self._number = 0
        self._last = 0.0
        self._left = Left(0, 0, 0.0)

    def begin(self, trials: int, items: int, calls: int) -> None:
        self._trials, self._items = trials, items
        self._last = monotonic()
        self._left = Left(items, calls, self._last)

    def trial(self, name: str, items: int) -> None:
        self._number += 1
        self._say(f"trial {self._number}/{self._trials}: {name} ({items} answers)")

    def note(self, text: str) -> None:
        self._say(text)

    def advance(self, items: int, calls: int, usd: float) -> None:
        self._done += items
        now = monotonic()
        left = self._left.seconds(self._done, calls, now)
        if now - self._last < self._every and self._done < self._items:
            return
        self._last = now
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
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[spent]}"),
            console=console,
        )
        self._total = self._bars.add_task("all", total=None, spent="", left="")
        self._trial = self._bars.add_task("", total=None, visible=False, spent="", left="")
        self._trials = self._number = self._done = 0
        self._left = Left(0, 0, 0.0)
        self._of_trial: Left | None = None
        self._before = self._size = 0  # answers kept when this trial began, and those it will have

    def begin(self, trials: int, items: int, calls: int) -> None:
        self._trials = trials
        self._left = Left(items, calls, monotonic())
        self._bars.update(self._total, total=items)
        self._bars.start()

    def trial(self, name: str, items: int) -> None:
        self._number += 1
        self._before, self._size = self._done, items
        self._of_trial = None  # its clock starts with its first answer: `prepare` may take long
        self._bars.reset(
            self._trial, total=items, visible=True, left="", spent="",
            description=f"{self._number}/{self._trials} {name}",
        )  # fmt: skip

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def advance(self, items: int, calls: int, usd: float) -> None:
        self._done += items
        now = monotonic()
        left = self._left.seconds(self._done, calls, now)
        if self._of_trial is None:
            self._before, self._size = self._done, self._size - items
            self._of_trial = Left(self._size, 0, now)
            here = ""
        else:
            here = clock(self._of_trial.seconds(self._done - self._before, 0, now))
        self._bars.update(self._trial, advance=items, left=here)
        self._bars.update(
            self._total, advance=items, left=clock(left), spent=f"{calls} calls ${usd:.4f}"
        )

    def end(self) -> None:
        self._bars.stop()


def clock(seconds: float) -> str:
    """Seconds as a reader says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
