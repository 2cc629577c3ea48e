"""SmolLM2 steered by a small expert that two owners federated (FedPT): `federated` then `proxy`.

    python benchmarks/fedpt.py                  three seeds; resumes
    python benchmarks/fedpt.py --seconds 100    stops between parts once that time is over
    python benchmarks/fedpt.py --report         the table of what is there

Models, task and items are those of benchmarks/proxy.py: SmolLM2-135M-instruct, the same with 20 of its
30 layers as the expert, healed; six intents of ../shared/data/banking77, eight training items of each,
and six of its test split for each seed. Each of two owners has all items of two intents and half of
those of the other two, so neither knows all six. They federate the expert (rule `flora`, rank 8) over
the messages of the strategy.

    alone        what the LM does untuned           direct     the LM itself tuned on both owners' items
    expert       the federated expert by itself     fedpt      the LM steered by it
    one owner    the LM steered by an expert that one owner tuned alone, for as many steps

Nats are of the label and its end, as written freely; accuracy is of the label with the fewest nats. The
whole vocabulary is mixed: what the likeliest tokens alone cost is in benchmarks/proxy.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from cosilo.models.base import Access
from cosilo.models.white_box.lm import TorchModel, torch_lm
from cosilo.objectives import intervals
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.strategies.inference.proxy import untuned
from cosilo.types import Demonstration, Sampling
from kept import Kept
from proxy import SEEDS, TUNING, closed, items, smaller, spread, trained

OWNERS = ("one", "two")
ROUNDS, STEPS, BATCH, RATE, RANK = 3, 9, 4, 2e-3, 8
ARMS = ("alone", "direct", "expert", "fedpt", "one owner")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/fedpt"))
    parser.add_argument("--proxy", type=Path, default=Path("runs/proxy"), help="of that benchmark")
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    for folder in (arguments.folder, arguments.proxy):
        folder.mkdir(parents=True, exist_ok=True)
    end = perf_counter() + arguments.seconds
    if not arguments.report:
        large = torch_lm("smollm2-135m-instruct", precision="float32")
        large.tuning = TUNING
        expert = smaller(large, arguments.proxy)
        for seed in SEEDS:
            place = arguments.folder / f"{seed}.json"
            if perf_counter() < end and not place.exists():
                cpu = process_time()
                direct = trained(large, items(seed)[0], seed, arguments.proxy / f"large-{seed}")
                found = asyncio.run(measured(large, direct, expert, seed))
                place.write_text(json.dumps(found))
                print(seed, f"{process_time() - cpu:.0f} s of CPU", flush=True)
    report(arguments.folder)


def shared_out(learned: Sequence[Demonstration]) -> list[list[Demonstration]]:
    """The items of each owner."""
    labels = list(dict.fromkeys(item.target for item in learned))
    found: list[list[Demonstration]] = [[], []]
    for number, label in enumerate(labels):
        own = [item for item in learned if item.target == label]
        if number % 3 == 2:
            found[0] += own[::2]
            found[1] += own[1::2]
        else:
            found[number % 3] += own
    return found


async def measured(
    large: TorchModel, direct: TorchModel, expert: TorchModel, seed: int
) -> dict[str, Any]:
    learned, asked = items(seed)
    mine = shared_out(learned)
    tuned, sent = await federated(large, expert, mine, seed, rounds=ROUNDS)
    lonely, _ = await federated(large, expert, mine[:1], seed, rounds=ROUNDS)
    labels = tuple(dict.fromkeys(item.target for item in asked))
    found: dict[str, Any] = {
        "bytes up": sent,
        **{w: {a: [] for a in ARMS} for w in ("nats", "right")},
    }
    base = untuned(tuned)
    for item in asked:
        texts = [large.tokenize(item.chat, label) for label in labels]
        each = {}
        for name, model in (
            ("alone", large), ("direct", direct), ("expert", tuned), ("lonely", lonely), ("base", base),
        ):  # fmt: skip
            each[name] = [rows.astype(np.float64) for rows in await model.logits(texts)]
        each["fedpt"] = steered(each["alone"], each["expert"], each["base"])
        each["one owner"] = steered(each["alone"], each["lonely"], each["base"])
        for arm in ARMS:
            nats = [
                lost(rows, text.ids[text.start :])
                for rows, text in zip(each[arm], texts, strict=True)
            ]
            found["nats"][arm].append(nats[labels.index(item.target)])
            found["right"][arm].append(int(labels[int(np.argmin(nats))] == item.target))
    return found


async def federated(
    large: TorchModel, expert: TorchModel, owners: Sequence[Sequence[Demonstration]], seed: int, *,
    rounds: int,
) -> tuple[TorchModel, int]:  # fmt: skip
    """The first owner's expert once all have trained together, and the bytes it sent for that."""
    names = OWNERS[: len(owners)]
    settings = FederationSettings(owners=names, rounds=rounds, rank=RANK, rule="flora", held_s=5.0)
    coordinator = Federation(settings)

    async def one(name: str, learned: Sequence[Demonstration]) -> Any:
        strategy = strategies.create(
            "federated", rounds=rounds, steps=STEPS, batch=BATCH, learning_rate=RATE, rank=RANK,
            seed=seed, then="proxy",
        )  # fmt: skip
        party = LMOwner(large, Access.LOGITS.shows, client=name, federation=coordinator)
        owner = DataOwner(expert, private=tuple(learned))
        session = open_session(owner, party, strategy, sampling=Sampling())
        return (await strategy.prepare(session))[1]

    try:
        sessions = await asyncio.gather(*map(one, names, owners))
    finally:
        coordinator.close()
    return sessions[0].owner.model, sessions[0].totals.bytes_up


def steered(large: Sequence[Any], plus: Sequence[Any], minus: Sequence[Any]) -> list[Any]:
    return [z + p - m for z, p, m in zip(large, plus, minus, strict=True)]


def lost(rows: Any, ids: Any) -> float:
    """Nats of a reply."""
    logs = rows - np.logaddexp.reduce(rows, axis=1, keepdims=True)
    return -float(logs[np.arange(len(ids)), ids].sum())


def report(folder: Path) -> None:
    places = [folder / f"{seed}.json" for seed in SEEDS]
    if missing := [p.name for p in places if not p.exists()]:
        print(f"{len(missing)} of {len(places)} seeds are missing: {', '.join(missing)}")
        return
    found = [json.loads(p.read_text()) for p in places]
    kept = Kept("fedpt", settings={
        "owners": len(OWNERS), "rounds": ROUNDS, "steps": STEPS, "batch": BATCH, "rate": RATE,
        "rank": RANK, "rule": "flora", "seeds": SEEDS,
    })  # fmt: skip
    values = {
        (what, arm): np.array([x for f in found for x in f[what][arm]], float)
        for what in ("nats", "right")
        for arm in ARMS
    }
    for (what, arm), each in values.items():
        low, high = intervals.mean(each, (0.0, 1.0)) if what == "right" else spread(each)
        kept.put(arm, what, each.mean(), n=len(each), low=low, high=high)
    for arm in ARMS[2:]:
        nats = [values["nats", a] for a in ("alone", "direct", arm)]
        value, low, high = closed(*nats)
        kept.put(arm, "gap closed, nats", value, n=len(nats[0]), low=low, high=high)
    for beside in ("expert", "one owner"):
        less = values["nats", beside] - values["nats", "fedpt"]
        low, high = spread(less)
        kept.put("fedpt", f"nats fewer than {beside}", less.mean(), n=len(less), low=low, high=high)
    kept.put("fedpt", "bytes up", float(np.mean([f["bytes up"] for f in found])), n=len(found))
    kept.write()


if __name__ == "__main__":
    main()
