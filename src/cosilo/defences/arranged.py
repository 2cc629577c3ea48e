"""Private values of structured text: its cells are read one by one, and a column is judged as one.

    found in the text as it looks  ─▶ what lies in one cell ─────────────────────────────┐
    what a column is called        ─▶ private, or nobody's secret ───────────────────────┼─▶ spans
    each cell on a line of its own ─▶ looked through again ─▶ what most of a column are ─┘

A detector that takes a row for a sentence finds an address that runs over three cells. Such a find
does not count; each of the cells is read by itself, under its label, and that does.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cosilo.defences.addresses import PARTICLE, UPPER
from cosilo.defences.by_lists import is_everyday, is_full_name
from cosilo.defences.columns import PUBLIC, says
from cosilo.defences.credentials import can_be_secret
from cosilo.defences.detection import Span, Steps, due
from cosilo.defences.layout import FIELD, LINE, ROW, Cell, cells
from cosilo.defences.names import is_said
from cosilo.defences.technical import Technical, is_of_programs
from cosilo.defences.words import of

Look = Callable[[Sequence[str]], Steps[list[list[Span]]]]

_SURE = frozenset({"EMAIL", "IBAN", "CARD", "SSN", "SECRET", "WALLET", "BIRTH"})
"""Kinds with a form of their own: they count under any label."""

_OWN = _SURE | {"USER"}
"""Kinds that a public label does not speak for: a name stands in the name of a file, too."""

_OF_WORDS = frozenset({"PERSON", "ORG", "PLACE", "ADDRESS"})
"""Kinds of which what is found is words in a row, with or without a number."""

_NAMES = frozenset({"PERSON", "ORG"})

_AT_ONCE = 15_000  # characters of cells that are looked through together
_SHORT = 60  # characters of a cell that its column's name, or its neighbours, can speak for
_FEW = 5  # cells; in fewer a column shows no habits
_WORDS = 3  # of a status, a size, a category; a longer value is a sentence, whatever its label
_BY_FORM = 0.95  # as sure as the form or the place of a credential makes it
_BY_WORDS = 0.6  # as sure as a street's words make it
_FOUND = 0.45  # less is a guess by what a word is not
_LISTED = 0.9  # as sure as a list of names makes it
_APART = 12  # years between the oldest and the youngest of a column of people
_LABELLED = 0.95  # as sure as a label makes it

_MAY_BE = re.compile(r"[^\W\d_]|(?:\d[ .,:\-()/]{0,3}){6}")
"""What a value has at least of which a form tells that it is private."""
_DATE = re.compile(
    r"(?:(?P<y1>\d{4})[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?P<y2>\d{4}))"
)
_NUMBER = re.compile(r"-?\d{1,12}(?:[.,]\d{1,6})?")
_PIN = re.compile(r"\d{4,19}")
_CODE = re.compile(
    r"(?=[^\d]{0,20}\d)(?=[^A-Za-z]{0,20}[A-Za-z])[A-Za-z\d]{1,20}(?:[ \-/][A-Za-z\d]{1,20}){0,4}"
)
_DIGEST = re.compile(r"[0-9a-f]{16}|[0-9a-f]{40}|[0-9a-f]{64}|sha\d{1,3}[:\-].{20,100}")
_HANDLE = re.compile(r"[a-z][a-z._\-]{1,30}\d{0,4}")
_FULL_NAME = re.compile(
    rf"[{UPPER}][\w'’.\-]{{0,30}}(?:[ ](?:{PARTICLE}[ ]){{0,2}}[{UPPER}][\w'’."
    rf"\-]{{1,30}}){{1,3}}"
)
_NAME = re.compile(
    rf"[{UPPER}][\w'’.\-]{{1,30}}(?:[ ,]{{1,2}}(?:{PARTICLE}[ ]){{0,2}}[{UPPER}][\w'’.\-]{{0,30}})"
    rf"{{0,3}}"
)


def arranged(text: str, found: Sequence[Span], look: Look) -> Steps[list[Span]]:
    """What is private in `text`, given what was `found` in it as it looks.

    Args:
        look: finds private values in other texts of ours, made of the cells.
    """
    here = yield from cells(text)
    technical = Technical(text)
    found = technical.plausible(_parted(text, found))
    if not here:
        return found
    kept, inside = _by_cell(text, here, found)
    columns: dict[str, list[int]] = defaultdict(list)
    for number, cell in enumerate(here):
        if cell.names:
            own = inside.pop(number, [])
            kept += [s for s in own if s.kind in _SURE or not _is_label(cell.label)]
        else:
            columns[cell.column].append(number)
    verdicts = {name: says(here[numbers[0]].label) for name, numbers in columns.items()}
    unsaid = [n for n, cell in enumerate(here) if not cell.names and not verdicts[cell.column]]
    yield from _read_alone(text, here, unsaid, look, inside)
    for number in unsaid:
        if number in inside:
            spans = inside[number]
            likely = set(technical.plausible(spans))
            inside[number] = [s for s in spans if s in likely or _is_whole(text, here[number], s)]
            if here[number].column.startswith(ROW):
                inside[number] = [s for s in inside[number] if not _is_nobody(text, s)]
    _of_people(text, here, inside)
    for name, numbers in columns.items():
        kept += _column(text, here, numbers, verdicts[name], inside)
        if due():
            yield
    return kept


_PARTS = re.compile(r"&#?\w{1,10};|(?P<mark>[|\t]|;(?=\S))")


def _parted(text: str, spans: Sequence[Span]) -> list[Span]:
    """`spans`, with those of names that run over a bar or a tab apart: neither stands in a name, so on
    its two sides are two values.
    """
    if not any(mark in text for mark in "|\t;"):
        return list(spans)
    parted: list[Span] = []
    for span in spans:
        at = span.start
        for mark in _PARTS.finditer(text, at, span.end) if span.kind in _OF_WORDS else ():
            if mark["mark"]:
                parted.append(span.at(at, mark.start()))
                at = mark.end()
        if at == span.start:
            parted.append(span)
            continue
        parted.append(span.at(at, span.end))
    letters = str.isalpha, str.isalnum  # of a person, and of an address
    return [s for s in parted if any(map(letters[s.kind not in _NAMES], text[s.start : s.end]))]


def _is_label(text: str) -> bool:
    """Whether a key is what programs and tables call things, rather than somebody's name."""
    if says(text) or text.casefold() in _PLACES:
        return True
    return " " not in text and not (text.istitle() and text.isalpha())


_PLACES = of("""
    city town village country county province region state district ort stadt wohnort land kreis ville
    pays commune région país provincia città paese comune stad gemeente cidade miasto kraj
""")
"""Names of columns of places, which are none."""


def _by_cell(
    text: str, here: Sequence[Cell], found: Iterable[Span]
) -> tuple[list[Span], dict[int, list[Span]]]:
    """What of the spans lies in no cell, and what in each cell. One that runs over several values is
    none: it took what the form parts for one thing.
    """
    starts = [cell.start for cell in here]
    outside: list[Span] = []
    inside: dict[int, list[Span]] = defaultdict(list)
    for span in found:
        first = max(bisect_right(starts, span.start) - 1, 0)
        last = bisect_right(starts, span.end - 1)
        touched = [n for n in range(first, last) if here[n].end > span.start]
        values = [here[n] for n in touched if not here[n].names]
        if span.kind == "SECRET" and span.score >= _BY_FORM:
            outside.append(span)  # it may hold what looks like a field: "…key=0a1b…"
            continue
        if len(values) > 1 and not all(cell.column.startswith(ROW) for cell in values):
            continue
        alone = any(cell.column.startswith(ROW) for cell in values)
        goes_on = all(
            cell.column.startswith((LINE, ROW)) for cell in values
        )  # as an address on lines
        at = span.start
        for number in touched:
            cell = here[number]
            start, end = max(span.start, cell.start), min(span.end, cell.end)
            if not (alone and _is_small(text, span, start, end)):
                inside[number].append(span.at(start, end))
            if goes_on and any(c.isalnum() for c in text[at:start]):
                outside.append(span.at(at, start))
            at = end
        if not touched or (goes_on and any(c.isalnum() for c in text[at : span.end])):
            outside.append(span.at(at, span.end))
    return outside, inside


def _is_small(text: str, span: Span, start: int, end: int) -> bool:
    """Whether a part of what was taken for a name is no more than a number of up to three digits."""
    part = text[start:end].strip()
    return (
        (start, end) != (span.start, span.end)
        and span.kind in _OF_WORDS
        and len(part) < 4
        and part.isdecimal()
    )


def _read_alone(
    text: str,
    here: Sequence[Cell],
    numbers: Sequence[int],
    look: Look,
    inside: dict[int, list[Span]],
) -> Steps[None]:
    """Look through the cells `numbers`; what is found goes into `inside`. Those of a row that stands by
    itself are texts of their own; others a line each, as many of a column read quicker.
    """
    some: list[_Made] = []
    size = 0
    lines = _Made()
    for number in numbers:
        cell = here[number]
        value = text[cell.start : cell.end].replace("\n", " ")
        label = re.sub(r"[\W_]+", " ", cell.label).strip()
        line = f"{label}: {value}" if label and not label[-1].isdigit() else value
        if cell.column.startswith(ROW):
            if not _MAY_BE.search(value):
                continue
            some.append(_Made())
            some[-1].add(line, len(value), number)
        else:
            if not lines.lines:
                some.append(lines)
            lines.add(line, len(value), number)
        size += len(line) + 1
        if size > _AT_ONCE:
            yield from _look_at(some, here, look, inside)
            some, size, lines = [], 0, _Made()
    yield from _look_at(some, here, look, inside)


def _of_people(text: str, here: Sequence[Cell], inside: dict[int, list[Span]]) -> None:
    """Add the full names that fill a cell of a row by itself, and the days of birth beside a person."""
    by_row: dict[str, list[int]] = defaultdict(list)
    for number, cell in enumerate(here):
        if cell.column.startswith(ROW) and not cell.names:
            by_row[cell.column.rpartition(" ")[0]].append(number)
    for numbers in by_row.values():
        people = False
        for number in numbers:
            cell = here[number]
            value = text[cell.start : cell.end]
            if is_full_name(value) and not is_of_programs(value):
                inside[number].append(Span(cell.start, cell.end, "PERSON", _LISTED))
            people = people or any(_is_full_name(text, s) for s in inside.get(number, ()))
        for number in numbers if people else ():
            cell = here[number]
            date = _DATE.match(text, cell.start, cell.end)
            if date is None or text[date.end() : date.end() + 1].isalnum():
                continue
            if _was_born(int(date["y1"] or date["y2"])):
                inside[number].append(Span(*date.span(), "BIRTH", _LISTED))


class _Made:
    """A text made of cells: where each begins in it, and its number."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.places: list[tuple[int, int]] = []
        self._size = 0

    def add(self, line: str, letters: int, number: int) -> None:
        """A line that ends with the `letters` of cell `number`."""
        self.places.append((self._size + len(line) - letters, number))
        self.lines.append(line)
        self._size += len(line) + 1


def _look_at(
    some: Sequence[_Made], here: Sequence[Cell], look: Look, inside: dict[int, list[Span]]
) -> Steps[None]:
    if not some:
        return
    found = yield from look(["\n".join(made.lines) for made in some])
    for made, spans in zip(some, found, strict=True):
        begins = [place for place, _ in made.places]
        for span in spans:
            index = bisect_right(begins, span.start) - 1
            if index < 0:
                continue
            begin, number = made.places[index]
            cell = here[number]
            if span.end <= begin + cell.end - cell.start:
                offset = cell.start - begin
                inside[number].append(span.at(span.start + offset, span.end + offset))


@dataclass(frozen=True)
class _Values:
    """A column's values, and what was found in them."""

    texts: list[str]
    covered: list[str]  # for each the kind that covers most of it; empty where none does

    @property
    def distinct(self) -> float:
        return len(set(self.texts)) / len(self.texts)

    @property
    def people(self) -> int:
        """How many were found to be a person by two capitalised words or more."""
        found = zip(self.texts, self.covered, strict=True)
        return sum(kind == "PERSON" and _FULL_NAME.fullmatch(t) is not None for t, kind in found)

    def share(self, pattern: re.Pattern[str]) -> float:
        return sum(pattern.fullmatch(text) is not None for text in self.texts) / len(self.texts)


def _column(
    text: str,
    here: Sequence[Cell],
    numbers: Sequence[int],
    verdict: str,
    inside: dict[int, list[Span]],
) -> list[Span]:
    """What is private in the cells `numbers` of one column."""
    found: list[Span] = []
    kind = verdict
    people = True  # whether what looks like a full name is one, among values of nobody
    if not verdict and len(numbers) >= _FEW:
        values = _Values(
            [text[here[n].start : here[n].end] for n in numbers],
            [_covering(text, here[n], inside.get(n, ())) for n in numbers],
        )
        kind = _habit(values)
        people = 2 * values.people >= len(numbers)
    for number in numbers:
        cell, spans = here[number], inside.get(number, [])
        value = text[cell.start : cell.end]
        short = len(value) <= _SHORT
        if kind == PUBLIC and short and len(value.split()) <= _WORDS:
            found += [s for s in spans if s.kind in _OWN or (people and _is_full_name(text, s))]
        elif kind and kind != PUBLIC and _can_be(kind, value):
            found.append(Span(cell.start, cell.end, kind, _LABELLED))
            found += spans if not short else ()
        else:
            found += spans
    return found


def _is_nobody(text: str, span: Span) -> bool:
    """Whether a name was guessed where everyday words stand alone, as a colour or a status does, or a
    number or a time.
    """
    words = text[span.start : span.end]
    letters = sum(map(str.isalpha, words))
    if span.kind == "ADDRESS":
        return words.isdecimal() and len(words) < 4
    return span.kind in _OF_WORDS and (4 * letters < len(words) or is_everyday(words))


def _is_whole(text: str, cell: Cell, span: Span) -> bool:
    """Whether a cell is nothing but the name that was found in it; a setting or a line of text may be
    a word of programs."""
    if span.kind == "ADDRESS" and cell.column.startswith(ROW):
        return span.score >= _BY_WORDS and (span.start, span.end) == (cell.start, cell.end)
    return (
        span.score > 0.7
        and not cell.column.startswith((LINE, FIELD))
        and (span.start, span.end) == (cell.start, cell.end)
        and _NAME.fullmatch(text, span.start, span.end) is not None
        and not is_of_programs(text[span.start : span.end])
    )


def _is_full_name(text: str, span: Span) -> bool:
    """Whether a person was found, and not only guessed, by two capitalised words or more, which few
    words for things are."""
    found = span.kind == "PERSON" and span.score >= _FOUND
    return found and _FULL_NAME.fullmatch(text, span.start, span.end) is not None


def _covering(text: str, cell: Cell, spans: Sequence[Span]) -> str:
    letters = sum(c.isalnum() for c in text[cell.start : cell.end])
    for span in sorted(spans, key=lambda s: s.start - s.end):
        if sum(c.isalnum() for c in text[span.start : span.end]) * 10 >= letters * 6:
            return span.kind
    return ""


def _can_be(kind: str, value: str) -> bool:
    """Whether a value under a private label can be one: not an empty one, a yes or no, or a word where
    a number stands."""
    folded = value.strip().casefold()
    if not any(c.isalnum() for c in folded) or folded in _NOTHING:
        return False
    if kind in _NUMBERED:
        return any(c.isdigit() for c in folded) and not _MEASURE.fullmatch(folded)
    if kind == "SECRET":
        return can_be_secret(value) and not _MEASURE.fullmatch(folded)
    if kind in ("PERSON", "USER") and (
        is_of_programs(value) or _CODED.search(value) or is_said(value)
    ):
        return False  # --owner=NAME, name = "total{code=200}", customer: when will it come
    return kind != "EMAIL" or "@" in folded


_MEASURE = re.compile(
    r"-?\d{1,9}[.,]\d{1,9}(?: \(.{1,60}\))?|-?\d{1,9}(?:[.,]\d{1,9})? ?(?:%|[kmgt]i?b|[mµn]?s)"
)
"""A decimal, a share, a size, a time: nobody's number."""
_CODED = re.compile(r"[{}<>=\[\]|]|\w\(")
_NUMBERED = frozenset({"PHONE", "BIRTH", "SSN", "CARD", "IBAN", "IP", "MAC", "ID", "PLATE"})
_NOTHING = frozenset(
    (
        *("null", "none", "nil", "n/a", "na", "nan", "true", "false", "yes", "no", "unknown"),
        *("undefined", "ja", "nein", "oui", "non", "si", "string", "number", "str", "int", "bool"),
        *("text", "varchar", "integer", "float", "bytes"),
    )
)


def _habit(values: _Values) -> str:
    """What the values of a column without a telling name are: a kind of private value, `PUBLIC`, or
    nothing that they have in common."""
    n = len(values.texts)
    kinds = Counter(kind for kind in values.covered if kind)
    years = _years(values.texts)
    if years:
        return "BIRTH" if _lifetimes(years) else PUBLIC
    if values.share(_NUMBER) >= 0.9 and not (values.share(_PIN) >= 0.9 and values.distinct >= 0.9):
        return PUBLIC  # counts, prices, codes of a status
    few = values.distinct <= 0.6
    if not few and kinds.total() >= 0.5 * n:
        return kinds.most_common(1)[0][0]
    if few:
        return "" if set(kinds) & _SURE else PUBLIC
    if values.share(_NAME) >= 0.9:
        return "PERSON"  # capitalised words, nearly each another one
    if values.distinct < 0.9:
        return ""
    if values.share(_DIGEST) >= 0.9:
        return ""
    if values.share(_PIN) >= 0.9 or values.share(_CODE) >= 0.9:
        return "ID"
    numbered = sum(text[-1].isdigit() for text in values.texts)
    return "USER" if values.share(_HANDLE) >= 0.9 and numbered >= 0.5 * n else ""


def _years(texts: Sequence[str]) -> list[int]:
    """The years of a column of dates; empty where it holds anything else."""
    years = []
    for text in texts:
        date = _DATE.fullmatch(text)
        if date is None:
            return []
        years.append(int(date["y1"] or date["y2"]))
    return years


def _lifetimes(years: Sequence[int]) -> bool:
    """Whether these are years in which people were born: far apart, and none of the last ones."""
    return max(years) - min(years) >= _APART and _was_born(max(years)) and _was_born(min(years))


def _was_born(year: int) -> bool:
    return 1900 <= year <= 2015
