"""Every class of messages: it survives its encoding, and declares what may stand in it."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta, inspect

from cosilo.boundary import messages, transports
from cosilo.boundary.messages import Message, Request
from cosilo.boundary.messages.base import classes
from cosilo.testing import MessageContract, unbounded
from cosilo.types import Claim, Count, LogProbability, Many
from mutated import SAMPLES


def ours() -> set[str]:
    for package in (messages, transports):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    return {name for name, kind in classes().items() if kind.__module__.startswith("cosilo.")}


class TestEachMessage(MessageContract):
    # Of a reply's call only what it is called with is text; "c1" and "look" are of use as they are.
    # Of a further field its name is no text, nor is a value that can only be a number. A thread's name
    # is a hash, and so is a vocabulary's.
    fixed = frozenset(
        {"reasoning", "c1", "look", "user", "min_p", "0.1", 22 * "A" + "==", "v", 32 * "a"}
    )

    @pytest.fixture(autouse=True, params=SAMPLES, ids=lambda m: type(m).__name__)
    def sample(self, request: pytest.FixtureRequest) -> None:
        self._sample = request.param

    def message(self) -> Message:
        return self._sample


class Inner(msgspec.Struct):
    fine: tuple[str, bytes, bool, None]
    number: int
    ratio: Annotated[float, Meta(ge=0)]


class Outer(msgspec.Struct):
    inner: Many[Inner]
    texts: tuple[str, ...]
    count: Count | None
    claim: Claim
    log: LogProbability
    table: dict[str, Count]
    whatever: object


def test_what_is_not_declared_is_found() -> None:
    assert unbounded(inspect.type_info(Outer)) == [
        ".inner[].number", ".inner[].ratio", ".texts", ".table", ".whatever",
    ]  # fmt: skip


def test_every_class_of_messages_has_a_sample() -> None:
    shown = {type(m).__name__ for m in SAMPLES}
    assert shown == ours(), "each needs a sample in benchmarks/mutated.py"
    replies = {type(m).reply for m in SAMPLES if isinstance(m, Request)}
    assert replies <= {type(m) for m in SAMPLES}
