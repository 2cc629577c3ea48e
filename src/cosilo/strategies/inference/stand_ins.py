"""Private values of a text give way to made-up ones, and come back in the reply.

    "Ada King wrote to Ben" ──▶ "Berit Ashby wrote to Corin" ──▶ the LM ──▶ "Dear Corin" ──▶ "Dear Ben"

People and places get names that a model can write about as about any other, but hardly ever writes by
itself; what has no kind gets a letter. Nothing is put back into a reply that holds a link, an address
or markup: whoever owns a host that the LM names would learn the value (docs/decisions/0037).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, product
from string import ascii_uppercase

from cosilo.matching import normalised
from cosilo.parties.data_owner import PrivateValue

_GIVEN = (
    "Alban", "Berit", "Corin", "Dagny", "Edric", "Fenna", "Gerwin", "Hilde", "Ivo", "Jorun",
    "Kasimir", "Liva", "Merten", "Nele", "Odo", "Petra", "Quirin", "Runa", "Severin", "Tilda",
    "Ulrik", "Vesna", "Wendel", "Xenia", "Yorick", "Zdenka",
)  # fmt: skip
_FAMILY = (
    "Ashby", "Brackley", "Corfield", "Denholm", "Elsworth", "Farrow", "Garside", "Holbeck",
    "Ingleby", "Jessop", "Kettlewell", "Langdale", "Marwood", "Netherby", "Oakes", "Penhallow",
    "Quarles", "Rushworth", "Selby", "Thorley", "Underhay", "Venning", "Wexcombe", "Yardley",
    "Zeal", "Arkwell",
)  # fmt: skip
_PLACES = (
    "Ardenfield", "Brookhaven", "Calderby", "Dunmore", "Elmstead", "Fernleigh", "Glenholt",
    "Harrowgate", "Invermoor", "Kestrelton", "Larkhill", "Mossbury", "Northwick", "Oakhurst",
    "Penmarsh", "Redcliffe", "Stonebridge", "Tarnwick", "Upperton", "Westmere",
)  # fmt: skip
_COMPANIES = (
    "Aldwyn", "Briarcote", "Crestmont", "Dovetail", "Everlane", "Foxglove", "Greystone", "Highmark",
    "Ironbark", "Juniper", "Kingsway", "Larchwood", "Millrace", "Northbeam", "Orchard", "Pinecrest",
    "Quayside", "Rowanberry", "Silverline", "Tidewater",
)  # fmt: skip
_SUFFIX = "Group"

_PERSONS = frozenset(("PERSON",))
_WHERE = frozenset(("PLACE", "LOCATION", "LOC", "GPE", "FAC", "ADDRESS"))
_WHOM = frozenset(("ORG", "ORGANIZATION"))
_WHEN = frozenset(("DATE", "DATE_TIME", "EVENT_DATE", "BIRTH", "BIRTH_DATE"))

_PART = re.compile(r"[^\W_]+")
_LEADS_AWAY = re.compile(
    r"//|\bwww\.|\]\s*[(\[:]|<\s*[a-z/!]|@|\b(?:data|javascript|mailto):", re.I
)
_LINK = re.compile(
    r"\]\s*\([^)]*\)?|^[ \t]*\[[^\]]*\]:.*$|<[a-z/!][^>]*>?|(?:\b[a-z][a-z0-9+.-]*:)?//\S*|\bwww\.\S*",
    re.I | re.M,
)


@dataclass(frozen=True)
class StandIns:
    """Which name stands for which value: "Corin" → "Ben"."""

    values: Mapping[str, str]

    def put_back(self, reply: str) -> str:
        """`reply` with the values, where no word of it leads elsewhere."""
        if not self.values or _LEADS_AWAY.search(reply):
            return reply
        names = sorted(self.values, key=lambda name: (-len(name), name))
        shown = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)")
        return shown.sub(lambda m: self.values[m[0]], reply)


NOTHING = StandIns({})


def cover(text: str, findings: Iterable[PrivateValue]) -> tuple[str, StandIns]:
    """`text` with a name for each of the values in it, however written, and what they stand for."""
    kinds: dict[str, str] = {}
    patterns: dict[str, str] = {}
    for value, kind in findings:
        parts = _PART.findall(value)
        if parts:
            kinds.setdefault(normalised(value).text, kind)
            patterns.setdefault(r"[\W_]*?".join(map(re.escape, parts)), value)
    if not patterns:
        return text, NOTHING
    longest_first = sorted(patterns, key=lambda p: (-len(p), p))
    values = re.compile(rf"(?<![^\W_])(?:{'|'.join(longest_first)})(?![^\W_])", re.I)
    naming = _Naming(text)
    covered = values.sub(lambda m: naming.name(m[0], kinds.get(normalised(m[0]).text, "")), text)
    return covered, StandIns(naming.given)


class _Naming:
    """Gives each value of a text one name, and none that stands there already."""

    def __init__(self, text: str) -> None:
        self.given: dict[str, str] = {}
        self._of: dict[str, str] = {}
        said = frozenset(_PART.findall(text))

        def free(names: Sequence[str]) -> Iterator[str]:
            return (name for name in names if name not in said)

        self._text = text
        self._first, self._last = free(_GIVEN), free(_FAMILY)
        self._places, self._companies = free(_PLACES), free(_COMPANIES)
        self._letters = {"Person": _letters(), "Date": _letters(), "Item": _letters()}

    def name(self, value: str, kind: str) -> str:
        key = normalised(value).text
        if key not in self._of:
            self._of[key] = self._new(value, kind)
        return self._of[key]

    def _new(self, value: str, kind: str) -> str:
        if kind in _PERSONS:
            return self._person(value)
        if kind in _WHERE:
            return self._keep(next(self._places, "") or self._lettered("Item"), value)
        if kind in _WHOM:
            company = next(self._companies, "")
            return self._keep(f"{company} {_SUFFIX}" if company else self._lettered("Item"), value)
        return self._keep(self._lettered("Date" if kind in _WHEN else "Item"), value)

    def _person(self, value: str) -> str:
        """A given name, and a family name where there are two; its parts stand for the parts."""
        words = _PART.findall(value)
        first, last = next(self._first, ""), next(self._last, "")
        if not first or not last:
            return self._keep(self._lettered("Person"), value)
        if len(words) == 1:
            return self._keep(first, value)
        for part, word in ((first, words[0]), (last, words[-1])):
            self._keep(part, word)
            self._of.setdefault(normalised(word).text, part)
        return self._keep(f"{first} {last}", value)

    def _keep(self, name: str, value: str) -> str:
        self.given[name] = value
        return name

    def _lettered(self, called: str) -> str:
        names = (f"{called} {letters}" for letters in self._letters[called])
        return next(name for name in names if name not in self._text)


def _letters() -> Iterator[str]:
    """A … Z, AA … ZZ, AAA …"""
    return ("".join(some) for size in count(1) for some in product(ascii_uppercase, repeat=size))


def without_links(text: str) -> str:
    """`text` without links and markup: what somebody else wrote, for a model that goes on from it at
    home and might put private words into an address of theirs.

    >>> without_links("See [this](https://e.example/?q=) or www.e.example")
    'See [this] or '
    """
    return _LINK.sub(lambda m: "]" if m[0].startswith("]") else "", text)
