"""Errors as they cross: made into a message on one side, raised again on the other."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cosilo import errors
from cosilo.boundary.messages import Refused
from cosilo.errors import CosiloError, PrivacyError

Fact = bool | int | float | str | None

LONGEST_TEXT = 4000
"""Characters of an error's text that cross."""

_LONGEST_FACT = 200
_MOST = 1 << 31


def refusal(error: Exception) -> Refused:
    """`error` as it crosses: its kind, its text and its attributes.

    Of an error that is not ours only the class is told, since its text may quote what it failed on.
    """
    if not isinstance(error, CosiloError):
        return Refused(kind="", text=type(error).__name__)
    facts = {name: _cut(value) for name, value in vars(error).items() if isinstance(value, Fact)}
    told = {name: value for name, value in facts.items() if _plausible(value)}
    return Refused(kind=_kind(type(error)), text=printable(str(error), LONGEST_TEXT), told=told)


def raised(refused: Refused, *, quoted: bool) -> CosiloError:
    """The error that `refused` stands for, to be raised on this side.

    An error that is none of ours, or unknown here, stops the message like a guard in doubt; nobody
    knows then whether the request was worked on.

    Args:
        quoted: its text is the words of a party in other hands.
    """
    kind = getattr(errors, refused.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, CosiloError)):
        name = refused.text if refused.text.isidentifier() else "no error of ours"
        doubt = PrivacyError(f"a crossing failed ({name[:80]}), so nothing more was sent")
        doubt.worked = None
        return doubt
    error: CosiloError = kind(printable(refused.text, LONGEST_TEXT), **_options(kind, refused.told))
    if "worked" in refused.told:
        worked = refused.told["worked"]
        error.worked = worked if type(worked) is int and worked >= 0 else None
    if quoted or refused.told.get("quoted") is True:
        error.quoted = True
    return error


def _kind(kind: type[CosiloError]) -> str:
    """The class in `errors` that `kind` is, or is a special case of."""
    names = [k.__name__ for k in kind.__mro__]
    return next(n for n, k in zip(names, kind.__mro__, strict=True) if vars(errors).get(n) is k)


def _options(kind: type[CosiloError], told: Mapping[str, Fact]) -> dict[str, Fact]:
    """What `told` says of the options of `kind`, where it is of their type."""
    known: Mapping[str, Fact] = getattr(kind.__init__, "__kwdefaults__", None) or {}
    return {
        name: _cut(told[name])
        for name, default in known.items()
        if name in told and _alike(told[name], default) and _plausible(told[name])
    }


def _alike(value: Fact, default: Fact) -> bool:
    return type(value) is type(default) or (type(value) is int and type(default) is float)


def _plausible(value: Fact) -> bool:
    if isinstance(value, int | float):
        return math.isfinite(value) and 0 <= value <= _MOST
    return True


def _cut(value: Fact) -> Fact:
    return printable(value, _LONGEST_FACT) if isinstance(value, str) else value


def printable(text: str, most: int) -> str:
    """`text` without what would write over a terminal or cannot be encoded, at most so long."""
    text = text[:most]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
