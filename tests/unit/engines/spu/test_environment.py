from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cosilo.engines.spu import environment
from cosilo.errors import CatalogError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COSILO_ENGINES", str(tmp_path))
    return tmp_path / "spu"


class Pip:
    """What runs commands in the place of pip and of the environment's Python."""

    def __init__(self, *, has_wheels: bool = True) -> None:
        self.has_wheels = has_wheels
        self.installed = False
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        self.commands.append(command)
        if "venv" in command:
            python = Path(command[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch(0o755)
        elif "install" in command:
            if not self.has_wheels:
                said = b"ERROR: No matching distribution found for spu==0.9.5\n"
                return subprocess.CompletedProcess(command, 1, b"", said)
            self.installed = True
        elif not self.installed:
            raise subprocess.CalledProcessError(1, command)
        pins = dict(pin.split("==") for pin in environment.PINS)
        return subprocess.CompletedProcess(command, 0, json.dumps(pins).encode() + b"\n", b"")

    def made(self) -> int:
        return sum("venv" in command for command in self.commands)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Pip:
    pip = Pip()
    monkeypatch.setattr(subprocess, "run", pip)
    return pip


def test_without_an_environment_the_command_that_makes_it_is_named(folder: Path) -> None:
    with pytest.raises(CatalogError, match="cosilo engines install spu"):
        environment.require()


def test_it_is_made_once_with_every_version_pinned(folder: Path, pip: Pip) -> None:
    here = environment.install()
    assert here == environment.install() == environment.require()
    assert here.python == folder / "bin" / "python"
    assert pip.made() == 1
    fetched = next(command for command in pip.commands if "install" in command)
    assert set(environment.PINS) <= set(fetched)
    assert "--no-deps" in fetched


def test_a_half_made_environment_is_made_again(folder: Path, pip: Pip) -> None:
    environment.install()
    (folder / "cosilo.json").unlink()
    assert environment.found() is None
    environment.install()
    assert pip.made() == 2


def test_an_environment_that_cannot_be_imported_is_made_again(folder: Path, pip: Pip) -> None:
    environment.install()
    pip.installed = False
    environment.install()
    assert pip.made() == 2


def test_one_that_was_killed_while_it_deleted_the_old_one_is_not_whole(
    folder: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.install()
    pip.installed = False

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(environment.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        environment.install()
    assert environment.found() is None


@pytest.mark.parametrize("marker", [b"", b"{", b"[1]", b'{"spu": "0.9.4"}'])
def test_a_marker_of_other_versions_does_not_count(folder: Path, pip: Pip, marker: bytes) -> None:
    environment.install()
    (folder / "cosilo.json").write_bytes(marker)
    assert environment.found() is None


def test_an_index_without_a_wheel_is_said_and_leaves_no_marker(folder: Path, pip: Pip) -> None:
    pip.has_wheels = False
    with pytest.raises(CatalogError, match=r"has wheels for few.*No matching distribution"):
        environment.install()
    assert environment.found() is None
