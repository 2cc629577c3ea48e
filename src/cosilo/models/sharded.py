"""A small model trained in shards, so that forgetting a record means training one of them again (SISA).

    records ──keyed hash──▶ shard 0: slice 0 ─▶ slices 0, 1 ─▶ … ─▶ a member ─┐
                  ├───────▶ shard 1: slice 0 ─▶ slices 0, 1 ─▶ … ─▶ a member ─┼─▶ mean or vote
                  ⋮                     │ kept        │ kept

Bourtoule et al., "Machine Unlearning" (arXiv 1912.03817). A member depends on the records of its own
shard alone, and each of its stages on those of its first slices. What a stage ended with is kept under
a keyed hash of all that decided it: whoever trains again, without some records, finds there what they
never touched, and trains the rest. Which shard and slice a record is in is a keyed hash of its content,
so that no other record moves when it goes.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import math
import os
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import msgspec
import numpy as np

from cosilo.errors import (
    CapabilityError,
    ConfigError,
    CosiloError,
    DataError,
    RejectedError,
    StoreError,
)
from cosilo.models.base import Access, Array, Classifier, Embedder, Keepable, TextModel, Trainable
from cosilo.types import Chat, Demonstration, Generation, Sampling, TokenLogprob

ShardAnswer = Literal["mean", "vote"]

_LEAST = 1e-30  # a probability that is none


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How a small model is trained in shards.

    Attributes:
        count: of shards; to forget a record trains one of them again.
        slices: stages that a shard is trained in, each with one more slice of its records; to forget
            one trains from its slice on. A head, which is fitted whole, has one.
        answer: "mean" of the members' probabilities, or their "vote". A reply that is no label is
            the one that most members gave.
    """

    count: int = 4
    slices: int = 1
    answer: ShardAnswer = "mean"

    def __post_init__(self) -> None:
        for name, most in (("count", 256), ("slices", 64)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not from 1 to {most}")


@runtime_checkable
class Staged(Trainable, Protocol):
    """A model that can go on with its training."""

    def further(self, examples: Sequence[Demonstration], *, share: float, seed: int = 0) -> Self:
        """A copy trained on from where this one is, for `share` of the epochs of a whole training.

        Raises:
            DataError: no examples.
        """


@runtime_checkable
class Restorable(Keepable, Protocol):
    """A model whose training can be kept and put back."""

    def restored(self, folder: Path) -> Self:
        """This model with what `keep` wrote into `folder` in the place of what it has learned.

        Raises:
            CosiloError: it is not there, or of another model.
        """


@runtime_checkable
class Uniting(Protocol):
    """A model whose members share what is costly, and so answer as one."""

    def united(self, members: Sequence[Any], answer: ShardAnswer) -> TextModel:
        """One model that answers as these members do together."""


@dataclass(frozen=True)
class Checkpoints:
    """What stages of training ended with, each in a folder named by all that decided it.

    Attributes:
        folder: where they are kept.
        before: where a run that is made again may find its own of before.
        recipe: what decides them besides records and seed: the model, its options, code and machine.
    """

    folder: Path
    recipe: str
    before: Path | None = None

    def find(self, name: str) -> Path | None:
        """The checkpoint of that name, which is then in `folder`; None where there is none."""
        place = self.folder / name
        if not place.is_dir() and self.before is not None and (self.before / name).is_dir():
            with self._making(name) as made, _writing(place):
                shutil.copytree(self.before / name, made.path)
        return place if place.is_dir() else None

    def keep(self, name: str, model: Keepable) -> None:
        """Keep what `model` has learned, whole or not at all."""
        with self._making(name) as made, _writing(self.folder / name):
            made.path.mkdir(mode=0o700)
            model.keep(made.path)

    def _making(self, name: str) -> _Making:
        ours = f".{name}.{socket.gethostname()}.{os.getpid()}"
        return _Making(self.folder / ours, self.folder / name)


@dataclass(frozen=True)
class _Making:
    """A folder that becomes another when all has gone well."""

    path: Path
    target: Path

    def __enter__(self) -> Self:
        with _writing(self.target):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self.path.parent.glob(f".*.{socket.gethostname()}.*"):
            if left == self.path or _has_ended(left.suffix[1:]):  # it was killed on the way
                shutil.rmtree(left, ignore_errors=True)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            with _writing(self.target):
                if kind is None and not self.target.exists():
                    self.path.rename(self.target)
        finally:
            shutil.rmtree(self.path, ignore_errors=True)


def _has_ended(process: str) -> bool:
    """Whether no process of this machine has that number."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return True
    except OSError:  # somebody else's
        return False
    return False


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Raises:
    StoreError: something cannot be written, and no other process has made `target` meanwhile.
    """
    try:
        yield
    except OSError as error:
        if not target.exists():
            raise StoreError(f"{str(target)!r} cannot be written: {error.strerror}") from None


# ── which record is where ────────────────────────────────────────────────────


def placed(
    examples: Sequence[Demonstration], key: bytes, how: Sharding
) -> list[list[list[Demonstration]]]:
    """The examples by shard and slice. Within a slice they are in the order of their hashes, so that
    the order of a file decides nothing.

    Args:
        key: the owner's; without it nobody can tell which shard a record is in.
    """
    found: list[list[list[Demonstration]]] = [
        [[] for _ in range(how.slices)] for _ in range(how.count)
    ]
    hashed = sorted(((_hash(key, e), i) for i, e in enumerate(examples)))
    for name, i in hashed:
        shard, piece = _number(name[:8]) % how.count, _number(name[8:16]) % how.slices
        found[shard][piece].append(examples[i])
    return found


def _hash(key: bytes, example: Demonstration) -> bytes:
    """HMAC-SHA-256 of its content, its id left out."""
    content = msgspec.msgpack.encode((example.chat, example.target, example.weight))
    return hmac.digest(key, content, hashlib.sha256)


def _number(some: bytes) -> int:
    return int.from_bytes(some, "big")


# ── the model ────────────────────────────────────────────────────────────────


class ShardedModel:
    """A model whose training is divided into shards, each with a member of its own.

    Before it is trained it is what `base` is. It shows probabilities at most: members have logits and
    weights, and no one of them stands for all.

    Args:
        base: what members are trained from.
        key: decides which record is in which shard.
        checkpoints: where stages are kept; nowhere by default.
        members: trained, in the order of their shards. A shard whose records teach nothing (there are
            none, or of one label only) has none.
    """

    def __init__(
        self,
        base: TextModel,
        how: Sharding,
        *,
        key: bytes,
        checkpoints: Checkpoints | None = None,
        members: Sequence[TextModel] = (),
    ) -> None:
        if not isinstance(base, Trainable):
            raise CapabilityError(f"shards train the model, and {base.name!r} cannot be trained")
        self.base = base
        self.how = how
        self.members = tuple(members)
        self._key = key
        self._checkpoints = checkpoints
        self._one: Any = None
        if members and isinstance(base, Uniting):
            self._one = base.united(self.members, how.answer)

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def access(self) -> Access:
        return min(self.base.access, Access.LOGPROBS)

    def fit(self, examples: Sequence[Demonstration], *, seed: int = 0) -> Self:
        """A copy with members trained on the shards of `examples`.

        Raises:
            DataError: no shard teaches anything.
            StoreError: a checkpoint cannot be written.
        """
        members: list[TextModel] = []
        why: DataError | None = None
        for slices in placed(examples, self._key, self.how):
            try:
                members.append(self._member(slices, seed))
            except DataError as error:
                why = error
        if not members:
            raise why or DataError("a model cannot be trained on no examples")
        return type(self)(
            self.base,
            self.how,
            key=self._key,
            checkpoints=self._checkpoints,
            members=members,
        )

    def _member(self, slices: Sequence[Sequence[Demonstration]], seed: int) -> TextModel:
        """The member of a shard, trained from the last of its stages that is kept.

        Raises:
            DataError: its records teach nothing.
        """
        stages = [s for s in self._stages(slices) if s]
        if not stages:
            raise DataError("a model cannot be trained on no examples")
        names = self._names(stages, seed)
        begun, model = self._kept(names)
        for number in range(begun, len(stages)):
            if isinstance(model, Staged):
                # All stages together see as many examples as one training does.
                share = 2 / (self.how.slices + 1)
                model = model.further(stages[number], share=share, seed=seed)
            else:
                assert isinstance(model, Trainable)
                model = model.fit(stages[number], seed=seed)
            if self._checkpoints is not None and isinstance(model, Restorable):
                self._checkpoints.keep(names[number], model)
                # From the file in any case: what goes on from it later begins with these bytes.
                model = model.restored(self._checkpoints.folder / names[number])
        return model

    def _stages(self, slices: Sequence[Sequence[Demonstration]]) -> Iterator[list[Demonstration]]:
        """What each stage is trained on: all slices up to its own. A model that is fitted whole has
        one, and an empty slice makes none."""
        if not isinstance(self.base, Staged):
            yield [example for one in slices for example in one]
            return
        known: list[Demonstration] = []
        for one in slices:
            if one:
                known = [*known, *one]
                yield known

    def _names(self, stages: Sequence[Sequence[Demonstration]], seed: int) -> list[str]:
        """What each stage is kept under."""
        if self._checkpoints is None:
            return [""] * len(stages)
        names = []
        about = [self._checkpoints.recipe, seed, self.how.slices]
        chain = hmac.new(self._key, json.dumps(about).encode(), hashlib.sha256)
        done = 0
        for stage in stages:
            for example in stage[done:]:
                chain.update(_hash(self._key, example))
            done = len(stage)
            chain.update(b"stage")
            names.append(chain.hexdigest()[:32])
        return names

    def _kept(self, names: Sequence[str]) -> tuple[int, TextModel]:
        """How many stages are kept, and what they ended with."""
        if self._checkpoints is None or not isinstance(self.base, Restorable):
            return 0, self.base
        for number in range(len(names), 0, -1):
            folder = self._checkpoints.find(names[number - 1])
            if folder is not None:
                try:
                    found = number, self.base.restored(folder)
                except CosiloError:  # damaged: what stands before it serves
                    shutil.rmtree(folder)
                    continue
                for name in names[: number - 1]:  # to be gone on from, when it is trained again
                    self._checkpoints.find(name)
                return found
        return 0, self.base

    def keep(self, folder: Path) -> Mapping[str, object]:
        """Raises:
        CapabilityError: its members are not one model that could be opened again.
        """
        if not isinstance(self._one, Keepable):
            raise CapabilityError(
                f"the {len(self.members)} members of a model trained in shards are no single one"
            )
        return self._one.keep(folder)

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        """What the members say together; what they take is added up.

        Raises:
            what a member does, where all of them refuse.
        """
        if not self.members:
            return await self.base.generate(chat, sampling)
        if self._one is not None:
            found: Generation = await self._one.generate(chat, sampling)
            return found
        asked = [member.generate(chat, sampling) for member in self.members]
        said = await asyncio.gather(*asked, return_exceptions=True)
        for each in said:
            if isinstance(each, BaseException) and not isinstance(each, RejectedError):
                raise each
        replies = [each for each in said if isinstance(each, Generation)]
        if not replies:
            raise next(each for each in said if isinstance(each, RejectedError))
        return together(replies, self.how.answer, labels=sampling.choices)

    async def close(self) -> None:
        for member in (*self.members, self._one):
            if member is not None:
                await member.close()
        await self.base.close()


class ShardedClassifier(ShardedModel):
    """One of classifiers, which also say how likely each label is, and embed texts."""

    @property
    def labels(self) -> tuple[str, ...]:
        known = self._one or self.base
        assert isinstance(known, Classifier)
        return known.labels

    def probabilities(self, texts: Sequence[str]) -> Array:
        known = self._one or self.base
        assert isinstance(known, Classifier)
        return known.probabilities(texts)

    def embed(self, texts: Sequence[str]) -> Array:
        assert isinstance(self.base, Embedder)
        return self.base.embed(texts)


def sharded(
    base: TextModel, how: Sharding, *, key: bytes, checkpoints: Checkpoints | None = None
) -> ShardedModel:
    """`base`, trained in shards from here on.

    Raises:
        CapabilityError: it cannot be trained.
    """
    able = isinstance(base, Classifier) and isinstance(base, Embedder) and isinstance(base, Uniting)
    kind: Callable[..., ShardedModel] = ShardedClassifier if able else ShardedModel
    return kind(base, how, key=key, checkpoints=checkpoints)


# ── what members say together ────────────────────────────────────────────────


def joined_rows(rows: Sequence[Array], answer: ShardAnswer) -> Array:
    """Probabilities of the same labels by each member, of shapes (n, labels), as all say it: their
    mean, or the share of members that put a label first, ties by the mean.

    Raises:
        ConfigError: there are no members.
    """
    if not rows:
        raise ConfigError("a model trained in shards has no members")
    stacked = np.stack(rows).astype(np.float64)
    mean: Array = stacked.mean(axis=0).astype(np.float32)
    if answer == "mean":
        return mean
    votes = np.zeros_like(mean)
    for member in stacked:
        votes[np.arange(len(member)), member.argmax(axis=1)] += 1
    # Less than one vote decides between equals, and is too little to change what a vote says.
    told = votes + 1e-3 * mean
    shares: Array = (told / told.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def together(
    replies: Sequence[Generation], answer: ShardAnswer, *, labels: Sequence[str] = ()
) -> Generation:
    """One reply of several.

    Args:
        labels: of which each reply is one; without, the reply that most gave is taken, of equals that
            of the first shard.
    """
    if not labels:
        said = Counter(r.text for r in replies)
        return _of_all(max(replies, key=lambda r: said[r.text]), replies)
    known = list(dict.fromkeys(labels))
    rows = [np.array([[_shares(r).get(label, 0.0) for label in known]]) for r in replies]
    row = np.maximum(joined_rows(rows, answer)[0].astype(np.float64), _LEAST)
    top = sorted(
        ((label, min(0.0, math.log(p))) for label, p in zip(known, row, strict=True)),
        key=lambda pair: -pair[1],
    )
    text, logprob = top[0]
    return _of_all(Generation(text, tokens=(TokenLogprob(text, logprob, tuple(top)),)), replies)


def _of_all(reply: Generation, replies: Sequence[Generation]) -> Generation:
    """`reply`, with what all of them took."""
    return msgspec.structs.replace(
        reply,
        prompt_tokens=sum(max(0, r.prompt_tokens) for r in replies),
        completion_tokens=sum(max(0, r.completion_tokens) for r in replies),
        seconds=sum(r.seconds for r in replies),
        cpu_seconds=sum(r.cpu_seconds for r in replies),
    )


def _shares(reply: Generation) -> Mapping[str, float]:
    """How likely a reply that is a label says each to be: all of it the one it gave, where it says
    nothing."""
    if len(reply.tokens) == 1 and reply.tokens[0].top:
        return {label: math.exp(logprob) for label, logprob in reply.tokens[0].top}
    return {reply.text: 1.0}
