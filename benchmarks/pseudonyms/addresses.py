"""People, places and addresses in English sentences of many kinds: how many leave.

    python benchmarks/pseudonyms/addresses.py                # the half that detection is improved on
    python benchmarks/pseudonyms/addresses.py --half held    # other sentences, read once
    python benchmarks/pseudonyms/addresses.py --half wide    # more kinds and layouts; wide_held: others

The made-up sentences of `address_texts.py` and `wide_texts.py` go through the pseudonym
defence, each as the first message of a conversation. Counted are values of which at least one letter or
digit would leave, and other words that would be hidden.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import address_texts
import wide_texts

from cosilo.boundary.messages import Ask
from cosilo.defences.hiding import Hiding
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.objectives.intervals import wilson
from cosilo.types import user
from kept import Kept

_WORD = re.compile(r"\w+")
MADE = {half: made for made in (address_texts, wide_texts) for half in made.HALVES}


async def counted(half: str, each: int, hiding: Hiding, show: bool) -> Counter[tuple[str, str]]:
    """How many values and other words there are by kind, and how many left or were hidden."""
    counts: Counter[tuple[str, str]] = Counter()
    for text, spans in MADE[half].texts(half, each):
        [found] = await hiding.spans(Ask(chat=user(text)))
        hidden = {i for s in found for i in range(s.start, s.end)}
        private = {i for start, end, *_ in spans for i in range(start, end)}
        wrong = []
        for start, end, kind, value in spans:
            if kind == "company":
                continue  # no direct identifier
            left = "".join(text[i] if i not in hidden else "·" for i in range(start, end))
            left_any = any(c.isalnum() for c in left)
            for group in (kind, "all"):
                counts[group, "all"] += 1
                counts[group, "wrong"] += left_any
            if left_any:
                wrong.append(f"- {kind} {value!r} {left!r}")
        for word in _WORD.finditer(text):
            places = set(range(*word.span()))
            if not places & private:
                counts["other words", "all"] += 1
                if places & hidden:
                    counts["other words", "wrong"] += 1
                    wrong.append(f"+ {word.group()}")
        if show and wrong:
            print(repr(text), *wrong, sep="\n    ")
    return counts


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--half", default="dev", choices=list(MADE))
    arguments.add_argument("--each", type=int, default=12, help="texts of each sentence")
    arguments.add_argument(
        "--show", action="store_true", help="print what went wrong, but of no held half"
    )
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        hiding = Pseudonym(key_file=Path(folder, "key")).hiding
        counts = asyncio.run(
            counted(options.half, options.each, hiding, options.show and "held" not in options.half)
        )
    kept = Kept(
        f"addresses_{options.half}",
        settings={"texts of each sentence": options.each},
        seed=11,
    )
    print(f"{options.half}: {options.each} texts of each sentence")
    for group in ("address", "place", "person", "code", "contact", "all", "other words"):
        if not counts[group, "all"]:
            continue
        n, wrong = counts[group, "all"], counts[group, "wrong"]
        low, high = wilson(wrong, n)
        what = "share hidden" if group == "other words" else "share left in part"
        print(f"{group:12} {what} {wrong}/{n} {wrong / n:.1%} [{low:.1%}, {high:.1%}]")
        kept.put(group, what, wrong / n, n=n, low=low, high=high)
    kept.write()


if __name__ == "__main__":
    main()
