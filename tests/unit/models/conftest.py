"""A tiny language model on disk, and opened by the torch back end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tiny_lm

if TYPE_CHECKING:
    from cosilo.models.white_box.lm import TorchModel


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_lm.folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def model(place: Path) -> TorchModel:
    from cosilo.models.white_box.lm import torch_lm

    return torch_lm(path=place, precision="float32", batch=4, epochs=4, learning_rate=1e-2)
