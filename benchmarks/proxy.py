"""SmolLM2 tuned from outside by a smaller model tuned at home: how much of direct tuning that brings.

    python benchmarks/proxy.py                  the expert, three seeds, both arms; resumes
    python benchmarks/proxy.py --seconds 100    stops between parts once that time is over
    python benchmarks/proxy.py --seeds 0 2      these alone
    python benchmarks/proxy.py --report         the table of what is there

Data: six intents of ../shared/data/banking77, drawn once; eight training items of each, and six of
its test split for each seed, which no setting was chosen on. The LM is SmolLM2-135M-instruct, the
expert the same without ten of its thirty layers (the least missed on complaints of cfpb_raw), healed on
complaints. Both are tuned by the same LoRA on the same items. A reply is scored in nats (label and end)
as written freely, and as one of the six by constrained decoding, greedily.
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

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Step, encode
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.transports.inside import InProcess
from cosilo.boundary.wire.logits import pack_few, top_k, unpack
from cosilo.models.base import Access
from cosilo.models.white_box import checkpoint as torch_checkpoint
from cosilo.models.white_box.compensation import compensate
from cosilo.models.white_box.depth import importance, plain, without
from cosilo.models.white_box.healing import freeze_ends, teacher_loss
from cosilo.models.white_box.lm import TorchModel, torch_lm
from cosilo.models.white_box.training import Schedule, train
from cosilo.models.white_box.tuning import Tuning
from cosilo.objectives import intervals
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.base import Session
from cosilo.strategies.inference.proxy import Proxy
from cosilo.strategies.mixing.bytes import ByteSource
from cosilo.strategies.mixing.numbers import Row, completed, normalised
from cosilo.strategies.mixing.reading import HomeReader
from cosilo.strategies.mixing.rules import Difference
from cosilo.strategies.mixing.tokens import TokenSource
from cosilo.strategies.mixing.writing import written
from cosilo.strategies.thread import Thread
from cosilo.types import Chat, Demonstration, Sampling, assemble, user
from kept import Kept

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SYSTEM = "Name the intent of the customer's message."
INTENTS, LEARNED, ASKED = 6, 8, 6  # and items of each, to train on and to ask
SEEDS = (0, 1, 2)
DROPPED = 10
TOPS = (8, 16, 24, 128)
TUNING = Tuning(rank=8, epochs=3, batch=4, learning_rate=2e-3, validation=0.0)
WRITTEN = 4  # replies a seed that are written freely, to be counted in bytes
SPELT = 4  # items a seed that are mixed byte by byte, too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/proxy"))
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        end = perf_counter() + arguments.seconds
        asyncio.run(work(arguments.folder, arguments.seeds, end))
    report(arguments.folder)


async def work(folder: Path, seeds: Sequence[int], end: float) -> None:
    large = torch_lm("smollm2-135m-instruct", precision="float32")
    large.tuning = TUNING
    expert = smaller(large, folder)
    for seed in seeds:
        learned, asked = items(seed)
        for name, model in (("large", large), ("expert", expert)):
            if perf_counter() > end:
                return
            trained(model, learned, seed, folder / f"{name}-{seed}")
        place = folder / f"seed-{seed}.json"
        if perf_counter() > end or place.exists():
            continue
        tuned = [trained(m, learned, seed, folder / f"{n}-{seed}") for n, m in
                 (("large", large), ("expert", expert))]  # fmt: skip
        place.write_text(json.dumps(await measured(large, tuned[0], expert, tuned[1], asked)))


def items(seed: int) -> tuple[list[Demonstration], list[Demonstration]]:
    """What is learned from, and what is asked."""
    found = []
    for split in ("train", "test"):
        rows = [json.loads(line) for line in (DATA / "banking77" / f"{split}.jsonl").open()]
        found.append(rows)
    every = sorted({row["label"] for row in found[0]})
    intents = np.random.default_rng(77).choice(every, INTENTS, replace=False).tolist()
    chosen = []
    for rows, each in zip(found, (LEARNED, ASKED), strict=True):
        some: list[Demonstration] = []
        for intent in intents:
            here = [row for row in rows if row["label"] == intent]
            picked = np.random.default_rng([seed, len(rows)]).permutation(len(here))[:each]
            some += [
                Demonstration(here[i]["id"], user(here[i]["text"], system=SYSTEM), spoken(intent))
                for i in picked
            ]
        chosen.append(some)
    return chosen[0], chosen[1]


def spoken(intent: str) -> str:
    return intent.replace("_", " ").rstrip("?").lower()


def smaller(large: TorchModel, folder: Path) -> TorchModel:
    """The large model without some layers, refitted and healed."""
    text = [
        json.loads(line)["text"]
        for line in (DATA / "cfpb_raw" / "train.jsonl").open().readlines()[:120]
    ]
    pool = plain(large.tokens, text, length=64)
    place = folder / "layers.json"
    teacher = large.module.requires_grad_(False)
    if not place.exists():
        found = importance(teacher, pool[:2], drop=DROPPED, at_once=2)
        place.write_text(json.dumps({"dropped": sorted(found.order), "losses": found.losses}))
    dropped = json.loads(place.read_text())["dropped"]
    student = without(teacher, dropped)
    kept = folder / "healed.safetensors"
    if kept.exists():
        weights, _ = torch_checkpoint.read(kept)
        for name, parameter in student.named_parameters():
            parameter.data.copy_(weights[name])
    else:
        compensate(student, teacher, dropped, pool[2:42])
        student.requires_grad_(True)
        freeze_ends(student)
        schedule = Schedule(steps=25, batch=1, learning_rate=1e-4, seed=0, patience=0)
        train(student, pool[42:92], teacher_loss(teacher), schedule)
        torch_checkpoint.write(kept, dict(student.named_parameters()))
    student.requires_grad_(False).eval()
    return TorchModel.holding(student, large.tokens, name="expert", tuning=TUNING)


def trained(
    model: TorchModel, learned: Sequence[Demonstration], seed: int, place: Path
) -> TorchModel:
    """`model` tuned on `learned`; done once, and then loaded."""
    from cosilo.models.white_box.files import load_adapter

    if not (place / "adapter_model.safetensors").exists():
        cpu = process_time()
        model.fit(learned, seed=seed).save_adapter(place)
        print(place.name, round(process_time() - cpu), "s of CPU", flush=True)
    from copy import deepcopy

    shared = {id(p): p for p in model.module.parameters()}
    return model.with_module(load_adapter(deepcopy(model.module, shared), place))


class Alone:
    """The first model at home, and no other."""

    prior = 0

    def asks(self, homes: Sequence[Row]) -> bool:
        return False

    def alone(self, homes: Sequence[Row]) -> Row:
        return homes[0]

    def joined(self, large: Row, homes: Sequence[Row]) -> Row:
        raise AssertionError


async def measured(
    large: TorchModel,
    direct: TorchModel,
    base: TorchModel,
    expert: TorchModel,
    asked: Sequence[Demonstration],
) -> dict[str, Any]:
    """Of each item what each arm makes of it."""
    labels = tuple(dict.fromkeys(item.target for item in asked))
    arms = {"large": large, "direct": direct, "expert": expert, "base": base}
    found: dict[str, Any] = {
        "nats": {},
        "right": {},
        "apart": {},
        "bytes": [],
        "opening": [],
        "spelt": [],
    }
    rows: dict[str, list[Any]] = {}
    for name, model in arms.items():
        tokens = [model.tokenize(item.chat, item.target) for item in asked]
        rows[name] = [r.astype(np.float64) for r in await model.logits(tokens)]
    whole = [large.tokenize(item.chat, item.target) for item in asked]
    said = [tokens.ids[tokens.start :] for tokens in whole]
    logs = {
        n: [r - np.logaddexp.reduce(r, axis=1, keepdims=True) for r in each]
        for n, each in rows.items()
    }
    for name in ("large", "direct", "expert"):
        found["nats"][name] = [nats(r, ids) for r, ids in zip(logs[name], said, strict=True)]
    rule = Difference(1.0)
    for top in (0, *TOPS):
        name = f"proxy, top {top}" if top else "proxy"
        found["nats"][name], found["apart"][name] = [], []
        for z, plus, minus, ids in zip(
            logs["large"], logs["expert"], logs["base"], said, strict=True
        ):
            mixed = []
            for place in range(len(ids)):
                homes = (plus[place], minus[place])
                whole = normalised(rule.joined(z[place], homes))
                row = whole
                if top:
                    crossed = unpack(pack_few(top_k(z[place][None].astype(np.float32), top)))
                    row = normalised(rule.joined(completed(crossed, 0, minus[place]), homes))
                    found["apart"][name].append(float(np.exp(whole) @ (whole - row)))
                mixed.append(row)
            found["nats"][name].append(nats(np.array(mixed), ids))
    for name in ("large", "direct", "expert"):
        found["right"][name] = [
            await chosen(arms[name], item.chat, labels) == item.target for item in asked
        ]
    session, ledger = opened(large, expert, Sampling(choices=labels))
    proxy, right = Proxy(), []
    for item in asked:
        right.append((await proxy.answer(session.bind(item.id), item.chat)).text == item.target)
    found["right"]["proxy, top 24"] = right
    found["choices"] = [len(encode(e.message)) for e in ledger.entries() if e.message is not None]
    session, ledger = opened(large, expert, Sampling(max_tokens=12))
    for item in asked[:: max(1, len(asked) // WRITTEN)]:
        await proxy.answer(session.bind(item.id), item.chat)
    sent = 0
    for entry in ledger.entries():
        assert entry.message is not None
        size = len(encode(entry.message))
        if isinstance(entry.message, Step):
            sent, opens = size, bool(entry.message.chat)
        else:
            found["opening" if opens else "bytes"].append(sent + size)
    for item in asked[:: max(1, len(asked) // SPELT)]:
        found["spelt"].append(await spelt(large, expert, base, item))
    return found


def nats(rows: Any, ids: Any) -> float:
    return -float(rows[np.arange(len(ids)), ids].sum())


async def chosen(model: TorchModel, chat: Chat, labels: tuple[str, ...]) -> str:
    thread = Thread(road(model), chat, model)
    thread.ends = model.ends
    source = TokenSource(Alone(), thread, [HomeReader(model, chat)], ahead=0, by="benchmark")
    return assemble([d async for d in written(source, Sampling(choices=labels))]).text


def road(model: TorchModel, ledger: MemoryLedger | None = None) -> Boundary:
    owner = LMOwner(model, exposes=Access.LOGITS.shows)
    return Boundary(InProcess(owner), declared=frozenset({Step}), ledger=ledger or MemoryLedger())


def opened(
    large: TorchModel, expert: TorchModel, sampling: Sampling
) -> tuple[Session, MemoryLedger]:
    ledger = MemoryLedger()
    return Session(DataOwner(expert), road(large, ledger), sampling), ledger


async def spelt(
    large: TorchModel, expert: TorchModel, base: TorchModel, item: Demonstration
) -> dict[str, float]:
    """Nats of the label and its end where the three are mixed byte by byte."""
    found: dict[str, float] = {"bytes": len(item.target.encode()) + 1}
    for top in (128, 24):
        ledger = MemoryLedger()
        thread = Thread(road(large, ledger), item.chat, top=top)
        homes = [HomeReader(model, item.chat) for model in (expert, base)]
        source, total = ByteSource(Difference(1.0), thread, homes), 0.0
        for unit in (*source.units(item.target), source.ends[0]):
            row = await source.next()
            total -= float(row[unit])
            if unit != source.ends[0]:
                await source.take(unit)
        found[f"top {top}"], found[f"asked {top}"] = total, source.asked
        found[f"size {top}"] = sum(
            len(encode(e.message)) for e in ledger.entries() if e.message is not None
        )
    return found


def report(folder: Path) -> None:
    places = [folder / f"seed-{seed}.json" for seed in SEEDS]
    found = [json.loads(p.read_text()) for p in places if p.exists()]
    if len(found) < len(SEEDS):
        print(f"{len(found)} of {len(SEEDS)} seeds are done")
        return
    layers = json.loads((folder / "layers.json").read_text())
    kept = Kept("proxy", settings={
        "intents": INTENTS, "learned": LEARNED * INTENTS, "asked": ASKED * INTENTS, "seeds": SEEDS,
        "epochs": TUNING.epochs, "rate": TUNING.learning_rate, "dropped": layers["dropped"],
    })  # fmt: skip
    values: dict[tuple[str, str], Any] = {}
    for what in ("nats", "right"):
        for arm in found[0][what]:
            each = np.array([x for f in found for x in f[what][arm]], float)
            values[what, arm] = each
            bounds = (0.0, 1.0) if what == "right" else (-math.inf, math.inf)
            low, high = intervals.mean(each, bounds) if what == "right" else spread(each)
            kept.put(arm, what, each.mean(), n=len(each), low=low, high=high)
    for what in ("nats", "right"):
        arms = [a for a in found[0][what] if a.startswith("proxy")]
        for arm in [*arms, "expert"]:
            gap = closed(values[what, "large"], values[what, "direct"], values[what, arm])
            kept.put(
                arm,
                f"gap closed, {what}",
                gap[0],
                n=len(values[what, arm]),
                low=gap[1],
                high=gap[2],
            )
            seeds = [
                closed(*(np.array(f[what][a], float) for a in ("large", "direct", arm)))[0]
                for f in found
            ]
            kept.put(arm, f"gap closed, {what}, the worst seed", min(seeds), n=len(seeds))
    for arm in (a for a in found[0]["apart"] if found[0]["apart"][a]):
        each = np.array([x for f in found for x in f["apart"][arm]])
        low, high = spread(each)
        kept.put(
            arm, "divergence from the whole mixture", each.mean(), n=len(each), low=low, high=high
        )
    for name in ("bytes", "opening"):
        each = np.array([x for f in found for x in f[name]], float)
        low, high = spread(each)
        kept.put("proxy, top 24", f"{name} a token", each.mean(), n=len(each), low=low, high=high)
    some = [s for f in found for s in f["spelt"]]
    for top in (128, 24):
        each = np.array([s[f"top {top}"] for s in some])
        low, high = spread(each)
        kept.put(f"byte by byte, top {top}", "nats", each.mean(), n=len(each), low=low, high=high)
        kept.put(
            f"byte by byte, top {top}",
            "crossings",
            np.mean([s[f"asked {top}"] for s in some]),
            n=len(some),
        )
        size = sum(s[f"size {top}"] for s in some) / sum(s[f"asked {top}"] for s in some)
        kept.put(f"byte by byte, top {top}", "bytes a crossing", size, n=len(some))
    step = max(1, INTENTS * ASKED // SPELT)
    same = np.array([x for f in found for x in f["nats"]["proxy"][::step]])
    kept.put("token by token, the same items", "nats", same.mean(), n=len(same))
    base = np.array([s["top 128"] for s in some]) - same
    low, high = spread(base)
    kept.put(
        "byte by byte, top 128",
        "nats more than token by token",
        base.mean(),
        n=len(base),
        low=low,
        high=high,
    )
    kept.write()
    for row, columns in kept._rows.items():
        print(row, {k: round(v["value"], 3) for k, v in columns.items()})


def spread(each: Any) -> tuple[float, float]:
    half = 1.96 * float(each.std(ddof=1)) / math.sqrt(len(each))
    return float(each.mean()) - half, float(each.mean()) + half


def closed(untuned: Any, direct: Any, arm: Any) -> tuple[float, float, float]:
    """The share of the gap that `arm` closes, with a 95 % bootstrap interval over the items."""
    rng, n = np.random.default_rng(0), len(arm)
    drawn = rng.integers(0, n, (2000, n))

    def share(at: Any) -> Any:
        gap = untuned[at].mean(axis=-1) - direct[at].mean(axis=-1)
        return (untuned[at].mean(axis=-1) - arm[at].mean(axis=-1)) / np.where(gap == 0, np.nan, gap)

    low, high = np.nanpercentile(share(drawn), [2.5, 97.5])
    return float(share(np.arange(n))), float(low), float(high)


if __name__ == "__main__":
    main()
