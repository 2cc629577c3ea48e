"""Membership is measured where preparing sent something, and on a model only where one is published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from a_writer import WordEmbedder
from bag import Bag
from cosilo.objectives import attacked, measure_all
from cosilo.objectives.base import Measurement, Run
from cosilo.objectives.scoring import MOST_MEMBERS, member_scores, member_targets
from cosilo.types import Demonstration


def measured(run: Run) -> dict[str, Measurement]:
    return {m.objective.name: m for m in measure_all(run)}


@pytest.fixture
def learned(crossing: Callable, make_run: Callable) -> Run:
    """Twenty items, and twenty background texts of other words that were sent while preparing."""
    items = [crossing(f"stranger {i} {i * 7}") for i in range(20)]
    sent = [crossing(f"member {i} {i * 7}", sent=f"member {i} {i * 7}") for i in range(20)]
    run = make_run(items, background=sent)
    return replace(run, members=frozenset(e.id for e in run.background))


async def test_what_preparing_sent_itself_is_known_to_be_a_member(learned: Run) -> None:
    run = await attacked(learned, embedder=WordEmbedder())
    m = measured(run)["membership"]
    assert m.value > 0.9
    assert m.low <= m.value <= m.high
    assert m.baseline == 0.5
    assert m.n == 40
    assert "nearest_text" in m.note
    assert "1 % false" in m.note
    assert "model_membership" not in measured(run)


async def test_where_preparing_sent_nothing_there_is_nothing_to_measure(learned: Run) -> None:
    silent = replace(learned, prepare=lambda: iter(()))
    assert "membership" not in measured(await attacked(silent, embedder=WordEmbedder()))
    nobody = replace(learned, members=frozenset())
    assert "membership" not in measured(await attacked(nobody, embedder=WordEmbedder()))


async def test_a_published_model_is_attacked_only_when_it_is_published(learned: Run) -> None:
    model = Bag(
        [Demonstration(e.id, e.chat, "yes" if i % 2 else "no")
         for i, e in enumerate(learned.background)]
    )  # fmt: skip
    run = await attacked(
        learned,
        names=["loss", "confidence"],
        embedder=WordEmbedder(),
        published=model,
    )
    m = measured(run)["model_membership"]
    assert m.n == 40
    assert m.baseline == 0.5
    assert "confidence" in m.note or "loss" in m.note
    assert "membership" not in measured(run)


async def test_members_of_a_model_are_what_it_was_trained_on_where_that_is_known(
    learned: Run,
) -> None:
    """The others of the pool would make it look as if the model remembered less."""
    taught = learned.background[:5]
    model = Bag([Demonstration(e.id, e.chat, f"label {i}") for i, e in enumerate(taught)])
    labelled = tuple(
        replace(e, targets=(f"label {i if i < 5 else 9}",))
        for i, e in enumerate(learned.background)
    )
    run = replace(learned, background=labelled, learned=frozenset(e.id for e in taught))
    m = measured(await attacked(run, names=["loss"], published=model))["model_membership"]
    assert m.n == 5 + 20
    assert m.value == 1


def test_targets_hold_texts_and_labels_and_do_not_say_which_is_which(learned: Run) -> None:
    targets = member_targets(learned)
    assert len(targets) == 40
    assert {t.request for t in targets} == {""}
    assert all(t.chat and t.kind == "member" for t in targets)
    assert MOST_MEMBERS >= 100
    assert member_scores(learned, ()) is None
