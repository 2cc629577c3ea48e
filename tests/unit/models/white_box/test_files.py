"""What a folder with a model is called by: all that decides its answers, byte by byte."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from cosilo.models.white_box.files import digest


def folder(path: Path, weights: bytes = b"w" * 100) -> Path:
    path.mkdir()
    (path / "model.safetensors").write_bytes(weights)
    (path / "config.json").write_text("{}")
    return path


def test_every_byte_of_the_weights_counts(tmp_path: Path) -> None:
    one = digest(folder(tmp_path / "a"))
    assert digest(folder(tmp_path / "b")) == one
    assert digest(folder(tmp_path / "c", b"w" * 50 + b"v" + b"w" * 49)) != one


def test_what_was_unpacked_is_its_source_while_it_is_whole(tmp_path: Path) -> None:
    """A stamp says what the files were made of, not that they still are."""
    made = folder(tmp_path / "m.gguf.unpacked")
    files = {
        f.name: [sha256(f.read_bytes()).hexdigest(), f.stat().st_size, f.stat().st_mtime_ns]
        for f in made.iterdir()
    }
    stamp = {"format": 1, "source": "ab" * 32, "source_facts": [1, 2], "files": files}
    (made / ".unpacked.json").write_text(json.dumps(stamp))
    assert digest(made) == ("ab" * 32)[:16]
    (made / "model.safetensors").write_bytes(b"w" * 50 + b"v" + b"w" * 49)
    changed = digest(made)
    assert changed != ("ab" * 32)[:16]
    (made / "model.safetensors").write_bytes(b"w" * 100)
    (made / "more.safetensors").write_bytes(b"w")  # no file of the stamp's
    assert digest(made) not in (("ab" * 32)[:16], changed)
