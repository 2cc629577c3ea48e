"""What is wrong with a record, in words: what is missing, was altered, moved, cut off or made anew."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from cosilo.boundary.record.ledger import (
    BASES,
    GENESIS,
    Base,
    Entry,
    Head,
    Seal,
    entry_hash,
    head_mac,
    read_entries,
)
from cosilo.errors import StoreError

_MOST = 32
"""Entries out of place that are looked at one against another to say where each of them stood."""


def verify(db: sqlite3.Connection, *, key: bytes = b"", unseal: Seal | None = None) -> list[str]:
    """What is wrong with the ledger, one line per fault; empty when every chain is whole."""
    heads = {row[0]: Head(*row) for row in db.execute("SELECT chain, count, hash, mac FROM heads")}
    chains = [row[0] for row in db.execute("SELECT DISTINCT chain FROM entries")]
    bases = {row[0]: Base(*row) for row in db.execute(BASES)}
    return find_faults(heads, chains, lambda chain: read_entries(db, chain), key, unseal, bases)


def find_faults(
    heads: Mapping[str, Head],
    chains: Iterable[str],
    entries: Callable[[str], Iterator[Entry]],
    key: bytes,
    unseal: Seal | None,
    bases: Mapping[str, Base],
) -> list[str]:
    """What is wrong with the chains, wherever they are stored."""
    faults = []
    for chain in sorted({*chains, *heads, *bases}):
        head, base = heads.get(chain), bases.get(chain)
        found = chain_faults(entries(chain), head, key=key, unseal=unseal, base=base)
        faults += [f"{chain}: {fault}" for fault in found]
    return faults


def chain_faults(
    entries: Iterable[Entry],
    head: Head | None,
    *,
    key: bytes = b"",
    unseal: Seal | None = None,
    base: Base | None = None,
) -> list[str]:
    """What is wrong with one chain; empty when it is whole.

    Args:
        entries: by number, opened with their keys.
        head: the chain's own; None where there is none.
        base: where the chain goes on, if its beginning was put into an archive.
    """
    faults: list[str] = []
    previous, expected = GENESIS, 0
    if base is not None:
        previous, expected = base.hash, base.count
        if not base.holds(key):
            faults.append("its base's seal does not match (altered, or another key)")
    misfits, held, lost = _Misfits(), 0, 0
    for entry in entries:
        held += 1
        gap = entry.number != expected
        if gap:
            faults.append(f"entry {expected} is missing (next is {entry.number})")
            misfits.missing(expected, entry.number)
        fits = entry_hash(previous, entry) == entry.hash
        misfits.see(entry, fits=fits, after_gap=gap)
        lost += entry.key == "lost"
        content = _content_fault(entry, unseal)
        if content:
            faults.append(content)
        previous, expected = entry.hash, entry.number + 1
    faults += misfits.faults()
    if lost:
        faults.append(f"the keys of {lost} entries are gone: nobody can say what is in them")
    if head is None:
        if held or base is not None:
            faults.append("the head is missing")
        return faults
    if not hmac.compare_digest(head_mac(key, head.chain, head.count, head.hash), head.mac):
        faults.append("the head's seal does not match (altered, or another key)")
    if not held and base is None and head.count:
        faults.append(f"all of its {head.count} entries are gone")
    elif head.count > expected:
        cut = f"{head.count - expected} were cut off the end"
        faults.append(f"the head counts {head.count} entries, the ledger holds {expected}: {cut}")
    elif head.count < expected:
        faults.append(f"the head counts {head.count} entries, the ledger holds {expected}")
    elif expected and head.hash != previous:
        faults.append("the last entry is not the one that the head was made of")
    return faults


def _content_fault(entry: Entry, unseal: Seal | None) -> str:
    if entry.named_otherwise:
        if entry.key == "lost":
            return ""
        if entry.key == "forgotten":
            return (
                f"entry {entry.number} is forgotten and still has a name: forgetting it was stopped,"
                " and is to be done again"
            )
        return f"entry {entry.number} was altered"
    if entry.payload is None:
        return ""
    try:
        content = unseal(entry.payload) if unseal is not None else entry.payload
    except StoreError as error:
        return f"the content of entry {entry.number}: {error}"
    if hashlib.sha256(content).digest() != entry.content_digest:
        return f"the content of entry {entry.number} was altered"
    return ""


@dataclass(frozen=True)
class _Misfit:
    """An entry whose hash is not that of its fields after the entry that stands before it."""

    entry: Entry
    after_gap: bool


class _Misfits:
    """Tells entries that were altered from those that were only moved, and from the neighbours of
    either.

    An entry that was only moved still fits at its own number, after the entry that once stood before
    it. So each misfit is tried at every number, and after every entry, that is out of place.
    """

    def __init__(self) -> None:
        self._found: list[_Misfit] = []
        self._numbers: set[int] = set()
        self._hashes: set[bytes] = {GENESIS}
        self._previous = GENESIS

    def missing(self, first: int, end: int) -> None:
        self._numbers.update(range(first, min(end, first + _MOST)))
        self._hashes.add(self._previous)

    def see(self, entry: Entry, *, fits: bool, after_gap: bool) -> None:
        if not fits:
            self._found.append(_Misfit(replace(entry, payload=None), after_gap))
            self._numbers.add(entry.number)
            self._hashes.update((self._previous, entry.hash))
        self._previous = entry.hash

    def faults(self) -> Iterator[str]:
        few = len(self._found) <= _MOST
        for misfit in self._found:
            number = misfit.entry.number
            was = self._place_of(misfit.entry) if few else None
            if was == number or (was is None and misfit.after_gap):
                continue  # what changed is what stood before it
            if was is not None:
                yield f"entry {number} was moved: it was entry {was}"
            else:
                yield (
                    f"entry {number} was altered" if few else f"entry {number} was altered or moved"
                )

    def _place_of(self, entry: Entry) -> int | None:
        for number in (entry.number, *sorted(self._numbers - {entry.number})):
            placed = replace(entry, number=number)
            if any(entry_hash(before, placed) == entry.hash for before in self._hashes):
                return number
        return None
