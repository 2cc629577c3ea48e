"""An owner with private texts, and an LM that writes texts for the label it is asked for."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from bag import Bag
from cosilo.boundary.meter import Meter, Price
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.models.base import Access
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.types import Chat, Demonstration, Sampling, last_user, user

LABELS = ("lost_card", "refund", "top_up")
SYSTEM = "Sort the mail.\n\nLabels:\n- lost_card\n- refund\n- top_up"
WORDS = {
    "lost_card": "my card is gone and somebody took it away from me",
    "refund": "the shop shall pay my money back for this purchase please",
    "top_up": "adding funds to the account by bank transfer did not work",
}
PRIVATE = "Ann Lee of Elm Street wants something"


def owner(count: int = 12, system: str = SYSTEM) -> DataOwner:
    def example(i: int) -> Demonstration:
        label = LABELS[i % 3]
        return Demonstration(f"e{i}", user(f"{PRIVATE}: {WORDS[label]} {i}", system=system), label)

    return DataOwner(
        Bag(),
        private=tuple(example(i) for i in range(count)),
        calibration=tuple(example(i) for i in range(count, 2 * count)),
    )


def text_of(label: str, count: int) -> str:
    """A text of `label` of its own for each count: some of the label's words, and noise."""
    rng = random.Random(count)
    noise = " ".join("".join(rng.choices("bcdfghjklm", k=8)) for _ in range(4))
    return f"{' '.join(rng.sample(WORDS[label].split(), 6))} {noise}"


def writer(texts: Callable[[str, int], str] | None = None) -> ScriptedModel:
    """An LM that writes for the label it is asked for; no two texts are alike."""
    count = 0

    def reply(chat: Chat) -> str:
        nonlocal count
        found = re.search(r"label '(\w+)'", last_user(chat))
        assert found is not None
        lines = []
        for _ in range(5):
            count += 1
            lines.append(texts(found[1], count) if texts else text_of(found[1], count))
        return "\n".join(f"{n}. {line}" for n, line in enumerate(lines, 1))

    return ScriptedModel(reply, name="writer", access=Access.TEXT)


def session(
    large: ScriptedModel, *, ledger: MemoryLedger | None = None, of: DataOwner | None = None
) -> Session:
    return open_session(
        of or owner(),
        LMOwner(large),
        strategies.create("zerogen"),
        sampling=Sampling(choices=LABELS, max_tokens=4),
        ledger=ledger,
        meter=Meter(price=Price(1.0, 2.0)),
    )
