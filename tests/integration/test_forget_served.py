"""A point that a real gateway serves from a run is swapped for one without the record, or ended."""

from __future__ import annotations

import sys
from pathlib import Path

import openai
import pytest
from tests.integration.gateway import MAIN, Process, make_key
from tests.integration.test_forget import PLAN, ids_in, write_rows

from cosilo.cli import main
from cosilo.lineage.artifacts import ArtifactKind
from cosilo.lineage.store import Lineage
from tiny_run import bench

pytestmark = pytest.mark.timeout(300)


def test_a_served_point_is_swapped_or_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, run = tmp_path / "home", tmp_path / "home" / "run"
    plan = PLAN[: PLAN.index("[[points]]")] + '[[points]]\nstrategy = "small"\n'
    write_rows(home)
    (home / "p.toml").write_text(plan)
    assert [o.error for o in bench(home, plan)[0]] == [None]
    (home / "cosilo.toml").write_text("[store]\nurl = 'store'\n")
    key = make_key(home, "me")
    command = [sys.executable, "-c", MAIN, "serve", str(run), "--point", "small"]
    process = Process([*command, "--config", "cosilo.toml", "--port", "0"], cwd=home)
    first, second = ids_in(run, "train", "tune")
    try:
        port = process.wait_for(r"at http://[^:]+:(\d+)/v1", seconds=120)[1]
        with Lineage(run, write=False) as lineage:
            served = [a for a in lineage.derived([first]) if a.kind is ArtifactKind.SERVED]
        assert len(served) == 1
        (home / "ids.txt").write_text(first + "\n")
        assert main(["forget", str(run), "--ids", f"@{home / 'ids.txt'}"]) == 0
        assert "prepares its points again" in capsys.readouterr().out
        assert process.child.poll() is None
        url = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
            reply = client.chat.completions.create(
                model="cosilo/small", messages=[{"role": "user", "content": "a cat"}]
            )
            assert reply.choices[0].message.content == "cat"
        (home / "ids.txt").write_text(second + "\n")
        assert main(["forget", str(run), "--ids", f"@{home / 'ids.txt'}", "--take-down"]) == 0
        assert process.child.wait(30) == 0
        with Lineage(run, write=False) as lineage:
            assert ArtifactKind.SERVED not in {a.kind for a in lineage.standing()}
    finally:
        process.stop()
