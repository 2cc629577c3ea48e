"""What is missing is named at once, with the commands that bring it."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from cosilo.errors import CatalogError, ConfigError
from cosilo.models.present import EXTRAS, missing, require_present
from cosilo.registry import Loads

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COSILO_MODELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_all_models_are_named_in_one_command() -> None:
    with pytest.raises(CatalogError) as caught:
        require_present(Loads(("minilm-int8", "en-core-web-md"), ("json",)))
    assert "run: cosilo models pull minilm-int8 en-core-web-md" in str(caught.value)
    assert "MB" in str(caught.value)
    assert "pip" not in str(caught.value)


def test_all_packages_are_named_in_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosilo.models.present.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        require_present(Loads(packages=("spacy", "presidio_analyzer", "xllamacpp", "else_where")))
    assert "not installed: spacy, presidio_analyzer, xllamacpp, else_where" in str(caught.value)
    assert "run: pip install 'cosilo[pii,local]' else_where" in str(caught.value)
    with pytest.raises(CatalogError, match=r"models pull minilm-int8\n.*pip install"):
        require_present(Loads(("minilm-int8",), ("spacy",)))


def test_what_is_here_is_not_asked_for() -> None:
    assert missing(Loads(packages=("json", "no_such_package"))) == Loads((), ("no_such_package",))
    require_present(Loads(packages=("json", "numpy")))
    require_present(Loads())


def test_a_model_that_is_misspelt_is_not_fetched() -> None:
    with pytest.raises(CatalogError, match="did you mean 'minilm-int8'"):
        require_present(Loads(("minilm-int",)))


def test_loads_add_up_without_repeating() -> None:
    both = Loads(("a", "b"), ("x",)) | Loads(("b", "c"), ("x", "y"))
    assert both == Loads(("a", "b", "c"), ("x", "y"))


def test_each_extra_installs_what_is_said_of_it() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    installed = packages_distributions()
    for package, extra in EXTRAS.items():
        if package == "threadpoolctl" or package not in installed:  # it comes with scikit-learn
            continue
        listed = {_plain(re.split(r"[\[<>=;! ]", line)[0]) for line in extras[extra]}
        assert {_plain(name) for name in installed[package]} & listed, package


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
