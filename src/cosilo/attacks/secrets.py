"""Which private values stand in the messages? Three readers, from the strictest to the most lenient.

Each knows every value of a kind (the targets' candidates: the attacker's background knowledge) and
which item a message belongs to, and names the values it finds. Where it finds none it falls back on
its prior, the values that are most common among the candidates; that is also its guess without any
record, so a record that holds nothing gains it nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from cosilo.attacks.base import Guess, Target, View, attacks
from cosilo.attacks.record import upstream
from cosilo.matching import Folded, FuzzyPool, Pool, as_written, normalised

Search = Callable[[Folded], dict[int, float]]


class _Reader:
    about: ClassVar[str] = "secrets"

    def _fold(self, text: str) -> Folded:
        raise NotImplementedError

    def _search(self, values: Sequence[str]) -> Search:
        """A function from a text to the values in it: position → similarity."""
        raise NotImplementedError

    async def guess(self, view: View, targets: Sequence[Target]) -> list[Guess]:
        wanted: dict[str, list[_Question]] = {}
        pools = _Pools(self._search)
        for (request, kind), group in _grouped(targets).items():
            if not request.strip():
                continue  # nothing says where to look
            question = _Question(kind, group, pools.of(group[0].candidates))
            wanted.setdefault(request, []).append(question)
        for request, pieces in upstream(view):
            for piece in pieces if request in wanted else ():
                folded = self._fold(piece)
                for question in wanted[request]:
                    question.read(folded)
        guesses = {
            guess.target: guess
            for questions in wanted.values()
            for question in questions
            for guess in question.answers()
        }
        unasked = [t for t in targets if t.id not in guesses]
        for group in _grouped(unasked).values():
            question = _Question(group[0].kind, group, pools.of(group[0].candidates))
            guesses.update({guess.target: guess for guess in question.answers()})
        return [guesses[target.id] for target in targets]


@attacks.register("verbatim")
class Verbatim(_Reader):
    """Finds values that stand in a message to the letter."""

    def _fold(self, text: str) -> Folded:
        return as_written(text)

    def _search(self, values: Sequence[str]) -> Search:
        pool = Pool(values, as_written)
        return lambda text: dict.fromkeys(pool.found(text), 1.0)


@attacks.register("normalised")
class Normalised(_Reader):
    """Finds values whatever their case, spaces, punctuation, accents and number format."""

    def _fold(self, text: str) -> Folded:
        return normalised(text)

    def _search(self, values: Sequence[str]) -> Search:
        pool = Pool(values, normalised)
        return lambda text: dict.fromkeys(pool.found(text), 1.0)


@attacks.register("fuzzy")
class Fuzzy(_Reader):
    """Finds values with a few characters changed or their first or last words missing, as well."""

    def _fold(self, text: str) -> Folded:
        return normalised(text)

    def _search(self, values: Sequence[str]) -> Search:
        return FuzzyPool(values).found


@dataclass(frozen=True)
class _Known:
    """Candidates without repeats, how they are searched for, and the most common ones."""

    values: tuple[str, ...]
    search: Search
    common: tuple[str, ...]


class _Pools:
    """One pool per tuple of candidates: all targets of a kind share theirs."""

    def __init__(self, search: Callable[[Sequence[str]], Search]) -> None:
        self._search = search
        self._made: dict[tuple[str, ...], _Known] = {}

    def of(self, candidates: tuple[str, ...]) -> _Known:
        if candidates not in self._made:
            counts = Counter(candidates)
            # Ties by value, so that the order of the candidates, which may follow the items', tells
            # the attacker nothing.
            common = sorted(counts, key=lambda value: (-counts[value], value))
            values = tuple(sorted(counts))
            self._made[candidates] = _Known(values, self._search(values), tuple(common))
        return self._made[candidates]


class _Question:
    """The values of one kind of one item: as many answers as there are targets."""

    def __init__(self, kind: str, targets: Sequence[Target], known: _Known) -> None:
        self.kind = kind
        self._targets = targets
        self._known = known
        self._found: dict[int, float] = {}

    def read(self, text: Folded) -> None:
        for i, similarity in self._known.search(text).items():
            self._found[i] = max(similarity, self._found.get(i, 0.0))

    def answers(self) -> list[Guess]:
        values = self._known.values
        ranked = sorted(self._found, key=lambda i: (-self._found[i], -len(values[i]), values[i]))
        # "Anna" inside "Anna Berg" is hardly a second person: such finds come last.
        parts = {i for i in ranked if any(i != j and values[i] in values[j] for j in ranked)}
        ranked.sort(key=lambda i: i in parts)
        chosen = [(values[i], self._found[i]) for i in ranked]
        taken = {value for value, _ in chosen}
        for value in self._known.common:
            if len(chosen) >= len(self._targets):
                break
            if value not in taken:
                chosen.append((value, 0.0))
        chosen += [("", 0.0)] * (len(self._targets) - len(chosen))
        return [
            Guess(target.id, value, score)
            for target, (value, score) in zip(self._targets, chosen, strict=False)
        ]


def _grouped(targets: Sequence[Target]) -> dict[tuple[str, str], list[Target]]:
    groups: dict[tuple[str, str], list[Target]] = {}
    for target in targets:
        # A request of its own for a target that names none, so that it is not mixed with others.
        groups.setdefault((target.request or f" {target.id}", target.kind), []).append(target)
    return groups
