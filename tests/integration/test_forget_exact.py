"""A trained head, a router, a threshold: to the bit those of a run that never saw the records."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.test_forget import PLAN, ids_in, number_of, told, whom, write_rows

from cosilo.cli import main
from cosilo.models import catalog
from tiny_run import bench

pytestmark = [pytest.mark.timeout(300), pytest.mark.models]

SMALL = PLAN[PLAN.index("[models.small]") : PLAN.index("[models.large]")]
CLASSIFIER = '[models.small]\nkind = "classifier"\nfeatures = "embedding"\ntrain = true\n'
POINTS = "".join(f'[[points]]\nstrategy = "{s}"\n' for s in ("small", "large", "cascade", "router"))
TRAINED = PLAN[: PLAN.index("[[points]]")].replace(SMALL, CLASSIFIER) + POINTS


def bundled(run: Path, point: str, out: Path) -> dict[str, bytes]:
    assert main(["bundle", str(run), "--point", point, str(out)]) == 0
    return {f.relative_to(out).as_posix(): f.read_bytes() for f in out.rglob("*") if f.is_file()}


@pytest.mark.skipif(not catalog.is_here("minilm-int8"), reason="needs minilm-int8")
def test_head_router_and_threshold_are_those_of_a_run_that_never_saw_the_records(
    tmp_path: Path,
) -> None:
    home, never = tmp_path / "home", tmp_path / "never"
    write_rows(home, count=220)
    (home / "p.toml").write_text(TRAINED)
    assert [o.error for o in bench(home, TRAINED)[0]] == [None] * 4
    ids = ids_in(home / "run", "train", "tune", "certificate")
    before = {p: bundled(home / "run", p, tmp_path / f"{p}-before") for p in ("cascade", "router")}
    assert main(["forget", str(home / "run"), "--ids", whom(home, *ids)]) == 0
    write_rows(never, frozenset(map(number_of, ids)), count=220)
    (never / "p.toml").write_text(TRAINED)
    assert [o.error for o in bench(never, TRAINED)[0]] == [None] * 4
    assert told(home / "run") == told(never / "run")
    for point in ("cascade", "router"):
        ours = bundled(home / "run", point, tmp_path / f"{point}-ours")
        assert ours == bundled(never / "run", point, tmp_path / f"{point}-never")
        assert ours["small/head.npz"] != before[point]["small/head.npz"]
