"""What the owner of a private head answers, and refuses."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from cosilo.boundary.messages import (
    AskHead,
    EncryptedVector,
    EvaluationKeys,
    Forget,
    HeadDescribed,
    KeysTaken,
)
from cosilo.engines.ckks.process import HomeKeys
from cosilo.errors import BudgetExceededError, CapabilityError, RejectedError, UnknownKeysError
from cosilo.models.base import Access, Shows
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.encrypted import keyed
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.serving import encrypted
from cosilo.testing import LABELS
from private_heads import INPUTS, SHOWS, needs_tenseal, owner_of, private_head

QUERY = EncryptedVector(keys=64 * "0", packed=b"no ciphertext")
ASKED = AskHead(encoder="words")


async def test_the_head_is_described_to_whoever_has_its_encoder(tmp_path: Path) -> None:
    told = await owner_of(private_head(tmp_path, most=7)).handle(ASKED)
    assert told == HeadDescribed(labels=LABELS, inputs=INPUTS, left=7)


@pytest.mark.parametrize("message", [ASKED, QUERY])
async def test_an_owner_who_shows_allows_or_has_none_answers_nothing(
    tmp_path: Path, message: Any
) -> None:
    head = private_head(tmp_path)
    for owner, words in (
        (LMOwner(head, Shows.TEXT), "ask for head"),
        (LMOwner(head, Access.ACTIVATIONS.shows), "ask for head"),
        (owner_of(private_head(tmp_path, most=0)), "gives no logits"),
        (LMOwner(ScriptedModel(), SHOWS), "private_head"),
    ):
        with pytest.raises(CapabilityError, match=words):
            await owner.handle(message)
    assert not (tmp_path / "answers.sqlite").exists()


async def test_more_labels_than_can_be_told_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encrypted, "MOST_LABELS", len(LABELS) - 1)
    with pytest.raises(CapabilityError, match="labels apart, and no more than"):
        await owner_of(private_head(tmp_path)).handle(ASKED)


async def test_a_head_that_is_closed_ends_its_processes(tmp_path: Path) -> None:
    class Head:
        cpu_seconds, alive, ended = 0.0, True, False

        def close(self) -> None:
            self.ended = True

    head = private_head(tmp_path)
    made: Any = Head()
    keyed(head)._keep(("clinic", 64 * "0"), made)
    await head.close()
    assert made.ended


async def test_another_encoder_and_logits_without_room_are_refused(tmp_path: Path) -> None:
    head = private_head(tmp_path)
    with pytest.raises(CapabilityError, match="not of 'another'"):
        await owner_of(head).handle(AskHead(encoder="another"))
    head.weights = head.weights * 1000
    with pytest.raises(CapabilityError, match="there is room for 256"):
        await owner_of(head).handle(ASKED)


async def test_unknown_keys_count_nothing(tmp_path: Path) -> None:
    head = private_head(tmp_path, most=1)
    for _ in range(3):
        with pytest.raises(UnknownKeysError, match="once more"):
            await owner_of(head).handle(QUERY)
    assert head.allowance is not None
    assert head.allowance.left("") == 1


@needs_tenseal
async def test_encrypted_vectors_are_answered_as_often_as_is_allowed(tmp_path: Path) -> None:
    head = private_head(tmp_path, most=3)
    owner, keys = owner_of(head, "bank"), HomeKeys(INPUTS, len(LABELS))
    sent = keys.turning + keys.public
    name = hashlib.sha256(sent).hexdigest()
    part = EvaluationKeys(name=name, part=0, parts=1, turning=len(keys.turning), packed=sent)
    with pytest.raises(RejectedError, match="together"):
        await owner.handle(replace(part, turning=9, packed=sent[::-1]))
    with pytest.raises(RejectedError, match="refused"):  # of the right name, and no keys
        await owner.handle(replace(part, turning=9))
    assert await owner.handle(part) == KeysTaken(whole=True)

    vector = np.ones((1, INPUTS)) / INPUTS**0.5
    query = EncryptedVector(keys=name, packed=keys.encrypt(vector))
    reply: Any = await owner.handle(query)
    wanted = vector @ head.weights.T + head.bias
    assert np.abs(keys.decrypt(reply.packed, 1) - wanted).max() <= 1e-6
    assert 0 < reply.took < 5
    again: Any = await owner.handle(query)
    assert again.packed != reply.packed, "each answer is made anew"
    with pytest.raises(UnknownKeysError):
        await owner_of(head, "clinic").handle(query)
    with pytest.raises(RejectedError):  # it counts all the same
        await owner.handle(replace(query, packed=b"x"))
    with pytest.raises(BudgetExceededError, match="'bank' may have 3"):
        await owner.handle(query)
    assert (await owner.handle(ASKED)).left == 0  # type: ignore[attr-defined]

    await owner.handle(Forget(forget=32 * "f", part=0, everything=True))
    with pytest.raises(UnknownKeysError):
        await owner.handle(query)
    assert (await owner.handle(ASKED)).left == 0, "what is forgotten is not allowed again"  # type: ignore[attr-defined]
