"""The small model's prediction and confidence go into the large one's prompt.

Xu et al., "Small Models are Valuable Plug-ins for Large Language Models" (SuperICL, arXiv
2305.08848). The prompt also holds worked examples: tune items with the small model's
prediction and the right answer, so that the LM sees when the small model can be trusted. They are
private text and cross the boundary behind the same guards as the question.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from cosilo.boundary.messages import Ask
from cosilo.models.base import Access
from cosilo.reasoning import spoken
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, ask, strategies
from cosilo.strategies.calibration import calibration, small_answers
from cosilo.strategies.confidence import confidence, plausibility
from cosilo.strategies.guide import Guide
from cosilo.types import Answer, Chat, Turn, last_user

PREDICTION = "\n\nA specialised model's prediction: {text} (confidence: {confidence:.2f})"


@strategies.register("supericl")
@dataclass(frozen=True, kw_only=True)
class SuperICL:
    """The large model decides, knowing what the small one thinks and how sure it is.

    Attributes:
        examples: worked examples in the prompt, taken from the tune items: half where the
            small model was right, half where it was wrong, as far as there are any. Each is
            private text that leaves the building; 0 sends none.
        distrust: an LM reply that the small model holds less likely than this is flagged as suspect.
        shown: the worked examples, chosen before; then `prepare` chooses none.
    """

    guide: ClassVar[Guide] = Guide(
        direction="upward",
        crosses=(
            "every question, the small model's guess and confidence, and worked examples of the "
            "owner's"
        ),
        choose=(
            "the small model knows the task, the LM knows more, and the questions may cross anyway"
        ),
    )

    examples: int = 4
    distrust: float = 0.02
    shown: tuple[Turn, ...] = ()

    needs: ClassVar[Needs] = Needs(small=Access.LOGPROBS, sends=frozenset({Ask}))

    def __post_init__(self) -> None:
        if self.examples < 0:
            raise ValueError(f"examples = {self.examples!r} is negative")

    def forecast(self) -> Forecast:
        return (Expected("answers"),)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        if not self.examples or self.shown:
            return self, session
        graded = await small_answers(session, calibration(session, by="supericl"))
        right = [g for g in graded if g.grade >= 0.5]
        wrong = [g for g in graded if g.grade < 0.5 and not g.refused]
        share = min(len(wrong), self.examples // 2)
        chosen = [g for pair in zip(right, wrong[:share], strict=False) for g in pair]
        chosen += [g for g in right if g not in chosen][: max(0, self.examples - len(chosen))]
        turns: list[Turn] = []
        for g in chosen[: self.examples]:
            sure = confidence(g.reply, session.sampling)
            question = last_user(g.example.chat) + _prediction(g.reply.text, sure)
            turns += [Turn("user", question), Turn("assistant", g.example.target)]
        return replace(self, shown=tuple(turns)), session

    async def answer(self, session: Session, chat: Chat) -> Answer:
        draft = await session.owner.model.generate(chat, session.sampling)
        hint = _prediction(draft.text, confidence(draft, session.sampling))
        reply = (await ask(session, with_hint(chat, self.shown, hint))).generation
        likely = plausibility(draft, reply.text)
        suspect = likely is not None and likely < self.distrust
        return Answer(reply, by="both", confidence=likely, suspect=suspect)


def with_hint(chat: Chat, shown: tuple[Turn, ...], hint: str) -> Chat:
    """`chat` with `shown` after its system turns and `hint` at the end of its last user turn."""
    head = tuple(t for t in chat if t.role == "system")
    body = [t for t in chat if t.role != "system"]
    last = max((i for i, t in enumerate(body) if t.role == "user"), default=None)
    if last is None:
        body.append(Turn("user", hint.strip()))
    else:
        turn = body[last]
        body[last] = Turn(turn.role, turn.content + hint, name=turn.name)
    return (*head, *shown, *body)


def _prediction(text: str, sure: float) -> str:
    return PREDICTION.format(text=spoken(text), confidence=sure)
