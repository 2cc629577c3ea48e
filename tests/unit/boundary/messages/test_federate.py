"""What a round of opinions shows, and what of it may be told, counted and turned around."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import pytest

from cosilo.boundary.messages import NextRound, RoundState
from cosilo.boundary.messages.base import Drawn
from cosilo.boundary.wire import opinions
from cosilo.errors import CapabilityError
from cosilo.models.base import Shows
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from mutated import OPINIONS

ASKED = NextRound(federation="f", have=0, most=4096, top=8, most_places=6)
STATE = RoundState(state="open", number=2, closed=1, of=1, packed=OPINIONS)


def test_opinions_are_logits_to_who_shows_them_and_to_who_counts_them() -> None:
    assert Shows.LOGITS in ASKED.wants()
    plain = msgspec.structs.replace(ASKED, top=0)
    assert Shows.LOGITS not in plain.wants()
    assert (ASKED.drawn(), plain.drawn()) == (Drawn(logits=48), Drawn())
    waiting = RoundState(state="wait", number=1, closed=0)
    assert (ASKED.drawn(STATE), ASKED.drawn(waiting)) == (Drawn(logits=48), Drawn())
    assert (STATE.places(), waiting.places()) == (6, 0)


def test_who_shows_no_logits_shows_no_opinions() -> None:
    with pytest.raises(CapabilityError, match="does not serve NextRound"):
        asyncio.run(LMOwner(ScriptedModel(), Shows.TEXT).handle(ASKED))
    with pytest.raises(CapabilityError, match="are not exposed"):
        STATE.shown(Shows.TEXT)
    assert STATE.shown(Shows.TEXT | Shows.LOGITS) == STATE


def test_opinions_that_were_not_asked_for_are_refused() -> None:
    ASKED.check_reply(STATE)
    for other in ({"top": 0}, {"most_places": 5}):
        with pytest.raises(ValueError, match="not asked for"):
            msgspec.structs.replace(ASKED, **other).check_reply(STATE)


def test_tampering_turns_all_but_the_texts_own_tokens() -> None:
    turned = STATE.tampered(ASKED, str)
    before, after = (opinions.unpack(m.packed, ("ab", "ca"), 8) for m in (STATE, turned))
    np.testing.assert_allclose(after.losses(), before.losses(), atol=0.02)
    for i, own in enumerate(before.own.tolist()):
        there, now = (np.delete(said.top.logprobs[i], own) for said in (before, after))
        np.testing.assert_allclose(np.sort(there), np.sort(now), atol=0.02)
        assert now[there.argmax()] == pytest.approx(there.min(), abs=0.02)
