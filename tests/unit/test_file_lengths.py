"""A file that grows beyond what is read in one sitting has begun to do a second thing."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST = 600


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks"])
def test_no_file_is_longer_than_600_lines(folder: str) -> None:
    files = [f for kind in ("py", "js", "css", "html") for f in (ROOT / folder).rglob(f"*.{kind}")]
    lines = {f.relative_to(ROOT): len(f.read_text("utf-8").splitlines()) for f in files}
    assert lines
    assert {file: count for file, count in lines.items() if count > MOST} == {}
