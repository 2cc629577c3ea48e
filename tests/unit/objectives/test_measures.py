"""Each objective on a run made by hand, where the right number can be counted on paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest

from cosilo.attacks.base import Guess
from cosilo.boundary.messages import Ask, Completion, Forward, Lent, Score, Scored, Step, encode
from cosilo.boundary.messages.lend import Described
from cosilo.boundary.meter import Meter, Price
from cosilo.boundary.record.ledger import Entry, MemoryLedger
from cosilo.boundary.wire.states import pack_scaled
from cosilo.models.base import Access
from cosilo.objectives import attacked, item_values, measure_all
from cosilo.objectives.base import Item, Link, Measurement, Run, objectives
from cosilo.objectives.reading import Reading, count
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import Answer, Generation, user
from toy_lm import ToyLM

C = Any  # the `Crossing` class of this folder's conftest, handed over by its fixture
MakeRun = Callable[..., Run]


def measured(run: Run) -> dict[str, Measurement]:
    return {m.objective.name: m for m in measure_all(run)}


NAMES = ("Anna Bergström", "Carl Öhman", "Dora Lindqvist", "Emil Sandberg")


@pytest.fixture
def four(crossing: C, make_run: MakeRun) -> Run:
    """Raw, disguised, pseudonymised, kept: one item each."""
    said = ("I am Anna Bergström", "I am CARL  OEHMAN, carl öhman", "I am PERSON_1", None)
    return make_run(
        [
            crossing(
                f"I am {name}", [("person", name)], sent, reply=reply, grade=grade, by=by,
                tokens=(10, 2), lm_seconds=0.5, seconds=0.1, cpu_seconds=0.02,
            )
            for name, sent, reply, grade, by in zip(
                NAMES, said, ("yes", "no", "yes", "yes"), (1, 0, 1, 1),
                ("large", "large", "large", "small"), strict=True,
            )
        ],
        labels=("yes", "no"),
        price=Price(1.0, 10.0),
        link=Link(rtt_ms=40, mbit_per_s=8),
        peak_memory=250_000_000,
    )  # fmt: skip


def test_every_objective_is_registered_under_its_own_name() -> None:
    for name in objectives.names():
        assert objectives.create(name).objective.name == name


def test_efficiency_is_counted_from_the_record(four: Run) -> None:
    m = measured(four)
    assert m["calls"].value == 0.75
    assert m["round_trips"].value == 0.75
    assert m["tokens_in"].value == 7.5
    assert m["tokens_out"].value == 1.5
    # 10 prompt tokens at $1 and 2 reply tokens at $10 a million: 30 millionths, for 3 of 4 items.
    assert m["usd_per_1k"].value == pytest.approx(1000 * 30e-6 * 0.75)
    assert m["cpu_ms"].value == pytest.approx(20)
    assert m["memory_mb"].value == 250
    up = [e.size for e in four.entries() if e.direction == "up"]
    down = [e.size for e in four.entries() if e.direction == "down"]
    assert m["bytes_up"].value == pytest.approx(sum(up) / 4)
    assert m["bytes_down"].value == pytest.approx(sum(down) / 4)


def test_latency_adds_local_time_the_lms_time_and_the_link(four: Run) -> None:
    values = item_values(four)["latency_ms"]
    sizes = [e.size for e in four.entries()]
    # 8 Mbit/s is one byte a microsecond.
    assert values[0] == pytest.approx(100 + 500 + 40 + (sizes[0] + sizes[1]) / 1000)
    assert values[3] == pytest.approx(100)
    m = measured(four)
    assert m["latency_ms"].value == pytest.approx(float(np.median(values)))
    assert m["latency_p95_ms"].value == pytest.approx(float(np.quantile(values, 0.95)))
    assert m["latency_p95_ms"].objective.quantile == 0.95


def test_money_is_booked_as_the_meter_books_it() -> None:
    """Also for a reply that states no usage, and for a question that got no reply."""
    meter, ledger = Meter(price=Price(2.0, 3.0)), MemoryLedger()
    for request, generation in (("a", Generation("stated", prompt_tokens=7, completion_tokens=3)),
                                ("b", Generation("unstated")), ("c", None)):  # fmt: skip
        ask = Ask(chat=user("what is it?" * 20))
        ledger.append(request, "up", ask, encode(ask))
        reserved = meter.reserve(ask, len(encode(ask)))
        reply = None if generation is None else Completion(generation=generation)
        if reply is not None:
            ledger.append(request, "down", reply, encode(reply))
        size = 0 if reply is None else len(encode(reply))
        meter.settle(reserved, meter.cost(ask, len(encode(ask)), reply, size))
    found = count(ledger.entries, meter.price).values()
    for name in ("messages", "bytes_up", "bytes_down", "tokens_in", "tokens_out", "usd"):
        assert sum(getattr(t, name) for t in found) == pytest.approx(getattr(meter.totals, name))


def test_an_item_asked_again_after_an_interruption_counts_once(four: Run) -> None:
    again = [replace(e, attempt=1) for e in four.entries() if e.request == "0"]
    twice = replace(four, entries=lambda: iter([*four.entries(), *again]))
    assert measured(twice)["tokens_in"].value == measured(four)["tokens_in"].value


def test_utility_has_the_best_constant_as_its_base_rate(crossing: C, make_run: MakeRun) -> None:
    run = make_run(
        [crossing(f"t{i}", target="a" if i < 6 else "b", grade=float(i < 8)) for i in range(10)]
    )
    m = measured(run)["utility"]
    assert (m.value, m.n, m.baseline) == (0.8, 10, 0.6)
    assert 0.4 < m.low < 0.8 < m.high < 1


def test_entity_leak_counts_what_left_and_how(four: Run) -> None:
    m = measured(four)
    assert m["entity_leak"].value == 0.5
    assert m["entity_leak"].note == "of 4 secrets: 1 verbatim, 1 normalised"
    assert m["entity_leak"].baseline == 0.0
    assert m["identifiers_sent"].value == 0.5
    assert item_values(four)["entity_leak"].tolist() == [1, 1, 0, 0]


def test_the_leaks_base_rate_is_what_strangers_values_reach(crossing: C, make_run: MakeRun) -> None:
    """Every message names the same city, so finding it says nothing about whose it is."""
    cities = ("Uppsala", "Malmö")
    run = make_run(
        [crossing(f"t{i}", [("city", cities[i % 2])], "Uppsala or Malmö?") for i in range(4)]
    )
    m = measured(run)["entity_leak"]
    assert (m.value, m.baseline) == (1.0, 1.0)


async def test_privacy_is_the_strongest_attacks_advantage(four: Run) -> None:
    run = await attacked(four)
    m = measured(run)["privacy"]
    # All four names are equally common, so knowing nothing gives 1 of 4; two were readable.
    # What is not readable is guessed the same way: "Anna", right nowhere else.
    assert m.baseline == 0.25
    assert m.value == pytest.approx((0.5 - 0.25) / 0.75)
    assert m.note == "strongest attack: fuzzy" or m.note == "strongest attack: normalised"
    assert item_values(run)["privacy"].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("n", [1, 2, 12])
@pytest.mark.parametrize("known", [2, 3])
async def test_privacy_of_items_that_are_all_alike_is_not_known_exactly(
    crossing: C, make_run: MakeRun, n: int, known: int
) -> None:
    """Every item told one of its secrets: the next may tell all or none."""
    items = [
        crossing("text", [(f"k{i}", f"value{i}n{k}") for i in range(known)], f"it is value0n{k}")
        for k in range(n)
    ]
    for item in items:
        item.text = " ".join(value for _, value in item.secrets)
    common = [crossing("aaa", [(f"k{i}", "aaa") for i in range(known)])] * 3  # the prior's guess
    run = await attacked(make_run(items, background=common), names=["verbatim"])
    found = measured(run)["privacy"]
    assert found.value == pytest.approx(1 / known)
    assert found.low < found.value < found.high
    if n == 1:
        assert found.low < 0.05
        assert found.high > 0.95


async def test_privacy_of_a_record_of_nothing_is_zero_with_an_interval(
    crossing: C, make_run: MakeRun
) -> None:
    run = await attacked(
        make_run([crossing(f"I am {n}", [("person", n)], None, by="small") for n in NAMES * 10])
    )
    m = measured(run)
    assert (m["privacy"].value, m["privacy"].low) == (0.0, 0.0)
    assert 0.05 < m["privacy"].high < 0.15  # 40 items cannot show more
    assert item_values(run)["privacy"].sum() == 0
    assert (m["exposure"].value, m["exposure"].note) == (0.0, "the LM was not asked")
    assert m["relink"].value == m["relink"].baseline


async def test_guessing_the_most_common_value_is_no_advantage(
    crossing: C, make_run: MakeRun
) -> None:
    """Nine of ten live in one city: the record adds only the tenth."""
    cities = ["Uppsala"] * 9 + ["Malmö"]
    run = await attacked(
        make_run([crossing(f"t{i}", [("city", c)], f"from {c}") for i, c in enumerate(cities)])
    )
    m = measured(run)["privacy"]
    assert m.baseline == pytest.approx(0.9)
    assert m.value == pytest.approx(1.0)
    hidden = await attacked(
        make_run([crossing(f"t{i}", [("city", c)], "from CITY") for i, c in enumerate(cities)])
    )
    assert measured(hidden)["privacy"].value == 0.0


async def test_what_preparing_shows_counts_as_a_leak(crossing: C, make_run: MakeRun) -> None:
    """A strategy that sends the training pool and then answers alone is not private."""
    items = [crossing(f"I am {n}", [("person", n)], None, by="small") for n in NAMES]
    pool = [crossing(f"pool {n}", [("person", f"{n} Junior")], f"{n} Junior wrote") for n in NAMES]
    run = await attacked(make_run(items, background=[*pool, crossing("x", [("person", "Kim")])]))
    m = measured(run)
    assert m["prepare_entity_leak"].value == pytest.approx(0.8)
    assert m["privacy"].value == pytest.approx(0.8)
    assert "80 % of the secrets of 5 background examples left" in m["privacy"].note
    assert (item_values(run)["privacy"] >= 0.8).all()
    assert m["prepare_calls"].value == 4
    assert m["calls"].value == 0


def test_a_message_of_the_pool_tells_only_of_its_own_example(
    crossing: C, make_run: MakeRun
) -> None:
    pool = [
        crossing("a", [("person", NAMES[0])], f"{NAMES[1]} wrote"),
        crossing("b", [("person", NAMES[1])], "nobody wrote"),
    ]
    m = measured(make_run([crossing("x")], background=pool))["prepare_entity_leak"]
    assert m.value == 0.0


async def test_worked_examples_in_prompts_count_as_background_leaks(
    crossing: C, make_run: MakeRun
) -> None:
    run = make_run(
        [crossing(f"t{i}", [("person", n)], f"text {i}") for i, n in enumerate(NAMES)],
        background=[
            crossing("w", [("person", "Greta Holm")]),
            crossing("v", [("person", "Bo Ek")]),
        ],
    )
    ledger = MemoryLedger()
    for entry in run.entries():
        if entry.direction == "up":
            ask = Ask(chat=(*user("example: Greta Holm wrote"), *user(f"text {entry.request}")))
            ledger.append(entry.request, "up", ask, encode(ask))
    m = measured(replace(run, entries=ledger.entries))
    assert m["prepare_entity_leak"].value == 0.5
    assert m["entity_leak"].value == 0.0


def test_detected_secrets_are_said_to_be_detected(four: Run) -> None:
    m = measured(replace(four, gold_secrets=False))
    assert m["entity_leak"].note.endswith("secrets detected, not given")


async def test_relinking_is_reported_beside_a_blind_guess(crossing: C, make_run: MakeRun) -> None:
    topics = ["lost card", "late rent", "broken lift", "wrong invoice", "new password", "old loan"]
    run = await attacked(make_run([crossing(f"about {t}", sent=f"ABOUT {t}") for t in topics]))
    m = measured(run)["relink"]
    assert m.value == 1.0
    assert m.baseline == pytest.approx(1 / 6)
    assert "relink" not in item_values(run)  # one-to-one matches depend on each other


async def test_exposure_is_measured_on_replies_held_back(crossing: C, make_run: MakeRun) -> None:
    def items(reply: Callable[[int], str]) -> list[Any]:
        words = ("card", "loan", "flat")
        return [
            crossing(f"a {words[i % 3]} question {i}", sent=f"a {words[i % 3]} question {i}",
                     reply=reply(i))
            for i in range(30)
        ]  # fmt: skip

    learnt = await attacked(make_run(items(lambda i: "xyz"[i % 3]), labels=("x", "y", "z")))
    m = measured(learnt)["exposure"]
    assert (m.value, m.n) == (1.0, 30)
    assert m.baseline == pytest.approx(1 / 3)
    # Every reply its own: seen in training it would be right, held back it cannot be.
    unlearnable = await attacked(make_run(items(lambda i: f"r{i}"), labels=("x", "y")))
    assert measured(unlearnable)["exposure"].value == 0.0
    free = await attacked(make_run(items(lambda i: f"the answer is {'xyz'[i % 3]}")))
    assert measured(free)["exposure"].value == pytest.approx(1.0)


async def test_replies_given_while_preparing_expose_the_lm_too(
    crossing: C, make_run: MakeRun
) -> None:
    items = [crossing(f"t{i}", by="small") for i in range(4)]
    pool = [
        crossing("p", sent=f"a {w} question {i}", reply=w)
        for i, w in enumerate(["card", "loan"] * 10)
    ]
    run = await attacked(make_run(items, background=pool, labels=("card", "loan")))
    m = measured(run)["exposure"]
    assert (m.value, m.n, m.baseline) == (1.0, 20, 0.5)


def tampered(run: Run, grades: list[float], suspect: list[bool], ids: set[str]) -> Run:
    items = tuple(
        replace(item, grade=g, answer=Answer(Generation("no"), by=item.answer.by, suspect=s))
        for item, g, s in zip(run.items, grades, suspect, strict=True)
    )
    return replace(run, tampered=items, tampered_ids=frozenset(ids))


def test_integrity_is_the_paired_drop_and_detection_has_false_alarms(four: Run) -> None:
    run = tampered(four, [0, 0, 1, 1], [True, False, True, False], {"0", "1"})
    m = measured(run)
    assert m["integrity"].value == 0.25
    assert item_values(run)["integrity"].tolist() == [1, 0, 0, 0]
    assert m["integrity"].note == "2 of 4 items got a changed reply"
    assert (m["detection"].value, m["detection"].n) == (0.5, 2)
    assert m["detection"].baseline == 1.0  # item 2; item 3 was the small model's own
    assert m["detection"].note == "false alarms: 1 of 1 untouched replies"


async def test_each_family_starts_with_its_chief_objective(four: Run) -> None:
    run = tampered(await attacked(four), [0, 0, 1, 1], [True] * 4, {"0"})
    first: dict[str, str] = {}
    for m in measure_all(run):
        first.setdefault(m.objective.family, m.objective.name)
    assert list(first.items()) == [
        ("utility", "utility"), ("privacy", "privacy"), ("efficiency", "usd_per_1k"),
        ("exposure", "exposure"), ("integrity", "integrity"),
    ]  # fmt: skip


def test_what_was_not_run_is_not_measured(four: Run) -> None:
    names = measured(four).keys()
    assert not names & {"privacy", "relink", "exposure", "integrity", "detection", "epsilon"}
    assert measure_all(replace(four, items=())) == ()
    assert item_values(replace(four, items=())) == {}


async def test_a_record_of_digests_gives_counts_and_nothing_else(
    crossing: C, make_run: MakeRun
) -> None:
    run = make_run([crossing("a", [("person", "Anna Ek")], "Anna Ek")] * 2, keep="digest")
    m = measured(await attacked(run))
    assert {"calls", "bytes_up", "round_trips", "utility"} <= m.keys()
    assert not m.keys() & {"privacy", "entity_leak", "usd_per_1k", "exposure", "latency_ms"}


@pytest.mark.parametrize("where", ["entries", "prepare"])
async def test_of_states_and_token_ids_nobody_says_what_left(
    crossing: C, make_run: MakeRun, where: str
) -> None:
    """States stand for a text: a measure that reads texts has no number then, and above all no 0."""
    run = make_run([crossing("a", [("person", "Anna Ek")], sent="Anna Ek")] * 4)
    ledger = MemoryLedger()
    packed = pack_scaled(np.ones((2, 4), np.float32))
    for message in (
        Forward(first=1, last=3, count=2, packed=packed),
        Step(chat=user("x"), ids=(3, 4), vocabulary="v"),
    ):
        ledger.append("0", "up", message, encode(message))
        there = [e for e in (*ledger.entries(),) if e.kind == type(message).__name__]

        def more(there: list[Entry] = there) -> Iterator[Entry]:
            return chain(getattr(run, where)(), there)

        found = await attacked(replace(run, **{where: more}))
        assert found.guesses.keys() == {"output_layer"}
        m = measured(found)
        assert {"calls", "bytes_up", "utility"} <= m.keys()
        assert not m.keys() & {"privacy", "entity_leak", "identifiers_sent", "relink", "exposure"}
    assert "privacy" in measured(await attacked(run))


def test_epsilon_is_the_largest_any_item_spent(crossing: C, make_run: MakeRun) -> None:
    run = make_run(
        [crossing("a", sent="a", epsilon=0.5), crossing("b", sent="b", epsilon=2.0),
         crossing("c", sent="c")]
    )  # fmt: skip
    m = measured(run)["epsilon"]
    assert (m.value, m.note) == (2.0, "1 messages carried no ε")


def test_epsilon_counts_what_preparing_spent_for_every_item(crossing: C, make_run: MakeRun) -> None:
    background = [crossing("p", sent="p", epsilon=1.5), crossing("q", sent="q", epsilon=0.5)]
    alone = measured(make_run([crossing("a")], background=background))["epsilon"]
    assert (alone.value, alone.note) == (2.0, "2 of it to prepare")
    both = measured(make_run([crossing("a", sent="a", epsilon=0.25)], background=background))[
        "epsilon"
    ]
    assert both.value == 2.25


async def test_every_number_is_finite_and_inside_its_interval(four: Run) -> None:
    run = tampered(await attacked(four), [0, 0, 1, 1], [True] * 4, {"0"})
    for m in measure_all(run):
        assert math.isfinite(m.value + m.low + m.high), m
        assert m.low - 1e-9 <= m.value <= m.high + 1e-9, m
        assert m.baseline is None or math.isfinite(m.baseline)
    for name, values in item_values(run).items():
        objective = objectives.create(name).objective
        bounds = objective.bounds
        if objective.partial:
            values = values[~np.isnan(values)]
        assert np.isfinite(values).all()
        assert bounds is None or ((values >= bounds[0]) & (values <= bounds[1])).all()


async def test_the_values_mean_is_the_number(four: Run) -> None:
    run = tampered(await attacked(four), [0, 0, 1, 1], [True] * 4, {"0"})
    found = measured(run)
    for name, values in item_values(run).items():
        objective = found[name].objective
        if objective.partial:
            values = values[~np.isnan(values)]
        if name == "privacy":  # its values are stricter than the number, and say so
            assert values.mean() >= found[name].value
        elif objective.quantile is None:
            assert found[name].value == pytest.approx(float(values.mean()))
        else:
            expected = float(np.quantile(values, objective.quantile))
            assert found[name].value == pytest.approx(expected)


def test_measuring_reads_the_record_a_few_times_only(four: Run) -> None:
    reads = 0

    def entries() -> Any:
        nonlocal reads
        reads += 1
        return four.entries()

    measure_all(replace(four, entries=entries))
    assert reads <= 5


def test_a_reading_is_the_runs_entries(four: Run) -> None:
    assert list(Reading(four)()) == list(four.entries())


def test_guesses_about_other_things_do_not_count(four: Run) -> None:
    odd = {"mine": (Guess("other", "x", 1.0),)}
    assert "privacy" not in measured(replace(four, guesses=odd, priors=odd))


def test_items_without_secrets_are_left_out_of_privacy(crossing: C, make_run: MakeRun) -> None:
    run = make_run([crossing("a", [("person", "Anna Ek")], "Anna Ek"), crossing("b", sent="b")])
    assert item_values(run)["entity_leak"].tolist() == [1]
    assert item_values(run)["identifiers_sent"].tolist() == [1, 0]
    assert isinstance(run.items[0], Item)


async def scored_run(make_run: MakeRun, crossing: C, *, top: int, items: int = 40) -> Run:
    """Nothing is asked; a pool of replies is scored while preparing."""
    ledger = MemoryLedger()
    owner = LMOwner(ToyLM(12), exposes=Access.LOGITS.shows)
    for i in range(items):
        score = Score(items=(Scored(user(f"question {i}"), f"answer {i:02}"),), top=top)
        scores = await owner.handle(score)
        ledger.append(f"pool/{i}", "up", score, encode(score))
        ledger.append(f"pool/{i}", "down", scores, encode(scores))
    run = make_run([crossing("a"), crossing("b")])
    return await attacked(replace(run, prepare=ledger.entries), names=["surrogate", "output_layer"])


async def test_logits_on_record_show_the_output_layer_or_not(
    crossing: C, make_run: MakeRun
) -> None:
    found = measured(await scored_run(make_run, crossing, top=300))
    m = found["output_layer"]
    assert (m.value, m.n) == (1.0, 400)
    assert "hidden size 12" in m.note
    assert "exposure" not in found  # no words came down that a surrogate could foretell
    m = measured(await scored_run(make_run, crossing, top=8))["output_layer"]
    assert (m.value, m.n) == (0.0, 400)
    assert "no width" in m.note


async def test_without_logits_there_is_no_output_layer_to_speak_of(
    crossing: C, make_run: MakeRun
) -> None:
    run = await attacked(make_run([crossing("a", sent="a")]), names=["output_layer"])
    assert "output_layer" not in measured(run)


def test_an_emulator_that_was_lent_says_how_near_it_comes(crossing: C, make_run: MakeRun) -> None:
    plain = make_run([crossing("a", sent="a")])
    assert "emulator" not in measured(plain)
    ledger = MemoryLedger()
    for number, alone in enumerate((4.0, 3.5, 9.0)):
        about = Described(config="{}", base=32 * "b", kept=(0,), ends=1, whole=3.0, alone=alone)
        for part in range(2):
            lent = Lent(
                part=part, parts=2, size=2_000_000, digest=64 * "d", packed=b"x",
                about=None if part else about,
            )  # fmt: skip
            ledger.append(f"emulator/{number}", "down", lent, encode(lent))
    m = measured(replace(plain, prepare=ledger.entries))["emulator"]
    assert (m.value, m.n) == (pytest.approx(math.exp(-0.5)), 3)
    assert "gap 0.500" in m.note
    assert "6.0 MB" in m.note
