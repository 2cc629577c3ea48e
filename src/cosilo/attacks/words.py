"""Which words stood there before each was replaced at random? The best guesses there are.

The curious party is the LM's owner. It knows the mechanism (a message says which it went through), the
public vocabulary and how common words are, so that by Bayes' rule it knows how likely each word is to
have been the one. No attacker who is given single words does better than `likeliest`; one who knows
which word follows which, `likeliest_in_text`, does better on text. Attacks that guess the word that
came out, or its nearest, make these mechanisms look safer than they are ("On the Vulnerability of Text
Sanitization", arXiv 2410.17052).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cosilo.attacks.base import Guess, Target, View, attacks
from cosilo.boundary.messages import Ask
from cosilo.models.encoder.word_table import WordTable, word_table, words_in
from cosilo.privacy.mechanisms import WordNoise
from cosilo.privacy.word_noise import UNKNOWN, WordKernel, kernel

Floats = NDArray[np.float64]

_COMMON = 1000  # words that a text is taken to be made of, where it is not a candidate's
_LEAST = 1e-300


def success(rows: Floats, prior: Floats) -> float:
    """How often the best guess at one word is right.

    Args:
        rows: the chance of each output given each word, shape (words, outputs).
        prior: of each word, before anything is seen; what is missing from a sum of 1 is words that the
            attacker does not know and never guesses.
    """
    return float((rows * prior[:, None]).max(axis=0).sum())


def likeliest(rows: Floats, prior: Floats, seen: Sequence[int]) -> list[int]:
    """For each output seen the likeliest word: a number of a row."""
    return [int(i) for i in (rows[:, seen] * prior[:, None]).argmax(axis=0)]


def likeliest_in_text(
    rows: Floats,
    prior: Floats,
    follows: Floats,
    seen: Sequence[int],
    *,
    beam: int = 200,
    named: NDArray[np.bool_] | None = None,
) -> list[int]:
    """For each output of a text the likeliest word, where one knows which word follows which: the sums
    over all texts that could have been (forward and backward, Baum et al. 1970).

    Args:
        prior: of the first word, and of each by itself: only the `beam` likeliest at each place by that
            and by what is seen there are looked at.
        follows: the chance of each word behind each word, shape (words, words).
        named: the words that are worth a guess; all, when None. One that stands for all that are not
            known explains what is seen, and is no guess.
    """
    if not seen:
        return []
    worth = np.ones(len(rows)) if named is None else named.astype(np.float64)
    told = rows[:, seen].T * prior
    beam = min(beam, len(rows))
    kept = [np.argpartition(-row, beam - 1)[:beam] for row in told]
    steps = [follows[np.ix_(a, b)] for a, b in pairwise(kept)]
    given = [rows[some, y] for some, y in zip(kept, seen, strict=True)]
    forward = [_whole(prior[kept[0]] * given[0])]
    for step, here in zip(steps, given[1:], strict=True):
        forward.append(_whole((forward[-1] @ step) * here))
    backward = np.ones(beam)
    found = []
    for i in reversed(range(len(seen))):
        found.append(int(kept[i][np.argmax(forward[i] * backward * worth[kept[i]])]))
        if i:
            backward = _whole(steps[i - 1] @ (backward * given[i]))
    return found[::-1]


def _whole(chances: Floats) -> Floats:
    """`chances` with a sum of 1; even ones where nothing that is known of could have led here."""
    total = float(chances.sum())
    found: Floats = chances / total if total > 0 else np.full_like(chances, 1 / len(chances))
    return found


@dataclass(frozen=True, eq=False)
class _Replaced:
    """A mechanism as a message states it, and its vocabulary."""

    table: WordTable
    mechanism: WordKernel

    @cached_property
    def usual(self) -> Floats:
        """How likely each output is where a text says nothing in particular."""
        count = min(_COMMON, len(self.table.words))
        share = self.table.frequencies[:count] / self.table.frequencies[:count].sum()
        found: Floats = share @ self.mechanism.rows(range(count))
        return np.maximum(found, _LEAST)

    def evidence(self, values: Sequence[str], seen: Sequence[int]) -> list[float]:
        """For each value the log of how much likelier the text is with it, at the place where it fits
        best, than without. 0 for one that cannot stand there."""
        numbers = [self.table.find(words_in(value), UNKNOWN) for value in values]
        words = sorted({word for some in numbers for word in some})
        if not words or not seen:
            return [0.0] * len(values)
        rows = np.maximum(self.mechanism.rows(words)[:, seen], _LEAST)
        told = np.log(rows) - np.log(self.usual[list(seen)])
        row = {word: i for i, word in enumerate(words)}
        return [_best(told[[row[word] for word in some]]) for some in numbers]


def _best(told: Floats) -> float:
    """The largest sum along a diagonal: `told` has a row for each word of a value, a column for each
    output."""
    length, places = told.shape
    if not 0 < length <= places:
        return 0.0
    sums = sum(told[i, i : places - length + 1 + i] for i in range(length))
    return float(np.max(sums))


@attacks.register("words")
class WordPosterior:
    """Guesses the private values in texts whose words were replaced at random, by how likely each of
    the values it knows makes what is seen. It speaks about messages that say which mechanism they went
    through; about others it has only its prior."""

    about: ClassVar[str] = "secrets"

    def __init__(self) -> None:
        self._made: dict[WordNoise, _Replaced] = {}

    async def guess(self, view: View, targets: Sequence[Target]) -> list[Guess]:
        wanted = {target.request for target in targets if target.request.strip()}
        texts = self._texts(view, wanted)
        groups: dict[tuple[str, str], list[Target]] = defaultdict(list)
        for target in targets:
            groups[target.request or f" {target.id}", target.kind].append(target)
        found: dict[str, Guess] = {}
        for (request, _), group in groups.items():
            found.update(self._guesses(group, texts.get(request, ())))
        return [found[target.id] for target in targets]

    def _guesses(
        self, group: Sequence[Target], texts: Sequence[tuple[_Replaced, list[int]]]
    ) -> Mapping[str, Guess]:
        counts = Counter(group[0].candidates)
        values = sorted(counts, key=lambda value: (-counts[value], value))
        score = np.log([counts[value] for value in values] or [1])
        if values:
            told = [replaced.evidence(values, seen) for replaced, seen in texts]
            score = score + np.max([[0.0] * len(values), *told], axis=0)
        order = np.argsort(-score, kind="stable")
        weights = np.exp(score - score.max())
        sure = weights / weights.sum() if texts else np.zeros(len(score))
        ranked = [(values[i], float(sure[i])) for i in order if i < len(values)]
        ranked += [("", 0.0)] * (len(group) - len(ranked))
        return {t.id: Guess(t.id, *r) for t, r in zip(group, ranked, strict=False)}

    def _texts(
        self, view: View, requests: set[str]
    ) -> Mapping[str, list[tuple[_Replaced, list[int]]]]:
        """Of each request the texts that were replaced, as numbers of words."""
        found: dict[str, dict[tuple[WordNoise, str], None]] = defaultdict(dict)
        for entry in view.entries():
            message = entry.message
            if entry.direction != "up" or entry.request not in requests:
                continue
            if not isinstance(message, Ask) or message.release is None:
                continue
            stated = message.release.mechanism
            if isinstance(stated, WordNoise):
                for passage in message.passages():
                    if passage.what == "said" and passage.by != "system":
                        found[entry.request][stated, passage.text] = None
        return {
            request: [self._read(stated, text) for stated, text in texts]
            for request, texts in found.items()
        }

    def _read(self, stated: WordNoise, text: str) -> tuple[_Replaced, list[int]]:
        replaced = self._replaced(stated)
        numbers = replaced.table.find(text.split(), UNKNOWN)
        return replaced, [number for number in numbers if number != UNKNOWN]

    def _replaced(self, stated: WordNoise) -> _Replaced:
        plain = WordNoise(
            kind=stated.kind, epsilon=stated.epsilon, words=0, kept=stated.kept,
            chance=stated.chance, group=stated.group, vocabulary=stated.vocabulary,
        )  # fmt: skip
        if plain not in self._made:
            table = word_table(*plain.vocabulary)
            self._made[plain] = _Replaced(
                table,
                kernel(
                    plain.kind, table.vectors, plain.epsilon,
                    group=plain.group, kept=plain.kept, chance=plain.chance,
                ),
            )  # fmt: skip
        return self._made[plain]
