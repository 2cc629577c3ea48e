from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import or_

import numpy as np
import pytest

from cosilo.engines.llama import (
    HEADROOM,
    LENGTHS,
    StatesSeen,
    bounds,
    filled,
    forward,
    length_for,
    logits,
    observe,
    place,
    require_far,
    shifts,
    traffic,
)
from cosilo.engines.ranges import Fixed, Floats, require_room
from cosilo.errors import ConfigError, RejectedError
from joint_llama import LARGE, small_llama, texts


def seen_on(texts_: np.ndarray) -> StatesSeen:
    return reduce(or_, (observe(small_llama(), states) for states in texts_))


def test_it_is_what_transformers_computes() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = small_llama()
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=50, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for layer, ours in zip(theirs.model.layers, range(2), strict=True):
            queries, keys, values = np.split(model.mixed[ours], [16, 24], axis=1)
            for linear, weights in (
                (layer.self_attn.q_proj, queries * 2.0),  # ours have 1/√d in them
                (layer.self_attn.k_proj, keys),
                (layer.self_attn.v_proj, values),
                (layer.self_attn.o_proj, model.out[ours]),
                (layer.mlp.gate_proj, model.gated[ours][:, :24]),
                (layer.mlp.up_proj, model.gated[ours][:, 24:]),
                (layer.mlp.down_proj, model.down[ours]),
            ):
                linear.weight.copy_(torch.tensor(weights.T.copy()))
        theirs.model.embed_tokens.weight.copy_(torch.tensor(model.table))
        expected = theirs(torch.tensor([[3, 1, 4, 1, 5]])).logits[0].numpy()
    states, before = forward(model, model.table[[3, 1, 4, 1, 5]])
    np.testing.assert_allclose(logits(model, states), expected, rtol=1e-4, atol=1e-4)
    assert len(before) == 5


def test_the_first_place_is_seen_apart_from_the_others() -> None:
    seen = seen_on(texts(0))
    assert seen.largest[0, 0] == LARGE
    assert seen.largest[0, 1] < 6
    assert seen.least[0, 0] == pytest.approx(LARGE / 4, rel=1e-3)  # one entry of sixteen


def test_states_are_halved_until_their_mean_square_is_about_one() -> None:
    first, others = shifts(seen_on(texts(0)))[0]
    assert first == 12  # 5,000 / 4,096
    assert others == 0


def test_with_shifts_there_is_room_and_without_them_it_is_refused() -> None:
    seen = seen_on(texts(0))
    nearest = require_room(bounds(small_llama(), seen, shifts(seen)), Fixed())
    assert nearest.largest < 2.0**20
    none = [[0, 0]] * 5
    with pytest.raises(ConfigError, match="the square of a state before a norm can reach"):
        require_room(bounds(small_llama(), seen, none), Fixed())


@pytest.mark.parametrize(
    ("what", "large"),
    [
        ("the last norm's gain", {"gain": np.full(16, 2.0**25), "table": np.full((50, 16), 1e-6)}),
        ("an embedding", {"gain": np.full(16, 1e-9), "table": np.full((50, 16), 2.0**27)}),
    ],
)
def test_a_large_factor_is_not_hidden_by_a_small_one(what: str, large: dict[str, Floats]) -> None:
    seen = seen_on(texts(0))
    with pytest.raises(ConfigError, match=f"{what} can reach"):
        require_room(bounds(replace(small_llama(), **large), seen, shifts(seen)), Fixed())


def test_the_state_asked_for_is_picked_before_it_is_halved() -> None:
    seen = seen_on(texts(0))
    most = seen.largest.copy()
    most[-3, 1] = 2.0**26
    large, halvings = replace(seen, largest=most), shifts(seen)
    halvings[-3][1] = 24
    with pytest.raises(ConfigError, match="the state asked for can reach"):
        require_room(bounds(small_llama(), large, halvings), Fixed())


def test_no_text_exceeds_what_is_proved_of_the_weights() -> None:
    """Whatever the states: only those before norms were seen."""
    model = small_llama(layers=1)
    seen = observe(model, texts(0)[0])
    proved = {bound.what: bound for bound in bounds(model, seen, [[0, 0]] * 3)}
    assert not proved["the square of a state before a norm"].proved
    added = proved["what attention adds in layer 1"], proved["what the MLP adds in layer 1"]
    assert all(bound.proved for bound in added)
    drawn = np.random.default_rng(5)
    for size in (0.01, 1.0, 1e4):
        states = (drawn.normal(size=(200, 8, 16)) * size).astype(np.float32)
        for one in states:
            after, before = forward(model, one)
            assert (
                np.abs(before[1] - before[0]).max() <= added[0].largest * (1 + 1e-4) + size * 1e-5
            )
            assert np.abs(after - before[1]).max() <= added[1].largest * (1 + 1e-4) + size * 1e-5


def test_states_that_no_power_of_two_brings_near_one_are_refused() -> None:
    wide = texts(0)
    wide[0, 2] *= 1e3
    with pytest.raises(ConfigError, match=r"before norm 1 .* no one power of two"):
        shifts(seen_on(wide))


def test_scores_that_reach_as_far_as_places_to_come_are_refused() -> None:
    model, seen = small_llama(), seen_on(texts(0))
    require_far(bounds(model, seen, shifts(seen)))
    large = replace(model, mixed=model.mixed * 200)
    with pytest.raises(ConfigError, match="places to come"):
        require_far(bounds(large, seen, shifts(seen)))


def test_its_last_layers_have_its_head() -> None:
    model = small_llama()
    states, before = forward(model, texts(1)[0])
    after, _ = forward(model.last(1), before[2])
    np.testing.assert_allclose(after, states)
    with pytest.raises(ConfigError, match="2 layers"):
        model.last(3)


def test_headroom_keeps_private_states_within_what_the_program_watches() -> None:
    seen = seen_on(texts(0))
    scale = 2.0 ** -np.array(shifts(seen))
    assert ((seen.most * scale * HEADROOM) ** 2).max() < 2.0**8
    assert ((seen.least * scale / HEADROOM) ** 2).min() > 2.0**-8


def test_a_state_of_zeros_is_refused() -> None:
    zeros = texts(0)
    zeros[0, 2] = 0
    with pytest.raises(ConfigError, match="no one power of two"):
        shifts(seen_on(zeros))


def test_a_text_is_filled_up_to_the_next_length_with_itself() -> None:
    assert [length_for(n) for n in (1, 16, 17, 512)] == [16, 16, 32, 512]
    assert length_for(20, (64, 24)) == 24
    assert filled([3, 5, 8], 8) == [3, 5, 8, 3, 5, 8, 3, 5]
    with pytest.raises(RejectedError, match="513 tokens, and at most 512"):
        length_for(LENGTHS[-1] + 1)


def test_what_follows_a_place_but_the_first_is_asked_for() -> None:
    np.testing.assert_array_equal(place(2, 4), [[0, 0, 1, 0]])
    for none in (0, 4):
        with pytest.raises(RejectedError, match="cannot be asked for"):
            place(none, 4)


@pytest.mark.parametrize(
    ("protocol", "tokens", "ends", "measured"),
    [  # MB between two parties: a sixth of all with ABY3, half with Cheetah
        ("aby3", 16, "states", 6.2),
        ("aby3", 64, "label", 2.6),
        ("aby3", 128, "label", 4.5),
        ("cheetah", 16, "states", 77.2),
    ],
)
def test_a_bound_of_what_crosses_is_above_what_did(
    protocol: str, tokens: int, ends: str, measured: float
) -> None:
    """A block as wide as SmolLM2's, with four candidates."""
    shape = {
        "tokens": tokens, "layers": 1, "width": 576, "heads": 9, "groups": 3, "inner": 1536,
        "vocabulary": 4, "candidates": [], "starts": "states", "ends": ends,
    }  # fmt: skip
    weights = [np.zeros(3_541_824, np.float32)]
    once, each = traffic(shape, weights, protocol)
    assert 1.5 * measured < each / 1e6 < 5 * measured
    assert 56.7e6 < once < 4 * 56.7e6
