"""Private values by the words and forms around them in German, French, Spanish, Italian, Polish, Dutch
and Portuguese: people after titles and introductions, addresses, dates of birth, papers and plates.

One set for all seven: their cues hardly collide, and letters mix languages. Each form is a regular
expression with bounded repeats, so that a hostile text takes linear time. English text is not read
with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cosilo.defences.addresses import UPPER
from cosilo.defences.anchored import AnchoredForm, AnchoredText
from cosilo.defences.detection import Span
from cosilo.defences.languages.cues import (
    ADDED_TITLE,
    AFTER_PAPER,
    AM,
    BORN,
    CALLED,
    GREETING,
    KIN,
    LIVES,
    MONTH,
    ONLY_STREET_END,
    PAPER,
    PLATE,
    ROLE,
    SAYS,
    SHORT_TITLE,
    STREET,
    STREET_END,
    TITLE,
)  # fmt: skip
from cosilo.defences.languages.guess import ENGLISH, LanguagePiece, pieces
from cosilo.defences.languages.words import NO_NAMES

_PARTICLE = (
    r"(?:van|von|vom|zum|zur|der|den|dem|de|del|della|delle|dello|dei|degli|di|da|do|dos|du|das|la|le|las"
    r"|los|el|al|zu|ter|ten|op|uit|in|y|e|[’']t|d[’']|dell[’']|l[’'])"
)
_NAME = rf"[{UPPER}][\w’'\-]{{0,40}}"
_PART = rf"(?:[{UPPER}]\.|{_NAME})"
_BEFORE = rf"(?:{_PARTICLE}[ ]){{0,3}}(?:d['’])?"
_REST = rf"{_PART}(?:[ ]{{1,2}}{_BEFORE}{_PART}){{0,4}}"
_AFTER_TITLE = rf"{_BEFORE}{_REST}"
_ANY = (
    rf"(?:(?:von|van|zu|zur|ten|ter|op|uit|in)[ ](?:(?:de[rn]?|['’]t)[ ])?|['’]t[ ]|d['’])?{_REST}"
)
_SMALL = r"[^\W\d_][\w’'\-]{1,40}(?:[ ][^\W\d_][\w’'\-]{1,40}){0,3}"
_WHOLE = rf"[{UPPER}][^\W\d_A-Z][^\W\d_]{{0,30}}(?:[\-'’][{UPPER}]?[^\W\d_]{{1,30}})?"
_INNER = r"(?:van(?:[ ]de[rn]?)?|de[ ]l[ao]s?|le|te[rn]|’t|'t)"
_TITLES = rf"(?:{TITLE}|{SHORT_TITLE})\.?"

_DAY = (
    r"(?:\d{1,2}[./\-]\d{1,2}[./\-](?:19|20)?\d\d|(?:19|20)\d\d-\d\d-\d\d"
    rf"|\d{{1,2}}(?:\.|er|º|°)?[ ](?:de[ ])?{MONTH}\.?[ ](?:de[ ])?(?:19|20)\d\d)"
)

_OF = (
    r"(?:de|du|des|la|le|les|aux?|d['’]|l['’]|del|las|los|el|y|dei|delle|della|degli|dell['’]|do|da|dos|das"
    r"|e|św\.|gen\.|ks\.)"
)
_WORD = rf"(?:[{UPPER}][\w’'.\-]{{0,40}}|\d{{1,2}}(?=[ ](?:de[ ])?[{UPPER}]))"
_WORDS = rf"(?:{_OF}[ ]?){{0,3}}{_WORD}(?:[ ](?:{_OF}[ ]?){{0,3}}{_WORD}){{0,4}}"
_FLOOR = r"(?:,?[ ]\d{1,2}\.?[º°ª](?:[ ](?i:[A-Z]\b|esq\.?|dto\.?|dcha\.?|izq\.?))?)?"
_HOUSE = (
    r"(?:,?[ ]s/n\b|,?[ ](?:n\.?[º°o]?\.?[ ]?|nr\.?[ ]?)?\d{1,4}(?:[ ]?(?:bis|ter|[A-Za-z])\b)?"
    rf"(?:[ ]?[/\-][ ]?(?:\d{{1,4}}[A-Za-z]?|[A-Za-z])\b)?{_FLOOR})"
)
_CAPITAL = rf"[{UPPER}][\w’'\-]{{1,40}}"
_JOINED = (
    r"(?:an|am|bei|der|den|ob|im|in|de|del|della|da|do|la|le|el|d['’]|sur|sous|aan|op|lès|les)"
)
_TOWN = rf"(?:(?:[LD]['’])?{_CAPITAL}(?:[ ](?:{_JOINED}[ ]){{0,2}}{_CAPITAL}){{0,3}})"
_ZIP = r"(?:\d{2}-\d{3}|\d{4}-\d{3}|\d{4}[ ]?[A-Z]{2}|\d{5})"
_IN_STREET = (
    r"(?:Am|An[ ]der|Auf[ ]de[rm]|Im|In[ ]de[rn]|Unter[ ]den|Hinter[ ]de[rm]|Zum|Zur|Bei[ ]der)"
)

_NUMBER = r"[A-Z\d](?:[ ./\-]?[A-Z\d]){4,26}"
_PLATES = (
    r"(?:[A-ZÄÖÜ]{1,3}-[A-Z]{1,2}[ ]?\d{1,4}[EH]?|[A-ZÄÖÜ]{1,3}[ ][A-Z]{1,2}[ ]\d{1,4}[EH]?"  # Germany
    r"|[A-Z]{2}[ \-]?\d{3}[ \-]?[A-Z]{2}|\d{1,4}[ ][A-Z]{2,3}[ ]\d{2}"  # France, Italy
    r"|\d{4}[ ]?[B-DF-HJ-NPR-TV-Z]{3}|[A-Z]{1,2}-\d{4}-[A-Z]{2}"  # Spain
    r"|[A-Z]{2,3}[ ]\d[\dA-Z]{3,4}"  # Poland
    r"|\d{2}-\d{2}-[A-Z]{2}|\d{2}-[A-Z]{2}-\d{2}|[A-Z]{2}-\d{2}-[A-Z]{2}|[A-Z]{2}-\d{2}-\d{2}"
    r"|[A-Z]{2}-[A-Z]{2}-\d{2}|\d{2}-[A-Z]{2}-[A-Z]{2}|\d{1,2}-[A-Z]{2,3}-\d{1,2}"
    r"|[A-Z]{1,2}-\d{2,3}-[A-Z]{1,2})"  # the Netherlands
)


@dataclass(frozen=True)
class _Form:
    """The group `value` of `anchored` is private; a `named` one ends before an ordinary word."""

    kind: str
    anchored: AnchoredForm
    score: float
    named: bool = False
    check: Callable[[str], bool] | None = None


def _form(
    kind: str,
    regex: str,
    score: float,
    *,
    named: bool = False,
    check: Callable[[str], bool] | None = None,
) -> _Form:
    return _Form(kind, AnchoredForm(regex, re.X), score, named, check)


def _digits(low: int, high: int) -> Callable[[str], bool]:
    return lambda text: low <= sum(c.isdigit() for c in text) <= high


def _is_several(text: str) -> bool:
    return " " in text


def _nif(text: str) -> bool:
    """Whether the letter of a Spanish DNI or NIE is that of its number."""
    plain = re.sub(r"[^A-Z\d]", "", text)
    digits = plain[:-1].translate(str.maketrans("XYZ", "012"))
    return digits.isdigit() and "TRWAGMYFPDXBNJZSQVHLCKE"[int(digits) % 23] == plain[-1]


def _bsn(text: str) -> bool:
    """Whether nine digits pass the Dutch eleven test."""
    digits = [int(c) for c in text if c.isdigit()]
    return not sum(d * w for d, w in zip(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1), strict=True)) % 11


_FORMS: tuple[_Form, ...] = (
    _form("PERSON", rf"(?<!\w){_TITLES}(?:[ ](?:{ADDED_TITLE}\.?|{_TITLES})){{0,3}}[ ]"
          rf"(?P<value>{_AFTER_TITLE})", 0.9, named=True),
    _form("PERSON", rf"(?<!\w){SAYS}[ ,:]{{1,3}}(?:{_TITLES}[ ]){{0,2}}(?P<value>{_ANY})", 0.75,
          named=True),
    _form("PERSON", rf"(?<!\w){AM}[ ,]{{1,2}}(?P<value>{_ANY})", 0.6, named=True),
    _form("PERSON", rf"(?<!\w){GREETING}[ \n]{{1,2}}(?P<value>{_ANY})", 0.7, named=True),
    _form("PERSON", rf"(?<!\w){KIN}[ ,(]{{1,3}}(?P<value>{_ANY})", 0.6, named=True),
    _form("PERSON", rf"(?<!\w){ROLE}[ ,:]{{1,3}}(?:{_TITLES}[ ]){{0,2}}(?P<value>{_ANY})", 0.65,
          named=True),
    # Two capitals in a row are a name of somebody or something, also where nouns have one.
    _form("PERSON", rf"(?<![\w’'\-.&])(?P<value>{_WHOLE}(?:[ ](?:{_INNER}[ ])?{_WHOLE}){{1,3}})"
          r"(?![\w’'\-])",
          0.4, named=True, check=_is_several),
    _form("BIRTH", rf"(?<!\w){BORN}\W{{0,4}}"
          rf"(?:(?:am|le|el|il|op|dnia|a|date|ist|es|è|é)\W{{1,3}}){{0,2}}(?P<value>{_DAY})\b", 0.95),
    _form("BIRTH", rf"(?<!\w){BORN}[^\n\d]{{0,30}}\?[ ]?\n[^\n\d]{{1,30}}(?P<value>{_DAY})\b", 0.9),
    _form("ADDRESS", rf"(?<!\w)(?P<value>(?:\d{{1,4}}(?:[ ](?:bis|ter))?,?[ ])?{STREET}\.?[ ]"
          rf"{_WORDS}{_HOUSE}?)(?!\w)", 0.8),
    _form("ADDRESS", rf"(?<!\w)(?P<value>(?:[{UPPER}][\w’'.\-]{{0,40}}[ ]){{0,3}}{_CAPITAL}"
          rf"(?:{STREET_END}{_HOUSE}|{ONLY_STREET_END}(?:{_HOUSE}|(?!\w))))", 0.75),
    _form("ADDRESS", rf"(?<!\w)(?P<value>(?:{_IN_STREET}|[{UPPER}]\w{{2,20}}e[rsn]?)[ ]"
          rf"(?:{_CAPITAL}[ ]){{0,2}}{_CAPITAL}[ ]\d{{1,4}}[ ]?[A-Za-z]?)(?!\w)", 0.55),
    _form("ADDRESS", rf"(?<![\w.])(?P<value>{_CAPITAL}(?:[ ]{_CAPITAL}){{0,2}}{_HOUSE})"
          rf"(?=,[ ]{_ZIP}|[ ]in[ ][{UPPER}])", 0.6),
    _form("ADDRESS", rf"(?<![\w.\-])(?P<value>{_ZIP}[ ]{_TOWN})(?!\w)", 0.8),
    _form("ADDRESS", rf"(?<!\w)(?i:cap|c\.?[ ]?p\.?|plz|code[ ]postal|kod[ ]pocztowy|código[ ]postal"
          rf"|postcode)[ :]{{1,3}}(?P<value>{_ZIP})(?!\w)", 0.9),
    _form("PLACE", rf"(?<!\w){LIVES}[ ,:]{{1,3}}(?P<value>{_TOWN})", 0.6, named=True),
    _form("ADDRESS", rf"(?<!\w)(?P<value>(?:{_IN_STREET}[ ])?"
          rf"[{UPPER}](?:ing|arkt|ingel|amm|all|ade|ijk|lein){_HOUSE})(?=[ ]?[,.\n]|$)", 0.6),
    _form("BIRTH", rf"(?<!\w)(?P<value>{_DAY})(?:[ ](?:in|zu|te)[ ]{_TOWN})?[ ]"
          r"(?i:geboren|zur[ ]welt)\b", 0.9),
    _form("ID", rf"(?<!\w){PAPER}[^\n\w]{{0,4}}(?:{AFTER_PAPER}[^\n\w]{{1,3}}){{0,5}}?"
          rf"(?P<value>{_NUMBER})(?!\w)", 0.85, check=_digits(4, 26)),
    _form("PLATE", rf"{PLATE}[^\n\d]{{0,12}}?[ :(]{{1,3}}(?P<value>[{UPPER}\d]{{1,4}}"
          rf"(?:[ \-]?[{UPPER}\d]{{1,4}}){{1,3}})(?!\w)", 0.9, check=_digits(1, 8)),
    _form("PLATE", rf"(?<![\w\-])(?P<value>{_PLATES})(?![\w\-])", 0.7),
    # Spanish DNI and NIE, Italian codice fiscale, Portuguese citizen's card, French NIR, Dutch BSN.
    _form("SSN", r"(?<!\w)(?P<value>(?:\d{8}|\d{2}\.\d{3}\.\d{3}|[XYZ]-?\d{7})[ \-]?[A-Z])(?!\w)", 0.9,
          check=_nif),
    _form("SSN", r"(?<!\w)(?P<value>[A-Z]{3}[ ]?[A-Z]{3}[ ]?\d{2}[A-Z]\d{2}[ ]?[A-Z]\d{3}[A-Z])(?!\w)",
          0.95),
    _form("SSN", r"(?<!\w)(?P<value>\d{8}[ ]?\d[ ]?[A-Z\d]{2}\d)(?!\w)", 0.8),
    _form("SSN", r"(?<!\w)(?P<value>[12](?:[ ]?\d{2}){2}[ ]?(?:\d{2}|2[AB])(?:[ ]?\d{3}){2}[ ]?\d{2})"
          r"(?!\w)", 0.95),
    _form("SSN", r"(?<![\w.])(?P<value>\d{4}\.\d{2}\.\d{3})(?![\w.]\d)", 0.9, check=_bsn),
    _form("ID", r"(?<!\w)(?P<value>[A-Z]{2,3}[ ]\d{6,7}|HR[AB][ ]\d{2,6})(?!\w)", 0.85),
)  # fmt: skip
_SMALL_WORD = r"[^\W\d_][\w’'.\-]{0,40}"
_SMALL_STREET = re.compile(
    rf"(?<!\w)(?P<value>(?:\d{{1,4}}(?:[ ]bis)?,?[ ]{STREET}\.?(?:[ ]{_SMALL_WORD}){{1,3}}?"
    r"(?=[ ]?(?:[,;.\n]|$))"
    rf"|{STREET}\.?(?:[ ]{_SMALL_WORD}){{1,4}}{_HOUSE}"
    rf"|[^\W\d_]{{2,40}}(?:{STREET_END}|{ONLY_STREET_END}){_HOUSE}|im[ ]{_SMALL_WORD}{_HOUSE}))(?!\w)",
    re.X,
)
_SMALL_AM = re.compile(
    rf"(?<!\w){AM}[ ](?P<value>{_SMALL_WORD}(?:[ ]{_SMALL_WORD})?)(?=[ ]?[,.!\n]|$"
    r"|[ ](?:aus|und|komm\w?|de|du|et|di|e|da|z|i|uit|en|van|wollte|wilde|volevo|queria"
    r"|juste|solo|só|even|nur|chciałem)\b)",
    re.X,
)
_CALLED = re.compile(rf"(?<!\w){CALLED}[ ](?P<value>{_SMALL})")


def foreign(anchored: AnchoredText) -> Iterator[Span | None]:
    """What the forms find in those pieces of a text that are not surely English; a None after each
    form, where the caller may pause."""
    text = anchored.text
    for piece in pieces(text):
        if piece.languages == (ENGLISH,):
            continue
        for form in _FORMS:
            for found in form.anchored.find(anchored, piece.start, piece.end):
                span = _span(form, found)
                if span is not None:
                    yield span
            yield None
        if text[piece.start : piece.end].islower():
            yield from _small(text, piece)


def _small(text: str, piece: LanguagePiece) -> Iterator[Span]:
    """Names and addresses in small letters."""
    for form in (_CALLED, _SMALL_AM):
        for found in form.finditer(text, piece.start, piece.end):
            start, end = found.span("value")
            end = _until_ordinary(found["value"], start, end, small=True)
            if start < end:
                yield Span(start, end, "PERSON", 0.6)
    for found in _SMALL_STREET.finditer(text, piece.start, piece.end):
        yield Span(*found.span("value"), "ADDRESS", 0.6)


def _span(form: _Form, found: re.Match[str]) -> Span | None:
    start, end = found.span("value")
    value = found["value"]
    if form.named:
        end = _until_ordinary(value, start, end)
    if form.check is not None and not form.check(value[: end - start]):
        return None
    return Span(start, end, form.kind, form.score) if start < end else None


def _until_ordinary(value: str, start: int, end: int, *, small: bool = False) -> int:
    """Where a name ends: before the first ordinary word in it. Small ones are its particles, unless
    the whole of it is `small`.
    """
    for word in re.finditer(r"\S+", value):
        ordinary = word[0].strip(".,'’").casefold() in NO_NAMES
        capital = word[0][0].isupper() and (len(word[0]) > 2 or not word.start())
        if ordinary and (small or capital):
            return start + len(value[: word.start()].rstrip())
    return end
