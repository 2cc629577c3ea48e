"""What the pseudonym defence does to vectors: whether questions still find the notes they are about.

    python benchmarks/pseudonyms/vectors.py

120 made-up notes, two of each of 60 people, on 20 matters; a sentence encoder of our own makes the
vectors (`minilm-int8`), behind the defence with Presidio as a gateway has it. Two kinds of questions:
who and what (the note of that person on that matter counts, if it comes first) and what alone (any note
on that matter does). All notes are one request, and each question is another. Placeholders differ by
the key, so the shares are means over five keys; the intervals are for the questions of one.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cosilo.boundary.messages import Embed, Embeddings, Message
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.models.base import Array
from cosilo.models.encoder.encoder import Encoder
from cosilo.objectives.intervals import wilson
from kept import Kept

FIRST = (
    "Maud", "Ottilie", "Rupert", "Selma", "Casper", "Imogen", "Leopold", "Winifred", "Barnaby",
    "Henrike", "Anselm", "Cordula", "Piers", "Thea", "Ludovic", "Griselda", "Magnus", "Philippa",
)  # fmt: skip
LAST = (
    "Ottokar", "Lindqvist", "Harrowgate", "Pellworm", "Castellan", "Brightwater", "Vanterpool",
    "Ashdown", "Kirchweger", "Dunmore", "Fairclough", "Oberlin", "Stavros", "Mcavoy", "Quillfeather",
)  # fmt: skip
KEYS = 5
MATTERS = {  # what a note says, and what is asked about it
    "reported that the heating has failed again": "a broken heating",
    "wants the invoice of last month corrected": "a wrong invoice",
    "asks for a wheelchair at the airport": "help with walking at the airport",
    "cancelled the piano lessons": "ending music lessons",
    "has lost the key to the cellar": "a missing cellar key",
    "is allergic to walnuts and sesame": "an allergy to nuts",
    "ordered two hundred chairs for the hall": "an order of chairs",
    "complains about noise from the building site": "noise of construction",
    "sent back the shoes, which are too small": "shoes that do not fit",
    "would like to adopt an older dog": "taking in an old dog",
    "needs a new prescription for glasses": "an eye prescription",
    "moved the appointment with the dentist": "a changed dental appointment",
    "thanks for the flowers on the ward": "thanks for flowers",
    "found a mistake in the translation": "an error in a translated text",
    "asks when the water will be turned off": "an interruption of the water supply",
    "pays the rent late because of a new bank": "a delay in paying rent",
    "suggests a second lift for the school": "another elevator in a school",
    "cannot log in to the tax portal": "a failed login for taxes",
    "donated forty books to the library": "a gift of books",
    "wants vegetarian meals from Monday on": "meals without meat",
}


def records(rng: random.Random) -> list[tuple[str, str]]:
    """(name, matter) of each note."""
    names = [f"{first} {last}" for first in FIRST for last in LAST]
    people = rng.sample(names, 60)
    matters = list(MATTERS)
    return [(name, matter) for name in people for matter in rng.sample(matters, 2)]


_numbers = count()


async def embedded(guard: Pseudonym | None, texts: Sequence[str], encoder: Encoder) -> Array:
    """The vectors of `texts`, which are one request, behind `guard`."""

    async def forward(message: Message) -> Message:
        assert isinstance(message, Embed)
        return Embeddings(packed=encoder.embed(message.texts).vectors.astype("<f4").tobytes())

    asked = Embed(texts=tuple(texts))
    request = f"request {next(_numbers)}"
    reply = await (guard.guard(asked, forward, request=request) if guard else forward(asked))
    assert isinstance(reply, Embeddings)
    return reply.rows(len(texts))


async def found(
    guard: Pseudonym | None, encoder: Encoder, notes: Sequence[tuple[str, str]]
) -> tuple[int, int, int]:
    """How many questions of who and what, and of what alone, find theirs first; and how many of the
    latter there are."""
    there = await embedded(guard, [f"{name} {matter}." for name, matter in notes], encoder)

    async def first(question: str, right: Callable[[tuple[str, str]], bool]) -> bool:
        asked = (await embedded(guard, [question], encoder))[0]
        return right(notes[int(np.argmax(there @ asked))])

    both = [
        await first(f"What do we know of {name} and {MATTERS[matter]}?", (name, matter).__eq__)
        for name, matter in notes
    ]
    used = {matter for _, matter in notes}
    alone = [
        await first(words.format(MATTERS[m]), lambda note, m=m: note[1] == m)  # type: ignore[misc]
        for m in used
        for words in ("Who wrote about {}?", "Anything on {}?", "Find the note on {}.")
    ]
    return sum(both), sum(alone), len(alone)


async def main() -> None:
    notes = records(random.Random(0))
    encoder = Encoder("minilm-int8")
    kept = Kept("vectors", seed=0)
    ways: dict[str, dict[str, str] | None] = {
        "in clear": None,
        "placeholders of one key": {"conversation": "first-turn"},
        "placeholders of each request": {"conversation": "request"},
    }
    with tempfile.TemporaryDirectory() as folder:
        for row, options in ways.items():
            shares = []
            for number in range(1 if options is None else KEYS):
                file = Path(folder) / f"key-{number}"
                file.write_bytes(bytes([number]) * 32)
                file.chmod(0o600)
                guard = None if options is None else Pseudonym(key_file=file, **options)  # type: ignore[arg-type]
                both, alone, asked = await found(guard, encoder, notes)
                shares.append((both / len(notes), alone / asked))
            for at, (column, n) in enumerate((("who and what", len(notes)), ("what", asked))):
                share = float(np.mean([s[at] for s in shares]))
                low, high = wilson(share * n, n)
                kept.put(row, column, share, n=n, low=low, high=high)
                print(f"{row:30} {column:14} {share:.3f} [{low:.3f}, {high:.3f}] n = {n}")
    kept.write()


if __name__ == "__main__":
    asyncio.run(main())
