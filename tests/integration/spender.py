"""A process that spends ε = 1 at a time from a book: `python spender.py BOOK LIMIT TRIES TEXT…`.

It prints a line once it is ready, begins when a line comes, and prints how often it was let. With
TRIES of -1 it books once, says so, and dies by SIGKILL before its message could leave.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from cosilo.errors import PrivacyBudgetError
from cosilo.privacy.account import PrivacyAccount, PrivacyConfig
from cosilo.privacy.accountant import noise_for
from cosilo.privacy.mechanisms import Gaussian, Release
from cosilo.types import Demonstration, user

DELTA = 1e-5
ONE = Release(mechanism=Gaussian(sigma=noise_for(1.0, DELTA, rounds=1)))


async def main(book: str, limit: str, tries: str, *texts: str) -> None:
    records = [Demonstration(text, user(text), "") for text in texts]
    config = PrivacyConfig(book=Path(book), epsilon=float(limit), delta=DELTA)
    account = PrivacyAccount(config, records, spender=f"process {os.getpid()}")
    print("ready", flush=True)
    sys.stdin.readline()
    let = 0
    for _ in range(abs(int(tries))):
        try:
            async with account.spending(ONE):
                let += 1
                if int(tries) < 0:
                    print("booked", flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)
        except PrivacyBudgetError:
            pass
    print(let, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
