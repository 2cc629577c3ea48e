"""What tests share: where the shared data and the pulled models are, and skips that say why."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from cosilo.models import catalog

MODELS = ("minilm-int8", "smollm2-135m-instruct")
"""What `@pytest.mark.models` needs unless it names others."""
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the real data sets; skips where a clone stands alone."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the data sets in {SHARED}, which are not part of the project")
    return SHARED


_STATE = tempfile.mkdtemp(prefix="cosilo-state-")


def pytest_configure() -> None:
    """What tests spend of ε is not written into the developer's own book."""
    os.environ["XDG_STATE_HOME"] = _STATE


def pytest_unconfigure() -> None:
    shutil.rmtree(_STATE, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    absent = pytest.mark.skip(reason=f"needs the data sets in {SHARED}, not part of the project")
    for item in items:
        if "shared" in item.keywords and not SHARED.is_dir():
            item.add_marker(absent)
        for marker in item.iter_markers("models"):
            missing = [n for n in marker.args or MODELS if not catalog.is_here(n)]
            if missing:
                reason = f"needs model files; run: cosilo models pull {' '.join(missing)}"
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _no_surprises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests read no key from the developer's environment."""
    for name in list(os.environ):
        if name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
