"""The code that decides outcomes, module by module: its stated version and a hash of what it does.

    python tests/code_hashes.py      write them to unit/benchmark/versions.json

A hash is of the syntax tree without docstrings: comments, layout and wording are not in it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import cosilo
import cosilo.session  # registers what there is
from cosilo.attacks.base import attacks
from cosilo.benchmark import identity
from cosilo.defences.base import defences
from cosilo.models.base import models
from cosilo.objectives.base import objectives
from cosilo.strategies.base import strategies
from cosilo.tasks.kinds import kinds

STORED = Path(__file__).parent / "unit/benchmark/versions.json"
ROOT = Path(cosilo.__file__).parent

APART = (
    "boundary/record/batches.py",
    "boundary/record/ledger.py",
    "boundary/meter.py",
    "errors.py",
    "models/busy.py",
    "models/catalog.py",
    "models/digests.py",
    "models/remote/sse.py",
    "registry.py",
    "strategies/cards.py",
)
"""Imported by what decides, and deciding nothing: how it is kept, counted, found and told."""


def counted() -> dict[str, Path]:
    """Name → file of every module of Cosilo's whose version counts for some trial or measure."""
    files = {
        identity._file_of(f"cosilo.{name}") for name in (*identity.ALWAYS, "benchmark.measure")
    }
    registries: tuple[Any, ...] = (strategies, defences, models, kinds, attacks, objectives)
    for registry in registries:
        for name in registry.names():
            made = registry.get(name)
            if made.__module__.partition(".")[0] == cosilo.__name__:  # not what a test registers
                files |= identity.modules_behind(made)
    named = {f.relative_to(ROOT).as_posix(): f for f in files if f and f.is_relative_to(ROOT)}
    return {name: file for name, file in sorted(named.items()) if name not in APART}


def code_hash(source: str) -> str:
    """The same for two modules that do the same in the same way."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def python() -> str:
    """The syntax trees of two versions of Python differ."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def found() -> dict[str, list[object]]:
    """Module → its version and its hash, as they are now."""
    return {
        name: [identity._version_of(file), code_hash(file.read_text("utf-8"))]
        for name, file in counted().items()
    }


def differences(
    stored: dict[str, list[object]], now: dict[str, list[object]]
) -> tuple[list[str], list[str]]:
    """(modules whose code changed and whose version did not, other entries that are out of date)"""
    changed = [m for m in now if m in stored and stored[m] != now[m]]
    same = [m for m in changed if stored[m][0] == now[m][0]]
    return same, [
        m for m in sorted({*stored, *now}) if stored.get(m) != now.get(m) and m not in same
    ]


if __name__ == "__main__":
    text = json.dumps({"python": python(), "modules": found()}, indent=1)
    STORED.write_text(
        text.replace("[\n   ", "[").replace(",\n   ", ", ").replace("\n  ]", "]") + "\n"
    )
