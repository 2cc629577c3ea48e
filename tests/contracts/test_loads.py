"""What every plug-in says it loads is all that it loads, and is known before it is made.

The catalog is empty here, so that whatever is made asks for its first file and stops; what it may ask
for after that is in the list too, by the tests that run it with its files (`cosilo.testing`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cosilo
import cosilo.attacks
import cosilo.objectives
import cosilo.session
import cosilo.tasks
from cosilo.attacks.base import attacks
from cosilo.defences.base import defences
from cosilo.errors import CatalogError
from cosilo.host.certificates import issue, new_authority
from cosilo.models.base import models
from cosilo.models.present import EXTRAS
from cosilo.objectives.base import objectives
from cosilo.registry import Loads, Registry
from cosilo.strategies.base import strategies
from cosilo.tasks.kinds import kinds
from cosilo.testing import assert_stated, noticing

SMOL = "smollm2-135m-instruct"
MADE: list[tuple[Registry[Any], str, dict[str, Any], tuple[str, ...]]] = [
    (models, "classifier", {}, ("minilm-int8",)),
    (models, "classifier", {"encoder": "minilm-int8", "threads": 2}, ("minilm-int8",)),
    (models, "federation", {}, ()),
    (models, "private_head", {"head": Path("p")}, ("minilm-int8",)),
    (models, "flower", {"superlink": "localhost:1", "ca": "bank.pem", "key": "bank.key"}, ()),
    (models, "llamacpp", {"model": SMOL}, (SMOL,)),
    (models, "torch", {"model": SMOL}, (SMOL,)),
    (models, "lending", {"model": SMOL}, (SMOL,)),
    (models, "tunable", {"model": SMOL}, (SMOL,)),
    (models, "mutual", {"model": SMOL, "small_model": SMOL, "public": Path("p")}, (SMOL,)),
    (models, "taught", {"model": SMOL, "public": Path("p")}, (SMOL,)),
    (models, "openai", {"base_url": "http://127.0.0.1/v1", "model": "m"}, ()),
    (models, "party", {"url": "http://127.0.0.1:1"}, ()),
    (models, "recorded", {"model": "m"}, ()),
    (models, "scripted", {}, ()),
    (defences, "pseudonym", {}, ("en-core-web-md",)),
    (defences, "pseudonym", {"detectors": ("patterns", "presidio")}, ("en-core-web-md",)),
    (defences, "pseudonym", {"detectors": ("patterns", "literals")}, ()),
    (defences, "text_dp", {}, ("minilm-int8",)),
]


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COSILO_MODELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))


@pytest.mark.parametrize(("registry", "name", "options", "files"), MADE)
def test_it_asks_for_no_file_but_those_it_states(
    registry: Registry[Any],
    name: str,
    options: dict[str, Any],
    files: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cosilo.defences.presidio import _names

    bank = issue(new_authority(), "client", "bank")
    for file, content in (("bank.pem", bank.pem), ("bank.key", bank.key_pem)):
        (tmp_path / file).touch(0o600)
        (tmp_path / file).write_bytes(content)
    monkeypatch.chdir(tmp_path)

    _names.cache_clear()  # or an earlier test's would be used, without a look at the catalog
    stated = registry.loads(name, options)
    assert stated.models == files
    made = None
    with noticing() as noticed:
        try:
            made = registry.create(name, **options)
        except CatalogError as error:
            assert any(file in str(error) for file in files)  # noqa: PT017
    assert_stated(noticed, stated, made)
    if registry is models:  # a defence may look in a process of its own
        assert {m for _, loads in noticed for m in loads.models} == set(files)


@pytest.mark.parametrize("registry", [models, defences])
def test_every_model_and_defence_is_made_here(registry: Registry[Any]) -> None:
    ours = {n for n in registry.names() if registry.get(n).__module__.startswith("cosilo.")}
    assert {name for of, name, *_ in MADE if of is registry} == ours  # tests register some, too


@pytest.mark.parametrize("registry", [attacks, objectives, kinds, strategies])
def test_nothing_else_asks_for_files(registry: Registry[Any]) -> None:
    with noticing() as noticed:
        for name in registry.names():
            assert registry.loads(name).models == ()
            if registry in (attacks, objectives):
                registry.create(name)
    assert not noticed


def test_a_strategy_states_what_the_one_after_it_loads() -> None:
    after = {"then": "router"}
    taught = strategies.create("distil_labels", then="distil_states", then_options=after)
    assert taught.needs.loads.packages == ("sklearn", "scipy", "threadpoolctl")
    assert "torch" in strategies.create("distil_across").needs.loads.packages
    assert strategies.create("cascade").needs.loads == Loads()


@pytest.mark.parametrize("name", attacks.names())
def test_an_attack_states_the_packages_its_module_imports(name: str) -> None:
    """Attacks run when all is paid for, on records that are too long to make here."""
    module = attacks.get(name).__module__.rpartition(".")[2]
    named = set(_optional(Path(cosilo.__file__).parent / "attacks" / f"{module}.py"))
    beside = {"relink_embedding": {"sklearn"}}.get(name, set())  # what another of the file needs
    assert named - beside <= set(attacks.loads(name).packages)


def test_every_optional_package_has_an_extra_that_installs_it() -> None:
    files = Path(cosilo.__file__).parent.rglob("*.py")
    ours = (file for file in files if "inside" not in file.parts)  # runs in an engine's environment
    named = {p for file in ours for p in _optional(file)}
    unstated = named - set(EXTRAS) - {"uvloop", "pytest"} - BY_FLOWER
    assert not unstated


BY_FLOWER = {"httpx", "starlette"}
"""What Flower brings, for our couriers in its processes."""

ALWAYS = {"cosilo", "msgspec", "numpy", "aiohttp", "httptools", "yarl", "rich", "cryptography"}
"""What the core installs; aiohttp brings yarl, for its URLs."""


def _optional(file: Path) -> Iterator[str]:
    """The packages that `file` imports and that neither Python nor Cosilo's core brings."""
    import sys

    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            root = name.partition(".")[0]
            if root not in ALWAYS and root not in sys.stdlib_module_names:
                yield root
