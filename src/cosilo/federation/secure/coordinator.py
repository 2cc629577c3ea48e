"""What the coordinator of a sum does that hides what it is of; see `sums.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
            secret of the owner that they are said to be of.
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
    seeds = {owner: dict(answer.own) for owner, answer in answers.items()}
    for owner in sorted(vectors):
        own = _restored(roster, owner, seeds)
        if known_by(own) != adverts[owner].own:
            raise ValueError(f"the shares of {owner!r} give another seed than it advertised")
        keys.add_stream(found, keys.derived(own, b"own", bound), encoding, sign=-1)
    private = {owner: dict(answer.keys) for owner, answer in answers.items()}
    for owner in sorted(set(sharers) - set(vectors)):
        mask = _restored(roster, owner, private)
        if keys.public_key(mask) != adverts[owner].mask_key:
            raise ValueError(f"the shares of {owner!r} give another key than it advertised")
        for other in sorted(vectors):
            key = common(mask, adverts[other].mask_key, bound)
            keys.add_stream(found, key, encoding, sign=-1 if other < owner else 1)
    return found


def _restored(roster: Roster, owner: str, shares: Mapping[str, Mapping[str, bytes]]) -> bytes:
    """The secret of `owner`, of the shares that others gave."""
    given = {
        place: int.from_bytes(shares[name][owner])
        for place, name in enumerate(roster.owners, start=1)
        if owner in shares.get(name, {})
    }
    if len(given) < roster.threshold:
        raise ValueError(
            f"{len(given)} shares of {owner!r} came, and {roster.threshold} are needed to take its "
            "mask away"
        )
    enough = dict(sorted(given.items())[: roster.threshold])
    secret = shamir.joined(enough)
    return secret.to_bytes(shamir.SIZE)[-keys.KEY :] if secret < 1 << 256 else bytes(keys.KEY)
