"""Recognisers of our own: numbers with a form, addresses, names after cues. No model, no packages.

Each is a regular expression with bounded repeats, so that a hostile text takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from cosilo.defences.addresses import ADDRESSES, IN_SLOTS, WITH_TOWNS
from cosilo.defences.anchored import AnchoredForm, AnchoredText
from cosilo.defences.beginnings import JOINED
from cosilo.defences.credentials import credentials
from cosilo.defences.detection import Span, Steps, due, gathered, run
from cosilo.defences.handles import handles
from cosilo.defences.languages.forms import foreign
from cosilo.defences.languages.guess import ENGLISH, language
from cosilo.defences.names import listed, named
from cosilo.defences.words import (
    DAYS,
    MONTHS,
    NOT_NAMES,
    NUMBERED,
    OF_PROGRAMS,
    OF_QUESTIONS,
    ORDINARY,
)

Check = Callable[[str], bool]


@dataclass(frozen=True)
class Pattern:
    """The group `value` of `form` is a private value of this kind, if `check` says so."""

    kind: str
    form: AnchoredForm
    score: float
    check: Check | None = None

    def find(self, text: AnchoredText) -> Iterable[Span]:
        """Its values in `text`; false where a look tells that there are none."""
        found = self.form.find(text)
        return self._checked(text.text, found) if found else ()

    def _checked(self, text: str, matches: Iterable[re.Match[str]]) -> Iterator[Span]:
        for found in matches:
            start, end = found.span("value")
            if start < end and (self.check is None or self.check(text[start:end])):
                yield Span(start, end, self.kind, self.score)


def luhn(text: str) -> bool:
    """Whether the digits of `text` pass the check that payment cards use (ISO/IEC 7812)."""
    digits = [int(c) for c in text if c.isdigit()]
    doubled = [d * 2 - 9 * (d > 4) for d in digits[-2::-2]]
    return len(digits) >= 12 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _digits(low: int, high: int) -> Check:
    return lambda text: low <= sum(c.isdigit() for c in text) <= high


def _is_date(text: str) -> bool:
    return bool(re.fullmatch(r"(?:19|20)\d\d-\d{1,2}-\d{1,2}|\d{1,2}-\d{1,2}-(?:19|20)?\d\d", text))


_MOMENT = re.compile(
    r"(?:(?:19|20)\d\d[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])|(?:0?[1-9]|[12]\d"
    r"|3[01])[-/.](?:0?[1-9]|1[0-2])"
    r"[-/.](?:19|20)\d\d|(?:0?[1-9]|1[0-2])/(?:0?[1-9]|[12]\d|3[01])/(?:19|20)\d\d)(?!\d)"
    r"|\d{4}\.\d{4,5}$"
)
"""A date, and perhaps what follows it; or a number of arXiv."""

_DAY = re.compile(
    r"\d{1,2}\.? (?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mär|mai|okt|dez|fév|avr|juin"
    r"|juil|aoû|déc"
    r"|ene|abr|ago|dic|gen|mag|giu|lug|set|ott)[^\W\d_]{0,7}\.? (?:19|20)\d\d",
    re.I,
)
"""A day in words, which has the form of a number, a street and another number."""


def _is_address(text: str) -> bool:
    """Whether an address without a number is more than `The road`, `A gateway`."""
    if any(c.isdigit() for c in text):
        return not _DAY.fullmatch(text)
    return len(text.split()) > 2 or text.partition(" ")[0].casefold() not in NOT_NAMES


_NO_STREETS = frozenset(
    word.casefold() for word in (*NUMBERED, *OF_PROGRAMS, *ORDINARY, *NOT_NAMES, *MONTHS, *DAYS)
)
_ENGLISH = NOT_NAMES | OF_QUESTIONS
_SMALL = re.compile(r"(?<![\w'’])[^\W\d_]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_YEAR = re.compile(r"(?:^|.*[ ])(?:19|20)\d\d(?:$|[ ])")


def _has_no_sentence(text: str) -> bool:
    """Whether no word in small letters is an ordinary English one: `Please return to Box 12`."""
    return not any(w.islower() and len(w) > 1 and w in _ENGLISH for w in _SMALL.findall(text))


def _is_street(text: str) -> bool:
    """Whether a number and the name beside it are not one of a row (`Gate 5`, `3 Germans`), a day, a
    year, a version or an amount."""
    words = [word for word in _LETTERS.findall(text) if len(word) > 1]
    if not words or _YEAR.match(text) or _DAY.match(text) or not _has_no_sentence(text):
        return False
    numbered = words[0] if text[0].isdigit() else words[-1]
    return not (
        numbered.casefold() in _NO_STREETS
        or words[0].casefold() in _NO_STREETS
        or (numbered.isupper() and len(numbered) < 5)
    )


_GROUPED = re.compile(
    r"\d{1,3}(?:[., ]\d{3})+|\d{4}[./]\d{1,2}[./]\d{1,2}.*|\d{1,2}[./]\d{1,2}[./]\d{4}"
)


_NO_PHONE = re.compile(
    r"\d{3,5}\.\d{1,2}-(?:19|20)\d\d|(?:.* )?\d{1,3}(?:\.\d{1,3}){3}(?:[/ ].*)?"
    r"|\d{5,}\.\d{1,6}|.*\.\..*|\(?0\.\d{2,}\)?(?: \(?0\.\d{2,}\)?)?"
    r"|.*\((?:19|20)\d\d-[01]\d-[0-3]\d\)?"
)
"""IEEE 1003.1-2008; an IP address and what is before it; decimals; 1.6.1 (2020-10-12)."""


def _is_phone(text: str) -> bool:
    digits = sum(c.isdigit() for c in text)
    if (
        not 7 <= digits <= 19
        or _is_date(text)
        or _MOMENT.match(text.strip("()"))
        or _NO_PHONE.fullmatch(text)
    ):
        return False
    if not _is_number(text):
        return False
    if _GROUPED.fullmatch(text):  # 10,000,000 or a date, unless it begins or is spaced like a phone
        return bool(re.fullmatch(r"0\d.*|\d{3}[ .]\d{3}[ .]\d{3}", text))
    spaced = re.search(r"\d[ .\-()/]+\d", text) is not None
    return text.startswith(("+", "(", "0")) or spaced or digits >= 9


_NO_CODE = re.compile(
    r"(?:(?:HMAC|PBKDF|RSA|AES|ISO|RFC|SHA|UTF|CVE|IEEE|ANSI|NIST|FIPS|ECMA|PEP|DIN|GPT)-?)+\d.*|(?:19|20)\d\d-?[01]\d-?[0-3]\dT\d{2,6}Z?",
    re.I,
)


def _is_somewhere(text: str) -> bool:
    """Whether an IP address is somebody's: not this machine, any, or a mask."""
    return not text.startswith(("127.", "0.0.0.0", "255."))


_OF_UUID = re.compile(r"-[0-9a-f]{4}-", re.I)
_UUID = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.I)


def _whole(text: str, spans: Iterable[Span]) -> list[Span]:
    """`spans` without parts of UUIDs: twelve digits at the end of one are no number of anybody's."""
    if _OF_UUID.search(text) is None:
        return list(spans)
    inside = {at for m in _UUID.finditer(text) for at in range(m.start() + 1, m.end())}
    return [s for s in spans if s.start not in inside] if inside else list(spans)


def _is_number(text: str) -> bool:
    """Whether digits may be somebody's number: not one of programs, 2³⁰, 2³² - 1, 10⁹."""
    digits = text.strip("()")
    if not digits.isdecimal():
        return True
    number = int(digits)
    return number & (number - 1) != 0 and number & (number + 1) != 0 and len(digits.rstrip("0")) > 1


def _is_code(text: str) -> bool:
    return len(text) >= 6 and not _NO_CODE.fullmatch(text)


_TLD = (
    "com|org|net|edu|gov|io|co|uk|de|fr|es|it|nl|eu|info|biz|ch|at|be|pl|cz|se|no|dk|fi|pt|ca|au|us"
    "|ru|br|ai|app|dev"
)
_Row = tuple[str, str, float, Check | None] | tuple[str, str, float, Check | None, str]
_FORMS: tuple[_Row, ...] = (
    ("EMAIL", r"(?P<value>(?<![\w.+%\-])[\w.+%\-]{1,64}@(?:[\w\-]{1,63}\.){1,5}[^\W\d_]{2,24})(?!\w)",
     1.0, None),
    ("URL", r"""(?P<value>\b(?:https?|ftp)://[^\s<>"'()\[\]{}]{2,2000}[\w/=\#&%\-])""", 1.0, None),
    ("URL", rf"""(?P<value>\b(?:www\.[\w\-]{{1,63}}(?:\.[\w\-]{{1,63}}){{1,4}}
        |(?:[a-z\d][a-z\d\-]{{1,62}}\.){{1,3}}(?:{_TLD}))(?:/[^\s<>"'()\[\]{{}}]{{0,2000}}[\w/=])?)
        (?![\w@])""", 0.8, None),
    ("IBAN", r"(?P<value>\b[A-Z]{2}\d{2}(?:[ ]?[A-Z\d]{4}){2,7}(?:[ ]?[A-Z\d]{1,4})?)\b", 0.95,
     _digits(8, 32)),
    ("CARD", r"(?P<value>(?<![\w.])\d(?:[ \-]?\d){11,18})(?!\w)", 0.95, luhn),
    ("SSN", r"(?P<value>(?<![\w\-])\d{3}[\- ]\d{2}[\- ]\d{4})(?![\w\-])", 0.95, None),
    ("IP", r"""(?P<value>(?<![\w.:])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)
        (?:/\d{1,2})?)(?!\w)""", 0.95, _is_somewhere),
    ("IP", r"""(?P<value>(?<![\w:])(?:[a-f\d]{1,4}:){7}[a-f\d]{1,4}
        |(?<![\w:])(?:[a-f\d]{1,4}:){1,6}(?::[a-f\d]{1,4}){1,6})(?![\w:])""", 0.95, None,
     r":[a-f\d]{0,4}:"),
    ("MAC", r"(?P<value>(?<![\w:])(?:[a-f\d]{2}[:\-]){5}[a-f\d]{2})(?![\w:])", 0.95, None,
     r"[:\-][a-f\d]{2}[:\-]"),
    ("PHONE", r"""(?P<value>(?<![\w./\-])(?<!\d,)(?:\+|00[1-9]\d{0,2}[\-. ])?\(?\d{1,4}\)?
        (?:[ .\-/]{0,2}\(?\d{1,4}\)?){1,6}(?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})?)(?!\w|[.,]\d|-\d)""", 0.7,
     _is_phone),
    ("ID", r"(?P<value>(?<![\w.])(?<!\d,)\d{8,40})(?!\w|[.,]\d)", 0.6, _is_number),
    ("ID", r"""(?P<value>(?<![\w\-])(?=[A-Z\d\-]{0,40}\d[A-Z\d\-]{0,40}\d[A-Z\d\-]{0,40}\d)
        (?=[\d\-]{0,40}[A-Z])(?-i:[A-Z\d]{2,40}(?:-[A-Z\d]{1,40}){0,5}))(?![\w\-])""", 0.6, _is_code),
    ("ID", r"(?P<value>(?<![\w\-])\d{2,6}(?:-\d{2,6}){2,4})(?![\w\-])", 0.5,
     lambda text: not _is_date(text)),
    ("ID", r"""\b(?:account|acct|licen[cs]e|passport|policy|customer|client|member|patient|employee
        |order|invoice|case|ticket|reference|ref|tax|medical[ ]record|mrn|id|routing|serial|vin)
        (?:[ ](?:number|no\.?|nr\.?|id|code|\#))?(?:[ ](?:is|was|of)|:|\#|[ ]=)?[ :\#]{0,3}
        (?P<value>[A-Z]{0,4}[\-/]?\d[A-Z\d\-/]{3,30})\b""", 0.85, None),
    ("AGE", r"""(?<![\w.,$€£])(?P<value>9\d|1[0-2]\d)
        (?=[ \-]?(?:years?|yrs?)[ \-](?:old|of[ ]age)\b
        |[ ]?y[./]?[ ]?/?o\b|[ \-](?:jahre[ ]alt|jährig|ans\b
        |años|anni|lat\b|jaar|anos))""", 0.9, None),
    ("AGE", r"""\b(?:aged?(?:[ ]of|[ ]is|:)?|turned)[ ]{1,3}(?P<value>9\d|1[0-2]\d)(?=[,;)\n]|\.(?!\d)|$
        |[ ](?:and|last|this|next|in|on|today|yesterday)\b)""", 0.8, None),
    ("ID", r"""\b(?:chart|encounter|hospital|record|accession|specimen|sample|subject|participant)
        (?:[ ]?(?:number|no\.?|nr\.?|id|\#)|(?<=chart)|(?<=encounter))(?:[ ](?:is|was)|:)?
        [ :\#]{1,3}(?P<value>(?!(?:19|20)\d\d\b)[A-Z]{0,4}[\-/]?\d[A-Z\d\-/]{3,30})\b""", 0.8,
     _digits(4, 30)),
    ("ID", r"\b(?:vin|vehicle[ ]identification[ ]number)\W{1,3}(?P<value>[A-HJ-NPR-Z\d]{17})\b", 0.95,
     None),
    ("PLATE", r"""\b(?:plate|registration|reg\.?|licen[cs]e[ ]plate|number[ ]plate)
        (?:[ ](?:number|no\.?|mark))?(?:[ ](?:is|was)|:)?[ ]{0,2}
        (?P<value>(?=[A-Z]{0,7}\d)(?=\d{0,7}[A-Z])[A-Z\d]{5,8}
        |[A-Z\d]{1,4}(?:[ \-][A-Z\d]{1,4}){0,3})\b""", 0.8,
     _digits(1, 8)),
    # The United Kingdom's since 2001: where, when, and three letters.
    ("PLATE", r"\b(?P<value>(?-i:[A-HJ-PR-Y]{2}(?:0[2-9]|[12]\d|5[1-9]|[67]\d)[ ][A-HJ-PR-Z]{3}))\b",
     0.7, None),
    ("BIRTH", r"""\b(?:born(?:[ ]on)?|birth(?:day|date)?|d\.?o\.?b\.?)\W{0,3}
        (?:(?:is|was|on|it['’]s|its|i[ ]was)\W{1,3}){0,3}(?P<value>\d{1,4}[./\-]\d{1,2}[./\-]\d{1,4}
        |(?:\d{1,2}(?:st|nd|rd|th)?[ ])?[A-Z]{3,9}\.?[ ]
        (?:\d{1,2}(?:st|nd|rd|th)?[ ]?,?[ ])?\d{4})\b""",
     0.9, None),
)  # fmt: skip
"""Kind, regular expression, score, check; and where the form is hard to see, what is quickly looked for
that each match holds.
"""
_BEGINS = {"IBAN": JOINED, "URL": JOINED}  # where a form may begin with any letter

PATTERNS = (
    *(
        Pattern(kind, AnchoredForm(form, re.X | re.I, _BEGINS.get(kind, ""), *held), score, check)
        for kind, form, score, check, *held in _FORMS
    ),
    *(
        Pattern("ADDRESS", AnchoredForm(form, re.X), score, _is_address)
        for form, score in ADDRESSES
    ),
)


_STREETS = tuple(
    Pattern("ADDRESS", AnchoredForm(form, re.X), score, check)
    for forms, check in ((WITH_TOWNS, _has_no_sentence), (IN_SLOTS, _is_street))
    for form, score in forms
)
_ADDRESSES = PATTERNS[len(_FORMS) :]
_EVERYWHERE = PATTERNS + _STREETS


class PatternDetector:
    """Finds values by their form alone: no model, under a millisecond a sentence.

    An English text without capital letters is read as if every word had one, for addresses.
    """

    def detect(self, text: str, public: str = "") -> list[Span]:
        return run(self.steps(text, public))

    def steps(self, text: str, public: str = "") -> Steps[list[Span]]:
        spans: list[Span] = []
        anchored = AnchoredText(text)
        for pattern in _EVERYWHERE:
            if some := pattern.find(anchored):
                spans += yield from gathered(some)
        for form in (named, credentials, foreign, handles):
            for found in form(anchored):
                if found is not None:
                    spans.append(found)
                if due():
                    yield
        small = text == text.lower() and language(text) in ("", ENGLISH)
        titled = text.title() if small else text
        if titled != text and len(titled) == len(text):
            anchored = AnchoredText(titled)
            for pattern in _ADDRESSES:
                if some := pattern.find(anchored):
                    spans += yield from gathered(some)
        return _whole(text, spans) + (yield from gathered(listed(text, spans)))
