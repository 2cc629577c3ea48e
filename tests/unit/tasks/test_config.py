import json
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from cosilo.errors import ConfigError, DataError
from cosilo.tasks import config as _config  # noqa: F401
from cosilo.tasks.base import SPLITS, Task
from cosilo.tasks.config import load_task, parse_task
from cosilo.types import last_user

WORDS = [
    "card",
    "loan",
    "fee",
    "rate",
    "bank",
    "line",
    "call",
    "form",
    "code",
    "plan",
    "desk",
    "note",
]


def rows_of(count: int, *, start: int = 0) -> list[dict[str, object]]:
    made = []
    for n in range(start, start + count):
        rng = random.Random(n)
        text = " ".join(rng.choices(WORDS, k=6)) + f" {n}"
        made.append({"id": f"r{n}", "text": text, "label": ("a", "b", "c")[n % 3]})
    return made


def write(folder: Path, name: str, rows: list[dict[str, object]]) -> None:
    (folder / name).write_text("\n".join(map(json.dumps, rows)))


def load(folder: Path, **table: object) -> Task:
    given: dict[str, object] = {"kind": "classification", "columns": {"id": "id"}, **table}
    return load_task(parse_task(given), folder)


def ids(task: Task) -> dict[str, set[str]]:
    return {split: {e.id for e in task.splits[split]} for split in SPLITS}


@pytest.fixture
def one_file(tmp_path: Path) -> Path:
    write(tmp_path, "all.jsonl", rows_of(300))
    return tmp_path


def test_one_file_is_divided_into_five_splits_near_their_shares(one_file: Path) -> None:
    found = ids(load(one_file, file="all.jsonl"))
    assert sum(map(len, found.values())) == 300
    for split, share in (("train", 0.4), ("tune", 0.1), ("test", 0.2)):
        assert abs(len(found[split]) - 300 * share) < 30


def test_the_order_of_rows_and_rows_added_later_move_no_item(one_file: Path) -> None:
    before = ids(load(one_file, file="all.jsonl"))
    rows = rows_of(400)
    random.Random(1).shuffle(rows)
    write(one_file, "more.jsonl", rows)
    after = ids(load(one_file, file="more.jsonl"))
    for split in SPLITS:
        assert before[split] <= after[split]


def test_another_seed_divides_differently(one_file: Path) -> None:
    assert ids(load(one_file, file="all.jsonl")) != ids(load(one_file, file="all.jsonl", seed=1))


def test_texts_that_differ_in_case_and_signs_never_part(tmp_path: Path) -> None:
    rows = rows_of(200)
    for n, row in enumerate(rows_of(200)):
        text = str(row["text"])
        rows.append({**row, "id": f"twin{n}", "text": f"  {text.upper().replace(' ', ', ')}!"})
    write(tmp_path, "all.jsonl", rows)
    found = ids(load(tmp_path, file="all.jsonl"))
    for split in SPLITS:
        assert {i.removeprefix("r") for i in found[split] if i[0] == "r"} == {
            i.removeprefix("twin") for i in found[split] if i[0] == "t"
        }


def test_train_is_divided_when_only_train_and_test_are_given(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", rows_of(300))
    write(tmp_path, "test.jsonl", rows_of(50, start=300))
    found = ids(load(tmp_path, train="train.jsonl", test="test.jsonl"))
    assert len(found["test"]) == 50
    assert sum(len(found[s]) for s in SPLITS) == 350
    assert abs(len(found["train"]) - 165) < 30
    assert all(len(found[s]) > 25 for s in ("tune", "validation", "certificate"))


def test_shares_of_the_plan_hold(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", rows_of(300))
    write(tmp_path, "test.jsonl", rows_of(50, start=300))
    split = {"train": 0.2, "tune": 0.8}
    found = ids(load(tmp_path, train="train.jsonl", test="test.jsonl", split=split))
    assert abs(len(found["tune"]) - 240) < 30
    assert not found["validation"]


def test_a_training_file_may_be_given_to_the_other_splits_whole(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl", rows_of(300))
    write(tmp_path, "test.jsonl", rows_of(50, start=300))
    split = {"tune": 0.5, "validation": 0.5}
    found = ids(
        load(tmp_path, train="train.jsonl", test="test.jsonl", split=split, labels=["a", "b", "c"])
    )
    assert not found["train"]
    assert len(found["tune"] | found["validation"]) == 300


def test_a_split_with_a_file_of_its_own_keeps_it_whole(tmp_path: Path) -> None:
    for name, start in (("train", 0), ("tune", 200), ("test", 300)):
        write(tmp_path, f"{name}.jsonl", rows_of(100, start=start))
    files = {name: f"{name}.jsonl" for name in ("train", "tune", "test")}
    found = ids(load(tmp_path, **files))
    assert len(found["tune"]) == 100
    assert found["validation"]
    assert found["certificate"]


def test_training_rows_that_are_in_test_are_left_out_and_counted(tmp_path: Path) -> None:
    leaked = [{**row, "id": f"x{n}"} for n, row in enumerate(rows_of(7, start=300))]
    write(tmp_path, "train.jsonl", rows_of(300) + leaked)
    write(tmp_path, "test.jsonl", rows_of(50, start=300))
    task = load(tmp_path, train="train.jsonl", test="test.jsonl")
    assert task.notes == ("7 items of 'train' left out: their text is also in 'test'",)
    assert len(task.splits["test"]) == 50
    assert not any(i.startswith("x") for split in ids(task).values() for i in split)


def test_several_files_of_one_split_are_read_one_after_the_other(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", rows_of(150))
    write(tmp_path, "b.jsonl", rows_of(150, start=150))
    assert ids(load(tmp_path, file=["a.jsonl", "b.jsonl"])) == ids(load_all(tmp_path))


def load_all(folder: Path) -> Task:
    write(folder, "all.jsonl", rows_of(300))
    return load(folder, file="all.jsonl")


def test_a_sample_keeps_the_shares_of_the_classes(one_file: Path) -> None:
    task = load(one_file, file="all.jsonl", max_items={"train": 30, "test": 6})
    whole = ids(load(one_file, file="all.jsonl"))
    assert len(task.splits["train"]) == 30
    assert len(task.splits["test"]) == 6
    assert ids(task)["train"] < whole["train"]
    counts = [sum(e.target == c for e in task.splits["train"]) for c in "abc"]
    assert max(counts) - min(counts) <= 6


def test_one_number_limits_every_split(one_file: Path) -> None:
    task = load(one_file, file="all.jsonl", max_items=9)
    assert {len(task.splits[s]) for s in SPLITS} == {9}


def test_ids_are_made_from_content_when_there_are_none(one_file: Path) -> None:
    first = load(one_file, file="all.jsonl", columns={})
    rows = rows_of(300)[::-1]
    write(one_file, "reversed.jsonl", rows)
    assert ids(first) == ids(load(one_file, file="reversed.jsonl", columns={}))


def test_equal_rows_get_ids_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, "all.jsonl", rows_of(200) + rows_of(200))
    found = ids(load(tmp_path, file="all.jsonl", columns={}))
    assert sum(map(len, found.values())) == 400


def test_the_same_id_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "all.jsonl", [*rows_of(50), {"id": "r7", "text": "new", "label": "a"}])
    with pytest.raises(DataError, match=r"line 51: the same id in column 'id' as .*line 8"):
        load(tmp_path, file="all.jsonl")


def test_files_that_count_from_zero_each_are_told_apart(tmp_path: Path) -> None:
    test = [{**row, "id": f"r{n}"} for n, row in enumerate(rows_of(20, start=300))]
    write(tmp_path, "train.jsonl", rows_of(300))
    write(tmp_path, "test.jsonl", test)
    found = ids(load(tmp_path, train="train.jsonl", test="test.jsonl"))
    assert "test-r3" in found["test"]
    assert sum(map(len, found.values())) == 320
    assert len(set().union(*found.values())) == 320


def test_several_columns_are_joined_with_their_names(tmp_path: Path) -> None:
    rows = [{**row, "place": "here" if n % 2 else ""} for n, row in enumerate(rows_of(100))]
    write(tmp_path, "all.jsonl", rows)
    task = load(tmp_path, file="all.jsonl", columns={"id": "id", "text": ["text", "place"]})
    texts = {e.id: last_user(e.chat) for s in SPLITS for e in task.splits[s]}
    assert texts["r1"] == f"text: {rows[1]['text']}\nplace: here"
    assert texts["r2"] == f"text: {rows[2]['text']}"


def test_recorded_answers_come_with_their_seconds(tmp_path: Path) -> None:
    rows = [
        {**row, "preds": {"gpt-4.5": "a", "o1": None}, "took": {"gpt-4.5": 1.5}}
        for row in rows_of(100)
    ]
    write(tmp_path, "all.jsonl", rows)
    columns = {
        "id": "id",
        "recorded": {"big": "preds.gpt-4.5", "other": "preds.o1"},
        "recorded_seconds": {"big": "took.gpt-4.5"},
    }
    task = load(tmp_path, file="all.jsonl", columns=columns)
    assert task.splits["test"][0].recorded == {"big": ("a", 1.5), "other": ("", 0.0)}


@pytest.mark.parametrize("seconds", ["soon", -1, [1], float("nan")])
def test_seconds_that_are_no_time_are_refused(tmp_path: Path, seconds: object) -> None:
    write(tmp_path, "all.jsonl", [{**row, "p": "a", "s": seconds} for row in rows_of(30)])
    columns = {"recorded": {"m": "p"}, "recorded_seconds": {"m": "s"}}
    with pytest.raises(DataError, match="column 's' is not a number of seconds"):
        load(tmp_path, file="all.jsonl", columns=columns)


def test_context_goes_into_the_system_turn_only(tmp_path: Path) -> None:
    write(tmp_path, "all.jsonl", [{**row, "doc": "the glossary"} for row in rows_of(100)])
    task = load(tmp_path, file="all.jsonl", columns={"context": "doc"})
    example = task.splits["test"][0]
    assert example.chat[0].content.endswith("\n\nthe glossary")
    assert "glossary" not in last_user(example.chat)


def test_too_few_items_say_how_many_are_needed(tmp_path: Path) -> None:
    write(tmp_path, "all.jsonl", rows_of(4))
    with pytest.raises(DataError, match=r"too few items: 4 leave .* at least \d+ are needed"):
        load(tmp_path, file="all.jsonl")


def test_an_empty_text_names_its_row(tmp_path: Path) -> None:
    write(tmp_path, "all.jsonl", [*rows_of(5), {"id": "e", "text": " ", "label": "a"}])
    with pytest.raises(DataError, match="line 6: column 'text' is empty"):
        load(tmp_path, file="all.jsonl")


def test_a_misspelt_column_is_refused_with_the_nearest(one_file: Path) -> None:
    with pytest.raises(DataError, match="no column named 'lable'; did you mean 'label'"):
        load(one_file, file="all.jsonl", columns={"target": "lable"})
    with pytest.raises(DataError, match="target = '' names no column"):
        load(one_file, file="all.jsonl", columns={"target": ""})
    for text in ("", ["text", ""]):
        with pytest.raises(DataError, match=r"no column named '' \(known: "):
            load(one_file, file="all.jsonl", columns={"text": text})


# secrets


def secret_rows(cell: object) -> list[dict[str, object]]:
    return [{**row, "text": f"{row['text']} for Ann Lee", "facts": cell} for row in rows_of(60)]


@pytest.mark.parametrize(
    ("cell", "kinds"),
    [
        (["Ann Lee"], "secret"),
        ("Ann Lee;", "secret"),
        ('["ann  lee"]', "secret"),
        ([{"value": "Ann Lee", "type": "person"}], "person"),
        (json.dumps([{"value": "Ann Lee", "kind": "person"}]), "person"),
        ([[0, 2, "person", "Ann Lee"]], "person"),
    ],
)
def test_forms_of_the_secrets_column(tmp_path: Path, cell: object, kinds: str) -> None:
    write(tmp_path, "all.jsonl", secret_rows(cell))
    task = load(tmp_path, file="all.jsonl", columns={"id": "id", "secrets": "facts"})
    example = task.splits["test"][0]
    (secret,) = example.secrets
    assert secret.kind == kinds
    assert secret.value.casefold().split() == ["ann", "lee"]
    assert secret.id == f"{example.id}/1"
    assert task.gold_secrets


def test_spans_point_into_the_text(tmp_path: Path) -> None:
    rows = secret_rows(None)
    for row in rows:
        start = str(row["text"]).index("Ann")
        row["facts"] = [{"start": start, "end": start + 7, "type": "person"}]
    write(tmp_path, "all.jsonl", rows)
    task = load(tmp_path, file="all.jsonl", columns={"secrets": "facts"})
    assert {s.value for split in SPLITS for e in task.splits[split] for s in e.secrets} == {
        "Ann Lee"
    }


@pytest.mark.parametrize(
    "cell",
    [
        [{"start": 0, "end": 9_999, "type": "x"}],
        [{"start": 5, "end": 5, "type": "x"}],
        [{"start": -3, "end": 2, "type": "x"}],
        [{"start": "0", "end": 2, "type": "x"}],
        "[not json",
        [[1, 2]],
        [True],
        7,
    ],
)
def test_secrets_of_no_known_form_name_their_row(tmp_path: Path, cell: object) -> None:
    write(tmp_path, "all.jsonl", secret_rows(cell))
    with pytest.raises(DataError, match=r"line \d+: column 'facts'") as caught:
        load(tmp_path, file="all.jsonl", columns={"secrets": "facts"})
    assert "Ann" not in str(caught.value)


def test_spans_of_joined_columns_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "all.jsonl", secret_rows([{"start": 0, "end": 2, "type": "x"}]))
    with pytest.raises(DataError, match="joined from several columns"):
        load(tmp_path, file="all.jsonl", columns={"text": ["text", "id"], "secrets": "facts"})


def test_only_secrets_the_models_are_given_count(tmp_path: Path) -> None:
    write(tmp_path, "all.jsonl", secret_rows(["Ann Lee", "Bob Ray", "x"]))
    task = load(tmp_path, file="all.jsonl", columns={"secrets": "facts"})
    found = [s.value for split in SPLITS for e in task.splits[split] for s in e.secrets]
    assert found == ["Ann Lee"] * 60
    assert task.notes == ("60 secrets of the data do not occur in what the models are given",)


def test_other_columns_may_be_declared_secret(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {**row, "address": f"{n} Elm St", "lat": 40.5 + n, "cross": ["Oak Ave", "Elm St"]}
        for n, row in enumerate(rows_of(60))
    ]
    write(tmp_path, "all.jsonl", rows)
    columns = {
        "id": "id",
        "text": ["text", "address"],
        "secret_columns": ["address", "lat", "cross"],
    }
    task = load(tmp_path, file="all.jsonl", columns=columns)
    example = task.splits["test"][0]
    number = example.id.removeprefix("r")
    assert [(s.kind, s.value) for s in example.secrets] == [
        ("address", f"{number} Elm St"),
        ("cross", "Elm St"),
    ]
    assert task.gold_secrets
    assert not task.notes


def test_without_declared_secrets_the_detector_stands_in(one_file: Path) -> None:
    def detect(text: str) -> list[tuple[str, str]]:
        return [("word", text.split()[0])]

    config = parse_task({"kind": "classification", "file": "all.jsonl"})
    task = load_task(config, one_file, detect=detect)
    example = task.splits["test"][0]
    assert [(s.kind, s.value) for s in example.secrets] == [
        ("word", last_user(example.chat).split()[0])
    ]
    assert not task.gold_secrets
    assert not load_task(config, one_file).splits["test"][0].secrets


def test_declared_secrets_are_not_mixed_with_detected_ones(tmp_path: Path) -> None:
    write(tmp_path, "all.jsonl", secret_rows(["Ann Lee"]))
    config = parse_task(
        {"kind": "classification", "file": "all.jsonl", "columns": {"secrets": "facts"}}
    )
    task = load_task(config, tmp_path, detect=lambda text: [("word", text.split()[0])])
    assert {s.kind for e in task.splits["test"] for s in e.secrets} == {"secret"}


# the [task] table


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"kind": "clasification", "file": "a"}, "did you mean 'classification'"),
        ({"file": "a"}, "'kind' must be given"),
        ({"kind": "text"}, "no data"),
        ({"kind": "text", "train": "a"}, "'test' is missing"),
        ({"kind": "text", "file": "a", "test": "b"}, "do not give others"),
        ({"kind": "text", "flie": "a"}, "did you mean 'file'"),
        ({"kind": "text", "file": "a", "columns": {"txt": "a"}}, "did you mean 'text'"),
        ({"kind": "text", "file": "a", "columns": {"text": []}}, "text names no column"),
        ({"kind": "text", "file": "a", "options": {"max_token": 3}}, "did you mean 'max_tokens'"),
        ({"kind": "text", "file": "a", "options": {"max_tokens": 0}}, "not positive"),
        ({"kind": "text", "file": "a", "options": {"max_tokens": "3"}}, "must be a whole number"),
        ({"kind": "text", "file": "a", "split": {"train": 0.5}}, "add up to 0.5"),
        ({"kind": "text", "file": "a", "split": {"train": 1.5}}, "not a share"),
        ({"kind": "text", "file": "a", "split": {"trian": 1.0}}, "did you mean 'train'"),
        ({"kind": "text", "test": "a", "split": {"train": 1.0}}, "no 'train' file"),
        (
            {"kind": "text", "train": "a", "test": "b", "split": {"train": 0.5, "test": 0.5}},
            "file of its own",
        ),
        ({"kind": "text", "file": "a", "max_items": 0}, "not positive"),
        ({"kind": "text", "file": "a", "max_items": {"tset": 1}}, "did you mean 'test'"),
        (
            {
                "kind": "text",
                "file": "a",
                "columns": {"recorded": {"gpt": "p"}, "recorded_seconds": {"gpd": "s"}},
            },
            "did you mean 'gpt'",
        ),
    ],
)
def test_a_table_that_makes_no_sense_says_why(table: Mapping[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_task(table)


def test_a_table_in_full(tmp_path: Path) -> None:
    config = parse_task(
        {
            "kind": "classification",
            "name": "desk",
            "train": "train.jsonl",
            "test": ["a.jsonl", "b.jsonl"],
            "columns": {"text": "body", "target": "label"},
            "split": {"train": 0.5, "tune": 0.25, "validation": 0.25},
            "max_items": {"test": 10},
            "labels": ["a", "b"],
            "options": {"descriptions": {"a": "first"}},
        }
    )
    assert config.files == {"train": ("train.jsonl",), "test": ("a.jsonl", "b.jsonl")}
    assert config.columns.texts == ("body",)
    assert config.max_items == {"test": 10}


def test_public_questions_stand_beside_the_splits_without_answers(one_file: Path) -> None:
    more = rows_of(20, start=1000)
    write(one_file, "public.jsonl", [{"id": r["id"], "text": r["text"]} for r in more])
    task = load(one_file, file="all.jsonl", public="public.jsonl")
    assert [last_user(e.chat) for e in task.public] == [r["text"] for r in more]
    assert {e.target for e in task.public} == {""}
    assert task.public[0].chat[0] == task.splits["test"][0].chat[0]
    assert not {e.id for e in task.public} & set().union(*ids(task).values())
    assert load(one_file, file="all.jsonl").public == ()


def test_a_public_file_that_holds_private_texts_is_refused_with_the_count(one_file: Path) -> None:
    private = rows_of(300)
    rows = [*rows_of(20, start=1000), {"id": "x", "text": f"  {str(private[7]['text']).upper()}!"}]
    write(one_file, "public.jsonl", [*rows, {"id": "y", "text": private[8]["text"]}])
    with pytest.raises(DataError, match=r"holds 2 of the task's own texts among its 22") as caught:
        load(one_file, file="all.jsonl", public="public.jsonl")
    assert str(private[8]["text"]) not in str(caught.value)


def test_public_questions_alone_are_no_task(one_file: Path) -> None:
    with pytest.raises(ConfigError, match="no data"):
        load(one_file, public="all.jsonl")
