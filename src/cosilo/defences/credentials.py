"""Credentials: keys and tokens by the form that their issuer gives them, passwords by what is before.

    AKIA… ghp_… sk_live_… eyJ….….…  -----BEGIN … PRIVATE KEY-----      by their form
    postgres://user:PASSWORD@host   Authorization: Bearer TOKEN         by their place
    DB_PASSWORD=…  "api_key": "…"   the password is …                   by their name

Forms are those that issuers document and that scanners of repositories look for (GitHub's secret
scanning patterns, gitleaks, detect-secrets). What a program writes in a secret's place (a variable, a
call, a row of stars) is none.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain

from cosilo.defences.anchored import AnchoredForm, AnchoredText
from cosilo.defences.detection import Span

_B64 = r"[A-Za-z0-9+/]"
_URL = r"[\w\-]"
_ALNUM = r"[A-Za-z0-9]"
_HEX = r"[0-9a-f]"

_FORMS: tuple[str, ...] = (
    # clouds
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",
    rf"AIza{_URL}{{35}}",
    rf"ya29\.{_URL}{{20,500}}",
    rf"GOCSPX-{_URL}{{28}}",
    rf"{_URL}{{3}}8Q~[\w.~\-]{{31,34}}",
    rf"do[opr]_v1_{_HEX}{{64}}",
    rf"dapi{_HEX}{{32}}(?:-\d)?",
    rf"pul-{_HEX}{{40}}",
    rf"{_ALNUM}{{14}}\.atlasv1\.{_URL}{{60,70}}",
    rf"hv[bsr]\.{_URL}{{24,300}}",
    rf"tskey-(?:auth|api|client)-{_URL}{{10,80}}",
    r"FlyV1 fm\d_[A-Za-z0-9+/=,_\-]{50,900}",
    rf"HRKU-{_URL}{{36,70}}",
    rf"sbp_{_HEX}{{40}}",
    r"pscale_(?:tkn|pw|oauth)_[\w.\-]{32,64}",
    rf"nf[pc]_{_ALNUM}{{36,60}}",
    rf"LTAI{_ALNUM}{{20}}",
    # code and packages
    rf"gh[pousr]_{_ALNUM}{{36,255}}",
    r"github_pat_\w{22,255}",
    rf"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|oas|soat)-{_URL}{{20,64}}",
    rf"npm_{_ALNUM}{{36}}",
    rf"pypi-AgE{_URL}{{50,1000}}",
    rf"rubygems_{_HEX}{{48}}",
    rf"cio{_ALNUM}{{32}}",
    rf"dckr_(?:pat|oat)_{_URL}{{20,64}}",
    r"ATATT3[A-Za-z0-9_=\-]{60,300}",
    rf"ATBB{_ALNUM}{{32}}",
    rf"CCIPAT_{_ALNUM}{{22}}_{_HEX}{{40}}",
    rf"bk(?:ua|at)_{_HEX}{{40}}",
    rf"lin_api_{_ALNUM}{{40}}",
    r"sntry[su]_[A-Za-z0-9+/=_\-]{40,300}",
    rf"PMAK-{_HEX}{{24}}-{_HEX}{{34}}",
    rf"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[\w\-]{{2,35}}\.)?{_ALNUM}{{40,44}}",
    rf"ops_eyJ{_B64}{{100,900}}={{0,2}}",
    r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
    # models
    rf"sk-(?:proj|svcacct|admin|ant|or|None)-{_URL}{{20,250}}",
    rf"sk-{_ALNUM}{{20,64}}",
    rf"hf_{_ALNUM}{{30,40}}",
    rf"gsk_{_ALNUM}{{40,60}}",
    rf"r8_{_ALNUM}{{37,40}}",
    rf"pplx-{_ALNUM}{{32,60}}",
    rf"xai-{_ALNUM}{{60,90}}",
    # money
    rf"(?:sk|pk|rk)_(?:live|test)_{_ALNUM}{{10,120}}",
    r"whsec_[A-Za-z0-9+/]{24,64}={0,2}",
    rf"sq0(?:atp|csp)-{_URL}{{22,43}}",
    r"EAAA[a-zA-Z0-9\-_]{60}",
    r"shp(?:at|ca|pa|ss|tka)_[0-9a-fA-F]{32}",
    rf"access_token\$(?:production|sandbox)\${_ALNUM}{{16}}\${_HEX}{{32}}",
    rf"rzp_(?:live|test)_{_ALNUM}{{14}}",
    # messages
    r"xox[abeoprs]-[A-Za-z0-9\-]{10,250}",
    rf"xapp-\d-[A-Z0-9]{{8,15}}-\d{{10,15}}-{_HEX}{{64}}",
    r"https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9+/]{43,60}",
    rf"https://(?:canary\.|ptb\.)?discord(?:app)?\.com/api/webhooks/\d{{17,20}}/{_URL}{{60,70}}",
    r"https://[a-z0-9]{1,60}\.webhook\.office\.com/webhookb2/[\w@/\-]{60,300}",
    rf"SG\.{_URL}{{20,24}}\.{_URL}{{39,50}}",
    rf"(?:AC|SK){_HEX}{{32}}",
    rf"key-{_HEX}{{32}}",
    rf"{_HEX}{{32}}-us\d{{1,2}}",
    rf"\d{{8,10}}:AA{_URL}{{32,34}}",
    rf"[MNO]{_URL}{{23,27}}\.{_URL}{{6}}\.{_URL}{{27,40}}",
    rf"re_{_ALNUM}{{8,10}}_{_ALNUM}{{20,30}}",
    rf"xkeysib-{_HEX}{{64}}-{_ALNUM}{{16}}",
    # work
    rf"secret_{_ALNUM}{{43}}",
    rf"ntn_{_ALNUM}{{43,50}}",
    rf"figd_{_URL}{{38,60}}",
    rf"pat{_ALNUM}{{14}}\.{_HEX}{{64}}",
    rf"gl(?:sa_{_ALNUM}{{32}}_{_HEX}{{8}}|c_{_B64}{{32,400}}={{0,2}})",
    r"NR(?:AK|JS|II|AL)-[A-Za-z0-9]{20,40}",
    rf"sl\.(?:u\.)?{_URL}{{130,1200}}",
    rf"EAA[A-Z]{_ALNUM}{{80,300}}",
    rf"AAAA{_URL}{{7}}:{_URL}{{130,180}}",
    # any issuer
    rf"eyJ{_URL}{{10,4000}}\.eyJ{_URL}{{10,8000}}(?:\.{_URL}{{10,2000}})?",
    rf"eyJ{_URL}{{10,4000}}\.{_URL}{{10,8000}}\.{_URL}{{10,2000}}",
)
_FORM = re.compile("|".join(_FORMS))
# No form is shorter, and none has another sign in it, but for a space after FlyV1.
_OF_RUN = r"[\w+/=.~:$@,\-]"
_RUN = re.compile(rf"(?<!{_OF_RUN}){_OF_RUN}{{15,}}|FlyV1 {_OF_RUN}{{15,}}")
_EDGE = re.compile(r"[\w\-]")

_BLOCK = re.compile(
    r"-----BEGIN (?P<what>[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?P<value>[^-]{1,20000}?)(?:-----END |\Z|(?=-----BEGIN))"
)
_CUT_BLOCK = re.compile(
    r"PuTTY-User-Key-File-\d:[\s\S]{1,400}?Private-Lines: \d{1,4}\s(?P<value>[A-Za-z0-9+/=\s]{20,9000})"
)

_SECRET = r"[^\s\"'`<>{}()\[\],;\\]"
_PLACES: tuple[AnchoredForm, ...] = (
    # user:password before a host
    AnchoredForm(r"\b[A-Za-z][\w+.\-]{1,30}://[^\s/:@\"'<>]{0,100}:(?P<value>[^\s/@\"'<>]{1,200})@"
               r"(?=[\w\[])"),
    AnchoredForm(r"(?i)\b(?:proxy-)?authorization[\"']?\s{0,3}[:=,]\s{0,3}[\"']?(?:bearer|basic"
               r"|token|apikey|ssws|digest|negotiate)\s{1,3}(?P<value>[\w+/=.~\-]{8,4000})"),
    AnchoredForm(r"(?i)\bbearer\s{1,3}(?P<value>(?=[^\s]{0,60}\d)[\w+/=.~\-]{16,4000})"),
    AnchoredForm(r"(?i)\b(?:set-)?cookie:\s{0,3}(?P<value>[^\r\n\"']{8,4000})"),
    AnchoredForm(rf"(?i)\b(?:curl|wget|http)\b[^\n]{{0,300}}?\s(?:-u|--user)[ =]{{1,2}}[\"']?[^\s:\""
               rf"']{{1,80}}:(?P<value>{_SECRET}{{1,200}})"),
    AnchoredForm(r"(?i)\bmachine\s{1,9}\S{1,200}\s{1,9}login\s{1,9}\S{1,200}\s{1,9}password\s{1,9}"
               r"(?P<value>\S{1,200})"),
    AnchoredForm(r"(?i)\b(?:AccountKey|SharedAccessKey|SharedSecretKey)="
               r"(?P<value>[A-Za-z0-9+/]{20,100}={0,2})"),
    AnchoredForm(r"(?i)[?&](?:sig|signature|x-amz-signature|x-amz-security-token|access_token"
               r"|api_?key|token)=(?P<value>[\w%+/.~\-]{16,2000})"),
    AnchoredForm(r"(?i)\baws[\w.\- ]{0,30}?(?:secret|sk)[\w.\- ]{0,30}?[\"']?\s{0,3}(?:=|:|=>"
               r"|is)\s{0,3}[\"']?(?P<value>[A-Za-z0-9+/]{40})(?![A-Za-z0-9+/])"),
    AnchoredForm(r"(?<![\w/+])(?:AKIA|ASIA)[A-Z2-7]{16}[\s,;:/|\"']{1,9}(?P<value>[A-Za-z0-9+/]{40})"
               r"(?![A-Za-z0-9+/])"),
)  # fmt: skip

_NAMED = AnchoredForm(
    r"(?i)(?<![a-z])(?P<name>pass(?:word|wd|phrase|code)?s?|pwd|secrets?|tokens?|credentials?"
    r"|api[ _\-]?keys?|apikey"
    r"|(?:access|auth|client|private|signing|encryption|service|shared|master|account|license"
    r"|session)[ _\-]?(?:keys?|tokens?|secrets?|ids?(?=_?secret))"
    r"|passwort|kennwort|mot de passe|contrase[ñn]a|senha|wachtwoord|has[łl]o|parola|otp|pin)"
    r"(?P<rest>(?:(?:[_\-\d]|(?-i:[A-Z]))[\w\-]{0,20})?)[\"'`]?"
    r"(?P<between>\s{0,3}(?:=>|:=|==?|:)\s{0,3}|\s{1,3}(?:is|was|ist|lautet|est|es|[eé]|set to"
    r"|to)[: ]{1,3}|\s{1,3}(?=[\"'`]))"
    r"(?P<quote>[\"'`]?)(?P<value>[^\s\"'`]{4,300})"
)
_NO_SECRET = re.compile(
    r"(?i)(?:\$[({]?\w.*|%\(?\w+.*|<.*|\{\{.*|\*{3,}.*|x{4,}.*|\.{3,}.*|(?:os|process|env|config"
    r"|settings|self|this|getenv|secrets)[.\[(].*"
    r"|none|null|nil|true|false|undefined|required|optional|string|str|bytes|int|changed|reset"
    r"|expired|invalid|incorrect|wrong|missing|empty|correct|the|not|your|redacted|hidden"
    r"|.*\(.*|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+\(?.*|(?-i:[A-Z_]{2,})[,;)]?)"
)
_RAW = re.compile(r"[A-Za-z0-9+/=_.~\-]{20,300}")


def formed(text: str) -> Iterator[Span]:
    """Those that have a form of their issuer."""
    every = (_FORM.finditer(text, *run.span()) for run in _RUN.finditer(text))
    for found in chain.from_iterable(every):
        start, end = found.span()
        if not _inside_word(text, start, end):
            yield Span(start, end, "SECRET", 1.0)


def credentials(anchored: AnchoredText) -> Iterator[Span | None]:
    """The credentials of a text; a None where the caller may pause."""
    text = anchored.text
    for number, found in enumerate(formed(text)):
        yield found
        if number % 50 == 49:
            yield None
    yield None
    if "PRIVATE" in text or "Private" in text:
        for pattern in (_BLOCK, _CUT_BLOCK):
            for block in pattern.finditer(text):
                yield _stripped(text, *block.span("value"))
    yield None
    for place in _PLACES:
        for placed in place.find(anchored):
            if not _NO_SECRET.fullmatch(placed["value"]):
                yield Span(*placed.span("value"), "SECRET", 0.95)
        yield None
    for named in _NAMED.find(anchored):
        span = _named(text, named)
        if span is not None:
            yield span
    yield None


def _inside_word(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start], text[end : end + 1]
    return bool(_EDGE.fullmatch(before)) or (bool(_EDGE.fullmatch(after)) and text[end - 1] != "=")


def _stripped(text: str, start: int, end: int) -> Span:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return Span(start, end, "SECRET", 1.0)


def _named(text: str, named: re.Match[str]) -> Span | None:
    """The value after a name of a secret, where it can be one."""
    value, quote = named["value"], named["quote"]
    start = named.start("value")
    if quote:
        end = text.find(quote, start, start + 300)
        if end > start:
            value = text[start:end]
    else:
        value = value.rstrip(".,;:)]}")
    said = named["between"].strip(" :") not in ("", "=", "=>", ":=", "==")
    if len(value) < 4 or _NO_SECRET.fullmatch(value):
        return None
    if named["name"].lower() in ("pin", "otp") or value.isdigit():
        fits = re.fullmatch(r"\d{4,12}", value) and _is_password(named["name"], or_pin=True)
        return Span(start, start + len(value), "SECRET", 0.9) if fits else None
    if not quote and (said or named["between"].strip() in (":", "")) and not _odd(value):
        return None  # prose: "the token is invalid", "password: forgotten"
    if not quote and not _odd(value) and not _assigned(text, named.start()):
        return None  # code: password = entered
    if not quote and value.casefold() == named["name"].casefold():
        return None  # code: secrets=secrets,
    if quote and not (_odd(value) or _is_password(named["name"])):
        return None
    return Span(start, start + len(value), "SECRET", 0.9)


def _is_password(name: str, *, or_pin: bool = False) -> bool:
    words = r"(?i)pass|pwd|kennw|mot|contra|senha|wacht|has|parola"
    return bool(re.match(words + r"|pin|otp" * or_pin, name))


def can_be_secret(value: str) -> bool:
    """Whether what stands under the name of a secret can be one: no variable, no row of stars."""
    return (
        len(value) >= 4 and "(" not in value and not _NO_SECRET.fullmatch(value)
        and not _ANNOTATED.match(value)
    )  # fmt: skip


_ANNOTATED = re.compile(r"[A-Za-z_][\w.\[\], |]{0,80} = ")
"""What follows the name of an argument: `str | None = ...`."""


def _odd(value: str) -> bool:
    """Whether `value` is no word of a language or a program: it has digits or signs among its letters,
    or is long and without order."""
    if len(value) >= 6 and any(c.isdigit() for c in value) and any(c.isalpha() for c in value):
        return True
    if len(value) >= 6 and any(c in "!@#$%^&*+?~" for c in value):
        return True
    return bool(_RAW.fullmatch(value)) and entropy(value) > 3.8


def _assigned(text: str, at: int) -> bool:
    """Whether the line is one of a settings file, `NAME=value`, and not code."""
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    line = text[start : end if end >= 0 else len(text)]
    return bool(
        re.fullmatch(
            r"\s{0,9}(?:export\s|set\s|ENV\s)?[A-Za-z_][\w.\-]{0,80}=\S{0,400}[^\s,]\s{0,9}", line
        )
    )


def entropy(text: str) -> float:
    """Bits for each character of `text`, by the frequencies of its own."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
