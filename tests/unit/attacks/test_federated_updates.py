"""Words are read out of the updates that stand on a federation's record."""

from __future__ import annotations

import pytest

from cosilo.attacks.base import Target, View
from cosilo.attacks.federated_updates import UpdateWords, changes_on
from cosilo.attacks.updates import first_rows

pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("peft", reason="the torch extra is not installed")

TEXTS = ("the refund is about delivery", "the billing is about refund")
OTHERS = ("world", "hello", "xyz")


@pytest.mark.parametrize("later", [False, True])
async def test_what_owners_send_is_held_against_what_they_began_with(later: bool) -> None:
    """In a first round A stays as it is for a step, since B is nothing, and moves with the second."""
    from updates_record import ledger_of
    from white_box import tiny

    model = tiny(3, scale=2.0)
    (change,) = changes_on(View(ledger_of(model, TEXTS[:1], later=later).entries))
    rows = first_rows(change)
    assert rows is not None
    assert rows.any() == later
    (change,) = changes_on(View(ledger_of(model, TEXTS, later=later).entries))
    rows = first_rows(change)
    assert rows is not None
    assert rows.any()


async def test_words_of_the_owners_texts_are_named_before_common_ones() -> None:
    from updates_record import ledger_of
    from white_box import tiny

    model = tiny(3, scale=2.0)
    view = View(ledger_of(model, TEXTS, later=True).entries, model=lambda: model)
    target = Target("updates#words", "", "word", candidates=OTHERS)
    (guess,) = await UpdateWords().guess(view, [target])
    named = guess.value.split("\n")
    assert guess.score == 1.0
    assert {"refund", "billing", "delivery", "about", "is", "the"} <= set(named[:12])
    (blind,) = await UpdateWords().guess(View(lambda: iter(())), [target])
    assert blind.value.split("\n") == list(OTHERS)
    assert blind.score == 0.0


async def test_a_model_that_shows_no_weights_is_no_help() -> None:
    from cosilo.models.kept.scripted import ScriptedModel
    from updates_record import ledger_of
    from white_box import tiny

    view = View(ledger_of(tiny(3), TEXTS[:1], later=True).entries, model=ScriptedModel)
    (guess,) = await UpdateWords().guess(view, [Target("t", "", "word", candidates=OTHERS)])
    assert guess.value.split("\n") == list(OTHERS)
