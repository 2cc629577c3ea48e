"""Whether a model has forgotten: what it says of some records beside one that never saw them.

All are functions of numbers that were measured before: `nats` is the negative log-likelihood of a
reply and `tokens` how many it has. Maini et al., "TOFU: A Task of Fictitious Unlearning for LLMs"
(arXiv 2401.06121); Shi et al., "MUSE: Machine Unlearning Six-Way Evaluation" (arXiv 2407.06460);
Carlini et al. (arXiv 2202.07646) for extraction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import ConfigError
from cosilo.objectives.base import Floats
from cosilo.objectives.membership import auc


def probability(nats: Floats, tokens: Floats) -> Floats:
    """Of each reply, by the token: the geometric mean of its tokens' probabilities."""
    found: Floats = np.exp(-nats / tokens)
    return found


def chosen_probability(right: Floats, wrong: Floats) -> Floats:
    """Of the right reply among all: shapes (n,) and (n, wrong ones), probabilities by the token."""
    found: Floats = right / (right + wrong.sum(axis=1))
    return found


def truth_ratios(right: Floats, wrong: Floats) -> Floats:
    """How likely wrong replies are beside the right one, each by the token: the geometric mean of wrong
    ones over the right one. About 1 in a model that does not know, near 0 in one that does; far above 1
    where the right one was pushed away."""
    found: Floats = np.exp(np.log(np.maximum(wrong, 1e-30)).mean(axis=1)) / np.maximum(right, 1e-30)
    return found


def truthfulness(ratios: Floats) -> float:
    """The mean of how far truth ratios are below 1, where they are: higher, the more is known."""
    return float(np.maximum(0.0, 1.0 - ratios).mean())


def same_p(ratios: Floats, retrained: Floats) -> float:
    """The p-value of a Kolmogorov–Smirnov test that truth ratios on records to forget come from the
    distribution that the retrained model has: near 0, the two can be told apart.

    Raises:
        ConfigError: scipy is not installed.
    """
    try:
        from scipy.stats import ks_2samp
    except ImportError:
        raise ConfigError(
            "comparing distributions needs scipy: pip install 'cosilo[local]'"
        ) from None
    return float(ks_2samp(ratios, retrained).pvalue)


def extraction_strength(right: Sequence[NDArray[np.bool_]]) -> Floats:
    """For each reply, the share of it that follows by itself from its question and its beginning: 1
    less the shortest beginning behind which every further token is the likeliest.

    Args:
        right: for each token of a reply whether it was the likeliest, given all before it.
    """
    found = []
    for each in right:
        missed = np.flatnonzero(~np.asarray(each, bool))
        found.append(1.0 - (int(missed[-1]) + 1) / len(each) if len(missed) else 1.0)
    return np.array(found, np.float64)


def member_score(logprobs: Floats, share: float = 0.4) -> float:
    """Min-K%: the mean of the least likely `share` of a reply's log-probabilities; the higher, the
    likelier it was learned."""
    least = max(1, round(share * len(logprobs)))
    return float(np.sort(logprobs)[:least].mean())


def privacy_leak(
    forgotten: Floats, outside: Floats, retrained: Floats, retrained_outside: Floats
) -> float:
    """How much better members are told from strangers than in the retrained model, as a share of what
    it is there. Above 0, what should be forgotten still looks learned; below 0, it looks pushed away,
    which tells who was forgotten as well: 0 is what is wanted.

    Args:
        forgotten, outside: member scores of records to forget, and of others never learned.
        retrained, retrained_outside: the same in the model that was trained without the former.
    """
    wanted = auc(retrained, retrained_outside)[0]
    return (auc(forgotten, outside)[0] - wanted) / max(wanted, 1e-9)


def utility(parts: Sequence[float]) -> float:
    """The harmonic mean of what a model still does: near 0 where one of them is."""
    if min(parts) <= 0:
        return 0.0
    return len(parts) / sum(1.0 / part for part in parts)


def leaked_within(nats: Floats, draws: int) -> Floats:
    """For each reply, the chance that one of `draws` replies drawn at temperature 1 is it, word for
    word; exactly, from its likelihood."""
    found: Floats = -np.expm1(draws * np.log1p(-np.minimum(np.exp(-nats), 1 - 1e-12)))
    return found
