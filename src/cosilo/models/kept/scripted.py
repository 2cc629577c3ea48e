"""A model that says what it is told to: for tests, dry runs and documentation."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cosilo.models.base import Access, models
from cosilo.types import Chat, Delta, Demonstration, Generation, Sampling, TokenLogprob, last_user


@dataclass
class ScriptedModel:
    """Answers by the longest key of `replies` found in the last user turn; echoes it otherwise.

    Args:
        replies: key → reply; or a function from the chat to the reply.
        confidence: probability given to the reply as a whole, 0 < confidence ≤ 1.
        seconds: the service time it claims for each reply.
        fail: raised instead of answering, when set.
    """

    replies: Mapping[str, str] | Callable[[Chat], str] = field(default_factory=dict)
    confidence: float = 1.0
    name: str = "scripted"
    access: Access = Access.LOGPROBS
    seconds: float = 0.0
    fail: Exception | None = None
    seen: list[Chat] = field(default_factory=list)

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        self.seen.append(chat)
        if self.fail is not None:
            raise self.fail
        text = self._reply(chat)
        words = text.split(" ")
        each = math.log(self.confidence) / len(words)
        tokens = tuple(TokenLogprob(w if i == 0 else " " + w, each) for i, w in enumerate(words))
        return Generation(
            text,
            tokens=tokens if self.access >= Access.LOGPROBS else (),
            prompt_tokens=sum(len(t.content.split()) for t in chat),
            completion_tokens=len(words),
            seconds=self.seconds,
        )

    async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
        whole = await self.generate(chat, sampling)
        for token in whole.tokens:
            yield Delta(text=token.token, tokens=(token,))
        if not whole.tokens:
            yield Delta(text=whole.text)
        yield Delta(
            finish_reason="stop",
            prompt_tokens=whole.prompt_tokens,
            completion_tokens=whole.completion_tokens,
            seconds=whole.seconds,
        )

    def fit(self, examples: Sequence[Demonstration], *, seed: int = 0) -> ScriptedModel:
        """A copy that answers each example's last user turn with its target."""
        learned = {last_user(e.chat): e.target for e in examples}
        known = self.replies if isinstance(self.replies, Mapping) else {}
        return replace(self, replies={**known, **learned}, seen=[])

    def keep(self, folder: Path) -> Mapping[str, object]:
        return {"replies": dict(self.replies)} if isinstance(self.replies, Mapping) else {}

    async def close(self) -> None: ...

    def _reply(self, chat: Chat) -> str:
        if not isinstance(self.replies, Mapping):
            return self.replies(chat)
        prompt = last_user(chat)
        key = max((k for k in self.replies if k in prompt), key=len, default=None)
        return prompt if key is None else self.replies[key]


@models.register("scripted")
def scripted(
    replies: Mapping[str, str] | None = None,
    confidence: float = 1.0,
    logprobs: bool = True,
    seconds: float = 0.0,
    name: str = "scripted",
) -> ScriptedModel:
    """A model with fixed replies: for dry runs of a plan.

    Args:
        replies: key → reply, by the longest key found in the question; others are echoed.
        confidence: the probability it gives its replies, 0 < confidence ≤ 1.
        logprobs: show it.
        seconds: the service time it claims.
        name: what its answers are recorded under: where a plan has several, each needs one of its own.
    """
    if not 0 < confidence <= 1:
        raise ValueError(f"confidence must be above 0 and at most 1, not {confidence!r}")
    access = Access.LOGPROBS if logprobs else Access.TEXT
    return ScriptedModel(replies or {}, confidence, name, access, seconds)
