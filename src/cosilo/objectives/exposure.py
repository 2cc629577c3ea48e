"""Exposure, M_L: how much of the LM its replies give away to whoever receives them."""

from __future__ import annotations

import math
from collections import Counter
from typing import ClassVar

import numpy as np

from cosilo.objectives import intervals
from cosilo.objectives.base import Floats, Measurement, Objective, Run, objectives
from cosilo.objectives.reading import reading
from cosilo.objectives.scoring import HIDDEN, replies_right
from cosilo.tasks.text import rouge_l


@objectives.register("exposure")
class Exposure:
    """How well a surrogate trained on the LM's replies foretells replies it has not seen: agreement
    for a closed set of answers, ROUGE-L otherwise. The replies to `prepare` are among them. The base
    rate is the best constant reply.

    Replies that are compared were held back from training, so they depend on each other a little
    and the certificate has no values to test.
    """

    objective: ClassVar[Objective] = Objective("exposure", "exposure", "min", "share")

    def values(self, run: Run) -> Floats | None:
        return None

    def __call__(self, run: Run) -> Measurement | None:
        if not reading(run).has_texts or not run.guesses:
            return None
        known = list(reading(run).replies.values())
        agree = _same if run.labels else rouge_l
        if not known and reading(run).scored:
            return None  # it was asked, in numbers: there are no words to foretell
        if not known:
            # Nothing came down, so nothing was given away; no estimate, hence no spread either.
            note = "the LM was not asked"
            return Measurement(self.objective, 0.0, len(run.items), 0.0, 0.0, note=note)
        found = {name: replies_right(run, guesses, agree) for name, guesses in run.guesses.items()}
        fidelity = {name: values for name, values in found.items() if values is not None}
        if not fidelity:
            return None
        name = max(fidelity, key=lambda name: float(fidelity[name].mean()))
        values = fidelity[name]
        constant = Counter(known).most_common(1)[0][0]
        return Measurement(
            self.objective,
            float(values.mean()),
            len(values),
            *intervals.mean(values, self.objective.bounds),
            baseline=float(np.mean([agree(reply, constant) for reply in known])),
            note=f"strongest attack: {name}, trained on up to {len(known)} replies",
        )


@objectives.register("output_layer")
class OutputLayer:
    """Whether the logits on record show the LM's output layer (up to a rotation) and how wide its
    hidden state is: 1 when an attack finds where their subspace ends, else 0.

    It is one fact about the whole record, so there are no values for the certificate to test.
    """

    objective: ClassVar[Objective] = Objective("output_layer", "exposure", "min", "share")

    def values(self, run: Run) -> Floats | None:
        return None

    def __call__(self, run: Run) -> Measurement | None:
        places = reading(run).scored if reading(run).has_content else 0
        found = [g for guesses in run.guesses.values() for g in guesses if g.target == HIDDEN]
        if not places or not found:
            return None
        best = max(found, key=lambda guess: guess.score)
        shown = float(bool(best.value))
        note = f"hidden size {best.value}" if best.value else "no width stands out"
        return Measurement(
            self.objective, shown, places, shown, shown, baseline=0.0, note=f"{note}, n = places"
        )


@objectives.register("emulator")
class EmulatorAlone:
    """How near the best emulator on record comes to the LM by itself: the LM's perplexity over the
    emulator's, on the public text of the LM's owner and as that owner says. 1 is as good as the LM.

    It is one fact about what was lent, so there are no values for the certificate to test.
    """

    objective: ClassVar[Objective] = Objective("emulator", "exposure", "min", "share")

    def values(self, run: Run) -> Floats | None:
        return None

    def __call__(self, run: Run) -> Measurement | None:
        lent = reading(run).emulators if reading(run).has_content else ()
        if not lent:
            return None
        gap = min(gap for gap, _ in lent)
        near = min(1.0, math.exp(-gap))
        size = sum(size for _, size in lent) / 1e6
        note = f"gap {gap:.3f} nats per token, as its owner says; {size:,.1f} MB came"
        return Measurement(
            self.objective, near, len(lent), near, near, baseline=0.0, note=f"{note}; n = emulators"
        )


def _same(reply: str, guess: str) -> float:
    return float(reply.strip().casefold() == guess.strip().casefold())
