"""What both models say at each token of right replies: what a gate is learned from.

tune item ─▶ its reply, as a draft ─ Step ─▶ LM ─ Steps ─▶ every place of it, in one crossing
         └─▶ small model ─▶ every place of it
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cosilo.errors import DataError, RejectedError
from cosilo.models.base import ThreadModel, canonical, whole_tokens
from cosilo.strategies.base import Session
from cosilo.strategies.calibration import calibration
from cosilo.strategies.mixing.gate import GateLesson, seen_at_home, seen_of_both
from cosilo.strategies.mixing.numbers import completed
from cosilo.strategies.mixing.reading import HomeReader
from cosilo.strategies.thread import Thread
from cosilo.types import Chat

LONGEST = 128
"""Tokens of a reply that are learned from."""


async def lessons(
    session: Session,
    model: ThreadModel,
    shown: Callable[[Chat], Chat],
    items: int,
    top: int,
    *,
    at_home: bool,
) -> GateLesson:
    """Places of the first `items` tune items' replies.

    Args:
        shown: what the LM may see of a chat.
        at_home: the gate looks at the small model alone.

    Raises:
        DataError: there is no reply to learn from.
    """
    seen, large, small = [], [], []
    ends = sorted(model.ends)
    for example in calibration(session, by="fusion")[:items]:
        ids = list(model.cut(example.target)[0])
        ended = len(ids) <= LONGEST
        ids = ids[:LONGEST]
        while ids and not _text(model, ids):
            ids.pop()
        if not ids:
            continue
        try:
            public = shown(example.chat)
        except RejectedError:  # nothing of it may leave
            continue
        thread = Thread(session.lm.bind(example.id), public, model, top=top)
        said = await thread.go_on("", ids, each=True)
        if said.back or said.lengths != tuple(map(len, model.spelt(ids))):
            continue
        reader = HomeReader(model, example.chat)
        for place in range(len(ids) + ended):
            own = await reader.at(ids[:place])
            theirs = completed(said.top, place, own)
            right = [ids[place]] if place < len(ids) else ends
            seen.append(seen_at_home(own) if at_home else seen_of_both(theirs, own))
            large.append(float(np.exp(theirs[right]).sum()))
            small.append(float(np.exp(own[right]).sum()))
    if not seen:
        raise DataError(
            "fusion has no tune item with a reply and an instruction to learn a gate from: give a "
            "weight, or use rule = 'delta'"
        )
    return GateLesson(np.array(seen), np.array(large), np.array(small))


def _text(model: ThreadModel, ids: list[int]) -> bool:
    return whole_tokens(model.spelt(ids)) == len(ids) and canonical(model, ids)
