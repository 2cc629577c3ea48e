"""The demo: a small bank's service desk, its messages made up, with every private fact marked.

    write_demo(folder)    train, tune, validation, certificate and test as JSONL, and plan.toml

The messages are built from the sentences in `benchmark.desk`: an intent said plainly or hinted at,
sometimes something about another intent in passing, a greeting, a name, an account number, typing
errors. The owner has few labelled examples, so the small model is neither useless nor sufficient.
Nothing here is about anybody: names, accounts and addresses are drawn at random, with the check
digits that real ones have.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cosilo.benchmark import desk
from cosilo.errors import ConfigError
from cosilo.tasks.base import SPLITS, Split
from cosilo.tasks.splits import same_text

SIZES: Mapping[Split, int] = {
    "train": 130,
    "tune": 40,
    "validation": 40,
    "certificate": 40,
    "test": 50,
}
"""Small, so that the whole demo takes minutes on two cores."""

GOLD = 50
"""How many of the training messages somebody has labelled; the rest are a pool without labels."""


@dataclass(frozen=True)
class DemoSpan:
    """A private fact: text[start:end], of this kind."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class DemoMessage:
    id: str
    text: str
    label: str
    spans: tuple[DemoSpan, ...]


def messages(count: int, *, seed: int = 0) -> list[DemoMessage]:
    """`count` messages, no two with the same text, the intents in equal parts."""
    rng = random.Random(seed)
    labels = [label for _, label in zip(range(count), _round(tuple(desk.INTENTS)), strict=False)]
    rng.shuffle(labels)
    made: list[DemoMessage] = []
    seen: set[str] = set()
    for number, label in enumerate(labels):
        while True:
            text, spans = _message(label, rng)
            if same_text(text) not in seen:
                break
        seen.add(same_text(text))
        made.append(DemoMessage(f"m{number:04d}", text, label, spans))
    return made


def _round(values: tuple[str, ...]) -> Iterator[str]:
    while True:
        yield from values


Piece = tuple[str, str]
"""(kind of fact or "", text)."""


def _message(label: str, rng: random.Random) -> tuple[str, tuple[DemoSpan, ...]]:
    plain = rng.random() < 0.85
    said = desk.SENTENCES[label][: desk.PLAIN] if plain else desk.SENTENCES[label][desk.PLAIN :]
    sentences = [_pieces(rng.choice(said), rng)]
    if rng.random() < 0.1:
        other = rng.choice([name for name in desk.INTENTS if name != label])
        sentences.insert(rng.randrange(2), _pieces(rng.choice(desk.ASIDES[other]), rng))
    if rng.random() < 0.3:
        told = rng.choices(_TOLD, weights=(3, 1, 1))[0]
        sentences.append(_pieces(told, rng))
    if rng.random() < 0.3:
        sentences.insert(0, [("", rng.choice(desk.OPENERS))])
    name: list[Piece] = [("person", _person(rng))]
    if rng.random() < 0.7:
        sentences.append(
            [("", rng.choice(desk.CLOSERS) + ", "), *name] if rng.random() < 0.5 else name
        )
    sentences = [_typed(pieces, rng) for pieces in sentences]
    end = rng.choice((". ", ". ", "! ", "\n", " - "))
    pieces: list[Piece] = []
    for i, sentence in enumerate(sentences):
        pieces += [("", end), *sentence] if i else sentence
    return _spans(pieces)


def _spans(pieces: list[Piece]) -> tuple[str, tuple[DemoSpan, ...]]:
    text, spans = "", []
    for kind, value in pieces:
        if kind:
            spans.append(DemoSpan(len(text), len(text) + len(value), kind))
        text += value
    return text, tuple(spans)


def _pieces(template: str, rng: random.Random) -> list[Piece]:
    pieces: list[Piece] = []
    for part in re.split(r"(\{\w+\})", template):
        slot = part[1:-1] if part.startswith("{") else ""
        if slot in _FACTS:
            pieces.append((slot, _FACTS[slot](rng)))
        elif slot:
            pieces.append(("", rng.choice(_WORDS[slot])))
        elif part:
            pieces.append(("", part))
    return pieces


def _typed(pieces: list[Piece], rng: random.Random) -> list[Piece]:
    """As people type: sentences begin large, or nothing does; now and then two letters swap."""
    careless = rng.random() < 0.3
    done: list[Piece] = []
    for i, (kind, text) in enumerate(pieces):
        if not kind:
            if careless:
                text = _slip(text.lower(), rng)
            elif i == 0:
                text = text[:1].upper() + text[1:]
        done.append((kind, text))
    return done


def _slip(text: str, rng: random.Random) -> str:
    places = [m.start() for m in re.finditer(r"(?<=[a-z])[a-z](?=[a-z][a-z])", text)]
    if not places:
        return text
    at = rng.choice(places)
    swap = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return swap if rng.random() < 0.5 else text[:at] + text[at + 1 :]


def _person(rng: random.Random) -> str:
    return f"{rng.choice(desk.FIRST_NAMES)} {rng.choice(desk.LAST_NAMES)}"


def _account(rng: random.Random) -> str:
    """Seven digits and the Luhn check digit."""
    digits = f"{rng.randrange(1_000_000, 10_000_000)}"
    doubled = [int(d) * (2 - i % 2) for i, d in enumerate(reversed(digits))]
    return digits + str(-sum(d - 9 * (d > 9) for d in doubled) % 10)


def _iban(rng: random.Random) -> str:
    """A German IBAN with right check digits (ISO 13616: modulo 97 with letters as 10 … 35)."""
    basic = f"{rng.randrange(10**18):018d}"
    check = 98 - int(f"{basic}131400") % 97
    return f"DE{check:02d}{basic}"


def _phone(rng: random.Random) -> str:
    """A number of the range that is kept free for fiction: 555-0100 to 555-0199."""
    return f"{rng.randrange(201, 990)}-555-01{rng.randrange(100):02d}"


def _email(rng: random.Random) -> str:
    first, last = _person(rng).lower().split()
    return f"{first}.{last}@{rng.choice(('example.org', 'example.net', 'example.com'))}"


def _address(rng: random.Random) -> str:
    return f"{rng.randrange(1, 200)} {rng.choice(desk.STREETS)}, {rng.choice(desk.TOWNS)}"


def _amount(rng: random.Random) -> str:
    cents = rng.choice((0, 0, 50, 90, 99, rng.randrange(100)))
    whole = int(rng.choice((1, 3, 10, 30, 100)) * (1 + 9 * rng.random()))
    return f"{whole}.{cents:02d} euros" if cents else f"{whole} euros"


_FACTS = {
    "person": _person,
    "account": _account,
    "iban": _iban,
    "phone": _phone,
    "email": _email,
    "address": _address,
    "amount": _amount,
}
_TOLD = ("account {account}", "my account is {iban}", "my number is {phone}")
_WORDS = {
    "SHOP": desk.SHOPS,
    "PLACE": desk.PLACES,
    "WHEN": desk.TIMES,
    "DAY": desk.DAYS,
    "MONTH": desk.MONTHS,
}


def write_demo(
    folder: Path, *, seed: int = 0, sizes: Mapping[Split, int] = SIZES, tiny: bool = False
) -> Path:
    """Write the demo's data and its plan into `folder`, which is new, empty, or of an earlier demo.

    Args:
        sizes: messages per split.
        tiny: the plan takes SmolLM2 (135 million parameters) as the large model: fast, and bad.

    Returns:
        The plan's path.

    Raises:
        ConfigError: the folder holds what no demo made, or cannot be written; nothing was changed.
    """
    _claim(folder)
    made = iter(messages(sum(sizes.values()), seed=seed))
    for split in SPLITS:
        lines = [
            json.dumps(
                {
                    "id": message.id,
                    "text": message.text,
                    "label": message.label,
                    "secrets": [
                        {"start": span.start, "end": span.end, "type": span.kind}
                        for span in message.spans
                    ],
                },
                ensure_ascii=False,
            )
            for message in (next(made) for _ in range(sizes[split]))
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plan = folder / "plan.toml"
    plan.write_text(_plan(seed, tiny=tiny), encoding="utf-8")
    return plan


MARK = ".cosilo-demo"
"""The file that says of a folder that the demo made it."""


def _claim(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MARK).exists() and any(folder.iterdir()):
            raise ConfigError(
                f"{str(folder)!r} holds files that `cosilo demo` did not put there; name another "
                "folder with --dir"
            )
        (folder / MARK).write_text("`cosilo demo` writes over the files of this folder.\n")
    except OSError as error:
        raise ConfigError(
            f"the demo cannot be written to {str(folder)!r}: {error.strerror}; name another folder "
            "with --dir"
        ) from None


def _plan(seed: int, *, tiny: bool) -> str:
    large = "smollm2-135m-instruct" if tiny else "qwen2.5-coder-1.5b-instruct"
    descriptions = "\n".join(f"{label} = {json.dumps(d)}" for label, d in desk.INTENTS.items())
    return _PLAN.format(seed=seed, large=large, descriptions=descriptions, gold=GOLD)


_PLAN = """\
# What a bank's service desk could do with its messages: its own small model, somebody else's large
# one, or the two together. Run it with `cosilo bench plan.toml`.
name = "desk"
seed = {seed}

[task]
kind = "classification"
name = "service desk"
train = "train.jsonl"
tune = "tune.jsonl"
validation = "validation.jsonl"
certificate = "certificate.jsonl"
test = "test.jsonl"

[task.columns]
id = "id"
text = "text"
target = "label"
secrets = "secrets"

[task.options.descriptions]
{descriptions}

# The desk's own: a sentence encoder and a linear head, trained on the few messages with labels.
[models.small]
kind = "classifier"
train = true
train_items = {gold}

# The other side's. It runs on this machine, but every message to it crosses the boundary; the prices
# are what a hosted model of this size may cost.
[models.large]
kind = "llamacpp"
model = "{large}"
usd_per_m_in = 0.15
usd_per_m_out = 0.60

[defences.pseudonym]
system = "public"        # the list of labels is not private

[[points]]
strategy = "small"

[[points]]
strategy = "large"
defences = [[], ["pseudonym"]]

# The small model answers what it is sure of.
[[points]]
strategy = "cascade"
calls = [0.2, 0.4]
defences = [[], ["pseudonym"]]

# The large model labels the pool, the small one learns from it and then answers alone.
[[points]]
strategy = "distil_labels"
items = 30
gold = true
defences = ["pseudonym"]

# Others can stand beside these (`cosilo list strategies`), each with another hundred calls, such as
# "supericl", which tells the large model what the small one thinks.

[limits]
entity_leak = 0.5

[at_least]
utility = 0.6
"""
