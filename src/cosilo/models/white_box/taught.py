"""Learning of a reply what stands there, and what a better model would have said in its place.

    loss = λ · −log p(reply) + (1 − λ) · KL(teacher ‖ student) where both read the same text before

Needs torch; its tensors are typed `Any` here, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cosilo.models.base import Tokens
from cosilo.models.mutual import TaughtLesson
from cosilo.models.white_box.batch import device_of, pad, predict
from cosilo.models.white_box.losses import Teacher, divergence
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


def _distances(rows: Any, lesson: TaughtLesson) -> Any:
    import torch

    teacher = Teacher.of(lesson.ids, lesson.logprobs, lesson.rest, lesson.size, rows.device)
    return divergence(rows[torch.as_tensor(lesson.places, device=rows.device)], teacher)


def _key(tokens: Tokens) -> bytes:
    return tokens.start.to_bytes(4, "little") + tokens.ids.tobytes()
