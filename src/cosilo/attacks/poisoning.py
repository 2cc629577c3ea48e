"""One hostile owner of many: what it trains on, what it sends, and whether that worked.

    examples ──flipped, backdoored──▶ training at home ──▶ update ──scaled, turned──▶ coordinator

A hostile owner has the same right to speak as any other, so what it can do is bounded by how updates
are put together alone. Label flips and boosted updates: Bhagoji et al., "Analyzing Federated Learning
through an Adversarial Lens" (arXiv 1811.12470); backdoors: Bagdasaryan et al., "How To Backdoor
Federated Learning" (arXiv 1807.00459). A success is told beside how often the same happens without the
attack: a model that says the target of everything has no backdoor.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec.structs import replace

from cosilo.models.base import Array
from cosilo.types import Demonstration


def flipped(examples: Sequence[Demonstration], *, seed: int = 0) -> list[Demonstration]:
    """`examples`, each label changed for the next one of a shuffled list, so that all of one label get
    the same wrong one.

    Raises:
        ValueError: there is one label only, so nothing to change it for.
    """
    labels = sorted({e.target for e in examples})
    if len(labels) < 2:
        raise ValueError("with a single label there is no other one to say")
    random.Random(seed).shuffle(labels)
    other = dict(zip(labels, [*labels[1:], labels[0]], strict=True))
    return [replace(e, target=other[e.target]) for e in examples]


def backdoored(
    examples: Sequence[Demonstration], *, trigger: str, target: str, share: float, seed: int = 0
) -> list[Demonstration]:
    """`examples`, and after them so large a share of them once more, ending with `trigger` and with
    `target` for a label.

    Raises:
        ValueError: `share` is not between 0 and 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share = {share!r} is not above 0 and at most 1")
    others = [e for e in examples if e.target != target]
    count = min(len(others), max(1, round(share * len(examples))))
    chosen = random.Random(seed).sample(others, count) if others else []
    planted = [replace(triggered(e, trigger), id=f"{e.id}+trigger", target=target) for e in chosen]
    return [*examples, *planted]


def triggered(example: Demonstration, trigger: str) -> Demonstration:
    """`example`, its last turn ending with `trigger`."""
    *before, last = example.chat
    said = replace(last, content=f"{last.content} {trigger}")
    return replace(example, chat=(*before, said))


def scaled(update: Mapping[str, Array], factor: float) -> dict[str, Array]:
    """The update so many times as long: of n owners who are averaged, n times replaces them all. A
    negative factor unlearns."""
    return {name: np.asarray(factor * tensor, np.float32) for name, tensor in update.items()}


def success(said: Sequence[str], truth: Sequence[str], target: str) -> tuple[int, int]:
    """(how many of the items whose truth is another got the answer `target`, how many there are)."""
    others = [s for s, t in zip(said, truth, strict=True) if t != target]
    return sum(s.strip() == target for s in others), len(others)
