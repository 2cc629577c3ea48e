"""The same work has the same name, and other work another one."""

from __future__ import annotations

from pathlib import Path

import pytest

import cosilo
from cosilo.benchmark import identity
from cosilo.benchmark.identity import code_behind, plain, task_identity, trial_identity
from cosilo.benchmark.plan import Plan, parse_plan
from cosilo.models.base import Access
from cosilo.strategies import synthesis
from cosilo.strategies.inference import cascade

PLAN = """
name = "desk"
[task]
kind = "classification"
file = "data.jsonl"
[models.small]
kind = "scripted"
[models.large]
kind = "scripted"
seconds = 1.0
[[points]]
strategy = "cascade"
calls = 0.2
[[points]]
strategy = "small"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data.jsonl").write_text('{"text": "a", "label": "b"}\n')
    return tmp_path


def ids(folder: Path, old: str = "", new: str = "") -> list[str]:
    assert not old or old in PLAN
    plan: Plan = parse_plan(PLAN.replace(old, new, 1) if old else PLAN, folder / "p.toml")
    task = task_identity(plan)
    return [
        trial_identity(plan, point, task=task, sends=point.strategy != "small")
        for point in plan.points
    ]


def test_the_same_plan_is_the_same_work(folder: Path) -> None:
    assert ids(folder) == ids(folder)
    assert len(set(ids(folder))) == 2


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('name = "desk"', 'name = "other"', [True, True]),
        ('name = "desk"', 'name = "desk"\nconcurrency = 2', [True, True]),
        ('name = "desk"', 'name = "desk"\n[link]\nrtt_ms = 3', [True, True]),
        ("seconds = 1.0", "seconds = 1.0\nusd_per_m_in = 3", [True, True]),
        ('strategy = "cascade"', 'strategy = "cascade"\nname = "mine"', [True, True]),
        ('name = "desk"', 'name = "desk"\nseed = 1', [False, False]),
        ("calls = 0.2", "calls = 0.3", [False, True]),
        ("seconds = 1.0", "seconds = 2.0", [False, True]),
        ('[models.small]\nkind = "scripted"', '[models.small]\nkind = "scripted"\nconfidence = 0.5',
         [False, False]),
        ('name = "desk"', 'name = "desk"\n[attacks]\ntamper_share = 0.3', [False, True]),
        ('name = "desk"', 'name = "desk"\n[request_budget]\nusd = 0.3', [False, True]),
        ('kind = "classification"', 'kind = "classification"\ninstructions = "x"', [False, False]),
    ],
)  # fmt: skip
def test_what_counts(folder: Path, old: str, new: str, same: list[bool]) -> None:
    changed = ids(folder, old, new)
    assert [a == b for a, b in zip(ids(folder), changed, strict=True)] == same


def test_modules_that_strategies_share_count(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    plan = PLAN.replace('"small"\n', '"zerogen"\nthen = "cascade"\n', 1)
    assert plan != PLAN

    def ids() -> list[str]:
        found = parse_plan(plan, folder / "p.toml")
        return [trial_identity(found, p, task="t", sends=True) for p in found.points]

    before, whole = ids(), identity._whole
    for module, changes in (
        (synthesis, [False, True]),  # zerogen is made of it
        (cascade, [True, True]),  # and ends in the other one
    ):
        with monkeypatch.context() as patch:
            edited = Path(str(module.__file__))
            patch.setattr(
                identity, "_whole", lambda path, e=edited: whole(path) + "!" * (path == e)
            )
            assert [a != b for a, b in zip(before, ids(), strict=True)] == changes
        assert ids() == before


def test_the_data_count_by_their_content(folder: Path) -> None:
    before = ids(folder)
    (folder / "data.jsonl").touch()
    assert ids(folder) == before
    (folder / "data.jsonl").write_text('{"text": "a", "label": "c"}\n')
    assert not set(ids(folder)) & set(before)


def test_plain_is_what_json_holds() -> None:
    assert plain({"a": (1, Path("x")), "b": Access.TEXT, "c": {2, 1}, "d": float("inf")}) == {
        "a": [1, "x"],
        "b": "text",
        "c": ["1", "2"],
        "d": "inf",
    }


def test_a_method_counts_with_all_that_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "cosilo"
    (package / "shared").mkdir(parents=True)
    for name in ("__init__", "shared/__init__", "shared/deep", "shared/other", "shared/types"):
        (package / f"{name}.py").write_text("")
    (package / "shared/near.py").write_text("from cosilo.shared import deep\n")
    method = tmp_path / "mine.py"
    method.write_text(
        "from cosilo.shared.near import x\nif False:\n    import cosilo.shared.types\n"
    )
    monkeypatch.setattr(cosilo, "__file__", str(package / "__init__.py"))
    monkeypatch.setattr("inspect.getfile", lambda _: str(method))

    def code() -> str:
        identity._reached.cache_clear()
        identity._imported.cache_clear()
        return code_behind(lambda: None)

    before = code()
    for name, counts in (
        ("other", False),
        ("__init__", False),
        ("deep", True),
        ("near", True),
        ("types", True),
    ):
        file = package / f"shared/{name}.py"
        text = file.read_text()
        file.write_text(text + "# changed\n")
        assert (code() != before) is counts, name
        file.write_text(text)
    assert code() == before
