"""The vocabulary of a GGUF file, read from its header.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cosilo.errors import CatalogError
from cosilo.models.chat.pieces import piece_of

_STRING, _ARRAY = 8, 9
_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_MOST = 1 << 24  # entries and bytes of a string
_CONTROL, _UNUSED = 3, 5
_PREFIX = "tokenizer.ggml."
# What decides the ids of a text; other fields say how a chat is written, or are of no use here.
_CUTS = ("model", "pre", "tokens", "token_type", "merges", "scores", "add_space_prefix")
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
_END_TEXTS = frozenset(
    ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>")
)  # as llama.cpp takes them, whatever the file says


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What tokens stand for.

    Attributes:
        digest: a hash of what decides how texts are cut.
        pieces: by id; empty for a token that stands for no text.
        ends: the tokens that end a reply.
        strips: whether a space is put in front of any text before it is cut.
    """

    digest: str
    pieces: Sequence[bytes]
    ends: frozenset[int]
    strips: bool

    def spelt(self, ids: Sequence[int]) -> list[bytes]:
        """What each token of a reply that begins with these adds to it."""
        found = [self.pieces[i] if 0 <= i < len(self.pieces) else b"" for i in ids]
        if found and self.strips:
            found[0] = found[0].removeprefix(b" ")
        return found


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary of the file at `path`.

    Raises:
        CatalogError: it is no GGUF file, or has none.
    """
    try:
        with path.open("rb") as file:
            about = _fields(file)
        tokens: list[bytes] = about["tokens"]
        types = about.get("token_type") or [1] * len(tokens)
        byte_level = about["model"] == b"gpt2"
        texts = [t.decode(errors="replace") for t in tokens]
    except (OSError, struct.error, ValueError, KeyError, AttributeError):
        raise CatalogError(f"the vocabulary of {str(path)!r} cannot be read") from None
    silent = [kind in (_CONTROL, _UNUSED) for kind in types]
    ends = {about[name] for name in _ENDS if name in about}
    ends |= {i for i, text in enumerate(texts) if silent[i] and text in _END_TEXTS}
    digest = hashlib.sha256()
    for name in _CUTS:
        digest.update(repr((name, about.get(name))).encode())
    return Vocabulary(
        f"gguf:{digest.hexdigest()[:16]}",
        [
            b"" if s else piece_of(t, byte_level=byte_level)
            for t, s in zip(texts, silent, strict=True)
        ],
        frozenset(ends),
        not byte_level and bool(about.get("add_space_prefix", True)),
    )


def _fields(file: BinaryIO) -> dict[str, Any]:
    """The fields about the tokeniser, by the end of their names."""
    magic, _, _, count = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or count > _MOST:
        raise ValueError("no GGUF file")
    found = {}
    for _ in range(count):
        name = _text(file).decode(errors="replace")
        (kind,) = struct.unpack("<I", file.read(4))
        value = _value(file, kind)
        if name.startswith(_PREFIX):
            found[name.removeprefix(_PREFIX)] = value
    return found


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(file)
    if kind == _ARRAY:
        kind, count = struct.unpack("<IQ", file.read(12))
        if count > _MOST:
            raise ValueError("an array is too long")
        if kind in _NUMBERS:
            form = f"<{count}{_NUMBERS[kind]}"
            return list(struct.unpack(form, file.read(struct.calcsize(form))))
        return [_value(file, kind) for _ in range(count)]
    form = f"<{_NUMBERS[kind]}"
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _text(file: BinaryIO) -> bytes:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > _MOST:
        raise ValueError("a text is too long")
    return file.read(length)
