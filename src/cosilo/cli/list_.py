"""`cosilo list`: what can be named in a plan, what each needs, and what each sends across."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterator
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
            "what it sends across the boundary, and its options with their defaults.\n\n"
            "    cosilo list strategies\n"
            "    cosilo list models"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=KINDS, help="what to list")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    for block in listing(arguments.kind):
        print(block)
    return 0


def listing(kind: str) -> Iterator[str]:
    """One block of text per name of `kind`."""
    registry, facts = _kinds()[kind]
    for name in registry.names():
        factory = registry.get(name)
        yield "\n".join([name, *(f"    {line}" for line in _about(factory, facts))]) + "\n"


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
    if summary and not summary.startswith(f"{getattr(factory, '__name__', '')}("):
        yield summary
    yield from facts(factory)
    yield from _options(factory)


def _options(factory: Callable[..., object]) -> Iterator[str]:
    from cosilo.tables import describe, options_of

    defaults = inspect.signature(factory).parameters
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
    try:
        needs = factory().needs
    except TypeError:  # some of its options must be given, and its needs depend on them
        return []
    sends = ", ".join(sorted(m.__name__ for m in needs.sends)) or "nothing"
    lines = [f"needs of the small model: {needs.small.name.lower()}"]
    if needs.trainable:
        lines[0] += ", and that it can be trained"
    if needs.sends:
        lines.append(f"needs of the large model: {needs.large.name.lower()}")
    return [*lines, f"sends across: {sends}"]


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
