"""Efficiency, M_e: what answering took, per item, counted from the record.

What `prepare` took is paid once and reported apart (`prepare_*`): how it spreads over requests
depends on how many will come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from cosilo.objectives import intervals
from cosilo.objectives.base import Floats, Item, Link, Measurement, Objective, Run, objectives
from cosilo.objectives.mean import Mean
from cosilo.objectives.reading import NOTHING, Traffic, reading


def _objective(
    name: str,
    unit: str,
    *,
    bounds: tuple[float, float] | None = None,
    quantile: float | None = None,
) -> Objective:
    return Objective(name, "efficiency", "min", unit, bounds, quantile)


def _each(run: Run, what: Callable[[Traffic], float]) -> Floats:
    crossed = reading(run).traffic
    return np.array([what(crossed.get(i.example.id, NOTHING)) for i in run.items], np.float64)


class _Read(Mean):
    """Values that need the messages' content: none where only digests were kept."""

    def values(self, run: Run) -> Floats | None:
        return self._values(run) if reading(run).has_content else None

    def _values(self, run: Run) -> Floats:
        raise NotImplementedError


@objectives.register("calls")
class Calls(Mean):
    """The share of items for which anything was sent to the LM."""

    objective: ClassVar[Objective] = _objective("calls", "share", bounds=(0.0, 1.0))

    def values(self, run: Run) -> Floats | None:
        return _each(run, lambda t: float(t.messages > 0))


@objectives.register("usd_per_1k")
class Money(_Read):
    """What the LM's tokens cost for 1,000 requests, by the price table."""

    objective: ClassVar[Objective] = _objective("usd_per_1k", "USD per 1,000 requests")

    def _values(self, run: Run) -> Floats:
        return _each(run, lambda t: 1000 * t.usd)


@objectives.register("tokens_in")
class TokensIn(_Read):
    """Prompt tokens the LM was sent, per item."""

    objective: ClassVar[Objective] = _objective("tokens_in", "tokens per item")

    def _values(self, run: Run) -> Floats:
        return _each(run, lambda t: t.tokens_in)


@objectives.register("tokens_out")
class TokensOut(_Read):
    """Tokens the LM replied with, per item."""

    objective: ClassVar[Objective] = _objective("tokens_out", "tokens per item")

    def _values(self, run: Run) -> Floats:
        return _each(run, lambda t: t.tokens_out)


@objectives.register("bytes_up")
class BytesUp(Mean):
    """Encoded bytes that went to the LM's owner, per item."""

    objective: ClassVar[Objective] = _objective("bytes_up", "bytes per item")

    def values(self, run: Run) -> Floats | None:
        return _each(run, lambda t: t.bytes_up)


@objectives.register("bytes_down")
class BytesDown(Mean):
    """Encoded bytes that came back, per item."""

    objective: ClassVar[Objective] = _objective("bytes_down", "bytes per item")

    def values(self, run: Run) -> Floats | None:
        return _each(run, lambda t: t.bytes_down)


@objectives.register("round_trips")
class RoundTrips(Mean):
    """Messages sent, per item, each there and back; `latency_ms` says how long was waited."""

    objective: ClassVar[Objective] = _objective("round_trips", "per item")

    def values(self, run: Run) -> Floats | None:
        return _each(run, lambda t: t.messages)


@objectives.register("cpu_ms")
class Cpu(Mean):
    """CPU time on the owner's machine, per item."""

    objective: ClassVar[Objective] = _objective("cpu_ms", "ms per item")

    def values(self, run: Run) -> Floats | None:
        return np.array([1000 * item.cpu_seconds for item in run.items], dtype=np.float64)


class _Latency(_Read):
    """Local time, and the time until the last reply: for each message the LM's own recorded time
    and the stated link's round trip, those of messages sent side by side at the same time, to one LM's
    owner or several; and all the bytes, one after another. Where parties compute together, half a
    round trip for each message of their engines: at most, as some are under way at the same time."""

    def _values(self, run: Run) -> Floats:
        crossed = reading(run).traffic
        each = [latency_ms(i, crossed.get(i.example.id, NOTHING)) for i in run.items]
        return np.array(each, dtype=np.float64)

    def __call__(self, run: Run) -> Measurement | None:
        values = self.values(run)
        if values is None or len(values) == 0 or self.objective.quantile is None:
            return None
        value, low, high = intervals.quantile(values, self.objective.quantile)
        links = {name: _said(side.link) for name, side in run.sides.items()} or {
            "": _said(run.link)
        }
        if len(set(links.values())) == 1:
            links = {"": next(iter(links.values()))}
        said = "; ".join(f"{name}: {link}" if name else link for name, link in links.items())
        return Measurement(self.objective, value, len(values), low, high, note=f"link: {said}")


@objectives.register("latency_ms")
class LatencyMedian(_Latency):
    """The median time from request to answer under the stated link."""

    objective: ClassVar[Objective] = _objective("latency_ms", "ms", quantile=0.5)


@objectives.register("latency_p95_ms")
class LatencyTail(_Latency):
    """The time that 95 % of requests stay within, under the stated link."""

    objective: ClassVar[Objective] = _objective("latency_p95_ms", "ms", quantile=0.95)


def _said(link: Link) -> str:
    return f"{link.rtt_ms:g} ms, {link.mbit_per_s:g} Mbit/s"


def latency_ms(item: Item, crossed: Traffic) -> float:
    return 1000 * (item.seconds + crossed.waiting + crossed.on_the_wire)


@objectives.register("memory_mb")
class Memory:
    """The peak memory of the whole process while the point ran, in megabytes (10⁶ bytes).

    What earlier points of the run loaded is still in it, so it bounds what this one needs from above;
    two points of one run are not told apart by it.
    """

    objective: ClassVar[Objective] = _objective("memory_mb", "MB")

    def values(self, run: Run) -> Floats | None:
        return None  # one number for all items

    def __call__(self, run: Run) -> Measurement | None:
        if not run.peak_memory:
            return None
        peak = run.peak_memory / 1e6
        return Measurement(
            self.objective,
            peak,
            1,
            peak,
            peak,
            note="the whole process, with what earlier points loaded",
        )


class _Prepared:
    """A count of what `prepare` took: exact, so its interval is the number itself."""

    objective: ClassVar[Objective]

    def values(self, run: Run) -> Floats | None:
        return None  # paid once, not per item

    def _total(self, spent: Traffic) -> float:
        raise NotImplementedError

    def __call__(self, run: Run) -> Measurement | None:
        spent = reading(run).prepared
        total = float(self._total(spent))
        return Measurement(
            self.objective, total, spent.messages, total, total, note="once, counted in full"
        )


@objectives.register("prepare_calls")
class PrepareCalls(_Prepared):
    """Messages sent while preparing."""

    objective: ClassVar[Objective] = _objective("prepare_calls", "messages")

    def _total(self, spent: Traffic) -> float:
        return spent.messages


@objectives.register("prepare_usd")
class PrepareMoney(_Prepared):
    """What the LM's tokens cost while preparing, by the price table."""

    objective: ClassVar[Objective] = _objective("prepare_usd", "USD")

    def _total(self, spent: Traffic) -> float:
        return spent.usd

    def __call__(self, run: Run) -> Measurement | None:
        return super().__call__(run) if reading(run).has_content else None


@objectives.register("prepare_bytes_up")
class PrepareBytes(_Prepared):
    """Encoded bytes that went to the LM's owner while preparing."""

    objective: ClassVar[Objective] = _objective("prepare_bytes_up", "bytes")

    def _total(self, spent: Traffic) -> float:
        return spent.bytes_up
