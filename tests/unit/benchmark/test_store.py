"""A run's folder keeps what was worked out, whole or not at all, and for one process at a time."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cosilo.benchmark.rows import Result, Trial
from cosilo.benchmark.small_answers import SmallAnswers
from cosilo.benchmark.store import Store
from cosilo.boundary.messages import Ask, encode
from cosilo.boundary.record.ledger import SqliteLedger
from cosilo.clock import Effort
from cosilo.errors import ConfigError, RunBusyError, StoreError
from cosilo.objectives.base import Item, Measurement, Objective
from cosilo.strategies.cards import Card
from cosilo.tasks.base import Example, Secret, Task
from cosilo.types import Answer, Generation, Sampling, user

EXAMPLES = tuple(
    Example(f"e{i}", user(f"question {i}"), ("yes",), (Secret(f"s{i}", "person", "Ada"),))
    for i in range(3)
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "run", write=True)
    yield found
    found.close()


def item(example: Example, text: str = "yes") -> Item:
    answer = Answer(Generation(text), by="large", confidence=0.5)
    return Item(example, answer, grade=1.0, seconds=0.5, cpu_seconds=0.25, small_text="no")


def test_items_come_back_as_they_were_in_the_examples_order(store: Store) -> None:
    store.add_items("t", "plain", "test", 4, [(item(EXAMPLES[2]), ""), (item(EXAMPLES[0]), "")])
    assert store.items("t", "plain", "test", EXAMPLES) == (item(EXAMPLES[0]), item(EXAMPLES[2]))
    assert store.answered("t", "plain", "test") == {"e0": 4, "e2": 4}
    assert store.items("t", "tampered", "test", EXAMPLES) == ()
    assert store.items("t", "plain", "validation", EXAMPLES) == ()


def test_a_group_of_items_is_kept_whole_or_not_at_all(store: Store) -> None:
    def failing() -> Iterator[tuple[Item, str]]:
        yield item(EXAMPLES[0]), ""
        raise KeyError("x")

    with pytest.raises(KeyError):
        store.add_items("t", "plain", "test", 0, failing())
    assert store.answered("t", "plain", "test") == {}


def test_refused_items_are_counted(store: Store) -> None:
    store.add_items(
        "t", "plain", "test", 0, [(item(EXAMPLES[0]), ""), (item(EXAMPLES[1]), "PrivacyError")]
    )
    assert store.refused("t", "test") == 1


def test_trials_and_results_come_back(store: Store) -> None:
    trial = Trial("t", "cascade", "{}", "done", 2, 1000, "")
    store.put_trial(trial)
    assert store.trial("t") == trial
    assert store.trial("other") is None
    utility = Objective("utility", "utility", "max", "")
    result = Result((Measurement(utility, 0.5, 3, 0.1, 0.9),), {"utility": np.array([0.0, 1.0])})
    store.put_result("t", "test", "v1", result)
    found = store.result("t", "test", "v1")
    assert found is not None
    assert found.measurements == result.measurements
    np.testing.assert_array_equal(found.values["utility"], [0.0, 1.0])
    assert store.result("t", "test", "v2") is None
    assert store.result("t", "test") is not None
    assert store.result("t", "validation") is None


def test_the_task_is_kept_so_that_scoring_needs_no_data_file(store: Store) -> None:
    task = Task(
        "desk", "classification", {"test": EXAMPLES}, lambda e, a: 1.0, labels=("a", "b"),
        notes=("n",),
    )  # fmt: skip
    store.keep_task("id", task)
    store.keep_task("id", task)
    assert store.examples("id", "test") == EXAMPLES
    assert store.examples("id", "train") == ()
    about = store.about("id")
    assert (about.name, about.labels, about.gold_secrets) == ("desk", ("a", "b"), True)
    with pytest.raises(StoreError):
        store.about("other")


def test_what_an_interrupted_attempt_sent_is_not_counted(store: Store) -> None:
    ask = Ask(chat=user("q"))
    for requests in (("test/e0", "tune/x", "test/e1"), ("tune/x", "test/e1", "validation/e1")):
        ledger = SqliteLedger(store.ledger_path, "t")
        for request in requests:
            asyncio.run(ledger.append(request, "up", ask, encode(ask)))
        ledger.close()
    found = [(e.request, e.attempt) for e in store.record("t", "test", {"e0": 0, "e1": 1})]
    assert found == [("e0", 0), ("e1", 1)]
    prepared = list(store.prepare_record("t", 1, ("validation", "certificate", "test")))
    assert [(e.request, e.attempt) for e in prepared] == [("tune/x", 1)]
    assert not store.proved("t")
    ledger = SqliteLedger(store.ledger_path, "t")
    asyncio.run(ledger.append("test/e1", "down", ask, encode(ask)))
    ledger.close()
    assert store.proved("t")


def test_the_small_models_answers_outlive_the_process(store: Store) -> None:
    memory, other = SmallAnswers(store, "small-1"), SmallAnswers(store, "small-2")
    answer = Generation("yes", seconds=0.5)
    memory.put(user("q"), Sampling(), answer)
    assert SmallAnswers(store, "small-1").get(user("q"), Sampling()) == answer
    assert memory.get(user("q"), Sampling(max_tokens=3)) is None
    assert memory.get(user("r"), Sampling()) is None
    assert other.get(user("q"), Sampling()) is None


def test_what_attempts_to_prepare_took_is_added_up(store: Store) -> None:
    assert store.preparing("t") is None
    store.add_preparing("t", Effort(1.5, 2.0, 900))
    store.add_preparing("t", Effort(0.5, 0.25, 400))
    store.add_preparing("other", Effort(9.0, 9.0, 9000))
    assert store.preparing("t") == Effort(2.0, 2.25, 900)


def test_files_can_be_read_by_their_owner_only(store: Store) -> None:
    store.write_text("plan.toml", "x")
    SqliteLedger(store.ledger_path, "t").close()
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o700
    for path in store.path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_two_processes_do_not_work_on_one_run(store: Store) -> None:
    with pytest.raises(RunBusyError, match=str(os.getpid())):
        Store(store.path, write=True)
    Store(store.path, write=False).close()
    store.close()
    Store(store.path, write=True).close()


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run"):
        Store(tmp_path, write=False)


def test_what_is_missing_from_a_run_is_named(store: Store) -> None:
    (store.path / "plan.toml").unlink(missing_ok=True)
    with pytest.raises(StoreError, match=r"No such file or directory \(.*plan\.toml\)"):
        store.read_text("plan.toml")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "run.sqlite").write_bytes(b"x" * 4096)
    with pytest.raises(StoreError, match="cannot be read or written"):
        Store(tmp_path, write=False)


def test_a_full_disk_is_a_store_error_and_keeps_what_there_was(store: Store) -> None:
    store.add_items("t", "plain", "test", 0, [(item(EXAMPLES[0]), "")])
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full"):
        store.add_items("t", "plain", "test", 0, [(item(EXAMPLES[1], "x" * 999_999), "")])
    assert store.answered("t", "plain", "test") == {"e0": 0}
    assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_read_only_folder_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be read or written"):
        Store(tmp_path / "file" / "run", write=True)


def test_what_preparing_found_is_kept_per_pass(store: Store) -> None:
    card = Card(by="s", title="t", facts={"kept": 3, "share": 0.5, "how": "x"}, examples=("text",))
    store.put_cards("t", "plain", (card, card))
    store.put_cards("t", "tampered", ())
    store.put_cards("t", "plain", (card,))
    assert store.cards("t") == (card,)
    assert store.cards("t", "tampered") == store.cards("other") == ()


def test_whoever_only_reads_makes_no_ledger(tmp_path: Path) -> None:
    Store(tmp_path / "run", write=True).close()
    (tmp_path / "run" / "ledger.sqlite").unlink(missing_ok=True)
    store = Store(tmp_path / "run", write=False)
    assert list(store.record("trial", "test", {})) == []
    assert list(store.prepare_record("trial", 0, ("test",))) == []
    assert not store.proved("trial")
    store.close()
    assert not (tmp_path / "run" / "ledger.sqlite").exists()
