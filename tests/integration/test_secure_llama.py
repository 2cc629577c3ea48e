"""Answers of a Llama that neither side shows the other, by real engines: those of the plain model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from cosilo.boundary.messages import Joint
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.engines.spu import environment
from cosilo.errors import RejectedError
from cosilo.models.white_box.lm import TorchModel
from cosilo.parties.joint import runs_of
from cosilo.strategies.base import strategies
from cosilo.strategies.inference.secure_llama import first_tokens
from cosilo.types import Chat, Demonstration, user
from secure_llamas import CHATS, LABELS, adapted, base, opened, with_terms

pytestmark = pytest.mark.skipif(
    environment.found() is None, reason=f"needs the engine's environment: {environment.INSTALL}"
)


def plainly(model: TorchModel, chat: Chat, choices: tuple[str, ...] = LABELS) -> str:
    """What the model says in clear: the choice whose first token is likeliest, or the next token."""
    logits = model.said_after(list(model.prompt(chat)))
    if not choices:
        return model.piece(int(logits.argmax())).decode("utf-8", "replace")
    tokens = first_tokens(model, choices, by="this test")
    return choices[int(np.argmax(logits[list(tokens)]))]


async def test_private_last_layers_answer_as_they_do_in_clear(tmp_path: Path) -> None:
    """The labels and nothing else are told; a text unlike the public ones has no answer."""
    private, ledger = with_terms(adapted(base(), [1]), tmp_path), MemoryLedger()
    strategy = strategies.create("secure_adapter", lengths=(32,))
    session = opened(private, strategy, ledger=ledger)
    prepared, session = await strategy.prepare(session)
    answers = [await prepared.answer(session, chat) for chat in CHATS]
    assert [answer.text for answer in answers] == [plainly(private, chat) for chat in CHATS]
    assert len({plainly(private, chat) for chat in CHATS}) == 3
    assert len({plainly(base(), chat) for chat in CHATS}) == 1
    assert all(answer.generation.tokens == () for answer in answers), "no probability is told"
    (card,) = session.cards
    assert card.facts["MB of shares of the weights, all parties"] > 1

    sent = [entry for entry in ledger.entries() if entry.direction == "up"]
    assert [entry.kind for entry in sent[:2]] == ["AskJoint", "OpenJoint"]
    assert {entry.kind for entry in sent[2:]} == {Joint.__name__}
    texts = [b"refund", b"the the", b"hello"]
    assert not any(text in (entry.payload or b"") for entry in sent for text in texts)

    home: Any = session.owner.model
    usual = home.activations

    async def large(sequences: Any, layer: int) -> Any:
        return [states * 300 for states in await usual(sequences, layer)]

    home.activations = large
    with pytest.raises(RejectedError, match="states of this text are larger or smaller"):
        await prepared.answer(session, CHATS[0])
    await prepared.close(session)
    await private.close()


async def test_a_whole_forward_says_the_next_token(tmp_path: Path) -> None:
    model = with_terms(base(), tmp_path, whole=True, layers=0)
    strategy = strategies.create("secure_forward", lengths=(32,))
    session = opened(model, strategy, choices=())
    prepared, session = await strategy.prepare(session)
    answer = await prepared.answer(session, CHATS[2])
    assert answer.text == plainly(model, CHATS[2], ())
    await prepared.close(session)
    await model.close()


async def test_what_stands_before_the_first_private_value_crosses_in_clear(tmp_path: Path) -> None:
    """The answer is the plain model's; a prompt with a prefix as long goes on in the same run, and one
    with another ends it."""
    model = with_terms(adapted(base(), [0, 1]), tmp_path, whole=True, layers=0)
    ledger = MemoryLedger()
    strategy = strategies.create(
        "secure_forward", protect="span", never=("hello world", "billing"), grid=8, lengths=(32,)
    )
    chats = [user("the refund is about billing"), user("refund is the the hello world")]
    session = opened(model, strategy, ledger=ledger)
    pool = (Demonstration("a", chats[0], ""),)
    session = replace(session, owner=replace(session.owner, pool=pool))
    prepared, session = await strategy.prepare(session)
    prompts = [list(model.prompt(chat)) for chat in chats]
    card, run = session.cards
    assert (card.facts["tokens"], card.facts["tokens in clear"]) == (len(prompts[0]), 8)
    assert run.title == "joint computation, texts of 32 tokens behind 8 in clear"

    answers = [await prepared.answer(session, chat) for chat in chats]
    assert [answer.text for answer in answers] == [plainly(model, chat) for chat in chats]
    sent = [entry for entry in ledger.entries() if entry.direction == "up"]
    assert [entry.kind for entry in sent].count("OpenJoint") == 1
    computed = [e.message for e in sent if isinstance(e.message, Joint) and e.message.clear]
    assert [list(message.clear) for message in computed] == [ids[:8] for ids in prompts]
    assert [message.text for message in computed] == ["user\nthe ", "user\nrefund is"]
    assert all(message.legible() for message in computed)
    private = [b"billing", b"hello", b"world"]
    assert not any(value in (entry.payload or b"") for entry in sent for value in private)

    nothing = user("the the the")
    assert (await prepared.answer(session, nothing)).text == plainly(model, nothing)
    kinds = [entry.kind for entry in ledger.entries() if entry.direction == "up"]
    assert (kinds.count("OpenJoint"), kinds.count("CloseJoint")) == (2, 1)
    assert len(runs_of(model).pids) == 1
    await prepared.close(session)
    assert runs_of(model).pids == []
    await model.close()
