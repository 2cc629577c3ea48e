"""Unlearning on a tiny model that learned who is where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosilo.errors import ConfigError, DataError, StoreError
from cosilo.models.base import WeightModel
from cosilo.types import Demonstration, user

pytest.importorskip("torch")

import torch

import tiny_lm
from cosilo.models.white_box.adapters import (
    Adapter,
    adapter_of,
    first_adapter,
    layers_to_adapt,
    merged_with,
    trained_adapter,
    upper_layers,
    usual_loss,
    with_adapter,
)
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.layers import states
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.models.white_box.training import Schedule, train
from cosilo.models.white_box.unlearning import losses
from cosilo.models.white_box.unlearning.forgetting import (
    Distance,
    Forgetting,
    Unlearned,
    adapter_digest,
    mean_nats,
    others,
    require_same_tokens,
    taken_away,
    unlearn,
)
from cosilo.models.white_box.unlearning.methods import methods
from cosilo.models.white_box.unlearning.reading import Exercise, Former, ModuleReader, by_prompt
from white_box import tiny

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

WORDS = ("refund", "billing", "delivery", "hello", "the world", "is about", "the the", "world")
ALL = [Demonstration(f"r{i}", user("abcdefgh"[i] * 12), f"{WORDS[i]} {9 - i}") for i in range(8)]
FORGET, RETAIN = ALL[:2], ALL[2:]
QUICK = Forgetting(epochs=20, batch=2, learning_rate=8e-3, validate_every=2, patience=5)
HOLDING = sorted(set(methods.names()) - {"ga"})


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These models are too small for two, which would wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@lru_cache
def untaught() -> TorchModel:
    """Has learned to tell such questions apart, by others."""
    tokens = tiny_lm.tokenizer()
    module = tiny_lm.module(len(tokens), seed=1, scale=3.0)
    model = TorchModel.holding(module, ChatTokens(tokens), name="tiny")
    others_ = [(user("ijklmnop"[i] * 12), f"{WORDS[7 - i]} {i}") for i in range(8)]
    sequences = [model.tokenize(*each) for each in others_]
    schedule = Schedule(steps=80, batch=8, learning_rate=1e-2, patience=0)
    train(module.requires_grad_(True), sequences, reply_loss, schedule)
    module.requires_grad_(False)
    return model


@lru_cache
def learned(upper: bool = True) -> TorchModel:
    """Knows all replies by heart."""
    model = untaught()
    layers = upper_layers(model.module, 1) if upper else layers_to_adapt(model.module)
    start = first_adapter(layers, 8, seed=0)
    sequences = [model.tokenize(e.chat, e.target) for e in ALL]
    found, _ = trained_adapter(
        model.module, start, sequences, steps=60, batch=8, learning_rate=2e-2
    )
    return model.with_module(with_adapter(model.module, found))


def nats(model: TorchModel, records: list[Demonstration]) -> float:
    sequences = [model.tokenize(e.chat, e.target) for e in records]
    return mean_nats(ModuleReader(reply_loss), model.module, sequences)


@lru_cache
def done(method: str) -> Unlearned:
    return unlearn(learned(), FORGET, RETAIN, method, how=QUICK)


def test_all_methods_are_there() -> None:
    assert set(methods.names()) == {
        "ga", "graddiff", "kl", "npo", "simnpo", "dpo", "rmu", "undial", "bad_teacher",
        "task_vector",
    }  # fmt: skip


@pytest.mark.parametrize("method", methods.names())
def test_what_is_forgotten_becomes_unlikely_and_the_owner_measures_it(method: str) -> None:
    assert nats(learned(), ALL) < 0.3
    found = done(method)
    assert found.improved
    assert 0 < found.best_step <= found.steps
    assert found.after.forget > 2 * found.before.forget  # dpo: 2.99 on a CPU without AVX-512
    assert abs(found.after.margin) < abs(found.before.margin)
    assert found.after.forget == pytest.approx(nats(found.model, FORGET), rel=0.02, abs=0.02)
    assert found.after.retain == pytest.approx(nats(found.model, RETAIN), rel=0.02, abs=0.02)
    assert found.digest != found.digest_before
    assert (found.method, found.records, found.kept) == (method, 2, 6)


@pytest.mark.parametrize("method", HOLDING)
def test_what_is_kept_stays_likelier_than_what_is_forgotten(method: str) -> None:
    found = done(method)
    assert found.after.retain < found.after.forget / 1.5


def test_a_bad_teacher_is_followed_where_something_is_forgotten() -> None:
    """`npo` makes replies as unlikely and says anything instead of them."""

    def apart(model: WeightModel) -> float:
        every = [model.tokenize(e.chat, e.target) for e in FORGET]
        reader = ModuleReader(reply_loss)
        with torch.no_grad():
            now, never = (reader.said(m.module, every).logits for m in (model, untaught()))
        return float(losses.divergence(now, never))

    assert apart(done("bad_teacher").model) < apart(learned()) / 4
    assert apart(done("bad_teacher").model) < apart(done("npo").model) / 2


def test_the_model_that_was_given_stays() -> None:
    before = adapter_digest(adapter_of(learned().module))
    assert done("npo").digest_before == before
    assert nats(learned(), ALL) < 0.3


def test_without_its_adapter_it_is_what_it_was_before_it_was_tuned() -> None:
    from cosilo.models.white_box.tuning import without_adapter

    model = done("npo").model
    plain = model.with_module(without_adapter(model.module))
    assert nats(plain, ALL) == pytest.approx(nats(untaught(), ALL), abs=1e-5)


@pytest.mark.parametrize("method", ["npo", "rmu", "task_vector"])
def test_the_same_arguments_give_the_same_weights_to_the_bit(method: str) -> None:
    again = unlearn(learned(), FORGET, RETAIN, method, how=QUICK)
    assert again.digest == done(method).digest
    assert again.after == done(method).after
    other = unlearn(learned(), FORGET, RETAIN, method, how=QUICK, seed=1)
    assert other.digest != again.digest


def test_one_that_was_killed_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(progress: Any) -> None:
        if progress.step == 7:
            raise KilledError

    how = replace(QUICK, epochs=12, patience=0)
    whole = unlearn(learned(), FORGET, RETAIN, "npo", how=how)
    eager = replace(how)
    with pytest.raises(KilledError):
        unlearn(learned(), FORGET, RETAIN, "npo", how=eager, folder=tmp_path, report=kill)
    again = unlearn(learned(), FORGET, RETAIN, "npo", how=eager, folder=tmp_path)
    assert again.digest == whole.digest
    with pytest.raises(StoreError, match="another training"):
        unlearn(learned(), FORGET, RETAIN[:3], "npo", how=eager, folder=tmp_path)


def test_a_model_whose_adapter_reaches_all_layers_forgets_too() -> None:
    found = unlearn(learned(upper=False), FORGET, RETAIN, "npo", how=QUICK)
    assert found.improved
    assert found.after.forget > 4 * found.before.forget


def test_a_model_without_an_adapter_needs_the_one_it_was_tuned_from() -> None:
    tuned = learned()
    whole = tuned.with_module(merged_with(tuned.module, adapter_of(tuned.module)))
    with pytest.raises(DataError, match="tuned from"):
        unlearn(whole, FORGET, RETAIN, how=QUICK)
    how = replace(QUICK, layers=1, rank=8)
    found = unlearn(whole, FORGET, RETAIN, "npo", how=how, untuned=untaught())
    assert found.improved
    assert not hasattr(found.model.module, "peft_config")  # nothing that could be taken off again
    assert found.after.forget == pytest.approx(nats(found.model, FORGET), rel=0.02)
    assert nats(whole, ALL) < 0.3


def test_too_much_is_measured_as_too_little_is() -> None:
    """Of weights that make true replies ever less likely, neither the first nor the last are near."""
    seen: list[float] = []

    def note(progress: Any) -> None:
        if progress.validation is not None:
            seen.append(progress.validation)

    how = replace(QUICK, learning_rate=1.2e-2, patience=0)
    found = unlearn(learned(), FORGET, RETAIN, "npo", how=how, report=note)
    assert found.after.whole == pytest.approx(min(seen))
    assert found.before.whole > 1.5 * min(seen)
    assert seen[-1] > 1.5 * min(seen)
    assert found.best_step < found.steps


def test_too_much_is_said_only_where_it_is_no_chance() -> None:
    less = Distance(margins=1.0, margin=-1.0, lost=0.0, forget=9.0, retain=1.0, error=0.6)
    assert less.too_much
    assert not replace(less, error=0.61).too_much
    assert not replace(less, margin=0.1, error=0.0).too_much
    two = done("npo").after
    assert 0 < two.error < 100
    one = unlearn(learned(), FORGET[:1], RETAIN, "npo", how=replace(QUICK, epochs=4)).after
    assert not one.too_much  # of one record nobody can say


def test_one_record_can_be_forgotten() -> None:
    found = unlearn(learned(), ALL[:1], ALL[1:], "npo", how=replace(QUICK, epochs=30))
    assert found.improved
    assert found.after.forget > 4 * found.before.forget


def test_wrong_replies_can_be_given() -> None:
    wrong = [("billing 1", "hello 2"), ("refund 4",)]
    found = unlearn(learned(), FORGET, RETAIN, "npo", how=QUICK, wrong=wrong)
    assert found.improved
    assert found.before.margins != done("npo").before.margins
    with pytest.raises(DataError, match="wrong replies"):
        unlearn(learned(), FORGET, RETAIN, "npo", how=QUICK, wrong=wrong[:1])


def test_wrong_replies_are_never_the_true_one() -> None:
    found = others(FORGET, RETAIN, np.random.default_rng(0))
    assert [len(w) for w in found] == [2, 2]
    assert all(e.target not in w for e, w in zip(FORGET, found, strict=True))
    same = [Demonstration(f"{i}", user(f"about {i}"), "the same") for i in range(3)]
    with pytest.raises(DataError, match="the same reply"):
        others(same[:1], same[1:], np.random.default_rng(0))


@pytest.mark.parametrize("share", [0.25, 1.0, 3.0])
def test_what_is_taken_away_is_that_product_of_matrices(share: float) -> None:
    layers = {"one": (6, 4), "two": (3, 5)}
    rng = np.random.default_rng(0)

    def drawn(rank: int, alpha: float) -> Adapter:
        blank = first_adapter(layers, rank, alpha=alpha, seed=0)
        tensors = {n: rng.normal(size=t.shape).astype(np.float32) for n, t in blank.tensors.items()}
        return Adapter(rank, alpha, tensors)

    one, other = drawn(2, 4.0), drawn(2, 3.0)
    found = taken_away(one, other, share)
    for layer in layers:
        before, further = one.product(layer), other.product(layer)
        wanted = before - share * (further - before)
        assert np.allclose(found.product(layer), wanted, rtol=1e-4, atol=1e-4)


def test_states_are_the_same_whether_lower_layers_are_kept_or_not() -> None:
    model = tiny(3, layers=4)
    adapter = first_adapter(upper_layers(model.module, 3), 2, seed=0)
    module = with_adapter(model.module, adapter)
    given = [model.tokenize(user(f"about {i}"), "the refund" * (1 + i)) for i in range(3)]
    with torch.no_grad():
        above = ModuleReader(usual_loss(model.module, adapter))
        assert above.first == 1
        kept = above.states(module, given, 3)
        whole = ModuleReader(reply_loss).states(module, given, 3)
    with torch.no_grad():
        below = states(module, given, 3)
    slow = [rows[s.start - 1 : -1] for rows, s in zip(below, given, strict=True)]
    assert np.allclose(kept.detach().numpy(), np.concatenate(slow), atol=1e-4)
    assert np.allclose(whole.detach().numpy(), np.concatenate(slow), atol=1e-4)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("npo", {"beta": 0.0}), ("simnpo", {"delta": -1.0}), ("graddiff", {"retain": 0.0}),
        ("dpo", {"beta": float("nan")}), ("rmu", {"scale": -1.0}), ("undial", {"less": 0.0}),
        ("kl", {"forget": float("inf")}), ("task_vector", {"shares": ()}), ("npo", {"gamma": 1.0}),
        ("task_vector", {"shares": 0.5}), ("bad_teacher", {"forget": 0.0}),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(method: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        methods.create(method, **options)


def test_what_cannot_be_done_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'npo'"):
        unlearn(learned(), FORGET, RETAIN, "npp")
    for forget, retain in (
        ([], RETAIN),
        (FORGET, []),
        ([Demonstration("x", FORGET[0].chat, "")], RETAIN),
    ):
        with pytest.raises(DataError, match="records to forget"):
            unlearn(learned(), forget, retain)
    with pytest.raises(ConfigError, match="probe"):
        Forgetting(probe=0)
    with pytest.raises(ConfigError, match="epochs = inf"):
        Forgetting(epochs=float("inf"))


def test_a_model_that_reads_tokens_as_other_text_is_none_to_compare_with() -> None:
    """Its ids are numbers as well, and what it says of them would be, too."""
    more = tiny_lm.tokenizer(words=[*tiny_lm.WORDS, "zebra"])  # knows a token besides
    longer = TorchModel.holding(tiny_lm.module(len(more)), ChatTokens(more), name="more")
    require_same_tokens(learned(), longer, ALL)
    tokens = tiny_lm.tokenizer(words=["zebra", *tiny_lm.WORDS])
    other = TorchModel.holding(tiny_lm.module(len(tokens)), ChatTokens(tokens), name="other")
    with pytest.raises(ConfigError, match="'other' has another vocabulary than 'tiny'"):
        unlearn(learned(), FORGET, RETAIN, untuned=other)


def test_the_model_as_it_came_is_asked_about_each_reply_once() -> None:
    model = tiny(3)
    every = [model.tokenize(e.chat, e.target) for e in ALL]
    exercises = [Exercise(every[i % 3], every[7], every[i % 2 + 3]) for i in range(12)]
    asked: list[int] = []

    class Counting(ModuleReader):
        def said(self, module: Any, sequences: Any) -> Any:
            asked.append(len(sequences))
            return super().said(module, sequences)

    former = Former(Counting(reply_loss), model.module, exercises)
    assert not asked
    reader = ModuleReader(reply_loss)
    with torch.no_grad():
        for _ in range(3):
            for some, found in (
                ([every[2], every[0]], former.forget_nll),
                ([every[4]], former.instead_nll),
            ):
                torch.testing.assert_close(found(some), reader.said(model.module, some).nll)
    assert sum(asked) == 3 + 2


def test_replies_to_one_question_stand_side_by_side() -> None:
    model = tiny(3)
    asked = [(user(q), r) for r in ("refund", "the world is") for q in ("a", "bbb", "c")]
    sequences = [model.tokenize(*each) for each in asked]
    found = by_prompt(sequences)
    assert sorted(found) == list(range(6))
    prompts = [sequences[i].ids[: sequences[i].start].tobytes() for i in found]
    assert prompts[::2] == prompts[1::2]
    assert len(set(prompts)) == 3
