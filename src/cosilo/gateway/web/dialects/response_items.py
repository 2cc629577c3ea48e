"""The items of OpenAI's Responses API, as turns of a chat, and a reply as items.

    user:       message
    assistant:  reasoning, message, function_call, function_call   are one turn
    tool:       function_call_output

`reasoning_content` stands in a reasoning item's `content`, and `reasoning` in its `summary`, so what a
client sends back arrives under the name it came with. `extra_content` stands in the item it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cosilo.gateway.refusals import RequestError
from cosilo.gateway.web.dialects.fields import NULL, Raw, field_of, json_text, known_of
from cosilo.gateway.web.dialects.files import Files, elsewhere
from cosilo.gateway.web.dialects.openai import extra_content, token_logprobs
from cosilo.gateway.web.dialects.response_tools import Names, chat_name
from cosilo.types import OTHER_TEXTS, Generation, Role, ToolCall, Turn

Item = dict[str, Any]


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None
    image_url: str | None = None


class _Item(msgspec.Struct):
    type: str | None = None
    role: str | None = None
    content: str | list[_Part] | None = None
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    output: str | list[_Part] | None = None
    summary: list[_Part] | None = None
    extra_content: Raw = NULL


class _Typed(msgspec.Struct):
    type: str | None = None


READ = known_of(_Item)
"""What of an item is read."""

_input = msgspec.json.Decoder(str | list[_Item])
_types = msgspec.json.Decoder(str | list[_Typed])

_ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant",
}  # fmt: skip
_KINDS = ("message", "reasoning", "function_call", "function_call_output")


@dataclass
class _Said:
    """An assistant's turn, as far as its items have been read."""

    content: str | None = None
    reasoned: bool = False
    calls: list[ToolCall] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)
    extra: str = ""

    def turns(self) -> Iterator[Turn]:
        """The turn; none where there is only a thought that its owner has sealed."""
        if self.content is None and not self.calls and not self.others:
            return
        yield Turn(
            "assistant",
            self.content or "",
            tool_calls=tuple(self.calls),
            other_texts=tuple((n, self.others[n]) for n in OTHER_TEXTS if n in self.others),
            extra=self.extra,
        )


def read_input(raw: bytes, files: Files) -> list[Turn]:
    """The turns that the field `input` holds: a text, or items.

    Raises:
        RequestError: an item is none that can be answered; it names the place.
    """
    try:
        found = field_of("input", _input, raw)
    except RequestError:
        _refuse_kinds(field_of("input", _types, raw))
        raise
    if isinstance(found, str):
        return [Turn("user", found)]
    if not found:
        raise RequestError("input: there is no item in it", param="input")
    _refuse_kinds(found)
    turns = list(_turns(found, files))
    if not turns:
        raise RequestError("input: nothing in it can be read", param="input")
    return turns


def _refuse_kinds(items: str | Sequence[_Typed | _Item]) -> None:
    for i, item in enumerate(items):
        kind = None if isinstance(item, str) else item.type
        if kind == "item_reference":
            raise RequestError(
                f"input[{i}]: no item is kept that could be referred to; send the item itself, as "
                "clients do that are told store: false",
                param=f"input[{i}].type", code="unsupported_content",
            )  # fmt: skip
        if kind is not None and kind not in _KINDS:
            raise RequestError(
                f"input[{i}].type: only items of type {', '.join(_KINDS)} can be kept private",
                param=f"input[{i}].type", code="unsupported_content",
            )  # fmt: skip


def _turns(items: Sequence[_Item], files: Files) -> Iterator[Turn]:
    said: _Said | None = None
    for i, item in enumerate(items):
        where = f"input[{i}]"
        kind = item.type or "message"
        spoken = kind == "message" and item.role == "assistant"
        if spoken or kind in ("reasoning", "function_call"):
            if said is not None and _begins(kind, said):
                yield from said.turns()
                said = None
            said = said or _Said()
            _say(said, kind, item, where)
            continue
        if said is not None:
            yield from said.turns()
            said = None
        asked = _output if kind == "function_call_output" else _message
        yield asked(item, where, files)
    if said is not None:
        yield from said.turns()


def _begins(kind: str, said: _Said) -> bool:
    """Whether an item of that kind belongs to a turn of its own, and not to what was `said` already."""
    if kind == "function_call":
        return False
    if kind == "message":
        return said.content is not None or bool(said.calls)
    return said.reasoned or said.content is not None or bool(said.calls)


def _say(said: _Said, kind: str, item: _Item, where: str) -> None:
    if kind == "function_call":
        call_id = _given(item.call_id, f"{where}.call_id")
        name = chat_name(item.namespace, _given(item.name, f"{where}.name"))
        extra = json_text(item.extra_content)
        said.calls.append(ToolCall(call_id, name, item.arguments or "", extra))
    elif kind == "reasoning":
        said.reasoned = True
        for name, parts in (("reasoning_content", item.content), ("reasoning", item.summary)):
            if text := _texts(parts or "", f"{where}.{_FIELD[name]}"):
                said.others[name] = text
    else:
        parts = item.content if isinstance(item.content, list) else []
        if refused := "\n".join(p.refusal for p in parts if p.type == "refusal" and p.refusal):
            said.others["refusal"] = refused
        said.content = _texts(item.content, f"{where}.content", refusals=True)
        said.extra = json_text(item.extra_content)


def _message(item: _Item, where: str, files: Files) -> Turn:
    role = _ROLES.get(item.role or "")
    if role is None:
        raise RequestError(
            f"{where}.role must be one of {', '.join(_ROLES)}", param=f"{where}.role"
        )
    asks = files if role == "user" else None
    return Turn(role, _texts(item.content, f"{where}.content", asks))


def _output(item: _Item, where: str, files: Files) -> Turn:
    call_id = _given(item.call_id, f"{where}.call_id")
    said = _texts(item.output, f"{where}.output", files)
    return Turn("tool", said, tool_call_id=call_id)


def _given(text: str | None, where: str) -> str:
    if not text:
        raise RequestError(f"{where} must be given", param=where)
    return text


def _texts(
    parts: str | list[_Part] | None,
    where: str,
    files: Files | None = None,
    *,
    refusals: bool = False,
) -> str:
    """What `parts` say, joined by line breaks.

    Args:
        files: where the files among them go; none may be there without.
        refusals: whether there may be refusals among them, which are texts of another name.
    """
    if parts is None:
        raise RequestError(f"{where} must be given", param=where)
    if isinstance(parts, str):
        return parts
    texts = []
    for i, part in enumerate(parts):
        at = f"{where}[{i}]"
        if part.type in _TEXTS:
            if part.text is None:
                raise RequestError(f"{at}.text must be given", param=f"{at}.text")
            texts.append(part.text)
        elif refusals and part.type == "refusal":
            if part.refusal is None:
                raise RequestError(f"{at}.refusal must be given", param=f"{at}.refusal")
        elif files is not None and part.type in ("input_file", "input_image"):
            texts.append(_file(part, at, files))
        else:
            raise RequestError(
                f"{at}: only text can be kept private, so only parts of type input_text, input_file "
                "and input_image are accepted, of users and tools",
                param=at, code="unsupported_content",
            )  # fmt: skip
    return "\n".join(texts)


def _file(part: _Part, where: str, files: Files) -> str:
    sent = part.file_data if part.type == "input_file" else part.image_url
    if sent is None:
        kept = part.file_url is None
        raise elsewhere(where, "file_id" if kept else "file_url", kept=kept)
    named = "file_data" if part.type == "input_file" else "image_url"
    return files.take(sent, f"{where}.{named}", name=part.filename)


_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
_FIELD = {"reasoning_content": "content", "reasoning": "summary"}


# A reply as items. Each has a key: "reasoning", "message", or the number of a call.

Key = str | int

REASONING, MESSAGE = "reasoning", "message"


def reasoning_item(request: str, texts: Mapping[str, str], status: str) -> Item:
    """What the model thought; `texts` by the names of `OTHER_TEXTS`."""
    thought, summary = texts.get("reasoning_content"), texts.get("reasoning")
    return {
        "id": f"rs_{request}",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": summary}] if summary else [],
        "content": [{"type": "reasoning_text", "text": thought}] if thought else [],
        "status": status,
    }


def message_item(request: str, parts: Sequence[Item], status: str, extra: str = "") -> Item:
    return {
        "id": f"msg_{request}", "type": "message", "role": "assistant",
        "content": list(parts), "status": status, **extra_content(extra),
    }  # fmt: skip


def call_item(request: str, number: int, call: ToolCall, status: str, names: Names) -> Item:
    """A call; one that came without an id gets one, because its result has to name it."""
    group, name = names.get(call.name, ("", call.name))
    return {
        "id": f"fc_{request}_{number}", "type": "function_call",
        "call_id": call.id or f"call_{request}_{number}", "name": name,
        **({"namespace": group} if group else {}),
        "arguments": call.arguments, "status": status, **extra_content(call.extra),
    }  # fmt: skip


def text_part(generation: Generation, logprobs: int | None) -> Item:
    shown = [] if logprobs is None else token_logprobs(generation.tokens, logprobs)
    return {
        "type": "output_text", "text": generation.text, "annotations": [], "logprobs": shown,
    }  # fmt: skip


def reply_items(
    request: str,
    generation: Generation,
    logprobs: int | None,
    order: Sequence[Key] = (),
    numbers: Sequence[int] = (),
    names: Names | None = None,
) -> dict[Key, Item]:
    """The items of a reply. Where it was cut off, its last item says that it is incomplete.

    Args:
        order: keys of items, and types of parts, in the order in which a stream has begun them; the
            others follow.
        numbers: of its calls, where a stream has numbered them otherwise than 0, 1, 2, ….
        names: of the tools that are in a group.
    """
    others = dict(generation.other_texts)
    found: dict[Key, Item] = {}
    if "reasoning_content" in others or "reasoning" in others:
        found[REASONING] = reasoning_item(request, others, "completed")
    parts = {}
    if generation.text:
        parts["output_text"] = text_part(generation, logprobs)
    if refused := others.get("refusal"):
        parts["refusal"] = {"type": "refusal", "refusal": refused}
    if not (parts or generation.tool_calls or generation.extra):
        parts["output_text"] = text_part(generation, logprobs)  # it says nothing, and says so
    if parts or generation.extra:
        content = [parts[key] for key in _ordered(list(parts), order)]
        found[MESSAGE] = message_item(request, content, "completed", generation.extra)
    for i, call in enumerate(generation.tool_calls):
        number = numbers[i] if i < len(numbers) else i
        found[number] = call_item(request, number, call, "completed", names or {})
    items = {key: found[key] for key in _ordered(list(found), order)}
    if items and not is_whole(generation):
        items[list(items)[-1]]["status"] = "incomplete"
    return items


def _ordered(keys: list[Any], order: Sequence[Key]) -> list[Any]:
    first = [key for key in order if key in keys]
    return first + [key for key in keys if key not in first]


def is_whole(generation: Generation) -> bool:
    return generation.finish_reason not in ("length", "content_filter")
