"""Labels are read off the gradients that cross a cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from cosilo.attacks.cut_labels import PublicEnd, cosine_scores, labels_behind, norm_scores
from cosilo.models.base import Array, Tokens
from cosilo.objectives.membership import auc

if TYPE_CHECKING:
    from cosilo.models.white_box.lm import TorchModel

pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("transformers", reason="the torch extra is not installed")

TEXT = "the refund is about Gdansk"


def head_of(model: TorchModel) -> PublicEnd:
    """The end of a torch model of the Llama kind, with its last norm."""
    norm = model.module.get_decoder().norm
    head = model.module.get_output_embeddings().weight.detach().float().numpy()
    gains = norm.weight.detach().float().numpy()
    return PublicEnd(head, gains, float(norm.variance_epsilon))


def at_cut(model: TorchModel, text: str, layer: int) -> tuple[Array, Array, list[int]]:
    """(the gradient at the states after `layer` layers, the states, the token behind each place)."""
    import torch

    ids = model.plain(text).ids.tolist()
    held = []

    def keep(_: object, __: object, made: object) -> None:
        state = made[0] if isinstance(made, tuple) else made
        state.retain_grad()  # type: ignore[attr-defined]
        held.append(state)

    embedded = (
        model.module.get_input_embeddings()(torch.tensor([ids])).detach().requires_grad_(True)
    )
    hook = model.module.get_decoder().layers[layer - 1].register_forward_hook(keep)
    model.module(
        inputs_embeds=embedded, labels=torch.tensor([ids]), use_cache=False
    ).loss.backward()
    hook.remove()
    (state,) = held
    gradient = state.grad[0].float().numpy()[:-1]
    return gradient, state.detach()[0].float().numpy()[:-1], ids[1:]


@pytest.fixture(scope="module")
def model() -> TorchModel:
    from white_box import tiny

    return tiny(3, layers=4, scale=2.0)


def test_the_last_states_gradient_names_every_next_token(model: TorchModel) -> None:
    gradient, states, truth = at_cut(model, TEXT, 4)
    end = head_of(model)
    assert end.next_tokens(gradient, states, scale=1 / len(truth)) == truth
    assert end.next_tokens(-gradient, states, scale=1 / len(truth)) != truth


def test_states_behind_the_norm_do_as_well(model: TorchModel) -> None:
    end = head_of(model)
    assert end.gains is not None
    rng = np.random.default_rng(0)
    states = rng.normal(size=(9, model.width)).astype(np.float32)
    truth = rng.integers(0, len(end.head), 9)
    logits = states @ end.head.T
    wide = np.exp(logits - logits.max(axis=1, keepdims=True))
    foretold = wide / wide.sum(axis=1, keepdims=True)
    gradient = (foretold @ end.head - end.head[truth]) / 9
    assert PublicEnd(end.head).next_tokens(gradient, states, scale=1 / 9) == truth.tolist()


@pytest.mark.parametrize("cut", [1, 2, 3])
async def test_known_layers_behind_the_cut_are_no_shelter(model: TorchModel, cut: int) -> None:
    """Layers at the end at home, a public model's: the labels behind them are read all the same."""
    gradient, states, truth = at_cut(model, TEXT, cut)
    end, scale = head_of(model), 1 / len(truth)
    assert await labels_behind(model, end, gradient, states, cut, 4, scale=scale) == truth
    rng = np.random.default_rng(0)
    sizes = np.linalg.norm(gradient, axis=1, keepdims=True) / np.sqrt(gradient.shape[1])
    seen = (gradient + 0.1 * sizes * rng.normal(size=gradient.shape)).astype(np.float32)
    found = await labels_behind(model, end, seen, states, cut, 4, scale=scale)
    assert np.mean(np.equal(found, truth)) > 0.9


async def test_taken_for_the_last_layers_gradient_that_of_a_cut_says_less(
    model: TorchModel,
) -> None:
    gradient, states, truth = at_cut(model, TEXT, 1)
    assert head_of(model).next_tokens(gradient, states, scale=1 / len(truth)) != truth


async def test_the_gradient_of_a_token_is_that_of_the_loss(model: TorchModel) -> None:
    gradient, states, truth = at_cut(model, TEXT, 4)
    end = head_of(model)
    for seen, state, token in zip(gradient, states, truth, strict=True):
        own = end.gradient(state, token, scale=1 / len(truth))
        np.testing.assert_allclose(own, seen, atol=1e-5)


def test_of_a_rare_label_gradients_are_long_and_point_one_way() -> None:
    """A linear head in front of a frozen representation, one in ten positive: at the start the
    positives' residual is nine times as large."""
    rng = np.random.default_rng(0)
    label = rng.random(600) < 0.1
    weights = rng.normal(size=64)
    residual = 0.1 + 0.02 * rng.normal(size=600) - label
    seen = (residual[:, None] * weights).astype(np.float32)
    assert auc(norm_scores(seen)[label], norm_scores(seen)[~label])[0] == 1.0
    known = seen[int(np.flatnonzero(label)[0])]
    assert auc(cosine_scores(seen, known)[label], cosine_scores(seen, known)[~label])[0] == 1.0
    noise = rng.normal(size=seen.shape) * np.abs(norm_scores(seen)).max()
    blurred = (seen + noise).astype(np.float32)
    assert auc(norm_scores(blurred)[label], norm_scores(blurred)[~label])[0] < 0.7


@pytest.mark.models("smollm2-135m-instruct")
async def test_noise_as_long_as_the_gradient_hides_no_next_token_of_a_real_text() -> None:
    """research/privacy.md §4.2: all next tokens, also at noise as long as the gradient; .98 at three
    times that and .24 at ten times."""
    from cosilo.models.white_box.lm import torch_lm

    model = torch_lm(model="smollm2-135m-instruct")
    text = "The patient was seen in Gdansk on Tuesday, and Mrs Kowalska paid the bill of 412 zloty."
    ids = model.plain(text).ids.tolist()
    truth, end = ids[1:], head_of(model)
    tokens = Tokens(np.array(ids, np.int32), len(ids), ())
    (states,) = await model.activations([tokens], model.layers)
    norm = model.module.get_decoder().norm
    await model.close()
    import torch

    # The gradient in float32, by autograd, through the norm and the output layer alone.
    given = torch.from_numpy(states[:-1]).requires_grad_(True)
    wide = given * torch.rsqrt(given.square().mean(-1, keepdim=True) + norm.variance_epsilon)
    logits = wide * torch.from_numpy(end.gains) @ torch.from_numpy(end.head).T
    torch.nn.functional.cross_entropy(logits, torch.tensor(truth)).backward()
    gradient, scale = given.grad.numpy(), 1 / len(truth)
    rng = np.random.default_rng(0)

    def found(noise: float) -> float:
        sizes = np.linalg.norm(gradient, axis=1, keepdims=True) / np.sqrt(gradient.shape[1])
        seen = gradient + noise * sizes * rng.normal(size=gradient.shape).astype(np.float32)
        said = end.next_tokens(seen.astype(np.float32), states[:-1], scale=scale)
        return float(np.mean(np.equal(said, truth)))

    assert found(0.0) == 1.0
    assert found(1.0) == 1.0
    assert found(3.0) > 0.8
    assert found(10.0) < 0.5
