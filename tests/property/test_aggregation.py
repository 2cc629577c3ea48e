"""Rules against slow, obvious versions: products written out, one number at a time."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cosilo.federation import Aggregate, OwnerUpdate, ServerStep, rules
from cosilo.federation.low_rank import reduced, truncated
from cosilo.federation.robust import squared_distances
from cosilo.federation.updates import A, B, distance_norm, product_norm

Floats = NDArray[np.float32]
LAYERS = {"model.q": (7, 5), "model.v": (4, 6)}

many_ranks = st.lists(st.integers(1, 4), min_size=1, max_size=6)
seeds = st.integers(0, 2**32 - 1)


def adapter(rng: np.random.Generator, rank: int) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    for layer, (out, into) in LAYERS.items():
        found[layer + A] = rng.normal(size=(rank, into)).astype(np.float32)
        found[layer + B] = rng.normal(size=(out, rank)).astype(np.float32)
    return found


def updates_of(ranks: Sequence[int], seed: int) -> list[OwnerUpdate]:
    rng = np.random.default_rng(seed)
    return [
        OwnerUpdate(f"owner {i}", float(rng.uniform(0.1, 9)), adapter(rng, rank))
        for i, rank in enumerate(ranks)
    ]


def wanted(updates: Sequence[OwnerUpdate]) -> dict[str, NDArray[np.float64]]:
    """Σ pₖ Bₖ Aₖ of each layer, written out."""
    total = sum(u.weight for u in updates)
    found = {}
    for layer, shape in LAYERS.items():
        mean = np.zeros(shape)
        for u in updates:
            product = u.tensors[layer + B].astype(np.float64) @ u.tensors[layer + A]
            mean += u.weight / total * product
        found[layer] = mean
    return found


def error_of(made: Aggregate, updates: Sequence[OwnerUpdate]) -> float:
    """‖product − wanted‖ / ‖wanted‖ over all layers, written out."""
    off = norm = 0.0
    for layer, mean in wanted(updates).items():
        product = made.tensors[layer + B].astype(np.float64) @ made.tensors[layer + A]
        off += float(np.square(product - mean).sum())
        norm += float(np.square(mean).sum())
    return float(np.sqrt(off / norm))


@given(many_ranks, seeds)
def test_flora_is_exact_whatever_the_ranks(ranks: list[int], seed: int) -> None:
    updates = updates_of(ranks, seed)
    made = rules.create("flora")(updates)
    assert error_of(made, updates) <= 1e-5
    assert made.error is not None
    assert made.error <= 1e-6
    assert made.adds
    assert made.tensors["model.q" + A].shape == (sum(ranks), 5)
    assert sum(made.weights.values()) == pytest.approx(1)


@given(st.integers(1, 4), st.integers(2, 6), seeds)
def test_an_average_of_factors_is_off_as_it_says(rank: int, owners: int, seed: int) -> None:
    updates = updates_of([rank] * owners, seed)
    made = rules.create("average")(updates)
    assert made.error == pytest.approx(error_of(made, updates), rel=1e-5, abs=1e-6)
    assert made.error > 1e-3
    total = sum(u.weight for u in updates)
    for name, tensor in made.tensors.items():
        mean = sum(u.weight / total * u.tensors[name].astype(np.float64) for u in updates)
        np.testing.assert_allclose(tensor, mean, rtol=1e-6)


@given(many_ranks, seeds)
def test_hetlora_pads_and_weighs_by_norm(ranks: list[int], seed: int) -> None:
    updates = updates_of(ranks, seed)
    made = rules.create("hetlora")(updates)
    norms = []
    for u in updates:
        products = [u.tensors[layer + B] @ u.tensors[layer + A] for layer in LAYERS]
        norms.append(np.sqrt(sum(np.square(p.astype(np.float64)).sum() for p in products)))
        assert product_norm(u.tensors, 3.0) == pytest.approx(3 * norms[-1], rel=1e-5)
    for layer, (out, into) in LAYERS.items():
        for i, j in itertools.product(range(max(ranks)), range(into)):
            each = [
                n / sum(norms) * (u.tensors[layer + A][i, j] if i < r else 0)
                for n, u, r in zip(norms, updates, ranks, strict=True)
            ]
            assert made.tensors[layer + A][i, j] == pytest.approx(sum(each), rel=1e-4, abs=1e-6)
        assert made.tensors[layer + B].shape == (out, max(ranks))
    smallest = truncated(made.tensors, min(ranks))
    for name, tensor in smallest.items():
        whole = made.tensors[name]
        np.testing.assert_array_equal(
            tensor, whole[: min(ranks)] if name.endswith(A) else whole[:, : min(ranks)]
        )


@given(st.integers(1, 7), seeds)
def test_the_median_is_each_numbers_own(owners: int, seed: int) -> None:
    updates = updates_of([2] * owners, seed)
    made = rules.create("median")(updates)
    for name, tensor in made.tensors.items():
        for at in np.ndindex(tensor.shape):
            assert tensor[at] == pytest.approx(
                statistics.median(float(u.tensors[name][at]) for u in updates), rel=1e-6
            )


@given(st.integers(1, 9), seeds, st.data())
def test_a_trimmed_mean_leaves_out_either_end(owners: int, seed: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, (owners - 1) // 2))
    updates = updates_of([1] * owners, seed)
    made = rules.create("trimmed_mean", hostile=cut)(updates)
    for name, tensor in made.tensors.items():
        for at in np.ndindex(tensor.shape):
            ordered = sorted(float(u.tensors[name][at]) for u in updates)
            assert tensor[at] == pytest.approx(
                statistics.fmean(ordered[cut : owners - cut]), rel=1e-5, abs=1e-6
            )


def krum_scores(updates: Sequence[OwnerUpdate], hostile: int) -> list[float]:
    scores = []
    for u in updates:
        distances = []
        for other in updates:
            if other is not u:
                difference = {n: u.tensors[n] - other.tensors[n] for n in u.tensors}
                squares = [np.square(d.astype(float)).sum() for d in difference.values()]
                distances.append(float(sum(squares)))
        scores.append(sum(sorted(distances)[: len(updates) - hostile - 2]))
    return scores


@given(st.integers(3, 9), seeds, st.data())
def test_krum_takes_the_nearest_to_most(owners: int, seed: int, data: st.DataObject) -> None:
    hostile = data.draw(st.integers(0, (owners - 3) // 2))
    updates = updates_of([2] * owners, seed)
    scores = krum_scores(updates, hostile)
    best = int(np.argmin(scores))
    made = rules.create("krum", hostile=hostile)(updates)
    for name, tensor in made.tensors.items():
        np.testing.assert_array_equal(tensor, updates[best].tensors[name])
    assert made.weights[f"owner {best}"] == 1
    kept = data.draw(st.integers(1, owners - hostile))
    several = rules.create("multi_krum", hostile=hostile, kept=kept)(updates)
    chosen = sorted(np.argsort(scores)[:kept])
    assert [i for i in range(owners) if several.weights[f"owner {i}"]] == chosen
    alone = rules.create("average")([updates[i] for i in chosen])
    for name, tensor in several.tensors.items():
        np.testing.assert_allclose(tensor, alone.tensors[name], rtol=1e-6, atol=1e-7)


@given(st.integers(1, 6), seeds, st.floats(0.01, 30))
def test_no_update_goes_farther_than_the_bound(owners: int, seed: int, largest: float) -> None:
    updates = updates_of([2] * owners, seed)
    before = adapter(np.random.default_rng([seed, 1]), 2)
    made = rules.create("norm_bounded", largest=largest)(updates, before)
    total = sum(u.weight for u in updates)
    for name, tensor in made.tensors.items():
        slow = before[name].astype(np.float64)
        for u in updates:
            step = {n: u.tensors[n].astype(np.float64) - before[n] for n in before}
            norm = np.sqrt(sum(np.square(s).sum() for s in step.values()))
            slow = slow + u.weight / total * step[name] * min(1, largest / norm)
        np.testing.assert_allclose(tensor, slow, rtol=1e-4, atol=1e-5)
    assert distance_norm(made.tensors, before) <= largest * (1 + 1e-5)


@settings(max_examples=50)
@given(st.sampled_from(rules.names()), seeds, st.randoms())
def test_the_order_in_which_updates_come_changes_no_bit(name: str, seed: int, dice: object) -> None:
    updates = updates_of([2] * 7, seed)
    before = adapter(np.random.default_rng(seed), 2)
    mixed = updates.copy()
    dice.shuffle(mixed)  # type: ignore[attr-defined]
    first, second = (rules.create(name)(some, before) for some in (updates, mixed))
    assert first.tensors.keys() == second.tensors.keys()
    for key, tensor in first.tensors.items():
        np.testing.assert_array_equal(tensor, second.tensors[key], strict=True)
        assert tensor.dtype == np.float32
    assert first.weights == second.weights


@given(seeds, st.integers(1, 9))
def test_the_closest_adapter_loses_the_other_singular_values(seed: int, rank: int) -> None:
    whole = adapter(np.random.default_rng(seed), 6)
    found = reduced(whole, rank)
    for layer in LAYERS:
        exact = whole[layer + B].astype(np.float64) @ whole[layer + A]
        lost = np.linalg.norm(exact - found[layer + B].astype(np.float64) @ found[layer + A])
        values = np.linalg.svd(exact, compute_uv=False)
        assert lost == pytest.approx(np.linalg.norm(values[rank:]), rel=1e-4, abs=1e-4)
        assert len(found[layer + A]) == min(rank, 6)


@given(many_ranks, seeds, st.integers(1, 5))
def test_a_stack_cut_to_a_rank_says_what_that_lost(ranks: list[int], seed: int, rank: int) -> None:
    updates = updates_of(ranks, seed)
    made = rules.create("flora", rank=rank)(updates)
    assert made.error == pytest.approx(error_of(made, updates), rel=1e-4, abs=1e-6)
    assert all(len(t) <= rank for n, t in made.tensors.items() if n.endswith(A))


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "krum", "multi_krum"])
@given(seed=seeds, size=st.floats(10, 1e6))
@settings(max_examples=20)
def test_two_hostile_owners_of_nine_bend_no_robust_rule(name: str, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    honest = [
        OwnerUpdate(f"owner {i}", 1.0, {"w": (1 + 0.1 * rng.normal(size=20)).astype(np.float32)})
        for i in range(7)
    ]
    hostile = [
        OwnerUpdate(f"a hostile {i}", 1.0, {"w": np.full(20, -size, np.float32)}) for i in range(2)
    ]
    made = rules.create(name)([*honest, *hostile])
    assert np.abs(made.tensors["w"] - 1).max() < 0.5
    assert np.abs(rules.create("average")([*honest, *hostile]).tensors["w"] - 1).max() > 2


def test_distances_are_between_all_numbers_together() -> None:
    updates = updates_of([2] * 4, 5)
    found = squared_distances(updates)
    for i, j in itertools.product(range(4), range(4)):
        slow = distance_norm(updates[i].tensors, updates[j].tensors) ** 2
        assert found[i, j] == pytest.approx(slow, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(["average", "median", "norm_bounded"]),
    momentum=st.floats(0, 0.95),
    rate=st.floats(0.1, 2),
    rounds=st.integers(1, 5),
    seed=seeds,
)
def test_steps_from_two_rounds_adapters_are_those_with_a_velocity_kept(
    name: str, momentum: float, rate: float, rounds: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    step, rule = ServerStep(momentum, rate), rules.create(name)
    earlier, at = None, adapter(rng, 2)
    velocity = {n: np.zeros(t.shape) for n, t in at.items()}
    written_out = {n: t.astype(np.float64) for n, t in at.items()}
    for _ in range(rounds):
        made = rule([OwnerUpdate(f"owner {i}", 1.0, adapter(rng, 2)) for i in range(3)], at)
        for n, tensor in made.tensors.items():
            for place in np.ndindex(*tensor.shape):
                way = float(tensor[place]) - float(at[n][place])
                velocity[n][place] = momentum * velocity[n][place] + way
                written_out[n][place] += rate * velocity[n][place]
        stepped = step(made, at, earlier)
        assert (stepped.weights, stepped.error, stepped.adds) == (made.weights, made.error, False)
        earlier, at = at, dict(stepped.tensors)
        # The next round is one of the adapter as it is, in float32: so is the written-out version.
        for n, tensor in at.items():
            assert tensor.dtype == np.float32
            np.testing.assert_allclose(tensor, written_out[n], rtol=1e-5, atol=1e-4)


@given(seed=seeds)
def test_no_momentum_and_the_whole_way_change_no_bit(seed: int) -> None:
    made = rules.create("average")(updates_of([2, 2], seed))
    before = adapter(np.random.default_rng(seed), 2)
    assert ServerStep()(made, before, None) is made
    assert ServerStep()(made, before, before) is made


def test_there_is_no_step_to_what_is_added_to_weights_or_has_other_shapes() -> None:
    before = adapter(np.random.default_rng(0), 2)
    added = rules.create("flora")(updates_of([2, 2], 0))
    with pytest.raises(ValueError, match="added to weights"):
        ServerStep(0.5)(added, before, None)
    larger = rules.create("average")(updates_of([3, 3], 0))
    with pytest.raises(ValueError, match="other shapes"):
        ServerStep(0.5)(larger, before, None)
    with pytest.raises(ValueError, match="other shapes"):
        ServerStep(0.5)(rules.create("average")(updates_of([2, 2], 0)), before, larger.tensors)
