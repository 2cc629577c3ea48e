"""The rest of an address of which a part was found.

36 [Cois Abhann]                                      ──▶   the number before it
[12 Foxhollow Lane], [Whitby] 134 66, [Slovakia]      ──▶   all of it
077, [Bekkefaret] 12; Unit 4; 7374 WO / [Norway]      ──▶   all of it, whatever parts it
[Korenlei] 43\\n[Diksmuide]\\n4521                      ──▶   all lines of the block
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cosilo.defences.addresses import PARTICLE, TOWN, UPPER
from cosilo.defences.detection import Span
from cosilo.defences.words import (
    DAYS,
    MONTHS,
    NOT_NAMES,
    NUMBERED,
    OF_PROGRAMS,
    OF_QUESTIONS,
    ORDINARY,
    of,
)

_KINDS = ("ADDRESS", "PLACE", "PERSON", "ORG", "ID")
_SCORE = 0.4
_ENGLISH = NOT_NAMES | OF_QUESTIONS
_NOT_BEFORE = NOT_NAMES | NUMBERED | ORDINARY | OF_PROGRAMS | {
    word.casefold() for word in (*MONTHS, *DAYS)
}  # fmt: skip

_SEPARATED = (
    r"(?:[ \t]{0,3}(?:[,;·•]|\|\|?|[/\-–—](?=[ \t]))[ \t]{0,3}|[ ]{1,2}|\t)?"
    r"(?:(?:[ \t]{0,3}\r?\n){1,2}[ \t]{0,12})?(?:[,;][ ]{1,2})?"
)
"""What parts two parts of an address, or nothing."""
_ENDS = (
    r"(?=[ ]{0,2}(?:[,;:!?)}|·•\t\r\n]|\.(?!\d)|[/\-–—][ ]|$)"
    rf"|[ ](?:[{UPPER}]|\d|(?:in|and|to|for|at|is|was|from|by|on|or|with|near|this|last|after|before"
    r"|until|if|when|it['’]s)\b))"
)
_CODE = (
    r"(?:(?:[A-Z]{1,3}-)?\d{1,6}(?:[ \-]\d{2,4})?[a-zA-Z]?(?:[ ][A-Z]{2})?"
    r"|[A-Z]{1,2}\d[A-Z\d]?(?:[ ]\d?[A-Z\d]{2,4})?|\d[A-Z]\d|\d[A-Z]{2})"
)
_FLAT = (
    r"(?i:(?:apt|apartment|suite|ste|unit|flat|room|rm|floor|fl|building|bldg|box|p\.?o\.?[ ]?box"
    r"|plot|door"
    r"|bp)\.?"
    r"[ ]?\#?[ ]?\d{0,5}[a-z]?)"
)
_OTHER_FLAT = r"(?:(?:Studio|Level|Lot|Shop|Villa|Block|Shed|Hall)(?:[ ]\d{1,4}[a-zA-Z]?)?)"
"""Of an address before others of its parts; elsewhere it is something else."""
_REGION = r"(?:[A-Z]{2,3}|nan|NAN)"
_RIGHT = re.compile(
    rf"(?=[ \t,;|·•\r\n]){_SEPARATED}(?:{_FLAT}(?<=[\dA-Z])|(?P<code>{_CODE})|{_REGION})(?!\w){_ENDS}"
)
_TOWN_RIGHT = re.compile(
    rf"(?=(?P<apart>[ \t,;|·•\r\n])){_SEPARATED}(?P<town>{TOWN})(?!\w|[ ]?[:=])"
    rf"(?P<end>(?=[ ]{{0,2}}(?:[,;|·•\t\r\n.!?)}}]|[/\-–—][ ]|$)|[ ,]{{1,2}}{_CODE}(?!\w)))?"
)
_NUMBER_BEFORE = re.compile(
    r"(?<![\w.,:$€£%/\-])\d{1,6}[a-zA-Z]?(?:[/\-]\d{0,5}[a-z]?){0,2}(?:,?[ ](?:bis[ ])?|(?<=[/\-]))$"
)
_FLAT_BEFORE = re.compile(
    rf"(?<!\w)(?:{_FLAT}|{_OTHER_FLAT}|(?:H\.?|Plot |Door |Shop )?N[or]\.?)"
    rf"(?:[ ]?[,;/][ ]?|[ ]-[ ]|[ ]|[ ,]{{0,2}}\n[ ]?)$"
)
_HOUSE_BEFORE = re.compile(
    rf"(?<![\w'’])(?:(?:[Tt]he|THE)[ ])?[{UPPER}][\w'’\-]{{1,20}}[ ](?:(?i:cottage|house|farm"
    rf"|farmhouse|lodge|barn|rectory"
    r"|vicarage|mill|villa|manor|mansions?|towers?|flats|residence|apartments|arcade"
    r"|chambers))(?:,[ ]?\n?|[ ]?\n)[ ]?$"
)
_WORD_BEFORE = re.compile(
    rf"(?:(?<=[a-z,:][ ])|(?<=\n)|^)(?P<value>[{UPPER}][\w'’\-]{{0,30}}\.?[ ](?:(?:{PARTICLE}"
    rf"|(?P<small>[a-zà-ž]{{4,12}}))[ ])?|[a-zà-ž]{{2,4}}\.[ ]"
    r"|(?:plac|pl|ulica|ul|aleja|al|os|rue|rua|via|calle|allée|chemin|quai|largo)[ ]"
    r"|C/[ ]?|(?:Avda|Ctra|Pza|Plza|Bvar|Urb|Tv|Av|Calz|Blvd)\.?[ ])$"
)
_BETWEEN = re.compile(
    rf"(?=[ \t,;|·•\r\n]|$){_SEPARATED}(?:(?:{_CODE}|{_REGION}|{_FLAT})(?!\w){_SEPARATED}){{0,3}}"
)
_NUMBER_AFTER = re.compile(
    r"[ ](?P<number>\d{1,5})[a-zA-Z]?(?![\w%°])(?!\.\d)(?=[ ]{0,2}(?:[,;|/\-–)?!\r\n]|\.|$)"
    rf"|[ ](?:{_FLAT}|[{UPPER}]|\d|(?:in|and|to|for|at|is|was|on|from|after|before|until|it['’]s)\b))"
)
_NUMBER_OF_STRANGE = re.compile(
    r"[ ](?P<number>\d{1,4})[a-zA-Z]?[ ](?=(?!\w{1,20}s\b|percent|times|of\b"
    r"|per\b|x\b|[kcm]?[gm]\b|mc?g\b"
    r"|ml\b|am\b|pm\b|min\b|[kmg]?hz\b|[kmgt]b\b)[a-z]{2,20}\b)"
)
_YEAR = re.compile(r"(?:19|20)\d\d")
_STRANGE = 0.36  # the score of a capitalised word that no vocabulary holds, and less

_LINE = re.compile(
    rf"[ ,]{{0,3}}(?:(?:[{UPPER}][\w'’.\-]{{0,40}}|\d[\w/\-]{{0,10}}|\#?\d{{1,5}}|{PARTICLE}"
    r"|(?!(?:in|and|to|for|at|is|was|from|by|on|or|with|near|of|are|the|my|your|our|only|about)\b)"
    rf"[^\W\d_A-Z][^\W\d_]{{1,14}}(?=[ ]\d)|[^\W\d_]{{1,5}}\.|\([{UPPER}][\w ]{{1,30}}\)|&)"
    r"(?:[ ,]{1,3}|$)){1,9}"
)
_LONGEST_LINE = 70
_STREET_LINE = re.compile(
    rf"[ ,]{{0,3}}(?:\d{{1,6}}[a-zA-Z]?,?[ ](?:\d{{1,5}}[a-z]?[ ])?"
    rf"(?:[{UPPER}][\w'’.\-]{{1,40}}[ ,]{{0,2}}){{1,4}}"
    rf"|(?:[{UPPER}][\w'’.\-]{{1,40}}[ ]){{1,4}}\d{{1,5}}[a-z]?[ ,]{{0,2}})"
)
_NO_TOWNS = of(
    "thanks thank regards best kind cheers sincerely yours love dear hello hi hey tel phone fax email"
    " mail mobile web www attn c/o date time subject re note ps greetings warmly respectfully cordially"
)
_SAID = re.compile(r"[ ]{0,3}(?P<word>[a-z]{1,15})[ ]")
_LETTER = re.compile(r"[^\W\d_]")


def whole_addresses(text: str, spans: Sequence[Span]) -> Iterator[Span]:
    """Longer spans for the addresses that `spans` of `text` are parts of."""
    parts = sorted(
        (s for s in spans if s.kind in _KINDS and s.score >= 0.3 and s.start < s.end),
        key=lambda s: s.start,
    )
    if not any(s.kind in ("ADDRESS", "PLACE", "PERSON") for s in parts):
        return
    seeds = list(_numbered(text, parts))
    if seeds:
        yield from seeds
        parts = sorted([*parts, *seeds], key=lambda s: s.start)
    yield from _together(text, parts)
    yield from _lines(text, parts)


def _numbered(text: str, parts: Sequence[Span]) -> Iterator[Span]:
    """Names with a number after them, where a number before, a town behind, or that no vocabulary holds
    the name says that they are a street's.
    """
    towns = {s.start for s in parts if s.kind == "PLACE"}
    ends = {s.end for s in parts}
    for span in parts:
        if span.kind == "ADDRESS" or span.kind == "ID":
            continue
        after = _NUMBER_AFTER.match(text, span.end)
        if after is None and span.kind == "PERSON" and span.score <= _STRANGE:
            after = _NUMBER_OF_STRANGE.match(text, span.end)
        if after is None or text[span.start : span.end].casefold() in _NOT_BEFORE:
            continue
        number = after["number"]
        before = _NUMBER_BEFORE.search(text[max(span.start - 14, 0) : span.start])
        start = span.start - (len(before.group()) if before else 0)
        if before is not None and (begins_line(text, start) or start - 1 in ends):
            before = None  # one of a list, or what is said of the name before
        if before is not None:
            yield Span(start, after.end(), "ADDRESS", _SCORE)
        elif _YEAR.fullmatch(number) or (len(number) < 2 and span.kind != "PERSON"):
            continue
        elif span.kind == "PERSON" and span.score <= _STRANGE:
            yield Span(span.start, after.end(), "ADDRESS", _SCORE)
        else:
            joint = _BETWEEN.match(text, after.end())
            if joint and joint.end() > after.end() and joint.end() in towns:
                yield Span(span.start, after.end(), "ADDRESS", _SCORE)


def _together(text: str, parts: Sequence[Span]) -> Iterator[Span]:
    """Runs of `parts` that only commas and codes stand between, with the numbers beside them."""
    at = 0
    ends = {s.end for s in parts}
    while at < len(parts):
        first = parts[at]
        start, end, sure = first.start, first.end, first.kind == "ADDRESS"
        found = (start, end)
        at += 1
        while at < len(parts):
            part = parts[at]
            if part.start > end:
                if not (sure or part.kind == "ADDRESS"):
                    break
                if _BETWEEN.fullmatch(text, end, part.start) is None:
                    break
            end, sure = max(end, part.end), sure or part.kind == "ADDRESS"
            found = (-1, -1)
            at += 1
        if sure:
            start, end = _grown(text, start, end)
        elif first.kind in ("PLACE", "PERSON") and _HELD.match(text, end):
            before = _NUMBER_BEFORE.search(text[max(start - 14, 0) : start])
            number = start - (len(before.group()) if before else 0)
            if before is not None and not begins_line(text, number) and number - 1 not in ends:
                start, sure = number, True
        if sure and (start, end) != found:
            yield Span(start, end, "ADDRESS", _SCORE)


_HELD = re.compile(r"(?:['’]s)?[ ]?(?:[.,;:!?)\n]|$|[ ](?:in|and|is|was|to|for|at|on|this)\b)")


def begins_line(text: str, at: int) -> bool:
    """Whether what stands at `at` begins a line: a number there is one of a list more often than one
    of a house.
    """
    return not text[text.rfind("\n", 0, at) + 1 : at].strip()


def _grown(text: str, start: int, end: int) -> tuple[int, int]:
    """The place of an address with what belongs to it before and after."""
    coded = False
    for _ in range(6):
        right = _RIGHT.match(text, end)
        if right is None:
            right = _TOWN_RIGHT.match(text, end)
            if right is None or not (right["end"] is not None or coded):
                break
            if right["apart"] == " " and not coded and not _is_apart(text, end):
                break
            first = right["town"].split()[0].strip(".,'’").casefold()
            if first in _NOT_BEFORE or first in _ENGLISH or first in _NO_TOWNS:
                break
        coded = right.lastgroup == "code"
        end = right.end()
    for _ in range(3):
        before = text[max(start - 40, 0) : start]
        number = _NUMBER_BEFORE.search(before) or _FLAT_BEFORE.search(before)
        number = number or _HOUSE_BEFORE.search(before)
        if number is not None:
            start -= len(number.group())
            continue
        word = _WORD_BEFORE.search(before)
        if word is None or word["small"] in _ENGLISH:
            break
        if word["value"].split()[0].strip(".").casefold() in _NOT_BEFORE:
            break
        start -= len(word["value"])
    return start, end


def _is_apart(text: str, at: int) -> bool:
    """Whether more than spaces begin at `at`."""
    return text[at : at + 3].lstrip(" ")[:1] in tuple(",;|/-–—·•\t\r\n")


def _lines(text: str, parts: Sequence[Span]) -> Iterator[Span]:
    """Whole lines of a block that looks like an address and holds parts of one."""
    if "\n" not in text:
        return
    block: list[tuple[int, int]] = []
    at = 0
    for line in (*text.split("\n"), ""):
        end = at + len(line)
        said = line.rstrip()
        if said and len(said) <= _LONGEST_LINE and _LINE.fullmatch(said):
            block.append((at, at + len(said)))
        else:
            yield from _block(text, block, parts)
            block = []
        at = end + 1


def _block(text: str, lines: Sequence[tuple[int, int]], parts: Sequence[Span]) -> Iterator[Span]:
    if not 2 <= len(lines) <= 9:
        return
    start, end = lines[0][0], lines[-1][1]
    inside = [s for s in parts if start <= s.start < end]
    held = [(a, b) for a, b in lines if any(a <= s.start < b for s in inside)]
    if not any(s.kind in ("ADDRESS", "PLACE") for s in inside):
        return
    numbered = [line for line in lines if any(c.isdigit() for c in text[line[0] : line[1]])]
    codes = sum(not _LETTER.search(text, *line) for line in lines)
    if not numbered or 2 * (len(held) + codes) < len(lines):
        return
    for number, (a, b) in enumerate(lines):
        around = any(line in held for line in lines[max(number - 1, 0) : number + 2])
        street = around and _STREET_LINE.fullmatch(text, a, b)
        if (a, b) in held or street or not _LETTER.search(text, a, b):
            said = _SAID.match(text, a, b)  # "is 12 Elm Hill", where the block goes on below
            start = said.end() if said and said["word"] in _ENGLISH else a
            yield Span(start, b, "ADDRESS", _SCORE)
