"""Mixing token by token, on a model small enough to know all about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Step
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import CapabilityError, RejectedError
from cosilo.models.base import Access
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.mixing.numbers import Row, normalised
from cosilo.strategies.mixing.opening import opened
from cosilo.strategies.mixing.reading import HomeReader
from cosilo.strategies.mixing.writing import written
from cosilo.types import Generation, Sampling, assemble, user
from toy_thread import END, PIECES, ToyThreads

CHAT, HOME = user("Why?"), user("Why, at home?")


class Other(ToyThreads):
    """Another opinion over the same tokens; `tilt` favours words, so that replies are text."""

    def __init__(self, salt: int, vocabulary: str = "toy") -> None:
        super().__init__(f"toy{salt}", vocabulary=vocabulary)
        self.salt = salt

    def logprobs(self, ids: Sequence[int]) -> np.ndarray:
        row = super().logprobs([self.salt, *ids]) + np.where(np.arange(len(PIECES)) > END, 6.0, 0.0)
        row[128:256] = -30.0  # parts of characters
        return np.asarray(row - np.logaddexp.reduce(row))


@dataclass(frozen=True)
class Half:
    """The mean of both distributions."""

    every: int = 1
    prior: int = 0

    def asks(self, homes: Sequence[Row]) -> bool:
        return bool(np.argmax(homes[0]) % self.every == 0)

    def alone(self, homes: Sequence[Row]) -> Row:
        return homes[0]

    def joined(self, large: Row, homes: Sequence[Row]) -> Row:
        return np.logaddexp(large, homes[0]) - np.log(2)


def source(
    large: ToyThreads, small: ToyThreads, ledger: MemoryLedger | None = None, **options: Any
) -> Any:
    road = Boundary(
        InProcess(LMOwner(large, exposes=Access.LOGITS.shows)),
        declared=frozenset({Step}),
        **({} if ledger is None else {"ledger": ledger}),
    )
    mixture = options.pop("mixture", Half())
    named: dict[str, Any] = {"by": "tokens", "top": len(PIECES), "ahead": 0, "name": "test"}
    return opened(mixture, road, CHAT, [HomeReader(small, HOME)], **named | options)


async def reply(source: Any, **sampling: Any) -> Generation:
    sampled = Sampling(**{"max_tokens": 8} | sampling)
    return assemble([d async for d in written(source, sampled)])


def slow(large: ToyThreads, small: ToyThreads, text: str, half: Half | None = None) -> np.ndarray:
    """What comes behind `text`, worked out without threads, rounding or shortcuts."""
    ids = large.cut(text)[0]
    one = small.logprobs([*small.prompt(HOME), *ids])
    if half is not None and not half.asks([one]):
        row = one.copy()
    else:
        row = np.log((np.exp(one) + np.exp(large.logprobs([*large.prompt(CHAT), *ids]))) / 2)
    row[[i for i, p in enumerate(PIECES) if not p and i != END]] = -np.inf
    return normalised(row)


async def test_at_each_place_it_is_the_mixture() -> None:
    large, small = Other(1), Other(2)
    mixed, text = source(large, small), ""
    for _ in range(6):
        row = await mixed.next()
        wanted = slow(large, small, text)
        assert np.abs(np.exp(row) - np.exp(wanted)).max() < 0.02  # logits come rounded to 1/16
        token = int(np.argsort(-wanted)[1])
        token = token if PIECES[token].isascii() and token != END else int(PIECES.index(b" the"))
        await mixed.take(token)
        text += PIECES[token].decode()


@pytest.mark.parametrize("ahead", [1, 4])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_drafts_change_nothing_but_the_number_of_crossings(
    ahead: int, temperature: float
) -> None:
    found, crossings = [], []
    for drafted in (0, ahead):
        ledger = MemoryLedger()
        mixed = source(Other(1), Other(2), ledger, ahead=drafted)
        found.append(await reply(mixed, temperature=temperature, seed=5, top_logprobs=2))
        crossings.append(sum(e.direction == "up" for e in ledger.entries()))
    assert found[0].text == found[1].text
    for a, b in zip(found[0].tokens, found[1].tokens, strict=True):
        assert abs(a.logprob - b.logprob) < 0.05
    assert crossings[1] < crossings[0] == len(found[0].tokens)


async def test_where_the_large_model_is_not_asked_nothing_crosses() -> None:
    large, small, half = Other(1), Other(2), Half(every=2)
    ledger = MemoryLedger()
    mixed = source(large, small, ledger, mixture=half)
    whole = await reply(mixed)
    text, asked = "", 0
    for token in whole.tokens:
        wanted = slow(large, small, text, half)
        ids = large.cut(text)[0]
        asked += half.asks([small.logprobs([*small.prompt(HOME), *ids])])
        assert abs(token.logprob - wanted.max()) < 0.1
        text += token.token
    assert 0 < asked < len(whole.tokens)
    assert mixed.asked == asked == sum(e.direction == "up" for e in ledger.entries())


async def test_what_was_drawn_in_another_cut_is_cut_anew_on_both_sides() -> None:
    large, small = Other(1), Other(2)
    mixed = source(large, small)
    for letter in " the":
        await mixed.next()
        await mixed.take(ord(letter))
    found = np.exp(await mixed.next())
    assert np.abs(found - np.exp(slow(large, small, " the"))).max() < 0.02


async def test_half_a_character_goes_as_parts() -> None:
    large, small = Other(1), Other(2)
    mixed = source(large, small)
    for byte in "ü".encode():
        await mixed.next()
        assert not mixed.fits("ü".encode()[0]) or byte == "ü".encode()[0]
        await mixed.take(byte)
    found = np.exp(await mixed.next())
    assert np.abs(found - np.exp(slow(large, small, "ü"))).max() < 0.02


async def test_what_is_no_text_is_not_said() -> None:
    """However likely: the LM's owner could not be told of it."""

    class Garbled(Other):
        def logprobs(self, ids: Sequence[int]) -> np.ndarray:
            row = super().logprobs(ids)
            row[200] += 60.0  # the first half of a character, which never goes on
            return np.asarray(row - np.logaddexp.reduce(row))

    whole = await reply(source(Garbled(1), Garbled(2)), temperature=1.0, max_tokens=6)
    assert whole.text
    assert "\ufffd" not in whole.text[:-1]  # cut off within a character at most


async def test_a_choice_is_asked_about_where_the_choices_part() -> None:
    large, small = Other(1), Other(2)
    ledger = MemoryLedger()
    choices = (" the ref", " the refund", " about")
    whole = await reply(source(large, small, ledger), choices=choices, top_logprobs=1)
    rows = {text: slow(large, small, text) for text in ("", " the")}
    the, about = (rows[""][PIECES.index(w)] for w in (b" the", b" about"))
    space, refund = (rows[" the"][PIECES.index(w)] for w in (b" ", b" refund"))
    first = np.logaddexp(the, about)
    second = np.logaddexp(space, refund)
    if about > the:
        wanted = (" about", about - first)
    elif refund > space:
        wanted = (" the refund", the - first + refund - second)
    else:
        wanted = (" the ref", the - first + space - second)
    assert whole.text == wanted[0]
    assert abs(whole.tokens[0].logprob - wanted[1]) < 0.1
    assert whole.tokens[0].top[0][0] == whole.text
    assert sum(e.direction == "up" for e in ledger.entries()) == (1 if about > the else 2)


async def test_choices_are_drawn_by_the_seed() -> None:
    choices = ("a", "b", "c", "d")
    found = {
        (await reply(source(Other(1), Other(2)), choices=choices, temperature=50.0, seed=seed)).text
        for seed in range(12)
    }
    assert len(found) > 1


async def test_another_vocabulary_is_refused_by_name() -> None:
    mixed = source(Other(1, vocabulary="another"), Other(2))
    with pytest.raises(CapabilityError, match=r"'toy2' has another.*bytes"):
        await mixed.next()


async def test_a_context_that_fills_up_ends_the_reply() -> None:
    class Short(Other):
        async def read(self, past: Any, ids: Any, **options: Any) -> Any:
            if len(past.ids if past else ()) + len(ids) > len(self.prompt(HOME)) + 3:
                raise RejectedError("too long")
            return await super().read(past, ids, **options)

    whole = await reply(source(Other(1), Short(2)))
    assert whole.finish_reason == "length"
    assert 0 < whole.completion_tokens <= 4


async def test_a_prompt_that_does_not_fit_is_refused() -> None:
    class Full(Other):
        async def read(self, past: Any, ids: Any, **options: Any) -> Any:
            raise RejectedError("too long")

    ledger = MemoryLedger()
    with pytest.raises(RejectedError, match="too long"):
        await reply(source(Other(1), Full(2), ledger))
    assert not list(ledger.entries())


async def test_stop_strings_and_the_end_end_a_reply() -> None:
    whole = await reply(source(Other(1), Other(2)), max_tokens=12)
    cut = whole.tokens[2].token
    stopped = await reply(source(Other(1), Other(2)), max_tokens=12, stop=(cut,))
    assert stopped.text == whole.text[: whole.text.index(cut)]
    assert stopped.finish_reason == "stop"
