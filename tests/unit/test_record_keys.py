"""A key hides one record, and can be deleted without the others'."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from cosilo.errors import StoreError
from cosilo.record_keys import (
    SPAN,
    Block,
    FileKeys,
    KeyFile,
    Missing,
    Writing,
    copied,
    masked,
    sealed,
    shred,
    take_over,
    unsealed,
)


def written(path: Path, count: int, chain: str = "c") -> dict[int, bytes]:
    file = KeyFile(path)
    writing = Writing(file.keep)
    made = dict(writing.next(chain) for _ in range(count))
    file.close()
    return made


def read(path: Path, ids: list[int]) -> list[bytes | Missing]:
    with closing(FileKeys(path)) as keys:
        return [keys.of(id) for id in ids]


def test_each_record_has_a_key_of_its_own_that_is_found_again(tmp_path: Path) -> None:
    made = written(tmp_path / "k", 2 * SPAN + 1)
    assert len(made) == len(set(made.values())) == 2 * SPAN + 1
    assert read(tmp_path / "k", list(made)) == list(made.values())
    assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {0}
    assert (tmp_path / "k").stat().st_size <= 4 * 4096


def test_a_block_is_shown_without_its_key() -> None:
    block = Block.new("trial")
    assert "trial" in repr(block)
    assert repr(block.key) not in repr(block)


def test_a_writer_that_begins_anew_takes_new_keys(tmp_path: Path) -> None:
    one, two = written(tmp_path / "k", 3), written(tmp_path / "k", 3)
    assert not set(one) & set(two)
    assert not set(one.values()) & set(two.values())


def test_of_a_block_all_others_are_left(tmp_path: Path) -> None:
    path = tmp_path / "k"
    user = KeyFile(path)  # who has the file open keeps its log from being deleted
    user.naming()
    made = written(path, SPAN + 5)
    ids = list(made)
    gone = {ids[0], ids[7], ids[SPAN]}
    assert shred(path, gone) == 3
    assert shred(path, gone) == 0
    for id, key in zip(ids, read(path, ids), strict=True):
        assert key == ("forgotten" if id in gone else made[id])
    assert shred(path, ids) == SPAN + 2
    assert set(read(path, ids)) == {"forgotten"}
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert not [key for key in made.values() if key in stored]
    user.close()


def test_the_keys_of_records_to_come_are_left_too(tmp_path: Path) -> None:
    path = tmp_path / "k"
    file = KeyFile(path)
    writing = Writing(file.keep)
    first, _ = writing.next("c")
    shred(path, [first])
    id, key = writing.next("c")
    assert read(path, [first, id]) == ["forgotten", key]
    file.close()


def test_what_is_forgotten_is_not_what_nothing_is_known_of(tmp_path: Path) -> None:
    made = written(tmp_path / "k", 1)
    assert read(tmp_path / "k", [SPAN * 12345]) == ["lost"]
    assert read(tmp_path / "none", list(made)) == ["lost"]
    assert not (tmp_path / "none").exists()
    assert shred(tmp_path / "none", made) == 0


def test_keys_taken_over_bring_back_nothing_that_was_forgotten(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    made = written(here, 4)
    copied(here, there)
    assert read(there, list(made)) == list(made.values())
    more, other = written(there, 2), written(there, 2, "d")
    first = next(iter(made))
    shred(here, [first])
    for _ in range(2):
        take_over(here, there, chain="c")
    assert read(here, [first, *more]) == ["forgotten", *more.values()]
    assert read(here, list(other)) == ["lost", "lost"]
    shred(there, [next(iter(more))])
    take_over(tmp_path / "third", there)
    assert read(tmp_path / "third", list(more)) == ["forgotten", list(more.values())[1]]
    take_over(here, tmp_path / "none")


@pytest.mark.parametrize("size", [0, 1, 400, 100_000])
def test_a_content_comes_back_with_its_own_key_alone(size: int) -> None:
    block = Block.new("c")
    content = b"x" * size
    hidden = sealed(block.of(block.id), content)
    assert unsealed(block.of(block.id), hidden) == content
    assert unsealed(block.of(block.id + 1), hidden) is None
    assert unsealed(block.of(block.id), hidden[:-1]) is None


@pytest.mark.parametrize("size", [32, 64])
def test_a_mask_is_taken_off_by_its_own_key_alone(size: int) -> None:
    block = Block.new("c")
    digest = bytes(range(size))
    hidden = masked(block.of(block.id), digest)
    assert (len(hidden), hidden == digest) == (size, False)
    assert masked(block.of(block.id), hidden) == digest
    assert masked(block.of(block.id + 1), hidden) != digest


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"no database, and long enough to be read as one " * 40)
    with pytest.raises(StoreError, match="k' cannot be read or written"):
        written(tmp_path / "k", 1)
    with pytest.raises(StoreError, match="k' cannot be read or written"):
        shred(tmp_path / "k", [1])
