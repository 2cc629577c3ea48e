"""Asking the LM about a whole pool, and reading labels from what it says.

pool item ──▶ guards ──▶ LM ──▶ reply ──▶ a known label? ──▶ yes: kept
                │                             ├─ in other words: kept, counted as mapped
                └ refused: counted            └─ no, or not clear which: dropped, counted
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cosilo.boundary.messages import Ask
from cosilo.errors import CosiloError, DataError, PrivacyError, RejectedError
from cosilo.models.base import Trainable
from cosilo.models.chat.chat_api import nearest_choice
from cosilo.parties.data_owner import DataOwner
from cosilo.reasoning import spoken
from cosilo.strategies.base import Session
from cosilo.strategies.cards import Card
from cosilo.strategies.crossfit import disowned, out_of_fold
from cosilo.strategies.fanout import fan_out
from cosilo.types import Demonstration, Generation


def pool_of(
    owner: DataOwner, which: Literal["private", "public"], *, by: str
) -> tuple[Demonstration, ...]:
    """What the LM shall be asked about.

    Raises:
        DataError: there is nothing.
    """
    pool = owner.public if which == "public" else owner.pool or owner.private
    if not pool:
        where = "[task] names no 'public' file" if which == "public" else "no training items"
        raise DataError(f"{by} has no {which} pool for the large model to label: {where}")
    return pool


async def replies(
    session: Session, pool: Sequence[Demonstration], question: Callable[[Demonstration], Ask]
) -> list[Generation | None]:
    """The LM's reply to `question` of each item, each crossing bound to `pool/` and the item's id.

    Returns:
        One reply per item; None where a guard or the endpoint refused that item alone.

    Raises:
        CosiloError: anything else went wrong, or every item was refused: the first refusal.
    """
    refusals: list[CosiloError] = []

    async def one(item: Demonstration) -> Generation | None:
        try:
            return (await session.lm.bind(f"pool/{item.id}").send(question(item))).generation
        except (PrivacyError, RejectedError) as refusal:
            if isinstance(refusal, RejectedError) and refusal.everything:
                raise
            refusals.append(refusal)
            return None

    found = await fan_out(one, pool)
    if refusals and len(refusals) == len(pool):
        raise refusals[0]
    return found


@dataclass(frozen=True)
class Labels:
    """What came of asking for labels.

    Attributes:
        examples: the pool items whose label is known, it being their target.
        rows: their places in the pool.
        asked: how many items the LM was asked about.
        mapped: of `examples`, those whose reply said the label in other words.
        invented: replies that named no known label, or several; their items are dropped.
        refused: items that a guard or the endpoint refused.
        disowned: labels that the small model took for mistakes; their items are dropped.
    """

    examples: tuple[Demonstration, ...]
    rows: tuple[int, ...]
    asked: int
    mapped: int = 0
    invented: int = 0
    refused: int = 0
    disowned: int = 0

    def card(self, by: str, choices: Sequence[str]) -> Card:
        """The counts, and the balance of a closed set of labels."""
        balance = Counter(example.target for example in self.examples)
        return Card(
            by=by,
            title="labels of the large model",
            facts={
                "asked": self.asked,
                "kept": len(self.examples),
                "of these said in other words": self.mapped,
                "dropped, not a known label": self.invented,
                "dropped, refused by a guard or the endpoint": self.refused,
                "dropped, the small model takes it for a mistake": self.disowned,
            },
            tables={"labels": {c: balance[c] for c in choices}} if choices else {},
        )


def read_labels(
    pool: Sequence[Demonstration], said: Sequence[str | None], choices: Sequence[str]
) -> Labels:
    """`pool` with what was `said` of each item as its target.

    Args:
        said: None where the item was refused.
        choices: the closed set of labels; empty where any text will do.
    """
    examples, rows = [], []
    mapped = invented = 0
    for row, (item, text) in enumerate(zip(pool, said, strict=True)):
        if text is None:
            continue
        label = spoken(text).strip()
        if choices and label not in choices:
            label = nearest_choice(label, choices)
            mapped += label in choices
        if not label or (choices and label not in choices):
            invented += 1
            continue
        examples.append(Demonstration(item.id, item.chat, label))
        rows.append(row)
    refused = sum(text is None for text in said)
    return Labels(tuple(examples), tuple(rows), len(pool), mapped, invented, refused)


async def labelled(session: Session, pool: Sequence[Demonstration]) -> Labels:
    """`pool` with what the LM answers to each item's own question.

    Raises:
        CosiloError: as for `replies`.
    """
    said = await replies(session, pool, lambda item: Ask(chat=item.chat, sampling=session.sampling))
    return read_labels(pool, [r.text if r else None for r in said], session.sampling.choices)


async def agreed(
    labels: Labels, model: Trainable, *, beside: Sequence[Demonstration] = (), seed: int = 0
) -> Labels:
    """`labels` without those that `model`, trained on the others, takes for mistakes.

    Raises:
        CapabilityError: the trained model gives no probabilities.
    """
    known, found = await asyncio.to_thread(
        out_of_fold, model, labels.examples, beside=beside, seed=seed
    )
    wrong = disowned([e.target for e in labels.examples], known, found)
    kept = [i for i, bad in enumerate(wrong) if not bad]
    return replace(
        labels,
        examples=tuple(labels.examples[i] for i in kept),
        rows=tuple(labels.rows[i] for i in kept),
        disowned=sum(wrong),
    )


def balanced(examples: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
    """`examples` with weights by which every target counts the same; their sum stays as it is."""
    counts: Counter[str] = Counter()
    for e in examples:
        counts[e.target] += e.weight  # type: ignore[assignment]
    share = {target: counts.total() / len(counts) / count for target, count in counts.items()}
    return tuple(
        Demonstration(e.id, e.chat, e.target, e.weight * share[e.target]) for e in examples
    )


def require_classes(labels: Labels, *, closed: bool) -> None:
    """Refuse labels that leave nothing to learn.

    Raises:
        DataError: none is left, or all are the same one of a `closed` set.
    """
    named = {example.target for example in labels.examples}
    if len(named) > 1 or (named and not closed):
        return
    what = "none names a known label" if not named else f"all name the same one, {named.pop()!r}"
    raise DataError(
        f"the large model's replies for {labels.asked} pool items cannot be learned from: {what} "
        f"({labels.invented} named no known label, {labels.refused} items were refused)"
    )
