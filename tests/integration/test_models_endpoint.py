"""A real model behind llama.cpp's own server, in a second process that is killed and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cosilo.boundary.messages import Ask
from cosilo.models import catalog
from cosilo.models.base import Access, models
from cosilo.models.kept.replay import ReplayStore
from cosilo.models.remote.openai_compatible import OpenAIModel
from cosilo.parties.around.recorded import Recorded
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import Sampling, assemble, user

pytestmark = pytest.mark.models
SHORT = Sampling(max_tokens=6)


class Server:
    """The second process."""

    def __init__(self, port: int = 0) -> None:
        path = catalog.path("smollm2-135m-instruct")
        script = Path(__file__).with_name("llama_server.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(path), str(port)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip() + "/v1"
        self.port = int(self.url.split(":")[2].split("/")[0])

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


async def test_it_answers_streams_and_shows_logprobs() -> None:
    server = await asyncio.to_thread(Server)
    try:
        model = models.create("openai", base_url=server.url, model="smol", logprobs=True)
        whole = await model.generate(user("Say hello."), Sampling(max_tokens=6, top_logprobs=2))
        assert "".join(t.token for t in whole.tokens) == whole.text
        assert all(len(t.top) == 2 for t in whole.tokens)
        assert whole.completion_tokens == 6
        assert isinstance(model, OpenAIModel)
        pieces = [p async for p in model.stream(user("Say hello."), SHORT)]
        said = assemble(pieces)
        assert said.text == whole.text
        assert (said.prompt_tokens, said.completion_tokens) == (whole.prompt_tokens, 6)
        assert said.finish_reason == "length"
        assert len(pieces) > 3
        await model.close()
    finally:
        await asyncio.to_thread(server.kill)


async def test_killed_in_the_middle_and_restarted_nothing_is_lost_or_paid_twice(
    tmp_path: Path,
) -> None:
    server = await asyncio.to_thread(Server)
    inner = OpenAIModel(server.url, "smol", retries=200, backoff_s=0.05, concurrency=2)
    store = ReplayStore(tmp_path / "replay.sqlite")
    everything = LMOwner(inner, exposes=Access.WEIGHTS.shows)
    party = Recorded(everything, store, of=inner)
    questions = [Ask(chat=user(f"What is {i} plus {i}?"), sampling=SHORT) for i in range(8)]
    asked = [asyncio.create_task(party.handle(q)) for q in questions]
    await asked[1]
    await asyncio.to_thread(server.kill)
    server = await asyncio.to_thread(Server, server.port)
    try:
        replies = await asyncio.gather(*asked)
        assert all(r.usage()[1] for r in replies)
        assert len(store) == party.misses == 8
        again = Recorded(everything, store, of=inner, offline=True)
        assert [await again.handle(q) for q in questions] == replies
        assert again.misses == 0
    finally:
        await party.close()
        await inner.close()
        store.close()
        await asyncio.to_thread(server.kill)
