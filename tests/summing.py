"""Many owners and a coordinator in one process, for the tests of sums that hide what they are of."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np

from cosilo.federation.secure import coordinator, owner
from cosilo.federation.secure.fixed_point import FixedPoint, Words
from cosilo.federation.secure.sums import OwnerState, Roster, Unmasking


def kept(state: OwnerState) -> OwnerState:
    """As a process that was killed reads it again."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=OwnerState)


def seed_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


@dataclass
class Summing:
    """One sum, phase by phase."""

    words: Mapping[str, Words]
    encoding: FixedPoint
    threshold: int
    session: str = "a federation, round 1"
    states: dict[str, OwnerState] = field(default_factory=dict)
    vectors: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, words in self.words.items():
            self.states[name] = owner.begun(self.session, name, words, seed=seed_of(name))

    def share(self, without: Collection[str] = ()) -> None:
        adverts = [owner.advertised(state) for state in self.states.values()]
        size = len(next(iter(self.words.values())))
        self.roster: Roster = coordinator.roster_of(
            self.session, adverts, threshold=self.threshold, size=size
        )
        self.sharers = [name for name in self.roster.owners if name not in without]
        self.sealed: dict[str, dict[str, bytes]] = {}
        for name in self.sharers:
            state, self.sealed[name] = owner.joined(self.states[name], self.roster)
            self.states[name] = kept(state)

    def mask(self, without: Collection[str] = ()) -> None:
        for name in self.sharers:
            if name not in without:
                state, self.vectors[name] = owner.masked(
                    self.states[name], self.roster, self.sharers, self.words[name], self.encoding
                )
                self.states[name] = kept(state)

    def received(self, name: str) -> dict[str, bytes]:
        return {other: self.sealed[other][name] for other in self.sharers if other != name}

    def answer(self, name: str, survivors: Collection[str] | None = None) -> Unmasking:
        state, found = owner.unmasked(
            self.states[name], self.roster, self.sharers,
            sorted(self.vectors) if survivors is None else sorted(survivors), self.received(name),
        )  # fmt: skip
        self.states[name] = kept(state)
        return found

    def total(self, without: Collection[str] = ()) -> Words:
        answers = {name: self.answer(name) for name in self.vectors if name not in without}
        return coordinator.total(self.roster, self.sharers, self.vectors, answers, self.encoding)

    def expected(self) -> Words:
        return np.sum(
            [self.words[name] for name in self.vectors], axis=0, dtype=self.encoding.dtype
        )


def summing(
    owners: int, size: int = 50, *, threshold: int | None = None, bits: int = 32, seed: int = 0
) -> Summing:
    """Random vectors of so many owners."""
    rng = np.random.default_rng(seed)
    encoding = FixedPoint(owners, 4.0, bits)
    words = {
        f"owner {i:03}": encoding.encoded(rng.uniform(-4, 4, size)) for i in range(owners)
    }  # fmt: skip
    return Summing(words, encoding, threshold or owners // 2 + 1)
