"""A model trained in two hands: bytes a token against nats, and the CPU beside one process.

    python benchmarks/split_learning.py [--data ../shared/data/mts_dialog] [--cells FILE]
    python benchmarks/split_learning.py --cpu        # the CPU of two processes beside one
    python benchmarks/split_learning.py --show       # what was kept so far, and the file of results

SmolLM2-135M (torch, bfloat16, adapters in float32): four layers and the embedding at home, 24 at the
LM's owner, two, the head and the labels at home; LoRA of rank 8 on each part, AdamW at 1e-3. It learns
the language of
doctors' conversations (`mts_dialog`, train) in steps of 4 pieces of 32 tokens; `nats` are of the tokens
of 32 pieces of others (val) that no seed learns from, read at the end through 16-bit states, so that
codecs differ in what was learned and not in how it is read. Seeds draw the pieces and the adapters.

**Bytes** are those of `Forward` and `Backward` with everything around, for each token of the batch: up
are states and gradients, down are states and gradients, each added up (`states`: the larger of the two
crossings of states alone). A row is named by the codec of states and, where another, of gradients.
**CPU**: `cosilo host` in a process of its own behind TLS, with its books and each step on its disk,
and home with its notes on its own, both processes added up, beside the same steps by one optimiser for
each part in one process (single-threaded; the same seeds give the same losses); rounds interleaved.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Backward, Forward, OpenBody
from cosilo.boundary.transports.inside import InProcess
from cosilo.models.base import EVERYTHING, Tokens
from cosilo.models.parts import PartTuning
from cosilo.models.white_box.adapters import first_adapter, layers_to_adapt, with_adapter
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.ends import Ends
from cosilo.models.white_box.lm import TorchModel, torch_lm
from cosilo.models.white_box.training import Schedule, order
from cosilo.objectives.intervals import mean as mean_interval
from cosilo.parties.bodies import BodyTuning, ClientBodies
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.split_training import Codecs, Course, SplitTraining
from host import HostProcess
from kept import Cells, Kept, json_lines

MODEL = "smollm2-135m-instruct"
PRECISION: Any = "bfloat16"
FIRST, LAST = 4, 28
RANK, RATE = 8, 1e-3
STEPS, BATCH, LENGTH, HELD = 16, 4, 32, 32
SEEDS = (0, 1, 2)
KINDS = {
    "fp32": ("fp32", "fp32", "fp32", "fp32"),
    "fp16": ("fp16", "fp16", "fp16", "fp16"),
    "int8": ("int8", "int8", "int8", "int8"),
    "int4:128, int4:288": ("int4:128", "int4:128", "int4:288", "int4:288"),
    "int4:16, topk:0.25:int8": ("int4:16", "int4:16", "topk:0.25:int8", "topk:0.25:int8"),
    "int4:16, int2": ("int4:16", "int4:16", "int2", "int2"),
    "int4, topk:0.1:int8": ("int4", "int4", "topk:0.1:int8", "topk:0.1:int8"),
    "int4, lowrank:8": ("int4", "int4", "lowrank:8", "lowrank:8"),
    "int2, topk:0.05:int8": ("int2", "int2", "topk:0.05:int8", "topk:0.05:int8"),
    "topk:0.1:int8, topk:0.05:int8": (
        "topk:0.1:int8", "topk:0.1:int8", "topk:0.05:int8", "topk:0.05:int8",
    ),
    "lowrank:8, lowrank:4": ("lowrank:8", "lowrank:8", "lowrank:4", "lowrank:4"),
}  # fmt: skip
"""What states and gradients are packed by: states up, down, gradients up, down."""


class Counted(InProcess):
    """A road that counts bytes of what is trained with."""

    def __init__(self, party: LMOwner) -> None:
        super().__init__(party)
        self.up: list[int] = []
        self.down: list[int] = []

    async def carry(self, payload: bytes) -> bytes:
        answer = await super().carry(payload)
        if b"Forward" in payload[:24] or b"Backward" in payload[:24]:
            self.up.append(len(payload))
            self.down.append(len(answer))
        return answer


class Texts:
    """Pieces of conversations."""

    def __init__(self, model: TorchModel, data: Path) -> None:
        self.train = _pieces(model, data / "train.jsonl", 400)
        self.held = _pieces(model, data / "val.jsonl", HELD)

    def of(self, seed: int) -> list[Tokens]:
        return random.Random(seed).sample(self.train, STEPS * BATCH)


def _pieces(model: TorchModel, path: Path, most: int) -> list[Tokens]:
    """One piece of each conversation that is long enough: its first tokens predict the others."""
    found = []
    for row in json_lines(path):
        ids = model.plain(row["dialogue"]).ids[: LENGTH + 1]
        if len(ids) == LENGTH + 1 and len(found) < most:
            found.append(Tokens(ids, 1, (b"",) * LENGTH))
    return found


def course(seed: int, kind: str, **options: Any) -> Course:
    names = KINDS[kind]
    codecs = Codecs(
        states_up=names[0], states_down=names[1], gradients_up=names[2], gradients_down=names[3]
    )
    how = PartTuning(rank=RANK, learning_rate=RATE, seed=seed)
    usual: dict[str, Any] = {
        "first": FIRST, "last": LAST, "body": True, "how": how, "steps": STEPS, "batch": BATCH,
        "codecs": codecs, "key": bytes(32),
    }  # fmt: skip
    return Course(**{**usual, **options})


async def curve_cell(model: TorchModel, texts: Texts, seed: int, kind: str) -> dict[str, Any]:
    """One training, and what it left of the held-out pieces."""
    bodies = ClientBodies(BodyTuning(rank=RANK, learning_rate=RATE))
    road = Counted(LMOwner(model, EVERYTHING, bodies=bodies))
    lm = Boundary(road, declared=frozenset({OpenBody, Forward, Backward}))
    trained = course(seed, kind)
    ends = Ends(model.module, FIRST, LAST, trained.how)
    training = SplitTraining(lm, await model.base_digest(), ends, texts.of(seed), trained)
    progress = await training.run()
    tokens = STEPS * BATCH * LENGTH
    up, down = sum(road.up) / tokens, sum(road.down) / tokens
    states = max(sum(road.up[::2]), sum(road.down[::2])) / tokens
    groups = [texts.held[i : i + BATCH] for i in range(0, HELD, BATCH)]
    nats = [(await training.nats(group))[0] for group in groups]
    return {
        "nats": nats, "up": up, "down": down, "states": states, "losses": progress.losses,
        "dropped": len(progress.dropped),
    }  # fmt: skip


async def curve(given: argparse.Namespace, cells: Cells) -> None:
    model = torch_lm(model=MODEL, precision=PRECISION)
    texts = Texts(model, given.data)
    if "before" not in cells.done:
        groups = [texts.held[i : i + BATCH] for i in range(0, HELD, BATCH)]
        losses = [float(reply_loss(model.module, group).detach()) for group in groups]
        cells.put("before", {"nats": losses})
    for kind in given.only:
        for seed in SEEDS:
            name = f"{kind} | {seed}"
            if name not in cells.done:
                cells.put(name, await curve_cell(model, texts, seed, kind))
                print(name, round(float(np.mean(cells.done[name]["nats"])), 4), flush=True)
    await model.close()


# ── CPU ──────────────────────────────────────────────────────────────────────

ROUNDS = 5
HOST = """\
name = "lm-owner"
[model]
kind = "torch"
model = "{model}"
precision = "{precision}"
exposes = "weights"
[model.body]
rank = {rank}
learning_rate = {rate}
folder = "adapters"
[listen]
port = 0
[tls]
ca = "certs/ca.pem"
cert = "certs/host-localhost.pem"
key = "certs/host-localhost.key"
[clients.clinic]
"""


class OneProcess:
    """The same steps by a plain loop over the whole model, an optimiser for each part."""

    def __init__(self, model: TorchModel, texts: Sequence[Tokens], trained: Course) -> None:
        import torch

        seed = trained.how.seed
        self.whole = with_adapter(
            model.module, first_adapter(layers_to_adapt(model.module), RANK, seed=seed)
        )
        named = [(n, p) for n, p in self.whole.named_parameters() if p.requires_grad]
        inside = tuple(f".layers.{i}." for i in range(FIRST, LAST))
        body = [p for n, p in named if any(part in n for part in inside)]
        ends = [p for n, p in named if not any(part in n for part in inside)]
        self.parts = [body, ends]
        self.optimizers = [torch.optim.AdamW(p, lr=RATE, weight_decay=0.0) for p in self.parts]
        self.texts, self.trained, self.step = texts, trained, 0
        self.losses: list[float] = []

    def steps(self, count: int) -> None:
        import torch

        schedule = Schedule(steps=STEPS, batch=BATCH, seed=self.trained.how.seed)
        for _ in range(count):
            some = [self.texts[i] for i in order(len(self.texts), schedule, self.step)]
            loss = reply_loss(self.whole, some)
            loss.backward()
            self.optimizers[1].param_groups[0]["lr"] = self.trained.rate(self.step)
            for part, optimizer in zip(self.parts, self.optimizers, strict=True):
                torch.nn.utils.clip_grad_norm_(part, 1.0)
                optimizer.step()
                optimizer.zero_grad()
            self.losses.append(float(loss.detach()))
            self.step += 1


async def cpu(given: argparse.Namespace, cells: Cells) -> None:
    """Rounds of so many steps here, then there; the first of each is not counted."""
    import torch

    torch.set_num_threads(1)
    model = torch_lm(model=MODEL, precision=PRECISION)
    texts = Texts(model, given.data).of(0)
    trained = course(0, given.kind)
    alone = OneProcess(model, texts, trained)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        host = HostProcess(
            folder, HOST.format(precision=PRECISION, model=MODEL, rank=RANK, rate=RATE)
        )
        way = host.way()
        try:
            lm = Boundary(way, declared=frozenset({OpenBody, Forward, Backward}))
            ends = Ends(model.module, FIRST, LAST, trained.how)
            training = SplitTraining(
                lm, await model.base_digest(), ends, texts, trained, folder / "home"
            )
            await training.open(ends.state())
            each = STEPS // (ROUNDS + 1)
            rounds = []
            for number in range(ROUNDS + 1):
                begun = process_time()
                alone.steps(each)
                one = process_time() - begun
                begun, there = process_time(), host.cpu_seconds()
                for _ in range(each):
                    await training._step()
                    await asyncio.to_thread(training._noted)
                home, far = process_time() - begun, host.cpu_seconds() - there
                if number:
                    rounds.append({"one": one / each, "home": home / each, "owner": far / each})
                print(rounds[-1:], flush=True)
        finally:
            await way.close()
            host.stop()
    losses = [alone.losses, training.progress.losses]
    cells.put(f"cpu {given.kind}", {"rounds": rounds, "losses": losses})
    await model.close()


def show(cells: Cells) -> None:
    kept = Kept("split_learning", settings={
        "model": MODEL, "precision": PRECISION, "layers": [FIRST, LAST], "rank": RANK,
        "learning_rate": RATE, "steps": STEPS, "batch": [BATCH, LENGTH], "held_out": HELD,
        "seeds": list(SEEDS),
    })  # fmt: skip
    done = cells.done
    before = np.array(done["before"]["nats"])
    low, high = mean_interval(before, None)
    kept.put("before", "nats", float(before.mean()), n=len(before), low=low, high=high)
    for kind in KINDS:
        runs = [done.get(f"{kind} | {seed}") for seed in SEEDS]
        if None in runs:
            continue  # a row is of all seeds
        nats = np.array([run["nats"] for run in runs])
        each = nats.mean(axis=1)
        kept.put_mean(kind, "nats", each)
        for name in ("up", "down", "states"):
            kept.put(kind, name, float(np.mean([run[name] for run in runs])))
        if kind != "fp32":
            exact = np.array([done[f"fp32 | {seed}"]["nats"] for seed in SEEDS])
            worse = (nats - exact).mean(axis=1)
            kept.put_mean(kind, "worse", worse)
    for name, value in done.items():
        if name.startswith("cpu "):
            rounds = value["rounds"]
            ratio = np.array([(r["home"] + r["owner"]) / r["one"] for r in rounds])
            low, high = mean_interval(ratio, None)
            row = f"cpu, {name[4:]}"
            kept.put(row, "ratio", float(ratio.mean()), n=len(ratio), low=low, high=high)
            for part in ("one", "home", "owner"):
                kept.put(row, part, float(np.mean([r[part] for r in rounds])), n=len(rounds))
            apart = np.abs(np.subtract(*value["losses"])).max()
            kept.put(row, "losses apart", float(apart), n=len(value["losses"][0]))
    kept.write()
    print(json.dumps(kept.rows, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mts_dialog"))
    parser.add_argument("--cells", type=Path, default=Path("/tmp/split_learning.json"))
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--kind", default="fp16", choices=tuple(KINDS))
    parser.add_argument("--only", nargs="*", default=tuple(KINDS), choices=tuple(KINDS))
    parser.add_argument("--show", action="store_true")
    given = parser.parse_args()
    cells = Cells(given.cells)
    if given.show:
        show(cells)
    else:
        asyncio.run((cpu if given.cpu else curve)(given, cells))


if __name__ == "__main__":
    main()
