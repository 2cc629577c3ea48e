"""Where a restored value stands in a reply, and how it must be written there.

in text                         as it is
between the quotes of JSON      escaped; a number where a number is due, without the quotes
in a URL                        not at all, unless that is wanted or the URL is the owner's own
"""

from __future__ import annotations

import re

from cosilo.defences.json_text import Scanner, Unit, quoted
from cosilo.defences.links import Links
from cosilo.defences.restoring import PlainTarget, Put, Restorer, Segment, SqlTarget
from cosilo.defences.schemas import Schema, wants_number

_AHEAD = 4_096  # characters that may decide whether a place is in a URL of the owner's own
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")


class Places(PlainTarget):
    """Follows a reply, and writes each value as its place needs.

    Args:
        restorer: what was issued; it knows which values were numbers, and the owner's own URLs.
        json: the reply is JSON, as the arguments of a call are. Without, it may hold some.
        asked: it should be JSON. Where it is, or should be, each of its strings is a text of its own;
            elsewhere a URL goes on through quotes.
        schema: what that JSON must look like.
        sql: values stand in SQL.
        urls: also restore in URLs.
    """

    def __init__(
        self,
        restorer: Restorer,
        *,
        json: bool = False,
        asked: bool = False,
        schema: Schema = None,
        sql: bool = False,
        urls: bool = False,
    ) -> None:
        self._restorer = restorer
        self._apart = json or asked
        self._scanner = None if sql else Scanner(always=json, schema=schema)
        self._sql = SqlTarget() if sql else None
        self._links = None if urls else Links(restorer.own_urls)

    @property
    def quotes(self) -> bool:
        return self._scanner is not None and self._scanner.inside

    def passed(self, text: str) -> None:
        if not text:
            return
        if self._sql is not None:
            self._sql.passed(text)
        units = self._scanner.feed(text) if self._scanner is not None else [Unit(text, text)]
        if self._links is None:
            return
        said: list[str] = []
        for unit in units:
            if self._apart and unit.border and unit.written == '"':
                self._links.passed("".join(said))
                said.clear()
                self._links.apart()
            else:
                said.append(unit.read)
        self._links.passed("".join(said))

    def put(self, text: str, start: int, segment: Segment, *, final: bool) -> Put:
        at, end, value = segment
        if text[start:at].endswith('"') and _NUMBER.fullmatch(value):
            self.passed(text[start : at - 1])
            start = at - 1
            if self._number_due(value):
                if text[end : end + 1] == '"':
                    self.passed('""')
                    return Put(at - 1, end + 1, value)
                if end == len(text) and not final:
                    return Put(at - 1, at - 1, None)
        self.passed(text[start:at])
        shown = text[at:end]
        if self._links is not None:
            after = text[end : end + _AHEAD]
            whole = final or len(after) == _AHEAD
            allowed = self._links.allows(shown, value, after, final=whole)
            if allowed is None:
                return Put(at, at, None)
            if not allowed:
                self.passed(shown)
                return Put(at, end, shown, restored=False)
            self._links.passed(value if "://" in value else shown)
        return Put(at, end, self._written(value))

    def _written(self, value: str) -> str:
        if self._sql is not None:
            return self._sql.value(value)
        assert self._scanner is not None
        written = self._scanner.escaped(value)
        if self._scanner.value_due and not _NUMBER.fullmatch(value):
            written = quoted(value)  # the model forgot the quotes
        self._scanner.value()
        return written

    def _number_due(self, value: str) -> bool:
        """Whether the schema wants a number at this place, although the model wrote the placeholder
        as text.
        """
        if self._scanner is None or not self._scanner.value_due:
            return False
        wanted = wants_number(self._scanner.here)
        return value in self._restorer.numbers if wanted is None else wanted
