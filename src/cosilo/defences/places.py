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
from urllib.parse import quote

from cosilo.defences.destinations import NOWHERE, code_sends_to, is_told_itself
from cosilo.defences.json_text import NUMBER, Scanner, Unit, quoted
from cosilo.defences.links import Links
from cosilo.defences.restoring import (
    PlainTarget,
    Put,
    Restorer,
    Segment,
    SqlTarget,
    fill,
    names_host,
    segments,
)
from cosilo.defences.schemas import Schema, wants_number
from cosilo.defences.targets import CodeTarget

_AHEAD = 4_096  # characters that may decide whether a place is in a URL of the owner's own
_SAFE = "@,"  # beside letters, digits and "-._~"
_QUOTE = re.compile(r'\\{0,300}"$')


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
        called: the tools that the conversation has called, by the names that were sent.
        withheld: how many placeholders of each kind were left in their place.
    """

    places: frozenset[str] = frozenset(DEFAULT)
    known: Callable[[], frozenset[str]] = frozenset
    called: frozenset[str] = frozenset()
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


def with_hosts(restorer: Restorer, text: str, *, json: bool = False) -> str:
    """`text` with the values that say where something goes, and the placeholders of all others."""
    found = [segment for segment in segments(restorer, text) if names_host(segment)]
    if not found:
        return text
    anywhere = Rules(frozenset(get_args(Place)))
    return fill(
        text, found, Places(restorer, json=True, rules=anywhere) if json else PlainTarget()
    )[0]


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
        sent: the hosts, known ones aside, that the call goes to.
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
        sent: frozenset[str] = NOWHERE,
    ) -> None:
        self._restorer = restorer
        self._rules = rules or Rules()
        self._closed = ("tool_arguments" if called else "text") not in self._rules.places
        self._called, self._sent = called, sent
        self._numbers: frozenset[str] | None = None
        self._apart = json or asked
        self._scanner = None if sql else Scanner(always=json, schema=schema)
        self._sql = SqlTarget() if sql else None
        self._target = CodeTarget(argument=called)
        own = restorer.written.urls if "own_urls" in self._rules.places else set()
        self._links = Links(own, self._rules.known, lambda text: with_hosts(restorer, text))

    @property
    def quotes(self) -> bool:
        return self._scanner is not None

    def passed(self, text: str) -> None:
        if not text:
            return
        if self._sql is not None:
            self._sql.passed(text)
        units = self._scanner.feed(text) if self._scanner is not None else [Unit(text, text)]
        said: list[str] = []
        for unit in units:
            if self._apart and unit.border and unit.written == '"':
                self._follow("".join(said))
                said.clear()
                self._links.apart()
                self._target.apart()
            else:
                said.append(unit.read)
        self._follow("".join(said))

    def _follow(self, text: str, shown: str = "") -> None:
        """`text` comes next; in code it is what was `shown` that counts."""
        self._links.passed(text)
        self._target.passed(shown or text)

    def put(self, text: str, start: int, segment: Segment, *, final: bool) -> Put:
        at, end, value, kind = segment
        shown, after = text[at:end], text[end : end + _AHEAD]
        if NUMBER.fullmatch(value) and not self._closed and not self._goes_elsewhere(kind):
            opening = _QUOTE.search(text, start, at)
            begin = opening.start() if opening else at
            self.passed(text[start:begin])
            start, mark = begin, text[begin:at]
            if mark and self._number_due(value, mark):
                if after.startswith(mark):
                    self.passed(mark * 2)
                    return Put(begin, end + len(mark), value)
                if mark.startswith(after) and not final:
                    return Put(begin, begin, None)
        self.passed(text[start:at])
        whole = final or len(after) == _AHEAD
        how = self._how(segment, shown, after, final=whole)
        if how is None:
            return Put(at, at, None)
        if how == "withheld":
            self._rules.withheld[kind] += 1
            self.passed(shown)
            return Put(at, end, shown, restored=False)
        if how == "in a URL":
            value = quote(value, safe=_SAFE)
        elif self._may_be_code:
            written = self._target.written(value, after, final=whole)
            if written is None:
                return Put(at, at, None)
            value = written
        self._follow(segment.value if names_host(segment) else shown, shown)
        return Put(at, end, self._written(value, shown))

    @property
    def _may_be_code(self) -> bool:
        """Whether this place is in a text, or in a string of JSON that is no JSON itself."""
        if self._scanner is None:
            return False
        return (
            self._scanner.string and not self._scanner.nested
            if self._apart
            else not self._scanner.inside
        )

    def _goes_elsewhere(self, kind: str) -> bool:
        return bool(self._sent) and not self._rules.allow("elsewhere", kind)

    def _how(
        self, segment: Segment, shown: str, after: str, *, final: bool
    ) -> Literal["withheld", "as it is", "in a URL"] | None:
        """How the value may stand here; None where that depends on more than `after`."""
        links, kind, value = self._links, segment.kind, segment.value
        if self._closed:
            return "withheld"
        hosts: frozenset[str] | None = NOWHERE
        if not self._rules.allow("elsewhere", kind):
            hosts = self._sent or links.sends_to(shown, after, final=final)
            if hosts is not None and not hosts:
                hosts = self._code_sends_to(shown, after, final=final)
            if hosts is None:
                return None
        if hosts and not (names_host(segment) and is_told_itself(value, hosts)):
            allowed = links.owns(shown, after, hosts, final=final)
        else:
            allowed = links.allows(shown, value, after, final=final)
            known = self._called and kind != "SECRET" and links.is_known
            if allowed is False and (known or self._rules.allow("urls", kind)):
                return "in a URL" if links.inside else "as it is"
        if allowed is None:
            return None
        return "as it is" if allowed else "withheld"

    def _code_sends_to(self, shown: str, after: str, *, final: bool) -> frozenset[str] | None:
        """The hosts to which other lines of the code in a fence send what stands here."""
        around = self._target.around(after, final=final)
        if around is None:
            return None
        before, rest = around
        if not before and not rest:
            return NOWHERE
        told = with_hosts(self._restorer, before), with_hosts(self._restorer, rest)
        return code_sends_to(told[0] + shown, told[1], self._rules.known())

    def _written(self, value: str, shown: str) -> str:
        if self._sql is not None:
            return self._sql.value(value)
        assert self._scanner is not None
        written = self._scanner.escaped(value)
        if self._scanner.value_due and not NUMBER.fullmatch(value):
            written = quoted(value)  # the model forgot the quotes
        self._scanner.value(shown)
        return written

    def _number_due(self, value: str, mark: str) -> bool:
        """Whether a number is due at this place, although the model wrote the placeholder as text."""
        begun = self._scanner and self._scanner.begun_by(mark)
        if not begun:
            return False
        schema, key = begun
        wanted = wants_number(schema)
        return self._was_number(key, value) if wanted is None else wanted

    def _was_number(self, key: str, value: str) -> bool:
        """Whether `value` stood as a number under `key`; where it did not stand there, anywhere."""
        written, place = self._restorer.written, (key, value)
        if place in written.numbers or place in written.texts:
            return place not in written.texts
        if self._numbers is None:
            self._numbers = written.always_numbers()
        return value in self._numbers
