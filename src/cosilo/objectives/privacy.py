"""Privacy, M_p: how much the LM's owner can learn of the private values from the record.

Every number is about what left the building, measured on the record. `privacy` is the strongest
attack's; the others say what it consists of.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import numpy as np

from cosilo.attacks.base import Guess
from cosilo.objectives import intervals
from cosilo.objectives.base import Floats, Measurement, Objective, Run, objectives
from cosilo.objectives.mean import Mean
from cosilo.objectives.reading import Leak, reading
from cosilo.objectives.scoring import records_right, secrets_right, with_secrets


@objectives.register("privacy")
class Privacy:
    """The strongest attack's advantage on the private values: (s − s₀) / (1 − s₀).

    s is the mean, over items with secrets, of the share of an item's secrets the attack names with
    the record; s₀ the same attacker's without it. What `prepare` and worked examples showed of the
    background examples counts as well: the number is the larger of the two.

    Its values, for the certificate, are stricter: an item counts 1 when any of its secrets stands
    in what left for it or any attack names one it could not name before, and no item counts less
    than the background's share. That bounds the advantage wherever leaking is not more likely for
    the values the prior gets wrong; where it is, the bound holds up to a factor of 1 / (1 − s₀).

    Re-linking a message to its full original text is measured apart (`relink`): it says who holds
    the text already can find it again, not that a private value was told.
    """

    objective: ClassVar[Objective] = Objective("privacy", "privacy", "min", "share")

    def __call__(self, run: Run) -> Measurement | None:
        scores = _scores(run)
        if not scores:
            return None
        names = list(scores)
        right = np.stack([scores[name][0] for name in names])
        prior = np.stack([scores[name][1] for name in names])
        n = right.shape[1]
        each = _advantage(right.mean(axis=1), prior.mean(axis=1))
        value = float(each.max())

        def strongest(weights: Floats) -> Floats:
            best: Floats = _advantage(weights @ right.T / n, weights @ prior.T / n).max(axis=1)
            return best

        low, high = intervals.bootstrap(strongest, n, bounds=self.objective.bounds)
        if value in (0.0, 1.0):  # the bootstrap sees no spread in items that are all alike
            low, high = intervals.wilson(value * n, n)
        baseline = float(prior[int(each.argmax())].mean())
        note = f"strongest attack: {names[int(each.argmax())]}"
        share = _background(run)
        if share > value:
            counted = len(with_secrets(run.background))
            note = f"{100 * share:.3g} % of the secrets of {counted} background examples left"
            value, low, high = share, max(low, share), max(high, share)
        return Measurement(self.objective, value, n, low, high, baseline, note + _detected(run))

    def values(self, run: Run) -> Floats | None:
        if not _scores(run):
            return None
        leaked = [any(leak.how for leak in leaks) for leaks in reading(run).leaks if leaks]
        told = np.array(leaked, dtype=np.float64)
        for name, guesses in run.guesses.items():
            with_record = secrets_right(run, guesses)
            without = secrets_right(run, run.priors.get(name, ()))
            if with_record is not None and without is not None:
                gained = [bool((a > b).any()) for a, b in zip(with_record, without, strict=True)]
                told = np.maximum(told, gained)
        return np.maximum(told, _background(run))


def _scores(run: Run) -> dict[str, tuple[Floats, Floats]]:
    """Per attack on secrets: the share of each item's secrets named, with the record and without."""
    found = {}
    for name, guesses in run.guesses.items():
        with_record = secrets_right(run, guesses)
        without = secrets_right(run, run.priors.get(name, ()))
        if with_record and without:
            found[name] = (_shares(with_record), _shares(without))
    return found


def _shares(right: list[Floats]) -> Floats:
    return np.array([each.mean() for each in right])


def _advantage(success: Floats, prior: Floats) -> Floats:
    """(s − s₀) / (1 − s₀), not below 0; 0 where the prior alone knows everything."""
    room = 1 - prior
    gain = np.divide(success - prior, room, out=np.zeros_like(room), where=room > 1e-12)
    return np.maximum(gain, 0.0)


def _background(run: Run) -> float:
    """The mean share of a background example's secrets that left."""
    shares = [np.mean([bool(x.how) for x in each]) for each in _known_leaks(run) if each]
    return float(np.mean(shares)) if shares else 0.0


def _known_leaks(run: Run) -> tuple[tuple[Leak, ...], ...]:
    return reading(run).background_leaks if run.background else ()


def _detected(run: Run) -> str:
    return "" if run.gold_secrets else "; secrets detected, not given"


@objectives.register("entity_leak")
class EntityLeak(Mean):
    """The share of an item's secrets that stand in what left for it: to the letter, normalised, or
    nearly (a few edits, or most of it). Its base rate is the same search for other items' values."""

    objective: ClassVar[Objective] = Objective("entity_leak", "privacy", "min", "share")

    def values(self, run: Run) -> Floats | None:
        found = _leaks(run)
        return None if not found else np.array([np.mean([bool(x.how) for x in e]) for e in found])

    def baseline(self, run: Run) -> float | None:
        return float(np.mean([np.mean([x.stranger for x in each]) for each in _leaks(run)]))

    def note(self, run: Run) -> str:
        return _counts(_leaks(run)) + _detected(run)


@objectives.register("identifiers_sent")
class IdentifiersSent(Mean):
    """How many of an item's private values left, on average over all items."""

    objective: ClassVar[Objective] = Objective(
        "identifiers_sent", "privacy", "min", "per item", bounds=None
    )

    def values(self, run: Run) -> Floats | None:
        if not _leaks(run):
            return None
        found = reading(run).leaks
        return np.array([sum(bool(x.how) for x in each) for each in found], dtype=np.float64)


@objectives.register("prepare_entity_leak")
class PrepareEntityLeak(Mean):
    """The share of the background examples' secrets that left while preparing or as worked
    examples."""

    objective: ClassVar[Objective] = Objective("prepare_entity_leak", "privacy", "min", "share")

    def values(self, run: Run) -> Floats | None:
        return None  # of other examples than the run's items, so there is nothing to certify

    def __call__(self, run: Run) -> Measurement | None:
        if not reading(run).has_texts:
            return None
        found = [each for each in _known_leaks(run) if each]
        if not found:
            return None
        shares = np.array([np.mean([bool(x.how) for x in each]) for each in found])
        low, high = intervals.mean(shares, self.objective.bounds)
        strangers = float(np.mean([np.mean([x.stranger for x in each]) for each in found]))
        note = _counts(found) + _detected(run)
        return Measurement(
            self.objective, float(shares.mean()), len(shares), low, high, strangers, note
        )


def _leaks(run: Run) -> list[tuple[Leak, ...]]:
    """The leaks of the items that have secrets; empty when the record holds no texts."""
    found = reading(run)
    return [each for each in found.leaks if each] if found.has_texts else []


def _counts(leaks: list[tuple[Leak, ...]]) -> str:
    how = Counter(leak.how for each in leaks for leak in each)
    kinds = ", ".join(f"{how[k]} {k}" for k in ("verbatim", "normalised", "fuzzy") if how[k])
    return f"of {how.total()} secrets: {kinds or 'none'}"


@objectives.register("relink")
class Relink:
    """The share of items whose message an attacker who holds every original text matches to its
    own, by the strongest attack; the base rate is a blind guess.

    It has no values for the certificate: matching is one to one, so the items depend on each other.
    """

    objective: ClassVar[Objective] = Objective("relink", "privacy", "min", "share")

    def values(self, run: Run) -> Floats | None:
        return None

    def __call__(self, run: Run) -> Measurement | None:
        found = {name: records_right(run, guesses) for name, guesses in run.guesses.items()}
        right = {name: values for name, values in found.items() if values is not None}
        if not right:
            return None
        name = max(right, key=lambda name: float(right[name].mean()))
        blind = records_right(run, _prior(run, name))
        return Measurement(
            self.objective,
            float(right[name].mean()),
            len(run.items),
            *intervals.wilson(float(right[name].sum()), len(run.items)),
            baseline=None if blind is None else float(blind.mean()),
            note=f"strongest attack: {name}",
        )


def _prior(run: Run, name: str) -> tuple[Guess, ...]:
    return run.priors.get(name, ())


@objectives.register("epsilon")
class Epsilon:
    """The ε that preparing spent and the largest that any item spent beside it, by basic composition
    over messages (whose ε may be shares of an exact total).

    What it protects, and under which neighbour relation, is the defence's to say. It never stands
    for a measured leak: a message without ε is one without a guarantee, and the note counts them.
    """

    objective: ClassVar[Objective] = Objective("epsilon", "privacy", "min", "", bounds=None)

    def values(self, run: Run) -> Floats | None:
        return None  # a maximum, not a mean

    def __call__(self, run: Run) -> Measurement | None:
        spent = reading(run).traffic
        before = reading(run).prepared.epsilon
        value = before + max((found.epsilon for found in spent.values()), default=0.0)
        if value == 0:
            return None
        bare = sum(found.unstated for found in spent.values())
        notes = [f"{before:.3g} of it to prepare"] if before else []
        notes += [f"{bare} messages carried no ε"] if bare else []
        note = "; ".join(notes)
        return Measurement(self.objective, value, len(run.items), value, value, note=note)
