"""How the matches of a regular expression begin, as far as the expression tells.

    \\b(?i:my[ ]name|dear)[ ]   ──▶  "my", "dea": with a word of these letters
    (?<!\\w)\\+?\\d{3}          ──▶  "+", DIGIT

Read is how Python's own compiler takes the expression apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

LETTERS = 3  # of a word that it is known by
_MOST = 300  # beginnings of a form
_FEW = 8  # signs of a set that are looked at one by one
_WIDEST = 4_096  # letters of a range that are looked at one by one

# What the first sign of a form may be, where it is no certain one.
DIGIT, UPPER, LOWER, OTHER = "\ue000", "\ue001", "\ue002", "\ue003"
JOINED = "\ue005"
"""Begins words that hold other signs than letters, or have a `.` or `-` after them."""
KINDS = frozenset((DIGIT, UPPER, LOWER, OTHER, JOINED))
END = "\ue004"  # the word ends here

_parser: Any = import_module("re._parser")
_ops: Any = import_module("re._constants")


_IRREGULAR = {
    ord(other): letter
    for letter, others in {
        "i": "İı", "s": "ſ", "μ": "µ", "β": "ϐ", "ε": "ϵ", "θ": "ϑ", "ι": "\u1fbe", "κ": "ϰ", "π": "ϖ",
        "ρ": "ϱ", "σ": "Σς", "φ": "ϕ", "ΐ": "\u1fd3", "ΰ": "\u1fe3", "в": "ᲀ", "д": "ᲁ", "о": "ᲂ",
        "с": "ᲃ", "т": "ᲄᲅ", "ъ": "ᲆ", "ѣ": "ᲇ", "ꙋ": "ᲈ", "ṡ": "ẛ", "ﬆ": "ﬅ",
    }.items()
    for other in others
}  # fmt: skip
"""Letters that `re.IGNORECASE` takes for others and `str.lower` does not, or makes two of."""


_ANY_IRREGULAR = re.compile(f"[{''.join(map(chr, _IRREGULAR))}]")


def folded(text: str) -> str:
    """`text`, letter by letter in one of the cases that `re.IGNORECASE` takes for the same."""
    if not text.isascii() and _ANY_IRREGULAR.search(text):
        text = text.translate(_IRREGULAR)
    return text.lower()


def is_of_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def kind(char: str) -> str:
    """What sort of a word begins with `char`. Only Western small letters are known as such."""
    if char.isdecimal():
        return DIGIT
    if char.islower() and char <= "ÿ":
        return LOWER
    return UPPER if is_of_word(char) else OTHER


def parsed(regex: re.Pattern[str]) -> Any:
    """`regex` as it is taken apart: a list of operations."""
    return list(_parser.parse(regex.pattern, regex.flags))


def literals(tree: Any) -> Iterator[str]:
    """Texts in small letters that every match holds."""
    run = ""
    for op, value in tree:
        if op is _ops.LITERAL:
            run += folded(chr(value))
            continue
        if op is _ops.AT or op is _ops.ASSERT or op is _ops.ASSERT_NOT:
            continue
        yield run
        run = ""
        if op is _ops.SUBPATTERN:
            yield from literals(value[3])
        elif op is _ops.MAX_REPEAT and value[0] > 0:
            yield from literals(value[2])
    yield run


class _UnknownError(Exception):
    """How a form begins is not told."""


_Path = tuple[str, int]
"""What there is of a beginning, and what does not stand before it: any sign of a word, any letter, or
neither.
"""
_NOTHING, _LETTER, _SIGN = range(3)


def beginnings(tree: Any, flags: int) -> tuple[frozenset[str] | None, bool]:
    """What each match begins with: some letters of a word, or what its first sign is; None where that
    is not told, or would be nearly everything. And whether it may begin inside of a word.
    """
    try:
        paths = _paths(tree, flags, {("", _NOTHING)})
        found = frozenset(map(_told, paths))
    except _UnknownError:
        return None, False
    if len(found) > _MOST or not found.isdisjoint((LOWER, OTHER)):
        return None, False
    return found, any(before == _LETTER for _, before in paths)


def _told(path: _Path) -> str:
    begun, before = path
    if not begun:
        raise _UnknownError
    first = begun[0]
    if not (first in KINDS or is_of_word(first)):
        return first
    if before == _NOTHING or (before == _LETTER and not ("a" <= first <= "z")):
        raise _UnknownError  # it may begin anywhere
    if first in KINDS:
        return first
    if first.isdecimal():
        return DIGIT
    return next((begun[:i] for i, c in enumerate(begun) if c in KINDS), begun)


def _whole(begun: str) -> bool:
    """Whether enough of a beginning is known."""
    if not begun:
        return False
    open_ended = is_of_word(begun[-1]) and is_of_word(begun[0])
    return not open_ended or len(begun) >= LETTERS


def _paths(tree: Any, flags: int, paths: set[_Path]) -> set[_Path]:
    """`paths`, each followed by what `tree` can begin with."""
    for op, value in tree:
        done = {path for path in paths if _whole(path[0])}
        going = paths - done
        if not going:
            return done
        paths = done | _followed(op, value, flags, going)
        if len(paths) > _MOST:
            raise _UnknownError
    return paths


def _followed(op: Any, value: Any, flags: int, paths: set[_Path]) -> set[_Path]:
    match op:
        case _ops.LITERAL:
            return _with(paths, {chr(value)}, flags)
        case _ops.IN:
            return _with(paths, _set(value), flags)
        case _ops.SUBPATTERN:
            _, added, dropped, inner = value
            return _paths(inner, (flags | added) & ~dropped, paths)
        case _ops.ATOMIC_GROUP:
            return _paths(value, flags, paths)
        case _ops.BRANCH:
            return {path for one in value[1] for path in _paths(one, flags, paths)}
        case _ops.MAX_REPEAT | _ops.MIN_REPEAT | _ops.POSSESSIVE_REPEAT:
            least, most, inner = value
            return _repeated(least, most, inner, flags, paths)
        case _ops.ASSERT | _ops.ASSERT_NOT | _ops.AT:
            kept = _kept_away(op, value)
            return {(begun, was if begun else max(was, kept)) for begun, was in paths}
    if any(not begun for begun, _ in paths):
        raise _UnknownError
    return {(begun + OTHER, apart) for begun, apart in paths}


def _repeated(least: int, most: int, inner: Any, flags: int, paths: set[_Path]) -> set[_Path]:
    found = set() if least else set(paths)
    for times in range(1, min(most, max(least, LETTERS)) + 1):
        paths = _paths(inner, flags, paths)
        if times >= least:
            found |= paths
        if times > LETTERS:
            break  # it is known by its first letters
    return found | paths


def _kept_away(op: Any, value: Any) -> int:
    """What an assertion says does not stand before a place where a word goes on."""
    if op is _ops.AT:
        return _SIGN if value in (_ops.AT_BOUNDARY, _ops.AT_UNI_BOUNDARY) else _NOTHING
    if op is not _ops.ASSERT_NOT or value[0] > 0:
        return _NOTHING
    items = list(value[1])
    if len(items) != 1 or items[0][0] is not _ops.IN:
        return _NOTHING
    some = list(items[0][1])
    if any(op is _ops.NEGATE for op, _ in some):
        return _NOTHING
    if (_ops.CATEGORY, _ops.CATEGORY_WORD) in some:
        return _SIGN
    return _LETTER if some == [(_ops.RANGE, (ord("a"), ord("z")))] else _NOTHING


def _with(paths: set[_Path], signs: set[str], flags: int) -> set[_Path]:
    """`paths`, each followed by one of `signs`."""
    if flags & re.I and not signs.isdisjoint((UPPER, LOWER)):
        signs = signs | {UPPER, LOWER}
    found = set()
    for begun, apart in paths:
        for sign in signs:
            if sign in KINDS:
                found.add((begun + sign, apart))
            elif begun and not is_of_word(sign):
                found.add((begun + END, apart))
            else:
                found.add((begun + folded(sign), apart))
    return found


def _set(items: Sequence[tuple[Any, Any]]) -> set[str]:
    """What `[…]` holds: single signs where they are few, and else of which sorts they are."""
    signs: set[str] = set()
    sorts: set[str] = set()
    for op, value in items:
        if op is _ops.LITERAL:
            signs.add(chr(value))
        elif op is _ops.RANGE and value[1] - value[0] < _WIDEST:
            signs.update(map(chr, range(value[0], value[1] + 1)))
        elif op is _ops.CATEGORY and value is _ops.CATEGORY_DIGIT:
            sorts.add(DIGIT)
        elif op is _ops.CATEGORY and value is _ops.CATEGORY_SPACE:
            sorts.add(OTHER)
        else:
            return {DIGIT, UPPER, LOWER, OTHER}
    for some in (set(filter(is_of_word, signs)), {s for s in signs if not is_of_word(s)}):
        if len(some) > _FEW:
            signs -= some
            sorts.update(map(kind, some))
    return signs | sorts
