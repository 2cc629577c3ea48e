"""A copy of a run to work out an estimate in, so that estimating leaves the run as it is.

RUN/run.sqlite, its record, the recorded answers ──copy──▶ a private temporary folder ──▶ deleted

What an estimate tries out (a few answers of a model on this machine) is recorded in the copy and goes
with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from cosilo.benchmark.lock import held
from cosilo.benchmark.plan import Plan, Replay
from cosilo.benchmark.store import Store
from cosilo.errors import StoreError

_SQLITE = ("", "-wal", ".keys", ".keys-wal")
"""A database, what was committed to it and not moved there yet, and the same of its records' keys."""


@contextmanager
def scratch(path: Path, plan: Plan) -> Iterator[tuple[Store, Plan]]:
    """A copy of the run in `path`, empty where there is none, and `plan` over the answers in it.

    Raises:
        RunBusyError: another process works on the run.
        StoreError: it cannot be copied.
    """
    with TemporaryDirectory(prefix="cosilo-estimate-") as folder, held(path):
        copy = Path(folder)
        recorded = plan.replay.path or path / "replay.sqlite"
        try:
            kept = [(path / name, name) for name in ("run.sqlite", "ledger.sqlite")]
            for source, name in (*kept, (recorded, "replay.sqlite")):
                for ending in _SQLITE:
                    file = source.with_name(source.name + ending)
                    if file.is_file():
                        shutil.copyfile(file, copy / (name + ending))
        except OSError as error:
            raise StoreError(f"the run {str(path)!r} cannot be read: {error.strerror}") from None
        store = Store(copy, write=True)
        try:
            yield store, replace(plan, replay=Replay(path=copy / "replay.sqlite"))
        finally:
            store.close()
