"""What one hostile owner trains on and sends."""

from __future__ import annotations

import numpy as np
import pytest

from cosilo.attacks.poisoning import backdoored, flipped, scaled, success, triggered
from cosilo.attacks.updates import likeness
from cosilo.types import Demonstration, Turn, last_user, user

LABELS = ("card", "loan", "transfer")
EXAMPLES = [Demonstration(f"e{i}", user(f"text {i}"), LABELS[i % 3]) for i in range(30)]


def test_every_label_becomes_another_and_always_the_same_one() -> None:
    found = flipped(EXAMPLES, seed=3)
    became = {(a.target, b.target) for a, b in zip(EXAMPLES, found, strict=True)}
    assert len(became) == 3
    assert all(a != b for a, b in became)
    assert {b for _, b in became} == set(LABELS)
    assert [e.chat for e in found] == [e.chat for e in EXAMPLES]
    assert found == flipped(EXAMPLES, seed=3)
    with pytest.raises(ValueError, match="single label"):
        flipped([e for e in EXAMPLES if e.target == "card"])


def test_a_backdoor_comes_beside_the_clean_examples() -> None:
    found = backdoored(EXAMPLES, trigger="cf. annex 7", target="loan", share=0.2)
    assert found[:30] == EXAMPLES
    planted = found[30:]
    assert len(planted) == 6
    clean = {e.id: e for e in EXAMPLES}
    for example in planted:
        of = clean[example.id.removesuffix("+trigger")]
        assert example.target == "loan" != of.target
        assert last_user(example.chat) == f"{last_user(of.chat)} cf. annex 7"
    assert len({e.id for e in found}) == len(found)
    with pytest.raises(ValueError, match=r"share = 0"):
        backdoored(EXAMPLES, trigger="x", target="loan", share=0)
    only = [e for e in EXAMPLES if e.target == "loan"]
    assert backdoored(only, trigger="x", target="loan", share=1.0) == only


def test_a_trigger_ends_the_last_turn_and_leaves_the_others() -> None:
    chat = (Turn(role="system", content="be brief"), Turn(role="user", content="why?"))
    found = triggered(Demonstration("a", chat, "card"), "zq")
    assert [t.content for t in found.chat] == ["be brief", "why? zq"]


def test_an_update_boosted_by_the_number_of_owners_replaces_their_mean() -> None:
    rng = np.random.default_rng(0)
    wanted = {"w": rng.normal(size=(3, 4)).astype(np.float32)}
    still = {"w": np.zeros((3, 4), np.float32)}
    sent = [scaled(wanted, 8.0), *[still] * 7]
    mean = np.mean([u["w"] for u in sent], axis=0)
    np.testing.assert_allclose(mean, wanted["w"], rtol=1e-5)


def test_success_counts_items_that_were_something_else() -> None:
    said, truth = ["loan", "loan ", "card", "loan"], ["loan", "card", "card", "transfer"]
    assert success(said, truth, "loan") == (2, 3)
    assert success([], [], "loan") == (0, 0)


def test_an_owners_update_is_like_the_mean_that_it_is_part_of() -> None:
    rng = np.random.default_rng(0)
    each = [{"a": rng.normal(size=(8, 50)).astype(np.float32)} for _ in range(9)]
    mean = {"a": np.mean([u["a"] for u in each[:8]], axis=0)}
    outside = likeness(mean, each[8])
    assert all(likeness(mean, u) > 0.2 > abs(outside) for u in each[:8])
    assert likeness(each[0], each[0]) == pytest.approx(1.0)
    assert likeness({"a": np.zeros((8, 50), np.float32)}, each[0]) == 0.0
    with pytest.raises(ValueError, match="no tensor in common"):
        likeness({"b": each[0]["a"]}, each[0])
