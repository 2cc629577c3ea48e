"""The large model says why; the small one learns the labels and the reasons as two tasks.

Hsieh et al., "Distilling Step-by-Step! Outperforming Larger Language Models with Less Training Data
and Smaller Model Sizes" (arXiv 2305.02301): loss = α · (label task) + (1 − α) · (rationale task).

    item ──▶ LM ──▶ reasons, label ──┬─▶ task 1: text ──▶ label
                                     └─▶ task 2: a model that writes:   text ──▶ reasons
                                                 a model that classifies: reasons ──▶ label

A model that writes learns as in the paper. The tasks are told apart by their instructions: the label
task has the question's own, so that answering needs no prefix; the rationale task asks for reasons.

A classifier cannot write. To it the reasons are a second text of the same label in training: they
name what counts in the item in the LM's words, where the item's own text also holds what does not.
When it answers it sees the item alone, as ever.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from cosilo.boundary.messages import Ask
from cosilo.models.base import Classifier, Trainable
from cosilo.reasoning import spoken
from cosilo.strategies.base import (
    About,
    Expected,
    Forecast,
    Session,
    forecast,
    strategies,
    unshared,
)
from cosilo.strategies.guide import Guide
from cosilo.strategies.labelling import (
    Labels,
    agreed,
    pool_of,
    read_labels,
    replies,
    require_classes,
)
from cosilo.strategies.teaching import Teaching
from cosilo.types import Chat, Demonstration, Sampling, Turn, last_user

_ASKED = (
    "\n\nFirst say in one or two sentences what in the text decides it. Then write a last line of "
    "the form\nLabel: <the label>"
)
_REASONS = "Say in one or two sentences what in the user's text decides how it is to be answered."
_LABEL = re.compile(r"^\W*(?:label|answer)\W*:\W*(.+?)\W*$", re.IGNORECASE | re.MULTILINE)


@strategies.register("step_by_step")
@dataclass(frozen=True, kw_only=True)
class StepByStep(Teaching):
    """Train the small model on the large one's labels and reasons, then go on.

    Attributes:
        pool: what the LM is asked about: the owner's private pool, or the task's public questions.
        items: how many of them, in their order; all when unset.
        alpha: the weight of the label task, 0 < alpha ≤ 1; the rationale task has the rest.
        max_tokens: of the LM's reasons and label.
        agree: drop labels that the small model, trained on the others, takes for mistakes.
        gold: also train on the owner's own examples with their gold targets.
        then: the strategy that answers with the trained small model.
        then_options: that strategy's options.
        seed: of the training.
    """

    guide: ClassVar[Guide] = Guide(
        direction="downward",
        crosses="the pool's texts, once, while preparing; back come reasons and labels",
        choose=(
            "as `distil_labels`, where the reasons for a label help: many labels alike, or a "
            "small model that writes"
        ),
    )

    name: ClassVar[str] = "step_by_step"

    pool: Literal["private", "public"] = "private"
    items: int | None = None
    alpha: float = 0.5
    max_tokens: int = 120
    agree: bool = False
    gold: bool = False

    def __post_init__(self) -> None:
        if self.items is not None and self.items < 1:
            raise ValueError(f"items = {self.items!r} is not positive")
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha = {self.alpha!r} is not above 0 and at most 1")
        if self.max_tokens < 16:
            raise ValueError(f"max_tokens = {self.max_tokens!r} leaves no room for reasons")

    def forecast(self) -> Forecast:
        about: About = "public" if self.pool == "public" else "pool"
        return (Expected(about, items=self.items), *unshared(forecast(self.next())))

    async def lessons(
        self, session: Session, model: Trainable
    ) -> tuple[Sequence[Demonstration], Session]:
        owner, choices = session.owner, session.sampling.choices
        pool = pool_of(owner, self.pool, by=self.name)[: self.items]
        sampling = Sampling(max_tokens=self.max_tokens, seed=self.seed)
        said = await replies(
            session, pool, lambda item: Ask(chat=with_reasons(item.chat), sampling=sampling)
        )
        parts = [split(spoken(reply.text)) if reply else ("", None) for reply in said]
        labels = read_labels(pool, [label for _, label in parts], choices)
        require_classes(labels, closed=bool(choices))
        gold = owner.private if self.gold else ()
        if self.agree:
            labels = await agreed(labels, model, beside=gold, seed=self.seed)
            require_classes(labels, closed=bool(choices))
        reasons = [parts[row][0] for row in labels.rows]
        writes = not isinstance(model, Classifier)
        tasks = self._tasks(labels, reasons, writes=writes)
        found = labels.card(self.name, choices)
        given = {
            "with reasons": sum(map(bool, reasons)),
            "taught to": "write" if writes else "read",
        }
        session = session.with_card(replace(found, facts={**found.facts, **given}))
        return (*gold, *tasks), session

    def _tasks(
        self, labels: Labels, reasons: Sequence[str], *, writes: bool
    ) -> list[Demonstration]:
        """Both tasks; an item's weights in them add up to 2, as if each counted whole at α = ½."""
        tasks = [
            Demonstration(e.id, e.chat, e.target, weight=2 * self.alpha) for e in labels.examples
        ]
        rest = 2 * (1 - self.alpha)
        for example, reason in zip(labels.examples, reasons, strict=True):
            if not reason or not rest:
                continue
            if writes:
                chat: Chat = (Turn("system", _REASONS), Turn("user", last_user(example.chat)))
                target = reason
            else:
                chat, target = (*_systems(example.chat), Turn("user", reason)), example.target
            tasks.append(Demonstration(f"{example.id}/why", chat, target, weight=rest))
        return tasks


def with_reasons(chat: Chat) -> Chat:
    """`chat` with the wish for reasons and a label at the end of its last user turn."""
    last = max(i for i, turn in enumerate(chat) if turn.role == "user")
    turn = Turn("user", chat[last].content + _ASKED)
    return (*chat[:last], turn, *chat[last + 1 :])


def split(reply: str) -> tuple[str, str]:
    """The reasons and the label in a reply; the last line is the label where none is marked."""
    marked = list(_LABEL.finditer(reply))
    if marked:
        return reply[: marked[-1].start()].strip(), marked[-1][1]
    reasons, _, label = reply.strip().rpartition("\n")
    return reasons.strip(), label


def _systems(chat: Chat) -> Chat:
    return tuple(turn for turn in chat if turn.role == "system")
