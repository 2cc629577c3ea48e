"""A real gateway process and a mock upstream process, for tests that drive them from outside."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cosilo.gateway.accounts.accounts import Limits
from cosilo.gateway.accounts.keys import KeyState
from cosilo.gateway.record.store import open_store
from cosilo.gateway.record.store_records import RequestRow

ROOT = Path(__file__).parents[2]
MOCK = ROOT / "benchmarks" / "gateway" / "mock_upstream.py"
MAIN = "import sys; from cosilo.cli import main; sys.exit(main())"

_SERVES = re.compile(r"at http://[^:]+:(\d+)/v1")


class Process:
    """A child process whose lines are kept, and can be waited for."""

    def __init__(self, command: list[str], *, cwd: Path | None = None, **env: str) -> None:
        self.lines: list[str] = []
        self._new: queue.Queue[str | None] = queue.Queue()
        self.child = subprocess.Popen(
            command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, pattern: str, *, times: int = 1, seconds: float = 30) -> re.Match[str]:
        """The next line that matches, `times` over; fails when the process ends before."""
        end = time.monotonic() + seconds
        found = None
        while times:
            try:
                line = self._new.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"no line like {pattern!r} came:\n" + "".join(self.lines))
            found = re.search(pattern, line)
            times -= found is not None
        assert found is not None
        return found

    def stop(self, signum: int = signal.SIGTERM, *, seconds: float = 20) -> int:
        if self.child.poll() is None:
            self.child.send_signal(signum)
        try:
            return self.child.wait(seconds)
        finally:
            if self.child.poll() is None:
                self.child.kill()
                self.child.wait()
            self._reader.join(5)
            assert self.child.stdout is not None
            self.child.stdout.close()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.lines.append(line)
            self._new.put(line)
        self._new.put(None)


class Mock:
    """The mock upstream: see benchmarks/gateway/mock_upstream.py for how its models behave."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}/v1"
        self._root = f"http://127.0.0.1:{port}"

    def seen(self) -> dict[str, Any]:
        return dict(json.loads(fetch(f"{self._root}/seen")))

    def reset(self) -> None:
        fetch(f"{self._root}/reset", b"{}")
        self.force(None)

    def force(self, model: str | None) -> None:
        fetch(f"{self._root}/force", json.dumps({"model": model}).encode())

    def until(self, name: str, value: int, *, seconds: float = 10) -> dict[str, Any]:
        """What has been seen, once its count `name` has reached `value`."""
        end = time.monotonic() + seconds
        while True:
            seen = self.seen()
            if seen[name] >= value:
                return seen
            assert time.monotonic() < end, f"{name} is {seen[name]}, not {value}"
            time.sleep(0.01)


class Gateway:
    """A gateway process over a store in `folder`."""

    def __init__(self, process: Process, port: int, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/v1"

    @property
    def pid(self) -> int:
        return self.process.child.pid

    def key(self, name: str = "", limits: Limits | None = None) -> str:
        return make_key(self.folder, name or f"test-{secrets.token_hex(4)}", limits)

    def spent(self, name: str) -> KeyState:
        """What the key called `name` has spent."""

        async def look() -> KeyState:
            store = await open_store(str(self.folder / "store"), work=False)
            try:
                return next(s for s in await store.list_keys() if s.key.name == name)
            finally:
                await store.close()

        return asyncio.run(look())

    def rows(self) -> list[RequestRow]:
        async def look() -> list[RequestRow]:
            store = await open_store(str(self.folder / "store"), work=False)
            try:
                return await store.request_rows()
            finally:
                await store.close()

        return asyncio.run(look())

    def metrics(self) -> dict[str, float]:
        text = fetch(f"{self.root}/metrics").decode()
        return {
            name: float(value)
            for line in text.splitlines()
            if not line.startswith("#")
            for name, _, value in [line.rpartition(" ")]
        }


def make_key(folder: Path, name: str, limits: Limits | None = None) -> str:
    async def make() -> str:
        store = await open_store(str(folder / "store"), work=False)
        try:
            return (await store.create_key(name, limits=limits)).bearer
        finally:
            await store.close()

    return asyncio.run(make())


def fetch(url: str, body: bytes | None = None, *, key: str = "", seconds: float = 10) -> bytes:
    request = urllib.request.Request(url, body)
    if key:
        request.add_header("authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=seconds) as reply:
        return bytes(reply.read())


@contextmanager
def mocking() -> Iterator[Mock]:
    process = Process([sys.executable, str(MOCK)])
    try:
        yield Mock(process, int(process.wait_for(r"^(\d+)$")[1]))
    finally:
        process.stop(signal.SIGKILL)


@contextmanager
def serving(
    folder: Path, config: str | None, *, workers: int = 1, flags: Sequence[str] = ("gateway.toml",)
) -> Iterator[Gateway]:
    """A gateway with `config` (without [server] and [store], which are added)."""
    if config is not None:
        write_config(folder, config, workers=workers)
    process = Process([sys.executable, "-c", MAIN, "serve", *flags], cwd=folder)
    try:
        port = int(process.wait_for(_SERVES.pattern, times=workers, seconds=90)[1])
        yield Gateway(process, port, folder)
        assert process.child.poll() is None, "the gateway died:\n" + "".join(process.lines)
    finally:
        process.stop()


def write_config(
    folder: Path, config: str, *, workers: int = 1, port: int = 0, more: str = ""
) -> None:
    server = f"[server]\nport = {port}\nworkers = {workers}\ndrain_seconds = 5\n{more}\n"
    (folder / "gateway.toml").write_text(f'{server}[store]\nurl = "store"\n{config}')


def upstream(name: str, mock: Mock, model: str, **more: Any) -> str:
    """A [models] table for the mock's model `model`."""
    extra = "".join(f"{k} = {json.dumps(v)}\n" for k, v in more.items())
    return (
        f'[models.{name}]\nkind = "openai"\nbase_url = "{mock.url}"\nmodel = "{model}"\n'
        f"usd_per_m_in = 1.0\nusd_per_m_out = 2.0\n{extra}"
    )
