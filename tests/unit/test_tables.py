"""Tables become typed values, and what is wrong with one is said in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from cosilo.errors import ConfigError
from cosilo.models.base import Access
from cosilo.tables import check, options_of, read


@dataclass(frozen=True)
class Inner:
    rtt_ms: float = 40.0


@dataclass(frozen=True)
class Outer:
    name: str
    share: float = 0.5
    count: int | None = None
    files: tuple[str, ...] = ()
    shows: Access = Access.TEXT
    kind: Literal["a", "b"] = "a"
    path: Path = Path(".")
    on: bool = False
    inner: Inner = field(default_factory=Inner)
    more: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ValueError(f"share = {self.share!r} is above 1")


def test_every_kind_of_value_is_converted() -> None:
    table = {
        "name": "x", "share": 1, "count": 3, "files": ["a", "b"], "shows": "logprobs", "kind": "b",
        "path": "d/f", "on": True, "inner": {"rtt_ms": 5}, "more": {"k": 1},
    }  # fmt: skip
    assert read(Outer, table, where="plan") == Outer(
        "x", 1.0, 3, ("a", "b"), Access.LOGPROBS, "b", Path("d/f"), True, Inner(5.0), {"k": 1}
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"nam": "x"}, "plan: no key named 'nam'; did you mean 'name'?"),
        ({}, "plan: 'name' must be given"),
        ({"name": 3}, "plan: name must be text, not 3"),
        ({"name": "x", "share": "half"}, "plan: share must be a number, not 'half'"),
        ({"name": "x", "share": True}, "plan: share must be a number, not true"),
        ({"name": "x", "share": 2.0}, "plan: share = 2.0 is above 1"),
        ({"name": "x", "count": 1.5}, "plan: count must be a whole number, not 1.5"),
        ({"name": "x", "files": "a"}, "plan: files must be a list (each text), not 'a'"),
        ({"name": "x", "files": ["a", 1]}, "plan: files[1] must be text, not 1"),
        ({"name": "x", "shows": "logprob"}, "plan: shows: no value named 'logprob'; did you mean"),
        ({"name": "x", "kind": "c"}, "plan: kind: no value named 'c'"),
        ({"name": "x", "on": 1}, "plan: on must be true or false, not 1"),
        ({"name": "x", "inner": 1}, "plan: inner must be a table, not 1"),
        ({"name": "x", "inner": {"rtt": 1}}, "plan: inner: no key named 'rtt'; did you mean 'rtt_"),
        ({"name": "x", "more": {"k": "v"}}, "plan: more.k must be a whole number, not 'v'"),
    ],
)
def test_what_is_wrong_is_said_with_the_key_and_what_would_do(
    table: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        read(Outer, table, where="plan")
    assert str(error.value).startswith(message)


class Plain:
    def __init__(self, url: str, *, tries: int = 3) -> None:
        self.url, self.tries = url, tries


def make(url: str, tries: int = 3) -> Plain:
    return Plain(url, tries=tries)


def test_functions_and_plain_classes_are_read_by_their_signature() -> None:
    for factory in (Plain, make):
        assert [(k, o.required) for k, o in options_of(factory).items()] == [
            ("url", True),
            ("tries", False),
        ]
        assert check(factory, {"url": "u", "tries": 4}, where="x") == {"url": "u", "tries": 4}
        with pytest.raises(ConfigError, match="x: tries must be a whole number"):
            check(factory, {"url": "u", "tries": "4"}, where="x")
