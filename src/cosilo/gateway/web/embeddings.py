"""`/v1/embeddings`: what is asked, and the answer."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from cosilo.gateway.refusals import RequestError
from cosilo.gateway.serving.fields import sort
from cosilo.gateway.web.dialects.fields import Name, decoded


@dataclass(frozen=True, kw_only=True)
class EmbeddingRequest:
    model: str
    texts: tuple[str, ...]
    base64: bool = False


class _EmbeddingBody(msgspec.Struct, kw_only=True):
    model: Name
    input: str | Annotated[list[str], msgspec.Meta(min_length=1, max_length=2048)]
    encoding_format: str | None = None


_embedding = msgspec.json.Decoder(_EmbeddingBody)


def read_embedding(body: bytes) -> EmbeddingRequest:
    """The request in the body of `/v1/embeddings`.

    Raises:
        RequestError: it is not JSON, or a field is missing, unknown, of the wrong type or refused.
    """
    found, others = decoded(body, _embedding, _EmbeddingBody)
    sort(others, {}, lambda _: False)
    if found.encoding_format not in (None, "float", "base64"):
        raise RequestError("encoding_format must be float or base64", param="encoding_format")
    texts = (found.input,) if isinstance(found.input, str) else tuple(found.input)
    if not all(texts):
        raise RequestError("a text to embed is empty", param="input")
    return EmbeddingRequest(
        model=found.model, texts=texts, base64=found.encoding_format == "base64"
    )


def embedding_answer(
    model: str, rows: Sequence[Sequence[float]], *, base64_wanted: bool
) -> dict[str, object]:
    """The body with one vector per text; local vectors cost no tokens, so usage is zero."""
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": _packed(row) if base64_wanted else list(row),
        }
        for i, row in enumerate(rows)
    ]
    spent = {"prompt_tokens": 0, "total_tokens": 0}
    return {"object": "list", "data": data, "model": model, "usage": spent}


def _packed(row: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
