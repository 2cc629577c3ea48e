"""Words replaced at random: what is promised, what an attacker gets, and what is left of the task.

    python benchmarks/text_dp.py [--data ../shared/data/banking77] [--cells /tmp/text_dp_cells.json]

For each mechanism and ε, on customers' questions (`banking77`): the share of words that come out as
they went in; the share that the best attacker names who knows how common words are (exactly, over the
words as the train split counts them, and of replaced test texts), and who knows which word follows
which as well (forward and backward, on the same); the formal ε of a word and of the median text; and
how often a classifier of 77 intents, trained on clear train texts as somebody else's model would be,
is right about replaced test texts. Three draws of everything that is drawn; each cell is kept in
`--cells`, so that a run that was stopped goes on. The test split is read once.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosilo.attacks.words import likeliest, likeliest_in_text, success
from cosilo.models.encoder.classifier import ClassifierModel
from cosilo.models.encoder.encoder import Encoder
from cosilo.models.encoder.word_table import WordTable, word_table, words_in
from cosilo.objectives.intervals import wilson
from cosilo.privacy.word_noise import UNKNOWN, WordKernel, kernel
from cosilo.types import Demonstration, user
from kept import Kept

WORDS, GROUP, KEPT, CHANCE = 6000, 20, 100, 0.7
EPSILONS = (1.0, 2.0, 4.0, 6.0, 10.0)
SEEDS = (0, 1, 2)
TRAIN, TEST, ATTACKED, BEAM = 2000, 400, 100, 100
VARIANTS: dict[str, dict[str, Any]] = {
    "santext": {"kind": "santext"},
    "santext+": {"kind": "santext", "kept": KEPT, "chance": CHANCE},
    "custext": {"kind": "custext"},
    "custext+": {"kind": "custext", "kept": KEPT, "chance": 1.0},
    "rantext": {"kind": "rantext"},
}

Floats = NDArray[np.float64]


class Attacker:
    """What the train split says of words, and of which follows which."""

    def __init__(self, table: WordTable, texts: list[str]) -> None:
        sequences = [table.find(words_in(text), UNKNOWN) for text in texts]
        counts = Counter(word for some in sequences for word in some)
        total = counts.total()
        self.words = sorted(counts)  # `UNKNOWN` among them, which is never a hit
        self.prior = np.array([counts[word] / total for word in self.words])
        place = {word: i for i, word in enumerate(self.words)}
        follows = np.zeros((len(self.words), len(self.words)))
        for some in sequences:
            for a, b in pairwise(some):
                follows[place[a], place[b]] += 1
        seen = follows.sum(axis=1, keepdims=True)
        # Where a word was seen little, what follows it is taken to be any word, as it is common.
        self.follows = (follows + 2 * self.prior) / (seen + 2)

        self.known = np.array([word != UNKNOWN for word in self.words])


def task(
    made: WordKernel, table: WordTable, classifier: ClassifierModel, test: list[tuple[str, str]],
    seed: int,
) -> dict[str, float]:  # fmt: skip
    """How often the classifier is right, and how many words came out as they went in."""
    texts, drawn = replaced(made, table, [text for text, _ in test], seed)
    said = [" ".join(table.words[word] for word in some) for some in drawn]
    best = classifier.probabilities(said).argmax(axis=1)
    right = sum(classifier.labels[int(i)] == t for i, (_, t) in zip(best, test, strict=True))
    kept = sum(a == b for t, d in zip(texts, drawn, strict=True) for a, b in zip(t, d, strict=True))
    return {"right": right, "n": len(test), "stayed": kept, "all": sum(map(len, texts))}


def attack(
    made: WordKernel, table: WordTable, attacker: Attacker, texts: list[str], seed: int
) -> dict[str, float]:
    """How many words, and whole texts, are named."""
    rows, known = rows_of(made, attacker), attacker.known
    alone = named = whole = 0
    found, drawn = replaced(made, table, texts, seed)
    for truth, seen in zip(found, drawn, strict=True):
        one = likeliest(rows, attacker.prior * known, seen)
        many = likeliest_in_text(
            rows, attacker.prior, attacker.follows, seen, beam=BEAM, named=known
        )
        hits = [attacker.words[i] == t != UNKNOWN for i, t in zip(many, truth, strict=True)]
        alone += sum(attacker.words[i] == t for i, t in zip(one, truth, strict=True))
        named += sum(hits)
        whole += all(hits)
    return {
        "alone": alone, "named": named, "words": sum(map(len, found)),
        "whole": whole, "attacked": len(texts), "best": success(rows, attacker.prior * known),
    }  # fmt: skip


@lru_cache(maxsize=1)
def rows_of(made: WordKernel, attacker: Attacker) -> Floats:
    return made.rows(attacker.words)


def replaced(
    made: WordKernel, table: WordTable, texts: list[str], seed: int
) -> tuple[list[list[int]], list[list[int]]]:
    """The words of `texts`, and what was said in their places."""
    found = [table.find(words_in(text), UNKNOWN) for text in texts]
    flat = iter(made.draw([word for some in found for word in some], random.Random(seed)))
    return found, [[next(flat) for _ in some] for some in found]


def pooled(cells: list[dict[str, float]], part: str, of: str) -> dict[str, Any]:
    hits, n = sum(c[part] for c in cells), int(sum(c[of] for c in cells))
    low, high = wilson(hits, n)
    return {"value": hits / n, "n": n, "low": low, "high": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/banking77"))
    parser.add_argument("--cells", type=Path, default=Path("/tmp/text_dp_cells.json"))
    given = parser.parse_args()

    def read(split: str, most: int) -> list[tuple[str, str]]:
        lines = (given.data / f"{split}.jsonl").read_text("utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        random.Random(split).shuffle(rows)
        return [(row["text"], row["label"]) for row in rows[:most]]

    train, test = read("train", TRAIN), read("test", TEST)
    table = word_table("minilm-int8", WORDS)
    attacker = Attacker(table, [text for text, _ in read("train", 10**6)])
    lessons = [Demonstration(str(i), user(t), label) for i, (t, label) in enumerate(train)]
    classifier = ClassifierModel(Encoder(remember=0), features="embedding").fit(lessons)
    done = json.loads(given.cells.read_text()) if given.cells.exists() else {}
    found = Kept("text_dp", settings={
        "words": WORDS, "group": GROUP, "kept": KEPT, "chance": CHANCE, "seeds": list(SEEDS),
        "train": TRAIN, "test": TEST, "attacked": ATTACKED,
    })  # fmt: skip
    if "clear" not in done:
        chances = classifier.probabilities([text for text, _ in test]).argmax(axis=1)
        hits = sum(classifier.labels[int(i)] == t for i, (_, t) in zip(chances, test, strict=True))
        labels = Counter(label for _, label in test)
        texts = [table.find(words_in(text), UNKNOWN) for text, _ in test]
        done["clear"] = {
            "right": hits, "n": len(test), "majority": max(labels.values()),
            "unknown": sum(some.count(UNKNOWN) for some in texts), "words": sum(map(len, texts)),
            "median": float(np.median([len(some) for some in texts])),
            "commonest": float((attacker.prior * attacker.known).max()),
        }  # fmt: skip
    clear = done["clear"]
    found.put("clear", "utility", **pooled([clear], "right", "n"))
    found.put("clear", "majority", clear["majority"] / clear["n"], n=clear["n"])
    found.put("clear", "unknown", clear["unknown"] / clear["words"], n=clear["words"])
    found.put("clear", "median_words", clear["median"], n=clear["n"])
    found.put("clear", "commonest", clear["commonest"])
    for name, options in VARIANTS.items():
        for epsilon in EPSILONS:
            made = kernel(vectors=table.vectors, epsilon=epsilon, group=GROUP, **options)
            tasks, attacks = [], []
            for seed in SEEDS:
                key = f"{name} {epsilon:g} {seed}"
                if f"{key} task" not in done:
                    done[f"{key} task"] = task(made, table, classifier, test, seed)
                if f"{key} attack" not in done:
                    some = [text for text, _ in test[:ATTACKED]]
                    done[f"{key} attack"] = attack(made, table, attacker, some, seed)
                    given.cells.write_text(json.dumps(done))
                    print(key, done[f"{key} task"], done[f"{key} attack"], flush=True)
                tasks.append(done[f"{key} task"])
                attacks.append(done[f"{key} attack"])
            row = f"{name}, {epsilon:g}"
            found.put(row, "utility", **pooled(tasks, "right", "n"))
            found.put(row, "stayed", **pooled(tasks, "stayed", "all"))
            found.put(row, "best", attacks[0]["best"])
            found.put(row, "alone", **pooled(attacks, "alone", "words"))
            found.put(row, "in_text", **pooled(attacks, "named", "words"))
            found.put(row, "whole", **pooled(attacks, "whole", "attacked"))
            if made.bound is not None:
                found.put(row, "bound", made.bound)
                found.put(row, "text_bound", made.bound * clear["median"])
    found.write()


if __name__ == "__main__":
    main()
