"""What several large models, and the small one, say about the tune items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cosilo.boundary.channel import Channel
from cosilo.boundary.messages import Ask
from cosilo.errors import ConfigError, PrivacyError, RejectedError
from cosilo.labels import plain
from cosilo.models.base import Embedder
from cosilo.strategies.base import Session
from cosilo.strategies.fanout import fan_out
from cosilo.strategies.inference.agreement import Vote, distinct, most_agreed
from cosilo.strategies.inference.certainty import number, view_of
from cosilo.strategies.inference.pairs import Answers, option
from cosilo.strategies.inference.voting import Ballot, Floats, Ints
from cosilo.types import Chat, Demonstration, Generation, last_user


@dataclass(frozen=True)
class Asked:
    """What everybody said about the tune items.

    `prices` are USD for a thousand of these questions, one for each of `names`; `own` is nothing where
    the small model was not asked.
    """

    names: tuple[str, ...]
    prices: tuple[float, ...]
    replies: tuple[tuple[Generation, ...], ...]
    own: tuple[Generation, ...]
    ballot: Ballot
    targets: Ints
    examples: tuple[Demonstration, ...]

    def majority(self, session: Session) -> tuple[Floats, NDArray[np.bool_]]:
        """How many agree on each item, as a share, and whether what they say is wrong."""
        scores, losses = [], []
        for example, replies in zip(self.examples, self.replies, strict=True):
            chosen, agree = most_agreed(replies, session.sampling.choices)
            scores.append(agree / len(replies))
            losses.append(session.owner.grade(example, replies[chosen].text) < 1)
        return np.array(scores), np.array(losses, bool)

    def answers(self, session: Session, encoder: Embedder) -> list[Answers | None]:
        """The different answers to each item, with their grades; None where nobody gave one."""
        choices = session.sampling.choices
        found: list[Answers | None] = []
        for at, (example, row) in enumerate(zip(self.examples, self.replies, strict=True)):
            said = [*row, *self.own[at : at + 1]]
            forms = distinct(said, choices)
            grades = {f: session.owner.grade(example, said[p[0]].text) for f, p in forms.items()}
            made = answers_of(encoder, example.chat, forms, len(said), bool(choices))
            if made is None:
                found.append(None)
                continue
            order, answers = made
            found.append(replace(answers, grades=np.array([grades[form] for form in order])))
        return found


def answers_of(
    encoder: Embedder, chat: Chat, forms: dict[Vote, list[int]], asked: int, closed: bool
) -> tuple[list[Vote], Answers] | None:
    """Answers as the ranker reads them, and their forms in that order; None where there is none.

    They come in the order of their forms, so that nothing depends on who gave which. A label of a
    closed set is read as the option that the question lists under it, or else as words.

    Args:
        forms: each answer's form → who gave it.
        asked: how many were.
    """
    if not forms:
        return None
    question = last_user(chat)
    order = sorted(forms)
    texts = [" ".join(form) for form in order]
    if closed:
        texts = [option(text, question) or plain(text) or text for text in texts]
    vectors = np.asarray(encoder.embed([question, *texts]), dtype=np.float64)
    shares = np.array([len(forms[form]) / asked for form in order])
    return order, Answers(vectors[0], vectors[1:], shares)


async def asked_about(session: Session, examples: Sequence[Demonstration], small: bool) -> Asked:
    """Asks every large model about every item, and where `small` says so the small one."""
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
    owns = await fan_out(own, examples, concurrency=256) if small else []
    views: list[Generation | None] = [*owns] or [None] * len(examples)
    spent = [session.peers[n].totals.usd - before[n] for n in names]
    targets = [choices.index(e.target) if e.target in choices else len(choices) for e in examples]
    known = [i for i, t in enumerate(targets) if t < len(choices)]
    if choices and len(known) < 20:
        raise ConfigError(
            f"ensemble learns from tune items whose answer is one of the task's, and {len(known)} are: "
            "at least 20 are needed"
        )
    ballot = Ballot(
        np.array([[number(reply, choices) for reply in row] for row in replies]),
        np.array([view_of(view, choices) for view in views]),
        len(choices),
    )
    kept = np.array(known if choices else range(len(examples)))
    return Asked(
        names,
        tuple(1000 * usd / len(examples) for usd in spent),
        tuple(replies[i] for i in kept),
        tuple(owns[i] for i in kept) if owns else (),
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
