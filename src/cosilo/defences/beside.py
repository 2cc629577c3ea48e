"""What belongs to a value that was found: the rest of a name or of an address, and a name said again.

[Steffen] Mauer · Dr. [Holst] · codey m [ross] · [Halldór] Ó [Árnþórsson]     ──▶   the whole name
[Maud Ottokar] … Ottokar replied                                              ──▶   both
[12 Foxhollow Lane]\n , 13\n 44939                                            ──▶   its last lines, too
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cosilo.defences.address_parts import whole_addresses
from cosilo.defences.addresses import PARTICLE, UPPER
from cosilo.defences.detection import Span
from cosilo.defences.given_names import ALSO_WORDS, GIVEN
from cosilo.defences.languages.guess import ENGLISH, language
from cosilo.defences.words import (
    ALSO_NAMES,
    DAYS,
    MONTHS,
    NOT_NAMES,
    OF_PROGRAMS,
    OF_QUESTIONS,
    ORDINARY,
    SURNAMES_TOO,
)

_NO_NAMES = (
    OF_PROGRAMS | ORDINARY | OF_QUESTIONS | NOT_NAMES
    | frozenset(word.casefold() for word in (*MONTHS, *DAYS))
) - ALSO_NAMES - GIVEN  # fmt: skip
_WORDS_TOO = _NO_NAMES | ALSO_WORDS | ALSO_NAMES | SURNAMES_TOO
_AFTER = re.compile(
    rf"[ ](?P<value>(?:(?:{PARTICLE}|[{UPPER}]\.?)[ ]){{0,2}}[{UPPER}][^\W\d_A-Z]{{1,30}}"
    r"(?:[-'’][^\W\d_]{1,30})?)"
    r"(?!['’]?\w)"
)
_TITLE = re.compile(r"(?i:\b(?:dr|mr|mrs|ms|mx|prof|rev)\.?|\bSir)[ ]$")
_INITIAL = re.compile(r"(?<![\w'’])(?P<value>[^\W\d_]{3,20}[ ][b-hj-z]\.?)[ ]$")
_INITIALS = re.compile(rf"(?<![\w.])(?:[{UPPER}]\.[ ]?){{1,3}}$")
_OF_NAMES = [
    "van",
    "von",
    "vom",
    "de",
    "der",
    "den",
    "del",
    "della",
    "dos",
    "das",
    "du",
    "ter",
    "ten",
    "bin",
    "ibn",
    "af",
    "av",
    "zu",
    "zur",
    "Ó",
    "Ní",
    "Le",
]
_PARTICLES = re.compile(rf"(?<![\w'’])(?:(?:{'|'.join(_OF_NAMES)})[ ]){{1,3}}$")
"""In English text; elsewhere they are ordinary words, too."""
_AFTER_PARTICLE = tuple(f"{particle} " for particle in _OF_NAMES)
_HALF_BEFORE = re.compile(rf"(?<![\w'’\-])[{UPPER}][^\W\d_A-Z]{{1,30}}-$")
_HALF_AFTER = re.compile(rf"-[{UPPER}][^\W\d_A-Z]{{1,30}}(?!\w)")
_OF_TOWNS = re.compile(
    r"(?<![\w'’])(?:Bad|San|Santa|São|St\.?|Ste\.?|Saint|Sainte|Sankt|Los|Las|El|La|Le|Les|Den"
    r"|Port|Fort|Mount|Lake"
    r"|Villa|Nov[ýáéi]|Star[ýáé]|Velk[ýáé]|Mal[ýáé]|Dolní|Horní|Stara|Nowy|Nowa|Wielka|Mala|Upper"
    r"|Lower|Great|Little|Sault|New|Old|North|South|East|West|A[nm](?:[ ]de[rnm])?|Auf[ ]de[rm]"
    r"|Unter[ ]den|Hinter[ ]de[rmn]|Zu[mr]|In[ ]de[rn]|Nad|Pod)[ ]$"
)
_OF_TOWNS_ONLY = re.compile(r"(?<![\w'’])(?:New|North|South|East|West|Lake|Port|Fort)[ ]$")
_ENDS_TOWN = re.compile(
    r"(?<=O['’])[ ][A-Z]\w{2,20}|[ ](?:(?:a|al|del|sul)[ ][Mm]are|do[ ](?:Sul|Norte|Oeste|Mar)"
    r"|d[eo][ ](?:Minas|Cima|Baixo|Fora)"
    r"|de[l]?[ ](?:Río|Mar|Campo|Monte|Sur|Norte|Arriba)"
    r"|am[ ](?:See|Main|Rhein|Neckar|Inn|Rübenberge)"
    r"|an[ ]der[ ][A-ZÄÖÜ]\w{2,20}|in[ ]der[ ]Oberpfalz|sur[ ][A-Z]\w{2,20}"
    r"|les[ ]Bains"
    r"|upon[ ][A-Z]\w{2,20}|on[ ](?:Sea|Thames|Wye|Trent)|nad[ ][^\W\d_a-z]\w{2,20}"
    r"|(?:nell[ae]|nel|l[ao]s?|de[ ]l[ao]s|d[ao]s|del|sull?|bei|pod|pri|u)[ ][^\W\d_a-z]\w{2,20}"
    r"|(?:North|South|East|West|Heights|Islands?|Beach|Bay|Falls|Springs))(?!\w)"
)
_IN_CAPITALS = re.compile(r"[ ](?P<word>[^\W\d_a-z]{4,20})(?!\w)")
_OF_COUNTRY = re.compile(rf"[ ]\([{UPPER}][\w .]{{1,30}}\)")
_POSSESSIVE = re.compile(r"['’]s?$")
_PARTS = re.compile(r"[^\W\d_]{4,30}(?:[-'’][^\W\d_]{2,30})?")
_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]{2,30})?")
_WHOLE = re.compile(r"[^\W\d_]+")
_LAST_LINES = re.compile(
    r"(?:[ ]{0,3},?[ ]{0,3}\n[ ,]{0,4}(?:[^\W_][\w.'’ ()\-]{0,40}[ ,]{1,2})?\d{2,6}"
    r"(?:-\d{3,4})?(?=[ ,]{0,3}(?:\n|$))){1,3}"
)
_NUMBERED = re.compile(
    r"(?:[ ]|,[ ](?!(?:19|20)\d\d\b))\d{1,4}[a-z]?"
    r"(?![\w:%]|[.,]\d|[ ](?:\w{1,20}s\b|percent|times|of\b))"
)
_NAMED = ("ORG", "PLACE", "PERSON")
_AT = re.compile(
    r"(?i)\b(?:to|at|in|on|near|live[sd]?|address(?: is)?:?)[ ](?:[\w.]{1,20}[ ](?:and[ ])?)?$"
)
_HOUSE = re.compile(r"(?<![\w.,\-])\d{1,6},?[ ]$")


def beside(text: str, spans: Sequence[Span]) -> Iterator[Span]:
    """More spans, for what of names and addresses stands beside `spans` of `text`."""
    people = [s for s in spans if s.kind == "PERSON" and s.score > 0.3]
    for span in people:
        yield from _rest_of_name(text, span)
    yield from _again(text, people)
    yield from whole_addresses(text, spans)
    for span in spans:
        if span.kind == "ADDRESS":
            before = _HOUSE.search(text[max(span.start - 12, 0) : span.start])
            last = _LAST_LINES.match(text, span.end)
            if before or last:
                start = span.start - (len(before.group()) if before else 0)
                yield Span(start, last.end() if last else span.end, "ADDRESS", span.score)
            continue
        if span.kind in _NAMED:
            yield from _hyphened(text, span)
        if span.kind in ("PLACE", "PERSON"):
            likely = span.kind == "PLACE" or span.score <= 0.4
            around = text[max(span.start - 10, 0) : span.start]
            first = (_OF_TOWNS if likely else _OF_TOWNS_ONLY).search(around)
            behind = _ENDS_TOWN.match(text, span.end)
            if behind is None and span.kind == "PLACE":
                behind = _OF_COUNTRY.match(text, span.end) or _shouted(text, span)
            if first or behind:
                start = span.start - (len(first.group()) if first else 0)
                yield Span(start, behind.end() if behind else span.end, "PLACE", span.score)
        number = _NUMBERED.match(text, span.end) if span.kind in _NAMED else None
        if number is not None and _AT.search(text[max(span.start - 40, 0) : span.start]):
            yield Span(span.start, number.end(), "ADDRESS", 0.4)


def _shouted(text: str, span: Span) -> re.Match[str] | None:
    """The next word of a town that alone is written in capitals: [UPTON] SCUDAMORE."""
    after = _IN_CAPITALS.match(text, span.end)
    if after is None or not text[span.start : span.end].isupper() or span.end - span.start < 4:
        return None
    around = text[max(span.start - 12, 0) : span.start] + text[after.end() : after.end() + 12]
    if (
        after["word"].casefold() in _NO_NAMES
        or around.isupper()
        or not any(map(str.islower, around))
    ):
        return None
    return after


def _hyphened(text: str, span: Span) -> Iterator[Span]:
    """A double name of which one half was found: `Nagy-[Tóth]`; in English text the particle before a
    name, too.
    """
    if not text[span.start].isupper():
        return
    around = text[max(span.start - 32, 0) : span.start]
    before = _HALF_BEFORE.search(around) if "-" in around else None
    if before is None and around.endswith(_AFTER_PARTICLE) and language(text) in ("", ENGLISH):
        before = _PARTICLES.search(around)
    after = _HALF_AFTER.match(text, span.end)
    if before or after:
        start = span.start - (len(before.group()) if before else 0)
        yield Span(start, after.end() if after else span.end, span.kind, min(span.score, 0.5))


def parts_of_name(name: str) -> Iterator[str]:
    """What is hardly anything but a part of a full `name`, in small letters."""
    words = [word.casefold() for word in _WHOLE.findall(name)]
    if 1 < len(words) < 7 and not any(c.isdigit() for c in name):
        yield from (word for word in words if len(word) > 3 and word not in _WORDS_TOO)


def _rest_of_name(text: str, span: Span) -> Iterator[Span]:
    start, end = span.start, span.end
    title = _TITLE.search(text[max(start - 6, 0) : start])
    if title is not None:
        start -= len(title.group())
    dotted = "." in text[max(start - 2, 0) : start]
    initials = _INITIALS.search(text[max(start - 12, 0) : start]) if dotted else None
    if initials is not None:
        start -= len(initials.group())
    words = text[span.start : span.end]
    if words.islower():
        initial = _INITIAL.search(text[max(start - 30, 0) : start])
        if initial is not None and initial["value"].split()[0] not in _NO_NAMES:
            start -= len(initial.group())
    elif words.istitle() and words.isalpha():
        after = _AFTER.match(text, end)
        if after is not None and after["value"].split()[-1].casefold() not in _NO_NAMES:
            end = after.end()
    if (start, end) != (span.start, span.end):
        yield Span(start, end, "PERSON", min(span.score, 0.5))


def _again(text: str, people: Sequence[Span]) -> Iterator[Span]:
    """Parts of full names that stand elsewhere alone: written the same, so that a word is none."""
    parts: set[str] = set()
    for span in people:
        words = _POSSESSIVE.sub("", text[span.start : span.end])
        if " " in words and not text[span.start].isdigit():
            parts.update(w for w in _PARTS.findall(words) if w.casefold() not in _NO_NAMES)
    if not parts:
        return
    for word in _WORD.finditer(text):
        if word.group() in parts:
            yield Span(*word.span(), "PERSON", 0.4)
