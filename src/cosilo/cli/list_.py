"""`cosilo list`: what can be named in a plan, what each needs, and what each sends across."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from cosilo.registry import Registry

KINDS = ("strategies", "defences", "attacks", "objectives", "models", "tasks")


def register(verbs: Any) -> None:
    parser = verbs.add_parser(
        "list",
        help="what a plan can name: strategies, defences, attacks, objectives, models, tasks",
        description=(
            "Show everything of one kind that can be named in a plan: what it is, what it needs,\n"
            "what it sends across the boundary, and what each of its options means.\n\n"
            "    cosilo list strategies\n"
            "    cosilo list strategies cascade\n"
            "    cosilo list models"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=KINDS, help="what to list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="this one alone")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    from cosilo.report.screen import Screen

    screen = Screen()
    for block in listing(arguments.kind, arguments.name):
        screen.say(block, indent=2)
    return 0


def listing(kind: str, name: str | None = None) -> Iterator[str]:
    """One block of text per name of `kind`, or the one of `name`.

    Raises:
        ConfigError: there is no such name.
    """
    registry, facts = _kinds()[kind]
    for title, names in _groups(kind, registry, name):
        if title:
            yield f"{title}\n"
        for each in names:
            about = _about(registry.get(each), facts)
            yield "\n".join([each, *(f"    {line}" for line in about)]) + "\n"


_WHEN = {
    "inference": "WHILE ANSWERING",
    "downward": "FROM THE LARGE MODEL TO THE SMALL ONE",
    "upward": "FROM THE SMALL MODEL TO THE LARGE ONE",
}


def _groups(
    kind: str, registry: Registry[Any], name: str | None
) -> Iterator[tuple[str, Sequence[str]]]:
    """(heading or "", names below it); strategies by direction, those that say none at the end."""
    if kind != "strategies" or name is not None:
        yield "", registry.names() if name is None else [name]
        return

    from cosilo.strategies.guide import guide

    by: dict[str | None, list[str]] = {}
    for each in registry.names():
        found = guide(registry.get(each))
        by.setdefault(None if found is None else found.direction, []).append(each)
    for direction, title in _WHEN.items():
        if direction in by:
            yield title, by[direction]
    if None in by:
        yield "OTHERS", by[None]


def _kinds() -> dict[str, tuple[Registry[Any], Callable[[Any], list[str]]]]:
    import cosilo.attacks
    import cosilo.objectives
    import cosilo.session
    import cosilo.tasks  # noqa: F401
    from cosilo.attacks.base import attacks
    from cosilo.defences.base import defences
    from cosilo.models.base import models
    from cosilo.objectives.base import objectives
    from cosilo.strategies.base import strategies
    from cosilo.tasks.kinds import kinds

    return {
        "strategies": (strategies, _strategy),
        "defences": (defences, _nothing),
        "attacks": (attacks, _attack),
        "objectives": (objectives, _objective),
        "models": (models, _nothing),
        "tasks": (kinds, _nothing),
    }


def _about(factory: Callable[..., object], facts: Callable[[Any], list[str]]) -> Iterator[str]:
    documentation = inspect.getdoc(factory) or ""
    summary = documentation.split("\n\n")[0].replace("\n", " ")
    signature = (
        f"{getattr(factory, '__name__', '')}("  # what a dataclass without words of its own has
    )
    # Options have lines of their own below; a docstring that begins with them has no summary.
    if summary and not summary.startswith((signature, *_SECTIONS)):
        yield summary
    yield from facts(factory)
    yield from _options(factory)


def _options(factory: Callable[..., object]) -> Iterator[str]:
    from cosilo.tables import describe, options_of

    defaults = inspect.signature(factory).parameters
    meant = meanings(factory)
    for name, option in options_of(factory).items():
        if not _spellable(option.type):  # what `prepare` learns lives in such fields
            continue
        default = defaults[name].default
        if option.required:
            shown = "must be given"
        elif default is None or type(default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS":
            shown = "optional"
        else:
            shown = f"{default!r} by default"
        yield f"{name}: {describe(option.type)}, {shown}"
        if name in meant:
            yield f"    {meant[name]}"


_SECTIONS = ("Attributes:", "Args:", "Options:")
_ENTRY = re.compile(r"( *)(\w+(?:, \w+)*): (.*)")


def meanings(factory: Callable[..., object]) -> dict[str, str]:
    """Option → what its docstring, or that of a class it inherits from, says of it."""
    found: dict[str, str] = {}
    for holder in reversed(getattr(factory, "__mro__", (factory,))):
        for documented in (holder, holder.__dict__.get("__init__")):
            if documented is not None and holder is not object:
                found |= _entries(inspect.getdoc(documented) or "")
    return found


def _entries(documentation: str) -> dict[str, str]:
    found: dict[str, str] = {}
    inside, depth, names = False, 0, [""]
    for line in documentation.splitlines():
        entry = _ENTRY.fullmatch(line)
        if line.strip() in _SECTIONS:
            inside, depth = True, -1
        elif not inside or not line.strip():
            continue
        elif entry is not None and (depth < 0 or len(entry[1]) == depth):
            depth, names = len(entry[1]), entry[2].split(", ")
            found |= dict.fromkeys(names, entry[3])
        elif len(line) - len(line.lstrip()) > depth >= 0:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            inside = False
    return found


def _spellable(wanted: object) -> bool:
    """Whether a plan could spell out a value of this type."""
    inner = [t for t in get_args(wanted) if t is not Ellipsis]
    if get_origin(wanted) is Literal:
        return True
    if inner:
        return all(map(_spellable, inner))
    plain = wanted in (str, int, float, bool, type(None), object, Path)
    return plain or (isinstance(wanted, type) and issubclass(wanted, Enum))


def _strategy(factory: Callable[..., Any]) -> list[str]:
    from cosilo.strategies.guide import guide

    found = guide(factory)
    choose = [] if found is None else [f"choose it when: {found.choose}"]
    crosses = [] if found is None else [f"what crosses: {found.crosses}"]
    try:
        needs = factory().needs
    except TypeError:  # some of its options must be given, and its needs depend on them
        return [*choose, *crosses]
    sends = ", ".join(sorted(m.__name__ for m in needs.sends)) or "nothing"
    lines = [f"needs of the small model: {needs.small.name.lower()}"]
    if needs.trainable:
        lines[0] += ", and that it can be trained"
    if needs.sends:
        many = f"{needs.peers}{' or more' if needs.every else ''} large models asked together"
        several = needs.peers > 1 or needs.every
        whom = f"of each of {many}" if several else "of the large model"
        lines.append(f"needs {whom}: {needs.shown}")
    return [*choose, *lines, *crosses, f"sends across: {sends}"]


def _attack(factory: Callable[..., Any]) -> list[str]:
    about = {
        "secrets": "the secret values of an item",
        "records": "which item a message came from",
        "replies": "what the large model would answer",
        "model": "what the large model is like inside",
    }
    key = factory().about
    return [f"tries to learn: {about.get(key, key)}", "sees: what crossed, and nothing else"]


def _objective(factory: Callable[..., Any]) -> list[str]:
    found = factory().objective
    goal = "less is better" if found.goal == "min" else "more is better"
    return [f"family: {found.family}; unit: {found.unit or 'none'}; {goal}"]


def _nothing(factory: Callable[..., Any]) -> list[str]:
    return []
