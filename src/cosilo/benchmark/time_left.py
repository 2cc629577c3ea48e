"""How long a run will still take, from what it has done so far.

A run's time is of two kinds: while the LM works (`busy`), and everything else, which is a trial's own:
training, the small model's answers, attacks. The first goes by the LM calls that are still to come,
the second by what earlier trials of the same strategy took.

    left = calls to come x seconds a call  +  own time of this trial  +  own time of each later trial
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

FEW = 3
"""From so many LM calls on, their pace is measured rather than taken from before the run."""

RECENT = 24
"""And by so many of the last ones, once there are as many."""


@dataclass(frozen=True)
class Moment:
    """Where a run stands.

    Attributes:
        now: seconds, of any clock that only goes forward.
        calls: LM calls made since the run began.
        busy: seconds since then in which at least one LM call was under way.
    """

    now: float
    calls: int = 0
    busy: float = 0.0

    @property
    def idle(self) -> float:
        """Seconds, up to a constant, in which no LM call was under way."""
        return self.now - self.busy


class TimeLeft:
    """Seconds that a run, and the trial at hand, will still take.

    Args:
        kinds: the strategy of each trial to come, in order.
        per_call: seconds of an LM call, as known before the run.
    """

    def __init__(self, kinds: Sequence[str], per_call: float) -> None:
        self._later = list(kinds)
        self._per_call = per_call
        self._own: dict[str, list[float]] = {}
        self._kind: str | None = None
        self._measuring: dict[str, list[float]] = {}  # after the last answer
        self._began = self._answering = self._last = Moment(0.0)
        self._answers = self._done = self._here = self._after = 0
        self._paces: deque[Moment] = deque()

    def trial(self, kind: str, answers: int, calls: int, after: int, at: Moment) -> None:
        """A trial begins; the one before it has ended.

        Args:
            answers: how many it has to make.
            calls: LM calls that it will make, at most.
            after: LM calls of the trials that follow, at most.
        """
        self.ended(at)
        if kind in self._later:
            self._later.remove(kind)
        self._kind, self._began, self._answering = kind, at, at
        self._answers, self._done = answers, 0
        self._here, self._after = calls, after

    def ended(self, at: Moment) -> None:
        """The trial at hand is over."""
        if self._kind is not None:
            self._own.setdefault(self._kind, []).append(max(0.0, at.idle - self._began.idle))
            if self._done:
                self._measuring.setdefault(self._kind, []).append(at.idle - self._last.idle)
        self._kind = None

    def answered(self, count: int, at: Moment) -> None:
        """`count` more answers of the trial at hand are there."""
        if not self._done:
            self._answering = at  # what came before it was preparing
        self._done += count
        self._last = at

    def of_trial(self, at: Moment) -> float:
        """Seconds that the trial at hand will still take."""
        if self._kind is None:
            return 0.0
        share = 1 - self._done / max(1, self._answers)
        made = at.calls - self._began.calls
        to_come = float(max(0, self._here - made))
        if self._done:  # calls that answers could have needed and did not are not waited for
            to_come = min(to_come, self._here * share)
        return to_come * self._seconds_a_call(at) + self._own_left(share, at)

    def of_run(self, at: Moment) -> float:
        """Seconds that the run will still take."""
        this = None if self._kind is None else self._whole(at)
        later = sum(self._expected(kind, this) for kind in self._later)
        return self.of_trial(at) + self._after * self._seconds_a_call(at) + later

    def _whole(self, at: Moment) -> float:
        """The own time that the trial at hand will have taken in the end."""
        share = 1 - self._done / max(1, self._answers)
        return at.idle - self._began.idle + self._own_left(share, at)

    def _own_left(self, share: float, at: Moment) -> float:
        spent = at.idle - self._began.idle
        before = self._expected(str(self._kind))
        if self._done > 1:
            answering = max(0.0, at.idle - self._answering.idle)
            left = answering / (self._done - 1) * (self._answers - self._done)
            left += max(0.0, _typical(self._measuring, self._kind) - (at.idle - self._last.idle))
            return max(left, (before - spent) * share)
        return max(0.0, before - spent)

    def _expected(self, kind: str, this: float | None = None) -> float:
        """What a trial takes of its own: as those of its kind did, or else as all did.

        Args:
            this: what the trial at hand will take, where it is the first of its kind.
        """
        if this is not None and kind == self._kind and kind not in self._own:
            return this
        return _typical(self._own, kind)

    def _seconds_a_call(self, at: Moment) -> float:
        """Seconds that an LM call takes, measured on the last calls only: the machine's other load
        may have changed.
        """
        if at.calls < FEW:
            return self._per_call
        while len(self._paces) > 1 and at.calls - self._paces[1].calls >= RECENT:
            self._paces.popleft()
        if not self._paces or at.calls > self._paces[-1].calls:
            self._paces.append(at)
        since = self._paces[0] if at.calls - self._paces[0].calls >= RECENT else Moment(0.0)
        return (at.busy - since.busy) / (at.calls - since.calls)


def _typical(seconds: Mapping[str, Sequence[float]], kind: str | None) -> float:
    """The mean over trials of `kind`; over all trials where there was none of it yet."""
    known = seconds.get(kind or "") or [s for each in seconds.values() for s in each]
    return fmean(known) if known else 0.0
