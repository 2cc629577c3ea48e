"""A torch Llama as its owner brings it into a joint computation: see `models.plain_llama`.

Needs torch and transformers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from cosilo.errors import ConfigError
from cosilo.models.base import Array, Tokens
from cosilo.models.plain_llama import JointTerms, PlainLlama
from cosilo.models.public_text import public_texts
from cosilo.models.white_box.batch import device_of, pad, predict
from cosilo.models.white_box.held import TorchHeld, finite_array
from cosilo.models.white_box.layers import states
from cosilo.models.white_box.plain_llama import below_digest, plain_llama
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.types import user

_END = 8  # tokens that end a prompt


class TorchJoint(TorchHeld):
    """The part of a torch model that serves `PlainLlamaModel`."""

    joint: JointTerms | None = None
    _at_close: list[Callable[[], Awaitable[None]]]

    @property
    def tokens(self) -> ChatTokens:
        raise NotImplementedError

    def on_close(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Have `callback` called when the model is closed: runs that it takes part in end with it."""
        self._at_close.append(callback)

    def plain_llama(self, first: int) -> PlainLlama:
        return plain_llama(self.module, first)

    def below(self, layers: int) -> str:
        return below_digest(self.module, layers, self.tokens.vocabulary)

    def public_prompts(self) -> list[list[int]]:
        """Each line as a user's turn, without the middle of what is too long."""
        terms = self.joint
        if terms is None:
            raise ConfigError("the model has no joint = {…}, and so no text to be calibrated on")
        texts = public_texts([terms.calibrated_on])
        lines = [line for text in texts for line in text.splitlines() if line.strip()]
        prompts = [self.tokens.prompt(user(line)) for line in lines[: terms.texts]]
        end = min(_END, terms.tokens // 2)
        return [
            ids if len(ids) <= terms.tokens else [*ids[: terms.tokens - end], *ids[-end:]]
            for ids in prompts
        ]

    def states_after(self, ids: Sequence[int], layers: int) -> Array:
        import torch

        with torch.no_grad():
            (found,) = states(self.module, [_alone(ids)], layers)
        return found

    def said_after(self, ids: Sequence[int]) -> Array:
        import torch

        # What predicts one more token, whichever it is.
        batch = pad(
            [Tokens(np.array([*ids, 0], np.int32), len(ids), (b"",))], device_of(self.module)
        )
        with torch.no_grad():
            return finite_array(predict(self.module, batch)[0, -1])


def _alone(ids: Sequence[int]) -> Tokens:
    return Tokens(np.array(ids, np.int32), len(ids), ())
