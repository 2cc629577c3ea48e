"""What an owner keeps is there whole, for it alone, and on the disk before it goes on."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cosilo.errors import StoreError
from cosilo.strategies.federating.files import keep


def test_a_file_and_its_name_are_on_the_disk_before_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, synced = tmp_path / "new" / "round-1.sum", []

    def noted(handle: int) -> None:
        found = os.fstat(handle)
        synced.append((stat.S_ISDIR(found.st_mode), found.st_ino, file.exists()))

    monkeypatch.setattr(os, "fsync", noted)
    keep(file, b"one")
    (first, second) = synced
    assert first == (False, file.stat().st_ino, False)
    assert second == (True, file.parent.stat().st_ino, True)
    assert file.stat().st_mode & 0o777 == 0o600
    keep(file, b"two")
    assert [f.name for f in file.parent.iterdir()] == ["round-1.sum"]
    assert file.read_bytes() == b"two"


def test_what_cannot_be_written_is_said_and_what_was_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path / "round-1.sum", b"one")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="cannot be written: No space left"):
        keep(tmp_path / "round-1.sum", b"two")
    assert [f.name for f in tmp_path.iterdir()] == ["round-1.sum"]
    assert (tmp_path / "round-1.sum").read_bytes() == b"one"
