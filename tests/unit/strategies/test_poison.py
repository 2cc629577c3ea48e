"""Wrong teacher replies reach what is learned, whatever the strategy; what is noticed is counted."""

from __future__ import annotations

import pytest

from bag import Bag
from cosilo.attacks.tampering import Tampering
from cosilo.boundary.transports.inside import InProcess
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.types import Chat, Demonstration, Sampling, last_user, user
from generated import LABELS, SYSTEM, text_of, writer


def true_label(chat: Chat) -> str:
    """By the words that only one label's texts have."""
    words = set(last_user(chat).split())
    marks = {
        "refund": {"shop", "money", "pay", "purchase", "shall"},
        "top_up": {"adding", "funds", "bank", "transfer", "account"},
    }
    best = {label: len(words & own) for label, own in marks.items()}
    label = max(best, key=lambda name: best[name])
    return label if best[label] else "lost_card"


POOL = tuple(
    Demonstration(f"p{i}", user(text_of(LABELS[i % 3], 1000 + i), system=SYSTEM), "")
    for i in range(90)
)


def labeller(chat: Chat) -> str:
    label = true_label(chat)
    return f"It says so.\nLabel: {label}" if "First say" in last_user(chat) else label


@pytest.mark.parametrize(
    ("name", "options", "large"),
    [
        ("distil_labels", {}, lambda: ScriptedModel(labeller)),
        ("step_by_step", {}, lambda: ScriptedModel(labeller)),
        ("zerogen", {"each": 60, "agree": False}, writer),
        ("progen", {"each": 60, "agree": False}, writer),
    ],
)
async def test_poison_is_learned_unless_it_is_noticed(name, options, large) -> None:  # type: ignore[no-untyped-def]
    async def wrong(share: float, **more: object) -> tuple[float, int]:
        party = Tampering(LMOwner(large()), share, seed=1)
        strategy = strategies.create(name, **options | more)
        owner = DataOwner(
            Bag(),
            pool=POOL,
            calibration=tuple(Demonstration(p.id, p.chat, true_label(p.chat)) for p in POOL[:30]),
        )
        session = open_session(
            owner, party.inner, strategy,  # type: ignore[arg-type]
            sampling=Sampling(choices=LABELS), transport=InProcess(party),
        )  # fmt: skip
        _, after = await strategy.prepare(session)
        taught = [e for e in after.owner.model.examples if not e.id.endswith("/why")]  # type: ignore[attr-defined]
        share_wrong = sum(e.target != true_label(e.chat) for e in taught) / len(taught)
        dropped = after.cards[0].tables.get("dropped", {}).get("label not agreed on", 0)
        counted = after.cards[0].facts.get("dropped, the small model takes it for a mistake", 0)
        return share_wrong, int(dropped) + int(counted)

    unharmed, noticed = await wrong(0.0)
    assert unharmed < 0.02  # a text may have none of the words that tell its label
    assert noticed == 0
    poisoned, noticed = await wrong(0.2)
    assert 0.08 < poisoned < 0.35
    assert noticed == 0
    cleaned, noticed = await wrong(0.2, agree=True)
    assert cleaned < poisoned / 2
    assert noticed > 0
