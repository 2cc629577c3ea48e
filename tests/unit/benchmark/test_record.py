"""A run notes what its ledger held, item by item; what is not borne out gives no number."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cosilo.benchmark.record import OLDER, Survey, chain_of, fault, mend, note_heads, survey
from cosilo.benchmark.rows import Mark, State, Trial
from cosilo.benchmark.store import Store
from cosilo.boundary.messages import Ask, encode
from cosilo.boundary.record.ledger import SqliteLedger
from cosilo.objectives.base import Item
from cosilo.tasks.base import Example
from cosilo.types import Answer, Generation, user

TRIAL = Trial("t", "large", "{}", "done", 0)
ASK = Ask(chat=user("q"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "run", write=True)
    found.put_trial(TRIAL)
    yield found
    found.close()


def sent(ledger: SqliteLedger, request: str, times: int = 1) -> Mark:
    for _ in range(times):
        asyncio.run(ledger.append(request, "up", ASK, encode(ASK)))
    return Mark(*ledger.head, ledger.sent(request))


def answer(
    store: Store, id: str, mark: Mark | None, *, by: str = "large", refused: str = ""
) -> None:
    item = Item(Example(id, user(id), ("yes",)), Answer(Generation("yes"), by=by), 1.0)  # type: ignore[arg-type]
    store.add_items(
        "t", "plain", "test", 0, [(item, refused)], {("plain", id): mark} if mark else None
    )


def mended(store: Store) -> str:
    return "\n".join(mend(store, survey(store, ["t"])))


def left(store: Store) -> set[str]:
    return set(store.answered("t", "plain", "test"))


def test_what_is_on_record_as_it_was_noted_is_whole(store: Store) -> None:
    ledger = SqliteLedger(store.ledger_path, "t")
    answer(store, "a", sent(ledger, "test/a", 2))
    answer(store, "b", Mark(*ledger.head), by="small")
    answer(store, "c", Mark(*ledger.head), by="both", refused="PrivacyError")
    ledger.close()
    note_heads(store, TRIAL)
    assert fault(store, TRIAL) == ""
    assert mended(store) == ""
    assert left(store) == {"a", "b", "c"}


@pytest.mark.parametrize("by", ["large", "both"])
def test_an_answer_of_the_lm_without_entries_gives_no_number(store: Store, by: str) -> None:
    ledger = SqliteLedger(store.ledger_path, "t")
    answer(store, "a", sent(ledger, "test/a"))
    answer(store, "b", Mark(*ledger.head), by=by)
    ledger.close()
    note_heads(store, TRIAL)
    assert fault(store, TRIAL) == "of 1 answers, not all that left for them is on record"
    assert "1 answers are made again" in mended(store)
    assert left(store) == {"a"}
    assert store.trial("t") == Trial("t", "large", "{}", "new", 0)


def test_an_answer_that_sent_more_than_is_on_record_gives_no_number(store: Store) -> None:
    ledger = SqliteLedger(store.ledger_path, "t")
    mark = sent(ledger, "test/a", 2)
    answer(store, "a", Mark(mark.count, mark.hash, 3))
    ledger.close()
    note_heads(store, TRIAL)
    assert fault(store, TRIAL) == "of 1 answers, not all that left for them is on record"


def test_another_attempts_messages_do_not_count(store: Store) -> None:
    first = SqliteLedger(store.ledger_path, "t")
    sent(first, "test/a", 2)
    first.close()
    second = SqliteLedger(store.ledger_path, "t")
    assert (second.attempt, sent(second, "test/a").sent) == (1, 1)
    second.close()


def test_a_trial_that_sends_nothing_needs_no_ledger(store: Store) -> None:
    answer(store, "a", Mark(0, bytes(32)), by="small")
    note_heads(store, TRIAL)
    for file in store.path.glob("ledger.sqlite*"):
        file.unlink()
    assert fault(store, TRIAL) == ""


def test_a_run_of_an_older_version_gives_no_number_until_it_is_run_again(store: Store) -> None:
    ledger = SqliteLedger(store.ledger_path, "t")
    sent(ledger, "test/a")
    answer(store, "a", None)
    ledger.close()
    assert fault(store, TRIAL) == OLDER
    assert survey(store, ["another"]) == Survey()  # what is not in the plan is left as it is
    assert left(store) == {"a"}
    assert OLDER in mended(store)
    assert left(store) == set()


def test_only_answers_after_the_end_of_the_record_are_made_again(
    store: Store, tmp_path: Path
) -> None:
    ledger = SqliteLedger(store.ledger_path, "t")
    answer(store, "a", sent(ledger, "test/a"))
    ledger.close()
    shutil.copy(store.ledger_path, tmp_path / "older")
    ledger = SqliteLedger(store.ledger_path, "t")
    answer(store, "b", sent(ledger, "test/b"))
    answer(store, "c", Mark(*ledger.head), by="small")
    ledger.close()
    shutil.copy(tmp_path / "older", store.ledger_path)
    store.put_trial(Trial("t", "large", "{}", "new", 0))
    assert mended(store).startswith("large: its record ends too early; 2 answers are made again")
    assert left(store) == {"a"}
    assert not list(store.path.glob("ledger.damaged*"))


def test_a_changed_record_is_set_aside_and_a_new_one_begun(store: Store) -> None:
    store.put_trial(Trial("t", "large", "{}", "new", 0))
    for round in (1, 2):
        ledger = SqliteLedger(store.ledger_path, "t")
        answer(store, "a", sent(ledger, "test/a", 3))
        ledger._db.execute("DROP TRIGGER entries_no_delete")
        ledger._db.execute("DELETE FROM entries WHERE number = 1")
        ledger.close()
        said = mended(store)
        assert "its record was changed: entry 1 is missing" in said
        assert f"ledger.damaged-{round}.sqlite" in said
        assert left(store) == set()
        assert len(list(store.path.glob("ledger.damaged-*.sqlite"))) == round
        assert not store.path.joinpath("ledger.sqlite").exists()


@pytest.mark.parametrize("times", [1, 3, 5])
@pytest.mark.parametrize("state", ["new", "done"])
def test_a_record_made_anew_is_not_taken_for_an_older_one(
    store: Store, times: int, state: State
) -> None:
    ledger = SqliteLedger(store.ledger_path, "t")
    answer(store, "a", sent(ledger, "test/a"))
    answer(store, "b", sent(ledger, "test/b", 2))
    ledger.close()
    note_heads(store, TRIAL)
    store.put_trial(replace(TRIAL, state=state))
    for file in store.path.glob("ledger.sqlite*"):
        file.unlink()
    ledger = SqliteLedger(store.ledger_path, "t")
    sent(ledger, "test/a", times)
    ledger.close()
    said = mended(store)
    assert "ledger.damaged-1.sqlite" in said
    if times < 5 or state == "new":
        assert "large: its record was made anew" in said
    assert left(store) == set()


def test_a_record_of_tampered_replies_counts_as_well(store: Store) -> None:
    ledger = SqliteLedger(store.ledger_path, chain_of("t", "tampered"))
    sent(ledger, "test/a")
    ledger.close()
    note_heads(store, TRIAL)
    assert fault(store, TRIAL) == ""
    for file in store.path.glob("ledger.sqlite*"):
        file.unlink()
    assert fault(store, TRIAL).startswith("with replies tampered with, its record is gone")


def test_heads_are_noted_once_the_ledger_is_on_the_disk(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("os.fsync", lambda handle: said.append("synced"))
    put = Store.put_heads
    monkeypatch.setattr(
        Store, "put_heads", lambda *arguments: (said.append("noted"), put(*arguments))
    )
    ledger = SqliteLedger(store.ledger_path, "t")
    sent(ledger, "test/a")
    note_heads(store, TRIAL)
    ledger.close()
    assert said == ["synced", "noted"]  # its write-ahead log holds what is not in the file
