"""Ten gold examples a class, and the LM's states of a pool without labels (77 intents).

    python benchmarks/distil/banking77_states.py read [--seconds 330]   # the LM; until it says done
    python benchmarks/distil/banking77_states.py measure [--dev]        # no LM

`read` keeps the states of all training texts, by the same message that crosses in a run (torch, on a
GPU where there is one: a minute; on two cores an hour). `measure` runs the strategy over the boundary,
these states being served instead of computed again: three draws of the gold examples; the pool is all
other training texts but 2,000, and nobody sees its labels. `--dev` measures on these 2,000; the test
file is then read with what was chosen there. Beside it stands the same strategy with `trust = 0`: the
small model labels the pool by itself. Differences are paired over the items, the mean over the draws
of an item's difference; intervals are bootstraps over the items.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from banking77_texts import DEV, DRAWS, drawn, load, show

from cosilo.boundary.messages import Read, States
from cosilo.boundary.wire import states
from cosilo.models.base import Access, Array, Tokens
from cosilo.models.encoder.classifier import ClassifierModel
from cosilo.models.encoder.encoder import Encoder
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.downward.distil_states import TOGETHER, DistilStates
from cosilo.tasks.base import Example, Task
from cosilo.types import Demonstration, last_user

FRAME = 'A bank\'s customer writes: "{text}"\nIn one word, the customer\'s problem is: "'
LARGE = "qwen2.5-coder-1.5b-instruct"
ARMS = {f"trust {t:g}": DistilStates(frame=FRAME, trust=t) for t in (0.0, 0.5, 1.0)}


def framed(example: Example | Demonstration) -> str:
    return FRAME.replace("{text}", last_user(example.chat))


def read(task: Task, out: Path, seconds: float) -> None:
    """The states of all training texts, a file for every 512 of them."""
    from cosilo.models.white_box.lm import torch_lm

    owner = LMOwner(torch_lm(LARGE), exposes=Access.ACTIVATIONS.shows)
    texts, until = [framed(e) for e in task.splits["train"]], monotonic() + seconds
    for start in range(0, len(texts), 512):
        file = out / f"states-{start:05}.npy"
        if file.exists():
            continue
        if monotonic() > until:
            raise SystemExit(f"{start} of {len(texts)} texts read; run it again")
        found = []
        for i in range(start, min(start + 512, len(texts)), TOGETHER):
            some = tuple(texts[i : min(i + TOGETHER, start + 512)])
            reply = asyncio.run(owner.handle(Read(texts=some)))
            assert isinstance(reply, States)
            found.append(states.unpack(reply.packed, len(some)).astype(np.float16))
        np.save(file, np.concatenate(found))
    print("done")


class Known(ScriptedModel):
    """Serves states that were computed before."""

    layers = 1

    def __init__(self, texts: Sequence[str], found: Array) -> None:
        super().__init__(access=Access.ACTIVATIONS, name=LARGE)
        self.rows = {text: i for i, text in enumerate(texts)}
        self.found = found

    def plain(self, text: str) -> Tokens:
        return Tokens(np.array([self.rows[text]], np.int32), 1, ())

    async def activations(self, sequences: Sequence[Tokens], layer: int) -> list[Array]:
        return [self.found[s.ids].astype(np.float32) for s in sequences]


def divided(
    task: Task, draw: int
) -> tuple[list[Demonstration], list[Demonstration], list[Example]]:
    """Ten gold examples of every class, the pool without its labels, and the items to choose on."""
    gold, others = drawn(task, draw)
    pool = [Demonstration(e.id, e.chat, "") for e in others[DEV:]]
    return gold, pool, others[:DEV]


def scored(
    gold: Sequence[Demonstration],
    pool: Sequence[Demonstration],
    items: Sequence[Example],
    task: Task,
    lm: Known,
    how: DistilStates | None,
) -> list[int]:
    """Per item whether the small model is right: from gold alone, or with the pool as well."""
    model = ClassifierModel(ENCODER, features="embedding")
    if how is None:
        model = model.fit(gold)
    else:
        owner = DataOwner(model, private=tuple(gold), pool=tuple(pool))
        session = open_session(
            owner, LMOwner(lm, exposes=Access.ACTIVATIONS.shows), how, sampling=task.sampling
        )
        _, session = asyncio.run(how.prepare(session))
        print(dict(session.cards[-1].facts), session.lm.totals, flush=True)
        trained: Any = session.owner.model
        model = trained
    found = model.probabilities([last_user(e.chat) for e in items]).argmax(axis=1)
    return [int(model.labels[i] == e.target) for i, e in zip(found, items, strict=True)]


def measure(task: Task, out: Path, arms: Sequence[str], draws: Sequence[int], *, dev: bool) -> None:
    parts = [np.load(file) for file in sorted(out.glob("states-*.npy"))]
    texts = [framed(e) for e in task.splits["train"]]
    lm = Known(texts, np.concatenate(parts))
    for draw in draws:
        gold, pool, others = divided(task, draw)
        items = others if dev else list(task.splits["test"])
        for name in ("gold", *arms):
            file = out / f"{'dev' if dev else 'test'} {draw} {name}.json"
            if not file.exists():
                right = scored(gold, pool, items, task, lm, ARMS.get(name))
                file.write_text(json.dumps(right))
                print(draw, name, round(float(np.mean(right)), 4), flush=True)


def report(out: Path, *, dev: bool) -> None:
    kept = {}
    for file in sorted(out.glob(f"{'dev' if dev else 'test'} *.json")):
        kept[file.stem.partition(" ")[2]] = json.loads(file.read_text())
    names = {key.partition(" ")[2] for key in kept}
    whole = sorted(n for n in names if all(f"{d} {n}" in kept for d in DRAWS))
    if "gold" in whole:
        show(kept, whole)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["read", "measure", "report"])
    parser.add_argument("--dev", action="store_true")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--draws", nargs="*", type=int, default=list(DRAWS))
    parser.add_argument("--seconds", type=float, default=330)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/banking77"))
    parser.add_argument("--out", type=Path, default=Path("runs/distil_banking77_states"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    the_task = load(arguments.data)
    if arguments.what == "read":
        read(the_task, arguments.out, arguments.seconds)
    elif arguments.what == "measure":
        ENCODER = Encoder("minilm-int8")
        measure(the_task, arguments.out, arguments.arms, arguments.draws, dev=arguments.dev)
    if arguments.what != "read":
        report(arguments.out, dev=arguments.dev)
