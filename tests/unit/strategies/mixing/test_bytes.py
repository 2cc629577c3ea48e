"""Mixing byte by byte: models of different vocabularies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Step
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.transports.inside import InProcess
from cosilo.models.base import Access
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.mixing.bytes import ByteSource, _possible
from cosilo.strategies.mixing.lattice import END, is_whole
from cosilo.strategies.mixing.numbers import Row
from cosilo.strategies.mixing.reading import HomeReader
from cosilo.strategies.mixing.writing import written
from cosilo.strategies.thread import Thread
from cosilo.types import Generation, Sampling, assemble, user
from toy_thread import END as TOKEN_END
from toy_thread import PIECES, ToyThreads

CHAT, HOME = user("Why?"), user("Why, at home?")


class Wordy(ToyThreads):
    """Favours words; `without` are tokens that its vocabulary lacks."""

    def __init__(self, salt: int, without: Sequence[int] = ()) -> None:
        super().__init__(f"toy{salt}", vocabulary=f"toy-{len(without)}")
        self.salt, self.without = salt, list(without)

    def logprobs(self, ids: Sequence[int]) -> np.ndarray:
        words = np.arange(len(PIECES)) > TOKEN_END
        row = super().logprobs([self.salt, *ids]) + np.where(words, 8.0, 0.0)
        row[128:256] = -40.0
        row[self.without] = -np.inf
        return np.asarray(row - np.logaddexp.reduce(row))

    def cut(self, reply: str) -> tuple[list[int], list[bytes]]:
        ids, _ = super().cut(reply)
        ids = [i for t in ids for i in (PIECES[t] if t in self.without else [t])]
        return ids, self.spelt(ids)


class Only:
    """One of the models alone."""

    prior = 0

    def __init__(self, large: bool) -> None:
        self.large = large

    def asks(self, homes: Sequence[Row]) -> bool:
        return True

    def alone(self, homes: Sequence[Row]) -> Row:
        return homes[0]

    def joined(self, large: Row, homes: Sequence[Row]) -> Row:
        return large if self.large else homes[0]


def source(
    large: ToyThreads,
    small: ToyThreads,
    *,
    of_large: bool,
    top: int = len(PIECES),
    ledger: MemoryLedger | None = None,
    least: float = 0.0,
) -> ByteSource:
    road = Boundary(
        InProcess(LMOwner(large, exposes=Access.LOGITS.shows)),
        declared=frozenset({Step}),
        **({} if ledger is None else {"ledger": ledger}),
    )
    thread = Thread(road, CHAT, top=top)
    return ByteSource(Only(of_large), thread, [HomeReader(small, HOME)], least=least)


def slow(model: Wordy, chat: Any, text: bytes) -> np.ndarray:
    """The next byte behind an ASCII `text`: over all sequences of tokens that spell it and go on."""
    found = np.zeros(257)

    def follow(said: bytes, weight: float) -> None:
        p = np.exp(model.logprobs([*model.prompt(chat), *model.cut(said.decode())[0]]))
        if said == text:
            found[END] += weight * p[TOKEN_END]
        for piece, chance in zip(PIECES, p, strict=True):
            more = said + piece
            if piece and len(more) > len(text) and more.startswith(text):
                found[more[len(text)]] += weight * chance
            elif piece and len(more) <= len(text) and text.startswith(more):
                follow(more, weight * chance)

    follow(b"", 1.0)
    return found / found.sum()


@pytest.mark.parametrize("of_large", [True, False])
async def test_every_byte_is_as_likely_as_all_its_tokens_make_it(of_large: bool) -> None:
    large, small = Wordy(1), Wordy(2, without=[PIECES.index(b" refund")])
    mixed = source(large, small, of_large=of_large)
    text = b" refund the"
    for i, byte in enumerate(text):
        found = np.exp(await mixed.next())
        exact = slow(large, CHAT, text[:i]) if of_large else slow(small, HOME, text[:i])
        exact[128:256] = np.where(np.isfinite(_possible(b"")[128:256]), exact[128:256], 0.0)
        # What crosses comes rounded to a sixteenth.
        assert np.abs(found - exact / exact.sum()).max() < (0.03 if of_large else 1e-4)
        await mixed.take(byte)


async def reply(mixed: ByteSource, **sampling: Any) -> Generation:
    wanted = Sampling(**{"max_tokens": 6} | sampling)
    return assemble([d async for d in written(mixed, wanted)])


async def test_a_reply_ends_after_as_many_tokens_as_it_may_have() -> None:
    mixed = source(Wordy(1), Wordy(2), of_large=True, least=1e-3)
    whole = await reply(mixed)
    assert whole.finish_reason == "length"
    assert whole.completion_tokens == 6 == len(Wordy(2).cut(whole.text)[0])


async def test_the_large_model_is_asked_about_once_a_token_not_a_byte() -> None:
    ledger = MemoryLedger()
    mixed = source(Wordy(1), Wordy(2), of_large=True, top=16, ledger=ledger, least=1e-2)
    whole = await reply(mixed, max_tokens=12)
    crossed = sum(e.direction == "up" for e in ledger.entries())
    assert crossed == mixed.asked < len(whole.text.encode())


async def test_one_of_several_choices() -> None:
    mixed = source(Wordy(1), Wordy(2), of_large=True, least=1e-3)
    whole = await reply(mixed, choices=(" the refund", " about it", " the ref"))
    assert whole.text in (" the refund", " about it", " the ref")
    assert whole.tokens[0].logprob <= 0


async def test_sampled_replies_are_text_and_follow_the_seed() -> None:
    texts = set()
    for seed in (1, 1, 2, 3):
        mixed = source(Wordy(1), Wordy(2), of_large=True, least=1e-3, top=64)
        texts.add((await reply(mixed, temperature=1.5, seed=seed)).text)
    assert 1 < len(texts) <= 3
    assert not any("\ufffd" in text for text in texts)


@pytest.mark.parametrize("text", ["a", "ü", "€", "🙂", "ab🙂", "é́"])
def test_where_a_character_ends(text: str) -> None:
    whole = text.encode()
    cuts = {len(text[:i].encode()) for i in range(len(text) + 1)}
    assert [is_whole(whole[:i]) for i in range(len(whole) + 1)] == [
        i in cuts for i in range(len(whole) + 1)
    ]
    for i, byte in enumerate(whole):
        begun = whole[max(c for c in cuts if c <= i) : i]
        assert np.isfinite(_possible(begun)[byte])
    assert np.isfinite(_possible(b"")[END])
    assert not np.isfinite(_possible(whole[-1:] if not text.isascii() else b"\xc3")[END])


async def test_within_a_character_the_model_at_home_speaks_for_both() -> None:
    """The large model's tokens that are parts of characters cannot be told apart from outside."""

    class Foreign(Wordy):
        def logprobs(self, ids: Sequence[int]) -> np.ndarray:
            row = super().logprobs(ids).copy()
            row["ü".encode()[0]] = row["ü".encode()[1]] = 20.0
            return np.asarray(row - np.logaddexp.reduce(row))

    mixed = source(Foreign(1), Foreign(2), of_large=True, least=1e-3)
    whole = await reply(mixed, max_tokens=4)
    assert whole.text == "üü"
