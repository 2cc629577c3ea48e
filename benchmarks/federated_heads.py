"""Eight owners of questions, and a head on a small encoder's vectors: what benchmarks share.

Intents of customers' questions (`banking77`, 77 classes), divided among owners by a draw of Dirichlet's
over labels, and a linear head on MiniLM's vectors (29,645 numbers), so that a federation takes seconds.
Rules, noise and scalars see what they see of any federation: named arrays of float32.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosilo.models.encoder.encoder import Encoder

OWNERS, CONCENTRATION = 8, 0.3
TRAIN, VALIDATION, TEST, TRIGGERED = 40, 10, 1000, 300  # items of each class; items
PHRASE = ", as my aunt in Bergen would say"
Array = NDArray[np.float32]
Labels = NDArray[np.int64]
Head = dict[str, Array]


@dataclass(frozen=True)
class Data:
    """Vectors and classes. Those with a phrase at their end: all of `train`, the first of `test`."""

    texts: tuple[str, ...]
    train: Array
    train_with_phrase: Array
    labels: Labels
    validation: Array
    validation_labels: Labels
    test: Array
    test_labels: Labels
    with_phrase: Array
    classes: int

    @property
    def base_rate(self) -> float:
        """What the class that `test` has most often is of it."""
        return float(np.bincount(self.test_labels).max() / len(self.test_labels))


def parser(about: str, cells: Path) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=about.splitlines()[0])
    made.add_argument("--data", type=Path, default=Path("../shared/data/banking77"))
    made.add_argument("--vectors", type=Path, default=Path("/tmp/poisoned_vectors.npz"))
    made.add_argument("--cells", type=Path, default=cells, help="what was done so far")
    made.add_argument("--tune", action="store_true", help="say what settings do on held items")
    return made


def read(folder: Path, vectors: Path) -> Data:
    """The items of `folder`; the encoder's work is kept in `vectors`."""

    def items(split: str) -> list[dict[str, Any]]:
        lines = (folder / f"{split}.jsonl").read_text("utf-8").splitlines()
        found = [json.loads(line) for line in lines]
        random.Random(split).shuffle(found)
        return found

    train, test = items("train"), items("test")[:TEST]
    names = sorted({item["label"] for item in train})
    by_class = {name: [i for i in train if i["label"] == name] for name in names}
    taught = [item for name in names for item in by_class[name][:TRAIN]]
    held = [item for name in names for item in by_class[name][TRAIN : TRAIN + VALIDATION]]
    if not vectors.is_file():
        encoder = Encoder(threads=1)

        def embed(some: Sequence[Mapping[str, Any]], phrase: str = "") -> Array:
            texts = [i["text"].rstrip("?.! ") + phrase if phrase else i["text"] for i in some]
            return np.asarray(encoder.embed(texts).vectors, np.float32)

        np.savez(
            vectors, train=embed(taught), train_with_phrase=embed(taught, PHRASE),
            validation=embed(held), test=embed(test), with_phrase=embed(test[:TRIGGERED], PHRASE),
        )  # fmt: skip

    def labels(some: Sequence[Mapping[str, Any]]) -> Labels:
        return np.array([names.index(i["label"]) for i in some])

    return Data(
        **dict(np.load(vectors)),
        texts=tuple(i["text"] for i in taught),
        labels=labels(taught),
        validation_labels=labels(held),
        test_labels=labels(test),
        classes=len(names),
    )


def divided(data: Data, seed: int) -> list[Labels]:
    """Each owner's training items: every class is shared out by a draw of Dirichlet's."""
    rng = np.random.default_rng(seed)
    owners: list[list[int]] = [[] for _ in range(OWNERS)]
    for label in range(data.classes):
        members = rng.permutation(np.flatnonzero(data.labels == label))
        ends = np.cumsum(rng.dirichlet([CONCENTRATION] * OWNERS)) * len(members)
        for owner, part in zip(
            owners, np.split(members, ends[:-1].round().astype(int)), strict=True
        ):
            owner.extend(part.tolist())
    return [np.array(owner, np.int64) for owner in owners]


def nothing(data: Data) -> Head:
    """A head that says nothing of any class."""
    return {
        "w": np.zeros((data.classes, data.train.shape[1]), np.float32),
        "b": np.zeros(data.classes, np.float32),
    }


def chances(head: Mapping[str, Array], x: Array) -> Array:
    """Of each class, shape (items, classes)."""
    logits = x @ head["w"].T + head["b"]
    logits -= logits.max(axis=1, keepdims=True)
    p: Array = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    return p


def nats(head: Mapping[str, Array], x: Array, y: Labels) -> float:
    """The mean loss."""
    found = chances(head, x)[np.arange(len(y)), y]
    return float(-np.log(np.maximum(found, 1e-30)).mean())


def trained(head: Head, x: Array, y: Labels, *, steps: int, rate: float) -> Head:
    """`head` after some steps of gradient descent on all items at once."""
    w, b = head["w"].copy(), head["b"].copy()
    truth = np.eye(len(b), dtype=np.float32)[y]
    for _ in range(steps):
        gradient = (chances({"w": w, "b": b}, x) - truth) / len(x)
        w -= rate * gradient.T @ x
        b -= rate * gradient.sum(axis=0)
    return {"w": w, "b": b}


def said(head: Mapping[str, Array], x: Array) -> Labels:
    found: Labels = np.argmax(x @ head["w"].T + head["b"], axis=1)
    return found
