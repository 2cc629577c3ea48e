"""Numbers of people and companies in eight countries, with the check digits that their issuers use.

The rules are written out here, apart from the library that the detection reads them with, so that one
can contradict the other.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

Draw = Callable[[random.Random], str]
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CONSONANTS = "BCDFGHJKLMNPRSTVWXYZ"


def _form(*forms: str) -> Draw:
    """One of `forms`, each `#` a digit, `@` a letter and `~` a consonant."""

    def draw(rng: random.Random) -> str:
        return re.sub(
            "[#@~]",
            lambda m: rng.choice({"#": "0123456789", "@": _LETTERS, "~": _CONSONANTS}[m[0]]),
            rng.choice(forms),
        )

    return draw


def _digits(rng: random.Random, count: int) -> str:
    return _form("#" * count)(rng)


def _weighted(digits: str, weights: Sequence[int]) -> int:
    return sum(int(d) * w for d, w in zip(digits, weights, strict=True))


def _grouped(text: str, *sizes: int, by: str = " ") -> str:
    found, at = [], 0
    for size in sizes:
        found.append(text[at : at + size])
        at += size
    return by.join(found)


def _letters_as_digits(text: str) -> str:
    return "".join(str(int(c, 36)) for c in text)


def _iban(country: str, shape: str) -> Draw:
    def draw(rng: random.Random) -> str:
        account = _form(shape)(rng)
        check = 98 - int(_letters_as_digits(account + country + "00")) % 97
        whole = f"{country}{check:02}{account}"
        spaced = " ".join(whole[i : i + 4] for i in range(0, len(whole), 4))
        return rng.choice((whole, spaced, spaced))

    return draw


def luhn(digits: str) -> str:
    doubled = [int(d) * (2 - i % 2) for i, d in enumerate(reversed(digits))]
    return digits + str(-sum(n - 9 * (n > 9) for n in doubled) % 10)


# ── Germany ──


def _tax_de(rng: random.Random) -> str:
    """Eleven digits, of which one stands twice among the first ten (ISO 7064 mod 11, 10)."""
    nine = rng.sample("0123456789", 9)
    while nine[0] == "0":
        rng.shuffle(nine)
    ten = "".join(nine)
    place = rng.randint(2, 9)
    ten = ten[:place] + ten[0] + ten[place:]
    product = 10
    for digit in ten:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    whole = ten + str((11 - product) % 10)
    return rng.choice((whole, _grouped(whole, 2, 3, 3, 3)))


def _pension_de(rng: random.Random) -> str:
    """Area, date of birth, letter of the name, serial number, check digit."""
    body = f"{rng.randint(2, 89):02}{rng.randint(1, 28):02}{rng.randint(1, 12):02}{_digits(rng, 2)}"
    letter = rng.choice(_LETTERS)
    serial = f"{rng.randint(0, 99):02}"
    digits = f"{body}{_LETTERS.index(letter) + 1:02}{serial}"
    total = sum(
        sum(divmod(int(d) * w, 10))
        for d, w in zip(digits, (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1), strict=True)
    )
    whole = f"{body}{letter}{serial}{total % 10}"
    return rng.choice((whole, _grouped(whole, 2, 6, 1, 3)))


def _health_de(rng: random.Random) -> str:
    letter, digits = rng.choice(_LETTERS), _digits(rng, 8)
    row = f"{_LETTERS.index(letter) + 1:02}{digits}"
    total = sum(sum(divmod(int(d) * (1 + i % 2), 10)) for i, d in enumerate(row))
    return f"{letter}{digits}{total % 10}"


def _document_de(rng: random.Random) -> str:
    """Nine signs without vowels, and their check digit."""
    body = rng.choice("LMNPRTVWXYZCFGHJK") + _form("~#~##~##")(rng)
    values = [int(c, 36) for c in body]
    return body + str(sum(v * (7, 3, 1)[i % 3] for i, v in enumerate(values)) % 10)


# ── France ──


def _social_fr(rng: random.Random) -> str:
    """Sex, year, month, department, commune, serial number, key (97 − number mod 97)."""
    body = (
        f"{rng.choice('12')}{_digits(rng, 2)}{rng.randint(1, 12):02}{rng.randint(1, 95):02}"
        f"{rng.randint(1, 989):03}{rng.randint(1, 999):03}"
    )
    whole = f"{body}{97 - int(body) % 97:02}"
    return rng.choice((whole, _grouped(whole, 1, 2, 2, 2, 3, 3, 2)))


def _tax_fr(rng: random.Random) -> str:
    body = rng.choice("0123") + _digits(rng, 9)
    whole = f"{body}{int(body) % 511:03}"
    return rng.choice((whole, _grouped(whole, 2, 2, 3, 3, 3)))


def _siren(rng: random.Random) -> str:
    return _grouped(luhn(rng.choice("3456789") + _digits(rng, 7)), 3, 3, 3)


def _company_fr(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return _siren(rng)
    siren = _siren(rng).replace(" ", "")
    return _grouped(luhn(siren + f"{rng.randint(1, 99):04}"), 3, 3, 3, 5)


# ── Spain ──

_NIF = "TRWAGMYFPDXBNJZSQVHLCKE"


def _nif_es(rng: random.Random) -> str:
    if rng.random() < 0.25:
        first, digits = rng.choice("XYZ"), _digits(rng, 7)
        number = int(str("XYZ".index(first)) + digits)
        return rng.choice(("{}{}{}", "{}-{}-{}")).format(first, digits, _NIF[number % 23])
    digits = f"{rng.randint(1, 99_999_999):08}"
    letter = _NIF[int(digits) % 23]
    spoken = f"{digits[:2]}.{digits[2:5]}.{digits[5:]}-{letter}"
    return rng.choice((digits + letter, f"{digits}-{letter}", spoken))


def _social_es(rng: random.Random) -> str:
    body = f"{rng.randint(1, 52):02}{rng.randint(10_000_000, 99_999_999)}"
    whole = f"{body}{int(body) % 97:02}"
    return rng.choice((whole, _grouped(whole, 2, 8, 2), _grouped(whole, 2, 8, 2, by="/")))


def _company_es(rng: random.Random) -> str:
    digits = _digits(rng, 7)
    total = sum(int(d) for d in digits[1::2])
    total += sum(sum(divmod(int(d) * 2, 10)) for d in digits[::2])
    return f"{rng.choice('AB')}{digits}{-total % 10}"


# ── Italy ──

_ODD = [
    1,
    0,
    5,
    7,
    9,
    13,
    15,
    17,
    19,
    21,
    2,
    4,
    18,
    20,
    11,
    3,
    6,
    8,
    12,
    14,
    16,
    10,
    22,
    25,
    24,
    23,
]
"""What a sign in an odd place counts: a digit, or a letter by its place in the alphabet."""


def _tax_it(rng: random.Random) -> str:
    day = rng.randint(1, 28) + 40 * (rng.random() < 0.5)
    body = (
        _form("~~~~~~##")(rng)
        + rng.choice("ABCDEHLMPRST")
        + f"{day:02}{rng.choice('ABCDEFGHILM')}{rng.randint(1, 999):03}"
    )
    values = [int(c) if c.isdigit() else _LETTERS.index(c) for c in body]
    total = sum(v if i % 2 else _ODD[v] for i, v in enumerate(values))
    whole = body + _LETTERS[total % 26]
    return rng.choice((whole, whole, _grouped(whole, 3, 3, 5, 5)))


def _vat_it(rng: random.Random) -> str:
    return luhn(f"0{_digits(rng, 6)}{rng.randint(1, 100):03}")


# ── Poland ──


def _pesel(rng: random.Random) -> str:
    month = rng.randint(1, 12) + 20 * (rng.random() < 0.2)
    body = f"{_digits(rng, 2)}{month:02}{rng.randint(1, 28):02}{_digits(rng, 4)}"
    return body + str(-_weighted(body, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10)


def _nip(rng: random.Random) -> str:
    while True:
        body = f"{rng.randint(1, 9)}{rng.randint(1, 9)}{rng.randint(1, 9)}{_digits(rng, 6)}"
        check = _weighted(body, (6, 5, 7, 2, 3, 4, 5, 6, 7)) % 11
        if check < 10:
            whole = f"{body}{check}"
            return rng.choice((whole, _grouped(whole, 3, 3, 2, 2, by="-")))


def _regon(rng: random.Random) -> str:
    body = _digits(rng, 8)
    return body + str(_weighted(body, (8, 9, 2, 3, 4, 5, 6, 7)) % 11 % 10)


def _card_pl(rng: random.Random) -> str:
    letters, digits = _form("@@@")(rng), _digits(rng, 5)
    values = [int(c, 36) for c in letters + digits]
    total = sum(v * w for v, w in zip(values, (7, 3, 1, 7, 3, 1, 7, 3), strict=True))
    whole = f"{letters}{total % 10 * 9 % 10}{digits}"
    return rng.choice((whole, f"{letters} {whole[3:]}"))


# ── the Netherlands ──


def _bsn(rng: random.Random) -> str:
    while True:
        body = f"{rng.randint(10_000_000, 99_999_999)}"
        check = _weighted(body, (9, 8, 7, 6, 5, 4, 3, 2)) % 11
        if check < 10:
            whole = f"{body}{check}"
            return rng.choice((whole, whole, _grouped(whole, 4, 2, 3, by=".")))


# ── Portugal ──


def _nif_pt(first: str) -> Draw:
    def draw(rng: random.Random) -> str:
        body = rng.choice(first) + _digits(rng, 7)
        check = -_weighted(body, (9, 8, 7, 6, 5, 4, 3, 2)) % 11
        whole = body + str(check if check < 10 else 0)
        return rng.choice((whole, _grouped(whole, 3, 3, 3)))

    return draw


def _niss(rng: random.Random) -> str:
    body = rng.choice("12") + _digits(rng, 9)
    return body + str(9 - _weighted(body, (29, 23, 19, 17, 13, 11, 7, 5, 3, 2)) % 10)


def _citizen_pt(rng: random.Random) -> str:
    """Number, its check digit, two letters and the check digit of it all."""
    number = _digits(rng, 8)
    total = _weighted(number, (9, 8, 7, 6, 5, 4, 3, 2))
    first = -total % 11 % 10
    body = f"{number}{first}{_form('@@')(rng)}"
    values = [int(c, 36) for c in body]
    total = sum(v if i % 2 else v * 2 - 9 * (v * 2 > 9) for i, v in enumerate(reversed(values)))
    whole = body + str(-total % 10)
    return rng.choice((whole, f"{whole[:8]} {whole[8]} {whole[9:]}"))


# ── the United Kingdom ──


def _nhs(rng: random.Random) -> str:
    while True:
        body = rng.choice("467") + _digits(rng, 8)
        check = -_weighted(body, (10, 9, 8, 7, 6, 5, 4, 3, 2)) % 11
        if check < 10:
            return rng.choice((f"{body}{check}", _grouped(f"{body}{check}", 3, 3, 4)))


_NUMBERS: Mapping[str, Mapping[str, Draw]] = {
    "de": {
        "phone": _form("030 4#######", "0171/2######", "+49 89 3######", "0049 40 3#####"),
        "zip": _form("1####", "3####", "8####"),
        "iban": _iban("DE", "#" * 18),
        "tax": _tax_de,
        "social": _pension_de,
        "idcard": _document_de,
        "passport": _form("C~#~##~#~", "C0#~##~#~"),
        "plate": _form("B-@@ ###", "HH-@ ####", "KA @@ ##", "M-@@ 4#E"),
        "health": _health_de,
        "licence": _form("B0##~~#6#3#", "J#10##~##51"),
        "company": _form("HRB 1####", "HRA #6##", "DE2########"),
    },
    "fr": {
        "phone": _form("01 4# ## ## ##", "06.1#.##.##.##", "+33 6 5# ## ## ##", "07########"),
        "zip": _form("1####", "3##0#", "7#00#"),
        "iban": _iban("FR", "#" * 10 + "@###@######" + "##"),
        "tax": _tax_fr,
        "social": _social_fr,
        "idcard": _form("##########3#", "@#~#~#@#~"),
        "passport": _form("1#@@#####", "##@@#####"),
        "plate": _form("@@-###-@@", "@@ ### @@", "### @@@ 75"),
        "health": _social_fr,
        "licence": _form("1#0######2##", "9#0#########"),
        "company": _company_fr,
    },
    "es": {
        "phone": _form("91 5## ## ##", "6## ### ###", "+34 6########", "9## ## ## ##"),
        "zip": _form("08###", "28###", "41###"),
        "iban": _iban("ES", "#" * 20),
        "tax": _nif_es,
        "social": _social_es,
        "idcard": _nif_es,
        "passport": _form("@@@######", "@@######"),
        "plate": _form("####~~~", "#### ~~~", "M-####-~~"),
        "health": _form("BBBB~~~~######", "CYL#########", "AN##########"),
        "licence": _nif_es,
        "company": _company_es,
    },
    "it": {
        "phone": _form("06 5######", "347 #######", "+39 02 4######", "0039 333 #######"),
        "zip": _form("00###", "20###", "80###"),
        "iban": _iban("IT", "@" + "#" * 10 + "#" * 12),
        "tax": _tax_it,
        "social": _tax_it,
        "idcard": _form("CA#####@@", "A@ #######"),
        "passport": _form("YA#######", "YB#######"),
        "plate": _form("@@###@@", "@@ ### @@"),
        "health": _form("80380" + "#" * 15),
        "licence": _form("U1#@######@", "RM#######@"),
        "company": _vat_it,
    },
    "pl": {
        "phone": _form("5## ### ###", "+48 6## ### ###", "22 8## ## ##", "600-###-###"),
        "zip": _form("0#-###", "3#-###", "8#-###"),
        "iban": _iban("PL", "#" * 24),
        "tax": _nip,
        "social": _pesel,
        "idcard": _card_pl,
        "passport": _form("E@#######", "A@ #######"),
        "plate": _form("W@ #####", "KR #@###", "P@#####"),
        "health": _pesel,
        "licence": _form("0####/1#/1463", "#####/0#/3064"),
        "company": _regon,
    },
    "nl": {
        "phone": _form("06-########", "020 4## ## ##", "+31 6 ########", "0031 10 #######"),
        "zip": _form("1### @@", "3###@@", "9### @@"),
        "iban": _iban("NL", "@@@@" + "#" * 10),
        "tax": _bsn,
        "social": _bsn,
        "idcard": _form("I@@#####1", "S@#~~###4"),
        "passport": _form("N@@@###27", "B@#~~##64"),
        "plate": _form("~~-###-~", "#-~~~-##", "##-~~-~~"),
        "health": _bsn,
        "licence": _form("4#########", "5#########"),
        "company": _form("1#######", "3#######", "NL########9B01"),
    },
    "pt": {
        "phone": _form("21 3## ## ##", "91# ### ###", "+351 96# ### ###", "22#######"),
        "zip": _form("1###-###", "4###-###"),
        "iban": _iban("PT", "#" * 21),
        "tax": _nif_pt("12"),
        "social": _niss,
        "idcard": _citizen_pt,
        "passport": _form("@@######", "@######"),
        "plate": _form("@@-##-@@", "##-@@-##", "##-##-@@"),
        "health": _form("3########", "2## ### ###"),
        "licence": _form("L-#######", "AV-###### #", "PT-#######"),
        "company": _nif_pt("5"),
    },
    "en": {
        "phone": _form("020 7### ####", "07### ######", "+44 161 ### ####", "01225 ######"),
        "zip": _form("BS#1 #@@", "LS1# #@@", "EC#@ #@@"),
        "iban": _iban("GB", "@@@@" + "#" * 14),
        "tax": _form("##########"),
        "social": _form("AB ## ## ## C", "JK######D"),
        "idcard": _form("#########"),
        "passport": _form("5########", "1########"),
        "plate": _form("@@## @@@", "@###@@@"),
        "health": _nhs,
        "licence": _form("@@@@@6##1##@@9@@"),
        "company": _form("0#######", "GB#########"),
    },
}  # fmt: skip


def numbers(language: str) -> Mapping[str, Draw]:
    """What is drawn of each kind in a country where `language` is spoken. A digit at the end of a
    kind asks for another of it."""
    return _NUMBERS[language]
