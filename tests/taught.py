"""A tiny model whose owner tunes it for clients, and an owner whose small model teaches it. Needs
torch."""

from __future__ import annotations

from functools import cache
from typing import Any

import lent
from cosilo.boundary.meter import Meter
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.models.fit.tunable import TunableLM, TuningTerms
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.types import Chat, Demonstration, last_user, user

LABELS = lent.LABELS
SAMPLING = lent.SAMPLING
OPTIONS = {"steps": 40, "batch": 4, "learning_rate": 1e-2, "rank": 4}


def right(text: str) -> str:
    """Even numbers are billing, odd ones the refund."""
    return LABELS[1 if int(text.split()[-1]) % 2 == 0 else 0]


def weak(chat: Chat) -> str:
    """Mostly right."""
    text = last_user(chat)
    return LABELS[0] if text.endswith("4") else right(text)


def tunable(**changes: Any) -> TunableLM:
    return TunableLM(lent.plain_model(), TuningTerms(**changes))


@cache
def shared() -> TunableLM:
    """One that several tests may ask."""
    return tunable()


def owner(count: int = 24, *, small: Any = None, tune: int = 6, learned: int = 0) -> DataOwner:
    def example(i: int) -> Demonstration:
        return Demonstration(f"e{i}", user(f"about {i}"), right(f"about {i}"))

    pool = tuple(Demonstration(f"e{i}", user(f"about {i}"), "") for i in range(count))
    return DataOwner(
        small or ScriptedModel(weak, name="weak"),
        pool=pool,
        calibration=tuple(example(i) for i in range(100, 100 + tune)),
        learned=frozenset(f"e{i}" for i in range(learned)),
    )


def opened(
    large: Any = None,
    *,
    data: DataOwner | None = None,
    ledger: MemoryLedger | None = None,
    meter: Meter | None = None,
    defences: Any = (),
    client: str = "",
    **options: Any,
) -> tuple[Any, Session]:
    strategy = strategies.create("weak_to_strong", **OPTIONS | {"soft": False} | options)
    session = open_session(
        data or owner(),
        LMOwner(large or shared(), client=client),
        strategy,
        sampling=SAMPLING,
        ledger=ledger,
        meter=meter,
        defences=defences,
    )
    return strategy, session
