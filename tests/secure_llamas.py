"""A tiny public Llama at home and its owner's on the other side, computed jointly. Needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.models.base import Shows
from cosilo.models.plain_llama import JointTerms
from cosilo.models.white_box.adapters import first_adapter, layers_to_adapt, with_adapter
from cosilo.models.white_box.lm import TorchModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session
from cosilo.types import Sampling, user
from white_box import tiny

SHOWS = Shows.TEXT | Shows.JOINT
LABELS = ("refund", "billing", "delivery")
CHATS = [user("refund about"), user("the the the"), user("hello world")]
"""The adapter of `adapted` has another answer to each of them; the base has one to all."""

TOKENS = 128


def base(seed: int = 0) -> TorchModel:
    """A tiny Llama whose token that ends a turn is not made of zeros, as torch begins with it."""
    import torch

    model = tiny(seed, scale=3.0)
    with torch.no_grad():
        table = model.module.get_input_embeddings().weight
        table[2] = table[3:].mean(0) * 4
    return model


def adapted(model: TorchModel, layers: list[int], seed: int = 7) -> TorchModel:
    """`model` with an adapter on some layers that changes what they say."""
    adapter = first_adapter(layers_to_adapt(model.module, layers), 2, seed=seed)
    drawn = np.random.default_rng(seed)
    tensors = {
        name: tensor if name.endswith("lora_A") else drawn.normal(0, 0.3, tensor.shape)
        for name, tensor in adapter.tensors.items()
    }
    changed = type(adapter)(2, 4.0, {n: t.astype(np.float32) for n, t in tensors.items()})
    return model.with_module(with_adapter(model.module, changed))


def with_terms(model: TorchModel, folder: Path, **terms: Any) -> TorchModel:
    """`model`, whose owner lets others compute with it."""
    public = folder / "public.txt"
    public.write_text("the refund is about billing\nhello world\ndelivery of the refund\n")
    model.joint = JointTerms(calibrated_on=public, **({"tokens": TOKENS} | terms))
    return model


def opened(
    large: TorchModel,
    strategy: Any,
    *,
    small: Any = None,
    ledger: MemoryLedger | None = None,
    choices: tuple[str, ...] = LABELS,
) -> Session:
    lm = LMOwner(large, exposes=SHOWS)
    owner = DataOwner(small if small is not None else base())
    return open_session(owner, lm, strategy, sampling=Sampling(choices=choices), ledger=ledger)
