"""Eight owners of unlike customers' questions: each alone, in a federation, and all data in one place.

    python benchmarks/federated.py [--seeds 0 1 2] [--minutes 60]
    python benchmarks/federated.py --tune [--rates 1e-3 2e-3]     # on training items alone

Data: twelve intents of ../shared/data/banking77, drawn by the seed among those whose names begin with
different tokens, forty training items of each and twenty test items. An intent's training items are
dealt to eight owners by a draw from Dirichlet(0.3), so that owners know few intents well.
SmolLM2-135M-Instruct, LoRA of rank 8 on all linear layers of the upper four of thirty: what the layers
below say of a text is computed once (`upper.ReplyLossAbove`), as on two cores all thirty would take a
day. The model learns to write the intent's name; its answer is the one of the twelve whose first token
is likeliest. Alone, an owner trains as many steps as it does in all rounds together; pooled, one
training of as many steps as all owners take together, on all of their items. In a federation each
round is `--steps` steps at home and the rule of `cosilo.federation`, as the strategy `federated`
does it.

Every training and every test answer is kept in --cells, by seed, owner and round; a run that was
stopped goes on there, and one that is out of --minutes ends after what it is at. What is reported
are the seeds that are whole. An owner's own test mix weighs each intent as its training items do.
Intervals are a bootstrap of test items within intents, the same draws for all that are compared.
Settings were chosen with --tune: other training items of another seed's intents in place of test items.
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
from cosilo.federation import OwnerUpdate, rules
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
OWNERS, INTENTS, TRAIN, TEST, ALPHA, RANK, BATCH, UPPER = 8, 12, 40, 20, 0.3, 8, 8, 4
SYSTEM = "Intent?"  # short, as every token is paid for at every step
DRAWS, TUNE_SEED = 2000, 100

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
        self.cells = cells / f"seed-{seed}-{how.rule}-{how.rounds}x{how.steps}-{how.rate:g}"
        self.cells.mkdir(parents=True, exist_ok=True)

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
        path = seed.cells / f"{name}.adapter"
        if not path.exists():
            self.require_time()
            before = time.process_time()
            found, outcome = trained_adapter(
                self.model.module if module is None else module, start,
                [self.tokens(item) for item in items], loss=self.loss,
                steps=steps, batch=BATCH, learning_rate=self.how.rate, seed=draw,
            )  # fmt: skip
            spent = time.process_time() - before
            print(
                f"{seed.cells.name} {name}: {outcome.losses[-1]:.3f} nats, {spent:.0f} s",
                flush=True,
            )
            path.with_suffix(".new").write_bytes(tensors.pack(found.tensors))
            path.with_suffix(".new").replace(path)
        kept = tensors.unpack(path.read_bytes())
        return Adapter(start.rank, start.alpha, kept)

    def right(self, seed: Seed, name: str, module: Any) -> np.ndarray:
        """Whether each test item is answered right; kept."""
        path = seed.cells / f"{name}.right.json"
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
            print(f"{seed.cells.name} {name}: {np.mean(said):.3f} right", flush=True)
            path.with_suffix(".new").write_text(json.dumps(said))
            path.with_suffix(".new").replace(path)
        return np.array(json.loads(path.read_text()), np.float64)

    def require_time(self) -> None:
        if time.monotonic() > self.end:
            raise TimeoutError

    def run(self, seed: Seed) -> dict[str, Any]:
        how, module = self.how, self.model.module
        first = first_adapter(self.layers, RANK, seed=seed.seed)
        found: dict[str, Any] = {"before": self.right(seed, "before", module)}
        base, start = module, first
        for number in range(1, how.rounds + 1):
            updates = []
            for owner, items in enumerate(seed.owners):
                name = f"round-{number}-owner-{owner}"
                adapter = self.trained(
                    seed, name, start, items, how.steps, (seed.seed << 16) + number, base
                )
                updates.append(OwnerUpdate(f"{owner:02}", len(items), adapter.tensors))
            made = rules.create(how.rule)(updates, start.tensors)
            if made.adds:
                rank = max(len(t) for n, t in made.tensors.items() if n.endswith(".lora_A"))
                base = merged_with(base, Adapter(rank, 2.0 * rank, made.tensors))
            else:
                start = Adapter(RANK, 2.0 * RANK, made.tensors)
            found[f"error {number}"] = made.error or 0.0
        ended = base if made.adds else with_adapter(base, start)
        found["federated"] = self.right(seed, "federated", ended)
        everything = [item for owner in seed.owners for item in owner]
        steps = how.rounds * how.steps
        pooled = self.trained(seed, "pooled", first, everything, OWNERS * steps, seed.seed)
        found["pooled"] = self.right(seed, "pooled", with_adapter(module, pooled))
        for owner, items in enumerate(seed.owners):
            alone = self.trained(seed, f"alone-{owner}", first, items, steps, seed.seed)
            name = f"alone-{owner}"
            found[name] = self.right(seed, name, with_adapter(module, alone))
        return found


def measured(seed: Seed, found: dict[str, Any]) -> dict[str, tuple[float, float, float]]:
    """Name → (value, low, high) of one seed: accuracies, and what a federation gains."""
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
        }

    drawn = [values(chosen) for chosen in draws]
    out = {}
    for name, value in drawn[0].items():
        low, high = np.quantile([d[name] for d in drawn[1:]], [0.025, 0.975])
        out[name] = (value, float(low), float(high))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--tune", action="store_true", help="try --rates on training items alone")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3])
    parser.add_argument("--rule", default="average")
    parser.add_argument("--minutes", type=float, default=1e6)
    parser.add_argument("--cells", type=Path, default=Path("/tmp/federated_cells"))
    how = parser.parse_args()
    bench = Bench(how, model())
    if how.tune:
        how.cells = how.cells / "tune"
        for rate in how.rates:
            how.rate = rate
            bench.run(Seed(TUNE_SEED, how.cells, how))
        return
    kept = Kept(
        f"federated_{how.rule}",
        settings={
            "rounds": how.rounds, "steps": how.steps, "rate": how.rate, "rank": RANK,
            "upper layers": UPPER, "owners": OWNERS,
        },
    )  # fmt: skip
    every: list[dict[str, tuple[float, float, float]]] = []
    for number in how.seeds:
        seed = Seed(number, how.cells, how)
        try:
            found = bench.run(seed)
        except TimeoutError:
            print(f"out of time in seed {number}; the same command goes on there")
            break
        values = measured(seed, found)
        every.append(values)
        for name, (value, low, high) in values.items():
            kept.put(f"seed {number}", name, value, n=len(seed.test), low=low, high=high)
        for rounds in range(1, how.rounds + 1):
            kept.put(f"seed {number}", f"error of round {rounds}", found[f"error {rounds}"])
    if not every:
        return
    for name in every[0]:
        each = [values[name][0] for values in every]
        kept.put(
            "all seeds", name, float(np.mean(each)), n=len(each), low=min(each), high=max(each)
        )
    packed = tensors.pack(first_adapter(bench.layers, RANK, seed=0).tensors)
    numbers = sum(RANK * (out + into) for out, into in bench.layers.values())
    message = Contribute(federation="0" * 32, number=1, rank=RANK, packed=packed)
    kept.put("payload", "numbers", numbers)
    kept.put("payload", "bytes of an update", len(encode(message)))
    kept.put("payload", "over its numbers", len(encode(message)) / (4 * numbers))
    kept.write()


if __name__ == "__main__":
    main()
