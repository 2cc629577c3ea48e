"""Answers in Anthropic's shape: a message of blocks, whole or as events.

    message_start, ping
      content_block_start │ content_block_delta … │ content_block_stop      one block after the other
    message_delta (why it ended, what it took), message_stop

Reference: https://docs.claude.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from cosilo.gateway.refusals import Refusal
from cosilo.gateway.web.dialects.anthropic import error_body
from cosilo.gateway.web.dialects.base import Envelope
from cosilo.gateway.web.dialects.openai import comment, used
from cosilo.types import Delta, FinishReason, Generation, ToolCallDelta

_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])  # numbers of any size

_REASONS: Mapping[FinishReason, str] = {
    "stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use",
    "content_filter": "refusal",
}  # fmt: skip
_THOUGHTS = ("reasoning_content", "reasoning")
_SIGNATURE = "cosilo"  # clients send back only thoughts that are signed; nobody checks it here


def message(envelope: Envelope, generation: Generation) -> bytes:
    """The body of a finished answer."""
    others = dict(generation.other_texts)
    content: list[dict[str, object]] = []
    thought = "".join(others.get(name, "") for name in _THOUGHTS)
    if thought and envelope.wanted.echo.get("thinking"):
        content.append({"type": "thinking", "thinking": thought, "signature": _SIGNATURE})
    if text := generation.text + others.get("refusal", ""):
        content.append({"type": "text", "text": text})
    kept = Extras(generation.extra)
    for i, call in enumerate(generation.tool_calls):
        known_by = call.id or _made_up(envelope, i)
        if call.extra:
            kept.calls[known_by] = call.extra
        content.append({
            "type": "tool_use", "id": known_by, "name": call.name,
            "input": msgspec.Raw(_input(call.arguments)),
        })  # fmt: skip
    if kept:
        content.append({"type": "redacted_thinking", "data": sealed(kept)})
    return _encode({
        **_around(envelope), "content": content, "stop_reason": reason(generation),
        "stop_sequence": None, "usage": usage(generation),
    })  # fmt: skip


def reason(generation: Generation) -> str:
    """Why the answer ended. Chat back ends tell a stop sequence from an end by themselves nowhere."""
    ended = generation.finish_reason
    if ended == "stop" and generation.tool_calls:
        ended = "tool_calls"
    if ended == "stop" and any(name == "refusal" for name, _ in generation.other_texts):
        ended = "content_filter"
    return _REASONS[ended]


def usage(generation: Generation) -> dict[str, object]:
    """What the answer took; tokens of the prompt that were read before are counted apart."""
    prompt, completion, cached, thought = used([generation])
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": completion,
        **({"output_tokens_details": {"thinking_tokens": thought}} if thought else {}),
    }


@dataclass
class Extras:
    """JSON that the model's owner wants back: with the message, and with its calls by their ids."""

    message: str = ""
    calls: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.message or self.calls)

    def beside(self, other: Extras) -> Extras:
        return Extras(other.message or self.message, {**self.calls, **other.calls})


_SEAL = "cosilo:"


def sealed(kept: Extras) -> str:
    """`kept` as the data of a block that clients send back as it is and do not look into."""
    return _SEAL + base64.urlsafe_b64encode(_encode([kept.message, kept.calls])).decode()


def unsealed(data: str) -> Extras:
    """What `sealed` made `data` of. Thoughts that Anthropic sealed hold nothing for another model, and
    nobody here can see what they tell, so of them nothing is left."""
    if not data.startswith(_SEAL):
        return Extras()
    try:
        found = base64.urlsafe_b64decode(data.removeprefix(_SEAL))
        said, calls = msgspec.json.decode(found, type=tuple[str, dict[str, str]])
        for text in (said, *calls.values()):
            if text:
                _object.decode(text)
    except (binascii.Error, ValueError, RecursionError, msgspec.DecodeError):
        return Extras()
    return Extras(said, calls)


class MessageEvents:
    """The events of one answer.

    Blocks come one after the other, but pieces of parallel calls may come in any order. So while a
    call is written, what belongs to another block waits until its input is complete, or the answer.
    """

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self._thinking = bool(envelope.wanted.echo.get("thinking"))
        self._next = 0  # the number of the block that is opened next
        self._open: _Key | None = None
        self._text = b""  # what goes before a piece of the open text
        self._written = ""  # of the open call's input
        self._done: set[_Key] = set()
        self._waiting: dict[_Key, list[ToolCallDelta | str]] = {}
        self._kept = Extras()
        self._generation = Generation("")

    def first(self, index: int) -> bytes:
        start = {
            **_around(self._envelope), "content": [], "stop_reason": None, "stop_sequence": None,
            "usage": usage(Generation("")),
        }  # fmt: skip
        return _event("message_start", message=start) + _event("ping")

    def piece(self, index: int, delta: Delta) -> bytes:
        if (
            delta.text
            and self._open == _TEXT
            and not (delta.tool_calls or delta.other_texts or delta.extra)
        ):
            return self._text + _encode(delta.text) + b"}}\n\n"
        out = b""
        for name, said in delta.other_texts:
            if name == "refusal":
                out += self._say(_TEXT, said)
            elif self._thinking:
                out += self._say(_THOUGHT, said)
        if delta.text:
            out += self._say(_TEXT, delta.text)
        for call in delta.tool_calls:
            out += self._say(("tool_use", call.index), call)
        if delta.extra:
            self._kept.message = delta.extra
        return out

    def last(self, index: int, generation: Generation) -> bytes:
        self._generation = generation
        out = self._close()
        for key in list(self._waiting):
            pieces = self._waiting[key]
            out += (
                self._start(key) + b"".join(map(self._delta, _whole(key, pieces))) + self._close()
            )
        for i, call in enumerate(generation.tool_calls):
            if call.extra:
                self._kept.calls[call.id or _made_up(self._envelope, i)] = call.extra
        if self._kept:
            block = {"type": "redacted_thinking", "data": sealed(self._kept)}
            out += _event("content_block_start", index=self._next, content_block=block)
            out += _event("content_block_stop", index=self._next)
        return out

    def end(self, generations: Sequence[Generation], facts: Mapping[str, object]) -> bytes:
        ended = {"stop_reason": reason(self._generation), "stop_sequence": None}
        told = _event("message_delta", delta=ended, usage=usage(self._generation))
        return told + comment(_encode(facts)) + _event("message_stop")

    def error(self, refusal: Refusal) -> bytes:
        return b"event: error\ndata: " + error_body(refusal, self._envelope.request) + b"\n\n"

    def _say(self, key: _Key, said: ToolCallDelta | str) -> bytes:
        if key == self._open:
            return self._delta(said)
        if key in self._done or said == "":
            return b""
        pieces = self._waiting.setdefault(key, [])
        pieces.append(said)
        if self._unfinished() or not _begun(pieces):
            return b""
        return self._close() + self._start(key) + b"".join(map(self._delta, pieces))

    def _unfinished(self) -> bool:
        """Whether more of the open block may come: of a call until its input is complete JSON."""
        return (
            self._open is not None
            and self._open[0] == "tool_use"
            and _parsed(self._written) is None
        )

    def _start(self, key: _Key) -> bytes:
        self._open = key
        self._written = ""
        block: dict[str, object]
        if key == _TEXT:
            block = {"type": "text", "text": ""}
            delta = _event("content_block_delta", index=self._next,
                           delta={"type": "text_delta", "text": ""})  # fmt: skip
            self._text = delta.removesuffix(b'""}}\n\n')
        elif key == _THOUGHT:
            block = {"type": "thinking", "thinking": "", "signature": ""}
        else:
            called = [piece for piece in self._waiting[key] if isinstance(piece, ToolCallDelta)]
            known_by = "".join(piece.id for piece in called) or _made_up(self._envelope, key[1])
            name = "".join(piece.name for piece in called)
            block = {"type": "tool_use", "id": known_by, "name": name, "input": {}}
        del self._waiting[key]
        return _event("content_block_start", index=self._next, content_block=block)

    def _delta(self, said: ToolCallDelta | str) -> bytes:
        assert self._open is not None
        if isinstance(said, ToolCallDelta):
            self._written += said.arguments
            if not said.arguments:
                return b""
            told = {"type": "input_json_delta", "partial_json": said.arguments}
        elif self._open == _TEXT:
            return self._text + _encode(said) + b"}}\n\n"
        else:
            told = {"type": "thinking_delta", "thinking": said}
        return _event("content_block_delta", index=self._next, delta=told)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        signed = b""
        if self._open == _THOUGHT:
            signed = _event("content_block_delta", index=self._next,
                            delta={"type": "signature_delta", "signature": _SIGNATURE})  # fmt: skip
        elif self._open != _TEXT:
            self._done.add(self._open)
        self._open = None
        told = signed + _event("content_block_stop", index=self._next)
        self._next += 1
        return told


_Key = tuple[str, int]
_TEXT: _Key = ("text", 0)
_THOUGHT: _Key = ("thinking", 0)


def _begun(pieces: Sequence[ToolCallDelta | str]) -> bool:
    """Whether they can be sent as they come: what does not begin as an object is no tool's input."""
    return any(isinstance(p, str) for p in pieces) or _arguments(pieces).lstrip().startswith("{")


def _arguments(pieces: Sequence[ToolCallDelta | str]) -> str:
    return "".join(piece.arguments for piece in pieces if isinstance(piece, ToolCallDelta))


def _whole(key: _Key, pieces: Sequence[ToolCallDelta | str]) -> Sequence[ToolCallDelta | str]:
    """The pieces of a block that waited until the answer was complete."""
    if key[0] != "tool_use" or _begun(pieces):
        return pieces
    return [ToolCallDelta(key[1], arguments=_input(_arguments(pieces)).decode())]


def _parsed(arguments: str) -> dict[str, msgspec.Raw] | None:
    try:
        return _object.decode(arguments)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None


def _input(arguments: str) -> bytes:
    """The input of a tool, which is an object: what a model wrote instead stands in one."""
    if not arguments.strip():
        return b"{}"
    if _parsed(arguments) is not None:
        return arguments.encode()
    return _encode({"INVALID_JSON": arguments})


def _made_up(envelope: Envelope, index: int) -> str:
    """The id of a call to which the back end gave none."""
    return f"toolu_{envelope.request}_{index}"


def _around(envelope: Envelope) -> dict[str, object]:
    return {
        "id": f"msg_{envelope.request}", "type": "message", "role": "assistant",
        "model": envelope.model,
    }  # fmt: skip


def _event(kind: str, **fields: object) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + _encode({"type": kind, **fields}) + b"\n\n"
