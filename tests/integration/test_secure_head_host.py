"""Encrypted vectors go over TLS to a head on another machine, whose process is killed on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.hosts import CLIENT, HostProcess, the_way, write_host

from cosilo.boundary.messages import EvaluationKeys
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import BudgetExceededError
from cosilo.models.encoder.classifier import ClassifierModel
from cosilo.models.encoder.encoder import Encoder
from cosilo.models.encoder.head import TrainedHead
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.remote import RemoteOwner
from cosilo.session import open_session
from cosilo.strategies.inference.secure_head import SecureHead
from cosilo.types import Demonstration, Sampling, user
from private_heads import SHOWS, needs_tenseal

MODEL = """\
kind = "private_head"
head = "head"
allowance = 4
answers = "answers.sqlite"
exposes = ["text", "head"]
[clients.other]"""
TEXTS = ["my card was stolen", "block the card", "a loan please", "repay my loan"]


@needs_tenseal
@pytest.mark.models("minilm-int8")
@pytest.mark.timeout(300)
async def test_a_host_that_was_killed_asks_for_keys_and_still_counts(tmp_path: Path) -> None:
    encoder = Encoder()
    labels = ["card", "card", "loan", "loan"]
    examples = [
        Demonstration(text, user(text), label) for text, label in zip(TEXTS, labels, strict=True)
    ]
    trained = ClassifierModel(encoder, features="embedding").fit(examples)
    trained.save(tmp_path / "head")
    assert TrainedHead.load(tmp_path / "head").labels == ("card", "loan")
    ledger, host = MemoryLedger(), HostProcess(write_host(tmp_path, model=MODEL))

    def parts() -> int:
        return sum(entry.kind == EvaluationKeys.__name__ for entry in ledger.entries())

    try:
        port = host.port
        near = RemoteOwner(the_way(tmp_path, port), "lm-owner", f"party/{CLIENT}", exposes=SHOWS)
        owner = DataOwner(ClassifierModel(encoder))
        session = open_session(owner, near, SecureHead(), sampling=Sampling(), ledger=ledger)
        strategy, session = await SecureHead().prepare(session)
        said = [(await strategy.answer(session.bind(t), user(t))).text for t in TEXTS[:2]]
        sent = parts()
        host.kill()
        host = HostProcess(write_host(tmp_path, model=MODEL, port=port))
        said += [(await strategy.answer(session.bind(t), user(t))).text for t in TEXTS[2:]]
        assert said == labels
        assert parts() == 2 * sent, "the keys that were gone with the process, once"
        with pytest.raises(BudgetExceededError, match="may have 4"):
            await strategy.answer(session.bind("more"), user(TEXTS[0]))

        way = the_way(tmp_path, port, client="other")
        other = RemoteOwner(way, "lm-owner", "party/other", exposes=SHOWS)
        theirs, opened = await SecureHead().prepare(open_session(owner, other, SecureHead()))
        assert (await theirs.answer(opened, user(TEXTS[0]))).text == "card", "its own are all left"
        await near.close()
        await other.close()
    finally:
        assert host.stop() == 0
        encoder.close()
