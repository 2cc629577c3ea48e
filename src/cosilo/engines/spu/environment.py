"""The environment that SPU runs in: its own, since it needs another numpy than ours.

    pins ──▶ a virtual environment ──▶ what is in it, imported and looked at ──▶ the marker, last of all

Without a marker that says these very pins, what is there is half made or of another version, and is
made again.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cosilo.caches import cache_folder
from cosilo.errors import CatalogError

PINS = (
    "spu==0.9.5",
    "jax==0.4.34",
    "jaxlib==0.4.34",
    "numpy==1.26.4",
    "scipy==1.17.1",
    "ml-dtypes==0.5.4",
    "opt-einsum==3.4.0",
    "cachetools==8.0.2",
    "cloudpickle==3.1.3",
    "multiprocess==0.70.19",
    "dill==0.4.1",
    "termcolor==3.3.0",
    "msgspec==0.23.0",
)
"""What SPU needs and our worker: all of it, so that two parties that installed it have the same."""

INSTALL = "cosilo engines install spu"
_MARKER = "cosilo.json"
_SAYS = (
    "import json, importlib.metadata as m, spu.libspu, jax, numpy, msgspec; "
    "print(json.dumps({p: m.version(p) for p in %r.split()}))"
)


class Environment(msgspec.Struct, frozen=True):
    """An environment that is whole.

    Attributes:
        python: its interpreter.
        versions: of its packages, by name.
    """

    python: Path
    versions: dict[str, str]


def directory() -> Path:
    """Where engines' environments lie: $COSILO_ENGINES, or in the cache folder."""
    chosen = os.environ.get("COSILO_ENGINES")
    return Path(chosen).expanduser() if chosen else cache_folder() / "engines"


def found() -> Environment | None:
    """The environment, where it is here and whole by what its marker says."""
    place = directory() / "spu"
    try:
        versions = msgspec.json.decode((place / _MARKER).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return None
    python = place / "bin" / "python"
    whole = versions == _pinned() and os.access(python, os.X_OK)
    return Environment(python, versions) if whole else None


def require() -> Environment:
    """The environment.

    Raises:
        CatalogError: it is not here, half made, or has other versions.
    """
    here = found()
    if here is None:
        raise CatalogError(
            f"the engine 'spu' is not in {str(directory() / 'spu')!r}, or not whole; `{INSTALL}` "
            "makes its environment"
        )
    return here


def install(say: Callable[[str], None] = lambda _: None) -> Environment:
    """Make the environment, unless it is here and what it holds can be imported.

    Args:
        say: told what is done, a line each.

    Raises:
        CatalogError: the package index has not all of it for this Python, or the disk is full.
    """
    place = directory() / "spu"
    try:
        directory().mkdir(parents=True, exist_ok=True)
        with _alone(directory() / "spu.lock"):
            here = found()
            if here is not None and _imported(here.python) == here.versions:
                return here
            if place.exists():
                say(f"{place} is not whole: it is made again")
            return _made(place, say)
    except OSError as error:
        raise CatalogError(
            f"the environment of the engine 'spu' cannot be made in {str(place)!r}: {error.strerror}"
        ) from None


def _made(place: Path, say: Callable[[str], None]) -> Environment:
    (place / _MARKER).unlink(missing_ok=True)  # first of all: what is half deleted is not whole
    shutil.rmtree(place, ignore_errors=True)
    say(f"making {place}")
    _run([sys.executable, "-m", "venv", str(place)], "a virtual environment cannot be made")
    python = place / "bin" / "python"
    say(f"fetching {', '.join(PINS)}")
    _run(
        [
            *(str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"),
            *("--only-binary", ":all:", "--no-deps", *PINS),
        ],
        f"the package index has not all of {', '.join(PINS[:4])} for Python "
        f"{sys.version_info.major}.{sys.version_info.minor} on this machine (SPU has wheels for few: "
        "Linux with Python 3.11 is one)",
    )
    versions = _imported(python)
    if versions != _pinned():
        raise CatalogError("the packages of the engine 'spu' were fetched, but cannot be imported")
    partial = place / f"{_MARKER}.partial"
    partial.write_text(json.dumps(versions, indent=1) + "\n")
    partial.rename(place / _MARKER)
    return Environment(python, versions)


def _pinned() -> dict[str, str]:
    return dict(pin.split("==") for pin in PINS)


def _imported(python: Path) -> dict[str, str] | None:
    """The versions of what an environment holds; None where it lacks one or cannot import it."""
    says = _SAYS % " ".join(_pinned())
    try:
        ran = subprocess.run([str(python), "-I", "-c", says], capture_output=True, check=True)
        return msgspec.json.decode(ran.stdout.splitlines()[-1], type=dict[str, str])
    except (OSError, subprocess.CalledProcessError, IndexError, msgspec.DecodeError):
        return None


def _run(command: list[str], otherwise: str) -> None:
    ran = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if ran.returncode:
        lines = [each for each in ran.stderr.decode(errors="replace").splitlines() if each.strip()]
        said = next((each for each in lines if each.startswith("ERROR")), (lines or [""])[-1])
        raise CatalogError(f"{otherwise}; what it said: {said[:300]!r}")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Only one process at a time makes it; the lock goes with the process."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
