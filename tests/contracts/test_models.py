"""The scripted model and the messages keep their contracts; real back ends do in tests/unit/models."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosilo.boundary.messages import Ask, Message
from cosilo.models.base import Access, TextModel, ThreadModel
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.testing import MessageContract, ModelContract, ThreadContract
from cosilo.types import Sampling, user


class TestScripted(ModelContract):
    def model(self) -> TextModel:
        return ScriptedModel({"hello": "Hello to you."}, confidence=0.5)


class TestScriptedTextOnly(ModelContract):
    def model(self) -> TextModel:
        return ScriptedModel(access=Access.TEXT)


class TestTorchThreads(ThreadContract):
    def model(self) -> ThreadModel:
        pytest.importorskip("transformers", reason="the torch extra is not installed")
        from white_box import tiny

        return tiny(27, scale=8.0)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("xllamacpp", "transformers", "gguf"):
        pytest.importorskip(package, reason="an extra is not installed")
    import tiny_lm

    return tiny_lm.gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", seed=27, scale=8.0)


class TestLlamaCppThreads(ThreadContract):
    tolerance = 0.05  # what is read together moves the logits of a quantised model by a little

    path: Path

    @pytest.fixture(autouse=True)
    def file(self, gguf: Path) -> None:
        self.path = gguf

    def model(self) -> ThreadModel:
        from cosilo.models.gguf.llamacpp import LlamaCppModel

        return LlamaCppModel(self.path, n_ctx=256, threads=1, parallel=2)


class TestCompletion(MessageContract): ...


class TestAsk(MessageContract):
    fixed = frozenset({"system", "user"})

    def message(self) -> Message:
        return Ask(chat=user("hi", system="be kind"), sampling=Sampling(choices=("a", "b")))
