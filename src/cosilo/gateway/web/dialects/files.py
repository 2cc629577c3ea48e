"""Files in a client's request: what each dialect finds, and the marks that keep their places.

    part of a message ─▶ Files.take ─▶ a mark in the text ─(read at home)─▶ the file's text there

A dialect cannot read a file, which takes time and a process. It leaves a mark, which nobody outside can
know beforehand, and `Gateway._answer` puts the text there before anything else is done with the
request: so it goes through the same guards as what was typed.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from cosilo.gateway.refusals import RequestError
from cosilo.types import Chat

_DATA_URL = re.compile(
    r"data:([a-z0-9.+-]+/[a-z0-9.+-]+)?(?:;[a-z0-9.+=-]+)*;base64,", re.IGNORECASE
)
_TEXTUAL = re.compile(
    r"text/[a-z0-9.+-]+|application/(?:json|xml|x-yaml|yaml|sql|x-ndjson|javascript|toml)"
    r"|application/[a-z0-9.+-]+\+(?:json|xml)"
)
_IMAGES = {
    "image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/webp": "webp",
    "image/gif": "gif", "image/tiff": "tiff", "image/bmp": "bmp",
}  # fmt: skip
_PDF = "application/pdf"
_NAME = re.compile(r"[\x00-\x1f\x7f]")
MOST = 64
"""Files in one request."""


@dataclass(frozen=True)
class ClientFile:
    """A file whose text has to be read.

    Attributes:
        kind: `pdf`, or what kind of image it is.
        name: what the client calls it; empty where it does not.
        where: the field that it came in.
        mark: what stands for it in the chat.
    """

    kind: str
    data: bytes
    name: str
    where: str
    mark: str


@dataclass
class Files:
    """The files of one request, in their order."""

    found: list[ClientFile] = field(default_factory=list)

    def take(self, data: str, where: str, *, media: str = "", name: str | None = None) -> str:
        """What stands in the text for a file: its text, or a mark where that has to be read.

        Args:
            data: a data URL, or base64.
            media: what kind of file it is said to be, where no data URL says it; else its name does.

        Raises:
            RequestError: it is none of these, of a kind that holds no text, or one too many.
        """
        if re.match(r"https?:", data, re.IGNORECASE):
            raise refused(
                where, "nothing is fetched for a request; send the file itself, in base64"
            )
        if said := _DATA_URL.match(data):
            media, data = (said[1] or "text/plain"), data[said.end() :]
        if not media and name:
            media = mimetypes.guess_type(name)[0] or ""
        media = media.lower().partition(";")[0].strip()
        try:
            content = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise refused(where, "the file is not base64") from None
        if not content:
            raise refused(where, "the file is empty")
        called = _NAME.sub(" ", name or "")[:200]
        if b"%PDF-" in content[:1024] and media in ("", _PDF, "application/octet-stream"):
            return self._marked("pdf", content, called, where)
        if media in _IMAGES:
            return self._marked(_IMAGES[media], content, called, where)
        if media == _PDF:
            raise refused(where, "the file is no PDF")
        if not _TEXTUAL.fullmatch(media):
            raise refused(
                where,
                "only text can be kept private; of files, PDFs and those of a text type can be read",
            )
        try:
            return headed(called, content.decode())
        except UnicodeDecodeError:
            raise refused(where, "the file is no text in UTF-8") from None

    def _marked(self, kind: str, data: bytes, name: str, where: str) -> str:
        if len(self.found) == MOST:
            raise refused(where, f"a request can hold {MOST} files")
        mark = f"\ue000{secrets.token_hex(16)}\ue000"
        self.found.append(ClientFile(kind, data, name, where, mark))
        return mark


def elsewhere(where: str, field: str, *, kept: bool) -> RequestError:
    """The refusal of a file that is not in the request itself, but in the place that `field` names.

    Args:
        kept: it should be one that was sent before.
    """
    why = "no files are kept here" if kept else "nothing is fetched for a request"
    return RequestError(
        f"{where}: {why}; send the file itself, in base64",
        param=f"{where}.{field}", code="unsupported_content",
    )  # fmt: skip


def refused(where: str, why: str) -> RequestError:
    return RequestError(f"{where}: {why}", param=where, code="unsupported_content")


def headed(name: str, text: str) -> str:
    """A file's text under its name."""
    return f"{name}:\n{text}" if name else text


def placed(chats: tuple[Chat, ...], texts: Mapping[str, str]) -> tuple[Chat, ...]:
    """`chats` with the text of each file where its mark stands."""
    marks = re.compile("|".join(map(re.escape, texts)))
    return tuple(
        tuple(
            msgspec.structs.replace(
                turn, content=marks.sub(lambda found: texts[found[0]], turn.content)
            )
            for turn in chat
        )
        for chat in chats
    )
