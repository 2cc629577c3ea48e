"""Tools of the Responses API, as those of a chat.

A chat has functions only, each with a name of its own. Tools of a *namespace* are functions of a
group: in a chat `find` of the group `crm` is called `crm__find`, and a call of it is told by its two
names again. Tools that OpenAI would run itself send text to others past every guard, and are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from cosilo.gateway.refusals import RequestError
from cosilo.gateway.web.dialects.fields import NULL, Raw, field_of, present
from cosilo.gateway.web.dialects.openai import encode

Names = Mapping[str, tuple[str, str]]
"""Name in a chat → (group, name in it)."""


class Tool(msgspec.Struct):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: Raw = NULL
    strict: bool | None = None
    tools: list[Tool] | None = None


class _Named(msgspec.Struct):
    type: str
    name: str | None = None


class ToolChoice(msgspec.Struct):
    type: str
    name: str | None = None
    mode: str | None = None
    tools: list[_Named] | None = None


_object = msgspec.json.Decoder(dict[str, Raw])
_tools = msgspec.json.Decoder(list[Tool])


def chat_name(group: str | None, name: str) -> str:
    """What a tool is called in a chat. A tool without a group may come with its own name as one."""
    return f"{group}__{name}" if group and group != name else name


def names_in_groups(raw: bytes) -> Names:
    """The tools in `raw`, the field `tools` as it was read before, that are in a group."""
    if b'"namespace"' not in raw:
        return {}
    return {
        chat_name(group.name, tool.name): (group.name, tool.name)
        for group in _tools.decode(raw)
        if group.type == "namespace" and group.name
        for tool in group.tools or ()
        if tool.name
    }


def tool_fields(given: list[Tool], choice: str | ToolChoice | None) -> dict[str, str]:
    """The fields of `Sampling` that say which tools there are, and which may be called."""
    tools: dict[str, dict[str, Any]] = {}
    for where, name, function in _functions(given):
        if name in tools:
            raise RequestError(f"{where}.name: another tool has this name", param=f"{where}.name")
        tools[name] = function
    mode = ""
    if isinstance(choice, ToolChoice):
        mode, tools = _chosen(choice, tools)
    elif choice is not None:
        if choice not in ("none", "auto", "required"):
            raise RequestError("tool_choice must be none, auto or required", param="tool_choice")
        mode = choice
    if mode not in ("", "auto", "none") and not tools:
        raise RequestError("tool_choice needs tools", param="tool_choice")
    if not tools:
        return {}
    functions = [{"type": "function", "function": function} for function in tools.values()]
    found = {"tools": encode(functions).decode()}
    if isinstance(choice, ToolChoice) and choice.type == "function":
        named = {"type": "function", "function": {"name": choice.name}}
        found["tool_choice"] = encode(named).decode()
    elif mode:
        found["tool_choice"] = encode(mode).decode()
    return found


def _functions(given: list[Tool]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(its place, its name in a chat, the function as chats have it) for each."""
    for i, tool in enumerate(given):
        where = f"tools[{i}]"
        if tool.type == "namespace" and tool.name:
            for k, inner in enumerate(tool.tools or ()):
                yield _function(inner, f"{where}.tools[{k}]", tool)
        else:
            yield _function(tool, where)


def _function(tool: Tool, where: str, group: Tool | None = None) -> tuple[str, str, dict[str, Any]]:
    if tool.type != "function":
        raise RequestError(
            f"{where}.type: only tools of type function are supported; what others send passes no "
            "guard",
            param=f"{where}.type", code="unsupported_tool",
        )  # fmt: skip
    if not tool.name:
        raise RequestError(f"{where}.name must be given, beside its type", param=f"{where}.name")
    if (raw := present(tool.parameters)) is not None:
        field_of(f"{where}.parameters", _object, raw)
    name = chat_name(group.name if group is not None else None, tool.name)
    texts = (group.description if group is not None else None, tool.description)
    fields = {
        "name": name,
        "description": "\n\n".join(filter(None, texts)) or None,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
    return where, name, {k: v for k, v in fields.items() if v is not None and v != NULL}


def _chosen(
    choice: ToolChoice, tools: dict[str, dict[str, Any]]
) -> tuple[str, dict[str, dict[str, Any]]]:
    """(whether a tool has to be called, the tools that may be)

    Chats know no list of allowed tools, so the others are left out.
    """
    if choice.type == "function":
        names, mode = [choice.name], "required"
    elif choice.type == "allowed_tools" and choice.mode in ("auto", "required"):
        names, mode = [each.name for each in choice.tools or ()], str(choice.mode)
    else:
        raise RequestError(
            "tool_choice must be none, auto, required, a function or allowed_tools",
            param="tool_choice.type", code="unsupported_parameter",
        )  # fmt: skip
    if not names or any(name not in tools for name in names):
        raise RequestError("tool_choice names a tool that tools has not", param="tool_choice")
    if choice.type == "function":
        return mode, tools
    return mode, {name: tool for name, tool in tools.items() if name in names}
