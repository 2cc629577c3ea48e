"""A worker that is killed with requests under way: `python dying.py URL SECRET BEARER`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from racer import facts

from cosilo.boundary.messages import Ask, encode
from cosilo.gateway.accounts.accounts import Spend
from cosilo.gateway.record.store import open_store
from cosilo.types import user


async def main(url: str, secret: str, bearer: str) -> None:
    store = await open_store(url, secret=Path(secret))
    accounts, ledger = store.accounts, store.ledger("p")
    key = await accounts.authenticate(bearer)
    assert key is not None
    most = Spend(usd=1.0, tokens_in=10, tokens_out=100, requests=1, entities=3)
    ask = Ask(chat=user("hello"))
    for request in ("left", "not-left", "half-settled", "finished"):
        first = await accounts.reserve(key, most, request=request)
        if request != "not-left":
            await ledger.append(request, "up", ask, encode(ask))
        if request in ("half-settled", "finished"):
            second = await accounts.reserve(key, Spend(usd=0.5), request=request)
            spent = Spend(usd=0.25, tokens_in=5, tokens_out=7, requests=1, entities=1)
            await accounts.settle(first, spent, request=facts(request, False))
            if request == "finished":
                await accounts.settle(second, Spend(), request=facts(request, False))
    print("ready", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
