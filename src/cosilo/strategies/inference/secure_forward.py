"""A whole forward of the LM owner's model on a text that it does not see.

    chat ─▶ tokens ─▶ one-hot rows ══ shares ══▶ embedding, all layers, head ══▶ the likeliest ─▶ label
            at home                              of shares alone                 at home

All weights are the LM owner's, the table of embeddings among them: looking a word up is a product of a
one-hot row and the table, in which neither side sees the other's part. It takes gigabytes of memory and
traffic for one answer of a small model, and is here to show what that costs.

With `protect = "span"` the tokens before the first private one cross in clear, the LM's owner computes
their keys and values in plain, and the rest alone is computed in secret (docs/decisions/0072).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from cosilo.engines.base import Array
from cosilo.errors import CapabilityError, RejectedError
from cosilo.models.base import ThreadModel
from cosilo.models.joint import Wanted
from cosilo.strategies.base import Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.cards import Card
from cosilo.strategies.guide import Guide
from cosilo.strategies.inference.clear_prefix import clear_prefix, spelt
from cosilo.strategies.inference.joint_room import SENDS, run_for_each
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

_LARGEST = 1 << 20  # tokens of a vocabulary
_LOOKED_AT = 32  # prompts of the pool, to know what crosses in clear and which run to open


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
        protect: "all" of a text, or from the first private value ("span") on, as far as the owner's
            detectors find it: tokens before that cross in clear, and `lengths` are those of the rest.
            A text in which nothing is found is protected whole.
        grid: for "span": tokens in clear are a multiple of it. Each multiple is a run with shares of
            all weights, and says that much less of where the private value begins.
        never: for "span": words and phrases that are private in any case.
        instructions: for "span": texts whose lines are the task's own, by default what the plan (or the
            point's `system` in a gateway) says: names that detectors see in them are none.
    """

    guide: ClassVar[Guide] = Guide(
        crosses=(
            "shares of a text, which say nothing to any one party; with protect = 'span' what stands "
            "before the first private value in clear; the likeliest label comes back"
        ),
        choose=(
            "neither a text nor any weight may be seen, the model is small, and an answer may take "
            "minutes and a gigabyte"
        ),
    )

    step_s: float = 3600.0
    protect: Literal["all", "span"] = "all"
    grid: int = 16
    never: tuple[str, ...] = ()
    instructions: tuple[str, ...] = ()

    needs: ClassVar[Needs] = Needs(sends=SENDS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protect not in ("all", "span"):
            raise ValueError(f"protect = {self.protect!r} is neither 'all' nor 'span'")
        if self.protect == "all" and self.never:
            raise ValueError("never says what is private: it needs protect = 'span'")
        if not 1 <= self.grid <= 1 << 12:
            raise ValueError(f"grid = {self.grid!r} is not from 1 to 4,096")
        if any(not text.strip() for text in self.never):
            raise ValueError("never holds an empty text")

    def forecast(self) -> Forecast:
        """For a model of 135 million weights (SmolLM2)."""
        once, each = 3 << 30, max(self.lengths) << 26
        if self.protect == "span":
            return run_for_each(once, each)
        return forecast(self.lengths, once=once, each=each)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        """Opens a run for each length, in which the weights are shared; for "span" the one that most
        prompts of the owner's pool would be computed in.

        Raises:
            CapabilityError: the small model shows no tokens, or the LM's owner takes no part in this.
            ConfigError: the engine is not installed.
        """
        prepared = replace(self)
        words = home_words(session.owner.model, by="secure_forward")
        candidates = first_tokens(words, session.sampling.choices, by="secure_forward")
        pairs = [(0, n) for n in self.lengths]
        if self.protect == "span":
            prompts = []
            for example in session.owner.pool[:_LOOKED_AT]:
                with suppress(RejectedError):  # it is too long, and would have no answer
                    prompts.append(await self._prompt(session, words, example.chat))
            session = session.with_card(clear_card(prompts))
            pairs = [p for p, _ in Counter((p.before, p.length) for p in prompts).most_common(1)]
        wanted = [self._wanted(words.vocabulary, n, candidates, before) for before, n in pairs]
        return prepared, await opened(session, prepared._rooms, wanted, by="secure_forward")

    async def answer(self, session: Session, chat: Chat) -> Answer:
        """One of the choices, or the next token.

        Raises:
            RejectedError: the text is too long, or unlike those that the LM's owner is calibrated on.
            PrivacyError: what is private in it cannot be looked for; nothing was sent.
            EngineError: a party failed; the next one opens a new run.
        """
        words = home_words(session.owner.model, by="secure_forward")
        prompt = await self._prompt(session, words, chat)
        wanted = self._wanted(words.vocabulary, prompt.length, prompt.candidates, prompt.before)
        room = await self._rooms.of(session, wanted)
        rows = one_hot(prompt, room.offer.sizes()["vocabulary"])
        text = spelt(words, prompt.clear)
        computed = await room.compute(session.lm, [rows, prompt.place], prompt.clear, text)
        return answer_of(words, session.sampling.choices, prompt, computed)

    async def _prompt(self, session: Session, words: ThreadModel, chat: Chat) -> Prompt:
        before = 0
        if self.protect == "span":
            before = await clear_prefix(
                session,
                words,
                chat,
                never=self.never,
                instructions=self.instructions,
                grid=self.grid,
            )
        return prompt_of(
            words, chat, session.sampling, self.lengths, by="secure_forward", before=before
        )

    def _wanted(
        self, vocabulary: str, tokens: int, candidates: tuple[int, ...], before: int
    ) -> Wanted:
        return Wanted(
            program="llama",
            protocol=self.protocol,
            base=vocabulary,
            starts="tokens",
            tokens=tokens,
            before=before,
            candidates=candidates,
        )

    @property
    def most_runs(self) -> int:
        """One of "span": each prefix has its own, with shares of a whole model."""
        return super().most_runs if self.protect == "all" else 1


def one_hot(prompt: Prompt, vocabulary: object) -> Array:
    """A row for each place: 1 where its token is, 0 elsewhere.

    Raises:
        CapabilityError: the LM's vocabulary has not all of its tokens, or more than a vocabulary has.
    """
    if not isinstance(vocabulary, int) or max(prompt.ids) >= vocabulary:
        raise CapabilityError("the LM's vocabulary is smaller than that of the tokeniser at home")
    if vocabulary > _LARGEST:  # its owner would choose how much memory is taken at home
        raise CapabilityError(f"the LM's owner says that its vocabulary has {vocabulary:,} tokens")
    rows = np.zeros((prompt.length, vocabulary), np.float32)
    rows[np.arange(prompt.length), prompt.filled] = 1
    return rows


def clear_card(prompts: Sequence[Prompt]) -> Card:
    """How much of the owner's pool would cross in clear."""
    return Card(
        by="secure_forward",
        title="what of the owner's pool would cross in clear",
        facts={
            "prompts": len(prompts),
            "prompts of which some crosses": sum(prompt.before > 0 for prompt in prompts),
            "tokens": sum(len(prompt.ids) for prompt in prompts),
            "tokens in clear": sum(prompt.before for prompt in prompts),
        },
        warning=(
            "protect = 'span': what stands before the first private value that is found crosses in "
            "clear, with whatever the detectors miss in it"
        ),
    )
