"""The process in which a PDF is read: `python -m … SECONDS PAGES`, the PDF on standard input.

    PDF ──▶ the kernel's limits on memory and CPU ──▶ pypdf ──▶ {"pages": […]} or {"why": "…"}

A PDF is a program for a small machine, and may loop, or unpack to any size. What it does it does here,
and nothing of it is repeated in an error: `why` is a word of this file.
"""

from __future__ import annotations

import io
import json
import resource
import sys

MEMORY_BYTES = 1 << 30
MOST_CHARACTERS = 4_000_000


class _RefusedError(Exception):
    """Why a PDF is not read, in one word."""


def main() -> None:
    seconds, pages = int(sys.argv[1]), int(sys.argv[2])
    for limit, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))
    answer: dict[str, object]
    try:
        answer = {"pages": read(sys.stdin.buffer.read(), pages)}
    except _RefusedError as error:
        answer = {"why": str(error)}
    except MemoryError:
        answer = {"why": "memory"}
    except Exception:  # whatever a broken file makes of a parser
        answer = {"why": "damaged"}
    sys.stdout.write(json.dumps(answer))


def read(data: bytes, most: int) -> list[str]:
    """The text of each page."""
    try:
        import pypdf
    except ImportError:
        raise _RefusedError("missing") from None
    found = pypdf.PdfReader(io.BytesIO(data))
    if found.is_encrypted:
        try:  # what only its owner's password protects opens with none
            opened = bool(found.decrypt(""))
        except Exception:
            opened = False
        if not opened:
            raise _RefusedError("encrypted")
    if len(found.pages) > most:
        raise _RefusedError("pages")
    texts: list[str] = []
    size = 0
    for page in found.pages:
        text = page.extract_text().strip()
        size += len(text)
        if size > MOST_CHARACTERS:
            raise _RefusedError("long")
        texts.append(text.encode(errors="replace").decode())
    return texts


if __name__ == "__main__":
    main()
