"""Owners of a federation with no models: messages with small arrays, and what to expect of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from cosilo.boundary.messages import Contribute, Enrol, NextRound
from cosilo.boundary.wire import tensors
from cosilo.parties.coordinating.rounds import Rounds
from cosilo.parties.coordinating.settings import FederationSettings

LAYERS = (("model.k", 3, 5), ("model.q", 6, 5))
BASE = "ab" * 16
RANK = 2


def settings(*owners: str, **options: Any) -> FederationSettings:
    return FederationSettings(
        **{"owners": owners, "rounds": 2, "rank": RANK, "deadline_s": 60.0} | options
    )


def enrol(**options: Any) -> Enrol:
    return Enrol(**{"base": BASE, "layers": LAYERS, "rank": RANK, "settings": "s"} | options)


def arrays(seed: int, rank: int = RANK, *, size: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    found = {}
    for name, out, into in LAYERS:
        found[f"{name}.lora_A"] = (size * rng.normal(size=(rank, into))).astype(np.float32)
        found[f"{name}.lora_B"] = (size * rng.normal(size=(out, rank))).astype(np.float32)
    return found


def update(rounds: Any, number: int, seed: int, **options: Any) -> Contribute:
    name = rounds if isinstance(rounds, str) else rounds.standing.name
    packed = tensors.pack(arrays(seed))
    given = {"federation": name, "number": number, "rank": RANK, "packed": packed}
    return Contribute(**given | options)


def ask(rounds: Rounds, have: int = 0, **options: Any) -> NextRound:
    given = {"federation": rounds.standing.name, "have": have, "most": 1 << 20}
    return NextRound(**given | options)


def adapter(state: Any) -> dict[str, Any]:
    return tensors.unpack(state.packed)
