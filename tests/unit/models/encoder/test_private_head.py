"""A head that its owner keeps, and the count of its answers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from cosilo.errors import BudgetExceededError, ConfigError, StoreError
from cosilo.models.encoder.allowance import Allowance
from cosilo.models.encoder.head import TrainedHead
from cosilo.models.encoder.ngrams import learn_terms
from cosilo.models.encoder.private_head import PrivateHead
from cosilo.testing import LABELS
from cosilo.types import Sampling, user
from private_heads import WordEncoder, private_head, trained_head


async def test_a_text_in_clear_is_answered_with_the_label_alone(tmp_path: Path) -> None:
    head = private_head(tmp_path)
    reply = await head.generate(user("about a card"), Sampling(top_logprobs=3))
    assert reply.text in LABELS
    assert reply.tokens == ()
    assert reply.logprob is None
    await head.close()


async def test_its_logits_are_calibrated(tmp_path: Path) -> None:
    head, trained = private_head(tmp_path), trained_head()
    vector = WordEncoder().embed(["about a card"]).vectors
    logits = vector @ head.weights.T + head.bias
    assert logits == pytest.approx((vector @ trained.weights.T + trained.bias) / 2)
    await head.close()


def test_a_head_that_looks_at_words_is_refused() -> None:
    plain, encoder = trained_head(), WordEncoder()
    terms = learn_terms(["a card", "a loan", "a card again"])
    wordy = TrainedHead(plain.labels, plain.weights, plain.bias, 1.0, terms)
    with pytest.raises(ConfigError, match="features = 'embedding'"):
        PrivateHead(encoder, wordy, None)  # type: ignore[arg-type]


@pytest.mark.models("minilm-int8")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"allowance": 5}, "answers = FILE"),
        ({"allowance": -1}, "0 or more"),
        ({"clients": 0}, "1 or more"),
        ({"head": Path("nowhere")}, "no trained head"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    from cosilo.models.base import models

    trained_head().save(tmp_path / "head")
    with pytest.raises(ConfigError, match=words):
        models.create("private_head", **{"head": tmp_path / "head", **options})


def test_answers_are_counted_for_each_client_and_over_restarts(tmp_path: Path) -> None:
    file = tmp_path / "there" / "answers.sqlite"
    for _ in range(2):
        Allowance(file, "head", 3).take("bank")
    again = Allowance(file, "head", 3)
    assert (again.left("bank"), again.left("clinic")) == (1, 3)
    again.take("bank")
    for _ in range(2):
        with pytest.raises(BudgetExceededError, match="'bank' may have 3"):
            again.take("bank")
    assert again.left("bank") == 0
    again.take("clinic")
    Allowance(file, "another head", 3).take("bank")
    assert Allowance(file, "head", 4).left("bank") == 1, "its owner may allow more"
    assert Allowance(file, "head", 2).left("bank") == 0


def test_no_more_are_given_to_several_who_ask_at_once(tmp_path: Path) -> None:
    given: list[bool] = []

    def ask() -> None:
        mine = Allowance(tmp_path / "answers.sqlite", "head", 10)
        for _ in range(4):
            try:
                mine.take("bank")
            except BudgetExceededError:
                given.append(False)
            else:
                given.append(True)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == 24
    assert sum(given) == 10


def test_what_cannot_be_counted_is_not_answered(tmp_path: Path) -> None:
    (tmp_path / "answers.sqlite").write_bytes(b"no database, but long enough to be looked at" * 40)
    with pytest.raises(StoreError, match="cannot count"):
        Allowance(tmp_path / "answers.sqlite", "head", 3).take("bank")
