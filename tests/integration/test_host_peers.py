"""Several large models whose owners are on other machines: a way, a chain and a record for each."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.hosts import host_process, write_host
from tests.integration.test_host_plans import crossings, party

from cosilo.benchmark.measure import load_run
from cosilo.benchmark.plan import parse_plan
from cosilo.benchmark.results import opened
from cosilo.cli import main
from tiny_run import PLAN, bench, write_data

SAYS = {
    "north": 'kind = "scripted"\nname = "n"\nreplies = {cat = "cat", dog = "dog", cow = "dog"}\n',
    "south": 'kind = "scripted"\nname = "s"\nreplies = {cat = "cat", dog = "cow", cow = "cow"}\n',
}
NEAR = 'kind = "scripted"\nname = "near"\nreplies = {cat = "cat", dog = "dog", cow = "cow"}\n'


def test_an_ensemble_of_two_hosts_and_one_model_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {name: tmp_path / name for name in SAYS}
    for folder in folders.values():
        folder.mkdir()
    north, south = (write_host(folders[name], model=model) for name, model in SAYS.items())
    with host_process(north) as n, host_process(south) as s:
        ports = {"north": n.port, "south": s.port}
        tables = "".join(
            f"[models.large.{name}]\n{party(folders[name], port)}\n" for name, port in ports.items()
        )
        text = PLAN.partition("[models.large]")[0] + tables
        text += f'[models.large.near]\n{NEAR}[[points]]\nstrategy = "ensemble"\n'
        write_data(tmp_path, text)
        [outcome], _ = bench(tmp_path, text)
        assert outcome.error is None
        asked = {name: crossings(folders[name] / "host") for name in SAYS}
        assert asked["north"] == asked["south"] > 0
        _, again = bench(tmp_path, text)
        assert again.items == 0
        assert {name: crossings(folders[name] / "host") for name in SAYS} == asked
    run = tmp_path / "run"
    with opened(run) as results:
        [point] = results.points
        assert point.test["utility"].value == 1.0
        plan = parse_plan(text, tmp_path / "p.toml")
        loaded = load_run(plan, results.store, results.task, results.trial("ensemble"), "test")
        assert list(loaded.sides) == ["north", "south", "near"]
    with closing(sqlite3.connect(run / "network.sqlite")) as db:
        chains = {chain.partition("/")[0] for (chain,) in db.execute("SELECT chain FROM entries")}
    assert chains == set(SAYS)
    for name in SAYS:
        assert main(["audit", "verify", str(folders[name] / "host")]) == 0
        capsys.readouterr()
        both = [str(run), str(folders[name] / "host")]
        assert main(["audit", "compare", *both, "--peer", name]) == 0
        assert "no differences" in capsys.readouterr().out
        assert main(["audit", "compare", *both, "--peer", "elsewhere"]) == 2
        refused = capsys.readouterr()
        assert "sent to a host named 'elsewhere'" in refused.err
        assert not refused.out
