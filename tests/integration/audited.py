"""A store with some requests in it, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cosilo.boundary.messages import Ask, Completion, encode
from cosilo.gateway.accounts.accounts import RequestFacts, Spend
from cosilo.gateway.accounts.keys import read_secret
from cosilo.gateway.record.audit import Anchor, open_record
from cosilo.gateway.record.store import open_store
from cosilo.types import Generation, user

WORDS = "the content of message"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "store")
    make: Callable[[], str] = request.getfixturevalue("postgres")
    return make()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    read_secret(tmp_path / "secret", make=True)
    return tmp_path / "secret"


def fill(url: str, secret: Path, count: int = 4, **options: Any) -> list[str]:
    """Requests of two keys, each with a message out and a reply in; the keys' ids."""

    async def run() -> list[str]:
        store = await open_store(url, secret=secret, **options)
        keys = [(await store.create_key(name)).key for name in ("one", "two")]
        for i in range(count):
            request, key = f"request-{i}", keys[i % 2]
            most = Spend(usd=1.0, requests=1, entities=2)
            held = await store.accounts.reserve(key, most, request=request)
            ask, reply = Ask(chat=user(f"{WORDS} {i}")), Completion(generation=Generation("ok"))
            await store.ledger("p").append(request, "up", ask, encode(ask))
            await store.ledger("p").append(request, "down", reply, encode(reply))
            facts = RequestFacts(
                request=request, point="private", strategy="large", endpoint="chat", outcome="ok",
                by="large",
                status=200, lm_calls=1, bytes_up=len(encode(ask)), bytes_down=len(encode(reply)),
                kinds={"NAME": 1}, disputes=int(i == 3),
                sent_to="gpt at api.example.org" if i == 3 else "",
                withheld={"SECRET": 2} if i == 3 else {},
            )  # fmt: skip
            spent = Spend(usd=0.5, requests=1, entities=1)
            await store.accounts.settle(held, spent, request=facts)
        await store.close()
        return [key.id for key in keys]

    return asyncio.run(run())


@pytest.fixture
def change(url: str) -> Iterator[Callable[[str], None]]:
    """Changes the database as somebody who may write it but does not hold the secret."""
    opened: list[Any] = []

    def run(statements: str) -> None:
        if url.startswith("postgresql:"):
            import psycopg

            db = psycopg.connect(url, autocommit=True)
            db.execute("SET search_path = cosilo")
            db.execute("ALTER TABLE entries DISABLE TRIGGER ALL")
        else:
            db = sqlite3.connect(f"{url}/ledger.sqlite", isolation_level=None)
            db.execute("DROP TRIGGER IF EXISTS entries_no_update")
            db.execute("DROP TRIGGER IF EXISTS entries_no_delete")
            db.execute("ATTACH DATABASE ? AS accounts", (f"{url}/accounts.sqlite",))
        opened.append(db)
        for statement in statements.split(";"):
            if url.startswith("postgresql:"):
                statement = statement.replace("zeroblob(32)", r"'\x00'::bytea")
                statement = statement.replace("x'00'", r"'\x00'::bytea")
            assert db.execute(statement).rowcount, statement

    yield run
    for db in opened:
        db.close()


def faults(url: str, secret: Path, anchors: list[Anchor] | None = None) -> list[str]:
    with open_record(url, secret=read_secret(secret, make=False)) as record:
        return list(record.verify(anchors or []).faults)


def fill_more(url: str, secret: Path) -> None:
    async def run() -> None:
        store = await open_store(url, secret=secret)
        ask = Ask(chat=user("more"))
        await store.ledger("p").append("more", "up", ask, encode(ask))
        key = (await store.list_keys())[0].key
        held = await store.accounts.reserve(key, Spend(requests=1), request="more")
        facts = RequestFacts(
            request="more", point="p", strategy="s", endpoint="chat", outcome="ok", status=200,
            bytes_up=len(encode(ask)),
        )  # fmt: skip
        await store.accounts.settle(held, Spend(requests=1), request=facts)
        await store.close()

    asyncio.run(run())
