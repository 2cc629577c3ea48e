"""When two trials are the same work: the hash of everything that decides an outcome.

The data and the model files count by their content, the methods by their source and that of all they
import. What only decides how fast it goes or how it is scored (concurrency, prices, the link, which
attacks) does not count; what an attack changes or hears while the trial runs (the share that is
tampered with, a published model) does.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path

import cosilo
from cosilo.attacks.tampering import Tampering
from cosilo.benchmark.plan import Plan
from cosilo.defences.base import defences
from cosilo.models.base import models
from cosilo.objectives.scoring import MOST_MEMBERS
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import ModelConfig, PointConfig
from cosilo.strategies.base import strategies
from cosilo.tasks.kinds import kinds

_EDGE_BYTES = 1 << 20


def task_identity(plan: Plan) -> str:
    """The hash of the task's configuration and of every data file it names."""
    named = [*plan.task.files.values(), plan.task.public]
    paths = [plan.base / name for names in named for name in names]
    paths += [plan.base / v for v in plan.task.options.values() if isinstance(v, str) and v]
    return hash_of([plain(plan.task), [_whole(path) for path in paths if path.exists()]])


def trial_identity(plan: Plan, point: PointConfig, *, task: str, sends: bool) -> str:
    """The trial's name in the store and in the ledger.

    Args:
        task: `task_identity` of the plan.
        sends: whether anything crosses; if not, the LM does not count.
    """
    involved = [plan.small, plan.embedder, plan.large if sends else None]
    settings = {
        "task": task,
        "point": settings_of(point),
        "models": [model_identity(m) for m in involved if m is not None],
        "seed": plan.seed,
        "tamper": plan.attacks.tamper_share if sends else 0,
        "request_budget": plain(plan.request_budget) if sends else None,
        "code": code_identity(plan, point),
    }
    if plan.attacks.published:  # what the small model says can be heard only while it is there
        settings["published"] = MOST_MEMBERS
    return hash_of(settings)


def settings_of(point: PointConfig) -> dict[str, object]:
    """What a point is, without its name."""
    found = plain(point)
    assert isinstance(found, dict)
    return {k: v for k, v in found.items() if k != "name"}


def model_identity(config: ModelConfig) -> dict[str, object]:
    """What decides a model's answers: its kind and options, its files, its training."""
    files = [v for v in config.options.values() if isinstance(v, Path) and v.exists()]
    return {
        "kind": config.kind,
        "options": plain(config.options),
        "files": [_edges(path) for path in files],
        "train": [config.train, config.train_items],
        "exposes": int(config.exposes),
    }


def small_identity(plan: Plan, *, task: str) -> str:
    """What decides the small model's answers: itself, its training data, the seed."""
    code = code_behind(models.get(plan.small.kind))
    return hash_of([task, model_identity(plan.small), plan.seed, cosilo.__version__, code])


def code_identity(plan: Plan, point: PointConfig) -> object:
    """The version, and the source behind what the plan names: a method that was changed, or
    anything it uses, runs again. That costs no money where it asks the same as before.
    """
    named = [strategies.get(point.strategy), kinds.get(plan.task.kind)]
    if isinstance(then := point.options.get("then"), str):
        named.append(strategies.get(then))
    named += [defences.get(d.kind) for d in point.defences]
    named += [models.get(m.kind) for m in (plan.small, plan.large)]
    return [cosilo.__version__, *map(code_behind, [*named, LMOwner, Tampering])]


def code_behind(factory: Callable[..., object]) -> str:
    """The hash of the module that `factory` is defined in and of every module of Cosilo's that it
    imports, however deep; empty where there is no source.

    Naming a module does not count the others of its package, although Python loads them.
    """
    try:
        file = Path(inspect.getfile(factory))
        modules = _reached(file)
        return hash_of([_whole(file), *(_whole(path) for path in sorted(modules - {file}))])
    except (TypeError, OSError, SyntaxError):
        return ""


@cache
def _reached(file: Path) -> frozenset[Path]:
    """`file` and all of Cosilo's files that it imports, directly or not."""
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path)
    return frozenset(found)


@cache
def _imported(file: Path) -> frozenset[Path]:
    """Cosilo's files that the module in `file` imports, those imported for types alone as well."""
    found: set[Path | None] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found.update(_file_of(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            whole = _file_of(node.module)
            found.update(_file_of(f"{node.module}.{a.name}") or whole for a in node.names)
    return frozenset(path for path in found if path is not None)


def _file_of(module: str) -> Path | None:
    """The file of one of Cosilo's modules; None for any other."""
    first, *rest = module.split(".")
    if first != "cosilo" or not rest:
        return None
    path = Path(cosilo.__file__).parent.joinpath(*rest)
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@cache
def source_identity(*parts: str) -> str:
    """The hash of the source of some of Cosilo's packages and modules."""
    root = Path(cosilo.__file__).parent
    files = [file for part in parts for file in _files(root / part)]
    return hash_of([[str(file.relative_to(root)), _whole(file)] for file in files])


def plain(value: object) -> object:
    """`value` as what JSON holds: dataclasses become tables, paths text, sets sorted lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(str(v) for v in value)
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _files(path: Path) -> Iterator[Path]:
    yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def hash_of(value: object) -> str:
    """Sixteen hex digits for what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _whole(path: Path) -> str:
    """The hash of a file, or of all files of a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(str(file.relative_to(path.parent)).encode())
            with file.open("rb") as stream:
                while block := stream.read(_EDGE_BYTES):
                    digest.update(block)
    return digest.hexdigest()


def _edges(path: Path) -> str:
    """A model file by its size and both ends: hashing gigabytes would take longer than the run."""
    if path.is_dir():
        return hash_of([[f.name, _edges(f)] for f in sorted(path.rglob("*")) if f.is_file()])
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(_EDGE_BYTES)
        stream.seek(max(0, size - _EDGE_BYTES))
        return hashlib.sha256(start + stream.read() + str(size).encode()).hexdigest()
