"""A whole forward of the LM owner's model on a text that it does not see.

    chat ─▶ tokens ─▶ one-hot rows ══ shares ══▶ embedding, all layers, head ══▶ the likeliest ─▶ label
            at home                              of shares alone                 at home

All weights are the LM owner's, the table of embeddings among them: looking a word up is a product of a
one-hot row and the table, in which neither side sees the other's part. It takes gigabytes of memory and
traffic for one answer of a small model, and is here to show what that costs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from cosilo.engines.base import Array
from cosilo.errors import CapabilityError
from cosilo.models.joint import Wanted
from cosilo.strategies.base import Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.guide import Guide
from cosilo.strategies.inference.joint_room import SENDS
from cosilo.strategies.inference.secure_llama import (
    Prompt,
    SecureLlama,
    answer_of,
    first_tokens,
    forecast,
    home_words,
    opened,
    prompt_of,
)
from cosilo.types import Answer, Chat


@strategies.register("secure_forward")
@dataclass(frozen=True, kw_only=True)
class SecureForward(SecureLlama):
    """The LM owner's whole model (`joint = { …, whole = true }`) on a text that it does not see: one of
    the choices, by its first token, or the next token. The small model cuts the text into tokens.

    Attributes:
        protocol: "aby3" (a third party helps) or "cheetah" (two parties).
        lengths: a text is filled up to the first of these public lengths that it fits into; each is a
            run with shares of all weights.
        step_s: seconds that sharing the weights, or one computation, may take.
        network: the file that says how engines reach each other; a trial on one machine without.
    """

    guide: ClassVar[Guide] = Guide(
        crosses="shares of a text, which say nothing to any one party; the likeliest label comes back",
        choose=(
            "neither a text nor any weight may be seen, the model is small, and an answer may take "
            "minutes and a gigabyte"
        ),
    )

    step_s: float = 3600.0

    needs: ClassVar[Needs] = Needs(sends=SENDS)

    def forecast(self) -> Forecast:
        """For a model of 135 million weights (SmolLM2)."""
        return forecast(self.lengths, once=3 << 30, each=max(self.lengths) << 26)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        """Opens a run for each length, in which the weights are shared.

        Raises:
            CapabilityError: the small model shows no tokens, or the LM's owner takes no part in this.
            ConfigError: the engine is not installed.
        """
        prepared = replace(self)
        words = home_words(session.owner.model, by="secure_forward")
        candidates = first_tokens(words, session.sampling.choices, by="secure_forward")
        wanted = [self._wanted(words.vocabulary, n, candidates) for n in self.lengths]
        return prepared, await opened(session, prepared._rooms, wanted, by="secure_forward")

    async def answer(self, session: Session, chat: Chat) -> Answer:
        """One of the choices, or the next token.

        Raises:
            RejectedError: the text is too long, or unlike those that the LM's owner is calibrated on.
            EngineError: a party failed; the next one opens a new run.
        """
        words = home_words(session.owner.model, by="secure_forward")
        prompt = prompt_of(words, chat, session.sampling, self.lengths, by="secure_forward")
        wanted = self._wanted(words.vocabulary, prompt.length, prompt.candidates)
        room = await self._rooms.of(session, wanted)
        rows = one_hot(prompt, room.offer.sizes()["vocabulary"])
        computed = await room.compute(session.lm, [rows, prompt.place])
        return answer_of(words, session.sampling.choices, prompt, computed)

    def _wanted(self, vocabulary: str, tokens: int, candidates: tuple[int, ...]) -> Wanted:
        return Wanted(
            program="llama",
            protocol=self.protocol,
            base=vocabulary,
            starts="tokens",
            tokens=tokens,
            candidates=candidates,
        )


def one_hot(prompt: Prompt, vocabulary: object) -> Array:
    """A row for each place: 1 where its token is, 0 elsewhere.

    Raises:
        CapabilityError: the LM's vocabulary has not all of its tokens.
    """
    if not isinstance(vocabulary, int) or max(prompt.ids) >= vocabulary:
        raise CapabilityError("the LM's vocabulary is smaller than that of the tokeniser at home")
    rows = np.zeros((prompt.length, vocabulary), np.float32)
    rows[np.arange(prompt.length), prompt.filled] = 1
    return rows
