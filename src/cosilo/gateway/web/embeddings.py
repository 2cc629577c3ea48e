"""`/v1/embeddings`: what is asked, and the answer.

Reference: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Annotated

import msgspec

from cosilo.boundary.messages import Embed
from cosilo.boundary.messages.embed import MOST, WIDEST
from cosilo.gateway.refusals import RequestError
from cosilo.gateway.serving.fields import sort
from cosilo.gateway.web.dialects.fields import NULL, Name, decoded, present
from cosilo.gateway.web.local_only import said_in_body
from cosilo.models.base import Array, Vectors


@dataclass(frozen=True, kw_only=True)
class EmbeddingRequest:
    """A request for vectors.

    Attributes:
        user: who the client says is asking, as the JSON it sent.
        dropped: fields that say nothing about vectors.
    """

    model: str
    message: Embed
    base64: bool = False
    user: bytes = b""
    local_only: bool = False
    dropped: tuple[str, ...] = ()


class _EmbeddingBody(msgspec.Struct, kw_only=True):
    model: Name
    input: msgspec.Raw
    encoding_format: str | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=WIDEST)] | None = None
    user: msgspec.Raw = NULL


_embedding = msgspec.json.Decoder(_EmbeddingBody)


def read_embedding(body: bytes) -> EmbeddingRequest:
    """The request in the body of `/v1/embeddings`.

    Raises:
        RequestError: it is not JSON, or a field is missing, unknown, of the wrong type or refused.
    """
    found, others = decoded(body, _embedding, _EmbeddingBody)
    local_only, further = said_in_body(others)
    dropped = sort(further, {}, lambda _: False).dropped
    if found.encoding_format not in (None, "float", "base64"):
        raise RequestError("encoding_format must be float or base64", param="encoding_format")
    return EmbeddingRequest(
        model=found.model,
        message=Embed(texts=_texts(bytes(found.input)), dimensions=found.dimensions),
        base64=found.encoding_format == "base64",
        user=present(found.user) or b"",
        local_only=local_only,
        dropped=dropped,
    )


def _texts(data: bytes) -> tuple[str, ...]:
    try:
        given = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        raise RequestError("the body is not JSON in UTF-8", code="invalid_json") from None
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise RequestError("input must be a text, or some texts", param="input")
    if len(texts) > MOST:
        raise RequestError(f"input has {len(texts)} texts; {MOST} are the most", param="input")
    if not all(isinstance(text, str) for text in texts):
        raise RequestError(
            "input must be texts: what stands in arrays of tokens cannot be read, so it could not be "
            "kept private",
            param="input", code="unsupported_content",
        )  # fmt: skip
    if not all(texts):
        raise RequestError("a text to embed is empty", param="input")
    return tuple(texts)


def embedding_answer(model: str, found: Vectors, *, base64_wanted: bool) -> dict[str, object]:
    """The body with one vector per text; those that are made at home cost no tokens."""
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": _packed(row) if base64_wanted else row.tolist(),
        }
        for i, row in enumerate(found.rows)
    ]
    tokens = max(0, found.prompt_tokens)
    spent = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": spent}


def _packed(row: Array) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()
