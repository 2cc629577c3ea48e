"""The small model that trains in seconds: a sentence encoder and a linear head.

    last user turn ──▶ encoder ──▶ head ──▶ label, log-probability of every label

Calls that come while one batch runs make up the next batch; nobody waits for a batch to fill.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, thread_time

import numpy as np

from cosilo.errors import ConfigError, DataError, ModelError, RejectedError
from cosilo.models.base import Access, Array, models
from cosilo.models.encoder.committee import Committee, load_head
from cosilo.models.encoder.encoder import Encoder, encoder_loads
from cosilo.models.encoder.head import PACKAGES, Features, TrainedHead, Validation, train
from cosilo.models.sharded import ShardAnswer
from cosilo.registry import Loads
from cosilo.types import Chat, Demonstration, Generation, Sampling, TokenLogprob, last_user

_BATCH = 64

Head = TrainedHead | Committee


class ClassifierModel:
    """A classifier of the last user turn that answers with the label as text.

    Its reply has one token, the label, with the log of its calibrated probability and all labels as
    alternatives. With `Sampling.choices`, labels that are no choice are ruled out and the rest share
    the probability. It also embeds texts, trained or not.

    Args:
        encoder: what turns text into vectors; copies made by `fit` share it.
        features: what the head looks at beside the vector; "auto" lets cross-validation decide.
        head: a trained head, or a committee of some; without one it must be trained before it can
            answer.
    """

    def __init__(
        self, encoder: Encoder, *, features: Features = "auto", head: Head | None = None
    ) -> None:
        self.encoder = encoder
        self.features = features
        self.head = head
        self._pending: list[tuple[str, asyncio.Future[_Answer]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None

    @property
    def name(self) -> str:
        return "classifier"

    @property
    def identity(self) -> str:
        """Its encoder's, and a hash of its head."""
        return f"classifier:{self.encoder.identity}:{self._taught}"

    @property
    def former_identity(self) -> str:
        """The identity in earlier versions, which named only the encoder's folder; empty where it
        has not changed.
        """
        by_name = f"classifier:{self.encoder.folder.name}:{self._taught}"
        return by_name if by_name != self.identity else ""

    @property
    def _taught(self) -> str:
        return self.head.digest() if self.head else "untrained"

    @property
    def access(self) -> Access:
        return Access.LOGPROBS

    @property
    def labels(self) -> tuple[str, ...]:
        """What it can answer, sorted; empty before it is trained."""
        return self.head.labels if self.head else ()

    @property
    def validation(self) -> Validation | None:
        """What cross-validation found when it was trained."""
        return self.head.validation if isinstance(self.head, TrainedHead) else None

    def fit(self, examples: Sequence[Demonstration], *, seed: int = 0) -> ClassifierModel:
        """A copy trained on the last user turns and targets of `examples`.

        Raises:
            DataError: no examples, one target only, or targets that never repeat.
        """
        wanted = [e for e in examples if e.target and e.weight > 0]
        if examples and not wanted:
            raise DataError(f"none of the {len(examples)} training examples has a target")
        texts = [last_user(e.chat) for e in wanted]
        head = train(
            self.encoder.embed(texts).vectors,
            texts,
            [e.target for e in wanted],
            weights=[e.weight for e in wanted],
            features=self.features,
            seed=seed,
            threads=self.encoder.threads,
        )
        return ClassifierModel(self.encoder, features=self.features, head=head)

    def probabilities(self, texts: Sequence[str]) -> Array:
        """Calibrated class probabilities, shape (len(texts), len(labels)); rows sum to 1.

        Raises:
            RejectedError: it is not trained.
        """
        return self._trained().probabilities(self.encoder.embed(texts).vectors, texts)

    def embed(self, texts: Sequence[str]) -> Array:
        """Unit-length sentence vectors, shape (len(texts), dimension)."""
        return self.encoder.embed(texts).vectors

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        """The most probable label.

        Raises:
            RejectedError: it is not trained, or none of its labels is among `sampling.choices`.
            ModelError: the encoder failed.
        """
        head = self._trained()
        allowed = _allowed(head.labels, sampling.choices)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Answer] = loop.create_future()
        self._pending.append((last_user(chat), future))
        if self._worker is None:
            # In a context of its own: the batch is nobody's alone, and states its time per text.
            self._worker = loop.create_task(self._work(head), context=Context())
        answer = await future
        return _generation(head.labels, allowed, answer)

    def save(self, folder: Path | str) -> None:
        """Write the trained head into `folder`; open it with the option `head`.

        Raises:
            RejectedError: it is not trained.
        """
        self._trained().save(Path(folder))

    def keep(self, folder: Path) -> Mapping[str, object]:
        self.save(folder)
        return {"head": folder}

    def restored(self, folder: Path) -> ClassifierModel:
        """This classifier with the head in `folder`.

        Raises:
            ConfigError: there is none.
        """
        return ClassifierModel(self.encoder, features=self.features, head=load_head(folder))

    def united(self, members: Sequence[ClassifierModel], answer: ShardAnswer) -> ClassifierModel:
        """One that encodes a text once for all `members`."""
        heads = tuple(m.head for m in members if isinstance(m.head, TrainedHead))
        together = Committee(heads, answer)
        return ClassifierModel(self.encoder, features=self.features, head=together)

    async def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None
        self.encoder.close()

    async def _work(self, head: Head) -> None:
        loop = asyncio.get_running_loop()
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="classifier")
        batch: list[tuple[str, asyncio.Future[_Answer]]] = []
        try:
            await asyncio.sleep(0)  # one turn of the loop: those who call at once come along
            while self._pending:
                batch, self._pending = self._pending[:_BATCH], self._pending[_BATCH:]
                texts = [text for text, _ in batch]
                answers = await loop.run_in_executor(self._thread, self._answer, head, texts)
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
        except Exception as error:
            failed = error if isinstance(error, ModelError | ConfigError) else _failure(error)
            for _, future in (*batch, *self._pending):
                if not future.done():
                    future.set_exception(failed)
            self._pending = []
        finally:
            for _, future in (*batch, *self._pending):
                future.cancel()
            self._pending = []
            self._worker = None

    def _answer(self, head: Head, texts: Sequence[str]) -> list[_Answer]:
        """One answer per text; the head's time is shared out among the texts by their tokens."""
        embedded = self.encoder.embed(texts)
        wall, cpu = perf_counter(), thread_time()
        rows = head.probabilities(embedded.vectors, texts)
        wall, cpu = perf_counter() - wall, (thread_time() - cpu) * self.encoder.threads
        total = max(1, sum(embedded.tokens))
        columns = (rows, embedded.tokens, embedded.seconds, embedded.cpu_seconds)
        return [
            _Answer(row, n, seconds + wall * n / total, cpu_seconds + cpu * n / total)
            for row, n, seconds, cpu_seconds in zip(*columns, strict=True)
        ]

    def _trained(self) -> Head:
        if self.head is None:
            raise RejectedError(
                "the classifier is not trained: set train = true for it, or use a strategy that "
                "trains it",
                everything=True,
            )
        return self.head


@dataclass(frozen=True, eq=False)
class _Answer:
    """One row of probabilities, the word pieces read, and the share of the batch's time."""

    row: Array
    tokens: int
    seconds: float
    cpu_seconds: float


def _allowed(labels: tuple[str, ...], choices: tuple[str, ...]) -> list[int]:
    allowed = [i for i, label in enumerate(labels) if not choices or label in choices]
    if not allowed:
        raise RejectedError(
            f"none of the classifier's {len(labels)} labels is among the {len(choices)} choices"
        )
    return allowed


def _generation(labels: tuple[str, ...], allowed: list[int], answer: _Answer) -> Generation:
    row = answer.row[allowed].astype(np.float64)
    row = np.maximum(row / max(row.sum(), 1e-30), 1e-30)
    top = sorted(
        ((labels[i], min(0.0, math.log(p))) for i, p in zip(allowed, row, strict=True)),
        key=lambda pair: -pair[1],
    )
    label, logprob = top[0]
    return Generation(
        label,
        tokens=(TokenLogprob(label, logprob, tuple(top)),),
        prompt_tokens=answer.tokens,
        completion_tokens=1,
        seconds=answer.seconds,
        cpu_seconds=answer.cpu_seconds,
    )


def _failure(error: Exception) -> ModelError:
    return ModelError(f"the classifier failed: {type(error).__name__}")


def _loads(encoder: str | Path) -> Loads:
    return encoder_loads(encoder) | Loads(packages=PACKAGES)


@models.register("classifier", loads=_loads)
def classifier(
    encoder: str | Path = "minilm-int8",
    features: Features = "auto",
    threads: int = 1,
    head: Path | None = None,
) -> ClassifierModel:
    """A sentence encoder and a linear head that trains in seconds on two cores.

    Args:
        encoder: a name in the catalog, or a folder with `model.onnx` and `tokenizer.json`.
        features: what the head looks at: the vector, n-grams too, or what cross-validation prefers.
        threads: used by the encoder and in training.
        head: a folder with a head, or a committee of some, saved before.

    Raises:
        CatalogError: the encoder is not there; the message says how to pull it.
        ConfigError: `head` holds none.
    """
    trained = load_head(head) if head is not None else None
    return ClassifierModel(Encoder(encoder, threads=threads), features=features, head=trained)
