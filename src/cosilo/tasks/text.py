"""Free text, graded by ROUGE-L F1 against the best of the references.

Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (ACL 2004 workshop), section 3: the
longest common subsequence of words. Words are runs of letters and digits in one case; no stemming.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from cosilo.errors import DataError
from cosilo.tasks.base import Grade
from cosilo.tasks.files import check_text
from cosilo.tasks.kinds import Form, Given, Kept, Kind, RowItem, ask, best, kinds
from cosilo.types import Sampling

_INSTRUCTIONS = "Answer the user. Reply with the answer only, as short as it can be."
_WORD = re.compile(r"[^\W_]+")


@kinds.register("text")
@dataclass(frozen=True, kw_only=True)
class FreeText(Kind):
    """Options:
    max_tokens: the longest reply.
    """

    max_tokens: int = 256

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens = {self.max_tokens!r} is not positive")

    def check(self, item: RowItem) -> None:
        references(item)

    def form(self, given: Given) -> Form:
        system = given.instructions or _INSTRUCTIONS
        return Form(
            chat=partial(ask, system),
            instructions=system,
            targets=references,
            grade=best(rouge_l),
            sampling=Sampling(max_tokens=self.max_tokens),
        )

    def grader(self, kept: Kept) -> Grade:
        return best(rouge_l)


def references(item: RowItem) -> tuple[str, ...]:
    """The target text, or the list of acceptable ones.

    Raises:
        DataError: the cell holds no text.
    """
    found = item.target if isinstance(item.target, list) else [item.target]
    texts = tuple(value for value in found if isinstance(value, str) and value.strip())
    if not texts or len(texts) < len(found):
        raise DataError(f"{item.row.where}: the target column is empty or holds no text")
    for text in texts:
        check_text(text, where=f"{item.row.where}: the target")
    return texts


def rouge_l(reference: str, answer: str) -> float:
    """F1 of the longest common subsequence of words; 0 to 1, and 1 for two texts without words."""
    a, b = _WORD.findall(reference.casefold()), _WORD.findall(answer.casefold())
    if not a or not b:
        return float(not a and not b)
    return 2 * common_subsequence(a, b) / (len(a) + len(b))


def rouge_l_recall(reference: str, answer: str) -> float:
    """The share of the reference's words that a common subsequence has, 0 to 1."""
    a, b = _WORD.findall(reference.casefold()), _WORD.findall(answer.casefold())
    return common_subsequence(a, b) / len(a) if a else float(not b)


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence.

    Bit-parallel over `a` (Hyyrö, "Bit-Parallel LCS-length Computation Revisited", AWOCA 2004): a
    0 bit of `row` marks where the length rises by one.
    """
    where: dict[str, int] = {}
    for i, word in enumerate(a):
        where[word] = where.get(word, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for word in b:
        matches = row & where.get(word, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(a) - row.bit_count()
