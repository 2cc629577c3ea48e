"""The gradient of a private loss is the sum of its records' own, each cut to a length, plus noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from cosilo.models.base import Tokens
from cosilo.models.white_box.adapters import first_adapter, layers_to_adapt, trained_adapter
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.private import PrivateLoss
from cosilo.privacy.keyed_noise import KeyedNoise
from cosilo.types import user
from white_box import tiny

pytestmark = pytest.mark.timeout(300)

DRAWS = KeyedNoise(bytes(range(32)))


class Linear(torch.nn.Module):
    """w · x, of a record's ids as x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(3))
        self.unused = torch.nn.Parameter(torch.zeros(2))


def of(module: Any, records: Sequence[Tokens]) -> Any:
    """A loss whose gradient with respect to w is the record's ids."""
    (record,) = records
    return module.w @ torch.tensor(np.asarray(record.ids), dtype=torch.float32)


def record(*ids: int) -> Tokens:
    return Tokens(np.array(ids, np.int32), 1, (b"", b""))


RECORDS = [record(3, 4, 0), record(0, 0, 1), record(30, 40, 0), record(0, 1, 0)]


def gradient(loss: PrivateLoss, module: Linear, seed: int = 0) -> np.ndarray:
    torch.manual_seed(seed)
    module.zero_grad()
    loss(module, RECORDS[:1]).backward()
    assert module.w.grad is not None
    assert module.unused.grad is not None
    return torch.cat([module.w.grad, module.unused.grad]).numpy()


def made(records: Sequence[Tokens] = RECORDS, **options: Any) -> PrivateLoss:
    given = {"rate": 1.0, "largest": 2.0, "noise": 1e-6, "draws": DRAWS, "session": "s"} | options
    return PrivateLoss(records, loss=of, **given)


def test_each_records_gradient_is_cut_by_itself() -> None:
    module = Linear()
    # (3, 4, 0) and (30, 40, 0) of length 5 and 50 are cut to 2; the others stay.
    expected = np.array([2.4, 3.2 + 1, 1, 0, 0]) / 4
    np.testing.assert_allclose(gradient(made(), module), expected, atol=1e-4)
    torch.manual_seed(0)
    value = made()(module, RECORDS[:1])
    assert (
        float(value.detach()) == 0.0
    )  # the mean of what the records' losses are, not the surrogate
    with torch.no_grad():
        module.w += 1.0
    assert float(made()(module, RECORDS[:1]).detach()) == pytest.approx((7 + 1 + 70 + 1) / 4)


def test_noise_is_of_the_length_that_gradients_are_cut_to() -> None:
    module, found = Linear(), []
    for seed in range(600):
        found.append(gradient(made(noise=0.5), module, seed) * 4)
    errors = np.array(found) - [2.4, 4.2, 1, 0, 0]
    assert errors.std() == pytest.approx(0.5 * 2.0, rel=0.06)  # parameters without gradients, too
    assert np.abs(errors.mean(axis=0)).max() < 0.2


def test_records_are_drawn_independently_and_nobody_may_be() -> None:
    module, counts = Linear(), []
    for seed in range(400):
        sums = gradient(made(rate=0.3), module, seed) * 4 * 0.3
        counts.append(round(float(sums[2])))  # the second record alone has a third number
    assert np.mean(counts) == pytest.approx(0.3, abs=0.07)
    none = [record(0, 0, 1)]
    drawn = [gradient(made(none, rate=0.01), module, seed) for seed in range(20)]
    assert np.abs(drawn).max() < 1e-2  # noise alone, of no record


def test_made_again_a_step_is_the_same_and_with_other_records_or_weights_it_shares_no_noise() -> (
    None
):
    module = Linear()
    first = gradient(made(noise=1.0), module)
    np.testing.assert_array_equal(first, gradient(made(noise=1.0), module))
    others = [
        gradient(made([*RECORDS, RECORDS[1]], noise=1.0), module) * 5 / 4,
        gradient(made(noise=1.0, session="t"), module),
        gradient(made(noise=1.0), module, seed=1),
    ]
    with torch.no_grad():
        module.w += 0.01
    others.append(gradient(made(noise=1.0), module))
    for other in others:
        assert (np.abs(first - other)[3:] > 1e-6).all()  # where there is noise and nothing else


@pytest.mark.parametrize(
    "options", [{"rate": 0.0}, {"rate": 1.1}, {"largest": 0.0}, {"noise": 0.0}, {"noise": np.inf}]
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"rate|positive"):
        made(**options)
    with pytest.raises(ValueError, match="of 0 records"):
        made([])


def test_an_adapter_is_trained_privately_to_the_bit() -> None:
    model: TorchModel = tiny(0)
    records = [model.tokenize(user(f"about {i}"), "refund") for i in range(8)]
    adapter = first_adapter(layers_to_adapt(model.module), 2, seed=0)

    def trained() -> Any:
        loss = PrivateLoss(
            records, rate=0.5, largest=1.0, noise=0.01, draws=DRAWS, session="round 1"
        )
        return trained_adapter(
            model.module, adapter, records, steps=10, batch=1, learning_rate=3e-2, loss=loss
        )

    first, outcome = trained()
    again, _ = trained()
    for name, tensor in first.tensors.items():
        np.testing.assert_array_equal(tensor, again.tensors[name])
    losses = [value for value in outcome.losses if value]
    assert np.mean(losses[-3:]) < losses[0] - 0.3
