"""What the coordinator of a sum does that hides what it is of; see `sums.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, combinations, islice

import numpy as np

from cosilo.federation.secure import keys, shamir
from cosilo.federation.secure.fixed_point import FixedPoint, Words
from cosilo.federation.secure.sums import (
    Advert,
    Roster,
    Unmasking,
    common,
    context,
    flaw,
    known_by,
)

_TRIES = 2000
"""How often a secret is looked for while shares are wrong."""


def roster_of(session: str, adverts: Sequence[Advert], *, threshold: int, size: int) -> Roster:
    """The roster of those who have advertised.

    Raises:
        ValueError: fewer than two, or than the threshold; an owner twice; or the threshold is not above
            half of them.
    """
    found = Roster(
        session=session,
        threshold=threshold,
        size=size,
        adverts=tuple(sorted(adverts, key=lambda advert: advert.owner)),
    )
    if wrong := flaw(found):
        raise ValueError(wrong)
    return found


def advert_flaw(advert: Advert) -> str:
    """What is wrong with an advert, so that its owner is left out; empty where nothing is."""
    try:
        for key in (advert.mask_key, advert.share_key):
            keys.agreed(bytes(range(keys.KEY)), key)
    except ValueError:
        return "one of its keys is none"
    return ""


def total(
    roster: Roster,
    sharers: Sequence[str],
    vectors: Mapping[str, bytes],
    answers: Mapping[str, Unmasking],
    encoding: FixedPoint,
) -> Words:
    """The sum of the survivors' vectors, which are the keys of `vectors`.

    Args:
        vectors: survivor → its masked vector.
        answers: survivor → its shares; of `roster.threshold` at least.

    Raises:
        ValueError: too few survivors or answers; a vector of another size; shares that do not give the
            secret of the owner that they are said to be of, and of which too many are wrong.
    """
    keys.require_cryptography()
    size = roster.size * encoding.bits // 8
    if len(vectors) < roster.threshold or not set(vectors) <= set(sharers) <= set(roster.owners):
        raise ValueError(
            f"{len(vectors)} of {len(roster.adverts)} owners are left, and {roster.threshold} are "
            "needed"
        )
    if encoding.owners < len(vectors):
        raise ValueError(f"the encoding has no room for {len(vectors)} owners")
    for owner, vector in vectors.items():
        if len(vector) != size:
            raise ValueError(f"{owner!r} sent {len(vector)} bytes for {size}")
    bound = context(roster, sharers)
    found = np.zeros(roster.size, encoding.dtype)
    for vector in vectors.values():
        found += np.frombuffer(vector, encoding.sent)
    adverts = {advert.owner: advert for advert in roster.adverts}
    seeds = _Shares(roster, {owner: dict(answer.own) for owner, answer in answers.items()})
    for owner in sorted(vectors):
        own = seeds.restored(owner, lambda s, of=owner: known_by(s) == adverts[of].own)  # type: ignore[misc]
        keys.add_stream(found, keys.derived(own, b"own", bound), encoding, sign=-1)
    private = _Shares(roster, {owner: dict(answer.keys) for owner, answer in answers.items()})
    for owner in sorted(set(sharers) - set(vectors)):
        mask = private.restored(
            owner,
            lambda s, of=owner: keys.public_key(s) == adverts[of].mask_key,  # type: ignore[misc]
        )
        for other in sorted(vectors):
            key = common(mask, adverts[other].mask_key, bound)
            keys.add_stream(found, key, encoding, sign=-1 if other < owner else 1)
    return found


class _Shares:
    """Who gave which shares: owner → of whom → share. Some may be wrong."""

    def __init__(self, roster: Roster, given: Mapping[str, Mapping[str, bytes]]) -> None:
        self._roster = roster
        self._given = given
        self._doubted: tuple[int, ...] = ()  # without whose shares the last secret was found

    def restored(self, owner: str, is_right: Callable[[bytes], bool]) -> bytes:
        """The secret of `owner`, of the shares that others gave: where not all of them are right, of
        those that are.

        Raises:
            ValueError: too few came, or no few of them left out give a secret that is right.
        """
        threshold = self._roster.threshold
        given = {
            place: int.from_bytes(self._given[name][owner])
            for place, name in enumerate(self._roster.owners, start=1)
            if owner in self._given.get(name, {})
        }
        if len(given) < threshold:
            raise ValueError(
                f"{len(given)} shares of {owner!r} came, and {threshold} are needed to take its mask "
                "away"
            )
        without = chain(
            [self._doubted],
            *(combinations(given, few) for few in range(len(given) - threshold + 1)),
        )
        for doubted in islice(without, _TRIES):
            enough = {p: share for p, share in given.items() if p not in doubted}
            secret = shamir.joined(dict(list(enough.items())[:threshold]))
            found = secret.to_bytes(shamir.SIZE)[-keys.KEY :] if secret < 1 << 256 else b""
            if len(enough) >= threshold and found and is_right(found):
                self._doubted = doubted
                return found
        raise ValueError(f"the shares of {owner!r} give another secret than it advertised")
