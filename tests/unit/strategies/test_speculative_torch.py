"""With torch in float32 the reply is what the LM writes alone, token for token and by the same seed."""

from __future__ import annotations

import pytest

from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.types import Sampling, user

pytest.importorskip("torch")
pytest.importorskip("transformers")
from white_box import tiny


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("words", [None, ("is the", "hell", "world of")])
async def test_whatever_drafts_the_reply_is_the_lms(
    temperature: float, words: tuple[str, ...] | None
) -> None:
    """Drafts come from a small model of the same tokeniser, from one of another, and by look-up."""
    large = tiny(0, scale=3.0)
    small = tiny(0, scale=2.8, **({} if words is None else {"words": words}))
    kept = 0
    try:
        for n, draft in enumerate(("small", "both", "small")):
            ledger = MemoryLedger()
            strategy = strategies.create("speculative", draft=draft, anyway=True, length=4)
            session = open_session(
                DataOwner(small),
                LMOwner(large),
                strategy,
                sampling=Sampling(max_tokens=24, temperature=temperature, top_p=0.97, seed=n),
                ledger=ledger,
            )
            chat = user(f"hello world is about the refund of the billing {n}")
            alone = await large.generate(chat, session.sampling)
            answer = await strategy.answer(session.bind("1"), chat)
            assert answer.text == alone.text
            assert answer.generation.finish_reason == alone.finish_reason
            assert answer.generation.completion_tokens == alone.completion_tokens
            assert answer.generation.prompt_tokens == alone.prompt_tokens
            kept += sum(e.message.accepted for e in ledger.entries() if e.direction == "down")
    finally:
        await large.close()
        await small.close()
    assert kept or words, "of drafts by nearly the same model something is kept"
