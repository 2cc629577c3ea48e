"""From a TOML table to typed values: where misspelt keys and wrong types are found.

Every message names the file and the table (`where`), the key, and what would do instead.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, Flag
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from cosilo.errors import ConfigError
from cosilo.registry import unknown

T = TypeVar("T")
Table = Mapping[str, object]


@dataclasses.dataclass(frozen=True)
class Option:
    """One keyword of a factory: its type, and whether it must be given."""

    type: object
    required: bool


def read(cls: Callable[..., T], table: Table, *, where: str) -> T:
    """`cls(**table)` with every value checked against the type `cls` states for it.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, or a value that `cls` refuses.
    """
    values = check(cls, table, where=where)
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def check(factory: Callable[..., object], table: Table, *, where: str) -> dict[str, Any]:
    """The keyword arguments for `factory` that `table` spells out.

    Raises:
        ConfigError: an unknown or missing key, or a value of the wrong type.
    """
    known = options_of(factory)
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}: {unknown('key', key, known)}")
    missing = [key for key, option in known.items() if option.required and key not in table]
    if missing:
        raise ConfigError(f"{where}: {', '.join(map(repr, missing))} must be given")
    return {key: convert(v, known[key].type, where=f"{where}: {key}") for key, v in table.items()}


def options_of(factory: Callable[..., object]) -> dict[str, Option]:
    """What `factory` can be given by keyword, in order."""
    holder = factory
    if inspect.isclass(factory) and not dataclasses.is_dataclass(factory):
        holder = factory.__init__
    try:
        hints = get_type_hints(holder)
    except NameError:  # a plug-in names a type that it imports for type checkers only
        hints = {}
    return {
        name: Option(hints.get(name, object), parameter.default is inspect.Parameter.empty)
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def convert(value: object, wanted: object, *, where: str) -> Any:
    """`value` as the type `wanted`: lists become tuples, tables become dataclasses.

    Raises:
        ConfigError: it is of another type; the message says which was expected and which came.
    """
    origin, inner = get_origin(wanted), get_args(wanted)
    if wanted in (object, Any) or isinstance(wanted, TypeVar):
        return value
    if origin in (Union, types.UnionType):
        return _one_of(value, inner, where)
    if origin is Literal:
        if value in inner:
            return value
        if isinstance(value, str):
            raise ConfigError(f"{where}: {unknown('value', value, map(str, inner))}")
        raise _wrong(value, wanted, where)
    if origin in (tuple, list, frozenset, set) or origin is _SEQUENCE:
        if not isinstance(value, list | tuple):
            raise _wrong(value, wanted, where)
        each = inner[0] if inner else object
        items = [convert(v, each, where=f"{where}[{i}]") for i, v in enumerate(value)]
        return (origin if origin in (list, frozenset, set) else tuple)(items)
    if origin in (dict, _MAPPING):
        if not isinstance(value, Mapping):
            raise _wrong(value, wanted, where)
        return {str(k): convert(v, inner[1], where=f"{where}.{k}") for k, v in value.items()}
    if isinstance(wanted, type):
        return _plain(value, wanted, where)
    return value


_SEQUENCE = get_origin(Sequence[int])
_MAPPING = get_origin(Mapping[str, int])


def _plain(value: object, wanted: type[Any], where: str) -> object:
    if dataclasses.is_dataclass(wanted) and isinstance(value, Mapping):
        return read(wanted, value, where=where)
    if issubclass(wanted, Flag):
        return _flags(value, wanted, where)
    if issubclass(wanted, Enum) and isinstance(value, str):
        names = {member.name.lower(): member for member in wanted}
        if value.lower() not in names:
            raise ConfigError(f"{where}: {unknown('value', value, names)}")
        return names[value.lower()]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if issubclass(wanted, Path) and isinstance(value, str):
        return wanted(value)
    if isinstance(value, bool) and wanted is not bool:
        raise _wrong(value, wanted, where)
    if not isinstance(value, wanted):
        raise _wrong(value, wanted, where)
    return value


def _flags(value: object, wanted: type[Any], where: str) -> object:
    """Flags by the name of a preset, or as a list of their own names."""
    if isinstance(value, wanted):
        return value
    one = isinstance(value, str)
    known = _presets(wanted) if one else {str(flag.name).lower(): flag for flag in wanted}
    names = [value] if one else value
    if not isinstance(names, list | tuple) or not names:
        raise _wrong(value, wanted, where)
    found = wanted(0)
    for name in names:
        if not isinstance(name, str):
            raise _wrong(value, wanted, where)
        if name.lower() not in known:
            raise ConfigError(f"{where}: {unknown('value', name, known)}")
        found |= known[name.lower()]
    return found


def _presets(wanted: Any) -> Mapping[str, object]:
    found: Mapping[str, object] = wanted.presets() if hasattr(wanted, "presets") else {}
    return found


def _one_of(value: object, kinds: tuple[object, ...], where: str) -> object:
    kinds = tuple(k for k in kinds if k is not type(None))
    if value is None:
        return None
    error: ConfigError | None = None
    for kind in kinds:
        try:
            return convert(value, kind, where=where)
        except ConfigError as wrong:
            error = wrong
    if len(kinds) == 1 and error is not None:
        raise error
    raise _wrong(value, Union[kinds], where)  # noqa: UP007


def _wrong(value: object, wanted: object, where: str) -> ConfigError:
    return ConfigError(f"{where} must be {describe(wanted)}, not {_kind(value)}")


_WORDS: dict[object, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path (text)",
    object: "any value",
}


def describe(wanted: object) -> str:
    """A type in a reader's words."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(k) for k in inner if k is not type(None))
    if origin is Literal:
        return "one of " + ", ".join(map(repr, inner))
    if origin in (tuple, list, frozenset, set, _SEQUENCE):
        return f"a list (each {describe(inner[0])})" if inner else "a list"
    if origin in (dict, _MAPPING):
        return "a table"
    if isinstance(wanted, type):
        if dataclasses.is_dataclass(wanted):
            return "a table"
        if issubclass(wanted, Flag):
            each = "a list of " + ", ".join(repr(str(flag.name).lower()) for flag in wanted)
            return " or ".join([*map(repr, _presets(wanted)), each])
        if issubclass(wanted, Enum):
            return "one of " + ", ".join(repr(m.name.lower()) for m in wanted)
    return _WORDS.get(wanted, getattr(wanted, "__name__", str(wanted)))


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return f"{value!r}".lower()
    if isinstance(value, str | int | float):
        return f"{value!r}" if len(repr(value)) < 60 else f"a text of {len(repr(value))} characters"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, Mapping):
        return "a table"
    return type(value).__name__
