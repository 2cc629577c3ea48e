"""A recording outlives its writer, belongs to its owner, and is found under the same key for ever."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from cosilo.errors import RejectedError, StoreError
from cosilo.models.kept.replay import ReplayStore, question_key, request_key
from cosilo.types import Generation, Sampling, Turn, user

GREEDY = Sampling()
SECRET = "Ottilie Katzenstein"


def test_recorded_answers_are_their_owners_alone(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path / "replay.sqlite")
    store.put(b"key", "model", Generation(SECRET))
    assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {0}
    store.close()


def test_the_key_holds_everything_that_was_asked() -> None:
    base = ("m", user("q"), GREEDY)
    others = [
        ("m2", user("q"), GREEDY),
        ("m", user("q", system="s"), GREEDY),
        ("m", (Turn("assistant", "q"),), GREEDY),
        ("m", user("q"), Sampling(temperature=0.5)),
        ("m", user("q"), Sampling(choices=("a", "b"))),
        ("m", user("q"), Sampling(choices=("b", "a"))),
        ("m", user("q"), Sampling(response_format="{}")),
    ]
    keys = {request_key(*base), *(request_key(*o) for o in others)}
    assert len(keys) == len(others) + 1
    # Recorded answers must outlive this release: a changed key would mean paying for all again.
    assert request_key(*base).hex().startswith("4dcde3911a1ddc66")


def test_no_unicode_is_refused() -> None:
    with pytest.raises(RejectedError):
        request_key("m", user("\ud800"), GREEDY)


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"r\.sqlite"):
        ReplayStore(tmp_path / "r.sqlite")
    with pytest.raises(StoreError, match="nowhere"):
        ReplayStore(tmp_path / "nowhere" / "r.sqlite")


def test_a_damaged_answer_is_an_error_not_a_miss(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path / "r.sqlite")
    store.put(b"k", "m", Generation("x"))
    store.close()
    with sqlite3.connect(tmp_path / "r.sqlite") as raw:
        raw.execute("UPDATE answers SET answer = x'c1'")
    raw.close()
    store = ReplayStore(tmp_path / "r.sqlite")
    with pytest.raises(StoreError, match="damaged"):
        store.get(b"k")
    store.close()


def test_the_first_recording_stays(tmp_path: Path) -> None:
    here, there = ReplayStore(tmp_path / "r.sqlite"), ReplayStore(tmp_path / "r.sqlite")
    assert here.put(b"k", "m", Generation("first")).text == "first"
    assert there.put(b"k", "m", Generation("second")).text == "first"
    assert len(here) == len(there) == 1
    here.close()
    there.close()
    there.close()


def test_what_is_asked_by_name_has_one_key_in_any_order() -> None:
    asked = {"chat": user("q"), "sampling": GREEDY}
    assert question_key("m", asked) == request_key("m", user("q"), GREEDY)
    assert question_key("m", dict(reversed(asked.items()))) == question_key("m", asked)
    # So are the keys of scores and states, of which a message's whole encoding counts.
    assert question_key("m", {"score": b"q"}).hex().startswith("6d63c06b8e3c46fb")


def test_replies_of_other_kinds_are_kept_as_they_were_put(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path / "r.sqlite")
    assert store.get_reply(b"k") is None
    assert store.put_reply(b"k", "m", b"first") == b"first"
    assert store.put_reply(b"k", "m", b"second") == store.get_reply(b"k") == b"first"
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.get_reply(b"k")
