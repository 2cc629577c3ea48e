"""What a run leaves behind that no record leads to, by the run's own lineage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from cosilo.benchmark.store import Store
from cosilo.lineage.store import FILE, Lineage
from cosilo.tasks.base import SPLITS

OF_NO_RECORD = ("lock", f"{FILE}*", "*.key", "plan.toml", "run.json", "network.sqlite*")
"""Of a run's folder: the plan as its owner wrote it, keys that are drawn, and what says where data are,
and their hash. By `network.sqlite` other parties are asked to forget; see `cosilo.forget.elsewhere`."""


@contextmanager
def all_named(folder: Path, *besides: str) -> Iterator[None]:
    """Runs that are made below `folder` inside: each file that is new in the end is reached from the
    records of one of them by the run's lineage, or of a kind that is made from none.

    Args:
        besides: patterns of files that this is not said of, from `folder`.
    """
    before = _files(folder)
    yield
    made = _files(folder) - before
    runs = {file.parent for file in made if file.name == "run.sqlite"}
    assert runs, "there is a run to begin with"
    places = [place for run in sorted(runs) for place in _reached(run)]
    left = []
    for file in made:
        stem, ending, _ = file.name.partition(".sqlite")
        whole = file.with_name(stem + ending)  # a database's log is in the same place
        named = any(whole == place or file.is_relative_to(place) for place in places)
        own = file.parent in runs and any(fnmatch(file.name, each) for each in OF_NO_RECORD)
        name = file.relative_to(folder.resolve()).as_posix()
        if not named and not own and not any(fnmatch(name, each) for each in besides):
            left.append(name)
    assert not left, f"no record leads to {', '.join(sorted(left))}"


def _reached(run: Path) -> Iterator[Path]:
    """The places that the closure over all of the run's records has."""
    store = Store(run, write=False)
    try:
        tasks = [task for (task,) in store.rows("SELECT id FROM tasks")]
        ids = {e.id for task in tasks for split in SPLITS for e in store.examples(task, split)}
    finally:
        store.close()
    with Lineage(run, write=False) as lineage:
        for artifact in lineage.derived(ids):
            yield (run / artifact.place.partition("#")[0]).resolve()


def _files(folder: Path) -> set[Path]:
    return {file.resolve() for file in folder.rglob("*") if file.is_file()}
