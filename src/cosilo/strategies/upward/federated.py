"""Many owners train one adapter together, and none of their data leaves.

    owner: train the adapter on its own examples ── Contribute ──▶ coordinator: put all of them together
           ▲                                                                       │
           └──────────────────────────── the round's adapter ◀─────────────────────┘

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data" (FedAvg,
arXiv 1602.05629), on LoRA adapters as in Zhang et al. (FedIT, arXiv 2305.05644). Written for one owner:
it speaks to the coordinator alone, which may be a `cosilo host` or, to try it out, one in the process.
An update is not harmless: texts can be read out of gradients, and of adapters trained for few steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, ClassVar

from cosilo.boundary.messages import (
    Advertise,
    Contribute,
    Contributed,
    Enrol,
    Enrolled,
    HandShares,
    Masked,
    Message,
    NextRound,
    NextStep,
    SumState,
    Unmask,
)
from cosilo.boundary.messages.federate_sums import Part
from cosilo.errors import DataError
from cosilo.models.base import Access, require
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
from cosilo.strategies.federating.all_rounds import SOON_S, all_rounds
from cosilo.strategies.federating.owner import FederationOwner
from cosilo.strategies.federating.participation import Participation
from cosilo.strategies.guide import Guide
from cosilo.types import Answer, Chat

PARTS: tuple[Part, ...] = ("shares", "vector", "unmasking")
"""The steps that follow an advert, in their order."""

_EACH: frozenset[type[Message]] = frozenset({Enrol, NextRound, Contribute})
_SUMS: frozenset[type[Message]] = frozenset(
    {Enrol, NextRound, Advertise, HandShares, Masked, Unmask, NextStep}
)


@strategies.register("federated")
@dataclass(frozen=True, kw_only=True)
class Federated(Participation):
    """Train an adapter of the small model with other owners, then go on with another strategy.

    Attributes:
        then: the strategy that answers with what came of it.
        then_options: that strategy's options.
    """

    guide: ClassVar[Guide] = Guide(
        direction="upward",
        crosses=(
            "an adapter trained on the owner's examples, once a round; back comes what all owners' "
            "became; nothing while answering"
        ),
        choose=(
            "several owners have the same task and too few examples each, share a base model, and "
            "may not pool their data"
        ),
    )

    then: str = "small"
    then_options: Mapping[str, object] = field(default_factory=dict)

    def next(self) -> Strategy:
        """The strategy that answers, not prepared."""
        return strategies.create(self.then, **self.then_options)

    @property
    def needs(self) -> Needs:
        after = self.next().needs
        sealing = ("cryptography",) if self.secure else ()
        return replace(
            after,
            sends=after.sends | (_SUMS if self.secure else _EACH),
            small=Access.WEIGHTS,
            trainable=True,
            loads=after.loads | Loads(packages=(*torch_files.PACKAGES, *sealing)),
        )

    def forecast(self) -> Forecast:
        def once(message: Any, total: int) -> Expected:
            return Expected("once", message, total=total, reads=(1,), writes=())

        own = [once(Enrol, 1), once(NextRound, 4 * self.rounds)]
        for message in (Advertise, HandShares, Masked, Unmask) if self.secure else (Contribute,):
            own.append(once(message, self.rounds))
        if self.secure:
            own.append(once(NextStep, 6 * self.rounds))
        return (*own, *unshared(forecast(self.next())))

    async def answer(self, session: Session, chat: Chat) -> Answer:
        raise ValueError(f"{self.name} only prepares: answer with the strategy prepare returns")

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        model = require(session.owner.model, Access.WEIGHTS, by=self.name)
        examples = [e for e in session.owner.private if e.target and e.weight > 0]
        if not examples:
            raise DataError(
                f"{self.name} has no examples with targets to train on, so nothing to give"
            )
        owner = await asyncio.to_thread(FederationOwner, self, model, examples)
        enrolled = await session.lm.send(owner.enrol())
        owner.agree(enrolled)
        if (release := self.release(len(examples))) is not None and session.account is not None:
            await session.account.require([release] * enrolled.rounds)
        give = self._sum if self.secure else self._give

        async def back(epoch: int) -> None:
            owner.begin_again(epoch)
            owner.agree(await session.lm.send(owner.enrol()))

        await all_rounds(session, owner, lambda number: give(session, owner, number), back)
        untuned = self.next().needs.untuned
        trained = model.with_module(await asyncio.to_thread(owner.module, untuned=untuned))
        taught = session.owner.taught(trained, examples, further=True)
        session = replace(session, owner=taught).with_card(owner.card())
        return await self.next().prepare(session)

    async def _give(self, session: Session, owner: FederationOwner, number: int) -> Contributed:
        return await session.lm.send(await asyncio.to_thread(owner.update, number))

    async def _sum(self, session: Session, owner: FederationOwner, number: int) -> Contributed:
        """Give the round's update to a sum that hides it."""
        try:
            part = await asyncio.to_thread(owner.summed, number)
        except ValueError as error:
            return Contributed(fate="dropped", why=f"{error}"[:400])
        told = await session.lm.send(await asyncio.to_thread(part.advertise))
        for step in PARTS:
            if told.fate != "taken":
                break
            state = await self._step(session, owner.enrolled, number, step)
            if state.step != step:
                return Contributed(fate="late", why=state.why)
            told = await session.lm.send(await asyncio.to_thread(part.answer, state))
        return told

    async def _step(
        self, session: Session, enrolled: Enrolled, number: int, step: Part
    ) -> SumState:
        """What there is for a step, waited for."""
        assert enrolled.sums is not None
        while True:
            asked = monotonic()
            state = await session.lm.send(
                NextStep(
                    federation=enrolled.federation,
                    number=number,
                    step=step,
                    among=enrolled.sums.among,
                    patience=enrolled.held,
                    epoch=enrolled.epoch,
                )
            )
            if state.step != "wait":
                return state
            if monotonic() - asked < SOON_S:
                await asyncio.sleep(SOON_S)
