"""An operating point in a folder: what serving it needs, and nothing of the run it was measured in.

    OUT/bundle.json   the strategy as preparing left it, defences, models, sampling, instructions
        small/        the trained small model, where it was trained
        strategy/     what the strategy learned that is no option
        keys/         what defences derive placeholders under
        files/        model files, where they were asked for
        SHA256SUMS    of all of these, as `sha256sum -c` reads it

What was learned from private data is in here, so the folder is its owner's alone (0700, files 0600).
Nothing is pickled. Large model files stand for themselves by their hash, models of the catalog by their
name and the hashes that the catalog states.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import msgspec

from cosilo.boundary.meter import Budget
from cosilo.defences.base import defences
from cosilo.errors import CapabilityError, ConfigError, StoreError
from cosilo.models import catalog
from cosilo.models.base import Keepable, TextModel
from cosilo.models.base import models as model_kinds
from cosilo.models.digests import file_digest, folder_digest
from cosilo.session import DefenceConfig, ModelConfig, PointConfig, check_options
from cosilo.strategies.base import Strategy, strategies
from cosilo.tables import Table, options_of, read
from cosilo.types import Sampling, Turn

FORMAT = 1
DESCRIPTION, SUMS = "bundle.json", "SHA256SUMS"
ROLES = ("small", "large", "embedder")
SEVERAL = "large."
"""What the role of one of several large models begins with, before its name."""

_NOT_READ = ("checkpoints", "state_file")
"""Options that name where something is written while training: no matter for serving."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A point that can be served.

    Attributes:
        point: its strategy is the one that answers, prepared already.
        models: of "small", "large" and "embedder", those that it needs; without an embedder, the small
            model embeds where it can. Of several large models that it asks together, "large.NAME" each,
            in their order.
        about: what a reader should know: which run's strategy it was, what the small model learned
            from, and what membership was measured.
    """

    point: PointConfig
    models: Mapping[str, ModelConfig]
    sampling: Sampling = Sampling()
    system: str = ""
    budget: Budget | None = None
    about: Mapping[str, str] = field(default_factory=dict)


def is_bundle(folder: Path) -> bool:
    """Whether a bundle stands there."""
    return (folder / DESCRIPTION).is_file()


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, or of a folder's files and their names."""
    return folder_digest(path) if path.is_dir() else file_digest(path)


# ── what is written ──────────────────────────────────────────────────────────


def spelt_out(strategy: Strategy, config: PointConfig) -> PointConfig:
    """The prepared strategy as a point's configuration: its name in the registry, its fields as
    options.

    Raises:
        ConfigError: it is not one that can be named and told by its options.
    """
    kind = next((n for n in strategies.names() if strategies.get(n) is type(strategy)), None)
    if kind is None or not is_dataclass(strategy):
        raise ConfigError(
            f"point {config.name!r} is answered by a {type(strategy).__name__}, which has no name and "
            "options to be told by: serve it from its run"
        )
    return PointConfig(
        config.name, kind, {f.name: getattr(strategy, f.name) for f in fields(strategy)}
    )


def kept_model(config: ModelConfig, model: TextModel, folder: Path) -> ModelConfig:
    """`config` as that of `model`, which was trained and is now written into `folder`.

    Raises:
        ConfigError: it cannot be written down.
    """
    if not isinstance(model, Keepable):
        raise ConfigError(
            f"the trained small model ({config.kind!r}) cannot be written down: serve this point from "
            "its run"
        )
    try:
        kept = model.keep(folder)
    except CapabilityError as error:
        raise ConfigError(f"the trained small model cannot be written down: {error}") from None
    return replace(config, options={**config.options, **kept})


# ── writing ──────────────────────────────────────────────────────────────────


@contextmanager
def making(out: Path) -> Iterator[Path]:
    """A private folder that becomes `out` when all has gone well, and is gone otherwise.

    Raises:
        ConfigError: something is at `out` already.
        StoreError: it cannot be written.
    """
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{str(out)!r} exists already; name a folder that does not")
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        beside.mkdir(mode=0o700, parents=True)
        yield beside
        beside.rename(out)
    except OSError as error:
        raise StoreError(f"{str(out)!r} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write(bundle: Bundle, folder: Path, *, with_models: bool = False) -> None:
    """Write `bundle` into `folder`, where `small/` and the like stand already.

    Args:
        with_models: copy the model files as well.

    Raises:
        ConfigError: something the point needs cannot be written down; the message says what.
        StoreError: a file cannot be read or written.
    """
    writer = _Writer(folder, with_models)
    point = bundle.point
    described = {
        "format": FORMAT,
        "point": point.name,
        "strategy": {
            "kind": point.strategy,
            "options": {
                name: writer.state(name, value, f"strategy {point.strategy!r}")
                for name, value in point.options.items()
            },
        },
        "defences": [
            {
                "name": defence.name,
                "kind": defence.kind,
                "options": writer.options(defence.options, f"defence {defence.name!r}"),
            }
            for defence in point.defences
        ],
        "models": {
            role: {
                **{k: v for k, v in _plain_model(config).items() if k != "options"},
                "options": writer.options(config.options, f"the {role} model"),
            }
            for role, config in bundle.models.items()
        },
        "sampling": msgspec.to_builtins(bundle.sampling),
        "system": bundle.system,
        "budget": None if bundle.budget is None else asdict(bundle.budget),
        "catalog": _catalogued(bundle),
        "about": dict(bundle.about),
    }
    (folder / DESCRIPTION).write_text(json.dumps(described, indent=1) + "\n", "utf-8")
    sums = "".join(
        f"{file_digest(f)}  {f.relative_to(folder).as_posix()}\n" for f in _files(folder)
    )
    (folder / SUMS).write_text(sums, "utf-8")
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)


class _Writer:
    """Spells option values out as JSON; what is a file stands as a reference."""

    def __init__(self, folder: Path, with_models: bool) -> None:
        self.folder = folder
        self.with_models = with_models

    def options(self, options: Mapping[str, Any], owner: str) -> dict[str, object]:
        kept = {k: v for k, v in options.items() if k not in _NOT_READ}
        return {name: self.value(name, value, owner) for name, value in kept.items()}

    def state(self, name: str, value: Any, owner: str) -> object:
        """An option of a prepared strategy: it may also hold turns of a chat, or what it learned."""
        if isinstance(value, tuple) and value and all(isinstance(v, Turn) for v in value):
            return {"$turns": msgspec.to_builtins(value)}
        if callable(getattr(value, "save", None)) and callable(getattr(value, "load", None)):
            value.save(self.folder / "strategy" / name)
            return {"$saved": f"strategy/{name}"}
        return self.value(name, value, owner)

    def value(self, name: str, value: Any, owner: str) -> object:
        if isinstance(value, Path):
            return self.file(value)
        if isinstance(value, str) and "/" in value and os.path.isdir(value):
            return {**self.file(Path(value)), "text": True}
        if isinstance(value, bool | int | float | str | None):
            return value
        if isinstance(value, Mapping):
            return {"$table": {str(k): self.value(name, v, owner) for k, v in value.items()}}
        if isinstance(value, list | tuple | set | frozenset):
            items = sorted(value) if isinstance(value, set | frozenset) else value
            return [self.value(name, item, owner) for item in items]
        raise ConfigError(
            f"{owner} keeps {name!r} as a {type(value).__name__}, which a bundle cannot hold: serve "
            "this point from its run"
        )

    def file(self, path: Path) -> dict[str, object]:
        """`path` by its place in the bundle, or by its hash where it stays outside."""
        if path.is_relative_to(self.folder):
            return {"$inside": path.relative_to(self.folder).as_posix()}
        if not path.exists():
            raise ConfigError(f"{str(path)!r} is needed for serving, and is not there")
        digest = digest_of(path)
        if self.with_models:
            target = self.folder / "files" / f"{digest[:12]}-{path.name}"
            target.parent.mkdir(exist_ok=True)
            copy = shutil.copytree if path.is_dir() else shutil.copyfile
            if not target.exists():
                cast("Callable[[Path, Path], object]", copy)(path, target)
            return {"$inside": target.relative_to(self.folder).as_posix()}
        return {"$file": str(path.absolute()), "sha256": digest}


def _plain_model(config: ModelConfig) -> dict[str, Any]:
    """What a model's table says, besides how it was trained; what it leaves out is left out."""
    said = {
        f.name: getattr(config, f.name)
        for f in fields(ModelConfig)
        if f.name not in ("train", "train_items", "shards") and getattr(config, f.name) != f.default
    }
    tables: dict[str, Any] = {} if config.link is None else {"link": asdict(config.link)}
    if config.body is not None:
        body = {k: v for k, v in asdict(config.body).items() if v is not None}
        tables["body"] = {k: str(v) if isinstance(v, Path) else v for k, v in body.items()}
    return {**said, **tables, "exposes": config.exposes.written()}


def _catalogued(bundle: Bundle) -> dict[str, list[str]]:
    """The models of the catalog that serving loads, with the hashes of their files."""
    found = model_kinds.loads  # options decide, defaults counted
    names = [n for m in bundle.models.values() for n in found(m.kind, m.options).models]
    for defence in bundle.point.defences:
        names += defences.loads(defence.kind, defence.options).models
    return {name: [f.sha256 for f in catalog.entry(name).files] for name in dict.fromkeys(names)}


# ── reading ──────────────────────────────────────────────────────────────────


def read_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`, each of whose files is hashed first.

    Raises:
        ConfigError: it is no bundle, was altered, or needs something that this machine or this version
            does not have; the message says what.
    """
    folder = folder.absolute()
    _check(folder)
    try:
        found = json.loads((folder / DESCRIPTION).read_text("utf-8"))
        if found["format"] != FORMAT:
            raise ConfigError(
                f"{str(folder)!r} is a bundle of format {found['format']!r}, not {FORMAT}"
            )
        _check_catalog(found["catalog"])
        reader = _Reader(folder)
        name, strategy = found["point"], found["strategy"]
        return Bundle(
            point=PointConfig(
                name,
                strategy["kind"],
                reader.strategy(strategy["kind"], strategy["options"]),
                tuple(reader.defence(table) for table in found["defences"]),
            ),
            models={role: reader.model(role, found["models"][role]) for role in found["models"]},
            sampling=msgspec.convert(found["sampling"], Sampling),
            system=found["system"],
            budget=None if found["budget"] is None else Budget(**found["budget"]),
            about=found["about"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{str(folder / DESCRIPTION)!r} cannot be read as a bundle ({type(error).__name__})"
        ) from None


def _check(folder: Path) -> None:
    """Refuse a folder whose files are not those that were written.

    Raises:
        ConfigError: one is missing, altered, or too many.
    """
    try:
        lines = (folder / SUMS).read_text("utf-8").splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        sums.pop(SUMS, None)
        there = {f.relative_to(folder).as_posix(): f for f in _files(folder)}
        there.pop(SUMS)
        if strange := sorted(there.keys() - sums.keys()):
            raise ConfigError(
                f"the bundle {str(folder)!r} holds {strange[0]!r}, which is not its own"
            )
        for name, digest in sums.items():
            if name not in there:
                raise ConfigError(f"the bundle {str(folder)!r} lacks {name!r}")
            if there[name].is_symlink() or _hashed(there[name]) != digest:
                raise ConfigError(
                    f"the bundle {str(folder)!r} was altered: {name!r} is another file"
                )
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the bundle {str(folder)!r} cannot be checked ({type(error).__name__})"
        ) from None


def _hashed(file: Path) -> str:
    with file.open("rb") as stream:  # never from a cache: this is what the check is for
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_catalog(named: Mapping[str, list[str]]) -> None:
    for name, digests in named.items():
        if [file.sha256 for file in catalog.entry(name).files] != digests:
            raise ConfigError(
                f"the bundle was made with another version of model {name!r} than this catalog's"
            )


class _Reader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def strategy(self, kind: str, options: Table) -> dict[str, Any]:
        hints = options_of(strategies.get(kind))
        plain = {k: self.value(v) for k, v in options.items() if not _is_state(v)}
        found = check_options(strategies, kind, plain, where=f"strategy {kind!r}")
        for name, value in options.items():
            if _is_state(value) and name in hints:
                found[name] = self.state(cast("Mapping[str, Any]", value), hints[name].type)
        return found

    def state(self, value: Mapping[str, Any], kind: object) -> Any:
        if "$turns" in value:
            return msgspec.convert(value["$turns"], tuple[Turn, ...])
        folder = self.inside(value["$saved"])
        missing: Exception = KeyError("$saved")
        for option in (kind, *get_args(kind)):  # an option may be of one of several kinds
            if callable(getattr(option, "load", None)):
                try:
                    return cast("Any", option).load(folder)
                except ConfigError as error:
                    missing = error
        raise missing

    def defence(self, table: Mapping[str, Any]) -> DefenceConfig:
        name, kind = table["name"], table["kind"]
        options = {k: self.value(v) for k, v in table["options"].items()}
        found = check_options(defences, kind, options, where=f"defence {name!r}")
        return DefenceConfig(name, kind, found)

    def model(self, role: str, table: Mapping[str, Any]) -> ModelConfig:
        where = f"the {role} model"
        if role not in ROLES and not role.startswith(SEVERAL):
            raise KeyError(role)
        options = {k: self.value(v) for k, v in table["options"].items()}
        config = read(ModelConfig, {k: v for k, v in table.items() if k != "options"}, where=where)
        found = check_options(model_kinds, config.kind, options, where=where)
        return replace(config, options=found)

    def value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if not isinstance(value, Mapping):
            return value
        if "$table" in value:
            return {k: self.value(v) for k, v in value["$table"].items()}
        if "$inside" in value:
            return str(self.inside(value["$inside"]))
        return str(_located(Path(value["$file"]), value["sha256"]))

    def inside(self, name: str) -> Path:
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise KeyError(name)
        return path


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value.keys() & {"$turns", "$saved"})


def _located(path: Path, digest: str) -> Path:
    """Where the file with that hash is: at its old place, or among the models of this machine.

    Raises:
        ConfigError: it is nowhere, or what is there is another.
    """
    for place in (path, catalog.directory() / path.name):
        if place.exists() and digest_of(place) == digest:
            return place
    raise ConfigError(
        f"the bundle needs {path.name!r} (sha256 {digest[:16]}…): neither {str(path)!r} nor a file of "
        f"that name in {str(catalog.directory())!r} is it; put it there, or make the bundle "
        "with --with-models"
    )


def _files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.is_file() or f.is_symlink())
