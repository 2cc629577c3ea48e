"""What crosses in private evolution, what it is charged for, and that it fails closed."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from a_writer import SUBJECTS, WordEmbedder, writes
from cosilo.attacks.record import texts
from cosilo.boundary.meter import Budget, Meter
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import (
    BudgetExceededError,
    CapabilityError,
    ConfigError,
    CosiloError,
    DataError,
    ModelError,
    PrivacyError,
)
from cosilo.models.base import Array, Embedder
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.privacy.accountant import noise_for, sensitivity, spent, usual_delta
from cosilo.session import open_session
from cosilo.strategies.base import Session, Strategy, strategies
from cosilo.strategies.downward.private_evolution import (
    blanked,
    random_prompt,
    ranked,
    variation_prompt,
    vote,
)
from cosilo.types import Demonstration, Sampling, user

LABELS = ("billing", "lost_card")
CANARY = "zebra7413"


def evolution(**options: object) -> Strategy:
    made = {"about": "a message", "each": 8, "lines": 8, "epsilon": math.inf, "rounds": 2}
    return strategies.create("private_evolution", **{**made, **options})


def record(i: int, subject: str = "green") -> Demonstration:
    label = LABELS[i % 2]
    text = f"{subject} text about {label.replace('_', ' ')} {CANARY} {i}"
    return Demonstration(f"r{i}", user(text, system="Sort it."), label)


def session(
    strategy: Strategy,
    *,
    private: Sequence[Demonstration] | None = None,
    embedder: Embedder | None = None,
    labels: tuple[str, ...] = LABELS,
    ledger: MemoryLedger | None = None,
    budget: Budget | None = None,
    large: ScriptedModel | None = None,
) -> Session:
    owner = DataOwner(
        ScriptedModel(name="small"),
        private=tuple(record(i) for i in range(40)) if private is None else tuple(private),
        embedder=embedder or WordEmbedder(),
    )
    return open_session(
        owner,
        LMOwner(large or ScriptedModel(writes)),
        strategy,
        sampling=Sampling(choices=labels),
        ledger=ledger,
        meter=Meter(budget) if budget else None,
    )


async def test_no_message_holds_anything_of_a_private_record() -> None:
    ledger = MemoryLedger()
    strategy = evolution(epsilon=1.0)
    _, after = await strategy.prepare(session(strategy, ledger=ledger))
    sent = [t for e in ledger.entries() if e.direction == "up" for t in texts(e.message)]
    assert sent
    assert not [text for text in sent if CANARY in text]
    trained = after.owner.model
    assert isinstance(trained, ScriptedModel)
    assert isinstance(trained.replies, dict)
    assert not [text for text in trained.replies if CANARY in text]


async def test_votes_without_noise_bring_what_the_records_are_like() -> None:
    strategy = evolution()
    _, after = await strategy.prepare(session(strategy))
    (card,) = after.cards
    assert all(text.startswith("green") for text in card.examples)
    trained = after.owner.model
    assert isinstance(trained, ScriptedModel)
    learned = dict(trained.replies)  # type: ignore[arg-type]
    assert set(learned.values()) == set(LABELS)
    assert len(learned) == 16, "what the model repeats is made up for by the next best"
    assert sum("green" in text for text in learned) >= 8


async def test_without_rounds_the_records_are_not_read() -> None:
    strategy = evolution(rounds=0, epsilon=1.0)
    without = session(strategy, private=[record(0), record(1)])
    _, after = await strategy.prepare(without)
    assert after.cards[0].facts["ε, all rounds"] == "none: nothing private was used"
    assert Counter(dict(after.owner.model.replies).values()) == {x: 8 for x in LABELS}  # type: ignore[attr-defined]


async def test_each_round_is_charged_once_and_in_full_by_its_first_message() -> None:
    ledger = MemoryLedger()
    strategy = evolution(epsilon=2.0, rounds=3)
    _, after = await strategy.prepare(session(strategy, ledger=ledger))
    up = [e for e in ledger.entries() if e.direction == "up"]
    by_round: dict[str, list[float]] = {}
    for entry in up:
        by_round.setdefault(entry.request.split("/")[1], []).append(entry.epsilon)
    assert by_round.pop("0") == [0.0] * 2, "prompts for first texts hold nothing private"
    assert [e[0] > 0 and not any(e[1:]) for e in by_round.values()] == [True] * 3
    delta, sigma = usual_delta(40), noise_for(2.0, usual_delta(40), rounds=3)
    for number in (1, 2, 3):
        so_far = sum(sum(by_round[str(t)]) for t in range(1, number + 1))
        assert so_far == pytest.approx(spent(sigma, delta, rounds=number))
    assert after.lm.totals.epsilon == pytest.approx(2.0)
    assert after.cards[0].facts["ε, all rounds"] == pytest.approx(2.0)
    assert after.cards[0].facts["σ"] == pytest.approx(sigma)


async def test_the_epsilon_goes_alone_ahead_of_all_that_depends_on_the_vote() -> None:
    ledger = MemoryLedger()
    strategy = evolution(epsilon=2.0, rounds=1)
    await strategy.prepare(session(strategy, ledger=ledger))
    after = [e for e in ledger.entries() if e.request.startswith("evolve/1/")]
    assert [e.direction for e in after[:2]] == ["up", "down"]
    assert after[0].epsilon > 0


async def test_a_budget_that_cannot_bear_a_round_lets_nothing_of_it_out() -> None:
    ledger = MemoryLedger()
    strategy = evolution(epsilon=2.0, rounds=3)
    first = spent(noise_for(2.0, usual_delta(40), rounds=3), usual_delta(40), rounds=1)
    budget = Budget(epsilon=first * 1.01)
    with pytest.raises(BudgetExceededError):
        await strategy.prepare(session(strategy, ledger=ledger, budget=budget))
    rounds = {e.request.split("/")[1] for e in ledger.entries()}
    assert rounds == {"0", "1"}


async def test_no_noise_states_no_guarantee() -> None:
    ledger = MemoryLedger()
    strategy = evolution(epsilon=math.inf)
    _, after = await strategy.prepare(session(strategy, ledger=ledger))
    assert not any(e.epsilon for e in ledger.entries())
    assert after.cards[0].facts["ε, all rounds"] == "∞: no guarantee"
    assert "σ" not in after.cards[0].facts


async def test_replacing_records_takes_more_noise() -> None:
    found = []
    for neighbours in ("add_or_remove", "replace"):
        strategy = evolution(epsilon=2.0, neighbours=neighbours)
        _, after = await strategy.prepare(session(strategy))
        found.append(after.cards[0].facts["σ"])
    assert float(found[1]) / float(found[0]) == pytest.approx(math.sqrt(2))


async def test_records_chosen_by_a_count_take_the_noise_for_two_that_change() -> None:
    """Else ε = 4 would be 5.99 for a record that is added to the data: another makes room for it."""
    strategy = evolution(epsilon=4.0, rounds=4, delta=1e-5)
    made = session(strategy)
    _, after = await strategy.prepare(replace(made, owner=replace(made.owner, chosen="first")))
    facts = after.cards[0].facts
    moved = sensitivity("add_or_remove", "first")
    assert spent(float(facts["σ"]), 1e-5, rounds=4, sensitivity=moved) == pytest.approx(4.0)
    assert after.lm.totals.epsilon == pytest.approx(4.0)
    assert "of a record more or less" in facts
    _, plain = await strategy.prepare(made)
    found = spent(float(plain.cards[0].facts["σ"]), 1e-5, rounds=4, sensitivity=moved)
    assert found == pytest.approx(5.99, abs=0.01)


async def test_records_chosen_by_quotas_send_nothing_unless_nothing_is_promised() -> None:
    ledger = MemoryLedger()
    strategy = evolution(epsilon=4.0)
    made = session(strategy, ledger=ledger)
    sampled = replace(made, owner=replace(made.owner, chosen="sampled"))
    with pytest.raises(PrivacyError, match="max_items"):
        await strategy.prepare(sampled)
    assert not list(ledger.entries())
    for free in (evolution(epsilon=math.inf), evolution(rounds=0)):
        await free.prepare(sampled)


class Broken:
    """An encoder that fails in one of several ways."""

    def __init__(self, how: str) -> None:
        self.how = how

    def embed(self, texts: Sequence[str]) -> Array:
        if self.how == "raises":
            raise ModelError("the sentence encoder failed: RuntimeError")
        found = WordEmbedder().embed(texts)
        if self.how == "nan":
            found[0, 0] = np.nan
        if self.how == "long":
            found *= 2
        return found[:-1] if self.how == "short" else found


@pytest.mark.parametrize("how", ["raises", "nan", "long", "short"])
async def test_a_failing_encoder_sends_nothing(how: str) -> None:
    ledger = MemoryLedger()
    strategy = evolution(epsilon=1.0)
    with pytest.raises(CosiloError) as caught:
        await strategy.prepare(session(strategy, ledger=ledger, embedder=Broken(how)))
    assert CANARY not in str(caught.value)
    assert not list(ledger.entries())


@pytest.mark.parametrize(
    ("strange", "error", "why"),
    [
        ({"private": [record(0), record(1)]}, CosiloError, "too few"),
        ({"private": [Demonstration("x", user("x"), "other")] * 9}, DataError, "nobody to vote"),
        ({"labels": ()}, DataError, "closed set"),
    ],
)
async def test_what_cannot_be_accounted_for_sends_nothing(
    strange: dict[str, object], error: type[Exception], why: str
) -> None:
    ledger = MemoryLedger()
    strategy = evolution(epsilon=1.0)
    with pytest.raises(error, match=why):
        await strategy.prepare(session(strategy, ledger=ledger, **strange))  # type: ignore[arg-type]
    assert not list(ledger.entries())


async def test_without_an_encoder_it_says_what_to_set() -> None:
    strategy = evolution()
    bare = open_session(
        DataOwner(ScriptedModel(), private=tuple(record(i) for i in range(9))),
        LMOwner(ScriptedModel(writes)),
        strategy,
        sampling=Sampling(choices=LABELS),
    )
    with pytest.raises(CapabilityError, match="embedder"):
        await strategy.prepare(bare)


async def test_a_model_that_writes_nothing_is_an_error_not_a_class_less() -> None:
    strategy = evolution()
    silent = ScriptedModel(lambda _: "...")
    with pytest.raises(DataError, match="no usable text for the label 'billing'"):
        await strategy.prepare(session(strategy, large=silent))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("about", " "), ("epsilon", 0.0), ("epsilon", math.nan), ("delta", 1.0), ("rounds", -1),
        ("each", 0), ("lines", 0), ("expand", 1), ("blank", 1.0), ("max_tokens", 0),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=option):
        evolution(**{option: value})


# ── the vote ─────────────────────────────────────────────────────────────────


def test_every_record_has_one_vote_for_its_nearest() -> None:
    rng = np.random.default_rng(0)
    voters, candidates = (rng.normal(size=(n, 8)).astype(np.float32) for n in (50, 7))
    voters /= np.linalg.norm(voters, axis=1, keepdims=True)
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    slow = [0] * 7
    for v in voters:
        slow[min(range(7), key=lambda i: float(np.linalg.norm(v - candidates[i])))] += 1
    assert vote(voters, candidates).tolist() == slow
    assert vote(voters[:0], candidates).tolist() == [0] * 7
    same = np.stack([candidates[0]] * 3)
    assert vote(voters, same).tolist() == [50, 0, 0], "a tie is one vote too"


def test_the_most_voted_come_first_and_noise_is_what_changes_it() -> None:
    counts = np.array([5.0, 0.0, 9.0, 1.0])
    assert ranked(counts, 0.0) == [2, 0, 3, 1]
    assert ranked(counts, 1.0, noise=lambda n, s: np.array([s * 20, 0, 0, 0]))[0] == 0


def test_the_noise_is_not_the_same_twice() -> None:
    flat = np.zeros(200)
    assert ranked(flat, 1.0) != ranked(flat, 1.0)


def test_drawing_goes_by_the_votes_above_the_threshold() -> None:
    counts = np.array([30.0, 10.0, 2.0, 2.0])
    firsts = Counter(ranked(counts, 0.0, threshold=2.0)[0] for _ in range(2000))
    assert set(firsts) == {0, 1}
    assert firsts[0] / 2000 == pytest.approx(28 / 36, abs=0.05)
    assert sorted(ranked(counts, 0.0, threshold=2.0)) == [0, 1, 2, 3]


# ── prompts and replies ──────────────────────────────────────────────────────


def test_prompts_name_the_label_and_what_the_texts_are() -> None:
    (turn,) = random_prompt("a complaint", "lost_card", 5)
    assert "a complaint" in turn.content
    assert '"lost card"' in turn.content
    assert "5 different" in turn.content
    system, text = variation_prompt("a complaint", "billing", "my bill", 1, how="paraphrase")
    assert text.content == "my bill"
    assert '"billing"' in system.content


def test_blanks_hide_about_the_share_of_the_words() -> None:
    text = " ".join(f"w{i}" for i in range(20))
    hidden = blanked(text, 0.5, 1)
    assert hidden.split().count("_") == 10
    assert blanked(text, 0.5, 1) == hidden != blanked(text, 0.5, 2)
    assert blanked("one", 0.9, 0) == "one"
    assert blanked("one two", 0.9, 0).split().count("_") == 1


async def test_blanks_are_what_crosses_when_texts_are_filled_in() -> None:
    ledger = MemoryLedger()
    strategy = evolution(vary="fill_in", rounds=1)
    await strategy.prepare(session(strategy, ledger=ledger))
    sent = [
        e for e in ledger.entries() if e.request.startswith("evolve/1/") and e.direction == "up"
    ]
    assert sent
    assert all("_" in texts(e.message)[-1] for e in sent)


async def test_what_says_nothing_or_the_same_again_is_no_candidate() -> None:
    said = "Here are some:\n1. First text\n- first text!\n***\nanother thing altogether"
    strategy = evolution(rounds=0)
    _, after = await strategy.prepare(session(strategy, large=ScriptedModel(lambda _: said)))
    trained = after.owner.model
    assert isinstance(trained, ScriptedModel)
    assert set(dict(trained.replies)) == {"First text", "another thing altogether"}  # type: ignore[arg-type]


def test_the_subjects_are_more_than_are_kept() -> None:
    assert len(SUBJECTS) == 8, "the population tests above count on it"


# ── the same question has the same answer ────────────────────────────────────


async def sent(strategy: Strategy, private: Sequence[Demonstration]) -> list[str]:
    ledger = MemoryLedger()
    await strategy.prepare(session(strategy, private=private, ledger=ledger))
    return [t for e in ledger.entries() if e.direction == "up" for t in texts(e.message)]


async def test_under_one_key_preparing_again_sends_the_same(tmp_path: Path) -> None:
    records = [record(i) for i in range(40)]
    noisy = {"epsilon": 0.1, "rounds": 3}
    keyed = evolution(**noisy, key_file=tmp_path / "noise.key")
    first = await sent(keyed, records)
    assert await sent(keyed, records) == first
    assert await sent(evolution(**noisy, key_file=tmp_path / "other.key"), records) != first
    assert await sent(evolution(**noisy), records) != await sent(evolution(**noisy), records)


@pytest.mark.parametrize("select", ["rank", "sample"])
async def test_one_record_less_gets_noise_of_its_own(tmp_path: Path, select: str) -> None:
    """Were the noise the same, the difference of two releases would be the record's bare vote."""
    drawn: list[float] = []

    def watched(counts: object, sigma: float, **how: object) -> list[int]:
        source = how["source"]
        assert isinstance(source, random.Random)
        drawn.append(source.random())
        return ranked(counts, sigma, **how)  # type: ignore[arg-type]

    strategy = evolution(epsilon=1.0, select=select, key_file=tmp_path / "noise.key")
    records = [record(i) for i in range(40)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cosilo.strategies.downward.private_evolution.ranked", watched)
        await sent(strategy, records)
        whole, drawn[:] = drawn[:2], []
        await sent(strategy, records[:-1])
    assert len(set(whole) | set(drawn[:2])) == 4, "two labels, two data sets, no noise in common"
