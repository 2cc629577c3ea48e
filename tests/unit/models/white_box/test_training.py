"""Training resumes exactly, stops when it should, and keeps what is good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import training_process as tiny
from cosilo.errors import (
    ConfigError,
    DataError,
    ModelError,
    RunBusyError,
    StoreError,
)
from cosilo.models.base import Tokens
from cosilo.models.white_box import checkpoint as torch_checkpoint
from cosilo.models.white_box.batch import pad, predict, reply_loss, together
from cosilo.models.white_box.training import Schedule, TrainingProgress, order, train

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

EXAMPLES = tiny.examples()[:8]


def weights(module: Any) -> dict[str, Any]:
    return {n: p.detach().clone() for n, p in module.named_parameters()}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(a[n], b[n]) for n in a)


def test_training_lowers_the_loss_and_ends_with_the_best_weights() -> None:
    module = tiny.module()
    before = tiny.validate(module)
    outcome = train(module, EXAMPLES, reply_loss, tiny.SCHEDULE, validate=tiny.validate)
    assert len(outcome.losses) == 12
    assert sorted(outcome.validations) == [0, 3, 6, 9, 12]
    assert outcome.validations[0] == pytest.approx(before)
    assert outcome.best == min(outcome.validations.values()) < before
    assert tiny.validate(module) == pytest.approx(outcome.best)


def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = tiny.module()
    expected = train(whole, EXAMPLES, reply_loss, tiny.SCHEDULE, validate=tiny.validate)

    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, tiny.__file__, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(tiny.__file__).parent), *sys.path]),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        },
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "7":
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    _, about = torch_checkpoint.read(folder / "checkpoint.safetensors")
    assert 7 <= about["step"] < 12, "it was to be killed in the middle"

    resumed = tiny.module()
    seen: list[TrainingProgress] = []
    outcome = train(
        resumed,
        EXAMPLES,
        reply_loss,
        tiny.SCHEDULE,
        validate=tiny.validate,
        folder=folder,
        report=seen.append,
    )
    assert seen[0].step == about["step"] + 1
    assert same(weights(whole), weights(resumed))
    assert outcome.losses == expected.losses
    assert outcome.validations == expected.validations


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first, again = tiny.module(), tiny.module()
    train(first, EXAMPLES, reply_loss, tiny.SCHEDULE, validate=tiny.validate, folder=tmp_path)
    seen: list[TrainingProgress] = []
    train(
        again,
        EXAMPLES,
        reply_loss,
        tiny.SCHEDULE,
        validate=tiny.validate,
        folder=tmp_path,
        report=seen.append,
    )
    assert not seen
    assert same(weights(first), weights(again))
    assert len(list(tmp_path.glob("best-*"))) == 1


def test_another_trainings_checkpoint_is_refused(tmp_path: Path) -> None:
    train(tiny.module(), EXAMPLES, reply_loss, tiny.SCHEDULE, folder=tmp_path)
    for schedule, run in ((replace(tiny.SCHEDULE, seed=1), ""), (tiny.SCHEDULE, "other data")):
        with pytest.raises(StoreError, match="another training"):
            train(tiny.module(), EXAMPLES, reply_loss, schedule, folder=tmp_path, run=run)


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    def loss(module: Any, batch: Any) -> Any:
        train(tiny.module(), EXAMPLES, reply_loss, tiny.SCHEDULE, folder=tmp_path)

    with pytest.raises(RunBusyError, match="another process"):
        train(tiny.module(), EXAMPLES, loss, tiny.SCHEDULE, folder=tmp_path)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_step_before(
    tmp_path: Path, where: str
) -> None:
    calls = 0

    def loss(module: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        value = reply_loss(module, batch)
        if calls < 5:
            return value
        # The square root of zero is finite; its derivative is not.
        return value * float("nan") if where == "loss" else value + (0 * value).sqrt()

    module = tiny.module()
    with pytest.raises(ModelError, match=r"at step 5 of 12.*after step 4"):
        train(
            module, EXAMPLES, loss, replace(tiny.SCHEDULE, checkpoint_seconds=1e9), folder=tmp_path
        )
    kept, about = torch_checkpoint.read(tmp_path / "checkpoint.safetensors")
    assert about["step"] == 4
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert all(torch.equal(kept[f"weight {n}"], p) for n, p in module.named_parameters())


def test_training_stops_when_validation_gets_no_better() -> None:
    values = iter([5.0, 4.0, 3.0, 3.5, 3.2, 9.0])
    snapshots: list[dict[str, Any]] = []

    def validate(module: Any) -> float:
        snapshots.append(weights(module))
        return next(values)

    module = tiny.module()
    schedule = replace(tiny.SCHEDULE, validate_every=1, patience=2)
    outcome = train(module, EXAMPLES, reply_loss, schedule, validate=validate)
    assert outcome.validations == {0: 5.0, 1: 4.0, 2: 3.0, 3: 3.5, 4: 3.2}
    assert (outcome.best_step, outcome.best) == (2, 3.0)
    assert same(snapshots[2], weights(module))


def test_a_full_disk_is_said_and_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    torch_checkpoint.write(path, {"a": torch.ones(3)}, {"step": 1})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device .* are free there"):
        torch_checkpoint.write(path, {"a": torch.zeros(3)}, {"step": 2})
    tensors, about = torch_checkpoint.read(path)
    assert about == {"step": 1}
    assert tensors["a"].tolist() == [1, 1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_checkpoint_keeps_every_kind_of_tensor(tmp_path: Path) -> None:
    given = {
        "a": torch.arange(6, dtype=torch.float32).reshape(2, 3).T,  # not contiguous
        "b": torch.tensor([1.5, -2], dtype=torch.bfloat16),
        "c": torch.tensor(7),
        "d": torch.zeros(0, 4, dtype=torch.int8),
    }
    torch_checkpoint.write(tmp_path / "x", given)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600
    found, about = torch_checkpoint.read(tmp_path / "x")
    assert about is None
    assert {n: (t.dtype, t.tolist()) for n, t in found.items()} == {
        n: (t.dtype, t.tolist()) for n, t in given.items()
    }
    (tmp_path / "x").write_bytes(b"broken")
    with pytest.raises(StoreError, match="cannot be read"):
        torch_checkpoint.read(tmp_path / "x")


def test_every_epoch_shows_each_example_once_in_another_order() -> None:
    schedule = Schedule(steps=10, batch=3)
    seen = [i for step in range(10) for i in order(5, schedule, step)]
    epochs = [seen[i : i + 5] for i in range(0, 30, 5)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_the_rate_rises_then_falls_to_nothing() -> None:
    rates = [Schedule(steps=10, learning_rate=1.0, warmup=0.2).rate(k) for k in range(11)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[10] == 0
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(DataError, match="no examples"):
        train(tiny.module(), [], reply_loss, tiny.SCHEDULE)
    with pytest.raises(ConfigError, match="nothing to train"):
        train(tiny.module().requires_grad_(False), EXAMPLES, reply_loss, tiny.SCHEDULE)
    for wrong in ({"steps": 0}, {"batch": 0}, {"learning_rate": 0}, {"warmup": 2}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Schedule(**{"steps": 1, **wrong})  # type: ignore[arg-type]


def test_progress_says_how_much_is_left() -> None:
    seen: list[TrainingProgress] = []
    train(tiny.module(), EXAMPLES, reply_loss, tiny.SCHEDULE, report=seen.append)
    assert [p.step for p in seen] == list(range(1, 13))
    assert seen[0].seconds_left > 0 == seen[-1].seconds_left


def test_padding_changes_no_prediction() -> None:
    module = tiny.module().eval()
    with torch.no_grad():
        batch = pad(EXAMPLES)
        logits = predict(module, batch)
        for i, s in enumerate(EXAMPLES):
            alone = module(torch.tensor(s.ids[None].astype(np.int64))).logits[0, s.start - 1 : -1]
            torch.testing.assert_close(logits[i][batch.counted[i]], alone, atol=1e-5, rtol=1e-4)
            assert batch.targets[i][batch.counted[i]].tolist() == s.ids[s.start :].tolist()


def test_groups_hold_similar_lengths_and_no_more_than_allowed() -> None:
    sequences = [Tokens(np.zeros(n, np.int32), 1, ()) for n in (9, 2, 3, 8, 30, 2)]
    groups = list(together(sequences, 18))
    assert groups == [[4], [0, 3], [2, 1, 5]]
