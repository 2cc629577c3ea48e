"""What is left of a text is found in any form, and not in what others said."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from cosilo.forget.searching import PIECE, holding, pieces_of

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
    found, read = holding(pieces, [tmp_path])
    assert [f.name for f in found] == ["free.sqlite", "in.json", "large.bin", "whole.txt"]
    assert read == 5
    assert holding((), [tmp_path])[0] == []
