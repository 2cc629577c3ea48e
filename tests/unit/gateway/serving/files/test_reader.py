"""Files become text within limits, and what cannot be read is refused with what would do."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path

import pytest

from cosilo.errors import ConfigError
from cosilo.gateway.refusals import RequestError
from cosilo.gateway.serving.files.reader import FileReader
from pdfs import encrypted, pdf

pytest.importorskip("pypdf", reason="needs the pdf extra")

SECRET = "Ottilie Katzenstein"


async def refused(data: bytes, **limits: float) -> str:
    with pytest.raises(RequestError) as caught:
        await FileReader(**limits).pdf(data, "messages[0]")  # type: ignore[arg-type]
    error = caught.value
    assert (error.status, error.param, error.code) == (400, "messages[0]", "unsupported_content")
    assert SECRET not in str(error)
    return str(error)


async def test_the_text_of_each_page() -> None:
    text = await FileReader().pdf(pdf(f"Dear {SECRET}\n(of Bonn)", "Page two"), "f")
    assert text == f"Dear {SECRET}\n(of Bonn)\n\nPage two"


async def test_a_page_without_text_among_others_is_named() -> None:
    assert "[page 2: no text" in await FileReader().pdf(pdf("one", "", "three"), "f")


async def test_one_that_opens_without_a_password_is_read() -> None:
    assert await FileReader().pdf(encrypted(pdf("open"), ""), "f") == "open"


async def test_what_cannot_be_read_is_refused_with_the_reason() -> None:
    assert "encrypted" in await refused(encrypted(pdf(SECRET), "secret"))
    assert "scan" in await refused(pdf("", ""))
    assert "more pages" in await refused(pdf("a", "b", "c"), pages=2)
    for broken in (b"%PDF-1.4 nothing", pdf(SECRET)[:200], b"%PDF-" + bytes(9999)):
        assert "damaged" in await refused(broken)


async def test_one_that_unpacks_to_more_memory_than_there_is_is_ended() -> None:
    # 40 MB of text in 40 kB; the reader's own limit or the kernel's stops it.
    bomb = pdf("x", content=b"BT /F1 12 Tf (" + b"a" * 40_000_000 + b") Tj ET", packed=True)
    assert len(bomb) < 100_000
    said = await refused(bomb, seconds=20)
    assert any(word in said for word in ("more text", "memory", "damaged", "within"))


async def test_one_that_takes_too_long_is_ended_with_its_process() -> None:
    slow = pdf("x", content=b"BT /F1 12 Tf (a) Tj ET " * 400_000, packed=True)
    assert "within 0.3 s" in await refused(slow, seconds=0.3)


async def test_no_more_than_some_are_read_at_once_and_one_that_hangs_holds_up_no_other() -> None:
    reader = FileReader(
        seconds=0.5, ocr=[sys.executable, "-c", "import time; time.sleep(60)", "{file}"]
    )
    tasks = [asyncio.create_task(reader.image(b"x", "png", "f")) for _ in range(3)]
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, RequestError)
    assert reader._room._value == 2


def script(folder: Path, text: str) -> list[str]:
    file = folder / "ocr.py"
    file.write_text(text)
    return [sys.executable, str(file), "{file}"]


async def test_an_image_is_refused_unless_a_program_reads_it() -> None:
    with pytest.raises(RequestError, match="only text can be kept private"):
        await FileReader().image(b"x", "png", "f")


async def test_the_program_is_given_a_private_file_that_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXAMPLE_KEY", "sk-secret")
    ocr = script(
        tmp_path,
        "import os, pathlib, sys\n"
        "f = pathlib.Path(sys.argv[1])\n"
        "print(f.suffix, oct(f.stat().st_mode), oct(f.parent.stat().st_mode), f.read_bytes(),\n"
        "      'EXAMPLE_KEY' in os.environ, f)\n",
    )
    said = await FileReader(ocr=ocr).image(b"pixels; rm -rf $HOME", "png", "f")
    suffix, mode, folder, *_, path = said.split()
    assert suffix == ".png"
    assert stat.S_IMODE(int(mode, 8)) == 0o600
    assert stat.S_IMODE(int(folder, 8)) == 0o700
    assert "rm -rf $HOME" in said
    assert " False " in said
    assert not Path(path).parent.exists()


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("print('  ')", "no text was found"),
        ("raise SystemExit(3)", "failed"),
        ("print('x' * 40_000_000)", "more text"),
        ("import time; time.sleep(60)", "within 3 s"),
    ],
)
async def test_a_program_that_does_not_do_is_told(program: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=told):
        await FileReader(ocr=script(tmp_path, program), seconds=3).image(b"x", "png", "f")


@pytest.mark.parametrize(
    "options",
    [{"pages": 0}, {"seconds": 0}, {"seconds": float("nan")}, {"ocr": ["tesseract"]},
     {"ocr": ["{file}"]}, {"ocr": ["no-such-program-here", "{file}"]}],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        FileReader(**options)  # type: ignore[arg-type]


async def test_without_the_package_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pypdf.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    assert "cosilo[pdf]" in await refused(pdf("x"))
