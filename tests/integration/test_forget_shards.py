"""A small model trained in shards: to forget a record trains its shard alone again, from its slice on,
and ends to the bit where a run ends that never saw it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_forget import PLAN, canary, holding, ids_in, told, whom, write_rows
from tests.integration.test_forget_exact import SMALL, bundled

from cosilo.benchmark.parts import SHARDS, SHARDS_KEY
from cosilo.cli import main
from cosilo.lineage.artifacts import ArtifactKind
from cosilo.lineage.store import Lineage
from cosilo.models import catalog
from cosilo.models.encoder import classifier
from tiny_run import bench

pytestmark = pytest.mark.timeout(300)

REST = PLAN[: PLAN.index("[[points]]")]
HEADS = """[models.small]
kind = "classifier"
features = "embedding"
train = true
[models.small.shards]
count = 3
"""
ADAPTERS = """[models.small]
kind = "torch"
path = "tiny"
precision = "float32"
threads = 1
rank = 2
epochs = 1.0
train = true
[models.small.shards]
count = 3
slices = 2
"""


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*.safetensors")
    } | {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("head.*")}


def counting(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> list[int]:
    """How many examples each later call of `where.name` is given as its second argument."""
    calls: list[int] = []
    was = getattr(where, name)

    def counted(first: Any, second: Any, *rest: Any, **named: Any) -> Any:
        calls.append(len(second))
        return was(first, second, *rest, **named)

    monkeypatch.setattr(where, name, counted)
    return calls


def forgotten_and_never(home: Path, plan: str, id: str) -> tuple[Path, Path]:
    """The run without the record, and one that never saw it under the same key."""
    home, never = home, home.parent / "never"
    shutil.copytree(home, never, ignore=shutil.ignore_patterns("run", "*.sqlite*", "lineage*"))
    assert main(["forget", str(home / "run"), "--ids", whom(home, id)]) == 0
    shutil.copy(home / "data.csv", never / "data.csv")
    (never / "run").mkdir()
    shutil.copy(home / "run" / SHARDS_KEY, never / "run" / SHARDS_KEY)
    assert [o.error for o in bench(never, plan)[0]] == [None]
    return home / "run", never / "run"


def with_key(home: Path) -> None:
    """A key under which no shard or slice is empty."""
    (home / "run").mkdir(mode=0o700)
    key = home / "run" / SHARDS_KEY
    key.touch(mode=0o600)
    key.write_bytes(b"1" * 32)


def trained(run: Path) -> str:
    return ids_in(run, "train")[0]


@pytest.mark.models
@pytest.mark.skipif(not catalog.is_here("minilm-int8"), reason="needs minilm-int8")
def test_of_a_head_one_shard_is_fitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = REST.replace(SMALL, HEADS) + '[[points]]\nstrategy = "small"\n'
    home = tmp_path / "home"
    write_rows(home, count=110)
    (home / "p.toml").write_text(plan)
    with_key(home)
    assert [o.error for o in bench(home, plan)[0]] == [None]
    id = trained(home / "run")
    with Lineage(home / "run", write=False) as lineage:
        touched = [a for a in lineage.derived([id]) if a.id.endswith("/stages")]
        every = [a for a in lineage.standing() if a.id.endswith("/stages")]
    assert (len(touched), len(every)) == (1, 3)
    before = files_in(home / "run" / SHARDS)
    fits = counting(monkeypatch, classifier, "train")
    ours, theirs = forgotten_and_never(home, plan, id)
    assert len(fits) == 4, "one of three here, and all three in the run that never saw it"
    assert told(ours) == told(theirs)
    assert files_in(ours / SHARDS) == files_in(theirs / SHARDS)
    assert len(files_in(ours / SHARDS).items() - before.items()) == 2  # head.npz, head.json
    now = bundled(ours, "small", tmp_path / "ours")
    assert len(fits) == 4, "what is served trains nothing"
    kept = sorted(data for name, data in files_in(ours / SHARDS).items() if "head.npz" in name)
    assert sorted(now[f"small/{i}/head.npz"] for i in range(3)) == kept


def test_of_an_adapter_one_shard_is_trained_again_from_the_slice_of_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    import tiny_lm
    from cosilo.models.white_box import learning

    plan = REST.replace(SMALL, ADAPTERS) + '[[points]]\nstrategy = "small"\n'
    home = tmp_path / "home"
    write_rows(home, count=50)
    tiny_lm.folder(home / "tiny")
    (home / "p.toml").write_text(plan)
    with_key(home)
    trainings = counting(monkeypatch, learning, "tuned")
    assert [o.error for o in bench(home, plan)[0]] == [None]
    assert len(trainings) == 6
    id = trained(home / "run")
    ours, theirs = forgotten_and_never(home, plan, id)
    assert len(trainings) - 6 - 6 in (1, 2)  # all of the run that never saw it are six
    assert told(ours) == told(theirs)
    assert files_in(ours / SHARDS) == files_in(theirs / SHARDS)
    assert len(files_in(ours / SHARDS)) == 6
    with Lineage(ours, write=False) as lineage:
        kinds = {a.kind for a in lineage.graph().artifacts if a.id.endswith("/model")}
    assert kinds == {ArtifactKind.ADAPTER}
    assert holding(home, canary(id)) == holding(home, id) == set()
