"""A reply on a thread is the model's own, whatever is drafted; a draft that is right saves steps."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

import few_words
from cosilo.boundary.messages import Verified, Verify
from cosilo.errors import CapabilityError, RejectedError, UnknownThreadError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.serving import verify
from cosilo.parties.threads import Threads
from cosilo.types import Sampling, user
from few_words import FewWords
from toy_thread import END, PIECES, ToyThreads

CHAT = user("Why?")


class Ascii(ToyThreads):
    """Writes nothing that is no text."""

    def logprobs(self, ids: Sequence[int]) -> np.ndarray:
        found = super().logprobs(ids).copy()
        found[128:END] = -50.0
        return found


class Planned(ToyThreads):
    """Writes a text, byte by byte, and ends."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.plan = [*text.encode(), END]

    def logprobs(self, ids: Sequence[int]) -> np.ndarray:
        at = len(ids) - len(self.prompt(CHAT))
        return np.where(
            np.arange(len(PIECES)) == self.plan[min(at, len(self.plan) - 1)], 0.0, -40.0
        )


async def replied(
    model: Any, sampling: Sampling, drafts: Sequence[str] = (), owner: LMOwner | None = None
) -> tuple[str, list[Verified]]:
    """A whole reply, for which the drafts are offered one after the other, and then none."""
    owner = owner or LMOwner(model)
    thread, said, seen = b"", "", list[Verified]()
    offered = iter(drafts)
    while not seen or not seen[-1].finish:
        opening: dict[str, Any] = {} if thread else {"chat": CHAT, "sampling": sampling}
        reply = await owner.handle(Verify(thread=thread, draft=next(offered, ""), **opening))
        assert isinstance(reply, Verified)
        seen.append(reply)
        thread, said = reply.thread, said + reply.text
    return said, seen


async def test_the_right_draft_comes_in_one_crossing_and_a_wrong_one_changes_nothing() -> None:
    rows = FewWords.drawn(2).rows
    rows[:, few_words.END] = 1e-9
    model, sampling = FewWords(rows), Sampling(max_tokens=12, temperature=0.5, seed=4)
    alone, steps = await replied(model, sampling)
    assert len(steps) == steps[-1].at == 12
    whole, seen = await replied(model, sampling, [alone])
    assert whole == alone
    assert [(s.drafted, s.accepted) for s in seen] == [(11, 11)]
    other = alone.translate(str.maketrans("abcd", "bcda"))
    wrong, seen = await replied(model, sampling, list(other))
    assert wrong == alone
    assert {s.accepted for s in seen} == {0}
    half, seen = await replied(model, sampling, [alone[:4] + other[4:]])
    assert half == alone
    assert (seen[0].accepted, seen[0].text) == (4, alone[:5])


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_is_drafted_the_reply_is_the_same(seed: int) -> None:
    """Greedy and drawn: drafts are bits of the right text, of wrong ones, and nothing."""
    rng = random.Random(seed)
    model = Ascii()
    sampling = Sampling(max_tokens=20, temperature=(0.0, 0.7)[seed % 2], top_p=0.95, seed=seed)
    alone, _ = await replied(model, sampling)
    drafts = [
        rng.choice([alone[i : i + 4], "the ref", "", alone[i : i + 2] + "x", "é🙂"])
        for i in range(0, 2 * len(alone) + 1)
    ]
    drafted, _ = await replied(model, sampling, drafts)
    assert drafted == alone


async def test_a_reply_by_a_seed_is_what_the_model_writes_by_that_seed() -> None:
    model = FewWords.drawn(3)
    for seed in range(50):
        sampling = Sampling(max_tokens=8, temperature=0.8, seed=seed)
        alone = await model.generate(CHAT, sampling)
        said, seen = await replied(model, sampling, ["abc", "cd", "ba"])
        assert (said, seen[-1].finish) == (alone.text, alone.finish_reason)


async def tallied(model: FewWords, small: FewWords, draws: int, most: int) -> Counter[str]:
    """How often each reply came, each drafted by `small`."""
    found: Counter[str] = Counter()
    for seed in range(draws):
        sampling = Sampling(max_tokens=most, temperature=1.0, seed=seed)
        other = Sampling(max_tokens=3, temperature=1.0, seed=seed + draws)
        drafts = 2 * [(await small.generate(CHAT, other)).text]
        found[(await replied(model, sampling, drafts))[0]] += 1
    return found


def p_value(model: FewWords, found: Counter[str], most: int) -> float:
    """χ² of the tally against the model's own distribution; rare replies are counted together."""
    draws = found.total()
    expected = {said: p * draws for said, p in model.replies(most).items()}
    assert set(found) <= set(expected)
    often = [said for said, count in expected.items() if count >= 5]
    seen = [*(found[said] for said in often), draws - sum(found[said] for said in often)]
    awaited = [*(expected[said] for said in often), draws - sum(expected[said] for said in often)]
    return float(stats.chisquare(seen, awaited).pvalue)


async def test_draws_have_the_models_own_distribution_and_a_wrong_rule_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, small = FewWords.drawn(0), FewWords.drawn(1)
    assert p_value(model, await tallied(model, small, 1500, 3), 3) > 0.01
    honest = verify._chosen

    async def accepts_what_is_likely(
        model: FewWords, kept: verify.KeptReply, drafted: Sequence[int]
    ) -> list[int]:
        """A drafted token stays where it is not unlikely, rather than with the probability it has."""
        chosen = await honest(model, kept, drafted)
        before = [few_words.END, *kept.ids][-1:]
        rows = model.rows[[*before, *drafted]]
        right = [rows[i][token] > 0.15 for i, token in enumerate(drafted)]
        return [
            drafted[i] if i < len(drafted) and right[i] else token for i, token in enumerate(chosen)
        ]

    monkeypatch.setattr(verify, "_chosen", accepts_what_is_likely)
    assert p_value(model, await tallied(model, small, 1500, 3), 3) < 1e-6


async def test_stop_strings_end_a_reply_and_their_beginnings_are_held_back() -> None:
    model = FewWords(np.eye(5)[[1, 2, 3, 4, 0]] + 1e-9)  # a, b, c, d, the end
    assert (await replied(model, Sampling(max_tokens=9)))[0] == "abcd"
    said, seen = await replied(model, Sampling(max_tokens=9, stop=("cd", "bx")))
    assert said == "ab"
    assert [s.text for s in seen] == ["a", "", "b", ""]
    assert seen[-1].finish == "stop"
    said, seen = await replied(model, Sampling(max_tokens=9, stop=("cd",)), ["abcd"])
    assert (said, len(seen), seen[0].accepted) == ("ab", 1, 4)
    said, seen = await replied(model, Sampling(max_tokens=3, stop=("cd",)))
    assert (said, seen[-1].finish) == ("abc", "length")
    # What is drafted begins behind what was told, and so with what is held back.
    said, seen = await replied(model, Sampling(max_tokens=9, stop=("bx",)), ["a", "bcd"])
    assert (said, [s.accepted for s in seen]) == ("abcd", [1, 2])


async def test_a_character_is_told_whole() -> None:
    said, seen = await replied(Planned("é!"), Sampling(max_tokens=9), ["", "é!", "!"])
    assert said == "é!"
    assert [s.text for s in seen] == ["", "é", "!", ""][: len(seen)]
    said, seen = await replied(Planned("é!"), Sampling(max_tokens=1))
    assert (said, seen[-1].finish) == ("�", "length")


async def test_what_is_behind_a_defence_is_told_whole_and_found_again_in_what_is_drafted() -> None:
    alone = "aa " * 4
    owner = LMOwner(Planned(alone))
    asked: dict[str, Any] = {"chat": CHAT, "sampling": Sampling(max_tokens=40), "whole": True}
    one = await owner.handle(Verify(**asked, draft="aa aa"))
    assert isinstance(one, Verified)
    assert one.text == "aa aa "
    # It says all again; with another word in front, the end of it tells where the draft begins.
    two = await owner.handle(Verify(**asked, thread=one.thread, draft="aa aa aa"))
    assert isinstance(two, Verified)
    assert (two.text, two.accepted, two.vocabulary) == ("aa aa aa ", 2, "")
    # A thread that is not known is begun again, as the message says all of it.
    again = await owner.handle(Verify(**asked, thread=b"?" * 16, draft="aa aa aa"))
    assert isinstance(again, Verified)
    assert (again.text, again.accepted, again.vocabulary) == ("aa aa aa ", 8, "toy")
    end = await owner.handle(Verify(**asked, thread=two.thread, draft="aa aa aa aa "))
    assert isinstance(end, Verified)
    assert (end.text, end.finish) == (alone, "stop")


async def test_threads_are_a_clients_own_and_forgotten_ones_are_unknown() -> None:
    threads = Threads(most=1)
    mine, other = (LMOwner(ToyThreads(), client=c, threads=threads) for c in "ab")
    first = await mine.handle(Verify(chat=CHAT, sampling=Sampling(max_tokens=9)))
    assert isinstance(first, Verified)
    with pytest.raises(UnknownThreadError):
        await other.handle(Verify(thread=first.thread))
    second = await mine.handle(Verify(thread=first.thread))
    assert isinstance(second, Verified)
    with pytest.raises(UnknownThreadError):
        await mine.handle(Verify(thread=first.thread))
    await mine.handle(Verify(chat=user("another"), sampling=Sampling(max_tokens=9)))
    with pytest.raises(UnknownThreadError):
        await mine.handle(Verify(thread=second.thread))
    assert len(threads) == 1


class Narrow(ToyThreads):
    """Has a context of 12 tokens: 5 of them the prompt."""

    async def read(self, past: Any, ids: Sequence[int], **options: Any) -> Any:
        if len(ids) + len(past.ids if past is not None else ()) > 12:
            raise RejectedError("too long")
        return await super().read(past, ids, **options)


async def test_a_full_context_ends_the_reply_as_it_does_alone() -> None:
    alone, steps = await replied(Narrow(), Sampling(max_tokens=40))
    assert (steps[-1].finish, steps[-1].at) == ("length", 8)
    drafted, seen = await replied(Narrow(), Sampling(max_tokens=40), [alone[:3], alone[3:] + "abc"])
    assert (drafted, seen[-1].finish) == (alone, "length")
    with pytest.raises(RejectedError):
        await LMOwner(Narrow()).handle(Verify(chat=user("twelve letters"), draft="a"))


async def test_a_model_that_keeps_nothing_and_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(CapabilityError, match="keeps what it has read"):
        await LMOwner(ScriptedModel()).handle(Verify(chat=CHAT))
    with pytest.raises(RejectedError, match="max_tokens"):
        await LMOwner(ToyThreads()).handle(Verify(chat=CHAT, sampling=Sampling(max_tokens=0)))
    warm = Sampling(temperature=1.0, seed=-1)  # any whole number is a seed, as elsewhere
    assert isinstance(
        await LMOwner(ToyThreads()).handle(Verify(chat=CHAT, sampling=warm)), Verified
    )
