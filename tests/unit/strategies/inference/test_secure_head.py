"""The strategy on an encrypted head: keys that are unknown, ended processes, answers that are none."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosilo.boundary.messages import EncryptedLogits, EncryptedVector, EvaluationKeys, Message
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import (
    BudgetExceededError,
    CapabilityError,
    ConfigError,
    RejectedError,
    UnexpectedReplyError,
)
from cosilo.models.joint import Wanted
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.encrypted import keyed
from cosilo.parties.joint import runs_of
from cosilo.session import open_session
from cosilo.strategies.base import Session, close
from cosilo.strategies.inference.secure_head import SecureHead
from cosilo.testing import LABELS
from cosilo.types import Sampling, user
from joint_runs import scripted_engine
from private_heads import INPUTS, SHOWS, data_owner, needs_tenseal, owner_of, private_head

CHATS = [user(f"message {i} about a card") for i in range(4)]


class Lying:
    """An LM's owner whose answers are changed on their way."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.name, self.exposes = inner.name, SHOWS
        self.lies = False

    async def handle(self, message: Message) -> Message:
        reply: Message = await self.inner.handle(message)
        if self.lies and isinstance(reply, EncryptedLogits):
            return reply.tampered(message, str)
        return reply

    def handle_stream(self, ask: Any) -> Any:
        raise NotImplementedError


def opened(lm: Any, ledger: MemoryLedger | None = None, **sampling: Any) -> Session:
    told = Sampling(**sampling)
    return open_session(data_owner(), lm, SecureHead(), sampling=told, ledger=ledger)


@needs_tenseal
async def test_it_goes_on_whatever_becomes_of_keys_and_processes(tmp_path: Path) -> None:
    head, ledger = private_head(tmp_path, most=20), MemoryLedger()
    lm = Lying(owner_of(head))
    session = opened(lm, ledger)
    strategy, session = await SecureHead().prepare(session)

    def sent() -> int:
        return sum(e.kind == EvaluationKeys.__name__ for e in ledger.entries()) // parts

    parts = 1
    parts = sent()
    clear = [(await head.generate(chat, Sampling())).text for chat in CHATS]
    assert sent() == 1 < parts
    keyed(head).forget("")
    assert isinstance(strategy, SecureHead)
    secured = await strategy._rooms.of(session)
    before = secured.keys.cpu_seconds
    answers = await asyncio.gather(*(strategy.answer(session, chat) for chat in CHATS))
    assert [answer.text for answer in answers] == clear
    assert sent() == 2, "keys that are unknown are sent once, also where several ask"
    told = sum(answer.generation.cpu_seconds for answer in answers)
    assert told == pytest.approx(secured.keys.cpu_seconds - before), "each is told its own"

    secured.keys.close()
    assert (await strategy.answer(session, CHATS[0])).text == clear[0]
    assert sent() == 3, "keys whose process is gone are made anew"

    lm.lies = True
    with pytest.raises(UnexpectedReplyError, match="no logits"):
        await strategy.answer(session, CHATS[0])
    lm.lies = False

    # Nothing of what was decrypted, and no text, has left.
    kinds = {entry.kind for entry in ledger.entries() if entry.direction == "up"}
    assert kinds == {"AskHead", EvaluationKeys.__name__, EncryptedVector.__name__}
    assert all(
        b"message" not in (e.payload or b"")[9:] for e in ledger.entries() if e.kind != "AskHead"
    )

    with pytest.raises(RejectedError, match="among the 1 choices"):
        await strategy.answer(opened(lm, choices=("neither",)), CHATS[0])
    chosen = await strategy.answer(opened(lm, choices=LABELS[:1]), CHATS[0])
    assert chosen.text == LABELS[0]
    assert chosen.confidence is None
    assert chosen.generation.logprob == 0.0


@needs_tenseal
@pytest.mark.parametrize("inputs", [INPUTS // 2, INPUTS * 2])
async def test_a_head_for_vectors_of_another_length_is_refused(tmp_path: Path, inputs: int) -> None:
    head = private_head(tmp_path, most=1)
    head.weights = np.ones((len(LABELS), inputs))
    strategy, session = await SecureHead().prepare(opened(owner_of(head)))
    with pytest.raises(CapabilityError, match=f"of {inputs} numbers, and .* have {INPUTS}"):
        await strategy.answer(session, CHATS[0])
    assert head.allowance is not None
    assert head.allowance.left("") == 1


@needs_tenseal
async def test_it_stops_where_no_more_is_allowed(tmp_path: Path) -> None:
    strategy, session = await SecureHead().prepare(opened(owner_of(private_head(tmp_path, most=1))))
    await strategy.answer(session, CHATS[0])
    with pytest.raises(BudgetExceededError, match="may have 1"):
        await strategy.answer(session, CHATS[1])
    assert isinstance(strategy, SecureHead)
    secured = await strategy._rooms.of(session)
    await close(strategy, session)
    assert not secured.keys.alive


async def test_a_small_model_that_makes_no_vectors_is_refused(tmp_path: Path) -> None:
    owner = DataOwner(ScriptedModel())
    session = open_session(owner, owner_of(private_head(tmp_path)), SecureHead())
    with pytest.raises(CapabilityError, match="kind 'classifier'"):
        await SecureHead().prepare(session)
    assert session.totals.messages == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "spu", "protocol": "semi2k"}, "deals the randomness"),
        ({"insecure": True}, 'for engine = "spu"'),
        ({"network": Path("network.toml")}, 'for engine = "spu"'),
    ],
)
def test_options_that_hide_nothing_or_go_nowhere_are_refused(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        SecureHead(**options)


class TestUnderSpu:
    """Without the engine: its parties are workers that find the first label in whatever they get."""

    @pytest.fixture(autouse=True)
    def engine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        scripted_engine(tmp_path, monkeypatch)

    async def test_the_label_alone_is_told_and_nothing_has_to_be_allowed(
        self, tmp_path: Path
    ) -> None:
        head, ledger = private_head(tmp_path, most=0), MemoryLedger()
        strategy = SecureHead(engine="spu")
        session = open_session(data_owner(), owner_of(head), strategy, ledger=ledger)
        prepared, session = await strategy.prepare(session)
        (card,) = session.cards
        assert card.facts["tells"] == "label"
        assert "holds the shares of all parties" in card.warning
        answer = await prepared.answer(session, CHATS[0])
        assert answer.text == LABELS[0]
        assert answer.generation.tokens == ()
        assert runs_of(head).pids
        for _ in range(2):
            await close(prepared, session)
        assert runs_of(head).pids == []
        kinds = [entry.kind for entry in ledger.entries() if entry.direction == "up"]
        assert kinds == ["AskJoint", "OpenJoint", "Joint", "Joint", "CloseJoint"]
        expected = {each.message.__name__ for each in strategy.forecast()}
        assert expected == set(kinds)
        picked = open_session(
            data_owner(), owner_of(head), strategy, sampling=Sampling(choices=LABELS[1:])
        )
        with pytest.raises(RejectedError, match="it tells no other"):
            await prepared.answer(picked, CHATS[0])
        await close(prepared, session)
        await head.close()

    async def test_an_insecure_protocol_stands_in_the_report_in_red(self, tmp_path: Path) -> None:
        head = private_head(tmp_path, most=0)
        strategy = SecureHead(engine="spu", protocol="semi2k", insecure=True)
        session = open_session(data_owner(), owner_of(head), strategy)
        prepared, session = await strategy.prepare(session)
        (card,) = session.cards
        assert card.warning.startswith("insecure = true: under 'semi2k' one of the two owners can")
        await close(prepared, session)
        await head.close()

    async def test_a_head_of_another_encoder_or_length_is_refused(self, tmp_path: Path) -> None:
        head = private_head(tmp_path, most=0)
        head.weights = np.ones((len(LABELS), INPUTS * 2))
        strategy = SecureHead(engine="spu")
        session = open_session(data_owner(), owner_of(head), strategy)
        prepared, session = await strategy.prepare(session)
        with pytest.raises(CapabilityError, match=f"of {INPUTS * 2} numbers, and .* have {INPUTS}"):
            await prepared.answer(session, CHATS[0])
        await close(prepared, session)
        await head.close()
        for wanted in (
            Wanted(program="head", base="another"),
            Wanted(program="llama", base="words"),
            Wanted(program="head", base="words", tells="states"),
        ):
            with pytest.raises(CapabilityError):
                head.takes_part(wanted)
