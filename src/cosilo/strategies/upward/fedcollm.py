"""Owners train one small model together, and a large model of the coordinator's learns with it.

    owner: train the adapter ── Contribute ──▶ coordinator: put all together ──▶ small model
           ▲                                                          on public data  ⇅  each teaches
           └────── the round's adapter, which the large model taught ◀──────────── large model

Fan et al., "FedCoLLM: A Parameter-Efficient Federated Co-tuning Framework for Large and Small Language
Models" (arXiv 2411.11707). The owners' side is that of `federated`; a coordinator that has no large
model is refused, and `federated` refuses one that has. (The published code passes the indices of a
teacher's tokens as its logits, and its distillation term has no gradient; see `models.fit.mutual` for
what stands here.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cosilo.strategies.base import strategies
from cosilo.strategies.guide import Guide
from cosilo.strategies.upward.federated import Federated


@strategies.register("fedcollm")
@dataclass(frozen=True, kw_only=True)
class FedCoLLM(Federated):
    """Train an adapter of the small model with other owners and a large model, then go on with another
    strategy; options as for `federated`."""

    guide: ClassVar[Guide] = Guide(
        direction="upward",
        crosses=(
            "an adapter trained on the owner's examples, once a round; back comes what all owners' "
            "became and a large model taught it; the large model keeps what it learned, and who may "
            "ask it can test for examples (`membership`)"
        ),
        choose=(
            "several owners have few examples each and the coordinator has a large model and public "
            "examples of the task, and the owners want it to learn what theirs did"
        ),
    )
    name: ClassVar[str] = "fedcollm"
    taught: ClassVar[bool] = True
