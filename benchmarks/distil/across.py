"""Qwen2.5-Coder-1.5B teaches SmolLM2-135M eight confusable intents of CLINC150, across tokenisers.

    sample   Qwen answers 200 training and 240 test questions, once, at temperature 1 (llama.cpp)
    score    Qwen reads its own 200 answers: the 64 likeliest tokens at each place (torch)
    train    SmolLM2 learns from the answers alone, or from the probabilities as well; per seed
    report   loss on Qwen's held-out answers and accuracy on the gold intents, method against method

Every stage keeps what it has done under runs/distil/across, and stops after --seconds to go on from
there the next time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from time import perf_counter
from typing import Any

from cosilo.session import ModelConfig, make_model
from cosilo.types import Chat, Sampling, user

DATA = Path("../shared/data/clinc150")
INTENTS = {
    "balance": "balance",
    "bill_balance": "bill balance",
    "bill_due": "bill due",
    "min_payment": "minimum payment",
    "transactions": "transactions",
    "spending_history": "spending history",
    "transfer": "transfer",
    "pay_bill": "pay bill",
}
SYSTEM = f"What is the request about? Reply with one of: {', '.join(INTENTS.values())}."
EACH = {"train": 25, "test": 30}


def items(split: str) -> list[dict[str, str]]:
    """The first so many questions of each intent, in the file's order."""
    left = dict.fromkeys(INTENTS, EACH[split])
    found = []
    with (DATA / f"{split}.jsonl").open() as lines:
        for line in lines:
            row = json.loads(line)
            if left.get(row["label"], 0):
                left[row["label"]] -= 1
                found.append({"text": row["text"], "gold": INTENTS[row["label"]]})
    return found


def chat(item: dict[str, Any]) -> Chat:
    return user(item["text"], system=SYSTEM)


class Kept:
    """Lines of JSON that are on the disk as soon as they are added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            self.rows = [json.loads(line) for line in path.read_text().splitlines()]

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


async def sample(folder: Path, stop: float) -> bool:
    """Qwen's answers, one draw each."""
    model = make_model(
        ModelConfig(
            kind="llamacpp",
            options={"model": "qwen2.5-coder-1.5b-instruct", "threads": 1, "parallel": 1},
        )
    )
    for split in EACH:
        kept = Kept(folder / f"{split}.jsonl")
        for i, item in enumerate(items(split)):
            if i < len(kept.rows):
                continue
            if perf_counter() > stop:
                return False
            wanted = Sampling(max_tokens=12, temperature=1.0, seed=i)
            reply = await model.generate(chat(item), wanted)
            kept.add(item | {"said": reply.text.strip(), "ended": reply.finish_reason == "stop"})
    await model.close()
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["sample"])
    parser.add_argument("--folder", type=Path, default=Path("runs/distil/across"))
    parser.add_argument("--seconds", type=float, default=330)
    options = parser.parse_args()
    stop = perf_counter() + options.seconds
    done = asyncio.run(sample(options.folder, stop))
    print("done" if done else "to be gone on with")


if __name__ == "__main__":
    main()
