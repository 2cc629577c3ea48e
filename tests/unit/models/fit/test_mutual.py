"""Two models learn from each other's distributions, not from each other's token numbers."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import tiny_lm
from cosilo.errors import CapabilityError, ConfigError, DataError, ModelError
from cosilo.models.base import models
from cosilo.models.fit.mutual import MutualTerms, mutual_loss, read_public
from cosilo.models.mutual import exchanges
from cosilo.models.white_box.adapters import (
    Adapter,
    base_digest,
    first_adapter,
    layers_to_adapt,
    with_adapter,
)
from cosilo.models.white_box.batch import pad, predict, reply_loss
from mutual_pair import TERMS, mutual
from white_box import tiny

pytestmark = pytest.mark.timeout(300)


def started(pair: Any, rank: int = 2) -> dict[str, Any]:
    layers = layers_to_adapt(pair.small.module)
    return dict(first_adapter(layers, rank, alpha=2.0 * rank, seed=0).tensors)


def sequences(pair: Any) -> list[Any]:
    return [pair.tokenize(e.chat, e.target) for e in pair.public]


def test_the_loss_is_the_textbook_one_and_its_gradient_reaches_the_student_alone() -> None:
    pair, weight, t = mutual(), 0.7, 2.0
    student, teacher, items = pair.small.module, pair.module, sequences(pair)
    for parameter in student.parameters():
        parameter.requires_grad_(True)
    found = mutual_loss(teacher, weight, t, pair.vocabulary_size, student, items)
    rows, wanted, places = [], 0.0, 0
    for tokens in items:  # one by one, place by place
        batch = pad([tokens])
        with torch.no_grad():
            own, there = (predict(m, batch)[0].double().numpy() for m in (student, teacher))
        for place, token in enumerate(batch.targets[0].tolist()):
            p, q = (np.exp(x / t) / np.exp(x / t).sum() for x in (there[place], own[place]))
            nll = -np.log(np.exp(own[place]) / np.exp(own[place]).sum())[token]
            wanted += nll + weight * t * t * float((p * np.log(p / q)).sum())
            places += 1
        rows.append(there)
    assert float(found.detach()) == pytest.approx(wanted / places, rel=1e-4)
    found.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_each_comes_closer_to_the_other_as_it_was() -> None:
    pair = mutual(
        steps=12, weight=20.0, large=tiny(0, layers=3, scale=4.0), small=tiny(1, scale=4.0)
    )
    small = started(pair)
    found = pair.exchange(1, small, 2.0, None, None)
    items = sequences(pair)

    def apart(student: Any, teacher: Any) -> float:
        both = mutual_loss(teacher, 1.0, 1.0, pair.vocabulary_size, student, items)
        return float((both - reply_loss(student, items)).detach())

    large_after = with_adapter(pair.module, Adapter(2, 4.0, found.large))
    small_after = with_adapter(pair.small.module, Adapter(2, 4.0, found.small))
    assert apart(large_after, pair.small.module) < apart(pair.module, pair.small.module)
    assert apart(small_after, pair.module) < apart(pair.small.module, pair.module)
    for first, last in found.losses.values():
        assert last < first


def test_the_same_is_the_same_to_the_bit_and_a_killed_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = started(mutual())
    whole = mutual().exchange(1, small, 2.0, None, None)
    from cosilo.models.fit import mutual as module

    calls = 0
    train = module.trained_adapter

    def dying(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return train(*args, **options)

    monkeypatch.setattr(module, "trained_adapter", dying)
    with pytest.raises(KeyboardInterrupt):
        mutual().exchange(1, small, 2.0, None, tmp_path)
    again = mutual().exchange(1, small, 2.0, None, tmp_path)
    for name in ("small", "large"):
        one, other = getattr(whole, name), getattr(again, name)
        assert all(np.array_equal(one[n], other[n]) for n in one)


def test_the_large_model_goes_on_from_its_own_adapter_and_weight_0_asks_no_teacher() -> None:
    pair = mutual()
    small = started(pair)
    one = pair.exchange(1, small, 2.0, None, None)
    two = pair.exchange(2, one.small, 2.0, one.large, None)
    assert two.losses["large"][1] < one.losses["large"][0]
    alone, other = mutual(weight=0.0), mutual(weight=0.0, large=tiny(5, layers=3))
    found, wanted = (p.exchange(1, small, 2.0, None, None) for p in (alone, other))
    assert all(np.array_equal(found.small[n], wanted.small[n]) for n in small)
    taught = mutual(large=tiny(5, layers=3)).exchange(1, small, 2.0, None, None)
    assert not all(np.array_equal(one.small[n], taught.small[n]) for n in small)


def test_other_tokenisers_and_logits_that_are_none() -> None:
    with pytest.raises(CapabilityError, match="other tokenisers"):
        _ = mutual(small=tiny(1, words=("refund",))).small_base
    broken = tiny(0, layers=3)
    with torch.no_grad():
        broken.module.model.norm.weight.fill_(float("nan"))
    pair = mutual(large=broken)
    with pytest.raises(ModelError, match="nan"):
        pair.exchange(1, started(pair), 2.0, None, None)


def test_settings_name_what_decides() -> None:
    pair = mutual()
    assert pair.small_base == base_digest(tiny(1))
    assert pair.settings == mutual().settings
    assert pair.settings != mutual(seed=1).settings
    assert pair.settings != mutual(large=tiny(9, layers=3)).settings
    other = mutual()
    other.public = other.public[:-1]
    assert pair.settings != other.settings
    assert exchanges(pair)
    assert not exchanges(tiny(1))


@pytest.mark.parametrize("name", ["steps", "learning_rate", "rank", "temperature"])
def test_numbers_out_of_range(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        MutualTerms(**{name: 0})


def test_public_examples_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "public.jsonl"
    rows = [{"text": "a", "target": "b"}, {"system": "s", "text": "c", "target": "d"}]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    found = read_public(file)
    assert [([t.content for t in e.chat], e.target) for e in found] == [
        (["a"], "b"),
        (["s", "c"], "d"),
    ]
    for text, what in (
        ("", "no public examples"),
        ("[]", "line 1"),
        ('{"text": "a", "target": ""}', "line 1"),
        ('{"text": "a", "target": 3}', "line 1"),
        ("{", "line 1"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=what):
            read_public(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_public(tmp_path / "absent")


def test_made_by_its_kind(tmp_path: Path) -> None:
    large = tiny_lm.folder(tmp_path / "large", seed=0)
    small = tiny_lm.folder(tmp_path / "small", seed=1)
    (tmp_path / "p.jsonl").write_text('{"text": "a", "target": "refund"}')
    make = partial(models.create, "mutual", public=tmp_path / "p.jsonl", path=large)
    with pytest.raises(ConfigError, match="small_model"):
        make()
    with pytest.raises(DataError, match="cannot be read"):
        models.create("mutual", public=tmp_path / "q", path=large, small_path=small)
    made: Any = make(small_path=small, **TERMS)
    found = made.exchange(1, started(made), 2.0, None, None)
    made.keep_adapter(found.large, tmp_path / "kept")
    opened: Any = models.create("torch", path=large, adapter=tmp_path / "kept")
    wanted = with_adapter(made.module, Adapter(2, 4.0, found.large))
    batch = pad(sequences(made))
    assert torch.equal(predict(opened.module, batch), predict(wanted, batch))
