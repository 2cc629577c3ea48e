"""Fields of the bodies that clients send: what several shapes read in the same way.

A body is parsed once; nothing past a dialect sees JSON, but for further fields, of which the point says
what becomes (`serving.fields`). Error texts name the field, never what stood in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
import msgspec.inspect

from cosilo.gateway.refusals import RequestError

MOST_CHOICES = 16

Raw = msgspec.Raw
NULL = Raw(b"null")


# What a body may hold. None stands for "not given": clients send null for what they leave out.


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


Positive = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Name = Annotated[str, msgspec.Meta(max_length=200)]


class Common(msgspec.Struct, kw_only=True):
    """What OpenAI's two older shapes have in common."""

    model: Name
    max_tokens: Positive | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MOST_CHOICES)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=16)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Raw = NULL
    safety_identifier: Raw = NULL


_keys = msgspec.json.Decoder(dict[str, Raw])


_WHO = ("user", "safety_identifier")
"""Read here, as placeholders belong to whoever asks, and further fields all the same."""

_OURS = "cosilo_"
"""What our own fields begin with: they say what may become of a request."""


Known = Mapping[str, "Known"]
"""The fields of an object that are read, each with those of the objects in it."""


def known_of(cls: type[msgspec.Struct]) -> Known:
    """The fields that a `cls` reads."""
    return _known(msgspec.inspect.type_info(cls), {})


def _known(kind: msgspec.inspect.Type, seen: dict[type, dict[str, Known]]) -> Known:
    if isinstance(kind, msgspec.inspect.StructType):
        if kind.cls not in seen:
            fields = seen[kind.cls] = {}
            fields.update((f.encode_name, _known(f.type, seen)) for f in kind.fields)
        return seen[kind.cls]
    if isinstance(kind, msgspec.inspect.UnionType):
        return next(filter(None, (_known(each, seen) for each in kind.types)), {})
    return _known(kind.item_type, seen) if isinstance(kind, msgspec.inspect.ListType) else {}


_objects = msgspec.json.Decoder(dict[str, Raw] | list[Raw])
_EMPTY = (b"null", b"[]", b"{}", b'""', b"false")
# What numbers and names things in a reply that is sent back, and how a server is to keep a prompt.
_TELLS_NOTHING = frozenset(("cache_control", "id", "index", "object", "status", "type"))


def _further_in(raw: bytes, known: Known, where: str, found: dict[str, bytes]) -> None:
    """Add to `found` the fields of the objects in `raw` that nobody reads, by where they stand."""
    inside = _objects.decode(raw)
    if isinstance(inside, list):
        for each in inside:
            if (item := bytes(each))[:1] == b"{":
                _further_in(item, known, where, found)
        return
    for name, value in inside.items():
        below = known.get(name)
        if below is None:
            if name not in _TELLS_NOTHING and bytes(value) not in _EMPTY:
                told = _PLAIN.fullmatch(name) and len(found) < _MOST_TOLD
                found.setdefault(f"{where}.{name if told else 'other'}", b"true")
        elif below and bytes(value)[:1] in (b"{", b"["):
            at = where if where.endswith(f".{name}") else f"{where}.{name}"
            _further_in(bytes(value), below, at, found)


_MOST_TOLD = 50
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,40}")


def decoded(
    body: bytes,
    decoder: msgspec.json.Decoder[Any],
    cls: type[Any],
    inside: Known = MappingProxyType({}),
) -> tuple[Any, dict[str, bytes]]:
    """`body` as a `cls`, by its decoder, and the further fields in it, JSON by their names: what
    becomes of them is the point's to say (`serving.fields`).

    Args:
        inside: fields of which the objects in them are looked through for further fields as well; the
            name of one of those is where it stands (`messages.content.colour`), its value left out.

    Raises:
        RequestError: it is not JSON, a field is missing or of the wrong type, or one of ours stands
            there twice.
    """
    try:
        body.decode()  # parts that are passed on as they came are not looked into below
        every, named = _keys.decode(body), _named(cls.__struct_fields__)
        others = {}
        if not every.keys() <= named:
            others = {
                name: bytes(value)
                for name, value in every.items()
                if name not in named and bytes(value) != b"null"
            }
        for name, fields in inside.items():
            if bytes(every.get(name, NULL))[:1] in (b"{", b"["):
                _further_in(bytes(every[name]), fields, name, others)
        if any(name.startswith(_OURS) for name in every):
            _once(body)
        return decoder.decode(body), others
    except msgspec.ValidationError as error:
        raise invalid(error, "") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RequestError("the body is not JSON in UTF-8", code="invalid_json") from None
    except RecursionError:
        raise RequestError("the body is nested too deeply", code="invalid_json") from None


@cache
def _named(fields: tuple[str, ...]) -> frozenset[str]:
    """Those of the fields of a body's class that are no further ones."""
    return frozenset(fields).difference(_WHO)


def _once(body: bytes) -> None:
    """Refuse a body that says one of our own fields twice: which one is meant, nobody could tell.

    Raises:
        RequestError: it does.
    """
    said: set[str] = set()
    pairs: Iterable[tuple[str, Any]] = json.loads(body, object_pairs_hook=list)
    for name, _ in pairs:
        if name.startswith(_OURS) and name in said:
            raise RequestError(
                f"{name[:64]} is given twice", param=name[:64], code="duplicate_field"
            )
        said.add(name)


def sampling_of(body: Common) -> dict[str, Any]:
    """The fields of `Sampling` that `body` sets."""
    given: dict[str, Any] = {}
    if body.max_tokens is not None:
        given["max_tokens"] = body.max_tokens
    if body.temperature is not None:
        given["temperature"] = body.temperature
    if body.top_p is not None:
        given["top_p"] = body.top_p
    if body.seed is not None:
        given["seed"] = body.seed
    if body.stop is not None:
        stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
        if not all(stops):
            raise RequestError("stop: a stop sequence is empty", param="stop")
        given["stop"] = stops
    return given


def user_of(body: Common) -> bytes:
    """Who the client says is asking, as the JSON it sent."""
    return present(body.user) or present(body.safety_identifier) or b""


def include_usage(body: Common) -> bool:
    if body.stream_options is not None and not body.stream:
        raise RequestError("stream_options needs stream: true", param="stream_options")
    return bool(body.stream_options and body.stream_options.include_usage)


def present(raw: Raw) -> bytes | None:
    """A field that may hold anything, as it was sent; None where it was not, or null."""
    if raw is NULL:  # as where a field is not there
        return None
    value = bytes(raw)
    return None if value == b"null" else value


def field_of(name: str, decoder: msgspec.json.Decoder[Any], raw: bytes) -> Any:
    """The field `name`, which was sent as `raw`.

    Raises:
        RequestError: it is not what `decoder` reads.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise invalid(error, name) from None


def invalid(error: msgspec.ValidationError, name: str) -> RequestError:
    """What is wrong and where; msgspec's texts name types and places, never values."""
    what, _, where = str(error).partition(" - at `$")
    param = (name + where.rstrip("`")).lstrip(".")
    if missing := re.search(r"missing required field `(\w+)`", what):
        param = f"{param}.{missing[1]}".lstrip(".")
    return RequestError(f"{param or 'the body'}: {what}", param=param or None)


def json_text(raw: Raw) -> str:
    return (present(raw) or b"").decode()
