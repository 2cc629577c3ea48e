"""Names of people where no sentence shows them: in names of files, paths, users, and in small letters.

    cv_henrik_lindqvist_final.pdf   /home/henrik/notes   'maria_gonzalez'   user henrik logged in
    hey bruce so see here           call me at four one five, five five five, zero one nine two

Of parts joined by signs two in a row are a name where the first is a given name and the second no word
of files or programs; in a document that is about somebody (`cv_…`), whatever is no such word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cosilo.defences.anchored import AnchoredForm, AnchoredText
from cosilo.defences.beginnings import JOINED
from cosilo.defences.detection import Span
from cosilo.defences.given_names import ALSO_WORDS, GIVEN
from cosilo.defences.words import (
    ALSO_NAMES,
    DAYS,
    MONTHS,
    NOT_NAMES,
    OF_PROGRAMS,
    OF_QUESTIONS,
    ORDINARY,
    of,
)

_LETTERS = r"[^\W\d_]"
_OF_PARTS = AnchoredForm(
    rf"(?<![\w.])(?<![\w.+\-]@)(?P<parts>{_LETTERS}{{1,30}}\d{{0,4}}(?:[_.\-]{{1,2}}[^\W_]{{1,30}}){{1,9}})(?![\w(])",
    begins=JOINED,
)
_PART = re.compile(r"[^\W_]+")
_DOCUMENT = re.compile(
    r"\.(?:pdf|docx?|odt|rtf|txt|xlsx?|pptx?|jpe?g|png|heic|tiff?|mp[34]|wav|m4a|eml|msg|zip|vcf)$",
    re.I,
)
_ABOUT = of("""
cv resume curriculum lebenslauf bewerbung anschreiben zeugnis passport reisepass ausweis id photo foto
portrait headshot selfie contract vertrag arbeitsvertrag agreement offer invoice rechnung factura
facture arztbrief befund diagnosis prescription rezept labs report letter brief reference referral
application
candidate patient client employee payslip payroll salary gehalt statement interview transcript
certificate birth marriage will testament nda scan
""")
_OF_FILES = of("""
final draft copy signed new old latest version rev revised v edit edited clean review reviewed approved
en de fr es it page part full short long small large front back scanned scan backup export import data
summary notes list doc docs document file files letter cover photo image img pic screenshot print
january february march april may june july august september october november december jan feb mar apr
jun jul aug sep oct nov dec q first second third year month week day date today 2fa
senior junior lead engineer developer manager analyst nurse doctor medical tax bank insurance rent house
car company corp inc ltd gmbh llc team group project plan work job office school university
""")
_NO_PART = (
    OF_PROGRAMS | ORDINARY | OF_QUESTIONS | NOT_NAMES | _ABOUT | _OF_FILES
    | frozenset(word.casefold() for word in (*MONTHS, *DAYS))
)  # fmt: skip
_NAMES = GIVEN - ALSO_WORDS - ALSO_NAMES - of("adam jordan martin rene troy francis")
"""Given names that are hardly ever anything else, also in small letters."""

_HOME = AnchoredForm(
    r"(?:(?<![\w.])/(?:home|Users|export/home)/|\b[A-Za-z]:\\{1,2}Users\\{1,2}|\\\\[\w.\-]{1,60}\\users\\)"
    r"(?P<value>[^\W\d_][\w.\-]{1,40})",
)
_LOGGED = AnchoredForm(
    r"""(?ix)(?:\b(?:accepted|failed)\ \w{1,20}\ for\ (?:invalid\ user\ )?
        |\bsession\ (?:opened|closed)\ for\ user\ |\binvalid\ user\ |\bsudo:\ {1,9}
        |\b(?:user|account|login|username)[ :=]{1,3}["']?(?=[\w.\-]{2,40}["']?\ (?:logged|signed|failed
          |has|was|is\ not|authenticated|connected|disconnected|created|deleted|uploaded|requested
          |changed|not\ found)\b))
        (?P<value>[a-z][\w.\-]{1,40})"""
)
_OWN_USER = AnchoredForm(
    r"(?i)\bmy (?:user ?name|user|login|handle|nick(?:name)?"
    r"|(?:account|screen) name)(?: is| was|:) {1,3}"
    r"(?P<value>(?=\w{0,40}[\d._\-])[\w.\-]{2,40}\w)"
)
_NO_USER = OF_PROGRAMS | of("""
root admin administrator user users guest public shared default all runner ubuntu debian centos ec2-user
vagrant git www-data postgres mysql nobody daemon service system app deploy jenkins test tester node
data bob alice user1 username name id input account ssh sshd ftp http nginx apache redis pi me you the
""") - of("bob alice")

_SMALL = re.compile(r"(?<![\w.@/\-])[a-z]{3,12}(?![\w(@/=]|\.\w|-\w)")

_SPOKEN = AnchoredForm(
    r"""(?ix)\b(?:(?:plus|double|triple|zero|oh|one|two|three|four|five|six|seven|eight|nine|hundred)
        [ ,.\-]{1,3}){6,24}(?:zero|oh|one|two|three|four|five|six|seven|eight|nine|hundred)\b"""
)

_MONEY = (
    r"(?P<value>(?:[$€£¥]|(?:USD|EUR|GBP|CHF)\ )?\d{1,3}(?:[,.'’ ]\d{3}){1,3}(?:\.\d\d)?"
    r"|[$€£¥]?\d{2,7}k?\b)"
)
_EARNS = (
    AnchoredForm(
        r"(?ix)\b(?:my|his|her|their|our)\ (?:\w{1,20}\ ){0,2}(?:salary|wages?|income|pay|debts?"
        r"|mortgage|loan|savings|pension|bonus|severance|alimony|rent|balance|net\ worth)\ "
        r"(?:\w{1,20}\ ){0,3}?"
        + _MONEY
    ),
    AnchoredForm(
        r"(?ix)\b(?:i|he|she|they|we)(?:['’](?:m|ve|s|re))?\ (?:\w{1,20}\ ){0,2}?(?:earn(?:s|ed|ing)?"
        r"|owe[sd]?|mak(?:es?|ing)|made)\ (?:\w{1,20}\ ){0,2}?"
        + _MONEY
    ),
)  # fmt: skip

_CLIENTS = AnchoredForm(
    r"\b(?i:our (?:new |old |biggest )?(?:client|customer|supplier|vendor|partner)"
    r"|the (?:contract|agreement|deal|merger|dispute|settlement|lawsuit) with|work(?:s|ed|ing)? for"
    r"|employed (?:by|at)|on behalf of|acquisition of|hired by|fired by)"
    r"\s(?P<value>[A-Z]{2,6})\b(?![-/.]\w)"
)
_KNOWN_LETTERS = of(
    "usa uk eu un us nato who fbi cia irs nhs it hr pr ceo cto cfo vat gmbh nasa ibm"
)

_NO_CLIENT = OF_PROGRAMS | _KNOWN_LETTERS


def handles(anchored: AnchoredText) -> Iterator[Span | None]:
    """People by their names in files, paths, user names and small letters; spoken numbers; sums of
    money that somebody has. A None where the caller may pause.
    """
    text = anchored.text
    for joined in _OF_PARTS.find(anchored):
        yield from _joined(text, joined)
    yield None
    at_home = "home/" in text or "Users/" in text or "sers\\" in text
    for pattern in (_HOME, _LOGGED) if at_home else (_LOGGED,):
        for found in pattern.find(anchored):
            if found["value"].casefold().rstrip(".") not in _NO_USER:
                start, end = found.span("value")
                yield Span(start, end - found["value"].endswith("."), "USER", 0.7)
        yield None
    for found in _OWN_USER.find(anchored):
        yield Span(*found.span("value"), "USER", 0.7)
    yield None
    for number, small in enumerate(_small_words(anchored)):
        if small.group() in _NAMES:
            yield Span(*small.span(), "PERSON", 0.4)
        if number % 500 == 499:
            yield None
    for spoken in _SPOKEN.find(anchored):
        yield Span(*spoken.span(), "PHONE", 0.8)
    yield None
    for pattern in _EARNS:
        for found in pattern.find(anchored):
            if sum(c.isdigit() for c in found["value"]) >= 3 or found["value"].endswith("k"):
                yield Span(*found.span("value"), "AMOUNT", 0.7)
        yield None
    for found in _CLIENTS.find(anchored):
        if found["value"].casefold() not in _NO_CLIENT:
            yield Span(*found.span("value"), "ORG", 0.5)


def _small_words(anchored: AnchoredText) -> Iterator[re.Match[str]]:
    """What `_SMALL` finds, in a long text only what may be a name."""
    if not anchored.long:
        yield from _SMALL.finditer(anchored.text)
        return
    for start, word in anchored.words:
        if word in _NAMES and (small := _SMALL.match(anchored.text, start)) is not None:
            yield small


def _joined(text: str, joined: re.Match[str]) -> Iterator[Span]:
    """A name in parts joined by `_`, `-` or `.`: where they are a value, not a variable."""
    start, end = joined.span()
    document = _DOCUMENT.search(joined.group())
    stem = end - len(document.group()) if document else end
    quoted = text[start - 1 : start] in ("'", '"', "@") and text[end : end + 1] in (
        "'",
        '"',
        "",
        " ",
    )
    parts = [m for m in _PART.finditer(text, start, stem)]
    words = [m.group().casefold() for m in parts]
    if document and words[0] in _ABOUT:
        at = 0
        while at < len(words):
            first = at
            while at < len(words) and words[at].isalpha() and words[at] not in _NO_PART:
                at += 1
            if 0 < at - first <= 3 and max(map(len, words[first:at])) > 2:
                yield Span(parts[first].start(), parts[at - 1].end(), "USER", 0.6)
            at += at == first
        return
    if not (document or quoted):
        return
    for at, word in enumerate(words):
        after = words[at + 1] if at + 1 < len(words) else ""
        if word not in _NAMES:
            continue
        if len(after) > 2 and after.isalpha() and after not in _NO_PART:
            yield Span(parts[at].start(), parts[at + 1].end(), "USER", 0.6)
        elif document:
            yield Span(*parts[at].span(), "USER", 0.5)
