"""A run with several large models: a chain, a price and an attacker each, and one budget for all."""

from __future__ import annotations

import asyncio
import sqlite3
from argparse import Namespace
from contextlib import closing
from pathlib import Path

import pytest

from cosilo.benchmark.bundling import make_bundle
from cosilo.benchmark.executors.processes import Processes
from cosilo.benchmark.identity import settings_of, trial_identity
from cosilo.benchmark.measure import load_run
from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.record import chain_of, fault, survey
from cosilo.benchmark.results import opened
from cosilo.benchmark.runner import Runner
from cosilo.benchmark.store import Store
from cosilo.boundary.record.faults import verify
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.cli import main
from cosilo.cli.serve import _layout
from cosilo.errors import BudgetExceededError
from cosilo.gateway.serving.points import open_recipe
from cosilo.objectives.reading import reading
from cosilo.types import user
from house import open_tab
from tiny_run import PLAN, bench, write_data

THREE = (
    PLAN.partition("[models.large]")[0]
    + """
[models.large.good]
kind = "scripted"
name = "good"
replies = {cat = "cat", dog = "dog", cow = "cow"}
seconds = 1.0
usd_per_m_in = 1.0
[models.large.fair]
kind = "scripted"
name = "fair"
replies = {cat = "cat", dog = "dog", cow = "dog"}
seconds = 3.0
usd_per_m_in = 10.0
link = {rtt_ms = 500, mbit_per_s = 1}
[models.large.poor]
kind = "scripted"
name = "poor"
replies = {cat = "cat", dog = "cow", cow = "cow"}
seconds = 2.0
usd_per_m_in = 100.0
"""
)
POINTS = """
[[points]]
strategy = "large"
peers = [["good"], ["fair"]]
[[points]]
strategy = "ensemble"
"""
NAMES = ("good", "fair", "poor")


def test_the_majority_is_answered_and_each_owner_has_a_chain(tmp_path: Path) -> None:
    write_data(tmp_path, THREE + POINTS)
    outcomes, _ = bench(tmp_path, THREE + POINTS)
    assert [(o.point.name, o.error) for o in outcomes] == [
        ("large@good", None),
        ("large@fair", None),
        ("ensemble", None),
    ]
    *_, ensemble = outcomes
    plan = parse_plan(THREE + POINTS, tmp_path / "p.toml")
    with closing(sqlite3.connect(tmp_path / "run" / "ledger.sqlite")) as db:
        found = {chain for (chain,) in db.execute("SELECT DISTINCT chain FROM entries")}
    own = {f"{ensemble.trial}{of}" for of in ("", "/peers/fair", "/peers/poor")}
    assert {chain for chain in found if chain.startswith(ensemble.trial)} == own | {
        f"{ensemble.trial}/tampered{of}" for of in ("", "/peers/fair", "/peers/poor")
    }
    assert {o.trial for o in outcomes[:2]} <= found  # one other side: the chain is named as ever
    with opened(tmp_path / "run") as results:
        points = {p.name: p for p in results.points}
        assert points["ensemble"].test["utility"].value == 1.0
        assert points["large@fair"].test["utility"].value < 1.0
        run = load_run(plan, results.store, results.task, results.trial("ensemble"), "test")
        assert list(run.sides) == list(NAMES)
        n = len(run.items)
        traffic = reading(run).traffic
        assert {t.messages for t in traffic.values()} == {3}
        for name, side in run.sides.items():
            assert {e.chain for e in side.entries()} == {
                ensemble.trial
                if name == "good"
                else chain_of(ensemble.trial, f"plain/peers/{name}")
            }
            assert {t.messages for t in reading(side).traffic.values()} == {1}
            assert side.price == plan.peers[name].price
        tokens = [t.tokens_in for t in reading(run.sides["good"]).traffic.values()]
        test = points["ensemble"].test
        assert test["tokens_in"].value == pytest.approx(3 * sum(tokens) / n)
        assert test["usd_per_1k"].value == pytest.approx(1000 * 111 * sum(tokens) / n / 1e6)
        one = points["large@fair"].test
        assert one["usd_per_1k"].value == pytest.approx(1000 * 10 * sum(tokens) / n / 1e6)
        # The slowest is waited for, over its own link; all bytes cross one after another.
        for t in traffic.values():
            assert t.waiting == pytest.approx(3.5)
            assert t.on_the_wire > 8 * t.bytes_up / 3 / 1e6
        assert "fair: 500 ms, 1 Mbit/s" in test["latency_ms"].note
        assert one["latency_ms"].note == "link: 500 ms, 1 Mbit/s"
        leak = test["privacy"]
        assert leak.value > 0.9
        assert "the same for each of 3 other sides and for all together" in leak.note
    again, second = bench(tmp_path, THREE + POINTS)
    assert (second.items, [o.trial for o in again]) == (0, [o.trial for o in outcomes])


def test_the_record_is_shown_with_the_names_of_the_owners(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = THREE + '[[points]]\nstrategy = "ensemble"\n'
    write_data(tmp_path, text)
    bench(tmp_path, text)
    run = tmp_path / "run"
    with closing(sqlite3.connect(run / "ledger.sqlite")) as db:
        [request] = db.execute("SELECT request FROM entries WHERE direction = 'down'").fetchone()
    assert main(["audit", "show", str(run), "--request", request]) == 0
    said = capsys.readouterr().out
    for name in NAMES:
        assert f"left for {name}: Ask" in said
        assert f"came from {name}: Completion" in said
    assert main(["audit", "verify", str(run)]) == 0
    assert main(["report", str(run), "-o", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text("utf-8")
    for name in NAMES:
        assert f"Of these, to and from {name}" in page
        assert f"{name}: {name}" in page


def test_one_who_lies_alone_is_outvoted(tmp_path: Path) -> None:
    def harm(folder: str, tamper: str) -> dict[str, tuple[float, str] | None]:
        text = THREE.replace("tamper_share = 0.3", f"tamper_share = 0.3\n{tamper}") + POINTS
        (tmp_path / folder).mkdir()
        write_data(tmp_path / folder, text)
        outcomes, _ = bench(tmp_path / folder, text)
        assert [o.error for o in outcomes] == [None] * 3
        assert not faults(tmp_path / folder / "run" / "ledger.sqlite")
        with opened(tmp_path / folder / "run") as results:
            found = {p.name: p.test.get("integrity") for p in results.points}
        return {name: None if m is None else (m.value, m.note) for name, m in found.items()}

    every, one = harm("every", ""), harm("one", 'tamper_by = ["poor"]')
    assert every["ensemble"] is not None
    assert every["ensemble"][0] > 0.1
    assert one["ensemble"] is not None
    assert one["ensemble"][0] < every["ensemble"][0]
    assert "of 16 items got a changed reply" in one["ensemble"][1]
    assert not one["ensemble"][1].startswith("0 of")
    for honest in ("large@good", "large@fair"):
        assert one[honest] == (0.0, "0 of 16 items got a changed reply")


def test_guesses_of_each_owner_are_kept_and_not_made_again(tmp_path: Path) -> None:
    write_data(tmp_path, THREE + POINTS)
    bench(tmp_path, THREE + POINTS)
    with opened(tmp_path / "run") as results:
        known = results.store.guesses(results.trial("ensemble").id, "test")
        alone = results.store.guesses(results.trial("large@good").id, "test")
    assert set(known) == {"verbatim", *(f"verbatim@{name}" for name in NAMES)}
    assert set(alone) == {"verbatim"}
    version, (guesses, priors) = known["verbatim@poor"]
    assert guesses
    assert priors
    assert version == known["verbatim"][0]


def faults(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return verify(db)


@pytest.mark.parametrize("whose", ["", "/peers/fair"])
def test_a_chain_that_was_changed_gives_no_number_and_is_made_again(
    tmp_path: Path, whose: str
) -> None:
    text = THREE + '[[points]]\nstrategy = "ensemble"\n'
    write_data(tmp_path, text)
    [outcome], first = bench(tmp_path, text)
    path = tmp_path / "run" / "ledger.sqlite"
    assert not faults(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TRIGGER entries_no_delete")
        last = "number = (SELECT max(number) FROM entries WHERE chain = ?1)"
        db.execute(f"DELETE FROM entries WHERE chain = ?1 AND {last}", (outcome.trial + whose,))
        db.execute("DELETE FROM heads WHERE chain = ?", (outcome.trial + whose,))
    store = Store(tmp_path / "run", write=True)
    found = survey(store, [outcome.trial])
    store.close()
    assert outcome.trial in found.broken
    assert (f"{whose.rpartition('/')[2] or 'good'}: ") in found.broken[outcome.trial].why
    with opened(tmp_path / "run") as results:
        assert not results.points
    _, second = bench(tmp_path, text)
    assert 0 < second.items <= first.items
    assert not faults(path)


def test_one_budget_holds_for_all_owners_together(tmp_path: Path) -> None:
    text = THREE + '[budget]\nmessages = 40\n[[points]]\nstrategy = "ensemble"\n'
    write_data(tmp_path, text)
    [outcome], _ = bench(tmp_path, text)
    assert isinstance(outcome.error, BudgetExceededError)
    store = Store(tmp_path / "run", write=False)
    assert store.paid().messages == 40
    store.close()


def test_whom_a_point_speaks_to_is_part_of_what_it_is(tmp_path: Path) -> None:
    def ids(text: str) -> list[str]:
        plan = parse_plan(text, tmp_path / "p.toml")
        return [trial_identity(plan, p, task="t", sends=True) for p in plan.points]

    def point(strategy: str, *peers: str) -> str:
        named = f"peers = {list(peers)}\n" if peers else ""
        return f'[[points]]\nstrategy = "{strategy}"\n{named}'

    one = PLAN.partition("[limits]")[0]
    assert ids(one + point("large")) == ids(
        one.replace("[models.large]", "[models.large.other]") + point("large")
    )
    good, fair = ids(THREE + point("large", "good")), ids(THREE + point("large", "fair"))
    assert good != fair
    every, two = ids(THREE + point("ensemble")), ids(THREE + point("ensemble", "good", "fair"))
    other_way = ids(THREE + point("ensemble", "fair", "good"))
    assert len({*every, *two, *other_way}) == 3
    lies = THREE.replace("tamper_share = 0.3", 'tamper_share = 0.3\ntamper_by = ["good"]')
    assert ids(lies + point("large", "good")) == good
    assert len({*ids(lies + point("ensemble")), *every}) == 2
    plan = parse_plan(one + point("large"), tmp_path / "p.toml")
    assert not {"peers", "sides"} & settings_of(plan, plan.points[0]).keys()


async def test_a_point_is_served_by_the_models_that_it_was_measured_with(tmp_path: Path) -> None:
    text = THREE + POINTS
    write_data(tmp_path, text)
    await asyncio.to_thread(bench, tmp_path, text)
    run = tmp_path / "run"
    named = Namespace(source=run, point=["large@fair", "ensemble"], config=None)
    parts = _layout(named).load()
    assert [recipe.upstreams for recipe in parts.recipes] == [("fair",), NAMES]
    ledgers: dict[str, MemoryLedger] = {}

    def beside(upstream: str) -> MemoryLedger:
        return ledgers.setdefault(upstream, MemoryLedger(upstream))

    fair, every = [
        await open_recipe(
            recipe, parts.upstreams, tabs={"r": open_tab("r")}, ledger=beside("own"), beside=beside
        )
        for recipe in parts.recipes
    ]
    chat = user("Ada0 Keller saw a cow")
    answers = []
    for point in (fair, every):
        [route] = point.routes
        answers.append((await route.strategy.answer(route.session.bind("r"), chat)).text)
    assert answers == ["dog", "cow"]
    assert [route.name for point in (fair, every) for route in point.routes] == [
        "fair",
        "good+fair+poor",
    ]
    assert {name: len(list(x.entries())) for name, x in ledgers.items()} == {
        "own": 4,
        "fair": 2,
        "poor": 2,
    }
    await make_bundle(run, "ensemble", tmp_path / "bundle")
    bundled = _layout(Namespace(source=tmp_path / "bundle", point=[], config=None)).load()
    [recipe] = bundled.recipes
    assert recipe.upstreams == NAMES
    assert {n: u.price for n, u in bundled.upstreams.items()} == {
        n: u.price for n, u in parts.upstreams.items()
    }
    alone = await open_recipe(
        recipe, bundled.upstreams, tabs={"r": open_tab("r")}, ledger=MemoryLedger(), beside=beside
    )
    [route] = alone.routes
    assert (await route.strategy.answer(route.session.bind("r"), chat)).text == "cow"
    for recipe in parts.recipes:
        for recorded in recipe.answers.values():
            await recorded.close()


def test_a_run_that_was_stopped_goes_on_with_the_same_chains(tmp_path: Path) -> None:
    """The attempts of all chains count alike, also where one had not begun."""
    text = THREE + '[[points]]\nstrategy = "ensemble"\n'
    write_data(tmp_path, text)
    [stopped], first = bench(tmp_path, text + "[budget]\nmessages = 40\n")
    assert isinstance(stopped.error, BudgetExceededError)
    [outcome], second = bench(tmp_path, text)
    assert outcome.error is None
    assert outcome.trial == stopped.trial
    assert not faults(tmp_path / "run" / "ledger.sqlite")
    with opened(tmp_path / "run") as results:
        trial = results.trial("ensemble")
        assert not fault(results.store, trial)
        plan = parse_plan(text, tmp_path / "p.toml")
        run = load_run(plan, results.store, results.task, trial, "test")
        assert {t.messages for t in reading(run).traffic.values()} == {3}
        assert {e.attempt for side in run.sides.values() for e in side.entries()} == {1}
    assert first.items + second.items >= len(run.items)


def test_points_at_once_keep_the_chains_of_all_sides(tmp_path: Path) -> None:
    text = THREE + POINTS
    write_data(tmp_path, text)
    bench(tmp_path, text)
    other = tmp_path / "other"
    other.mkdir()
    write_data(other, text)
    store = Store(other / "run", write=True)
    plan = parse_plan(text, other / "p.toml")
    try:
        outcomes = asyncio.run(Runner(plan, store, executor=Processes(), jobs=2).run())
    finally:
        store.close()
    assert [o.error for o in outcomes] == [None] * 3
    assert not faults(other / "run" / "ledger.sqlite")
    with opened(tmp_path / "run") as one, opened(other / "run") as two:
        assert len(one.points) == len(two.points) == 3
        for a, b in zip(one.points, two.points, strict=True):
            same = ("utility", "privacy", "usd_per_1k", "bytes_up", "integrity")
            assert [a.test[n] for n in same] == [b.test[n] for n in same]
