"""Membership is measured where preparing sent something, and on a model only where one is published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from a_writer import WordEmbedder
from bag import Bag
from cosilo.boundary.messages import Ask, Completion, encode
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.objectives import attacked, measure_all
from cosilo.objectives.base import Measurement, Run
from cosilo.objectives.reading import reading
from cosilo.objectives.scoring import (
    MOST_MEMBERS,
    learned_by,
    member_scores,
    member_targets,
    members_of,
)
from cosilo.types import Demonstration, Generation, user


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


async def test_records_that_were_not_sent_do_not_make_it_look_as_if_less_could_be_told(
    crossing: Callable, make_run: Callable
) -> None:
    """Of sixty training texts a sixth is sent: those are the members, and all are found."""
    items = [crossing(f"stranger {i} {i * 7}") for i in range(20)]
    background = [
        crossing(f"member {i} {i * 7}", sent=f"member {i} {i * 7}" if i % 6 == 0 else None)
        for i in range(60)
    ]
    run = make_run(items, background=background)
    run = replace(run, members=frozenset(e.id for e in run.background))
    m = measured(await attacked(run, embedder=WordEmbedder()))["membership"]
    assert m.value > 0.99
    assert m.n == 10 + 20


def prepared(run: Run, *crossed: tuple[str, str, str]) -> Run:
    """`run` with what crossed while preparing: (request, what went up, what came down)."""
    ledger = MemoryLedger()
    for request, up, down in crossed:
        ask, reply = Ask(chat=user(up)), Completion(generation=Generation(down))
        ledger.append(request, "up", ask, encode(ask))
        ledger.append(request, "down", reply, encode(reply))
    return replace(run, prepare=ledger.entries)


@pytest.mark.parametrize(
    ("crossed", "members"),
    [
        # Bound to the record, whatever a defence made of its text.
        ([("pool/b3", "PERSON_1 wrote", "yes")], {"b3"}),
        ([("tune/b4", "something", "no"), ("b5", "anything", "no")], {"b4", "b5"}),
        # Its text stands in a message that is bound to none: worked examples, texts to read.
        ([("pool", "member 1 7\nmember 2 14", "yes")], {"b1", "b2"}),
        (
            [("synthetic/x", "Write it in other words: member 6 42.", "member 6 42, said anew")],
            {"b6"},
        ),
        # The LM wrote a record's text itself, and a vote sent it back: nobody's text was sent.
        ([("evolve/0/0", "write", "member 8 56"), ("evolve/1/0", "vary: member 8 56", "x")], set()),
        # A part of a longer word or number is no find.
        ([("pool", "remember 1 79", "yes")], set()),
        ([("synthetic/x", "write about cats", "a cat")], set()),
    ],
)
def test_members_are_the_records_in_messages(
    learned: Run, crossed: list[tuple[str, str, str]], members: set[str]
) -> None:
    run = prepared(learned, *crossed)
    assert reading(run).records == members
    gold = replace(run, members=frozenset({"b0", "b19"}))
    assert members_of(gold) == (members or {"b0", "b19"})  # else those that may have chosen


def test_what_a_model_was_made_of_counts_where_it_was_given_no_record(learned: Run) -> None:
    """It was trained on texts of the LM's, which the records with gold targets chose."""
    run = replace(
        prepared(learned, ("evolve/0/0", "write", "a text")), members=frozenset({"b0", "b1"})
    )
    assert learned_by(run) == {"b0", "b1"}
    assert learned_by(replace(run, learned=frozenset({"b7"}))) == {"b7"}


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


async def test_the_base_rate_is_the_same_attack_on_the_model_before_training(learned: Run) -> None:
    """A division that can be guessed without any training makes no training look leaky."""
    taught = learned.background[:5]
    model = Bag([Demonstration(e.id, e.chat, f"label {i}") for i, e in enumerate(taught)])
    labelled = tuple(
        replace(e, targets=(f"label {i if i < 5 else 9}",))
        for i, e in enumerate(learned.background)
    )
    run = replace(learned, background=labelled, learned=frozenset(e.id for e in taught))
    run = await attacked(run, names=["loss"], published=model, untrained=model)
    m = measured(run)["model_membership"]
    assert m.value == 1
    assert m.baseline == 1


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
