"""A sum of owners' vectors of which the coordinator sees nothing but the sum: who says what.

    owner                                        coordinator
    advertised ── two public keys, commitments ─▶ all adverts: the roster
    joined ────── shares of two secrets, sealed ▶ passed on; who shared: the sharers
    masked ────── vector + masks ───────────────▶ who is left: the survivors
    unmasked ──── a share for each owner ───────▶ total: masks taken away, of the sum alone

Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017, for a
coordinator that is curious and passes on what it was given. Every two owners u < v agree on a mask that
u adds and v subtracts; each adds a mask of its own besides. Of an owner that dropped out before its
masked vector came, the others give shares of the key of its common masks; of one whose vector came,
shares of the seed of its own mask; never both of one owner. See decision 0051 for who is trusted with
what, and why no mask is used for two contents.

`owner.py` is what an owner does, `coordinator.py` what the coordinator does. All is pure: what must
last is a value that `msgspec` encodes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from cosilo.boundary.messages.federate_sums import Advert as Advert
from cosilo.boundary.messages.federate_sums import Bytes32, Owner
from cosilo.boundary.messages.federate_sums import Unmasking as Unmasking
from cosilo.errors import PrivacyError
from cosilo.federation.secure import keys
from cosilo.types import Count, Many, Value

Session = Annotated[str, Meta(min_length=1, max_length=400)]


class Roster(Value, frozen=True, kw_only=True):
    """Who takes part in one sum.

    Attributes:
        session: names the sum, of all that there ever are: a federation and its round.
        threshold: so many owners must be left at the end.
        size: of each vector.
        adverts: sorted by owner.
    """

    session: Session
    threshold: Count
    size: Count
    adverts: Many[Advert]

    @property
    def owners(self) -> list[str]:
        return [advert.owner for advert in self.adverts]

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(msgspec.msgpack.encode(self)).digest()


class OwnerState(Value, frozen=True, kw_only=True):
    """What an owner remembers of one sum, secret, for whom it may go on with.

    Attributes:
        seed: drawn for this sum; all its secrets are derived from it.
        content: the commitment that it has made.
        roster, sharers, survivors: hashes of those that it has answered; empty before.
    """

    session: Session
    owner: Owner
    seed: Bytes32
    content: Bytes32
    roster: bytes = b""
    sharers: bytes = b""
    survivors: bytes = b""

    def __repr__(self) -> str:
        """Without its seed, so that none gets into a log."""
        return f"OwnerState(session={self.session!r}, owner={self.owner!r})"


def in_epoch(federation: str, epoch: int) -> str:
    """What names a federation in the sessions of its sums: another name, each time that rounds were
    taken back."""
    return f"{federation}/{epoch}" if epoch else federation


def flaw(roster: Roster) -> str:
    """What is wrong with a roster; empty where nothing is."""
    n = len(roster.adverts)
    if n < 2 or roster.owners != sorted(set(roster.owners)):
        return "a roster needs two owners or more, each once"
    if not n < 2 * roster.threshold <= 2 * n:
        return f"the threshold {roster.threshold} is not above half of {n} owners and at most all"
    keys_ = {key for advert in roster.adverts for key in (advert.mask_key, advert.share_key)}
    if len(keys_) != 2 * n:
        return "two keys of a roster are the same"
    return ""


def common(private: bytes, public: bytes, context: bytes) -> bytes:
    """The key of the mask that two owners have in common."""
    try:
        return keys.derived(keys.agreed(private, public), b"common", context)
    except ValueError:
        raise PrivacyError("secure aggregation: a key in the roster is none") from None


def context(roster: Roster, sharers: Sequence[str]) -> bytes:
    """All that a mask is bound to."""
    return hashlib.sha256(roster.digest + named(sharers)).digest()


def known_by(own: bytes) -> bytes:
    """What tells the seed of an owner's mask from others, without telling it."""
    return keys.derived(own, b"known by")


def named(owners: Sequence[str]) -> bytes:
    """A hash of who they are, in whatever order."""
    return hashlib.sha256(msgspec.msgpack.encode(sorted(owners))).digest()
