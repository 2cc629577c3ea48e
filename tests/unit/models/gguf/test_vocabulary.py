"""The vocabulary of a GGUF file says what the engine's tokens stand for."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cosilo.errors import CatalogError
from cosilo.models import catalog
from cosilo.models.gguf.llamacpp import LlamaCppModel
from cosilo.models.gguf.vocabulary import read_vocabulary
from cosilo.types import Sampling, user


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def texts(*values: bytes) -> bytes:
    return struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(text, values))


def numbers(*values: int) -> bytes:
    return struct.pack(f"<IIQ{len(values)}i", 9, 5, len(values), *values)


def written(path: Path, **fields: bytes) -> Path:
    head = struct.pack("<4sIQQ", b"GGUF", 3, 0, len(fields) + 1)
    other = text(b"general.name") + struct.pack("<I", 8) + text(b"tiny")
    own = (text(b"tokenizer.ggml." + n.encode()) + v for n, v in fields.items())
    path.write_bytes(head + other + b"".join(own))
    return path


def a_word(value: bytes) -> bytes:
    return struct.pack("<I", 8) + text(value)


def test_pieces_of_both_kinds_of_vocabularies(tmp_path: Path) -> None:
    tokens = texts(b"<s>", "▁a".encode(), b"<0xE2>", b"b", b"<|im_end|>")
    sentence = read_vocabulary(
        written(
            tmp_path / "a.gguf", model=a_word(b"llama"), tokens=tokens,
            token_type=numbers(3, 1, 6, 1, 3), eos_token_id=struct.pack("<II", 4, 0),
        )
    )  # fmt: skip
    assert sentence.pieces == [b"", b" a", b"\xe2", b"b", b""]
    assert sentence.spelt([1, 1, 99]) == [b"a", b" a", b""], "a space stands in front of any text"
    assert sentence.ends == {0, 4}
    letters = read_vocabulary(
        written(
            tmp_path / "b.gguf", model=a_word(b"gpt2"), tokens=texts("Ġa".encode(), "â".encode())
        )
    )
    assert letters.pieces == [b" a", b"\xe2"]
    assert letters.spelt([0]) == [b" a"]
    assert sentence.digest != letters.digest


@pytest.mark.parametrize("cut", [3, 20, 40, 90])
def test_a_file_that_is_cut_is_refused(tmp_path: Path, cut: int) -> None:
    whole = written(tmp_path / "a.gguf", model=a_word(b"gpt2"), tokens=texts(b"a", b"b"))
    whole.write_bytes(whole.read_bytes()[:cut])
    with pytest.raises(CatalogError, match="vocabulary"):
        read_vocabulary(whole)


@pytest.mark.models
async def test_the_engine_cuts_and_prompts_as_it_does_for_itself() -> None:
    model = LlamaCppModel(catalog.path("smollm2-135m-instruct"), n_ctx=256, threads=1, parallel=1)
    try:
        chat = user("Say <|im_end|> twice.")
        reply = await model.generate(chat, Sampling(max_tokens=1))
        assert len(model.prompt(chat)) == reply.prompt_tokens
        said = "So, <|im_end|>\n\nis é 🙂?"
        ids, pieces = model.cut(said)
        assert b"".join(pieces) == said.encode()
        assert not model.ends.intersection(ids), "what looks like a special token is text"
        assert model.cut("a\n\n")[0] == model.cut("a\n\nb")[0][:-1]
    finally:
        await model.close()
