"""A file's hash is of all of its bytes, and is worked out once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cosilo.models import digests
from cosilo.models.digests import file_digest, folder_digest

SIZE = 3 << 20


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/cosilo/digests.json"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read, in order."""
    names: list[str] = []
    hashed = digests._hashed

    def noting(file: Path) -> str:
        names.append(file.name)
        return hashed(file)

    monkeypatch.setattr(digests, "_hashed", noting)
    return names


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a minute had gone by since the files were written."""
    now = digests.time.time
    monkeypatch.setattr("cosilo.models.digests.time.time", lambda: now() + 60)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    file = tmp_path / "big"
    file.write_bytes(bytes(SIZE))
    return file


def changed(file: Path, place: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"\1")


@pytest.mark.usefixtures("later")
def test_a_big_file_is_read_once(big: Path, read: list[str]) -> None:
    expected = hashlib.sha256(bytes(SIZE)).hexdigest()
    assert [file_digest(big) for _ in range(3)] == [expected] * 3
    assert read == ["big"]


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("place", [0, SIZE // 2, SIZE - 1])
def test_a_byte_that_changed_anywhere_shows_although_size_and_time_are_the_same(
    big: Path, place: int
) -> None:
    before, times = file_digest(big), (big.stat().st_atime_ns, big.stat().st_mtime_ns)
    changed(big, place)
    os.utime(big, ns=times)
    assert file_digest(big) != before


@pytest.mark.usefixtures("later")
def test_another_file_in_its_place_shows(big: Path, tmp_path: Path) -> None:
    before, times = file_digest(big), (big.stat().st_atime_ns, big.stat().st_mtime_ns)
    other = tmp_path / "other"
    other.write_bytes(b"\1" * SIZE)
    os.utime(other, ns=times)
    other.replace(big)
    assert file_digest(big) != before


def test_a_file_that_was_changed_just_now_is_read_again(big: Path, read: list[str]) -> None:
    file_digest(big)
    file_digest(big)
    assert read == ["big", "big"]


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda cache: cache.write_text("no json"),
        lambda cache: cache.write_text("[1, 2]"),
        lambda cache: cache.write_text('{"x": 3}'),
        lambda cache: cache.unlink(),
    ],
)
def test_a_broken_cache_is_only_slower(
    big: Path, cache: Path, spoil: Callable[[Path], object]
) -> None:
    before = file_digest(big)
    assert cache.is_file()
    spoil(cache)
    assert file_digest(big) == before


def test_no_place_for_a_cache_is_only_slower(big: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert file_digest(big) == file_digest(big)


def test_a_folder_counts_by_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/a").write_text("a")
    found = {folder_digest(folder)}
    (folder / "deep/a").write_text("b")
    found.add(folder_digest(folder))
    (folder / "deep/a").rename(folder / "a")
    found.add(folder_digest(folder))
    (folder / "empty").mkdir()
    found.add(folder_digest(folder))
    assert len(found) == 3
