"""`/v1/messages`: Anthropic's shape.

    system ─────────────────▶ a system turn
    text, document, search ─▶ text of the turn, a user's joined by line breaks
    tool_use / tool_result ─▶ a call / a turn of role `tool`, before what else its message says
    thinking ───────────────▶ `reasoning_content`

What is no text and cannot be made one at home is refused, as are tools that run at, or are defined by,
Anthropic: another model does not know them. Reference: https://docs.claude.com/en/api/messages
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import msgspec

from cosilo.gateway.refusals import RequestError
from cosilo.gateway.web.dialects import blocks
from cosilo.gateway.web.dialects.anthropic import AnthropicShape
from cosilo.gateway.web.dialects.base import AnswerEvents, Continuation, Envelope, Header
from cosilo.gateway.web.dialects.fields import (
    NULL,
    Name,
    Positive,
    Raw,
    decoded,
    field_of,
    known_of,
    present,
)
from cosilo.gateway.web.dialects.files import Files, elsewhere
from cosilo.types import Chat, Generation, ToolCall, Turn


class _Block(msgspec.Struct):
    """A block of content of any type; `content` is what a tool's result or a search's holds."""

    type: str
    text: str | None = None
    id: str = ""
    name: str = ""
    input: Raw = NULL
    tool_use_id: str = ""
    content: str | list[_Block] | None = None
    is_error: bool | None = None
    thinking: str = ""
    data: str = ""
    source: Raw = NULL
    title: str | None = None
    context: str | None = None
    citations: Raw = NULL


class _Source(msgspec.Struct):
    type: str
    data: str = ""
    media_type: str = ""
    content: str | list[_Block] = ""


class _Citations(msgspec.Struct):
    enabled: bool | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Block]


class _Metadata(msgspec.Struct):
    user_id: Raw = NULL


class _Thinking(msgspec.Struct):
    type: str
    budget_tokens: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None
    display: str | None = None


class _Format(msgspec.Struct):
    type: str
    schema: Raw = NULL


class _OutputConfig(msgspec.Struct):
    effort: str | None = None
    format: _Format | None = None


class _Tool(msgspec.Struct):
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: Raw = NULL
    input_examples: list[Raw] | None = None
    strict: bool | None = None
    allowed_callers: list[str] | None = None


class _Choice(msgspec.Struct):
    type: str
    name: str = ""
    disable_parallel_tool_use: bool | None = None


_Unit = Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Body(msgspec.Struct, kw_only=True):
    model: Name
    max_tokens: Positive
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    system: str | list[_Block] | None = None
    stop_sequences: Annotated[list[str], msgspec.Meta(max_length=16)] | None = None
    temperature: _Unit | None = None
    top_p: _Unit | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    stream: bool | None = None
    tools: list[_Tool] | None = None
    tool_choice: _Choice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    output_format: _Format | None = None
    metadata: _Metadata | None = None
    mcp_servers: list[Raw] | None = None
    thread: Raw = NULL
    # Taken, and dropped: they say how Anthropic's own servers go about it.
    cache_control: Raw = NULL
    diagnostics: Raw = NULL
    speed: Raw = NULL
    user_profile_id: Raw = NULL
    context_management: Raw = NULL


_body = msgspec.json.Decoder(_Body)
_INSIDE = {"messages": known_of(_Message), "system": known_of(_Block)}
_source = msgspec.json.Decoder(_Source)
_citations = msgspec.json.Decoder(_Citations)
_object = msgspec.json.Decoder(dict[str, Raw])

# A budget for thinking, in tokens, as the effort that other models are asked for.
_EFFORTS = ((4_000, "low"), (16_000, "medium"))


class Messages(AnthropicShape):
    """The dialect of Anthropic's clients."""

    endpoint: ClassVar[str] = "messages"
    path: ClassVar[str] = "/v1/messages"

    def read(self, body: bytes, header: Header) -> Continuation:
        return read_message(body)

    def whole(self, envelope: Envelope, generations: Sequence[Generation]) -> bytes:
        return blocks.message(envelope, generations[0])

    def events(self, envelope: Envelope) -> AnswerEvents:
        return blocks.MessageEvents(envelope)


def read_message(body: bytes) -> Continuation:
    """The request in the body of `/v1/messages`.

    Raises:
        RequestError: it is not JSON, or a field is missing, of the wrong type or refused.
    """
    found, others = decoded(body, _body, _Body, _INSIDE)
    if found.mcp_servers:
        raise RequestError(
            "mcp_servers: what runs at Anthropic's servers is not there to be called here",
            param="mcp_servers", code="unsupported_parameter",
        )  # fmt: skip
    if present(found.thread):  # Anthropic's library then sends the whole conversation
        raise RequestError(
            "thread: no conversation is kept here; send all of its messages without it",
            param="thread", code="thread_unsupported_request",
        )  # fmt: skip
    given: dict[str, Any] = {"max_tokens": found.max_tokens}
    for name in ("temperature", "top_p"):
        if (value := getattr(found, name)) is not None:
            given[name] = value
    if found.stop_sequences:
        if not all(found.stop_sequences):
            raise RequestError("stop_sequences: one is empty", param="stop_sequences")
        given["stop"] = tuple(found.stop_sequences)
    if (form := _form(found)) is not None:
        given["response_format"] = form
    user = present(found.metadata.user_id) if found.metadata else None
    files = Files()
    return Continuation(
        model=found.model,
        chats=(_chat(found, files),),
        sampling=given | _tools(found),
        stream=bool(found.stream),
        user=user or b"",
        others={**others, **_further(found)},
        files=files.found,
        echo={"thinking": _shows_thinking(found.thinking)},
    )


def _chat(found: _Body, files: Files) -> Chat:
    turns: list[Turn] = []
    if found.system:
        turns.append(Turn("system", _text(found.system, "system")))
    last = len(found.messages) - 1
    for i, message in enumerate(found.messages):
        where = f"messages[{i}]"
        match message.role:
            case "user":
                turns += _asked(message.content, f"{where}.content", files)
            case "assistant":
                turns.append(_answered(message.content, f"{where}.content", last=i == last))
            case "system":  # instructions that come later in a conversation
                turns.append(Turn("system", _text(message.content, f"{where}.content")))
            case _:
                raise RequestError(f"{where}.role must be user or assistant", param=f"{where}.role")
    return tuple(turns)


def _asked(content: str | list[_Block], where: str, files: Files) -> list[Turn]:
    """What tools gave back, each in a turn of its own, and then what the user says."""
    if isinstance(content, str):
        return [Turn("user", content)]
    results: list[Turn] = []
    texts: list[str] = []
    for i, block in enumerate(content):
        at = f"{where}[{i}]"
        if block.type != "tool_result":
            texts.append(_readable(block, at, files))
            continue
        if not block.tool_use_id:
            raise RequestError(f"{at}.tool_use_id must be given", param=f"{at}.tool_use_id")
        said = _text(block.content or "", f"{at}.content", files)
        if block.is_error:  # chat back ends have no field for it
            said = f"The tool failed:\n{said}"
        results.append(Turn("tool", said, tool_call_id=block.tool_use_id))
    if texts or not results:
        results.append(Turn("user", "\n".join(texts)))
    return results


def _answered(content: str | list[_Block], where: str, *, last: bool) -> Turn:
    if isinstance(content, str):
        return Turn("assistant", content, prefix=last)
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    kept = blocks.Extras()
    for i, block in enumerate(content):
        at = f"{where}[{i}]"
        match block.type:
            case "tool_use":
                calls.append(_call(block, at))
            case "thinking":
                thoughts.append(block.thinking)
            case "redacted_thinking":
                kept = kept.beside(blocks.unsealed(block.data))
            case _:
                texts.append(_readable(block, at))
    return Turn(
        "assistant",
        "".join(texts),  # a model's text is cut anywhere, where something stands in between
        tool_calls=tuple(msgspec.structs.replace(c, extra=kept.calls.get(c.id, "")) for c in calls),
        other_texts=(("reasoning_content", "".join(thoughts)),) if any(thoughts) else (),
        extra=kept.message,
        prefix=last and not calls,
    )


def _call(block: _Block, where: str) -> ToolCall:
    for name in ("id", "name"):
        if not getattr(block, name):
            raise RequestError(f"{where}.{name} must be given", param=f"{where}.{name}")
    raw = present(block.input) or b"{}"
    field_of(f"{where}.input", _object, raw)
    return ToolCall(block.id, block.name, raw.decode())


def _text(content: str | list[_Block], where: str, files: Files | None = None) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(_readable(block, f"{where}[{i}]", files) for i, block in enumerate(content))


def _readable(block: _Block, where: str, files: Files | None = None) -> str:
    """The text of a block that holds one, or the mark of a file.

    Args:
        files: of the request; none where a file cannot stand.

    Raises:
        RequestError: it does not, or leaves it out.
    """
    match block.type:
        case "text":
            if block.text is None:
                raise RequestError(f"{where}.text must be given", param=f"{where}.text")
            return block.text
        case "document":
            return _document(block, where, files)
        case "image" if files is not None:
            return _file(block, where, files)
        case "search_result":
            source = field_of(f"{where}.source", _words, present(block.source) or b'""')
            said = _text(block.content or "", f"{where}.content", files)
            return "\n".join(filter(None, (block.title, source, said)))
    raise RequestError(
        f"{where}: only text can be kept private, so a block of this type cannot be taken here; "
        "text, document, search_result, tool_use, tool_result and thinking can",
        param=where, code="unsupported_content",
    )  # fmt: skip


_words = msgspec.json.Decoder(str)


def _document(block: _Block, where: str, files: Files | None) -> str:
    cited = present(block.citations)
    if cited and field_of(f"{where}.citations", _citations, cited).enabled:
        raise RequestError(
            f"{where}.citations: no model here can cite a document", param=f"{where}.citations"
        )
    source = field_of(f"{where}.source", _source, present(block.source) or b"null")
    match source.type:
        case "text":
            said = source.data
        case "content":
            said = _text(source.content, f"{where}.source.content", files)
        case _ if files is not None:
            said = _file(block, where, files)
        case _:
            raise RequestError(
                f"{where}.source: a file can stand in a user's message only; send a document here as a "
                "source of type text or content",
                param=f"{where}.source", code="unsupported_content",
            )  # fmt: skip
    return "\n".join(filter(None, (block.title, block.context, said)))


def _file(block: _Block, where: str, files: Files) -> str:
    source = field_of(f"{where}.source", _source, present(block.source) or b"null")
    if source.type != "base64":
        raise elsewhere(where, "source", kept=source.type == "file")
    return files.take(source.data, f"{where}.source", media=source.media_type)


def _further(found: _Body) -> dict[str, bytes]:
    """Further fields, by the names that they have in OpenAI's chat API."""
    given: dict[str, object] = {}
    if found.top_k is not None:
        given["top_k"] = found.top_k
    if found.tool_choice is not None and found.tool_choice.disable_parallel_tool_use:
        given["parallel_tool_calls"] = False
    if (thinking := found.thinking) is not None:
        if thinking.type not in ("enabled", "disabled", "adaptive", "between_tools"):
            raise RequestError(
                "thinking.type must be enabled, adaptive, between_tools or disabled",
                param="thinking.type",
            )
        if thinking.type == "enabled":
            if thinking.budget_tokens is None:
                raise RequestError(
                    "thinking.budget_tokens must be given", param="thinking.budget_tokens"
                )
            most = thinking.budget_tokens
            given["reasoning_effort"] = next((e for n, e in _EFFORTS if most < n), "high")
    if found.output_config is not None and found.output_config.effort is not None:
        if found.output_config.effort not in ("low", "medium", "high", "xhigh", "max"):
            raise RequestError(
                "output_config.effort must be low, medium, high, xhigh or max",
                param="output_config.effort",
            )
        given["reasoning_effort"] = found.output_config.effort
    return {name: msgspec.json.encode(value) for name, value in given.items()}


def _shows_thinking(thinking: _Thinking | None) -> bool:
    """Clients that did not ask for thinking take the first block for the answer."""
    return thinking is not None and thinking.type != "disabled" and thinking.display != "omitted"


def _form(found: _Body) -> str | None:
    """The form that the answer must have, as a chat API's `response_format`."""
    where = "output_format"
    form = found.output_format
    if form is None and found.output_config is not None:
        where, form = "output_config.format", found.output_config.format
    if form is None:
        return None
    if form.type != "json_schema":
        raise RequestError(f"{where}.type must be json_schema", param=f"{where}.type")
    schema = field_of(f"{where}.schema", _object, present(form.schema) or b"null")
    told = {"name": "answer", "schema": schema, "strict": True}
    return msgspec.json.encode({"type": "json_schema", "json_schema": told}).decode()


def _tools(found: _Body) -> dict[str, str]:
    """Tools and the choice among them, as a chat API has them."""
    tools, choice = found.tools or [], found.tool_choice
    given: dict[str, str] = {}
    if tools:
        told = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(tools)]
        given["tools"] = msgspec.json.encode(told).decode()
    if choice is None:
        return given
    names = {"auto": "auto", "any": "required", "none": "none", "tool": ""}
    if choice.type not in names:
        raise RequestError(
            "tool_choice.type must be auto, any, tool or none", param="tool_choice.type"
        )
    if not tools:
        if choice.type in ("any", "tool"):
            raise RequestError("tool_choice needs tools", param="tool_choice")
        return given
    wanted: object = names[choice.type]
    if choice.type == "tool":
        if choice.name not in {tool.name for tool in tools}:
            raise RequestError(
                "tool_choice.name must be the name of one of the tools", param="tool_choice.name"
            )
        wanted = {"type": "function", "function": {"name": choice.name}}
    given["tool_choice"] = msgspec.json.encode(wanted).decode()
    return given


def _tool(tool: _Tool, where: str) -> Mapping[str, object]:
    if tool.type not in (None, "custom"):
        raise RequestError(
            f"{where}: only tools with a schema of their own (input_schema) can be taken here; this "
            "type is one that Anthropic's servers or models define",
            param=f"{where}.type", code="unsupported_tool",
        )  # fmt: skip
    if any(caller != "direct" for caller in tool.allowed_callers or ()):
        raise RequestError(
            f"{where}.allowed_callers: code of Anthropic's servers calls nothing here; leave it out",
            param=f"{where}.allowed_callers", code="unsupported_tool",
        )  # fmt: skip
    if (schema := present(tool.input_schema)) is None:
        raise RequestError(f"{where}.input_schema must be given", param=f"{where}.input_schema")
    field_of(f"{where}.input_schema", _object, schema)
    about = [] if tool.description is None else [tool.description]
    if tool.input_examples:
        about.append("Examples of its input:")
        about += [bytes(example).decode() for example in tool.input_examples]
    function: dict[str, object] = {"name": tool.name}
    if about:
        function["description"] = "\n".join(about)
    function["parameters"] = Raw(schema)
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}
