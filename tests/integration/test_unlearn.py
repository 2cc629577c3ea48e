"""`cosilo unlearn` on a tiny model: an adapter and whole weights that learned records lose some."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

import tiny_lm
from cosilo.cli import main
from cosilo.errors import ConfigError, DataError
from cosilo.forget.verifying import Verifying, verified
from cosilo.forget.weights import WeightsToUnlearn, records_of, unlearn_weights
from cosilo.models.white_box import files as torch_files
from cosilo.models.white_box.adapters import (
    first_adapter,
    layers_to_adapt,
    merged_with,
    trained_adapter,
    with_adapter,
)
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.lm import TorchModel, torch_lm
from cosilo.models.white_box.unlearning.forgetting import mean_nats
from cosilo.models.white_box.unlearning.reading import ModuleReader
from cosilo.types import Demonstration, user

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

WORDS = ("refund", "billing", "delivery", "hello", "the world", "is about", "the the", "world")
ALL = [Demonstration(f"r{i}", user("abcdefgh"[i] * 12), f"{WORDS[i]} {9 - i}") for i in range(8)]
FORGET, KEEP = ALL[:2], ALL[2:]
QUICK = ["--epochs", "20", "--batch", "2", "--learning-rate", "8e-3", "--threads", "1"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """These models are too small for two, which would wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, an adapter of it that knows all records, and both in one."""
    place = tmp_path_factory.mktemp("weights")
    base = torch_lm(path=tiny_lm.folder(place / "base", scale=3.0), precision="float32")
    start = first_adapter(layers_to_adapt(base.module), 8, seed=0)
    learned, _ = trained_adapter(
        base.module,
        start,
        [base.tokenize(e.chat, e.target) for e in ALL],
        steps=80,
        batch=8,
        learning_rate=2e-2,
    )
    torch_files.save(with_adapter(base.module, learned), None, place / "adapter")
    words = torch_files.load_words(place / "base")
    torch_files.save(merged_with(base.module, learned), words, place / "tuned")
    rows(place / "forget.jsonl", FORGET)
    rows(place / "keep.csv", KEEP)
    return place


def rows(file: Path, records: list[Demonstration]) -> Path:
    """Written as tables or, in JSONL, as chats are tuned on."""
    if file.suffix == ".csv":
        lines = [f"{e.chat[0].content},{e.target}" for e in records]
        file.write_text("\n".join(["question,answer", *lines]) + "\n")
    else:
        chats = [
            [
                {"role": "user", "content": e.chat[0].content},
                {"role": "assistant", "content": e.target},
            ]
            for e in records
        ]
        file.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    return file


def nats(model: TorchModel, records: list[Demonstration]) -> float:
    sequences = [model.tokenize(e.chat, e.target) for e in records]
    return mean_nats(ModuleReader(reply_loss), model.module, sequences)


def command(place: Path, model: str, out: Path, *more: str) -> list[str]:
    files = ["--forget", str(place / "forget.jsonl"), "--keep", str(place / "keep.csv")]
    return ["unlearn", str(place / model), *files, "--out", str(out), *QUICK, *more]


@pytest.mark.parametrize("whole", [False, True])
def test_what_comes_out_is_loaded_as_what_came_in_and_knows_the_records_less(
    place: Path, tmp_path: Path, whole: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    if whole:
        more = ["--untuned", str(place / "base"), "--layers", "2"]
        assert main(command(place, "tuned", out, *more)) == 0
        before = torch_lm(path=place / "tuned", precision="float32")
        after = torch_lm(path=out / "model", precision="float32")
    else:
        assert main(command(place, "base", out, "--adapter", str(place / "adapter"))) == 0
        before = torch_lm(path=place / "base", adapter=place / "adapter", precision="float32")
        after = torch_lm(path=place / "base", adapter=out / "adapter", precision="float32")
    assert nats(after, FORGET) > 1.5 * nats(before, FORGET)  # an untuned model: 1.9 times
    assert nats(after, KEEP) < nats(after, FORGET) / 1.5
    said = json.loads((out / "unlearned.json").read_text())
    assert said["after"]["forget"] == pytest.approx(nats(after, FORGET), rel=0.05)
    assert (said["method"], said["records"], said["kept"]) == ("bad_teacher", 2, 6)
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["unlearned.json", "model" if whole else "adapter"]
    )
    printed = capsys.readouterr()
    assert "approximate, not erased" in printed.out
    texts = [printed.out, printed.err, (out / "unlearned.json").read_text()]
    assert not any(e.chat[0].content in text for text in texts for e in ALL)


def test_what_came_out_is_attacked_and_held_against_weights_that_never_learned(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    never = [Demonstration(f"n{i}", user("qrst"[i] * 12), f"{WORDS[i]} {i}") for i in range(4)]
    rows(tmp_path / "never.jsonl", never)
    base = torch_lm(path=place / "base", precision="float32")
    start = first_adapter(layers_to_adapt(base.module), 8, seed=0)
    sequences = [base.tokenize(e.chat, e.target) for e in KEEP]
    again, _ = trained_adapter(base.module, start, sequences, steps=60, batch=8, learning_rate=2e-2)
    torch_files.save(with_adapter(base.module, again), None, tmp_path / "again")
    out = tmp_path / "out"
    more = ["--adapter", str(place / "adapter"), "--retrained", str(tmp_path / "again")]
    assert main(command(place, "base", out, *more, "--never", str(tmp_path / "never.jsonl"))) == 0
    seen = json.loads((out / "unlearned.json").read_text())["verified"]
    after = torch_lm(path=place / "base", adapter=out / "adapter", precision="float32")
    measures, attacks = seen["measures"], seen["under attack"]
    names = ["as it came", "unlearned", "retrained"]
    assert list(measures) == list(attacks) == names
    asked = [e for e in FORGET if math.isclose(
        measures["unlearned"]["probability"]["value"], math.exp(-nats(after, [e])), rel_tol=0.02
    )]  # fmt: skip
    assert len(asked) == seen["records"] == 1, "the attacker has the other one"
    shown = {
        what: share["n"] for what, share in {**measures[names[0]], **attacks[names[0]]}.items()
    }
    assert (shown["probability"], shown["relearned"], shown["best of 16"]) == (1, 1, 1)
    assert shown["probability of what is kept"] == len(KEEP), "the others are of other records"
    assert shown["membership"] == 1 + len(never)
    for name in names:
        for share in (*measures[name].values(), *attacks[name].values()):
            assert share["low"] <= share["value"] <= share["high"]
    likely = {name: measures[name]["probability"]["value"] for name in names}
    assert likely["as it came"] > 2 * max(likely["unlearned"], likely["retrained"])
    assert (
        attacks["as it came"]["best of 16"]["value"] > attacks["retrained"]["best of 16"]["value"]
    )
    assert attacks["unlearned"]["8 bits"]["value"] == pytest.approx(likely["unlearned"], rel=0.2)
    assert attacks["unlearned"]["two checkpoints"]["value"] > likely["unlearned"]
    assert 0 <= seen["forget quality"] <= 1
    assert seen["privacy leak"] is not None
    printed = capsys.readouterr().out
    assert "forget quality" in printed
    assert re.search(rf"probability of what is kept +{len(KEEP)} ", printed)
    assert "two checkpoints" in printed


def test_verifying_that_fails_costs_no_training(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    more = ["--adapter", str(place / "adapter"), "--retrained", str(place / "adapter")]

    def fails(*_: object, **__: object) -> None:
        raise ConfigError("scipy is not installed")

    with monkeypatch.context() as broken:
        broken.setattr("cosilo.forget.weights.verified", fails)
        assert main(command(place, "base", out, *more)) == 2
    assert (out / "adapter").is_dir()
    report = out / "unlearned.json"
    assert "verified" not in json.loads(report.read_text())
    capsys.readouterr()
    assert main(command(place, "base", out, *more)) == 0
    assert json.loads(report.read_text())["verified"]["records"] == 1
    printed = capsys.readouterr()
    assert "step 3 of" not in printed.err, "it was trained before"
    assert "nothing can be told by 1 of the records" in printed.out


def test_a_question_that_is_longer_than_the_model_reads_is_not_asked(place: Path) -> None:
    base = torch_lm(path=place / "base", precision="float32")
    long = [Demonstration(str(i), user("a " * 2000 + str(i)), "refund") for i in range(4)]
    how = Verifying(longest=2, asked=2)
    some = verified(base, base, [*long, *FORGET], KEEP, how=how)
    assert some.records == 5
    assert 0 <= some.attacks["unlearned"]["best of 16"].value <= 1
    none = verified(base, base, long, KEEP, how=how)
    assert "best of 16" not in none.attacks["unlearned"]


def test_what_is_verified_with_is_read_before_anything_is_trained(
    place: Path, tmp_path: Path
) -> None:
    learned = rows(tmp_path / "never.jsonl", [ALL[3]])
    said = refused(place, tmp_path, verify=True, never=learned, model="nowhere")
    assert "record 1 is among those that were learned, too" in said
    one = rows(tmp_path / "one.jsonl", ALL[:1])
    said = refused(place, tmp_path, verify=True, forget=one, model="nowhere")
    assert "two records to forget or more" in said
    words = tiny_lm.tokenizer(words=["zebra", *tiny_lm.WORDS])
    words.save_pretrained(tmp_path / "other")
    tiny_lm.module(len(words)).save_pretrained(tmp_path / "other")
    other = {"retrained": str(tmp_path / "other"), "untuned": str(place / "base"), "adapter": None}
    said = refused(place, tmp_path, verify=True, model=str(place / "tuned"), **other)
    assert "'other' has another vocabulary" in said
    assert not (tmp_path / "out").exists(), "nothing was trained"


def test_where_nothing_better_is_found_no_weights_are_written(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    more = ["--adapter", str(place / "adapter"), "--learning-rate", "1e-12", "--epochs", "1"]
    assert main(command(place, "base", out, *more)) == 1
    assert not list(out.glob("*"))
    assert "no weights are written" in (printed := capsys.readouterr().out)
    assert "earlier call" not in printed
    (out / "unlearned.json").write_text("{}")
    assert main(command(place, "base", out, *more)) == 1
    assert "is of an earlier call" in capsys.readouterr().out


def refused(place: Path, tmp_path: Path, **changed: Any) -> str:
    asked: dict[str, Any] = {
        "model": str(place / "base"),
        "adapter": place / "adapter",
        "forget": place / "forget.jsonl",
        "keep": place / "keep.csv",
        "out": tmp_path / "out",
    }
    with pytest.raises((ConfigError, DataError)) as error:
        unlearn_weights(WeightsToUnlearn(**asked | changed))
    return str(error.value)


def test_a_record_that_is_to_be_kept_too_is_refused_by_its_number(
    place: Path, tmp_path: Path
) -> None:
    both = rows(tmp_path / "both.jsonl", [ALL[0], ALL[3]])
    assert "record 2 is among those to keep, too" in refused(place, tmp_path, forget=both)


def test_a_folder_with_other_files_is_left_alone(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert "holds other files" in refused(place, tmp_path, out=out)
    assert (out / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("whole", [False, True])
def test_a_folder_with_a_result_of_the_other_kind_is_left_alone(
    place: Path, tmp_path: Path, whole: bool
) -> None:
    out, other = tmp_path / "out", "adapter" if whole else "model"
    (out / other).mkdir(parents=True)
    (out / f".{other}.old.123").mkdir()
    kind: dict[str, Any] = {"adapter": None, "untuned": str(place / "base")} if whole else {}
    said = refused(place, tmp_path, out=out, **kind)
    assert f"{out / other} is of an earlier call, of another kind" in said
    assert sorted(p.name for p in out.iterdir()) == [f".{other}.old.123", other]


def test_what_a_call_left_that_was_killed_while_it_wrote_is_no_other_file(
    place: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / ".adapter.123").mkdir(parents=True)
    (out / ".unlearned.json").write_text("{")
    assert main(command(place, "base", out, "--adapter", str(place / "adapter"))) == 0
    assert sorted(p.name for p in out.iterdir()) == ["adapter", "unlearned.json"]


def test_a_method_or_an_option_that_there_is_not_is_refused_before_anything_is_loaded(
    place: Path, tmp_path: Path
) -> None:
    assert "forgetfulness" in refused(place, tmp_path, method="forgetfulness", model="nowhere")
    assert "gamma" in refused(place, tmp_path, options={"gamma": 1.0}, model="nowhere")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"messages": [{"role": "user", "content": "secret"}]}', "the last is the assistant's"),
        ('{"messages": [{"role": "user", "content": 7}]}', "a text as content"),
        ('{"messages": "secret"}', "a text as content"),
        ('{"messages": [{"role": ["secret"], "content": "secret"}]}', "a text as content"),
        ('{"question": "secret"}', "no column named 'answer'"),
        ('{"question": "", "answer": "secret"}', "the reply that was learned"),
    ],
)
def test_a_row_that_is_no_record_is_named_by_its_line(line: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(DataError) as error:
        records_of(file, "question", "answer")
    assert said in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--epochs", "inf"], "epochs = inf"),
        (["--seed", "-1"], "--seed must be 0 or more"),
        (["--threads", "0"], "threads must be 1 or more"),
    ],
)
def test_a_number_that_nothing_can_be_trained_with_is_refused(
    place: Path, tmp_path: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = command(place, "base", tmp_path / "out", "--adapter", str(place / "adapter"))
    assert main([*given, *more]) == 2
    assert said in capsys.readouterr().err


def test_all_that_is_missing_is_named_before_anything_is_read(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("cosilo.models.catalog.is_here", lambda name: False)
    given = command(place, "tuned", tmp_path / "out", "--untuned", "smollm2-135m-instruct")
    assert main([*given, "--retrained", "minilm-int8"]) == 2
    said = capsys.readouterr().err
    assert "smollm2-135m-instruct, minilm-int8" in said


def test_the_command_needs_something_that_never_saw_the_records(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(place, "tuned", tmp_path / "out")) == 2
    assert "--untuned MODEL" in capsys.readouterr().err
