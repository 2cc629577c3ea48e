"""Code and technical text: where a detector of names takes words of programs for people and places.

    import numpy as np                 ──▶  code: nothing in it is a name
    name = "Maud Ottokar"  # by Ada L.  ──▶  what its strings and comments say may be
    Open FILE with --max-procs          ──▶  technical prose: a name must look like one

Only guesses are dropped: what has a form of its own (an e-mail address, a key, a number with a check)
counts wherever it stands.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

from cosilo.defences.addresses import PARTICLE
from cosilo.defences.detection import Span
from cosilo.defences.given_names import GIVEN
from cosilo.defences.words import ALSO_NAMES, NOT_NAMES, OF_PROGRAMS, OF_QUESTIONS, ORDINARY, of

_GUESSED = frozenset({"PERSON", "ORG", "PLACE", "ADDRESS", "PLATE"})

_TECHNICAL = OF_PROGRAMS - ORDINARY - OF_QUESTIONS - NOT_NAMES - ALSO_NAMES
"""Words that only technical texts use often: 7 % of a manual page's words, none of most letters'."""

Range = tuple[int, int]

_SURELY = re.compile(
    r"\s{0,200}(?:import [\w.]{1,80}(?: as \w{1,40})?;?\s*$|from [\w.]{1,80} import [\w(*]|"
    r"(?:async )?def \w{1,80}\("
    r"|class \w{1,80}\s?[({:]\S*\s*$|#include\s?[<\"]|SELECT\b[^\n]{1,2000}\bFROM\b|INSERT INTO\b"
    r"|DELETE FROM\b"
    r"|UPDATE\b[^\n]{1,400}\bSET\b|CREATE (?:TABLE|INDEX|VIEW)\b|(?:const|let|var) \w{1,80}\s?=)"
)
_BEGINS = re.compile(
    r"\s{0,200}(?:import [\w.]{1,80}(?:,| as |;?\s*$)|from [\w.]{1,80} import |"
    r"(?:async )?def \w{1,80}\(|class \w{1,80}\s?[(:{]"
    r"|return\b[^.?!]{0,200}$|raise \w{1,80}\(|(?:if|elif|for|while|with|except|switch|catch|else"
    r"|try|finally)\b[^\n]{0,300}[:{]\s*$"
    r"|(?:function|const|let|var|public|private|protected|static|void|func|fn|impl|struct|enum"
    r"|interface|export|namespace"
    r"|typedef|type)\b[^\n]{1,200}[={(;<]|@\w{1,80}(?:[.(]|\s*$)|#include\b|#define\b|//|/\*|\*/"
    r"|>>> |\$ \w|\+\+\+ |--- \S|@@ "
    r"|(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE|ALTER|DROP|FROM|WHERE|(?:LEFT |INNER "
    r"|CROSS |RIGHT )?JOIN|GROUP BY"
    r"|ORDER BY|HAVING|UNION|WITH|LIMIT|VALUES|SET|AND|OR|ON|WHEN|THEN|ELSE|END)\b"
    r"|(?:select\b[^\n]{1,400}\bfrom\b|insert into\b|update\b[^\n]{1,200}\bset\b|delete from\b"
    r"|create table\b))"
)  # fmt: skip
_ENDS = re.compile(r"(?:[{;(\[]|\):|\\|->|=>|\*/)\s*$|^\s*[})\]]{1,4}[,;]?\s*$")
_HOLDS = re.compile(
    r"[=!<>+*/|&]=|:=|=>|->|&&|\|\||::|</|/>|\w\(\)|\w\([\w.\"', =*\[\]]{0,200}\)[.:,;)\]]?"
    r"|\w\[\w{1,60}\]"
    r"|\b\w{1,60}\.\w{1,60}\.\w|\b\w{1,60}_\w{1,60}\b[^\n]{0,200}\b\w{1,60}_\w"
    r"|^\s{0,200}[\w.\[\]\"']{1,80}(?::\s?[\w\[\], .|]{1,80})?\s=\s\S"
)
_QUOTED = re.compile(
    r'"""(?:[^\\]|\\.)*?(?:"""|\Z)|\'\'\'(?:[^\\]|\\.)*?(?:\'\'\'|\Z)|"(?:[^"\\\n]|\\.){0,2000}"'
    r"|\'(?:[^\'\\\n]|\\.){0,2000}\'",
    re.S,
)
_COMMENT = re.compile(r"(?:(?<=\s)|^)(?:#|//|--|;)\s[^\n]*|/\*(?:[^*]|\*(?!/)){0,5000}\*/", re.M)
_PROSE = re.compile(r"[^\W\d_]{2,}(?:[,;:]?[ ][^\W\d_'’]{1,30}){6,}")

_TOKEN = re.compile(r"\S{1,300}")
_CODED = re.compile(
    r"[_(){}\[\]<>=;\\$|&*#%^~`]|::|->|[a-z][A-Z]|[A-Za-z]\.[A-Za-z]|^--?[A-Za-z]|/\w+/|\w/\w"
    r"|^[A-Z]{2,}\d|\d[A-Z]{2,}$|[A-Za-z]\d"
)
_PLAIN = re.compile(
    r"\S{0,200}@\S{1,200}|https?://\S{1,300}|[(\"'\[]?[\w'’\-]{1,60}[)\"'\].,:;!?]{0,3}"
)
_TITLED = re.compile(r"[^\W\d_a-z][^\W\d_A-Z]+(?:[-'’][^\W\d_]+)*\.?|[^\W\d_a-z]\.?")
_PARTICLE = re.compile(PARTICLE, re.I)
_WORD = re.compile(r"[^\W\d_]+")


def plausible(text: str, spans: Iterable[Span]) -> list[Span]:
    """`spans` of `text` without guesses that are words of programs."""
    return Technical(text).plausible(spans)


class Technical:
    """What of `text` is code and what is technical: read once, when it is first asked about."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts: list[int] = []
        self._parts: list[_Paragraph] = []
        self._whole = False
        # A value is asked about as often as it is found.
        self._of_programs: dict[str, bool] = {}
        self._of_both: dict[str, str | None] = {}
        self._written: dict[str, _Written] = {}

    def plausible(self, spans: Iterable[Span]) -> list[Span]:
        """`spans` without guesses that are words of programs."""
        found = list(spans)
        if not any(span.kind in _GUESSED for span in found):
            return found
        if not self._parts:
            self._begin()
        return [s for s in found if s.kind not in _GUESSED or self._is_plausible(s)]

    def _begin(self) -> None:
        at = 0
        for part in re.split(r"(\n[ \t]*\n)", self._text):
            if part.strip() or not self._text.strip():
                self._starts.append(at)
                self._parts.append(_Paragraph(part))
            at += len(part)
        tokens = sum(part.tokens for part in self._parts)
        words = sum(part.technical_words for part in self._parts)
        signs = sum(part.signs for part in self._parts)
        self._whole = words >= max(4, 0.035 * tokens) or signs >= max(4, 0.06 * tokens)

    def _is_plausible(self, span: Span) -> bool:
        at = bisect_right(self._starts, span.start) - 1
        part, begins = self._parts[at], self._starts[at]
        words = self._text[span.start : span.end]
        if words not in self._of_programs:
            self._of_programs[words] = is_of_programs(words)
        if self._of_programs[words] and not (span.kind == "ADDRESS" and _FLAT.fullmatch(words)):
            return False
        if words not in self._of_both:
            self._of_both[words] = _of_both(words)
        if self._of_both[words] is not None and _is_a_tool(self._text, span):
            return False
        if part.is_code_at(span.start - begins):
            return False
        if not (self._whole or part.technical):
            return True
        if self._of_programs[words]:
            return False
        if words not in self._written:
            self._written[words] = _Written.of(words)
        return _like_a_name(self._text, span, self._written[words])


def is_of_programs(words: str) -> bool:
    """Whether all words are of programs and computers, or written as only programs write them."""
    some = words.split()
    if all(_is_identifier(w.strip("()[]{}.,:;!?'\"`")) for w in some) or "://" in words:
        return True
    letters = _WORD.findall(words)
    return bool(letters) and all(
        (w.casefold() in OF_PROGRAMS and w.casefold() not in ALSO_NAMES) or _HUMPS.fullmatch(w)
        for w in letters
    )


_HUMPS = re.compile(
    r"(?!Fitz|Mary|Anna)[A-Z][a-z]{3,}(?:[A-Z][a-z0-9]+)+|[A-Z][a-z]+(?:[A-Z]+[a-z0-9]+){2,}"
    r"|[A-Z][a-z]+(?:[A-Z]+[a-z0-9]+)+[A-Z]{2,5}s?|[A-Z][a-z]{3,}[A-Z]{2,5}s?|[A-Z]{2,6}[a-z]{2,}[A-Z][a-z]+"
)
"""LoadBalancer, AddKeysToAgent, CheckHostIP, CASignature; not McDonald, DeShawn, LaToya."""

_FLAT = re.compile(
    r"(?:apt|unit|suite|flat|floor|room|box|building)\.? ?#?\d{1,6}[a-z]?\.?|(?-i:\d{4} ?[A-Z]{2})",
    re.I,
)
"""A part of an address: in prose, that is."""

_IDENTIFIER = re.compile(
    r"(?=[A-Z\d_]{0,60}[A-Z])[A-Z\d]{1,40}(?:_[A-Z\d]{1,40}){1,8}|[\w.+\-]{1,60}\(\d?[a-z]{0,4}|-\d{1,9}"
    r"|\\[a-z]"
)
"""SCHED_FIFO, printf(3), -1, \\n."""


def _is_identifier(word: str) -> bool:
    if word.isalpha() and word[1:].islower():
        return False  # most words
    return _IDENTIFIER.fullmatch(word) is not None or _HUMPS.fullmatch(word) is not None


def _of_both(words: str) -> str | None:
    """The one word of `words` that is a name of people and of a program, where the others are none of
    people."""
    own = _WORD.findall(words.casefold())
    names = [w for w in own if w not in OF_PROGRAMS or w in ALSO_NAMES]
    return names[0] if len(names) == 1 and names[0] in ALSO_NAMES else None


def _is_a_tool(text: str, span: Span) -> bool:
    """Whether one word that is a name of people and of a program stands for the program here: beside
    another, before what programs have, or after what is done with them, among technical words."""
    name = _of_both(text[span.start : span.end])
    if name is None:
        return False
    own = _WORD.findall(text[span.start : span.end].casefold())
    start = max(text.rfind(mark, 0, span.start) for mark in _STOPS)
    ends = [at for mark in _STOPS if (at := text.find(mark, span.end)) >= 0]
    before = _WORD.findall(text[max(start, span.start - 300, 0) : span.start].casefold())
    before += own[: own.index(name)]
    after = _WORD.findall(text[span.end : min([span.end + 300, *ends])].casefold())
    beside = {next((w for w in words if w not in _BETWEEN), "") for words in (before[::-1], after)}
    if not beside.isdisjoint(_TECHNICAL) or _VERSION.match(text, span.end):
        return True
    if after[:1] and after[0] in _OF_TOOLS:
        return True
    around = (*before, *after)
    sure = not _TECHNICAL.isdisjoint(around) or sum(w in _PERHAPS for w in around) > 1
    used = next((w for w in before[::-1] if w not in _BETWEEN | ALSO_NAMES), "") in _USED
    return sum((sure, not beside.isdisjoint(ALSO_NAMES), used)) > 1


_STOPS = ("\n", ". ", "! ", "? ")

_PERHAPS = OF_PROGRAMS - OF_QUESTIONS - NOT_NAMES - ALSO_NAMES
_BETWEEN = frozenset(
    {"and", "or", "vs", "versus", "nor", "than", "with", "like", "faster", "slower", "better"}
)
_USED = of("in using via into use run install deploy learn")
_VERSION = re.compile(r" v?\d{1,3}(?:\.\d{1,3}){0,3}\b(?! (?:years|old|am|pm))")
_OF_TOOLS = of("""
    api apps build builds chart charts cli cluster clusters code codebase compiler container
    containers dashboards framework interpreter job jobs keyspace kernels lang language library
    module modules notebook notebooks package packages pipeline pipelines plugin plugins program
    programs queues release repo runner script scripts sdk server servers shard site snippet syntax
    template templates version worker workers workflow workflows
""")


class _Written(NamedTuple):
    """How words are written: which of them as names are, whether there are others but particles, and
    whether some hold signs of programs, or are words of programs.
    """

    named: tuple[str, ...]
    others: bool
    coded: bool
    of_programs: bool

    @classmethod
    def of(cls, words: str) -> _Written:
        some = words.split()
        named = tuple(w for w in some if _TITLED.fullmatch(w.strip(",;:()\"'")))
        return cls(
            named,
            any(w not in named and not _PARTICLE.fullmatch(w) for w in some),
            _CODED.search(words.replace("\n", " ")) is not None,
            any(w.casefold().strip(",;:().\"'") in OF_PROGRAMS for w in named),
        )


def _like_a_name(text: str, span: Span, written: _Written) -> bool:
    """Whether a guess in technical prose is written as names are: capitalised words without signs."""
    words = text[span.start : span.end]
    if (
        text[max(span.start - 1, 0) : span.start] in _BEFORE
        or text[span.end : span.end + 1] in _AFTER
    ):
        return False
    if span.kind == "ADDRESS":
        return (
            bool(written.named)
            and any(c.isdigit() for c in words)
            and not any(w.casefold() in OF_PROGRAMS for w in words.split())
        )
    if written.coded or written.others or not written.named or written.of_programs:
        return False
    if span.kind != "PERSON":
        return len(written.named) > 1 or span.score < 0.4
    alone = len(written.named) == 1 and words.casefold() not in GIVEN
    return not (
        alone
        and _STARTS.search(text[max(span.start - 80, 0) : span.start])
        and not _ACTS.match(text, span.end)
    )


_BEFORE = frozenset("_=$@-/.<`")
_AFTER = frozenset("_(=/`")
_STARTS = re.compile(r"(?:^|[.!?:]\s+|\n\s*|[(\[])[\"'“‘]?$")
_ACTS = re.compile(
    r"['’]s\b| (?:and|or) [A-Z]|,? (?:is|was|has|had|will|\w{1,20}ed|wrote"
    r"|told|sent|met|ran|says|said|asks)\b"
)


class _Paragraph:
    """One paragraph.

    Attributes:
        tokens: how many words it has, of any kind; `signs` of them only programs write.
        technical_words: how many of them only technical texts use often.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        counts = Counter(_TOKEN.findall(text))
        self.tokens = counts.total()
        self.signs = sum(n for token, n in counts.items() if _is_sign(token))
        self.technical_words = sum(
            n for t, n in counts.items() if t.strip(",;:().\"'[]").casefold() in _TECHNICAL
        )

    @cached_property
    def _lines(self) -> list[tuple[str, bool]]:
        return [(line, is_code(line)) for line in self._text.split("\n")]

    @property
    def _said(self) -> int:
        return sum(bool(line.strip()) for line, _ in self._lines)

    @cached_property
    def technical(self) -> bool:
        coded = sum(coded for _, coded in self._lines)
        return coded >= max(2, 0.3 * self._said) or self.signs >= max(3, 0.12 * self.tokens)

    @cached_property
    def _code(self) -> list[Range]:
        """What of it is code outside of strings and comments."""
        coded = sum(coded for _, coded in self._lines)
        if not coded:
            return []
        mostly = coded >= 0.5 * self._said
        free = [m.span() for form in (_QUOTED, _COMMENT) for m in form.finditer(self._text)]
        ranges: list[Range] = []
        at = 0
        for line, its_code in self._lines:
            if its_code or (mostly and not _PROSE.search(line)):
                ranges += _without(at, at + len(line), free)
            at += len(line) + 1
        return sorted(ranges)

    def is_code_at(self, place: int) -> bool:
        at = bisect_right(self._code, (place, 1 << 60)) - 1
        return at >= 0 and place < self._code[at][1]


def _is_sign(token: str) -> bool:
    word = token.rstrip(".,:;!?")
    if (
        word.isalpha()
        and (word.islower() or word.istitle())
        and len(token) <= min(60, len(word) + 3)
    ):
        return False
    if _is_identifier(token.strip("()[]{}.,:;!?'\"`")):
        return True
    return (
        token not in _BETWEEN_WORDS
        and _CODED.search(token) is not None
        and not _PLAIN.fullmatch(token)
    )


_BETWEEN_WORDS = of("& * # | || > >> ** -- --- · •")  # also of prose, of lists and of quotes


def is_code(line: str) -> bool:
    """Whether `line` is one of a program."""
    if not line.strip() or len(line) > 2_000:
        return False
    if line[0] in "+-" and line[1:2] not in ("+", "-"):
        line = line[1:]  # of a diff
    if _SURELY.match(line):
        return True
    score = bool(_BEGINS.match(line)) + bool(_ENDS.search(line)) + bool(_HOLDS.search(line))
    if score == 1:
        tokens = line.split()
        return not _PROSE.search(line) and sum(map(_is_sign, tokens)) >= 0.3 * len(tokens)
    return score > 1


def _without(start: int, end: int, free: Sequence[Range]) -> list[Range]:
    """The parts of `start` to `end` that are in none of `free`."""
    parts = []
    at = start
    for a, b in sorted(free):
        if b <= at or a >= end:
            continue
        if a > at:
            parts.append((at, a))
        at = max(at, b)
    if at < end:
        parts.append((at, end))
    return parts
