"""What an owner's updates tell of the texts that it trained on."""

from __future__ import annotations

from typing import ClassVar

from cosilo.objectives import intervals
from cosilo.objectives.base import Floats, Measurement, Objective, Run, objectives
from cosilo.objectives.reading import reading
from cosilo.objectives.scoring import TRAINED_WORDS, trained_words


@objectives.register("update_words")
class UpdateWordsFound:
    """How many of the words that the strongest attacker names, by the updates that an owner gave to a
    federation, stand in the texts that it trained on: as a share of all of these, or of the named where
    these are fewer. The base rate is the same attacker without the updates, who names the words that
    are common in other texts of the kind.

    Words of one update depend on each other, and it is one fact about all of them: the certificate has
    no values to test.
    """

    objective: ClassVar[Objective] = Objective("update_words", "privacy", "min", "share")

    def values(self, run: Run) -> Floats | None:
        return None

    def __call__(self, run: Run) -> Measurement | None:
        truth = trained_words(run)
        if not truth or not reading(run).contributed:
            return None
        found = {}
        for name, guesses in run.guesses.items():
            for guess in guesses:
                if guess.target == TRAINED_WORDS and guess.score:
                    found[name] = _right(guess.value, truth)
        if not found:
            return None
        name = max(found, key=lambda name: found[name][0])
        hits, most = found[name]
        prior = next(g for g in run.priors[name] if g.target == TRAINED_WORDS)
        blind, _ = _right(prior.value, truth)
        return Measurement(
            self.objective,
            hits / most,
            most,
            *intervals.wilson(hits, most),
            baseline=min(1.0, blind / most),
            note=f"strongest attack: {name}; {len(truth)} words were trained on, n = words",
        )


def _right(named: str, truth: frozenset[str]) -> tuple[int, int]:
    """(how many of the words named are true, how many could be)."""
    words = named.split("\n")
    return len(truth.intersection(words)), max(1, min(len(truth), len(words)))
