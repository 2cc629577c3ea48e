"""Candidates under a machine's limits and a leak limit: what each takes, and which is chosen.

    options ──▶ memory, CPU of a step, bytes, nats lost, leak ──▶ within limits? ──▶ the best that is

A leak counts by the upper end of its interval, and one that could not be measured is within no limit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cosilo.models.fit.sizing import megabytes
from cosilo.objectives.intervals import wilson

_SAME = 0.005  # nats per token: what differs by less is as good


@dataclass(frozen=True)
class TokenLeak:
    """How many of the tokens of texts an attacker named.

    Attributes:
        found, of: tokens named, and tokens there were.
        base: the share that the same attacker names without having seen anything.
    """

    found: int
    of: int
    base: float

    @property
    def value(self) -> float:
        """Beyond the base, as a share of what is left: 0 where nothing was learned, 1 where all was."""
        return self._beyond(self.found / self.of)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, by Wilson's score over tokens."""
        low, high = wilson(self.found, self.of)
        return self._beyond(low), self._beyond(high)

    def _beyond(self, share: float) -> float:
        return max(0.0, (share - self.base) / (1 - self.base)) if self.base < 1 else 0.0


@dataclass(frozen=True)
class LeakCandidate:
    """One way to set a strategy, and what it takes.

    Attributes:
        options: of the strategy.
        precision: of the small model's weights.
        memory: bytes of weights, adapter, optimiser and what a step keeps; other memory of the process
            comes on top.
        ms: milliseconds of CPU of a step at home.
        size: bytes that go up, a token or a round.
        per: what `size` is of.
        nats: per token that the model is worse by for it: what the codec, noise or rounding takes.
        leak: None where it could not be measured.
        failed: why something could not be measured.
    """

    options: Mapping[str, object]
    precision: str
    memory: int
    ms: float
    size: int
    per: str
    nats: float
    leak: TokenLeak | None
    failed: str = ""

    def number(self, option: str) -> int:
        """An option that is a whole number; 0 where there is none."""
        found = self.options.get(option, 0)
        return found if isinstance(found, int) else 0

    def said(self) -> str:
        """The options, as one reads them."""
        words = [f"{k}={v}" for k, v in self.options.items() if k not in _BESIDE]
        return ", ".join([*words, self.precision])


_BESIDE = ("states_down", "gradients_up", "gradients_down")


@dataclass(frozen=True)
class HomeLimits:
    """What may be taken at home, and what may leak.

    Attributes:
        memory: bytes.
        ms: milliseconds of CPU of a step.
        leak: share of tokens beyond the base.
    """

    memory: int
    ms: float
    leak: float

    def broken(self, candidate: LeakCandidate) -> list[str]:
        """Why `candidate` is not within; empty where it is."""
        found = []
        if candidate.memory > self.memory:
            found.append("memory")
        if not candidate.ms <= self.ms:
            found.append("time")
        if candidate.leak is None:
            found.append("leak not measured")
        elif not candidate.leak.interval[1] <= self.leak:
            found.append("leak")
        return found


def chosen(candidates: Sequence[LeakCandidate], limits: HomeLimits) -> LeakCandidate | None:
    """The candidate within `limits` that the model is least the worse for; of equals the highest rank
    and the most steps, then the fewest bytes, then the smallest leak, then the least work."""

    def order(c: LeakCandidate) -> tuple[float, ...]:
        lost = max(0, round(c.nats / _SAME))
        leak = c.leak.interval[1] if c.leak is not None else 1.0
        return (lost, -c.number("rank"), -c.number("steps"), c.size, leak, c.ms, c.memory)

    return min((c for c in candidates if not limits.broken(c)), key=order, default=None)


def nearest(candidates: Sequence[LeakCandidate], limits: HomeLimits) -> LeakCandidate | None:
    """The candidate that exceeds `limits` the least: what could be had instead."""

    def excess(c: LeakCandidate) -> float:
        leak = c.leak.interval[1] if c.leak is not None else 1.0
        return max(c.memory / limits.memory, c.ms / limits.ms, leak / max(limits.leak, 1e-3))

    known = [c for c in candidates if c.leak is not None]
    return min(known, key=excess, default=None)


def rows(candidates: Sequence[LeakCandidate], limits: HomeLimits) -> list[list[str]]:
    """A row for each candidate, `HEAD` above."""
    best = chosen(candidates, limits)
    found = []
    for c in candidates:
        if c.leak is None:
            leak = "–"
        else:
            low, high = c.leak.interval
            leak = f"{c.leak.value:.0%} [{low:.0%}, {high:.0%}]"
        wrong = limits.broken(c)
        verdict = "chosen" if c is best else "within" if not wrong else ", ".join(wrong)
        size = f"{c.size:,} B/{c.per}" if c.size < 100_000 else f"{c.size / 1e6:.1f} MB/{c.per}"
        found.append(
            [c.said(), megabytes(c.memory), f"{c.ms:,.0f}", size, f"{c.nats:+.3f}", leak, verdict]
        )
    return found


HEAD = ("candidate", "memory", "ms/step", "up", "nats/token", "leak, 95 %", "limits")


def point_text(strategy: str, model: str, candidate: LeakCandidate) -> str:
    """The tables of a plan that say it: the small model, and the point."""
    lines = [
        "[models.small]",
        'kind = "torch"',
        model,
        f"precision = {json.dumps(candidate.precision)}",
    ]
    lines += ["", "[[points]]", f"strategy = {json.dumps(strategy)}"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in candidate.options.items()]
    return "\n".join(lines) + "\n"
