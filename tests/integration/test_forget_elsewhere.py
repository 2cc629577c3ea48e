"""`cosilo forget` asks the hosts that a run spoke to, keeps what they sign, and never says "erased"
before they have."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.hosts import HostProcess, write_host
from tests.integration.test_forget import PLAN as HOME
from tests.integration.test_forget import canary, forget, ids_in, write_rows
from tests.integration.test_host_plans import REPLIES, elsewhere

from cosilo.boundary.messages import Forgotten, decode
from cosilo.boundary.record.ledger import Entry, connect, keys_of, opened
from cosilo.boundary.record.signed import Trust, require_signed
from cosilo.cli import main
from cosilo.forget import elsewhere as asking
from cosilo.forget import planning
from tiny_run import bench

pytestmark = pytest.mark.timeout(300)


class StoppedError(BaseException):
    """As a kill, no code of ours catches it."""


KEEP = 'keep = "content"\n'
PLAN = HOME.partition("[defences.hide]")[0]
POINTS = '[[points]]\nstrategy = "small"\n[[points]]\nstrategy = "large"\n'


def host_file(folder: Path, port: int = 0) -> Path:
    path = write_host(folder, model=REPLIES, port=port)
    path.write_text(KEEP + path.read_text())
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder with a run and the host that it spoke to, which is down now."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "lm").mkdir()
    write_rows(folder / "home", count=50)
    host = HostProcess(host_file(folder / "lm"))
    try:
        plan = elsewhere(PLAN + POINTS, folder / "lm", host.port, "patience_s = 0.2")
        (folder / "home" / "p.toml").write_text(plan)
        outcomes, _ = bench(folder / "home", plan)
        assert [outcome.error for outcome in outcomes] == [None, None]
    finally:
        host.stop()
    return folder, host.port


@pytest.fixture
def there(made: tuple[Path, int], tmp_path: Path) -> Path:
    """A copy of it; certificates lie where they were, since the plan names them."""
    shutil.copytree(made[0], tmp_path / "both")
    return tmp_path / "both"


@pytest.fixture
def host(made: tuple[Path, int], there: Path) -> Iterator[HostProcess]:
    process = HostProcess(host_file(there / "lm", made[1]))
    yield process
    process.kill()


def known(folder: Path, said: str) -> bool:
    """Whether the host has it, to who has all of its files."""
    files = sorted((folder / "lm" / "host").iterdir())
    path = folder / "lm" / "host" / "ledger.sqlite"
    with closing(connect(path)) as db, closing(keys_of(db)) as keys:
        entries = [opened(Entry(*row), keys) for row in db.execute("SELECT * FROM entries")]
    told = b"".join(f.read_bytes() for f in files)
    return said.encode() in told or any(said.encode() in (e.payload or b"") for e in entries)


def steps_of(folder: Path, method: str = "asked of another party") -> list[dict[str, object]]:
    (path,) = (folder / "home").glob("erasure-*.json")
    assert main(["forget", "verify", str(path)]) == 0
    return [step for step in json.loads(path.read_text())["steps"] if step["method"] == method]


def forgotten_ids(folder: Path) -> int:
    """How many requests on the network can be told by their content no more."""
    with closing(connect(folder / "home/run/network.sqlite")) as db, closing(keys_of(db)) as keys:
        rows = db.execute("SELECT * FROM entries WHERE direction = 'up' AND kind = 'Ask'")
        return sum(opened(Entry(*row), keys).content_digest is None for row in rows.fetchall())


def test_a_host_is_asked_and_what_it_signs_is_kept(
    there: Path, host: HostProcess, made: tuple[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    home = there / "home"
    (gone,) = ids_in(home / "run", "test")
    kept = ids_in(home / "run", "validation")[0]
    assert known(there, canary(gone))
    capsys.readouterr()
    assert forget(home, gone, more=("--plan", "--deadline-days", "3")) == 0
    said = capsys.readouterr().out
    assert "asked of another party, to be answered until" in said
    assert f"large at https://localhost:{made[1]}" in said
    assert known(there, canary(gone))
    assert forget(home, gone) == 0
    said = capsys.readouterr().out
    assert "erased: nothing stands" in said
    assert not known(there, canary(gone))
    assert known(there, canary(kept)), "what the run makes without the record is left alone"
    (step,) = steps_of(there)
    assert step["state"] == "done"
    assert step["evidence"]["what"] == "the party signed: 1 deleted"  # type: ignore[index]
    (path,) = home.glob("forgotten-*.json")
    (answer,) = json.loads(path.read_text())["answers"]
    told = decode(bytes.fromhex(answer))
    assert isinstance(told, Forgotten)
    require_signed(told, Trust.of(host_url(made), made[0] / "lm" / "certs" / "ca.pem"))
    assert forgotten_ids(there) == 1
    capsys.readouterr()
    ca = made[0] / "lm" / "certs" / "ca.pem"
    assert main(["forget", "verify", str(path), "--ca", str(ca)]) == 0
    said = capsys.readouterr().out
    assert "1 × request: deleted" in said
    assert "by 'localhost'" in said
    flipped = answer.replace(b"deleted".hex(), b"nothing".hex())
    changed = there / "changed.json"
    changed.write_text(path.read_text().replace(answer, flipped))
    assert main(["forget", "verify", str(changed), "--ca", str(ca)]) != 0
    assert "the signature is right" not in capsys.readouterr().out
    host.stop()
    for record in (home / "run", home / "run" / "network.sqlite", there / "lm" / "host"):
        assert main(["audit", "verify", str(record)]) == 0
    assert main(["audit", "compare", str(home / "run"), str(there / "lm" / "host")]) == 0
    assert not list(home.rglob(".forget-*"))


def host_url(made: tuple[Path, int]) -> str:
    return f"https://localhost:{made[1]}"


def test_a_host_that_is_down_is_an_open_item_and_asked_again(
    there: Path, made: tuple[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    home = there / "home"
    (gone,) = ids_in(home / "run", "test")
    assert forget(home, gone, more=("--deadline-days", "1e-9")) == 1
    said = capsys.readouterr()
    assert "not erased" in said.out
    assert gone not in said.out + said.err
    (step,) = steps_of(there)
    assert step["state"] == "open"
    assert forgotten_ids(there) == 0, "it can be asked by these alone"
    capsys.readouterr()
    assert main(["forget", "status", str(home)]) == 1
    assert "(passed)" in capsys.readouterr().out
    assert known(there, canary(gone))
    host = HostProcess(host_file(there / "lm", made[1]))
    try:
        assert main(["forget", str(home / "run")]) == 0
    finally:
        host.stop()
    assert not known(there, canary(gone))
    (step,) = steps_of(there)
    assert (step["state"], forgotten_ids(there)) == ("done", 1)
    assert main(["forget", "status", str(home)]) == 0
    assert "erased: nothing stands" in capsys.readouterr().out
    assert not list(home.rglob(".forget-*"))


@pytest.mark.parametrize("where", ["shred", "replace_file"])
def test_stopped_between_an_answer_and_its_note_it_ends_the_same(
    there: Path, host: HostProcess, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = there / "home"
    (gone,) = ids_in(home / "run", "test")
    inner, calls = getattr(asking, where), iter(range(9))

    def stopped(*arguments: object, **named: object) -> object:
        if next(calls) == (2 if where == "replace_file" else 0):
            raise StoppedError
        return inner(*arguments, **named)

    with monkeypatch.context() as now:
        now.setattr(asking, where, stopped)
        with pytest.raises(StoppedError):
            forget(home, gone)
    assert not list(home.glob("erasure-*.json"))
    assert main(["forget", str(home / "run")]) == 0
    (step,) = steps_of(there)
    assert step["evidence"]["what"] == "the party signed: 1 deleted"  # type: ignore[index]
    assert forgotten_ids(there) == 1
    assert not known(there, canary(gone))
    assert not list(home.rglob(".forget-*"))


def test_what_went_to_a_host_that_cannot_be_asked_confirms_no_guess(
    there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without `ca` its keys would never be used again, and told who had a guess that it was right."""
    home = there / "home"
    monkeypatch.setattr(planning, "askable", lambda run, peer: False)  # a run without is another
    (gone,) = ids_in(home / "run", "test")
    assert forget(home, gone) == 0
    said = capsys.readouterr().out
    assert "requests over the network that it no longer makes: large" in said
    assert "cannot be reached: sent to another party" in said
    assert forgotten_ids(there) == 1
    (step,) = steps_of(there, "crypto-shredded")
    assert (step["state"], step["evidence"]["what"]) == ("done", "keys deleted")  # type: ignore[index]
    assert main(["audit", "verify", str(home / "run" / "network.sqlite")]) == 0
    assert main(["forget", "status", str(home)]) == 0
