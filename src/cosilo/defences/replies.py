"""Replies with the values back in: text, log-probabilities and tool calls, whole or in pieces."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from cosilo.defences.destinations import call_sends_to
from cosilo.defences.places import Places, Rules, with_hosts
from cosilo.defences.restoring import (
    Restorer,
    Segment,
    Stream,
    fill,
    restore,
    restored_tokens,
    segments,
)
from cosilo.defences.schemas import format_of, is_tool, parameters_of
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
    generation: Generation,
    restorer: Restorer,
    sampling: Sampling,
    *,
    sql: bool,
    rules: Rules | None = None,
) -> Generation:
    """`generation` with every issued placeholder restored.

    A reply that is one of `sampling.choices` is a label, and stays; arguments of tool calls stay
    valid JSON. `sql`: see `restoring.SqlTarget`. `rules`: where values may come back.
    """
    rules = rules or Rules()
    generation = msgspec.structs.replace(
        generation,
        tool_calls=tuple(
            msgspec.structs.replace(
                c,
                name=_name(restorer, sampling, c.name, rules),
                arguments=_arguments(restorer, sampling, c.name, c.arguments, rules),
                extra=restore(restorer, c.extra, Places(restorer, json=True, rules=rules)),
            )
            for c in generation.tool_calls
        ),
        other_texts=tuple(
            (n, restore(restorer, said, Places(restorer, rules=rules)))
            for n, said in generation.other_texts
        ),
        extra=restore(restorer, generation.extra, Places(restorer, json=True, rules=rules)),
    )
    if generation.text in sampling.choices:
        return generation
    found = segments(restorer, generation.text)
    text, rendered, _ = fill(
        generation.text, found, _content(restorer, sampling, sql=sql, rules=rules)
    )
    tokens = restored_tokens(generation.tokens, generation.text, rendered)
    return msgspec.structs.replace(generation, text=text, tokens=tokens)


def _content(restorer: Restorer, sampling: Sampling, *, sql: bool, rules: Rules) -> Places:
    form = sampling.response_format
    asked = '"json_' in form
    return Places(restorer, asked=asked, schema=format_of(form), sql=sql, rules=rules)


def _name(restorer: Restorer, sampling: Sampling, name: str, rules: Rules) -> str:
    """The `name` of a tool, with the values in where the LM was told of a tool that is called so."""
    found = restore(restorer, name, Places(restorer, rules=rules)) if name else name
    if found == name or name in rules.called or is_tool(sampling.tools, name):
        return found
    return name


def _arguments(
    restorer: Restorer, sampling: Sampling, name: str, arguments: str, rules: Rules
) -> str:
    """The `arguments` of a call of the tool `name`, with the values in."""
    found = segments(restorer, arguments)
    if not found:
        return arguments
    render = Places(
        restorer,
        json=True,
        schema=parameters_of(sampling.tools, name),
        rules=rules,
        called=True,
        sent=call_sends_to(with_hosts(restorer, arguments, json=True), rules.known()),
    )
    return fill(arguments, found, render)[0]


class _Calls:
    """The tool calls of a reply that arrives in pieces.

    Where a call goes is known at its end only, so from the first placeholder of one on all pieces of
    calls are kept until `finish`.
    """

    def __init__(self, restorer: Restorer, sampling: Sampling, rules: Rules) -> None:
        self._restorer, self._sampling, self._rules = restorer, sampling, rules
        self._came: dict[int, list[ToolCallDelta]] = {}
        self._tails: dict[int, str] = {}  # what may become a placeholder
        self._given: dict[int, int] = {}  # characters of its arguments that were given on
        self._kept: dict[int, list[ToolCallDelta]] = {}
        self._holds = False

    def feed(self, piece: ToolCallDelta) -> Iterator[ToolCallDelta]:
        index = piece.index
        self._came.setdefault(index, []).append(piece)
        bare = msgspec.structs.replace(
            piece,
            name=_name(self._restorer, self._sampling, piece.name, self._rules),
            arguments="",
            extra=self._extra(piece.extra),
        )
        if not self._holds:
            tail = self._tails.get(index, "") + piece.arguments
            found, certain = self._restorer.scan(tail, 0, final=False)
            self._holds = bool(found)
            certain = len(tail[: found[0].start if found else certain].rstrip('"\\'))
            self._tails[index] = tail[certain:]
            self._given[index] = self._given.get(index, 0) + certain
            bare = msgspec.structs.replace(bare, arguments=tail[:certain])
            if bare.id or bare.name or bare.arguments or bare.extra:
                yield bare
        elif bare.id or bare.name or bare.extra:
            self._kept.setdefault(index, []).append(bare)

    def finish(self) -> Iterator[ToolCallDelta]:
        """What was kept, call by call."""
        for index, pieces in sorted(self._came.items()):
            yield from self._kept.get(index, ())
            whole = "".join(p.arguments for p in pieces)
            name = "".join(p.name for p in pieces)
            done = _arguments(self._restorer, self._sampling, name, whole, self._rules)
            rest = done[self._given.get(index, 0) :]
            if rest:
                yield ToolCallDelta(index, arguments=rest)

    def _extra(self, text: str) -> str:
        return restore(self._restorer, text, Places(self._restorer, json=True, rules=self._rules))


class ReplyStream:
    """Restores a reply that arrives in pieces; what it yields adds up to `restored` of the whole.

    Tokens may come a piece later than their text: a token is told once nothing of it is held back.
    """

    def __init__(
        self, restorer: Restorer, sampling: Sampling, *, sql: bool, rules: Rules | None = None
    ) -> None:
        self._restorer = restorer
        self._sampling, self._sql = sampling, sql
        self._whole: list[Delta] = []  # with choices only the whole reply tells whether it is one
        self._rules = rules = rules or Rules()
        self._text = Stream(restorer, _content(restorer, sampling, sql=sql, rules=rules))
        self._calls = _Calls(restorer, sampling, rules)
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
        calls = [given for piece in delta.tool_calls for given in self._calls.feed(piece)]
        others = [(name, self._other(name).feed(said)) for name, said in delta.other_texts]
        tokens: tuple[TokenLogprob, ...] = ()
        if not self._text.holds:
            tokens = self._settled_tokens()
        out = msgspec.structs.replace(
            delta,
            text=text,
            tokens=tokens,
            tool_calls=tuple(calls),
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
                    restored(
                        whole, self._restorer, self._sampling, sql=self._sql, rules=self._rules
                    )
                )
            return
        text = self._text.finish()
        calls = self._calls.finish()
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

    def _other(self, name: str) -> Stream:
        render = Places(self._restorer, rules=self._rules)
        return self._others.setdefault(name, Stream(self._restorer, render))

    def _json(self, text: str) -> str:
        return restore(self._restorer, text, Places(self._restorer, json=True, rules=self._rules))

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
