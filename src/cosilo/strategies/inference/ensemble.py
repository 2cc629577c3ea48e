"""Ask several large models, each of another owner, and answer what their votes come to.

    chat ─▶ a ─▶ "refund"  ┐
         ─▶ b ─▶ "Refund." ├─▶ "refund", as 2 of 3 say      ─▶ sure enough? ─▶ answer, or abstain
         ─▶ c ─▶ "billing" ┘

Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in Language Models" (arXiv
2203.11171), take the majority of one model's samples; here each vote is another model's. What a vote
is worth can be learned from the tune items (`voting`: Dawid and Skene, or stacking), with the small
model as one more annotator, and which models are worth their price. Every owner that is asked is sent
the same whole chat and learns of it what the only one would: more of them may answer better, and never
more privately.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from cosilo.boundary.channel import Channel
from cosilo.boundary.messages import Ask
from cosilo.errors import (
    CapabilityError,
    ConfigError,
    PrivacyError,
    RejectedError,
    UnreachableError,
)
from cosilo.labels import named
from cosilo.models.base import Access
from cosilo.reasoning import spoken
from cosilo.registry import Loads
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.calibration import calibration
from cosilo.strategies.cards import Card
from cosilo.strategies.confidence import plausibility
from cosilo.strategies.fanout import fan_out
from cosilo.strategies.guide import Guide
from cosilo.strategies.inference.guarantee import LOADS, Promise, card, divided
from cosilo.strategies.inference.voting import (
    ABSENT,
    Ballot,
    DawidSkene,
    Floats,
    Ints,
    Stacking,
    affordable,
)
from cosilo.types import Answer, Chat, Demonstration, Generation

VERSION = 1

Vote = tuple[str, ...]
"""What a reply says, in a form that is the same for two that say the same."""

NOTHING_SURE = 2.0
"""The certainty that no answer reaches: everything is abstained from."""


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
            the tune items, which all models are asked about, and need a closed set of answers.
        own: the small model has a vote too, where the worth is learned.
        usd_per_1k: what the models asked may cost together for a thousand questions; which they are is
            then learned from the tune items and what asking about these cost. Unset: all whose
            votes help.
        sure: the confidence below which nothing is answered, 0 to 1: it abstains.
        wrong: instead of `sure`, the share of the answers given that may be wrong, above 0 and below 1;
            `prepare` finds the confidence that answers most and for which this holds.
        delta: the probability that `wrong` does not hold all the same.
        missing: how many of the models may fail to answer; with more, nothing is answered.
        learned, asked: what `prepare` found; then it learns nothing.
    """

    method: Literal["majority", "dawid_skene", "stacking"] = "majority"
    own: bool = True
    usd_per_1k: float | None = None
    sure: float = 0.0
    wrong: float | None = None
    delta: float = 0.05
    missing: int = 0
    learned: DawidSkene | Stacking | None = None
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
        if self.wrong is not None:
            if self.sure:
                raise ValueError("give one of sure and wrong, not both")
            Promise(wrong=self.wrong, delta=self.delta)

    @property
    def _learns(self) -> bool:
        return self.method != "majority"

    @property
    def needs(self) -> Needs:
        small = Access.LOGPROBS if self._learns and self.own else Access.TEXT
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
        if self.learned is not None or (not self._learns and self.wrong is None):
            return self, session
        if self._learns and not session.sampling.choices:
            raise CapabilityError(
                f"ensemble with method = {self.method!r} needs a closed set of answers, which this "
                'task has not: method = "majority" needs none'
            )
        examples = calibration(session, by="ensemble", least=20)
        asked = await _asked_about(session, examples, self.own and self._learns)
        if not self._learns:
            scores, losses = asked.majority(session)
            return self._promised(session, scores, losses)
        every = np.arange(len(asked.ballot))
        if self.wrong is None:
            learned, names, told = await asyncio.to_thread(self._learn, asked, every)
            return replace(self, learned=learned, asked=names), session.with_card(told)
        # Whom to ask and what votes are worth is learned from one half; to what answers with it, the
        # items of the other are as new as those to come.
        first, second = np.array_split(np.random.default_rng(0).permutation(every), 2)
        learned, names, told = await asyncio.to_thread(self._learn, asked, first)
        ballot = asked.ballot.among([asked.names.index(name) for name in names]).of(second)
        posterior = learned.posterior(ballot)
        wrong = posterior.argmax(axis=1) != asked.targets[second]
        found = replace(self, learned=learned, asked=names)
        return found._promised(session.with_card(told), posterior.max(axis=1), wrong)

    def _learn(
        self, asked: _Asked, items: Ints
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
        self, session: Session, scores: Floats, losses: Floats
    ) -> tuple[Strategy, Session]:
        assert self.wrong is not None
        promise = Promise(wrong=self.wrong, delta=self.delta)
        found = divided(scores, losses.astype(bool), promise, seed=0)
        told = card("ensemble", promise, found, of="votes", kept="given", otherwise="answered")
        sure = min(found.threshold, NOTHING_SURE)
        return replace(self, sure=sure, wrong=None), session.with_card(told)

    async def answer(self, session: Session, chat: Chat) -> Answer:
        if self._learns and self.learned is None:
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
        answer = (
            self._weighed(session, said, own) if self._learns else _counted(session, said, peers)
        )
        if (answer.confidence or 0.0) < self.sure:
            return Answer.none(answer.by, confidence=answer.confidence)
        return answer

    async def _own(self, session: Session, chat: Chat) -> Generation | None:
        if not (self._learns and self.own):
            return None
        return await session.owner.model.generate(chat, session.sampling)

    def _weighed(
        self, session: Session, said: Mapping[str, Generation], own: Generation | None
    ) -> Answer:
        """By what the votes are worth."""
        choices = session.sampling.choices
        votes = [_number(said[name], choices) if name in said else ABSENT for name in self.asked]
        view = [_view(own, choices)]
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


@dataclass(frozen=True)
class _Asked:
    """What everybody said about the tune items.

    `prices` are USD for a thousand of these questions, one for each of `names`.
    """

    names: tuple[str, ...]
    prices: tuple[float, ...]
    replies: tuple[tuple[Generation, ...], ...]
    ballot: Ballot
    targets: Ints
    examples: tuple[Demonstration, ...]

    def majority(self, session: Session) -> tuple[Floats, Floats]:
        """How many agree on each item, as a share, and whether what they say is wrong."""
        scores, losses = [], []
        for example, replies in zip(self.examples, self.replies, strict=True):
            chosen, agree = most_agreed(replies, session.sampling.choices)
            scores.append(agree / len(replies))
            losses.append(session.owner.grade(example, replies[chosen].text) < 1)
        return np.array(scores), np.array(losses)


async def _asked_about(session: Session, examples: Sequence[Demonstration], small: bool) -> _Asked:
    choices = session.sampling.choices
    names = tuple(session.peers)
    before = {n: c.totals.usd for n, c in session.peers.items()}

    async def one(example: Demonstration) -> tuple[Generation, ...]:
        bound = session.bind(f"tune/{example.id}")
        ask = Ask(chat=example.chat, sampling=session.sampling)
        return tuple([await _reply(channel, ask) for channel in bound.peers.values()])

    async def own(example: Demonstration) -> Generation:
        return await session.owner.model.generate(example.chat, session.sampling)

    replies = tuple(await fan_out(one, examples, concurrency=8))
    views = [None] * len(examples) if not small else await fan_out(own, examples, concurrency=256)
    spent = [session.peers[n].totals.usd - before[n] for n in names]
    targets = [choices.index(e.target) if e.target in choices else len(choices) for e in examples]
    known = [i for i, t in enumerate(targets) if t < len(choices)]
    if choices and len(known) < 20:
        raise ConfigError(
            f"ensemble learns from tune items whose answer is one of the task's, and {len(known)} are: "
            "at least 20 are needed"
        )
    ballot = Ballot(
        np.array([[_number(reply, choices) for reply in row] for row in replies]),
        np.array([_view(view, choices) for view in views]),
        len(choices),
    )
    kept = np.array(known if choices else range(len(examples)))
    return _Asked(
        names,
        tuple(1000 * usd / len(examples) for usd in spent),
        tuple(replies[i] for i in kept),
        ballot.of(kept),
        np.array(targets)[kept],
        tuple(examples[i] for i in kept),
    )


async def _reply(channel: Channel, ask: Ask) -> Generation:
    """The reply; an empty one where this question is refused for good."""
    try:
        return (await channel.send(ask)).generation
    except (PrivacyError, RejectedError) as refusal:
        if isinstance(refusal, RejectedError) and refusal.everything:
            raise
        return Generation("", finish_reason="content_filter")


def _number(reply: Generation, choices: Sequence[str]) -> int:
    """The number of the choice that `reply` names; how many there are, where it names none."""
    label = named(spoken(reply.text), choices)
    return len(choices) if label is None else list(choices).index(label)


def _view(own: Generation | None, choices: Sequence[str]) -> list[float]:
    """The small model's log-probability of each choice; zeros where it has no view."""
    if own is None:
        return [0.0] * len(choices)
    likely = [plausibility(own, choice) for choice in choices]
    if any(p is None for p in likely):
        # It shows the probability of its own reply alone, so the others share the rest.
        said = _number(own, choices)
        if said == len(choices) or own.logprob is None:
            return [0.0] * len(choices)
        sure = min(0.999, float(np.exp(own.logprob)))
        rest = (1 - sure) / max(1, len(choices) - 1)
        likely = [sure if i == said else rest for i in range(len(choices))]
    return [float(np.log(max(p or 0.0, 1e-6))) for p in likely]


def most_agreed(replies: Sequence[Generation], choices: Sequence[str] = ()) -> tuple[int, int]:
    """The place of the reply to answer with, and how many of `replies` agree with it.

    Args:
        choices: the closed set of answers, where there is one.
    """
    votes = [vote(reply, choices) for reply in replies]
    count = Counter(vote for vote in votes if vote is not None)
    if not count:
        return 0, 0
    most = max(count.values())
    return next((at, most) for at, vote in enumerate(votes) if vote and count[vote] == most)


def vote(reply: Generation, choices: Sequence[str]) -> Vote | None:
    """What `reply` says, in a form that is the same for two that say the same; None for no answer."""
    text = spoken(reply.text)
    if choices:
        label = named(text, choices)
        return None if label is None else (label,)
    said = " ".join(unicodedata.normalize("NFKC", text).split()).casefold()
    calls = [part for call in reply.tool_calls for part in (call.name, call.arguments)]
    return (said, *calls) if said or calls else None
