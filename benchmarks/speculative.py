"""Whether a reply with drafts is the LM's own, and how many crossings it takes.

    python benchmarks/speculative.py drawn  [--draws 100000]   χ² of drawn replies, and of a wrong rule
    python benchmarks/speculative.py greedy [--prompts 200]    token for token in float32; resumes
    python benchmarks/speculative.py pays                      the estimated gain and the counted one

*drawn*: a model of four words, whose distribution over replies of up to three tokens is known; each
reply has a seed of its own, and another such model drafts. Rare replies (fewer than 5 expected) are
counted together. Beside it the rule that keeps a drafted token wherever it is not unlikely.

*greedy*: the first turns of spec_bench (../shared/data/spec_bench), SmolLM2-135M in float32, 48 tokens,
drafts looked up in the prompt and the reply, beside the same model alone. Prompts are taken in an order
that is drawn by seed 0, so that any first so many are a sample.

*pays*: models of four words, whose replies of 64 tokens are drawn; what a crossing takes is stated and
added up, not waited for. Acceptance is counted on 20 replies, the gain on 100 others.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from scipy import stats

from cosilo.boundary.messages import Verified, Verify
from cosilo.models.base import models
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.objectives.intervals import wilson
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.serving import verify
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.strategies.drafting import ModelDrafts
from cosilo.strategies.inference.speculation import Speeds, payoff
from cosilo.strategies.inference.speculation import kept as kept_of
from cosilo.strategies.rounds import DraftedStep, rounds
from cosilo.types import Sampling, user
from kept import ROOT, Kept, json_lines, note, noted

sys.path.insert(0, str(ROOT / "tests"))
import few_words

PROMPTS = ROOT.parent / "shared" / "data" / "spec_bench" / "prompts.jsonl"
MOST = 3
TOKENS = 48


async def tallied(draws: int) -> tuple[Counter[str], few_words.FewWords]:
    model, small = few_words.FewWords.drawn(0), few_words.FewWords.drawn(1)
    owner, chat = LMOwner(model), user("Why?")
    found: Counter[str] = Counter()
    for seed in range(draws):
        sampling = Sampling(max_tokens=MOST, temperature=1.0, seed=seed)
        other = Sampling(max_tokens=MOST, temperature=1.0, seed=seed + draws)
        draft = (await small.generate(chat, other)).text
        reply: Any = await owner.handle(Verify(chat=chat, sampling=sampling, draft=draft))
        said = reply.text
        while not reply.finish:
            reply = await owner.handle(Verify(thread=reply.thread, draft=draft))
            assert isinstance(reply, Verified)
            said += reply.text
        found[said] += 1
    return found, model


def p_value(found: Counter[str], model: few_words.FewWords) -> tuple[float, int]:
    draws = found.total()
    expected = {said: p * draws for said, p in model.replies(MOST).items()}
    often = [said for said, count in expected.items() if count >= 5]
    seen = [*(found[said] for said in often), draws - sum(found[said] for said in often)]
    awaited = [*(expected[said] for said in often), draws - sum(expected[said] for said in often)]
    if awaited[-1] < 5:  # what is left belongs to the rarest that is counted by itself
        rest = (seen.pop(), awaited.pop())
        seen[-1] += rest[0]
        awaited[-1] += rest[1]
    return float(stats.chisquare(seen, awaited).pvalue), len(seen)


def drawn(draws: int) -> None:
    found = Kept("speculative_drawn", settings={"draws": draws, "tokens": MOST})
    honest = verify._chosen

    async def likely(model: Any, kept: Any, drafted: Sequence[int]) -> list[int]:
        chosen = await honest(model, kept, drafted)
        before = [few_words.END, *kept.ids][-1:]
        rows = model.rows[[*before, *drafted]]
        return [
            drafted[i] if i < len(drafted) and rows[i][drafted[i]] > 0.15 else token
            for i, token in enumerate(chosen)
        ]

    for rule in ("equality", "kept where not unlikely"):
        verify._chosen = honest if rule == "equality" else likely
        p, cells = p_value(*asyncio.run(tallied(draws)))
        found.put(rule, "p", p, n=draws)
        found.put(rule, "cells", cells)
        print(f"{rule}: p = {p:.3g} over {cells} cells, {draws} replies")
    verify._chosen = honest
    found.write()


async def greedy(prompts: int, file: Path, seconds: float) -> None:
    every, done = json_lines(PROMPTS), {row["id"]: row for row in noted(file)}
    random.Random(0).shuffle(every)
    end = perf_counter() + seconds
    model: Any = models.create(
        "torch", model="smollm2-135m-instruct", precision="float32", threads=2
    )
    strategy = strategies.create("speculative", draft="lookup", anyway=True, length=8)
    session = open_session(
        DataOwner(ScriptedModel()), LMOwner(model), strategy, sampling=Sampling(max_tokens=TOKENS)
    )
    try:
        for item in every[:prompts]:
            if item["question_id"] in done or perf_counter() > end:
                continue
            chat = user(item["turns"][0])
            alone = await model.generate(chat, session.sampling)
            bound = session.bind(str(item["question_id"]))
            with_drafts = (await strategy.answer(bound, chat)).generation
            row = {
                "id": item["question_id"],
                "same": with_drafts.text == alone.text
                and with_drafts.completion_tokens == alone.completion_tokens,
                "tokens": alone.completion_tokens,
                "crossings": bound.totals.messages,
                "category": item["category"],
            }
            done[row["id"]] = row
            note(file, row)
    finally:
        await model.close()
    rows = [done[i["question_id"]] for i in every[:prompts] if i["question_id"] in done]
    found = Kept("speculative_greedy", seed=0, settings={"tokens": TOKENS, "length": 8})
    same = sum(row["same"] for row in rows)
    low, high = wilson(same, len(rows))
    found.put("all", "same", same / len(rows), n=len(rows), low=low, high=high)
    rng = np.random.default_rng(0)
    for name in ("all", *sorted({row["category"] for row in rows})):
        some = [row for row in rows if name in ("all", row["category"])]
        counts = np.array([(row["crossings"], row["tokens"]) for row in some])
        again = counts[rng.integers(0, len(some), (2000, len(some)))].sum(axis=1)
        low, high = np.quantile(again[:, 0] / again[:, 1], [0.025, 0.975])
        each = float(counts[:, 0].sum() / counts[:, 1].sum())
        found.put(name, "crossings", each, n=len(some), low=float(low), high=float(high))
        print(f"{name}: {each:.3f} crossings a token ({low:.3f} to {high:.3f}), n = {len(some)}")
    print(f"{same} of {len(rows)} replies are token for token the LM's own")
    found.write()


SETTINGS = ((0.1, 0.01, 0.0), (0.1, 0.01, 0.05), (0.1, 0.01, 0.3), (0.02, 0.005, 0.01),
            (0.02, 0.005, 0.1), (0.2, 0.05, 0.1), (0.05, 0.04, 0.02), (0.03, 0.002, 0.03))  # fmt: skip
"""Seconds of the LM for a token, of the small model for one, and of a round trip."""
LENGTH, LONG, MORE, PROMPT = 4, 64, 0.05, 4.0  # the last two in tokens of the LM


async def counted(first: int, count: int) -> list[list[DraftedStep]]:
    """Replies to seeds from `first` on, crossing by crossing."""
    rows = few_words.FewWords.drawn(0).rows
    near = np.exp(np.log(rows) + np.random.default_rng(1).normal(size=rows.shape) * 0.5)
    rows[:, few_words.END] = near[:, few_words.END] = 1e-12
    large, small = few_words.FewWords(rows), few_words.FewWords(near)
    strategy = strategies.create("speculative", anyway=True)
    found = []
    for seed in range(first, first + count):
        sampling = Sampling(max_tokens=LONG, temperature=1.0, seed=seed)
        session = open_session(DataOwner(small), LMOwner(large), strategy, sampling=sampling)
        chat = user("Why?")
        steps = rounds(session, chat, ModelDrafts(small, chat, sampling), count=LENGTH)
        found.append([step async for step in steps])
    return found


def pays() -> None:
    found = Kept("speculative_pays", seed=0, settings={"length": LENGTH, "tokens": LONG})
    tune, rest = asyncio.run(counted(1000, 20)), asyncio.run(counted(0, 100))
    some = [step.reply for reply in tune for step in reply]
    drafts = np.array([len(r) for r in rest])
    drafted = np.array([sum(s.reply.drafted for s in r) for r in rest])
    for token_s, draft_s, round_trip_s in SETTINGS:
        told = Speeds(
            survival=kept_of([s.accepted for s in some], LENGTH),
            drafted=tuple(
                float(np.mean([min(n, s.drafted) for s in some])) for n in range(1, LENGTH + 1)
            ),
            draft_s=draft_s, token_s=token_s, more_s=MORE * token_s, round_trip_s=round_trip_s,
            prompt_s=PROMPT * token_s,
        )  # fmt: skip
        guess = payoff(told, LENGTH, LONG)
        alone = round_trip_s + (PROMPT + LONG) * token_s
        took = PROMPT * token_s + drafts * (round_trip_s + token_s)
        took = took + drafted * (draft_s + MORE * token_s)
        rng = np.random.default_rng(0)
        again = alone / took[rng.integers(0, len(took), (2000, len(took)))].mean(axis=1)
        gain = float(alone / took.mean())
        low, high = map(float, np.quantile(again, [0.025, 0.975]))
        row = f"{1000 * token_s:g}, {1000 * draft_s:g}, {1000 * round_trip_s:g}"
        found.put(row, "estimated", guess.gain)
        found.put(row, "counted", gain, n=len(took), low=low, high=high)
        found.put(row, "off", guess.gain / gain - 1)
        print(f"{row} ms: estimated {guess.gain:.2f}, counted {gain:.2f} ({low:.2f} to {high:.2f})")
    found.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("drawn", "greedy", "pays"))
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--file", type=Path, default=Path("runs/speculative/greedy.jsonl"))
    given = parser.parse_args()
    if given.part == "drawn":
        drawn(given.draws)
    elif given.part == "pays":
        pays()
    else:
        asyncio.run(greedy(given.prompts, given.file, given.seconds))


if __name__ == "__main__":
    main()
