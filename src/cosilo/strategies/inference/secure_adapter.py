"""The base model is public and runs at home; what the LM's owner made of its last layers stays private.

    chat ─▶ base's lower layers ─▶ states ══ shares ══▶ private last layers, head ══▶ likeliest ─▶ label
            at home                                     of shares alone               at home

The LM's owner has the same base with other last layers: a LoRA on them, or weights of their own. Its
layers below must be the base's, which a digest says, so that states made at home fit.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, cast

import numpy as np

from cosilo.errors import CapabilityError
from cosilo.models.base import Access, ActivationModel, TextModel, ThreadModel, Tokens
from cosilo.models.joint import Wanted
from cosilo.strategies.base import Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.guide import Guide
from cosilo.strategies.inference.joint_room import SENDS
from cosilo.strategies.inference.secure_llama import (
    SecureLlama,
    answer_of,
    first_tokens,
    forecast,
    home_words,
    opened,
    prompt_of,
)
from cosilo.types import Answer, Chat


class HomeBase(ActivationModel, ThreadModel, Protocol):
    """A model at home whose states can be had, and whose layers below others have a name."""

    def below(self, layers: int) -> str: ...


@strategies.register("secure_adapter")
@dataclass(frozen=True, kw_only=True)
class SecureAdapter(SecureLlama):
    """The LM owner's last layers and head (`joint = { …, layers = 1 }`) on states that the small model,
    the public base of both, makes at home: one of the choices, by its first token, or the next token.

    Attributes:
        layers: the last so many are the LM owner's.
        protocol: "aby3" (a third party helps) or "cheetah" (two parties).
        lengths: a text is filled up to the first of these public lengths that it fits into; each is a
            run with shares of the layers' weights.
        step_s: seconds that sharing the weights, or one computation, may take.
        network: the file that says how engines reach each other; a trial on one machine without.
    """

    guide: ClassVar[Guide] = Guide(
        crosses=(
            "shares of a text's states, which say nothing to any one party; the likeliest label comes "
            "back"
        ),
        choose=(
            "both have the same base model, its owner's adapter of the last layers may not be seen, "
            "and the texts may not either"
        ),
    )

    layers: int = 1
    lengths: tuple[int, ...] = (128,)

    needs: ClassVar[Needs] = Needs(small=Access.ACTIVATIONS, sends=SENDS)

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError(f"layers = {self.layers!r} leaves nothing to the LM's owner")
        super().__post_init__()

    def forecast(self) -> Forecast:
        """For layers as wide as SmolLM2's."""
        each = max(self.lengths) * (self.layers << 20)
        return forecast(self.lengths, once=self.layers << 28, each=each)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        """Opens a run for each length, in which the LM owner's layers are shared.

        Raises:
            CapabilityError: the small model is no such base, or not that of the LM's owner.
            ConfigError: the engine is not installed.
        """
        prepared = replace(self)
        model = self._base(session.owner.model)
        candidates = first_tokens(model, session.sampling.choices, by="secure_adapter")
        wanted = [await prepared._wanted(model, n, candidates) for n in self.lengths]
        return prepared, await opened(session, prepared._rooms, wanted, by="secure_adapter")

    async def answer(self, session: Session, chat: Chat) -> Answer:
        """One of the choices, or the next token.

        Raises:
            RejectedError: the text is too long, or unlike those that the LM's owner is calibrated on.
            EngineError: a party failed; the next one opens a new run.
        """
        model = self._base(session.owner.model)
        prompt = prompt_of(model, chat, session.sampling, self.lengths, by="secure_adapter")
        wanted = await self._wanted(model, prompt.length, prompt.candidates)
        room = await self._rooms.of(session, wanted)
        tokens = Tokens(np.array(prompt.filled, np.int32), prompt.length, ())
        (states,) = await model.activations([tokens], model.layers - self.layers)
        computed = await room.compute(session.lm, [states, prompt.place])
        return answer_of(model, session.sampling.choices, prompt, computed)

    async def _wanted(self, model: HomeBase, tokens: int, candidates: tuple[int, ...]) -> Wanted:
        if not self._rooms.base:
            below = model.layers - self.layers
            self._rooms.base = await asyncio.to_thread(model.below, below)
        return Wanted(
            program="llama",
            protocol=self.protocol,
            base=self._rooms.base,
            starts="states",
            layers=self.layers,
            tokens=tokens,
            candidates=candidates,
        )

    def _base(self, model: TextModel) -> HomeBase:
        if not hasattr(type(model), "below"):
            raise CapabilityError(
                f"secure_adapter runs the base's lower layers on the small model, and {model.name!r} "
                "cannot: one of kind 'torch' can"
            )
        home = cast(HomeBase, home_words(model, by="secure_adapter"))
        if self.layers >= home.layers:
            raise CapabilityError(
                f"layers = {self.layers} leaves nothing to the small model, which has {home.layers}"
            )
        return home
