"""What crossed can be forgotten: no byte and no guess tells it, and the chain stays whole."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cosilo.boundary.messages import Ask, Completion, encode
from cosilo.boundary.record.agreement import compare, missing
from cosilo.boundary.record.faults import verify
from cosilo.boundary.record.ledger import (
    Crossing,
    Entry,
    SqliteLedger,
    connect,
    head_mac,
    read_entries,
    recorded,
)
from cosilo.boundary.record.shredding import shred
from cosilo.errors import StoreError
from cosilo.record_keys import SPAN, FileKeys, keys_path
from cosilo.types import Generation, user

KEY = b"k" * 32


def text(i: int) -> str:
    return f"Ottilie Katzenstein-{i} owes the clinic of Sankt Veit {i}000 euros" * 3


def asked(i: int) -> Ask:
    return Ask(chat=user(text(i)))


def reply(i: int) -> Completion:
    return Completion(generation=Generation(f"noted: {text(i)}"))


def item(i: int) -> str:
    """Named as a run's items are, by a hash of what they say."""
    return f"test/{hashlib.sha256(text(i).encode()).hexdigest()[:16]}"


def put(ledger: SqliteLedger, name: str, i: int) -> None:
    async def both() -> None:
        number = await ledger.append(name, "up", asked(i), encode(asked(i)))
        await ledger.append(name, "down", reply(i), encode(reply(i)), number)

    asyncio.run(both())


def filled(path: Path, count: int = 5, *, chain: str = "trial", hide_names: bool = True) -> Path:
    ledger = SqliteLedger(path, chain, key=KEY, hide_names=hide_names)
    for i in range(count):
        put(ledger, item(i), i)
    ledger.close()
    return path


def entries(path: Path, chain: str = "trial") -> list[Entry]:
    with closing(connect(path)) as db:
        return list(read_entries(db, chain))


def faults(path: Path) -> list[str]:
    with closing(connect(path)) as db:
        return verify(db, key=KEY)


def traces(i: int) -> Iterator[bytes]:
    """What gives away, or confirms, that this was said: itself, and what is made of it alone."""
    for said in (text(i).encode(), encode(asked(i)), encode(reply(i))):
        digest = hashlib.sha256(said)
        yield from (said, digest.digest(), digest.hexdigest().encode())
        yield from (base64.b64encode(said), base64.b64encode(digest.digest()))
    yield item(i).encode()
    yield item(i).removeprefix("test/").encode()


def found(folder: Path, i: int) -> list[str]:
    """Files of `folder` that hold a trace, free pages and logs among them."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    held = {file: file.read_bytes() for file in files}
    return [file.name for file, bytes_ in held.items() if any(t in bytes_ for t in traces(i))]


def test_what_is_recorded_is_neither_in_clear_nor_guessable_from_the_ledger_alone(
    tmp_path: Path,
) -> None:
    path = filled(tmp_path / "ledger.sqlite", hide_names=False)
    names = {item(1).encode(), item(1).removeprefix("test/").encode()}
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert not [trace for trace in traces(1) if trace in stored and trace not in names]
    assert entries(path)[2].message == asked(1)
    assert entries(path)[2].content_digest == hashlib.sha256(encode(asked(1))).digest()


@pytest.mark.parametrize("hide_names", [True, False])
def test_forgotten_is_what_was_said_and_nothing_else(tmp_path: Path, hide_names: bool) -> None:
    path = filled(tmp_path / "ledger.sqlite", hide_names=hide_names)
    before = entries(path)
    (done,) = shred(path, [item(1), "unknown"], chains=None)
    assert (done.records, done.keys, done.guessable) == (2, 2, 0)
    after = entries(path)
    for old, new in zip(before, after, strict=True):
        if old.request == item(1):
            assert (new.key, new.payload, new.content_digest) == ("forgotten", None, None)
            assert new.request == ("forgotten" if hide_names else item(1))
            assert (new.kind, new.size, new.hash) == (old.kind, old.size, old.hash)
            with pytest.raises(StoreError, match="not its content"):
                _ = new.message
        else:
            assert (new, new.message, new.content_digest) == (old, old.message, old.content_digest)
    assert faults(path) == []
    assert done.after == shred(path, ["unknown"], chains=None)[0].after
    if hide_names:
        assert found(tmp_path, 1) == []
        assert found(tmp_path, 2) != []  # it is the names that the search would find


def test_no_byte_is_left_where_writers_and_readers_have_the_files_open(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.sqlite", 40)
    writer = SqliteLedger(path, "trial", key=KEY, hide_names=True)
    put(writer, item(90), 90)
    reader = connect(path)
    assert reader.execute("SELECT count(*) FROM entries").fetchone() == (82,)
    shred(path, [item(i) for i in range(0, 40, 2)] + [item(90)], chains=None)
    put(writer, item(91), 91)
    assert [i for i in (*range(0, 40, 2), 90) if found(tmp_path, i)] == []
    assert faults(path) == []
    assert entries(path)[-1].message == reply(91)  # in the block that was shredded in part
    shred(path, [item(91)], chains=None)
    assert found(tmp_path, 91) == []
    assert faults(path) == []
    reader.close()
    writer.close()


def test_a_guess_of_the_whole_text_is_confirmed_by_no_key_that_is_left(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.sqlite", SPAN)
    with closing(connect(path)) as db:
        stored = [Entry(*row) for row in db.execute("SELECT * FROM entries")]
    said = {hashlib.sha256(encode(m)).digest() for m in (asked(3), reply(3))}

    def confirmed() -> int:
        """How many entries, opened with any key there is, say what was guessed."""
        count = 0
        with closing(FileKeys(keys_path(path))) as keys:
            held = [keys.of(e.key_id) for e in stored if e.key_id is not None]
        guessed = [e for e in stored if e.request in (item(3), "forgotten")]
        for entry in guessed:
            for key in held:
                if isinstance(key, bytes):
                    other = Entry(**{**_fields(entry), "key": key})
                    count += other.content_digest in said
        return count

    assert confirmed() == 2
    shred(path, [item(3)], chains=None)
    assert confirmed() == 0


def _fields(entry: Entry) -> dict[str, object]:
    return {name: getattr(entry, name) for name in Entry.__dataclass_fields__}


def test_a_key_is_deleted_once_and_doing_it_again_does_no_harm(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.sqlite", hide_names=False)
    assert [s.keys for s in shred(path, [item(1)], chains=None)] == [2]
    assert [(s.records, s.keys) for s in shred(path, [item(1)], chains=None)] == [(2, 0)]
    assert [(s.records, s.keys) for s in shred(path, [item(1), item(2)], chains=None)] == [(4, 2)]
    assert faults(path) == []
    assert shred(tmp_path / "none.sqlite", [item(1)], chains=None) == ()


def test_keys_that_are_gone_are_a_fault_and_what_was_forgotten_is_none(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.sqlite")
    shred(path, [item(1)], chains=None)
    for ending in ("", "-wal", "-shm"):
        Path(f"{keys_path(path)}{ending}").unlink(missing_ok=True)
    assert faults(path) == [
        "trial: the keys of 10 entries are gone: nobody can say what is in them"
    ]


def test_a_name_that_is_hidden_can_be_changed_to_none_but_that_of_what_is_forgotten(
    tmp_path: Path,
) -> None:
    path = filled(tmp_path / "ledger.sqlite")
    with closing(connect(path)) as db:
        for statement in (
            "UPDATE entries SET request = 'other'",
            "UPDATE entries SET request = 'forgotten', size = 1",
        ):
            with pytest.raises(sqlite3.Error, match="append-only"):
                db.execute(statement)
        db.execute("DROP TRIGGER entries_no_update")
        db.execute("UPDATE entries SET request = 'forgotten' WHERE number = 1")
    assert faults(path) == ["trial: entry 1 was altered"]
    shred(path, [item(2)], chains=None)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TRIGGER entries_no_update")
        db.execute("UPDATE entries SET request = 'other' WHERE number = 4")
    altered, renamed = faults(path)
    assert altered == "trial: entry 1 was altered"
    assert "entry 4 is forgotten and still has a name" in renamed


# What earlier versions recorded.


def bare(path: Path, count: int) -> Path:
    """A ledger whose digests nothing masks, as an earlier version wrote it."""
    SqliteLedger(path, "trial", key=KEY).close()
    previous, rows = bytes(32), []
    for i in range(count):
        crossing = Crossing(item(i), "up", asked(i), encode(asked(i)))
        rows.append(recorded("trial", i, 0, crossing, "content", previous))
        previous = rows[-1][11]
    with closing(connect(path)) as db, db:
        db.executemany(f"INSERT INTO entries VALUES ({','.join('?' * 14)})", rows)
        head = ("trial", count, previous, head_mac(KEY, "trial", count, previous))
        db.execute("INSERT INTO heads VALUES (?,?,?,?)", head)
    return path


def test_of_what_an_earlier_version_wrote_the_content_goes_and_the_digest_stays(
    tmp_path: Path,
) -> None:
    path = bare(tmp_path / "ledger.sqlite", 60)
    ledger = SqliteLedger(path, "trial", key=KEY, hide_names=True)
    put(ledger, item(1), 1)
    ledger.close()
    (done,) = shred(path, [item(1)], chains=None)
    assert (done.records, done.keys, done.guessable) == (3, 2, 1)
    assert faults(path) == []
    (old,) = [e for e in entries(path) if e.request == item(1)]
    assert (old.payload, old.key_id) == (None, None)
    assert old.content_digest == hashlib.sha256(encode(asked(1))).digest()
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert text(1).encode() not in stored
    assert text(2).encode() in stored


# Both sides' records, and the network's.


def both_sides(tmp_path: Path) -> tuple[Path, Path, Path]:
    run = filled(tmp_path / "run.sqlite")
    network = SqliteLedger(tmp_path / "network.sqlite", "lm/1", keep="digest")
    host = SqliteLedger(tmp_path / "host.sqlite", "clinic", keep="digest")
    for i in range(5):
        for ledger in (network, host):
            put(ledger, f"id-{i}", i)
    network.close()
    host.close()
    return run, network.path, host.path


def test_what_went_over_the_network_is_found_by_what_it_said(tmp_path: Path) -> None:
    run, network, _ = both_sides(tmp_path)
    there, here = shred(run, [item(3)], also=[network, tmp_path / "none.sqlite"], chains=None)
    assert [Path(s.place).name for s in (there, here)] == ["network.sqlite", "run.sqlite"]
    assert [(s.records, s.keys) for s in (there, here)] == [(2, 2)] * 2
    forgotten = [e.request for e in entries(network, "lm/1") if e.key == "forgotten"]
    assert forgotten == ["id-3", "id-3"]
    assert faults(run) == []


@pytest.mark.parametrize("by_id", [True, False])
@pytest.mark.parametrize("side", ["here", "there", "both"])
def test_records_of_which_one_side_has_forgotten_something_still_agree(
    tmp_path: Path, by_id: bool, side: str
) -> None:
    _, network, host = both_sides(tmp_path)
    if side != "there":
        shred(network, ["id-2"], chains=None)
    if side != "here":
        shred(host, ["id-2"], chains=None)
    agreed = compare(entries(network, "lm/1"), entries(host, "clinic"), by_id=by_id)
    assert (agreed.faults, agreed.agreed, agreed.forgotten) == ((), 4, 1)


def test_what_is_forgotten_hides_no_other_difference(tmp_path: Path) -> None:
    _, network, host = both_sides(tmp_path)
    shred(host, ["id-2"], chains=None)
    ours = [e for e in entries(network, "lm/1") if e.request != "id-2"]
    for by_id in (True, False):
        agreed = compare(ours, entries(host, "clinic"), by_id=by_id)
        assert len(agreed.faults) == 1


def test_what_the_run_has_forgotten_is_not_missed_on_its_record(tmp_path: Path) -> None:
    run, network, _ = both_sides(tmp_path)
    shred(run, [item(3)], chains=None)
    assert missing(entries(network, "lm/1"), entries(run)) == 0
    shred(network, ["id-3"], chains=None)
    assert missing(entries(network, "lm/1"), entries(run)) == 0
    assert missing(entries(network, "lm/1"), entries(run)[2:]) == 2


def test_of_a_name_that_two_chains_have_only_the_one_that_is_meant_is_forgotten(
    tmp_path: Path,
) -> None:
    _, _, host = both_sides(tmp_path)
    other = SqliteLedger(host, "hospital", keep="digest")
    put(other, "id-2", 2)
    other.close()
    (done,) = shred(host, ["id-2"], chains=("clinic",))
    assert (done.records, done.keys) == (2, 2)
    assert [e.key == "forgotten" for e in entries(host, "hospital")] == [False] * 2
    assert [e.key for e in entries(host, "clinic") if e.request == "id-2"] == ["forgotten"] * 2


def alike(path: Path, chain: str) -> Path:
    """Two exchanges of one size and kind."""
    ledger = SqliteLedger(path, chain, keep="digest")
    for i in (1, 2):
        put(ledger, f"id-{i}", i)
    ledger.close()
    return path


@pytest.mark.parametrize("first", [1, 2])
def test_two_sides_that_forgot_different_exchanges_of_one_size_still_agree(
    tmp_path: Path, first: int
) -> None:
    ours, theirs = alike(tmp_path / "ours.sqlite", "lm/1"), alike(tmp_path / "theirs.sqlite", "us")
    shred(ours, [f"id-{first}"], chains=None)
    shred(theirs, [f"id-{3 - first}"], chains=None)
    for by_id in (True, False):
        agreed = compare(entries(ours, "lm/1"), entries(theirs, "us"), by_id=by_id)
        assert (agreed.faults, agreed.agreed, agreed.forgotten) == ((), 0, 2)
    assert missing(entries(ours, "lm/1"), entries(theirs, "us")) == 0
    assert missing(entries(theirs, "us"), entries(ours, "lm/1")) == 0
    lost = [e for e in entries(theirs, "us") if e.request != f"id-{first}"]
    assert missing(entries(theirs, "us"), lost) == 2


# Stopped in the middle.

KILLED = """
import sys
from pathlib import Path
from cosilo.boundary.record.shredding import shred
print("ready", flush=True)
sys.stdin.readline()
shred(Path(sys.argv[1]), sys.argv[2:], chains=None)
"""


def test_killed_at_any_moment_it_is_done_again_and_ends_the_same(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.sqlite", 60)
    draw = random.Random(5)
    names = [item(i) for i in range(0, 60, 3)]
    for name in names[:8]:
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.stdin.write("\n")
            process.stdin.flush()
            time.sleep(draw.uniform(0, 0.03))
            os.kill(process.pid, signal.SIGKILL)
        assert all("forgetting it was stopped" in fault for fault in faults(path))
        for entry in entries(path):  # all of it is there, or nothing
            assert entry.key == "forgotten" or entry.message is not None
    shred(path, names, chains=None)
    assert [i for i in range(0, 60, 3) if found(tmp_path, i)] == []
    assert faults(path) == []
    assert sum(e.key == "forgotten" for e in entries(path)) == 40


def test_a_log_that_a_reader_keeps_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosilo.record_keys.PATIENCE_S", 0.05)
    path = filled(tmp_path / "ledger.sqlite", hide_names=False)
    with closing(connect(keys_path(path))) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM blocks").fetchall()
        with pytest.raises(StoreError, match=r"(locked|nobody reads it)"):
            shred(path, [item(1)], chains=None)
        reader.execute("COMMIT")
    assert [s.records for s in shred(path, [item(1)], chains=None)] == [2]
    assert entries(path)[2].key == "forgotten"


def test_an_entry_under_another_ones_key_is_no_message(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger.sqlite")
    with closing(connect(path)) as db:
        db.execute("UPDATE entries SET payload = (SELECT payload FROM entries WHERE number = 0)"
                   " WHERE number = 2")  # fmt: skip
    assert faults(path) == ["trial: the content of entry 2 was altered"]
