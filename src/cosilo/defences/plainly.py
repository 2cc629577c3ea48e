"""A text as a reader sees it: what detectors look through beside the text as it is written.

    no-break and thin spaces                          ──▶  spaces
    zero-width, soft-hyphen and direction marks       ──▶  nothing
    hyphens and dashes of any kind                    ──▶  -
    decomposed, full-width and other variant letters  ──▶  the plain ones (NFKC)
    escapes of JSON, HTML and URLs                    ──▶  what they stand for
    tags of HTML; **bold**; marks that begin a line   ──▶  nothing, or the end of a line

Whatever is found there is hidden in the text as it is written, from the first character to the last.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from cosilo.defences.detection import Span

_MARKS = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u3099\u309a\ufe20-\ufe2f"
_ESCAPED = (
    r"(?P<json>(?:\\u[0-9a-fA-F]{4})+|\\[\"\\/bfnrt])|(?P<html>&\#?\w{1,31};)"
    r"|(?P<url>(?:%[0-9a-fA-F]{2})+)"
)
_NEXT = "A-ZÀ-ÖØ-ÞĀ-Ž0-9"  # what a name or a number begins with
_ATTRIBUTES = r"(?:\s[^<>]{0,300})?\s?/?>"
_END_OF_LINE = r"(?:</(?i:p|div|li|tr|td|th|h[1-6]|blockquote|address|section)>|<(?i:br)\s?/?>)"
_MARKED = (
    rf"(?P<nothing><(?i:p|div|li|tr|td|th|h[1-6]|blockquote|address|section){_ATTRIBUTES}"
    rf"|</?(?i:b|i|em|strong|span|a|font|u|small|center|label|mark|ul|ol|table|tbody){_ATTRIBUTES}"
    rf"|{_END_OF_LINE}(?=[ \t]{{0,9}}\r?\n)"
    r"|(?m:^)[ \t]{0,3}(?:>[ ]?){1,5}"
    rf"|(?m:^)[ \t]{{0,8}}(?:[*•\-+]|\#{{1,6}})[ ]{{1,3}}(?=[{_NEXT}][^:\n]{{0,300}}(?:\n|$))"
    rf"|(?<![\w*])\*\*(?=[{_NEXT}])|(?<=[\w.,)])\*\*(?![\w*])"
    rf"|(?<![\w])__(?=[{_NEXT}][^_\n]{{1,300}}__(?!\w)))"
    rf"|(?P<line>{_END_OF_LINE})"
)
_ANEW = rf"(?=[\\&%<>*•\-+\#_ \t])(?:{_ESCAPED}|{_MARKED})"  # most signs begin none of them
_READ_ANEW = re.compile(_ANEW)
# What may be read as something else than it is written; the rest is plain ASCII.
_UNIT = re.compile(rf"{_ANEW}|[^\x00-\x7f][{_MARKS}]*|[\x00-\x7f][{_MARKS}]+")
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_AROUND = 500  # characters before and after what is written in another way
_LONG = 4_000  # characters of a paragraph that is not looked through as a whole for it
# Where all characters of these categories are: before U+3100, in the compatibility forms, the tags.
_SOUGHT = (*range(0x3100), *range(0xFE00, 0x10000), *range(0xE0000, 0xE0080))
_READ = {
    code: None if kind == "Cf" else "-"
    for code in _SOUGHT
    if (kind := unicodedata.category(chr(code))) in ("Cf", "Pd")
} | {0x2206: "Δ"}  # an increment, which is written for the letter


@dataclass(frozen=True)
class Plain:
    """A text as a reader sees it, and where each character stood in the text as it was written.

    Attributes:
    text: as it is read.
    starts, ends: for each of its characters, the place of what it was written as.
    changes: where it says something else than what is written, in order.
    """

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    changes: tuple[tuple[int, int], ...]

    def written(self, span: Span) -> Span:
        """`span` of `text` in the text as it is written."""
        return span.at(self.starts[span.start], self.ends[span.end - 1])

    def parts(self) -> Iterator[tuple[int, str]]:
        """(where it begins, what it says) of the parts that are written in another way, each with its
        paragraph; of a very long one with the words around it.
        """
        begin = end = -1
        for start, stop in self.changes:
            first, last = self._around(start, stop)
            if first > end:
                if end >= 0:
                    yield begin, self.text[begin:end]
                begin = first
            end = max(end, last)
        if end >= 0:
            yield begin, self.text[begin:end]

    def _around(self, start: int, stop: int) -> tuple[int, int]:
        text = self.text
        breaks = [m.end() for m in _PARAGRAPH.finditer(text, max(start - _LONG, 0), start)]
        after = _PARAGRAPH.search(text, stop, stop + _LONG)
        first = breaks[-1] if breaks else 0
        last = after.start() if after else len(text)
        if last - first > _LONG:
            first, last = max(first, start - _AROUND), min(last, stop + _AROUND)
            while first > 0 and first < start and not text[first - 1].isspace():
                first += 1
            while last < len(text) and last > stop and not text[last].isspace():
                last -= 1
        return first, last


def plainly(text: str) -> Plain | None:
    """`text` as it is read; None where it is written so already."""
    if text.isascii() and not _READ_ANEW.search(text):
        return None
    letters: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    changes: list[tuple[int, int]] = []
    at = 0
    for unit in _UNIT.finditer(text):
        start, end = unit.span()
        said = unicodedata.normalize("NFKC", _unescaped(unit)).translate(_READ)
        if said == unit.group():
            continue
        letters += text[at:start], said
        starts += range(at, start)
        ends += range(at + 1, start + 1)
        changes.append((len(starts), len(starts) + len(said)))
        starts += [start] * len(said)
        ends += [end] * len(said)
        at = end
    if not changes:
        return None
    letters.append(text[at:])
    starts += range(at, len(text))
    ends += range(at + 1, len(text) + 1)
    return Plain("".join(letters), tuple(starts), tuple(ends), tuple(changes))


def _unescaped(unit: re.Match[str]) -> str:
    written = unit.group()
    match unit.lastgroup:
        case "nothing":
            return ""
        case "line":
            return "\n"
        case "json":
            return str(json.loads(f'"{written}"'))
        case "html":
            return html.unescape(written)
        case "url":
            return unquote(written)
    return written
