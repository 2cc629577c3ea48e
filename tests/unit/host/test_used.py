"""What a host's books say of what its clients took."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from cosilo.boundary.messages import Ask, Completion, encode
from cosilo.cli import main
from cosilo.errors import StoreError
from cosilo.host import used as module
from cosilo.host.books import ClientBooks, HostBooks
from cosilo.host.limits import ClientLimits, Taken
from cosilo.host.used import ByClient, used
from cosilo.types import Generation, user

ASK = Ask(chat=user("what is it?"))
REPLY = Completion(generation=Generation("rest"))


async def answered(books: ClientBooks, name: str) -> None:
    payload, reply = encode(ASK), encode(REPLY)
    begun = await books.begin(name, ASK, payload, pieces=False, held=Taken(), prompts=())
    await books.end(name, begun, REPLY, reply, reply, Taken(messages=1))


def serve(folder: Path, client: str, requests: int, first: int = 0) -> None:
    books = HostBooks(folder)
    of_client = books.of(client, ClientLimits(), ClientLimits())
    for number in range(first, first + requests):
        asyncio.run(answered(of_client, f"request-{number}"))
    of_client.close()
    books.close()


def test_bytes_are_added_up_by_client_and_effort_over_all_processes(tmp_path: Path) -> None:
    serve(tmp_path, "bank", 3)
    serve(tmp_path, "clinic", 1)
    serve(tmp_path, "bank", 2, first=3)
    found = used(tmp_path)
    up, down = len(encode(ASK)), len(encode(REPLY))
    assert found.clients == {
        "bank": ByClient(5 * up, 5 * down, 5),
        "clinic": ByClient(up, down, 1),
    }
    assert found.processes == 3
    assert found.effort is not None
    assert found.effort.cpu_seconds > 0
    assert found.effort.memory > 1_000_000


def test_a_process_that_is_killed_has_noted_all_but_its_last_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    books = HostBooks(tmp_path)
    of_client = books.of("bank", ClientLimits(), ClientLimits())
    asyncio.run(answered(of_client, "one"))
    before = used(tmp_path).effort
    assert before is not None
    assert before.seconds == 0.0
    now += 1.5
    asyncio.run(answered(of_client, "two"))
    after = used(tmp_path).effort  # the books are open in a process that never closes them
    assert after is not None
    assert after.seconds == 1.5
    of_client.close()
    books.close()


def test_books_of_an_older_version_and_none_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(tmp_path, "bank", 1)
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as db:
        db.execute("DROP TABLE processes")
    assert used(tmp_path).effort is None
    assert main(["host", "used", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "bank" in said
    assert "noted neither CPU nor memory" in said
    with pytest.raises(StoreError, match="not the folder of a host's books"):
        used(tmp_path / "elsewhere")
    assert main(["host", "used", str(tmp_path), "--client", "bank"]) == 2
    assert "cosilo host used DIR" in capsys.readouterr().err
