"""A process that spends from one key as fast as it can: `python racer.py URL SECRET BEARER N`.

Every third request is a stream: it starts with half of what it may need and asks for the rest on the
way. Prints how many were admitted, how many refused.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from cosilo.gateway.accounts.accounts import OverBudgetError, RequestFacts, Reservation, Spend
from cosilo.gateway.record.store import open_store

PRICE = 0.07


def facts(request: str, stream: bool) -> RequestFacts:
    return RequestFacts(
        request=request, point="p", strategy="large", endpoint="chat", outcome="ok", status=200,
        stream=stream, lm_calls=1,
    )  # fmt: skip


async def main(url: str, secret: str, bearer: str, count: int) -> None:
    store = await open_store(url, secret=Path(secret))
    key = await store.accounts.authenticate(bearer)
    assert key is not None
    admitted = refused = 0

    async def one(number: int) -> None:
        nonlocal admitted, refused
        request = f"{store.ledger('').chain}/{number}"  # type: ignore[attr-defined]
        stream = number % 3 == 0
        parts = [PRICE / 2, PRICE / 2] if stream else [PRICE]
        held: list[Reservation] = []
        try:
            for i, usd in enumerate(parts):
                most = Spend(usd=usd, requests=int(i == 0))
                held.append(await store.accounts.reserve(key, most, request=request))
                await asyncio.sleep(0)
        except OverBudgetError:
            refused += 1
            spent = Spend(requests=1)
        else:
            admitted += 1
            spent = Spend(usd=PRICE, requests=1)
        for reservation in held:
            await store.accounts.settle(reservation, spent, request=facts(request, stream))
            await store.accounts.settle(reservation, spent, request=facts(request, stream))
            spent = Spend()

    await asyncio.gather(*(one(i) for i in range(count)))
    print(admitted, refused)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
