"""A recording outlives its writer, belongs to its owner, and is found under the same key for ever."""

from __future__ import annotations

import base64
import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from cosilo.errors import RejectedError, StoreError
from cosilo.models.kept.replay import ReplayStore, question_key, request_key, shred
from cosilo.record_keys import named
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


# Forgetting.

OLDER = """
CREATE TABLE answers (
    key BLOB PRIMARY KEY, model TEXT NOT NULL, answer BLOB NOT NULL,
    recorded_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
) WITHOUT ROWID;
CREATE TABLE scores (
    key BLOB PRIMARY KEY, model TEXT NOT NULL, scores BLOB NOT NULL,
    recorded_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
"""


def asked(i: int) -> bytes:
    return request_key("m", user(f"{SECRET} {i}"), GREEDY)


def answered(i: int) -> Generation:
    return Generation(f"noted: {SECRET} {i}!" * 20)


def filled(path: Path, count: int) -> ReplayStore:
    store = ReplayStore(path)
    for i in range(count):
        store.put(asked(i), "m", answered(i))
        store.put_reply(asked(i), "m", answered(i).text.encode())
    return store


def traces(i: int) -> Iterator[bytes]:
    for said in (answered(i).text.encode(), asked(i)):
        digest = hashlib.sha256(said)
        yield from (said, said.hex().encode(), digest.digest(), digest.hexdigest().encode())
        yield base64.b64encode(said)


def found(folder: Path, i: int) -> list[bytes]:
    stored = b"".join(file.read_bytes() for file in folder.iterdir())
    return [trace for trace in traces(i) if trace in stored]


def test_neither_a_reply_nor_the_hash_of_its_question_is_in_the_files(tmp_path: Path) -> None:
    filled(tmp_path / "r.sqlite", 3).close()
    assert found(tmp_path, 1) == []


def test_what_is_forgotten_is_asked_for_again_and_all_else_is_there(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    store, other = filled(path, 200), ReplayStore(path)
    names = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with closing(sqlite3.connect(path)) as raw:
        name = "SELECT key FROM answers WHERE key_id = (SELECT min(key_id) FROM answers)"
        first = raw.execute(name).fetchone()[0]
    gone = [asked(i) for i in range(0, 200, 3)]
    assert any(first in stored for stored in names.values())
    done = shred(path, [*gone, b"unknown"])
    assert (done.records, done.keys) == (134, 134)
    again = shred(path, gone)
    assert (again.records, again.keys, again.after) == (0, 0, done.after)
    for each in (store, other, ReplayStore(path)):
        for i in range(200):
            expected = None if i % 3 == 0 else answered(i)
            assert each.get(asked(i)) == expected
            assert (each.get_reply(asked(i)) is None) is (expected is None)
    assert store.put(asked(0), "m", Generation("anew")).text == "anew"
    store.close()
    other.close()


def test_after_forgetting_no_name_confirms_what_was_asked(tmp_path: Path) -> None:
    """By whoever has all of the folder, and tries the question under every key of names there is."""
    path = tmp_path / "r.sqlite"
    store = filled(path, 40)
    name = named(store._secret, asked(7))
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert name in stored
    shred(path, [asked(7)])
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert name not in stored
    assert store.get(asked(8)) == answered(8)
    store.close()


def test_what_an_earlier_version_recorded_is_found_and_can_be_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.executescript(OLDER)
        rows = [(asked(i), "m", msgspec.msgpack.encode(answered(i))) for i in range(40)]
        raw.executemany("INSERT INTO answers (key, model, answer) VALUES (?, ?, ?)", rows)
    store = ReplayStore(path)
    assert store.get(asked(3)) == answered(3)
    assert store.put(asked(3), "m", Generation("another")) == answered(3)  # the first stays
    assert len(store) == 40
    assert sorted(store.questions()) == sorted(asked(i) for i in range(40))
    assert found(tmp_path, 3) != []
    assert shred(path, [asked(3)]).records == 1
    assert found(tmp_path, 3) == []
    assert (store.get(asked(3)), store.get(asked(4))) == (None, answered(4))
    store.close()


def test_what_another_store_recorded_is_taken_over_whatever_hides_it(tmp_path: Path) -> None:
    here, there = filled(tmp_path / "here.sqlite", 2), filled(tmp_path / "there.sqlite", 4)
    there.inherits("new", "old")
    for _ in range(2):
        here.take_over(there)
    assert [here.get(asked(i)) for i in range(4)] == [answered(i) for i in range(4)]
    assert here.get_reply(asked(3)) == answered(3).text.encode()
    assert (len(here), here.models(), here.inherits("other", "old")) == (4, {"m"}, False)
    here.close()
    there.close()


def test_a_store_whose_keys_were_left_behind_says_so(tmp_path: Path) -> None:
    filled(tmp_path / "r.sqlite", 1).close()
    (tmp_path / "r.sqlite.keys").unlink()
    with pytest.raises(StoreError, match=r"without 'r.sqlite.keys'"):
        ReplayStore(tmp_path / "r.sqlite")
    assert not (tmp_path / "r.sqlite.keys").exists()


def test_a_reply_under_another_ones_name_is_damaged(tmp_path: Path) -> None:
    store = filled(tmp_path / "r.sqlite", 2)
    with closing(sqlite3.connect(tmp_path / "r.sqlite")) as raw, raw:
        first = "FROM answers ORDER BY key LIMIT 1"
        raw.execute(f"UPDATE answers SET (answer, key_id) = (SELECT answer, key_id {first})")
    broken = 0
    for i in range(2):
        try:
            assert store.get(asked(i)) == answered(i)
        except StoreError:
            broken += 1
    assert broken == 1
    store.close()


def test_a_store_that_is_not_there_has_nothing_to_forget(tmp_path: Path) -> None:
    assert shred(tmp_path / "none.sqlite", [b"k"]).records == 0
    assert not list(tmp_path.iterdir())
