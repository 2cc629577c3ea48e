"""Private values in eight languages: how many leave, and how much else is hidden.

    python benchmarks/pseudonyms/languages.py                 # the dev split
    python benchmarks/pseudonyms/languages.py --split test    # read once

E-mails, letters, notes of doctors, contracts, forms, chats and lists (`language_texts.py`) go through
the pseudonym defence, each as the first message of a conversation. Counted are values of which at least
one letter or digit would leave, other words that would be hidden, and of those the words that were
marked because they look like names.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from language_texts import LANGUAGES, Marked, texts

from cosilo.boundary.messages import Ask
from cosilo.defences.hiding import DetectorName, Hiding
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.objectives.intervals import wilson
from cosilo.types import user
from kept import Kept

INDIRECT = ("employer",)
_WORD = re.compile(r"[^\W_]+")


def count(marked: Marked, hidden: set[int], counts: Counter[tuple[str, str]]) -> list[str]:
    """Add what became of one text to `counts`; what of it went wrong, in words."""
    text, wrong = marked.text, []
    private = {i for start, end, _, _ in marked.spans for i in range(start, end)}
    for start, end, kind, value in marked.spans:
        left = any(text[i].isalnum() and i not in hidden for i in range(start, end))
        groups = [kind]
        if kind == "name" and marked.lower:
            groups.append("name, in small letters")
        if kind not in INDIRECT:
            groups.append("all")
        for group in groups:
            counts[group, "all"] += 1
            counts[group, "left"] += left
        if left:
            wrong.append(f"- {kind}: {value}")
    looks = {i for start, end in marked.public for i in range(start, end)}
    for word in _WORD.finditer(text):
        places = set(range(*word.span()))
        if places & private:
            continue
        for group in ("words",) + (("words that look like names",) if places & looks else ()):
            counts[group, "all"] += 1
            counts[group, "left"] += bool(places & hidden)
        if places & hidden:
            wrong.append(f"+ {word[0]}")
    return wrong


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--split", default="dev", choices=["dev", "test"])
    arguments.add_argument("--languages", nargs="+", default=LANGUAGES, choices=LANGUAGES)
    arguments.add_argument("--texts", type=int, default=600, help="of each language")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--detectors", nargs="+", default=["presidio"])
    arguments.add_argument("--show", action="store_true", help="print what went wrong")
    options = arguments.parse_args()
    names: list[DetectorName] = options.detectors
    settings = {"texts of each": options.texts, "detectors": names}
    kept = Kept(f"languages_{options.split}", seed=options.seed, settings=settings)
    with tempfile.TemporaryDirectory() as folder:
        hiding = Pseudonym(detectors=names, key_file=Path(folder, "key")).hiding
        assert isinstance(hiding, Hiding)
        for language in options.languages:
            counts: Counter[tuple[str, str]] = Counter()
            chosen = texts(language, options.split, options.texts, options.seed)
            began = time.process_time()
            for marked in chosen:
                (spans,) = asyncio.run(hiding.spans(Ask(chat=user(marked.text))))
                covered = {i for s in spans for i in range(s.start, s.end)}
                wrong = count(marked, covered, counts)
                if options.show and wrong:
                    print(marked.text, *wrong, "", sep="\n")
            ms = (time.process_time() - began) / len(chosen) * 1e3
            print(f"\n{language}: {len(chosen)} texts, {ms:.1f} CPU-ms each")
            for group in sorted({g for g, _ in counts}, key=lambda g: (g.startswith("words"), g)):
                n, left = counts[group, "all"], counts[group, "left"]
                low, high = wilson(left, n)
                other = group.startswith("words")
                what = "share hidden" if other else "share left in part"
                print(
                    f"  {group:28} {what:20} {left:5}/{n:5} {left / n:6.1%} [{low:.1%}, {high:.1%}]"
                )
                kept.put(f"{language}: {group}", what, left / n, n=n, low=low, high=high)
    kept.write()


if __name__ == "__main__":
    main()
