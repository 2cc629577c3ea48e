"""What there is at home of some data: the files, and every run that was made of them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosilo.benchmark import places
from cosilo.benchmark.plan import Plan
from cosilo.errors import ConfigError, CosiloError, StoreError
from cosilo.forget.asked import AskedRecords, refuse_ambiguous, refuse_unknown
from cosilo.lineage.artifacts import ArtifactKind
from cosilo.lineage.requests import Method
from cosilo.lineage.store import Lineage, has_lineage
from cosilo.tasks.config import located
from cosilo.tasks.files import FileRow, lookup

_MISSING = object()
_DEEP = 3
"""So many folders deep runs are looked for."""


@dataclass(frozen=True)
class DataRun:
    """A run of the data.

    Attributes:
        folder: where it is, absolute.
        plan: with its paths from where its files are now.
    """

    folder: Path
    plan: Plan

    @property
    def files(self) -> tuple[Path, ...]:
        """The data files that hold its records, resolved."""
        named = [name for names in self.plan.task.files.values() for name in names]
        return tuple(dict.fromkeys((self.plan.base / name).resolve() for name in named))


@dataclass(frozen=True)
class DataHome:
    """Data files and the runs made of them.

    Attributes:
        files: every file of records of any of the runs.
        runs: none where all of them were moved or deleted since requests about the files began.
        folder: where requests about these data are kept.
        earlier: where more of them are, of before a run joined files that had been apart.
        unread: folders near them that look like runs and cannot be read: nobody knows what is in them.
    """

    files: tuple[Path, ...]
    runs: tuple[DataRun, ...]
    folder: Path
    earlier: tuple[Path, ...] = ()
    unread: tuple[Path, ...] = ()

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder with requests about these data, and the one where new ones are kept."""
        return (self.folder, *self.earlier)


def home_of(target: Path, more: Sequence[Path] = ()) -> DataHome:
    """What there is of the data that `target` names.

    Args:
        target: a data file, a folder of some, or a run.
        more: further folders to look for runs in.

    Raises:
        ConfigError: no run was made of them, as far as can be seen.
    """
    target = target.absolute()
    if (target / "run.sqlite").is_file():
        wanted = run_at(target).files
        around = [target.parent, *(f.parent for f in wanted), *(f.parent / "runs" for f in wanted)]
    elif target.is_dir():
        inside = target.resolve()
        wanted, around = (), [target, target / "runs", target.parent / "runs"]
    elif target.is_file():
        wanted, around = (target.resolve(),), [target.parent, _beside(target)]
    else:
        raise ConfigError(
            f"{str(target)!r} is neither a data file, nor a folder of some, nor a run"
        )
    unread: list[Path] = []
    found = {run.folder: run for run in _runs([target, *around, *more], unread)}
    known = set(wanted)
    if not wanted:
        known = {f for run in found.values() for f in run.files if f.is_relative_to(inside)}
    while True:  # a run may join files of several that others were made of
        runs = [run for run in found.values() if known & set(run.files)]
        files = {f for run in runs for f in run.files}
        if files <= known:
            break
        known |= files
    if not runs and (asked := _asked_about(target)):
        folder = target if target.is_dir() else _beside(target)
        return DataHome(asked, (), folder.resolve(), unread=tuple(unread))
    if not runs:
        raise _no_runs(target)
    ordered = tuple(sorted(runs, key=lambda run: run.folder))
    ours = tuple(sorted(known))
    folder, *earlier = kept_in(ours)
    return DataHome(ours, ordered, folder, tuple(earlier), tuple(unread))


def require_runs(home: DataHome, target: Path) -> None:
    """Refuse a new request where no run says what records the files of `target` have.

    Raises:
        ConfigError: there is none.
    """
    if not home.runs:
        raise _no_runs(target)


def _no_runs(target: Path) -> ConfigError:
    return ConfigError(
        f"no run of the data in {str(target)!r} was found near them; name the run itself, or the "
        "folder of its runs with --runs"
    )


def _asked_about(target: Path) -> tuple[Path, ...]:
    """The data files, where they are now, of requests that are kept beside `target` or in it; of those
    about `target` where it is a file."""
    folder = (target if target.is_dir() else _beside(target)).resolve()
    found: set[Path] = set()
    if not has_lineage(folder):
        return ()
    with Lineage(folder, write=False) as lineage:
        for request in lineage.requests():
            old = [Path(step.place) for step in request.steps if step.method is Method.VERIFY]
            files = {
                folder / place.relative_to(old[0])
                if old and place.is_relative_to(old[0])
                else place
                for step in request.steps
                if step.kind == ArtifactKind.DATA and not step.artifact
                for place in [Path(step.place)]
            }
            if target.is_dir() or target.resolve() in files:
                found |= files
    return tuple(sorted(found))


def kept_in(files: Sequence[Path]) -> list[Path]:
    """Where requests were about any of these files, several folders where a run of today joins what had
    been apart; beside the first file where none was."""
    found = []
    for folder in dict.fromkeys(map(_beside, files)):
        if has_lineage(folder):
            with Lineage(folder, write=False) as lineage:
                if any(
                    step.place in map(str, files) for r in lineage.requests() for step in r.steps
                ):
                    found.append(folder)
    return found or [_beside(files[0])]


def _beside(file: Path) -> Path:
    """The folder that a data file is in, or the one above where that is a run's: the lineage in there
    says what the run made, and parts with the records that it was made from."""
    folder = file.parent
    return folder.parent if (folder / "run.sqlite").is_file() else folder


def run_at(folder: Path) -> DataRun:
    """The run in `folder`.

    Raises:
        ConfigError, StoreError: there is none that can be read.
    """
    try:
        about = json.loads((folder / "run.json").read_text("utf-8"))
        text = (folder / "plan.toml").read_text("utf-8")
    except (OSError, ValueError) as error:
        raise StoreError(
            f"the run {str(folder)!r} cannot be read ({type(error).__name__})"
        ) from None
    return DataRun(folder.resolve(), places.plan_of(about, text, folder))


@dataclass(frozen=True)
class RecordRows:
    """Records, and all rows of the data that they stand in.

    Attributes:
        ids: one for each record, but those that were asked for where it was asked for by several.
        rows: each once, though several runs may read it.
    """

    ids: tuple[str, ...]
    rows: tuple[FileRow, ...]


def rows_of(home: DataHome, asked: AskedRecords, forgotten: Iterable[str] = ()) -> RecordRows:
    """The records that `asked` names, and the rows they stand in, in files of any of the runs.

    Args:
        forgotten: ids of `asked` that an earlier request has forgotten: they are known, and gone.

    Raises:
        ConfigError: an id that no run's plan gives any record, or that different records have in files
            of different runs; by the numbers of lines.
        DataError: the data cannot be read.
    """
    places: dict[str, FileRow] = {}
    named: dict[str, list[str]] = {}  # what plans call the row at a place
    for run in home.runs:
        for id, row in located(run.plan.task, run.plan.base).items():
            if id in asked.ids or asked.fits(row.values):
                place = resolved(row.where)
                places.setdefault(place, row)
                if id not in named.setdefault(place, []):
                    named[place].append(id)
    standing: dict[str, list[FileRow]] = {}
    for place, ids in named.items():
        for id in ids:
            standing.setdefault(id, []).append(places[place])
    known = standing.keys() | set(forgotten)
    refuse_unknown([line for id, line in asked.ids.items() if id not in known])
    refuse_ambiguous(
        [
            line
            for id, line in asked.ids.items()
            if any(row.values != standing[id][0].values for row in standing.get(id, ()))
        ]
    )
    chosen = dict.fromkeys(
        id for ids in named.values() for id in [i for i in ids if i in asked.ids] or ids[:1]
    )
    return RecordRows(tuple(chosen), tuple(places.values()))


def require_columns(home: DataHome, asked: AskedRecords) -> None:
    """Refuse conditions on a column that no row has, by their numbers alone: nothing would fit, or all,
    where what is empty is asked for.

    Raises:
        ConfigError: there are any.
        DataError: the data cannot be read.
    """
    left = dict.fromkeys(asked.where)
    for run in home.runs:
        for row in located(run.plan.task, run.plan.base).values() if left else ():
            for column in [c for c in left if lookup(row.values, c, _MISSING) is not _MISSING]:
                del left[column]
    numbers = [str(n) for n, column in enumerate(asked.where, 1) if column in left]
    if numbers:
        raise ConfigError(
            f"--where: no record of these data has the column of condition {', '.join(numbers)}; "
            "nothing was touched"
        )


def ids_in(run: DataRun, rows: Iterable[FileRow]) -> list[str]:
    """The ids that the run's plan gives the records in these rows."""
    named = {resolved(row.where) for row in rows}
    return [
        id
        for id, row in located(run.plan.task, run.plan.base).items()
        if resolved(row.where) in named
    ]


def resolved(where: str) -> str:
    """A row's place with its file's path resolved, so that two plans call one row the same."""
    path, _, number = where.rpartition(" ")
    path, _, what = path.rpartition(" ")
    return f"{Path(path).resolve()} {what} {number}"


def file_of(where: str) -> Path:
    """The file that a row's place is in."""
    return Path(where.rpartition(" ")[0].rpartition(" ")[0]).resolve()


def refuse_read_only(home: DataHome, deleted: Iterable[Path] = ()) -> None:
    """Refuse to begin where something that has to be changed cannot be.

    Args:
        deleted: files and folders elsewhere that are to go.

    Raises:
        StoreError: it cannot; nothing was touched.
    """
    wanted = [*home.files, *home.folders]
    for run in home.runs:
        wanted += [*_folders_in(run.folder), *(f for f in run.folder.iterdir() if f.is_file())]
    for path in deleted:
        if path.exists():
            wanted += [path, path.parent, *_folders_in(path)]
    for path in wanted:
        if path.exists() and not _writable(path):
            raise StoreError(
                f"{str(path)!r} can only be read, so nothing could be forgotten there; nothing was "
                "touched"
            )


def _folders_in(folder: Path) -> Iterator[Path]:
    """The folder with all folders in it; none where it is a file."""
    for inner, _, _ in os.walk(folder):
        yield Path(inner)


def _writable(path: Path) -> bool:
    # The superuser may write what nobody may; that is no permission to.
    return os.access(path, os.W_OK) and bool(path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP))


def _runs(folders: Iterable[Path], unread: list[Path]) -> Iterator[DataRun]:
    seen: set[Path] = set()
    for folder in folders:
        for found in _folders(folder, _DEEP):
            if found.resolve() in seen:
                continue
            seen.add(found.resolve())
            if (found / "run.sqlite").is_file() and (found / "run.json").is_file():
                try:
                    yield run_at(found)
                except CosiloError:
                    unread.append(found.resolve())


def _folders(folder: Path, deep: int) -> Iterator[Path]:
    if not folder.is_dir():
        return
    yield folder
    if deep and not (folder / "run.sqlite").is_file():
        for inner in sorted(folder.iterdir()):
            if inner.is_dir() and not inner.is_symlink() and not inner.name.startswith("."):
                yield from _folders(inner, deep - 1)
