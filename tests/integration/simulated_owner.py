"""A federation in Flower's simulation, as a process: FOLDER, and the round after which it kills itself.

Flower and Ray import this file by its name, so that owners are functions of a module.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

from cosilo.host.simulated import Simulated, simulate
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.data_owner import DataOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.types import Demonstration, Sampling, user

LABELS = ("refund", "billing", "delivery")
HOW: dict[str, Any] = {"steps": 3, "batch": 4, "learning_rate": 1e-2, "rank": 2}


@cache
def model() -> Any:
    import torch

    from white_box import tiny

    torch.set_num_threads(1)
    return tiny(1)


def settings() -> FederationSettings:
    names = tuple(f"owner-{i:02}" for i in range(12))
    return FederationSettings(owners=names, rounds=2, rank=2, sample=3)


async def takes_part(folder: Path, number: int, party: Any) -> None:
    of = number % 3
    private = tuple(
        Demonstration(f"{of}-{i}", user(f"about {i % 5}"), LABELS[of if i % 4 else (of + 1) % 3])
        for i in range(8)
    )
    strategy = strategies.create("federated", checkpoints=folder / f"owner-{number}", **HOW)
    owner = DataOwner(model(), private=private)
    session = open_session(owner, party, strategy, sampling=Sampling(choices=LABELS))
    await strategy.prepare(session)


def main(folder: Path, dies_after: int) -> None:
    def told(took: Simulated) -> None:
        (folder / "took.json").write_text(json.dumps([took.seconds, took.in_owners, took.calls]))
        if len(took.seconds) == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)

    path = folder / "federation.sqlite"
    simulate(partial(takes_part, folder), settings(), path=path, at_once=1, told=told)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import simulated_owner

    simulated_owner.main(Path(sys.argv[1]), int(sys.argv[2]))
