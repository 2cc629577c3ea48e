"""The size that is chosen holds the limits and is the largest that does."""

from __future__ import annotations

import pytest

from cosilo.errors import ConfigError
from cosilo.models.fit.decode_speed import Speed
from cosilo.models.fit.sizing import Machine, Size, SizeLimits, adapter_rank, choose, predict

MEASURED = {
    "Q8_0": {8: Speed(6.0, 100_000_000), 30: Speed(17.0, 210_000_000)},
    "Q4_0": {8: Speed(4.0, 90_000_000), 30: Speed(9.0, 150_000_000)},
}


def at(ms: float, megabytes: int = 1000) -> Size:
    return choose(SizeLimits(ms, megabytes * 10**6), MEASURED, least=8, most=30)


def test_depth_counts_before_bits_and_bits_before_nothing() -> None:
    assert at(17) == Size(30, 8, "Q8_0")
    assert at(16) == Size(30, 4, "Q4_0")
    assert at(1000) == Size(30, 8, "Q8_0")
    assert at(1000, 200) == Size(30, 4, "Q4_0")


def test_the_line_is_kept_with_some_slack() -> None:
    for ms in (4.5, 5.0, 6.5, 8.0):
        size = at(ms)
        assert predict(MEASURED[size.quantisation], size.layers).ms_per_token <= 0.95 * ms
        deeper = predict(MEASURED["Q4_0"], size.layers + 1)
        assert deeper.ms_per_token > 0.95 * ms


def test_predictions_lie_on_the_line_through_the_nearest_two() -> None:
    line = {8: Speed(6.0, 80), 10: Speed(8.0, 100), 30: Speed(8.0, 100)}
    assert predict(line, 9) == Speed(7.0, 90)
    assert predict(line, 10) == line[10]
    assert predict(line, 29).ms_per_token == pytest.approx(8.0)


def test_what_was_measured_is_not_predicted() -> None:
    """A depth that was found too slow is not chosen again, whatever the line says."""
    measured = {"Q8_0": {8: Speed(6.0, 10), 20: Speed(13.0, 10), 30: Speed(17.0, 10)}}
    size = choose(SizeLimits(12.9, 100), measured, least=8, most=30)
    assert size.layers == 18


@pytest.mark.parametrize(
    ("limits", "nearest"),
    [
        (
            SizeLimits(2.0, 10**9),
            r"8 layers in Q4_0, takes 4\.0 ms.*--ms-per-token 4\.4 --memory 1000MB",
        ),
        (SizeLimits(20.0, 50 * 10**6), r"8 layers in Q4_0.*90 MB: --ms-per-token 20 --memory 99MB"),
    ],
)
def test_limits_that_cannot_be_met_name_the_nearest(limits: SizeLimits, nearest: str) -> None:
    with pytest.raises(ConfigError, match=nearest):
        choose(limits, MEASURED, least=8, most=30)


def test_an_adapter_is_as_wide_as_memory_allows() -> None:
    def rank(memory: float) -> int | None:
        return adapter_rank(
            Machine(2, round(memory)),
            weights=10_000_000,
            trained=8_000_000,
            per_rank=40_000,
            batch=20_000_000,
        )

    assert rank(200e6) is None
    assert rank(170e6) == 64
    assert rank(90e6) == 16
    with pytest.raises(ConfigError, match="not enough memory to train: 60 MB are free"):
        rank(60e6)


def test_this_machine_has_cores_and_memory() -> None:
    machine = Machine.here()
    assert machine.cores >= 1
    assert machine.memory > 10**7
