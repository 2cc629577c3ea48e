"""Fields of the bodies that clients send: what several shapes read in the same way.

A body is parsed once; nothing past a dialect sees JSON. A field that is not known is refused, because
it may change what is meant; of the known ones that the models cannot honour, a neutral value is
accepted and any other refused. Error texts name the field, never what stood in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any

import msgspec

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


# Fields that say nothing about the answer.
IGNORED = frozenset({
    "metadata", "store", "service_tier", "prompt_cache_key",
    "prompt_cache_retention",
})  # fmt: skip

# Fields that would change the answer, with the values that leave it as it is.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "parallel_tool_calls": (True,),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("none",),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": ("medium",),
    "web_search_options": (),
    "top_k": (0, -1),
    "min_p": (0,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "dimensions": (),
}

_keys = msgspec.json.Decoder(dict[str, Raw])


def decode(body: bytes, decoder: msgspec.json.Decoder[Any], cls: type[Any]) -> Any:
    """`body` as a `cls`, by its decoder.

    Raises:
        RequestError: it is not JSON, or a field is missing, unknown, of the wrong type or refused.
    """
    try:
        body.decode()  # parts that are passed on as they came are not looked into below
        known = cls.__struct_fields__
        for name, value in _keys.decode(body).items():
            if name not in known:
                _unknown(name, bytes(value), known)
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(error, "") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RequestError("the body is not JSON in UTF-8", code="invalid_json") from None
    except RecursionError:
        raise RequestError("the body is nested too deeply", code="invalid_json") from None


def _unknown(name: str, value: bytes, known: Sequence[str]) -> None:
    """Refuse the field `name` unless it, or its value, changes nothing."""
    if name in IGNORED or value == b"null":
        return
    if name in NEUTRAL:
        if msgspec.json.decode(value) in NEUTRAL[name]:
            return
        raise RequestError(
            f"{name}: not supported with this value, and ignoring it would change the answer",
            param=name, code="unsupported_parameter",
        )  # fmt: skip
    near = get_close_matches(name[:64], known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise RequestError(
        f"{name[:64]!r} is not a field of this request{hint}",
        param=name[:64], code="unknown_parameter",
    )  # fmt: skip


def sampling_of(body: Common) -> dict[str, Any]:
    """The fields of `Sampling` that `body` sets."""
    given: dict[str, Any] = {
        name: value
        for name in ("max_tokens", "temperature", "top_p", "seed")
        if (value := getattr(body, name)) is not None
    }
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
