"""Counters for Prometheus, shared by the workers of one machine without a lock or a file.

Each worker owns one region of a shared memory map and writes only there; whoever is scraped adds the
regions up. A worker that is restarted takes over its region and goes on counting where it was.
A region is a list of series, each its name and an 8-byte value:

    used:u32 │ length:u16 name… value:f64 │ length:u16 name… value:f64 │ …

Labels hold the names of points and upstreams, never anything from a request.
Format: Prometheus text exposition, version 0.0.4.
"""

from __future__ import annotations

import mmap
import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

REGION = 1 << 18

_USED = struct.Struct("=I")
_LENGTH = struct.Struct("=H")
_VALUE = struct.Struct("=d")

HELP: Mapping[str, tuple[str, str]] = {
    "cosilo_requests_total": ("counter", "Requests by point, endpoint and HTTP status."),
    "cosilo_answers_total": ("counter", "Answers by point and by who gave them."),
    "cosilo_lm_calls_total": ("counter", "Crossings to the large model."),
    "cosilo_fallbacks_total": ("counter", "Answers that a fallback gave."),
    "cosilo_cancelled_total": ("counter", "Requests whose client left before the end."),
    "cosilo_bytes_up_total": ("counter", "Bytes that left for the large model."),
    "cosilo_bytes_down_total": ("counter", "Bytes that came back from the large model."),
    "cosilo_tokens_in_total": ("counter", "Prompt tokens billed."),
    "cosilo_tokens_out_total": ("counter", "Completion tokens billed."),
    "cosilo_usd_total": ("counter", "US dollars spent."),
    "cosilo_disputes_total": ("counter", "Replies that claimed more tokens than there can be."),
    "cosilo_entities_total": ("counter", "Private values that left as placeholders, by kind."),
    "cosilo_withheld_total": ("counter", "Placeholders left where no value may go, by kind."),
    "cosilo_refused_total": ("counter", "Requests refused before anything was sent, by reason."),
    "cosilo_in_flight": ("gauge", "Requests being answered."),
    "cosilo_breaker_open": ("gauge", "Workers in which the upstream is being left alone."),
    "cosilo_request_seconds": ("histogram", "Seconds from the request to the end of its answer."),
    "cosilo_reloads_total": ("counter", "Times the configuration was read again, by result."),
}

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


_BOUNDS = (*(f"{b:g}" for b in BUCKETS), "+Inf")


class Metrics:
    """One worker's series, and the sum over all workers.

    Args:
        memory: shared by the workers, `REGION` bytes for each; a private one by default.
        worker: this worker's region, counted from 0.
    """

    def __init__(self, memory: mmap.mmap | None = None, worker: int = 0) -> None:
        self._memory = memory if memory is not None else mmap.mmap(-1, REGION)
        self._base = worker * REGION
        self._at: dict[str, int] = {}
        self._known: dict[tuple[str, ...], int] = {}  # the same by labels, as they are given
        # What whoever counts looks up often: the places of series by whatever names them.
        self.kept: dict[tuple[object, ...], tuple[int, ...]] = {}
        # By name and labels: the place of the sum, and those of the buckets that were needed so far.
        self._histograms: dict[tuple[str, ...], list[int]] = {}
        self._values = memoryview(self._memory).cast("d")  # series are aligned
        self._used = _USED.unpack_from(self._memory, self._base)[0] or _USED.size
        for name, at, _ in _series(self._memory, self._base):
            self._at[name] = at
            if HELP.get(name.partition("{")[0], ("",))[0] == "gauge":
                _VALUE.pack_into(self._memory, at, 0.0)

    def add(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter or a gauge; a name's labels always come in the same order."""
        self._add(self._find(name, labels), amount)

    def place(self, name: str, **labels: str) -> int:
        """Where the value of a series is kept, for `bump`; 0 where there is no room for it."""
        return self._find(name, labels)

    def bump(self, places: Sequence[int], amounts: Sequence[float]) -> None:
        """Add to several counters, by where they are kept; those without a place are left out."""
        values = self._values
        for at, amount in zip(places, amounts, strict=True):
            if at:
                values[at >> 3] += amount

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        at = self._find(name, labels)
        if at:
            _VALUE.pack_into(self._memory, at, value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Count `value` into a histogram; each bucket is stored by itself and summed when read."""
        key = (name, *labels.values())
        found = self._histograms.get(key)
        if found is None:
            bounds = [self._find(name + "_sum", labels)] + [0] * len(_BOUNDS)
            found = self._histograms[key] = bounds
        bound = 1 + bisect_left(BUCKETS, value)
        if not found[bound]:
            labels["le"] = _BOUNDS[bound - 1]
            found[bound] = self._find(name + "_bucket", labels)
        self._add(found[bound], 1.0)
        self._add(found[0], value)

    def totals(self) -> dict[str, float]:
        """Every series by its full name, summed over the workers."""
        sums: dict[str, float] = {}
        for base in range(0, len(self._memory), REGION):
            for name, _, value in _series(self._memory, base):
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def exposition(self) -> str:
        """All series in Prometheus' text format."""
        sums = self.totals()
        lines: list[str] = []
        for family, (kind, text) in HELP.items():
            lines += [f"# HELP {family} {text}", f"# TYPE {family} {kind}"]
            if kind == "histogram":
                lines += _histogram(family, sums)
            else:
                lines += [
                    f"{name} {value:.17g}"
                    for name, value in sorted(sums.items())
                    if name.partition("{")[0] == family
                ]
        return "\n".join(lines) + "\n"

    def _find(self, name: str, labels: Mapping[str, str]) -> int:
        key = (name, *labels.values())
        at = self._known.get(key)
        if at is None:
            at = self._known[key] = self._place(_key(name, labels))
        return at

    def _add(self, at: int, amount: float) -> None:
        if at:
            self._values[at >> 3] += amount

    def _place(self, key: str) -> int:
        """The offset of the value of series `key` in the region; 0 when the region is full, and the
        series is dropped.
        """
        if key in self._at:
            return self._at[key]
        name = key.encode()
        pad = -(self._used + _LENGTH.size + len(name)) % 8
        name += b" " * pad
        at = self._base + self._used + _LENGTH.size + len(name)
        if at + _VALUE.size > self._base + REGION:
            return 0
        _LENGTH.pack_into(self._memory, self._base + self._used, len(name))
        self._memory[at - len(name) : at] = name
        _VALUE.pack_into(self._memory, at, 0.0)
        self._used = at + _VALUE.size - self._base
        _USED.pack_into(self._memory, self._base, self._used)  # last: now readers may see it
        self._at[key] = at
        return at


def _series(memory: mmap.mmap, base: int) -> Iterator[tuple[str, int, float]]:
    used = _USED.unpack_from(memory, base)[0]
    at = base + _USED.size
    while at < base + used:
        length = _LENGTH.unpack_from(memory, at)[0]
        at += _LENGTH.size
        name = memory[at : at + length].rstrip(b" ").decode()
        at += length
        yield name, at, _VALUE.unpack_from(memory, at)[0]
        at += _VALUE.size


def _key(name: str, labels: Mapping[str, str]) -> str:
    if not labels:
        return name
    inner = ",".join(f'{k}="{_escape(v)}"' for k, v in labels.items())
    return f"{name}{{{inner}}}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _histogram(family: str, sums: Mapping[str, float]) -> list[str]:
    """Cumulative buckets from the stored single ones, per set of labels."""
    groups: dict[str, dict[str, float]] = {}
    for name, value in sums.items():
        head, _, rest = name.partition("{")
        if head == family + "_bucket":
            labels, _, le = rest.rstrip("}").rpartition("le=")
            groups.setdefault(labels.rstrip(","), {})[le.strip('"')] = value
    lines = []
    for labels, buckets in sorted(groups.items()):
        count = 0.0
        comma = "," if labels else ""
        for bound in _BOUNDS:
            count += buckets.get(bound, 0.0)
            lines.append(f'{family}_bucket{{{labels}{comma}le="{bound}"}} {count:.17g}')
        around = f"{{{labels}}}" if labels else ""
        lines.append(f"{family}_sum{around} {sums.get(f'{family}_sum{around}', 0.0):.17g}")
        lines.append(f"{family}_count{around} {count:.17g}")
    return lines
