from __future__ import annotations

from collections.abc import Iterator

import pytest

from cosilo.boundary.messages import Ask, Message, Request, base, decode, encode
from cosilo.errors import ConfigError, UnexpectedReplyError
from cosilo.types import Turn


@pytest.fixture(autouse=True)
def _only_here() -> Iterator[None]:
    """Classes that a test defines are known in it alone."""
    before = list(base._kinds)
    yield
    base._kinds[:] = before
    base._decoder = None


def test_a_class_is_read_from_the_moment_it_is_defined() -> None:
    ask = Ask(chat=(Turn("user", "x"),))
    assert decode(encode(ask)) == ask

    class Weighed(Message, frozen=True, kw_only=True):
        grams: int

    class Weigh(Request[Weighed], frozen=True, kw_only=True):
        reply = Weighed
        what: str

    assert decode(encode(Weigh(what="a stone"))) == Weigh(what="a stone")
    assert decode(encode(Weighed(grams=3))) == Weighed(grams=3)
    assert {"Weigh", "Weighed", "Ask"} <= set(base.classes())
    assert "Request" not in base.classes()


def test_a_module_loaded_again_replaces_its_classes() -> None:
    def define(default: int) -> type[Message]:
        class Weighed(Message, frozen=True, kw_only=True):
            grams: int = default

        return Weighed

    old, new = define(1), define(2)
    assert type(decode(encode(new()))) is new
    assert decode(encode(old())) == new()


def test_two_classes_of_one_name_are_refused() -> None:
    class Completion(Message, frozen=True, kw_only=True):
        text: str

    with pytest.raises(
        ConfigError, match=r"two classes of messages are called 'Completion'.*test_"
    ):
        decode(encode(Ask(chat=())))

    assert Completion(text="x").text == "x"


def test_a_class_that_is_not_known_is_refused() -> None:
    class Weighed(Message, frozen=True, kw_only=True):
        grams: int

    data = encode(Weighed(grams=3))
    base._kinds.remove(Weighed)
    base._decoder = None
    with pytest.raises(UnexpectedReplyError, match="not a known message"):
        decode(data)
