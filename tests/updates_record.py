"""What an owner and a coordinator said to one another, with a tiny model. Needs torch and peft."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cosilo.boundary.messages import (
    Contribute,
    Enrol,
    Enrolled,
    Message,
    NextRound,
    RoundState,
    encode,
)
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.wire import tensors
from cosilo.models.white_box.adapters import (
    Adapter,
    adapter_of,
    first_adapter,
    layers_to_adapt,
    with_adapter,
)
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.lm import TorchModel
from cosilo.types import user

RANK, SEED = 4, 7


def ledger_of(
    model: TorchModel, texts: Sequence[str], *, later: bool, rate: float = 0.05
) -> MemoryLedger:
    """One round in which an owner takes one step of SGD on each of `texts`, as questions.

    Args:
        later: it is the second round, and begins with what the first one made.
    """
    layers = layers_to_adapt(model.module)
    began = first_adapter(layers, RANK, seed=SEED)
    packed = b""
    if later:
        rng = np.random.default_rng(0)
        moved = {
            name: x if name.endswith("A") else 0.05 * rng.normal(size=x.shape).astype(np.float32)
            for name, x in began.tensors.items()
        }
        began = Adapter(RANK, 2.0 * RANK, moved)
        packed = tensors.pack(moved)
    given = _stepped(model, began, texts, rate)
    ledger = MemoryLedger()

    def cross(direction: str, message: Message) -> None:
        ledger.append("prepare", direction, message, encode(message))  # type: ignore[arg-type]

    named = tuple((n, out, into) for n, (out, into) in sorted(layers.items()))
    cross("up", Enrol(base="b", layers=named, rank=RANK))
    cross(
        "down",
        Enrolled(
            version=1, federation="f", base="b", rounds=2, rule="average", rank=RANK, scale=2.0,
            codec="fp32", seed=SEED, counts=False, most=1 << 20, held=0.0,
        ),
    )  # fmt: skip
    number = 2 if later else 1
    cross("up", NextRound(federation="f", have=0, most=1 << 20))
    cross(
        "down",
        RoundState(
            state="open", number=number, closed=number - 1, of=number - 1, packed=packed, rank=RANK
        ),
    )
    cross(
        "up",
        Contribute(federation="f", number=number, rank=RANK, packed=tensors.pack(given.tensors)),
    )
    return ledger


def _stepped(model: TorchModel, began: Adapter, texts: Sequence[str], rate: float) -> Adapter:
    import torch

    module = with_adapter(model.module, began)
    own = [p for n, p in module.named_parameters() if "lora_" in n]
    for parameter in own:
        parameter.requires_grad_(True)
    made = torch.optim.SGD(own, lr=rate)
    for text in texts:
        made.zero_grad()
        reply_loss(module, [model.tokenize(user(text), "hello")]).backward()
        made.step()
    return adapter_of(module)
