"""Private values in a row that stands by itself: how many leave, and how much else is hidden.

    python benchmarks/pseudonyms/rows.py                 # the dev split
    python benchmarks/pseudonyms/rows.py --split test    # read once

Rows of made-up records (`records.py`) without a header, alone or in the midst of other text, with bars,
tabs, semicolons or commas between their cells, go through the pseudonym defence. Each names a person
and has up to two more private values and up to four others. Counted are private cells of which at least
one letter or digit is not hidden, other cells of which something is, and finds that run over two cells.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from records import OTHER, PRIVATE, Split

from cosilo.boundary.messages import Ask
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.objectives.intervals import wilson
from cosilo.types import user
from kept import Kept

BETWEEN = {"bar": "|", "bar and spaces": " | ", "tab": "\t", "semicolon": ";", "comma": ","}
PLACES: dict[Split, tuple[str, ...]] = {
    "dev": (
        "{}", "Here is the row I get: {} and it looks wrong.", "- {}\n- please check it",
        "The export stopped after\n{}\nand I do not know why.", "> {}\n\nWhat does this mean?",
        "sqlite> select * from customers limit 1;\n{}", "2024-05-06 10:11:12 INFO import: {}",
        "```\n{}\n```", 'row = "{}"\nprint(row.split())', "$ tail -1 crm.txt\n{}",
        "Can you parse this `{}` for me?",
    ),
    "test": (
        "{}", "I found this in the file: {} (the last one).", "* {}\n* thanks",
        "Dear team,\n\n{}\n\nPlease fix it.", "mydb=# copy t to stdout;\n{}",
        "[worker 3] could not read '{}'", "Line 88:\n    {}\nIs that a valid record?",
    ),
}  # fmt: skip
MORE = ("family name", "e-mail", "phone", "street", "date of birth", "social security")
OTHERS = (
    "status", "quantity", "price", "priority", "department", "moment", "unit", "retries", "colour",
)  # fmt: skip


def made(
    split: Split, between: str, draw: random.Random
) -> tuple[str, list[tuple[str, bool, int, int]]]:
    """A text with a row in it, and where each of its cells is: kind, whether private, start and end."""
    kinds = [("name", True), *((k, True) for k in draw.sample(MORE, draw.randint(0, 2)))]
    kinds += [(k, False) for k in draw.sample(OTHERS, draw.randint(1, 3))]
    cells = [(k, p, str((PRIVATE if p else OTHER)[k][1](draw, split))) for k, p in kinds]
    number = ("number", False, str(draw.randint(1, 9999)))
    if draw.random() < 0.6:
        cells.insert(0, number)
    else:
        draw.shuffle(cells)
        if len(cells) < 3:
            cells.append(number)
    place = draw.choice(PLACES[split])
    quote = '"' if draw.random() < 0.15 and '"' not in place else ""
    row = between.join(f"{quote}{value}{quote}" for _, _, value in cells)
    text = place.format(row)
    at = text.index(row)
    found = []
    for kind, private, value in cells:
        at = text.index(value, at)
        found.append((kind, private, at, at + len(value)))
        at += len(value)
    return text, found


async def measure(split: Split, rows: int, seed: int, key: Path) -> Counter[tuple[str, ...]]:
    counts: Counter[tuple[str, ...]] = Counter()
    hiding = Pseudonym(key_file=key).hiding
    for name, between in BETWEEN.items():
        draw = random.Random(f"{split} {name} {seed}")
        for _ in range(rows):
            text, cells = made(split, between, draw)
            [spans] = await hiding.spans(Ask(chat=user(text)))
            hidden = {i for s in spans for i in range(s.start, s.end)}
            for kind, private, start, end in cells:
                own = [i for i in range(start, end) if text[i].isalnum()]
                sort = "private" if private else "other"
                wrong = not hidden.issuperset(own) if private else not hidden.isdisjoint(own)
                for group in (name, kind, "all"):
                    counts[sort, group, "all"] += 1
                    counts[sort, group, "wrong"] += wrong
            counts["finds", "all", "all"] += len(spans)
            counts["finds", "all", "wrong"] += sum(
                sum(s.start < end and start < s.end for _, _, start, end in cells) > 1
                for s in spans
            )
    return counts


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--split", default="dev", choices=["dev", "test"])
    arguments.add_argument("--rows", type=int, default=120, help="for each delimiter")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = asyncio.run(
            measure(options.split, options.rows, options.seed, Path(folder, "key"))
        )
    kept = Kept(f"rows_{options.split}", seed=options.seed, settings={"rows": options.rows})
    whats = {"private": "left at least in part", "other": "hidden", "finds": "over two cells"}
    for sort, what in whats.items():
        print(f"\n{sort}: {what}")
        for group in dict.fromkeys(g for s, g, _ in counts if s == sort):
            n, wrong = counts[sort, group, "all"], counts[sort, group, "wrong"]
            low, high = wilson(wrong, n)
            print(f"  {group:22} {wrong:5}/{n:5} {wrong / n:6.1%} [{low:.1%}, {high:.1%}]")
            kept.put(group, f"share of {sort} {what}", wrong / n, n=n, low=low, high=high)
    kept.write()


if __name__ == "__main__":
    main()
