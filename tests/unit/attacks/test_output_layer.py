"""What logits give away of the layer that made them, on a model whose layer is known."""

from __future__ import annotations

import numpy as np
import pytest

from cosilo.attacks.base import Target, View
from cosilo.attacks.output_layer import OutputLayerAttack, output_space, shown
from cosilo.boundary.messages import Score, Scored, Steps, encode
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.wire.logits import pack_few, top_k
from cosilo.models.base import Access
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import user
from toy_lm import ToyLM

TARGET = [Target("lm#hidden", "", "hidden size")]


async def record(model: ToyLM, top: int, *, ids: bool = True) -> View:
    """Forty replies of ten places each, scored."""
    ledger = MemoryLedger()
    owner = LMOwner(model, exposes=Access.LOGITS.shows)
    for i in range(40):
        score = Score(items=(Scored(user(f"question {i}"), f"answer {i:02}"),), top=top, ids=ids)
        ledger.append(str(i), "up", score, encode(score))
        scores = await owner.handle(score)
        ledger.append(str(i), "down", scores, encode(scores))
    return View(ledger.entries)


@pytest.mark.parametrize("hidden", [5, 12, 40])
async def test_whole_logits_show_how_wide_the_model_is(hidden: int) -> None:
    (guess,) = await OutputLayerAttack().guess(await record(ToyLM(hidden), 300), TARGET)
    assert guess.value == str(hidden)
    assert guess.score > 0.5


async def test_logits_that_came_on_threads_show_it_too() -> None:
    model, ledger = ToyLM(12), MemoryLedger()
    for i in range(40):
        tokens = model.tokenize(user(f"question {i}"), f"answer {i:02}")
        found = await model.logits([tokens])
        for row in np.concatenate(found):
            steps = Steps(packed=pack_few(top_k(row[None], 300)))
            assert steps.places() == 1
            ledger.append(str(i), "down", steps, encode(steps))
    (guess,) = await OutputLayerAttack().guess(View(ledger.entries), TARGET)
    assert guess.value == "12"


async def test_they_show_the_output_layer_up_to_a_rotation() -> None:
    model = ToyLM(12)
    space = output_space(list(shown(await record(model, 300))))
    assert space is not None
    true = model.output[space.tokens]
    true, _ = np.linalg.qr(true - true.mean(axis=0))
    cosines = np.linalg.svd(space.basis @ true, compute_uv=False)  # of the principal angles
    assert cosines.min() > 0.999


@pytest.mark.parametrize(("top", "ids"), [(8, True), (40, True), (300, False)])
async def test_few_tokens_or_none_by_name_do_not(top: int, ids: bool) -> None:
    (guess,) = await OutputLayerAttack().guess(await record(ToyLM(12), top, ids=ids), TARGET)
    assert guess.value == ""
    assert guess.score == 0


async def test_an_empty_record_shows_nothing() -> None:
    (guess,) = await OutputLayerAttack().guess(View(lambda: iter(())), TARGET)
    assert (guess.value, guess.score) == ("", 0)
