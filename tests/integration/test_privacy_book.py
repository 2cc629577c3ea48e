"""The book of ε: several processes, `kill -9`, runs over one file and its copy, and a gateway."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from a_writer import writes
from bag import Bag
from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.reopen import reopen
from cosilo.benchmark.runner import Runner
from cosilo.benchmark.store import Store
from cosilo.benchmark.trial import Outcome
from cosilo.boundary.meter import Price
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.cli import main
from cosilo.errors import PrivacyBudgetError
from cosilo.gateway.serving.breaker import Breaker
from cosilo.gateway.serving.points import Recipe, open_recipe
from cosilo.gateway.serving.upstreams import Upstream
from cosilo.models.base import Shows, models
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.privacy.account import PrivacyConfig
from cosilo.privacy.accountant import noise_for
from cosilo.privacy.book import PrivacyBook
from cosilo.privacy.composition import composed
from cosilo.privacy.mechanisms import Gaussian, Laplace, Release
from cosilo.session import account_of, open_session, with_book
from cosilo.strategies.base import strategies
from cosilo.types import Demonstration, user
from privacy_book import said, spenders

DELTA = 1e-5


def most(limit: float) -> int:
    """How many releases of ε = 1 stay inside `limit` together."""
    one = Release(mechanism=Gaussian(sigma=noise_for(1.0, DELTA, rounds=1)))
    count = 0
    while composed([one] * (count + 1), DELTA)[0].epsilon <= limit * (1 + 1e-9):
        count += 1
    return count


def test_processes_that_race_for_the_last_of_the_budget_never_overspend(tmp_path: Path) -> None:
    book, limit = tmp_path / "book.sqlite", 2.5
    let = said(spenders(book, [(limit, 4, "abc"), (limit, 4, "cba"), (limit, 4, "cx")]))
    assert sum(map(int, let)) == most(limit) > 2
    with closing(PrivacyBook(book)) as found:
        (figure,) = found.figures(found.data("c"), DELTA)
        assert figure.releases == most(limit)
        assert figure.epsilon <= limit


def test_what_a_killed_process_had_booked_counts(tmp_path: Path) -> None:
    book = tmp_path / "book.sqlite"
    (process,) = spenders(book, [(1.0, -1, "abc")])
    assert said([process]) == ["booked"]
    assert process.returncode == -9
    assert said(spenders(book, [(1.0, 1, "abc"), (1.0, 1, "xyz")])) == ["0", "1"]
    with closing(PrivacyBook(book)) as found:
        assert len(found.lines()) == 2


PLAN = """
name = "NAME"
[attacks]
names = ["nearest_text"]
tamper_share = TAMPER
[task]
kind = "classification"
file = "FILE"
[models.small]
kind = "bag"
[models.large]
kind = "writer"
[privacy]
book = "book.sqlite"
epsilon = BUDGET
delta = 1e-5
[[points]]
strategy = "private_evolution"
about = "a message"
epsilon = 2.0
delta = 1e-5
each = 8
lines = 8
rounds = 2
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(models._factories, "bag", Bag)
    monkeypatch.setitem(models._factories, "writer", lambda: ScriptedModel(writes))
    rows = [
        json.dumps({"text": f"{colour} text about {label} {i}", "label": label})
        for i in range(30)
        for label in ("cat", "dog")
        for colour in ("green", "blue")
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "copy.jsonl").write_text("\n".join(rows[::-1]) + "\n")
    return tmp_path


def run(
    folder: Path, name: str, *, budget: float, file: str = "data.jsonl", tamper: float = 0.0
) -> Outcome:
    text = PLAN.replace("NAME", name).replace("FILE", file).replace("BUDGET", str(budget))
    plan = parse_plan(text.replace("TAMPER", str(tamper)), folder / f"{name}.toml")
    (folder / f"{name}.toml").write_text(plan.text)
    with closing(Store(folder / name, write=True)) as store:
        (outcome,) = asyncio.run(Runner(plan, store).run())
    return outcome


def spent(folder: Path) -> tuple[float, int]:
    with closing(PrivacyBook(folder / "book.sqlite")) as book:
        (figure,) = book.figures(book.lines()[0].data, DELTA)
        return figure.epsilon, figure.releases


def test_two_runs_compose_and_the_third_is_refused_before_anything_is_sent(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, "first", budget=3.5).error is None
    assert spent(folder) == (pytest.approx(2.0), 2)
    assert run(folder, "second", budget=3.5, file="copy.jsonl").error is None
    both, releases = spent(folder)
    assert (2 < both < 3.5, releases) == (True, 4)
    third = run(folder, "third", budget=3.5)
    assert isinstance(third.error, PrivacyBudgetError)
    with closing(sqlite3.connect(folder / "third" / "ledger.sqlite")) as ledger:
        assert ledger.execute("SELECT count(*) FROM entries").fetchone() == (0,), "nothing was sent"
    assert spent(folder) == (both, releases)
    capsys.readouterr()
    assert main(["privacy", str(folder / "first.toml")]) == 0
    said = capsys.readouterr().out
    assert f"ε of a record: {both:.4g} (add_or_remove, 4 releases)" in said
    assert "first/private_evolution: 2 × Gaussian" in said
    assert "second/private_evolution: 2 × Gaussian" in said
    assert main(["report", str(folder / "second"), "-o", str(folder / "report.html")]) == 0
    page = (folder / "report.html").read_text()
    assert "ε of the records, with all that is booked" in page
    assert "first/private_evolution: 2 × Gaussian" in page


def test_preparing_again_under_the_same_key_spends_nothing_more(folder: Path) -> None:
    """A run that is made again, and a gateway that opens it, vote as before: the budget, which is
    spent to the last digit, bears it."""
    assert run(folder, "first", budget=2.0).error is None
    (folder / "first" / "run.sqlite").unlink()
    assert run(folder, "first", budget=2.0).error is None
    assert spent(folder) == (pytest.approx(2.0), 2)
    found = reopen(folder / "first", ["private_evolution"])
    recipe = Recipe(
        config=found.points[0],
        owner=found.owner,
        upstreams=("large",),
        answers=found.recorded,
        sampling=found.task.sampling,
        privacy=found.plan.privacy,
    )
    large = found.peers["large"]
    upstreams = {"large": Upstream("large", large, Shows.TEXT, Price(), Breaker("large"))}
    asyncio.run(open_recipe(recipe, upstreams, tabs={}, ledger=MemoryLedger()))
    assert spent(folder) == (pytest.approx(2.0), 2)
    (folder / "first" / "private_evolution.key").unlink()  # fresh noise is not what was booked
    again = reopen(folder / "first", ["private_evolution"])
    fresh = Recipe(
        config=again.points[0],
        owner=again.owner,
        upstreams=("large",),
        answers=again.recorded,
        sampling=again.task.sampling,
        privacy=PrivacyConfig(epsilon=2.0, delta=DELTA, book=folder / "book.sqlite"),
    )
    with pytest.raises(PrivacyBudgetError):
        asyncio.run(open_recipe(fresh, upstreams, tabs={}, ledger=MemoryLedger()))


def test_the_tampered_pass_spends_and_says_so_where_it_may_not(folder: Path) -> None:
    outcome = run(folder, "first", budget=2.0, tamper=0.5)
    assert isinstance(outcome.error, PrivacyBudgetError)
    assert "tamper_share = 0" in str(outcome.error)
    assert run(folder, "second", budget=2.0, tamper=0.0).error is not None
    assert spent(folder)[0] == pytest.approx(2.0)


def test_the_command_says_where_nothing_was_spent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["privacy"]) == 0
    assert "nothing was spent" in capsys.readouterr().out
    assert main(["privacy", "--book", str(tmp_path / "none")]) == 4
    assert "there is no book" in capsys.readouterr().err
    assert main(["privacy", "--delta", "2"]) == 2


async def test_what_cannot_be_added_up_is_said_and_stops_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = DataOwner(ScriptedModel(), private=(Demonstration("1", user("a record"), "x"),))
    account = account_of(PrivacyConfig(book=tmp_path / "book"), owner, spender="run/point")
    assert account is not None
    strategy = strategies.create("small")
    session = open_session(owner, LMOwner(ScriptedModel()), strategy, account=account)
    assert with_book(session, account).cards == (), "nothing was spent"
    async with account.spending(Release(mechanism=Laplace(scale=1.0))):
        pass
    monkeypatch.setitem(sys.modules, "dp_accounting.pld", None)
    (card,) = with_book(session, account).cards
    assert "cosilo[dp]" in str(card.facts["not added up"])
