"""An emulator keeps the ends of its model, lacks what its recipe says, takes back what was tuned."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import tiny_lm
from cosilo.errors import ConfigError, DataError, UnexpectedReplyError
from cosilo.models.base import Tokens
from cosilo.models.white_box.adapters import Adapter, first_adapter, merged_with
from cosilo.models.white_box.batch import pad, predict
from cosilo.models.white_box.depth import without
from cosilo.models.white_box.emulator import (
    Emulator,
    EmulatorRecipe,
    aligned,
    built,
    config_of,
    emulator_of,
    ends_of,
    renumbered,
    require_kind,
    tensors_of,
    with_tensors,
)
from cosilo.models.white_box.layers import layers_of
from cosilo.models.white_box.training import seeded
from cosilo.models.white_box.tuning import mean_loss

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

RECIPE = EmulatorRecipe(ends=1, depth=2, steps=24, batch=2, learning_rate=3e-4)


@cache
def text(count: int = 64, seed: int = 0) -> list[Tokens]:
    """What the model itself writes, so that nothing is better at it than the model."""
    ids = torch.full((count, 1), 3)
    with torch.no_grad(), seeded(seed):
        for _ in range(11):
            logits = _model()(input_ids=ids).logits[:, -1]
            ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1)], 1)
    return [Tokens(row.numpy().astype(np.int32), 1, (b"",) * 11) for row in ids]


@cache
def _model() -> Any:
    """Six layers, each of which does something."""
    made = tiny_lm.module(40, layers=6, seed=3).requires_grad_(False)
    for name, parameter in made.named_parameters():
        if ".layers." in name and parameter.ndim > 1:
            parameter.mul_(6)
    made.model.norm.weight.mul_(12)  # or all tokens would be about as likely
    return made


@pytest.fixture(scope="module")
def model() -> Any:
    return _model()


@pytest.fixture(scope="module")
def emulator(model: Any) -> Emulator:
    return emulator_of(model, RECIPE, text())


def equal(one: Any, other: Any) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_first_and_last_layers_are_the_models_own(model: Any, emulator: Emulator) -> None:
    theirs, mine = layers_of(model), layers_of(emulator.module)
    assert (len(mine), emulator.kept[0], emulator.kept[-1]) == (4, 0, 5)
    assert equal(theirs[0], mine[0])
    assert equal(theirs[5], mine[3])
    assert not equal(theirs[emulator.kept[1]], mine[1]), "what stays of the middle was healed"
    names = set(emulator.middle)
    assert {int(n.split(".")[2]) for n in names} == {1, 2}


def test_the_gap_is_what_the_emulator_alone_is_worse_by(model: Any, emulator: Emulator) -> None:
    held_out = text()[2:18]
    assert emulator.whole == pytest.approx(mean_loss(model, held_out), abs=1e-6)
    assert emulator.alone == pytest.approx(mean_loss(emulator.module, held_out), abs=1e-6)
    assert emulator.gap > 0


def test_a_shallower_or_noisier_one_can_do_less(model: Any, emulator: Emulator) -> None:
    shallow = emulator_of(model, replace(RECIPE, depth=1), text())
    noisy = emulator_of(model, replace(RECIPE, noise=2.0), text())
    assert shallow.gap > emulator.gap
    assert noisy.gap > emulator.gap
    assert equal(noisy.clean, emulator.module), "noise is put on what was healed without it"


def test_what_the_layers_took_is_brought_back(
    model: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert emulator.gap < mean_loss(without(model, [2, 4]), text()[2:18]) - emulator.whole
    monkeypatch.setattr("cosilo.models.white_box.emulator.compensate", lambda *_: [])
    recipe = replace(RECIPE, steps=60, learning_rate=1e-3)
    cut, healed = (emulator_of(model, replace(recipe, steps=n), text()) for n in (0, 60))
    assert healed.gap < 0.9 * cut.gap


def test_it_is_the_same_to_the_bit_again(model: Any, emulator: Emulator) -> None:
    assert equal(emulator.module, emulator_of(model, RECIPE, text()).module)


def test_a_whole_middle_is_the_model(model: Any) -> None:
    found = emulator_of(model, replace(RECIPE, depth=4), text())
    assert found.kept == tuple(range(6))
    assert found.gap == pytest.approx(0, abs=1e-6)


def test_the_gap_counts_what_is_lost_on_the_way(model: Any, emulator: Emulator) -> None:
    def coarse(tensors: Any) -> Any:
        return {n: np.round(t * 8) / 8 for n, t in tensors.items()}

    found = emulator_of(model, RECIPE, text(), coded=coarse, coded_ends=dict)
    assert found.gap > emulator.gap
    assert equal(layers_of(found.module)[0], layers_of(model)[0])
    assert equal(found.clean, emulator.clean)


def tuned(module: Any, layers: int) -> Adapter:
    """An adapter of the first and last layers of a model of so many layers, with something in it."""
    begun = first_adapter(ends_of(module, 1), 2, seed=0)
    rng = np.random.default_rng(layers)
    tensors = {n: rng.normal(0, 0.3, t.shape).astype(np.float32) for n, t in begun.tensors.items()}
    return Adapter(2, 4.0, tensors)


def test_what_was_tuned_in_the_emulator_is_the_same_layers_in_the_model(
    model: Any, emulator: Emulator
) -> None:
    adapter = tuned(emulator.module, 4)
    assert {name.split(".")[2] for name in adapter.layers} == {"0", "3"}
    there = renumbered(adapter, dict(enumerate(emulator.kept)))
    assert {name.split(".")[2] for name in there.layers} == {"0", "5"}
    plugged, inside = merged_with(model, there), merged_with(emulator.module, adapter)
    assert equal(layers_of(plugged)[5], layers_of(inside)[3])
    assert equal(layers_of(plugged)[2], layers_of(model)[2])
    back = renumbered(there, {i: k for k, i in enumerate(emulator.kept)})
    assert back.tensors.keys() == adapter.tensors.keys()
    with pytest.raises(DataError, match="layer 5"):
        renumbered(there, {0: 0})


def distance(one: Any, other: Any) -> float:
    """The divergence of what `other` says next from what `one` says, on text nobody learned from."""
    batch = pad(text(24, seed=99))
    with torch.no_grad():
        p, q = (predict(m, batch)[batch.counted].log_softmax(-1) for m in (one, other))
    return float((p.exp() * (p - q)).sum(-1).mean())


def test_aligning_brings_the_emulator_nearer_to_the_model_with_what_was_tuned(
    model: Any, emulator: Emulator
) -> None:
    adapter = tuned(model, 6)
    inside = renumbered(adapter, {i: k for k, i in enumerate(emulator.kept)})
    plugged = merged_with(model, adapter)
    recipe = replace(RECIPE, steps=60, learning_rate=1e-3)
    found = aligned(emulator, model, adapter, recipe, text())
    before = distance(plugged, merged_with(emulator.module, inside))
    assert distance(plugged, merged_with(found.module, inside)) < 0.8 * before
    assert equal(layers_of(found.module)[0], layers_of(model)[0]), "the ends are sent as they were"
    alone, with_tuned = (
        mean_loss(m, text()[2:18]) for m in (found.module, merged_with(found.module, inside))
    )
    assert found.alone == pytest.approx(min(alone, with_tuned), abs=1e-6)
    again = emulator_of(model, RECIPE, text())
    assert equal(emulator.clean, again.clean), "the emulator of before stays as it was"


def test_what_is_sent_is_built_again(emulator: Emulator) -> None:
    made = built(config_of(emulator.module), tensors_of(emulator.module))
    assert equal(made, emulator.module)
    assert not any(p.requires_grad for p in made.parameters())
    assert distance(made, emulator.module) == pytest.approx(0, abs=1e-6)


def change(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda said: said.update(values)


@pytest.mark.parametrize(
    "hostile",
    [
        change(model_type="remote_code"),
        change(auto_map={"AutoModelForCausalLM": "evil.py"}),
        change(quantization_config={"quant_method": "bitsandbytes"}),
        change(_attn_implementation="flash"),
        change(num_hidden_layers=10**6),
        change(hidden_size=10**9),
        change(hidden_size=128),
        change(num_hidden_layers=3),
        change(num_attention_heads=0),
        change(vocab_size=41),
        lambda said: said.pop("num_hidden_layers"),
    ],
)
def test_a_configuration_of_something_else_is_refused(
    emulator: Emulator, hostile: Callable[[dict[str, Any]], None]
) -> None:
    said = json.loads(config_of(emulator.module))
    hostile(said)
    with pytest.raises(UnexpectedReplyError):
        built(json.dumps(said), tensors_of(emulator.module))


@pytest.mark.parametrize(
    "key", ["attn_implementation", "auto_map", "experts_implementation", "per_layer_config"]
)
def test_what_names_code_or_other_layers_reaches_no_library(emulator: Emulator, key: str) -> None:
    said = json.loads(config_of(emulator.module)) | {key: "evil/kernel"}
    with pytest.raises(UnexpectedReplyError, match="is none of a model"):
        built(json.dumps(said), tensors_of(emulator.module))


@pytest.mark.parametrize("config", ["", "[]", "[" * 100_000, '{"model_type": ["llama"]}'])
def test_what_is_no_configuration_is_refused(emulator: Emulator, config: str) -> None:
    with pytest.raises(UnexpectedReplyError):
        built(config, tensors_of(emulator.module))


def test_tensors_of_other_names_or_shapes_are_refused(emulator: Emulator) -> None:
    name, tensor = next(iter(tensors_of(emulator.module).items()))
    for wrong in ({"other": tensor}, {name: tensor[:-1]}):
        with pytest.raises(UnexpectedReplyError):
            with_tensors(emulator.module, wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ends": 0}, {"depth": 0}, {"noise": -1.0}, {"noise": float("nan")}, {"steps": -1},
        {"learning_rate": 0.0}, {"length": 1}, {"batch": 0},
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        EmulatorRecipe(**wrong)


def test_what_no_emulator_can_be_made_of_is_refused(model: Any) -> None:
    for recipe in (replace(RECIPE, ends=3), replace(RECIPE, depth=5)):
        with pytest.raises(ConfigError, match="6 layers"):
            emulator_of(model, recipe, text())
    with pytest.raises(DataError, match="more text"):
        emulator_of(model, RECIPE, text(27))
    other = tiny_lm.module(40)
    other.config.model_type = "mamba"
    with pytest.raises(ConfigError, match="mamba"):
        require_kind(other)
