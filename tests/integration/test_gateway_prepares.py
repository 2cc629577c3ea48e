"""A gateway is told of a point that takes seconds of CPU to prepare, and goes on serving meanwhile."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.integration.endpoint import serving as serving_answers
from tests.integration.gateway import Gateway, Mock, fetch, mocking, serving, upstream, write_config
from tests.integration.test_jobs import PLAN

from cosilo.cli import main
from tiny_run import write_data

SECRET = "Ada Lovelace"
PLUGIN = '''
import os, time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from cosilo.boundary.messages import Ask
from cosilo.errors import DataError
from cosilo.strategies.base import Needs
from cosilo.strategies.inference.ends import Large


@dataclass(frozen=True, kw_only=True)
class Slowly:
    """Holds the event loop for seconds while it is prepared."""

    trace: str
    seconds: float = 1.5
    fails: str = ""
    learned: str = ""
    needs: ClassVar[Needs] = Needs(sends=frozenset({Ask}))

    async def prepare(self, session):
        if self.learned:
            return self, session
        with Path(self.trace).open("a") as file:
            file.write(f"{os.getpid()}\\n")
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            pass
        if self.fails:
            raise DataError(self.fails) if self.fails == "no items" else ValueError(self.fails)
        return replace(self, learned="what took so long"), session

    async def answer(self, session, chat):
        assert self.learned
        return await Large().answer(session, chat)
'''


@pytest.fixture(scope="module")
def mock() -> Iterator[Mock]:
    with mocking() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a gateway is run that knows the plug-in above."""
    place = tmp_path / "plugin"
    info = place / "slowly-1.dist-info"
    info.mkdir(parents=True)
    (place / "slowly.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slowly\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cosilo.strategy]\nslowly = slowly:Slowly\n")
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(place), before))))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def large(mock: Mock) -> str:
    return (
        upstream("lm", mock, "ok") + '[[points]]\nname = "ok"\nstrategy = "large"\nlarge = "lm"\n'
    )


def slow(folder: Path, more: str = "") -> str:
    trace = json.dumps(str(folder / "trace"))
    return (
        f'[[points]]\nname = "slow"\nstrategy = "slowly"\nlarge = "lm"\ntrace = {trace}\n{more}\n'
    )


class Asking:
    """Asks the point `ok` without a pause, in a thread of its own."""

    def __init__(self, gateway: Gateway) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._client = openai.OpenAI(base_url=gateway.url, api_key=gateway.key(), max_retries=0)
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        while not self._stop.wait(0.01):
            try:
                self.once("ok")
                self.answered += 1
            except Exception as error:
                self.failures.append(repr(error))

    def once(self, point: str) -> str:
        message = {"role": "user", "content": "hello"}
        reply = self._client.chat.completions.create(model=f"cosilo/{point}", messages=[message])
        return str(reply.choices[0].message.content)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()


def tell(gateway: Gateway, folder: Path, config: str, *, workers: int = 1) -> None:
    port = int(gateway.root.rpartition(":")[2])
    write_config(folder, config, port=port, workers=workers, more="access_log = false")
    os.kill(gateway.pid, signal.SIGHUP)


def test_who_is_served_meanwhile_is_not_kept_waiting(mock: Mock, folder: Path) -> None:
    mock.reset()
    with serving(folder, large(mock)) as gateway:
        asking = Asking(gateway)
        try:
            tell(gateway, folder, large(mock) + slow(folder))
            end = time.monotonic() + 60
            while not (folder / "trace").exists() and time.monotonic() < end:
                time.sleep(0.01)
            before = asking.answered
            gateway.process.wait_for("read again: 2 points", seconds=60)
            meanwhile = asking.answered - before
            assert asking.once("slow") == asking.once("ok")
        finally:
            asking.close()
        assert asking.failures == []
        assert meanwhile >= 5  # while 1.5 s of CPU went by in one go
        pids = {int(pid) for pid in (folder / "trace").read_text().split()}
        assert len(pids) == 1
        assert gateway.pid not in pids
        # Again, without the point: what was prepared for it goes with it.
        assert len(list((folder / "temp").glob("cosilo-prepared-*"))) == 1
        tell(gateway, folder, large(mock))
        gateway.process.wait_for("read again: 1 points", seconds=60)
        fetch(f"{gateway.url}/models", key=gateway.key("another"))
        assert len(list((folder / "temp").glob("cosilo-prepared-*/0"))) == 1


def test_each_of_several_workers_has_its_points_prepared(mock: Mock, folder: Path) -> None:
    mock.reset()
    with serving(folder, large(mock), workers=2) as gateway:
        tell(gateway, folder, large(mock) + slow(folder, "seconds = 0.1"), workers=2)
        gateway.process.wait_for("read again: 2 points", times=2, seconds=60)
        asking = Asking(gateway)
        assert asking.once("slow") == asking.once("ok")
        asking.close()
        pids = (folder / "trace").read_text().split()
        assert len(set(pids)) == 2
        assert "died" not in "".join(gateway.process.lines)


@pytest.mark.parametrize(
    ("fails", "said"),
    [("no items", "no items"), (SECRET, "ValueError"), ("killed", "exit code -9")],
)
def test_a_point_that_cannot_be_prepared_leaves_those_before(
    mock: Mock, folder: Path, fails: str, said: str
) -> None:
    mock.reset()
    with serving(folder, large(mock)) as gateway:
        more = f"fails = {json.dumps(fails)}\n"
        tell(gateway, folder, large(mock) + slow(folder, more if fails != "killed" else ""))
        if fails == "killed":
            end = time.monotonic() + 60
            trace = folder / "trace"  # it is there a moment before its number is in it
            while not (trace.exists() and trace.read_text().split()) and time.monotonic() < end:
                time.sleep(0.01)
            os.kill(int(trace.read_text().split()[0]), signal.SIGKILL)
        gateway.process.wait_for(f"not taken, the one before stays: .*{said}", seconds=60)
        asking = Asking(gateway)
        assert asking.once("ok")
        with pytest.raises(openai.NotFoundError):
            asking.once("slow")
        asking.close()
        assert SECRET not in "".join(gateway.process.lines)
        assert not list((folder / "temp").glob("cosilo-prepared-*"))


def test_the_points_of_a_run_are_prepared_apart_too(tmp_path: Path) -> None:
    with serving_answers() as endpoint:
        write_data(tmp_path, PLAN.replace("URL", endpoint.url), count=60)
        run = tmp_path / "run"
        assert main(["bench", str(tmp_path / "p.toml"), "--run", str(run), "--yes"]) == 0
        (tmp_path / "serve.toml").write_text(f'[store]\nurl = "{tmp_path / "store"}"\n')
        points = ["--point", "cascade", "--point", "large"]
        flags = [str(run), *points, "--config", "serve.toml", "--port", "0"]
        with serving(tmp_path, None, flags=flags) as gateway:
            key = gateway.key("me")
            before = [say(gateway, key, point, label) for point, label in ASKED]
            os.kill(gateway.pid, signal.SIGHUP)
            gateway.process.wait_for("read again: 2 points", seconds=60)
            after = [say(gateway, key, point, label) for point, label in ASKED]
    assert after == before == ["cat", "dog", "cow"] * 2


ASKED = [(point, label) for point in ("cascade", "large") for label in ("cat", "dog", "cow")]


def say(gateway: Gateway, key: str, point: str, label: str) -> str:
    message = {"role": "user", "content": f"Ada saw a {label}"}
    body = json.dumps({"model": f"cosilo/{point}", "messages": [message]}).encode()
    reply = json.loads(fetch(f"{gateway.url}/chat/completions", body, key=key))
    return str(reply["choices"][0]["message"]["content"])


def test_a_gateway_that_stops_ends_what_prepares_for_it(mock: Mock, folder: Path) -> None:
    mock.reset()
    with serving(folder, large(mock)) as gateway:
        tell(gateway, folder, large(mock) + slow(folder, "seconds = 300.0"))
        end = time.monotonic() + 60
        while not (folder / "trace").exists() and time.monotonic() < end:
            time.sleep(0.01)
        (pid,) = (folder / "trace").read_text().split()
        gateway.process.child.send_signal(signal.SIGTERM)
        assert gateway.process.child.wait(30) == 0
        gateway.process.child.poll = lambda: None  # type: ignore[method-assign]
        assert not Path(f"/proc/{pid}").exists()
        assert not list((folder / "temp").glob("cosilo-prepared-*"))
