"""Which label of a closed set a text names.

Labels are compared in two forms. In the plain one only letters and digits count: "Credit-Card." is
"credit card". Where that would make two labels one (C, C++ and C#; -1 and 1; + and -), these count in
the other form, in which signs that mean something count too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

_MINUS = dict.fromkeys(map(ord, "‐‑‒–−"), "-")
_JOINT = re.compile(r"(?<=[^\W_])[-_]+(?=[^\W_])")
_TELLING = frozenset("#*!?%&@/\\-")
_AROUND = " \t\r\n.,:;!?*_`'\"“”‘’()[]{}<>"


def plain(text: str) -> str:
    """`text` in one case, without signs: "Credit-Card " and "credit_card" become "credit card"."""
    return " ".join(_words(text)).casefold()


def written(text: str) -> str:
    """`text` in one case, with the signs that tell labels apart: " C++." becomes "c++"."""
    return " ".join(_signed(text)).casefold()


def named(text: str, labels: Sequence[str]) -> str | None:
    """The one of `labels` that `text` names; None when it names none, or several.

    A label inside a longer text counts if it is the only one named there, not counting those inside
    a longer label. A label of one letter must then stand in its own case, and one of signs alone at
    the end.
    """
    return _reader(tuple(labels)).named(text)


def same(text: str, labels: Sequence[str]) -> int | None:
    """The place of the only one of `labels` that `text` is, but for its form; None without one."""
    for form in (written, plain):
        wanted = form(text)
        found = [at for at, label in enumerate(labels) if wanted and form(label) == wanted]
        if len(found) == 1:
            return found[0]
    return None


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text))


def _signed(text: str) -> list[str]:
    even = unicodedata.normalize("NFKC", text).translate(_MINUS)
    return "".join(c if _counts(c) else " " for c in _JOINT.sub(" ", even)).split()


@lru_cache(maxsize=4096)
def _counts(character: str) -> bool:
    if character.isalnum() or character in _TELLING:
        return True
    return character != "`" and unicodedata.category(character)[0] in "SM"


@lru_cache(maxsize=64)
def _reader(labels: tuple[str, ...]) -> _Reader:
    return _Reader(labels)


class _Reader:
    def __init__(self, labels: Sequence[str]) -> None:
        self._written = {written(label): label for label in reversed(labels)}
        plains = [plain(label) for label in labels]
        # Where labels share their plain form, signs decide.
        alone = [bool(p) and plains.count(p) == 1 for p in plains]
        self._plain = {p: label for p, label, one in zip(plains, labels, alone, strict=True) if one}
        self._by_words = _starts([(_words(x), x) for x in self._plain.values()])
        signed = [label for label, one in zip(labels, alone, strict=True) if not one]
        self._by_signs = _starts([(_signed(x), x) for x in signed if plain(x)])
        self._signs = {written(label): label for label in signed if not plain(label)}

    def named(self, text: str) -> str | None:
        for whole in (text, text.strip(_AROUND)):
            found = self._written.get(written(whole))
            if found is not None:
                return found
        if (words := plain(text)) in self._plain:
            return self._plain[words]
        tokens = [t if t in self._signs else t.strip("*!?") for t in _signed(text)]
        several = _within(_words(text), self._by_words) | _within(tokens, self._by_signs)
        if tokens and tokens[-1] in self._signs:
            several.add(self._signs[tokens[-1]])
        return several.pop() if len(several) == 1 else None


_Starts = dict[str, list[tuple[list[str], str]]]


def _starts(labels: Sequence[tuple[list[str], str]]) -> _Starts:
    """First word in one case → the labels that begin with it, longest first."""
    found: _Starts = {}
    for tokens, label in sorted(labels, key=lambda pair: -len(pair[0])):
        found.setdefault(tokens[0].casefold(), []).append((tokens, label))
    return found


def _within(tokens: Sequence[str], labels: _Starts) -> set[str]:
    found: set[str] = set()
    at = 0
    while at < len(tokens):
        for wanted, label in labels.get(tokens[at].casefold(), ()):
            here = tokens[at : at + len(wanted)]
            own_case = here == wanted or len("".join(wanted)) > 1
            if own_case and [t.casefold() for t in here] == [t.casefold() for t in wanted]:
                found.add(label)
                at += len(wanted) - 1
                break
        at += 1
    return found
