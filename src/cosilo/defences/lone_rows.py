"""A row of cells that stands by itself: without a header, among no other rows, or in prose.

    7|Sofia Lindqvist|Lund              ──▶   "7", "Sofia Lindqvist", "Lund"
    7;"Lindqvist, Sofia";Lund           ──▶   "7", "Lindqvist, Sofia", "Lund"
    cat x | grep Town | sort            ──▶   no row: a pipeline
    type Shape = Circle | Square        ──▶   no row: code

Two rows of one width show by each other that they are a table (`layout.py`); one alone shows it by what
its cells are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cosilo.defences.addresses import PARTICLE, UPPER
from cosilo.defences.by_lists import is_full_name
from cosilo.defences.technical import is_code

Range = tuple[int, int]

_MARKS = re.compile(r"[|;,\t](?:(?<=\|)|(?=\S))")
"""What may part two cells: a bar; a tab, a semicolon, a comma without a space behind it."""

_LONGEST = 1_000  # characters of a line
_MOST_WORDS = 12  # of a cell between two others
_ENTITY = re.compile(r"&#?\w{1,10};")
_THOUSANDS = re.compile(r"(?<![\d,])\d{1,3}(?:,\d{3}){1,5}(?![\d,])")
_DATA = re.compile(
    r"[#$€£+\-]?\d[\d.,:/ ()\-]{0,30}|\d{4}-\d\d-\d\d[T ][\d:.,+Z]{4,30}|[A-Z]{1,5}[\-_ ]?\d{2,12}"
    r"|[\w.+\-]{1,60}@[\w.\-]{1,60}"
)
_NAMED = re.compile(
    rf"[{UPPER}][^\W\d_A-Z]{{1,30}}(?:,?[ ](?:{PARTICLE}[ ]){{0,2}}[{UPPER}][\w'’.\-]{{0,30}}){{1,3}}"
)
_CAPITAL = re.compile(rf"[{UPPER}][^\W\d_A-Z]{{2,30}}")
_PAIR = re.compile(
    r"(?P<key>[A-Za-z_][\w.\-]{0,40}(?: [\w.\-]{1,20}){0,2})(?: ?= ?|: )(?P<text>\S[^\n]{0,400})"
)
_ENDED = re.compile(r'[ ]?"(?P<cell>[^"]{1,400})" ')
_SAID = re.compile(r"[^\W_]")
_SET = re.compile(r"\w=")
_OPERATORS = re.compile(r"(?:^|\s)\|\|(?:\s|$)|\|[=>&]")
_CLOSES = {")": "(", "]": "[", "}": "{"}
_LITERAL = re.compile(
    r"""(?<!\w)(?:"(?P<double>[^"\n]{3,400})"|'(?P<single>[^'\n]{3,400})'|`(?P<tick>[^`\n]{3,400})`)(?!\w)"""
)
_QUOTED = re.compile(r'[ ]{0,9}"(?P<cell>(?:[^"\n]|"")*)"[ ]{0,9}(?=[|;,\t]|$)')


def lone_rows(text: str) -> Iterator[list[Range]]:
    """The cells of each line of `text` that is a row, or of what stands between quotes in it."""
    end = -1
    for mark in _MARKS.finditer(text):
        if mark.start() < end:
            continue
        start = text.rfind("\n", 0, mark.start()) + 1
        end = text.find("\n", mark.start())
        end = len(text) if end < 0 else end
        if end - start <= _LONGEST:
            yield from _in_line(text, start, end)


def _in_line(text: str, start: int, end: int) -> Iterator[list[Range]]:
    quoted = False
    held = text[start:end]
    for literal in _LITERAL.finditer(text, start, end) if any(q in held for q in "\"'`") else ():
        inside = literal.span(literal.lastgroup or 0)
        if _MARKS.search(text, *inside) and (found := lone_row(text, *inside)):
            quoted = True
            yield found
    if not quoted and (found := lone_row(text, start, end)):
        yield found


def lone_row(text: str, start: int, end: int) -> list[Range]:
    """The cells of the line `text[start:end]`; none where it is no row."""
    line = text[start:end]
    for delimiter in "|\t;,":
        if delimiter in line:
            cells = [(a, b) for a, b in _split(line, delimiter) if _SAID.search(line, a, b)]
            if len(cells) > 1:
                cells[0] = _begun(line, *cells[0])
                cells[-1] = _ended(line, *cells[-1])
                if _is_row(line, cells, delimiter):
                    return [(start + a, start + b) for a, b in cells]
    return []


def set_in(cell: str) -> tuple[str, int]:
    """The key of a cell that is `key=value` or `key: value`, and where its value begins."""
    found = _PAIR.fullmatch(cell)
    if found is None or len(_SET.findall(cell)) > 1:
        return "", 0
    return found["key"], found.start("text")


def is_of_pairs(cell: str) -> bool:
    """Whether a cell is more than one `key=value`."""
    return len(_SET.findall(cell)) > 1


def _split(line: str, delimiter: str) -> Iterator[Range]:
    """What stands between the delimiters of a line that are no part of a number, of an entity of HTML,
    or of a quoted cell (without its quotes).
    """
    apart = {";": _ENTITY, ",": _THOUSANDS}.get(delimiter)
    held = [m.span() for m in apart.finditer(line)] if apart else []
    at = 0
    while at <= len(line):
        quoted = _QUOTED.match(line, at)
        if quoted is not None and (quoted.end() == len(line) or line[quoted.end()] == delimiter):
            yield quoted.span("cell")
            at = quoted.end() + 1
            continue
        end = line.find(delimiter, at)
        while end >= 0 and (
            (delimiter in ";," and line[end + 1 : end + 2].isspace())
            or any(a <= end < b for a, b in held)
        ):
            end = line.find(delimiter, end + 1)
        end = len(line) if end < 0 else end
        if at < end:
            yield at, end
        at = end + 1


def _begun(line: str, start: int, end: int) -> Range:
    """The first cell without what is said before it: `the row is: 7|…`, `import: "7"|…`."""
    if _PAIR.fullmatch(line, start, end) and line[end - 1] != '"':
        return start, end
    said = max(line.rfind(sign, start, end) for sign in (": ", "> ", "= "))
    if said >= 0 and _SAID.search(line, said + 2, end):
        start = said + 2
    opened = line.find('"', start, end - 1)
    return (opened + 1, end - 1) if opened >= 0 and line[end - 1] == '"' else (start, end)


def _ended(line: str, start: int, end: int) -> Range:
    """The last cell without what is said after it, where it is quoted: `…|"7" is the last`."""
    quoted = _ENDED.match(line, start, end)
    return quoted.span("cell") if quoted else (start, end)


def _is_row(line: str, places: list[Range], delimiter: str) -> bool:
    many = len(places) > 2
    if delimiter == "," and not many:
        return False
    cells = [line[a:b].strip() for a, b in places]
    if any(len(c.split()) > _MOST_WORDS for c in cells[1:-1]):
        return False
    bare = line.strip()
    drawn = delimiter == "|" and bare[0] == bare[-1] == "|"  # as Markdown does
    data = any(map(_DATA.fullmatch, cells))
    named = any(_NAMED.fullmatch(cell) or is_full_name(cell) for cell in cells)
    if named:
        likely = many or delimiter != ","
    elif delimiter == ",":
        likely = data and any(map(_CAPITAL.fullmatch, cells))
    else:
        likely = many and (data or delimiter == "\t")
    if not (likely or drawn or sum(_PAIR.fullmatch(cell) is not None for cell in cells) > 1):
        return False
    if not all(map(_is_balanced, cells)) or (delimiter == "|" and _OPERATORS.search(line)):
        return False
    return drawn or (named and data) or not is_code(line)


def _is_balanced(cell: str) -> bool:
    """Whether each bracket of a cell is opened and closed in it: where one is not, the delimiter stands
    in an expression.
    """
    opened: list[str] = []
    for sign in cell:
        if sign in "([{":
            opened.append(sign)
        elif sign in ")]}" and (not opened or opened.pop() != _CLOSES[sign]):
            return False
    return not opened
