"""Synthetic training data that grows towards the private data, which no message ever holds.

Aug-PE: Xie et al., "Differentially Private Synthetic Data via Foundation Model APIs 2: Text" (arXiv
2403.01749), after Lin et al. (arXiv 2305.15560).

    label, what the texts are ──▶ LM ──▶ candidates of each label ◀──────────────────┐
                                             │                                       │
    private records ── each votes for its nearest candidate ──▶ counts + N(0, σ²)    │
                                             │                                       │
                            the most voted ──┴──▶ LM: "write variations of this" ────┘  × rounds
                                             │
                                             └──▶ the small model is trained on the last candidates

What crosses is what to write about and texts that the LM wrote itself; which of them go back to it
depends on the private records through the noisy counts alone. The counts stay here. The guarantee is
(ε, δ) over all rounds together, for adding or removing one record of the owner's (or, on request, for
replacing one), also where only the first so many of these vote: see `privacy.accountant`. The label
set, the description, the encoder and the number of rounds are taken as known to everybody.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import math
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from msgspec.structs import replace

from cosilo.boundary.messages import Ask
from cosilo.errors import CapabilityError, DataError, PrivacyError
from cosilo.models.base import Array, Embedder, Trainable
from cosilo.parties.data_owner import DataOwner
from cosilo.privacy.accountant import (
    Floats,
    Noise,
    increments,
    noise_for,
    secret_noise,
    sensitivity,
    usual_delta,
)
from cosilo.privacy.mechanisms import Gaussian, Neighbours, Release
from cosilo.privacy.secret_key import KeyedRandom, secret_key
from cosilo.strategies.base import Expected, Forecast, Session, forecast, strategies, unshared
from cosilo.strategies.cards import Card
from cosilo.strategies.duplicates import Repeats
from cosilo.strategies.fanout import fan_out
from cosilo.strategies.guide import Guide
from cosilo.strategies.synthesis import Synthetic, examples, read_texts
from cosilo.strategies.teaching import Teaching
from cosilo.types import Chat, Chosen, Demonstration, Sampling, last_user, user

VERSION = 2

Population = dict[str, list[str]]  # label → candidates
Source = Callable[[object], random.Random]  # what a vote is about → what it draws from

_LONGEST = 4_000  # characters of one synthetic text
_BLANK = "_"
_AFTER = ("then", "then_options", "key_file", "gold")  # options that no vote depends on


@strategies.register("private_evolution")
@dataclass(frozen=True, kw_only=True)
class PrivateEvolution(Teaching):
    """Train the small model on the LM's synthetic data, chosen by differentially private votes.

    Attributes:
        about: what the texts are, e.g. "a customer's complaint about a bank"; it goes to the LM.
        epsilon: for all rounds together; inf for votes without noise, which promises nothing.
        delta: 1 / (N ln N) of the N private records when unset, which tells the LM's owner N.
        neighbours: what one record more or less means: "add_or_remove" it, or "replace" it.
        rounds: how often the records vote; 0 trains on what the LM writes unguided.
        each: candidates of every label at any time, and texts to train on at the end.
        expand: a vote keeps one candidate in so many; the others make way for its variations.
        select: keep the most voted ("rank") or draw them with their counts as weights ("sample").
        threshold: when drawing, counts up to it weigh nothing.
        vary: ask for a text like the kept one ("paraphrase"), or blank out words of it and have them
            filled in anew ("fill_in").
        blank: share of the words that "fill_in" blanks out.
        lines: texts asked for in one message, one a line; 1 where texts have several lines.
        gold: also train on the owner's records themselves; the model is then as private as they are.
        max_tokens, temperature: of each reply of the LM.
        then: the strategy that answers with the trained small model.
        then_options: that strategy's options.
        key_file: the key that the noise is derived under; made when it is not there. Preparing again
            over the same records and candidates says the same again and spends nothing more; other
            records get other noise. Without it, each preparation draws fresh noise and spends anew.
        seed: of the LM's sampling and of the training; never of the noise.
    """

    guide: ClassVar[Guide] = Guide(
        direction="downward",
        crosses=(
            "labels, and texts that the LM wrote itself, chosen by noisy votes: the private "
            "records spend a stated ε and never cross"
        ),
        choose="the records may not cross at all, and a stated differential privacy is wanted",
    )

    name: ClassVar[str] = "private_evolution"

    about: str
    epsilon: float = 4.0
    delta: float | None = None
    neighbours: Neighbours = "add_or_remove"
    rounds: int = 4
    each: int = 40
    expand: int = 4
    select: Literal["rank", "sample"] = "rank"
    threshold: float = 0.0
    vary: Literal["paraphrase", "fill_in"] = "paraphrase"
    blank: float = 0.5
    lines: int = 5
    gold: bool = False
    max_tokens: int = 256
    temperature: float = 1.0
    key_file: Path | None = None

    def __post_init__(self) -> None:
        if not self.about.strip():
            raise ValueError("about is empty: say what the texts are")
        if not self.epsilon > 0:
            raise ValueError(f"epsilon = {self.epsilon!r} is not positive")
        if self.delta is not None and not 0 < self.delta < 1:
            raise ValueError(f"delta = {self.delta!r} is not between 0 and 1")
        if self.rounds < 0:
            raise ValueError(f"rounds = {self.rounds!r} is negative")
        for name in ("each", "lines", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not positive")
        if self.expand < 2:
            raise ValueError(
                f"expand = {self.expand!r}: a vote needs more candidates than it keeps"
            )
        if not 0 < self.blank < 1:
            raise ValueError(f"blank = {self.blank!r} is not between 0 and 1")

    def forecast(self) -> Forecast:
        each = self._kept() * math.ceil((self.expand - 1) / self.lines)
        calls = math.ceil(self.each / self.lines) + self.rounds * each
        words = min(self.max_tokens, 30 * self.lines)
        written = Expected("labels", each=calls, reads=("instructions",), writes=(words,))
        return (written, *unshared(forecast(self.next())))

    async def lessons(
        self, session: Session, model: Trainable
    ) -> tuple[Sequence[Demonstration], Session]:
        owner, labels = session.owner, session.sampling.choices
        if not labels:
            raise DataError("private_evolution needs a closed set of labels to write texts for")
        voters = await asyncio.to_thread(self._voters, session)
        records = sum(map(len, voters.values()))
        costs = await asyncio.to_thread(self._costs, records, owner.chosen)
        release = self._release(costs, owner)
        if session.account is not None and release is not None:
            await session.account.require([release] * len(costs))
        threshold = None if self.select == "rank" else self.threshold
        source = self._sources(owner.private) if costs else _fresh
        population = await self._written(session, labels)
        for number, (sigma, epsilon) in enumerate(costs, 1):
            spent = release and self._drawn(release, number, population)
            for label, texts in population.items():
                counts = await asyncio.to_thread(_counted, voters[label], owner.embedder, texts)
                drawn = source([number, label, sigma, texts])
                order = ranked(counts, sigma, threshold=threshold, source=drawn)
                population[label] = [texts[i] for i in order]
            population = await self._varied(session, population, number, epsilon, spent)
        made = [Synthetic(text, label) for label in labels for text in population[label]]
        gold = owner.private if self.gold else ()
        card = self._card(population, costs, records, owner.chosen)
        return (*gold, *examples(session, made)), session.with_card(card)

    # ── before anything is sent: all that can fail on the owner's own side ───

    def _voters(self, session: Session) -> dict[str, Array]:
        """The private records' vectors by label. A record without one of the labels has no vote."""
        owner, labels = session.owner, session.sampling.choices
        if not self.rounds:
            return {label: np.zeros((0, 0), np.float32) for label in labels}
        if owner.embedder is None:
            raise CapabilityError(
                "private_evolution compares texts by a sentence encoder of the owner's, and there is "
                "none: set [models.embedder], or a small model that embeds"
            )
        texts: Population = {label: [] for label in labels}
        for example in owner.private:
            if example.target in texts:
                texts[example.target].append(last_user(example.chat))
        if not any(texts.values()):
            raise DataError(
                f"none of the {len(owner.private)} private records has one of the labels, so there "
                "is nobody to vote"
            )
        return {label: _embed(owner.embedder, found) for label, found in texts.items()}

    def _costs(self, records: int, chosen: Chosen) -> list[tuple[float, float]]:
        """(σ, the ε that it adds) of each round."""
        if not self.rounds:
            return []
        if math.isinf(self.epsilon):
            return [(0.0, 0.0)] * self.rounds  # no guarantee, so none is stated
        delta = usual_delta(records) if self.delta is None else self.delta
        moved = sensitivity(self.neighbours, chosen)
        sigma = noise_for(self.epsilon, delta, rounds=self.rounds, sensitivity=moved)
        each = increments(sigma, delta, rounds=self.rounds, sensitivity=moved)
        return [(sigma, epsilon) for epsilon in each]

    def _release(self, costs: Sequence[tuple[float, float]], owner: DataOwner) -> Release | None:
        """What each round's vote is; None where the records have none.

        Raises:
            ConfigError: the key cannot be made or read.
        """
        if not costs:
            return None
        sigma = costs[0][0]
        moved = sensitivity(self.neighbours, owner.chosen) if sigma else 1.0
        series = ""
        if self.key_file is not None and sigma:
            about = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _AFTER}
            known = [[last_user(r.chat), r.target] for r in owner.private]
            series = _named(secret_key(self.key_file), [known, about, sigma])
        return Release(
            mechanism=Gaussian(sigma=sigma, sensitivity=moved),
            neighbours=self.neighbours,
            series=series,
        )

    def _drawn(self, release: Release, number: int, population: Population) -> Release:
        """The release of the round of that number, over these candidates: asked again under the same
        key, it is the same draw."""
        if self.key_file is None or not release.series:
            return release
        draw = _named(secret_key(self.key_file), [release.series, number, population])
        return replace(release, draw=draw)

    def _sources(self, records: Sequence[Demonstration]) -> Source:
        """Where each vote's randomness comes from.

        Raises:
            ConfigError: the key cannot be made or read.
        """
        if self.key_file is None:
            return _fresh
        key = secret_key(self.key_file)
        # All that decides the counts is in the context. Two data sets that differ in one record must
        # not share noise, or the difference of what they release would be the record's bare vote.
        known = [[last_user(r.chat), r.target] for r in records]
        return partial(_derived, key, _digest([known, self.neighbours]))

    def _kept(self) -> int:
        """Candidates of each label that a vote keeps."""
        return max(1, self.each // self.expand)

    # ── what crosses ─────────────────────────────────────────────────────────

    async def _written(self, session: Session, labels: Sequence[str]) -> Population:
        """The first candidates: nothing private is in what asks for them."""
        calls = math.ceil(self.each / self.lines)
        prompts = [
            (label, random_prompt(self.about, label, self.lines), self.seed + i)
            for label in labels
            for i in range(calls)
        ]
        said = await self._asked(session, prompts, 0, 0.0, None)
        return {label: _distinct(said[label], self.each, label) for label in labels}

    async def _varied(
        self,
        session: Session,
        population: Population,
        number: int,
        epsilon: float,
        spent: Release | None,
    ) -> Population:
        """The best candidates and the LM's variations of them, filled up with the next best ones
        where the LM only repeated itself."""
        more = self.expand - 1
        calls = math.ceil(more / self.lines)
        prompts = []
        for label, texts in population.items():
            for text in texts[: self._kept()]:
                for i in range(calls):
                    seed = self.seed + 1000 * number + i
                    shown = blanked(text, self.blank, seed) if self.vary == "fill_in" else text
                    count = min(self.lines, more - i * self.lines)
                    prompt = variation_prompt(self.about, label, shown, count, how=self.vary)
                    prompts.append((label, prompt, seed))
        said = await self._asked(session, prompts, number, epsilon, spent)
        return {
            label: _distinct(
                [*texts[: self._kept()], *said[label], *texts[self._kept() :]], self.each, label
            )
            for label, texts in population.items()
        }

    async def _asked(
        self,
        session: Session,
        prompts: Sequence[tuple[str, Chat, int]],
        number: int,
        epsilon: float,
        spent: Release | None,
    ) -> Population:
        """What the LM writes to each prompt, by label.

        The first message carries the release of the whole round and goes alone: a vote is spent as
        soon as anything that depends on it leaves, and a budget that cannot bear it stops all of it.
        """

        async def one(numbered: tuple[int, tuple[str, Chat, int]]) -> list[str]:
            i, (_, chat, seed) = numbered
            sampling = Sampling(
                max_tokens=self.max_tokens, temperature=self.temperature, top_p=0.95, seed=seed
            )
            ask = Ask(chat=chat, sampling=sampling)
            if i == 0:
                ask = replace(ask, epsilon=epsilon, release=spent)
            reply = (await session.lm.bind(f"evolve/{number}/{i}").send(ask)).generation
            whole = reply.finish_reason != "length"
            return read_texts(reply.text, self.lines, whole=whole)

        numbered = list(enumerate(prompts))
        said = [await one(numbered[0]), *await fan_out(one, numbered[1:])]
        found: Population = {label: [] for label, _, _ in prompts}
        for (label, _, _), texts in zip(prompts, said, strict=True):
            found[label] += texts
        return found

    def _card(
        self,
        population: Population,
        costs: Sequence[tuple[float, float]],
        records: int,
        chosen: Chosen,
    ) -> Card:
        total = sum(epsilon for _, epsilon in costs)
        private = "none: nothing private was used" if not costs else "∞: no guarantee"
        facts: dict[str, float | str] = {
            "ε, all rounds": total if total else private,
            "votes a record has in each round": 1,
            "neighbours": self.neighbours,
            "rounds": len(costs),
            "records that voted": records,
            "texts trained on": sum(map(len, population.values())),
        }
        if total:
            facts["δ"] = usual_delta(records) if self.delta is None else self.delta
            facts["σ"] = costs[0][0]
            if chosen == "first":
                facts["of a record more or less"] = (
                    "another that votes makes room or comes in for it"
                )
        return Card(
            by="private_evolution",
            title="synthetic data by private votes",
            facts=facts,
            tables={"texts by label": {label: len(found) for label, found in population.items()}},
            examples=tuple(found[0] for found in population.values() if found),
        )


# ── the vote: the one place where private records and candidates meet ────────


def vote(voters: Array, candidates: Array) -> Floats:
    """How many of the voters have each candidate as their nearest, shape (candidates,).

    Args:
        voters, candidates: unit vectors, shapes (n, dimension) and (k, dimension). Ties go to the
            first, so that a record has one vote whatever happens.
    """
    if not len(voters):
        return np.zeros(len(candidates))
    nearest = (voters @ candidates.T).argmax(axis=1)
    return np.bincount(nearest, minlength=len(candidates)).astype(np.float64)


def ranked(
    counts: Floats,
    sigma: float,
    *,
    threshold: float | None = None,
    noise: Noise | None = None,
    source: random.Random | None = None,
) -> list[int]:
    """The positions of all candidates, those with the most votes after noise first.

    Args:
        threshold: draw them instead, without putting back, by how far they are above it; those that
            are not come last, in any order.
        noise: the cryptographic one of `source`; tests and simulations bring their own.
        source: of all that is drawn; the operating system's when unset.
    """
    source = source or secrets.SystemRandom()
    noise = noise or partial(secret_noise, source=source)
    noisy = counts + noise(len(counts), sigma)
    if threshold is None:
        return [int(i) for i in np.argsort(-noisy, kind="stable")]
    # Efraimidis and Spirakis: the largest u^(1/w) are a draw by the weights w.
    keys = [
        (1, source.random() ** (1 / weight)) if weight > 0 else (0, source.random())
        for weight in noisy - threshold
    ]
    return sorted(range(len(keys)), key=lambda i: keys[i], reverse=True)


def _fresh(_: object) -> random.Random:
    return secrets.SystemRandom()


def _derived(key: bytes, records: str, vote: object) -> random.Random:
    return KeyedRandom(key, f"{records} {_digest(vote)}".encode())


def _named(key: bytes, value: object) -> str:
    """A name for `value` that tells nothing of it without the key."""
    return hmac.digest(key, _digest(value).encode(), hashlib.sha256).hex()[:32]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _counted(voters: Array, embedder: Embedder | None, texts: Sequence[str]) -> Floats:
    """The votes that each of `texts` gets."""
    return vote(voters, _embed(embedder, texts))


def _embed(embedder: Embedder | None, texts: Sequence[str]) -> Array:
    """Unit vectors of `texts`, checked: a vector that is none would vote for anything.

    Raises:
        PrivacyError: the encoder's vectors are not finite, one per text and of length 1.
    """
    assert embedder is not None
    if not texts:
        return np.zeros((0, 0), np.float32)
    found = np.asarray(embedder.embed(texts), np.float32)
    if found.ndim != 2 or len(found) != len(texts):
        raise PrivacyError(
            f"the sentence encoder gave an array of shape {found.shape} for {len(texts)} texts; "
            "nothing more is sent"
        )
    if not np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-2):
        raise PrivacyError("the sentence encoder gave vectors that are not of length 1")
    return found


# ── prompts and replies ──────────────────────────────────────────────────────


def random_prompt(about: str, label: str, count: int) -> Chat:
    """Asks for texts of a label, with nothing private in it."""
    what = f"{count} different examples" if count > 1 else "one example"
    return user(f"Write {what} of {about}. {_of(label)} {_form(count)}")


def variation_prompt(
    about: str, label: str, text: str, count: int, *, how: Literal["paraphrase", "fill_in"]
) -> Chat:
    """Asks for texts like `text`; the last turn is `text` alone."""
    if how == "paraphrase":
        what = f"{count} similar ones" if count > 1 else "a similar one"
        task = f"Write {what} with other words and details."
    else:
        what = f"in {count} different ways" if count > 1 else "with new words"
        task = f"Fill in each {_BLANK} of it {what}."
    return user(text, system=f"The user shows you {about}. {_of(label)} {task} {_form(count)}")


def _of(label: str) -> str:
    return f'Category: "{label.replace("_", " ")}".'


def _form(count: int) -> str:
    return "One per line, no numbers, nothing else." if count > 1 else "Nothing else."


def blanked(text: str, share: float, seed: int) -> str:
    """`text` with about `share` of its words blanked out, at least one and never all."""
    words = text.split()
    if len(words) < 2:
        return text
    rng = random.Random(f"{seed} {text}")
    count = min(len(words) - 1, max(1, round(share * len(words))))
    hidden = set(rng.sample(range(len(words)), count))
    return " ".join(_BLANK if i in hidden else word for i, word in enumerate(words))


def _distinct(texts: Sequence[str], most: int, label: str) -> list[str]:
    """The first `most` of `texts` that say something, and something else than those before.

    Raises:
        DataError: there is none.
    """
    repeats, found = Repeats(), []
    for text in texts:
        says = any(c.isalnum() for c in text) and not text.endswith(":")
        if says and repeats.add(text[:_LONGEST]):
            found.append(text[:_LONGEST])
    if not found:
        raise DataError(f"the large model wrote no usable text for the label {label!r}")
    return found[:most]
