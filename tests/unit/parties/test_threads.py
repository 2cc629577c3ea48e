"""A thread at the LM's owner: nothing is read twice, nothing is mixed up, little is kept for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from cosilo.boundary.messages import Step, Steps
from cosilo.boundary.messages.step import ThreadName
from cosilo.boundary.wire.logits import unpack
from cosilo.errors import CapabilityError, ModelError, RejectedError, UnknownThreadError
from cosilo.models.base import Access
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.threads import KeptThread, Threads
from cosilo.types import user
from toy_thread import END, PIECES, ToyThreads

CHAT = user("Why?")
PROMPT = 5


def name(text: str | bytes, chat: object = CHAT) -> bytes:
    said = text.encode() if isinstance(text, str) else text
    return bytes(ThreadName(chat).after(said))  # type: ignore[arg-type]


def opened(**options: object) -> tuple[LMOwner, ToyThreads]:
    model = ToyThreads()
    return LMOwner(model, exposes=Access.LOGITS.shows, **options), model  # type: ignore[arg-type]


async def asked(owner: LMOwner, **fields: object) -> Steps:
    reply = await owner.handle(Step(**{"top": 3, **fields}))  # type: ignore[arg-type]
    assert isinstance(reply, Steps)
    return reply


def likeliest(steps: Steps) -> list[int]:
    top = unpack(steps.packed)
    assert top.ids is not None
    return [int(row[np.argmax(p)]) for row, p in zip(top.ids, top.logprobs, strict=True)]


async def test_each_token_is_read_once() -> None:
    owner, model = opened()
    first = await asked(owner, chat=CHAT)
    assert (first.vocabulary, first.ends, first.usage()) == ("toy", (END,), (PROMPT, 0))
    second = await asked(owner, thread=name(""), text=" the ref")
    assert (second.vocabulary, second.ends) == ("", ())
    assert (second.new, second.before) == (3, PROMPT)
    third = await asked(owner, thread=name(" the ref"), ids=model.cut(" about")[0])
    assert (third.usage(), third.cached()) == ((PROMPT + 4, 0), PROMPT + 3)
    assert model.read_ids == [
        model.prompt(CHAT),
        *(model.cut(t)[0] for t in (" the ref", " about")),
    ]
    assert likeliest(third) == [model.next(CHAT, " the ref about")]


async def test_a_word_that_goes_on_is_cut_anew() -> None:
    owner, model = opened()
    await asked(owner, chat=CHAT, text=" ref")
    reply = await asked(owner, thread=name(" ref"), text="und")
    assert likeliest(reply) == [model.next(CHAT, " refund")]
    assert model.read_ids[-1] == model.cut(" refund")[0]
    await asked(
        owner, thread=name(" ref"), text="s"
    )  # what the word began with can be gone on with


async def test_how_much_of_a_draft_the_model_would_have_written() -> None:
    model = ToyThreads()
    chat = next(  # one whose likeliest tokens are letters, so that a draft can be right
        c
        for c in (user(f"Why {i}?") for i in range(10_000))
        if chr(model.next(c, "")).isalpha()
        and model.next(c, "") < 128
        and 32 < model.next(c, chr(model.next(c, ""))) < 128
    )
    owner = LMOwner(model, exposes=Access.LOGITS.shows)
    await asked(owner, chat=chat)
    first = chr(model.next(chat, ""))
    second = chr(model.next(chat, first))
    third = model.next(chat, first + second)
    wrong = "y" if third == ord("z") else "z"
    draft = first + second + wrong + wrong
    reply = await asked(owner, thread=name("", chat), draft=draft)
    assert (reply.accepted, reply.lengths, reply.back) == (2, (1, 1, 1, 1), 0)
    assert likeliest(reply) == [third]
    whole = await asked(owner, thread=name("", chat), draft=draft, each=True)
    expected = [model.next(chat, draft[:i]) for i in range(5)]
    assert (whole.accepted, likeliest(whole)) == (2, expected)
    # What was accepted has a name and is not sent again; what was not accepted is gone from the model.
    reads = len(model.read_ids)
    after = await asked(owner, thread=name(first + second, chat), text="q")
    assert likeliest(after) == [model.next(chat, first + second + "q")]
    assert model.read_ids[reads:] == [[ord("q")]]
    assert len(owner.threads) == 1, "a draft is nobody's to go on from, so no copy was made"


async def test_a_draft_that_goes_on_with_a_word_says_so() -> None:
    owner, model = opened()
    await asked(owner, chat=CHAT, text=" ref")
    reply = await asked(owner, thread=name(" ref"), draft="und about", each=True)
    assert (reply.back, reply.lengths) == (4, (3, 6))
    assert likeliest(reply) == [model.next(CHAT, t) for t in ("", " refund", " refund about")]


async def test_two_ways_to_go_on_do_not_disturb_each_other() -> None:
    owner, model = opened()
    await asked(owner, chat=CHAT, text=" the")
    texts = [" about", " refund", "x", "ref"]
    replies = await asyncio.gather(*(asked(owner, thread=name(" the"), text=t) for t in texts))
    assert [likeliest(r) for r in replies] == [[model.next(CHAT, " the" + t)] for t in texts]
    for text in texts:
        reply = await asked(owner, thread=name(" the" + text), text="!")
        assert likeliest(reply) == [model.next(CHAT, f" the{text}!")]
    assert sum(map(len, model.read_ids)) < PROMPT + 1 + 2 * len(texts) + 4


async def test_the_same_step_again_has_the_same_reply() -> None:
    owner, _ = opened()
    await asked(owner, chat=CHAT)
    step = {"thread": name(""), "text": " the ref"}
    assert await asked(owner, **step) == await asked(owner, **step)
    assert await asked(owner, chat=CHAT) == await asked(owner, chat=CHAT)
    assert len(owner.threads) <= 2


async def test_the_least_used_is_forgotten_first_and_each_client_has_its_own_limit() -> None:
    threads = Threads(most=2)
    owner, model = opened(threads=threads, client="a")
    other = LMOwner(model, exposes=Access.LOGITS.shows, client="b", threads=threads)
    chats = [user(f"chat {i}") for i in range(3)]
    await asked(other, chat=chats[0])
    for chat in (chats[0], chats[1], chats[0], chats[2]):
        await asked(owner, chat=chat)
    with pytest.raises(UnknownThreadError, match="open it again"):
        await asked(owner, thread=name("", chats[1]), text="x")
    for who, chat in ((owner, chats[0]), (owner, chats[2]), (other, chats[0])):
        await asked(who, thread=name("", chat), text="x")


async def test_what_threads_take_in_memory_is_limited() -> None:
    for limits, left in ({"size": 2600}, 2), ({"total": 2600}, 2), ({"size": 10}, 1):
        owner, _ = opened(threads=Threads(**limits))
        for i in range(5):
            await asked(owner, chat=user(f"chat {i}"))
        assert len(owner.threads) == left


async def test_a_model_that_fails_leaves_no_thread_behind() -> None:
    owner, model = opened()
    await asked(owner, chat=CHAT)
    working = model.read

    async def failing(*_: object, **__: object) -> None:
        raise ModelError("it failed")

    model.read = failing  # type: ignore[method-assign, assignment]
    with pytest.raises(ModelError):
        await asked(owner, thread=name(""), text="x")
    model.read = working  # type: ignore[method-assign]
    with pytest.raises(UnknownThreadError):
        await asked(owner, thread=name(""), text="x")
    assert not len(owner.threads)


async def test_who_waited_for_a_thread_that_is_gone_then_is_told_so() -> None:
    owner, model = opened()
    await asked(owner, chat=CHAT)
    begun, fail = asyncio.Event(), asyncio.Event()

    async def failing(*_: object, **__: object) -> None:
        begun.set()
        await fail.wait()
        raise ModelError("it failed")

    model.read = failing  # type: ignore[method-assign, assignment]
    first = asyncio.create_task(asked(owner, thread=name(""), text="x"))
    await begun.wait()
    second = asyncio.create_task(asked(owner, thread=name(""), text="y"))
    await asyncio.sleep(0)
    fail.set()
    with pytest.raises(ModelError, match="failed"):
        await first
    with pytest.raises(UnknownThreadError):
        await second


async def test_ids_that_are_not_the_cut_of_their_text_are_refused() -> None:
    owner, model = opened()
    await asked(owner, chat=CHAT)
    assert len(model.cut("ref")[0]) == 1
    for fields in ({"ids": tuple(b"ref")}, {"draft_ids": tuple(b"ref")}, {"ids": (END,)}):
        with pytest.raises(RejectedError, match="cuts their text"):
            await asked(owner, thread=name(""), **fields)


async def test_parts_of_a_character_go_as_ids_and_nothing_else_does() -> None:
    owner, model = opened()
    smile = "🙂".encode()
    await asked(owner, chat=CHAT, text="a")
    half = await asked(owner, thread=name("a"), ids=tuple(smile[:2]), partial=True)
    assert likeliest(half) == [
        int(np.argmax(model.logprobs([*model.prompt(CHAT), 97, *smile[:2]])))
    ]
    whole = await asked(owner, thread=name("a"), text="🙂")
    assert likeliest(whole) == [model.next(CHAT, "a🙂")]
    with pytest.raises(RejectedError, match="hold more"):
        await asked(owner, thread=name("a"), ids=(98, *smile[:2]), partial=True)
    with pytest.raises(RejectedError, match="within a character"):
        await asked(owner, thread=name(b"a" + smile[:2]), text="b")


async def test_what_is_not_served_says_what_would_do() -> None:
    with pytest.raises(CapabilityError, match="keeps what it has read"):
        await LMOwner(ScriptedModel(), exposes=Access.LOGITS.shows).handle(Step(chat=CHAT))
    with pytest.raises(CapabilityError, match="does not serve Step"):
        await LMOwner(ToyThreads(), exposes=Access.LOGPROBS.shows).handle(Step(chat=CHAT))
    owner, _ = opened()
    with pytest.raises(RejectedError, match="at most 512"):
        await asked(owner, chat=CHAT, draft="z" * 600)


async def test_ids_are_spelt_where_that_is_asked_for() -> None:
    owner, model = opened()
    reply = await asked(owner, chat=CHAT, spell=True)
    ids = unpack(reply.packed).ids
    assert ids is not None
    assert reply.spelt == tuple(map(model.piece, sorted(ids[0].tolist())))


async def test_the_likeliest_token_is_known_however_close_the_next_is() -> None:
    owner, model = opened()
    close = np.log(np.full(len(PIECES), 1 / len(PIECES)))
    close[90] += 1e-4
    model.logprobs = lambda ids: close  # type: ignore[method-assign]
    assert likeliest(await asked(owner, chat=CHAT)) == [90]


@pytest.mark.parametrize("torch", [False, True])
async def test_a_text_is_cut_as_one_however_it_comes(torch: bool) -> None:
    model: Any = ToyThreads()
    if torch:
        pytest.importorskip("transformers", reason="the torch extra is not installed")
        from white_box import tiny

        model = tiny(0)
    owner = LMOwner(model, exposes=Access.LOGITS.shows)
    rng = np.random.default_rng(0)
    parts = (
        " the",
        "ref",
        "und",
        " about",
        "é",
        "  ",
        "\n",
        " x",
        "y",
        ". ",
        " is",
        "billing",
        "🙂",
    )
    text = "".join(rng.choice(parts, 60))
    said = ""
    await asked(owner, chat=CHAT)
    while said != text:
        more = text[len(said) : len(said) + int(rng.integers(1, 9))]
        await asked(owner, thread=name(said), text=more, draft=str(rng.choice(parts)))
        said += more
        await asked(owner, thread=name(said))
        kept = owner.threads.find("", name(said), KeptThread)
        assert kept is not None
        assert kept.text == said.encode()
        ids, pieces = model.cut(said)
        assert list(kept.ids) == list(ids)
        assert list(kept.ends) == list(np.cumsum([len(p) for p in pieces]))
    await model.close()
