"""What a run's points are served with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cosilo.benchmark.reopen import shared_system
from cosilo.tasks.config import load_task, parse_task


@pytest.mark.parametrize("context", [False, True])
def test_instructions_that_all_questions_share_are_the_points(
    tmp_path: Path, context: bool
) -> None:
    rows = [{"text": f"item {i}", "label": "ab"[i % 2], "about": f"private {i}"} for i in range(40)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {"context": "about"} if context else {}
    wanted = {"kind": "classification", "file": "data.jsonl", "columns": columns}
    task = load_task(parse_task(wanted), tmp_path)
    found = shared_system(task)
    if context:  # each question's own: nobody else's conversation may begin with it
        assert found == ""
    else:
        assert "- a\n- b" in found
        assert task.splits["test"][0].chat[0].content == found
