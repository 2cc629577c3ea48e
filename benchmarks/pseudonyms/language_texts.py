"""Texts in eight languages, in which every private value is marked.

    texts("de", "test", 400)      # 400 e-mails, letters, forms, notes, chats, contracts and lists
    held_out_words()              # the words of all their names, which no training text may hold

The templates and what they are filled with were written by hand, one file a language in `languages/`,
before any detection was changed for them. `dev` and `test` share no template, name, street or town.

In a template `{f.name}` is a woman's full name, `{m.given}` a man's given name, `{p.family}` anybody's
family name; a digit tells people apart (`{m2.name}`), and a last part declines the name where the
language does (`{f.name.gen}`). `{street}`, `{town}`, `{iban}` and the like are values of their kinds;
a digit asks for another. `<Montag>` is a word that is nobody's secret and looks like a name, or
is one of a company, an authority, a month or a product. A template that begins with `~` is written in
small letters.
"""

from __future__ import annotations

import random
import re
import tomllib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from language_numbers import numbers
from polish import declined

FOLDER = Path(__file__).resolve().parent / "languages"
LANGUAGES = ("de", "fr", "es", "it", "pl", "nl", "pt", "en")
SPLITS = ("dev", "test")
Split = Literal["dev", "test"]
Span = tuple[int, int, str, str]
"""Where it begins and ends, its kind, its text."""

MONTHS = {
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre "
    "dicembre",
    "pl": "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października "
    "listopada grudnia",
    "nl": "januari februari maart april mei juni juli augustus september oktober november december",
    "pt": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    "en": "January February March April May June July August September October November December",
}
_DATES = {
    "de": ("{d:02}.{m:02}.{y}", "{d}.{m}.{y}"),
    "fr": ("{d:02}/{m:02}/{y}", "{d:02}.{m:02}.{y}"),
    "es": ("{d:02}/{m:02}/{y}", "{d}-{m}-{y}"),
    "it": ("{d:02}/{m:02}/{y}", "{d}.{m}.{y}"),
    "pl": ("{d:02}.{m:02}.{y}", "{y}-{m:02}-{d:02}"),
    "nl": ("{d:02}-{m:02}-{y}", "{d}-{m}-{y}"),
    "pt": ("{d:02}/{m:02}/{y}", "{d:02}-{m:02}-{y}"),
    "en": ("{d:02}/{m:02}/{y}", "{d}.{m}.{y}"),
}
_DAYS = {"de": "{d}. {month} {y}", "es": "{d} de {month} de {y}", "pt": "{d} de {month} de {y}"}
_STREETS = {
    "de": ("{s} {n}", "{s} {n}a"),
    "fr": ("{n}, {s}", "{n} {s}", "{n} bis, {s}"),
    "es": ("{s}, {n}", "{s} {n}, {f}.º {a}"),
    "it": ("{s} {n}", "{s}, {n}/{a}"),
    "pl": ("{s} {n}", "{s} {n}/{f}"),
    "nl": ("{s} {n}", "{s} {n}-{f}"),
    "pt": ("{s}, {n}", "{s}, n.º {n}, {f}.º Esq."),
    "en": ("{n} {s}", "{n}{a} {s}"),
}
_KINDS = {
    "street": "address", "town": "town", "zip": "postal code", "phone": "phone", "iban": "IBAN",
    "dob": "date of birth", "org": "employer", "tax": "tax number", "social": "social security",
    "idcard": "identity card", "passport": "passport", "plate": "plate", "health": "health number",
    "licence": "driving licence", "company": "company number",
}  # fmt: skip


def _of(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that many names share: none of them tells who or where.
_PARTICLES = _of("""
von van der den de la le las los du da do das dos di del dell della delle dal dei dem zu zur am im
in t ten ter op uit und d des ob aan
maria maría marie jean anna anne ana josé joão juan jan gian pier nueva st pham van
""")
_COMMON = _of("""
straße allee weg gasse rue avenue place boulevard impasse allée chemin quai cours route passage
square sentier montée calle avenida avda av plaza paseo ronda camino travesía via corso piazza viale
vicolo largo contrada strada salita ul al pl os laan plein straat rua travessa praça estrada calçada
alameda quinta urbanização bairro beco carretera cuesta glorieta callejón pasaje the street road
lane drive court close way hill row terrace grove crescent alte alter neue bad san santa saint
sankt sint obere lange grüner hinter unter zum bei an auf of on bank view old north lower town
""")
_MARK = re.compile(r"\{([a-z]+)(\d?)(?:\.([a-z]+))?(?:\.([a-z]+))?\}|<([^<>]+)>")


@dataclass(frozen=True)
class Marked:
    """A text, its private values, and words of it that are nobody's secret but look like one."""

    text: str
    spans: list[Span]
    public: list[tuple[int, int]]
    lower: bool


@dataclass(frozen=True)
class _Source:
    given_f: list[str]
    given_m: list[str]
    family: list[str]
    streets: list[str]
    towns: list[str]
    orgs: list[str]
    templates: list[str]


@lru_cache(maxsize=32)
def source(language: str, split: str) -> _Source:
    """What the texts of a language are made of."""
    read = tomllib.loads((FOLDER / f"{language}.toml").read_text("utf-8"))[split]
    templates = [t.strip("\n") for t in read.pop("templates").split("\n---\n")]
    return _Source(**{k: v.split(", ") for k, v in read.items()}, templates=templates)


def texts(language: str, split: Split, count: int = 400, seed: int = 0) -> list[Marked]:
    """`count` texts, each template as often as any other."""
    made_of = source(language, split)
    some = made_of.templates
    return [
        _Filling(language, made_of, random.Random(f"{language} {split} {seed} {i}")).fill(
            some[i % len(some)]
        )
        for i in range(count)
    ]


def held_out_words(splits: tuple[str, ...] = SPLITS) -> frozenset[str]:
    """The words of all names, streets and towns of `splits`, case folded, of every language.

    Words that many names share ('von', 'rue', 'Bad') are not among them.
    """
    found: set[str] = set()
    for split in splits:
        for language in LANGUAGES:
            made_of = source(language, split)
            lists = (
                made_of.given_f,
                made_of.given_m,
                made_of.family,
                made_of.streets,
                made_of.towns,
            )
            found.update(w for some in lists for entry in some for w in words(entry))
    return frozenset(found)


def words(entry: str) -> list[str]:
    """The words of a name that are its own, case folded."""
    return [
        w
        for w in re.findall(r"[^\W\d_]+", entry.casefold())
        if len(w) > 1 and w not in _PARTICLES and w not in _COMMON
    ]


@dataclass
class _Filling:
    """Fills one template; what it asked for once stays the same to its end."""

    language: str
    source: _Source
    rng: random.Random
    _values: dict[str, str] = field(default_factory=dict)
    _people: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def fill(self, template: str) -> Marked:
        lower = template.startswith("~")
        template = template.removeprefix("~")
        out, at = "", 0
        spans: list[Span] = []
        public: list[tuple[int, int]] = []
        for mark in _MARK.finditer(template):
            out += template[at : mark.start()]
            at = mark.end()
            if mark[5]:
                public.append((len(out), len(out) + len(mark[5])))
                out += mark[5]
                continue
            value, kind = self._value(mark[1], mark[2], mark[3] or "", mark[4] or "")
            value = value.lower() if lower else value
            end = len(value) - (2 if self.language == "en" and mark[4] == "gen" else 0)
            spans.append((len(out), len(out) + end, kind, value[:end]))
            out += value
        out += template[at:]
        if lower:
            assert len(out.lower()) == len(out)
            out = out.lower()
        return Marked(out, spans, public, lower)

    def _value(self, what: str, number: str, part: str, case: str) -> tuple[str, str]:
        if what in ("f", "m", "p"):
            return self._of_person(what + number, part, case)
        key = what + number + part
        if key not in self._values:
            while (value := self._drawn(what, part)) in self._values.values():
                pass
            self._values[key] = value
        return self._values[key], _KINDS[what]

    def _drawn(self, what: str, part: str) -> str:
        rng, of = self.rng, self.source
        if what == "street":
            form = rng.choice(_STREETS[self.language])
            return form.format(
                s=rng.choice(of.streets),
                n=rng.randint(1, 148),
                f=rng.randint(1, 9),
                a=rng.choice("ABC"),
            )
        if what == "town":
            return rng.choice(of.towns)
        if what == "org":
            return rng.choice(of.orgs)
        if what == "dob":
            day = dict(d=rng.randint(1, 28), m=rng.randint(1, 12), y=rng.randint(1931, 2012))
            if part == "words":
                month = MONTHS[self.language].split()[day["m"] - 1]
                return _DAYS.get(self.language, "{d} {month} {y}").format(month=month, **day)
            return rng.choice(_DATES[self.language]).format(**day)
        draw: Callable[[random.Random], str] = numbers(self.language)[what]
        return draw(rng)

    def _of_person(self, who: str, part: str, case: str) -> tuple[str, str]:
        if who not in self._people:
            gender = who[0] if who[0] != "p" else self.rng.choice("fm")
            given = self.source.given_f if gender == "f" else self.source.given_m
            names = [self.rng.choice(given), self.rng.choice(self.source.family)]
            if self.language == "pl" and gender == "f":
                names[1] = re.sub(r"(?<=[scz]k)i\b", "a", names[1])
            self._people[who] = (gender, names[0], names[1])
        gender, first, last = self._people[who]
        if part == "email":
            plain = unicodedata.normalize("NFKD", f"{first}.{last}".lower().translate(_PLAIN))
            plain = re.sub(r"[^a-z.]", "", plain)
            host = self.rng.choice(("postfach", "mailbox", "correo-web", "webmail"))
            return f"{plain}@{host}.{self.language}", "e-mail"
        chosen = {"name": (first, last), "given": (first,), "family": (last,)}[part]
        if self.language == "pl" and case:
            return " ".join(declined(n, case, gender) for n in chosen), "name"
        name = " ".join(chosen)
        return (_genitive(self.language, name) if case == "gen" else name), "name"


_PLAIN = str.maketrans({"ß": "ss", "ł": "l", "ø": "o", "ı": "i"})


def _genitive(language: str, name: str) -> str:
    if language == "en":
        return name + "'s"
    if name[-1] in "sxzß":
        return name + ("’" if language == "de" else "'")
    return name + ("'s" if language == "nl" and name[-1] in "aiouy" else "s")
