"""Whatever a plan, a gateway's file or a command will load is known before it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cosilo.benchmark.demo import write_demo
from cosilo.benchmark.loads import running, scoring
from cosilo.benchmark.plan import Plan, load_plan, parse_plan
from cosilo.benchmark.store import Store
from cosilo.cli import main
from cosilo.errors import CatalogError
from cosilo.gateway.process.config import parse_gateway
from cosilo.models.present import require_present

SMOL = "smollm2-135m-instruct"
ALL = ("minilm-int8", SMOL, "en-core-web-md")


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COSILO_MODELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Plan]:
    def read(points: str, more: str = "", small: str = 'kind = "scripted"') -> Plan:
        return parse_plan(
            f"""
            name = "p"
            [task]
            kind = "classification"
            file = "data.csv"
            [models.small]
            {small}
            [models.large]
            kind = "scripted"
            {more}
            {points}
            """,
            tmp_path / "plan.toml",
        )

    return read


def test_the_demo_needs_what_its_defence_needs(tmp_path: Path) -> None:
    found = running(load_plan(write_demo(tmp_path / "demo", tiny=True)))
    assert set(found.models) == set(ALL)
    assert not {"torch", "transformers", "pyarrow", "optuna"} & set(found.packages)
    assert {"xllamacpp", "onnxruntime", "sklearn", "spacy", "scipy"} <= set(found.packages)


def test_a_default_counts_like_what_is_written_down(plan: Callable[..., Plan]) -> None:
    large = '[[points]]\nstrategy = "large"\n'
    quiet = "[attacks]\nnames = []\n"
    assert running(plan(large, quiet)).models == ()
    behind = running(plan(large + 'defences = ["pseudonym"]', quiet))
    assert behind.models == ("en-core-web-md",)
    variant = '[defences.mine]\nkind = "pseudonym"\ndetectors = ["patterns"]\n'
    assert running(plan(large + 'defences = ["mine"]', quiet + variant)).models == ()
    assert running(plan(large, quiet, small='kind = "classifier"')).models == ("minilm-int8",)
    beside = quiet + f'[models.embedder]\nkind = "torch"\nmodel = "{SMOL}"\n'
    assert running(plan(large, beside)).models == (SMOL,)


def test_an_encoder_beside_the_plan_is_that_folder_and_no_name(
    plan: Callable[..., Plan], tmp_path: Path
) -> None:
    large = '[attacks]\nnames = []\n[[points]]\nstrategy = "large"\n'
    own = 'kind = "classifier"\nencoder = "mine"'
    with pytest.raises(CatalogError, match="no model in the catalog named 'mine'"):
        require_present(running(plan(large, small=own)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "minilm-int8").mkdir()
    read = plan(large, small=own)
    assert running(read).models == ()
    assert read.small.options["encoder"] == tmp_path / "mine"
    named = plan(large, small='kind = "classifier"\nencoder = "minilm-int8"')
    assert named.small.options["encoder"] == "minilm-int8", "a name of the catalog stays one"
    assert running(named).models == ("minilm-int8",)


def test_packages_of_strategies_attacks_data_and_certificates_count(
    plan: Callable[..., Plan],
) -> None:
    quiet = "[attacks]\nnames = []\n"
    large = '[[points]]\nstrategy = "large"\n'
    then = '[[points]]\nstrategy = "distil_labels"\nthen = "router"\n'
    search = '[[points]]\nstrategy = "cascade"\ncalls = {low = 0.1, high = 0.5}\n'
    assert running(plan(large, quiet)).packages == ()
    assert running(plan(then, quiet)).packages == ("sklearn",)
    assert running(plan(search, quiet + "[search]\ntrials = 3\n")).packages == ("optuna",)
    assert running(plan(large, quiet + "[limits]\nusd_per_1k = 1\n")).packages == ("scipy",)
    assert {"sklearn", "scipy"} == set(
        running(plan(large, '[attacks]\nnames = ["relink"]')).packages
    )
    assert {"sklearn", "scipy"} <= set(running(plan(large)).packages), "all attacks, by default"
    assert scoring(plan(large), only=("verbatim",)).packages == ()
    parquet = plan(large, quiet).text.replace("data.csv", "data.PARQUET")
    assert running(parse_plan(parquet, Path("/plan.toml"))).packages == ("pyarrow",)


def pulled(said: str) -> set[str]:
    """The models in the one command that is advised."""
    assert said.count("cosilo models pull") == 1
    return set(said.partition("cosilo models pull ")[2].split("\n")[0].split())


def test_bench_names_all_that_is_missing_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = write_demo(tmp_path / "demo", tiny=True)
    assert main(["bench", str(plan), "--yes"]) == 2
    assert pulled(capsys.readouterr().err) == set(ALL)
    assert not (tmp_path / "demo" / "runs").exists()
    assert main(["bench", str(plan), "--estimate"]) == 2
    assert pulled(capsys.readouterr().err) == set(ALL)


def test_serve_names_all_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"""
    [server]
    port = 0
    [models.own]
    kind = "classifier"
    [models.theirs]
    kind = "llamacpp"
    model = "{SMOL}"
    [models.unused]
    kind = "llamacpp"
    model = "qwen2.5-coder-1.5b-instruct"
    [[points]]
    strategy = "large"
    small = "own"
    large = "theirs"
    defences = ["pseudonym"]
    """
    (tmp_path / "gateway.toml").write_text(text)
    assert set(parse_gateway(text, tmp_path / "gateway.toml").loads.models) == set(ALL)
    assert main(["serve", str(tmp_path / "gateway.toml")]) == 2
    assert pulled(capsys.readouterr().err) == set(ALL)


def test_fit_names_the_model_and_the_packages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosilo.models.present.find_spec", lambda name: None)
    wanted = ["--ms-per-token", "10", "--memory", "1GB", "--out", str(tmp_path / "out")]
    assert main(["fit", SMOL, *wanted]) == 2
    said = capsys.readouterr().err
    assert pulled(said) == {SMOL}
    assert "pip install 'cosilo[torch,local]'" in said
    assert not (tmp_path / "out").exists()


def test_attack_names_the_encoder_that_attackers_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = write_demo(tmp_path / "demo", tiny=True)
    run = tmp_path / "run"
    Store(run, write=True).close()
    (run / "plan.toml").write_text(plan.read_text())
    (run / "run.json").write_text(
        json.dumps({"name": "desk", "plan": str(plan), "task": "t", "seed": 0, "points": {}})
    )
    capsys.readouterr()
    assert main(["attack", str(run)]) == 2
    assert pulled(capsys.readouterr().err) == {"minilm-int8"}


def test_the_demo_fetches_what_is_missing_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cosilo.cli.demo import pull_models

    fetched: list[str] = []
    monkeypatch.setattr("cosilo.cli.models._pull", lambda a: fetched.extend(a.names) or 3)
    plan = load_plan(write_demo(tmp_path / "demo", tiny=True))
    assert pull_models(plan) == 3
    assert set(fetched) == set(ALL)
    fetched.clear()
    monkeypatch.setattr("cosilo.models.catalog.is_here", lambda name: name != "en-core-web-md")
    pull_models(plan)
    assert fetched == ["en-core-web-md"]
    monkeypatch.setattr("cosilo.models.catalog.is_here", lambda name: True)
    assert pull_models(plan) == 0
