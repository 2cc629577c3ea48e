"""A torch Llama as plain arrays says what the module says, with an adapter in it or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import tiny_lm
from cosilo.engines import llama
from cosilo.errors import CapabilityError, DataError
from cosilo.models.plain_llama import JointTerms, has_plain_llama
from cosilo.models.white_box.adapters import first_adapter, layers_to_adapt, with_adapter
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.plain_llama import require_plain
from cosilo.parties.joint_llama import as_program
from white_box import tiny

IDS = [5, 17, 40, 9, 9, 23]


def adapted(model: TorchModel, layers: list[int], seed: int = 3) -> TorchModel:
    """`model` with an adapter on some layers that changes what they say."""
    adapter = first_adapter(layers_to_adapt(model.module, layers), 2, seed=seed)
    drawn = np.random.default_rng(seed)
    tensors = {
        name: tensor if name.endswith("lora_A") else drawn.normal(0, 0.3, tensor.shape)
        for name, tensor in adapter.tensors.items()
    }
    changed = type(adapter)(2, 4.0, {n: t.astype(np.float32) for n, t in tensors.items()})
    return model.with_module(with_adapter(model.module, changed))


@pytest.mark.parametrize("with_lora", [False, True])
def test_the_arrays_say_what_the_module_says(with_lora: bool) -> None:
    model = adapted(tiny(0, scale=3.0), [1]) if with_lora else tiny(0, scale=3.0)
    whole = as_program(model.plain_llama(0))
    states, before = llama.forward(whole, whole.table[IDS])
    expected = model.said_after(IDS)
    np.testing.assert_allclose(llama.logits(whole, states)[-1], expected, atol=2e-4)
    upper = as_program(model.plain_llama(1))
    below = model.states_after(IDS, 1)
    np.testing.assert_allclose(below, before[2], atol=2e-4)
    states, _ = llama.forward(upper, below)
    np.testing.assert_allclose(llama.logits(upper, states)[-1], expected, atol=2e-4)


def test_only_rows_of_the_candidates_are_handed_in() -> None:
    weights = tiny(0).plain_llama(1)
    some = as_program(weights, [7, 3])
    np.testing.assert_array_equal(some.table, weights.head[[7, 3]])


def test_what_stands_below_is_told_by_its_numbers() -> None:
    model = tiny(0)
    assert has_plain_llama(model)
    assert model.below(1) == tiny(0).below(1)
    assert model.below(1) == adapted(model, [1]).below(1), "an adapter above changes nothing below"
    others = [model.below(2), tiny(1).below(1), adapted(model, [0]).below(1)]
    assert len({model.below(1), *others}) == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_act": "gelu"}, "another activation"),
        ({"model_type": "mistral"}, "another architecture"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "scaled positions"),
        ({"head_dim": 32}, "heads that are not as wide"),
    ],
)
def test_what_the_program_would_compute_otherwise_is_refused(
    change: dict[str, Any], says: str
) -> None:
    module = tiny_lm.module(60)
    require_plain(module)
    for name, value in change.items():
        object.__setattr__(module.config, name, value)
    with pytest.raises(CapabilityError, match=says):
        require_plain(module)


def test_public_prompts_are_lines_as_they_are_asked(tmp_path: Path) -> None:
    file = tmp_path / "public.txt"
    file.write_text("hello\n\nthe refund is about the delivery " + "x" * 80 + "\nnever read\n")
    model = tiny(0)
    model.joint = JointTerms(calibrated_on=file, texts=2, tokens=40)
    short, long = model.public_prompts()
    assert len(short) < len(long) == 40
    assert short[-8:] == long[-8:], "the end of a prompt stays"
    model.joint = JointTerms(calibrated_on=tmp_path / "none.txt")
    with pytest.raises(DataError, match="cannot be read"):
        model.public_prompts()
