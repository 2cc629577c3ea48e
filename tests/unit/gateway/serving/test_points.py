"""What a point holds ends with it."""

from __future__ import annotations

from typing import Any

import pytest

from cosilo.boundary.messages import Ask
from cosilo.errors import ConfigError
from cosilo.gateway.serving.points import Serving
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.strategies.base import Session
from cosilo.strategies.inference.ends import Large
from cosilo.types import user
from house import house


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that came back of what is sent when a strategy is closed."""
    said: list[str] = []

    async def close(self: Large, session: Session) -> None:
        for channel in session.peers.values():
            reply = await channel.send(Ask(chat=user("goodbye")))
            said.append(reply.generation.text)

    monkeypatch.setattr(Large, "close", close, raising=False)
    return said


async def test_a_strategy_parts_on_record_before_the_models_are_closed(said: list[str]) -> None:
    class Closing(ScriptedModel):
        async def close(self) -> None:
            said.append("closed")

    other = ScriptedModel({"goodbye": "Later."}, name="b")
    h = await house(large=[Closing({"goodbye": "Bye."}, name="a"), other])
    await h.gateway.close()
    assert said[:3] == ["Bye.", "Later.", "closed"], "of each upstream"
    entries = [e for e in h.books.ledgers["x"].entries() if e.direction == "up"]
    assert [(e.request, e.kind) for e in entries] == [("close/x", "Ask")] * 2


async def test_a_point_that_cannot_be_served_leaves_nothing_open(said: list[str]) -> None:
    model: Any = ScriptedModel({"goodbye": "Bye."})
    with pytest.raises(ConfigError, match="local_only needs small"):
        await house(large=[model], serving=Serving(local_only=True))
    assert said == ["Bye."]
