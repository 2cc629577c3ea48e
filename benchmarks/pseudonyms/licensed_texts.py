"""Private values in texts that others wrote and marked, in Spanish, German and Portuguese.

    python benchmarks/pseudonyms/licensed_texts.py --clones FOLDER                # the dev parts
    python benchmarks/pseudonyms/licensed_texts.py --clones FOLDER --split test   # read once

FOLDER holds clones of the repositories, each as OWNER+NAME: PlanTL-GOB-ES/SPACCC_MEDDOCAN 783a6df3
(clinical cases with made-up personal data, Marimon and others 2019, CC BY 4.0),
elenanereiss/Legal-Entity-Recognition f9c2b950 (German court decisions, Leitner and others 2019, CC BY
4.0) and UniversalNER/UNER_Portuguese-Bosque f2c2ad67 (news, CC BY-SA 4.0; its other parts trained the
tagger, so there is only a test). Nothing of them is in this repository. Counted are values of which at
least one letter or digit would leave, and words outside of any marked value that would be hidden.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from cosilo.boundary.messages import Ask
from cosilo.defences.hiding import Hiding
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.objectives.intervals import wilson
from cosilo.types import user
from kept import Kept

Marked = tuple[str, list[tuple[int, int, str]]]

MEDDOCAN = {
    "NOMBRE_SUJETO_ASISTENCIA": "patients' names", "NOMBRE_PERSONAL_SANITARIO": "doctors' names",
    "CALLE": "streets", "TERRITORIO": "towns and postal codes", "CORREO_ELECTRONICO": "e-mail",
    "NUMERO_TELEFONO": "telephone and fax", "NUMERO_FAX": "telephone and fax",
    "ID_SUJETO_ASISTENCIA": "patients' numbers", "ID_ASEGURAMIENTO": "insurance numbers",
    "ID_TITULACION_PERSONAL_SANITARIO": "doctors' numbers",
    "ID_CONTACTO_ASISTENCIAL": "patients' numbers", "FECHAS": "dates",
    "HOSPITAL": "hospitals and institutions", "INSTITUCION": "hospitals and institutions",
}  # fmt: skip
"""What is counted; what is only marked (sex, age, country, profession, kin) counts as neither."""
COURTS = {"PER": "names", "RR": "names", "AN": "names", "ST": "towns", "STR": "streets"}
NEWS = {"PER": "names", "LOC": "towns"}


class Clone:
    """A repository in a folder of clones."""

    def __init__(self, clones: Path, name: str) -> None:
        folder = clones / name.replace("/", "+")
        self._folder = folder / "repo" if (folder / "repo").is_dir() else folder

    def _git(self, *what: str) -> str:
        command = ["git", "-C", str(self._folder), *what]
        return subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8")

    def files(self, under: str) -> list[str]:
        return self._git("ls-tree", "-r", "--name-only", "HEAD", under).splitlines()

    def read(self, path: str) -> str:
        return self._git("show", f"HEAD:{path}")


def cases(clone: Clone, split: str) -> Iterator[Marked]:
    """Clinical cases, with what brat's standoff files mark."""
    for path in clone.files(f"corpus/{split}/brat/"):
        if path.endswith(".ann"):
            rows = [row.split("\t") for row in clone.read(path).splitlines() if row.startswith("T")]
            spans = [(row[1].split(" ")[0], *map(int, row[1].split(" ")[1:3])) for row in rows]
            yield (
                clone.read(path.removesuffix("ann") + "txt"),
                [(a, b, kind) for kind, a, b in spans],
            )


def sentences(text: str, column: int, sign: str, together: int) -> Iterator[Marked]:
    """Sentences of a file with a word and its tag (B-, I-, O) a line, so many in each text."""
    blocks = [b for b in re.split(r"\n\s*\n", text) if b.strip()]
    for start in range(0, len(blocks), together):
        made, spans = "", []
        for block in blocks[start : start + together]:
            for row in (
                line.split(sign) for line in block.splitlines() if not line.startswith("#")
            ):
                word, tag = row[column], row[column + 1]
                tight = word in ".,;:!?)]%" or made.endswith(("(", "[", "\n")) or not made
                made += "" if tight else " "
                at = len(made)
                made += word
                if tag.startswith("I-") and spans and spans[-1][2] == tag[2:]:
                    spans[-1] = (spans[-1][0], len(made), tag[2:])
                elif tag != "O":
                    spans.append((at, len(made), tag[2:]))
            made += "\n"
        yield made.rstrip(), spans


def sources(clones: Path, split: str) -> Iterator[tuple[str, dict[str, str], Iterator[Marked]]]:
    """(what, which marks are counted, texts)."""
    yield (
        "es: clinical cases",
        MEDDOCAN,
        cases(Clone(clones, "PlanTL-GOB-ES/SPACCC_MEDDOCAN"), split),
    )
    courts = Clone(clones, "elenanereiss/Legal-Entity-Recognition").read(f"data/ler_{split}.conll")
    yield "de: court decisions", COURTS, sentences(courts, 0, " ", 10)
    if split == "test":
        news = Clone(clones, "UniversalNER/UNER_Portuguese-Bosque").read("pt_bosque-ud-test.iob2")
        yield "pt: news", NEWS, sentences(news, 1, "\t", 1)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--clones", type=Path, required=True)
    arguments.add_argument("--split", default="dev", choices=["dev", "test"])
    arguments.add_argument("--show", action="store_true", help="print what left")
    options = arguments.parse_args()
    kept = Kept(f"licensed_texts_{options.split}")
    with tempfile.TemporaryDirectory() as folder:
        hiding = Pseudonym(key_file=Path(folder, "key")).hiding
        assert isinstance(hiding, Hiding)
        for what, named, some in sources(options.clones, options.split):
            counts: Counter[tuple[str, str]] = Counter()
            for text, marks in some:
                (spans,) = asyncio.run(hiding.spans(Ask(chat=user(text))))
                covered = {i for s in spans for i in range(s.start, s.end)}
                marked = {i for start, end, _ in marks for i in range(start, end)}
                for start, end, kind in marks:
                    if kind in named:
                        gone = any(
                            text[i].isalnum() and i not in covered for i in range(start, end)
                        )
                        counts[named[kind], "all"] += 1
                        counts[named[kind], "wrong"] += gone
                        if gone and options.show:
                            print(
                                f"- {named[kind]}: {text[start:end]!r} {text[start - 40 : end + 20]!r}"
                            )
                for word in re.finditer(r"[^\W_]+", text):
                    places = set(range(*word.span()))
                    if not places & marked:
                        counts["other words", "all"] += 1
                        counts["other words", "wrong"] += bool(places & covered)
                        if places & covered and options.show:
                            print(f"+ {word[0]}")
            print(f"\n{what}")
            for group in sorted({g for g, _ in counts}, key=lambda g: (g == "other words", g)):
                n, wrong = counts[group, "all"], counts[group, "wrong"]
                low, high = wilson(wrong, n)
                column = "share hidden" if group == "other words" else "share left in part"
                print(
                    f"  {group:28} {column:20} {wrong:5}/{n:6} {wrong / n:6.1%} [{low:.1%}, {high:.1%}]"
                )
                kept.put(f"{what}: {group}", column, wrong / n, n=n, low=low, high=high)
    kept.write()


if __name__ == "__main__":
    main()
