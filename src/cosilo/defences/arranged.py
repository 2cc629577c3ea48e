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
from cosilo.defences.columns import PUBLIC, says
from cosilo.defences.credentials import can_be_secret
from cosilo.defences.detection import Span, Steps, due
from cosilo.defences.layout import FIELD, LINE, Cell, cells
from cosilo.defences.names import is_said
from cosilo.defences.technical import Technical, is_of_programs

Look = Callable[[str], Steps[list[Span]]]

_SURE = frozenset({"EMAIL", "IBAN", "CARD", "SSN", "SECRET", "WALLET", "BIRTH"})
"""Kinds with a form of their own: they count under any label."""

_OWN = _SURE | {"USER"}
"""Kinds that a public label does not speak for: a name stands in the name of a file, too."""

_AT_ONCE = 15_000  # characters of cells that are looked through together
_SHORT = 60  # characters of a cell that its column's name, or its neighbours, can speak for
_FEW = 5  # cells; in fewer a column shows no habits
_WORDS = 3  # of a status, a size, a category; a longer value is a sentence, whatever its label
_BY_FORM = 0.95  # as sure as the form or the place of a credential makes it
_FOUND = 0.45  # less is a guess by what a word is not
_LABELLED = 0.95  # as sure as a label makes it

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
        look: finds private values in another text of ours, made of the cells.
    """
    here = yield from cells(text)
    technical = Technical(text)
    found = technical.plausible(found)
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
    for name, numbers in columns.items():
        kept += _column(text, here, numbers, verdicts[name], inside)
        if due():
            yield
    return kept


def _is_label(text: str) -> bool:
    """Whether a key is what programs and tables call things, rather than somebody's name."""
    if says(text):
        return True
    return " " not in text and not (text.istitle() and text.isalpha())


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
        if len(values) > 1:
            continue
        goes_on = all(cell.column.startswith(LINE) for cell in values)  # as an address on its lines
        at = span.start
        for number in touched:
            cell = here[number]
            start, end = max(span.start, cell.start), min(span.end, cell.end)
            inside[number].append(span.at(start, end))
            if goes_on and any(c.isalnum() for c in text[at:start]):
                outside.append(span.at(at, start))
            at = end
        if not touched or (goes_on and any(c.isalnum() for c in text[at : span.end])):
            outside.append(span.at(at, span.end))
    return outside, inside


def _read_alone(
    text: str,
    here: Sequence[Cell],
    numbers: Sequence[int],
    look: Look,
    inside: dict[int, list[Span]],
) -> Steps[None]:
    """Look through the cells `numbers`, each on a line of its own; what is found goes into `inside`."""
    lines: list[str] = []
    places: list[
        tuple[int, int]
    ] = []  # where the cell begins in the text made of them, and its number
    at = 0

    def read() -> Steps[None]:
        made = "\n".join(lines)
        begins = [place for place, _ in places]
        for span in (yield from look(made)):
            index = bisect_right(begins, span.start) - 1
            if index < 0:
                continue
            begin, number = places[index]
            cell = here[number]
            end = begin + cell.end - cell.start
            if span.end <= end:
                offset = cell.start - begin
                inside[number].append(
                    Span(span.start + offset, span.end + offset, span.kind, span.score)
                )

    for number in numbers:
        cell = here[number]
        value = text[cell.start : cell.end].replace("\n", " ")
        label = re.sub(r"[\W_]+", " ", cell.label).strip()
        line = f"{label}: {value}" if label and not label[-1].isdigit() else value
        if at + len(line) > _AT_ONCE:
            yield from read()
            lines, places, at = [], [], 0
        places.append((at + len(line) - len(value), number))
        lines.append(line)
        at += len(line) + 1
    if lines:
        yield from read()


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


def _is_whole(text: str, cell: Cell, span: Span) -> bool:
    """Whether a cell is nothing but the name that was found in it; a setting or a line of text may be
    a word of programs."""
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
    return max(years) - min(years) >= 12 and max(years) <= 2015 and min(years) >= 1900
