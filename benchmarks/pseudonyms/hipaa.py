"""The 18 identifiers of HIPAA's Safe Harbor: how many of each leave.

    python benchmarks/pseudonyms/hipaa.py                 # the dev split
    python benchmarks/pseudonyms/hipaa.py --split test    # read once

45 CFR 164.514(b)(2)(i) lists what must be removed from a record so that it is no longer about somebody.
Of each that text can hold, 200 made-up values stand in sentences of clinicians and patients
(`safe_harbor.toml`) and go through the pseudonym defence, with the plan's defaults and with
`dates = true`. Counted are values of which at least one letter or digit would leave, and other words
that would be hidden. Biometric identifiers and full-face photographs, (P) and (Q), are no text: nothing
here finds them, and a message with an image in it is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from language_numbers import luhn
from language_texts import source

from cosilo.boundary.messages import Ask
from cosilo.defences.hiding import Hiding
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.objectives.intervals import wilson
from cosilo.types import user
from kept import Kept

EACH = 200
LETTERS = {
    "names": "A", "geographic": "B", "dates": "C", "ages over 89": "C", "telephone": "D", "fax": "E",
    "e-mail": "F", "social security": "G", "medical record": "H", "health plan": "I", "account": "J",
    "certificate or licence": "K", "vehicle": "L", "device": "M", "URL": "N", "IP address": "O",
    "other unique": "R",
}  # fmt: skip
"""Which letter of the list each is."""

MONTHS = "January February March April May June July August September October November December"
STATES = ("OH", "TX", "PA", "WI", "GA", "OR", "MN", "NC", "VT", "KS")
Draw = Callable[[random.Random, str], str]


def form(*forms: str) -> Draw:
    """One of `forms`, each `#` a digit and `@` a letter."""

    def draw(rng: random.Random, split: str) -> str:
        letters = {"#": "0123456789", "@": "ABCDEFGHJKLMNPRSTUVWXYZ"}
        return re.sub("[#@]", lambda m: rng.choice(letters[m[0]]), rng.choice(forms))

    return draw


def name(rng: random.Random, split: str) -> str:
    of = source("en", split)
    return f"{rng.choice(of.given_f + of.given_m)} {rng.choice(of.family)}"


def place(rng: random.Random, split: str, sentence: str) -> str:
    """What the sentence asks for: a ZIP code, a town, or an address."""
    of = source("en", split)
    code = f"{rng.randint(10001, 99901)}"
    if "zip" in sentence.lower():
        return rng.choice((code, f"{code}-{rng.randint(1000, 9999)}"))
    town = rng.choice(of.towns)
    if re.search(r"(?:in|from|near) \{value\}", sentence) and "picked" not in sentence:
        return rng.choice((town, f"{town}, {rng.choice(STATES)}", f"{town} County"))
    street = f"{rng.randint(1, 9999)} {rng.choice(of.streets)}"
    street += rng.choice(("", "", f", Apt {rng.randint(1, 30)}"))
    return rng.choice(
        (street, f"{street}, {town}, {rng.choice(STATES)} {code}", f"{street}, {town}")
    )


def date(rng: random.Random, split: str) -> str:
    year, month, day = rng.randint(1935, 2025), rng.randint(1, 12), rng.randint(1, 28)
    word = MONTHS.split()[month - 1]
    return rng.choice(
        (
            f"{month:02}/{day:02}/{year}", f"{month}/{day}/{year % 100:02}",
            f"{year}-{month:02}-{day:02}", f"{word} {day}, {year}",
            f"{day} {word[:3]} {year}", f"{word} {day}", f"{month}/{day}",
        )
    )  # fmt: skip


def email(rng: random.Random, split: str) -> str:
    first, last = name(rng, split).lower().split(" ", 1)
    return re.sub(r"[^a-z.@\d]", "", f"{first}.{last}{rng.randint(1, 99)}@mailbox.example")


def url(rng: random.Random, split: str) -> str:
    who = re.sub(r"[^a-z]", "", rng.choice(source("en", split).family).lower())
    return rng.choice(
        (
            f"https://{who}.example.org/diary",
            f"www.{who}-family.com",
            f"http://carepages.example/{who}/{rng.randint(1, 999)}",
        )
    )


def vin(rng: random.Random, split: str) -> str:
    """17 signs, of which the ninth is their check digit (49 CFR 565.15)."""
    signs = "0123456789ABCDEFGHJKLMNPRSTUVWXYZ"
    drawn = [rng.choice(signs) for _ in range(17)]
    values = dict(
        zip(signs, [*range(10), *range(1, 9), 1, 2, 3, 4, 5, 7, 9, *range(2, 10)], strict=True)
    )
    weights = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
    check = sum(values[s] * w for s, w in zip(drawn, weights, strict=True)) % 11
    drawn[8] = "X" if check == 10 else str(check)
    return "".join(drawn)


def vehicle(rng: random.Random, split: str, sentence: str) -> str:
    if "VIN" in sentence or "Vehicle" in sentence:
        return vin(rng, split)
    return form("@@@ ####", "@@@-####", "#@@@###", "@@## @@@")(rng, split)


def licence(rng: random.Random, split: str, sentence: str) -> str:
    if "NPI" in sentence:  # with its check digit, over the prefix 80840
        return luhn("808401" + form("########")(rng, split))[5:]
    if "DEA" in sentence:
        digits = form("######")(rng, split)
        odd, even = (sum(map(int, digits[i::2])) for i in (0, 1))
        return f"{form('@@')(rng, split)}{digits}{(odd + 2 * even) % 10}"
    if "certificate" in sentence:
        return form("1##-##-######", "########")(rng, split)
    return form("@#######", "########", "@###-####-####", "MD######")(rng, split)


SIMPLE: dict[str, Draw] = {
    "names": name,
    "dates": date,
    "ages over 89": lambda rng, split: str(rng.randint(90, 106)),
    "telephone": form(
        "(###) 555-####", "###-555-####", "###.555.####", "+1 ### 555 ####", "1-###-555-####"
    ),
    "fax": form("(###) 555-####", "###-555-####", "###.555.####"),
    "e-mail": email,
    "social security": form("###-##-####", "### ## ####", "#########"),
    "medical record": form("#######", "MR######", "##-##-##", "M########", "A#####", "######"),
    "health plan": form("1@@#-@#@-@@##", "@@@#########", "#########A", "W#########", "@@#######-##"),
    "account": form("##########", "####-######", "AC-#######", "######"),
    "device": form("SN######", "@@######@", "##########", "@#####-##", "G###@####"),
    "URL": url,
    "IP address": lambda rng, split: ".".join(str(rng.randint(11, 250)) for _ in range(4)),
    "other unique": form("S##-#####", "@@-####-###", "########", "ST####-##", "@########"),
}  # fmt: skip
BY_SENTENCE: dict[str, Callable[[random.Random, str, str], str]] = {
    "geographic": place, "vehicle": vehicle, "certificate or licence": licence,
}  # fmt: skip


def sentences(kind: str, split: str, seed: int) -> list[tuple[str, int, int]]:
    """`EACH` texts, and where the identifier of `kind` stands in each."""
    data = tomllib.loads((Path(__file__).parent / "safe_harbor.toml").read_text("utf-8"))
    some = data[kind][split].strip().splitlines()
    made = []
    for i in range(EACH):
        rng = random.Random(f"{kind} {split} {seed} {i}")
        sentence = some[i % len(some)]
        if kind in BY_SENTENCE:
            value = BY_SENTENCE[kind](rng, split, sentence)
        else:
            value = SIMPLE[kind](rng, split)
        sentence = sentence.replace("{group}", "04").replace("{model}", "Evera")
        start = sentence.index("{value}")
        made.append((sentence.replace("{value}", value), start, start + len(value)))
    return made


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--split", default="dev", choices=["dev", "test"])
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--show", action="store_true", help="print what left")
    options = arguments.parse_args()
    kept = Kept(f"hipaa_{options.split}", seed=options.seed, settings={"of each": EACH})
    with tempfile.TemporaryDirectory() as folder:
        for dates in (False, True):
            hiding = Pseudonym(key_file=Path(folder, "key"), dates=dates).hiding
            assert isinstance(hiding, Hiding)
            column = "left in part, dates = true" if dates else "left in part"
            words = Counter[str]()
            print(f"\n{column}")
            for kind, letter in LETTERS.items():
                left = 0
                for text, start, end in sentences(kind, options.split, options.seed):
                    (spans,) = asyncio.run(hiding.spans(Ask(chat=user(text))))
                    covered = {i for s in spans for i in range(s.start, s.end)}
                    gone = [i for i in range(start, end) if text[i].isalnum() and i not in covered]
                    left += bool(gone)
                    if gone and options.show:
                        print(f"  {kind}: {text[start:end]!r} in {text!r}")
                    for word in re.finditer(r"[^\W_]+", text):
                        if word.end() <= start or word.start() >= end:
                            words["all"] += 1
                            words["hidden"] += not covered.isdisjoint(range(*word.span()))
                low, high = wilson(left, EACH)
                print(
                    f"  ({letter}) {kind:24} {left:4}/{EACH} {left / EACH:6.1%} [{low:.1%}, {high:.1%}]"
                )
                kept.put(f"({letter}) {kind}", column, left / EACH, n=EACH, low=low, high=high)
            share = words["hidden"] / words["all"]
            low, high = wilson(words["hidden"], words["all"])
            print(f"  other words hidden {share:.1%} of {words['all']} [{low:.1%}, {high:.1%}]")
            kept.put("other words", column, share, n=words["all"], low=low, high=high)
    kept.write()


if __name__ == "__main__":
    main()
