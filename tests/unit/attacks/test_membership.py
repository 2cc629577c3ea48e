"""Membership attacks find records where there is something to find, and guess where there is not."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from a_writer import WordEmbedder, writes
from bag import Bag
from cosilo.attacks.base import Guess, Target, View, attacks
from cosilo.attacks.membership import NearestText, Votes, poll, rounds
from cosilo.attacks.published import Calibrated, Confidence, Loss, MinK, Reference, Zlib
from cosilo.boundary.messages import Read, encode
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.models.base import Array, Tokens
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.objectives.membership import auc, tpr
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.types import Demonstration, Sampling, user
from toy_lm import ToyLM

LABELS = ("billing", "lost_card")
COLOURS = ("red", "blue", "green", "brown", "grey", "white", "black", "pink")


def texts(count: int, seed: int) -> list[Demonstration]:
    """Texts of two labels, each near one of the colours that the large model writes about."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        label = LABELS[i % 2]
        colour = COLOURS[int(rng.integers(8))]
        words = " ".join(f"w{rng.integers(40)}" for _ in range(3))
        text = f"{colour} text about {label.replace('_', ' ')} {words}"
        found.append(Demonstration(f"{seed}-{i}", user(text), label))
    return found


def target(example: Demonstration) -> Target:
    return Target(example.id, "", "member", chat=example.chat, label=example.target)


async def evolved(private: Sequence[Demonstration], epsilon: float = math.inf) -> View:
    """The record of private evolution over these records, as its LM's owner has it."""
    ledger, embedder = MemoryLedger(), WordEmbedder()
    strategy = strategies.create(
        "private_evolution", about="a message", epsilon=epsilon, rounds=3, each=8, lines=8
    )
    session = open_session(
        DataOwner(ScriptedModel(), private=tuple(private), embedder=embedder),
        LMOwner(ScriptedModel(writes)),
        strategy,
        sampling=Sampling(choices=LABELS),
        ledger=ledger,
    )
    await strategy.prepare(session)
    return View(ledger.entries, embedder=embedder)


def scores(guesses: Sequence[Guess], examples: Sequence[Demonstration]) -> np.ndarray:
    by = {g.target: g.score for g in guesses}
    return np.array([by[e.id] for e in examples])


async def area(attack: NearestText | Votes, view: View, inside: list, outside: list) -> float:
    guesses = await attack.guess(view, [target(e) for e in (*inside, *outside)])
    assert [g.target for g in guesses] == [e.id for e in (*inside, *outside)]
    assert all(0 <= g.score <= 1 for g in guesses)
    return auc(scores(guesses, inside), scores(guesses, outside))[0]


async def test_a_record_that_was_sent_itself_is_found() -> None:
    inside, outside = texts(30, 1), texts(30, 2)
    ledger = MemoryLedger()
    strategy = strategies.create("distil_labels")
    session = open_session(
        DataOwner(Bag(), pool=tuple(inside)),
        LMOwner(
            ScriptedModel(lambda chat: "billing" if "bill" in chat[-1].content else "lost_card")
        ),
        strategy,
        sampling=Sampling(choices=LABELS),
        ledger=ledger,
    )
    await strategy.prepare(session)
    view = View(ledger.entries, embedder=WordEmbedder())
    assert await area(NearestText(), view, inside, outside) > 0.95


async def test_votes_without_noise_tell_who_voted() -> None:
    found = []
    for seed in range(12):
        inside, outside = texts(24, 100 + seed), texts(24, 200 + seed)
        found.append(await area(Votes(), await evolved(inside), inside, outside))
    assert np.mean(found) > 0.56
    assert np.mean(found) - 2 * np.std(found) / math.sqrt(len(found)) > 0.5


async def test_votes_with_much_noise_tell_nothing() -> None:
    found = []
    for seed in range(12):
        inside, outside = texts(24, 300 + seed), texts(24, 400 + seed)
        found.append(await area(Votes(), await evolved(inside, 0.05), inside, outside))
    assert abs(np.mean(found) - 0.5) < 3.5 * np.std(found) / math.sqrt(len(found)) + 0.01


async def test_rounds_are_read_from_the_record_alone() -> None:
    view = await evolved(texts(40, 5))
    found = rounds(view, LABELS)
    assert len(found) == 3
    for round_ in found:
        assert round_.chosen < set(round_.candidates)
        assert set(round_.candidates.values()) == {"billing", "lost_card"}
        assert len(round_.chosen) == 4, "two of each label go back"


async def test_blanked_texts_are_recognised() -> None:
    ledger = MemoryLedger()
    strategy = strategies.create(
        "private_evolution", about="a message", rounds=1, each=8, lines=8, vary="fill_in",
        epsilon=math.inf,
    )  # fmt: skip
    session = open_session(
        DataOwner(ScriptedModel(), private=tuple(texts(20, 9)), embedder=WordEmbedder()),
        LMOwner(ScriptedModel(writes)),
        strategy,
        sampling=Sampling(choices=LABELS),
        ledger=ledger,
    )
    await strategy.prepare(session)
    (found,) = rounds(View(ledger.entries), LABELS)
    assert len(found.chosen) >= 4


@pytest.mark.parametrize("name", ["nearest_text", "votes"])
async def test_without_a_record_or_an_encoder_every_guess_is_the_same(name: str) -> None:
    asked = [target(e) for e in texts(4, 1)]
    attack = attacks.create(name)
    nothing = View(lambda: iter(()), embedder=WordEmbedder())
    assert {g.score for g in await attack.guess(nothing, asked)} == {0.5}
    blind = replace(await evolved(texts(20, 3)), embedder=None)
    assert {g.score for g in await attack.guess(blind, asked)} == {0.5}
    assert await attack.guess(nothing, []) == []


def test_messages_that_hold_no_vote_are_no_round() -> None:
    """The first of them may have a request without parts."""
    ledger = MemoryLedger()
    for message in (Read(texts=("a text",)), Read(texts=("another",))):
        ledger.append("pool", "up", message, encode(message))
    assert rounds(View(ledger.entries), LABELS) == []


def test_a_poll_finds_the_noise_and_the_threshold_it_was_made_with() -> None:
    rng = np.random.default_rng(0)
    votes, nearest = np.arange(2000) % 12, np.arange(2000)
    real = rng.binomial(votes, 0.5)
    quiet = poll(np.eye(1, dtype=np.float32), np.eye(1, dtype=np.float32), [True])
    quiet = replace(quiet, votes=votes, nearest=nearest, chosen=(real >= 4).astype(np.int64))
    loud = replace(quiet, chosen=(rng.random(2000) < 0.4).astype(np.int64))
    assert quiet.fitted(0.25)[0] == pytest.approx(3.5, abs=0.51)
    assert quiet.fitted(0.25)[1] > quiet.fitted(8.0)[1]
    assert loud.fitted(8.0)[1] > loud.fitted(0.25)[1]
    ratios = quiet.ratios(0.25, 3.5)
    some = votes >= 2
    assert (ratios[some & (quiet.chosen == 1)] >= 0).all(), "its vote can only have helped"
    assert (ratios[some & (quiet.chosen == 0)] <= 0).all()
    assert np.abs(loud.ratios(8.0, 4.0)).max() < 0.5 < np.abs(ratios).max()


# ── on a published model ─────────────────────────────────────────────────────


def words(count: int, seed: int) -> list[Demonstration]:
    rng = np.random.default_rng(seed)
    return [
        Demonstration(
            f"{seed}-{i}",
            user(" ".join(f"w{rng.integers(3000)}" for _ in range(8))),
            LABELS[int(rng.integers(2))],
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("attack", [Loss(), Calibrated(8, Bag())], ids=["loss", "calibrated"])
async def test_an_overfitted_model_tells_what_it_saw_and_an_untrained_one_does_not(
    attack: Loss | Calibrated,
) -> None:
    inside, outside = words(60, 1), words(60, 2)
    asked = [target(e) for e in (*inside, *outside)]
    trained = View(lambda: iter(()), published=Bag(inside))  # type: ignore[arg-type]
    guesses = await attack.guess(trained, asked)
    assert auc(scores(guesses, inside), scores(guesses, outside))[0] > 0.9
    other = View(lambda: iter(()), published=Bag(words(60, 3)))  # type: ignore[arg-type]
    guesses = await attack.guess(other, asked)
    value, low, high = auc(scores(guesses, inside), scores(guesses, outside))
    assert low < 0.5 < high or abs(value - 0.5) < 0.08


async def test_confidence_needs_no_label() -> None:
    inside, outside = words(60, 1), words(60, 2)
    view = View(lambda: iter(()), published=Bag(inside))  # type: ignore[arg-type]
    unlabelled = [replace(target(e), label="") for e in (*inside, *outside)]
    guesses = await Confidence().guess(view, unlabelled)
    assert auc(scores(guesses, inside), scores(guesses, outside))[0] > 0.8


async def test_min_k_reads_the_least_likely_tokens() -> None:
    model = ToyLM()
    examples = [Demonstration("a", user("x"), "yes"), Demonstration("b", user("y"), "no")]
    view = View(lambda: iter(()), published=model)
    asked = [target(e) for e in examples]
    low = await MinK().scores(view, asked)
    mean = await Loss().scores(view, asked)
    assert low is not None
    assert mean is not None
    for i, example in enumerate(examples):
        tokens = model.tokenize(example.chat, example.target)
        (logits,) = await model.logits([tokens])
        wide = logits.astype(np.float64)
        each = [
            row[t] - np.log(np.exp(row).sum())
            for row, t in zip(wide, tokens.ids[tokens.start :], strict=True)
        ]
        assert mean[i] == pytest.approx(np.mean(each))
        assert low[i] == pytest.approx(min(each)), "a fifth of four tokens or fewer is one"


async def test_what_zlib_finds_little_in_counts_for_little() -> None:
    model = ToyLM()
    asked = [
        target(Demonstration(str(i), user("x"), text))
        for i, text in enumerate(("yes", "no no no no"))
    ]
    view = View(lambda: iter(()), published=model)
    found, mean = await Zlib().scores(view, asked), await Loss().scores(view, asked)
    assert found is not None
    assert mean is not None
    for i, each in enumerate(asked):
        tokens = model.tokenize(each.chat, each.label)
        count = len(tokens) - tokens.start
        assert found[i] == pytest.approx(mean[i] * count / len(zlib.compress(each.label.encode())))


async def test_a_reference_takes_away_what_was_likely_before_training() -> None:
    class Trained(ToyLM):
        """Surer of what follows x, and of nothing else."""

        async def logits(self, sequences: Sequence[Tokens]) -> list[Array]:
            found = await super().logits(sequences)
            for sequence, logits in zip(sequences, found, strict=True):
                if sequence.ids[: sequence.start].tolist() == seen:
                    said = sequence.ids[sequence.start :]
                    logits[np.arange(len(said)), said] += 3
            return found

    own = ToyLM().tokenize(user("x"), "yes")
    seen = own.ids[: own.start].tolist()
    examples = [Demonstration("a", user("x"), "yes"), Demonstration("b", user("y"), "yes")]
    asked = [target(e) for e in examples]
    view = View(lambda: iter(()), published=Trained(), untrained=ToyLM())
    found = await Reference().scores(view, asked)
    assert found is not None
    assert found[0] > 0.1
    assert found[1] == pytest.approx(0.0, abs=1e-6)
    assert await Reference().scores(replace(view, untrained=None), asked) is None


@pytest.mark.parametrize("name", ["loss", "confidence", "min_k", "calibrated", "zlib", "reference"])
async def test_without_a_published_model_every_guess_is_the_same(name: str) -> None:
    asked = [target(e) for e in texts(4, 1)]
    guesses = await attacks.create(name).guess(View(lambda: iter(())), asked)
    assert [g.score for g in guesses] == [0.5] * 4


# ── the numbers ──────────────────────────────────────────────────────────────


def test_the_area_counts_pairs() -> None:
    inside, outside = np.array([3.0, 1.0, 2.0]), np.array([2.0, 0.0])
    value, low, high = auc(inside, outside)
    assert value == pytest.approx((2 + 1 + 1.5) / 6)
    assert low <= value <= high
    assert auc(np.ones(9), np.zeros(9))[0] == 1.0
    assert auc(np.ones(9), np.zeros(9))[1] < 1.0, "nine of nine are not all of all"


def test_the_interval_of_an_area_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    true = 0.5 * math.erfc(-0.5 / 2)  # Φ(0.5/√2)
    covered = 0
    for _ in range(60):
        _, low, high = auc(rng.normal(0.5, 1, 40), rng.normal(0, 1, 40))
        covered += low <= true <= high
    assert covered >= 51


def test_true_positives_are_counted_above_one_false_one_in_a_hundred() -> None:
    outside = np.arange(200.0)
    inside = np.array([197.5, 198.5, 300.0, 0.0])
    rate, low, high = tpr(inside, outside)
    assert rate == 0.75
    assert low < rate < high
