"""What is asked of a record, on the command line too, and its archive."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.integration.audited import WORDS, fill, fill_more
from tests.integration.audited import secret as secret
from tests.integration.audited import url as url

from cosilo.boundary.messages import Ask, encode
from cosilo.boundary.record.ledger import SqliteLedger, connect
from cosilo.cli import main
from cosilo.gateway.accounts.accounts import Spend
from cosilo.gateway.record.audit import open_record
from cosilo.gateway.record.retention import read_vault
from cosilo.gateway.record.store import open_store
from cosilo.types import user


def test_what_left_for_this_request_this_key_this_day(url: str, secret: Path) -> None:
    keys = fill(url, secret)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    with open_record(url) as record:

        def names(**what: Any) -> list[str]:
            return [left.request for left in record.left(**what)]

        assert names(request="request-2") == ["request-2"]
        assert names(request="none") == []
        assert names(key=keys[1]) == ["request-1", "request-3"]
        assert names(request="request-0", key=keys[1]) == []
        assert names(since=today - 86400, until=today + 2 * 86400) == [
            f"request-{i}" for i in range(4)
        ]
        assert names(until=today - 86400) == []
        assert names(key=keys[0], until=today - 86400) == []
        assert [record.key_id(given) for given in ("two", keys[1])] == [keys[1]] * 2
        (left,) = record.left(request="request-2")
    assert left.row is not None
    assert (left.row.key, left.row.spent.usd, left.row.kinds) == (keys[0], 0.5, {"NAME": 1})
    assert [(e.direction, e.kind) for e in left.entries] == [("up", "Ask"), ("down", "Completion")]


def test_the_command_line_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "store")
    assert main(["audit", "content-key", str(tmp_path / "content.keys")]) == 0
    vault = read_vault(tmp_path / "content.keys")
    secret = tmp_path / "store" / "secret"
    keys = fill(url, secret, keep="content", vault=vault)
    capsys.readouterr()
    assert main(["audit", "verify", url]) == 0
    shown = capsys.readouterr().out
    assert "no faults in 8 entries of 1 chains and 4 finished requests" in shown
    assert "8 sealed contents were not checked" in shown
    assert main(["audit", "show", url, "--key", keys[0]]) == 0
    shown = capsys.readouterr().out
    assert shown.count(" left: Ask") == 2
    assert "2 NAME; $1.000000" in shown
    assert WORDS not in shown
    assert main(["audit", "show", url, "--key", "one"]) == 0
    assert capsys.readouterr().out == shown
    assert main(["audit", "show", url, "--key", "ome"]) == 2
    assert "did you mean 'one'?" in capsys.readouterr().err
    assert main(["audit", "show", url, "--key", f"cosilo_{keys[0]}_secret"]) == 0
    assert capsys.readouterr().out == shown
    assert main(["audit", "show", url, "--key", "cosilo_another_secret"]) == 2
    assert "secret" not in capsys.readouterr().err
    assert "disputed" not in shown
    assert main(["audit", "show", url, "--request", "request-3"]) == 0
    said = capsys.readouterr().out
    assert "disputed: 1 replies claimed more tokens" in said
    assert "processed: home, gpt at api.example.org\n" in said
    assert main(["audit", "show", url, "--request", "request-9"]) == 1
    assert "no request 'request-9' is on record" in capsys.readouterr().err
    assert main(["audit", "show", url, "--request", "request-1", "--key", "one"]) == 1
    assert main(["audit", "show", url, "--day", "2020-01-01"]) == 0  # a day may be quiet
    assert "nothing is on record for that" in capsys.readouterr().out
    sealed = ["--content", "--content-keys", str(tmp_path / "content.keys")]
    assert main(["audit", "show", url, "--request", "request-1", *sealed]) == 0
    assert f"{WORDS} 1" in capsys.readouterr().out
    assert main(["audit", "heads", url]) == 0
    (tmp_path / "heads").write_text(capsys.readouterr().out)
    for days in ("-1", "nan", "inf"):
        assert main(["audit", "purge", url, "--days", days]) == 2
    capsys.readouterr()
    assert main(["audit", "purge", url, "--days", "0"]) == 0
    assert "8 contents forgotten" in capsys.readouterr().out
    assert main(["audit", "verify", url, "--heads", str(tmp_path / "heads")]) == 0
    db = sqlite3.connect(f"{url}/ledger.sqlite")
    db.execute("DROP TRIGGER entries_no_delete")
    db.execute("DELETE FROM entries WHERE number = 7")
    db.commit()
    db.close()
    assert main(["audit", "verify", url]) == 1
    assert "the head counts 8 entries, the ledger holds 7" in capsys.readouterr().out
    assert main(["audit", "show", url]) == 2
    assert main(["audit", "show", url, "--day", "today"]) == 2
    assert main(["audit", "verify", str(tmp_path / "none")]) == 2
    assert main(["audit", "verify", url, "--heads", str(tmp_path / "none")]) == 2
    secret.rename(tmp_path / "elsewhere")
    capsys.readouterr()
    assert main(["audit", "verify", url]) == 2
    assert "secret" in capsys.readouterr().err
    assert main(["audit", "verify", url, "--secret", str(tmp_path / "elsewhere")]) == 1
    monkeypatch.setenv("COSILO_SECRET", (tmp_path / "elsewhere").read_text().strip())
    assert main(["audit", "verify", url]) == 1
    assert "seal" not in capsys.readouterr().out


ADDED = (
    ("requests", "disputes"), ("requests", "sent_to"), ("requests", "withheld"),
    ("keys", "local_only"),
)  # fmt: skip
"""(table, column) that earlier versions had not."""


def test_a_store_of_an_older_version_is_read_and_then_used(
    url: str, secret: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(url, secret)
    assert main(["audit", "show", url, "--request", "request-3"]) == 0
    assert "  placeholders left in answers: 2 SECRET\n" in capsys.readouterr().out
    if url.startswith("postgresql:"):
        import psycopg

        with psycopg.connect(url, autocommit=True) as db:
            for table, column in ADDED:
                db.execute(f"ALTER TABLE cosilo.{table} DROP COLUMN {column}")
    else:
        local = sqlite3.connect(f"{url}/accounts.sqlite")
        for table, column in ADDED:
            local.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        local.close()
    assert main(["audit", "verify", url, "--secret", str(secret)]) == 0
    assert main(["audit", "show", url, "--request", "request-3"]) == 0
    told = capsys.readouterr().out
    assert "disputed" not in told
    assert "placeholders left" not in told
    fill_more(url, secret)
    assert main(["audit", "show", url, "--request", "request-3"]) == 0
    assert "disputed" not in capsys.readouterr().out


def test_the_ledger_of_a_run_is_verified_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite", "trial")
    ask = Ask(chat=user("hello"))
    asyncio.run(ledger.append("test/1", "up", ask, encode(ask)))
    ledger.close()
    for where in (tmp_path, tmp_path / "ledger.sqlite"):
        assert main(["audit", "verify", str(where)]) == 0
        assert "whoever can write the file can make them anew" in capsys.readouterr().out
    assert main(["audit", "show", str(tmp_path), "--request", "test/1", "--content"]) == 0
    assert '"hello"' in capsys.readouterr().out


# An archive: the same record in two places, and no entry lost between them.


@pytest.fixture
def archived(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A store whose first four requests were archived and that went on with four more."""
    store, folder, secret = tmp_path / "store", tmp_path / "old", tmp_path / "store" / "secret"
    fill(str(store), secret)
    assert main(["audit", "archive", str(store), str(folder)]) == 0
    fill_more(str(store), secret)
    return store, folder, secret


def test_an_archive_and_what_goes_on_from_it_are_whole(
    archived: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store, folder, secret = archived
    assert main(["audit", "verify", str(store)]) == 0
    assert main(["audit", "verify", str(folder), "--secret", str(secret)]) == 0
    assert "8 entries of 1 chains and 4 finished requests" in capsys.readouterr().out
    assert main(["audit", "show", str(folder), "--request", "request-2"]) == 0
    assert main(["audit", "show", str(folder), "--key", "one"]) == 2  # it has no names
    assert "worker-0 #4" in capsys.readouterr().out
    assert main(["audit", "show", str(store), "--request", "more"]) == 0
    assert "worker-0 #8" in capsys.readouterr().out
    with connect(store / "ledger.sqlite") as db:
        assert db.execute("SELECT number, attempt FROM entries").fetchall() == [(8, 1)]


def test_the_archives_heads_show_that_the_store_goes_on_there(
    archived: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, folder, _ = archived
    capsys.readouterr()
    main(["audit", "heads", str(folder)])
    noted = tmp_path / "heads.jsonl"
    noted.write_text(capsys.readouterr().out)
    assert main(["audit", "verify", str(store), "--heads", str(noted)]) == 0
    noted.write_text(noted.read_text().replace('"hash":"', '"hash":"00'))
    assert main(["audit", "verify", str(store), "--heads", str(noted)]) == 1
    noted.write_text('{"chain":"worker-0","count":3,"hash":"00"}')
    assert main(["audit", "verify", str(store), "--heads", str(noted)]) == 0
    assert "1 noted heads lie in an archive" in capsys.readouterr().out


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE bases SET count = 4",
        "UPDATE bases SET at = at + 1e9",
        "UPDATE bases SET hash = zeroblob(32)",
        "UPDATE bases SET mac = (SELECT mac FROM heads)",
        "DELETE FROM bases",
    ],
)
def test_a_base_that_was_changed_is_found(
    archived: tuple[Path, Path, Path], statement: str
) -> None:
    store, _, _ = archived
    with connect(store / "ledger.sqlite") as db:
        db.execute(statement)
    assert main(["audit", "verify", str(store)]) == 1


def test_a_head_of_long_ago_is_no_base(tmp_path: Path) -> None:
    """Whoever noted a sealed head cannot drop what came before it."""
    store = tmp_path / "store"
    fill(str(store), store / "secret", 2)
    with connect(store / "ledger.sqlite") as db:
        old = db.execute("SELECT chain, count, hash, mac FROM heads").fetchone()
    fill_more(str(store), store / "secret")
    with connect(store / "ledger.sqlite") as db:
        db.execute("DROP TRIGGER entries_no_delete")
        db.execute("DELETE FROM entries WHERE number < ?", (old[1],))
        db.execute("INSERT INTO bases VALUES (?,?,?,0,1e12,?)", old)
    assert main(["audit", "verify", str(store)]) == 1


def test_a_store_that_is_served_from_is_not_archived(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    fill(str(store), store / "secret")

    async def run() -> None:
        serving = await open_store(str(store))
        code = await asyncio.to_thread(main, ["audit", "archive", str(store), str(tmp_path / "a")])
        assert code != 0
        await serving.close()

    asyncio.run(run())
    assert "stop the gateway first" in capsys.readouterr().err
    (tmp_path / "there").mkdir()
    assert main(["audit", "archive", str(store), str(tmp_path / "there")]) != 0
    assert "new folder" in capsys.readouterr().err
    assert main(["audit", "verify", str(store)]) == 0


def test_what_a_killed_worker_left_is_settled_before_its_record_is_archived(tmp_path: Path) -> None:
    store = tmp_path / "store"

    async def run() -> None:
        opened = await open_store(str(store))
        key = (await opened.create_key("k")).key
        await opened.accounts.reserve(key, Spend(usd=1.0, requests=1), request="left")
        ask = Ask(chat=user("hello"))
        await opened.ledger("p").append("left", "up", ask, encode(ask))
        await opened.close()  # as when it is killed: nothing was settled

    asyncio.run(run())
    assert main(["audit", "archive", str(store), str(tmp_path / "old")]) == 0

    async def look() -> float:
        opened = await open_store(str(store), work=False)
        try:
            return (await opened.list_keys())[0].used.usd
        finally:
            await opened.close()

    assert asyncio.run(look()) == 1.0
