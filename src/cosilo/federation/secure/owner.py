"""What an owner does for a sum that hides its vector; see `sums.py`.

**No mask is used twice for different content**, also after `kill -9`. An owner's state holds a seed and
a commitment of the content. The state that a function returns is recorded before what comes with it is
sent; begun again from there, the owner sends the same bytes, and answers for no other roster, sharers
or survivors. All masks are derived from the whole roster, so from every owner's commitment and keys,
and from who shared: with other content, another roster or other sharers they are others, even where a
state was copied or an old one restored (decision 0051).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from msgspec.structs import replace

from cosilo.errors import PrivacyError
from cosilo.federation.secure import keys, shamir
from cosilo.federation.secure.fixed_point import FixedPoint, Words
from cosilo.federation.secure.sums import (
    Advert,
    OwnerState,
    Roster,
    Unmasking,
    common,
    context,
    flaw,
    known_by,
    named,
)


def begun(session: str, owner: str, words: Words, *, seed: bytes | None = None) -> OwnerState:
    """An owner's state for one sum, to be recorded before `advertised` of it is sent.

    Args:
        words: the encoded vector; see `FixedPoint`.
        seed: 32 secret bytes of this sum alone; drawn when unset.
    """
    keys.require_cryptography()
    seed = secrets.token_bytes(keys.KEY) if seed is None else seed
    content = _commitment(seed, session, owner, words)
    return OwnerState(session=session, owner=owner, seed=seed, content=content)


def is_of(state: OwnerState, words: Words) -> bool:
    """Whether it is these words that the owner committed to."""
    found = _commitment(state.seed, state.session, state.owner, words)
    return hmac.compare_digest(state.content, found)


def advertised(state: OwnerState) -> Advert:
    mask, share, own = _secrets(state)
    return Advert(
        owner=state.owner,
        mask_key=keys.public_key(mask),
        share_key=keys.public_key(share),
        content=state.content,
        own=known_by(own),
    )


def joined(state: OwnerState, roster: Roster) -> tuple[OwnerState, dict[str, bytes]]:
    """Shares of the owner's secrets for each other one, sealed: what the coordinator passes on.

    Raises:
        PrivacyError: the roster is none, is not one that this owner is in as it advertised, or another
            one was answered before.
    """
    if wrong := flaw(roster):
        raise PrivacyError(f"secure aggregation: {wrong}; nothing was sent")
    if roster.session != state.session or advertised(state) not in roster.adverts:
        raise PrivacyError(
            "secure aggregation: the roster is of another sum, or has other keys or content of this "
            "owner's than it advertised; nothing was sent"
        )
    digest = roster.digest
    found = replace(state, roster=_only(state.roster, digest, "roster"))
    mask, share, own = _secrets(state)
    of_key = _shares(state, mask, b"shares of the key", roster)
    of_own = _shares(state, own, b"shares of the seed", roster)
    sealed = {}
    for place, advert in enumerate(roster.adverts):
        if advert.owner != state.owner:
            content = _share(of_key[place]) + _share(of_own[place])
            key = _sealing(share, advert.share_key, digest, state.owner, advert.owner)
            sealed[advert.owner] = keys.sealed(key, content)
    return found, sealed


def masked(
    state: OwnerState, roster: Roster, sharers: Sequence[str], words: Words, encoding: FixedPoint
) -> tuple[OwnerState, bytes]:
    """The vector under its masks, and the state to be recorded before it is sent.

    Args:
        sharers: the owners whose shares have come to the coordinator.

    Raises:
        PrivacyError: `words` are not what was committed to; the sharers are too few, or without this
            owner, or others than were answered before; the encoding has no room for so many owners.
    """
    _same_roster(state, roster)
    if not is_of(state, words):
        raise PrivacyError(
            "secure aggregation: the vector is not the one that this owner committed to, and a mask is "
            "not used for two; nothing was sent"
        )
    _check_part(state, roster, sharers, roster.owners, "shared")
    if encoding.owners < len(sharers) or words.dtype != encoding.dtype or len(words) != roster.size:
        raise PrivacyError(
            f"secure aggregation: {len(words)} numbers of {len(sharers)} owners do not fit the "
            "encoding or the roster; nothing was sent"
        )
    found = replace(state, sharers=_only(state.sharers, named(sharers), "owners who shared"))
    mask, _, own = _secrets(state)
    bound = context(roster, sharers)
    total = words.copy()
    keys.add_stream(total, keys.derived(own, b"own", bound), encoding, sign=1)
    for advert in roster.adverts:
        if advert.owner != state.owner and advert.owner in sharers:
            key = common(mask, advert.mask_key, bound)
            keys.add_stream(total, key, encoding, sign=1 if state.owner < advert.owner else -1)
    return found, total.astype(encoding.sent).tobytes()


def unmasked(
    state: OwnerState,
    roster: Roster,
    sharers: Sequence[str],
    survivors: Sequence[str],
    received: Mapping[str, bytes],
) -> tuple[OwnerState, Unmasking]:
    """This owner's shares, of each survivor's own mask and of the key of each who dropped out, and the
    state to be recorded before they are sent.

    Args:
        survivors: the sharers whose masked vectors have come.
        received: what each other sharer sealed for this owner. What does not open is left out: the
            others' shares may do.

    Raises:
        PrivacyError: the survivors are too few, or without this owner, or others than were answered
            before; or its vector was never masked for these sharers.
    """
    _same_roster(state, roster)
    if state.sharers != named(sharers):
        raise PrivacyError(
            "secure aggregation: this owner masked nothing for these owners; nothing was sent"
        )
    _check_part(state, roster, survivors, sharers, "are left")
    found = replace(state, survivors=_only(state.survivors, named(survivors), "owners left"))
    _, share, own = _secrets(state)
    of_own = _shares(state, own, b"shares of the seed", roster)
    adverts = {advert.owner: advert for advert in roster.adverts}
    own_shares = [(state.owner, _share(of_own[roster.owners.index(state.owner)]))]
    key_shares = []
    for other in sharers:
        if other == state.owner:
            continue
        key = _sealing(share, adverts[other].share_key, state.roster, other, state.owner)
        content = keys.opened(key, received.get(other, b""))
        if content is None or len(content) != 2 * shamir.SIZE:
            continue
        if other in survivors:
            own_shares.append((other, content[shamir.SIZE :]))
        else:
            key_shares.append((other, content[: shamir.SIZE]))
    return found, Unmasking(own=tuple(sorted(own_shares)), keys=tuple(sorted(key_shares)))


def _secrets(state: OwnerState) -> tuple[bytes, bytes, bytes]:
    """The private key of common masks, the private key of sealed shares, the seed of its own mask."""
    bound = state.session.encode() + b"|" + state.content
    mask, share, own = (keys.derived(state.seed, label, bound) for label in (b"m", b"s", b"o"))
    return mask, share, own


def _shares(state: OwnerState, secret: bytes, label: bytes, roster: Roster) -> list[int]:
    """A share of `secret` for each owner of the roster."""
    return shamir.split(
        int.from_bytes(secret),
        threshold=roster.threshold,
        count=len(roster.adverts),
        key=keys.derived(state.seed, label, roster.digest),
    )


def _sealing(private: bytes, public: bytes, roster: bytes, sender: str, receiver: str) -> bytes:
    """The key of what one owner seals for another; `roster` is the digest of theirs."""
    way = msgspec.msgpack.encode([roster, sender, receiver])
    try:
        return keys.derived(keys.agreed(private, public), b"sealed", way)
    except ValueError:
        raise PrivacyError("secure aggregation: a key in the roster is none") from None


def _commitment(seed: bytes, session: str, owner: str, words: Words) -> bytes:
    found = hmac.new(keys.derived(seed, b"commitment"), digestmod=hashlib.sha256)
    found.update(msgspec.msgpack.encode([session, owner, str(words.dtype), len(words)]))
    found.update(np.ascontiguousarray(words, words.dtype.newbyteorder("<")).tobytes())
    return found.digest()


def _share(value: int) -> bytes:
    return value.to_bytes(shamir.SIZE)


def _only(before: bytes, now: bytes, what: str) -> bytes:
    if before not in (b"", now):
        raise PrivacyError(
            f"secure aggregation: this owner answered for another {what} before, and answering for "
            "two would give its masks away; nothing was sent"
        )
    return now


def _same_roster(state: OwnerState, roster: Roster) -> None:
    if state.roster != roster.digest:
        raise PrivacyError(
            "secure aggregation: this owner has not joined this roster; nothing was sent"
        )


def _check_part(
    state: OwnerState, roster: Roster, some: Sequence[str], of: Sequence[str], what: str
) -> None:
    if len(set(some)) != len(some) or not set(some) <= set(of) or state.owner not in some:
        raise PrivacyError(
            f"secure aggregation: those who {what} are not of the roster, or not this owner; nothing "
            "was sent"
        )
    if len(some) < roster.threshold:
        raise PrivacyError(
            f"secure aggregation: {len(some)} owners {what}, and {roster.threshold} are needed; "
            "nothing was sent"
        )
