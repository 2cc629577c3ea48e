"""Cosilo, a bare pass-through and LiteLLM's proxy beside each other: CPU-ms per request.

    python benchmarks/gateway/side_by_side.py --rounds 5 --litellm /path/to/venv/bin/litellm
    python benchmarks/gateway/side_by_side.py --only cosilo --only before --before ../checkout
    python benchmarks/gateway/side_by_side.py --keep gateway_plain --rounds 9 --seconds 2 \
        --only cosilo --only passthrough --only before --before ../checkout

What is asked for: an answer as JSON; a stream whose 51 events the upstream writes at once, and one
whose events it writes apart, so that they are read and passed on one by one or a few at a time.

Each gateway runs alone on one core; the mock upstream and the load generator share the other. Rounds
are interleaved, so that whatever else the machine does falls on all of them, and the figure is the
median over rounds of the gateway's own CPU time (user and system) per request: wall times on a shared
machine drift. LiteLLM lives in an environment of its own: pip install 'litellm[proxy]'.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadgen import cpu_seconds, measure, rss_mb

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kept import Kept

HERE = Path(__file__).parent
MAIN = "import sys; from cosilo.cli import main; sys.exit(main())"

GATEWAY = """
[server]
port = {port}
access_log = false
[store]
url = "store"
[models.lm]
kind = "openai"
base_url = "{upstream}"
model = "ok"
usd_per_m_in = 1.0
usd_per_m_out = 2.0
[models.apart]
kind = "openai"
base_url = "{upstream}"
model = "drip-0"
usd_per_m_in = 1.0
usd_per_m_out = 2.0
[[points]]
name = "ok"
strategy = "large"
large = "lm"
[[points]]
name = "apart"
strategy = "large"
large = "apart"
"""

LITELLM = """
model_list:
  - model_name: ok
    litellm_params:
      model: openai/ok
      api_base: {upstream}
      api_key: none
general_settings:
  master_key: {key}
litellm_settings:
  num_retries: 0
  telemetry: false
"""


MODES = ("json", "stream", "apart")


@dataclass
class Server:
    name: str
    pid: int
    url: str
    key: str
    model: str
    ready_s: float
    ready_cpu_s: float
    rss_mb: float


def pinned(core: int, command: list[str], **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["taskset", "-c", str(core), *command], **more)


def wait_ready(url: str, process: subprocess.Popen[bytes], key: str) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, f"{url} died"
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {key}"})
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(request, timeout=5).read()
            return
        time.sleep(0.02)
    raise SystemExit(f"{url} did not become ready")


def make_key(folder: Path, environment: dict[str, str], name: str = "bench") -> str:
    """A key with room for everything, made by the same code that will serve it."""
    made = subprocess.run(
        [sys.executable, "-c", MAIN, "keys", "create", name, "--usd", "1000000",
         "--requests-per-minute", "1000000", "--store", str(folder / "store")],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = re.search(r"cosilo_[\w-]+", made.stdout)
    assert found is not None, made.stdout
    return found.group()


@contextlib.contextmanager
def servers(
    names: list[str], litellm: str, core: int, before: Path | None = None, also: str = ""
) -> Iterator[dict[str, Server]]:
    """Each of `names`, ready; `also` stands in Cosilo's configuration as well."""
    running: list[subprocess.Popen[bytes]] = []
    found: dict[str, Server] = {}
    with tempfile.TemporaryDirectory(prefix="cosilo-bench-") as name:
        folder = Path(name)
        mock = pinned(
            1 - core, [sys.executable, str(HERE / "mock_upstream.py")], stdout=subprocess.PIPE
        )
        running.append(mock)
        assert mock.stdout is not None
        upstream = f"http://127.0.0.1:{int(mock.stdout.readline())}/v1"
        try:
            for place, server in enumerate(names):
                port = 18100 + place
                key, model, ready = "sk-bench", "ok", "/healthz"
                environment = dict(os.environ)
                if server in ("cosilo", "before"):
                    own = folder / server
                    own.mkdir()
                    if server == "before":
                        assert before is not None, "--before says where the code before is"
                        environment["PYTHONPATH"] = str((before / "src").resolve())
                    ready, key, model = "/readyz", make_key(own, environment), "cosilo/ok"
                    (own / "gateway.toml").write_text(
                        GATEWAY.format(port=port, upstream=upstream) + also
                    )
                    command = [sys.executable, "-c", MAIN, "serve", str(own / "gateway.toml")]
                elif server == "passthrough":
                    command = [sys.executable, str(HERE / "passthrough.py"), str(port), upstream]
                else:
                    key = "sk-Uh3vDq81mZxP0aTgYw7LbN5c"  # it refuses weak ones; loopback only
                    (folder / "litellm.yaml").write_text(LITELLM.format(upstream=upstream, key=key))
                    ready = "/health/liveliness"
                    environment["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
                    environment["LITELLM_TELEMETRY"] = "False"
                    command = [litellm, "--config", str(folder / "litellm.yaml"), "--port", str(port),
                               "--host", "127.0.0.1", "--num_workers", "1"]  # fmt: skip
                began = time.monotonic()
                with (folder / f"{server}.log").open("wb") as log:
                    process = pinned(
                        core, command, cwd=folder, env=environment, stdout=log, stderr=log
                    )
                running.append(process)
                wait_ready(f"http://127.0.0.1:{port}{ready}", process, key)
                found[server] = Server(
                    server, process.pid, f"http://127.0.0.1:{port}", key, model,
                    time.monotonic() - began, cpu_seconds(process.pid), rss_mb(process.pid),
                )  # fmt: skip
            yield found
        finally:
            for process in reversed(running):
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU-ms per request of three gateways.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument(
        "--only", action="append", default=[], help="cosilo, before, passthrough, litellm"
    )
    parser.add_argument("--before", type=Path, help="a checkout of the code before")
    parser.add_argument("--keep", default="gateway_side_by_side", help="the file of results")
    parser.add_argument("--litellm", default="litellm", help="its command, in its own environment")
    parser.add_argument("--core", type=int, default=1, help="where the gateways run (0 or 1)")
    parser.add_argument("-c", "--concurrency", type=int, default=16)
    parser.add_argument("--out", type=Path, help="write every round to this file, as JSON lines")
    a = parser.parse_args()
    os.sched_setaffinity(0, {1 - a.core})
    names = a.only or ["cosilo", "passthrough", "litellm"]
    rounds: list[dict[str, Any]] = []
    with servers(names, a.litellm, a.core, a.before) as found:
        for number in range(a.rounds):
            for server in found.values():
                for mode in MODES:
                    if mode == "apart" and server.name == "litellm":
                        continue  # its list of models has just one
                    model = server.model
                    if mode == "apart":
                        model = "drip-0" if server.name == "passthrough" else "cosilo/apart"
                    result = asyncio.run(
                        measure(
                            server.url, server.key, model, concurrency=a.concurrency,
                            seconds=a.seconds, stream=mode != "json", pid=server.pid,
                        )
                    )  # fmt: skip
                    result["mode"] = mode
                    rounds.append({"round": number, "gateway": server.name, **result})
                    print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    if a.out:
        a.out.write_text("".join(json.dumps(r) + "\n" for r in rounds))
    print(f"{'gateway':12} {'ready s':>8} {'(CPU s)':>8} {'RSS MB':>7} {'after':>7}"
          f" {'JSON CPU-ms [min-max]':>26} {'stream CPU-ms [min-max]':>26}"
          f" {'apart CPU-ms [min-max]':>26} failures")  # fmt: skip
    kept = Kept(a.keep, settings={"concurrency": a.concurrency, "rounds": a.rounds})
    for server in found.values():
        mine = [r for r in rounds if r["gateway"] == server.name]
        cells = []
        for mode in MODES:
            values = [r["cpu_ms"] for r in mine if r["mode"] == mode]
            if not values:
                continue
            requests = sum(r["n"] for r in mine if r["mode"] == mode)
            kept.put(server.name, f"{mode} CPU-ms", statistics.median(values), n=requests,
                     low=min(values), high=max(values))  # fmt: skip
            cells.append(f"{statistics.median(values):.3f} [{min(values):.3f}-{max(values):.3f}]")
        failed = sum(sum(r["failures"].values()) for r in mine)
        kept.put(server.name, "RSS MB", server.rss_mb)
        kept.put(server.name, "failed", failed)
        after = max(r["rss_mb"] for r in mine)
        print(
            f"{server.name:12} {server.ready_s:8.2f} {server.ready_cpu_s:8.2f} {server.rss_mb:7.1f}"
            f" {after:7.1f} {' '.join(f'{cell:>26}' for cell in cells)} {failed}"
        )
        kept.put(server.name, "RSS MB after", after)
    if "cosilo" in found:
        for name, mode in itertools.product(set(names) - {"cosilo"}, MODES):
            mine, theirs = (
                [r["cpu_ms"] for r in rounds if r["gateway"] == who and r["mode"] == mode]
                for who in ("cosilo", name)
            )
            if not theirs:
                continue
            each = [a / b for a, b in zip(mine, theirs, strict=True)]  # of the same round
            kept.put("cosilo", f"{mode}, times {name}", statistics.median(each), n=len(each),
                     low=min(each), high=max(each))  # fmt: skip
    kept.write()


if __name__ == "__main__":
    main()
