"""Where the cells of structured text are: fields of JSON, CSV, SQL, XML, YAML, logs and mail headers.

    {"patient": "Maud O.", "qty": 3}     ──▶   "Maud O." under patient, "3" under qty
    INSERT INTO t (a, b) VALUES ('x', 1) ──▶   "x" under a, "1" under b

Nothing is parsed to the end: a form is taken where it shows, also in the middle of prose, cut off or
with faults. Every regular expression has bounded repeats, so a hostile text takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from cosilo.defences.columns import says
from cosilo.defences.detection import Steps, due
from cosilo.defences.lone_rows import is_of_pairs, lone_row, lone_rows, set_in
from cosilo.defences.technical import is_code
from cosilo.defences.words import of


@dataclass(frozen=True, slots=True)
class Cell:
    """Characters `start` to `end` of a text are a value of its own.

    Attributes:
        label: what its column or key is called; empty where nothing says so.
        column: equal for the values of one column.
        names: it is a name of a column or a key, and no value.
    """

    start: int
    end: int
    label: str
    column: str
    names: bool = False


FIELD = "field "
LINE = "line "
"""What the columns of `key: value` lines begin with: their text may go on in the next lines."""

ROW = "row "
"""What the columns of a row that stands by itself begin with."""

_LONGEST = 2_000  # characters of a cell
_STRING = r'"(?P<{0}>(?:[^"\\\n]|\\.){{0,{1}}})"'
_NUMBER = r"-?\d{1,30}(?:\.\d{1,30})?(?:[eE][+-]?\d{1,3})?"
_PAIR = re.compile(
    _STRING.format("key", 200) + r"[ \t]{0,9}:\s{0,9}"
    rf"(?:{_STRING.format('text', 2000)}|(?P<number>{_NUMBER})(?=\s{{0,9}}[,}}\]]))"
)
_QUOTED_PAIR = re.compile(
    r"'(?P<key>[^'\\\n]{1,80})'[ ]{0,3}:[ ]{0,3}(?:'(?P<text>[^'\\\n]{0,2000})'"
    rf"|(?P<number>{_NUMBER})(?=[ ]{{0,3}}[,}}]))"
)
_SCALAR = re.compile(
    rf'"(?P<text>(?:[^"\\\n]|\\.){{0,2000}})"|(?P<number>{_NUMBER})|true|false|null'
)
_LIST = re.compile(r"\[(?=\s{0,99}(?:[\"\d\-]|true|false|null))")
_INSERT = re.compile(
    r"\binsert\s{1,9}into\s{1,9}[\w.\"`\[\]]{1,120}\s{0,9}(?:\((?P<names>[^"
    r"()]{1,4000})\)\s{0,9})?values\s{0,9}",
    re.I,
)
_SQL_VALUE = re.compile(
    r"\s{0,9}(?:N?'(?P<text>(?:[^']|''){0,2000})'|(?P<bare>[^'(),;\s]{1,200}))\s{0,9}"
)
_NEXT_ROW = re.compile(r"\)\s{0,9},\s{0,9}(?=\()")
_SQL_PAIR = re.compile(
    r"(?<![\w.])(?:\w{1,60}\.)?(?P<key>[A-Za-z_]\w{0,60})\s{0,3}(?:=|<>|!=|\b(?:i?like)\b)\s{0,3}'"
    r"(?P<text>(?:[^']|''){1,2000})'",
    re.I,
)
_ELEMENT = re.compile(
    r"<(?P<key>[A-Za-z_][\w:.\-]{0,80})(?:\s[^<>]{0,500})?>(?P<text>[^<>]{1,2000})</(?P=key)>"
)
_ATTRIBUTE = re.compile(
    r"""(?<=\s)(?P<key>[A-Za-z_][\w:.\-]{0,80})=(?P<quote>["'])(?P<text>[^"'<>\n]{1,2000})(?P=quote)(?=[\s/>?])"""
)
_FIELD = re.compile(
    r"""(?<![\w"'<=?&/])(?P<key>[A-Za-z_][\w.\-]{0,60})=(?:"(?P<text>(?:[^"\\\n]|\\.){0,2000})"|'(?P<single>[^'\n]{0,2000})'"""
    r"""|(?P<bare>[^\s"',;&)\]}]{1,500}))"""
)
_LINE = re.compile(
    r"(?m)^(?P<indent>[ \t]{0,40}(?:[-*>][ \t]{1,4})?)(?P<key>[^\W\d_][\w ."
    r"()/&'’°\-]{0,48}?)[ \t]{0,3}:(?:[ \t]{1,9}(?P<text>[^\n]{1,2000}))$"
)
_NUMBER_SET = re.compile(rf"\b(?P<key>[A-Za-z_]\w{{0,60}}) = (?P<number>{_NUMBER})(?![\w.])")
_BRACKETS = re.compile(r"\[([^\[\]\n]{1,300})\]")
_DELIMITERS = ",;\t|"


def cells(text: str) -> Steps[list[Cell]]:
    """The cells of `text`, in order and without overlaps."""
    taken = bytearray(len(text))
    found: list[Cell] = []
    for form, signs in _FORMS:
        if not any(all(sign in text for sign in some) for some in signs):
            continue
        if due():
            yield
        for number, cell in enumerate(form(text)):
            start, end = _trimmed(text, cell.start, cell.end)
            if start < end <= start + _LONGEST and taken.find(1, start, end) < 0:
                found.append(Cell(start, end, cell.label, cell.column, cell.names))
                taken[start:end] = b"\1" * (end - start)
            if number % 200 == 199 and due():
                yield
    found = [part for cell in found for part in _parts(text, cell)]
    found.sort(key=lambda cell: cell.start)
    return found


_Signs = tuple[tuple[str, ...], ...]
"""A text without all of one of these has not the form."""


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _name(found: re.Match[str]) -> Cell:
    start, end = found.span("key")
    return Cell(start, end, found["key"], "", names=True)


def _pairs(text: str) -> Iterator[Cell]:
    """Keys and values of JSON, and of what Python prints for a dict."""
    for pattern in (_PAIR, _QUOTED_PAIR):
        for pair in pattern.finditer(text):
            group = "text" if pair["text"] is not None else "number"
            start, end = pair.span(group)
            yield Cell(start, end, pair["key"], f"key {pair['key']}")
            yield _name(pair)


def _lists(text: str) -> Iterator[Cell]:
    """Lists of texts and numbers: what stands at one place of several lists of one length is a
    column."""
    for opening in _LIST.finditer(text):
        if re.match(r"[\w)\]]", text[opening.start() - 1 : opening.start()]):
            continue  # rows[-1]
        row: list[tuple[int, int]] = []
        at = opening.end()
        while len(row) < 400:
            while at < len(text) and text[at] in " \t\r\n":
                at += 1
            value = _SCALAR.match(text, at)
            if value is None:
                break
            group = "text" if value["text"] is not None else 0
            row.append(value.span(group))
            at = value.end()
            while at < len(text) and text[at] in " \t\r\n":
                at += 1
            if text[at : at + 1] != ",":
                break
            at += 1
        if text[at : at + 1] == "]":
            for place, (start, end) in enumerate(row):
                yield Cell(start, end, "", f"list {len(row)} {place}")


def _inserts(text: str) -> Iterator[Cell]:
    """Values of INSERT, and what WHERE and SET compare or set a column to."""
    for head in _INSERT.finditer(text):
        names = (
            [n.strip(' \t\n"`[]') for n in (head["names"] or "").split(",")]
            if head["names"]
            else []
        )
        at = head.end()
        while text[at : at + 1] == "(":
            at += 1
            place = 0
            while value := _SQL_VALUE.match(text, at):
                group = "text" if value["text"] is not None else "bare"
                start, end = value.span(group)
                label = names[place] if place < len(names) else ""
                yield Cell(start, end, label, f"insert {label or place}")
                place, at = place + 1, value.end()
                if text[at : at + 1] != ",":
                    break
                at += 1
            if text[at : at + 1] != ")":
                break
            after = _NEXT_ROW.match(text, at)
            if after is None:
                break
            at = after.end()
    for pair in _SQL_PAIR.finditer(text):
        start, end = pair.span("text")
        yield Cell(start, end, pair["key"], f"sql {pair['key'].lower()}")


def _elements(text: str) -> Iterator[Cell]:
    if "<" not in text:
        return
    for pattern in (_ELEMENT, _ATTRIBUTE):
        for element in pattern.finditer(text):
            start, end = element.span("text")
            yield Cell(start, end, element["key"], f"tag {element['key']}")
            yield _name(element)


def _fields(text: str) -> Iterator[Cell]:
    """`key=value`, as logs and URLs write it."""
    for field in _FIELD.finditer(text):
        group = next(g for g in ("text", "single", "bare") if field[g] is not None)
        if group == "bare" and _VARIABLE.match(field["bare"]) and _passed(text, field.start()):
            continue  # f(name=value): the name of a variable
        start, end = field.span(group)
        yield Cell(start, end, field["key"], f"{FIELD}{field['key']}")
        yield _name(field)
    for field in _NUMBER_SET.finditer(text):
        start, end = field.span("number")
        yield Cell(start, end, field["key"], f"{FIELD}{field['key']}")


_VARIABLE = re.compile(r"[a-z_][\w.]{0,80}(?:[(\[].{0,400})?$")


def _passed(text: str, at: int) -> bool:
    """Whether what begins at `at` is an argument of a call."""
    before = text[max(at - 200, 0) : at].rstrip()
    return before.endswith(("(", ",", "[", "{", "*", "->", "return"))


def _lines(text: str) -> Iterator[Cell]:
    """`key: value` on a line of its own, where several lines of a block have that form."""
    found = list(_LINE.finditer(text))
    for number, line in enumerate(found):
        beside = [
            other
            for other in (
                found[number - 1] if number else None,
                found[number + 1] if number + 1 < len(found) else None,
            )
            if other is not None and _near(text, line, other)
        ]
        key = line["key"].strip()
        if beside and len(key.split()) <= 5:
            start, end = line.span("text")
            if text[start] == text[end - 1] and text[start] in "\"'" and end - start > 2:
                start, end = start + 1, end - 1
            yield Cell(start, end, key, f"{LINE}{key}")
            yield _name(line)


def _near(text: str, one: re.Match[str], other: re.Match[str]) -> bool:
    first, second = sorted((one, other), key=lambda m: m.start())
    return text.count("\n", first.end(), second.start()) <= 1


def _bracketed(text: str) -> Iterator[Cell]:
    """Fields in brackets, `[a] [b]`, on at least two lines that have as many of them."""
    rows: list[list[tuple[int, int]]] = []
    at = 0
    for line in text.splitlines(keepends=True):
        rows.append([m.span(1) for m in _BRACKETS.finditer(text, at, at + len(line))])
        at += len(line)
    widths = [len(row) for row in rows]
    for row in rows:
        if len(row) >= 3 and widths.count(len(row)) >= 2:
            for place, (start, end) in enumerate(row):
                yield Cell(start, end, "", f"bracket {len(row)} {place}")


# ── tables of delimited lines ────────────────────────────────────────────────────────────────────


Row = list[tuple[int, int]]


def _tables(text: str) -> Iterator[Cell]:
    """CSV and its relatives: lines in a row with as many fields."""
    lines: list[tuple[int, str]] = []
    at = 0
    for line in text.splitlines(keepends=True):
        lines.append((at, line.rstrip("\r\n")))
        at += len(line)
    runs = [_runs(lines, delimiter) for delimiter in _DELIMITERS if delimiter in text]
    number = block = 0
    while number < len(lines):
        possible = [rows for run in runs if (rows := run.get(number)) and _is_table(text, rows)]
        if not possible:
            number += 1
            continue
        rows = max(possible, key=lambda rows: sum(map(len, rows)))
        block += 1
        yield from _table(text, rows, block)
        number += len(rows)


def _runs(lines: Sequence[tuple[int, str]], delimiter: str) -> dict[int, list[Row]]:
    """Line → the rows that begin there and have as many fields; each line is in one run only. A rule
    under the head of a Markdown table is a row without fields."""
    runs: dict[int, list[Row]] = {}
    run: list[Row] = []
    for number, (offset, line) in enumerate(lines):
        row = _row(offset, line, delimiter) if delimiter in line else []
        if run and delimiter == "|" and _RULE.fullmatch(line):
            run.append([])
        elif len(row) > 1 and run and len(row) == len(run[0]):
            run.append(row)
        else:
            run = [row]
            if len(row) > 1:
                runs[number] = run
            else:
                run = []
    return runs


_RULE = re.compile(r"[\s|:+\-]{3,2000}")


def _is_table(text: str, rows: Sequence[Row]) -> bool:
    """Whether lines with as many fields are a table, and not sentences with as many commas."""
    full = [row for row in rows if row]
    width = len(full[0])
    if len(full) < 2:
        return False
    some = [text[a:b] for row in full[:20] for a, b in row]
    words = sum(len(cell.split()) for cell in some)
    if _spaced(text, full) and (
        all(row[-1][0] == row[-1][1] for row in full)
        or (
            len(full) == 2
            and not _is_labelled(text, full[0])
            and not any(_are_numbers(text, column) for column in zip(*full, strict=True))
        )
    ):
        return False  # lines that end in commas, as those of an address, or just have as many
    if words > 6 * len(some) or (_spaced(text, full) and _is_no_table(text, full, some)):
        return False
    if width >= 3:
        last = [text[row[-1][0] : row[-1][1]].rstrip() for row in full[:20]]
        return not all(cell.endswith((".", "!", "?")) for cell in last)
    if len(full) >= 3 and text[full[0][0][1]] in "\t;|":
        return True
    return _is_labelled(text, full[0])


def _is_labelled(text: str, row: Sequence[tuple[int, int]]) -> bool:
    """Whether a row has a cell that is what columns of people are called."""
    some = (text[a:b].strip() for a, b in row)
    return any(says(cell) and not any(c.isdigit() or c == "?" for c in cell) for cell in some)


def _are_numbers(text: str, column: Iterable[tuple[int, int]]) -> bool:
    return all(text[a:b].strip().isdecimal() for a, b in column)


def _spaced(text: str, rows: Sequence[Row]) -> bool:
    """Whether a space follows most commas (or stands around bars), as in prose and in code, and as
    in few tables."""
    marks = [text[a - 1 : a + 1] for row in rows for a, _ in row[1:]]
    spaced = sum(mark in (", ", ",\n", ",", "| ") for mark in marks)
    return 2 * spaced >= len(marks) and text[rows[0][0][0] - 1 : rows[0][0][0]] != "|"


def _is_no_table(text: str, rows: Sequence[Row], cells: Sequence[str]) -> bool:
    """Whether lines of spaced commas are prose, by its small words, or code."""
    words = [word for cell in cells for word in cell.split()]
    small = sum(word in _SMALL for word in words)
    coded = sum(is_code(text[row[0][0] : row[-1][1]]) for row in rows[:20])
    return small >= max(2, 0.12 * len(words)) or 2 * coded >= min(len(rows), 20)


_SMALL = of("""
    a an the of in on at to for from by with and or not but as is are was were be been has have
    had it its this that these those which who when where if then than so will can may must
    und der die das ist mit von et le la les est de un une el los y il che è een het
""")
"""Words between those that say something: many in sentences, few in cells."""


def _row(offset: int, line: str, delimiter: str) -> Row:
    """Where the fields of a line are; quotes are outside of them (RFC 4180)."""
    row: Row = []
    at = 0
    while True:
        if line[at : at + 1] == '"':
            end = at + 1
            while (end := line.find('"', end)) >= 0 and line[end + 1 : end + 2] == '"':
                end += 2
            if end < 0 or (end + 1 < len(line) and line[end + 1] != delimiter):
                return []
            row.append((offset + at + 1, offset + end))
            at = end + 1
        else:
            end = line.find(delimiter, at)
            end = len(line) if end < 0 else end
            row.append((offset + at, offset + end))
            at = end
        if at >= len(line):
            break
        at += 1
    if delimiter == "|":  # Markdown's tables have one before the first and after the last
        if row and row[0][0] == row[0][1]:
            row = row[1:]
        if row and not line[row[-1][0] - offset : row[-1][1] - offset].strip():
            row = row[:-1]
    return row


_LABEL = re.compile(r"[^\W\d](?:[^\W\d]|[ .()#/%\-](?!\d)){0,40}\d{0,3}")


def _table(text: str, rows: list[Row], block: int) -> Iterator[Cell]:
    names: list[str] = []
    first = [text[a:b].strip() for a, b in rows[0]]
    full = [row for row in rows[1:] if row]
    if full and all(_LABEL.fullmatch(name) for name in first) and len(set(first)) == len(first):
        below = [text[a:b] for row in full for a, b in row]
        said = any(any(c.isdigit() for c in cell) for cell in below) or len(full) > 1
        said = said or not rows[1] or any(map(says, first))  # a rule stands under it
        if said and _is_header(first, [[text[a:b].strip() for a, b in row] for row in full]):
            names = first
    if names:
        for (start, end), name in zip(rows[0], names, strict=True):
            yield Cell(start, end, name, "", names=True)
    for row in full if names else [r for r in rows if r]:
        for place, (start, end) in enumerate(row):
            label = names[place] if names else ""
            yield Cell(start, end, label, f"table {block} {place}")


def _is_header(first: list[str], below: list[list[str]]) -> bool:
    """Whether the first row names columns: its words are the kind that names have, and no row below
    repeats one of them in its place."""
    named = sum("_" in name or name.islower() or name.isupper() or name.istitle() for name in first)
    repeats = sum(name in {row[i] for row in below if i < len(row)} for i, name in enumerate(first))
    return named >= len(first) * 0.8 and not repeats


# ── rows by themselves ───────────────────────────────────────────────────────────────────────────


def _lone(text: str) -> Iterator[Cell]:
    for number, places in enumerate(lone_rows(text)):
        for place, (start, end) in enumerate(places):
            yield from _of_row(text, start, end, f"{ROW}{number} {place}")


def _of_row(text: str, start: int, end: int, column: str) -> Iterator[Cell]:
    start, end = _trimmed(text, start, end)
    cell = text[start:end]
    if is_of_pairs(cell):
        return  # `_fields` reads them
    key, at = set_in(cell)
    if key:
        yield Cell(start, start + len(key), key, "", names=True)
        start += at
    yield Cell(start, end, key, column)


def _parts(text: str, cell: Cell) -> Iterator[Cell]:
    """A cell, or those of the row that it holds: `{"line": "7|Sofia Lindqvist|Lund"}`."""
    held = text[cell.start : cell.end]
    if (
        cell.names
        or cell.column.startswith(ROW)
        or "\n" in held
        or "\\" in held
        or says(cell.label)
    ):
        yield cell
        return
    places = lone_row(text, cell.start, cell.end)
    for place, (start, end) in enumerate(places):
        yield from _of_row(text, start, end, f"{ROW}{cell.column} {place}")
    if not places:
        yield cell


_FORMS: tuple[tuple[Callable[[str], Iterator[Cell]], _Signs], ...] = (
    (_inserts, (("'", "("), ("'", "="))),
    (_pairs, (('"', ":"), ("'", ":", "{"))),
    (_lists, (("[", "]", ","),)),
    (_elements, (("<", ">"),)),
    (_tables, tuple(("\n", delimiter) for delimiter in _DELIMITERS)),
    (_lone, tuple((delimiter,) for delimiter in _DELIMITERS)),
    (_fields, (("=",),)),
    (_bracketed, (("[", "]", "\n"),)),
    (_lines, ((":", "\n"),)),
)
"""In the order in which a text is taken for them."""
