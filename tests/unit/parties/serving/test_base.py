from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from cosilo.boundary.messages import Ask, Message, Read, Request, base
from cosilo.errors import CapabilityError, ConfigError
from cosilo.models.base import EVERYTHING
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.serving import Owner, pieces, serves, serves_stream
from cosilo.parties.serving import base as serving


@pytest.fixture(autouse=True)
def _only_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test defines is known in it alone."""
    monkeypatch.setattr(serving, "_handlers", dict(serving._handlers))
    monkeypatch.setattr(base, "_kinds", list(base._kinds))
    monkeypatch.setattr(base, "_decoder", None)
    yield
    base._decoder = None


def test_a_class_that_is_served_twice_is_refused_by_the_names_of_both() -> None:
    async def another(owner: Owner, message: Ask) -> Message:
        return message

    with pytest.raises(
        ConfigError, match=r"Ask is served twice, by .*serving\.ask\.ask and .*another"
    ):
        serves(Ask)(another)
    with pytest.raises(ConfigError, match=r"Ask is served twice, by .*ask_in_pieces and .*another"):
        serves_stream(Ask)(another)


def test_a_module_that_is_loaded_again_replaces_its_handler() -> None:
    async def again(owner: Owner, message: Ask) -> Message:
        return message

    again.__module__, again.__qualname__ = "cosilo.parties.serving.ask", "ask"
    assert serves(Ask)(again) is again


def test_only_requests_are_served() -> None:
    class Reply(Message, frozen=True, kw_only=True, tag="ReplyForTest"): ...

    class Unknown(Request[Reply], frozen=True, kw_only=True, tag="UnknownForTest"):
        reply: ClassVar[type[Message]] = Reply

    base._kinds.remove(Unknown)

    async def handler(owner: Owner, message: Message) -> Message:
        return message

    for kind in (Reply, Unknown, Request):
        with pytest.raises(
            ConfigError, match=f"handler cannot serve {kind.__name__}: it is no class"
        ):
            serves(kind)(handler)


async def test_what_nothing_serves_is_refused_by_name() -> None:
    owner = LMOwner(ScriptedModel())
    with pytest.raises(CapabilityError, match="lm-owner does not serve Read in pieces"):
        pieces(owner, Read(texts=("a",)))

    class Odd(Request[Message], frozen=True, kw_only=True, tag="OddForTest"):
        reply: ClassVar[type[Message]] = Message

    with pytest.raises(CapabilityError, match="exposes text and does not serve Odd"):
        await owner.handle(Odd())  # it states nothing, so it may show anything
    with pytest.raises(CapabilityError, match="lm-owner does not serve Odd"):
        await LMOwner(ScriptedModel(), exposes=EVERYTHING).handle(Odd())
