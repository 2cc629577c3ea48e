"""Drafts looked up in the prompt, where the reply repeats it: crossings, and every difference.

    python benchmarks/quoting.py [--items 40] [--tasks talks,sql] [--file ROWS.jsonl] [--seconds S]

Qwen2.5-Coder-1.5B over llama.cpp, greedy, replies of at most 48 tokens, drafts of at most 16 looked up
in the prompt and the reply. *talks*: talks of doctors with patients (mts_dialog, train split, 200 to
700 characters), of which what the patient says is to be quoted. *sql*: questions about databases
(text2sql_defog, train split), with the schema in the prompt. Items in an order drawn by seed 0, so that
any first so many are a sample; rows are noted as they come, so a second run resumes. Intervals:
bootstrap over items.

Each reply is also written by the same model alone. Logits of llama.cpp depend a little on how many
tokens it reads at once, so the two can part where two tokens are about as likely: each difference is
listed with the gap between the two likeliest tokens there. Beside it the noise of batches: the tokens
in front of a place, of which the last 16 are read one by one, four at a time, at once, or together with
everything before them (20 talks); the largest difference between two of these of one token's
log-probability (of the 20 likeliest) and of the gap between the two likeliest.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from cosilo.models.base import models
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.objectives.intervals import wilson
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.strategies.drafting import LookUp
from cosilo.strategies.rounds import rounds
from cosilo.types import Chat, Generation, Sampling, user
from kept import ROOT, Kept, json_lines, note, noted
from text2sql import task_of

SHARED = ROOT.parent / "shared" / "data"
MODEL = "qwen2.5-coder-1.5b-instruct"
TASKS = ("talks", "sql")
TOKENS, DRAFTED, TOP, LAST, NOISE = 48, 16, 20, 16, 20
ASKED = "\n\nWrite down, word for word, each line in which the patient speaks."


def chats(task: str) -> list[tuple[str, Chat]]:
    """The items of a task, in the order in which they are taken."""
    if task == "talks":
        found = [
            (str(row["id"]), user(row["dialogue"].strip() + ASKED))
            for row in json_lines(SHARED / "mts_dialog" / "train.jsonl")
            if 200 <= len(row["dialogue"]) <= 700 and row["dialogue"].count("Patient:") >= 2
        ]
    else:
        found = [(e.id, e.chat) for e in task_of(SHARED).splits["train"]]
    random.Random(0).shuffle(found)
    return found


def parted(alone: Generation, text: str) -> float | None:
    """The gap between the two likeliest tokens where `text` leaves the reply of the model alone; None
    where it does not."""
    said = ""
    for token in alone.tokens:
        said += token.token
        if not text.startswith(said):
            best, second = sorted((p for _, p in token.top), reverse=True)[:2]
            return best - second
    return None if text == alone.text else 0.0


async def replied(session: Session, model: Any, id: str, chat: Chat) -> dict[str, Any]:
    """A reply with drafts beside the one without."""
    drafts = LookUp([turn.content for turn in chat])
    bound = session.bind(id)
    steps = [step async for step in rounds(bound, chat, drafts, count=DRAFTED)]
    alone = await model.generate(chat, Sampling(max_tokens=TOKENS, top_logprobs=2))
    text = steps[-1].said
    return {
        "tokens": steps[-1].reply.at,
        "crossings": len(steps),
        "drafted": sum(s.reply.drafted for s in steps),
        "accepted": sum(s.reply.accepted for s in steps),
        "text": text,
        "same": text == alone.text,
        "gap": parted(alone, text),
    }


def noise(model: Any, chat: Chat, text: str) -> dict[str, float]:
    """Largest differences between ways to read the same tokens; see above."""
    engine = model._opened()
    ids = [*engine.prompt_tokens(chat), *engine.reply_tokens(text)]
    other = next(i for i in (100, 101) if i != ids[-LAST])
    found = []
    for step in (1, 4, LAST, len(ids)):
        # What the engine remembers is what it read last, as far as that begins alike.
        engine.likeliest([other] if step == len(ids) else [*ids[:-LAST], other], 1)
        for end in range(len(ids) - LAST + step, len(ids), step):
            engine.likeliest(ids[:end], 1)
        found.append(engine.likeliest(ids, TOP))
    tables = [dict(row) for row in found]
    best, second = (i for i, _ in found[0][:2])
    pairs = list(combinations(tables, 2))
    gaps = [t[best] - t[second] for t in tables]
    return {
        "token": max(abs(a[i] - b[i]) for a, b in pairs for i in a.keys() & b.keys()),
        "gap": max(abs(a - b) for a, b in combinations(gaps, 2)),
    }


def read(file: Path) -> dict[tuple[str, str], Any]:
    return {(row["task"], row["id"]): row for row in noted(file)}


async def ask(tasks: list[str], items: int, file: Path, seconds: float) -> None:
    done, end = read(file), perf_counter() + seconds
    model: Any = models.create("llamacpp", model=MODEL, parallel=1, prompt_cache_mib=0)
    strategy = strategies.create("speculative", draft="lookup", anyway=True, length=DRAFTED)
    session = open_session(
        DataOwner(ScriptedModel()), LMOwner(model), strategy, sampling=Sampling(max_tokens=TOKENS)
    )
    try:
        for task in tasks:
            for at, (id, chat) in enumerate(chats(task)[:items]):
                if (task, id) in done or perf_counter() > end:
                    continue
                row = {"task": task, "id": id, **await replied(session, model, id, chat)}
                if task == "talks" and at < NOISE:
                    row["noise"] = noise(model, chat, row["text"])
                note(file, row)
                print(row, flush=True)
    finally:
        await model.close()


def keep(items: int, file: Path) -> None:
    done = read(file)
    found = Kept("quoting", seed=0, settings={"tokens": TOKENS, "drafted": DRAFTED})
    rng = np.random.default_rng(0)
    every = []
    for task in TASKS:
        some = [done[task, id] for id, _ in chats(task)[:items] if (task, id) in done]
        if not some:
            continue
        every += some
        drawn = rng.integers(0, len(some), (2000, len(some)))
        for name, over, under in (
            ("crossings", "crossings", "tokens"),
            ("accepted", "accepted", "drafted"),
            ("drafted", "drafted", "tokens"),
        ):
            counts = np.array([(row[over], row[under]) for row in some])
            again = counts[drawn].sum(axis=1)
            low, high = np.quantile(again[:, 0] / again[:, 1], [0.025, 0.975])
            each = float(counts[:, 0].sum() / counts[:, 1].sum())
            found.put(task, name, each, n=len(some), low=float(low), high=float(high))
            print(f"{task} {name}: {each:.3f} ({low:.3f} to {high:.3f}), n = {len(some)}")
        same = sum(row["same"] for row in some)
        low, high = wilson(same, len(some))
        found.put(task, "same", same / len(some), n=len(some), low=low, high=high)
    noises = [row["noise"] for row in every if "noise" in row]
    for kind in ("token", "gap") if noises else ():
        found.put("noise", kind, max(row[kind] for row in noises), n=len(noises))
    gaps = sorted(row["gap"] for row in every if not row["same"])
    found.put("differences", "count", len(gaps), n=len(every))
    for i, gap in enumerate(gaps, 1):
        found.put("differences", f"gap {i}", gap)
    print(f"differences of {len(every)}: {gaps}; noise {noises}")
    found.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--file", type=Path, default=Path("runs/quoting.jsonl"))
    given = parser.parse_args()
    asyncio.run(ask(given.tasks.split(","), given.items, given.file, given.seconds))
    keep(given.items, given.file)


if __name__ == "__main__":
    main()
