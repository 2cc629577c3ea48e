"""Training a language model: it learns, it leaves the model it began with alone, it goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cosilo.errors import DataError, RejectedError, StoreError
from cosilo.models.white_box.batch import device_of, reply_loss, weighed_loss
from cosilo.models.white_box.lm import TorchModel, torch_lm
from cosilo.models.white_box.tuning import mean_loss
from cosilo.types import Demonstration, Sampling, user

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

LABELS = ("refund", "billing", "delivery")


def examples(count: int = 24) -> list[Demonstration]:
    return [
        Demonstration(str(i), user(f"{i % 7} {LABELS[i % 3]}"), LABELS[i % 3]) for i in range(count)
    ]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_teaches_and_leaves_the_model_as_it_was(
    place: Path, method: str, tmp_path: Path
) -> None:
    rate = 1e-2 if method == "lora" else 3e-3
    model = torch_lm(path=place, method=method, batch=4, epochs=30, learning_rate=rate)  # type: ignore[arg-type]
    before = {n: p.clone() for n, p in model.module.named_parameters()}
    identity = model.identity
    trained = model.fit(examples(), seed=1)
    assert all(torch.equal(before[n], p) for n, p in model.module.named_parameters())
    assert model.identity == identity != trained.identity

    asked = [e.chat for e in examples(30)[24:]]

    async def answers(of: TorchModel) -> list[str]:
        return [
            r.text
            for r in await asyncio.gather(
                *(of.generate(c, Sampling(choices=LABELS)) for c in asked)
            )
        ]

    wanted = [LABELS[i % 3] for i in range(24, 30)]
    assert asyncio.run(answers(trained)) == wanted
    assert asyncio.run(answers(model)) != wanted

    trained.save(tmp_path / "whole")
    again = torch_lm(path=tmp_path / "whole")
    assert asyncio.run(answers(again)) == wanted
    assert sorted(p.suffix for p in (tmp_path / "whole").iterdir()) == sorted(
        [".json"] * 4 + [".jinja", ".safetensors"]
    )
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", local_files_only=True)
    assert len(plain.model.layers) == 2
    if method == "full":
        with pytest.raises(RejectedError, match="no adapter"):
            trained.save_adapter(tmp_path / "adapter")
        return
    trained.save_adapter(tmp_path / "adapter")
    adapted = torch_lm(path=place, adapter=tmp_path / "adapter")
    assert asyncio.run(answers(adapted)) == wanted
    assert adapted.identity != torch_lm(path=place).identity
    more = adapted.fit(examples(), seed=2)
    assert asyncio.run(answers(adapted)) == wanted
    assert asyncio.run(answers(more)) == wanted


def test_replies_count_by_their_weight_in_the_loss(model: TorchModel) -> None:
    sequences = [model.tokenize(user("hello"), "refund"), model.tokenize(user("q"), "the billing")]
    lengths = [len(s) - s.start for s in sequences]
    with torch.no_grad():
        alone = [float(reply_loss(model.module, [s])) for s in sequences]
        found = float(weighed_loss(model.module, list(zip(sequences, (0.5, 1.5), strict=True))))
        whole = float(reply_loss(model.module, sequences))
        even = float(weighed_loss(model.module, [(s, 1.0) for s in sequences]))
    slow = sum(w * n * x for w, n, x in zip((0.5, 1.5), lengths, alone, strict=True)) / sum(lengths)
    assert found == pytest.approx(slow, rel=1e-5)
    assert even == pytest.approx(whole, rel=1e-6)


def test_a_wrong_target_of_no_weight_teaches_nothing(place: Path) -> None:
    model = torch_lm(path=place, method="full", batch=4, epochs=30, learning_rate=3e-3)
    wrong = [
        Demonstration(f"w{i}", e.chat, LABELS[(LABELS.index(e.target) + 1) % 3], weight=0.01)
        for i, e in enumerate(examples())
    ]
    trained = model.fit([*examples(), *wrong], seed=1)

    async def answers() -> list[str]:
        chats = [e.chat for e in examples()]
        found = (trained.generate(c, Sampling(choices=LABELS)) for c in chats)
        return [r.text for r in await asyncio.gather(*found)]

    assert asyncio.run(answers()) == [e.target for e in examples()]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_bfloat16_model_is_trained_in_float32(place: Path, method: str) -> None:
    """Small steps are lost in bfloat16: at this rate, its weights would hardly move."""
    options = {"method": method, "batch": 8, "epochs": 6, "learning_rate": 1e-3}
    model = torch_lm(path=place, precision="bfloat16", **options)  # type: ignore[arg-type]
    trained = model.fit(examples())
    sequences = [model.tokenize(e.chat, e.target) for e in examples()]
    assert mean_loss(trained.module, sequences) < mean_loss(model.module, sequences)
    assert trained.module.dtype is torch.bfloat16


def test_the_loss_is_on_replies_alone(model: TorchModel) -> None:
    sequences = [model.tokenize(user("hello"), "refund"), model.tokenize(user("q"), "the billing")]
    total = count = 0.0
    for s in sequences:
        with torch.no_grad():
            ids = torch.tensor(s.ids[None].astype(np.int64), device=device_of(model.module))
            rows = model.module(ids).logits[0].float().log_softmax(-1)
        for t in range(s.start, len(s)):
            total -= float(rows[t - 1, int(s.ids[t])])
            count += 1
    assert mean_loss(model.module, sequences) == pytest.approx(total / count, abs=1e-5)


def test_a_fit_that_was_interrupted_goes_on(place: Path, tmp_path: Path) -> None:
    def make(folder: Path | None, stop: int = 0) -> TorchModel:
        model = torch_lm(path=place, batch=8, epochs=3, learning_rate=1e-2, checkpoints=folder)

        def report(progress: Any) -> None:
            if progress.step == stop:
                raise KeyboardInterrupt

        model.report = report
        return model

    whole = make(None).fit(examples())
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, stop=2).fit(examples())
    assert make(tmp_path).fit(examples()).identity == whole.identity
    with pytest.raises(StoreError, match="another training"):
        make(tmp_path).fit(examples(12))


def test_nothing_to_learn_is_refused(model: TorchModel) -> None:
    for empty in ([], [Demonstration("a", user("q"), "")]):
        with pytest.raises(DataError, match="has a target"):
            model.fit(empty)
