"""What a question looks like: where its options begin, how long it is, how rare its words are."""

from __future__ import annotations

import re

import numpy as np


def split_options(text: str) -> tuple[str, list[str]]:
    """The text up to its first blank line or listed option, and the options (A. …, B) …)."""
    parts = re.split(r"\n\(?[A-J][.)] ", text)
    return parts[0].split("\n\n", 1)[0], parts[1:]


def shape(text: str, rarity: dict[str, float]) -> list[float]:
    """What a question looks like, apart from which words it uses.

    Args:
        rarity: word → inverse document frequency; a word it lacks counts as the rarest.
    """
    question, options = split_options(text)
    options = options or [""]
    size, words = max(len(text), 1), text.split() or [""]
    lowered = question.lower()
    rarest = max(rarity.values(), default=0.0)
    asked = [rarity.get(w, rarest) for w in _words(question)] or [0.0]
    offered_words = _words(" ".join(options))
    offered = [rarity.get(w, rarest) for w in offered_words] or [0.0]
    lengths = [len(o) for o in options]
    return [
        float(np.log1p(len(text))),
        float(np.log1p(len(question))),
        float(np.sqrt(np.mean(lengths))),
        sum(c.isdigit() for c in text) / size,
        float(np.mean([any(c.isdigit() for c in o) for o in options])),
        float(len(options)),
        float(bool(re.search(r"\b(not|except|least|never)\b", lowered))),
        float("__" in question),
        float(question.rstrip().endswith("?")),
        sum(c.isupper() for c in text) / size,
        float("all of the above" in text.lower()),
        float("$" in text),
        float(np.mean([len(w) for w in words])),
        float(np.mean(asked)),
        float(np.max(asked)),
        float(np.mean(offered)),
        float(np.max(offered)),
        len(set(offered_words)) / max(1, len(offered_words)),
        float(np.std(lengths) / (1 + np.mean(lengths))),
        float(lowered.startswith("which")),
        float("according to" in lowered),
        float("most likely" in lowered or "best" in lowered),
        float(question.count(".")),
        float(any(c.isdigit() for c in question)),
    ]


def _words(text: str) -> list[str]:
    return re.findall(r"\w\w+", text.lower())
