"""What a JSON schema says of one place: which types a value may have there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Any
"""Parsed JSON: a schema, or None where nothing is known."""

_NUMBERS = frozenset(("integer", "number"))
_BRANCHES = ("anyOf", "oneOf", "allOf")
_DEEPEST = 16


class Rooted(dict[str, Any]):
    """A schema that knows the document its references point into."""

    root: Mapping[str, Any]


def is_tool(tools: str, name: str) -> bool:
    """Whether one of a request's `tools` is called `name`."""
    return any(function.get("name") == name for function in _functions(tools))


def parameters_of(tools: str, name: str) -> Schema:
    """The schema of the arguments of the tool `name`, from a request's `tools`."""
    for function in _functions(tools):
        if function.get("name") == name:
            return rooted(function.get("parameters"))
    return None


def format_of(response_format: str) -> Schema:
    """The schema of the reply, from a request's `response_format`."""
    found = _parsed(response_format)
    inner = found.get("json_schema") if isinstance(found, dict) else None
    return rooted(inner.get("schema")) if isinstance(inner, dict) else None


def _functions(tools: str) -> Iterator[dict[str, Any]]:
    for tool in _parsed(tools) or ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict):
            yield function


def _parsed(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def rooted(schema: Any, root: Mapping[str, Any] | None = None) -> Schema:
    if not isinstance(schema, dict):
        return None
    made = Rooted(schema)
    made.root = schema if root is None else root
    return made


def child(schema: Schema, key: str | None) -> Schema:
    """The schema of what stands under `key` of an object, or (None) in an array."""
    for node in _nodes(schema):
        if key is None:
            found = node.get("items")
        else:
            properties = node.get("properties")
            found = properties.get(key) if isinstance(properties, dict) else None
            found = node.get("additionalProperties") if found is None else found
        if isinstance(found, dict):
            return rooted(found, schema.root)
    return None


def types(schema: Schema) -> frozenset[str]:
    """The types a value may have; empty where the schema does not say."""
    found: set[str] = set()
    for node in _nodes(schema):
        said = node.get("type")
        found.update([said] if isinstance(said, str) else said if isinstance(said, list) else ())
        if said is None:
            values = node.get("enum", [node["const"]] if "const" in node else [])
            for value in values if isinstance(values, list) else ():
                number = isinstance(value, int | float) and not isinstance(value, bool)
                found.add("string" if isinstance(value, str) else "number" if number else "other")
    return frozenset(t for t in found if isinstance(t, str))


def wants_number(schema: Schema) -> bool | None:
    """Whether a value must be a number; None where it may be, or the schema does not say."""
    found = types(schema)
    if not found or (found & _NUMBERS and "string" in found):
        return None
    return bool(found & _NUMBERS)


def _nodes(schema: Schema, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """`schema` with what it refers to and the branches it joins."""
    if not isinstance(schema, Rooted) or depth > _DEEPEST:
        return
    yield schema
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        node: Any = schema.root
        for step in reference[1:].split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            node = node.get(step) if isinstance(node, dict) else None
        yield from _nodes(rooted(node, schema.root), depth + 1)
    for name in _BRANCHES:
        branches = schema.get(name)
        for branch in branches if isinstance(branches, list) else ():
            yield from _nodes(rooted(branch, schema.root), depth + 1)
