"""What is written of a run is its owner's alone, wherever it is written and whatever stood there."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cosilo.report.data import Report
from cosilo.report.html import write_html
from cosilo.report.private_file import private_file
from cosilo.report.tables import write_csv, write_parquet
from made_up import report as made_up

WRITERS = {"html": write_html, "csv": write_csv, "parquet": write_parquet}


@pytest.fixture(autouse=True)
def open_to_all() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("there", ["nothing", "a file open to all", "a link"])
@pytest.mark.parametrize("kind", WRITERS)
def test_whatever_is_written_is_its_owners_alone(tmp_path: Path, kind: str, there: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    write: Callable[[Report, Path], None] = WRITERS[kind]
    path = target = tmp_path / "elsewhere"
    if there != "nothing":
        path.write_text("an older, longer report " * 100_000)
        assert mode(path) == 0o666
    if there == "a link":
        path = tmp_path / "link"
        path.symlink_to(target)
    write(made_up(), path)
    assert mode(target) == 0o600
    assert 0 < target.stat().st_size < 2_400_000
    assert b"an older, longer report" not in target.read_bytes()


def test_what_is_no_file_is_left_as_it_is(tmp_path: Path) -> None:
    assert private_file(Path("/dev/null")) == Path("/dev/null")
    assert mode(Path("/dev/null")) == 0o666
    os.mkfifo(tmp_path / "pipe", 0o644)
    assert private_file(tmp_path / "pipe") == tmp_path / "pipe"
    assert mode(tmp_path / "pipe") == 0o644


def test_it_is_closed_to_others_before_anything_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("old")
    assert mode(private_file(path)) == 0o600
    assert path.read_text() == ""
