"""One model in two hands learns from private texts: its ends at home, its middle at the LM's owner.

    text ─▶ first layers ──states──▶ the LM's layers ──states──▶ last layers, head ─▶ loss, labels
             LoRA, home  ◀─gradient─  LoRA, its owner ◀─gradient─   LoRA, home

U-shaped split learning (Vepakomma et al., "Split learning for health", arXiv 1812.00564), with LoRA on
each part as in VFLAIR-LLM's head-body-tail. Labels do not cross, tokens do not cross. **What does cross
says much**: states give nearly every token to whoever knows the first layers (`attacks.states`), at any
depth, and gradients give labels to whoever knows the last ones (`attacks.cut_labels`). Home sees states
and gradients of the LM's layers.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import msgspec

from cosilo.boundary.channel import Channel
from cosilo.boundary.messages import Backward, Forward, OpenBody
from cosilo.boundary.wire.codecs import codec
from cosilo.errors import CapabilityError, DataError
from cosilo.models.base import Access, Tokens, WeightModel, require
from cosilo.models.parts import PartModel, PartTuning
from cosilo.models.white_box import files as torch_files
from cosilo.privacy.secret_key import secret_key
from cosilo.registry import Loads
from cosilo.strategies.base import (
    Expected,
    Forecast,
    Needs,
    Session,
    Strategy,
    Text,
    strategies,
)
from cosilo.strategies.cards import Card
from cosilo.strategies.guide import Guide
from cosilo.strategies.split_thread import (
    HomeModel,
    SplitPoint,
    SplitThread,
    home_model,
    require_plain,
    same_begin,
    usual_length,
)
from cosilo.strategies.split_training import Codecs, Course, SplitProgress, SplitTraining
from cosilo.types import Answer, Chat, Delta, Demonstration, assemble

VERSION = 2


@strategies.register("split_learning")
@dataclass(frozen=True, kw_only=True)
class SplitLearning:
    """The large model learns from the owner's examples, and writes the answers, in two hands. The
    small model must be the large one's own file: of it, the layers at the ends, the tokeniser and the
    head are used.

    Attributes:
        layers: how many of the first are at home; 0 for the embedding alone.
        tail: how many of the last are at home, below the head.
        body: the LM's owner trains an adapter on its layers, too, at a pace that it decides; it must
            allow that. Without it, its layers stay as they are.
        items: how many examples are learned from; all of them when unset.
        rank, learning_rate: of the adapter at home.
        batch: texts in a step.
        epochs: how often each example is learned from.
        states_up, states_down, gradients_up, gradients_down: what is packed by which codec: "fp16",
            "int8", "int4", "topk:0.1", "lowrank:8" … (`boundary.wire.codecs`).
        feedback: what the codec loses of a text's gradient on its way up is added the next time.
        noise, clip: noise on the states that leave, as in `split`: its length as a multiple of `clip`,
            which is the median length in a text of nobody's when unset. It is new for each step, and
            every step spends.
        seed: of the order of the examples, and of what the adapters begin with.
        key_file: the key that noise and the training's name are derived under; made when it is not
            there. How far home is stands beside it, in a folder for each training.
        trained, version: the training that was done before, and the LM's adapter after it; then
            `prepare` trains nothing.
    """

    guide: ClassVar[Guide] = Guide(
        direction="upward",
        crosses=(
            "a state and a gradient for each token of the examples, each time they are learned from, "
            "and a state for each token of question and answer; no token and no label"
        ),
        choose=(
            "the LM must learn from examples that may not cross as text, and the first layers are "
            "secret; with public layers the states say nearly all"
        ),
    )

    layers: int = 2
    tail: int = 1
    body: bool = True
    items: int | None = None
    rank: int = 8
    learning_rate: float = 2e-4
    batch: int = 8
    epochs: float = 1.0
    states_up: str = "fp16"
    states_down: str = "fp16"
    gradients_up: str = "fp16"
    gradients_down: str = "fp16"
    feedback: bool = False
    noise: float = 0.0
    clip: float | None = None
    seed: int = 0
    key_file: Path = Path(".cosilo/split_learning.key")
    trained: str = ""
    version: str = ""

    needs: ClassVar[Needs] = Needs(
        small=Access.WEIGHTS,
        sends=frozenset({OpenBody, Forward, Backward}),
        loads=Loads(packages=torch_files.PACKAGES),
    )

    def __post_init__(self) -> None:
        for name in ("layers", "tail"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)!r} is negative")
        if not self.layers + self.tail:
            raise ValueError("layers = 0 and tail = 0 leave nothing at home that could learn")
        for name in ("items", "rank", "learning_rate", "batch", "epochs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e9:
                raise ValueError(f"{name} = {value!r} is not positive and finite")
        if not 0 <= self.noise < 1e6:
            raise ValueError(f"noise = {self.noise!r} is not from 0 to below a million")
        if self.clip is not None and not 0 < self.clip < 1e9:
            raise ValueError(f"clip = {self.clip!r} is not positive and finite")
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"seed = {self.seed!r} is not from 0 to below 2³²")
        for name in ("states_up", "states_down", "gradients_up", "gradients_down"):
            try:
                codec(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None

    def forecast(self) -> Forecast:
        share = self.epochs / self.batch
        reads: tuple[Text | int, ...] = ("question", "target") * min(self.batch, 64)
        trained = (
            Expected("once", OpenBody, reads=(1,), writes=()),
            *(
                each
                for kind in (Forward, Backward)
                for each in (
                    Expected("gold", kind, items=self.items, share=share, reads=reads, writes=()),
                    # A step more for each epoch, where there are fewer examples than a batch takes.
                    Expected("once", kind, each=math.ceil(self.epochs), reads=reads, writes=()),
                )
            ),
        )
        answers = Expected(
            "answers", Forward, per="answer", reads=("question", "answer"), writes=()
        )
        return (*(() if self.trained else trained), answers)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        """Trains both ends at home, and has the LM's owner train its middle.

        Raises:
            CapabilityError: the small model cannot be cut or trained, or the LM's owner trains none.
            ConfigError: it has not so many layers, or an adapter already.
            DataError: there are no examples with targets.
            and what `SplitTraining.run` raises.
        """
        if self.trained:
            return self, session
        model, home = self._model(session), self._home(session)
        examples = [e for e in session.owner.private[: self.items] if e.target]
        if not examples:
            raise DataError(
                "split_learning learns from the owner's own examples with targets, and there are none"
            )
        sequences = await asyncio.to_thread(_sequences, model, examples)
        clip = (self.clip or await usual_length(home, self.layers)) if self.noise else None
        begin = same_begin(home, list(home.prompt(examples[0].chat)))
        base = await cast(PartModel, model).base_digest()
        run = f"{_digest(sequences)} {base.hex()}"
        course = self._course(home.layers, len(sequences), clip, open=bool(begin), run=run)
        training, module = await self._training(
            session.lm.bind("gold"), model, base, sequences, course
        )
        progress = await training.run()
        version = bytes(training.version).hex() if training.version is not None else ""
        found = replace(self, trained=course.training.hex(), version=version, clip=clip)
        owner = session.owner.taught(model.with_module(module()), examples, further=True)
        card = _card(progress, examples, sequences)
        return found, replace(session, owner=owner).with_card(card)

    async def answer(self, session: Session, chat: Chat) -> Answer:
        return Answer(assemble([d async for d in await self._written(session, chat)]), by="both")

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        pieces = []
        async for delta in await self._written(session, chat):
            pieces.append(delta)
            yield delta
        yield Answer(assemble(pieces), by="both")

    async def _written(self, session: Session, chat: Chat) -> AsyncIterator[Delta]:
        require_plain(session.sampling, by="split_learning")
        home = self._home(session)
        prompt = list(home.prompt(chat))
        clip = self.clip or (await usual_length(home, self.layers) if self.noise else 1.0)
        # With the same noise on what two trainings make of a text, their difference would have none.
        about = f"{self.trained} {self.version}".encode()
        key = hmac.digest(secret_key(self.key_file), about, "sha256") if self.noise else b""
        cut = SplitPoint(
            self.layers,
            self.noise,
            clip,
            key,
            until=home.layers - self.tail,
            body=bytes.fromhex(self.version),
        )

        async def again() -> None:
            if self.version:
                await session.lm.send(await self._opening(session, home))

        begin = same_begin(home, prompt)
        thread = SplitThread(session.lm, home, cut, open=begin, again=again)
        return thread.reply(prompt, session.sampling)

    def _home(self, session: Session) -> HomeModel:
        return home_model(session.owner.model, self.layers + self.tail, by="split_learning")

    def _model(self, session: Session) -> WeightModel:
        model = require(session.owner.model, Access.WEIGHTS, by="split_learning")
        if not hasattr(type(model), "base_digest"):
            raise CapabilityError(
                f"split_learning trains layers of the small model, and {model.name!r} cannot: the "
                "torch back end can"
            )
        return model

    def _steps(self, examples: int) -> int:
        return max(1, math.ceil(self.epochs * examples / min(self.batch, examples)))

    def _course(
        self, layers: int, examples: int, clip: float | None, *, open: bool, run: str
    ) -> Course:
        return Course(
            first=self.layers,
            last=layers - self.tail,
            body=self.body,
            how=PartTuning(rank=self.rank, learning_rate=self.learning_rate, seed=self.seed),
            steps=self._steps(examples),
            batch=self.batch,
            codecs=Codecs(
                states_up=self.states_up,
                states_down=self.states_down,
                gradients_up=self.gradients_up,
                gradients_down=self.gradients_down,
            ),
            feedback=self.feedback,
            noise=self.noise,
            clip=clip,
            open=open,
            key=secret_key(self.key_file),
            run=run,
        )

    async def _training(
        self,
        channel: Channel,
        model: WeightModel,
        base: bytes,
        sequences: Sequence[Tokens],
        course: Course,
    ) -> tuple[SplitTraining, Any]:
        """The training, and what gives the whole model with home's adapter as it is then."""
        from cosilo.models.white_box.ends import Ends

        def made() -> Ends:
            return Ends(
                model.module,
                course.first,
                course.last,
                course.how,
                clip=course.clip,
                open=course.open,
            )

        ends = await asyncio.to_thread(made)
        folder = self.key_file.parent / "split_learning" / course.training.hex()
        training = SplitTraining(channel, base, ends, sequences, course, folder)
        return training, lambda: ends.module

    async def _opening(self, session: Session, home: HomeModel) -> OpenBody:
        """What has the LM's owner take up its adapter again."""
        base = await cast(PartModel, self._model(session)).base_digest()
        return OpenBody(
            base=base,
            first=self.layers,
            last=home.layers - self.tail,
            training=bytes.fromhex(self.trained),
            seed=self.seed,
            at=bytes.fromhex(self.version),
        )


def _sequences(model: WeightModel, examples: Sequence[Demonstration]) -> list[Tokens]:
    """The examples as the model reads them, cut at the start of the prompt where they are too long."""
    from cosilo.models.white_box.tuning import fitted

    return fitted((model.tokenize(e.chat, e.target) for e in examples), model.module)


def _digest(sequences: Sequence[Tokens]) -> str:
    found = hashlib.sha256()
    for sequence in sequences:
        found.update(msgspec.msgpack.encode((sequence.start, sequence.ids.tolist())))
    return found.hexdigest()


def _card(
    progress: SplitProgress, examples: Sequence[Demonstration], sequences: Sequence[Tokens]
) -> Card:
    losses = progress.losses or [math.nan]
    facts: dict[str, int | float | str] = {
        "examples": len(examples),
        "different replies": len({e.target for e in examples}),
        "steps": progress.step,
        "loss at the first step": round(losses[0], 4),
        "loss at the last step": round(losses[-1], 4),
        "tokens of all examples": sum(map(len, sequences)),
    }
    if progress.restarts:
        facts["begun anew, as the LM's owner had lost its part"] = progress.restarts
    facts |= {f"step {step} was dropped": why for step, why in progress.dropped.items()}
    return Card(by="split_learning", title="a model trained in two hands", facts=facts)
