"""What a token of a vocabulary stands for, in bytes."""

from __future__ import annotations

import re

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def piece_of(text: str, *, byte_level: bool) -> bytes:
    """What the token that a vocabulary writes as `text` adds to a reply.

    Args:
        byte_level: the vocabulary writes each byte as a letter; else it writes spaces as ▁, and bytes
            of no character of its own as <0xAB>.
    """
    if byte_level:
        if all(c in _BYTES for c in text):
            return bytes(_BYTES[c] for c in text)
        return text.encode()  # an added token stands for itself
    byte = _BYTE.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace("▁", " ").encode()


def _byte_alphabet() -> dict[str, int]:
    """The letters that byte-level tokenisers write bytes with (Radford et al. 2019).

    Printable Latin-1 stands for itself; the other bytes, in order, for the letters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTES = _byte_alphabet()
