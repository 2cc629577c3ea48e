"""Rows are left out of a data file once, and what it held is overwritten, wherever it is stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cosilo.errors import StoreError
from cosilo.forget import data_rows
from cosilo.forget.data_rows import leave_out, pinned
from cosilo.lineage.artifacts import ArtifactKind
from cosilo.lineage.requests import ForgetStep, Method
from cosilo.lineage.store import Lineage

LINES = ['{"text": "Ada Lovelace lost a card"}', '{"text": "a refund"}', '{"text": "a bill"}']


class Killed(BaseException):
    """As if by a signal: nothing after it is done."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "rows.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join(LINES) + "\n")
    path.chmod(0o640)
    return path


def step_of(path: Path, lineage: Lineage) -> ForgetStep:
    step = ForgetStep(
        method=Method.DELETE, kind=ArtifactKind.DATA, place=str(path), note=json.dumps(["line 1"])
    )
    return pinned(step, lineage)


@pytest.mark.parametrize(
    ("stopped_in", "linking"),
    [
        ("", True),
        ("replace_file", True),
        ("overwrite", True),
        ("unlink", True),
        ("", False),  # a file system without second names: what is left then nothing finds
        ("replace_file", False),
    ],
)
def test_wherever_it_is_stopped_the_next_call_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_in: str, linking: bool
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Killed

    def unlinkable(*_: object) -> None:
        raise OSError(95, "no second names here")

    lineage = Lineage(tmp_path / "home")
    step = step_of(data, lineage)
    if not linking:
        monkeypatch.setattr("os.link", unlinkable)
    with lineage, data.open("rb") as old:
        if stopped_in:
            with monkeypatch.context() as patched:
                if stopped_in == "unlink":
                    patched.setattr(Path, "unlink", _killed_for(".old"))
                else:
                    patched.setattr(data_rows, stopped_in, killed)
                with pytest.raises(Killed):
                    leave_out(step, lineage)
        for _ in range(2):
            assert leave_out(step, lineage).count == 1
            assert data.read_text() == "\n".join(LINES[1:]) + "\n"
            assert data.stat().st_mode & 0o777 == 0o640
            assert list(data.parent.iterdir()) == [data]
        old.seek(0)
        assert not old.read().strip(b"\0"), "what the file held is overwritten where it lay"


def _killed_for(suffix: str):  # type: ignore[no-untyped-def]
    unlink = Path.unlink

    def patched(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == suffix and path.exists() and path.read_bytes().strip(b"\0") == b"":
            raise Killed
        unlink(path, missing_ok=missing_ok)

    return patched


def test_a_second_name_of_something_else_is_overwritten_too(data: Path, tmp_path: Path) -> None:
    other = data.with_name(".rows.jsonl.old")
    other.write_text("Ada Lovelace, of an earlier request")
    with Lineage(tmp_path / "home") as lineage, other.open("rb") as held:
        leave_out(step_of(data, lineage), lineage)
        assert not held.read().strip(b"\0")
    assert list(data.parent.iterdir()) == [data]


def test_a_file_that_was_changed_meanwhile_is_left_alone(data: Path, tmp_path: Path) -> None:
    with Lineage(tmp_path / "home") as lineage:
        step = step_of(data, lineage)
        data.write_text("other\n")
        with pytest.raises(StoreError, match="changed by something else"):
            leave_out(step, lineage)
    assert data.read_text() == "other\n"


def test_a_file_that_is_gone_is_asked_for(data: Path, tmp_path: Path) -> None:
    with Lineage(tmp_path / "home") as lineage:
        step = step_of(data, lineage)
        data.unlink()
        with pytest.raises(StoreError, match="put the file back"):
            leave_out(step, lineage)


def test_where_nothing_can_be_replaced_no_second_name_is_left(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(data_rows, "replace_file", full)
    with Lineage(tmp_path / "home") as lineage, pytest.raises(StoreError, match="is full"):
        leave_out(step_of(data, lineage), lineage)
    assert list(data.parent.iterdir()) == [data]
    assert data.read_text() == "\n".join(LINES) + "\n"
