"""A model in two hands computes what it computes in one, and learns what it would learn there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Backward, Forward, Gradients, Outputs, encode
from cosilo.boundary.messages.forward import StatesName
from cosilo.boundary.transports.inside import InProcess
from cosilo.boundary.wire import states
from cosilo.boundary.wire.logits import unpack
from cosilo.errors import CapabilityError, RejectedError, UnknownThreadError
from cosilo.models.base import EVERYTHING, Access, Array, Shows
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.threads import Threads
from toy_thread import ToyThreads

if TYPE_CHECKING:
    from cosilo.models.white_box.lm import TorchModel

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("transformers", reason="the torch extra is not installed")

TEXT = "the refund is about billing"


@pytest.fixture
def model() -> TorchModel:
    from white_box import tiny

    return tiny(3, layers=4)


async def below(model: TorchModel, layer: int) -> Array:
    """The states of `TEXT` after so many layers, as the data owner's own part of the model has them."""
    (found,) = await model.activations([model.plain(TEXT)], layer)
    return found


def road(model: object, exposes: Shows = EVERYTHING, **options: object) -> Boundary:
    owner = LMOwner(model, exposes, **options)  # type: ignore[arg-type]
    return Boundary(InProcess(owner), declared=frozenset({Forward, Backward}))


def asked(given: Array, **fields: object) -> Forward:
    packed = states.pack_scaled(given)
    return Forward(**{"first": 1, "last": 3, "count": len(given), "packed": packed, **fields})  # type: ignore[arg-type]


def test_a_state_keeps_its_length_and_a_gradient_may_be_nothing() -> None:
    rng = np.random.default_rng(0)
    given = (rng.normal(size=(4, 8)) * [[1e-6], [1], [3e4], [0]]).astype(np.float32)
    back = states.unpack_scaled(states.pack_scaled(given), 4)
    np.testing.assert_allclose(back, given, rtol=2e-3, atol=2e-9)


@pytest.mark.parametrize("last", [3, 4])
async def test_position_by_position_the_middle_layers_make_what_the_whole_model_makes(
    model: TorchModel, last: int
) -> None:
    given, wanted = await below(model, 1), await below(model, last)
    lm = road(model)
    name, found = StatesName(1, last), []
    for i, part in enumerate((given[:3], given[3:4], given[4:])):
        step = asked(part, last=last, thread=bytes(name) if i else b"")
        reply = await lm.send(step)
        assert isinstance(reply, Outputs)
        found.append(states.unpack_scaled(reply.packed, reply.count))
        name = name.after(step.packed)
    np.testing.assert_allclose(np.concatenate(found), wanted, rtol=0.02, atol=0.02)
    await model.close()


async def test_the_layers_up_to_the_head_say_what_is_likeliest(model: TorchModel) -> None:
    reply = await road(model).send(asked(await below(model, 1), last=None, top=5))
    top = unpack(reply.packed)
    assert top.ids is not None
    ids = torch.tensor([model.plain(TEXT).ids.tolist()])
    with torch.no_grad():
        logits = model.module(input_ids=ids).logits[0]
    likeliest = [int(row[np.argmax(p)]) for row, p in zip(top.ids, top.logprobs, strict=True)]
    assert likeliest == logits.argmax(-1).tolist()
    await model.close()


async def test_gradients_are_those_of_the_whole_model(model: TorchModel) -> None:
    given = await below(model, 1)
    wanted = np.random.default_rng(1).normal(size=given.shape).astype(np.float32)
    lm = road(model)
    first, second = asked(given[:2]), asked(given[2:])
    await lm.send(first)
    name = StatesName(1, 3).after(first.packed)
    second = asked(given[2:], thread=bytes(name))
    await lm.send(second)
    name = name.after(second.packed)
    backward = Backward(thread=bytes(name), count=len(given), packed=states.pack_scaled(wanted))
    before = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    reply = await lm.send(backward)
    assert isinstance(reply, Gradients)
    found = states.unpack_scaled(reply.packed, len(given))

    decoder = model.module.get_decoder()
    x = torch.from_numpy(given)[None].requires_grad_()
    rope = decoder.rotary_emb(x, torch.arange(len(given))[None])
    mask = torch.full((len(given), len(given)), float("-inf")).triu(1)[None, None]
    y = x
    for layer in decoder.layers[1:3]:
        y = layer(y, attention_mask=mask, position_embeddings=rope)
        y = y[0] if isinstance(y, tuple) else y
    (expected,) = torch.autograd.grad(y, x, torch.from_numpy(wanted)[None])
    np.testing.assert_allclose(found, expected[0].numpy(), rtol=0.02, atol=0.02)
    assert all(torch.equal(p, before[n]) for n, p in model.module.named_parameters())
    assert all(p.grad is None for p in model.module.parameters())
    await model.close()


async def test_a_thread_can_be_gone_on_with_from_any_message_s_end(model: TorchModel) -> None:
    given, wanted = await below(model, 1), await below(model, 3)
    lm = road(model)
    first = asked(given[:3])
    await lm.send(first)
    name = StatesName(1, 3).after(first.packed)
    other = asked(given[:1] * 2, thread=bytes(name))
    await lm.send(other)
    await lm.send(asked(given[:1], thread=bytes(name.after(other.packed))))
    reply = await lm.send(asked(given[3:], thread=bytes(name)))
    found = states.unpack_scaled(reply.packed, reply.count)
    np.testing.assert_allclose(found, wanted[3:], rtol=0.02, atol=0.02)
    await model.close()


async def test_bytes_grow_with_what_is_new(model: TorchModel) -> None:
    given = await below(model, 1)
    sizes = [len(encode(asked(given[i : i + 1], thread=bytes(16)))) for i in (0, len(given) - 1)]
    assert sizes[0] == sizes[1] < 2 * given.shape[1] + 80
    await model.close()


async def test_what_is_refused_says_what_would_do(model: TorchModel) -> None:
    given = await below(model, 1)
    step = asked(given)
    threads = Threads()
    mine, other = (road(model, client=c, threads=threads) for c in "ab")
    await mine.send(step)
    name = bytes(StatesName(1, 3).after(step.packed))
    backward = Backward(thread=name, count=len(given), packed=states.pack_scaled(given))
    with pytest.raises(UnknownThreadError, match="open it again"):
        await other.send(backward)
    with pytest.raises(UnknownThreadError):
        await other.send(asked(given, thread=name))
    await mine.send(backward)
    with pytest.raises(RejectedError, match="other layers"):
        await mine.send(asked(given, thread=name, last=4))
    with pytest.raises(RejectedError, match="shape"):
        await mine.send(Backward(thread=name, count=1, packed=states.pack_scaled(given[:1])))
    with pytest.raises(RejectedError, match="0 to 4"):
        await mine.send(asked(given, last=9))
    with pytest.raises(RejectedError, match="the model's have"):
        await mine.send(asked(given[:, :5]))
    head = asked(given, last=None)
    await mine.send(head)
    ended = bytes(StatesName(1, None).after(head.packed))
    with pytest.raises(RejectedError, match="no states came back"):
        await mine.send(Backward(thread=ended, count=len(given), packed=states.pack_scaled(given)))
    with pytest.raises(CapabilityError, match="torch back end"):
        await road(ToyThreads()).send(step)
    only_states = road(model, Access.ACTIVATIONS.shows)
    await only_states.send(step)
    with pytest.raises(CapabilityError, match="expose"):
        await only_states.send(backward)
    await model.close()
