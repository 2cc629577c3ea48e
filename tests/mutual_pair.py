"""A tiny large model and a tiny small one that learn from each other. Needs torch."""

from __future__ import annotations

from typing import Any

from cosilo.models.fit.mutual import MutualLM, MutualTerms, PublicExample
from cosilo.types import user
from white_box import tiny

LABELS = ("refund", "billing", "delivery")
TERMS: dict[str, Any] = {
    "steps": 3, "batch": 3, "learning_rate": 1e-2, "small_learning_rate": 1e-2, "rank": 2,
}  # fmt: skip


def public(count: int = 6) -> list[PublicExample]:
    return [PublicExample(user(f"public {i}"), LABELS[i % 3]) for i in range(count)]


def mutual(*, large: Any = None, small: Any = None, **options: Any) -> MutualLM:
    """The owners' small model is `tiny(1)`."""
    pair = large or tiny(0, layers=3), small or tiny(1)
    return MutualLM(*pair, public(), MutualTerms(**TERMS | options))
