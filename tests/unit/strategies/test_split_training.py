"""A model trained in two hands learns what it would learn in one, and each step counts once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Backward, Forward, Message, OpenBody
from cosilo.boundary.transports.base import Handles
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import ModelError, RejectedError, StoreError, UnknownThreadError
from cosilo.models.base import EVERYTHING, Tokens
from cosilo.models.parts import PartTuning
from cosilo.parties.bodies import BodyTuning, ClientBodies
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.split_training import Codecs, Course, SplitTraining
from cosilo.types import user

if TYPE_CHECKING:
    from cosilo.models.white_box.lm import TorchModel

torch = pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("peft", reason="the torch extra is not installed")

EXACT = Codecs(states_up="fp32", states_down="fp32", gradients_up="fp32", gradients_down="fp32")
TUNING = BodyTuning(rank=2, learning_rate=5e-3)
COURSE = Course(
    first=1, last=3, body=True, how=PartTuning(rank=2, learning_rate=5e-3, seed=3), steps=6, batch=2,
    codecs=EXACT, key=bytes(32),
)  # fmt: skip


@pytest.fixture
def model() -> TorchModel:
    from white_box import tiny

    return tiny(3, layers=4)


def sequences(model: TorchModel) -> list[Tokens]:
    targets = ["the refund", "billing", "the delivery is the refund"]
    return [model.tokenize(user(f"hello {i * 'world'}"), targets[i % 3]) for i in range(5)]


class Road(InProcess):
    """A road that notes what crosses and fails where it is told to.

    Attributes:
        before, after: fail when a message of this kind has gone so far, so often.
    """

    def __init__(self, party: Handles) -> None:
        super().__init__(party)
        self.sent: list[str] = []
        self.fail: Callable[[str, int, bool], bool] = lambda kind, number, arrived: False

    async def carry(self, payload: bytes) -> bytes:
        from cosilo.boundary.messages import decode

        kind = type(decode(payload)).__name__
        self.sent.append(kind)
        number = self.sent.count(kind)
        if self.fail(kind, number, False):
            raise KilledError
        answer = await super().carry(payload)
        if self.fail(kind, number, True):
            raise KilledError
        return answer


class KilledError(BaseException):
    """The process is no more."""


class Side:
    """One data owner beside an LM's owner, who can both be killed."""

    def __init__(
        self, model: TorchModel, course: Course, folder: Path, tuning: Any = TUNING
    ) -> None:
        self.model, self.course, self.folder = model, course, folder
        self.tuning = tuning and replace(tuning, folder=folder / "owner")
        self.reborn_owner()

    def reborn_owner(self) -> None:
        bodies = ClientBodies(self.tuning) if self.tuning else None
        self.road = Road(LMOwner(self.model, EVERYTHING, bodies=bodies))

    async def training(self) -> SplitTraining:
        from cosilo.models.white_box.ends import Ends

        course = self.course
        lm = Boundary(self.road, declared=frozenset({OpenBody, Forward, Backward}))
        self.ends = Ends(
            self.model.module,
            course.first,
            course.last,
            course.how,
            clip=course.clip,
            open=course.open,
        )
        return SplitTraining(
            lm, await self.model.base_digest(), self.ends, sequences(self.model), course,
            self.folder / "home",
        )  # fmt: skip

    async def found(self) -> tuple[dict[str, Any], bytes, list[float]]:
        """Home's weights, the version on the other side, and the losses, at the end."""
        training = await self.training()
        progress = await training.run()
        return self.ends.state(), bytes(training.version or b""), progress.losses


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


async def test_the_same_steps_in_one_process(model: TorchModel, tmp_path: Path) -> None:
    """Beside a plain loop over the whole model, with an adapter on all layers and two optimisers."""
    from cosilo.models.white_box.adapters import first_adapter, layers_to_adapt, with_adapter
    from cosilo.models.white_box.batch import reply_loss
    from cosilo.models.white_box.training import Schedule, order

    side = Side(model, COURSE, tmp_path)
    home, _, losses = await side.found()
    whole = with_adapter(
        model.module, first_adapter(layers_to_adapt(model.module), 2, seed=COURSE.how.seed)
    )
    named = [(n, p) for n, p in whole.named_parameters() if p.requires_grad]
    body = [p for n, p in named if ".layers.1." in n or ".layers.2." in n]
    ends = [p for n, p in named if ".layers.0." in n or ".layers.3." in n]
    assert len(body) == len(ends) > 0
    above = torch.optim.AdamW(body, lr=TUNING.learning_rate, weight_decay=0.0)
    around = torch.optim.AdamW(ends, lr=0.0, weight_decay=0.0)
    texts = sequences(model)
    schedule = Schedule(steps=COURSE.steps, batch=COURSE.batch, seed=COURSE.how.seed)
    wanted = []
    for step in range(COURSE.steps):
        loss = reply_loss(whole, [texts[i] for i in order(len(texts), schedule, step)])
        loss.backward()
        for some in (body, ends):
            torch.nn.utils.clip_grad_norm_(some, 1.0)
        around.param_groups[0]["lr"] = COURSE.rate(step)
        for optimizer in (above, around):
            optimizer.step()
            optimizer.zero_grad()
        wanted.append(float(loss.detach()))
    np.testing.assert_allclose(losses, wanted, rtol=1e-4)
    assert wanted[-1] < wanted[0]
    for name, parameter in named:
        if f"weight {name}" in home:
            np.testing.assert_allclose(
                home[f"weight {name}"], parameter.detach(), rtol=1e-3, atol=1e-5
            )


KILLS = [
    ("home before anything", lambda k, n, arrived: k == "OpenBody" and not arrived),
    ("home once it was opened", lambda k, n, arrived: k == "OpenBody" and arrived),
    (
        "home with states on their way",
        lambda k, n, arrived: (k, n) == ("Forward", 3) and not arrived,
    ),
    ("home with states there", lambda k, n, arrived: (k, n) == ("Forward", 3) and arrived),
    ("home before a step", lambda k, n, arrived: (k, n) == ("Backward", 2) and not arrived),
    ("home, the first step taken", lambda k, n, arrived: (k, n) == ("Backward", 1) and arrived),
    ("home, a step taken there", lambda k, n, arrived: (k, n) == ("Backward", 4) and arrived),
    ("home, the last step taken", lambda k, n, arrived: (k, n) == ("Backward", 6) and arrived),
]


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], bytes, list[float]]:
    from white_box import tiny

    return asyncio.run(Side(tiny(3, layers=4), COURSE, tmp_path_factory.mktemp("side")).found())


@pytest.mark.parametrize("owner_too", [False, True])
@pytest.mark.parametrize("when", [when for _, when in KILLS], ids=[name for name, _ in KILLS])
async def test_whoever_is_killed_comes_back_to_the_same_weights_to_the_bit(
    model: TorchModel, tmp_path: Path, undisturbed: Any, when: Any, owner_too: bool
) -> None:
    side = Side(model, COURSE, tmp_path)
    side.road.fail = when
    with pytest.raises(KilledError):
        await (await side.training()).run()
    side.road.fail = lambda kind, number, arrived: False
    if owner_too:
        side.reborn_owner()
    home, version, losses = await side.found()
    assert alike(home, undisturbed[0])
    assert (version, losses) == undisturbed[1:]
    assert side.road.sent.count("Backward") <= COURSE.steps + 1


async def test_states_that_the_owner_lost_are_sent_again(
    model: TorchModel, tmp_path: Path, undisturbed: Any
) -> None:
    home, version, _ = undisturbed
    side = Side(model, COURSE, tmp_path)
    training = await side.training()
    handle = side.road.party.handle

    async def forgets(message: Message) -> Message:
        if isinstance(message, Backward) and len(lost) < 2 and message.thread not in lost:
            lost.append(message.thread)
            raise UnknownThreadError("no such thread")
        return await handle(message)

    lost: list[bytes] = []
    side.road.party = type("Forgets", (), {"handle": staticmethod(forgets)})()  # type: ignore[assignment]
    await training.run()
    assert len(lost) == 2
    assert alike(side.ends.state(), home)
    assert bytes(training.version or b"") == version


@pytest.mark.parametrize(("kind", "number"), [("Forward", 3), ("Backward", 4)])
async def test_an_owner_that_dies_and_comes_back_meanwhile_goes_on_where_it_was(
    model: TorchModel, tmp_path: Path, undisturbed: Any, kind: str, number: int
) -> None:
    side = Side(model, COURSE, tmp_path)
    training = await side.training()
    road, party = side.road, side.road.party

    class Dying:
        async def handle(self, message: Message) -> Message:
            if type(message).__name__ == kind and road.sent.count(kind) == number:
                if road.party is self:
                    await party.handle(message)  # worked on, and nobody heard of it
                    bodies = ClientBodies(side.tuning)
                    road.party = LMOwner(model, EVERYTHING, bodies=bodies)
                return await road.party.handle(message)
            return await party.handle(message)

    road.party = Dying()  # type: ignore[assignment]
    progress = await training.run()
    assert progress.restarts == 0
    assert alike(side.ends.state(), undisturbed[0])
    assert bytes(training.version or b"") == undisturbed[1]


async def test_an_owner_that_has_nothing_left_begins_anew(
    model: TorchModel, tmp_path: Path, undisturbed: Any
) -> None:
    home, version, _ = undisturbed
    side = Side(model, COURSE, tmp_path)
    side.road.fail = lambda k, n, arrived: (k, n) == ("Forward", 4)
    with pytest.raises(KilledError):
        await (await side.training()).run()
    side.tuning = replace(side.tuning, folder=tmp_path / "elsewhere")
    side.reborn_owner()
    training = await side.training()
    progress = await training.run()
    assert progress.restarts == 1
    assert alike(side.ends.state(), home)
    assert bytes(training.version or b"") == version
    count = len(side.road.sent)
    await (await side.training()).run()
    assert side.road.sent[count:] == ["OpenBody"], "what is done is not done again"


async def test_frozen_layers_stay_and_the_ends_learn(model: TorchModel, tmp_path: Path) -> None:
    side = Side(model, replace(COURSE, body=False, steps=12), tmp_path, tuning=None)
    training = await side.training()
    await training.open(side.ends.state())
    before, tokens = await training.nats(sequences(model))
    assert tokens == sum(len(s) - s.start for s in sequences(model))
    await training.run()
    after, _ = await training.nats(sequences(model))
    assert after < before - 0.05
    assert training.version is None
    count = len(side.road.sent)
    await (await side.training()).run()
    assert len(side.road.sent) == count, "nobody needs to be asked"


@pytest.mark.parametrize(("first", "last"), [(0, 3), (1, 4)])
async def test_one_end_may_have_no_layers(
    model: TorchModel, tmp_path: Path, first: int, last: int
) -> None:
    side = Side(model, replace(COURSE, first=first, last=last, steps=10), tmp_path)
    _, version, losses = await side.found()
    assert losses[-1] < losses[0]
    assert int.from_bytes(version[:4]) == 10


async def test_a_gradient_that_is_no_number_is_dropped_and_named(
    model: TorchModel, tmp_path: Path
) -> None:
    side = Side(model, COURSE, tmp_path)
    training = await side.training()
    above = side.ends.above

    def broken(came: Any, some: Any, *, train: bool = True) -> Any:
        found = above(came, some, train=train)
        if len(training.progress.losses) == 2:
            training.progress.losses.append(found.loss)
            raise ModelError("a state or gradient at home is not finite")
        if len(training.progress.losses) == 4:
            return replace(found, gradient=found.gradient * np.float32(1e36))
        return found

    side.ends.above = broken  # type: ignore[method-assign]
    progress = await training.run()
    assert set(progress.dropped) == {3, 5}
    assert "at home is not finite" in progress.dropped[3]
    assert "step 4 was dropped" in progress.dropped[5] or "not finite" in progress.dropped[5]
    assert side.ends.steps == 4

    def always(came: Any, some: Any, *, train: bool = True) -> Any:
        raise ModelError("the loss is nan")

    side = Side(model, COURSE, tmp_path / "always")
    training = await side.training()
    side.ends.above = always  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"4 of 4 steps had to be dropped.*nan"):
        await training.run()


async def test_codecs_feedback_and_noise_come_back_to_the_bit_too(
    model: TorchModel, tmp_path: Path
) -> None:
    codecs = Codecs(
        states_up="int8", states_down="int4", gradients_up="topk:0.1", gradients_down="lowrank:4"
    )
    course = replace(COURSE, codecs=codecs, feedback=True, noise=0.2, clip=5.0, open=True, steps=8)
    home, version, losses = await Side(model, course, tmp_path / "undisturbed").found()
    assert np.isfinite(losses).all()
    side = Side(model, course, tmp_path / "killed")
    side.road.fail = lambda k, n, arrived: (k, n) == ("Backward", 6) and arrived
    with pytest.raises(KilledError):
        await (await side.training()).run()
    side.road.fail = lambda k, n, arrived: False
    side.reborn_owner()
    again, same, _ = await side.found()
    assert alike(again, home)
    assert same == version


async def test_noise_is_new_for_each_step_and_stated(model: TorchModel, tmp_path: Path) -> None:
    course = replace(
        COURSE, noise=0.5, clip=4.0, batch=5, steps=2, how=replace(COURSE.how, learning_rate=1e-12)
    )
    tuning = replace(TUNING, learning_rate=1e-12)
    side = Side(model, course, tmp_path, tuning)
    training = await side.training()
    await training.run()
    rows = side.ends.below(sequences(model), train=False)
    lengths = [len(s) - 1 for s in sequences(model)]
    first, said = training._protected(rows, lengths, sequences(model), "step 0")
    second, _ = training._protected(rows, lengths, sequences(model), "step 1")
    assert np.linalg.norm(rows, axis=1).max() <= 4.0 + 1e-4
    assert not np.allclose(first - rows, second - rows)
    assert (first == training._protected(rows, lengths, sequences(model), "step 0")[0]).all()
    moved = rows + np.float32(0.01)
    again, other = training._protected(moved, lengths, sequences(model), "step 0")
    assert not np.allclose(first - rows, again - moved, atol=1e-3)
    assert other is not None
    assert said is not None
    assert other.draw != said.draw
    assert said.unit == "text"
    assert said.mechanism.vectors == max(lengths)


async def test_other_models_and_notes_are_refused(model: TorchModel, tmp_path: Path) -> None:
    from white_box import tiny

    side = Side(model, COURSE, tmp_path)
    side.road = Road(LMOwner(tiny(4, layers=4), EVERYTHING, bodies=ClientBodies(TUNING)))
    with pytest.raises(RejectedError, match="different models"):
        await (await side.training()).run()
    assert side.road.sent == ["OpenBody"]
    await Side(model, COURSE, tmp_path).found()
    with pytest.raises(StoreError, match="another training"):
        await (await Side(model, replace(COURSE, run="other"), tmp_path).training()).run()
