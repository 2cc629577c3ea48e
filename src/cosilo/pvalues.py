"""P-values for "the mean loss is above `alpha`", valid for every n and every distribution.

Losses are independent, identically distributed and within [0, 1]; a small p-value is evidence that
the mean is at most `alpha`. Each function is super-uniform under its hypothesis: P(p ≤ δ) ≤ δ.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import ConfigError

Floats = NDArray[np.float64]


_NO_SCIPY = "what is to hold with a stated error needs scipy: pip install 'cosilo[local]'"


def binomial_p(losses: int, n: int, alpha: float) -> float:
    """Exact, for losses that are 0 or 1: P(Bin(n, alpha) ≤ losses)."""
    if alpha >= 1:
        return 0.0  # no share is above 1
    return _binomial_tail(losses, n, max(alpha, 0.0))


def ahead_p(losses: int, n: int, alpha: float, ahead: int) -> float:
    """For "more than a share `alpha` of the next `ahead` items are losses"; losses are 0 or 1.

    Exact where the `n` items seen and those `ahead` come in random order: given how many of all of them
    are losses, those seen are drawn without putting back (hypergeometric). The hypothesis is
    likeliest to look this good when the losses ahead are the fewest that break it.
    """
    if alpha >= 1 or ahead == 0:
        return 0.0
    try:
        from scipy.stats import hypergeom
    except ImportError:
        raise ConfigError(_NO_SCIPY) from None
    broken = math.floor(alpha * ahead + 1e-9) + 1
    return float(hypergeom.cdf(losses, n + ahead, losses + broken, n))


def hoeffding_bentkus_p(mean: float, n: int, alpha: float) -> float:
    """For bounded losses with that `mean` over `n` items.

    Angelopoulos et al., "Learn then Test" (arXiv 2110.01052), proposition 1.
    """
    if alpha >= 1:
        return 0.0
    if alpha <= 0:
        return 1.0
    hoeffding = math.exp(-n * _divergence(min(mean, alpha), alpha))
    # The product may fall a rounding error short of a whole number of losses: never round down.
    bentkus = math.e * _binomial_tail(math.ceil(n * mean - 1e-9), n, alpha)
    return min(1.0, hoeffding, bentkus)


def betting_p(losses: Floats, alpha: float, *, delta: float = 0.05) -> float:
    """For bounded losses of small variance, such as paired differences.

    The largest wealth of a gambler who bets, item after item, that losses stay below `alpha`;
    Ville's inequality bounds it. Waudby-Smith and Ramdas, "Estimating means of bounded random
    variables by betting" (arXiv 2010.09686), with their predictable plug-in bets. `delta` only
    tunes the bets. Items are taken in a fixed shuffled order, so that the order of a file, which
    may be sorted, plays no part.
    """
    if alpha >= 1:
        return 0.0
    shuffled = np.random.default_rng(0).permutation(losses)
    gains = _log_gains(1 - shuffled, 1 - alpha, delta)
    return float(np.exp(-max(0.0, np.cumsum(gains).max(initial=0.0))))


def _log_gains(x: Floats, m: float, delta: float) -> Floats:
    """For each item, the logarithm of the factor by which the gambler's wealth grows when betting
    that the mean of `x` is above `m`.
    """
    n = len(x)
    so_far = np.arange(1, n + 1)
    means = (0.5 + np.cumsum(x)) / (so_far + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2)) / (so_far + 1)
    known = np.concatenate([[0.25], variances[:-1]])  # each bet knows only the items before it
    bets = np.minimum(0.75 / m, np.sqrt(2 * math.log(1 / delta) / (n * known)))
    return np.asarray(np.log1p(bets * (x - m)), dtype=np.float64)


def _divergence(p: float, q: float) -> float:
    """Kullback–Leibler divergence of Bernoulli(p) from Bernoulli(q), in nats; 0 < q < 1."""
    left = p * math.log(p / q) if p > 0 else 0.0
    right = (1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0
    return left + right


MOST_ITEMS = 10_000_000


def items_needed(passes: Callable[[int], bool]) -> int | None:
    """About the smallest n for which `passes(n)`; None when even `MOST_ITEMS` do not do.

    `passes` need not be exactly monotone (a binomial tail is not): two digits of the answer hold.
    """
    high = 1
    while not passes(high):
        high *= 2
        if high > MOST_ITEMS:
            return None
    low = high // 2
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def binomial_items(mean: float, alpha: float, delta: float) -> int | None:
    """Items that `binomial_p` needs when a share `mean` of them are losses."""
    if mean >= alpha:
        return None
    return items_needed(lambda n: binomial_p(math.ceil(n * mean - 1e-9), n, alpha) <= delta)


def hoeffding_bentkus_items(mean: float, alpha: float, delta: float) -> int | None:
    """Items that `hoeffding_bentkus_p` needs when their mean loss is `mean`."""
    if mean >= alpha:
        return None
    return items_needed(lambda n: hoeffding_bentkus_p(mean, n, alpha) <= delta)


def betting_items(losses: Floats, alpha: float, delta: float) -> int | None:
    """About how many items like `losses` `betting_p` needs: its wealth when it knows the variance."""
    if losses.mean() >= alpha:
        return None
    x, m = 1 - losses, 1 - alpha
    variance = max(float(x.var()), 1e-4)

    def passes(n: int) -> bool:
        bet = min(0.75 / m, math.sqrt(2 * math.log(1 / delta) / (n * variance)))
        return n * float(np.log1p(bet * (x - m)).mean()) >= math.log(1 / delta)

    return items_needed(passes)


def _binomial_tail(k: int, n: int, p: float) -> float:
    """P(Bin(n, p) ≤ k).

    Raises:
        ConfigError: scipy is not installed.
    """
    try:
        from scipy.special import bdtr
    except ImportError:
        raise ConfigError(_NO_SCIPY) from None
    return float(bdtr(k, n, p))
