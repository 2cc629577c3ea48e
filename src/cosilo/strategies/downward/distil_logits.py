"""The small model learns the large one's next-token probabilities, not only its words.

    pool ─ Ask ─▶ replies ─ Score ─▶ the k likeliest tokens at each place ─▶ train the small model
                     ▲                                                           │
                     └────────── on_policy: replies it samples itself ◀──────────┘

White-box distillation: forward KL (Hinton et al., arXiv 1503.02531), reverse KL (MiniLLM, arXiv
2306.08543) and, on the small model's own samples, the generalised JSD (GKD, Agarwal et al., arXiv
2306.13649). Both models must share a vocabulary. No gradient flows through sampling.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import msgspec

from cosilo.boundary.messages import Ask, Message, Score, Scored
from cosilo.boundary.wire.logits import TopK, joined
from cosilo.errors import CapabilityError
from cosilo.models.base import Access, Tokens, WeightModel, require
from cosilo.models.white_box import files as torch_files
from cosilo.registry import Loads
from cosilo.strategies.base import Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.downward.learning import Learning
from cosilo.strategies.downward.scoring import Question, opinions
from cosilo.strategies.guide import Guide
from cosilo.types import Chat


@dataclass(frozen=True, eq=False)
class Lesson:
    """A reply to `chat` as the small model's tokens, and what the large one would have said."""

    chat: Chat
    tokens: Tokens
    top: TopK


@strategies.register("distil_logits")
@dataclass(frozen=True, kw_only=True)
class DistilLogits(Learning):
    """Train the small model towards the large one's next-token probabilities, then go on with another
    strategy.

    Attributes:
        loss: "forward_kl" covers all that the large model might say, "reverse_kl" seeks what it surely
            says, "jsd" lies between, by `beta`.
        k: how many of the large model's likeliest tokens are sent for each place.
        temperature: of both models' probabilities in the loss.
        beta: of "jsd", 0 to 1: from forward to reverse.
        on_policy: the share of steps whose replies the small model samples itself, to be scored then.

    The others are those of `Learning`.
    """

    guide: ClassVar[Guide] = Guide(
        direction="downward",
        crosses=(
            "the pool's texts and replies to them; back come, for each place, the likeliest "
            "tokens and their probabilities"
        ),
        choose=(
            "the LM shows probabilities and shares the small model's vocabulary: more is learned "
            "from each text than from its label"
        ),
    )

    name: ClassVar[str] = "distil_logits"

    loss: Literal["forward_kl", "reverse_kl", "jsd"] = "forward_kl"
    k: int = 64
    temperature: float = 1.0
    beta: float = 0.5
    on_policy: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("k", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not positive")
        for name in ("beta", "on_policy"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not between 0 and 1")

    @property
    def needs(self) -> Needs:
        after = self.next().needs
        asked: frozenset[type[Message]] = frozenset() if self.gold else frozenset({Ask})
        sends = after.sends | asked | {Score}
        loads = after.loads | Loads(packages=torch_files.PACKAGES)
        return replace(after, sends=sends, small=Access.WEIGHTS, loads=loads)

    def forecast(self) -> Forecast:
        sampled = self.steps * self.batch if self.on_policy else 0  # which steps is drawn
        own = replace(self.scored(), total=1 + sampled, reads=("question", "answer"))
        return (self.scored(), own, *super().forecast())

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        model = require(session.owner.model, Access.WEIGHTS, by=self.name)
        pool = self.pool(session)
        await self._require_one_vocabulary(session, model, pool[0].chat)
        examples, session = await self.replies(session, pool)
        items = [Scored(example.chat, example.target) for example in examples]
        lessons = await self._lessons(session, model, items)
        loop = asyncio.get_running_loop()

        def own(module: Any, batch: Sequence[Lesson], seed: int) -> list[Lesson]:
            """The batch with replies that the module writes now; called in the training's thread."""
            work = self._sampled(session, model.with_module(module), batch, seed)
            return asyncio.run_coroutine_threadsafe(work, loop).result()

        def loss(module: Any, batch: Sequence[Lesson]) -> Any:
            import torch

            if self.on_policy and float(torch.rand(())) < self.on_policy:
                batch = own(module, batch, int(torch.randint(1 << 30, ())))
            return self._loss(module, batch)

        return await self.learned(session, model, examples, lessons, loss, check=self._loss)

    def _loss(self, module: Any, batch: Sequence[Lesson]) -> Any:
        """The mean over all places of the batch: a scalar with its gradient."""
        from cosilo.models.white_box.batch import device_of, pad, predict
        from cosilo.models.white_box.losses import Teacher, divergence

        device = device_of(module)
        padded = pad([lesson.tokens for lesson in batch], device)
        student = predict(module, padded)[padded.counted]
        top = joined([lesson.top for lesson in batch])
        teacher = Teacher.of(top.ids, top.logprobs, top.rest, top.size, device)
        return divergence(
            student, teacher, self.loss, temperature=self.temperature, beta=self.beta
        ).mean()

    async def _lessons(
        self, session: Session, model: WeightModel, items: Sequence[Scored]
    ) -> list[Lesson]:
        found, _ = await opinions(session, items, Question(self.k, self.temperature))
        lessons = []
        for item, opinion in zip(items, found, strict=True):
            lessons.append(Lesson(item.chat, model.tokenize(item.chat, item.reply), opinion.top))
            await asyncio.sleep(0)  # others have their turn between any two
        # A reply that is empty or cut differently (which one vocabulary does not do) teaches nothing.
        return [x for x in lessons if len(x.top) == len(x.tokens) - x.tokens.start]

    async def _sampled(
        self, session: Session, student: WeightModel, batch: Sequence[Lesson], seed: int
    ) -> list[Lesson]:
        sampling = msgspec.structs.replace(
            session.sampling, temperature=1.0, choices=(), top_logprobs=0, seed=seed
        )
        said = await asyncio.gather(
            *(
                student.generate(lesson.chat, msgspec.structs.replace(sampling, seed=seed + i))
                for i, lesson in enumerate(batch)
            )
        )
        items = [Scored(x.chat, s.text) for x, s in zip(batch, said, strict=True)]
        return await self._lessons(session, student, items)

    async def _require_one_vocabulary(
        self, session: Session, model: WeightModel, chat: Chat
    ) -> None:
        _, vocabulary = await opinions(session, [Scored(chat, "")], Question(1))
        if vocabulary != model.vocabulary:
            raise CapabilityError(
                f"{self.name} needs one tokeniser for both models, and {model.name!r} has another "
                "than the large model; distil_across works across tokenisers"
            )
