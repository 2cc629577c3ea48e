"""The same work has the same name, and other work another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import cosilo
from cosilo.benchmark import identity
from cosilo.benchmark.identity import (
    files_of,
    model_identity,
    plain,
    task_identity,
    trial_identity,
    versions_behind,
)
from cosilo.benchmark.measure import measuring_version
from cosilo.benchmark.plan import Plan, parse_plan
from cosilo.models.base import Access, models
from cosilo.session import ModelConfig

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


def raised(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As if `modules` of Cosilo's stated another version."""
    version_of, root = identity._version_of, Path(str(cosilo.__file__)).parent
    files = {root / module for module in modules}
    assert all(file.is_file() for file in files)
    monkeypatch.setattr(identity, "_version_of", lambda f: 2 if f in files else version_of(f))


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        ("strategies/synthesis.py", [False, False, True, False]),  # zerogen is made of it
        ("strategies/inference/cascade.py", [True, False, True, False]),  # and goes on with it
        ("strategies/inference/ends.py", [False, True, False, True]),  # by default, the last does
        ("tasks/splits.py", [True] * 4),
        ("tasks/config.py", [True] * 4),
        ("tasks/classification.py", [True] * 4),
        ("models/kept/scripted.py", [True] * 4),
        ("models/encoder/encoder.py", [True] * 4),  # of the plan's embedder
        ("session.py", [True] * 4),
        ("benchmark/answering.py", [True] * 4),
        ("strategies/downward/fusegen.py", [False] * 4),  # nothing of the plan's uses it
        ("models/gguf/llamacpp.py", [False] * 4),
        ("report/svg.py", [False] * 4),
        ("privacy/accountant.py", [False] * 4),
    ],
)
def test_the_version_of_all_code_behind_a_point_counts(
    monkeypatch: pytest.MonkeyPatch, folder: Path, module: str, changes: list[bool]
) -> None:
    plan = f"""{PLAN}
        [[points]]
        strategy = "zerogen"
        then = "cascade"
        [[points]]
        strategy = "distil_labels"
        [models.embedder]
        kind = "classifier"
    """
    found = parse_plan(plan, folder / "p.toml")

    def ids() -> list[str]:
        return [trial_identity(found, p, task="t", sends=True) for p in found.points]

    before = ids()
    raised(monkeypatch, module)
    assert [a != b for a, b in zip(before, ids(), strict=True)] == changes


def test_what_measures_count_apart_from_what_answers(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    plan = parse_plan(PLAN, folder / "p.toml")
    before = ids(folder), measuring_version(plan)
    raised(monkeypatch, "matching.py")
    assert ids(folder) == before[0]
    assert measuring_version(plan) != before[1]


def test_a_term_of_the_price_counts_only_where_it_is_given(folder: Path) -> None:
    before = measuring_version(parse_plan(PLAN, folder / "p.toml"))
    with_term = PLAN.replace("[models.large]", "[models.large]\nusd_per_gb = 0.09")
    assert measuring_version(parse_plan(with_term, folder / "p.toml")) != before
    default = PLAN.replace("[models.large]", "[models.large]\nusd_per_gb = 0.0")
    assert measuring_version(parse_plan(default, folder / "p.toml")) == before


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


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, object]]:
    """The versions behind a plug-in, `mine.py`, in a package of modules that import one another."""
    package = tmp_path / "cosilo"
    (package / "shared").mkdir(parents=True)
    for name in ("__init__", "shared/__init__", "shared/deep", "shared/other", "shared/types"):
        (package / f"{name}.py").write_text("VERSION = 1\n")
    (package / "shared/near.py").write_text("from cosilo.shared import deep\n")
    (tmp_path / "mine.py").write_text(
        "from cosilo.shared.near import x\nif False:\n    import cosilo.shared.types\n"
    )
    monkeypatch.setattr(cosilo, "__file__", str(package / "__init__.py"))
    monkeypatch.setattr("inspect.getfile", lambda _: str(tmp_path / "mine.py"))

    def versions() -> dict[str, object]:
        for function in (identity._reached, identity._imported, identity._version_of):
            function.cache_clear()
        return versions_behind(lambda: None)

    return versions


def test_a_method_counts_with_all_that_it_imports(
    tmp_path: Path, package: Callable[[], dict[str, object]]
) -> None:
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text() + "VERSION = 7\n")
    before = package()
    assert before == {"mine.py": 7}
    for name, counts in (
        ("other", False),
        ("__init__", False),
        ("deep", True),
        ("near", True),
        ("types", True),
    ):
        file = tmp_path / f"cosilo/shared/{name}.py"
        text = file.read_text()
        file.write_text(f"# a comment\n{text}")
        assert package() == before
        file.write_text(text + "VERSION = 3\n" if "VERSION" not in text else "VERSION = 3\n")
        if name == "near":
            file.write_text(text + "VERSION = 3\n")
        assert package() == before | ({f"shared/{name}.py": 3} if counts else {}), name
        file.write_text(text)


def test_a_plug_in_that_states_no_version_counts_with_its_source(
    tmp_path: Path, package: Callable[[], dict[str, object]]
) -> None:
    before = package()
    assert list(before) == ["mine.py"]
    with (tmp_path / "mine.py").open("a") as file:
        file.write("x = 1\n")
    assert package() != before


def test_a_models_files_count_by_every_byte(folder: Path) -> None:
    model = folder / "big.gguf"
    model.write_bytes(bytes(5 << 20))

    def identity_of(path: Path = model, **options: object) -> object:
        config = ModelConfig(kind="llamacpp", options={"path": path, **options})
        return model_identity(config)

    before = identity_of()
    for place in (0, (5 << 20) // 2, (5 << 20) // 3, (5 << 20) - 1):  # the ends, and in between
        with model.open("r+b") as file:
            file.seek(place)
            file.write(b"\1")
        assert identity_of() != before, place
        with model.open("r+b") as file:
            file.seek(place)
            file.write(b"\0")
        assert identity_of() == before
    moved = folder / "elsewhere"
    moved.mkdir()
    model.rename(moved / "big.gguf")
    assert identity_of(moved / "big.gguf") == before


def test_files_in_folders_defaults_and_catalogs_count(folder: Path) -> None:
    encoder = folder / "encoder"
    encoder.mkdir()
    (encoder / "model.onnx").write_bytes(b"weights")
    factory = models.get("classifier")
    stated = files_of(factory, {"encoder": str(encoder)})
    (encoder / "model.onnx").write_bytes(b"Weights")
    assert files_of(factory, {"encoder": str(encoder)}) != stated
    # The default is a model of the catalog: it counts by what the catalog says of its files.
    assert files_of(factory, {}) == files_of(factory, {"encoder": "minilm-int8"}) != stated
    assert files_of(factory, {"encoder": "a name of nothing" * 40}) == {}


def test_what_a_trial_writes_itself_does_not_count(folder: Path) -> None:
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    factory = models.get("torch")
    before = files_of(factory, {"checkpoints": checkpoints})
    (checkpoints / "step-1").write_bytes(b"state")
    assert files_of(factory, {"checkpoints": checkpoints}) == before


def test_a_database_that_a_defence_reads_counts(folder: Path) -> None:
    plan = PLAN.replace("calls = 0.2", 'calls = 0.2\ndefences = ["mine"]')
    plan += '[defences.mine]\nkind = "pseudonym"\ndatabases = "shop.db"\n'
    (folder / "shop.db").write_bytes(b"one")

    def first() -> str:
        found = parse_plan(plan, folder / "p.toml")
        return trial_identity(found, found.points[0], task="t", sends=True)

    before = first()
    (folder / "shop.db").write_bytes(b"two")
    assert first() != before
