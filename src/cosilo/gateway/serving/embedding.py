"""Vectors of a client's texts: from the owner's own model, or over the boundary from another's."""

from __future__ import annotations

import asyncio

from cosilo.boundary.messages import Embed, encode
from cosilo.errors import LocalOnlyError
from cosilo.gateway.accounts.accounts import Spend
from cosilo.gateway.refusals import RequestError
from cosilo.gateway.serving.answering import Served, late
from cosilo.gateway.serving.points import ServedPoint
from cosilo.gateway.serving.tabs import Tab
from cosilo.gateway.serving.upstreams import DEADLINE
from cosilo.models.base import Vectors


def most(point: ServedPoint, wanted: Embed, *, local_only: bool) -> Spend:
    """The most that vectors for `wanted` can cost.

    Raises:
        RequestError: the point gives none, not so long ones, or not for so much text.
        LocalOnlyError: they would be made elsewhere, and the request may not leave.
    """
    remote = point.remote_embedder
    if remote is None:
        if point.embedder is None:
            raise RequestError(
                f"{point.model!r} has no embedder", param="model", code="not_supported_by_point"
            )
        if wanted.dimensions is not None:
            raise RequestError(
                f"the vectors of {point.model!r} have the length that its model gives them",
                param="dimensions", code="not_supported_by_point",
            )  # fmt: skip
        return Spend(requests=1)
    if local_only:
        raise LocalOnlyError(
            f"this request may not leave, and the embedder of {point.model!r} is elsewhere; nothing "
            "was sent"
        )
    size = len(encode(wanted))
    if size > point.most_bytes:
        raise RequestError(
            f"{point.model!r} takes at most {point.most_bytes / 1000:.0f} kB of text; this request has "
            f"{size / 1000:.0f} kB",
            status=413, code="request_too_large",
        )  # fmt: skip
    tokens_in, tokens_out, usd = remote.upstream.price.bound(wanted)
    return Spend(requests=1, usd=usd, tokens_in=tokens_in, tokens_out=tokens_out)


async def embed(point: ServedPoint, wanted: Embed, tab: Tab, served: Served) -> Vectors:
    """A vector for each text.

    Raises:
        ModelError: the model gave none.
        BoundaryError: a guard, a budget or the store stopped it.
    """
    remote = point.remote_embedder
    if remote is None:
        assert point.embedder is not None
        rows = await asyncio.to_thread(point.embedder.embed, wanted.texts)
        served.by = "small"
        return Vectors(rows)
    channel = remote.channel.bind(tab.request, budget=point.budget)
    tab.channels.append(channel)
    served.route = remote.upstream.name
    try:
        async with asyncio.timeout(point.serving.timeout_seconds) as limit:
            DEADLINE.set(limit)
            reply = await channel.send(wanted)
    except TimeoutError:
        raise late(point) from None
    finally:
        DEADLINE.set(None)
    served.by = "large"
    return Vectors(reply.rows(len(wanted.texts)), reply.prompt_tokens, reply.attempts)
