"""The runner in one process, with scripted models: what it does again, and what it leaves."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cosilo.benchmark.bundling import make_bundle
from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.record import chain_of
from cosilo.benchmark.reopen import reopen
from cosilo.benchmark.results import ceilings_of, limits_for, opened, read_results
from cosilo.benchmark.runner import Runner
from cosilo.benchmark.store import Store
from cosilo.benchmark.time_left import Moment, TimeLeft
from cosilo.benchmark.trial import Outcome
from cosilo.boundary.record.faults import verify
from cosilo.cli.report import make_report
from cosilo.errors import CapabilityError, ConfigError, DataError, EngineError, StoreError
from cosilo.parties.around.exposed import Exposed
from cosilo.session import open_point
from cosilo.strategies.base import Session
from cosilo.strategies.inference.ends import Large
from cosilo.types import Answer, Chat
from tiny_run import LABELS, Counting

PLAN = """
name = "desk"
[attacks]
names = []
tamper_share = 0.3
[task]
kind = "classification"
file = "data.jsonl"
[models.small]
kind = "scripted"
confidence = 0.5
replies = {cat = "cat", dog = "cow", cow = "cow"}
[models.large]
kind = "scripted"
replies = {cat = "cat", dog = "dog", cow = "cow"}
usd_per_m_in = 1.0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = random.Random(0)
    rows = [
        {"text": f"{rng.choice(('Ada', 'Bob'))} saw a {label} on day {i}", "label": label}
        for i, label in enumerate(rng.choices(LABELS, k=90))
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return tmp_path


@contextmanager
def stored(folder: Path) -> Iterator[Store]:
    store = Store(folder / "run", write=True)
    try:
        yield store
    finally:
        store.close()


def bench(folder: Path, points: str, text: str = PLAN) -> tuple[list[Outcome], Counting]:
    counting = Counting()
    with stored(folder) as store:
        plan = parse_plan(text + points, folder / "p.toml")
        outcomes = asyncio.run(Runner(plan, store, reports=counting).run())
    return outcomes, counting


def point(strategy: str, more: str = "") -> str:
    return f'[[points]]\nstrategy = "{strategy}"\n{more}\n'


def test_what_a_prepared_strategy_holds_is_ended_with_its_trial(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []

    async def close(self: Large, session: Session) -> None:
        closed.append(session.totals.messages)

    async def fails(self: Large, session: Session, chat: Chat) -> Answer:
        raise EngineError("no luck")

    monkeypatch.setattr(Large, "close", close, raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(Large, "answer", fails)
        outcomes, _ = bench(folder, point("large"))
    assert isinstance(outcomes[0].error, EngineError)
    assert closed == [0]

    closed.clear()
    outcomes, _ = bench(folder, point("large"))
    assert outcomes[0].error is None
    answered, tampered = closed
    assert answered > tampered > 0, "in the session of each pass, once all is answered"

    closed.clear()
    asyncio.run(make_bundle(folder / "run", "large", folder / "out"))
    assert closed == [0]


def test_a_new_point_is_run_and_the_old_ones_are_not(folder: Path) -> None:
    _, first = bench(folder, point("small"))
    outcomes, second = bench(folder, point("small") + point("large"))
    assert first.items == second.items > 0
    assert [o.error for o in outcomes] == [None, None]
    with opened(folder / "run") as results:
        assert [p.name for p in results.points] == ["small", "large"]
        assert results.points[1].test["utility"].value == 1.0
        assert 0 < results.points[0].test["utility"].value < 1
        assert set(results.points[1].certificate) >= {"utility", "calls"}


def test_a_search_proposes_the_same_points_again_and_runs_none_twice(folder: Path) -> None:
    pytest.importorskip("optuna")
    search = '[search]\ntrials = 5\nobjectives = ["utility", "calls"]\n'
    space = search + point("cascade", "threshold = {low = 0.1, high = 0.9}")
    outcomes, first = bench(folder, space)
    assert first.items > 0
    assert len({o.point.options["threshold"] for o in outcomes}) == len(outcomes) > 2
    again, second = bench(folder, space)
    assert [o.trial for o in again] == [o.trial for o in outcomes]
    assert second.items == 0
    with opened(folder / "run") as results:
        calls = {p.test["calls"].value for p in results.points}
        assert calls == {0.0, 1.0}  # the scripted confidence is 0.5 throughout
    more, third = bench(folder, space.replace("trials = 5", "trials = 7"))
    assert [o.trial for o in more][: len(outcomes)] == [o.trial for o in outcomes]
    assert third.items > 0


def test_only_changed_replies_are_answered_again(folder: Path) -> None:
    outcomes, _ = bench(folder, point("large") + point("small") + point("distil_labels"))
    large, small, distilled = (o.trial for o in outcomes)
    with stored(folder) as store:
        count = len(store.answered(large, "plain", "test"))
        changed = len(store.answered(large, "tampered", "test"))
        assert 0 < changed < count
        assert not store.answered(small, "tampered", "test")
        # What was learned from poisoned labels may answer anything differently.
        assert len(store.answered(distilled, "tampered", "test")) == count
        items = {
            i.example.id: i.answer.text
            for i in store.items(large, "plain", "test", results_examples(store))
        }
        wrong = store.items(large, "tampered", "test", results_examples(store))
        assert all(i.answer.text != items[i.example.id] for i in wrong)
        chains = {e.chain for e in store.record(chain_of(large, "tampered"), "test", ANY)}
        assert chains == {chain_of(large, "tampered")}
    with opened(folder / "run") as results:
        harm = {p.name: p.test["integrity"].value for p in results.points}
        assert harm["small"] == 0
        assert harm["large"] == pytest.approx(changed / count)


class _Any(dict[str, int]):
    def get(self, key: str, default: object = None) -> int:  # type: ignore[override]
        return 0


ANY = _Any()


def results_examples(store: Store) -> tuple[object, ...]:
    return store.examples(read_results(store).task, "test")


def test_a_source_file_that_is_edited_meanwhile_does_not_split_a_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = iter(range(1000))
    monkeypatch.setattr("cosilo.benchmark.identity.code_identity", lambda *_: next(versions))
    bench(folder, point("small") + point("large"))
    with opened(folder / "run") as results:
        assert [p.name for p in results.points] == ["small", "large"]
        assert not results.unfinished


def test_what_preparing_found_reaches_the_report(folder: Path) -> None:
    outcomes, _ = bench(folder, point("small") + point("distil_labels"))
    with opened(folder / "run") as results:
        (card,) = results.store.cards(outcomes[1].trial)
        (poisoned,) = results.store.cards(outcomes[1].trial, "tampered")
        report = make_report(results)
    assert card.facts["asked"] == card.facts["kept"] == sum(card.tables["labels"].values()) > 0
    assert poisoned.tables["labels"] != card.tables["labels"]
    prepared = report.prepared["distil_labels"]
    assert prepared.cards == (card,)
    small, distilled = (p.test["utility"].value for p in report.points)
    assert prepared.gain is not None
    assert prepared.gain.value == pytest.approx(distilled - small)
    assert prepared.gain.size > 0
    assert "small" not in report.prepared


def test_the_ledger_of_a_run_is_whole(folder: Path) -> None:
    from cosilo.boundary.record.ledger import connect

    bench(folder, point("large") + point("distil_labels"))
    db = connect(folder / "run" / "ledger.sqlite")
    assert verify(db) == []
    db.close()


def test_a_full_disk_half_way_keeps_what_was_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench(folder, point("small"))

    keep, kept = Store.add_items, []

    def full(self: Store, *arguments: object) -> None:
        if len(kept) == 7:
            pages = self._db.execute("PRAGMA page_count").fetchone()[0]
            self._db.execute(f"PRAGMA max_page_count = {pages}")
        kept.append(1)
        keep(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "add_items", full)
    with pytest.raises(StoreError, match="full"):
        bench(folder, point("small") + point("large"))
    monkeypatch.undo()
    with opened(folder / "run") as results:
        assert [p.name for p in results.points] == ["small"]
        assert results.unfinished == {"large": "interrupted"}
    outcomes, counting = bench(folder, point("small") + point("large"))
    assert [o.error for o in outcomes] == [None, None]
    assert counting.items < 45


def test_a_point_that_fails_does_not_stop_the_others(folder: Path) -> None:
    # Two labels are needed to learn from; one reply for all gives none.
    text = PLAN.replace(
        'replies = {cat = "cat", dog = "dog", cow = "cow"}', 'replies = {"" = "cat"}'
    )
    outcomes, counting = bench(folder, point("distil_labels") + point("large"), text)
    assert isinstance(outcomes[0].error, DataError)
    assert outcomes[1].error is None
    assert any("distil_labels" in note for note in counting.notes)
    with opened(folder / "run") as results:
        assert "all name the same one, 'cat'" in results.unfinished["distil_labels"]
        assert [p.name for p in results.points] == ["large"]


def test_what_cannot_work_is_refused_before_anything_runs(folder: Path) -> None:
    text = PLAN.replace("confidence = 0.5", "logprobs = false")
    with pytest.raises(CapabilityError, match="point 'cascade' needs logprobs"):
        bench(folder, point("large") + point("cascade"), text)
    with stored(folder) as store:
        assert store.trials() == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('file = "data.jsonl"', 'file = "dat.jsonl"', "data.jsonl"),
        ('file = "data.jsonl"', 'file = "data.jsonl"\ncolumns.target = "lable"', "'label'"),
        ('kind = "classification"', 'kind = "clasification"', "classification"),
    ],
)
def test_data_that_are_not_what_the_plan_says(
    folder: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        bench(folder, point("small"), PLAN.replace(old, new, 1))


def test_limits_come_from_the_flags_or_else_from_the_plan(folder: Path) -> None:
    text = PLAN.replace(
        "[attacks]", '[limits]\ncalls = 0.5\n[at_least]\nutility = "0.5x-large"\n[attacks]'
    )
    bench(folder, point("small") + point("large"), text)
    with opened(folder / "run") as results:
        assert list(map(str, limits_for(results, [], []))) == ["calls=0.5", "utility=0.5x-large"]
        assert list(map(str, limits_for(results, ["usd_per_1k=0.1"], []))) == ["usd_per_1k=0.1"]
        with pytest.raises(ConfigError, match="did you mean 'calls'"):
            limits_for(results, ["cals=1"], [])
        with pytest.raises(ConfigError, match="did you mean 'large'"):
            limits_for(results, [], ["utility=0.9x-larg"])


def test_a_request_over_its_budget_is_refused_and_the_mean_can_then_be_certified(
    folder: Path,
) -> None:
    rows = [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]
    for row in rows[::10]:
        row["text"] += " and went on and on" * 20
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    text = PLAN.replace("[attacks]", "[request_budget]\nusd = 0.0004\n[attacks]")
    outcomes, _ = bench(folder, point("large"), text)
    assert [o.error for o in outcomes] == [None]
    with opened(folder / "run") as results:
        assert results.store.refused(outcomes[0].trial, "test") > 0
        assert results.points[0].test["utility"].value < 1
        assert ceilings_of(results) == {"usd_per_1k": 0.4}
        sentence = make_report(results, ["usd_per_1k=0.15"], full=False).certificate
        assert sentence is not None
        assert sentence.sentence().startswith("with 95 % confidence: large has at most $0.15")


async def test_a_point_opens_again_as_it_was_measured(folder: Path) -> None:
    await asyncio.to_thread(bench, folder, point("cascade", "calls = 0.4") + point("distil_labels"))
    found = reopen(folder / "run", ["cascade", "distil_labels"])
    assert [p.options for p in found.points] == [{"calls": 0.4}, {"seed": 0}]
    for config in found.points:
        strategy, session = open_point(
            config, found.owner, Exposed(found.recorded["large"]), sampling=found.task.sampling
        )
        strategy, session = await strategy.prepare(session)  # over recorded answers only
        example = found.task.splits["test"][0]
        assert (await strategy.answer(session.bind("x"), example.chat)).text
    await found.close()
    with pytest.raises(ConfigError, match="did you mean 'cascade'"):
        reopen(folder / "run", ["cascde"])
    (folder / "data.jsonl").write_text('{"text": "x", "label": "cat"}\n')
    with pytest.raises(DataError, match="changed"):
        reopen(folder / "run", ["cascade"])


def test_what_a_point_before_has_asked_behind_a_defence_is_not_expected_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[int, int]] = []

    class Noting(TimeLeft):
        def trial(self, kind: str, answers: int, calls: int, after: int, at: Moment) -> None:
            begun.append((calls, after))
            super().trial(kind, answers, calls, after, at)

    monkeypatch.setattr("cosilo.benchmark.runner.TimeLeft", Noting)
    hide = '[defences.hide]\nkind = "pseudonym"\ndetectors = ["patterns"]\n'
    behind = 'defences = ["hide"]'
    bench(folder, hide + point("large", behind) + point("cascade", f"threshold = 0.9\n{behind}"))
    (large, after), (cascade, left) = begun
    assert large > 0
    assert (cascade, left) == (after, 0)
    assert after < large  # only what the first did not ask
