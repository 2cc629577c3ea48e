"""Training a model in two hands: its ends at home, its middle at the LM's owner.

    home: first layers ─Forward─▶ the LM's layers ─Outputs─▶ home: last layers, head, loss
          a step       ◀─Gradients─   a step      ◀─Backward─      a step

Step k depends on the settings, the texts and k alone, and on where both sides were before it. Home
notes each step before it sends the next, and the LM's owner before it answers, so whoever is killed
goes on to the weights that it would have had: home comes back with the version that it knows of, and
the owner still has that one.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from cosilo.boundary.channel import Channel
from cosilo.boundary.messages import Backward, Body, Forward, OpenBody, Outputs
from cosilo.boundary.messages.body import BodyVersion
from cosilo.boundary.wire import states
from cosilo.boundary.wire.codecs import codec, pack_with_feedback
from cosilo.errors import (
    ModelError,
    OfflineError,
    RejectedError,
    StoreError,
    UnexpectedReplyError,
    UnknownThreadError,
)
from cosilo.models.base import Array, Tokens
from cosilo.models.parts import PartTuning
from cosilo.privacy.mechanisms import RadialNoise, Release
from cosilo.privacy.radial_noise import eta_for, radial_noise
from cosilo.privacy.secret_key import KeyedRandom

if TYPE_CHECKING:
    from cosilo.models.white_box.ends import Ends

VERSION = 2

NOTE = "home.safetensors"
"""The file in a training's folder that says how far home is."""


@dataclass(frozen=True, kw_only=True)
class Codecs:
    """What arrays are packed by (`boundary.wire.codecs`): states and gradients, up to the LM's owner
    and back down."""

    states_up: str = "fp16"
    states_down: str = "fp16"
    gradients_up: str = "fp16"
    gradients_down: str = "fp16"


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a split model is trained.

    Attributes:
        first, last: the LM's owner has the layers behind `first`, up to `last`.
        body: it trains an adapter on them.
        how: of the adapter at home.
        steps: in all; each with `batch` texts.
        feedback: what the codec loses of a text's gradient on its way up is added the next time.
        noise, clip: as in `split`; the noise is drawn anew for each step.
        open: each text's first state goes as it is.
        key: what noise and the training's name are derived under.
        run: what else decides the weights.
    """

    first: int
    last: int
    body: bool
    how: PartTuning
    steps: int
    batch: int
    codecs: Codecs = Codecs()
    feedback: bool = False
    noise: float = 0.0
    clip: float | None = None
    open: bool = False
    key: bytes = field(default=b"", repr=False)
    run: str = ""

    @property
    def training(self) -> bytes:
        """What the training is called: nobody without the key can tell what it is about."""
        about = (
            f"{self.first} {self.last} {self.body} {self.how} {self.steps} {self.batch} {self.codecs} "
            f"{self.feedback} {self.noise!r} {self.clip!r} {self.open} {self.run}"
        )
        return hmac.digest(self.key, about.encode(), hashlib.sha256)[:16]

    def rate(self, step: int) -> float:
        """Home's learning rate: it rises over a tenth of the steps and falls to nothing."""
        rising = max(1, round(0.1 * self.steps))
        whole = self.how.learning_rate
        if step < rising:
            return whole * (step + 1) / rising
        return whole * (self.steps - step) / max(1, self.steps - rising)


@dataclass
class SplitProgress:
    """How far a training is.

    Attributes:
        step: steps done, those that were dropped counted.
        losses: of every step that was not dropped before its loss was known.
        dropped: step, counted from 1 → why it was dropped.
        restarts: how often it began anew, as the LM's owner did not have the version any more.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    dropped: dict[int, str] = field(default_factory=dict)
    restarts: int = 0


class SplitTraining:
    """One training.

    Args:
        channel: to the LM's owner.
        base: a hash of the whole model and its tokeniser, as home has them.
        ends: home's part.
        sequences: what is learned: a prompt and a reply each; at least one.
        folder: where home's notes are kept; in memory alone when unset.

    Attributes:
        version: of the adapter on the LM's layers; None where it has none.
    """

    def __init__(
        self,
        channel: Channel,
        base: bytes,
        ends: Ends,
        sequences: Sequence[Tokens],
        course: Course,
        folder: Path | None = None,
    ) -> None:
        self._channel = channel
        self._base = base
        self._ends = ends
        self._sequences = sequences
        self._course = course
        self._note = None if folder is None else folder / NOTE
        self._residuals: dict[int, Array] = {}
        self.version: BodyVersion | None = None
        self.progress = SplitProgress()

    async def run(self, report: Callable[[SplitProgress], None] | None = None) -> SplitProgress:
        """Train to the end; where notes are there, from where they end.

        Raises:
            RejectedError: the LM is another model, or its owner refuses.
            CapabilityError: its owner trains no adapters, or shows no gradients.
            ModelError: too many steps had to be dropped; it says why.
            StoreError: the notes cannot be read or written.
            and what `Channel.send` raises; then it can be run again.
        """
        begun = await asyncio.to_thread(self._ends.state)
        await self.open(begun)
        while self.progress.step < self._course.steps:
            await self._step()
            await asyncio.to_thread(self._noted)
            if report is not None:
                report(self.progress)
        return self.progress

    async def open(self, begun: Mapping[str, Any]) -> None:
        """Agree with the LM's owner on where both are; with `begun`, home's first state, anew where it
        does not have the version that home knows of."""
        known = await asyncio.to_thread(self._read)
        done = self.progress.step == self._course.steps
        if known and done and not self._course.body:
            return
        try:
            await self._opened(bytes(self.version) if known and self.version else b"")
        except OfflineError:
            if not (known and done):
                raise
        except UnknownThreadError:
            await asyncio.to_thread(self._ends.restore, begun)
            self.progress = SplitProgress(restarts=self.progress.restarts + 1)
            self._residuals = {}
            await self._opened(b"")
        await asyncio.to_thread(self._noted)

    async def nats(self, sequences: Sequence[Tokens]) -> tuple[float, int]:
        """The mean negative log-likelihood of a reply token as both sides are now, and of how many."""
        total = count = 0.0
        for start in range(0, len(sequences), self._course.batch):
            some = sequences[start : start + self._course.batch]
            rows = await asyncio.to_thread(self._ends.below, some, train=False)
            forward = self._forward(
                rows, some, Codecs(states_up="", states_down=""), f"nats {start}"
            )
            reply = await self._forwarded(forward)
            came = states.unpack_by(forward.back, reply.packed, reply.count, forward.width)
            found = await asyncio.to_thread(self._ends.above, came, some, train=False)
            total += found.loss * found.tokens
            count += found.tokens
        return total / count, int(count)

    async def _opened(self, at: bytes) -> None:
        course = self._course
        asked = OpenBody(
            base=self._base,
            first=course.first,
            last=course.last,
            training=course.training if course.body else b"",
            seed=course.how.seed,
            train=course.body,
            at=at,
        )
        said: Body = await self._channel.send(asked)
        if said.layers != self._ends.layers:
            raise RejectedError(
                f"the large model has {said.layers} layers, and the one at home {self._ends.layers}"
            )
        if not at:
            self.version = BodyVersion.first(asked, said) if course.body else None

    async def _step(self) -> None:
        number = self.progress.step
        chosen = self._batch(number)
        some = [self._sequences[i] for i in chosen]
        try:
            dropped = await self._taken(number, chosen, some)
        except RejectedError as error:
            if error.code != "dropped":
                raise
            dropped = str(error)
        except ModelError as error:
            if type(error) is not ModelError:
                raise
            dropped = str(error)
        self.progress.step += 1
        if dropped:
            self._ends.drop()
            self.progress.dropped[number + 1] = dropped
            if len(self.progress.dropped) > max(3, self._course.steps // 10):
                raise ModelError(
                    f"{len(self.progress.dropped)} of {number + 1} steps had to be dropped, the last "
                    f"one because {dropped}. A lower learning rate may do"
                )

    async def _taken(self, number: int, chosen: Sequence[int], some: Sequence[Tokens]) -> str:
        """One step; why it was dropped at home, or nothing."""
        course, ends, loop = self._course, self._ends, asyncio.to_thread
        rows = await loop(ends.below, some)
        forward = self._forward(rows, some, course.codecs, f"step {number}")
        reply = await self._forwarded(forward)
        came = states.unpack_by(forward.back, reply.packed, reply.count, forward.width)
        above = await loop(ends.above, came, some)
        assert above.gradient is not None
        self.progress.losses.append(above.loss)
        gradient = None
        if course.body or course.first:
            packed = self._packed(above.gradient, chosen, some)
            backward = self._backward(forward, packed)
            back = await self._sent(forward, backward)
            if self.version is not None:
                self.version = self.version.after(backward)
            try:
                gradient = states.unpack_by(backward.back, back, backward.count, backward.width)
            except UnexpectedReplyError as error:
                return f"what the large model's owner gave back is no gradient: {error}"
        settled = await loop(ends.settle, gradient, course.rate(number))
        return "" if settled else "the gradient at home is not finite"

    async def _forwarded(self, forward: Forward) -> Outputs:
        """What became of the states. An adapter that the LM's owner has put away is taken up first."""
        try:
            return await self._channel.send(forward)
        except UnknownThreadError:
            if self.version is None:
                raise
            await self._opened(bytes(self.version))
            return await self._channel.send(forward)

    async def _sent(self, forward: Forward, backward: Backward) -> bytes:
        """The packed gradient. States that the LM's owner has forgotten are sent once more."""
        try:
            return (await self._channel.send(backward)).packed
        except UnknownThreadError:
            await self._forwarded(forward)  # noise is that of the same draw, and is booked once
            return (await self._channel.send(backward)).packed

    def _forward(self, rows: Array, some: Sequence[Tokens], codecs: Codecs, draw: str) -> Forward:
        course = self._course
        lengths = tuple(len(s) - 1 for s in some)
        sent, release = self._protected(rows, lengths, some, draw)
        up, back = codecs.states_up, codecs.states_down
        forward = Forward(
            first=course.first,
            last=course.last,
            count=len(rows),
            packed=states.pack_by(up, sent),
            lengths=lengths,
            codec=up,
            back=back,
            width=rows.shape[1] if up or back else 0,
            body=bytes(self.version) if self.version is not None else b"",
        )
        if release is None:
            return forward
        mechanism = release.mechanism
        assert isinstance(mechanism, RadialNoise)
        return msgspec.structs.replace(forward, release=release, epsilon=mechanism.bound)

    def _backward(self, forward: Forward, packed: bytes) -> Backward:
        codecs = self._course.codecs
        return Backward(
            thread=bytes(forward.opening.after(forward.packed)),
            count=forward.count,
            packed=packed,
            codec=codecs.gradients_up,
            back=codecs.gradients_down,
            width=self._ends.width if codecs.gradients_up or codecs.gradients_down else 0,
            body=forward.body,
        )

    def _packed(self, gradient: Array, chosen: Sequence[int], some: Sequence[Tokens]) -> bytes:
        name = self._course.codecs.gradients_up
        if not self._course.feedback or not name:
            return states.pack_by(name, gradient)
        lengths = [len(s) - 1 for s in some]
        before = [
            self._residuals.get(i, np.zeros((n, gradient.shape[1]), np.float32))
            for i, n in zip(chosen, lengths, strict=True)
        ]
        packed, lost = pack_with_feedback(codec(name), gradient, np.concatenate(before))
        self._residuals |= dict(zip(chosen, states.parted(lost, lengths), strict=True))
        return packed

    def _protected(
        self, rows: Array, lengths: Sequence[int], some: Sequence[Tokens], draw: str
    ) -> tuple[Array, Release | None]:
        """What is sent of `rows`, which are cut already, and by which mechanism."""
        course = self._course
        if not course.noise:
            return rows, None
        assert course.clip is not None
        eta, sent = eta_for(course.noise, course.clip, rows.shape[1]), rows.copy()
        read = hashlib.sha256(course.training + draw.encode())
        at = 0
        for length, sequence in zip(lengths, some, strict=True):
            read.update(sequence.ids.astype("<i4").tobytes())
            # A step that is taken again from elsewhere has other states: with the same noise on both,
            # their difference would go without any.
            read.update(rows[at : at + length].astype("<f4").tobytes())
            source = KeyedRandom(course.key, b"noise" + read.digest())
            for i in range(int(course.open), length):
                sent[at + i] += radial_noise(source, rows.shape[1], eta)
            at += length
        mechanism = RadialNoise(eta=eta, clip=course.clip, vectors=max(lengths) - int(course.open))
        name = hmac.new(course.key, b"draw" + read.digest(), hashlib.sha256).hexdigest()
        return sent, Release(mechanism=mechanism, neighbours="replace", unit="text", draw=name)

    def _batch(self, number: int) -> list[int]:
        from cosilo.models.white_box.training import Schedule, order

        course, count = self._course, len(self._sequences)
        size = min(course.batch, count)
        return order(count, Schedule(steps=course.steps, batch=size, seed=course.how.seed), number)

    def _noted(self) -> None:
        """Write down how far home is."""
        if self._note is None:
            return
        import torch

        from cosilo.models.white_box import checkpoint

        tensors = dict(self._ends.state())
        for i, residual in self._residuals.items():
            tensors[f"residual {i}"] = torch.from_numpy(residual)
        about = {
            "training": self._course.training.hex(),
            "version": bytes(self.version).hex() if self.version is not None else "",
            "progress": {
                "step": self.progress.step,
                "losses": self.progress.losses,
                "dropped": list(self.progress.dropped.items()),
                "restarts": self.progress.restarts,
            },
        }
        checkpoint.write(self._note, tensors, about)

    def _read(self) -> bool:
        """Be where the notes end; False where there are none.

        Raises:
            StoreError: they are another training's, or cannot be read.
        """
        if self._note is None or not self._note.exists():
            return False
        from cosilo.models.white_box import checkpoint

        tensors, about = checkpoint.read(self._note)
        if not isinstance(about, dict) or about.get("training") != self._course.training.hex():
            raise StoreError(f"{str(self._note)!r} is another training's; name another folder")
        kept = about["progress"]
        self.progress = SplitProgress(
            kept["step"], kept["losses"], dict(kept["dropped"]), kept["restarts"]
        )
        self.version = (
            BodyVersion.named(bytes.fromhex(about["version"])) if about["version"] else None
        )
        self._residuals = {
            int(name.split()[1]): tensor.numpy()
            for name, tensor in tensors.items()
            if name.startswith("residual ")
        }
        self._ends.restore(tensors)
        return True
