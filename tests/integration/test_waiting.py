"""No request of one client holds the event loop, on which everybody else's are answered, for long.

Measured is the CPU time of each callback of the loop, so that a busy machine changes nothing.
"""

from __future__ import annotations

import json
import random
import time
from asyncio.events import Handle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cosilo.gateway.serving.points import Serving
from cosilo.gateway.web.http import Bodies
from cosilo.session import DefenceConfig
from house import house
from wire import Wire, http, model

LONGEST = 0.05  # seconds


def guests(size: int) -> str:
    draw = random.Random(1)
    names = (f"Mr. {draw.randbytes(3).hex().title()} Moser" for _ in range(size // 18))
    return ", ".join(names)


def addresses(size: int) -> str:
    return " ".join(f"a{i:07}@lovelace.example" for i in range(size // 25))


def calls(size: int) -> list[dict[str, Any]]:
    given = json.dumps({f"key{i}": f"Anna Moser {i}" for i in range(size // 40)})
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": given}}
    return [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
    ]


def one(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


PRIVATE: dict[str, Callable[[int], list[dict[str, Any]]]] = {
    "a guest list": lambda size: one(guests(size)),
    "different addresses": lambda size: one(addresses(size)),
    "turns": lambda size: [
        {"role": ("user", "assistant")[i % 2], "content": f"{i} {guests(1_000)}"}
        for i in range(size // 1_000)
    ],
    "arguments of a tool": calls,
    "emoji": lambda size: one("😀" * (size // 4)),
    "no spaces": lambda size: one("x" * size),
    "digits": lambda size: one("1 " * (size // 2)),
}


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The CPU seconds of each callback."""
    found: list[float] = []
    run = Handle._run

    def timed(handle: Handle) -> None:
        began = time.thread_time()
        run(handle)
        found.append(time.thread_time() - began)

    monkeypatch.setattr(Handle, "_run", timed)
    return found


async def ask(messages: list[dict[str, Any]], around: tuple[DefenceConfig, ...] = ()) -> None:
    """Has `messages` answered by a gateway before an endpoint that says ok."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "ok"},
        "finish_reason": "stop",
    }
    async with Wire([http(json.dumps({"choices": [choice]}).encode())]).serve() as url:
        h = await house(
            large=[model(url, retries=0)], around=around, serving=Serving(most_kb=9_000)
        )
        try:
            h.gateway.bodies = Bodies(9_000_000, 20_000_000, 5)
            body = {"model": "cosilo/x", "messages": messages}
            told = await h.send(
                "/v1/chat/completions", json.dumps(body, ensure_ascii=False).encode()
            )
        finally:
            await h.gateway.close()
    assert told.status == 200


@pytest.mark.parametrize("kind", PRIVATE)
async def test_a_private_request(kind: str, slices: list[float], tmp_path: Path) -> None:
    options = {
        "detectors": ["patterns"],
        "conversation": "first-turn",
        "apart": True,
        "key_file": str(tmp_path / "key"),
    }
    await ask(PRIVATE[kind](100_000), (DefenceConfig("hide", "pseudonym", options),))
    assert max(slices) < LONGEST


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_a_plain_request_as_large_as_they_may_be(slices: list[float]) -> None:
    await ask(one("The report of the ward was late again. " * 200_000))
    assert max(slices) < 2 * LONGEST
    assert sorted(slices)[-3] < LONGEST
