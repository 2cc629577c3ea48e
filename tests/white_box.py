"""Tiny teachers and students, and sessions between them. Needs torch."""

from __future__ import annotations

from typing import Any

import tiny_lm
from cosilo.boundary.meter import Meter
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.models.base import Access, Shows
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.types import Demonstration, Sampling, user

SHORT = Sampling(max_tokens=6, temperature=1.0)


def tiny(seed: int, *, words: tuple[str, ...] = tiny_lm.WORDS, **options: Any) -> TorchModel:
    tokens = tiny_lm.tokenizer(words)
    module = tiny_lm.module(len(tokens), seed=seed, **options)
    return TorchModel.holding(module, ChatTokens(tokens), name=f"tiny-{seed}")


def owner(small: Any = None, count: int = 24) -> DataOwner:
    pool = tuple(Demonstration(f"p{i}", user(f"about {i}"), "") for i in range(count))
    private = tuple(Demonstration(f"g{i}", user(f"about {i}"), "the refund") for i in range(count))
    return DataOwner(small or tiny(1), private=private, pool=pool)


def opened(
    strategy: str = "distil_logits",
    *,
    small: Any = None,
    large: Any = None,
    exposes: Shows = Access.LOGITS.shows,
    count: int = 24,
    ledger: MemoryLedger | None = None,
    meter: Meter | None = None,
    **options: Any,
) -> tuple[Any, Session]:
    method = strategies.create(strategy, **{"steps": 30, "learning_rate": 5e-3} | options)
    lm = LMOwner(large or tiny(0), exposes=exposes)
    session = open_session(
        owner(small, count), lm, method, sampling=SHORT, ledger=ledger, meter=meter
    )
    return method, session
