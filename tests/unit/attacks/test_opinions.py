"""What a small model thinks of other texts tells its records where it is surer around them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from a_writer import WordEmbedder
from cosilo.attacks.base import Target, View, attacks
from cosilo.attacks.opinions import said_of
from cosilo.boundary.messages import Contribute, Tune, encode
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.wire import opinions
from cosilo.objectives.membership import auc
from cosilo.types import user

LABELS = ("billing", "refund")


def tune(texts: list[str], shares: list[tuple[int, ...]], *, choices: bool) -> Tune:
    chats = [user(t) for t in texts]
    if not choices:
        chats = [user("Write one text that belongs to the label 'billing'") for _ in texts]
    return Tune(
        chats=tuple(chats), choices=LABELS if choices else (),
        replies=() if choices else tuple(texts), shares=tuple(shares),
        steps=1, batch=1, learning_rate=1e-3, rank=1,
    )  # fmt: skip


def guessed(choices: bool, leaks: bool) -> float:
    """How well members are told; a judge that leaks is surer of texts that share words with them."""
    rng = np.random.default_rng(0)
    topics = [[f"w{t}x{i}" for i in range(8)] for t in range(40)]
    texts, shares = [], []
    for number, words in enumerate(topics):
        for _ in range(6):
            texts.append(" ".join(rng.choice(words, 4, replace=False)))
            sure = int(500 + 100 * rng.normal() + (200 if leaks and number < 20 else 0))
            sure = min(1000, max(0, sure))
            shares.append((sure, 1000 - sure) if choices else (sure,))
    ledger = MemoryLedger()
    sent = tune(texts, shares, choices=choices)

    async def record() -> None:
        await ledger.append("lessons", "up", sent, encode(sent))

    asyncio.run(record())
    targets = [
        Target(f"{t}", "", "member", chat=user(" ".join(words[:4])), label="billing")
        for t, words in enumerate(topics)
    ]
    view = View(lambda: iter(ledger.entries()), embedder=WordEmbedder(256))
    found = asyncio.run(attacks.create("opinions").guess(view, targets))
    scores = np.array([guess.score for guess in found])
    return auc(scores[:20], scores[20:])[0]


@pytest.mark.parametrize("choices", [True, False])
def test_members_are_told_where_the_model_is_surer_around_them(choices: bool) -> None:
    assert guessed(choices, leaks=True) > 0.85
    assert 0.3 < guessed(choices, leaks=False) < 0.7


async def test_a_text_is_embedded_once_however_many_labels_there_are() -> None:
    class Counting(WordEmbedder):
        seen: ClassVar[list[str]] = []

        def embed(self, texts: Sequence[str]) -> Any:
            self.seen.extend(texts)
            return super().embed(texts)

    ledger = MemoryLedger()
    sent = tune(["a b", "c d", "a b"], [(300, 100), (0, 1), (1, 0)], choices=True)
    await ledger.append("lessons", "up", sent, encode(sent))
    targets = [Target(label, "", "member", chat=user(label), label=label) for label in LABELS]
    view = View(lambda: iter(ledger.entries()), embedder=Counting())
    found = await attacks.create("opinions").guess(view, targets)
    assert [guess.value for guess in found] == ["record", "record"]
    assert sorted(Counting.seen) == ["a b", "billing", "c d", "refund"]


def test_without_a_record_or_an_encoder_it_does_not_know() -> None:
    target = Target("t", "", "member", chat=user("hello"), label="billing")
    for view in (View(lambda: iter(())), View(lambda: iter(()), embedder=WordEmbedder())):
        (guess,) = asyncio.run(attacks.create("opinions").guess(view, [target]))
        assert guess.score == 0.5


def test_opinions_are_read_of_choices_and_of_replies() -> None:
    of_choices = tune(["a b"], [(300, 100)], choices=True)
    assert list(said_of(of_choices, LABELS)) == [("billing", "a b", 0.75), ("refund", "a b", 0.25)]
    of_replies = tune(["a b"], [(300,)], choices=False)
    assert list(said_of(of_replies, LABELS)) == [("billing", "a b", 0.3)]
    assert list(said_of(of_replies, ["else"])) == []


@pytest.mark.parametrize("leaks", [True, False])
def test_members_are_told_by_what_a_model_says_of_public_texts(leaks: bool) -> None:
    rng = np.random.default_rng(0)
    topics = [[f"w{t}x{i}" for i in range(8)] for t in range(40)]
    public = [
        (user(" ".join(rng.choice(topics[t], 4, replace=False))), "ab")
        for t in range(40)
        for _ in "1234"
    ]
    sent = [
        contribution([4 + rng.normal() / 2 + (leaks and i // 4 < 20) for i in range(len(public))])
        for _ in range(2)
    ]
    ledger = MemoryLedger()

    async def record() -> None:
        for number, message in enumerate(sent):
            await ledger.append(f"{number}", "up", message, encode(message))

    asyncio.run(record())
    # A label that no public reply has is held against all of them.
    targets = [
        Target(f"{t}", "", "member", chat=user(" ".join(words[:4])), label="ab" if t % 2 else "x")
        for t, words in enumerate(topics)
    ]
    view = View(lambda: iter(ledger.entries()), embedder=WordEmbedder(256), public=public)
    found = asyncio.run(attacks.create("opinions").guess(view, targets))
    scores = np.array([guess.score for guess in found])
    value = auc(scores[:20], scores[20:])[0]
    assert value > 0.85 if leaks else 0.3 < value < 0.7
    blind = View(lambda: iter(ledger.entries()), embedder=WordEmbedder(256))
    assert {g.score for g in asyncio.run(attacks.create("opinions").guess(blind, targets))} == {0.5}


def contribution(logits: list[float]) -> Contribute:
    """Opinions of replies "ab": a model that gives "ab" these logits beside zeros."""
    rows = np.zeros((2 * len(logits), 9), np.float32)
    rows[::2, 3], rows[1::2, 0] = logits, 9
    top, own = opinions.spoken(rows, 3, np.array([3, 0] * len(logits), np.int32))
    assert top.ids is not None
    spelt = {int(i): b"ab" if i == 3 else b"" if i == 0 else b"x" for i in np.unique(top.ids)}
    said = opinions.PublicOpinions(top, own, ((b"ab", b""),) * len(logits), spelt, "v")
    return Contribute(federation="f", number=1, rank=0, packed=opinions.pack(said))
