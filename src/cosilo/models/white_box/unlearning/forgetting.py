"""A tuned model that no longer knows some of its records, without training it again from nothing.

    tuned model ─▶ its adapter, or a new one on its upper layers ─▶ steps of a method ─▶ best weights
    records to forget, to keep ────────────────────────────────────┘       ▲
                     untuned model ─▶ how sure one is that never saw them ─┘

When to stop the owner decides by itself, with no retrained model: for each record to forget it looks
at how much likelier the true reply is than wrong ones, a token. In a model that never saw them, the one
before it was tuned, this has some distribution; the distance to it (Wasserstein-1, in nats a token),
and what records to keep have lost, are what is to become small. Both sides count: a model that finds a
true reply less likely than wrong ones tells who was forgotten, too.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from cosilo.errors import ConfigError, DataError
from cosilo.models.base import Tokens, WeightModel
from cosilo.models.low_rank import A, B, Floats
from cosilo.models.white_box.adapters import (
    Adapter,
    adapter_of,
    first_adapter,
    merged_with,
    upper_layers,
    usual_loss,
    with_adapter,
)
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.layers import is_adapted, layers_of
from cosilo.models.white_box.training import Schedule, TrainingProgress, train
from cosilo.models.white_box.tuning import fitted, without_adapter
from cosilo.models.white_box.unlearning.methods import TaskVector, UnlearningMethod, methods
from cosilo.models.white_box.unlearning.reading import (
    AdapterReader,
    Doubles,
    Exercise,
    Former,
    ModuleReader,
    ReplyReader,
    Seen,
    reply_nats,
)
from cosilo.types import Demonstration

NOTHING_KNOWN = (
    "I don't know.",
    "I have no information about that.",
    "I'm afraid I cannot say.",
    "That is not something I know about.",
    "I am not able to answer this.",
    "Nothing about that is known to me.",
)
"""Replies that `dpo` prefers."""

_WRONG = 2  # replies that a true one is compared with, where none are given


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """How `unlearn` trains and measures.

    Attributes:
        epochs: over the records to forget, at most.
        probe: records of each kind that are measured, drawn where there are more.
        validate_every: steps between two measurements.
        patience: measurements in a row without a better one before it stops; 0 trains all steps, as the
            distance often rises before it falls.
        layers, rank: of the new adapter, for a model that has none: its last so many layers.
    """

    epochs: float = 3.0
    batch: int = 8
    learning_rate: float = 3e-3
    warmup: float = 0.1
    probe: int = 64
    validate_every: int = 8
    patience: int = 0
    layers: int = 8
    rank: int = 16

    def __post_init__(self) -> None:
        if (
            not 0 < self.epochs < math.inf
            or min(self.probe, self.layers, self.rank, self.batch) < 1
        ):
            raise ConfigError(
                f"epochs = {self.epochs!r} must be a number above 0, and probe = {self.probe!r}, "
                f"layers = {self.layers!r}, rank = {self.rank!r} and batch = {self.batch!r} 1 or more"
            )


@dataclass(frozen=True)
class Distance:
    """How far a model is from one that never saw what is to be forgotten.

    Attributes:
        margins: of how much likelier true replies are than wrong ones: Wasserstein-1, nats a token.
        margin: how much likelier on average, less the same of the untuned model: above 0 something is
            remembered, below 0 too much was forgotten.
        lost: what records to keep have lost since, nats a token; 0 where they gained.
        forget, retain: nats a token of the replies.
        error: the standard error of `margin`, over records; infinite for one.
    """

    margins: float
    margin: float
    lost: float
    forget: float
    retain: float
    error: float = math.inf

    @property
    def whole(self) -> float:
        """What is to become small."""
        return self.margins + self.lost

    @property
    def too_much(self) -> bool:
        """Whether true replies are surely (one-sided, 95 %) less likely beside wrong ones than where
        they were never seen: whoever compares them learns who was forgotten."""
        return self.margin + 1.645 * self.error < 0


@dataclass(frozen=True)
class Unlearned:
    """What unlearning did; the records' texts are not in it.

    Attributes:
        model: that is to take the old one's place.
        method: its name.
        records, kept: how many were forgotten, and were to be kept.
        steps: that were trained; best_step is the one whose weights these are, 0 where none was better
            than the model as it came.
        before, after: as measured on the owner's own records.
        digest_before, digest: of the trained weights.
    """

    model: WeightModel
    method: str
    records: int
    kept: int
    steps: int
    best_step: int
    before: Distance
    after: Distance
    digest_before: str
    digest: str
    seconds: float

    @property
    def improved(self) -> bool:
        """Whether it is nearer to a model that never saw the records than the one that came."""
        return self.after.whole < self.before.whole


def unlearn(
    model: WeightModel,
    forget: Sequence[Demonstration],
    retain: Sequence[Demonstration],
    method: str = "bad_teacher",
    *,
    options: Mapping[str, object] | None = None,
    how: Forgetting = Forgetting(),
    untuned: WeightModel | None = None,
    wrong: Sequence[Sequence[str]] | None = None,
    seed: int = 0,
    folder: Path | None = None,
    above: Any = None,
    report: Callable[[TrainingProgress], None] | None = None,
) -> Unlearned:
    """`model` without what it learned of `forget`; it stays as it is.

    An adapter that it has is trained further, so that the model without it is what it was; a model that
    has none gets its upper layers changed. The same arguments give the same weights to the bit on one
    machine and number of threads, also where it was killed and goes on from `folder`.

    Args:
        retain: records that it learned and is to keep.
        method: one of `methods`.
        options: of the method.
        untuned: the model before it learned any of them; by default, `model` without its adapter.
        wrong: for each record to forget, replies that are as good as its own but for being wrong; by
            default those of other records.
        folder: where checkpoints lie; of this alone.
        above: what `adapters.usual_loss` gave for this base and adapter before, so that what lower
            layers say of a text is not computed again.

    Raises:
        ConfigError: no such method or option; `untuned` reads tokens as other text.
        DataError: there is nothing to forget or to keep, or no model that never saw it.
        ModelError: the loss is not finite.
        StoreError: `folder` holds another training's checkpoint, or cannot be written.
    """
    started = perf_counter()
    chosen = methods.create(method, **dict(options or {}))
    module, had = model.module, is_adapted(model.module)
    if not had and untuned is None:
        raise DataError(
            f"{model.name!r} has no adapter that could be taken off, so that nothing says how a "
            "model looks that never saw these records: give the one that it was tuned from"
        )
    if untuned is not None:
        require_same_tokens(model, untuned, [*forget, *retain])
    base = without_adapter(module)
    start = (
        adapter_of(module)
        if had
        else first_adapter(upper_layers(module, how.layers), how.rank, seed=seed)
    )
    loss = above or usual_loss(base, start)
    reader = ModuleReader(loss)
    never = (base, reader) if untuned is None else (untuned.module, ModuleReader(reply_loss))
    job = UnlearningJob(model, base, start, reader, never, forget, retain, how, wrong, seed)
    if isinstance(chosen, TaskVector):
        adapter, steps, best = job.subtracted(chosen, loss, folder, report)
    else:
        adapter, steps, best = job.trained(chosen, method, options or {}, folder, report)
    make = with_adapter if had else merged_with
    return Unlearned(
        model.with_module(make(base, adapter)),
        method,
        len(job.forget),
        len(job.retain),
        steps,
        best,
        job.before,
        job.compared.distance(with_adapter(base, adapter)),
        adapter_digest(start),
        adapter_digest(adapter),
        perf_counter() - started,
    )


def require_same_tokens(
    model: WeightModel, other: WeightModel, records: Iterable[Demonstration]
) -> None:
    """Refuse a model that cannot be held against `model` token by token. One may know tokens besides,
    as models often do since they were tuned.

    Raises:
        ConfigError: to `other` tokens of these records are other text.
    """
    if model.vocabulary == other.vocabulary:
        return
    ids = {int(i) for e in records for i in model.tokenize(e.chat, e.target).ids}
    if any((piece := model.piece(i)) and other.piece(i) != piece for i in ids):
        raise ConfigError(
            f"{other.name!r} has another vocabulary than {model.name!r}, so that what the two say "
            "cannot be compared: give one that it was tuned from, or that was tuned as it was"
        )


class Compared:
    """Measures how far a module is from one that never saw some records.

    Args:
        reader: of `was` and of all modules that are measured.
        untuned: the module that never saw them, and its own reader.
        forget: the records.
        wrong: other replies to each one's question, at least one.
        retain: records that are to be kept.
        was: the module whose loss of these must not rise.
    """

    def __init__(
        self,
        reader: ReplyReader,
        untuned: tuple[Any, ReplyReader],
        forget: Sequence[Tokens],
        wrong: Sequence[Sequence[Tokens]],
        retain: Sequence[Tokens],
        was: Any,
    ) -> None:
        self._reader, self._forget, self._wrong, self._retain = reader, forget, wrong, retain
        self._never = self._margins(*untuned)[0]
        self._kept = mean_nats(reader, was, retain)

    def distance(self, module: Any) -> Distance:
        margins, forget = self._margins(module, self._reader)
        retain = mean_nats(self._reader, module, self._retain)
        apart = float(np.abs(np.sort(margins) - np.sort(self._never)).mean())
        each = margins - self._never
        error = float(each.std(ddof=1)) / math.sqrt(len(each)) if len(each) > 1 else math.inf
        return Distance(
            apart, float(margins.mean() - self._never.mean()), max(0.0, retain - self._kept),
            forget, retain, error,
        )  # fmt: skip

    def _margins(self, module: Any, reader: ReplyReader) -> tuple[Doubles, float]:
        every = [*self._forget, *(t for each in self._wrong for t in each)]
        nats = reply_nats(reader, module, every)
        tokens = np.array([len(t) - t.start for t in every])
        each, first = nats / tokens, len(self._forget)
        sizes = [len(w) for w in self._wrong]
        ends = first + np.cumsum(sizes)
        wrong = np.array([each[e - n : e].mean() for e, n in zip(ends, sizes, strict=True)])
        return wrong - each[:first], float(nats[:first].sum() / tokens[:first].sum())


def mean_nats(reader: ReplyReader, module: Any, sequences: Sequence[Tokens]) -> float:
    """Nats for each token of all replies."""
    tokens = sum(len(s) - s.start for s in sequences)
    return float(reply_nats(reader, module, sequences).sum()) / tokens


def adapter_digest(adapter: Adapter) -> str:
    """A hash of an adapter's numbers."""
    found = hashlib.sha256(f"{adapter.rank} {adapter.alpha!r};".encode())
    for name, tensor in sorted(adapter.tensors.items()):
        found.update(f"{name} {tensor.shape};".encode())
        found.update(np.ascontiguousarray(tensor, "<f4").tobytes())
    return found.hexdigest()[:32]


def taken_away(adapter: Adapter, further: Adapter, share: float) -> Adapter:
    """θ − `share` · (θ′ − θ) of two adapters of one rank and the same layers, exactly: one of twice the
    rank, whose matrices are theirs side by side."""
    tensors: dict[str, Floats] = {}
    for layer in adapter.layers:
        one, other = adapter.tensors, further.tensors
        tensors[layer + A] = np.concatenate([one[layer + A], other[layer + A]])
        tensors[layer + B] = np.concatenate(
            [
                np.float32(1 + share) * one[layer + B],
                np.float32(-share * further.scale / adapter.scale) * other[layer + B],
            ],
            axis=1,
        )
    rank = adapter.rank + further.rank
    return Adapter(rank, adapter.scale * rank, tensors)


class UnlearningJob:
    """All that methods work with.

    Args:
        base: what adapters are put around.
        adapter: the one that training begins with.
        reader: of modules with adapters.
        untuned: a module that never saw the records, and its reader.
        others: see `unlearn`.
    """

    def __init__(
        self,
        model: WeightModel,
        base: Any,
        adapter: Adapter,
        reader: AdapterReader,
        untuned: tuple[Any, ReplyReader],
        forget: Sequence[Demonstration],
        retain: Sequence[Demonstration],
        how: Forgetting,
        wrong: Sequence[Sequence[str]] | None,
        seed: int,
    ) -> None:
        if not forget or not retain or not all(e.target for e in (*forget, *retain)):
            raise DataError(
                f"unlearning takes records to forget ({len(forget)} were given) and records to keep "
                f"({len(retain)}), all with the replies that were learned"
            )
        self.base, self.adapter, self.reader, self.untuned = base, adapter, reader, untuned
        self.how, self.seed = how, seed
        self.was = with_adapter(base, adapter)
        self.forget, self.retain = (
            fitted([model.tokenize(e.chat, e.target) for e in some], base)
            for some in (forget, retain)
        )
        rng = np.random.default_rng([seed, 1])
        self.instead = fitted(
            [
                model.tokenize(e.chat, NOTHING_KNOWN[i])
                for e, i in zip(
                    forget, rng.integers(len(NOTHING_KNOWN), size=len(forget)), strict=True
                )
            ],
            base,
        )
        asked = _some(rng, len(forget), how.probe)
        replies = wrong if wrong is not None else others(forget, retain, rng)
        if len(replies) != len(forget) or not all(replies):
            raise DataError("each record to forget needs one or more wrong replies to its question")
        self.compared = Compared(
            reader,
            untuned,
            [self.forget[i] for i in asked],
            [fitted([model.tokenize(forget[i].chat, r) for r in replies[i]], base) for i in asked],
            [self.retain[i] for i in _some(rng, len(retain), how.probe)],
            self.was,
        )
        self.before = self.compared.distance(self.was)

    @property
    def steps(self) -> int:
        return max(1, round(self.how.epochs * len(self.forget) / self.batch))

    @property
    def batch(self) -> int:
        return min(self.how.batch, len(self.forget))

    def schedule(self) -> Schedule:
        how = self.how
        return Schedule(
            steps=self.steps, batch=self.batch, learning_rate=how.learning_rate, warmup=how.warmup,
            validate_every=how.validate_every, patience=how.patience, seed=self.seed,
        )  # fmt: skip

    def trained(
        self,
        method: UnlearningMethod,
        name: str,
        options: Mapping[str, object],
        folder: Path | None,
        report: Callable[[TrainingProgress], None] | None,
    ) -> tuple[Adapter, int, int]:
        """The adapter at its best, how many steps were trained, and after which it was."""
        import torch

        learning = with_adapter(self.base, self.adapter)
        first, last = self.reader.first, len(layers_of(self.base))
        rng = np.random.default_rng([self.seed, 2])
        direction = rng.uniform(size=int(self.base.config.hidden_size))
        drawn = torch.tensor(direction / np.linalg.norm(direction), dtype=torch.float32)
        middle = first + max(1, (last - first) // 2)

        exercises = self.exercises()
        was = Former(self.reader, self.was, exercises)

        def loss(module: Any, batch: Sequence[Exercise]) -> Any:
            device = next(module.parameters()).device
            seen = Seen(
                self.reader, module, was, batch,
                never=self.untuned, drawn=drawn.to(device), layer=middle,
            )  # fmt: skip
            return method.loss(seen)

        outcome = train(
            learning, exercises, loss, self.schedule(),
            validate=lambda module: self.compared.distance(module).whole,
            folder=folder, run=self.identity(f"{name} {sorted(options.items())}"), report=report,
            precision="bfloat16" if str(self.base.dtype) == "torch.bfloat16" else "float32",
        )  # fmt: skip
        return adapter_of(learning), len(outcome.losses), outcome.best_step

    def subtracted(
        self,
        method: TaskVector,
        loss: Any,
        folder: Path | None,
        report: Callable[[TrainingProgress], None] | None,
    ) -> tuple[Adapter, int, int]:
        """As `trained`: trained further on what is to be forgotten, and that taken away."""
        learning = with_adapter(self.base, self.adapter)
        outcome = train(
            learning, self.forget, loss, self.schedule(),
            folder=folder, run=self.identity("task_vector"), report=report,
            precision="bfloat16" if str(self.base.dtype) == "torch.bfloat16" else "float32",
        )  # fmt: skip
        further, steps = adapter_of(learning), len(outcome.losses)
        best, least = self.adapter, self.before.whole
        for share in method.shares:
            found = taken_away(self.adapter, further, share)
            value = self.compared.distance(with_adapter(self.base, found)).whole
            if value < least:
                best, least = found, value
        return best, steps, 0 if best is self.adapter else steps

    def exercises(self) -> list[Exercise]:
        """As many as all steps take, so that each record to forget meets others to keep every time."""
        rng = np.random.default_rng([self.seed, 3])
        count = self.steps * self.batch
        forget = [i for _ in range(-(-count // len(self.forget))) for i in range(len(self.forget))]
        retain = [
            int(i)
            for _ in range(-(-count // len(self.retain)))
            for i in rng.permutation(len(self.retain))
        ]
        return [
            Exercise(self.forget[i], self.retain[j], self.instead[i])
            for i, j in zip(forget[:count], retain[:count], strict=True)
        ]

    def identity(self, method: str) -> str:
        """What else decides the weights."""
        found = hashlib.sha256(f"{method};{self.how};".encode())
        found.update(adapter_digest(self.adapter).encode())
        for sequence in (*self.forget, *self.retain, *self.instead):
            found.update(f"{sequence.start} {len(sequence)};".encode())
            found.update(np.ascontiguousarray(sequence.ids, "<i4").tobytes())
        return found.hexdigest()


def others(
    forget: Sequence[Demonstration],
    retain: Sequence[Demonstration],
    rng: np.random.Generator,
) -> list[tuple[str, ...]]:
    """For each record to forget, replies of other records.

    Raises:
        DataError: all records have the same reply.
    """
    known = sorted({e.target for e in (*forget, *retain)})
    if len(known) < 2:
        raise DataError("all records have the same reply, so that no wrong one is known: give some")
    found = []
    for each in forget:
        wrong = [known[i] for i in rng.permutation(len(known))[: _WRONG + 1]]
        found.append(tuple(w for w in wrong if w != each.target)[:_WRONG])
    return found


def _some(rng: np.random.Generator, count: int, most: int) -> list[int]:
    return sorted(rng.permutation(count)[:most].tolist())
