"""What a text says to whoever decodes it: a private value in Base64 is still that value.

    "about S293YWxjenlr"   ──▶  "about Kowalczyk"
    "%4B&#111;walczyk"     ──▶  "Kowalczyk"
    "four seven one one"   ──▶  "4711"

A small model that was talked into it by the text that it reads may write so.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
from collections.abc import Callable, Iterator
from urllib.parse import unquote

_DEEPEST = 3
"""Encodings within one another that are looked into."""

_SHORTEST = 6  # characters in Base64
_BASE64 = re.compile(rf"(?<![\w+/-])[A-Za-z0-9+/_-]{{{_SHORTEST},}}={{0,2}}")
_HEX = re.compile(
    r"(?<![0-9A-Za-z])(?:0x)?((?:[0-9A-Fa-f]{2}[\s:,-]?(?:0x|\\x)?){3,})(?![0-9A-Za-z])"
)
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_SAID = re.compile(rf"\b(?:{'|'.join(_DIGITS)})(?:[\s,-]+(?:{'|'.join(_DIGITS)}))+\b", re.I)
_DIGIT = re.compile("|".join(_DIGITS), re.I)
_ALIKE = str.maketrans(
    "АВЕКМНОРСТУХЅІЈаеорсухѕіјԁһӏзкпмвтΑΒΕΖΗΙΚΜΝΟΡΤΥΧαοινρυκ",
    "ABEKMHOPCTYXSIJaeopcyxsijdhl3knmbtABEZHIKMNOPTYXaoivpuk",
)
"""Cyrillic and Greek letters that look like Latin ones."""


def decoded(text: str) -> Iterator[str]:
    """What else `text` says, each once: escapes, letters of other scripts, digits in words, Base64 and
    hexadecimal numbers, also within one another.

    >>> list(decoded("about S293YWxjenlr"))
    ['about Kowalczyk']
    >>> list(decoded("about it"))
    []
    """
    seen, new = {text}, [text]
    for _ in range(_DEEPEST):
        found = dict.fromkeys(change(each) for each in new for change in _CHANGES)
        new = [each for each in found if each not in seen]
        seen.update(new)
        yield from new


def mirrored(text: str) -> tuple[str, str]:
    """`text` from its end, and with each letter thirteen places on: words of its own, by chance, where
    they are short."""
    return text[::-1], codecs.encode(text, "rot13")


def _unescaped(text: str) -> str:
    said = _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)), text)
    return unquote(html.unescape(said))


def _alike(text: str) -> str:
    return text.translate(_ALIKE)


def _digits(text: str) -> str:
    def number(run: re.Match[str]) -> str:
        return "".join(str(_DIGITS.index(word.lower())) for word in _DIGIT.findall(run[0]))

    return _SAID.sub(number, text)


def _base64(text: str) -> str:
    def plain(found: re.Match[str]) -> str:
        said = found[0].rstrip("=").translate(str.maketrans("-_", "+/"))
        try:
            return base64.b64decode(said + "=" * (-len(said) % 4), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return found[0]

    return _BASE64.sub(plain, text)


def _hex(text: str) -> str:
    def plain(found: re.Match[str]) -> str:
        try:
            return bytes.fromhex(re.sub(r"0x|\\x|[\s:,-]", "", found[1])).decode()
        except (ValueError, UnicodeDecodeError):
            return found[0]

    return _HEX.sub(plain, text)


_CHANGES: tuple[Callable[[str], str], ...] = (_unescaped, _alike, _digits, _base64, _hex)
