"""Replies with the values back in: text, log-probabilities and tool calls, whole or in pieces."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from cosilo.defences.places import Places
from cosilo.defences.restoring import (
    Restorer,
    Segment,
    Stream,
    fill,
    restore,
    restored_tokens,
    segments,
)
from cosilo.defences.schemas import format_of, parameters_of
from cosilo.types import (
    Delta,
    Generation,
    Sampling,
    TokenLogprob,
    ToolCallDelta,
    assemble,
    disassemble,
)


def restored(
    generation: Generation, restorer: Restorer, sampling: Sampling, *, sql: bool, urls: bool = False
) -> Generation:
    """`generation` with every issued placeholder restored.

    A reply that is one of `sampling.choices` is a label, and stays; arguments of tool calls stay
    valid JSON. `sql`: see `restoring.Sql`. `urls`: also in URLs that the LM made.
    """
    generation = msgspec.structs.replace(
        generation,
        tool_calls=tuple(
            msgspec.structs.replace(
                c,
                arguments=restore(
                    restorer, c.arguments, _arguments(restorer, sampling, c.name, urls)
                ),
                extra=restore(restorer, c.extra, Places(restorer, json=True, urls=urls)),
            )
            for c in generation.tool_calls
        ),
        other_texts=tuple(
            (n, restore(restorer, said, Places(restorer, urls=urls)))
            for n, said in generation.other_texts
        ),
        extra=restore(restorer, generation.extra, Places(restorer, json=True, urls=urls)),
    )
    if generation.text in sampling.choices:
        return generation
    found = segments(restorer, generation.text)
    text, rendered, _ = fill(
        generation.text, found, _content(restorer, sampling, sql=sql, urls=urls)
    )
    tokens = restored_tokens(generation.tokens, generation.text, rendered)
    return msgspec.structs.replace(generation, text=text, tokens=tokens)


def _content(restorer: Restorer, sampling: Sampling, *, sql: bool, urls: bool) -> Places:
    form = sampling.response_format
    asked = '"json_' in form
    return Places(restorer, asked=asked, schema=format_of(form), sql=sql, urls=urls)


def _arguments(restorer: Restorer, sampling: Sampling, name: str, urls: bool) -> Places:
    schema = parameters_of(sampling.tools, name)
    return Places(restorer, json=True, schema=schema, urls=urls)


class ReplyStream:
    """Restores a reply that arrives in pieces; what it yields adds up to `restored` of the whole.

    Tokens may come a piece later than their text: a token is told once nothing of it is held back.
    """

    def __init__(
        self, restorer: Restorer, sampling: Sampling, *, sql: bool, urls: bool = False
    ) -> None:
        self._restorer = restorer
        self._sampling, self._sql = sampling, sql
        self._whole: list[Delta] = []  # with choices only the whole reply tells whether it is one
        self._urls = urls
        self._text = Stream(restorer, _content(restorer, sampling, sql=sql, urls=urls))
        self._calls: dict[int, Stream] = {}
        self._others: dict[str, Stream] = {}
        self._raw = ""
        self._raw_start = 0
        self._tokens: list[TokenLogprob] = []
        self._held_end: Delta | None = None

    def feed(self, delta: Delta) -> Iterator[Delta]:
        if self._sampling.choices:
            self._whole.append(delta)
            return
        text = self._text.feed(delta.text)
        self._raw += delta.text
        self._tokens += delta.tokens
        calls = [self._call(piece) for piece in delta.tool_calls]
        others = [(name, self._other(name).feed(said)) for name, said in delta.other_texts]
        tokens: tuple[TokenLogprob, ...] = ()
        if not self._text.holds:
            tokens = self._settled_tokens()
        out = msgspec.structs.replace(
            delta,
            text=text,
            tokens=tokens,
            tool_calls=tuple(c for c in calls if c.id or c.name or c.arguments or c.extra),
            other_texts=tuple((name, said) for name, said in others if said),
            extra=self._json(delta.extra),
        )
        if delta.finish_reason is not None:
            # The end may say something still held back, so it waits for `finish`.
            self._held_end = out
        elif self._says(out):
            yield out

    def finish(self) -> Iterator[Delta]:
        if self._sampling.choices:
            if self._whole:
                whole = assemble(self._whole)
                yield disassemble(
                    restored(whole, self._restorer, self._sampling, sql=self._sql, urls=self._urls)
                )
            return
        text = self._text.finish()
        calls = []
        for index, stream in sorted(self._calls.items()):
            rest = stream.finish()
            if rest:
                calls.append(ToolCallDelta(index, arguments=rest))
        others = [(name, stream.finish()) for name, stream in self._others.items()]
        end, tokens = self._held_end or Delta(), self._settled_tokens()
        out = msgspec.structs.replace(
            end,
            text=end.text + text,
            tokens=end.tokens + tokens,
            tool_calls=(*end.tool_calls, *calls),
            other_texts=(*end.other_texts, *((n, said) for n, said in others if said)),
        )
        if self._held_end is not None or self._says(out):
            yield out

    def _call(self, piece: ToolCallDelta) -> ToolCallDelta:
        stream = self._calls.get(piece.index)
        if stream is None:
            render = _arguments(self._restorer, self._sampling, piece.name, self._urls)
            stream = self._calls[piece.index] = Stream(self._restorer, render)
        return msgspec.structs.replace(
            piece,
            arguments=stream.feed(piece.arguments),
            extra=self._json(piece.extra),
        )

    def _other(self, name: str) -> Stream:
        render = Places(self._restorer, urls=self._urls)
        return self._others.setdefault(name, Stream(self._restorer, render))

    def _json(self, text: str) -> str:
        return restore(self._restorer, text, Places(self._restorer, json=True, urls=self._urls))

    def _settled_tokens(self) -> tuple[TokenLogprob, ...]:
        start = self._raw_start
        found = [Segment(s.start - start, s.end - start, s.value) for s in self._text.found]
        tokens = restored_tokens(self._tokens, self._raw, found)
        self._raw_start += len(self._raw)
        self._raw, self._tokens = "", []
        self._text.found.clear()
        return tokens

    @staticmethod
    def _says(delta: Delta) -> bool:
        return delta != Delta()
