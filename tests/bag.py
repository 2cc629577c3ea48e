"""A small model that trains in microseconds: naive Bayes over words, with weights, as in a textbook."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from cosilo.errors import ModelError
from cosilo.models.base import Access
from cosilo.types import Chat, Demonstration, Generation, Sampling, TokenLogprob, last_user


class Bag:
    """Untrained without examples. It embeds a text as the counts of its words' hashes."""

    name = "bag"
    access = Access.LOGPROBS

    def __init__(self, examples: Sequence[Demonstration] = ()) -> None:
        self.examples = tuple(examples)
        self.priors: dict[str, float] = defaultdict(float)
        self.words: dict[str, Counter[str]] = defaultdict(Counter)
        for e in examples:
            self.priors[e.target] += e.weight
            for word in last_user(e.chat).lower().split():
                self.words[e.target][word] += e.weight  # type: ignore[assignment]
        self.labels = tuple(sorted(self.priors))
        self.vocabulary = {w for counts in self.words.values() for w in counts}

    def fit(self, examples: Sequence[Demonstration], *, seed: int = 0) -> Bag:
        return Bag(examples)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self._one(text) for text in texts], np.float32)

    def _one(self, text: str) -> list[float]:
        logs = []
        for label in self.labels:
            counts = self.words[label]
            total = sum(counts.values()) + 0.5 * len(self.vocabulary)
            seen = [w for w in text.lower().split() if w in self.vocabulary]
            log = math.log(self.priors[label])
            logs.append(log + sum(math.log((counts[w] + 0.5) / total) for w in seen))
        top = max(logs)
        odds = [math.exp(x - top) for x in logs]
        return [x / sum(odds) for x in odds]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        found = np.zeros((len(texts), 64), np.float32)
        for row, text in zip(found, texts, strict=True):
            for word in text.lower().split():
                row[sum(word.encode()) % 64] += 1
            row /= max(float(np.linalg.norm(row)), 1e-9)
        return found

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        if not self.labels:
            raise ModelError("the bag of words was not trained")
        row = self._one(last_user(chat))
        top = sorted(
            ((label, math.log(max(p, 1e-30))) for label, p in zip(self.labels, row, strict=True)),
            key=lambda pair: -pair[1],
        )
        return Generation(top[0][0], tokens=(TokenLogprob(*top[0], tuple(top)),))

    async def close(self) -> None: ...
