"""Scalars along shared directions are what the same steps with dense vectors would have been."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cosilo.boundary.wire import tensors as wire
from cosilo.federation import OwnerUpdate, rules
from cosilo.federation.scalars import Directions, moved, slope, walked

SHAPES = {"b": (3,), "a": (4, 5)}
SIZE = 23
seeds = st.integers(0, 2**32 - 1)


def weights(seed: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def flat(tensors: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(tensors[n], np.float64).ravel() for n in sorted(tensors)])


def dense(directions: Directions) -> NDArray[np.float64]:
    """All directions as the columns of one matrix."""
    return np.stack([flat(directions.signs(j, SHAPES)) for j in range(directions.count)], axis=1)


@given(seeds, st.integers(1, 40), seeds)
def test_where_scalars_lead_is_the_dense_product(seed: int, count: int, other: int) -> None:
    directions = Directions(seed, count)
    scalars = np.random.default_rng(other).normal(size=count).astype(np.float32)
    start = weights(other)
    found = moved(start, scalars, directions, rate=0.03)
    explicit = flat(start) - 0.03 * dense(directions) @ scalars.astype(np.float64)
    np.testing.assert_allclose(flat(found), explicit, rtol=1e-6, atol=1e-6)


@settings(max_examples=40)
@given(seeds, st.integers(1, 30), st.integers(1, 25))
def test_a_walk_is_its_scalars(seed: int, count: int, steps: int) -> None:
    directions = Directions(7, count)
    start, goal = weights(seed), weights(seed + 1)

    def loss(step: int, w: Mapping[str, NDArray[np.float32]]) -> float:
        return float(np.square(flat(w) - flat(goal)).mean()) * (1 + step % 3)

    end, scalars = walked(loss, start, directions, steps=steps, rate=0.01, seed=seed)
    np.testing.assert_allclose(
        flat(moved(start, scalars, directions, rate=0.01)), flat(end), rtol=1e-5, atol=1e-6
    )
    # The slow way: dense vectors, step by step.
    at, matrix = flat(start), dense(directions)
    for step, j in enumerate(np.random.default_rng(seed).integers(count, size=steps)):
        z = matrix[:, j]
        above, below = (np.square(at + s * 1e-3 * z - flat(goal)).mean() for s in (1, -1))
        at = at - 0.01 * (1 + step % 3) * (above - below) / 2e-3 * z
    np.testing.assert_allclose(flat(end), at, rtol=1e-3, atol=1e-4)


@given(seeds, st.integers(2, 5))
def test_the_mean_of_scalars_leads_to_the_mean_of_weights(seed: int, owners: int) -> None:
    directions = Directions(seed, 20)
    rng = np.random.default_rng(seed)
    start = weights(seed)
    each = [rng.normal(size=20).astype(np.float32) for _ in range(owners)]
    shares = rng.uniform(0.5, 3, owners)
    average = rules.create("average")
    weighed = [(str(i), w, g) for i, (w, g) in enumerate(zip(shares, each, strict=True))]
    by_scalars = average([OwnerUpdate(name, w, {"scalars": g}) for name, w, g in weighed])
    by_weights = average(
        [OwnerUpdate(name, w, moved(start, g, directions, rate=0.1)) for name, w, g in weighed]
    )
    there = moved(start, by_scalars.tensors["scalars"], directions, rate=0.1)
    np.testing.assert_allclose(flat(there), flat(by_weights.tensors), rtol=1e-5, atol=1e-6)


def test_directions_are_the_same_for_everybody_and_unlike_one_another() -> None:
    directions = Directions(3, 400)
    matrix = dense(directions)
    assert set(np.unique(matrix)) == {-1.0, 1.0}
    # What other machines must draw, too.
    first = directions.signs(0, {"w": (8,)})["w"].tolist()
    assert first == [-1, 1, -1, 1, 1, 1, -1, -1]
    np.testing.assert_array_equal(dense(Directions(3, 400)), matrix)
    assert (dense(Directions(4, 400)) != matrix).any()
    second_moment = matrix @ matrix.T / 400
    assert np.abs(second_moment - np.eye(SIZE)).max() < 0.25
    # A tensor's direction does not depend on how the tensors are ordered.
    turned = dict(reversed(SHAPES.items()))
    np.testing.assert_array_equal(flat(directions.signs(5, turned)), matrix[:, 5])


def test_a_slope_is_that_of_the_gradient() -> None:
    start, goal = weights(1), weights(2)
    along = Directions(0, 1).signs(0, SHAPES)

    def loss(w: Mapping[str, NDArray[np.float32]]) -> float:
        return float(np.square(flat(w) - flat(goal)).sum())

    gradient = 2 * (flat(start) - flat(goal))
    assert slope(loss, start, along, 1e-3) == pytest.approx(gradient @ flat(along), rel=1e-3)


def test_a_walk_goes_downhill_and_its_steps_are_cut() -> None:
    start, goal = weights(1), weights(2)

    def loss(step: int, w: Mapping[str, NDArray[np.float32]]) -> float:
        return float(np.square(flat(w) - flat(goal)).mean())

    directions = Directions(0, 64)
    end, _ = walked(loss, start, directions, steps=1200, rate=0.05, seed=1)
    assert loss(0, end) < 0.1 * loss(0, start)
    _, cut = walked(loss, start, directions, steps=1, rate=0.05, seed=1, largest=0.01)
    assert np.abs(cut).max() == pytest.approx(0.01)


def test_a_round_takes_less_than_eighteen_kilobytes_both_ways() -> None:
    up = down = wire.size_of({"scalars": (Directions(0).count,)})
    assert up + down < 18_000


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Directions(-1, 4),
        lambda: Directions(0, 0),
        lambda: Directions(0, 4).signs(4, SHAPES),
        lambda: moved(weights(0), np.ones(3), Directions(0, 4), rate=1),
        lambda: moved(weights(0), np.full(4, np.nan), Directions(0, 4), rate=1),
        lambda: slope(lambda w: 1.0, weights(0), weights(1), 0.0),
        lambda: slope(lambda w: float("nan"), weights(0), weights(1), 0.1),
        lambda: walked(lambda i, w: 1.0, weights(0), Directions(0, 4), steps=0, rate=1, seed=0),
        lambda: walked(lambda i, w: 1.0, weights(0), Directions(0, 4), steps=1, rate=0, seed=0),
    ],
)
def test_what_is_out_of_range_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"direction|scalars|epsilon|loss|walk"):
        wrong()  # type: ignore[operator]


@settings(max_examples=20)
@given(seeds, st.integers(0, 6))
def test_a_walk_that_was_broken_off_goes_on_to_the_same_bits(seed: int, broken: int) -> None:
    directions, start, goal = Directions(3, 5), weights(seed), weights(seed + 1)
    looked: list[int] = []

    def loss(step: int, w: Mapping[str, NDArray[np.float32]]) -> float:
        looked.append(step)
        return float(np.square(flat(w) - flat(goal)).mean())

    numbers: list[float] = []
    how = {"steps": 6, "rate": 0.01, "seed": seed}
    end, scalars = walked(loss, start, directions, note=numbers.append, **how)  # type: ignore[arg-type]
    looked.clear()
    again: list[float] = []
    other, same = walked(
        loss, start, directions, known=numbers[:broken], note=again.append, **how  # type: ignore[arg-type]
    )  # fmt: skip
    assert sorted(set(looked)) == list(range(broken, 6))
    assert numbers[broken:] == again
    np.testing.assert_array_equal(scalars, same)
    assert all(np.array_equal(end[n], other[n]) for n in end)
