"""How a value is written in code that a reply holds, so that the code says the value and stays whole.

```sql   … WHERE name = 'O''Neil'        ```xml   <name>Ann &amp; Co</name>
```csv   7,"12 High Street, London"      ```yaml  name: "Roe: the elder"

What language it is says the fence, and for an argument of a tool call how it begins. Elsewhere, and
in JSON, which is followed letter by letter (`json_text`), nothing is done here; nor is a value changed
that is written so already, since it was found in such code.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable

_MOST = 8_192  # characters of code that are looked at; in longer code values stand as they are
_SIGNS = re.compile(r"[^\w @.+/=()%-]")
_FENCE = re.compile(r"[ \t>]{0,20}(`{3,}|~{3,})[ \t]{0,5}([\w+\-]{0,20})")
_SQL = re.compile(
    r"(?is)\s{0,99}(?:select\s.{1,4000}?\sfrom\s|insert\s+into\s|update\s+[\w.\"`\[\]]{1,99}\s+set\s"
    r"|delete\s+from\s|with\s+[\w\"]{1,99}\s+as\s*\()"
)
_XML = re.compile(r"(?i)\s{0,99}<(?:\?xml\b|!doctype\b|[a-z][\w:.\-]{0,60}[\s>/])")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|\w{2,31});")
_IN_TAG = re.compile(r"<[A-Za-z][^<>]*$")
_FIELD = re.compile(r"(?:^|[,\n])$")
_SCALAR = re.compile(r"(?:^|\n)[ \t]*(?:- +)*(?:[^\s'\"#\-][^\n'\"#]*: +|- +)$")


class CodeTarget:
    """Follows a text piece by piece.

    Args:
        argument: it is (in) an argument of a tool call, and may be code as a whole.
    """

    def __init__(self, *, argument: bool = False) -> None:
        self._argument = argument
        self.apart()

    def apart(self) -> None:
        """What comes next is another text."""
        self._whole = ""
        self._line = ""
        self._fence = ""  # the signs that opened the fence which is open
        self._language = ""
        self._code = ""

    def passed(self, text: str) -> None:
        """`text` comes next."""
        if self._argument and len(self._whole) <= _MOST:
            self._whole += text
        at = 0
        while (end := text.find("\n", at)) >= 0:
            self._line += text[at : end + 1]
            self._ended()
            at = end + 1
        self._line = (self._line + text[at:])[: _MOST + 1]

    def written(self, value: str, after: str, *, final: bool) -> str | None:
        """`value` as it is written here; None where that depends on more than `after`."""
        if not _SIGNS.search(value):
            return value
        language, code = self._here(after.partition('"')[0])
        write = _WRITERS.get(language)
        if write is None or len(code) > _MOST:
            return value
        if not after and not final:
            return None
        return write(value, code, after)

    def around(self, after: str, *, final: bool) -> tuple[str, str] | None:
        """The code in a fence that is open, before this place and in `after`; two empty texts where
        none is open, None where it goes on after `after`.
        """
        if not self._fence:
            return "", ""
        end = re.search(rf"(?m)^[ \t>]{{0,20}}{re.escape(self._fence)}", after)
        if end is None and not final:
            return None
        return self._code + self._line, after[: end.start()] if end else after

    def _here(self, after: str) -> tuple[str, str]:
        """The language of this place, and its code so far."""
        if self._fence:
            return self._language, self._code + self._line
        if self._argument and _SQL.match(f"{self._whole} {after}"):
            return "sql", self._whole
        if self._argument and _XML.match(self._whole):
            return "xml", self._whole
        return "", ""

    def _ended(self) -> None:
        """A line has come whole."""
        line, self._line = self._line, ""
        found = _FENCE.match(line)
        if self._fence:
            if found and found[1].startswith(self._fence) and not found[2]:
                self._fence = ""
            elif len(self._code) <= _MOST:
                self._code += line
        elif found:
            self._fence, self._language, self._code = found[1], found[2].lower(), ""


def _open_quote(code: str, marks: str, escape: str = "") -> str:
    """The quote that is open at the end of `code`; empty where none is."""
    quote, skip = "", False
    for char in code:
        if skip:
            skip = False
        elif char == escape and quote != "'":
            skip = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in marks:
            quote = char
    return quote


def _doubled(value: str, quote: str) -> str:
    if not quote or quote not in value.replace(quote * 2, ""):
        return value  # none, or doubled already
    return value.replace(quote, quote * 2)


def _sql(value: str, code: str, after: str) -> str:
    return _doubled(value, _open_quote(code, "'\"`"))


def _xml(value: str, code: str, after: str) -> str:
    if _ENTITY.search(value):
        return value
    escaped = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    tag = _IN_TAG.search(code)
    if tag is None:
        return escaped
    return {'"': escaped.replace('"', "&quot;"), "'": escaped.replace("'", "&apos;")}.get(
        _open_quote(tag[0], "'\""), escaped
    )


def _csv(value: str, code: str, after: str) -> str:
    if _open_quote(code, '"'):
        return _doubled(value, '"')
    whole = _FIELD.search(code) and after[:1] in ("", ",", "\n", "\r")
    if whole and any(sign in value for sign in ',"\n\r'):
        return '"' + value.replace('"', '""') + '"'
    return value


def _yaml(value: str, code: str, after: str) -> str:
    line = code.rpartition("\n")[2]
    quote = _open_quote(line, "'\"", "\\")
    if quote == '"':
        return json.dumps(value, ensure_ascii=False)[1:-1]
    if quote == "'":
        return _doubled(value, "'")
    whole = _SCALAR.search(code) and after[:1] in ("", "\n", "\r")
    plain = not re.search(r"^[\s\-?:,\[\]{}#&*!|>'\"%@`]|: |:$| #|\n|\s$", value)
    return json.dumps(value, ensure_ascii=False) if whole and not plain else value


def _shell(value: str, code: str, after: str) -> str:
    quote = _open_quote(code, "'\"", "\\")
    if quote == "'":
        return value.replace("'", "'\\''")
    if quote == '"':
        return re.sub(r'([$`"\\])', r"\\\1", value)
    word = (not code or code[-1] in " \t\n=") and after[:1] in ("", " ", "\t", "\n")
    return shlex.quote(value) if word else value


_WRITERS: dict[str, Callable[[str, str, str], str]] = {
    "sql": _sql, "sqlite": _sql, "postgresql": _sql, "postgres": _sql, "mysql": _sql,
    "xml": _xml, "html": _xml, "svg": _xml, "xhtml": _xml, "rss": _xml,
    "csv": _csv, "yaml": _yaml, "yml": _yaml,
    "sh": _shell, "bash": _shell, "shell": _shell, "zsh": _shell,
}  # fmt: skip
