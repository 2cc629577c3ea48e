"""Owners of unequal small models and the owner of a large one learn from each other on public texts.

    owner: train on its own examples ── what its model says of the public texts ──▶ coordinator
      ▲                                                                                  │ the large
      │   of each text, who gives its reply the larger probability teaches               │ model learns
      └────────────────── what the large model says of the public texts ◀────────────────┘

Fan et al., "FedMKT: Federated Mutual Knowledge Transfer for Large and Small Language Models" (arXiv
2406.02224). Tokenisers may differ: both sides cut the same bytes, and tokens are held against each
other where they begin at the same one (`boundary.wire.alignment`). The paper pairs tokens by the least
edit distance between the two cuts, and each with the nearest spelling; there two tokens can be paired
that stand at different places of the text, and the map from one vocabulary to the other is made
beforehand, for each pair of models. No adapter, weight or private text crosses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from cosilo.boundary.messages import Contribute, Contributed, Enrol, NextRound
from cosilo.boundary.wire.opinions import LEAST_TOP, MOST_TOP
from cosilo.errors import DataError
from cosilo.models.base import Access, Shows, require
from cosilo.models.fit.mutual import read_public
from cosilo.models.white_box import files as torch_files
from cosilo.registry import Loads
from cosilo.strategies.base import (
    Expected,
    Forecast,
    Needs,
    Session,
    Strategy,
    forecast,
    strategies,
    unshared,
)
from cosilo.strategies.federating.all_rounds import all_rounds
from cosilo.strategies.federating.opinions import OpinionOwner
from cosilo.strategies.federating.participation import Participation
from cosilo.strategies.guide import Guide
from cosilo.types import Answer, Chat


@strategies.register("fedmkt")
@dataclass(frozen=True, kw_only=True)
class FedMKT:
    """Train the small model at home and on what a large one says of public texts, which learns from
    what the small one says of them; then go on with another strategy.

    Attributes:
        public: the file of public examples, the same as the coordinator's: JSON lines with `text`,
            `target` and, where there is one, `system`.
        rounds: takes part in a federation of so many rounds at most.
        top: names so many tokens at a place, at most; the federation says how many.
        steps, batch, learning_rate: of the training on the owner's examples, in each round.
        taught_steps, taught_rate: of the training on public texts that the large model knows better.
        share: of the texts' own replies in that, beside what the large model says.
        rank: of the adapter.
        upper: the adapter is on the last so many layers only, and a step costs what they do; on all
            layers when 0.
        noise: the standard deviation of Gaussian noise on the gradients of each step on the owner's
            examples, over `clip` (DP-SGD, for each record); none when 0. `batch` is then how many
            records a step draws on average.
        clip: with noise, how long a record's gradient may be.
        key_file: the key that noise is drawn under; a run has one of its own.
        seed: of the trainings.
        checkpoints: a folder from which interrupted trainings go on; a run has one of its own.
        then: the strategy that answers with what came of it.
        then_options: that strategy's options.
    """

    guide: ClassVar[Guide] = Guide(
        direction="upward",
        crosses=(
            "for each place of public texts, what a model trained on the owner's examples holds "
            "likeliest, once a round; back comes what the large model does; the large model keeps what "
            "it learned"
        ),
        choose=(
            "owners have different small models, no weights may cross, all may use the same public "
            "examples of the task, and the large model shall learn, too"
        ),
    )

    public: Path
    rounds: int = 20
    top: int = 64
    steps: int = 50
    batch: int = 8
    learning_rate: float = 2e-4
    taught_steps: int = 50
    taught_rate: float = 2e-4
    share: float = 0.9
    rank: int = 8
    upper: int = 0
    noise: float = 0.0
    clip: float = 1.0
    key_file: Path | None = None
    seed: int = 0
    checkpoints: Path | None = None
    then: str = "small"
    then_options: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not LEAST_TOP <= self.top <= MOST_TOP:
            raise ValueError(f"top = {self.top!r} is not from {LEAST_TOP} to {MOST_TOP}")
        if self.taught_steps < 1 or not self.taught_rate > 0:
            raise ValueError(
                f"taught_steps = {self.taught_steps!r} and taught_rate = {self.taught_rate!r} are not "
                "positive"
            )
        if not 0 <= self.share <= 1:
            raise ValueError(f"share = {self.share!r} is not from 0 to 1")
        self.at_home  # noqa: B018 — says what cannot be

    @property
    def at_home(self) -> Participation:
        """How the owner trains on its own examples."""
        return Participation(
            rounds=self.rounds,
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            rank=self.rank,
            upper=self.upper,
            noise=self.noise,
            noise_on="step" if self.noise else "update",
            protects="record" if self.noise else "group",
            clip=self.clip,
            key_file=self.key_file,
            seed=self.seed,
            checkpoints=self.checkpoints,
        )

    def shared_examples(self) -> list[tuple[Chat, str]]:
        """The public examples, which attackers know, too.

        Raises:
            DataError: the file cannot be read.
        """
        return [(each.chat, each.target) for each in read_public(self.public)]

    def next(self) -> Strategy:
        """The strategy that answers, not prepared."""
        return strategies.create(self.then, **self.then_options)

    @property
    def needs(self) -> Needs:
        after = self.next().needs
        return replace(
            after,
            sends=after.sends | {Enrol, NextRound, Contribute},
            large=after.large | Shows.LOGITS,
            small=Access.WEIGHTS,
            trainable=True,
            loads=after.loads | Loads(packages=torch_files.PACKAGES),
        )

    def forecast(self) -> Forecast:
        totals = ((Enrol, 1), (NextRound, 4 * self.rounds), (Contribute, self.rounds))
        own = [Expected("once", kind, total=n, reads=(1,), writes=()) for kind, n in totals]
        return (*own, *unshared(forecast(self.next())))

    async def answer(self, session: Session, chat: Chat) -> Answer:
        raise ValueError(f"{_NAME} only prepares: answer with the strategy prepare returns")

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        """Takes part in all rounds.

        Raises:
            DataError: no examples with targets, or no public ones.
            CapabilityError: the coordinator has other public examples, or wants what this owner does
                not give.
            PrivacyError: the rounds would cost more ε than the records have left.
        """
        model = require(session.owner.model, Access.WEIGHTS, by=_NAME)
        examples = [e for e in session.owner.private if e.target and e.weight > 0]
        if not examples:
            raise DataError(f"{_NAME} has no examples with targets to train on, so nothing to say")
        public = await asyncio.to_thread(read_public, self.public)
        taught = (self.taught_steps, self.taught_rate, self.share)
        owner = await asyncio.to_thread(
            lambda: OpinionOwner(self.at_home, taught, self.top, model, examples, public, by=_NAME)
        )
        enrolled = await session.lm.send(owner.enrol())
        owner.agree(enrolled)
        release = self.at_home.release(len(examples))
        if release is not None and session.account is not None:
            await session.account.require([release] * enrolled.rounds)

        async def give(number: int) -> Contributed:
            return await session.lm.send(await asyncio.to_thread(owner.update, number))

        await all_rounds(session, owner, give)
        untuned = self.next().needs.untuned
        trained = model.with_module(await asyncio.to_thread(lambda: owner.module(untuned=untuned)))
        learned = session.owner.taught(trained, examples, further=True)
        session = replace(session, owner=learned).with_card(owner.card())
        return await self.next().prepare(session)


_NAME = "fedmkt"
