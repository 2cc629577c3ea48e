"""docs/silos.md, as it stands there: three owners and a coordinator, each a process, all killed."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sqlite3
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tests.integration.gateway import MAIN, Process

import tiny_lm
from cosilo.benchmark.parts import load_data, make_owner
from cosilo.benchmark.plan import load_plan
from cosilo.cli import main
from cosilo.host.used import used
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.models.white_box.lm import torch_lm
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import make_strategy, open_session

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "silos.md").read_text("utf-8")
OWNERS = ("bank", "clinic", "town")
LABELS = ("refund", "billing", "delivery")


def commands() -> list[str]:
    return re.findall(r"^    (cosilo .*?)(?:  .*)?$", PAGE, re.MULTILINE)


def command(*verb: str) -> str:
    """The page's first command that begins so."""
    return next(c for c in commands() if c.split()[1 : len(verb) + 1] == list(verb))


def file(name: str, page: str = PAGE) -> str:
    """The first block after the page names that file: the whole of it."""
    found = re.search(r"```toml\n(.*?)```", page.partition(f"`{name}`")[2], re.DOTALL)
    assert found is not None, name
    return found[1]


def added(name: str) -> str:
    """What the page adds to that file for a large model."""
    return file(name, section("The coordinator has a large model, too"))


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def process(folder: Path, command: str, **env: str) -> Process:
    words = [sys.executable, "-c", MAIN, *command.split()[1:]]
    return Process(words, cwd=folder, OMP_NUM_THREADS="1", **env)


def written(folder: Path, port: int, model: Path) -> None:
    """The page's files, at home: this machine, a free port, a made-up model."""
    host, plan = (
        text.replace("coordinator.example", "localhost").replace("8443", str(port))
        for text in (file("federation.toml"), file("plan.toml"))
    )
    host = host.replace('"0.0.0.0"', '"127.0.0.1"')
    plan = plan.replace('model = "smollm2-135m-instruct"', f'path = "{model}"')
    plan = plan.replace("steps = 50", "steps = 4\nbatch = 4")
    (folder / "federation.toml").write_text(host)
    for of, owner in enumerate(OWNERS):
        own = folder / owner
        own.mkdir()
        (own / "certs").symlink_to(folder / "certs")
        (own / "plan.toml").write_text(plan.replace("client-bank", f"client-{owner}"))
        for split, count in {"train": 24, "validation": 3, "test": 3}.items():
            rows = [
                {"text": f"{owner} {split} {i}", "label": LABELS[(of + (i % 3 == 0)) % 3]}
                for i in range(count)
            ]
            (own / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def undisturbed(folder: Path, model: Path) -> bytes:
    """What comes of it where nobody is killed, in this process."""
    settings = FederationSettings(owners=OWNERS, rounds=3, rank=4, quorum=2, momentum=0.7)
    path = folder / "undisturbed.sqlite"

    async def run() -> None:
        coordinator = Federation(settings, path)

        async def one(name: str) -> None:
            plan = load_plan(folder / name / "plan.toml")
            task, small = load_data(plan), torch_lm(path=model)
            owner = make_owner(plan, task, small, None)
            party = LMOwner(ScriptedModel(), client=name, federation=coordinator)
            strategy = make_strategy(plan.points[1])
            session = open_session(owner, party, strategy, sampling=task.sampling)
            await strategy.prepare(session)
            await small.close()

        await asyncio.gather(*map(one, OWNERS))
        coordinator.close()

    asyncio.run(run())
    return final(path)


def final(path: Path) -> bytes:
    """The last round's adapter."""
    with sqlite3.connect(path) as db:
        found: bytes = db.execute("SELECT packed FROM rounds WHERE number = 3").fetchone()[0]
        return found


def killed_on_the_way(
    folder: Path,
    serve_host: str,
    bench: str,
    there: Callable[[], int],
    last: int,
    who: dict[int, str],
) -> None:
    """A coordinator and all owners, until the owners are done: when the coordinator has so many pieces,
    `there`, of `last`, whoever stands at that number in `who` is killed and begins again."""
    host = process(folder, serve_host)
    running: dict[str, Any] = {}
    try:
        host.wait_for("coordinator serves bank, clinic, town", seconds=60)
        for owner in OWNERS:
            running[owner] = process(folder / owner, bench)
        seen = 0
        while seen < last:
            now = there()
            if now == seen:
                assert any(p.child.poll() is None for p in running.values()), [
                    "".join(p.lines) for p in running.values()
                ]
                time.sleep(0.01)
                continue
            for number in range(seen + 1, now + 1):
                if who.get(number) == "coordinator":
                    host.stop(signal.SIGKILL)
                    host = process(folder, serve_host)
                    host.wait_for("coordinator serves", seconds=60)
                elif number in who:
                    running[who[number]].stop(signal.SIGKILL)
                    running[who[number]] = process(folder / who[number], bench)
            seen = now
        for owner in OWNERS:
            assert running[owner].child.wait(120) == 0, "".join(running[owner].lines)
    finally:
        for each in (host, *running.values()):
            each.stop(signal.SIGKILL)


def rows(path: Path, sql: str) -> list[Any]:
    with sqlite3.connect(path) as db:
        return db.execute(sql).fetchall()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_three_owners_and_a_coordinator_that_are_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    certs, serve_host = command("host", "certs"), command("host", "federation.toml")
    bench, bundle = command("bench"), command("bundle")
    verify, compare = command("audit", "verify"), command("audit", "compare")
    model = tiny_lm.folder(tmp_path / "model", seed=1)
    made = certs.replace("coordinator.example", "localhost").replace(
        " certs certs ", f" certs {tmp_path / 'certs'} "
    )
    assert main(made.split()[1:]) == 0
    written(tmp_path, free_port(), model)
    host = tmp_path / "federation.toml"
    host.write_text(host.read_text().replace("quorum = 2", "quorum = 2\nmomentum = 0.7"))
    book = tmp_path / "host" / "federation.sqlite"

    # After so many updates, of three owners in three rounds; the last time with a velocity.
    killed = {2: "coordinator", 4: "clinic", 8: "coordinator"}
    killed_on_the_way(
        tmp_path,
        serve_host,
        bench,
        lambda: rows(book, "SELECT count(*) FROM updates")[0][0],
        9,
        killed,
    )

    assert final(book) == undisturbed(tmp_path, model)
    assert rows(book, "SELECT fate, count(*), count(packed) FROM updates GROUP BY fate") == [
        ("taken", 9, 0)
    ]
    capsys.readouterr()
    for owner in OWNERS:
        monkeypatch.chdir(tmp_path / owner)
        assert main(verify.split()[1:]) == 0
        told = compare.replace("HOST_FOLDER", str(tmp_path / "host")).replace("bank", owner)
        assert main(told.split()[1:]) == 0
    assert "no differences" in capsys.readouterr().out
    assert (
        main(command("host", "used").replace("HOST_FOLDER", str(tmp_path / "host")).split()[1:])
        == 0
    )
    served = used(tmp_path / "host")
    assert {name: client.turns for name, client in served.clients.items()} == {
        owner: {"round": 3} for owner in OWNERS
    }
    assert served.processes >= 2  # it was killed, and begun again
    assert re.search(r"by \d processes: [\d.]+ s of CPU, [\d.]+ [MG]B", capsys.readouterr().out)
    assert main(bundle.split()[1:]) == 0
    assert (tmp_path / "town" / "tickets.bundle" / "small").is_dir()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_coordinator_with_a_large_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two points of one owner ask the same host: for a federation's rounds, and for answers."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model = tiny_lm.folder(tmp_path / "model", seed=1)
    made = command("host", "certs").replace("coordinator.example", "localhost")
    assert main(made.replace(" certs certs ", f" certs {tmp_path / 'certs'} ").split()[1:]) == 0
    port = free_port()
    written(tmp_path, port, model)
    host = tmp_path / "federation.toml"
    large = added("federation.toml").replace(
        'kind = "llamacpp"\nmodel = "qwen2.5-coder-1.5b-instruct"', 'kind = "scripted"'
    )
    alone = host.read_text().replace("quorum = 2", 'quorum = 1\nowners = ["bank"]')
    host.write_text(alone.replace("rounds = 3", "rounds = 1") + large)
    shown, points = added("plan.toml").split("\n\n", 1)
    plan = tmp_path / "bank" / "plan.toml"
    text, federated = plan.read_text(), '[[points]]\nstrategy = "federated"'
    text = text.replace('key = "certs/client-bank.key"', f'key = "certs/client-bank.key"\n{shown}')
    points = points.replace("steps = 50", "steps = 2\nbatch = 4")
    plan.write_text(text.partition(federated)[0] + points)
    running = process(tmp_path, command("host", "federation.toml"))
    try:
        running.wait_for("coordinator serves", seconds=60)
        monkeypatch.chdir(tmp_path / "bank")
        assert main(command("bench").split()[1:]) == 0
    finally:
        running.stop(signal.SIGKILL)
    said = capsys.readouterr().out
    assert "3 of 3 points done" in said
    assert "a round of 1 took" in " ".join(said.split())
    with sqlite3.connect(tmp_path / "host" / "ledger.sqlite") as db:
        kinds = dict(db.execute("SELECT kind, count(*) FROM entries GROUP BY kind"))
    assert kinds["Contribute"] == 1
    assert kinds["Ask"] >= 2


class Compose:
    """deploy/compose.yaml, as compose itself would read it."""

    def __init__(self) -> None:
        yaml = pytest.importorskip("yaml")
        self.services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text("utf-8"))[
            "services"
        ]


def test_what_compose_runs_is_what_the_page_runs() -> None:
    services, page = Compose().services, {tuple(c.split()[1:]) for c in commands()}
    section_of = section("With docker compose")
    runs = re.findall(r"docker compose run --rm (\w+) (.*)$", section_of, re.MULTILINE)
    assert runs
    for service, words in runs:
        assert service in services
        assert tuple(words.split()) in page, words
    for service in re.findall(r"docker compose up -d (\w+)", section_of):
        command = tuple(services[service]["command"])
        assert command[: 3 if command[0] == "bench" else 2] in page, command


def test_what_compose_shows_a_container_and_what_it_opens() -> None:
    services = Compose().services
    listen = tomllib.loads(file("federation.toml"))["listen"]
    assert services["coordinator"]["ports"] == [f"{listen['port']}:{listen['port']}"]
    assert services["gateway"]["ports"] == ["127.0.0.1:8400:8400"]  # to this machine alone
    assert "ports" not in services["owner"]
    for name, service in services.items():
        assert service["volumes"] == [".:/work"], name
        assert service["working_dir"] == "/work", name
        assert service["environment"]["HOME"].startswith("/work/"), name  # the book of ε lasts
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["user"].startswith("${COSILO_USER:?"), name


def test_the_image_has_what_the_page_asks_for() -> None:
    lines = (ROOT / "deploy" / "Dockerfile").read_text("utf-8").splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for line in lines:
        if line.startswith("COPY "):
            assert all((ROOT / each).exists() for each in line.split()[1:-1]), line
    entry = next(line for line in lines if line.startswith("ENTRYPOINT "))
    assert json.loads(entry.removeprefix("ENTRYPOINT "))[0] in project["scripts"]
    built = dict(
        re.findall(r"docker build -f deploy/Dockerfile --build-arg EXTRAS=(\S+) -t (\S+)", PAGE)
    )
    used = {service["image"] for service in Compose().services.values()}
    assert set(built.values()) == used
    extras = [extra for each in built for extra in each.split(",")]
    assert set(extras) <= set(project["optional-dependencies"])
