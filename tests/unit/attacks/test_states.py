"""Tokens are found from states by whoever knows the layers that made them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from cosilo.attacks.states import LinearBack, Recovered, every, nearest_rows, recover
from cosilo.models.base import Array, Tokens
from cosilo.privacy.radial_noise import cut_to, eta_for, radial_noise

if TYPE_CHECKING:
    from cosilo.models.white_box.lm import TorchModel

pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("transformers", reason="the torch extra is not installed")

TEXT = "the refund is about Gdansk"


@pytest.fixture(scope="module")
def model() -> TorchModel:
    from white_box import tiny

    return tiny(3, layers=4, scale=2.0)


def embedding_of(model: TorchModel) -> Array:
    found: Array = model.module.get_input_embeddings().weight.detach().float().numpy()
    return found


async def below(model: TorchModel, ids: list[int], layers: int) -> Array:
    (found,) = await model.activations([Tokens(np.array(ids, np.int32), len(ids), ())], layers)
    return found


async def attacked(
    model: TorchModel, layers: int, noise: float, *, teacher: bool = False
) -> tuple[Recovered, list[int]]:
    ids = model.plain(TEXT).ids.tolist()
    given = await below(model, ids, layers)
    clip = None
    if noise:
        clip = float(np.median(np.linalg.norm(given, axis=1)))
        eta = eta_for(noise, clip, model.width)
        given = cut_to(given, clip)
        given = given + np.stack(
            [radial_noise(random.Random(i), model.width, eta) for i in range(len(ids))]
        )
    embedding = embedding_of(model)
    truth = ids if teacher else None
    candidates = every(len(embedding))
    return await recover(model, embedding, given, layers, candidates, clip=clip, truth=truth), ids


@pytest.mark.parametrize("layers", [0, 1, 3])
async def test_without_noise_every_token_is_found_at_any_depth(
    model: TorchModel, layers: int
) -> None:
    found, ids = await attacked(model, layers, 0.0)
    assert found.ids == ids


async def test_noise_hides_tokens_only_where_it_is_much(model: TorchModel) -> None:
    async def right(noise: float) -> float:
        found, ids = await attacked(model, 3, noise, teacher=True)
        assert all(found.tried)
        return float(np.mean([a == b for a, b in zip(found.ids, ids, strict=True)]))

    little, much = await right(0.3), await right(8.0)
    assert little > 0.9
    assert much < 0.3


async def test_alternatives_are_what_each_would_be_as_the_next(model: TorchModel) -> None:
    ids = model.plain(TEXT).ids.tolist()
    embedding = embedding_of(model)
    past, _ = await model.forward(None, embedding[ids[:4]], 0, 3)
    found = await model.alternatives(past, embedding[[5, 9, ids[4]]], 0, 3)
    for row, token in zip(found, (5, 9, ids[4]), strict=True):
        expected = await below(model, [*ids[:4], token], 3)
        np.testing.assert_allclose(row, expected[-1], atol=1e-4)
    _, after = await model.forward(past, embedding[ids[4:6]], 0, 3)  # it was left as it was
    np.testing.assert_allclose(after, (await below(model, ids[:6], 3))[4:], atol=1e-4)


async def test_the_weak_attacks_find_less(model: TorchModel) -> None:
    ids, embedding = model.plain(TEXT).ids.tolist(), embedding_of(model)
    assert nearest_rows(embedding, embedding[ids]) == ids, "of the embedding itself it finds all"
    deep = await below(model, ids, 3)
    weak = np.mean([a == b for a, b in zip(nearest_rows(embedding, deep), ids, strict=True)])
    found, _ = await attacked(model, 3, 0.0)
    strong = np.mean([a == b for a, b in zip(found.ids, ids, strict=True)])
    assert weak < strong


def test_a_linear_map_finds_back_what_a_linear_map_made() -> None:
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(50, 8)).astype(np.float32)
    ids = rng.integers(0, 50, size=400).tolist()
    seen = (embedding[ids] @ rng.normal(size=(8, 8)) + 3).astype(np.float32)
    back = LinearBack.fit(seen, ids, embedding)
    near = back.nearest(seen[:30], 3)
    assert np.mean([token in row for token, row in zip(ids, near, strict=False)]) > 0.9


@pytest.mark.models("smollm2-135m-instruct")
@pytest.mark.parametrize(
    ("layers", "noise_ratio", "least", "most"),
    [(4, 1.0, 0.9, 1.0), (28, 0.0, 0.99, 1.0), (4, 4.0, 0.4, 0.95)],
)
async def test_neither_depth_nor_noise_that_a_text_survives_hides_a_real_text(
    layers: int, noise_ratio: float, least: float, most: float
) -> None:
    """research/privacy.md §4.1: all behind 28 layers, .76 behind 4 with noise four times as long."""
    from cosilo.models.white_box.lm import torch_lm

    model = torch_lm(model="smollm2-135m-instruct")
    embedding = embedding_of(model)
    ids = model.plain("The patient was seen in Gdansk on Tuesday.").ids.tolist()
    given = await below(model, ids, layers)
    clip = float(np.median(np.linalg.norm(given[1:], axis=1))) if noise_ratio else None
    seen, rng = given, np.random.default_rng(1)
    if clip is not None:
        eta = eta_for(noise_ratio, clip, model.width)
        noise = [radial_noise(random.Random(i), model.width, eta) for i in range(len(ids))]
        seen = cut_to(given, clip) + np.stack(noise)

    async def some(place: int, _: object) -> NDArray[np.int64]:
        return np.unique([ids[place], *rng.integers(0, len(embedding), 600 // layers)])

    found = await recover(model, embedding, seen, layers, some, clip=clip, truth=ids)
    share = np.mean([a == b for a, b in zip(found.ids, ids, strict=True)])
    assert least <= share <= most
    await model.close()
