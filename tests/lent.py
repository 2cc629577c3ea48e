"""A tiny model whose owner lends it, and an owner of data who may tune it. Needs torch."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

import tiny_lm
from cosilo.boundary.meter import Meter
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.models.base import Shows
from cosilo.models.fit.lending import Lender, LendingTerms
from cosilo.models.white_box.emulator import EmulatorRecipe
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.types import Demonstration, Sampling, user

LABELS = ("the refund", "billing", "delivery")
SAMPLING = Sampling(choices=LABELS)
LENDS = Shows.TEXT | Shows.EMULATOR
RECIPE = EmulatorRecipe(ends=1, depth=1, steps=4, batch=2, length=16)
TEXT = Path(tempfile.mkdtemp()) / "public.txt"
TEXT.write_text("\n".join(f"the hello world is about {i} and {i % 7}" for i in range(60)), "utf-8")
TERMS = LendingTerms(recipe=RECIPE, least_gap=-100.0, text=TEXT)
OPTIONS = {"steps": 40, "batch": 4, "learning_rate": 1e-2, "rank": 4}


@cache
def parts(layers: int = 4) -> tuple[Any, ChatTokens]:
    """A module in which every layer does something, and its tokeniser."""
    words = tiny_lm.tokenizer()
    module = tiny_lm.module(len(words), layers=layers, seed=5).requires_grad_(False)
    for name, parameter in module.named_parameters():
        if ".layers." in name and parameter.ndim > 1:
            parameter.mul_(3)
    module.model.norm.weight.mul_(4)
    return module, ChatTokens(words)


def plain_model() -> TorchModel:
    return TorchModel.holding(*parts(), name="tiny")


def lender(**changes: Any) -> Lender:
    return Lender(plain_model(), replace(TERMS, **changes))


@cache
def shared() -> Lender:
    """One that several tests may ask."""
    return lender()


def owner(
    count: int = 24, *, small: Any = None, tune: int = 6, label: str = "billing"
) -> DataOwner:
    """Whose examples say that everything is about `label`; the model says "delivery" to most."""

    def example(i: int) -> Demonstration:
        return Demonstration(f"e{i}", user(f"about {i}"), label)

    return DataOwner(
        small or plain_model(),
        private=tuple(example(i) for i in range(count)),
        calibration=tuple(example(i) for i in range(100, 100 + tune)),
    )


def opened(
    large: Any = None,
    *,
    data: DataOwner | None = None,
    exposes: Shows = LENDS,
    ledger: MemoryLedger | None = None,
    meter: Meter | None = None,
    defences: Any = (),
    client: str = "",
    **options: Any,
) -> tuple[Any, Session]:
    strategy = strategies.create("offsite", **OPTIONS | options)
    session = open_session(
        data or owner(),
        LMOwner(large or shared(), exposes, client=client),
        strategy,
        sampling=SAMPLING,
        ledger=ledger,
        meter=meter,
        defences=defences,
    )
    return strategy, session


def same(one: Any, other: Any) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
