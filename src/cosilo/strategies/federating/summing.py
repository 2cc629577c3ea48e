"""One owner's part in one sum that hides what it is of; see `federation.secure`.

    round-N-….sum   the owner's secret state: written before what depends on it is sent

One process at a time reads it, goes a step on and writes it, so that two of one run cannot answer for
two rosters between them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from cosilo.boundary.messages import Advertise, HandShares, Masked, SumState, Unmask
from cosilo.boundary.messages.federate import SumTerms
from cosilo.errors import PrivacyError, StoreError
from cosilo.federation.secure import owner
from cosilo.federation.secure.fixed_point import FixedPoint, Words
from cosilo.federation.secure.sums import OwnerState, Roster, in_epoch
from cosilo.privacy.mechanisms import Release
from cosilo.strategies.federating.files import keep

T = TypeVar("T")


class SumOwner:
    """What an owner says in one sum; each message is the same when it is made again.

    Args:
        terms: as the coordinator told them.
        least: owners whose updates must be in the sum.
        words: the encoded update.
        release: what the sum says of this owner, where its update has noise.
        file: where its state is kept; in memory where None, and then a kill is a drop-out.
        epoch: how often rounds were taken back.

    Raises:
        StoreError: the file cannot be used, or is of another sum.
    """

    def __init__(
        self,
        federation: str,
        number: int,
        terms: SumTerms,
        words: Words,
        *,
        least: int,
        release: Release | None = None,
        file: Path | None = None,
        epoch: int = 0,
    ) -> None:
        self._about = {"federation": federation, "number": number, "epoch": epoch}
        self._session = f"{in_epoch(federation, epoch)} {number}"
        self._terms, self._least = terms, least
        self._words, self._release = words, release
        self._file = file
        self._memory: OwnerState | None = None
        self._roster: Roster | None = None
        self._sharers: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the masked update."""
        return self._words.nbytes

    def advertise(self) -> Advertise:
        advert = self._step(lambda state: (state, owner.advertised(state)))
        return Advertise(**self._about, advert=advert)  # type: ignore[arg-type]

    def answer(self, state: SumState) -> HandShares | Masked | Unmask:
        """What the step that `state` opens is done with.

        Raises:
            PrivacyError: it would give the update away; nothing was sent.
        """
        match state.step:
            case "shares":
                roster = self._of(state)
                sealed = self._step(lambda before: owner.joined(before, roster))
                self._roster = roster
                return HandShares(**self._about, sealed=tuple(sorted(sealed.items())))  # type: ignore[arg-type]
            case "vector":
                vector = self._step(
                    lambda before: owner.masked(
                        before, self._known(), state.owners, self._words, self._encoding()
                    )
                )
                self._sharers = state.owners
                return Masked(**self._about, vector=vector, release=self._release)  # type: ignore[arg-type]
            case _:
                shares = self._step(
                    lambda before: owner.unmasked(
                        before, self._known(), self._sharers, state.owners, dict(state.sealed)
                    )
                )
                return Unmask(**self._about, shares=shares)  # type: ignore[arg-type]

    def _of(self, state: SumState) -> Roster:
        """The roster that the coordinator shows, where this owner can be part of it."""
        if state.threshold < max(self._least, self._terms.threshold):
            raise PrivacyError(
                f"secure aggregation: the sum would be made of {state.threshold} owners' updates, and "
                f"{max(self._least, self._terms.threshold)} were agreed on; nothing was sent"
            )
        return Roster(
            session=self._session,
            threshold=state.threshold,
            size=len(self._words),
            adverts=state.adverts,
        )

    def _known(self) -> Roster:
        if self._roster is None:
            raise PrivacyError("secure aggregation: no roster was shown; nothing was sent")
        return self._roster

    def _encoding(self) -> FixedPoint:
        terms = self._terms
        return FixedPoint(terms.among, terms.largest, terms.bits)

    def _step(self, work: Callable[[OwnerState], tuple[OwnerState, T]]) -> T:
        """What `work` makes of the state, which is on the disk as it then is before that is sent."""
        if self._file is None:
            self._memory, found = work(self._memory or self._begun())
            return found
        with _alone(self._file):
            before = self._kept()
            if before is not None and not owner.is_of(before, self._words):
                raise PrivacyError(
                    f"secure aggregation: {str(self._file)!r} is of another update than this owner has "
                    "now, and a mask is not used for two; nothing was sent"
                )
            after, found = work(before or self._begun())
            if after != before:
                keep(self._file, msgspec.msgpack.encode(after))
        return found

    def _begun(self) -> OwnerState:
        return owner.begun(self._session, self._terms.owner, self._words)

    def _kept(self) -> OwnerState | None:
        assert self._file is not None
        try:
            found = msgspec.msgpack.decode(self._file.read_bytes(), type=OwnerState)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError):
            raise StoreError(
                f"{str(self._file)!r} cannot be read as what was said in a sum; without it this owner "
                "is out of the round: delete it only where the round has closed"
            ) from None
        if (found.session, found.owner) != (self._session, self._terms.owner):
            raise StoreError(f"{str(self._file)!r} is of another sum")
        return found


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold `file` for this process and thread."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"{str(file)!r} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
