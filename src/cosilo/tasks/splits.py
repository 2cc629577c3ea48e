"""Which item goes into which split: by a hash of its text.

So neither the order of the rows nor rows added later move an item, and texts that differ only in
case or signs stay together.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from cosilo.errors import DataError
from cosilo.tasks.base import SPLITS, Split

T = TypeVar("T")

WHOLE: Mapping[Split, float] = {
    "train": 0.4,
    "tune": 0.1,
    "validation": 0.15,
    "certificate": 0.15,
    "test": 0.2,
}
"""How one file is divided."""

FROM_TRAIN: Mapping[Split, float] = {
    "train": 0.55,
    "tune": 0.15,
    "validation": 0.15,
    "certificate": 0.15,
}
"""How a training file is divided when only train and test are given."""


def same_text(text: str) -> str:
    """A key that is equal for texts that differ only in case, signs and spacing."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(c if c.isalnum() else " " for c in plain).split()
    return " ".join(words) or text


def unit_hash(key: str, *, salt: str) -> float:
    """A number in [0, 1) that depends on `key` and `salt` alone."""
    digest = hashlib.sha256(f"{salt}\0{key}".encode()).digest()
    return int.from_bytes(digest[:7]) / (1 << 56)


def divide(
    items: Sequence[T], key: Callable[[T], str], shares: Mapping[Split, float], *, seed: int
) -> dict[Split, list[T]]:
    """`items` by split, in their order; every item with the same key in the same split.

    Args:
        shares: split → share, summing to 1. Shares hold on average: each key is placed by its hash.

    Raises:
        DataError: a split with a share above 0 stays empty.
    """
    wanted = [split for split in SPLITS if shares.get(split, 0) > 0]
    found: dict[Split, list[T]] = {split: [] for split in wanted}
    ends = [math.fsum(shares[s] for s in wanted[: i + 1]) for i in range(len(wanted))]
    for item in items:
        point = unit_hash(key(item), salt=f"split {seed}")
        index = next((i for i, end in enumerate(ends) if point < end), len(wanted) - 1)
        found[wanted[index]].append(item)
    for split in wanted:
        if not found[split]:
            # 3 expected items leave a split empty with probability below 5 %.
            least = math.ceil(3 / shares[split])
            raise DataError(
                f"too few items: {len(items)} leave the {split!r} split (share {shares[split]:g}) "
                f"empty; at least {least} are needed, or a 'split' that gives it more"
            )
    return found


def without_leaks(
    splits: Mapping[Split, Sequence[T]], key: Callable[[T], str]
) -> tuple[dict[Split, list[T]], dict[tuple[Split, Split], int]]:
    """`splits` with no text in two of them: an item stays where it matters most, test first.

    Returns:
        The splits, and for each (split, later split) how many items of the first were dropped.
    """
    owner: dict[str, Split] = {}
    for split in reversed(SPLITS):
        for item in splits.get(split, ()):
            owner.setdefault(key(item), split)
    kept: dict[Split, list[T]] = {}
    dropped: dict[tuple[Split, Split], int] = defaultdict(int)
    for split in SPLITS:
        kept[split] = []
        for item in splits.get(split, ()):
            if owner[key(item)] == split:
                kept[split].append(item)
            else:
                dropped[split, owner[key(item)]] += 1
    return kept, dict(dropped)


def sample(
    items: Sequence[T],
    most: int,
    *,
    key: Callable[[T], str],
    stratum: Callable[[T], str],
    seed: int,
) -> list[T]:
    """At most `most` of `items`, in their order, each stratum keeping its share.

    Quotas are rounded by largest remainder. Within a stratum the hash of the key decides, so a
    larger sample contains a smaller one's items of that stratum.
    """
    if len(items) <= most:
        return list(items)
    strata: dict[str, list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        strata[stratum(item)].append(i)
    exact = {name: most * len(members) / len(items) for name, members in strata.items()}
    quota = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(strata, key=lambda name: (quota[name] - exact[name], name))
    for name in by_remainder[: most - sum(quota.values())]:
        quota[name] += 1
    chosen = [
        i
        for name, members in strata.items()
        for i in sorted(
            members, key=lambda i: (unit_hash(key(items[i]), salt=f"sample {seed}"), i)
        )[: quota[name]]
    ]
    return [items[i] for i in sorted(chosen)]
