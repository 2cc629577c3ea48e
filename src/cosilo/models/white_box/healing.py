"""What a model lost with its layers, learnt back from the whole one.

The loss is the Kullback–Leibler divergence of the student's next-token distribution from the
teacher's, over the whole vocabulary (Hinton et al., arXiv 1503.02531): both are at hand, so nothing is
left out. The embedding and the head, which they share, stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cosilo.models.base import Tokens
from cosilo.models.white_box.batch import device_of, pad, predict


def teacher_loss(teacher: Any) -> Callable[[Any, Sequence[Tokens]], Any]:
    """The loss of a student against `teacher`: nats per reply token, a scalar with its gradient."""
    import torch

    def loss(student: Any, sequences: Sequence[Tokens]) -> Any:
        batch = pad(sequences, device_of(student))
        with torch.no_grad():
            wanted = predict(teacher, batch)[batch.counted].float().log_softmax(-1)
        found = predict(student, batch)[batch.counted].float().log_softmax(-1)
        return torch.nn.functional.kl_div(found, wanted, reduction="batchmean", log_target=True)

    return loss


def freeze_ends(module: Any) -> None:
    """Leave the embedding and the head out of the training."""
    for part in (module.get_input_embeddings(), module.get_output_embeddings()):
        part.requires_grad_(False)
