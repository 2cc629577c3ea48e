"""How sure a model is of its own reply, and how likely it holds somebody else's."""

from __future__ import annotations

import math

from cosilo.reasoning import spoken
from cosilo.types import Generation, Sampling


def confidence(generation: Generation, sampling: Sampling) -> float:
    """The probability the model gave its own reply, 0 to 1; 0 when it shows none.

    For a closed set of answers it is the probability of the whole answer. For free text, where
    longer replies are always less probable, it is the geometric mean over the tokens.
    """
    logprob = generation.logprob
    if logprob is None:
        return 0.0
    if not sampling.choices:
        logprob /= len(generation.tokens)
    return min(1.0, math.exp(logprob))


def plausibility(generation: Generation, answer: str) -> float | None:
    """The probability the model that wrote `generation` gives to `answer` instead.

    Known only for a model that answers a closed set in one token with its alternatives (a
    classifier); None otherwise.
    """
    if len(generation.tokens) != 1:
        return None
    token = generation.tokens[0]
    known = dict(token.top)
    known.setdefault(token.token, token.logprob)
    wanted = spoken(answer).strip().casefold()
    for text, logprob in known.items():
        if text.strip().casefold() == wanted:
            return math.exp(logprob)
    return None
