"""An adapter on the LM's layers takes each step once, and goes on where it was when a side has died."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Backward, Body, Forward, OpenBody
from cosilo.boundary.messages.body import BodyVersion
from cosilo.boundary.transports.inside import InProcess
from cosilo.boundary.wire import states
from cosilo.boundary.wire.codecs import codec
from cosilo.errors import CapabilityError, RejectedError, UnknownThreadError
from cosilo.models.base import EVERYTHING, Array
from cosilo.parties.bodies import BodyTuning, ClientBodies
from cosilo.parties.lm_owner import LMOwner

if TYPE_CHECKING:
    from cosilo.models.white_box.lm import TorchModel

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("peft", reason="the torch extra is not installed")

FIRST, LAST, WIDTH = 1, 3, 64
TUNING = BodyTuning(rank=2, learning_rate=1e-2)
LENGTHS = (3, 5, 1)


@pytest.fixture
def model() -> TorchModel:
    from white_box import tiny

    return tiny(3, layers=4)


class Client:
    """The data owner's side of single steps, with made-up states and gradients."""

    def __init__(self, model: Any, bodies: ClientBodies | None, name: str = "") -> None:
        owner = LMOwner(model, EVERYTHING, client=name, bodies=bodies)
        self.lm = Boundary(InProcess(owner), declared=frozenset({Forward, Backward, OpenBody}))
        self.model = model
        self.now: BodyVersion | None = None

    async def opened(self, **fields: Any) -> Body:
        base = await self.model.base_digest()
        asked = OpenBody(**{"base": base, "first": FIRST, "last": LAST, **fields})
        said = await self.lm.send(asked)
        self.now = BodyVersion.named(asked.at) if asked.at else BodyVersion.first(asked, said)
        return said

    def forward(self, step: int, **fields: Any) -> Forward:
        return batch(step, body=bytes(self.now or b""), **fields)

    async def sent(self, step: int) -> Array:
        """The states that come back."""
        reply = await self.lm.send(self.forward(step))
        return codec("fp32").unpack(reply.packed, reply.count, WIDTH)

    def backward(self, step: int, scale: float = 1.0) -> Backward:
        forward = self.forward(step)
        given = scale * numbers(1000 + step)
        return Backward(
            thread=bytes(forward.opening.after(forward.packed)),
            count=len(given),
            packed=codec("fp32").pack(given),
            codec="fp32",
            back="fp32",
            width=WIDTH,
            body=forward.body,
        )

    async def step(self, number: int) -> Array:
        await self.sent(number)
        return await self.learned(number)

    async def learned(self, number: int, scale: float = 1.0) -> Array:
        message = self.backward(number, scale)
        reply = await self.lm.send(message)
        assert self.now is not None
        self.now = self.now.after(message)
        return codec("fp32").unpack(reply.packed, reply.count, WIDTH)


def numbers(seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(sum(LENGTHS), WIDTH)).astype(np.float32)


def batch(seed: int, **fields: Any) -> Forward:
    packed = codec("fp32").pack(numbers(seed))
    usual = {
        "first": FIRST, "last": LAST, "count": sum(LENGTHS), "packed": packed, "lengths": LENGTHS,
        "codec": "fp32", "back": "fp32", "width": WIDTH,
    }  # fmt: skip
    return Forward(**{**usual, **fields})


def count(folder: Path) -> int:
    return len(list(folder.rglob("*.safetensors")))


async def test_several_texts_give_what_each_gives_alone(model: TorchModel) -> None:
    lm = Client(model, None).lm
    together = batch(0)
    reply = await lm.send(together)
    found = states.parted(codec("fp32").unpack(reply.packed, reply.count, WIDTH), LENGTHS)
    wanted_gradients = []
    for part, given, made in zip(
        states.parted(numbers(7), LENGTHS), together.arrays(), found, strict=True
    ):
        past, alone = await model.forward(None, given, FIRST, LAST)
        np.testing.assert_allclose(made, alone, atol=1e-5)
        wanted_gradients.append(await model.backward(past, part, FIRST, LAST))
    name = bytes(together.opening.after(together.packed))
    packed = codec("fp32").pack(numbers(7))
    back = Backward(
        thread=name, count=sum(LENGTHS), packed=packed, codec="fp32", back="fp32", width=WIDTH
    )
    for _ in range(2):  # once more, and the layers are gone through again
        gone = await lm.send(back)
        gradients = codec("fp32").unpack(gone.packed, gone.count, WIDTH)
        np.testing.assert_allclose(gradients, np.concatenate(wanted_gradients), atol=1e-5)


async def test_steps_are_those_of_adamw_on_the_layers(model: TorchModel) -> None:
    """Beside a plain loop over the same layers: no crossing, no names, no wire."""
    from cosilo.models.parts import PartTuning
    from cosilo.models.white_box.parts import AdapterInTraining, rows_through

    client = Client(model, ClientBodies(TUNING))
    await client.opened(seed=5)
    plain = AdapterInTraining(
        model.module, range(FIRST, LAST), PartTuning(rank=2, learning_rate=1e-2, seed=5)
    )
    for step in range(3):
        gradient = await client.step(step)
        given = torch.from_numpy(numbers(step)).requires_grad_()
        made = rows_through(plain.module, given, LENGTHS, FIRST, LAST)
        made.backward(torch.from_numpy(numbers(1000 + step)))
        np.testing.assert_allclose(gradient, given.grad.numpy(), rtol=1e-4, atol=1e-6)
        assert plain.step()
    given = torch.from_numpy(numbers(9))
    with torch.no_grad():
        wanted = rows_through(plain.module, given, LENGTHS, FIRST, LAST).numpy()
        before = rows_through(model.module, given, LENGTHS, FIRST, LAST).numpy()
    found = await client.sent(9)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(found - before).max() > 1e-2, "the model's own weights stay as they are"


@pytest.mark.parametrize("kept", [False, True])
async def test_a_step_that_comes_again_counts_once(
    model: TorchModel, tmp_path: Path, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = ClientBodies(replace(TUNING, folder=tmp_path if kept else None))
    client = Client(model, bodies)
    await client.opened()
    await client.step(0)
    before = client.now
    first = await client.step(1)
    after, seen = client.now, await client.sent(5)
    part = bodies.find("", bytes(after or b"")).part
    monkeypatch.setattr(part, "step", None)  # no work is done for it
    client.now = before  # it was stopped before it noted the step
    assert (await client.step(1) == first).all()
    assert bytes(client.now or b"") == bytes(after or b"")
    assert (await client.sent(5) == seen).all()


async def test_another_gradient_takes_the_place_of_the_last_step(model: TorchModel) -> None:
    client = Client(model, ClientBodies(TUNING))
    await client.opened()
    await client.step(0)
    before = client.now
    await client.step(1)
    gone = client.now
    client.now = before
    await client.sent(1)
    await client.learned(1, scale=-2.0)
    seen = await client.sent(5)
    other = Client(model, ClientBodies(TUNING))
    await other.opened()
    await other.step(0)
    await other.sent(1)
    await other.learned(1, scale=-2.0)
    assert (await other.sent(5) == seen).all()
    client.now = gone
    with pytest.raises(UnknownThreadError, match="anew"):
        await client.sent(5)


async def test_who_comes_back_finds_its_adapter_on_the_disk_to_the_bit(
    model: TorchModel, tmp_path: Path
) -> None:
    tuning = replace(TUNING, folder=tmp_path)
    client = Client(model, ClientBodies(tuning), "clinic")
    await client.opened()
    for step in range(4):
        await client.step(step)
    wanted = [await client.sent(8)]
    await client.step(4)
    wanted.append(await client.sent(8))
    assert count(tmp_path) == 2

    again = Client(model, ClientBodies(tuning), "clinic")  # the owner's process died
    again.now = client.now
    with pytest.raises(UnknownThreadError):
        await again.sent(8)
    await again.opened(at=bytes(client.now or b""))
    assert (await again.sent(8) == wanted[1]).all()
    reference = await client.step(5)
    assert (await again.step(5) == reference).all()
    assert bytes(again.now or b"") == bytes(client.now or b"")

    late = Client(model, ClientBodies(tuning), "clinic")
    with pytest.raises(UnknownThreadError, match="no such version"):
        await late.opened(at=bytes(BodyVersion(1, bytes(16))))
    with pytest.raises(UnknownThreadError):
        await Client(model, ClientBodies(tuning), "other").opened(at=bytes(client.now or b""))


async def test_a_thread_of_one_text_goes_through_the_adapter(model: TorchModel) -> None:
    client = Client(model, ClientBodies(TUNING))
    await client.opened()
    await client.step(0)
    whole = states.parted(await client.sent(7), LENGTHS)[1]
    given = states.parted(numbers(7), LENGTHS)[1]
    now = client.now
    name, found = None, []
    for part in (given[:2], given[2:]):
        message = Forward(
            thread=bytes(name) if name else b"", first=FIRST, last=LAST, count=len(part),
            packed=states.pack_scaled(part), body=bytes(now or b""),
        )  # fmt: skip
        reply = await client.lm.send(message)
        name = (name or message.opening).after(message.packed)
        found.append(states.unpack_scaled(reply.packed, reply.count))
    np.testing.assert_allclose(np.concatenate(found), whole, rtol=0.02, atol=0.02)
    await client.step(1)
    with pytest.raises(UnknownThreadError, match="has taken a step"):
        await client.lm.send(
            Forward(
                thread=bytes(name or b""),
                first=FIRST,
                last=LAST,
                count=2,
                body=bytes(now or b""),
                packed=states.pack_scaled(given[:2]),
            )
        )


async def test_what_is_refused_is_named_and_changes_nothing(model: TorchModel) -> None:
    from white_box import tiny

    with pytest.raises(CapabilityError, match="trains no adapters"):
        await Client(model, None).opened()
    said = await Client(model, None).opened(train=False)
    assert (said.layers, said.rank) == (4, 0)
    bodies = ClientBodies(replace(TUNING, most=1, steps=1))
    client = Client(model, bodies, "a")
    with pytest.raises(RejectedError, match="different models"):
        await client.opened(base=await tiny(4, layers=4).base_digest())
    with pytest.raises(RejectedError, match="no layers up to 9"):
        await client.opened(last=9)
    await client.opened()
    await client.opened()  # the same one
    with pytest.raises(RejectedError, match="as many as there may be"):
        await client.opened(training=b"another")
    await Client(model, bodies, "b").opened(training=b"another")
    before = await client.sent(0)
    with pytest.raises(RejectedError, match="step 1 was dropped"):
        await client.learned(0, scale=1e37)
    assert (await client.sent(0) == before).all()
    await client.learned(0)
    with pytest.raises(RejectedError, match="all it may"):
        await client.step(1)
    other = Client(model, bodies, "b")
    other.now = client.now
    with pytest.raises(UnknownThreadError):
        await other.sent(0)
    client.now = None
    with pytest.raises(RejectedError, match="context"):
        await client.lm.send(
            batch(0, lengths=(600,), count=600, packed=codec("fp32").pack(np.ones((600, WIDTH))))
        )
