"""JSON inside of texts: where its strings are, and what they say.

    fyi {"name": "J\\u00fcrgen", "id": 7}    ──▶    fyi {"name": "Jürgen", "id": 7}
                  └ a string                                      └ as it is read

A text is looked through piece by piece, so that a reply can be followed while it arrives. A string may
itself hold JSON, as the body of a request does; it is followed in there.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from cosilo.defences.detection import Span, Steps, due, run
from cosilo.defences.restoring import Written
from cosilo.defences.schemas import Schema, child

_IN_STRING = re.compile(
    r'[^"\\]+|"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\[^u]'
)
_BEGUN = re.compile(
    r"\\(?:u[0-9a-fA-F]{0,3})?|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?"
)
_OUTSIDE = re.compile(r'[ \t\r\n]+|[{}\[\],:"]|[-+.0-9A-Za-z]+|.', re.S)
_WORD = re.compile(r"[-+.0-9A-Za-z]+")
_BARE = re.compile(
    r"-?(?:[0-9][-+.0-9eE]*)?|t(?:r(?:ue?)?)?|f(?:a(?:l(?:se?)?)?)?|n(?:u(?:ll?)?)?"
)  # or the beginning of one
_LIST_OF_NUMBERS = re.compile(
    r"\[[\s\[]{0,40}"
    r"(?:-?\d{4}|(?:-?\d[\d.]{0,40}|true|false|null)\s{0,40},)"
    r"|\[\s{0,40}[\[{][-\d\s.,:\[\]{}]{0,60}[\]}]\s{0,40},"  # or begun by a list without words
)
_DEEPEST = 8
_SLICE = 4_096  # characters that are looked through in one step
_LONGEST_KEY = 200


NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")


class Unit(NamedTuple):
    """A piece of a text: as it is written, as it is read, and whether it is a quote around a string.

    Attributes:
        number: the quote that a string would have in the place of a number that this is (a piece of),
            in JSON inside of strings with what escapes it; empty where it is none.
        key: which key the value that begins with this unit stands under.
    """

    written: str
    read: str
    border: bool = False
    number: str = ""
    key: str = ""


class Scanner:
    """Follows the JSON in a text.

    Args:
        always: the text is JSON. Without, JSON begins where an object or array clearly does, and ends
            with it, or where it turns out to be none.
        schema: what the JSON must look like, where that is known.
    """

    def __init__(self, *, always: bool = False, schema: Schema = None, depth: int = 0) -> None:
        self._always = always
        self._schema = schema
        self._depth = depth
        self._open: list[tuple[str, Schema, str]] = []  # bracket, schema, key
        self._bracket = ""  # one that may begin JSON
        self._string = False
        self._is_key = False
        self._due = "value"  # what comes next in an object: "key", ":" or "value"
        self._number = False  # whether that may be a number
        self._word = ""  # outside of strings, what there is of a number, true, false or null
        self._pending = ""  # an escape that is not complete
        self._held = ""  # what is written for an escape that is not complete in the JSON inside
        self._inner: Scanner | None = None

    @property
    def inside(self) -> bool:
        """Whether the end of the text fed so far is in JSON."""
        return self._always or bool(self._open)

    @property
    def string(self) -> bool:
        """Whether this place is between the quotes of a string."""
        return self._string

    @property
    def nested(self) -> bool:
        """Whether this place is in JSON that stands in a string."""
        return self._string and self._inner is not None and self._inner.inside

    @property
    def value_due(self) -> bool:
        """Whether a value of an object or array may begin here."""
        free = not self._string and not self._word  # "1.5" may be cut after its point
        return self.inside and free and (not self._in_object or self._due == "value")

    @property
    def here(self) -> Schema:
        """The schema of the value at this place."""
        if not self._open:
            return self._schema
        bracket, schema, key = self._open[-1]
        return child(schema, key if bracket == "{" else None)

    @property
    def key(self) -> str:
        """The key that the value at this place stands under; "" where there is none."""
        return self._open[-1][2] if self._open else ""

    def begun_by(self, mark: str) -> tuple[Schema, str] | None:
        """The schema and the key of the value that a string with the quote `mark` would be here; None
        where none would begin.
        """
        if self._string:
            return self._inner.begun_by(mark) if self._inner is not None else None
        if mark != self.quote:
            return None
        if self._bracket == "[":  # a list that is JSON with this quote
            return child(self.here, None), self.key
        return (self.here, self.key) if self.value_due else None

    @property
    def quote(self) -> str:
        """How a quote around a string is written at this depth of JSON in JSON."""
        return "\\" * ((1 << self._depth) - 1) + '"'

    @property
    def unread(self) -> str:
        """What has come of an escape that is not complete."""
        return self._held + self._pending

    def feed(self, text: str) -> list[Unit]:
        """The units of `text`; one that is not complete comes with what completes it."""
        units: list[Unit] = []
        text = self._pending + text
        self._pending = ""
        at = 0
        while at < len(text):
            if self._string:
                if text[at] == "\\" and _BEGUN.fullmatch(text, at):
                    self._pending = text[at:]
                    break
                found = _IN_STRING.match(text, at)
                written = found.group() if found else text[at]  # a backslash that escapes nothing
                at += len(written)
                self._within(written, units)
            elif not self.inside and not self._bracket:
                start = _next_bracket(text, at)
                if start > at:
                    units.append(Unit(text[at:start], text[at:start]))
                if start < len(text):
                    self._bracket = text[start]
                    units.append(Unit(text[start], text[start]))
                at = start + 1
            else:
                found = _OUTSIDE.match(text, at)
                assert found is not None
                at = found.end()
                self._outside(found.group(), units)
        return units

    def value(self, shown: str = "") -> None:
        """Tell the scanner that a restored value was put in at this place, in a string or in place
        of one, for what was `shown`: a key is known to the schema by that.
        """
        if not self._string:
            self._due = ","
        elif self._is_key:
            self._key(shown)

    def escaped(self, value: str) -> str:
        """`value` as it is written at this place in a string; as it is outside of one."""
        if not self._string:
            return value
        if self._inner is not None:
            value = self._inner.escaped(value)
        return quoted(value)[1:-1]

    @property
    def _in_object(self) -> bool:
        return bool(self._open) and self._open[-1][0] == "{"

    def _key(self, text: str) -> None:
        """`text` comes next of the key of a member."""
        bracket, schema, key = self._open[-1]
        self._open[-1] = bracket, schema, (key + text)[:_LONGEST_KEY]

    def _within(self, written: str, units: list[Unit]) -> None:
        if written == '"':
            self._string = False
            self._due = ":" if self._is_key else ","
            self._inner = None
            if self._held:
                units.append(Unit(self._held, self._held))
                self._held = ""
            units.append(Unit(written, written, True))
            return
        read = _read(written)
        if self._is_key:
            self._key(read)
        if self._inner is None and self._depth < _DEEPEST and ("{" in read or "[" in read):
            self._inner = Scanner(depth=self._depth + 1)
        if self._inner is None:
            units.append(Unit(written, read))
            return
        pending = len(self._inner._pending)
        found = self._inner.feed(read)
        if not found:
            self._held += written
        elif written != read:  # one escape, so one unit
            last = found[-1]
            whole = "".join(u.read for u in found)
            units.append(Unit(self._held + written, whole, last.border, "", last.key))
            self._held = ""
        else:
            first = found[0]._replace(written=self._held + found[0].written[pending:])
            units += first, *found[1:]
            self._held = ""
            if self._inner._pending:  # its written text is still to come
                self._held = self._inner._pending

    def _outside(self, token: str, units: list[Unit]) -> None:
        if not token.isspace() and self._bracket:  # is it the beginning of JSON?
            bracket, self._bracket = self._bracket, ""
            if bracket == "{":
                begins = token in '"}'
            else:
                begins = token in '"{[' or _BARE.fullmatch(token) is not None
            if token in "{[" and not begins:
                self._bracket = token
            if not begins:
                units.append(Unit(token, token, token == '"'))
                self._word = ""
                return
            self._push(bracket)
        if token == '"':
            # A key is told from a value by what is due, and stands under none.
            key = self.key if self._due == "value" else ""
            units.append(Unit(token, token, True, "", key))
            self._word = ""
        elif _WORD.fullmatch(token):
            if not self._word:
                self._number = token[0] in "-0123456789" and self.value_due
            if self._number:
                units.append(Unit(token, token, False, self.quote, self.key))
            else:
                units.append(Unit(token, token))
            self._word += token
        else:
            units.append(Unit(token, token))
            self._word = ""
            if token.isspace():
                return
        if token == '"':
            self._string, self._is_key = True, self._in_object and self._due == "key"
            if self._is_key:
                bracket, schema, _ = self._open[-1]
                self._open[-1] = bracket, schema, ""
        elif token in "{[":
            self._push(token)
        elif token in "}]":
            if self._open:
                self._open.pop()
            self._due = ","
        elif token == ",":
            self._due = "key" if self._in_object else "value"
        elif token == ":":
            self._due = "value"
        elif self._always or (self._word and _BARE.fullmatch(self._word)):
            self._due = ","
        else:  # it is none
            self._open.clear()

    def _push(self, bracket: str) -> None:
        schema = self.here
        self._open.append((bracket, schema, self.key if bracket == "[" else ""))
        self._due = "key" if bracket == "{" else "value"


def _read(written: str) -> str:
    """What an escape stands for; other text, and an escape that is none or half a character, itself."""
    if written[0] != "\\":
        return written
    try:
        read = str(json.loads(f'"{written}"'))
    except ValueError:
        return written
    return written if "\ud800" <= read <= "\udfff" else read


def _next_bracket(text: str, at: int) -> int:
    found = [place for place in (text.find("{", at), text.find("[", at)) if place >= 0]
    return min(found, default=len(text))


def quoted(text: str) -> str:
    """`text` as a JSON string. Half a character, which no UTF-8 can hold, stays an escape."""
    written = json.dumps(text, ensure_ascii=False)
    try:
        written.encode()
    except UnicodeEncodeError:
        return json.dumps(text)
    return written


@dataclass(frozen=True)
class JsonReading:
    """A text with what the strings of its JSON say in place of how they are written.

    Attributes:
        text: as it is read.
        starts: for each unit of `text`, where it begins there.
        places: for each unit, where it begins in the text as it is written.
        plain: for each unit, whether it is written as it is read.
        borders: the places in `text` of quotes around strings.
        length: of the text as it is written.
        numbers: what may be numbers of JSON in `text`: where each begins and ends, the quote that a
            string in its place would have, and its key.
        strings: where strings begin and end, with their keys.
    """

    text: str
    starts: tuple[int, ...]
    places: tuple[int, ...]
    plain: tuple[bool, ...]
    borders: tuple[int, ...]
    length: int
    numbers: tuple[tuple[int, int, str, str], ...] = ()
    strings: tuple[tuple[int, int, str], ...] = ()

    def read(self, span: Span) -> Span:
        """A span of the written text in `text`; escapes that it cuts are whole in it."""
        start = self._moved(span.start, self.places, self.starts, end=False)
        return span.at(start, self._moved(span.end, self.places, self.starts, end=True))

    def written(self, span: Span) -> Span:
        """A span of `text` in the text as it is written."""
        start = self._moved(span.start, self.starts, self.places, end=False)
        return span.at(start, self._moved(span.end, self.starts, self.places, end=True))

    def split(self, spans: Iterable[Span]) -> list[Span]:
        """`spans`, in pieces that lie between the quotes, without those that hold no letter."""
        pieces: list[Span] = []
        for span in spans:
            first = bisect_right(self.borders, span.start - 1)
            last = bisect_right(self.borders, span.end - 1)
            if first == last:
                pieces.append(span)
                continue
            cuts = [span.start - 1, *self.borders[first:last], span.end]
            for before, after in pairwise(cuts):
                piece = self._trimmed(before + 1, after)
                if piece is not None:
                    pieces.append(span.at(*piece))
        return pieces

    def fitted(self, spans: Iterable[Span]) -> list[Span]:
        """`spans`, each cut to what is between quotes, or made as long as the number that it is in."""
        fitted: dict[int, Span] = {}
        for span in self.split(spans):
            at = max(0, bisect_right(self.numbers, (span.start, len(self.text), "", "")) - 1)
            whole: list[tuple[int, int]] = []
            while at < len(self.numbers) and self.numbers[at][0] < span.end:
                start, end, *_ = self.numbers[at]
                if end > span.start and _is_number(self.text, start, end):
                    whole.append((start, end))
                at += 1
            for start, end in whole or [(span.start, span.end)]:
                fitted[start] = span.at(start, end)
        return [fitted[start] for start in sorted(fitted)]

    def quote(self, span: Span) -> str:
        """The quote that a placeholder has in the place of `span`: none where that is no number."""
        at = bisect_right(self.numbers, (span.start, len(self.text), "", "")) - 1
        if at < 0 or self.numbers[at][:2] != (span.start, span.end):
            return ""
        return self.numbers[at][2] if _is_number(self.text, span.start, span.end) else ""

    def values(self, holds: Callable[[str], bool]) -> Written:
        """Which of the values that `holds` names stand here as numbers, and which as text."""
        found = Written()
        for start, end, _, key in self.numbers:
            value = self.text[start:end]
            if holds(value) and _is_number(self.text, start, end):
                found.numbers.add((key, value))
        for start, end, key in self.strings:
            if self.text[start] in "-0123456789" and holds(self.text[start:end]):
                found.texts.add((key, self.text[start:end]))
        return found

    def _trimmed(self, start: int, end: int) -> tuple[int, int] | None:
        while start < end and not self.text[start].isalnum():
            start += 1
        while end > start and not self.text[end - 1].isalnum():
            end -= 1
        return (start, end) if start < end else None

    def _moved(self, at: int, come: Sequence[int], go: Sequence[int], *, end: bool) -> int:
        """The place `at`, told in the text whose units begin at `come`, in the one of `go`."""
        unit = bisect_right(come, at - end) - 1
        if unit < 0:
            return 0
        if self.plain[unit]:
            return go[unit] + at - come[unit]
        after = unit + 1
        if not end:
            return go[unit]
        if after < len(go):
            return go[after]
        return len(self.text) if go is self.starts else self.length


def fitted(text: str, spans: Sequence[Span], read: JsonReading | None) -> list[Span]:
    """`spans` of what `text` says; one in a number is as long as the number."""
    if read is not None:
        return read.fitted(spans)
    if spans and NUMBER.fullmatch(text):
        return [spans[0].at(0, len(text))]
    return list(spans)


def reading(text: str) -> JsonReading | None:
    """What `text` says where it holds JSON; None where it holds none."""
    return run(read(text))


def read(text: str) -> Steps[JsonReading | None]:
    """`reading`, in steps."""
    may_hold = '"' in text and ("{" in text or "[" in text)
    if not may_hold and _LIST_OF_NUMBERS.search(text) is None:
        return None
    scanner = Scanner()
    said: list[str] = []
    starts: list[int] = []
    places: list[int] = []
    plain: list[bool] = []
    borders: list[int] = []
    numbers: list[tuple[int, int, str, str]] = []
    begun: dict[int, str] = {}  # where strings begin, and their keys
    there = written = 0
    for at in range(0, len(text) + _SLICE, _SLICE):
        units = scanner.feed(text[at : at + _SLICE])
        if at >= len(text):  # what is left is no whole escape
            rest = scanner.unread
            units.append(Unit(rest, rest))
        for unit in units:
            if unit.border:
                borders.append(there)
                begun[there] = unit.key
            if unit.number:
                start, key = there, unit.key
                if numbers and numbers[-1][1] == there:  # it was cut
                    start, _, _, key = numbers.pop()
                numbers.append((start, there + len(unit.read), unit.number, key))
            same = unit.written == unit.read
            if not (same and plain and plain[-1]):  # such neighbours are one
                starts.append(there)
                places.append(written)
                plain.append(same)
            said.append(unit.read)
            there += len(unit.read)
            written += len(unit.written)
        if due():
            yield
    whole = "".join(said)
    if not borders and not numbers:
        return None
    strings = [
        (start + 1, end, begun[start]) for start, end in pairwise(borders) if start + 1 < end
    ]
    return JsonReading(
        whole,
        tuple(starts),
        tuple(places),
        tuple(plain),
        tuple(borders),
        written,
        tuple(numbers),
        tuple(strings),
    )


_BEFORE_NUMBER = re.compile(r"[\[,:]\s{0,200}$")
_AFTER_NUMBER = re.compile(r"\s{0,200}(?:[,}]|\](?![(\[:]))")


def _is_number(text: str, start: int, end: int) -> bool:
    """Whether a word in the place of a value is a number of JSON, and no label of a Markdown link."""
    return (
        NUMBER.fullmatch(text, start, end) is not None
        and _BEFORE_NUMBER.search(text, max(0, start - 201), start) is not None
        and _AFTER_NUMBER.match(text, end) is not None
    )
