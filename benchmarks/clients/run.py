"""Run the recipes of docs/clients as they stand, and compare what they print with what they say.

    python benchmarks/clients/run.py --keep            # all, each in an environment of its own
    python benchmarks/clients/run.py langchain         # one
    python benchmarks/clients/run.py --here openai     # with this interpreter's packages

A page's blocks are run in order: `sh` installs (into an environment below --environments, kept for the
next time) and starts what has a --port, blocks with a title are files, `python` is run, and a `text`
block after it is what it prints. The gateway is a process of its own, over a large model that follows
rules (`scripted_lm.py`) and keeps what it was sent: a private value of the recipe among it fails the
page.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kept import ROOT, Kept

PAGES = ROOT / "docs" / "clients"
LM = Path(__file__).with_name("scripted_lm.py")
MAIN = "import sys; from cosilo.cli import main; sys.exit(main())"
GATEWAY = "http://localhost:8400"
PROVIDER = "https://api.example.org/v1"
PRIVATE = (
    "Ottilie", "Katzenstein", "Bartholomew", "Quill", "DE89 3704", "370400440532013000",
    "ottilie.katzenstein@", "hunter2-Zebra", "Wexcombe",
)  # fmt: skip
"""What the recipes' texts hold that no large model may see, in the parts that tell."""

QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "LANGSMITH_TRACING": "false",
}  # fmt: skip
"""What keeps clients from asking the internet for anything."""

_BLOCK = re.compile(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(r"^export (\w+)=(\S+)$", re.MULTILINE)
_INSTALL = re.compile(r"^pip install (.+)$", re.MULTILINE)


@dataclass
class Page:
    """A recipe: what it installs, the files it names, and its code with what each block prints."""

    name: str
    packages: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    servers: list[str] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)
    code: list[tuple[str, str | None]] = field(default_factory=list)


def read(name: str) -> Page:
    """The page `name` of docs/clients."""
    page = Page(name)
    for kind, title, text in _BLOCK.findall((PAGES / f"{name}.md").read_text("utf-8")):
        if title:
            page.files[title] = text
        elif kind == "sh":
            page.packages += [p for line in _INSTALL.findall(text) for p in shlex.split(line)]
            page.environ |= dict(_EXPORT.findall(text))
            page.servers += [line for line in text.splitlines() if " --port " in line]
        elif kind == "python":
            page.code.append((text, None))
        elif kind == "text":
            page.code[-1] = page.code[-1][0], text
    return page


def names() -> list[str]:
    return sorted(p.stem for p in PAGES.glob("*.md") if p.stem != "README")


class Child:
    """A process that says its port in a line."""

    def __init__(
        self, command: list[str], folder: Path, pattern: str | None, environ: dict[str, str]
    ) -> None:
        self.log = folder / f"{Path(command[-1]).stem}-{os.getpid()}-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, **QUIET, **environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        self.port = 0
        if pattern is not None:
            self.port = int(self._until(pattern)[1])

    def _until(self, pattern: str) -> re.Match[str]:
        end = time.monotonic() + 90
        while (found := re.search(pattern, self.said, re.MULTILINE)) is None:
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{self.process.args}: no line like {pattern!r} came\n{self.said}")
            time.sleep(0.05)
        return found

    def until_it_answers(self, url: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    text = f"{self.process.args}: nothing answers at {url}\n{self.said[-3000:]}"
                    raise SystemExit(text) from None
                time.sleep(0.2)

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8", errors="replace")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Served:
    """What a recipe runs against: `here` puts the addresses of this run in place of a page's."""

    lm: str
    environ: dict[str, str]
    addresses: dict[str, str]

    def here(self, text: str) -> str:
        for written, real in self.addresses.items():
            text = text.replace(written, real)
        return text


@contextmanager
def serving(folder: Path, page: Page, python: str) -> Iterator[Served]:
    """A gateway, the large model behind it, and the servers that the page itself starts."""
    with ExitStack() as open_:

        def start(command: list[str], pattern: str | None = None, **environ: str) -> Child:
            child = Child(command, folder, pattern, environ)
            open_.callback(child.stop)
            return child

        lm = f"http://127.0.0.1:{start([sys.executable, str(LM)], r'^([0-9]+)$').port}"
        served = Served(lm, {}, {PROVIDER: f"{lm}/v1"})
        commands = [shlex.split(line) for line in page.servers]
        for command in commands:
            where, port = command.index("--port") + 1, str(free_port())
            served.addresses[f"http://localhost:{command[where]}"] = f"http://127.0.0.1:{port}"
            command[where] = port
        for name, text in {**read("README").files, **page.files}.items():
            (folder / name).write_text(served.here(text))
        config = (folder / "gateway.toml").read_text()
        own = '[server]\nport = 0\naccess_log = false\n[store]\nurl = "store"\n'
        (folder / "gateway.toml").write_text(own + config)
        serve = [sys.executable, "-c", MAIN, "serve", "gateway.toml"]
        gateway = start(serve, r"at http://[^:]+:(\d+)/v1", **page.environ)
        served.addresses[GATEWAY] = f"http://127.0.0.1:{gateway.port}"
        made = subprocess.run(
            [sys.executable, "-c", MAIN, "keys", "create", "recipe", "--store", "store"],
            cwd=folder, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        key = re.search(r"cosilo_\S+", made)
        assert key is not None, made
        served.environ = {"COSILO_KEY": key[0]} | {
            name: served.here(value).replace("$COSILO_KEY", key[0])
            for name, value in page.environ.items()
        }
        for command in commands:
            child = start([str(Path(python).with_name(command[0])), *command[1:]], **served.environ)
            port = command[command.index("--port") + 1]
            child.until_it_answers(f"http://127.0.0.1:{port}/health", 180)
        yield served


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run(page: Page, python: str, folder: Path) -> list[str]:
    """What is wrong with `page` as `python` runs it; nothing when it is right."""
    wrong = []
    with serving(folder, page, python) as served:
        # One process runs all blocks, so that a later one goes on where an earlier one ended.
        between = "\nprint('\\x1e', end='')\n"
        script = served.here(between.join(code for code, _ in page.code))
        (folder / "recipe.py").write_text(script)
        ran = subprocess.run(
            [python, "recipe.py"], cwd=folder, capture_output=True, text=True, timeout=300,
            env={**os.environ, **QUIET, **served.environ},
        )  # fmt: skip
        printed = ran.stdout.split("\x1e")
        if ran.returncode:
            wrong.append(f"ended with {ran.returncode}:\n{ran.stderr[-3000:]}")
        for number, (said, (_, expected)) in enumerate(zip(printed, page.code, strict=False), 1):
            if expected is not None and said.strip() != expected.strip():
                wrong.append(f"block {number} printed\n{said}instead of\n{expected}")
        with urllib.request.urlopen(f"{served.lm}/seen") as reply:
            seen = json.loads(reply.read())
        if not seen:
            wrong.append("nothing was asked of the large model")
        left = [value for value in PRIVATE if any(value in body for body in seen)]
        if left:
            wrong.append(f"the large model saw {', '.join(left)}")
    return wrong


def environment(page: Page, folder: Path) -> str:
    """The interpreter of an environment that holds what `page` installs."""
    where = folder / page.name
    python = where / "bin" / "python"
    done = where / "installed.txt"
    wanted = "\n".join(page.packages)
    if not done.is_file() or done.read_text() != wanted:
        print(f"{page.name}: installing {' '.join(page.packages)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(where)], check=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check",
             *page.packages], check=True,
        )  # fmt: skip
        done.write_text(wanted)
    return str(python)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", help=f"of {', '.join(names())}; all by default")
    parser.add_argument("--here", action="store_true", help="install nothing")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results/clients.json")
    parser.add_argument(
        "--environments", type=Path, default=ROOT / ".clients", help="the folder of environments"
    )
    args = parser.parse_args()
    unknown = set(args.pages) - set(names())
    if unknown:
        parser.error(f"there is no page {', '.join(sorted(unknown))} in docs/clients")
    failed = 0
    found = Kept("clients", fresh=not args.pages) if args.keep else None
    for name in args.pages or names():
        page = read(name)
        python = sys.executable if args.here else environment(page, args.environments)
        with tempfile.TemporaryDirectory() as folder:
            wrong = run(page, python, Path(folder))
        print(f"{name}: {'FAILED' if wrong else f'{len(page.code)} examples, right'}", flush=True)
        for what in wrong:
            print(what, flush=True)
        failed += bool(wrong)
        if found is not None:
            found.put(name, "examples", len(page.code), n=len(page.code))
            found.put(name, "wrong", len(wrong))
    if found is not None:
        found.write()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
