"""Eight owners of unlike customers' questions: each alone, in a federation, and all data in one place.

    python benchmarks/federated.py [--seeds 0 1 2] [--minutes 60]
    python benchmarks/federated.py --tune [--momentum 0.7 …]      # on training items alone

Data: twelve intents of ../shared/data/banking77, drawn by the seed among those whose names begin with
different tokens, forty training items of each and twenty test items. An intent's training items are
dealt to eight owners by a draw from Dirichlet(0.3), so that owners know few intents well.
SmolLM2-135M-Instruct, LoRA of rank 8 on all linear layers of the upper four of thirty: what the layers
below say of a text is computed once (`upper.ReplyLossAbove`), as on two cores all thirty would take a
day. The model learns to write the intent's name; its answer is the one of the twelve whose first token
is likeliest. Alone, an owner trains as many steps as it does in all rounds together; pooled, one
training of as many steps as all owners take together, on all of their items. In a federation each
round is `--steps` steps at home, the rule of `cosilo.federation` with the owners' numbers of items as
weights, and the coordinator's own step with momentum, as the strategy `federated` and its coordinator
do it.

Every training and every test answer is kept in --cells, by seed, owner and round; a run that was
stopped goes on there, and one that is out of --minutes ends after what it is at. Test items are read
once all of a seed is trained. What is reported are the seeds that are whole. An owner's own test mix
weighs each intent as its training items do. Intervals are a bootstrap of test items within intents,
the same draws for all that are compared; over all seeds, of the seeds' mean. Settings were chosen
with --tune: other training items of another seed's intents in place of test items, looked at every
few rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.boundary.messages import Contribute, encode
from cosilo.boundary.wire import tensors
from cosilo.federation import OwnerUpdate, ServerStep, rules
from cosilo.models.base import Tokens, models
from cosilo.models.white_box.adapters import (
    Adapter,
    first_adapter,
    layers_to_adapt,
    merged_with,
    trained_adapter,
    usual_loss,
    with_adapter,
)
from cosilo.models.white_box.layers import layers_of
from cosilo.types import Turn
from kept import Kept, json_lines

DATA = Path("../shared/data/banking77")
MODEL = "smollm2-135m-instruct"
OWNERS, INTENTS, TRAIN, TEST, ALPHA, RANK, UPPER = 8, 12, 40, 20, 0.3, 8, 4
SYSTEM = "Intent?"  # short, as every token is paid for at every step
DRAWS, TUNE_SEED, LOOK = 2000, 100, 8

Item = tuple[str, str]


@cache
def model() -> Any:
    return models.create("torch", model=MODEL, precision="float32")


@cache
def first_token(label: str) -> int:
    found: int = model().tokens.reply(label)[0][0]
    return found


class Seed:
    """The data, owners and cells of one seed."""

    def __init__(self, seed: int, cells: Path, how: argparse.Namespace) -> None:
        rng = np.random.default_rng(seed)
        every = {split: _rows(split) for split in ("train", "test")}
        labels = sorted({label for _, label in every["train"]})
        drawn: dict[int, str] = {}
        for label in rng.permutation(labels).tolist():
            drawn.setdefault(first_token(label), label)
        self.labels = sorted(list(drawn.values())[:INTENTS])
        self.seed, self.how = seed, how
        self.test: list[Item] = []
        self.owners: list[list[Item]] = [[] for _ in range(OWNERS)]
        for label in self.labels:
            share = rng.dirichlet([ALPHA] * OWNERS)
            found = [item for item in every["train"] if item[1] == label]
            chosen = [found[k] for k in rng.permutation(len(found))]
            whose = rng.choice(OWNERS, TRAIN, p=share)
            for item, owner in zip(chosen[:TRAIN], whose, strict=True):
                self.owners[owner].append(item)
            if not how.tune:
                found = [item for item in every["test"] if item[1] == label]
                chosen = [found[k] for k in rng.permutation(len(found))]
            self.test += chosen[-TEST:]  # while tuning, training items that nobody trains on
        for owner in self.owners:  # one that has nothing could not take part
            if not owner:
                most = max(self.owners, key=len)
                owner.append(most.pop())
        how_long = f"{how.batch}-{how.rate:g}"
        server = f"{how.rule}-{how.momentum:g}-{how.server_rate:g}"
        self.cells = cells / f"seed-{seed}-{how.rounds}x{how.steps}x{how_long}-{server}"
        self.apart = (
            cells / f"seed-{seed}-{how.rounds * how.steps}x{how_long}"
        )  # without a federation
        for folder in (self.cells, self.apart):
            folder.mkdir(parents=True, exist_ok=True)

    def place(self, name: str) -> Path:
        """Where the cell of that name is."""
        return (self.cells if name.startswith(("round", "federated")) else self.apart) / name

    def own_mix(self, owner: int) -> np.ndarray:
        """The weight of each test item in an owner's own mix; together 1."""
        counts = Counter(label for _, label in self.owners[owner])
        found = np.array([counts[label] / TEST for _, label in self.test], np.float64)
        return found / found.sum()


def _rows(split: str) -> list[Item]:
    rows = json_lines(DATA / f"{split}.jsonl")
    return [(str(row["text"]), str(row["label"]).replace("_", " ")) for row in rows]


class Bench:
    def __init__(self, how: argparse.Namespace, model: Any) -> None:
        self.how, self.model = how, model
        count = len(layers_of(model.module))
        self.layers = layers_to_adapt(model.module, range(count - UPPER, count))
        self.loss: Any = usual_loss(model.module, first_adapter(self.layers, RANK, seed=0))
        self.end = time.monotonic() + 60 * how.minutes

    def tokens(self, item: Item) -> Tokens:
        text, label = item
        return self.model.tokenize((Turn("system", SYSTEM), Turn("user", text)), label)

    def trained(
        self, seed: Seed, name: str, start: Adapter, items: Sequence[Item], steps: int, draw: int,
        module: Any = None,
    ) -> Adapter:  # fmt: skip
        """`start` trained on `items`; the kept one where there is one."""
        path = seed.place(f"{name}.adapter")
        if not path.exists():
            self.require_time()
            before = time.process_time()
            found, outcome = trained_adapter(
                self.model.module if module is None else module, start,
                [self.tokens(item) for item in items], loss=self.loss,
                steps=steps, batch=self.how.batch, learning_rate=self.how.rate, seed=draw,
            )  # fmt: skip
            spent = time.process_time() - before
            print(
                f"{path.parent.name} {name}: {outcome.losses[-1]:.3f} nats, {spent:.0f} s",
                flush=True,
            )
            path.with_suffix(".new").write_bytes(tensors.pack(found.tensors))
            path.with_suffix(".new").replace(path)
        kept = tensors.unpack(path.read_bytes())
        return Adapter(start.rank, start.alpha, kept)

    def right(self, seed: Seed, name: str, module: Any) -> np.ndarray:
        """Whether each test item is answered right; kept."""
        path = seed.place(f"{name}.right.json")
        if not path.exists():
            self.require_time()
            import torch

            firsts = [first_token(label) for label in seed.labels]
            said: list[int] = []
            with torch.no_grad():
                for at in range(0, len(seed.test), 16):
                    part = [self.tokens(item) for item in seed.test[at : at + 16]]
                    places = np.cumsum([0, *(len(s) - s.start for s in part[:-1])])
                    chosen = self.loss.logits(module, part)[places][:, firsts].argmax(1).tolist()
                    said += [
                        int(s.ids[s.start] == firsts[c]) for s, c in zip(part, chosen, strict=True)
                    ]
            print(f"{path.parent.name} {name}: {np.mean(said):.3f} right", flush=True)
            path.with_suffix(".new").write_text(json.dumps(said))
            path.with_suffix(".new").replace(path)
        return np.array(json.loads(path.read_text()), np.float64)

    def require_time(self) -> None:
        if time.monotonic() > self.end:
            raise TimeoutError

    def run(self, seed: Seed) -> dict[str, Any]:
        module = self.model.module
        first = first_adapter(self.layers, RANK, seed=seed.seed)
        found: dict[str, Any] = {}
        ended = self.federated(seed, first, found)
        pooled, *alone = self.apart(seed, first)
        found["before"] = self.right(seed, "before", module)
        found["federated"] = self.right(seed, "federated", ended)
        found["pooled"] = self.right(seed, "pooled", with_adapter(module, pooled))
        for owner, adapter in enumerate(alone):
            name = f"alone-{owner}"
            found[name] = self.right(seed, name, with_adapter(module, adapter))
        return found

    def apart(self, seed: Seed, first: Adapter) -> list[Adapter]:
        """What all items in one place make of `first`, and what each owner's alone; while tuning the
        first of these only."""
        steps = self.how.rounds * self.how.steps
        everything = [item for owner in seed.owners for item in owner]
        found = [self.trained(seed, "pooled", first, everything, OWNERS * steps, seed.seed)]
        for owner, items in enumerate(() if self.how.tune else seed.owners):
            found.append(self.trained(seed, f"alone-{owner}", first, items, steps, seed.seed))
        return found

    def federated(self, seed: Seed, first: Adapter, found: dict[str, Any]) -> Any:
        """The model after all rounds; how far each round's average is off goes to `found`."""
        how, module = self.how, self.model.module
        step = ServerStep(how.momentum, how.server_rate)
        base, start, earlier = module, first, None
        for number in range(1, how.rounds + 1):
            updates = []
            for owner, items in enumerate(seed.owners):
                name = f"round-{number}-owner-{owner}"
                adapter = self.trained(
                    seed, name, start, items, how.steps, (seed.seed << 16) + number, base
                )
                updates.append(OwnerUpdate(f"{owner:02}", len(items), adapter.tensors))
            made = rules.create(how.rule)(updates, start.tensors)
            made = step(made, start.tensors, earlier)
            if made.adds:
                rank = max(len(t) for n, t in made.tensors.items() if n.endswith(".lora_A"))
                base = merged_with(base, Adapter(rank, 2.0 * rank, made.tensors))
            else:
                earlier, start = start.tensors, Adapter(RANK, 2.0 * RANK, made.tensors)
            found[f"error {number}"] = made.error or 0.0
            ended = base if made.adds else with_adapter(base, start)
            if how.tune and number % LOOK == 0:
                self.right(seed, f"round-{number}", ended)
        return ended


def measured(seed: Seed, found: dict[str, Any]) -> dict[str, np.ndarray]:
    """Of one seed: accuracies, and what a federation gains, by name; each as it is, and then as it is
    in every draw of the bootstrap."""
    rng = np.random.default_rng(0)
    at = np.arange(len(seed.test)).reshape(INTENTS, TEST)
    draws = [np.arange(len(seed.test))]
    draws += [np.concatenate([rng.choice(row, TEST) for row in at]) for _ in range(DRAWS)]
    mixes = [seed.own_mix(owner) for owner in range(OWNERS)]
    alone = [found[f"alone-{owner}"] for owner in range(OWNERS)]

    def own(chosen: np.ndarray, each: Sequence[np.ndarray]) -> float:
        """The mean over owners of what is right in its own mix."""
        return float(
            np.mean(
                [
                    (m[chosen] * x[chosen]).sum() / m[chosen].sum()
                    for m, x in zip(mixes, each, strict=True)
                ]
            )
        )

    def values(chosen: np.ndarray) -> dict[str, float]:
        even = {n: float(found[n][chosen].mean()) for n in ("before", "federated", "pooled")}
        lonely = float(np.mean([a[chosen].mean() for a in alone]))
        own_alone = own(chosen, alone)
        together, pooled = (own(chosen, [found[n]] * OWNERS) for n in ("federated", "pooled"))
        return {
            **even,
            "alone": lonely,
            "federated less alone": even["federated"] - lonely,
            "federated of pooled": even["federated"] / max(even["pooled"], 1e-9),
            "own mix, alone": own_alone,
            "own mix, federated": together,
            "own mix, pooled": pooled,
            "own mix, federated less alone": together - own_alone,
            "own mix, federated of pooled": together / max(pooled, 1e-9),
            **{
                f"owner {o}, federated less alone": even["federated"] - float(a[chosen].mean())
                for o, a in enumerate(alone)
            },
            **{
                f"owner {o}, own mix, federated less alone": (
                    (mixes[o] * (found["federated"] - a))[chosen].sum() / mixes[o][chosen].sum()
                )
                for o, a in enumerate(alone)
            },
        }

    drawn = [values(chosen) for chosen in draws]
    return {name: np.array([d[name] for d in drawn]) for name in drawn[0]}


def interval(drawn: np.ndarray) -> tuple[float, float, float]:
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return float(drawn[0]), float(low), float(high)


def owners_better(every: Sequence[dict[str, np.ndarray]], mix: str) -> tuple[int, int, float]:
    """(owners whose gain's interval is above 0, those whose gain is, the least gain), of all seeds."""
    gains = [
        interval(values[f"owner {owner}, {mix}federated less alone"])
        for values in every
        for owner in range(OWNERS)
    ]
    above = sum(low > 0 for _, low, _ in gains), sum(value > 0 for value, _, _ in gains)
    return *above, min(value for value, _, _ in gains)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--momentum", type=float, default=0.85)
    parser.add_argument("--server-rate", type=float, default=1.0)
    parser.add_argument("--tune", action="store_true", help="on training items alone")
    parser.add_argument("--rule", default="average")
    parser.add_argument("--minutes", type=float, default=1e6)
    parser.add_argument("--cells", type=Path, default=Path("/tmp/federated_cells"))
    how = parser.parse_args()
    bench = Bench(how, model())
    if how.tune:
        bench.run(Seed(TUNE_SEED, how.cells / "tune", how))
        return
    kept = Kept(
        f"federated_{how.rule}",
        settings={
            "rounds": how.rounds, "steps": how.steps, "batch": how.batch, "rate": how.rate,
            "momentum": how.momentum, "server rate": how.server_rate, "rank": RANK,
            "upper layers": UPPER, "owners": OWNERS,
        },
    )  # fmt: skip
    every: list[dict[str, np.ndarray]] = []
    for number in how.seeds:
        seed = Seed(number, how.cells, how)
        try:
            found = bench.run(seed)
        except TimeoutError:
            print(f"out of time in seed {number}; the same command goes on there")
            break
        values = measured(seed, found)
        every.append(values)
        for name, drawn in values.items():
            value, low, high = interval(drawn)
            kept.put(f"seed {number}", name, value, n=len(seed.test), low=low, high=high)
        for rounds in range(1, how.rounds + 1):
            kept.put(f"seed {number}", f"error of round {rounds}", found[f"error {rounds}"])
    if not every:
        return
    items = sum(len(Seed(number, how.cells, how).test) for number in how.seeds[: len(every)])
    for name in every[0]:
        if not name.startswith("owner "):  # they are others in each seed
            value, low, high = interval(np.mean([values[name] for values in every], axis=0))
            kept.put("all seeds", name, value, n=items, low=low, high=high)
    for mix, row in (("", "each owner"), ("own mix, ", "each owner, own mix")):
        surely, better, least = owners_better(every, mix)
        kept.put(row, "gain with its interval above 0", surely, n=OWNERS * len(every))
        kept.put(row, "gain above 0", better, n=OWNERS * len(every))
        kept.put(row, "least gain", least, n=OWNERS * len(every))
    packed = tensors.pack(first_adapter(bench.layers, RANK, seed=0).tensors)
    numbers = sum(RANK * (out + into) for out, into in bench.layers.values())
    message = Contribute(federation="0" * 32, number=1, rank=RANK, packed=packed)
    kept.put("payload", "numbers", numbers)
    kept.put("payload", "bytes of an update", len(encode(message)))
    kept.put("payload", "over its numbers", len(encode(message)) / (4 * numbers))
    kept.write()


if __name__ == "__main__":
    main()
