"""Ctrl-C in every command that may take long: a word at once, exit code 130, nothing of ours in it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.gateway import MAIN, Process

import cosilo
from cosilo import interrupts
from cosilo.cli import main

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("foreground")]
WORD = "cosilo: stopping; what is done is kept"


def interrupted(process: Process) -> str:
    """What the process said once Ctrl-C was pressed; it must be the word, and no more than a line."""
    process.child.send_signal(signal.SIGINT)
    process.wait_for(WORD, seconds=5)
    assert process.stop(0) == interrupts.EXIT_CODE
    said = "".join(process.lines)
    assert "Warning" not in said
    assert "Traceback" not in said
    return said


def test_serve_stops_at_ctrl_c(tmp_path: Path) -> None:
    for workers in (1, 2):
        (tmp_path / "gateway.toml").write_text(f"""
        [server]
        port = 0
        workers = {workers}
        [models.own]
        kind = "scripted"
        [[points]]
        strategy = "small"
        small = "own"
        """)
        process = Process(
            [sys.executable, "-c", MAIN, "serve", str(tmp_path / "gateway.toml")], cwd=tmp_path
        )
        process.wait_for("serves cosilo/small", times=workers)
        pid = process.child.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), signal.SIGINT)  # at a terminal, all of the group hear it
        assert interrupted(process).count(WORD) == 1


def test_serve_stops_at_ctrl_c_while_it_gets_ready(tmp_path: Path) -> None:
    """A plug-in that is slow to make its model."""
    script = (
        "import time\nfrom cosilo.models.base import models\n"
        "@models.register('slow')\ndef slow():\n    print('making', flush=True)\n    time.sleep(60)\n"
    )
    (tmp_path / "gateway.toml").write_text(
        '[server]\nport = 0\n[models.own]\nkind = "slow"\n'
        '[[points]]\nstrategy = "small"\nsmall = "own"\n'
    )
    run = f"{script}\n{MAIN}"
    process = Process(
        [sys.executable, "-c", run, "serve", str(tmp_path / "gateway.toml")], cwd=tmp_path
    )
    process.wait_for("making")
    interrupted(process)


def test_a_pull_that_waits_for_the_index_stops(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as index:  # never answers
        url = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        process = Process(
            [sys.executable, "-m", "cosilo", "models", "pull", "minilm-int8"],
            COSILO_MODELS=str(tmp_path), PIP_INDEX_URL=url, PIP_EXTRA_INDEX_URL="",
            PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull,
        )  # fmt: skip
        connection, _ = index.accept()
        with connection:
            interrupted(process)


STUBBORN = """
import asyncio, signal, sys, time
import cosilo
from cosilo import interrupts

async def main():
    while True:
        try:
            print("ready", flush=True)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

with interrupts.listening():
    interrupts.run(main)
"""


def test_a_second_ctrl_c_ends_what_does_not_end() -> None:
    process = Process([sys.executable, "-c", STUBBORN])
    process.wait_for("ready")
    process.child.send_signal(signal.SIGINT)
    process.wait_for("ready")  # it goes on
    assert WORD in "".join(process.lines)
    assert process.stop(signal.SIGINT) == interrupts.EXIT_CODE
    assert "Traceback" not in "".join(process.lines)


@pytest.mark.parametrize(
    "argv", [["report", "run"], ["select", "run"], ["demo"], ["fit", "x"], ["attack", "run"]]
)
def test_every_command_hears_it(
    argv: Sequence[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def pressed(_: object) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    monkeypatch.setattr(f"cosilo.cli.{argv[0]}.run", pressed)
    extra = ["--ms-per-token", "1", "--memory", "1GB", "--out", "x"] if argv[0] == "fit" else []
    assert main([*argv, *extra]) == interrupts.EXIT_CODE
    said = capfd.readouterr().err
    assert WORD in said
    assert "the same command goes on" in said
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "given back"


def test_a_command_within_another_leaves_the_hearing_to_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    heard: list[Callable[..., object] | int | None] = []

    def inner(_: object) -> int:
        heard.append(signal.getsignal(signal.SIGINT))
        return 0

    def outer(_: object) -> int:
        heard.append(signal.getsignal(signal.SIGINT))
        main(["list", "models"])
        heard.append(signal.getsignal(signal.SIGINT))
        return 0

    monkeypatch.setattr("cosilo.cli.list_.run", inner)
    monkeypatch.setattr("cosilo.cli.demo.run", outer)
    assert main(["demo"]) == 0
    assert heard[0] is heard[1] is heard[2]


def test_where_it_is_ignored_it_stays_ignored() -> None:
    code = (
        "import os, signal, sys\nfrom cosilo import interrupts\n"
        "with interrupts.listening():\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout.strip()) == (0, "True")


ABSORBED = """
import asyncio, time
import cosilo
from cosilo import interrupts

async def absorbed():
    print("ready", flush=True)
    time.sleep(60)

async def main():
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(absorbed())
    finally:
        print("cleaned up", flush=True)

with interrupts.listening():
    try:
        interrupts.run(main)
    except KeyboardInterrupt:
        raise SystemExit(interrupts.EXIT_CODE)
"""


def test_what_does_not_let_go_of_the_loop_is_broken_off() -> None:
    process = Process([sys.executable, "-c", ABSORBED])
    process.wait_for("ready")
    assert "cleaned up" in interrupted(process)


def test_no_command_runs_a_loop_that_does_not_hear_it() -> None:
    for file in (Path(cosilo.__file__).parent / "cli").glob("*.py"):
        assert "asyncio.run(" not in file.read_text(), f"{file.name}: use interrupts.run"
