"""A file is replaced whole, for its owner alone unless said otherwise."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cosilo.errors import StoreError
from cosilo.forget.files import overwrite, replace_file


def test_a_file_is_whole_private_and_nothing_is_left_beside(tmp_path: Path) -> None:
    path, beside = tmp_path / ".told.json", tmp_path / ".told.json.new"
    beside.write_text("what somebody who was stopped had written so far")
    beside.chmod(0o644)
    replace_file(path, b"1")
    assert path.read_bytes() == b"1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    replace_file(path, b"22", mode=0o640)
    assert path.read_bytes() == b"22"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"told\.json"):
        replace_file(tmp_path / "file" / "told.json", b"1")


def test_what_is_overwritten_is_zeros_of_the_same_length(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"Ada" * (1 << 19))
    with path.open("r+b") as file:
        overwrite(file.fileno())
    assert path.read_bytes() == bytes(3 << 19)
