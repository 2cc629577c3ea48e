"""The other sides that a plan names: one large model, or several, each with an owner of its own.

    [models.large]        kind = "…"                one, called "large"
    [models.large.NAME]   kind = "…"                one of several, in the order they stand in
    [[models.large]]      name = "NAME" kind = "…"  the same as a list

Each has its price, what its owner exposes and, where it is another than the plan's, its link.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cosilo.errors import ConfigError
from cosilo.models.base import models
from cosilo.registry import unknown
from cosilo.session import ModelConfig, read_model
from cosilo.strategies.base import ONE, Needs
from cosilo.tables import Table, convert, options_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TWICE = re.compile(r"Cannot declare \('models', 'large', '(.+?)'\) twice")


def read_peers(value: object, *, where: str, base: Path) -> dict[str, ModelConfig]:
    """Name → the large model of that name, as `models.large` of a plan describes them.

    Raises:
        ConfigError: two have one name, a name that cannot name a chain of the record, no kind, or what
            `read_model` refuses.
    """
    at = f"{where}: [models.large"
    named: Mapping[str, Table]
    if isinstance(value, list):
        named = _listed(value, where=f"{where}: [[models.large]]")
    elif not isinstance(value, Mapping):
        raise ConfigError(f"{at}] must be a table, or one table for each large model")
    elif _describes_one(value):
        for key, inner in value.items():
            if isinstance(inner, Mapping) and "kind" in inner:
                raise ConfigError(
                    f"{at}] is a model, and so is {at.rpartition(' ')[2]}.{key}]: where there are "
                    "several, each needs a name, the first one, too: [models.large.NAME]"
                )
        return {ONE: read_model(value, where=f"{at}]", base=base)}
    else:
        named = value
    found = {}
    for name, table in named.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{at}.{name}]: {name!r} cannot name a large model here: letters, digits, '.', '_' and "
                "'-', at most 64"
            )
        found[name] = read_model(table, where=f"{at}.{name}]", base=base)
    return found


def _describes_one(table: Table) -> bool:
    """Whether the table is of one model, and not of models by name."""
    return (
        isinstance(table.get("kind"), str)
        or not all(isinstance(inner, Mapping) for inner in table.values())
        or not table
    )


def _listed(tables: Sequence[object], *, where: str) -> dict[str, Table]:
    found: dict[str, Table] = {}
    for number, table in enumerate(tables, 1):
        if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
            raise ConfigError(f"{where} {number}: each must be a table with a name, as text")
        name = table["name"]
        if name in found:
            raise two_of_one_name(name, where)
        kept = ("name",) if _takes_name(table.get("kind")) else ()
        found[name] = {k: v for k, v in table.items() if k != "name" or k in kept}
    return found


def _takes_name(kind: object) -> bool:
    """Whether models of the kind are told a name themselves: then it is this one."""
    return (
        isinstance(kind, str) and kind in models.names() and "name" in options_of(models.get(kind))
    )


def two_of_one_name(name: str, where: str) -> ConfigError:
    return ConfigError(f"{where}: two large models are named {name!r}; give each a name of its own")


def declared_twice(error: Exception, where: str) -> ConfigError | None:
    """The error for a plan with two tables of one large model's name, where `error`, TOML's own, says
    that there are."""
    found = _TWICE.search(str(error))
    return two_of_one_name(found[1], where) if found else None


def read_names(value: object, *, where: str) -> list[tuple[str, ...]]:
    """The `peers` of a point: names, or a list of lists of names, for one point each."""
    nested = isinstance(value, list) and value and all(isinstance(v, list) for v in value)
    lists = value if nested and isinstance(value, list) else [value]
    return [convert(names, tuple[str, ...], where=where) for names in lists]


def chosen(
    named: Sequence[str], needs: Needs, known: Mapping[str, ModelConfig], *, where: str
) -> dict[str, ModelConfig]:
    """The peers that a strategy speaks to, by name: of `named`, or of all that are `known` where none
    is; `Session.lm` is the first.

    Raises:
        ConfigError: an unknown name, one twice, fewer than the strategy needs, more than it speaks to.
    """
    for name in named:
        if name not in known:
            raise ConfigError(f"{where}: peers: {unknown('large model', name, known)}")
        if named.count(name) > 1:
            raise ConfigError(f"{where}: peers: {name!r} stands there twice")
    if not needs.sends:
        return {}
    names = list(named or known)
    if len(names) < needs.peers:
        raise ConfigError(
            f"{where}: its strategy needs {needs.peers} large models, but there "
            f"{'is' if len(names) == 1 else 'are'} {len(names)} ({', '.join(names)}): name more in "
            "[models.large.NAME]"
        )
    if named and len(names) > needs.peers and not needs.every:
        raise ConfigError(
            f"{where}: its strategy speaks to {needs.peers} of the large models, but peers names "
            f"{len(names)}; for one point each, give a list of lists"
        )
    return {name: known[name] for name in (names if needs.every else names[: needs.peers])}
