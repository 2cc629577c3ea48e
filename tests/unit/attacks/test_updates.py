"""Tokens are found in updates by whoever knows what the first layer is given for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cosilo.attacks.updates import (
    RowSpan,
    first_columns,
    first_rows,
    heaviest,
    log_shares,
    nearest,
    pursue,
    recovered,
    within,
)
from cosilo.models.base import Array

if TYPE_CHECKING:
    from cosilo.models.white_box.lm import TorchModel

pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("transformers", reason="the torch extra is not installed")
pytest.importorskip("peft", reason="the torch extra is not installed")

TEXTS = ("the refund is about Gdansk", "a delivery to world 7")
REAL = (
    "I was charged twice for one cash withdrawal in Gdansk, when does the money come back?",
    "My new card has not arrived yet although it was sent on the 3rd of May.",
    "Why was the exchange rate of my transfer to Mrs Kowalska so much worse than the usual one?",
    "Can I top up my account with a voucher from the post office?",
)


def tiny_model() -> TorchModel:
    from white_box import tiny

    return tiny(3, layers=2, scale=2.0)


def loss_of(module: Any, texts: Sequence[Sequence[int]]) -> Any:
    import torch

    return torch.stack(
        [module(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss for ids in texts]
    ).mean()


def gradients(module: Any, texts: Sequence[Sequence[int]]) -> dict[str, Array]:
    """The gradient of each parameter of the first layer's attention and of the embedding."""
    import torch

    wanted = {
        n: p
        for n, p in module.named_parameters()
        if ".layers.0.self_attn." in n or "embed_tokens" in n
    }
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for parameter in wanted.values():
        parameter.requires_grad_(True)
    found = torch.autograd.grad(loss_of(module, texts), list(wanted.values()))
    return {n: g.float().numpy() for n, g in zip(wanted, found, strict=True)}


def trained(
    module: Any,
    texts: Sequence[Sequence[int]],
    *,
    rank: int,
    steps: int,
    warm: bool,
    sgd: bool = True,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """(what a LoRA changed by in so many steps on `texts`, one a step, and what it was before)."""
    import torch

    from cosilo.models.white_box.tuning import prepared

    adapted = prepared(module, method="lora", rank=rank, seed=1)
    own = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
    if warm:  # a later round: B is no longer nothing
        with torch.no_grad():
            for i, (name, parameter) in enumerate(own.items()):
                if "lora_B" in name:
                    drawn = np.random.default_rng(i).normal(size=tuple(parameter.shape))
                    parameter.copy_(torch.from_numpy(0.02 * drawn))
    before = {n: p.detach().float().numpy().copy() for n, p in own.items()}
    made = (
        torch.optim.SGD(own.values(), lr=0.05) if sgd else torch.optim.Adam(own.values(), lr=1e-3)
    )
    for step in range(steps):
        made.zero_grad()
        loss_of(adapted, [texts[step % len(texts)]]).backward()
        made.step()
    return {n: p.detach().float().numpy() - before[n] for n, p in own.items()}, before


def ids_of(model: TorchModel, texts: Sequence[str]) -> list[list[int]]:
    return [model.plain(text).ids.tolist() for text in texts]


def test_what_the_first_layer_is_given_is_the_same_wherever_a_token_stands() -> None:
    from cosilo.models.white_box.layers import first_inputs

    model = tiny_model()
    found = first_inputs(model.module)
    layer = model.module.get_decoder().layers[0]
    embedding = model.module.get_input_embeddings().weight
    np.testing.assert_allclose(found, layer.input_layernorm(embedding).detach().numpy(), atol=1e-6)


def test_the_span_of_a_full_gradient_holds_the_tokens_and_no_others() -> None:
    from cosilo.models.white_box.layers import first_inputs

    model = tiny_model()
    ids = ids_of(model, TEXTS)
    rows = first_rows(gradients(model.module, ids))
    assert rows is not None
    assert rows.shape == (64 + 32 + 32, 64)
    found = within(RowSpan.of(rows).sines(first_inputs(model.module)))
    # The last token of a text foretells nothing, and nothing looks back at it.
    assert set(found) == {token for text in ids for token in text[:-1]}


def test_the_first_token_is_found_by_its_value_although_its_query_says_nothing() -> None:
    from cosilo.models.white_box.layers import first_inputs

    model = tiny_model()
    (ids,) = ids_of(model, TEXTS[:1])
    inputs, found = first_inputs(model.module), gradients(model.module, [ids])

    def seen(part: str) -> list[int]:
        rows = first_rows({n: g for n, g in found.items() if part in n})
        assert rows is not None
        return within(RowSpan.of(rows).sines(inputs))

    assert ids[0] not in ids[1:], "or this shows nothing"
    assert ids[0] not in seen("q_proj")  # it looks at itself alone, whatever its query
    assert ids[0] in seen("v_proj")


@pytest.mark.parametrize("steps", [1, 4])
def test_a_rank_of_two_hides_no_token_from_a_pursuit(steps: int) -> None:
    """Six rows of q, k and v, and more tokens than that."""
    from cosilo.models.white_box.layers import first_inputs

    model = tiny_model()
    ids = ids_of(model, TEXTS)
    inputs = first_inputs(model.module)
    update, _ = trained(model.module, ids, rank=2, steps=steps, warm=True)
    rows = first_rows(update)
    assert rows is not None
    truth = {token for text in ids[:steps] for token in text[:-1]}
    assert len(rows) == 6 < len(truth)
    by_span = within(RowSpan.of(rows).sines(inputs))
    found = pursue(rows, inputs)
    assert set(found.tokens) == truth
    assert found.left < 1e-3
    assert recovered(by_span, truth)[0] < 0.3, "the span check is stopped by the rank"


def test_in_a_first_round_of_one_step_the_tokens_stand_in_what_b_became() -> None:
    from cosilo.models.white_box.layers import first_inputs

    model = tiny_model()
    ids = ids_of(model, TEXTS[:1])
    inputs = first_inputs(model.module)
    update, before = trained(model.module, ids, rank=32, steps=1, warm=False)
    rows = first_rows(update)
    assert rows is not None
    assert not rows.any(), "A does not change where B is nothing"
    assert pursue(rows, inputs).tokens == []
    seen = {
        token
        for b, a in first_columns(update, before)
        for token in within(RowSpan.of(b).sines(inputs @ a.T))
    }
    assert seen == set(ids[0][:-1])


def test_an_optimiser_that_scales_each_number_blurs_the_rows() -> None:
    from cosilo.models.white_box.layers import first_inputs

    model = tiny_model()
    ids = ids_of(model, TEXTS)
    inputs, truth = first_inputs(model.module), {token for text in ids for token in text[:-1]}

    def share(sgd: bool) -> float:
        update, _ = trained(model.module, ids, rank=4, steps=2, warm=True, sgd=sgd)
        rows = first_rows(update)
        assert rows is not None
        return recovered(pursue(rows, inputs, count=len(truth)).tokens, truth)[0]

    assert share(sgd=True) == 1.0
    assert share(sgd=False) < 0.8


def test_the_embeddings_gradient_names_the_tokens_that_were_read() -> None:
    model = tiny_model()
    (ids,) = ids_of(model, TEXTS[:1])
    found = gradients(model.module, [ids])
    (embedding,) = (g for n, g in found.items() if "embed_tokens" in n)
    truth = set(ids)
    assert recovered(heaviest(embedding, len(truth)), truth)[0] > 0.8


def test_names_of_other_layers_and_of_other_parts_are_left_out() -> None:
    one = np.ones((2, 3), np.float32)
    update = {
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight": one,
        "model.layers.0.self_attn.v_proj.lora_A": 2 * one,
        "model.layers.0.self_attn.v_proj.lora_B": one.T,
        "model.layers.0.self_attn.o_proj.lora_A": one,
        "model.layers.0.mlp.up_proj.lora_A": one,
        "model.layers.10.self_attn.q_proj.lora_A": one,
        "transformer.h.0.attn.c_attn.weight": 3 * one,
    }
    rows = first_rows(update)
    assert rows is not None
    assert sorted(rows[:, 0].tolist()) == [1, 1, 2, 2, 3, 3]
    assert first_rows({"model.layers.1.self_attn.q_proj.lora_A": one}) is None


def test_a_prior_decides_where_the_rows_do_not() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 24)).astype(np.float32)
    inputs[1] = inputs[0]  # two tokens that are read alike
    rows = inputs[[0, 7]] * np.array([[1.0], [2.0]], np.float32)
    counts = np.zeros(40)
    counts[1] = 100
    assert 1 in pursue(rows, inputs, common=log_shares(counts)).tokens
    assert 0 in pursue(rows, inputs).tokens


def test_tokens_that_every_text_has_are_explained_first_and_not_named() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 24)).astype(np.float32)
    rows = (rng.normal(size=(3, 6)) @ inputs[[3, 8, 9, 20, 31, 50]]).astype(np.float32)
    found = pursue(rows, inputs, known=[3, 8, 8, 9, 55])
    assert sorted(found.tokens) == [20, 31, 50]
    assert found.left < 1e-3


class Smol:
    """SmolLM2-135M and what its first layer is given."""

    def __init__(self) -> None:
        from cosilo.models.white_box.layers import first_inputs
        from cosilo.models.white_box.lm import torch_lm

        self.model = torch_lm(model="smollm2-135m-instruct")
        self.inputs = first_inputs(self.model.module)
        self.ids = ids_of(self.model, REAL)


@pytest.fixture(scope="module")
def smol() -> Smol:
    return Smol()


@pytest.mark.models("smollm2-135m-instruct")
def test_of_a_real_text_the_query_shows_nine_tenths_and_the_value_the_rest(smol: Smol) -> None:
    """research/privacy.md §4.3: recall .93 at a precision of 1 for the gradient of q alone."""
    ids = smol.ids[0]
    found = gradients(smol.model.module, [ids])
    for part, least in (("q_proj", 0.85), ("_proj", 0.94)):
        rows = first_rows({n: g for n, g in found.items() if part in n})
        assert rows is not None
        recall, precision = recovered(within(RowSpan.of(rows).sines(smol.inputs)), ids)
        assert recall >= least, part
        assert precision == 1.0, part
    embedding = next(g for n, g in found.items() if "embed_tokens" in n)
    assert recovered(heaviest(embedding, len(set(ids))), ids)[0] >= 0.8
    # Clipped to a norm of 1, and with noise of 1e-3 on each number: next to nothing.
    norm = float(np.sqrt(sum(np.square(g).sum() for n, g in found.items() if "q_proj" in n)))
    rows = first_rows({n: g for n, g in found.items() if "q_proj" in n})
    assert rows is not None
    noise = np.random.default_rng(0).normal(size=rows.shape).astype(np.float32)
    clipped = rows / max(1.0, norm) + 1e-3 * noise
    sines = RowSpan.of(clipped, noise=1e-3).sines(smol.inputs)
    assert recovered(within(sines), ids)[0] <= 0.1
    assert recovered(nearest(sines, len(set(ids))), ids)[0] <= 0.5


@pytest.mark.models("smollm2-135m-instruct")
def test_a_rank_of_eight_hides_no_token_of_four_real_texts(smol: Smol) -> None:
    """research/privacy.md §4.3 has .02 for the span check of four texts; a pursuit finds them."""
    truth = {token for text in smol.ids for token in text}
    update, _ = trained(smol.model.module, smol.ids, rank=8, steps=4, warm=True)
    rows = first_rows({n: u for n, u in update.items() if "q_proj" not in n})
    assert rows is not None
    assert len(rows) == 16 < len(truth)
    assert recovered(nearest(RowSpan.of(rows).sines(smol.inputs), len(truth)), truth)[0] < 0.5
    recall, precision = recovered(pursue(rows, smol.inputs).tokens, truth)
    assert recall > 0.95
    assert precision > 0.95
