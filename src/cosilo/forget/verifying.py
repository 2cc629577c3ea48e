"""Whether weights have forgotten: what they say of the records beside others, and under attack.

    as they came, unlearned (, trained again without the records) ─▶ a column of numbers each
    records of both ─▶ distances of what they say to the last, which alone says what is to be wanted

The weights that came say how much there was to forget. Only weights that were trained without the
records say how much should be left: a reply that anybody would give is no memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from cosilo.errors import DataError
from cosilo.objectives import forgetting as measure
from cosilo.objectives import intervals
from cosilo.objectives.base import Floats
from cosilo.objectives.membership import auc
from cosilo.tasks.text import rouge_l_recall
from cosilo.types import Demonstration, Sampling

if TYPE_CHECKING:
    from cosilo.models.base import Tokens
    from cosilo.models.white_box.lm import TorchModel

DRAWS = 16
CAME, UNLEARNED, RETRAINED = "as it came", "unlearned", "retrained"


@dataclass(frozen=True, kw_only=True)
class Verifying:
    """How much is measured.

    Attributes:
        records: of each kind, at most; drawn where there are more.
        relearned: the share of the records to forget that an attacker has and trains on.
        asked: questions whose replies are drawn, 16 each; none that is longer than the model reads.
        longest: tokens of a drawn reply.
        epochs, learning_rate: of training on the records that the attacker has.
    """

    records: int = 64
    relearned: float = 0.05
    asked: int = 8
    longest: int = 48
    epochs: float = 3.0
    learning_rate: float = 1e-3


class NumberWithInterval(NamedTuple):
    """A number with its interval (95 %), and of how many records it is."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Verification:
    """What was measured, each a number by the name of the weights.

    Attributes:
        measures: probability (geometric mean over tokens, mean over replies), strength (the share of a
            reply that follows from its beginning), truth ratio (of other replies over the true one,
            median), probability of what is kept, membership (AUC of Min-40 % against records never
            learned, where some were given).
        attacks: probability of the records to forget that the attacker has not: trained again on a few,
            weights of 8 and of 4 bits, two checkpoints; the chance that one of 16 drawn replies is the
            true one to the letter; the best ROUGE-L recall of 16 drawn replies, of a few records.
        records: how many of those to forget were measured; some numbers are of fewer, or of others.
        quality: p of a Kolmogorov-Smirnov test that truth ratios are those of the retrained weights.
        leak: how much better members are told than in the retrained weights, as a share of that.
    """

    measures: Mapping[str, Mapping[str, NumberWithInterval]]
    attacks: Mapping[str, Mapping[str, NumberWithInterval]]
    records: int
    quality: float | None = None
    leak: float | None = None


@dataclass(kw_only=True)
class _Column:
    """The numbers of one model's replies, each an array with one for each record."""

    probability: Floats
    strength: Floats
    ratios: Floats
    kept: Floats
    nats: Floats
    inside: Floats
    outside: Floats | None = None
    attacks: dict[str, NumberWithInterval] = field(default_factory=dict)

    @property
    def measures(self) -> dict[str, NumberWithInterval]:
        found = {
            "probability": _mean(self.probability),
            "strength": _mean(self.strength),
            "truth ratio": NumberWithInterval(
                *intervals.quantile(self.ratios, 0.5), len(self.ratios)
            ),
            "probability of what is kept": _mean(self.kept),
        }
        if self.outside is not None:
            both = len(self.inside) + len(self.outside)
            found["membership"] = NumberWithInterval(*auc(self.inside, self.outside), both)
        return found


def verified(
    came: TorchModel,
    unlearned: TorchModel,
    forget: Sequence[Demonstration],
    keep: Sequence[Demonstration],
    *,
    retrained: TorchModel | None = None,
    never: Sequence[Demonstration] = (),
    how: Verifying = Verifying(),
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Verification:
    """What weights say of records that they should have forgotten, and under attack.

    Args:
        came: the weights that learned the records; the two-checkpoint attack holds others against it.
        retrained: weights that were trained as `came`, without the records.
        never: records like those to forget that none of the models learned.
        say: told which weights are measured next.

    Raises:
        DataError: fewer than two records to forget, or all records have the same reply.
        ConfigError: scipy is not installed.
    """
    from cosilo.models.white_box.unlearning.forgetting import others

    if len(forget) < 2:
        raise DataError("verifying takes two records to forget or more: one is learned again")
    rng = np.random.default_rng([seed, 5])
    wrong = others(forget, keep, rng)
    order = rng.permutation(len(forget)).tolist()
    count = min(len(forget) - 1, max(1, round(how.relearned * len(forget))))
    known = [forget[i] for i in order[:count]]
    rest = sorted(order[count:][: how.records])
    held = _Held(
        asked=[forget[i] for i in rest],
        wrong=[wrong[i] for i in rest],
        keep=_some(rng, keep, how.records),
        never=_some(rng, never, how.records),
        known=known,
        drawn=[forget[i] for i in rest if _asks(came, forget[i])][: how.asked],
    )
    models = {CAME: came, UNLEARNED: unlearned} | ({RETRAINED: retrained} if retrained else {})
    columns = {}
    for name, model in models.items():
        say(name)
        columns[name] = _measured(model, held)
        _attack(columns[name], model, came, held, how, seed)
    return Verification(
        {name: column.measures for name, column in columns.items()},
        {name: column.attacks for name, column in columns.items()},
        len(rest),
        *_beside(columns),
    )


@dataclass(frozen=True, kw_only=True)
class _Held:
    """The records that are measured, and those an attacker has."""

    asked: Sequence[Demonstration]
    wrong: Sequence[Sequence[str]]
    keep: Sequence[Demonstration]
    never: Sequence[Demonstration]
    known: Sequence[Demonstration]
    drawn: Sequence[Demonstration]


def _measured(model: TorchModel, held: _Held) -> _Column:
    from cosilo.models.white_box.batch import reply_loss
    from cosilo.models.white_box.unlearning.reading import ModuleReader, reply_tokens

    reader = ModuleReader(reply_loss)

    def read(records: Sequence[Demonstration]) -> list[Any]:
        return reply_tokens(reader, model.module, _sequences(model, records))

    answers = read(held.asked)
    others = read(
        [
            Demonstration(record.id, record.chat, text)
            for record, texts in zip(held.asked, held.wrong, strict=True)
            for text in texts
        ]
    )
    sure = np.array([np.exp(p.mean()) for p, _ in answers])
    each = iter(float(np.exp(p.mean())) for p, _ in others)
    ratios = [
        measure.truth_ratios(np.array([right]), np.array([[next(each) for _ in texts]]))[0]
        for right, texts in zip(sure, held.wrong, strict=True)
    ]
    column = _Column(
        probability=sure,
        strength=measure.extraction_strength([right for _, right in answers]),
        ratios=np.array(ratios),
        kept=np.array([np.exp(p.mean()) for p, _ in read(held.keep)]),
        nats=np.array([-p.sum() for p, _ in answers]),
        inside=np.array([measure.member_score(p) for p, _ in answers]),
    )
    if held.never:
        column.outside = np.array([measure.member_score(p) for p, _ in read(held.never)])
    return column


def _attack(
    column: _Column, model: TorchModel, came: TorchModel, held: _Held, how: Verifying, seed: int
) -> None:
    from cosilo.models.white_box.batch import reply_loss
    from cosilo.models.white_box.tuning import merged
    from cosilo.models.white_box.unlearning.attacks import TwoCheckpoints, relearned, rounded_to
    from cosilo.models.white_box.unlearning.reading import ModuleReader, reply_tokens

    reader, asked = ModuleReader(reply_loss), _sequences(model, held.asked)

    def probability(module: Any, by: Any = reader) -> NumberWithInterval:
        return _mean(np.array([np.exp(p.mean()) for p, _ in reply_tokens(by, module, asked)]))

    column.attacks["relearned"] = probability(
        relearned(
            model.module, _sequences(model, held.known), epochs=how.epochs,
            learning_rate=how.learning_rate, seed=seed,
        )
    )  # fmt: skip
    whole = merged(model.module)
    for bits in (8, 4):
        column.attacks[f"{bits} bits"] = probability(rounded_to(whole, bits))
    column.attacks["two checkpoints"] = probability(
        model.module, TwoCheckpoints(reader, came.module)
    )
    column.attacks["verbatim in 16"] = _mean(measure.leaked_within(column.nats, DRAWS))
    if held.drawn:
        column.attacks["best of 16"] = _mean(_drawn(model, held.drawn, how, seed))


def _drawn(
    model: TorchModel, records: Sequence[Demonstration], how: Verifying, seed: int
) -> Floats:
    """ROUGE-L recall of the best of the drawn replies to each record."""

    async def every() -> list[str]:
        sampling = Sampling(max_tokens=how.longest, temperature=1.0)
        found = await asyncio.gather(
            *(
                model.generate(
                    record.chat, msgspec.structs.replace(sampling, seed=10_000 * seed + i)
                )
                for i, record in enumerate(r for r in records for _ in range(DRAWS))
            )
        )
        return [each.text for each in found]

    texts = iter(asyncio.run(every()))
    best = [max(rouge_l_recall(r.target, next(texts)) for _ in range(DRAWS)) for r in records]
    return np.array(best)


def _beside(columns: Mapping[str, _Column]) -> tuple[float | None, float | None]:
    """Forget quality and privacy leak, where there is something to hold the weights against."""
    ours, wanted = columns[UNLEARNED], columns.get(RETRAINED)
    if wanted is None:
        return None, None
    leak = None
    if ours.outside is not None and wanted.outside is not None:
        leak = measure.privacy_leak(ours.inside, ours.outside, wanted.inside, wanted.outside)
    return measure.same_p(ours.ratios, wanted.ratios), leak


def _mean(values: Floats) -> NumberWithInterval:
    low, high = intervals.mean(values, (0.0, 1.0))
    return NumberWithInterval(float(values.mean()), low, high, len(values))


def _sequences(model: TorchModel, records: Sequence[Demonstration]) -> list[Tokens]:
    from cosilo.models.white_box.tuning import fitted

    return fitted([model.tokenize(r.chat, r.target) for r in records], model.module)


def _asks(model: TorchModel, record: Demonstration) -> bool:
    """Whether the model has room for its question and some of a reply."""
    return len(model.prompt(record.chat)) < model.context


def _some(
    rng: np.random.Generator, records: Sequence[Demonstration], most: int
) -> list[Demonstration]:
    return [records[i] for i in sorted(rng.permutation(len(records))[:most].tolist())]
