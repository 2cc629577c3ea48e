"""Drafts: what a small model says, and what stood there before."""

from __future__ import annotations

from cosilo.models.drawing import drawn
from cosilo.strategies.drafting import InTurn, LookUp, ModelDrafts, worded
from cosilo.types import Sampling, user
from few_words import END, FewWords

CHAT = user("Why?")


async def test_what_is_looked_up_is_what_stood_behind_the_longest_end() -> None:
    prompt = "CREATE TABLE customers (name, town); CREATE TABLE custody (day)"
    up = LookUp([prompt])
    assert await up.draft("SELECT town FROM custom", 9, 2) == "ers (nam"
    assert await up.draft("SELECT town FROM cust", 9, 3) == "ody (day)", "the last of equals"
    assert await up.draft("SELECT q", 3, 4) == ""
    assert await up.draft("", 0, 4) == ""
    assert await up.draft("zz top, zz t", 5, 1) == "op, ", "the reply itself is looked through"
    assert await LookUp(["the cat sat", "the cat ran"]).draft("the cat", 2, 2) == " sat"


async def test_a_model_drafts_what_it_would_write_and_stops_where_it_would() -> None:
    small = FewWords.drawn(1)
    for seed in range(20):
        sampling = Sampling(max_tokens=9, temperature=1.0, seed=seed)
        alone = (await small.generate(CHAT, sampling)).text
        drafts = ModelDrafts(small, CHAT, sampling)
        assert await drafts.draft("", 0, 9) == alone
        if len(alone) < 3:
            continue
        # By the numbers of the same place, whatever it drafted before.
        assert await drafts.draft(alone[:2], 2, 7) == alone[2:]
        assert await ModelDrafts(small, CHAT, sampling).draft(alone[:2], 2, 7) == alone[2:]


async def test_a_model_of_other_tokens_drafts_what_is_likeliest() -> None:
    small = FewWords.drawn(1)
    drafts = ModelDrafts(small, CHAT, Sampling(temperature=1.0, seed=5))
    drafts.alike = False
    said = await drafts.draft("", 0, 3)
    ids, token = [], END
    while len(ids) < 3:
        _, found = await small.read(None, [token], places=1, top=1)
        (token,) = drawn(found, Sampling(), ())
        if token == END:
            break
        ids.append(token)
    assert said == b"".join(small.spelt(ids)).decode()


async def test_what_was_read_is_not_read_again() -> None:
    small = FewWords.drawn(1)
    drafts = ModelDrafts(small, CHAT, Sampling(temperature=1.0, seed=5))
    said = await drafts.draft("", 0, 4)
    assert small.reads == len(said) + (len(said) < 4)
    before = small.reads
    await drafts.draft(said[:1], 1, 1)
    assert small.reads == before + 1


async def test_the_first_that_has_a_draft_is_taken() -> None:
    up = LookUp(["abcd"])
    assert await InTurn(LookUp([]), up).draft("abc", 3, 1) == "d"
    assert await InTurn(up, LookUp([])).draft("xyz", 3, 1) == ""


def test_no_half_of_a_word_stays() -> None:
    assert worded(" was Maria Lop") == " was Maria"
    assert worded(" Lop") == ""
    assert worded("ez, who") == "ez,"
    assert worded("") == ""
