"""A torch model whose owner tunes adapters of it for clients, on lessons that they send.

    tune ──▶ an adapter on upper layers, trained once ──▶ name ──▶ plugged: the model with it, merged

With `checkpoints` a training that was killed goes on where it was, and adapters lie on disk; without,
they live as long as the process.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import numpy as np

from cosilo.errors import ModelError, RejectedError, StoreError, UnknownAdapterError
from cosilo.models.base import models
from cosilo.models.fit.client_adapters import ClientAdapters, folder_of
from cosilo.models.low_rank import Layers
from cosilo.models.tunable import Learned, LessonPlan, Lessons
from cosilo.models.white_box import files as torch_files
from cosilo.models.white_box import lm as torch_lms
from cosilo.models.white_box.adapters import (
    Adapter,
    adapter_of,
    base_digest,
    first_adapter,
    upper_layers,
    with_adapter,
)
from cosilo.models.white_box.batch import weighed_loss
from cosilo.models.white_box.choosing import (
    ChoiceLesson,
    choice_logprobs,
    choice_loss,
    confidence_at,
)
from cosilo.models.white_box.lm import Precision, TorchModel
from cosilo.models.white_box.training import Schedule, TrainingOutcome, order, train
from cosilo.registry import Loads


@dataclass(frozen=True, kw_only=True)
class TuningTerms:
    """What a model's owner tunes for a client.

    Attributes:
        layers: the last so many layers are given an adapter; all of them when unset.
        largest_rank: of an adapter.
        most_steps, most_batch, most_lessons, most_choices: of one request.
        most_tokens: of one step, were all its lessons as long as the longest, choices included.
        adapters: of one client; the one that was longest unused is forgotten when one more comes.
        checkpoints: a folder that trainings and adapters are kept in.
    """

    layers: int | None = None
    largest_rank: int = 64
    most_steps: int = 2000
    most_batch: int = 64
    most_lessons: int = 4096
    most_choices: int = 128
    most_tokens: int = 1 << 15
    adapters: int = 4
    checkpoints: Path | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} = {value!r} is not positive")

    def require(self, lessons: Lessons, plan: LessonPlan) -> None:
        """Refuse more than is tuned.

        Raises:
            RejectedError: it says of what.
        """
        self._require("the adapter's rank", plan.rank, self.largest_rank)
        self._require("steps", plan.steps, self.most_steps)
        self._require("lessons a step", plan.batch, self.most_batch)
        self._require("lessons", len(lessons.chats), self.most_lessons)
        self._require("choices", len(lessons.choices), self.most_choices)

    def require_small(self, work: Work, batch: int, context: int) -> None:
        """Refuse lessons that a step would need too much memory for.

        Raises:
            RejectedError: it says of what.
        """
        longest = max(work.lengths)
        if work.choices:  # what a lesson needs grows with the square of it
            self._require("tokens of a lesson and all choices", longest, context)
        tokens = longest * min(batch, len(work.lessons))
        self._require("tokens a step", tokens, self.most_tokens)

    @staticmethod
    def _require(what: str, asked: int, most: int) -> None:
        if asked > most:
            raise RejectedError(
                f"the large model's owner tunes within limits: {what} may be {most} at most, and "
                f"{asked} were asked for"
            )


_NOT_FINITE = (
    "training stopped: the loss or its gradient is not finite. A lower learning rate may do."
)


class TunableLM(TorchModel):
    """`TorchModel` whose owner tunes it for clients by `terms`; see `models.tunable.TunableModel`."""

    def __init__(self, model: TorchModel, terms: TuningTerms) -> None:
        super().__init__(
            lambda: (model.module, model.tokens),
            name=model.name,
            identity=model.identity.removeprefix("torch:"),
            parallel=model.parallel,
        )
        self.terms = terms
        folder = None if terms.checkpoints is None else terms.checkpoints / "adapters"
        self._adapters = ClientAdapters(self, terms.adapters, folder)
        self._trainer: ThreadPoolExecutor | None = None
        self._closing = Event()
        self._base = ""

    async def tune(self, client: str, lessons: Lessons, plan: LessonPlan) -> Learned:
        self.terms.require(lessons, plan)
        # One after another, and in none of the threads that all others' work is done in.
        self._trainer = self._trainer or ThreadPoolExecutor(1, thread_name_prefix="tuning")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._trainer, self._tune, client, lessons, plan)

    async def plugged(self, client: str, name: str) -> TorchModel:
        return await self._adapters.plugged(client, name)

    async def adapters_of(self, client: str) -> Mapping[str, str]:
        return await asyncio.to_thread(self._kept_of, client)

    async def forget_adapter(self, client: str, name: str) -> None:
        # Behind a training that is under way, which may be of this very adapter.
        loop, trainer = asyncio.get_running_loop(), self._trainer
        await loop.run_in_executor(trainer, self._forget, client, name)

    async def close(self) -> None:
        trainer, self._trainer = self._trainer, None
        if trainer is not None:
            self._closing.set()  # what is trained goes on from its checkpoint when it is asked again
            await asyncio.to_thread(trainer.shutdown, cancel_futures=True)
            self._closing = Event()
        await self._adapters.close()
        await super().close()

    def _kept_of(self, client: str) -> Mapping[str, str]:
        begun, names = self._training(client, ""), []
        with suppress(FileNotFoundError):  # none is under way, or the last of them has just ended
            names = [f.name for f in begun.iterdir()] if begun is not None else []
        return dict.fromkeys(names, "") | self._adapters.digests(client)

    def _forget(self, client: str, name: str) -> None:
        folder = self._training(client, name)
        try:
            if folder is not None and folder.is_dir():
                shutil.rmtree(folder)
                _without_others(folder)
        except OSError as error:
            raise StoreError(f"{str(folder)!r} cannot be taken away: {error.strerror}") from None
        self._adapters.drop(client, name)

    def _training(self, client: str, name: str) -> Path | None:
        """Where a client's training of that name is kept; all of its trainings, without one."""
        if self.terms.checkpoints is None:
            return None
        return self.terms.checkpoints / "training" / folder_of(client) / name

    def _tune(self, client: str, lessons: Lessons, plan: LessonPlan) -> Learned:
        work = self._tokenised(lessons)
        self.terms.require_small(work, plan.batch, self.context)
        self._base = self._base or base_digest(self)
        name = _name_of(client, self._base, self.terms.layers, lessons, plan)
        try:
            _, facts = self._adapters.find(client, name)
            return Learned(name, facts["first"], facts["last"], 0)
        except UnknownAdapterError:
            pass
        folder = self._training(client, name)
        if folder is not None and (before := folder.parents[1] / name).is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            before.rename(folder)  # trainings had no folder for each client once
        layers = upper_layers(self.module, self.terms.layers)
        try:
            adapter, outcome, tokens = tuned_on(
                self.module, layers, work, plan, folder=folder, stops=self._closing
            )
        except ModelError:  # it would end so each time: nothing of it is kept, and no folder named
            _ended(folder)
            raise ModelError(_NOT_FINITE) from None
        facts = {"first": outcome.losses[0], "last": outcome.losses[-1]}
        self._adapters.keep(client, name, adapter, facts)
        _ended(folder)
        return Learned(name, facts["first"], facts["last"], tokens)

    def _tokenised(self, lessons: Lessons) -> Work:
        """The lessons as tokens.

        Raises:
            RejectedError: one is longer than the context, or no chat that the model reads.
        """
        if not lessons.choices:
            sequences = [
                self.tokenize(chat, reply)
                for chat, reply in zip(lessons.chats, lessons.replies, strict=True)
            ]
            self._require_short(max(map(len, sequences)))
            worth = lessons.shares[:, 0].tolist()
            return Work(list(zip(sequences, worth, strict=True)), [len(s) for s in sequences])
        replies = [self.tokens.reply(choice)[0] for choice in lessons.choices]
        prompts = [self.tokens.prompt(chat) for chat in lessons.chats]
        self._require_short(max(map(len, prompts)) + max(map(len, replies)))
        each = [ChoiceLesson(p, s) for p, s in zip(prompts, lessons.shares, strict=True)]
        shared = sum(map(len, replies)) - len(replies)
        return Work(each, [len(p) + shared for p in prompts], replies)

    def _require_short(self, longest: int) -> None:
        if longest > self.context:
            raise RejectedError(
                f"a lesson has {longest} tokens, and the model's context {self.context}"
            )


@dataclass(frozen=True)
class Work:
    """Lessons as tokens.

    Attributes:
        lessons: (sequence, weight) each, or prompts and shares where there are choices.
        lengths: tokens of each.
        choices: tokens of each choice, its end included; empty where lessons have own replies.
    """

    lessons: Sequence[Any]
    lengths: Sequence[int]
    choices: Sequence[Sequence[int]] = ()


def _ended(folder: Path | None) -> None:
    """Nothing is left of the training in `folder`."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        _without_others(folder)


def _without_others(folder: Path) -> None:
    """The client's own folder goes, too, where no other training of its is in it."""
    with suppress(OSError):
        folder.parent.rmdir()


def tuned_on(
    module: Any,
    layers: Layers,
    work: Work,
    plan: LessonPlan,
    *,
    folder: Path | None = None,
    stops: Event | None = None,
) -> tuple[Adapter, TrainingOutcome, int]:
    """An adapter on `layers` trained on `work`, what training did, and the tokens that it read.

    Raises:
        CancelledError: `stops` was set.
        ModelError: the loss or its gradient is not finite.
        StoreError: `folder` holds another training's checkpoint, or cannot be written.
    """
    made = with_adapter(module, first_adapter(layers, plan.rank, seed=plan.seed))
    schedule = Schedule(
        steps=plan.steps,
        batch=min(plan.batch, len(work.lessons)),
        learning_rate=plan.learning_rate,
        patience=0,
        seed=plan.seed,
    )
    now = _Confidence(plan, stops)
    outcome = train(
        made,
        work.lessons,
        partial(_choosing, work.choices, now) if work.choices else weighed_loss,
        schedule,
        folder=folder,
        run=json.dumps(asdict(plan)),
        precision="bfloat16" if str(made.dtype) == "torch.bfloat16" else "float32",
        begins=now.begin,
    )
    steps = (order(len(work.lessons), schedule, step) for step in range(plan.steps))
    return adapter_of(made), outcome, sum(work.lengths[i] for step in steps for i in step)


class _Confidence:
    """What the model's own opinion counts at the step at hand."""

    def __init__(self, plan: LessonPlan, stops: Event | None) -> None:
        self.plan = plan
        self.stops = stops
        self.share = 0.0

    def begin(self, step: int) -> None:
        if self.stops is not None and self.stops.is_set():
            raise CancelledError
        self.share = confidence_at(step, self.plan.steps, self.plan.confidence, self.plan.warmup)


def _choosing(
    choices: Sequence[Sequence[int]], now: _Confidence, module: Any, lessons: Sequence[ChoiceLesson]
) -> Any:
    import torch

    found = choice_logprobs(module, [each.prompt for each in lessons], choices)
    shares = torch.from_numpy(np.stack([each.shares for each in lessons])).to(found.device)
    return choice_loss(found, shares, now.share)


def _name_of(client: str, base: str, layers: int | None, lessons: Lessons, plan: LessonPlan) -> str:
    about = [client, base, layers, lessons.chats, lessons.choices, lessons.replies, asdict(plan)]
    found = hashlib.sha256(msgspec.json.encode(about))
    found.update(np.ascontiguousarray(lessons.shares, "<f4").tobytes())
    return found.hexdigest()[:32]


def _loads(model: str) -> Loads:
    return Loads((model,) if model else (), torch_files.PACKAGES)


@models.register("tunable", loads=_loads)
def tunable(
    model: str = "",
    path: Path | None = None,
    precision: Precision = "auto",
    device: str = "auto",
    threads: int | None = None,
    parallel: int = 16,
    layers: int | None = None,
    largest_rank: int = 64,
    most_steps: int = 2000,
    most_batch: int = 64,
    most_lessons: int = 4096,
    most_choices: int = 128,
    most_tokens: int = 1 << 15,
    adapters: int = 4,
    checkpoints: Path | None = None,
) -> TunableLM:
    """A torch model whose owner tunes adapters of it for clients, on lessons that they send.

    Args:
        model, path, precision, device, threads, parallel: as for "torch".
        layers, largest_rank, most_steps, most_batch, most_lessons, most_choices, most_tokens,
            adapters, checkpoints: see `TuningTerms`.

    Raises:
        CatalogError: the files are not there, or are not safe to load.
        ConfigError: both or neither of `model` and `path`.
    """
    terms = TuningTerms(
        layers=layers,
        largest_rank=largest_rank,
        most_steps=most_steps,
        most_batch=most_batch,
        most_lessons=most_lessons,
        most_choices=most_choices,
        most_tokens=most_tokens,
        adapters=adapters,
        checkpoints=checkpoints,
    )
    plain_model = torch_lms.torch_lm(
        model, path, precision=precision, device=device, threads=threads, parallel=parallel
    )
    return TunableLM(plain_model, terms)
