"""The catalog pins everything, and what is here is what it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cosilo.errors import CatalogError
from cosilo.models import catalog
from cosilo.models.base import models


def test_every_entry_is_pinned_and_licensed() -> None:
    assert set(catalog.entries()) == {
        "qwen2.5-coder-1.5b-instruct",
        "smollm2-135m-instruct",
        "minilm-int8",
        "en-core-web-md",
    }
    for entry in catalog.entries().values():
        assert len(entry.licence) > 20
        for file in entry.files:
            assert file.size == sum(p.size for p in file.parts)
            for thing in (file, *file.parts):
                assert re.fullmatch(r"[0-9a-f]{64}", thing.sha256)
            for part in file.parts:
                assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", part.package)


def test_the_large_model_is_the_one_the_design_names() -> None:
    (file,) = catalog.entry("qwen2.5-coder-1.5b-instruct").files
    assert file.sha256 == "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
    assert len(file.parts) == 22
    assert "Not stated" in catalog.entry("qwen2.5-coder-1.5b-instruct").licence


def test_what_is_not_here_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSILO_MODELS", str(tmp_path / "none"))
    for create in (
        lambda: catalog.path("minilm-int8"),
        lambda: catalog.verify("minilm-int8"),
        lambda: models.create("classifier"),
    ):
        with pytest.raises(CatalogError, match="run: cosilo models pull minilm-int8"):
            create()
    with pytest.raises(CatalogError, match="did you mean 'smollm2-135m-instruct'"):
        models.create("llamacpp", model="smollm2-135m")
    assert not (tmp_path / "none").exists()


@pytest.mark.models
def test_what_is_here_is_whole() -> None:
    for name in ("minilm-int8", "smollm2-135m-instruct"):
        assert catalog.verify(name).exists()


def test_models_lie_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("COSILO_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert catalog.directory() == tmp_path / "home/.cache/cosilo/models"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert catalog.directory() == tmp_path / "cache/cosilo/models"
    for without_meaning in ("", "relative/cache"):  # by the XDG specification
        monkeypatch.setenv("XDG_CACHE_HOME", without_meaning)
        assert catalog.directory() == tmp_path / "home/.cache/cosilo/models"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COSILO_MODELS", str(tmp_path / "chosen"))
    assert catalog.directory() == tmp_path / "chosen"
