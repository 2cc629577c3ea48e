"""A private head and its data owner without model files: vectors go by words, heads are made up."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from a_writer import WordEmbedder
from cosilo.models.base import Array, Shows
from cosilo.models.encoder.allowance import Allowance
from cosilo.models.encoder.encoder import Embedded
from cosilo.models.encoder.head import TrainedHead
from cosilo.models.encoder.private_head import PrivateHead
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.testing import LABELS

INPUTS = 16
SHOWS = Shows.TEXT | Shows.HEAD | Shows.JOINT

needs_tenseal = pytest.mark.skipif(
    find_spec("tenseal") is None, reason="TenSEAL is not installed: pip install 'cosilo[ckks]'"
)


class WordEncoder:
    """As much of an `Encoder` as heads ask for."""

    identity = "words"
    threads = 1

    def embed(self, texts: Sequence[str]) -> Embedded:
        vectors = WordEmbedder(INPUTS).embed(texts)
        none = (0.0,) * len(texts)
        return Embedded(vectors, (1,) * len(texts), none, none)

    def close(self) -> None: ...


class EncodingModel(ScriptedModel):
    """A small model whose encoder makes vectors; it is asked for no answer."""

    encoder = WordEncoder()

    def embed(self, texts: Sequence[str]) -> Array:
        return WordEmbedder(INPUTS).embed(texts)


def trained_head(
    labels: Sequence[str] = LABELS, *, seed: int = 0, scale: float = 4.0
) -> TrainedHead:
    drawn = np.random.default_rng(seed).normal(size=(len(labels), INPUTS + 1)) * scale
    return TrainedHead(
        tuple(labels), drawn[:, 1:].astype(np.float32), drawn[:, 0].astype(np.float32), 2.0
    )


def private_head(folder: Path, *, most: int = 50, **options: Any) -> PrivateHead:
    head = trained_head()
    allowance = Allowance(folder / "answers.sqlite", head.digest(), most) if most else None
    encoder: Any = WordEncoder()
    return PrivateHead(encoder, head, allowance, **options)


def owner_of(head: PrivateHead, client: str = "") -> LMOwner:
    return LMOwner(head, SHOWS, client=client)


def data_owner() -> DataOwner:
    return DataOwner(EncodingModel({}, name="small"))
