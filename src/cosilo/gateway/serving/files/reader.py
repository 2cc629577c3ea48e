"""Reads the text of a client's files, each in a process of its own that is ended after a while.

PDF   ──▶ pdf_text.py, under the kernel's limits        ──▶ text of its pages
image ──▶ the program that `[server] ocr` names, if any ──▶ what it prints
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

from cosilo.errors import ConfigError
from cosilo.gateway.refusals import RequestError
from cosilo.gateway.serving.files import pdf_text

FILE = "{file}"
_MOST_BYTES = 32 << 20  # of what a process may print
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TESSDATA_PREFIX", "LD_LIBRARY_PATH")
"""What a process learns of this one's environment, which also holds keys."""

_WHY = {
    "missing": "this gateway cannot read PDFs: whoever runs it has to install the extra cosilo[pdf]",
    "encrypted": "the PDF is encrypted; send it without a password",
    "pages": "the PDF has more pages than this gateway reads",
    "long": "the PDF holds more text than this gateway reads",
    "memory": "the PDF takes more memory than this gateway gives it",
    "damaged": "the PDF cannot be read: it is damaged, or no PDF",
}


class FileReader:
    """Args:
    pages: of a PDF, at most.
    seconds: how long one file may take.
    ocr: the program, and what it is told, that prints the text of the image in `{file}`; none where
        images are refused.
    at_once: files that are read at the same moment.

    Raises:
        ConfigError: a limit is not positive, or the program is not there or not told the file.
    """

    def __init__(
        self,
        *,
        pages: int = 200,
        seconds: float = 20.0,
        ocr: Sequence[str] = (),
        at_once: int = 2,
    ) -> None:
        if pages < 1 or not 0 < seconds < math.inf or at_once < 1:
            raise ConfigError("file_pages and file_seconds must be positive")
        if ocr and not any(FILE in word for word in ocr[1:]):
            raise ConfigError(f"ocr must tell the program which file: one of its words is {FILE!r}")
        if ocr and shutil.which(ocr[0]) is None:
            raise ConfigError(f"ocr: there is no program {ocr[0]!r}")
        self.pages = pages
        self.seconds = seconds
        self.ocr = tuple(ocr)
        self._room = asyncio.Semaphore(at_once)

    async def pdf(self, data: bytes, where: str) -> str:
        """The text of the PDF in `data`. A page without text is named as such, so that nobody takes
        what is there for all.

        Args:
            where: the field that it came in.

        Raises:
            RequestError: it cannot be read, or holds no text.
        """
        command = [
            sys.executable, "-P", "-m", pdf_text.__name__,
            str(math.ceil(self.seconds)), str(self.pages),
        ]  # fmt: skip
        more = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        told, _ = await self._run(command, data, where, more)
        try:
            answer = json.loads(told)
        except ValueError:  # the kernel ended it
            raise _refused(where, _WHY["memory"]) from None
        if "pages" not in answer:
            raise _refused(where, _WHY[answer["why"]])
        pages: list[str] = answer["pages"]
        if not any(pages):
            raise _refused(
                where, "the PDF holds no text: its pages are images, as of a scan; send their text"
            )
        return "\n\n".join(
            text or f"[page {number}: no text that could be read]"
            for number, text in enumerate(pages, 1)
        )

    async def image(self, data: bytes, kind: str, where: str) -> str:
        """The text that the program finds in an image.

        Args:
            kind: of the image: png, jpeg, …

        Raises:
            RequestError: there is no program for it, it failed, or found no text.
        """
        if not self.ocr:
            raise _refused(
                where,
                "only text can be kept private, so no image is sent on; whoever runs the gateway can "
                "have the text of images read at home ([server] ocr)",
            )
        folder = Path(await asyncio.to_thread(mkdtemp, prefix="cosilo-image-"))  # 0700
        try:
            file = folder / f"image.{kind}"
            await asyncio.to_thread(_write, file, data)
            command = [word.replace(FILE, str(file)) for word in self.ocr]
            told, code = await self._run(command, b"", where)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        if code:
            raise _refused(where, "the program that reads images failed")
        text = told.decode(errors="replace").strip()
        if not text:
            raise _refused(where, "no text was found in the image")
        return text

    async def _run(
        self,
        command: Sequence[str],
        given: bytes,
        where: str,
        more: Mapping[str, str] | None = None,
    ) -> tuple[bytes, int]:
        """What `command` prints, and its exit code."""
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        async with self._room:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,  # it may quote
                    start_new_session=True,
                    env={**environment, **(more or {})},
                )
            except OSError:
                raise _refused(
                    where, "the program that reads such files cannot be started"
                ) from None
            try:
                async with asyncio.timeout(self.seconds):
                    told = await _exchanged(process, given)
                    code = await process.wait()
            except TimeoutError:
                raise _refused(
                    where, f"the file could not be read within {self.seconds:g} s"
                ) from None
            finally:
                await _ended(process)
        if len(told) > _MOST_BYTES:
            raise _refused(where, "the file holds more text than this gateway reads")
        return told, code


async def _exchanged(process: asyncio.subprocess.Process, given: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    stdin = process.stdin

    async def feed() -> None:
        with suppress(ConnectionError):  # it does not want to know more
            stdin.write(given)
            await stdin.drain()
            stdin.close()

    feeding = asyncio.create_task(feed())
    try:
        told = bytearray()
        while piece := await process.stdout.read(1 << 16):
            told += piece
            if len(told) > _MOST_BYTES:
                os.killpg(process.pid, signal.SIGKILL)
                break
        return bytes(told)
    finally:
        feeding.cancel()


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End the process and all that it started."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())


def _write(file: Path, data: bytes) -> None:
    handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(data)


def _refused(where: str, why: str) -> RequestError:
    return RequestError(f"{where}: {why}", param=where, code="unsupported_content")
