"""Learning of a reply what stands there, and what a better model would have said in its place.

    loss = λ · −log p(reply) + (1 − λ) · KL(teacher ‖ student) where both read the same text before

Needs torch; its tensors are typed `Any` here, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cosilo.errors import DataError
from cosilo.models.base import Array, Tokens, WeightModel
from cosilo.models.mutual import PublicExample, TaughtLesson
from cosilo.models.white_box.adapters import Adapter, trained_adapter
from cosilo.models.white_box.batch import device_of, pad, predict
from cosilo.models.white_box.losses import Teacher, divergence
from cosilo.models.white_box.training import TrainingOutcome
from cosilo.models.white_box.upper import ReplyLossAbove

Logits = Callable[[Any, Sequence[Tokens]], Any]
"""(the module, sequences) → the logits that predicted their replies' tokens, reply after reply."""


def reply_logits(module: Any, sequences: Sequence[Tokens]) -> Any:
    """See `Logits`."""
    batch = pad(sequences, device_of(module))
    return predict(module, batch)[batch.counted]


class TaughtLoss:
    """The loss above of lessons, for a training that is given their tokens.

    Args:
        share: λ, of the reply itself.
        above: where only upper layers are trained, what keeps the states below.

    Raises:
        ValueError: the share is not from 0 to 1.
    """

    def __init__(
        self, lessons: Sequence[TaughtLesson], share: float, above: ReplyLossAbove | None = None
    ) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share = {share!r} is not from 0 to 1")
        self._share = share
        self._logits: Logits = reply_logits if above is None else above.logits
        self._lessons: Mapping[bytes, TaughtLesson] = {_key(each.tokens): each for each in lessons}
        self.identity = f"{share!r} " + " ".join(each.digest for each in lessons)

    def __call__(self, module: Any, sequences: Sequence[Tokens]) -> Any:
        """A scalar with its gradient: means over the batch's places, and over those taught."""
        import torch
        from torch.nn.functional import cross_entropy

        logits = self._logits(module, sequences).float()
        wanted = [torch.as_tensor(s.ids[s.start :], dtype=torch.long) for s in sequences]
        loss = cross_entropy(logits, torch.cat(wanted).to(logits.device))
        at, far = 0, []
        for sequence in sequences:
            lesson = self._lessons[_key(sequence)]
            rows = logits[at : at + len(sequence) - sequence.start]
            at += len(rows)
            if len(lesson.places):
                far.append(_distances(rows, lesson))
        loss = self._share * loss
        return loss + (1 - self._share) * torch.cat(far).mean() if far else loss


def public_sequences(model: WeightModel, public: Sequence[PublicExample]) -> list[Tokens]:
    """Public examples as `model`'s tokens.

    Raises:
        DataError: one does not fit its context.
    """
    context = int(getattr(model.module.config, "max_position_embeddings", 1 << 20))
    found = [model.tokenize(each.chat, each.target) for each in public]
    for number, tokens in enumerate(found, 1):
        if len(tokens) > context:
            raise DataError(
                f"public example {number} has {len(tokens)} tokens, and {model.name!r} reads "
                f"{context}: leave it out, on every side"
            )
    return found


def predictions(
    module: Any, sequences: Sequence[Tokens], above: ReplyLossAbove | None = None
) -> Iterator[Array]:
    """The logits that predicted each reply's tokens, float32, (tokens, vocabulary) of each: one after
    another, so that what they are does not depend on the others."""
    import torch

    logits = reply_logits if above is None else above.logits
    was_training = module.training
    module.eval()
    try:
        for sequence in sequences:
            with torch.no_grad():
                rows = logits(module, [sequence]).float().cpu().numpy()
            yield rows
    finally:
        module.train(was_training)


def taught_adapter(
    module: Any,
    adapter: Adapter,
    lessons: Sequence[TaughtLesson],
    *,
    share: float,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    folder: Path | None = None,
    run: str = "",
    above: ReplyLossAbove | None = None,
) -> tuple[Adapter, TrainingOutcome]:
    """`adapter` once it was trained on `lessons`, see `TaughtLoss` and `adapters.trained_adapter`;
    where there are none as it was.

    Raises:
        ModelError: the loss or its gradient is not finite.
        StoreError: `folder` holds another training's checkpoint, or cannot be written.
    """
    if not lessons:
        return adapter, TrainingOutcome()
    loss = TaughtLoss(lessons, share, above)
    return trained_adapter(
        module, adapter, [lesson.tokens for lesson in lessons],
        steps=steps, batch=batch, learning_rate=learning_rate, seed=seed,
        folder=folder, run=f"{run} {loss.identity}", loss=loss,
    )  # fmt: skip


def _distances(rows: Any, lesson: TaughtLesson) -> Any:
    import torch

    teacher = Teacher.of(lesson.ids, lesson.logprobs, lesson.rest, lesson.size, rows.device)
    return divergence(rows[torch.as_tensor(lesson.places, device=rows.device)], teacher)


def _key(tokens: Tokens) -> bytes:
    return tokens.start.to_bytes(4, "little") + tokens.ids.tobytes()
