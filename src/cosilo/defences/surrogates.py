"""Numbers, dates and words that stand for others: 37 for 5, 'August 2011' for 'March 2023', 'Dovekalu'
for 'Alice'.

A small model writes better SQL around `LIMIT 37` than around `LIMIT NUMBER_k7q2mx`, and takes
"the patient VALUE_k7q2mx" for an identifier, not a name. A surrogate is derived under the key like a
placeholder, has the form and size of what it stands for, and comes back in the other forms a model
writes it in: 'April 1, 2023' as '2023-04-01', a month as its first and last day, a word in small
letters. The dates of one conversation move together, so that a range stays one.
"""

from __future__ import annotations

import calendar
import datetime
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Draw:
    """Choices that the key and a label decide.

    Attributes:
        shared: the label of choices that all values of a conversation share.
    """

    key: bytes
    label: str
    shared: str = ""

    @property
    def together(self) -> Draw:
        return Draw(self.key, self.shared)

    def number(self, purpose: str) -> int:
        text = f"{self.label}\0{purpose}".encode(errors="surrogatepass")
        return int.from_bytes(hmac.digest(self.key, text, "sha256"))

    def code(self, alphabet: str, length: int) -> str:
        number = self.number("code")
        return "".join(alphabet[number >> 5 * i & 31] for i in range(length))

    def below(self, limit: int, purpose: str) -> int:
        return self.number(purpose) % limit

    def of(self, items: Sequence[T], purpose: str) -> T:
        return items[self.below(len(items), purpose)]


@dataclass(frozen=True)
class Cover:
    """What the LM is shown, and what each form it may write comes back as."""

    shown: str
    aliases: dict[str, str]


MONTHS = [calendar.month_name[i] for i in range(1, 13)]
SHORT_MONTHS = [calendar.month_abbr[i] for i in range(1, 13)]
_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"""
UNITS, TENS = _WORDS.split()[:20], _WORDS.split()[20:]
WORDS = {w: i for i, w in enumerate(UNITS)} | {w: 10 * i for i, w in enumerate(TENS, 2)}

# Whole numbers of two digits that a model hardly writes of its own accord: no round ones, no hours,
# days, weeks, dozens or powers of two.
UNUSUAL = [n for n in range(13, 98) if n % 5 and n % 12 and n % 7 and n not in (13, 16, 18, 22, 29,
           31, 32, 33, 44, 51, 52, 53, 54, 59, 61, 62, 64, 66, 88, 97)]  # fmt: skip
# The same for round numbers: "the past 70 days" reads otherwise than "the past 94 days".
_UNUSUAL_ROUND = (40, 50, 70, 80)
YEARS_BACK = range(4, 30)
EARLIEST = 1000
"""The first year of a date's surrogate: one before it would not have four digits, or not be at all."""
_DAYS_BACK = 365 * len(YEARS_BACK)


DATES = frozenset({"DAY", "MONTH", "YEAR", "DATE"})
DISGUISED = DATES | {"NUMBER", "COUNT", "VALUE"}
"""The kinds of value that may have a surrogate."""


def disguise(kind: str, value: str, draw: Draw) -> Cover | None:
    """The surrogate for a value of kind NUMBER, COUNT, DAY, MONTH, YEAR, DATE (a day of some year) or
    VALUE; None for others, and for a form not known here: those get a placeholder.
    """
    match kind:
        case "VALUE":
            return _text(value, draw)
        case "NUMBER":
            return _number(value, draw)
        case "COUNT":
            return _count(value, draw)
        case "YEAR":
            return _year(value, draw)
        case "MONTH":
            return _month(value, draw)
        case "DAY":
            return _day(value, draw)
        case "DATE":
            return _day_of_year(value, draw)
    return None


_CONSONANTS, _VOWELS, _CODES = "bdfgklmnprstvz", "aeiou", "BDFGHJKLQVWXZ"


def _text(value: str, draw: Draw) -> Cover | None:
    """Words that no language has, in the case of the value's own; at most four of them. A code of
    capitals ('US', 'AAPL') stays one, of three letters or more.
    """
    words = value.split(" ")
    if not all(re.fullmatch(r"[^\W\d_]+(?:['’\-][^\W\d_]+)*", word) for word in words):
        return None
    others = [_word(word, draw, f"word {i}") for i, word in enumerate(words[:4])]
    shown = " ".join(others)
    pairs = [(shown, value)]
    if 1 < len(words) == len(others):  # a model may ask for first and last name apart
        pairs += zip(others, words, strict=True)
    aliases: dict[str, str] = {}
    for other, own in pairs:
        for change in (str, str.lower, str.upper, str.title):
            aliases.setdefault(change(other), change(own))
    return Cover(shown, aliases)


def _word(word: str, draw: Draw, purpose: str) -> str:
    if word.isupper() and 1 < len(word) <= 5:
        size = max(3, len(word))
        return "".join(draw.of(_CODES, f"{purpose} {i}") for i in range(size))
    syllables = [
        draw.of(_CONSONANTS, f"{purpose} {i}") + draw.of(_VOWELS, f"{purpose} {i} v")
        for i in range(4)
    ]
    other = "".join(syllables)
    if word.isupper():
        return other.upper() if len(word) > 1 else other.capitalize()
    return other.capitalize() if word[0].isupper() else other


def _number(value: str, draw: Draw) -> Cover | None:
    match = re.fullmatch(r"(\d{1,3}(?:,\d{3})+|\d{1,15})(\.\d{1,6})?", value)
    if match is None:
        return None
    whole, fraction = match[1].replace(",", ""), match[2] or ""
    zeros = len(whole) - len(whole.rstrip("0"))
    if len(whole) <= 2:
        digits = str(draw.of(_UNUSUAL_ROUND if zeros == 1 < len(whole) else UNUSUAL, "small"))
    elif zeros == len(whole) - 1:  # a digit and noughts
        digits = str(draw.of(_UNUSUAL_ROUND, "round") // 10) + zeros * "0"
    else:  # as many digits, none of them 0 at an end
        digits = str(1 + draw.below(9, "first"))
        digits += "".join(str(draw.below(10, f"digit {i}")) for i in range(len(whole) - 2))
        digits += str(1 + draw.below(9, "last"))
    places = "".join(str(1 + draw.below(9, f"place {i}")) for i in range(len(fraction) - 1))
    shown = f"{int(digits):,}" if "," in value else digits
    plain, grouped = whole + fraction, f"{int(whole):,}{fraction}"
    dot = "." if fraction else ""
    aliases = {shown + dot + places: value}
    aliases.setdefault(digits + dot + places, plain)
    aliases.setdefault(f"{int(digits):,}{dot}{places}", grouped)
    return Cover(shown + dot + places, aliases)


def _count(value: str, draw: Draw) -> Cover | None:
    number = WORDS.get(value.casefold())
    if number is None:
        return None
    other = draw.of([n for n in UNUSUAL if n > 20], "count")
    shown = f"{TENS[other // 10 - 2]}-{UNITS[other % 10]}"
    shown = shown.capitalize() if value[0].isupper() else shown
    return Cover(shown, {shown: value, str(other): str(number)})


def _year(value: str, draw: Draw) -> Cover | None:
    if not re.fullmatch(r"\d{4}", value):
        return None
    year = int(value) - _years_back(draw)
    if year <= EARLIEST:
        return None
    aliases = {str(year): value}
    for step in (-1, 1):  # where the year ends: '2032-01-01' for one that began in 2031
        aliases[f"{year + step}-01-01"] = f"{int(value) + step}-01-01"
        aliases[f"{year + step}-12-31"] = f"{int(value) + step}-12-31"
    return Cover(str(year), aliases)


def _years_back(draw: Draw) -> int:
    return draw.together.of(YEARS_BACK, "years")


def _moved(month: tuple[int, int], draw: Draw) -> tuple[int, int]:
    """Another month of another year, as far away as every other month of the conversation."""
    return _stepped(month, 1 + draw.together.below(11, "months") - 12 * _years_back(draw))


def _month(value: str, draw: Draw) -> Cover | None:
    match = re.fullmatch(r"([A-Za-z]{3,9})(\.?,?\s+)(\d{4})", value)
    if match:
        names = _names(match[1])
        if names is None:
            return None
        month, year = _index(match[1]), int(match[3])
    else:
        match = re.fullmatch(r"(\d{4})(-)(\d{2})", value)
        if match is None or not 1 <= int(match[3]) <= 12:
            return None
        names, month, year = None, int(match[3]), int(match[1])
    here = (year, month)
    there = other_year, other_month = _moved(here, draw)
    if other_year <= EARLIEST:
        return None
    if names:
        shown = f"{_cased(names[other_month - 1], match[1])}{match[2]}{other_year}"
    else:
        shown = f"{other_year}-{other_month:02}"
    aliases = {shown: value, _iso_month(there): _iso_month(here)}
    aliases[f"{_iso_month(there)}-{_days(there):02}"] = f"{_iso_month(here)}-{_days(here):02}"
    for step in (-1, 1):
        near, other = _stepped(here, step), _stepped(there, step)
        aliases[f"{_iso_month(other)}-01"] = f"{_iso_month(near)}-01"
        aliases[f"{_iso_month(other)}-{_days(other):02}"] = f"{_iso_month(near)}-{_days(near):02}"
    return Cover(shown, aliases)


_DAY_FORMS = (
    re.compile(r"(?P<y>\d{4})(?P<s>[-/])(?P<m>\d{1,2})(?P=s)(?P<d>\d{1,2})"),
    re.compile(r"(?P<m>\d{1,2})(?P<s>[/])(?P<d>\d{1,2})(?P=s)(?P<y>\d{4})"),
    re.compile(r"(?P<d>\d{1,2})(?P<s>[.])(?P<m>\d{1,2})(?P=s)(?P<y>\d{4})"),
)
_DAY_WORDS = (
    re.compile(
        r"(?P<n>[A-Za-z]{3,9})(?P<a>\.? )(?P<d>\d{1,2})(?P<o>st|nd|rd|th)?(?P<b>,? )(?P<y>\d{4})"
    ),
    re.compile(
        r"(?P<d>\d{1,2})(?P<o>st|nd|rd|th)?(?P<a> (?:of )?)"
        r"(?P<n>[A-Za-z]{3,9})(?P<b>\.?,? )(?P<y>\d{4})"
    ),
)


def _day(value: str, draw: Draw) -> Cover | None:
    for form in _DAY_FORMS + _DAY_WORDS:
        match = form.fullmatch(value)
        if match:
            break
    else:
        return None
    parts = match.groupdict()
    try:
        month = int(parts["m"]) if "m" in parts else _index(parts["n"])
        day = datetime.date(int(parts["y"]), month, int(parts["d"]))
        other = _other_day(day, draw)
    except (ValueError, OverflowError):
        return None
    if other.year <= EARLIEST:
        return None
    if "n" in parts:
        names = _names(parts["n"])
        if names is None:
            return None
        ends = parts["o"] and _ordinal(other.day)
        name = _cased(names[other.month - 1], parts["n"])
        number = f"{other.day}{ends or ''}"
        first = match.start("n") < match.start("d")
        shown = (
            f"{name}{parts['a']}{number}{parts['b']}{other.year}"
            if first
            else f"{number}{parts['a']}{name}{parts['b']}{other.year}"
        )
    else:
        width = [len(parts[k]) > 1 for k in "md"]
        month_text, day_text = (
            f"{n:02}" if wide else str(n)
            for n, wide in zip((other.month, other.day), width, strict=True)
        )
        order = sorted("ymd", key=match.start)
        texts = {"y": str(other.year), "m": month_text, "d": day_text}
        shown = parts["s"].join(texts[k] for k in order)
    aliases = {shown: value}
    for step in (0, -1, 1):
        by = datetime.timedelta(step)
        for form_ in ("%Y-%m-%d", "%Y%m%d"):
            aliases.setdefault((other + by).strftime(form_), (day + by).strftime(form_))
    return Cover(shown, aliases)


def _other_day(day: datetime.date, draw: Draw) -> datetime.date:
    """Another day, as far away as every other day of the conversation: a range keeps its length.

    Raises:
        OverflowError: it would be before the year 1.
    """
    return day - datetime.timedelta(365 * YEARS_BACK[0] + draw.together.below(_DAYS_BACK, "days"))


def _day_of_year(value: str, draw: Draw) -> Cover | None:
    """'Jan 1st' through a day of a leap year, so that every month and day is one."""
    full = _day(f"{value}, 2024", draw) or _day(f"{value} 2024", draw)
    if full is None:
        return None
    year = re.search(r",? \d{4}$", full.shown)
    assert year is not None
    shown = full.shown[: year.start()]
    aliases = {shown: value}
    for there, here in full.aliases.items():
        if re.fullmatch(r"\d{4}-\d\d-\d\d", there):
            aliases[there[5:]] = here[5:]
            break
    return Cover(shown, aliases)


def _names(name: str) -> list[str] | None:
    """The list of month names that `name` is from: long or short; None when from neither."""
    folded = name.casefold()
    if folded == "sept":
        return SHORT_MONTHS
    for names in (MONTHS, SHORT_MONTHS):
        if folded in (n.casefold() for n in names):
            return names
    return None


def _index(name: str) -> int:
    for i, month in enumerate(SHORT_MONTHS, 1):
        if name.casefold().startswith(month.casefold()):
            return i
    raise ValueError("not a month")


def _cased(name: str, like: str) -> str:
    if like.islower():
        return name.lower()
    return name.upper() if like.isupper() else name


def _ordinal(day: int) -> str:
    return "th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def _days(month: tuple[int, int]) -> int:
    return calendar.monthrange(*month)[1]


def _stepped(month: tuple[int, int], step: int) -> tuple[int, int]:
    count = month[0] * 12 + month[1] - 1 + step
    return count // 12, count % 12 + 1


def _iso_month(month: tuple[int, int]) -> str:
    return f"{month[0]:04}-{month[1]:02}"
