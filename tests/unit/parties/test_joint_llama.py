"""What a Llama's owner brings to a joint run: calibrated, proved, or refused with what would do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")

from cosilo.engines import llama, prefix
from cosilo.engines.ranges import Bound
from cosilo.errors import CapabilityError, ConfigError, DataError, RejectedError
from cosilo.models.joint import Wanted
from cosilo.models.plain_llama import JointTerms
from cosilo.models.white_box.lm import TorchModel
from cosilo.parties import joint_llama
from cosilo.parties.joint_llama import as_program, part_of, proved
from white_box import tiny

TOKENS = 32


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def with_an_end(model: TorchModel) -> TorchModel:
    """`model`, whose token that ends a turn is not made of zeros, as torch begins with it."""
    import torch

    with torch.no_grad():
        table = model.module.get_input_embeddings().weight
        table[2] = table[3:].mean(0) * 4
    return model


def owner(tmp_path: Path, seed: int = 0, **terms: Any) -> TorchModel:
    public = tmp_path / "public.txt"
    public.write_text("the refund is about billing\nhello world\ndelivery of the refund\n")
    model = tiny(seed, scale=3.0)
    with_an_end(model)
    model.joint = JointTerms(calibrated_on=public, tokens=TOKENS, **terms)
    return model


def wanted(model: TorchModel, **other: Any) -> Wanted:
    one = Wanted(
        program="llama", base=model.below(1), starts="states", layers=1, tokens=TOKENS,
        candidates=(9, 4),
    )  # fmt: skip
    return msgspec.structs.replace(one, **other)


def test_its_last_layer_goes_on_from_states_with_the_candidates_rows_alone(tmp_path: Path) -> None:
    model = owner(tmp_path)
    part = part_of(model, wanted(model))
    assert part.shape["layers"] == 1
    assert part.shape["vocabulary"] == 2
    assert part.shape["candidates"] == []
    assert [array.shape[0] for array in part.owned] == [1, 1, 1, 1, 2, 64]
    assert 0 < part.each < 1 << 30
    assert part.once > 16 * sum(array.size for array in part.owned)
    other = part_of(owner(tmp_path, seed=1), wanted(with_an_end(tiny(1, scale=3.0))))
    assert part.weights != other.weights
    assert part.weights != part_of(model, wanted(model, candidates=(4, 9))).weights


def test_a_head_with_weights_of_its_own_is_computed_behind_states_alone(tmp_path: Path) -> None:
    import torch

    model = owner(tmp_path, whole=True)
    head = model.module.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().flip(0), requires_grad=False)
    asked = wanted(model, base=model.vocabulary, starts="tokens", layers=0)
    with pytest.raises(CapabilityError, match="head has weights of its own"):
        part_of(model, asked)
    part_of(model, wanted(model))


def test_a_whole_model_begins_with_tokens(tmp_path: Path) -> None:
    model = owner(tmp_path, whole=True)
    asked = wanted(model, base=model.vocabulary, starts="tokens", layers=0)
    part = part_of(model, asked)
    assert part.shape["layers"] == 2
    assert part.shape["candidates"] == [9, 4]
    assert part.owned[4].shape == (model.vocabulary_size, 64)
    with pytest.raises(CapabilityError, match="the tokeniser at home is not"):
        part_of(model, wanted(model, base="f00", starts="tokens", layers=0))


def test_behind_tokens_in_clear_it_brings_their_keys_and_values(tmp_path: Path) -> None:
    model = owner(tmp_path, whole=True)
    asked = wanted(model, base=model.vocabulary, starts="tokens", layers=0, tokens=24, before=8)
    part, whole = part_of(model, asked), part_of(model, msgspec.structs.replace(asked, before=0))
    assert part.shape == {**whole.shape, "before": 8}
    assert whole.brings is None
    assert part.each > whole.each
    ids = (1, 5, 9, 7, 20, 31, 40, 6)
    assert part.brings is not None
    keys, values = part.brings(part.owned, ids)
    assert keys.shape == values.shape == (2, 2, 8, 16)
    assert keys.dtype == values.dtype == np.float32
    found = as_program(model.plain_llama(0))
    expected = prefix.keys_and_values(found, model.states_after(ids, 0))
    np.testing.assert_allclose(keys, expected[0], atol=1e-5)
    np.testing.assert_allclose(values, expected[1], atol=1e-5)
    for other in ((), ids[:7], (*ids[:7], 1 << 20)):
        with pytest.raises(RejectedError, match="8 tokens of the LM's in clear"):
            part.brings(part.owned, other)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tells": "logits"}, "no logits"),
        ({"tells": "states"}, "no logits"),
        ({"tokens": 64}, "up to 32 tokens"),
        ({"before": 1}, "only a run that begins with tokens"),
        ({"layers": 2}, "its last 1, from states"),
        ({"starts": "tokens", "layers": 0}, "its last 1, from states"),
        ({"program": "head"}, "its last 1, from states"),
        ({"candidates": (9, 9)}, "no different tokens"),
        ({"candidates": (9, 1 << 20)}, "no different tokens"),
        ({"base": "0" * 64}, "must begin with the same base"),
    ],
)
def test_what_its_owner_takes_no_part_in(tmp_path: Path, change: Any, says: str) -> None:
    model = owner(tmp_path)
    with pytest.raises(CapabilityError, match=says):
        part_of(model, wanted(model, **change))


def test_a_prefix_counts_as_part_of_the_text(tmp_path: Path) -> None:
    model = owner(tmp_path, whole=True)
    asked = wanted(model, base=model.vocabulary, starts="tokens", layers=0, tokens=24, before=16)
    with pytest.raises(RejectedError, match="up to 32 tokens jointly, and not of 40"):
        part_of(model, asked)  # others may be shorter
    with pytest.raises(CapabilityError, match="not of 49"):
        part_of(model, msgspec.structs.replace(asked, tokens=33))


def test_a_prefix_whose_keys_leave_the_ring_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = owner(tmp_path, whole=True)
    asked = wanted(model, base=model.vocabulary, starts="tokens", layers=0, tokens=24, before=2)
    part = part_of(model, asked)
    assert part.brings is not None
    monkeypatch.setattr(prefix, "bounds", lambda *_: [Bound("a key", 1e12)])
    with pytest.raises(RejectedError, match="too large"):
        part.brings(part.owned, (1, 5))


def test_without_terms_nothing_is_computed(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="calibrated_on = FILE"):
        part_of(tiny(0), wanted(tiny(0)))


@pytest.mark.parametrize("terms", [{"layers": 0}, {"tokens": 1}, {"texts": 0}])
def test_terms_that_say_nothing_are_refused(tmp_path: Path, terms: Any) -> None:
    with pytest.raises(ValueError, match=r"leaves nothing|from 2 to"):
        JointTerms(**({"calibrated_on": tmp_path} | terms))


def test_one_text_is_too_few_to_measure_ranges_on(tmp_path: Path) -> None:
    model = owner(tmp_path)
    assert model.joint is not None
    model.joint.calibrated_on.write_text("hello world")
    with pytest.raises(DataError, match="holds 1 texts"):
        part_of(model, wanted(model))


def test_texts_are_read_once_and_again_when_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = owner(tmp_path)
    first = part_of(model, wanted(model)).shape
    read = []
    monkeypatch.setattr(
        model, "states_after", lambda *a: read.append(a) or TorchModel.states_after(model, *a)
    )
    assert part_of(model, wanted(model)).shape == first
    assert not read
    monkeypatch.setattr(joint_llama, "VERSION", joint_llama.VERSION + 1)
    part_of(model, wanted(model))
    assert len(read) == 3
    assert model.joint is not None
    model.joint.calibrated_on.write_text("hello world\nthe refund\n")
    part_of(model, wanted(model))
    assert len(read) == 5
    (kept, *_) = (tmp_path / "cache").rglob("*.json")
    kept.write_text("{")
    part_of(model, wanted(model))  # a file that cannot be read is made again, or is another's


def test_arrays_that_say_other_things_than_the_model_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = owner(tmp_path)
    plain = model.plain_llama(1)
    changed = replace(plain, gain=plain.gain * 1.5)
    monkeypatch.setattr(model, "plain_llama", lambda first: changed)
    with pytest.raises(CapabilityError, match="say other things"):
        part_of(model, wanted(model))


def test_weights_that_leave_the_ring_are_refused(tmp_path: Path) -> None:
    model = owner(tmp_path)
    whole = as_program(model.plain_llama(1))
    seen = llama.observe(whole, model.states_after([5, 9, 7, 20], 1))
    proved(whole, seen)
    with pytest.raises(ConfigError, match="what the MLP adds in layer 1 can reach"):
        proved(replace(whole, down=whole.down * np.float32(1e7)), seen)
