"""An owner of `flower.py`'s simulation, as Ray's processes import it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from cosilo.models.base import models
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.remote import RemoteOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.types import Demonstration, Sampling, Turn

MODEL = "smollm2-135m-instruct"
SYSTEM = Turn("system", "Say in a word or two what the customer's question is about.")
ITEMS, STEPS, BATCH, RANK, RATE = 20, 2, 4, 4, 5e-4


@cache
def model() -> Any:
    """One in each process, for all owners that work there."""
    import torch

    torch.set_num_threads(1)
    return models.create("torch", model=MODEL, precision="float32")


@cache
def items(data: Path) -> list[Demonstration]:
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    return [
        Demonstration(str(i), (SYSTEM, Turn("user", row["text"])), row["label"])
        for i, row in enumerate(rows)
    ]


async def takes_part(folder: Path, data: Path, of: int, number: int, party: RemoteOwner) -> None:
    """Owner `number` of so many: each `of`th item is its own, `ITEMS` at most."""
    private = tuple(items(data)[number::of][:ITEMS])
    strategy = strategies.create(
        "federated", checkpoints=folder / f"owner-{number}", steps=STEPS, batch=BATCH,
        learning_rate=RATE, rank=RANK,
    )  # fmt: skip
    owner = DataOwner(model(), private=private)
    labels = tuple(sorted({e.target for e in private}))
    session = open_session(owner, party, strategy, sampling=Sampling(choices=labels))
    await strategy.prepare(session)
