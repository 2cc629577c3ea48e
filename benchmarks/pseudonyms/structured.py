"""Private values in structured text: how many leave, and how much else is hidden.

    python benchmarks/pseudonyms/structured.py                 # the dev split
    python benchmarks/pseudonyms/structured.py --split test    # read once

Tables of made-up records (`records.py`) in twelve forms go through the real boundary and the pseudonym
defence to a model that repeats them. Half of the tables have the column names of the field, a quarter
others that stand in no list, a quarter none. Counted are private cells of which at least one letter or
digit left, cells of the other sort that were changed, tables whose form or keys no longer hold, and
tables that came back as they were.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from records import FORMS, Form, Named, Place, Split, Table, tables, written
from round_trip import Echo, boundary

from cosilo.boundary.messages import Ask
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.objectives.intervals import wilson
from cosilo.types import Turn
from kept import Kept
from leaving import hidden

NAMED: tuple[Named, ...] = ("known", "known", "unlisted", "none")


def left(value: str, sent: str) -> bool:
    """Whether at least one letter or digit of `value` stands in the cell that was sent for it."""
    if value == sent:
        return True
    try:
        covered = hidden(value, sent)
    except ValueError:  # a surrogate of the value's own form
        return value in sent
    return any(c.isalnum() and i not in covered for i, c in enumerate(value))


def cells_sent(text: str, places: Sequence[Sequence[Place]], sent: str) -> list[str | None]:
    """What was sent in place of each cell, by what stands between them; None where that is gone."""
    flat = [place for row in places for place in row]
    between = [text[a:b] for (_, a), (b, _) in pairwise([(0, 0), *flat, (len(text), len(text))])]
    found: list[str | None] = []
    at = len(between[0]) if sent.startswith(between[0]) else 0
    for gap in between[1:]:
        end = sent.find(gap, at) if gap else len(sent)
        found.append(sent[at:end] if end >= 0 else None)
        at = end + len(gap) if end >= 0 else at
    return found


def count(
    form: Form, table: Table, named: Named, sent: str, counts: Counter[tuple[str, ...]]
) -> None:
    """Add what became of one table to `counts`."""
    text, places = written(form, table)
    try:
        before, after = form.read(text), form.read(sent)
        first = len(before[1]) - len(table.rows)  # headers that are read as a row
        same = (
            after[0] == before[0]
            and after[1][:first] == before[1][:first]
            and list(map(len, after[1])) == list(map(len, before[1]))
        )
    except ValueError:
        same = False
    counts["tables", form.name, "all"] += 1
    counts["tables", form.name, "broken"] += not same
    cells = iter(cells_sent(text, places, sent))
    for row in table.rows:
        for column, value in zip(table.columns, map(str, row), strict=True):
            cell = next(cells)
            if column.private:
                sort, wrong = "private", value in sent if cell is None else left(value, cell)
            else:
                sort, wrong = "other", cell != value
            for group in (form.name, column.kind, f"columns: {named}", "all"):
                counts[sort, group, "all"] += 1
                counts[sort, group, "wrong"] += wrong


async def measure(split: Split, records: int, seed: int, key: Path) -> Counter[tuple[str, ...]]:
    counts: Counter[tuple[str, ...]] = Counter()
    for form in FORMS:
        for at, named in enumerate(NAMED):
            for number, table in enumerate(tables(split, named, records=records, seed=seed + at)):
                text, _ = written(form, table)
                model = Echo()
                channel = boundary(Pseudonym(key_file=key), model)
                ask = Ask(chat=(Turn("user", text),))
                reply = await channel.bind(f"{form.name} {at} {number}").send(ask)
                counts["tables", form.name, "exact"] += reply.generation.text == text
                count(form, table, named, model.seen[-1], counts)
        print(f"{form.name}: done", file=sys.stderr)
    return counts


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--split", default="dev", choices=["dev", "test"])
    arguments.add_argument("--records", type=int, default=30)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        counts = asyncio.run(
            measure(options.split, options.records, options.seed, Path(folder, "key"))
        )
    kept = Kept(
        f"structured_{options.split}", seed=options.seed, settings={"records": options.records}
    )
    for sort, what in (("private", "left at least in part"), ("other", "changed")):
        print(f"\n{sort} cells, {what}")
        for group in dict.fromkeys(g for s, g, _ in counts if s == sort):
            n, wrong = counts[sort, group, "all"], counts[sort, group, "wrong"]
            low, high = wilson(wrong, n)
            print(f"  {group:22} {wrong:5}/{n:5} {wrong / n:6.1%} [{low:.1%}, {high:.1%}]")
            kept.put(group, f"share of {sort} {what}", wrong / n, n=n, low=low, high=high)
    print("\ntables: came back exactly, form or keys broken")
    for form in FORMS:
        n = counts["tables", form.name, "all"]
        exact, broken = (counts["tables", form.name, what] for what in ("exact", "broken"))
        print(f"  {form.name:22} {exact:4}/{n}  {broken:4}")
        kept.put(form.name, "came back exactly", exact, n=n)
        kept.put(form.name, "broken", broken, n=n)
    kept.put("all", "CPU-s", time.process_time() - began)
    kept.write()


if __name__ == "__main__":
    main()
