"""Heads over one encoder that answer together: the members of a classifier trained in shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np

from cosilo.errors import ConfigError
from cosilo.models.base import Array
from cosilo.models.encoder.head import TrainedHead
from cosilo.models.sharded import ShardAnswer, joined_rows

_FILE = "committee.json"


@dataclass(frozen=True)
class Committee:
    """Heads that answer together; a label that one does not know has no chance with it.

    Attributes:
        heads: at least one.
        answer: the mean of their probabilities, or their vote.
    """

    heads: tuple[TrainedHead, ...]
    answer: ShardAnswer = "mean"

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """All that any of them knows, sorted."""
        return tuple(sorted({label for head in self.heads for label in head.labels}))

    def probabilities(self, vectors: Array, texts: Sequence[str]) -> Array:
        """As `TrainedHead.probabilities`."""
        place = {label: i for i, label in enumerate(self.labels)}
        rows = []
        for head in self.heads:
            row = np.zeros((len(texts), len(place)), np.float32)
            row[:, [place[label] for label in head.labels]] = head.probabilities(vectors, texts)
            rows.append(row)
        return joined_rows(rows, self.answer)

    def digest(self) -> str:
        """A short hash of all that decides its answers."""
        told = json.dumps([self.answer, [head.digest() for head in self.heads]])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write each head into a folder of its own in `folder`; `load_head` reads them."""
        for number, head in enumerate(self.heads):
            head.save(folder / str(number))
        told = {"heads": len(self.heads), "answer": self.answer}
        (folder / _FILE).write_text(json.dumps(told), "utf-8")


def load_head(folder: Path) -> TrainedHead | Committee:
    """The head or the committee that was saved in `folder`.

    Raises:
        ConfigError: there is neither.
    """
    if not (folder / _FILE).is_file():
        return TrainedHead.load(folder)
    try:
        told = json.loads((folder / _FILE).read_text("utf-8"))
        count, answer = int(told["heads"]), told["answer"]
        if count < 1 or answer not in get_args(ShardAnswer):
            raise ValueError("committee")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{str(folder)!r} holds no committee of heads: {type(error).__name__}"
        ) from None
    return Committee(tuple(TrainedHead.load(folder / str(i)) for i in range(count)), answer)
