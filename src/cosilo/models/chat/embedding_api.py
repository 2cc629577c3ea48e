"""OpenAI's embeddings format, as our values. Specification:
https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from cosilo.models.base import Array, Vectors
from cosilo.models.chat.chat_api import MalformedReplyError, reported
from cosilo.models.chat.usage import count_of


class _Item(msgspec.Struct):
    embedding: list[float] | str
    index: int | None = None


class _Reply(msgspec.Struct):
    data: list[_Item] | None = None
    usage: object = None
    error: object = None


_decoder = msgspec.json.Decoder(_Reply)


def request(texts: Sequence[str], dimensions: int | None) -> dict[str, Any]:
    """The body that asks for vectors of `texts`, without `model`. They are wanted in base64, which is
    shorter; an endpoint that does not know it answers with numbers, or has the field in its `omit`.
    """
    body: dict[str, Any] = {"input": list(texts), "encoding_format": "base64"}
    if dimensions is not None:
        body["dimensions"] = dimensions
    return body


def vectors(data: bytes, count: int) -> Vectors:
    """The vectors of `count` texts in `data`.

    Raises:
        MalformedReplyError: they are not so many, not of one length, or hold what is no number.
        ReportedError: it is an error object.
    """
    try:
        reply = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedReplyError("it holds no vectors that can be read") from None
    if reply.error is not None:
        raise reported(data)
    found = reply.data or []
    places = [at if item.index is None else item.index for at, item in enumerate(found)]
    if sorted(places) != list(range(count)):
        raise MalformedReplyError(f"it does not hold a vector for each of {count} texts")
    rows = [_row(item.embedding) for item in found]
    if len({len(row) for row in rows}) != 1 or not len(rows[0]):
        raise MalformedReplyError("its vectors are not of one length")
    ordered = np.stack([rows[places.index(at)] for at in range(count)])
    if not np.isfinite(ordered).all():
        raise MalformedReplyError("a vector holds what is no number")
    return Vectors(ordered, prompt_tokens=_tokens(reply.usage))


def _row(embedding: list[float] | str) -> Array:
    if isinstance(embedding, str):
        try:
            return np.frombuffer(b64decode(embedding, validate=True), "<f4")
        except (binascii.Error, ValueError):
            raise MalformedReplyError("a vector is no base64 of numbers") from None
    with np.errstate(over="ignore"):
        return np.asarray(embedding, np.float32)


def _tokens(usage: object) -> int:
    """0 where it states none, below 0 where what it states is no number."""
    if not isinstance(usage, dict):
        return 0 if usage is None else -1
    return count_of(usage.get("prompt_tokens")) or count_of(usage.get("total_tokens"))
