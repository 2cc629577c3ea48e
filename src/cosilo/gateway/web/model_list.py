"""The points as models, in OpenAI's words and in Anthropic's."""

from __future__ import annotations

from collections.abc import Sequence

from cosilo.gateway.serving.points import ServedPoint


def model_fields(point: ServedPoint, *, anthropic: bool) -> dict[str, object]:
    """One point as a model. When it was made is not said, which both write as the year 1970."""
    if anthropic:
        return {
            "type": "model", "id": point.model, "display_name": point.model,
            "created_at": "1970-01-01T00:00:00Z", "lifecycle": "active",
        }  # fmt: skip
    return {"id": point.model, "object": "model", "created": 0, "owned_by": "cosilo"}


def model_list(points: Sequence[ServedPoint], *, anthropic: bool) -> dict[str, object]:
    """All of them, on one page."""
    shown = [model_fields(point, anthropic=anthropic) for point in points]
    if not anthropic:
        return {"object": "list", "data": shown}
    ids = [point.model for point in points]
    return {
        "data": shown, "has_more": False,
        "first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None,
    }  # fmt: skip
