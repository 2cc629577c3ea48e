"""What integration tests share: Ctrl-C as in the foreground, and a PostgreSQL of the tests' own, a
cluster in a temporary folder that is reached over a unix socket.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.hosts import Asking, the_way

from cosilo.boundary.transports.http import Https

PLACES = (
    "/usr/local/bin",
    "/usr/local/pgsql/bin",
    *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin"))),
)


def _binary(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *reversed(PLACES))))


@pytest.fixture
def foreground() -> Iterator[None]:
    """Processes that the test starts hear SIGINT.

    A shell without job control starts what runs in the background with SIGINT ignored, and that is
    passed on to every child. A handler is not: children begin with the usual one.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """Empties the tests' database and returns its URL."""
    psycopg = pytest.importorskip("psycopg", reason="needs the postgres extra")
    initdb, server = _binary("initdb"), _binary("postgres")
    if initdb is None or server is None:
        pytest.skip("needs PostgreSQL's server (apt-get install postgresql)")
    who: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres'")
        who = {"user": "postgres", "group": "postgres", "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="cosilo-pg-", dir="/tmp") as folder:
        if who:
            shutil.chown(folder, "postgres", "postgres")
        data = f"{folder}/data"
        subprocess.run(
            [initdb, "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8"],
            check=True, capture_output=True, cwd="/", **who,
        )  # fmt: skip
        process = subprocess.Popen(
            [
                server, "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off",
                "-c", "max_connections=200",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/", text=True, **who,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "ready to accept connections" in line:
                    break
            else:
                pytest.fail("PostgreSQL did not start")
            url = f"postgresql:///postgres?host={folder}&user=postgres"

            def empty() -> str:
                with psycopg.connect(url, autocommit=True) as db:
                    db.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE application_name = 'cosilo'"
                    )
                    db.execute("DROP SCHEMA IF EXISTS cosilo CASCADE")
                return url

            yield empty
        finally:
            process.send_signal(signal.SIGQUIT)  # stop at once, its children too
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Asking]:
    """Ways of clients to hosts that were written into `tmp_path`."""
    ways: list[Https] = []

    def ask(port: int, **options: Any) -> Https:
        ways.append(the_way(tmp_path, port, **options))
        return ways[-1]

    yield ask
    for way in ways:
        await way.close()
