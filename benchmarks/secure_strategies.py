"""`secure_adapter` and `secure_forward` on complaints: are answers those in clear, and what one costs.

    python benchmarks/secure_strategies.py              # secure_adapter, by ABY3 and Cheetah; resumes
    python benchmarks/secure_strategies.py --forward 2  # and whole forwards of SmolLM2: 15 GB of memory

The LM's owner has SmolLM2 with a LoRA on its last block, which was trained on complaints that it alone
has; the data owner has SmolLM2 as everybody has it. Both sides run here, with strategy, boundary and
ledger, and each party's engine is a process. Beside the answers stand those of the base without the
LoRA, and the label that is most frequent.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import mean
from time import process_time
from typing import Any

import numpy as np

from cosilo.boundary.messages import Joint
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.engines.spu.run import Deadlines
from cosilo.models.base import Shows
from cosilo.models.plain_llama import JointTerms
from cosilo.models.white_box.adapters import (
    first_adapter,
    trained_adapter,
    upper_layers,
    with_adapter,
)
from cosilo.models.white_box.lm import TorchModel, torch_lm
from cosilo.objectives import intervals
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.joint import JointRuns
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.inference import secure_llama
from cosilo.strategies.inference.joint_room import Computed, JointRoom
from cosilo.strategies.inference.secure_adapter import SecureAdapter
from cosilo.strategies.inference.secure_forward import SecureForward
from cosilo.strategies.inference.secure_llama import first_tokens
from cosilo.types import Chat, Sampling, user
from kept import Cells, Kept, json_lines

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "cfpb_llm"
LM = "smollm2-135m-instruct"
LABELS = {
    "credit_card": "Card", "credit_reporting": "Report", "debt_collection": "Debt",
    "mortgages_and_loans": "Mortgage", "retail_banking": "Bank",
}  # fmt: skip
CHOICES = tuple(LABELS.values())
ABOUT = f"What is the complaint about? Answer with one word: {', '.join(CHOICES)}."
STEPS, LEARNT = 100, 200
LENGTHS = (64, 128)
PATIENT = Deadlines(step_s=7200.0, silent_s=3600.0, connect_s=120.0)


SPENT: list[tuple[int, Computed]] = []


class Noting(JointRoom):
    """A room that notes what each computation took."""

    async def compute(self, *given: Any, **more: Any) -> Computed:
        found = await super().compute(*given, **more)
        SPENT.append((self.wanted.tokens, found))
        return found


def asked(text: str, words: int, about: str = ABOUT) -> Chat:
    return user(" ".join(text.split()[:words]), system=about)


def rows(part: str) -> list[tuple[str, str]]:
    found = [(row["text"], LABELS[row["label"]]) for row in json_lines(DATA / f"{part}.jsonl")]
    order = np.random.default_rng(0).permutation(len(found))
    return [found[i] for i in order]


def public_texts(folder: Path) -> Path:
    """Complaints that nobody is asked about, as what the LM's owner is calibrated on."""
    file = folder / "public.txt"
    file.write_text("\n".join(" ".join(text.split()[:60]) for text, _ in rows("train")[LEARNT:]))
    return file


def private(base: TorchModel, folder: Path) -> TorchModel:
    """The base with a LoRA on its last block, which is trained once."""
    file = folder / f"secure_strategies_{LEARNT}_{STEPS}.npz"
    begun = first_adapter(upper_layers(base.module, 1), 8, seed=0)
    if not file.exists():
        lessons = [base.tokenize(asked(text, 60), label) for text, label in rows("train")[:LEARNT]]
        learned, _ = trained_adapter(
            base.module, begun, lessons, steps=STEPS, batch=8, learning_rate=1e-3
        )
        np.savez(file, **learned.tensors)
    with np.load(file) as tensors:
        adapter = replace(begun, tensors=dict(tensors))
    return base.with_module(with_adapter(base.module, adapter))


def clearly(model: TorchModel, chat: Chat) -> tuple[str, float]:
    """The choice whose first token is likeliest, in clear, and CPU seconds."""
    before = process_time()
    logits = model.said_after(list(model.prompt(chat)))
    tokens = list(first_tokens(model, CHOICES, by="the benchmark"))
    return CHOICES[int(np.argmax(logits[tokens]))], process_time() - before


async def answered(
    strategy: Any, large: TorchModel, home: TorchModel, items: list[tuple[Chat, str]], cells: Cells
) -> None:
    """Each item by the strategy, and in clear; what is done already is left out."""
    name = f"{type(strategy).__name__} {strategy.protocol}"
    todo = [i for i in range(len(items)) if f"{name} {i}" not in cells.done]
    if not todo:
        return
    ledger = MemoryLedger()
    runs = JointRuns(deadlines=PATIENT)
    lm = LMOwner(large, exposes=Shows.TEXT | Shows.JOINT, joint=runs)
    sampling = Sampling(choices=CHOICES)
    session = open_session(DataOwner(home), lm, strategy, sampling=sampling, ledger=ledger)
    prepared, session = await strategy.prepare(session)
    for card, length in zip(session.cards, strategy.lengths, strict=True):
        facts = {k: v for k, v in card.facts.items() if isinstance(v, int | float)}
        cells.put(f"{name} once {length}", facts)
        print(card, flush=True)
    for i in todo:
        chat, label = items[i]
        SPENT.clear()
        answer = await prepared.answer(session.bind(f"item {i}"), chat)
        ((length, spent),) = SPENT
        clear, took = clearly(large, chat)
        base, _ = clearly(home, chat)
        cells.put(
            f"{name} {i}",
            {
                "length": length, "mb": spent.bytes / 1e6, "messages": spent.messages,
                "home_s": spent.cpu_here, "owner_s": spent.cpu_there, "clear_s": took,
                "same": answer.text == clear, "right": answer.text == label,
                "clear": clear == label, "base": base == label,
            },
        )  # fmt: skip
        print(name, i, cells.done[f"{name} {i}"], flush=True)
    booked = [entry for entry in ledger.entries() if entry.kind == Joint.__name__]
    print(len(booked), "computations in the ledger", flush=True)
    await prepared.close(session)
    await runs.close()


def summed(cells: Cells, strategy: str, protocol: str, kept: Kept) -> None:
    """What was found of one strategy under one protocol."""
    name = f"{strategy} {protocol}"
    found = [c for key, c in cells.done.items() if key.startswith(name) and "once" not in key]
    if not found:
        return
    for what in ("same", "right", "clear", "base"):
        hits = [bool(c[what]) for c in found]
        low, high = intervals.wilson(sum(hits), len(hits))
        kept.put(name, what, mean(hits), n=len(hits), low=low, high=high)
    for length in sorted({c["length"] for c in found}):
        of = [c for c in found if c["length"] == length]
        row = f"{name} {length}"
        for what in ("mb", "messages", "home_s", "owner_s", "clear_s"):
            kept.put(row, what, mean(c[what] for c in of), n=len(of))
        once = cells.done[f"{name} once {length}"]
        kept.put(row, "once_mb", once["MB of shares of the weights, all parties"])
        kept.put(row, "once_home_s", once["CPU seconds of sharing them, here"])
        kept.put(row, "once_owner_s", once["CPU seconds of sharing them, there"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, default=Path("runs/secure_strategies.json"))
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--cheetah", type=int, default=2, help="items by Cheetah")
    parser.add_argument("--forward", type=int, default=0, help="whole forwards, by ABY3")
    arguments = parser.parse_args()
    secure_llama.JointRoom = Noting  # type: ignore[misc]
    arguments.state.parent.mkdir(parents=True, exist_ok=True)
    cells = Cells(arguments.state)
    base = torch_lm(LM, precision="float32")
    terms: dict[str, Any] = {"calibrated_on": public_texts(arguments.state.parent)}
    test = rows("test")
    large = private(base, arguments.state.parent)
    large.joint = JointTerms(tokens=max(LENGTHS), layers=1, **terms)
    items = [(asked(text, 60), label) for text, label in test[: arguments.items]]
    asyncio.run(answered(SecureAdapter(lengths=LENGTHS), large, base, items, cells))
    few = SecureAdapter(lengths=(128,), protocol="cheetah", step_s=7200.0)
    asyncio.run(answered(few, large, base, items[: arguments.cheetah], cells))
    if arguments.forward:
        large.joint = JointTerms(tokens=32, layers=0, whole=True, **terms)
        short = [(asked(text, 6, "Topic?"), label) for text, label in test[: arguments.forward]]
        gc.collect()
        asyncio.run(answered(SecureForward(lengths=(32,)), large, base, short, cells))
    most = Counter(label for _, label in test[: arguments.items]).most_common(1)[0][1]
    settings = {"field": 64, "bits": 18, "steps": STEPS, "learnt": LEARNT}
    kept = Kept("secure_strategies", seed=0, settings=settings)
    kept.put("always the most frequent", "right", most / arguments.items, n=arguments.items)
    summed(cells, "SecureAdapter", "aby3", kept)
    summed(cells, "SecureAdapter", "cheetah", kept)
    summed(cells, "SecureForward", "aby3", kept)
    kept.write()


if __name__ == "__main__":
    main()
