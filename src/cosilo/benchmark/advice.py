"""What does not fit together in a plan, found once the data and the models are there and before
anything is paid: what cannot work is refused, what can but is likely a mistake is told.
"""

from __future__ import annotations

from collections.abc import Iterator

from cosilo.benchmark.plan import Plan
from cosilo.errors import CapabilityError
from cosilo.models.base import Classifier
from cosilo.parties.data_owner import DataOwner
from cosilo.strategies.base import Strategy
from cosilo.strategies.inference.ends import Large
from cosilo.strategies.inference.ensemble import Ensemble
from cosilo.strategies.inference.secure_head import SecureHead
from cosilo.tasks.base import Task


def require_taught(owner: DataOwner, strategy: Strategy, *, by: str) -> None:
    """Refuse a strategy that would ask a classifier that has learned nothing.

    Raises:
        CapabilityError: nobody teaches it.
    """
    untaught = isinstance(owner.model, Classifier) and not owner.model.labels
    # A private head is behind the encoder alone, which nobody has to train.
    alone = isinstance(strategy, Large | SecureHead) or (
        isinstance(strategy, Ensemble) and not strategy.asks_small
    )
    if untaught and not strategy.needs.trainable and not alone:
        raise CapabilityError(
            f"{by} asks the small model, a classifier that has learned nothing: set train = true in "
            "[models.small], or use a strategy that teaches it, such as distil_labels"
        )


def oddities(plan: Plan, task: Task, owner: DataOwner) -> Iterator[str]:
    """Warnings about what in the plan is likely a mistake, one sentence each."""
    small = owner.model
    if not isinstance(small, Classifier):
        return
    if not task.labels:
        yield (
            f"the small model is a classifier, and a {task.kind!r} task has no labels: it can only "
            "repeat one of the answers that it was taught, word for word"
        )
    if not plan.small.train:
        return
    missing = [label for label in task.labels if label not in small.labels]
    count = len(owner.private)
    if missing:
        yield (
            f"the {count} training items with gold targets hold {len(small.labels)} of the "
            f"{len(task.labels)} labels (train_items = {plan.small.train_items or 'all'}): the small "
            "model can never answer the others"
        )
    elif task.labels and count < 2 * len(task.labels):
        yield (
            f"the small model learns {len(task.labels)} labels from {count} training items, fewer "
            f"than two each (train_items = {plan.small.train_items or 'all'})"
        )
