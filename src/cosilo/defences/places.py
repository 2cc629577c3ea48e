"""Where a restored value stands in a reply, and how it must be written there.

in text                         as it is
between the quotes of JSON      escaped; a number where a number is due, without the quotes
in a URL, or in a command or a  not at all, unless that place is allowed, or the URL is the owner's own
tool call that goes elsewhere
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from cosilo.defences.json_text import Scanner, Unit, quoted
from cosilo.defences.links import Links
from cosilo.defences.restoring import PlainTarget, Put, Restorer, Segment, SqlTarget
from cosilo.defences.schemas import Schema, wants_number

_AHEAD = 4_096  # characters that may decide whether a place is in a URL of the owner's own
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")


Place = Literal["text", "tool_arguments", "own_urls", "urls", "elsewhere", "secrets"]
"""Where values may come back:

* `text`: what the LM says, outside of what follows here; reasoning and refusals too;
* `tool_arguments`: the arguments of its calls;
* `own_urls`: URLs that the owner's own texts hold exactly so;
* `urls`: URLs, links and attributes of HTML that the LM made;
* `elsewhere`: commands, code and tool calls that name a host which the owner's own words do not;
* `secrets`: credentials in the last two as well, where those are allowed.
"""

DEFAULT: tuple[Place, ...] = ("text", "tool_arguments", "own_urls")


@dataclass
class Rules:
    """Where the values of one request may come back, and which did not.

    Attributes:
        places: where they may.
        known: the hosts that the owner's own words name.
        withheld: how many placeholders of each kind were left in their place.
    """

    places: frozenset[str] = frozenset(DEFAULT)
    known: Callable[[], frozenset[str]] = frozenset
    withheld: Counter[str] = field(default_factory=Counter)

    def allow(self, place: Place, kind: str) -> bool:
        """Whether a value of this kind may stand in `urls` or `elsewhere`."""
        return place in self.places and (kind != "SECRET" or "secrets" in self.places)


def places(named: Sequence[str]) -> frozenset[str]:
    """`named`, which must be places.

    Raises:
        ValueError: one is none.
    """
    for name in [named] if isinstance(named, str) else named:
        if isinstance(named, str) or name not in get_args(Place):
            known = ", ".join(get_args(Place))
            raise ValueError(f"restore_in is a list of places; {name!r} is none (known: {known})")
    return frozenset(named)


class Places(PlainTarget):
    """Follows a reply, and writes each value as its place needs.

    Args:
        restorer: what was issued; it knows which values were numbers, and the owner's own URLs.
        json: the reply is JSON, as the arguments of a call are. Without, it may hold some.
        asked: it should be JSON. Where it is, or should be, each of its strings is a text of its own;
            elsewhere a URL goes on through quotes.
        schema: what that JSON must look like.
        sql: values stand in SQL.
        rules: where they may come back.
        called: this is in a tool call.
        sent: that goes to a host which is not known.
    """

    def __init__(
        self,
        restorer: Restorer,
        *,
        json: bool = False,
        asked: bool = False,
        schema: Schema = None,
        sql: bool = False,
        rules: Rules | None = None,
        called: bool = False,
        sent: bool = False,
    ) -> None:
        self._restorer = restorer
        self._rules = rules or Rules()
        self._closed = ("tool_arguments" if called else "text") not in self._rules.places
        self._sent = sent
        self._apart = json or asked
        self._scanner = None if sql else Scanner(always=json, schema=schema)
        self._sql = SqlTarget() if sql else None
        own = restorer.own_urls if "own_urls" in self._rules.places else set()
        self._links = Links(own, self._rules.known)

    @property
    def quotes(self) -> bool:
        return self._scanner is not None and self._scanner.inside

    def passed(self, text: str) -> None:
        if not text:
            return
        if self._sql is not None:
            self._sql.passed(text)
        units = self._scanner.feed(text) if self._scanner is not None else [Unit(text, text)]
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
        at, end, value, kind = segment
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
        after = text[end : end + _AHEAD]
        allowed = self._allows(shown, segment, after, final=final or len(after) == _AHEAD)
        if allowed is None:
            return Put(at, at, None)
        if not allowed:
            self._rules.withheld[kind] += 1
            self.passed(shown)
            return Put(at, end, shown, restored=False)
        self._links.passed(value if "://" in value else shown)
        return Put(at, end, self._written(value))

    def _allows(self, shown: str, segment: Segment, after: str, *, final: bool) -> bool | None:
        """Whether the value may stand here; None where that depends on more than `after`."""
        if self._closed:
            return False
        if self._sent and not self._rules.allow("elsewhere", segment.kind):
            return self._links.owns(shown, after, final=final)
        if not self._rules.allow("elsewhere", segment.kind):
            sent = self._links.sends(shown, after, final=final)
            if sent is not False:
                return sent and False
        if self._rules.allow("urls", segment.kind):
            return True
        return self._links.allows(shown, segment.value, after, final=final)

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
