"""The rest of an address of which a part was found.

36 [Cois Abhann]                                      ──▶   the number before it
[12 Foxhollow Lane], [Whitby] 134 66, [Slovakia]      ──▶   all of it
[Korenlei] 43\\n[Diksmuide]\\n4521                      ──▶   all lines of the block
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cosilo.defences.addresses import PARTICLE, UPPER
from cosilo.defences.detection import Span
from cosilo.defences.words import (
    DAYS,
    MONTHS,
    NOT_NAMES,
    NUMBERED,
    OF_PROGRAMS,
    OF_QUESTIONS,
    ORDINARY,
)

_KINDS = ("ADDRESS", "PLACE", "PERSON", "ORG", "ID")
_SCORE = 0.4
_ENGLISH = NOT_NAMES | OF_QUESTIONS
_NOT_BEFORE = NOT_NAMES | NUMBERED | ORDINARY | OF_PROGRAMS | {
    word.casefold() for word in (*MONTHS, *DAYS)
}  # fmt: skip

_ENDS = (
    r"(?=[ ]?(?:[,;:!?)\n]|\.(?!\d)|$)"
    rf"|[ ](?:[{UPPER}]|(?:in|and|to|for|at|is|was|from|by|on|or|with|near|this|last)\b))"
)
_CODE = (
    r"(?:(?:[A-Z]{1,3}-)?\d{1,6}(?:[ \-]\d{2,4})?[a-zA-Z]?(?:[ ][A-Z]{2})?"
    r"|[A-Z]{1,2}\d[A-Z\d]?(?:[ ]\d?[A-Z\d]{2,4})?|\d[A-Z]\d|\d[A-Z]{2})"
)
_RIGHT = re.compile(rf"[ ]?,?[ \n]{{1,2}}{_CODE}(?!\w){_ENDS}")
_NUMBER_BEFORE = re.compile(
    r"(?<![\w.,:$€£%/\-])\d{1,6}[a-zA-Z]?(?:[/\-]\d{0,5}[a-z]?){0,2}(?:,?[ ](?:bis[ ])?|(?<=[/\-]))$"
)
_WORD_BEFORE = re.compile(
    rf"(?:(?<=[a-z,:][ ])|(?<=\n)|^)(?P<value>[{UPPER}][\w'’\-]{{0,30}}\.?[ ](?:(?:{PARTICLE}"
    rf"|(?P<small>[a-zà-ž]{{4,12}}))[ ])?|[a-zà-ž]{{2,4}}\.[ ])$"
)
_BETWEEN = re.compile(rf"[ ,\n]{{0,4}}(?:{_CODE}[ ,\n]{{0,4}})?")

_LINE = re.compile(
    rf"[ ,]{{0,3}}(?:(?:[{UPPER}][\w'’.\-]{{0,40}}|\d[\w/\-]{{0,10}}|\#?\d{{1,5}}|{PARTICLE}"
    rf"|[^\W\d_A-Z][^\W\d_]{{1,14}}(?=[ ]\d)|[^\W\d_]{{1,5}}\.|\([{UPPER}][\w ]{{1,30}}\)|&)"
    r"(?:[ ,]{1,3}|$)){1,9}"
)
_LONGEST_LINE = 70
_LETTER = re.compile(r"[^\W\d_]")


def whole_addresses(text: str, spans: Sequence[Span]) -> Iterator[Span]:
    """Longer spans for the addresses that `spans` of `text` are parts of."""
    parts = sorted(
        (s for s in spans if s.kind in _KINDS and s.score >= 0.3 and s.start < s.end),
        key=lambda s: s.start,
    )
    if not any(s.kind in ("ADDRESS", "PLACE", "PERSON") for s in parts):
        return
    yield from _together(text, parts)
    yield from _lines(text, parts)


def _together(text: str, parts: Sequence[Span]) -> Iterator[Span]:
    """Runs of `parts` that only commas and codes stand between, with the numbers beside them."""
    at = 0
    while at < len(parts):
        first = parts[at]
        start, end, sure = first.start, first.end, first.kind == "ADDRESS"
        found = (start, end)
        at += 1
        while at < len(parts):
            part = parts[at]
            if part.start > end:
                joint = _BETWEEN.fullmatch(text, end, part.start)
                if joint is None or not (sure or part.kind == "ADDRESS"):
                    break
            end, sure = max(end, part.end), sure or part.kind == "ADDRESS"
            found = (-1, -1)
            at += 1
        if sure:
            start, end = _grown(text, start, end)
        elif first.kind in ("PLACE", "PERSON") and _HELD.match(text, end):
            before = _NUMBER_BEFORE.search(text[max(start - 14, 0) : start])
            if before is not None and not _starts_a_list(text, start - len(before.group())):
                start -= len(before.group())
                sure = True
        if sure and (start, end) != found:
            yield Span(start, end, "ADDRESS", _SCORE)


_HELD = re.compile(r"(?:['’]s)?[ ]?(?:[.,;:!?)\n]|$|[ ](?:in|and|is|was|to|for|at|on|this)\b)")


def _starts_a_list(text: str, at: int) -> bool:
    """Whether a number at `at` begins a line: one of a list more often than one of a house."""
    return not text[:at].rpartition("\n")[2].strip()


def _grown(text: str, start: int, end: int) -> tuple[int, int]:
    """The place of an address with what belongs to it before and after."""
    for _ in range(2):
        right = _RIGHT.match(text, end)
        if right is None:
            break
        end = right.end()
    for _ in range(2):
        before = text[max(start - 40, 0) : start]
        number = _NUMBER_BEFORE.search(before)
        if number is not None:
            return start - len(number.group()), end
        word = _WORD_BEFORE.search(before)
        if word is None or word["small"] in _ENGLISH:
            break
        if word["value"].split()[0].strip(".").casefold() in _NOT_BEFORE:
            break
        start -= len(word["value"])
    return start, end


def _lines(text: str, parts: Sequence[Span]) -> Iterator[Span]:
    """Whole lines of a block that looks like an address and holds parts of one."""
    if "\n" not in text:
        return
    block: list[tuple[int, int]] = []
    at = 0
    for line in (*text.split("\n"), ""):
        end = at + len(line)
        if line.strip() and len(line) <= _LONGEST_LINE and _LINE.fullmatch(line):
            block.append((at, end))
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
    if not numbered or 2 * len(held) < len(lines):
        return
    for a, b in lines:
        if (a, b) in held or not _LETTER.search(text, a, b):
            yield Span(a, b, "ADDRESS", _SCORE)
