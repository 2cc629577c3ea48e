"""When two trials are the same work: the hash of everything that decides an outcome.

The data and the model files count by their content; code counts by the `VERSION` that its module
states, which is raised when the same input has another outcome, and not for a comment or a clearer
name. What only decides how fast it goes or how it is scored (concurrency, prices, the link, which
attacks) does not count; what an attack changes or hears while the trial runs (the share that is
tampered with, a published model) does.

A module states `VERSION = 2` below its imports once its outcomes have changed for the first time; one
that states none is at 1. For a trial count the versions of `ALWAYS`, of the modules that hold what the
plan names, and of all of Cosilo's that these import. `tests/unit/benchmark/test_versions.py` fails when
code was changed and its version was not.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path

import cosilo
from cosilo.benchmark.plan import Plan
from cosilo.defences.base import defences
from cosilo.models import catalog
from cosilo.models.base import Access, Shows, models
from cosilo.models.digests import file_digest, folder_digest
from cosilo.objectives.scoring import MOST_MEMBERS
from cosilo.session import ModelConfig, PointConfig
from cosilo.strategies.base import strategies
from cosilo.tasks.kinds import kinds

ALWAYS = (
    "attacks.tampering",
    "benchmark.answering",
    "benchmark.parts",
    "benchmark.runner",
    "benchmark.small",
    "benchmark.trial",
    "boundary.channel",
    "boundary.messages.ask",
    "boundary.messages.base",
    "boundary.messages.bounds",
    "boundary.messages.read",
    "boundary.messages.score",
    "defences.base",
    "models.base",
    "models.kept.replay",
    "models.sharded",
    "parties.around.exposed",
    "parties.around.recorded",
    "parties.data_owner",
    "parties.exposure",
    "parties.lm_owner",
    "parties.serving.ask",
    "parties.serving.base",
    "parties.serving.read",
    "parties.serving.score",
    "session",
    "strategies.base",
    "tasks.base",
    "tasks.config",
    "tasks.files",
    "tasks.secrets",
    "tasks.splits",
)
"""The modules that every trial goes through: data, owners, boundary, answering."""

_WRITTEN = ("checkpoints", "key_file", "state_file")
_BLOCK = 1 << 20


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
    peers = plan.peers_of(point) if sends else {}
    liars = [name for name in peers if plan.tampers(name)]
    share = plan.attacks.tamper_share if liars else 0
    involved = [plan.small, plan.embedder, *peers.values()]
    settings = {
        "task": task,
        "point": settings_of(plan, point),
        "models": [model_identity(m) for m in involved if m is not None],
        "files": [files_of(defences.get(d.kind), d.options) for d in point.defences],
        "seed": plan.seed,
        "tamper": share if len(liars) in (0, len(peers)) else [share, liars],
        "request_budget": plain(plan.request_budget) if sends else None,
        "code": code_identity(plan, point),
    }
    if plan.attacks.published:  # what the small model says can be heard only while it is there
        settings["published"] = MOST_MEMBERS
    return hash_of(settings)


def settings_of(plan: Plan, point: PointConfig) -> dict[str, object]:
    """The settings that make up a point, its name left out, and the names of the other sides where it
    speaks to several: two points with equal settings are the same.
    """
    found = plain(point)
    assert isinstance(found, dict)
    unsaid = ("name",) if point.peers else ("name", "peers")
    settings = {k: v for k, v in found.items() if k not in unsaid}
    sides = list(plan.peers_of(point))
    return {**settings, "sides": sides} if len(sides) > 1 else settings


def model_identity(config: ModelConfig) -> dict[str, object]:
    """What decides a model's answers: its kind and options, its files, its training."""
    files = files_of(models.get(config.kind), config.options)
    trains = {} if config.body is None else {"body": plain(replace(config.body, folder=None))}
    if config.shards is not None:
        trains["shards"] = plain(config.shards)
    return {
        **trains,
        "kind": config.kind,
        "options": plain({k: v for k, v in config.options.items() if k not in files}),
        "files": files,
        "train": [config.train, config.train_items],
        "exposes": _level(config.exposes),
    }


def _level(exposes: Shows) -> int | list[str]:
    """As it has always stood here: a level by its number."""
    levels = {level.shows: int(level) for level in Access}
    return levels.get(exposes) or list(exposes.written())


def files_of(factory: Callable[..., object], options: Mapping[str, object]) -> dict[str, str]:
    """Option → the hash of all that lies at the path, or of the catalog's model, that it names.

    An option that is not given counts with its default. Those under which something is written while
    the trial runs do not count.
    """
    found = {}
    for name, value in with_defaults(factory, options).items():
        if name in _WRITTEN or not isinstance(value, str | Path) or not str(value):
            continue
        if isinstance(value, str) and value in catalog.entries():
            found[name] = hash_of([file.sha256 for file in catalog.entry(value).files])
        elif os.path.isdir(value):  # never raises, whatever the text is
            found[name] = folder_digest(Path(value))
        elif isinstance(value, Path) and value.is_file():
            found[name] = file_digest(value)
    return found


def with_defaults(
    factory: Callable[..., object], options: Mapping[str, object]
) -> dict[str, object]:
    """`options`, and what `factory` takes where one is not given."""
    known = inspect.signature(factory).parameters.items()
    given = {k: v.default for k, v in known if v.default is not inspect.Parameter.empty}
    return {**given, **options}


def small_identity(plan: Plan, *, task: str) -> str:
    """What decides the small model's answers: itself, its training data, the seed."""
    named = [models.get(plan.small.kind), kinds.get(plan.task.kind)]
    return hash_of([task, model_identity(plan.small), plan.seed, versions_behind(*named)])


def code_identity(plan: Plan, point: PointConfig) -> object:
    """The versions of the code that decides what becomes of `point`: a method whose outcomes have
    changed runs again. That costs no money where it asks the same as before.
    """
    peers = plan.peers_of(point).values() or [plan.large]
    involved = [plan.small, *peers, *([plan.embedder] if plan.embedder else [])]
    return versions_behind(
        *strategies_of(point),
        *(defences.get(d.kind) for d in point.defences),
        *(models.get(m.kind) for m in involved),
        kinds.get(plan.task.kind),
    )


def strategies_of(point: PointConfig) -> list[Callable[..., object]]:
    """The strategy of `point`, and those that it goes on with, stated or by default."""
    found: list[Callable[..., object]] = []
    name: object = point.strategy
    options: object = point.options
    while isinstance(name, str) and name:
        found.append(strategies.get(name))
        taken = with_defaults(found[-1], options if isinstance(options, Mapping) else {})
        name, options = taken.get("then"), taken.get("then_options")
    return found


def versions_behind(*factories: Callable[..., object]) -> dict[str, object]:
    """Module → its version, of `ALWAYS`, of the modules that `factories` are defined in and of all of
    Cosilo's that these import, however deep; modules at version 1 are left out.

    A plug-in's module that states no version counts with its source.
    """
    files = {_file_of(f"cosilo.{name}") for name in ALWAYS}
    for factory in factories:
        files |= modules_behind(factory)
    found = {_name_of(file): _version_of(file) for file in files if file is not None}
    return {name: version for name, version in sorted(found.items()) if version != 1}


def modules_behind(factory: Callable[..., object]) -> frozenset[Path]:
    """The file that `factory` is defined in, and those of Cosilo's modules that it imports, however
    deep. Naming a module does not count the others of its package, although Python loads them."""
    try:
        return _reached(Path(inspect.getfile(factory)))
    except (TypeError, OSError, SyntaxError):
        return frozenset()


@cache
def _version_of(file: Path) -> object:
    """The number that the module in `file` states as its `VERSION`."""
    source = file.read_bytes()
    for node in ast.parse(source).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and any(isinstance(t, ast.Name) and t.id == "VERSION" for t in node.targets)
        ):
            return node.value.value
    ours = file.is_relative_to(Path(cosilo.__file__).parent)
    return 1 if ours else hashlib.sha256(source).hexdigest()[:16]


def _name_of(file: Path) -> str:
    root = Path(cosilo.__file__).parent
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


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
                while block := stream.read(_BLOCK):
                    digest.update(block)
    return digest.hexdigest()
