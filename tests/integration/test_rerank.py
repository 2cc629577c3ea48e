"""`rerank` as a client of a gateway meets it: OpenAI's own library."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.integration.gateway import Mock, mocking, serving, upstream
from tests.integration.served import served
from tests.integration.test_bundle import bench, bundle, point, project

from cosilo.models import catalog

__all__ = ["project"]

pytestmark = pytest.mark.timeout(300)

MAJORITY = """
[models.sm]
kind = "scripted"
[[points]]
name = "most"
strategy = "rerank"
judge = "majority"
samples = 4
large = "one"
small = "sm"
"""


@pytest.fixture(scope="module")
def mock() -> Iterator[Mock]:
    with mocking() as found:
        yield found


def test_the_majority_of_the_samples_streams(mock: Mock, tmp_path: Path) -> None:
    mock.reset()
    with (
        serving(tmp_path, upstream("one", mock, "echo") + MAJORITY) as gateway,
        openai.OpenAI(base_url=gateway.url, api_key=gateway.key(), max_retries=0) as client,
    ):
        stream = client.chat.completions.create(
            model="cosilo/most",
            messages=[{"role": "user", "content": "my parcel"}],
            stream=True,
        )
        pieces = [c.choices[0].delta.content for c in stream if c.choices]
    assert "".join(piece for piece in pieces if piece) == "my parcel"
    assert mock.seen()["requests"] == 4


@pytest.mark.skipif(not catalog.is_here("minilm-int8"), reason="needs minilm-int8")
def test_a_learned_energy_is_served_from_a_bundle_behind_pseudonyms(
    project: Path, tmp_path: Path
) -> None:
    small = 'kind = "classifier"\nfeatures = "embedding"\ntrain = true'
    more = 'samples = 2\ndefences = ["hide"]'
    run = bench(project, point("rerank", more), small=small)
    assert bundle(run, "rerank+hide", tmp_path / "out") == 0
    shutil.rmtree(project)
    assert (tmp_path / "out" / "strategy" / "energy" / "energy.npz").is_file()
    with served(tmp_path / "out") as client:
        told = client.chat.completions.with_raw_response.create(
            model="cosilo/rerank+hide",
            messages=[{"role": "user", "content": "Bob's cat, see bob@example.org"}],
        )
    assert told.parse().choices[0].message.content == "cat"
    assert told.headers["x-cosilo-by"] == "both"
