"""What would not be answered in time is refused before anything is spent on it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cosilo.errors import ConfigError
from cosilo.gateway.process.config import parse_gateway
from cosilo.gateway.serving.points import Serving
from cosilo.session import DefenceConfig
from house import House, house


def hide(folder: Path, *detectors: str, **options: Any) -> tuple[DefenceConfig, ...]:
    given = {"detectors": detectors or ("patterns",), "key_file": str(folder / "key"), **options}
    return (DefenceConfig("hide", "pseudonym", given),)


def point(h: House) -> Any:
    return h.gateway.setup.points["cosilo/x"]


def body(size: int, **fields: Any) -> dict[str, Any]:
    chat = [{"role": "user", "content": "x" * size}]
    return {"model": "cosilo/x", "messages": chat, **fields}


@pytest.mark.parametrize(
    ("size", "fields", "status"),
    [
        (500, {}, 200),
        (5_000, {}, 413),
        (500, {"n": 2}, 413),
        (500, {"n": 2, "stream": True}, 413),
        (100, {"n": 4}, 200),
    ],
)
async def test_a_request_and_its_answers_have_a_size(
    size: int, fields: dict[str, Any], status: int, tmp_path: Path
) -> None:
    h = await house(around=hide(tmp_path), serving=Serving(most_kb=1.1))
    told = await h.send("/v1/chat/completions", body(size, **fields))
    assert told.status == status
    if status == 413:
        assert told.error["code"] == "request_too_large"
        assert "at most 1 kB" in told.error["message"]
        assert not h.books.settled
        assert not h.books.open


async def test_counted_is_text_however_it_is_escaped(tmp_path: Path) -> None:
    h = await house(around=hide(tmp_path), serving=Serving(most_kb=2.5))
    smiles = json.dumps(body(0) | {"messages": [{"role": "user", "content": "😀" * 500}]}).encode()
    assert len(smiles) > 6_000
    assert (await h.send("/v1/chat/completions", smiles)).status == 200


async def test_so_has_an_old_completion(tmp_path: Path) -> None:
    h = await house(around=hide(tmp_path), serving=Serving(most_kb=1))
    for prompt, status in (("x", 200), (["x" * 600] * 2, 413)):
        told = await h.send("/v1/completions", {"model": "cosilo/x", "prompt": prompt})
        assert told.status == status


async def test_the_limit_is_what_is_looked_through_in_half_of_the_time(tmp_path: Path) -> None:
    quick = await house(around=hide(tmp_path), serving=Serving(timeout_seconds=10))
    slow = await house(around=hide(tmp_path), serving=Serving(timeout_seconds=1_000))
    hasty = await house(around=hide(tmp_path, seconds=1.0))
    both = await house(around=hide(tmp_path, "patterns", "literals"))
    assert point(quick).most_bytes == pytest.approx(5 / 0.06 * 1000)
    assert point(slow).most_bytes == pytest.approx(60 / 0.06 * 1000)
    assert point(hasty).most_bytes == pytest.approx(1 / 0.06 * 1000)
    assert point(both).most_bytes == pytest.approx(60 / 0.08 * 1000)
    stated = await house(around=hide(tmp_path), serving=Serving(most_kb=5_000))
    assert point(stated).most_bytes == 5_000_000


async def test_without_a_defence_there_is_none() -> None:
    h = await house()
    assert point(h).most_bytes == math.inf
    assert (await h.send("/v1/chat/completions", body(9_000))).status == 200


def test_the_file_says_it_for_each_point(tmp_path: Path) -> None:
    text = """
[models.lm]
kind = "openai"
base_url = "http://localhost:1/v1"
model = "m"
[[points]]
name = "x"
strategy = "large"
large = "lm"
most_kb = {}
"""
    parts = parse_gateway(text.format(12.5), tmp_path / "g.toml").load()
    assert parts.recipes[0].serving.most_kb == 12.5
    for wrong in ("0", "-1", "inf", "nan"):
        with pytest.raises(ConfigError, match="most_kb"):
            parse_gateway(text.format(wrong), tmp_path / "g.toml")
