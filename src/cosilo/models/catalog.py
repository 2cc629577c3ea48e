"""The models that install from a package index: what they are, where they lie, whether they are whole.

    catalog.toml ──▶ Entry ──▶ path(name)     the file or folder, if it is there and unchanged
                           └─▶ verify(name)   every byte hashed again
    pull.py fetches what is missing.

They lie in $COSILO_MODELS, or else in cosilo/models under $XDG_CACHE_HOME or ~/.cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath

from cosilo.caches import cache_folder
from cosilo.errors import CatalogError
from cosilo.registry import unknown

_STAMP = ".verified.json"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Part:
    """One member of a package; `package` pins the exact version."""

    package: str
    member: str
    size: int
    sha256: str


@dataclass(frozen=True)
class File:
    """A file of a model: its parts, joined in order. `size` is in bytes."""

    path: str
    size: int
    sha256: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class CatalogEntry:
    """A model of the catalog.

    Attributes:
        kind: what it is, in words.
        licence: as far as it is stated, and what is not.
    """

    name: str
    kind: str
    licence: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def packages(self) -> tuple[str, ...]:
        """The requirements it is made from, each with its exact version, in order."""
        return tuple(dict.fromkeys(p.package for f in self.files for p in f.parts))


def directory() -> Path:
    """Where models lie."""
    chosen = os.environ.get("COSILO_MODELS")
    return Path(chosen).expanduser() if chosen else cache_folder() / "models"


@cache
def entries() -> Mapping[str, CatalogEntry]:
    """The catalog: name → entry."""
    text = resources.files("cosilo.models").joinpath("catalog.toml").read_text("utf-8")
    return {name: _entry(name, table) for name, table in tomllib.loads(text).items()}


def entry(name: str) -> CatalogEntry:
    """The entry called `name`.

    Raises:
        CatalogError: there is none; the message gives the nearest.
    """
    try:
        return entries()[name]
    except KeyError:
        raise CatalogError(unknown("model in the catalog", name, entries())) from None


def path(name: str) -> Path:
    """Where the model `name` lies: its file if it has one, else its folder.

    A file whose size or time changed since it was last verified is hashed again, so that what is
    loaded is what the catalog says.

    Raises:
        CatalogError: it was not pulled, or a file is not what it claims to be.
    """
    model = entry(name)
    folder = directory() / name
    if not folder.is_dir():
        raise CatalogError(f"model {name!r} is not here; run: cosilo models pull {name}")
    if _read_stamp(folder) != _stamp(model, folder):
        check(model, folder)
        write_stamp(model, folder)
    return folder / model.files[0].path if len(model.files) == 1 else folder


def verify(name: str) -> Path:
    """Hash every file of `name` again; what `path` returns. A wrong file is renamed, so none loads it.

    Raises:
        CatalogError: it was not pulled, or a file is not what it claims to be.
    """
    folder = directory() / entry(name).name
    if folder.is_dir():
        (folder / _STAMP).unlink(missing_ok=True)
    return path(name)


def is_here(name: str) -> bool:
    """Whether all files of `name` are there at their right size (`verify` looks at every byte)."""
    model = entry(name)
    folder = directory() / name
    return all(_size(folder / file.path) == file.size for file in model.files)


def check(model: CatalogEntry, folder: Path) -> None:
    """Hash the files of `model` in `folder`.

    Raises:
        CatalogError: one is missing, or is not what it claims to be; it is renamed then.
    """
    for file in model.files:
        found = folder / file.path
        try:
            size, digest = found.stat().st_size, sha256(found)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise CatalogError(
                f"model {model.name!r}: {str(found)!r} cannot be read ({reason}); "
                f"run: cosilo models pull {model.name}"
            ) from None
        if digest != file.sha256:
            raise CatalogError(refused(model, file, found, size, digest))


def refused(model: CatalogEntry, file: File, found: Path, size: int, digest: str) -> str:
    """Rename the wrong file `found`; returns an error text that says so and how to fetch the right
    one.
    """
    aside = set_aside(found)
    kept = f"; it now lies at {str(aside)!r}" if aside else ""
    return (
        f"model {model.name!r}: {file.path!r} is not the file the catalog names: sha256 "
        f"{digest[:16]}… in {size:,} bytes, expected {file.sha256[:16]}… in {file.size:,}{kept}; "
        f"run: cosilo models pull {model.name}"
    )


def set_aside(found: Path) -> Path | None:
    """Rename `found` to a free name that ends in `.wrong`; None where that is not allowed."""
    number = 1
    while (aside := found.with_name(f"{found.name}.wrong{number if number > 1 else ''}")).exists():
        number += 1
    try:
        found.rename(aside)
    except OSError:
        return None
    return aside


def sha256(file: Path) -> str:
    """The hash of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_stamp(model: CatalogEntry, folder: Path) -> None:
    """Remember which files were verified, by size and time; harmless where it cannot be written."""
    stamp = _stamp(model, folder)
    try:
        temporary = folder / f"{_STAMP}.{os.getpid()}"
        temporary.write_text(json.dumps(stamp), "utf-8")
        temporary.replace(folder / _STAMP)
    except OSError:
        return


def _stamp(model: CatalogEntry, folder: Path) -> dict[str, object]:
    return {file.path: [file.sha256, *_facts(folder / file.path)] for file in model.files}


def _read_stamp(folder: Path) -> object:
    try:
        return json.loads((folder / _STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _facts(file: Path) -> Iterator[int]:
    try:
        found = file.stat()
    except OSError:
        return
    yield from (found.st_size, found.st_mtime_ns)


def _size(file: Path) -> int:
    return next(_facts(file), -1)


def _entry(name: str, table: Mapping[str, object]) -> CatalogEntry:
    files = table["files"]
    assert isinstance(files, list)
    return CatalogEntry(
        name, str(table["kind"]), " ".join(str(table["licence"]).split()), tuple(map(_file, files))
    )


def _file(table: Mapping[str, object]) -> File:
    place = str(table["path"])
    assert not PurePosixPath(place).is_absolute()
    assert ".." not in PurePosixPath(place).parts
    parts = table.get("parts", [table])
    assert isinstance(parts, list)
    return File(place, _number(table["size"]), str(table["sha256"]), tuple(map(_part, parts)))


def _part(table: Mapping[str, object]) -> Part:
    return Part(
        str(table["package"]),
        str(table["member"]),
        _number(table["size"]),
        str(table["sha256"]),
    )


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value
