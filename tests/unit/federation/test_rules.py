"""What rules refuse, and what is wrong with an update."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from cosilo.errors import ConfigError
from cosilo.federation import OwnerUpdate, require_securable, rules, vetted
from cosilo.federation.low_rank import reduced, truncated
from cosilo.federation.updates import A, B, pairs_of

Floats = NDArray[np.float32]


def adapter(rank: int = 2, value: float = 1.0, layer: str = "q") -> dict[str, Floats]:
    return {
        layer + A: np.full((rank, 3), value, np.float32),
        layer + B: np.full((4, rank), value, np.float32),
    }


def update(owner: str, rank: int = 2, value: float = 1.0, layer: str = "q") -> OwnerUpdate:
    return OwnerUpdate(owner, 1.0, adapter(rank, value, layer))


@pytest.mark.parametrize("name", rules.names())
def test_every_rule_refuses_none_and_one_owner_twice(name: str) -> None:
    rule = rules.create(name)
    with pytest.raises(ValueError, match="no updates"):
        rule([])
    with pytest.raises(ValueError, match="an owner has two"):
        rule([update("a"), update("a"), update("b")], adapter())


@pytest.mark.parametrize("name", sorted(set(rules.names()) - {"flora", "hetlora"}))
def test_unequal_ranks_need_a_rule_for_them(name: str) -> None:
    given = [update(n, rank) for n, rank in (("a", 2), ("b", 3), ("c", 2))]
    with pytest.raises(ValueError, match=r"'a' and 'b' have other shapes.*flora or hetlora"):
        rules.create(name)(given, adapter())


@pytest.mark.parametrize("name", ["flora", "hetlora"])
def test_adapters_of_other_layers_are_not_put_together(name: str) -> None:
    with pytest.raises(ValueError, match="other layers"):
        rules.create(name)([update("a"), update("b", layer="k")])
    with pytest.raises(ValueError, match="no pair"):
        rules.create(name)([OwnerUpdate("a", 1.0, {"head": np.ones((2, 2), np.float32)})])


def test_any_named_arrays_are_averaged_and_only_adapters_have_an_error() -> None:
    given = [
        OwnerUpdate(n, w, {"head": np.full(2, w, np.float32)}) for n, w in (("a", 1), ("b", 3))
    ]
    made = rules.create("average")(given)
    np.testing.assert_allclose(made.tensors["head"], 2.5)
    assert made.error is None
    assert made.weights == {"a": 0.25, "b": 0.75}


def test_products_that_cancel_out_have_no_relative_error() -> None:
    negative = adapter() | {"q" + B: -np.ones((4, 2), np.float32)}
    assert rules.create("average")([update("a"), OwnerUpdate("b", 1.0, negative)]).error is None
    zero = [update("a", value=0.0), update("b", value=0.0)]
    assert rules.create("average")(zero).error is None
    assert rules.create("hetlora")(zero).weights == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_is_positive(weight: float) -> None:
    with pytest.raises(ValueError, match="of 'a' is not positive"):
        OwnerUpdate("a", weight, adapter())


def test_krum_needs_enough_owners() -> None:
    few = [update("a"), update("b")]
    with pytest.raises(ValueError, match="needs 3 updates, and there are 2"):
        rules.create("krum")(few)
    with pytest.raises(
        ValueError, match="against 2 hostile owners needs 7 updates, and there are 6"
    ):
        rules.create("krum", hostile=2)([update(str(i)) for i in range(6)])
    with pytest.raises(ValueError, match="keeps 5 of 5 updates, and only 4"):
        rules.create("multi_krum", hostile=1, kept=5)([update(str(i)) for i in range(5)])
    with pytest.raises(ValueError, match="none is left"):
        rules.create("trimmed_mean", hostile=1)(few)


def test_a_bound_on_norms_needs_a_beginning() -> None:
    with pytest.raises(ValueError, match="that the round began with"):
        rules.create("norm_bounded")([update("a")])


def test_without_a_number_the_bound_is_the_median_of_norms() -> None:
    zero = {"w": np.zeros(4, np.float32)}
    given = [
        OwnerUpdate(str(size), 1.0, {"w": np.full(4, size, np.float32)}) for size in (1, 2, 1000)
    ]
    made = rules.create("norm_bounded")(given, zero)
    np.testing.assert_allclose(made.tensors["w"], (1 + 2 + 2) / 3, rtol=1e-6)
    assert made.weights["1000"] == pytest.approx(2 / 1000 / 3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("flora", {"rank": 0}),
        ("krum", {"hostile": -1}),
        ("multi_krum", {"kept": 0}),
        ("trimmed_mean", {"hostile": -1}),
        ("norm_bounded", {"largest": 0.0}),
        ("average", {"kept": 1}),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: Mapping[str, object]) -> None:
    with pytest.raises(ConfigError):
        rules.create(name, **options)


def test_secure_aggregation_stands_only_before_a_sum() -> None:
    require_securable("average")
    for name in set(rules.names()) - {"average"}:
        with pytest.raises(ConfigError, match=f"'{name}' reads each owner's update.*use 'average'"):
            require_securable(name)
    with pytest.raises(ConfigError, match="did you mean 'median'"):
        require_securable("medan")


SHAPES = {"q" + A: (2, 3), "q" + B: (4, 2)}


def changed(name: str, value: Floats | None) -> dict[str, Floats]:
    found = {key: tensor for key, tensor in adapter().items() if key != name}
    return found if value is None else found | {name: value}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (changed("q" + A, None), "has no tensor 'q.lora_A'"),
        (changed("k", np.ones(1, np.float32)), "a tensor 'k' that there is not"),
        (changed("q" + A, np.ones((3, 2), np.float32)), "has the shape .3, 2., not .2, 3."),
        (changed("q" + A, np.ones(6, np.float32)), "has the shape"),
        (changed("q" + A, np.array([[1, 2, np.nan]] * 2, np.float32)), "'q.lora_A' holds what is no"),
        (changed("q" + B, np.full((4, 2), -np.inf, np.float32)), "'q.lora_B' holds what is no"),
        (changed("q" + B, np.full((4, 2), 1e38, np.float32)), "its norm, 6.928e.38, is above 10"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_update_is_named(tensors: dict[str, Floats], said: str) -> None:
    assert vetted(adapter(), SHAPES, largest_norm=10) == ""
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(vetted(tensors, SHAPES, largest_norm=10))


def test_a_norm_is_of_the_scaled_product() -> None:
    assert vetted(adapter(), SHAPES, largest_norm=6.93) == ""
    assert "its norm, 6.928, is above 6.92" in vetted(adapter(), SHAPES, largest_norm=6.92)
    assert "its norm, 13.86, is above 10" in vetted(adapter(), SHAPES, largest_norm=10, scale=2)
    assert vetted(adapter(value=1e9), SHAPES) == ""


def test_matrices_of_several_ranks_are_no_pair() -> None:
    torn = adapter(1) | {"q" + B: np.ones((4, 2), np.float32)} | adapter(1, layer="v")
    with pytest.raises(ValueError, match="'q' are no pair of one rank"):
        pairs_of(torn)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: pairs_of({"q" + A: np.ones((2, 3), np.float32)}),
        lambda: pairs_of(adapter() | {"k": np.ones(1, np.float32)}),
        lambda: truncated(adapter(), 0),
        lambda: reduced(adapter(), 0),
    ],
)
def test_what_is_no_adapter_or_no_rank_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"pair|rank"):
        wrong()
