"""What surrounds a run's large model, in its order: shown, timed, recorded, paid."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import thread_time

import pytest

from cosilo.benchmark.parts import Loaded, Parts, open_parts
from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.store import Store
from cosilo.boundary.messages import Ask, Completion
from cosilo.clock import Clock, install, timed
from cosilo.errors import BudgetExceededError, CapabilityError, OfflineError
from cosilo.models.base import models
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.types import Chat, Generation, Sampling, user

PLAN = """
name = "desk"
[task]
kind = "classification"
file = "data.jsonl"
[models.small]
kind = "scripted"
[models.large]
kind = "KIND"
usd_per_m_in = 1e6
exposes = "EXPOSES"
[replay]
path = "shared.sqlite"
[[points]]
strategy = "large"
"""
ASK = Ask(chat=user("say two words"))


class Burning(ScriptedModel):
    """Works on this machine for each reply."""

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        end = thread_time() + 0.02
        while thread_time() < end:
            pass
        return await super().generate(chat, sampling)


@pytest.fixture(autouse=True, scope="module")
def burning() -> None:
    if "burning" not in models.names():
        models.register("burning")(Burning)


@asynccontextmanager
async def opened(
    folder: Path, exposes: str, *, run: str = "run", kind: str = "scripted", more: str = "",
    offline: bool = False,
) -> AsyncIterator[Parts]:  # fmt: skip
    rows = [{"text": f"item {i}", "label": "ab"[i % 2]} for i in range(60)]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = PLAN.replace("EXPOSES", exposes).replace("KIND", kind) + more
    store, loaded = Store(folder / run, write=True), Loaded()
    parts = open_parts(parse_plan(text, folder / "p.toml"), store, loaded, offline=offline)
    try:
        yield parts
    finally:
        await parts.close()
        await loaded.close()
        store.close()


async def said(parts: Parts, ask: Ask = ASK) -> Generation:
    reply = await parts.large.party.handle(ask)
    assert isinstance(reply, Completion)
    return reply.generation


async def test_what_is_not_shown_is_recorded_for_whom_it_is_shown(tmp_path: Path) -> None:
    wanted = Ask(chat=ASK.chat, sampling=Sampling(top_logprobs=1))
    async with opened(tmp_path, "text") as parts:
        assert (await said(parts)).tokens == ()
        with pytest.raises(CapabilityError, match="exposes text"):
            await said(parts, wanted)
        assert parts.paid.totals.messages == 1
    async with opened(tmp_path, "logprobs", run="other", offline=True) as parts:
        assert len((await said(parts)).tokens) == 3
        with pytest.raises(OfflineError):
            await said(parts, wanted)
        assert parts.paid.totals.messages == 0


async def test_what_is_recorded_is_paid_once_and_the_budget_holds(tmp_path: Path) -> None:
    budget = "\n[budget]\nmessages = 1\n"
    async with opened(tmp_path, "text", more=budget) as parts:
        for _ in range(2):
            assert (await said(parts)).prompt_tokens == 3
        with pytest.raises(BudgetExceededError):
            await said(parts, Ask(chat=user("another")))
        assert (parts.paid.totals.messages, parts.paid.totals.usd) == (1, 3.0)


async def test_what_the_model_does_here_is_not_the_data_owners_work(tmp_path: Path) -> None:
    install(asyncio.get_running_loop())
    own = Clock()
    async with opened(tmp_path, "text", kind="burning") as parts:
        await timed(said(parts), own)
    assert own.cpu_seconds < 0.01
