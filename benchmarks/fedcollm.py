"""Three owners of a small model and the owner of a large one: what each is worth alone, and together.

    python benchmarks/fedcollm.py [--seeds 0] [--rounds 2] [--minutes 60] [--cells FOLDER]

Data: four intents of ../shared/data/banking77, drawn by the seed. Of each, twelve training items are
dealt to three owners by a draw from Dirichlet(0.5), six are public, with their targets, at the
coordinator, three are those of a fourth owner that does not take part; twenty test items, read
once. The large model is SmolLM2-135M-Instruct, the small one its first six and last six layers, not
healed; LoRA of rank 8 on both.

    alone       an owner's adapter, trained on its own items as many steps as in all rounds together
    federated   the owners' adapters averaged (strategy `federated`), no large model
    fedcollm    the same, and after each round the two models teach each other on the public items
    public      a model trained on the public items alone, in as many steps as in all exchanges together

Trainings and test answers are kept in --cells; a run that was stopped goes on there. Intervals are a
bootstrap of test items within intents, paired.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.boundary.wire import tensors
from cosilo.federation import OwnerUpdate, rules
from cosilo.models.base import models
from cosilo.models.fit.mutual import MutualLM, MutualTerms, PublicExample
from cosilo.models.white_box.adapters import (
    Adapter,
    first_adapter,
    layers_to_adapt,
    trained_adapter,
)
from cosilo.models.white_box.depth import without
from cosilo.models.white_box.lm import TorchModel
from dealt_intents import (
    MODEL,
    Dealt,
    Item,
    KeptWork,
    asked,
    parser,
    put_accuracies,
    whole_seeds,
    write,
)
from kept import Kept

OWNERS, RANK, BATCH = 3, 8, 6
PUBLIC, ABSENT = 6, 3  # items of each intent
ENDS = 6
STEPS, RATE = 15, 2e-3  # of an owner, each round
EXCHANGE, LARGE_RATE = 8, 1e-3  # steps of an exchange
Tensors = Mapping[str, Any]


class Seed(Dealt):
    """The data of one seed."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, OWNERS)
        self.public = [item for left in self.left for item in left[:PUBLIC]]
        self.absent = [item for left in self.left for item in left[PUBLIC : PUBLIC + ABSENT]]


class Bench(KeptWork):
    def __init__(self, how: argparse.Namespace) -> None:
        super().__init__(how)
        self.large: Any = models.create("torch", model=MODEL, precision="float32")
        layers = self.large.layers
        module = without(self.large.module, range(ENDS, layers - ENDS))
        self.small = TorchModel.holding(
            module, self.large.tokens, name=f"{MODEL}, {2 * ENDS} layers"
        )

    def kept(self, seed: Seed, name: str, made: Callable[[], Tensors]) -> Tensors:
        path = self.folder(seed) / f"{name}.adapter"
        if not path.exists():
            write(path, tensors.pack(self.timed(path.stem, made)))
        return tensors.unpack(path.read_bytes())

    def home(self, start: Adapter, items: list[Item], steps: int, draw: int) -> Tensors:
        sequences = [self.small.tokenize(asked(text), label) for text, label in items]
        return trained_adapter(
            self.small.module, start, sequences,
            steps=steps, batch=BATCH, learning_rate=RATE, seed=draw,
        )[0].tensors  # fmt: skip

    def mutual(self, seed: Seed, weight: float) -> MutualLM:
        terms = MutualTerms(
            steps=EXCHANGE, batch=BATCH, learning_rate=LARGE_RATE, small_learning_rate=RATE,
            rank=RANK, weight=weight, seed=seed.seed,
        )  # fmt: skip
        public = [PublicExample(asked(text), label) for text, label in seed.public]
        return MutualLM(self.large, self.small, public, terms)

    def together(self, seed: Seed, weight: float | None, name: str) -> dict[str, Adapter]:
        """The adapters that come of all rounds; without exchanges where `weight` is None."""
        start = first_adapter(layers_to_adapt(self.small.module), RANK, seed=seed.seed)
        large: Tensors | None = None
        pair = None if weight is None else self.mutual(seed, weight)
        for number in range(1, self.how.rounds + 1):
            updates = []
            for owner, items in enumerate(seed.owners):
                cell = f"{name if number > 1 else 'first'}-{number}-{owner}"
                draw, begun = (seed.seed << 16) + number, start
                found = self.kept(
                    seed, cell, lambda i=items, b=begun, d=draw: self.home(b, i, STEPS, d)
                )
                updates.append(OwnerUpdate(f"{owner}", 1.0, found))
            made = rules.create("average")(updates, start.tensors).tensors
            if pair is not None:
                both = self.kept(
                    seed, f"{name}-{number}-both",
                    lambda n=number, m=made, before=large: _joined(
                        pair.exchange(n, m, 2.0, before, None)
                    ),
                )  # fmt: skip
                made, large = (
                    {n[1:]: t for n, t in both.items() if n.startswith(which)} for which in "sl"
                )
            start = Adapter(RANK, 2.0 * RANK, made)
        adapters = {"small": start}
        if large is not None:
            adapters["large"] = Adapter(RANK, 2.0 * RANK, large)
        return adapters

    def public_alone(self, seed: Seed) -> dict[str, Adapter]:
        """Both models, trained on the public items alone."""
        pair = self.mutual(seed, 0.0)
        small: Tensors = first_adapter(
            layers_to_adapt(self.small.module), RANK, seed=seed.seed
        ).tensors
        large: Tensors | None = None
        for number in range(1, self.how.rounds + 1):
            both = self.kept(
                seed, f"public-{number}-both",
                lambda n=number, s=small, before=large: _joined(pair.exchange(n, s, 2.0, before, None)),
            )  # fmt: skip
            small, large = ({n[1:]: t for n, t in both.items() if n[0] == w} for w in "sl")
        assert large is not None
        return {
            "small": Adapter(RANK, 2.0 * RANK, small),
            "large": Adapter(RANK, 2.0 * RANK, large),
        }

    def run(self, seed: Seed) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}

        def read(name: str, model: Any, adapter: Adapter | None) -> None:
            found[name] = self.right(seed, name, model, adapter)

        read("large before", self.large, None)
        read("small before", self.small, None)
        ours = self.together(seed, 1.0, "fedcollm")
        read("large fedcollm", self.large, ours["large"])
        read("small fedcollm", self.small, ours["small"])
        public = self.public_alone(seed)
        read("large public", self.large, public["large"])
        read("small public", self.small, public["small"])
        read("small federated", self.small, self.together(seed, None, "federated")["small"])
        first = first_adapter(layers_to_adapt(self.small.module), RANK, seed=seed.seed)
        steps = STEPS * self.how.rounds
        for name, items in [*enumerate(seed.owners), ("absent", seed.absent)]:
            alone = self.kept(
                seed, f"alone-{name}", lambda i=items: self.home(first, i, steps, seed.seed)
            )
            read(f"small alone {name}", self.small, Adapter(RANK, 2.0 * RANK, alone))
        return found


def _joined(found: Any) -> dict[str, Any]:
    """Both adapters under one set of names."""
    both = {f"s{n}": t for n, t in found.small.items()}
    return both | {f"l{n}": t for n, t in found.large.items()}


def report(kept: Kept, every: list[dict[str, np.ndarray]]) -> None:
    whole = {name: np.stack([found[name] for found in every]) for name in every[0]}
    names = [f"small alone {owner}" for owner in range(OWNERS)]
    whole["small alone"] = np.mean([whole[name] for name in names], axis=0)
    pairs = {
        "large: fedcollm − public": ("large fedcollm", "large public"),
        "large: fedcollm − before": ("large fedcollm", "large before"),
        "small: fedcollm − federated": ("small fedcollm", "small federated"),
        "small: fedcollm − public": ("small fedcollm", "small public"),
        "small: fedcollm − alone": ("small fedcollm", "small alone"),
        "absent owner: fedcollm − alone": ("small fedcollm", "small alone absent"),
    }
    rows = {name: right for name, right in whole.items() if name not in names}
    put_accuracies(kept, rows, pairs, len(every))


def main() -> None:
    how = parser(__doc__ or "", Path("/tmp/fedcollm_cells")).parse_args()
    bench = Bench(how)
    if every := whole_seeds(lambda number: bench.run(Seed(number)), how.seeds):
        kept = Kept(
            "fedcollm",
            settings={"rounds": how.rounds, "steps": STEPS, "exchange": EXCHANGE, "rank": RANK},
        )
        report(kept, every)
        kept.write()


if __name__ == "__main__":
    main()
