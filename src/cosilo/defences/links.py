"""Whether a place in a text is in a URL: of a link, an image, or written as it is.

A URL can be fetched without anybody's doing (an image, a preview), so what stands in it goes to
whoever owns its host. What counts is what readers of Markdown, HTML and plain text take for one, and in
doubt it is one: a placeholder that stays is seen, a value that has left is not.
"""

from __future__ import annotations

import re

_MOST = 4_096  # characters of a line that are kept; one word of that length is taken for a URL

_BLANKS = " \t\r\n\f\v"
# All end at the place asked about; the last group is the URL so far.
# Renderers of Markdown take a bare URL to go on through quotes and brackets, up to a blank or a '<'.
_BARE = re.compile(
    r"(?i)(?:(?<![a-z0-9+.\-])[a-z][a-z0-9+.\-]+:[/\\]{2}|(?<![\w+.\-])(?:https?|wss?|ftps?):|www\."
    r"|(?<![\w+.\-])(?:mailto|tel|sms|sip|geo|javascript|vbscript|intent|magnet):"
    r"|[\w.+\-]{1,64}@(?:[a-z0-9\-]{1,63}\.)+[a-z]{2,24}:|(?<![^ \t\"'(<])\\\\[\w.\-]+\\)"
    r"[^ \t\r\n\f\v<]*$"
)
_HOST = re.compile(r'(?i)(?<![\w@.\-])(?:[a-z0-9\-]{1,63}\.)+[a-z]{2,24}(?::\d+)?[/?#][^\s<>"`]*$')
_MARKDOWN = re.compile(
    r"\]\(\s*(?:<([^<>]*)|([^ \t\r\n\f\v()<>]*(?:\([^ \t\r\n\f\v()]*\)?[^ \t\r\n\f\v()]*)*))$"
    r"|\]:\s*(?:<([^<>]*)|(//\S*))$"
)
_STYLE = re.compile(r"""(?i)url\(\s*["']?([^)\s]*)$""")
_UNQUOTED = re.compile(r"""([\w:\-]+)\s*=\s*([^\s"'<>]*)$""")
_NAMES = """href src srcset imagesrcset action formaction data poster background cite ping longdesc
manifest xlink:href style content codebase profile icon archive dynsrc lowsrc"""
_ATTRIBUTES = frozenset(_NAMES.split())
_NAMED = re.compile(r"[A-Za-z/!?]")
_TAG = re.compile(r"<(?=[A-Za-z/!?])|[\"'>]")
_URL = re.compile(r"(?i)[a-z][a-z0-9+.\-]*://|www\.")
_ADDRESSED = frozenset(("mailto:", "tel:", "sms:"))
_END = frozenset(" \t\r\n)>]\"'<,;`")
_GOES_ON = re.compile(r"[\w@:%.\-]")
_LABELS = re.compile(r"(?:\.[A-Za-z0-9\-]+)+")
_AT_HOST = re.compile(r"@\w")
_REST = re.compile(r'[^\s<>"`\\]*')
LONGEST_URL = 2_048
_CLOSING = ")].,;:!?'*_"


class Links:
    """Follows a text piece by piece.

    Args:
        own: URLs with placeholders in them that the data owner's own texts hold: what they say, their
            host has been told.
    """

    def __init__(self, own: set[str]) -> None:
        self._own = own
        self._line = ""
        self._cut = False  # whether the line is longer than what is kept of it
        self._tag: str | None = None  # of an HTML tag that is open, what came since its last quote
        self._quote = ""  # the quote that an attribute's value of it is in
        self._value: str | None = None  # that value so far, where it is a URL

    def passed(self, text: str) -> None:
        """`text` comes next."""
        if self._tag is None and self._line.endswith("<") and _NAMED.match(text):
            self._tag = ""  # its '<' came with the piece before
        start = text.rfind("\n") + 1
        if start:
            self._line, self._cut = text[start:], False
        else:
            self._line += text
        if len(self._line) > _MOST:
            self._line, self._cut = self._line[-_MOST:], True
        if self._tag is not None or "<" in text:
            self._html(text)

    def apart(self) -> None:
        """What comes next is another text."""
        self._line, self._cut, self._tag, self._quote, self._value = "", False, None, "", None

    def learn(self, placeholder: str, after: str) -> None:
        """Take the URL that this place and `after` are in, if there is one, for the owner's own."""
        before = self._inside()
        if before is not None:
            whole = before + placeholder + _REST.match(after)[0]  # type: ignore[index]
            self._own.add(_stripped(whole, len(before + placeholder)))

    def allows(self, placeholder: str, value: str, after: str, *, final: bool) -> bool | None:
        """Whether `value` may stand here; None where that depends on more than `after`.

        Args:
            after: what follows `placeholder`; with `final`, all of it.
        """
        before = self._inside()
        if before is None:
            return _outside(value, after, final=final)
        if before.lower() in _ADDRESSED:
            return _ended(after, final=final)
        if before == "" and _URL.match(value):
            return _ended(after, final=final, paths=True)
        return self._is_own(before + placeholder, after, final=final)

    def _is_own(self, begun: str, after: str, *, final: bool) -> bool | None:
        unsure = False
        for url in self._own:
            if not url.startswith(begun):
                continue
            rest = url[len(begun) :]
            if after.startswith(rest):
                following = after[len(rest) : len(rest) + 1]
                if following:
                    if not _GOES_ON.match(following) or _sentence_ends(after[len(rest) :]):
                        return True
                    unsure = unsure or (following in ".:" and len(after) == len(rest) + 1)
                elif final:
                    return True
                else:
                    unsure = True
            elif rest.startswith(after):
                unsure = True
        return None if unsure and not final else False

    def _inside(self) -> str | None:
        """The URL so far that this place is in; None where it is in none."""
        if self._value is not None:
            return self._value
        line = self._line
        if self._cut and not any(c.isspace() for c in line):
            return line
        word = max(line.rfind(blank) for blank in _BLANKS) + 1
        for form, signs in ((_BARE, ":\\wW"), (_HOST, "/?#")):
            found = form.search(line, word) if any(line.find(s, word) >= 0 for s in signs) else None
            if found:
                return found[0]
        for form, begins in ((_MARKDOWN, "]"), (_STYLE, "(")):
            found = form.search(line) if begins in line else None
            if found:
                return str(found[found.lastindex or 0])
        if self._tag is not None:
            found = _UNQUOTED.search(self._tag)
            if found and _takes_url(found[1]):
                return found[2]
        return None

    def _html(self, text: str) -> None:
        """Follow the tags of HTML, and the values of their attributes, through `text`."""
        at = 0
        for found in _TAG.finditer(text):
            mark, before = found.group(), text[at : found.start()]
            if self._tag is None:
                if mark == "<":
                    self._tag, at = "", found.end()
                continue
            if self._quote:
                if mark != self._quote:
                    continue
                self._quote, self._tag, self._value = "", "", None
            elif mark == ">":
                # A tag is read as a whole; with a URL between its attributes it is none.
                between = _URL.search(self._tag + before, 1)
                if between is None:
                    self._line, self._cut = text[max(found.end(), text.rfind("\n") + 1) :], False
                self._tag = None
            elif mark == "<":
                self._tag = ""
            else:
                named = _UNQUOTED.search(self._tag + before)
                self._quote = mark
                self._value = "" if named and not named[2] and _takes_url(named[1]) else None
                self._tag = ""
            at = found.end()
        rest = text[at:]
        if self._value is not None:
            self._value = (self._value + rest)[-_MOST:]
        elif self._tag is not None and not self._quote:
            self._tag = (self._tag + rest)[-_MOST:]


def _takes_url(attribute: str) -> bool:
    return attribute.lower() in _ATTRIBUTES or attribute.lower().startswith("on")


def _stripped(url: str, least: int) -> str:
    """`url` without the signs of the sentence that it stands in, but at least its first `least`."""
    return url[:least] + url[least:].rstrip(_CLOSING)


def _ended(after: str, *, final: bool, paths: bool = False) -> bool | None:
    if not after:
        return True if final else None
    return after[0] in _END or (paths and after[0] in "/?#")


def _sentence_ends(after: str) -> bool:
    return after[:1] in (".", ":") and after[1:2].isspace()


def _outside(value: str, after: str, *, final: bool) -> bool | None:
    """Whether `value` may stand at a place that is in no URL: it must not become the name of a host."""
    if not after:
        return True if final else None
    if _URL.match(value):
        if after[0] not in ".:":
            return not _GOES_ON.match(after)
        return (True if final else None) if len(after) == 1 else _sentence_ends(after)
    if after in (".", "@") and not final:
        return None
    if _AT_HOST.match(after):
        return False
    labels = _LABELS.match(after)
    if labels is None:
        return True
    if after[labels.end() :] in ("", ".") and not final and len(after) < LONGEST_URL:
        return None
    return labels[0].count(".") < 2 and after[labels.end() : labels.end() + 1] != "/"
