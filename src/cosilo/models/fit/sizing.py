"""Which depth and quantisation fits a machine: a straight line through what was measured.

Decoding reads every weight once per token, so its time grows with the layers by the same amount each,
and so does memory. Two depths that were measured tell all the others; the one that is chosen is
measured too before it is trusted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cosilo.errors import ConfigError
from cosilo.models.fit.decode_speed import Speed

_SLACK = 0.95  # of a limit: two measurements of one model differ by a few per cent


@dataclass(frozen=True)
class Machine:
    """Cores that this process may use, and bytes of memory that are free."""

    cores: int
    memory: int

    @classmethod
    def here(cls) -> Machine:
        return cls(len(os.sched_getaffinity(0)), _available())


@dataclass(frozen=True)
class SizeLimits:
    """What the model may take, per decoded token and in all (bytes)."""

    ms_per_token: float
    memory: int

    def hold(self, speed: Speed, *, slack: float = 1.0) -> bool:
        return (
            speed.ms_per_token <= slack * self.ms_per_token and speed.memory <= slack * self.memory
        )


@dataclass(frozen=True, order=True)
class Size:
    """Order of preference: layers first, which cost more to lose than bits; then the bits."""

    layers: int
    bits: int
    quantisation: str


Measured = Mapping[str, Mapping[int, Speed]]
"""quantisation → layers → what was measured"""


def predict(measured: Mapping[int, Speed], layers: int) -> Speed:
    """What `layers` would take, on the line through the two measured depths next to it."""
    if layers in measured:
        return measured[layers]
    a, b = sorted(sorted(measured, key=lambda depth: abs(depth - layers))[:2])
    at = (layers - a) / (b - a)
    low, high = measured[a], measured[b]
    return Speed(
        low.ms_per_token + at * (high.ms_per_token - low.ms_per_token),
        round(low.memory + at * (high.memory - low.memory)),
    )


def choose(limits: SizeLimits, measured: Measured, *, least: int, most: int) -> Size:
    """The size that is preferred among those within `limits`.

    Args:
        measured: for each quantisation at two depths or more.
        least, most: layers.

    Raises:
        ConfigError: none is; the message names the nearest that is, and what it takes.
    """
    sizes = [
        Size(layers, bits(quantisation), quantisation)
        for quantisation in measured
        for layers in range(least, most + 1)
    ]
    held = [
        size
        for size in sizes
        if limits.hold(
            predict(measured[size.quantisation], size.layers),
            slack=1.0 if size.layers in measured[size.quantisation] else _SLACK,
        )
    ]
    if held:
        return max(held)
    raise ConfigError(refusal(limits, measured, sizes, least))


def refusal(limits: SizeLimits, measured: Measured, sizes: list[Size], least: int) -> str:
    """What cannot be had, and the nearest that can."""

    def excess(size: Size) -> float:
        found = predict(measured[size.quantisation], size.layers)
        return max(found.ms_per_token / limits.ms_per_token, found.memory / limits.memory)

    nearest = min(sizes, key=excess)
    takes = predict(measured[nearest.quantisation], nearest.layers)
    return (
        f"no model of {least} layers or more stays within {limits.ms_per_token:g} ms per token and "
        f"{megabytes(limits.memory)} on this machine. The nearest, {nearest.layers} layers in "
        f"{nearest.quantisation}, takes {takes.ms_per_token:.1f} ms and {megabytes(takes.memory)}: "
        f"--ms-per-token {max(limits.ms_per_token, takes.ms_per_token * 1.1):.2g} --memory "
        f"{max(limits.memory, round(takes.memory * 1.1)) / 1e6:.0f}MB would do"
    )


def adapter_rank(
    machine: Machine, *, weights: int, trained: int, per_rank: int, batch: int
) -> int | None:
    """How wide an adapter the healing may train in the memory there is; None for all weights.

    Args:
        weights: of teacher and student together, as numbers.
        trained: of the student's own that would be trained in full.
        per_rank: numbers in an adapter of rank 1.
        batch: bytes that the activations of a batch take.

    Raises:
        ConfigError: not even the narrowest fits.
    """
    free = 0.8 * machine.memory - 4 * weights - batch
    if 12 * trained <= free:  # a gradient and two moments, four bytes each
        return None
    for rank in (128, 64, 32, 16, 8):
        if 16 * rank * per_rank <= free:
            return rank
    raise ConfigError(
        f"there is not enough memory to train: {megabytes(machine.memory)} are free, and the models "
        f"alone take {megabytes(4 * weights + batch)}; a shorter --length or a smaller model may do"
    )


def bits(quantisation: str) -> int:
    """Per weight, without the scales: the digit after the Q."""
    return int(quantisation[1])


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"


def _available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text("utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
