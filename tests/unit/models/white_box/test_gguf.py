"""A module goes out as GGUF and comes back the same; llama.cpp runs it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_lm
from cosilo.errors import CatalogError, ConfigError, StoreError
from cosilo.models.fit.decode_speed import measure
from cosilo.models.gguf.llamacpp import llamacpp
from cosilo.models.white_box import files as torch_files
from cosilo.models.white_box import gguf as torch_gguf
from cosilo.models.white_box.depth import without
from cosilo.models.white_box.lm import TorchModel, torch_lm
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.types import Sampling, user

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_lm.gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", layers=3)


def relative_error(a: Any, b: Any) -> float:
    return float(((a - b).norm() / b.norm()).detach())


@pytest.mark.parametrize(("quantisation", "most"), [("Q8_0", 0.01), ("Q4_0", 0.2)])
def test_what_is_exported_comes_back(
    source: Path, tmp_path: Path, quantisation: str, most: float
) -> None:
    module = tiny_lm.module(len(tiny_lm.tokenizer()), layers=2, seed=5)
    path = tmp_path / "out.gguf"
    torch_gguf.export(module, source, path, quantisation=quantisation, name="mine")
    again = torch_lm(path=path, precision="float32")
    assert len(again.module.model.layers) == 2
    for (name, mine), (other, theirs) in zip(
        module.named_parameters(), again.module.named_parameters(), strict=True
    ):
        assert name == other
        assert relative_error(theirs, mine) < most, name
    about = torch_gguf.read_fields(path)
    assert about["general.name"] == "mine"
    assert about["llama.block_count"] == 2
    kept = torch_gguf.read_fields(source)
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.chat_template"):
        assert about[key] == kept[key]
    assert again.vocabulary == ChatTokens(tiny_lm.tokenizer()).vocabulary


async def test_llama_cpp_predicts_what_torch_predicts(tmp_path: Path) -> None:
    """The order of what rotates together, the tokeniser and the template all enter here."""
    words = tiny_lm.tokenizer()
    module = tiny_lm.module(len(words), scale=10)  # else near uniform, and alike by themselves
    source = tiny_lm.gguf(tmp_path / "sharp.gguf", scale=10)
    mine = TorchModel.holding(module, ChatTokens(words), name="tiny")
    other = llamacpp(path=source, threads=1, n_ctx=512, parallel=1)
    far: list[float] = []
    try:
        for text in ("hello", "the refund is about delivery", "billing " * 9, "a b c", "world"):
            asked = user(text), Sampling(max_tokens=1, top_logprobs=20)
            ours, theirs = [await m.generate(*asked) for m in (mine, other)]
            assert ours.prompt_tokens == theirs.prompt_tokens
            if ours.tokens and theirs.tokens:  # else the turn ends at once
                first, second = dict(ours.tokens[0].top), dict(theirs.tokens[0].top)
                shared = (first.keys() & second.keys()) - {"�"}
                far += [abs(first[t] - second[t]) for t in shared]
    finally:
        await mine.close()
        await other.close()
    assert len(far) > 20
    assert np.mean(far) < 0.1


def test_a_file_is_unpacked_once_and_again_when_something_changed(source: Path) -> None:
    folder = torch_files.unpack(source)
    weights = folder / "model.safetensors"
    made = weights.stat().st_mtime_ns
    assert torch_files.unpack(source) == folder
    assert weights.stat().st_mtime_ns == made
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"x")
    torch_files.unpack(source)
    assert weights.read_bytes() == whole
    (folder / "config.json").unlink()
    torch_files.unpack(source)
    assert (folder / "config.json").exists()


def test_another_file_under_the_same_name_is_unpacked_anew(tmp_path: Path) -> None:
    path = tiny_lm.gguf(tmp_path / "x.gguf", layers=1, seed=1)
    first = torch_lm(path=path, precision="float32")
    first_norm = float(first.module.model.embed_tokens.weight.detach().norm())
    tiny_lm.gguf(path, layers=1, seed=2)
    second = torch_lm(path=path, precision="float32")
    assert float(second.module.model.embed_tokens.weight.detach().norm()) != first_norm
    assert second.identity != first.identity


def test_what_cannot_be_written_or_read_is_refused(source: Path, tmp_path: Path) -> None:
    module = tiny_lm.module(len(tiny_lm.tokenizer()))
    with pytest.raises(ConfigError, match="did you mean 'Q8_0'"):
        torch_gguf.export(module, source, tmp_path / "x", quantisation="Q8", name="x")
    with pytest.raises(StoreError, match="File exists"):
        torch_gguf.export(module, source, source / "x", name="x")
    module.config.model_type = "mamba"
    with pytest.raises(ConfigError, match="'mamba' module from a 'llama' GGUF"):
        torch_gguf.export(module, source, tmp_path / "x", name="x")
    strange = tiny_lm.gguf(tmp_path / "strange.gguf", layers=1, pre="invented")
    with pytest.raises(CatalogError, match="'invented'"):
        torch_lm(path=strange).tokenize(user("q"), "")
    assert not list(tmp_path.glob("x*"))


def test_a_file_is_timed_in_a_process_of_its_own(source: Path) -> None:
    ballast = np.ones(400_000_000, np.uint8)  # this process's memory is not the other's
    found = measure(source, threads=1, context=128)
    assert 0 < found.ms_per_token < 1000
    assert 10e6 < found.memory < len(ballast)


def test_a_model_without_layers_is_exported_too(source: Path, tmp_path: Path) -> None:
    model = torch_lm(path=source, precision="float32")
    student = without(model.module, [1])
    torch_gguf.export(student, source, tmp_path / "s.gguf", name="s")
    held = TorchModel.holding(student, model.tokens, name="s")
    again = torch_lm(path=tmp_path / "s.gguf")
    asked = [model.tokenize(user("hello"), "the refund")]
    ours, theirs = (asyncio.run(m.logits(asked))[0] for m in (held, again))
    np.testing.assert_allclose(ours, theirs, atol=0.05)
    assert torch.isfinite(torch.tensor(theirs)).all()
