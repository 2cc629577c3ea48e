"""Was this record among those that the small model learned from? By what it said of other texts.

The curious party is the LM's owner, or a coordinator. It holds, from `Tune`, texts with what the data
owner's model thinks of them, or, from `Contribute`, how likely that model holds the replies of public
texts; and candidates with their labels, some of which that model was trained on. A model is surer
around what it has learned, so a candidate counts by how much surer the model was than usual of its
label where texts are like the candidate. Scores are ordered: the higher, the more likely a record.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from cosilo.attacks.base import Guess, Target, View, attacks
from cosilo.boundary.messages import Contribute, Tune
from cosilo.boundary.messages.tune import WHOLE
from cosilo.boundary.wire import opinions
from cosilo.types import Chat, last_user

_ANY = ""
_WIDTH = 0.1  # of cosine similarity: texts nearer by this weigh e times as much


@attacks.register("opinions")
class Opinions:
    """Residuals of the small model's opinions, smoothed over texts like the candidate."""

    about: ClassVar[str] = "members"
    reads_public: ClassVar[bool] = True

    async def guess(self, view: View, targets: Sequence[Target]) -> list[Guess]:
        labels = sorted({target.label for target in targets})
        known: dict[str, list[tuple[str, float]]] = defaultdict(list)
        for entry in view.entries():
            if entry.direction != "up":
                continue
            if isinstance(entry.message, Tune):
                for label, text, share in said_of(entry.message, labels):
                    known[label].append((text, share))
            elif isinstance(entry.message, Contribute) and view.public:
                for label, text, surer in said_of_public(entry.message, view.public):
                    known[label].append((text, surer))
        if view.embedder is None or not known:
            return [Guess(target.id, "", 0.5) for target in targets]
        texts = list(dict.fromkeys(text for said in known.values() for text, _ in said))
        row = {text: i for i, text in enumerate(texts)}
        vectors = view.embedder.embed(texts)  # the same texts for every label, as a rule
        found: dict[str, float] = {}
        for label, said in known.items():
            mine = [t for t in targets if (t.label if t.label in known else _ANY) == label]
            if not mine:
                continue
            above = np.array([share for _, share in said])
            above = above - above.mean()
            near = view.embedder.embed([last_user(t.chat) for t in mine])
            near = near @ vectors[[row[text] for text, _ in said]].T
            weights = np.exp((near - near.max(axis=1, keepdims=True)) / _WIDTH)
            smooth = (weights @ above) / weights.sum(axis=1)
            found |= {target.id: float(s) for target, s in zip(mine, smooth, strict=True)}
        return [
            Guess(t.id, "record", 0.5 + math.atan(found[t.id]) / math.pi)
            if t.id in found
            else Guess(t.id, "", 0.5)
            for t in targets
        ]


def said_of_public(
    contribute: Contribute, public: Sequence[tuple[Chat, str]]
) -> Iterator[tuple[str, str, float]]:
    """(reply, text, how many nats surer of it than of this reply elsewhere) of each public text, and
    the same of any reply, with `_ANY` in its place; nothing where no such opinions were sent."""
    if not opinions.is_packed(contribute.packed):
        return
    replies = [reply for _, reply in public]
    logprobs = -opinions.unpack(contribute.packed, replies, opinions.MOST_TOP).losses()
    for label in (*dict.fromkeys(replies), _ANY):
        rows = [i for i, reply in enumerate(replies) if label in (reply, _ANY)]
        usual = float(logprobs[rows].mean())
        for i in rows:
            yield label, last_user(public[i][0]), float(logprobs[i]) - usual


def said_of(tune: Tune, labels: Sequence[str]) -> Iterator[tuple[str, str, float]]:
    """(label, text, share) of each text of lessons: of every choice, or of the label that it was
    written for, which the question names."""
    for i, chat in enumerate(tune.chats):
        row = tune.shares[i]
        if tune.choices:
            total = sum(row) or 1
            for choice, share in zip(tune.choices, row, strict=True):
                yield choice, last_user(chat), share / total
            continue
        asked = last_user(chat)
        named = [label for label in labels if label and f"'{label}'" in asked]
        if named:
            yield max(named, key=len), tune.replies[i], row[0] / WHOLE
