"""An owner tunes its model for clients: once, within limits, for each client apart."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import lent
import taught
from cosilo.errors import ConfigError, ModelError, RejectedError, UnknownAdapterError
from cosilo.models.base import models
from cosilo.models.fit import tunable as tunables
from cosilo.models.fit.tunable import TunableLM, TuningTerms
from cosilo.models.tunable import Learned, LessonPlan, Lessons
from cosilo.models.white_box.adapters import upper_layers
from cosilo.types import Sampling, user

PLAN = LessonPlan(steps=30, batch=4, learning_rate=1e-2, rank=4)
TEXTS = tuple(f"about {i}" if i % 2 else f"hello world {i}" for i in range(8))
CHATS = tuple(map(user, TEXTS))
HARD = np.eye(3, dtype=np.float32)[[1 if i % 2 == 0 else 0 for i in range(8)]]
LESSONS = Lessons(CHATS, lent.LABELS, (), HARD)


def tuned(
    model: TunableLM, lessons: Lessons = LESSONS, client: str = "", **changes: Any
) -> Learned:
    return asyncio.run(model.tune(client, lessons, replace(PLAN, **changes)))


def said(model: TunableLM, name: str, text: str, client: str = "", **sampling: Any) -> str:
    async def one() -> str:
        plugged = await model.plugged(client, name)
        return (await plugged.generate(user(text), Sampling(**sampling))).text

    return asyncio.run(one())


def test_it_learns_the_labels_and_the_model_itself_stays_as_it_was() -> None:
    model = taught.tunable()
    before = {n: p.clone() for n, p in model.module.named_parameters()}
    found = tuned(model)
    assert found.last < 0.2 < found.first
    assert found.tokens > 30 * 4 * 10
    answers = [said(model, found.name, text, choices=lent.LABELS) for text in TEXTS]
    assert answers == [lent.LABELS[int(row.argmax())] for row in HARD]
    assert all(torch.equal(p, before[n]) for n, p in model.module.named_parameters())


def test_soft_labels_are_learned_as_such() -> None:
    soft = np.tile(np.array([[0.7, 0.3, 0.0]], np.float32), (8, 1))
    model = taught.tunable()
    found = tuned(model, Lessons(CHATS, lent.LABELS, (), soft), steps=60)

    async def shown() -> Any:
        plugged = await model.plugged("", found.name)
        return await plugged.generate(user("about 3"), Sampling(choices=lent.LABELS))

    token = asyncio.run(shown()).tokens[0]
    assert dict(token.top)["the refund"] == pytest.approx(np.log(0.7), abs=0.15)


def test_replies_are_learned_by_what_they_are_worth() -> None:
    replies = tuple("hello world" if i % 2 else "the refund" for i in range(8))
    worth = np.array([[0.0] if i % 2 else [2.0] for i in range(8)], np.float32)
    same = tuple(user("say it") for _ in range(8))
    model = taught.tunable()
    found = tuned(model, Lessons(same, (), replies, worth), steps=40)
    assert said(model, found.name, "say it", max_tokens=6).startswith("the refund")


def test_the_same_again_is_trained_once_and_a_client_knows_its_own_alone() -> None:
    model = taught.tunable()
    one, again = tuned(model, steps=3), tuned(model, steps=3)
    assert (again.name, again.last, again.tokens) == (one.name, one.last, 0)
    other = tuned(model, client="other", steps=3)
    assert other.name != one.name
    with pytest.raises(UnknownAdapterError):
        said(model, one.name, "about 1", client="other")
    names = {
        tuned(model, steps=3, **change).name
        for change in ({"seed": 1}, {"confidence": 0.5}, {"rank": 2})
    }
    names |= {tuned(model, Lessons(CHATS, lent.LABELS, (), 1 - HARD), steps=3).name, one.name}
    assert len(names) == 5


async def test_trainings_of_all_clients_go_one_after_another_in_a_thread_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, under_way, threads = taught.tunable(), [0], []
    real = tunables.tuned_on

    def noted(*given: Any, **named: Any) -> Any:
        under_way[0] += 1
        threads.append((threading.current_thread().name, under_way[0]))
        try:
            return real(*given, **named)
        finally:
            under_way[0] -= 1

    monkeypatch.setattr(tunables, "tuned_on", noted)
    plan = replace(PLAN, steps=2)
    await asyncio.gather(*(model.tune(name, LESSONS, plan) for name in ("a", "b", "a")))
    assert len(threads) == 2, "the third is the first one's"
    assert all(name.startswith("tuning") and count == 1 for name, count in threads)
    await model.close()


@pytest.mark.timeout(60)
async def test_closing_does_not_wait_for_all_that_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, begun = taught.tunable(most_steps=1 << 20), threading.Event()
    real = tunables.confidence_at

    def noted(*given: Any) -> float:
        begun.set()
        return real(*given)

    monkeypatch.setattr(tunables, "confidence_at", noted)
    asked = asyncio.create_task(model.tune("", LESSONS, replace(PLAN, steps=1 << 20)))
    await asyncio.to_thread(begun.wait)
    await model.close()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert (await model.tune("", LESSONS, replace(PLAN, steps=2))).tokens
    await model.close()


def test_the_confidence_loss_moves_what_is_learned() -> None:
    model = taught.tunable()
    wrong = HARD.copy()
    wrong[4] = [1, 0, 0]
    lessons = Lessons(CHATS, lent.LABELS, (), wrong)
    opinions = [
        said(model, tuned(model, lessons, confidence=share).name, TEXTS[4], choices=lent.LABELS)
        for share in (0.0, 0.9)
    ]
    assert opinions == ["the refund", "billing"], "the wrong label is learned, or is not"


def test_adapters_are_there_again_after_a_restart_and_too_many_are_forgotten(
    tmp_path: Path,
) -> None:
    first = taught.tunable(checkpoints=tmp_path, adapters=2)
    one = tuned(first, steps=3)
    second = taught.tunable(checkpoints=tmp_path, adapters=2)
    again = tuned(second, steps=3)
    assert (again.name, again.first, again.tokens) == (one.name, one.first, 0)
    assert not list((tmp_path / "training").iterdir()), "a training that ended leaves nothing"
    others = [tuned(second, steps=3, seed=seed).name for seed in (1, 2)]
    with pytest.raises(UnknownAdapterError):
        said(second, one.name, "about 1")
    assert said(second, others[1], "about 1", choices=lent.LABELS) in lent.LABELS


def test_a_training_that_is_stopped_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = taught.tunable(checkpoints=tmp_path / "whole")
    wanted = tuned(whole, steps=6, confidence=0.5)
    real = tunables.Schedule
    monkeypatch.setattr(tunables, "Schedule", lambda **given: real(**given, checkpoint_seconds=0.0))
    shares: list[float] = []

    def stops(step: int, steps: int, confidence: float, warmup: float) -> float:
        if step == 4 and not shares:
            shares.append(0.0)
            raise KeyboardInterrupt
        return real_confidence(step, steps, confidence, warmup)

    real_confidence = tunables.confidence_at
    monkeypatch.setattr(tunables, "confidence_at", stops)
    stopped = taught.tunable(checkpoints=tmp_path / "stopped")
    lessons = (stopped, LESSONS)
    with pytest.raises(KeyboardInterrupt):
        stopped._tune("", lessons[1], replace(PLAN, steps=6, confidence=0.5))
    seen: list[int] = []
    monkeypatch.setattr(
        tunables,
        "confidence_at",
        lambda step, *rest: seen.append(step) or real_confidence(step, *rest),
    )
    after = taught.tunable(checkpoints=tmp_path / "stopped")
    found = tuned(after, steps=6, confidence=0.5)
    assert seen == [4, 5], "only the steps that were missing"
    assert found.name == wanted.name
    one, _ = whole._adapters.find("", wanted.name)
    two, _ = after._adapters.find("", found.name)
    assert all(np.array_equal(one.tensors[n], two.tensors[n]) for n in one.tensors)


@pytest.mark.parametrize(
    ("limit", "change"),
    [
        ({"largest_rank": 3}, {}), ({"most_steps": 2}, {}), ({"most_batch": 3}, {}),
        ({"most_lessons": 7}, {}), ({"most_choices": 2}, {}), ({"most_tokens": 40}, {}),
    ],
)  # fmt: skip
def test_more_than_the_owner_tunes_is_refused(limit: dict[str, int], change: Any) -> None:
    (most,) = limit.values()
    with pytest.raises(RejectedError, match=f"may be {most} at most"):
        tuned(taught.tunable(**limit))


def test_a_lesson_longer_than_the_context_is_refused() -> None:
    chats = (user("about " * 600), *CHATS[1:])
    with pytest.raises(RejectedError, match="context 512"):
        tuned(taught.tunable(), Lessons(chats, lent.LABELS, (), HARD))


def test_choices_that_together_are_longer_than_the_context_are_refused() -> None:
    choices = tuple(f"about {i} " * 100 for i in range(3))
    with pytest.raises(RejectedError, match="all choices may be 512 at most"):
        tuned(taught.tunable(), Lessons(CHATS, choices, (), HARD))


def test_a_step_counts_its_longest_lesson_as_often_as_it_has_lessons() -> None:
    lessons = Lessons((user("about " * 100), *CHATS[1:]), lent.LABELS, (), HARD)
    longest = max(taught.tunable()._tokenised(lessons).lengths)
    tuned(taught.tunable(most_tokens=4 * longest), lessons, steps=1)
    with pytest.raises(RejectedError, match=f"and {4 * longest} were asked for"):
        tuned(taught.tunable(most_tokens=4 * longest - 1), lessons, steps=1)
    tuned(taught.tunable(most_tokens=8 * longest), lessons, steps=1, batch=64)


@pytest.mark.parametrize("kept", [False, True])
def test_a_loss_that_explodes_leaves_no_adapter(tmp_path: Path, kept: bool) -> None:
    model = taught.tunable(checkpoints=tmp_path if kept else None)
    with pytest.raises(ModelError, match="training stopped") as refused:
        tuned(model, learning_rate=1e30)
    assert str(tmp_path) not in str(refused.value), "the client need not know where"
    assert not model._adapters._own.get("")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_only_upper_layers_are_changed_where_the_owner_says_so() -> None:
    module, _ = lent.parts()
    assert {n.split(".")[2] for n in upper_layers(module, 2)} == {"2", "3"}
    assert {n.split(".")[2] for n in upper_layers(module, None)} == {"0", "1", "2", "3"}
    assert upper_layers(module, 9) == upper_layers(module, None)
    model = taught.tunable(layers=1)
    adapter, _ = model._adapters.find("", tuned(model, steps=2).name)
    assert {n.split(".")[2] for n in adapter.layers} == {"3"}


def test_terms_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="most_steps"):
        TuningTerms(most_steps=0)
    with pytest.raises(ConfigError, match="path"):
        models.create("tunable")
