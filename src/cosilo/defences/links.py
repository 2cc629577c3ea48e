"""Whether a place in a text is in a URL: of a link, an image, or written as it is.

A URL can be fetched without anybody's doing (an image, a preview), so what stands in it goes to
whoever owns its host. What counts is what readers of Markdown, HTML and plain text take for one, and in
doubt it is one: a placeholder that stays is seen, a value that has left is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cosilo.defences.destinations import (
    NOWHERE,
    SOMEWHERE,
    is_known,
    is_told_itself,
    may_send,
    page_sends_to,
    sends_to,
)

_MOST = 4_096  # characters of a line that are kept; one word of that length is taken for a URL

_PIECE = 1_024
_BLANKS = " \t\r\n\f\v"
# All end at the place asked about; the last group is the URL so far.
# Renderers of Markdown take a bare URL to go on through quotes and brackets, up to a blank or a '<'.
_COLON = r"(?::|%(?:25)*3a|&colon;|&#(?:58|x3a);?)"
_SLASH = r"(?:[/\\\u2044\u2215\uff0f]|%(?:25)*2f|&sol;|&#(?:47|x2f);?)"
# Browsers take all of these for a dot; what people write for one stands in brackets.
_DOT = r"(?:[.\u3002\uff0e\uff61]|&period;|\[\.\]|\(\.\)|\{\.\}|[\[({](?:dot|punkt)[\])}])"
_REST_OF_URL = r"[^ \t\r\n\f\v<]*$"
_BARE = re.compile(
    rf"(?i)(?:(?<![a-z0-9+.\-])[a-z][a-z0-9+.\-]+{_COLON}{_SLASH}{{2}}"
    r"|(?<![\w+.\-])(?:https?|wss?|ftps?):|www\."
    r"|(?<![\w+.\-])(?:mailto|tel|sms|smsto|mmsto?|sips?|geo|javascript|vbscript|intent|magnet|xmpp|im|callto|skype"
    r"|facetime|facetime-audio|whatsapp|matrix|bitcoin|ethereum|news|nntp|blob|view-source|ms-\w{2,20}|shell|jar"
    r"|market|tg|viber|zoommtg|webcal):"
    # any other scheme that is given something: the sign of a query in its word
    r"|(?<![\w+.\-])[a-z][a-z0-9+.\-]{1,30}:[^\s:]{1,500}[?&][^\s=&]{0,100}="
    r"|(?<![\w+.\-])data:(?:[a-z]+/[a-z0-9+.\-]+[;,]|,|;)"
    r"|(?<![\w:/\\])//[\w\[]"
    r"|[\w.+\-]{1,64}@(?:[a-z0-9\-]{1,63}\.)+[a-z]{2,24}:"
    r"|(?<![^ \t\"'(<])\\{2,4}[\w.\-]+(?:@\w{1,9}){0,2}\\)"
    rf"{_REST_OF_URL}"
)
_HOST = re.compile(
    rf"(?i)(?<![\w@.\-])(?:(?:[\w\-]{{1,63}}{_DOT})+[^\W\d_]{{2,24}}|(?:\d{{1,3}}\.){{3}}\d{{1,3}}"
    r"|\[[0-9a-f:.]{2,45}\])"
    rf"\.?(?::\d+)?(?:[/?#\u2044\u2215\uff0f]|%(?:25)*(?:2f|3f|23)|&(?:sol|quest|num);)[^\s<>\"`]*$"
    r"|(?<![\w@.\-/])[a-z][\w\-]{0,62}:\d{2,5}/[^\s<>\"`]*$"
)
_MARKDOWN = re.compile(
    r"\]\(\s*(?:<([^<>]*)|([^ \t\r\n\f\v()<>]*(?:\([^ \t\r\n\f\v()]*\)?[^ \t\r\n\f\v()]*)*))$"
    r"|\]\(([^()]*//[^()]*)$"  # readers that take whatever is in the brackets
    r"|\]:\s*(?:<([^<>]*)|(//\S*))$"
    # titles
    r"|\]\(\s*(?:<[^<>]*>|[^\s<>()]+)\s+([\"'(][^\n]*)$"
    r"|^ {0,3}\[[^\[\]]+\]:\s*(?:<[^<>]*>|\S*//\S*)\s+([\"'(][^\n]*)$"
)
# Such a line goes on in the next one.
_UNFINISHED = re.compile(
    r"\]\([^()]*//[^()]*$|^ {0,3}\[[^\[\]]+\]:[ \t]*(?:<[^<>]*>|\S*//\S*)[ \t]*$"
)
_STYLE = re.compile(
    r"""(?i)(?:url|src)\(\s*["']?([^)\s]*)$|image-set\(([^)]*)$|@import\s([^;]*)$"""
)
_ANY = re.compile(r"(?i)[:/\\%&#?][^ \t\r\n\f\v]|[\](<]|www\.|@i|8;")
"""What one of these forms, or a tag, needs before a place that is in a URL."""
_TERMINAL = re.compile(r"(?:\x1b\]|\x9d)8;([^\x07\x1b\x9c]*)$")
_UNQUOTED = re.compile(r"""([\w:\-]+)\s*=\s*((?:[^\s"'<>][^\s<>]*)?)$""")
_NAMES = """href src srcset imagesrcset action formaction data poster background cite ping longdesc
manifest xlink:href style content codebase profile icon archive dynsrc lowsrc srcdoc classid"""
_ATTRIBUTES = frozenset(_NAMES.split())
_NAMED = re.compile(r"[A-Za-z/!?]")
_TAG = re.compile(r"<(?=[A-Za-z/!?])|[\"'>]")
_URL = re.compile(r"(?i)[a-z][a-z0-9+.\-]*://|www\.")
_ADDRESSED = frozenset(("mailto:", "tel:", "sms:"))
_END = frozenset(" \t\r\n)>]\"'<,;`")
_GOES_ON = re.compile(r"[\w@:%.\-]")
_LABELS = re.compile(r"[\w\-]*(?:(?:\.|\[\.\]|\(\.\)|[\[(]dot[\])])(?:[^\W_]|-)+)+")
_FILE = re.compile(
    r"\.(?:tar|csv|json|txt|html|pdf|log|xml|sql)\.[a-z0-9]{2,4}$|\.(?:csv|json|txt|html|xlsx|docx|pdf|log|xml|sql|gz)$"
)
_BEGINS_DOT = r"[\[({](?:(?:\.|do?t?)[\])}]?)?"
_PART = re.compile(rf"[\w\-.+%]{{0,64}}(?:@|{_BEGINS_DOT})?")
_PART_OF_DOT = re.compile(rf"\.?|{_BEGINS_DOT}")
_AT_HOST = re.compile(r"[\w\-.+%]{0,64}@\w")
_ELEMENT = re.compile(r"(?i)(script|form)(?=[\s/]|$)")
_LINK = re.compile(r"(?i)(?:a|img|area)[\s/]")
_ENDS = {"script": re.compile(r"(?i)</script"), "form": re.compile(r"(?i)</form")}
_LONGEST_END = len("</script")
_LONGEST_COMMAND = 100  # characters that tell one
_END_OF_LINE = re.compile(r"(?<!\\)\r?\n")
_REST = re.compile(r'[^\s<>"`\\]*')
LONGEST_URL = 2_048
_CLOSING = ")].,;:!?'*_"


def may_hold_urls(text: str) -> bool:
    """Whether a place before a sign that is not blank may be in a URL here: see `Links`."""
    return len(text) > _MOST or _ANY.search(text) is not None


class Links:
    """Follows a text piece by piece.

    Args:
        own: URLs with placeholders in them that the data owner's own texts hold: what they say, their
            host has been told.
        known: the hosts that may be sent values: see `destinations.known_hosts`.
        told: puts the values back that name a host, for a look at where something goes.
    """

    def __init__(
        self,
        own: set[str],
        known: Callable[[], frozenset[str]] = frozenset,
        told: Callable[[str], str] = str,
    ) -> None:
        self._own = own
        self._known, self._told = known, told
        self._line = ""
        self._sending = False  # whether that line may be a command, as far as it was looked at
        self._looked = 0
        self._kept = False  # whether the line begins with one that was not finished
        self._cut = False  # whether the line is longer than what is kept of it
        self._tag: str | None = None  # of an HTML tag that is open, what came since its last quote
        self._head = ""  # all that came of it
        self._quote = ""  # the quote that an attribute's value of it is in
        self._value: str | None = None  # that value so far, where it is a URL
        self._script: str | None = None  # of a script that is open, what came of it
        self._form: str | None = None  # the same of a form that goes to another host

    def passed(self, text: str) -> None:
        """`text` comes next."""
        for at in range(0, len(text), _PIECE):  # what is left is read again after each element
            piece = text[at : at + _PIECE]
            while piece:
                piece = self._step(piece)

    def _step(self, text: str) -> str:
        """Follow `text` up to the end of the first script or form in it; returns the rest."""
        if self._script is not None or self._form is not None:
            text = self._through(text)
        if not self._quote and self._line.endswith("<") and _NAMED.match(text):
            self._tag = self._head = ""  # its '<' came with the piece before
        start = begun = before = 0
        for end in _END_OF_LINE.finditer(text):
            if end.start() or not self._line.endswith("\\"):
                begun, before, start = start, end.start(), end.end()
        if start:
            last = text[begun:before] if begun else self._line + text[:before]
            self._begin(text[start:], last if "]" in last and "//" in last else "")
        else:
            self._line += text
        if len(self._line) > _MOST:
            self._looked = max(0, self._looked - len(self._line) + _MOST)
            self._line, self._cut = self._line[-_MOST:], True
        return self._html(text) if self._tag is not None or "<" in text else ""

    def _begin(self, line: str, last: str = "") -> None:
        """A line begins, of which so much has come, after the `last` one."""
        unfinished = _UNFINISHED.search(last) if last else None
        # A line that comes after two is a text of its own: only one is kept.
        line = f"{unfinished[0]} {line}" if unfinished and not self._kept else line
        self._kept = unfinished is not None and not self._kept
        self._line, self._cut, self._sending, self._looked = line, False, False, 0

    def apart(self) -> None:
        """What comes next is another text."""
        self._begin("")
        self._tag, self._quote, self._value = None, "", None
        self._head, self._script, self._form = "", None, None

    def learn(self, placeholder: str, after: str) -> None:
        """Take the URL that this place and `after` are in, if there is one, for the owner's own."""
        before = self._inside()
        if before is not None:
            whole = before + placeholder + _REST.match(after)[0]  # type: ignore[index]
            self._own.add(_stripped(whole, len(before + placeholder)))

    def allows(self, placeholder: str, value: str, after: str, *, final: bool) -> bool | None:
        """Whether `value` may stand here, where no command sends it; None where that depends on more
        than `after`.

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

    def owns(
        self, placeholder: str, after: str, hosts: frozenset[str], *, final: bool
    ) -> bool | None:
        """Whether this place is in a URL of the owner's own, to the only one of `hosts`."""
        before = self._inside()
        if before is None or not is_told_itself(before, hosts):
            return False
        return self._is_own(before + placeholder, after, final=final)

    @property
    def is_known(self) -> bool:
        """Whether this place is in a URL of a host that is known."""
        before = self._inside()
        return before is not None and is_known(before, self._known())

    @property
    def inside(self) -> bool:
        """Whether this place is in a URL."""
        return self._inside() is not None

    def sends_to(self, placeholder: str, after: str, *, final: bool) -> frozenset[str] | None:
        """The hosts, known ones aside, that a command, a script or a form sends what stands here to;
        None where that depends on more than `after`.
        """
        if self._form is not None:
            return SOMEWHERE
        whole = self._line if self._script is None else self._script
        if self._script is None and not self._may_send():
            return NOWHERE
        end = (_END_OF_LINE if self._script is None else _ENDS["script"]).search(after)
        if end is None and (not final or len(after) >= _MOST):
            return SOMEWHERE if final else None
        whole += placeholder + (after[: end.start()] if end else after)
        if len(whole) > 2 * _MOST:
            return SOMEWHERE
        find = sends_to if self._script is None else page_sends_to
        return find(self._told(whole), self._known())

    def _may_send(self) -> bool:
        """`may_send` of the line so far, of which only what is new is looked through."""
        if not self._sending and self._looked < len(self._line):
            self._sending = may_send(self._line, max(0, self._looked - _LONGEST_COMMAND))
            self._looked = len(self._line)
        return self._sending

    def _through(self, text: str) -> str:
        """Follow the element that is open; returns what of `text` comes after it."""
        name = "script" if self._script is not None else "form"
        held = self._script if self._script is not None else self._form
        assert held is not None
        seam = held[-_LONGEST_END:]
        end = _ENDS[name].search(seam + text)
        if end is None:
            # More than the limit is taken for a script that sends.
            held = (held + text)[: 2 * _MOST] if name == "script" else text[-_LONGEST_END:]
            self._script, self._form = (held, None) if name == "script" else (None, held)
            return ""
        self._script = self._form = None
        self._begin("")
        return text[max(0, end.end() - len(seam)) :]

    def _is_own(self, begun: str, after: str, *, final: bool) -> bool | None:
        unsure = False
        for url in self._own:
            if not url.startswith(begun):
                continue
            rest = url[len(begun) :]
            if after.startswith(rest):
                following = after[len(rest) : len(rest) + 1]
                if following:
                    ended = _sentence_ends(after[len(rest) :], final=final)
                    if ended or not _GOES_ON.match(following):
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
        for form, signs in (
            (_BARE, ":\\/wW%&\u2044\u2215\uff0f"),
            (_HOST, "/?#%&\u2044\u2215\uff0f"),
        ):
            found = form.search(line, word) if any(line.find(s, word) >= 0 for s in signs) else None
            if found:
                return found[0]
        for form, begins in ((_MARKDOWN, "]"), (_STYLE, "("), (_STYLE, "@i"), (_TERMINAL, "8;")):
            found = form.search(line) if begins in line else None
            if found:
                return str(found[found.lastindex or 0])
        if self._tag is not None:
            found = _UNQUOTED.search(self._tag)
            if found and _takes_url(found[1]):
                return found[2]
        return None

    def _html(self, text: str) -> str:
        """Follow the tags of HTML, and the values of their attributes, through `text` up to the end of
        the first script or form; returns the rest.
        """
        at = opened = 0
        for found in _TAG.finditer(text):
            mark, before = found.group(), text[at : found.start()]
            if self._tag is None:
                if mark == "<":
                    self._tag, self._head, at = "", "", found.end()
                    opened = at
                continue
            if self._quote:
                if mark != self._quote:
                    continue
                self._quote, self._tag, self._value = "", "", None
            elif mark == ">":
                # A tag is read as a whole; with a URL between its attributes it is none.
                between = _URL.search(self._tag + before, 1)
                if between is None:
                    self._begin(text[max(found.end(), text.rfind("\n") + 1) :])
                self._tag = None
                if self._begins(self._head + text[opened : found.start()]):
                    self._begin("")
                    return self._through(text[found.end() :])
            elif mark == "<":
                self._tag, self._head, opened = "", "", found.end()
            else:
                named = _UNQUOTED.search(self._tag + before)
                if named and named[2]:
                    self._tag += before + mark  # a sign of a value without quotes
                else:
                    self._quote = mark
                    head = self._head + text[opened : found.start()]
                    self._value = "" if named and _takes_url(named[1], head) else None
                    self._tag = ""
            at = found.end()
        rest = text[at:]
        if self._tag is not None:
            self._head = (self._head + text[opened:])[:_MOST]
        if self._value is not None:
            self._value = (self._value + rest)[-_MOST:]
        elif self._tag is not None and not self._quote:
            self._tag = (self._tag + rest)[-_MOST:]
        return ""

    def _begins(self, tag: str) -> bool:
        """Whether `tag` opens a script, or a form that goes to a host that is not known."""
        element = _ELEMENT.match(tag)
        if element is None:
            return False
        if element[1].lower() == "script":
            self._script = ""
        elif len(tag) >= _MOST or page_sends_to(self._told(tag), self._known()):
            self._form = ""
        return self._script is not None or self._form is not None


def _takes_url(attribute: str, tag: str = "") -> bool:
    name = attribute.lower()
    if name == "title":
        return _LINK.match(tag) is not None
    return name in _ATTRIBUTES or name.startswith("on")


def _stripped(url: str, least: int) -> str:
    """`url` without the signs of the sentence that it stands in, but at least its first `least`."""
    return url[:least] + url[least:].rstrip(_CLOSING)


def _ended(after: str, *, final: bool, paths: bool = False) -> bool | None:
    if not after:
        return True if final else None
    return after[0] in _END or (paths and after[0] in "/?#")


def _sentence_ends(after: str, *, final: bool) -> bool:
    """Whether a sign ends a sentence here, and with it a URL."""
    return after[:1] in (".", ":") and (after[1:2].isspace() or (final and len(after) == 1))


def _outside(value: str, after: str, *, final: bool) -> bool | None:
    """Whether `value` may stand at a place that is in no URL: it must not become the name of a host."""
    if not after:
        return True if final else None
    if _URL.match(value):
        if after[0] not in ".:":
            return not _GOES_ON.match(after)
        return None if len(after) == 1 and not final else _sentence_ends(after, final=final)
    if _PART.fullmatch(after) and not final:
        return None
    if _AT_HOST.match(after):
        return False
    labels = _LABELS.match(after)
    if labels is None:
        return True
    if _PART_OF_DOT.fullmatch(after[labels.end() :]) and not final and len(after) < LONGEST_URL:
        return None
    following = after[labels.end() : labels.end() + 1]
    if _FILE.search(labels[0]) and following != "/":
        return True
    return labels[0].count(".") < 2 and following != "/"
