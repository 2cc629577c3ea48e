r"""Private values that a plan describes: its own patterns, and lists of words.

[defences.pseudonym]
patterns = [{ name = "MEMBER", regex = 'M-\d{6}' },
            { name = "CASE", regex = '\d{4}/\d{2}', context = ["case", "file"] }]
words = { PROJECT = "projects.txt", SITE = ["Blue Harbour", "Dock 4"] }
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosilo.defences.detection import Span, Steps, due, run
from cosilo.errors import ConfigError

_KIND = re.compile(r"[A-Z]{2,20}(?:_[A-Z]{2,20}){0,3}")
_NEAR = 60  # characters before and after a match in which one of its context words must stand
_WAYS = 20_000  # in which a pattern may match at one place
_UNBOUNDED = 1_000  # repeats that `*` and `+` count as
_SCORE = 0.95
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class OwnPattern:
    """A kind of private value, by its form.

    Attributes:
        name: what its placeholders are called: MEMBER becomes MEMBER_k7q2mx.
        regex: a regular expression; of a match its group `value` is private, or all of it where it has
            no such group.
        context: words of which one must stand near a match; none are needed where it is empty.
    """

    name: str
    regex: str
    context: tuple[str, ...] = ()


class OwnDetector:
    """Finds what `patterns` and `words` describe.

    Args:
        words: kind → words or phrases, or the file that holds them, one a line; they are found in any
            case, as whole words.

    Raises:
        ConfigError: a name cannot be one, a regular expression is wrong or might take a hostile text
            too long, or a file cannot be read or is empty; the entry is named.
    """

    def __init__(
        self, patterns: Sequence[OwnPattern], words: Mapping[str, Sequence[str] | str]
    ) -> None:
        self._patterns = [
            (own, _checked(own, f"patterns[{i}]"), _any_of(own.context))
            for i, own in enumerate(patterns)
        ]
        self._phrases: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for kind, entries in words.items():
            where = f"words.{kind}"
            _check_name(kind, where)
            for entry in _read(entries, where):
                parts = tuple(_WORD.findall(entry.casefold()))
                if not parts:
                    raise ConfigError(f"{where}: {entry!r} holds no word")
                self._phrases.setdefault(parts[0], []).append((parts, kind))
        self.kinds = frozenset(own.name for own in patterns) | frozenset(words)

    def detect(self, text: str, public: str = "") -> list[Span]:
        return run(self.steps(text, public))

    def steps(self, text: str, public: str = "") -> Steps[list[Span]]:
        spans: list[Span] = []
        for own, regex, context in self._patterns:
            group = "value" if "value" in regex.groupindex else 0
            for found in regex.finditer(text):
                near = text[max(0, found.start() - _NEAR) : found.end() + _NEAR]
                if found[group] and (context is None or context.search(near)):
                    spans.append(Span(*found.span(group), own.name, _SCORE))
                if due():
                    yield
            if due():
                yield
        if self._phrases:
            spans += self._listed(text)
            if due():
                yield
        return spans

    def _listed(self, text: str) -> Iterator[Span]:
        words = [(*w.span(), w.group().casefold()) for w in _WORD.finditer(text)]
        for i, (start, _, first) in enumerate(words):
            for parts, kind in self._phrases.get(first, ()):
                here = words[i : i + len(parts)]
                if tuple(word for _, _, word in here) == parts:
                    yield Span(start, here[-1][1], kind, _SCORE)


def _any_of(context: Iterable[str]) -> re.Pattern[str] | None:
    escaped = "|".join(map(re.escape, context))
    return re.compile(rf"(?<!\w)(?:{escaped})(?!\w)", re.I) if escaped else None


def _check_name(name: str, where: str) -> None:
    if not _KIND.fullmatch(name):
        raise ConfigError(
            f"{where}: a kind is called by capital letters, with _ between words (MEMBER, "
            f"CASE_NUMBER), not {name!r}"
        )


def _read(entries: Sequence[str] | str, where: str) -> Sequence[str]:
    if not isinstance(entries, str):
        return entries
    try:
        lines = [line.strip() for line in Path(entries).read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = type(error).__name__
        raise ConfigError(f"{where}: the file {entries!r} cannot be read ({why})") from None
    if not any(lines):
        raise ConfigError(f"{where}: the file {entries!r} is empty; it holds one entry a line")
    return [line for line in lines if line]


def _checked(own: OwnPattern, where: str) -> re.Pattern[str]:
    where = f"{where} ({own.name})"
    _check_name(own.name, where)
    try:
        regex = re.compile(own.regex)
        ways = _ways(regex)
    except (re.error, OverflowError) as error:
        raise ConfigError(
            f"{where}: the regular expression {own.regex!r} is none ({error})"
        ) from None
    if regex.match(""):
        raise ConfigError(
            f"{where}: the regular expression {own.regex!r} also matches where nothing stands"
        )
    if ways > _WAYS:
        raise ConfigError(
            f"{where}: the regular expression {own.regex!r} can match at one place in more than "
            f"{_WAYS:,} ways, so that a hostile text would take too long; bound its repeats, as in "
            r"\d{1,20}, and put none inside another"
        )
    return regex


def _ways(regex: re.Pattern[str]) -> float:
    """An upper bound of the ways in which `regex` can match at one place: what a backtracking engine
    may try there (Friedl, Mastering Regular Expressions, chapter 6).
    """
    from re import _parser  # type: ignore[attr-defined]  # the same parser that `re.compile` uses

    return _ways_of(_parser.parse(regex.pattern, regex.flags))


def _ways_of(parsed: Iterable[tuple[Any, Any]]) -> float:
    ways = 1.0
    for name, what in parsed:
        match str(name):
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, body = what
                most = min(int(most), max(_UNBOUNDED, int(least)))
                inside = _ways_of(body)
                if inside > 1:
                    ways *= min(inside, 1e9) ** min(most, 40)
                ways *= most - min(int(least), most) + 1
            case "BRANCH":
                ways *= sum(_ways_of(branch) for branch in what[1])
            case "SUBPATTERN":
                ways *= _ways_of(what[-1])
            case "ASSERT" | "ASSERT_NOT":
                ways *= _ways_of(what[1])
            case "ATOMIC_GROUP":
                ways *= _ways_of(what)
            case "GROUPREF" | "GROUPREF_EXISTS":
                ways *= _UNBOUNDED
        ways = min(ways, 1e12)
    return ways
