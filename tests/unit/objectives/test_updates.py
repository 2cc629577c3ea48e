"""How many of an owner's words its updates told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cosilo.objectives import attacked, measure_all
from cosilo.objectives.base import Measurement, Run
from cosilo.objectives.scoring import trained_words

pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("peft", reason="the torch extra is not installed")

TEXTS = ("the refund is about delivery", "the billing is about refund")


def measured(run: Run) -> dict[str, Measurement]:
    return {m.objective.name: m for m in measure_all(run)}


async def test_words_told_by_updates_are_counted_beside_those_that_are_common(
    crossing: Callable, make_run: Callable
) -> None:
    from updates_record import ledger_of
    from white_box import tiny

    model = tiny(3, scale=2.0)
    items = [crossing(text) for text in ("hello world the end", "is this the end")]
    run = make_run(items, background=[crossing(text) for text in TEXTS])
    run = replace(run, members=frozenset(e.id for e in run.background))
    assert trained_words(run) == {"the", "refund", "is", "about", "delivery", "billing"}
    record = ledger_of(model, TEXTS, later=True)
    run = replace(run, prepare=record.entries)
    m = measured(await attacked(run, names=["update_words"], model=lambda: model))["update_words"]
    assert m.value == 1.0
    assert m.n == 6
    assert m.baseline == pytest.approx(2 / 6)  # "the" and "is"
    assert m.low < 1
    silent = replace(run, prepare=lambda: iter(()))
    assert "update_words" not in measured(await attacked(silent, names=["update_words"]))
    untold = await attacked(run, names=["update_words"])  # nobody has the model
    assert "update_words" not in measured(untold)
