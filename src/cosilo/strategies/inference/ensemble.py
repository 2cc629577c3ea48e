"""Ask several large models, each of another owner, and answer what their votes come to.

    chat ─▶ a ─▶ "refund"  ┐
         ─▶ b ─▶ "Refund." ├─▶ "refund", as 2 of 3 say      ─▶ sure enough? ─▶ answer, or abstain
         ─▶ c ─▶ "billing" ┘

Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models" (arXiv
2203.11171), take the majority of one model's samples; here each vote is another model's. What a vote
is worth can be learned from the tune items (`voting`: Dawid and Skene, or `stacking`), with the small
model as one more annotator, and which models are worth their price; or which of two answers is better
(`pairwise`), whoever gave them. Every owner that is asked is sent
the same whole chat and learns of it what the only one would: more of them may answer better, and never
more privately.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.channel import Channel
from cosilo.boundary.messages import Ask
from cosilo.errors import CapabilityError, ConfigError, UnreachableError
from cosilo.models.base import Access, Embedder
from cosilo.registry import Loads
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.calibration import calibration
from cosilo.strategies.cards import Card
from cosilo.strategies.documents.worker import encoder_of
from cosilo.strategies.fanout import fan_out
from cosilo.strategies.guide import Guide
from cosilo.strategies.inference.agreement import distinct, most_agreed
from cosilo.strategies.inference.ballots import Asked, answers_of, asked_about
from cosilo.strategies.inference.certainty import number, view_of
from cosilo.strategies.inference.guarantee import LOADS, Promise, card, divided
from cosilo.strategies.inference.pairwise import PairRanker
from cosilo.strategies.inference.stacking import Stacking
from cosilo.strategies.inference.voting import (
    ABSENT,
    Ballot,
    DawidSkene,
    Floats,
    Ints,
    affordable,
)
from cosilo.types import Answer, Chat, Generation

VERSION = 1

Wrong = NDArray[np.bool_]

NOTHING_SURE = 2.0
"""The certainty that no answer reaches: everything is abstained from."""

NO_ENCODER = (
    'ensemble with method = "pairwise" compares answers by an encoder of yours: give the plan an '
    'embedder, or a small model of kind "classifier"'
)


@strategies.register("ensemble")
@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Large models of the point (`peers`) are asked at once, and what their votes come to is answered.

    With a closed set of answers a reply is a vote for the one that it names; else for its text, spaces
    and capitals aside, and the tools it calls. A reply that names none, or is empty, is no vote. The
    answer is in the words of the earliest model in the plan that voted for it. Of answers with as many
    votes that of the earliest model is taken; the confidence is the share of the models that agree, or,
    where the votes' worth was learned, the probability of the answer.

    Attributes:
        method: "majority" counts votes; "dawid_skene" and "stacking" learn what each vote is worth from
            the tune items, which all models are asked about, and need a closed set of answers;
            "pairwise" learns from these which of two answers to a question is better, with an encoder
            of the owner's, and takes texts, too.
        own: the small model has a vote too, where something is learned.
        usd_per_1k: what the models asked may cost together for a thousand questions; which they are is
            then learned from the tune items and what asking about these cost. Unset: all whose
            votes help.
        sure: the confidence below which nothing is answered, 0 to 1: it abstains.
        wrong: instead of `sure`, the share of the answers given that may be wrong, above 0 and below 1;
            `prepare` finds the confidence that answers most and for which this holds.
        delta: the probability that `wrong` does not hold all the same.
        missing: how many of the models may fail to answer; with more, nothing is answered.
        learned, ranker, asked: what `prepare` found; then it learns nothing.
    """

    method: Literal["majority", "dawid_skene", "stacking", "pairwise"] = "majority"
    own: bool = True
    usd_per_1k: float | None = None
    sure: float = 0.0
    wrong: float | None = None
    delta: float = 0.05
    missing: int = 0
    learned: DawidSkene | Stacking | None = None
    ranker: PairRanker | None = None
    asked: tuple[str, ...] = ()

    guide: ClassVar[Guide] = Guide(
        crosses="every question, to each of the LMs' owners that is asked",
        choose=(
            "several LMs may be asked, and it matters to know when an answer is in doubt or one of "
            "them lies"
        ),
    )

    def __post_init__(self) -> None:
        if not 0 <= self.sure <= NOTHING_SURE:
            raise ValueError(f"sure = {self.sure!r} is not between 0 and 1")
        if self.usd_per_1k is not None and self.usd_per_1k < 0:
            raise ValueError(f"usd_per_1k = {self.usd_per_1k!r} is below 0")
        if self.missing < 0:
            raise ValueError(f"missing = {self.missing!r} is no number of models")
        if self.usd_per_1k is not None and not self._learns:
            raise ValueError("usd_per_1k chooses models by learning: give a method that learns")
        if self.usd_per_1k is not None and self.method == "pairwise":
            raise ValueError(
                "usd_per_1k chooses models by what their votes are worth, which pairwise does not "
                'learn: name the models in `peers`, or give method = "dawid_skene" or "stacking"'
            )
        if self.wrong is not None:
            if self.sure:
                raise ValueError("give one of sure and wrong, not both")
            Promise(wrong=self.wrong, delta=self.delta)

    @property
    def _learns(self) -> bool:
        return self.method != "majority"

    @property
    def _weighs(self) -> bool:
        """Whether it learns what votes are worth."""
        return self.method in ("dawid_skene", "stacking")

    @property
    def asks_small(self) -> bool:
        """Whether the small model votes."""
        return self._learns and self.own

    @property
    def uses_small(self) -> bool:
        """Whether anything is asked of the small model: a vote, or what its encoder says of a text."""
        return self.asks_small or self.method == "pairwise"

    @property
    def needs(self) -> Needs:
        small = Access.LOGPROBS if self._weighs and self.own else Access.TEXT
        loads = Loads(packages=("sklearn",) if self.method == "stacking" else ())
        return Needs(
            small=small,
            sends=frozenset({Ask}),
            loads=loads if self.wrong is None else loads | LOADS,
            peers=2,
            every=True,
        )

    def forecast(self) -> Forecast:
        answers = Expected("answers", plain=True, to="each")
        if not self._learns and self.wrong is None:
            return (answers,)
        return (Expected("tune", plain=True, to="each"), answers)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        known = self.learned is not None or self.ranker is not None
        if known or (not self._learns and self.wrong is None):
            return self, session
        if self._weighs and not session.sampling.choices:
            raise CapabilityError(
                f"ensemble with method = {self.method!r} needs a closed set of answers, which this "
                'task has not: method = "majority" and method = "pairwise" need none'
            )
        encoder = _encoder(session) if self.method == "pairwise" else None
        examples = calibration(session, by="ensemble", least=20)
        asked = await asked_about(session, examples, self.asks_small)
        if not self._learns:
            scores, losses = asked.majority(session)
            return self._promised(session, scores, losses)
        every = np.arange(len(asked.ballot))
        first = second = every
        if self.wrong is not None:
            # Whom to ask and what is learned comes from one half; to what answers with it, the items of
            # the other are as new as those to come.
            first, second = np.array_split(np.random.default_rng(0).permutation(every), 2)
        if encoder is not None:
            found, told, scores, losses = await asyncio.to_thread(
                self._ranking, session, encoder, asked, (first, second)
            )
        else:
            found, told, scores, losses = await asyncio.to_thread(
                self._weighing, asked, (first, second)
            )
        session = session.with_card(told)
        return (found, session) if self.wrong is None else found._promised(session, scores, losses)

    def _ranking(
        self, session: Session, encoder: Embedder, asked: Asked, halves: tuple[Ints, Ints]
    ) -> tuple[Ensemble, Card, Floats, Wrong]:
        """Learns which answers are better; then how sure it is of each item of the second half, and
        what it would answer wrongly there."""
        items = asked.answers(session, encoder)
        first = [item for i in halves[0] if (item := items[i]) is not None]
        if not first:
            raise CapabilityError("ensemble has nothing to learn from: all the answers are empty")
        ranker = PairRanker.fit(first)
        scores, losses = np.zeros(len(halves[1])), np.ones(len(halves[1]), bool)
        for at, i in enumerate(halves[1]):
            if (item := items[i]) is not None and item.grades is not None:
                best, scores[at] = ranker.choose(item)
                losses[at] = item.grades[best] < 1
        facts: dict[str, float | str] = {
            "tune items": len(first),
            "pairs learned from": len(ranker.pairs),
            "weights of answers, of both together": "{:g}, {:g}".format(*ranker.parts),
            "penalty": ranker.penalty,
        }
        told = Card(by="ensemble", title="which answers are better", facts=facts)
        found = replace(self, ranker=ranker, asked=asked.names)
        return found, told, scores, losses

    def _weighing(
        self, asked: Asked, halves: tuple[Ints, Ints]
    ) -> tuple[Ensemble, Card, Floats, Wrong]:
        """The same for what votes are worth."""
        learned, names, told = self._learn(asked, halves[0])
        ballot = asked.ballot.among([asked.names.index(name) for name in names]).of(halves[1])
        posterior = learned.posterior(ballot)
        wrong = posterior.argmax(axis=1) != asked.targets[halves[1]]
        return replace(self, learned=learned, asked=names), told, posterior.max(axis=1), wrong

    def _learn(
        self, asked: Asked, items: Ints
    ) -> tuple[DawidSkene | Stacking, tuple[str, ...], Card]:
        """What votes are worth, whom to ask, and how that was found, from some of the items."""
        ballot, targets = asked.ballot.of(items), asked.targets[items]
        chosen = sorted(affordable(ballot, targets, asked.prices, self.usd_per_1k))
        if not chosen:
            least = min(asked.prices)
            raise ConfigError(
                f"usd_per_1k = {self.usd_per_1k:g} is below what a thousand of these questions cost "
                f"with the cheapest of the large models, {least:.3g}"
            )
        kind = DawidSkene if self.method == "dawid_skene" else Stacking
        names = tuple(asked.names[i] for i in chosen)
        facts: dict[str, float | str] = {
            "asked": ", ".join(names),
            "tune items": len(ballot),
            "USD per 1,000 questions": sum(asked.prices[i] for i in chosen),
        }
        right = {
            name: float((ballot.votes[:, i] == targets).mean())
            for i, name in enumerate(asked.names)
        }
        prices = dict(zip(asked.names, asked.prices, strict=True))
        tables = {"right on tune items": right, "USD per 1,000 questions": prices}
        told = Card(by="ensemble", title="whom to ask", facts=facts, tables=tables)
        return kind.fit(ballot.among(chosen), targets), names, told

    def _promised(
        self, session: Session, scores: Floats, losses: Wrong
    ) -> tuple[Strategy, Session]:
        assert self.wrong is not None
        promise = Promise(wrong=self.wrong, delta=self.delta)
        found = divided(scores, losses, promise, seed=0)
        told = card("ensemble", promise, found, of="votes", kept="given", otherwise="answered")
        sure = min(found.threshold, NOTHING_SURE)
        return replace(self, sure=sure, wrong=None), session.with_card(told)

    async def answer(self, session: Session, chat: Chat) -> Answer:
        if self._learns and self.learned is None and self.ranker is None:
            raise ValueError("ensemble has learned nothing yet: prepare it first")
        ask = Ask(chat=chat, sampling=session.sampling)
        peers = {n: c for n, c in session.peers.items() if not self.asked or n in self.asked}

        async def reply(peer: Channel) -> Generation | UnreachableError:
            try:
                return (await peer.send(ask)).generation
            except UnreachableError as failure:
                return failure

        replies, own = await asyncio.gather(
            fan_out(reply, list(peers.values()), concurrency=len(peers)), self._own(session, chat)
        )
        failures = [r for r in replies if isinstance(r, UnreachableError)]
        if len(failures) > min(self.missing, len(replies) - 1):
            raise failures[0]
        said = {n: r for n, r in zip(peers, replies, strict=True) if isinstance(r, Generation)}
        if self.ranker is not None:
            asked = len(peers) + (own is not None)
            answer = await self._ranked(session, chat, [*said.values()], own, asked)
        elif self._learns:
            answer = self._weighed(session, said, own)
        else:
            answer = _counted(session, said, peers)
        if (answer.confidence or 0.0) < self.sure:
            return Answer.none(answer.by, confidence=answer.confidence)
        return answer

    async def _own(self, session: Session, chat: Chat) -> Generation | None:
        if not self.asks_small:
            return None
        return await session.owner.model.generate(chat, session.sampling)

    async def _ranked(
        self,
        session: Session,
        chat: Chat,
        replies: list[Generation],
        own: Generation | None,
        asked: int,
    ) -> Answer:
        """By comparing them two by two."""
        assert self.ranker is not None
        said = [*replies, *([own] if own is not None else [])]
        choices = session.sampling.choices
        forms = distinct(said, choices)
        made = await asyncio.to_thread(
            answers_of, _encoder(session), chat, forms, asked, bool(choices)
        )
        by: Literal["large", "both"] = "large" if own is None else "both"
        if made is None:
            return Answer(replies[0], by=by, confidence=0.0)
        order, answers = made
        at, sure = await asyncio.to_thread(self.ranker.choose, answers)
        return Answer(said[forms[order[at]][0]], by=by, confidence=sure)

    def _weighed(
        self, session: Session, said: Mapping[str, Generation], own: Generation | None
    ) -> Answer:
        """By what the votes are worth."""
        choices = session.sampling.choices
        votes = [number(said[name], choices) if name in said else ABSENT for name in self.asked]
        view = [view_of(own, choices)]
        assert self.learned is not None
        (posterior,) = self.learned.posterior(
            Ballot(np.array([votes]), np.array(view), len(choices))
        )
        label = int(posterior.argmax())
        words = next((said[n] for n, v in zip(self.asked, votes, strict=True) if v == label), None)
        confidence = float(posterior[label])
        if words is not None:
            return Answer(words, by="large" if own is None else "both", confidence=confidence)
        return Answer(Generation(choices[label]), by="both", confidence=confidence)


def _counted(
    session: Session, said: Mapping[str, Generation], peers: Mapping[str, Channel]
) -> Answer:
    """By their number."""
    replies = list(said.values())
    chosen, agree = most_agreed(replies, session.sampling.choices)
    return Answer(replies[chosen], by="large", confidence=agree / len(peers))


def _encoder(session: Session) -> Embedder:
    found = encoder_of(session.owner)
    if found is None:
        raise CapabilityError(NO_ENCODER)
    return found
