"""Four intents of customers' questions, dealt to owners that know them unlike: what `fedcollm.py` and
`fedmkt.py` share.

Intents of `banking77` are drawn by a seed. Of each, twelve training items are dealt to the owners by a
draw from Dirichlet(0.5), and twenty test items are read once. What is left of the training items is in
`left`, by intent. Trainings and answers are kept in a folder, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cosilo.models.white_box.adapters import Adapter, with_adapter
from cosilo.models.white_box.decoding import score
from cosilo.types import Chat, user
from kept import Kept, json_lines

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "banking77"
MODEL = "smollm2-135m-instruct"
INTENTS, ALPHA, DEALT, TEST, DRAWS = 4, 0.5, 12, 20, 4000
Item = tuple[str, str]
T = TypeVar("T")


class Dealt:
    """The data of one seed.

    Attributes:
        owners: each one's training items.
        left: of each intent the training items that no owner has.
        others: training items of all other intents.
    """

    def __init__(self, seed: int, owners: int) -> None:
        rng = np.random.default_rng(seed)
        every = {split: _rows(split) for split in ("train", "test")}
        names = sorted({label for _, label in every["train"]})
        chosen = sorted(rng.choice(names, INTENTS, replace=False).tolist())
        self.seed, self.labels = seed, [_spoken(name) for name in chosen]
        self.owners: list[list[Item]] = [[] for _ in range(owners)]
        self.left: list[list[Item]] = []
        self.test: list[Item] = []
        self.others = [(t, _spoken(name)) for t, name in every["train"] if name not in chosen]
        for name, spoken in zip(chosen, self.labels, strict=True):
            train, test = (
                [(text, spoken) for text, label in every[split] if label == name]
                for split in ("train", "test")
            )
            train = [train[i] for i in rng.permutation(len(train))]
            self.test += [test[i] for i in rng.permutation(len(test))[:TEST]]
            whose = rng.choice(owners, DEALT, p=rng.dirichlet([ALPHA] * owners))
            for item, owner in zip(train, whose, strict=False):
                self.owners[owner].append(item)
            self.left.append(train[DEALT:])
        for items in self.owners:  # one that has nothing could not take part
            if not items:
                items.append(max(self.owners, key=len).pop())


def _rows(split: str) -> list[Item]:
    return [(str(row["text"]), str(row["label"])) for row in json_lines(DATA / f"{split}.jsonl")]


def _spoken(name: str) -> str:
    return name.replace("_", " ").lower()


def asked(text: str) -> Chat:
    return user(f"What is this about? {text}")


class KeptWork:
    """Trainings and answers, each done once and kept in `how.cells`, until `how.minutes` are over."""

    def __init__(self, how: argparse.Namespace) -> None:
        self.how = how
        self._end = time.monotonic() + 60 * how.minutes

    def folder(self, seed: Dealt) -> Path:
        found: Path = self.how.cells / f"seed-{seed.seed}-{self.how.rounds}"
        found.mkdir(parents=True, exist_ok=True)
        return found

    def right(self, seed: Dealt, name: str, model: Any, adapter: Adapter | None) -> np.ndarray:
        """Whether each test item is answered right."""
        path = self.folder(seed) / f"{name}.json"

        def read() -> list[int]:
            import torch

            module = model.module if adapter is None else with_adapter(model.module, adapter)
            replies = [model.tokens.reply(label)[0] for label in seed.labels]
            with torch.no_grad():
                said = [
                    int(np.argmax(score(module, model.tokens.prompt(asked(text)), replies)))
                    for text, _ in seed.test
                ]
            return [int(seed.labels[s] == t) for s, (_, t) in zip(said, seed.test, strict=True)]

        if not path.exists():
            write(path, json.dumps(self.timed(f"{name} read", read)).encode())
        return np.array(json.loads(path.read_text()), np.float64)

    def timed(self, what: str, work: Callable[[], T]) -> T:
        """What `work` makes.

        Raises:
            TimeoutError: the minutes are over.
        """
        if time.monotonic() > self._end:
            raise TimeoutError
        before = time.process_time()
        found = work()
        print(f"{what}: {time.process_time() - before:.0f} s", flush=True)
        return found


def write(path: Path, data: bytes) -> None:
    """So that a kill leaves no half of it."""
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    beside.replace(path)


def parser(about: str, cells: Path) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=about.splitlines()[0])
    made.add_argument("--seeds", type=int, nargs="+", default=[0])
    made.add_argument("--rounds", type=int, default=2)
    made.add_argument("--minutes", type=float, default=1e6)
    made.add_argument("--cells", type=Path, default=cells)
    return made


def whole_seeds(run: Callable[[int], T], seeds: Sequence[int]) -> list[T]:
    """What came of the seeds for which there was time."""
    found: list[T] = []
    for number in seeds:
        try:
            found.append(run(number))
        except TimeoutError:
            print(f"out of time in seed {number}; the same command goes on there")
            break
    return found


def put_accuracies(
    kept: Kept, rows: Mapping[str, np.ndarray], pairs: Mapping[str, tuple[str, str]], seeds: int
) -> None:
    """Accuracies, and differences of two each, with a bootstrap of test items within intents.

    Args:
        rows: name → whether each test item is answered right, shape (seeds or more, items).
    """
    rng = np.random.default_rng(0)
    at = np.arange(INTENTS * TEST).reshape(INTENTS, TEST)
    draws = [np.concatenate([rng.choice(row, TEST) for row in at]) for _ in range(DRAWS)]
    every = dict(rows) | {name: rows[one] - rows[other] for name, (one, other) in pairs.items()}
    for name, values in every.items():
        drawn = [float(values[:, chosen].mean()) for chosen in draws]
        low, high = np.quantile(drawn, [0.025, 0.975])
        kept.put(name, "accuracy", float(values.mean()), n=values.size, low=low, high=high)
    kept.put("always one intent", "accuracy", 1 / INTENTS)
    kept.put("seeds", "count", seeds)
