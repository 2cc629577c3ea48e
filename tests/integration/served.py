"""A point that was taken out of a run, served by the real command to the real client of OpenAI's."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
from openai.types.chat import ChatCompletion
from tests.integration.gateway import MAIN, Process, make_key

from cosilo.cli import main


@contextmanager
def served(bundle: Path) -> Iterator[openai.OpenAI]:
    """A client of a gateway that serves `bundle`, with its store and configuration beside that."""
    folder = bundle.parent
    (folder / "cosilo.toml").write_text("[store]\nurl = 'store'\n")
    key = make_key(folder, "me")
    command = [sys.executable, "-c", MAIN, "serve", bundle.name]
    process = Process([*command, "--config", "cosilo.toml", "--port", "0"], cwd=folder)
    try:
        port = process.wait_for(r"at http://[^:]+:(\d+)/v1", seconds=120)[1]
        url = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
            yield client
    finally:
        assert process.stop() == 0


@contextmanager
def served_point(run: Path, point: str, folder: Path) -> Iterator[openai.OpenAI]:
    """The same for a point of `run`, bundled into `folder`."""
    assert main(["bundle", str(run), "--point", point, str(folder / "point")]) == 0
    with served(folder / "point") as client:
        yield client


def whole_and_pieces(
    client: openai.OpenAI, asked: str | Sequence[Any]
) -> tuple[ChatCompletion, list[str]]:
    """What the only point answers, at once and in pieces; `asked` are messages, or a user's one."""
    (model,) = [m.id for m in client.models.list() if m.id.startswith("cosilo/")]
    messages: Any = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    whole = client.chat.completions.create(model=model, messages=messages)
    stream = client.chat.completions.create(model=model, messages=messages, stream=True)
    return whole, [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
