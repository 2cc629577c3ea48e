"""A text as a reader sees it: what detectors look through beside the text as it is written.

    no-break and thin spaces                          ──▶  spaces
    zero-width, soft-hyphen and direction marks       ──▶  nothing
    hyphens and dashes of any kind                    ──▶  -
    decomposed, full-width and other variant letters  ──▶  the plain ones (NFKC)
    escapes of JSON, HTML and URLs                    ──▶  what they stand for

Whatever is found there is hidden in the text as it is written, from the first character to the last.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from dataclasses import dataclass, replace
from urllib.parse import unquote

from cosilo.defences.detection import Span

_MARKS = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u3099\u309a\ufe20-\ufe2f"
_ESCAPED = (
    r"(?P<json>(?:\\u[0-9a-fA-F]{4})+|\\[\"\\/bfnrt])|(?P<html>&\#?\w{1,31};)"
    r"|(?P<url>(?:%[0-9a-fA-F]{2})+)"
)
_ESCAPE = re.compile(_ESCAPED)
_UNIT = re.compile(rf"{_ESCAPED}|.[{_MARKS}]*", re.S)
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
    """

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def written(self, span: Span) -> Span:
        """`span` of `text` in the text as it is written."""
        return replace(span, start=self.starts[span.start], end=self.ends[span.end - 1])


def plainly(text: str) -> Plain | None:
    """`text` as it is read; None where it is written so already."""
    if not _ESCAPE.search(text) and unicodedata.normalize("NFKC", text).translate(_READ) == text:
        return None
    letters: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for unit in _UNIT.finditer(text):
        for letter in unicodedata.normalize("NFKC", _unescaped(unit)).translate(_READ):
            letters.append(letter)
            starts.append(unit.start())
            ends.append(unit.end())
    read = "".join(letters)
    return Plain(read, tuple(starts), tuple(ends)) if read != text else None


def _unescaped(unit: re.Match[str]) -> str:
    written = unit.group()
    match unit.lastgroup:
        case "json":
            return str(json.loads(f'"{written}"'))
        case "html":
            return html.unescape(written)
        case "url":
            return unquote(written)
    return written
