"""What is left of a text is found in any form, and not in what others said."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cosilo.forget.searching import PIECE, Searched, holding, pieces_of

TEXT = 'Ada Keller of "Überlingen" saw that nobody had fed the cats for a week or more'
OTHERS = ["nobody had fed the cats for a week or more", "short"]


def test_pieces_are_of_this_text_alone() -> None:
    pieces, without = pieces_of([TEXT, "short", "too short", OTHERS[0]], OTHERS)
    assert pieces
    assert without == 3
    assert all(len(piece) == PIECE for piece in pieces)
    rest = "\0".join(OTHERS).encode()
    assert not any(piece in rest for piece in pieces)


def test_a_file_that_holds_a_part_in_any_form_is_found(tmp_path: Path) -> None:
    pieces, _ = pieces_of([TEXT], OTHERS)
    (tmp_path / "whole.txt").write_text(TEXT)
    (tmp_path / "in.json").write_text(json.dumps({"text": TEXT}))
    (tmp_path / "in.csv").write_text(TEXT[:24].replace('"', '""') + TEXT[24:36])
    (tmp_path / "other.txt").write_text(OTHERS[0])
    (tmp_path / "large.bin").write_bytes(
        bytes((1 << 20) - 30) + TEXT.encode()
    )  # over a block's end
    with closing(sqlite3.connect(tmp_path / "free.sqlite")) as db:
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("CREATE TABLE t (text)")
        db.executemany("INSERT INTO t VALUES (?)", [(TEXT * 200,)] * 3)  # over several pages
        db.commit()
        db.execute("DELETE FROM t")
        db.commit()
    looked = holding(pieces, [tmp_path])
    assert [f.name for f in looked.found] == [
        "free.sqlite", "in.csv", "in.json", "large.bin", "whole.txt"
    ]  # fmt: skip
    assert looked.read == 6
    assert "still found in" in looked.note
    assert holding((), [tmp_path]) == Searched((), (), 6)


def test_what_two_texts_share_is_looked_for_in_no_form(tmp_path: Path) -> None:
    """Else what is kept of the one would be found as what is left of the other."""
    shared = ' sagte: "Über die Straße gehe ich nur mit Käthe und Jörg, früh am Morgen"'
    pieces, without = pieces_of(
        [f"Ada Lovelace am 3. Mai{shared}"], [f"Eva Kramer gestern{shared}"]
    )
    assert pieces
    assert not without
    for ascii in (True, False):
        row = json.dumps({"text": f"Eva Kramer gestern{shared}"}, ensure_ascii=ascii)
        (tmp_path / f"{ascii}.jsonl").write_text(row)
    assert not holding(pieces, [tmp_path]).note


def test_a_file_that_nobody_can_look_into_is_not_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("theirs.txt", "mine.txt", "gone.wal"):
        (tmp_path / name).write_text("nothing of it")
    usual = Path.open

    def opened(path: Path, *given: Any, **more: Any) -> Any:
        wrong = {"theirs.txt": PermissionError, "gone.wal": FileNotFoundError}.get(path.name)
        if wrong:
            raise wrong(path.name)
        return usual(path, *given, **more)

    monkeypatch.setattr(Path, "open", opened)
    looked = holding([TEXT.encode()[:PIECE]], [tmp_path])
    assert looked == Searched((), (tmp_path / "theirs.txt",), 1)
    assert (
        looked.note
        == f"nobody can read {tmp_path / 'theirs.txt'}: let it be read, then forget again"
    )
