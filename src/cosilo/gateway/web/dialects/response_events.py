"""A streamed reply as the events of OpenAI's Responses API.

    created, in_progress
      output_item.added
        content_part.added │ reasoning_summary_part.added
          output_text.delta │ refusal.delta │ reasoning_text.delta │ reasoning_summary_text.delta …
        function_call_arguments.delta …
      and, once the reply has ended, for each item in the order they began:
        output_text.done, content_part.done │ function_call_arguments.done │ …
      output_item.done
    completed │ incomplete │ error, failed

Items stay open until the reply ends: what a guard held back of one may still come after the next began.
Reference: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cosilo.gateway.refusals import Refusal
from cosilo.gateway.web.dialects.base import Envelope
from cosilo.gateway.web.dialects.openai import comment, encode, token_logprobs
from cosilo.gateway.web.dialects.response_items import (
    MESSAGE,
    REASONING,
    Item,
    Key,
    call_item,
    message_item,
    reasoning_item,
    reply_items,
)
from cosilo.gateway.web.dialects.response_tools import Names, chat_name
from cosilo.types import Delta, Generation, TokenLogprob, ToolCall, ToolCallDelta

Body = Callable[..., Item]


_EMPTY: dict[str, Item] = {
    "output_text": {"type": "output_text", "text": "", "annotations": [], "logprobs": []},
    "refusal": {"type": "refusal", "refusal": ""},
    "reasoning_text": {"type": "reasoning_text", "text": ""},
}
"""Parts as they begin, by their types."""


@dataclass
class _Call:
    """A call, as far as its pieces have come."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ResponseEvents:
    """Writes the events of one response.

    Args:
        body: makes the response object, from a status and the items that it holds.
        names: of the tools that are in a group.
    """

    def __init__(self, envelope: Envelope, body: Body, names: Names) -> None:
        self._request = envelope.request
        self._logprobs = envelope.wanted.logprobs
        self._body = body
        self._names = names
        self._sequence = 0
        self._begun: dict[Key, int] = {}  # item → its place in the output
        self._parts: dict[str, int] = {}  # a part's type → its place in its item
        self._calls: dict[int, _Call] = {}
        self._tokens: list[TokenLogprob] = []  # that no text has been said of yet
        self._open = b""
        self._items: list[Item] = []

    def first(self, index: int) -> bytes:
        response = self._body("in_progress")
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def piece(self, index: int, delta: Delta) -> bytes:
        said = b""
        for name, text in delta.other_texts:
            said += self._other(name, text)
        if delta.tokens and self._logprobs is not None:
            self._tokens += delta.tokens
        if delta.text:
            said += self._text(delta.text)
        for call in delta.tool_calls:
            said += self._call(call)
        return said

    def last(self, index: int, generation: Generation) -> bytes:
        said = b""
        order = [*self._begun, *self._parts]
        items = reply_items(
            self._request, generation, self._logprobs, order, sorted(self._calls), self._names
        )
        for key, item in items.items():
            said += self._all(key, item)
        for key, item in items.items():
            said += self._done(key, item)
        self._items = list(items.values())
        return said

    def end(self, generations: Sequence[Generation], facts: Mapping[str, object]) -> bytes:
        response = self._body(None, self._items, generations[-1])
        kind = f"response.{response['status']}"
        told = dict(facts)
        return comment(encode(told)) + self._event(kind, response=response, cosilo=told)

    def error(self, refusal: Refusal) -> bytes:
        code = "rate_limit_exceeded" if refusal.status == 429 else "server_error"
        failed = self._body("failed") | {"error": {"code": code, "message": refusal.message}}
        return self._event(
            "error", code=refusal.code, message=refusal.message, param=refusal.param
        ) + self._event("response.failed", response=failed)

    # Pieces.

    def _text(self, text: str) -> bytes:
        said = b""
        if "output_text" not in self._parts:
            said = self._begin_part("output_text")
            self._open = self._text_open()
        shown = b"[]"
        if self._logprobs is not None:
            shown = encode(token_logprobs(self._tokens, self._logprobs))
            self._tokens.clear()
        number, self._sequence = self._sequence, self._sequence + 1
        said += self._open + encode(text) + b',"logprobs":' + shown
        return said + b',"sequence_number":%d}\n\n' % number

    def _text_open(self) -> bytes:
        """How each piece of the text begins: nearly all events are one, so it is encoded once."""
        kind = "response.output_text.delta"
        head = {
            "type": kind, "item_id": f"msg_{self._request}",
            "output_index": self._begun[MESSAGE], "content_index": self._parts["output_text"],
        }  # fmt: skip
        return b"event: " + kind.encode() + b"\ndata: " + encode(head)[:-1] + b',"delta":'

    def _other(self, name: str, text: str) -> bytes:
        if name == "reasoning":
            said = self._begin_summary()
            return said + self._in_summary("response.reasoning_summary_text.delta", delta=text)
        kind = "refusal" if name == "refusal" else "reasoning_text"
        said = self._begin_part(kind)
        return said + self._in_part(f"response.{kind}.delta", kind, delta=text)

    def _call(self, delta: ToolCallDelta) -> bytes:
        call = self._calls.setdefault(delta.index, _Call())
        call.id += delta.id
        call.name += delta.name
        if not delta.arguments:
            return b""  # id and name may come in pieces: an item begins with the whole of them
        said = b""
        if delta.index not in self._begun:
            said = self._begin_call(delta.index, call.id, call.name)
        return said + self._in_item(
            "response.function_call_arguments.delta", delta.index, delta=delta.arguments
        )

    # What begins.

    def _begin(self, key: Key, item: Item) -> bytes:
        if key in self._begun:
            return b""
        self._begun[key] = len(self._begun)
        return self._event("response.output_item.added", output_index=self._begun[key], item=item)

    def _begin_message(self) -> bytes:
        return self._begin(MESSAGE, message_item(self._request, (), "in_progress"))

    def _begin_reasoning(self) -> bytes:
        return self._begin(REASONING, reasoning_item(self._request, {}, "in_progress"))

    def _begin_call(self, number: int, id: str, name: str) -> bytes:
        return self._begin(
            number,
            call_item(self._request, number, ToolCall(id, name, ""), "in_progress", self._names),
        )

    def _begin_part(self, kind: str) -> bytes:
        if kind in self._parts:
            return b""
        if kind == "reasoning_text":
            said, before = self._begin_reasoning(), 0
        else:
            said = self._begin_message()
            before = sum(other in self._parts for other in ("output_text", "refusal"))
        self._parts[kind] = before
        return said + self._in_part("response.content_part.added", kind, part=_EMPTY[kind])

    def _begin_summary(self) -> bytes:
        if "summary_text" in self._parts:
            return b""
        said = self._begin_reasoning()
        self._parts["summary_text"] = 0
        part = {"type": "summary_text", "text": ""}
        return said + self._in_summary("response.reasoning_summary_part.added", part=part)

    # What ends.

    def _all(self, key: Key, item: Item) -> bytes:
        """What of `item` has not begun: a call without arguments, a message that says nothing, …"""
        if isinstance(key, int):
            name = chat_name(item.get("namespace"), item["name"])
            return self._begin_call(key, item["call_id"], name)
        said = self._begin_message() if key == MESSAGE else self._begin_reasoning()
        for part in item["content"]:
            said += self._begin_part(part["type"])
        return said + (self._begin_summary() if item.get("summary") else b"")

    def _done(self, key: Key, item: Item) -> bytes:
        said = b""
        if isinstance(key, int):
            said += self._in_item(
                "response.function_call_arguments.done", key,
                name=item["name"], arguments=item["arguments"],
            )  # fmt: skip
        for part in item.get("content", ()):
            said += self._part_done(part)
        for part in item.get("summary", ()):
            said += self._in_summary("response.reasoning_summary_text.done", text=part["text"])
            said += self._in_summary("response.reasoning_summary_part.done", part=part)
        return said + self._event(
            "response.output_item.done", output_index=self._begun[key], item=item
        )

    def _part_done(self, part: Item) -> bytes:
        kind = part["type"]
        told = {field: part[field] for field in ("text", "refusal", "logprobs") if field in part}
        return self._in_part(f"response.{kind}.done", kind, **told) + self._in_part(
            "response.content_part.done", kind, part=part
        )

    # Bytes.

    def _in_part(self, event: str, kind: str, **fields: Any) -> bytes:
        key = REASONING if kind == "reasoning_text" else MESSAGE
        return self._in_item(event, key, content_index=self._parts[kind], **fields)

    def _in_summary(self, kind: str, **fields: Any) -> bytes:
        return self._in_item(kind, REASONING, summary_index=0, **fields)

    def _in_item(self, kind: str, key: Key, **fields: Any) -> bytes:
        if isinstance(key, int):
            id = f"fc_{self._request}_{key}"
        else:
            id = f"{'msg' if key == MESSAGE else 'rs'}_{self._request}"
        return self._event(kind, item_id=id, output_index=self._begun[key], **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._sequence = self._sequence, self._sequence + 1
        data = encode({"type": kind, "sequence_number": number, **fields})
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"
