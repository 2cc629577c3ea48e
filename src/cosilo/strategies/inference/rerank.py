"""The large model answers several times, and a small energy model at home chooses among its answers.

    chat ─▶ LM, `samples` times ─▶ "refund", "refund", "billing"
                                        │ share of the samples × exp(energy of question and answer)
                                        └▶ the likeliest: "billing"

Sun et al., "BBox-Adapter" (arXiv 2402.08219): a model whose weights and probabilities nobody shows is
adapted from outside, by an energy that learned from the owner's examples which of its answers are right
(`energy`). Beside it, at as many calls: the majority of the same samples (Wang et al.,
"Self-Consistency", arXiv 2203.11171). The paper also grows answers step by step, each step's candidates
ranked; here whole answers are. What is learned never leaves, and crosses no more than the question,
`samples` times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import msgspec
import numpy as np

from cosilo.boundary.messages import Ask
from cosilo.errors import CapabilityError, PrivacyError, RejectedError
from cosilo.labels import plain
from cosilo.models.base import Embedder
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.calibration import calibration
from cosilo.strategies.cards import Card
from cosilo.strategies.documents.worker import encoder_of
from cosilo.strategies.fanout import fan_out
from cosilo.strategies.guide import Guide
from cosilo.strategies.inference.agreement import Vote, distinct, most_agreed, vote
from cosilo.strategies.inference.energy import Candidates, Energy, Floats, features_of, fit_energy
from cosilo.types import Answer, Chat, Demonstration, Generation, last_user

VERSION = 1

MOST_SAMPLES = 64

NO_ENCODER = (
    "rerank compares questions with answers by an encoder of yours: give the plan an embedder, or a "
    'small model of kind "classifier"; judge = "majority" needs none'
)


@strategies.register("rerank")
@dataclass(frozen=True, kw_only=True)
class Rerank:
    """The likeliest of the LM's own samples, by what the owner's examples say of them.

    `prepare` asks the LM `samples` times about each tune item and learns the energy from which of its
    answers were right. Samples that say the same (name the same label, where the set is closed; else
    the same text, spaces and capitals aside) are one answer; one that is empty or names no label is
    none, and is given only where there is no other. Behind a back end without seeds the samples differ
    by themselves.

    Attributes:
        samples: how often the LM is asked each question, 2 or more.
        temperature: of its samples, above 0.
        judge: "energy", or "majority" for self-consistency, which learns nothing.
        rounds: how often the wrong answers that the energy learns from are drawn anew by what it has
            learned, 1 or more.
        seed: of the first sample (each further one's is one more), and of what is drawn while learning.
        energy: what was learned before; then `prepare` learns nothing.
    """

    samples: int = 5
    temperature: float = 1.0
    judge: Literal["energy", "majority"] = "energy"
    rounds: int = 3
    seed: int = 0
    energy: Energy | None = None

    guide: ClassVar[Guide] = Guide(
        crosses="every question, several times; the tune items too, to learn which answers are right",
        choose=(
            "the LM's answers differ from one time to the next, the right one is often among them, "
            "and there are examples to tell by"
        ),
    )

    def __post_init__(self) -> None:
        if not 2 <= self.samples <= MOST_SAMPLES:
            raise ValueError(f"samples = {self.samples!r} is not between 2 and {MOST_SAMPLES}")
        if not self.temperature > 0:
            raise ValueError(
                f"temperature = {self.temperature!r} is not above 0: all samples would be the same"
            )
        if self.rounds < 1:
            raise ValueError(f"rounds = {self.rounds!r} is not 1 or more")

    @property
    def needs(self) -> Needs:
        return Needs(sends=frozenset({Ask}))

    def forecast(self) -> Forecast:
        answers = Expected("answers", each=self.samples)
        if self.judge == "majority" or self.energy is not None:
            return (answers,)
        return (Expected("tune", each=self.samples), answers)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        if self.judge == "majority" or self.energy is not None:
            return self, session
        encoder = _encoder(session)
        examples = calibration(session, by="rerank", least=20)
        asked = await fan_out(lambda e: self._asked_about(session, e), examples, concurrency=4)
        known = [
            (example, replies)
            for example, replies in zip(examples, asked, strict=True)
            if isinstance(replies, list)
        ]
        if not known:
            raise next(refusal for refusal in asked if not isinstance(refusal, list))

        def learn() -> tuple[Energy, list[Candidates]]:
            made = (_graded(session, encoder, e, replies) for e, replies in known)
            questions = [c for c in made if c is not None]
            return self._fitted(questions), questions

        energy, questions = await asyncio.to_thread(learn)
        facts: dict[str, float | str] = {
            "tune items": len(known),
            "samples of each": self.samples,
            "wrong answers learned from": energy.pairs,
            "a right answer among the samples": float(np.mean([q.right.any() for q in questions]))
            if questions
            else 0.0,
            "alpha": energy.alpha,
            "ridge": energy.ridge,
        }
        told = Card(by="rerank", title="energy of answers", facts=facts)
        return replace(self, energy=energy), session.with_card(told)

    def _fitted(self, questions: Sequence[Candidates]) -> Energy:
        if not questions:
            raise CapabilityError(
                "rerank has nothing to learn from: the LM's samples are all empty"
            )
        return fit_energy(questions, draws=self.samples, rounds=self.rounds, seed=self.seed)

    async def answer(self, session: Session, chat: Chat) -> Answer:
        if self.judge == "energy" and self.energy is None:
            raise ValueError("rerank has learned nothing yet: prepare it first")
        encoder = _encoder(session) if self.judge == "energy" else None
        replies = await self._samples(session, chat)
        choices = session.sampling.choices
        if encoder is None or self.energy is None:
            at, agree = most_agreed(replies, choices)
            return Answer(replies[at], by="large", confidence=agree / len(replies))
        forms = distinct(replies, choices)
        if not forms:
            return Answer(replies[0], by="large", confidence=0.0)
        features = await asyncio.to_thread(
            encoded, encoder, last_user(chat), list(forms), bool(choices)
        )
        counts = np.array([len(places) for places in forms.values()], dtype=np.float64)
        likely = self.energy.adapted(features, counts / counts.sum())
        best = int(likely.argmax())
        (first, *_) = list(forms.values())[best]
        return Answer(replies[first], by="both", confidence=min(1.0, float(likely[best])))

    async def _samples(self, session: Session, chat: Chat) -> list[Generation]:
        def ask(number: int) -> Ask:
            sampling = msgspec.structs.replace(
                session.sampling, temperature=self.temperature, seed=self.seed + number
            )
            return Ask(chat=chat, sampling=sampling)

        async def one(number: int) -> Generation:
            return (await session.lm.send(ask(number))).generation

        return await fan_out(one, range(self.samples), concurrency=self.samples)

    async def _asked_about(
        self, session: Session, example: Demonstration
    ) -> list[Generation] | PrivacyError | RejectedError:
        """The samples, or the refusal of this item for good."""
        try:
            return await self._samples(session.bind(f"tune/{example.id}"), example.chat)
        except (PrivacyError, RejectedError) as refusal:
            if isinstance(refusal, RejectedError) and refusal.everything:
                raise
            return refusal


def _encoder(session: Session) -> Embedder:
    found = encoder_of(session.owner)
    if found is None:
        raise CapabilityError(NO_ENCODER)
    return found


def encoded(encoder: Embedder, question: str, answers: Sequence[Vote], closed: bool) -> Floats:
    """φ of each answer to the question; labels of a closed set are read as words."""
    texts = [" ".join(form) for form in answers]
    vectors = encoder.embed([question, *(plain(t) or t if closed else t for t in texts)])
    found = np.asarray(vectors, dtype=np.float64)
    return features_of(found[0], found[1:])


def _graded(
    session: Session, encoder: Embedder, example: Demonstration, replies: Sequence[Generation]
) -> Candidates | None:
    """What the energy learns from one tune item; None where there was no answer at all."""
    choices = session.sampling.choices
    forms = distinct(replies, choices)
    if not forms:
        return None
    grades = [session.owner.grade(example, replies[places[0]].text) for places in forms.values()]
    gold = vote(Generation(example.target), choices)
    # Where the owner's own answer is known only answers as good as it are right; else the best are.
    best = 1.0 if gold is not None else max(max(grades), 1e-9)
    answers = [*forms, *([gold] if gold is not None else [])]
    features = encoded(encoder, last_user(example.chat), answers, bool(choices))
    counts = np.array([len(places) for places in forms.values()], dtype=np.float64)
    return Candidates(
        features[: len(forms)],
        counts / counts.sum(),
        np.array([grade >= best for grade in grades]),
        None if gold is None else features[-1],
    )
