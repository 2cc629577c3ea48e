"""A chat, and how the LM continues it: at once, or in pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import msgspec

from cosilo.boundary.messages.base import Drawn, Message, Request
from cosilo.boundary.messages.bounds import (
    FIELDS,
    FORMS,
    LONGEST_TOKEN,
    TURN,
    in_utf8,
    prompt_bound,
)
from cosilo.boundary.messages.lend import AdapterName
from cosilo.boundary.messages.passages import Change, Passage, What, in_asides, in_chat
from cosilo.models.base import Shows
from cosilo.models.chat.fields import is_closed, written_beside
from cosilo.types import Chat, Delta, Generation, Sampling, TokenLogprob, ToolCall

_WITH_LOGPROBS = Shows.TEXT | Shows.LOGPROBS

SURE = -0.01
"""The log-probability that a liar states for its own words: it sounds certain."""

LONGEST = 1 << 26
"""Bytes of a chat, or of a reply with the log-probabilities of its tokens."""


class Completion(Message, frozen=True, kw_only=True):
    """The reply to an `Ask`."""

    shows: ClassVar[Shows] = Shows.TEXT
    replaceable: ClassVar[bool] = True
    largest: ClassVar[int] = LONGEST
    generation: Generation

    def with_passages(self, change: Change) -> Completion:
        g = self.generation

        def at(text: str, what: What) -> str:
            return change(Passage(text, what)) if text else text

        text = at(g.text, "said")
        generation = msgspec.structs.replace(
            g,
            text=text,
            tokens=g.tokens if text == g.text else (),  # they spell the text that it was
            tool_calls=tuple(_answered(call, change) for call in g.tool_calls),
            other_texts=in_asides(g.other_texts, change),
            extra=at(g.extra, "sealed"),
        )
        return msgspec.structs.replace(self, generation=generation)

    def shown(self, exposes: Shows) -> Completion:
        if self.generation.tokens and Shows.LOGPROBS not in exposes:
            generation = msgspec.structs.replace(self.generation, tokens=())
            return msgspec.structs.replace(self, generation=generation).shown(exposes)
        return super().shown(exposes)

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Completion:
        g = self.generation
        text = lie(g.text)
        tokens = (TokenLogprob(text, SURE),) if g.tokens else ()
        said = msgspec.structs.replace(g, text=text, tokens=tokens)
        return msgspec.structs.replace(self, generation=said)

    def usage(self) -> tuple[int, int]:
        return self.generation.prompt_tokens, self.generation.completion_tokens

    def cached(self) -> int:
        return self.generation.cached_tokens

    def seconds(self) -> float:
        return self.generation.seconds

    def written(self) -> int:
        g = self.generation
        texts = [g.text, *(t for c in g.tool_calls for t in (c.id, c.name, c.arguments))]
        texts += [text for _, text in g.other_texts]
        return len("".join(texts).encode(errors="replace"))

    def sent(self) -> int:
        return self.generation.attempts

    def restated(self, tokens_in: int, tokens_out: int) -> Completion:
        thought = self.generation.reasoning_tokens
        generation = msgspec.structs.replace(
            self.generation,
            prompt_tokens=tokens_in,
            completion_tokens=tokens_out,
            cached_tokens=max(0, min(self.generation.cached_tokens, tokens_in)),
            reasoning_tokens=thought if thought <= tokens_out else 0,
        )
        return msgspec.structs.replace(self, generation=generation)


def _answered(call: ToolCall, change: Change) -> ToolCall:
    # Its id and the tool's name are of use only as they are.
    arguments = call.arguments and change(Passage(call.arguments, "arguments"))
    sealed = call.extra and change(Passage(call.extra, "sealed"))
    return msgspec.structs.replace(call, arguments=arguments, extra=sealed)


class Ask(Request[Completion], frozen=True, kw_only=True):
    """A chat the LM is asked to continue.

    Attributes:
        adapter: the name of an adapter of the data owner's that was plugged in (`PlugIn`): the LM
            answers with it. Empty for the LM as it is.
    """

    reply: ClassVar[type[Message]] = Completion
    shows: ClassVar[Shows] = Shows.TEXT
    replaceable: ClassVar[bool] = True
    largest: ClassVar[int] = LONGEST
    chat: Chat
    sampling: Sampling = Sampling()
    adapter: AdapterName = ""

    def wants(self) -> Shows:
        return _WITH_LOGPROBS if self.sampling.top_logprobs else Shows.TEXT

    def with_passages(self, change: Change) -> Ask:
        s = self.sampling

        def at(text: str, what: What) -> str:
            return change(Passage(text, what)) if text else text

        chat = in_chat(self.chat, change)
        sampling = msgspec.structs.replace(
            s,
            tools=at(s.tools, "tools"),
            response_format=at(s.response_format, "form"),
            choices=tuple(at(choice, "label") for choice in s.choices),
            tool_choice=at(s.tool_choice, "word"),
            stop=tuple(at(stop, "stop") for stop in s.stop),
            # Whatever is not a number or a word of a short list is read, whoever sent it on.
            fields=s.fields
            and tuple(
                (name, text if is_closed(name, text) else at(text, "arguments"))
                for name, text in s.fields
            ),
        )
        return msgspec.structs.replace(self, chat=chat, sampling=sampling)

    def tokens_bound(self) -> tuple[int, int]:
        s = self.sampling
        more, written = 0, s.max_tokens
        if s.tools or s.response_format or s.tool_choice:
            more = FORMS + in_utf8(s.tools) + in_utf8(s.response_format) + in_utf8(s.tool_choice)
        if s.fields:
            more += sum(TURN + in_utf8(text) for _, text in s.fields)
            written += written_beside(s.fields)
        if s.choices:  # a back end that scores them writes the whole of one
            written = max(written, *(in_utf8(choice) + 1 for choice in s.choices))
        return prompt_bound(self.chat, more), written

    def question(self) -> Mapping[str, object]:
        plain: dict[str, object] = {"chat": self.chat, "sampling": self.sampling}
        return plain | {"adapter": self.adapter} if self.adapter else plain

    def drawn(self, reply: Message | None = None) -> Drawn:
        if isinstance(reply, Completion):
            return Drawn(logits=sum(1 + len(token.top) for token in reply.generation.tokens))
        return Drawn(logits=self.tokens_bound()[1] * (1 + self.sampling.top_logprobs))

    def prompts(self) -> Sequence[object]:
        return (self.chat,)

    def reply_bound(self, tokens: int) -> int:
        # As text and, where log-probabilities are shown, once more for the token and each alternative.
        return FIELDS + tokens * LONGEST_TOKEN * (3 + self.sampling.top_logprobs)


class Piece(Message, frozen=True, kw_only=True):
    """A piece of the reply to an `Ask`, where it is wanted in pieces."""

    shows: ClassVar[Shows] = Shows.TEXT
    largest: ClassVar[int] = LONGEST
    delta: Delta
