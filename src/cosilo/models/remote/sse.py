"""Server-sent events, from bytes that may be cut anywhere.

Specification: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
Lines end with CR, LF or CRLF; an empty line ends an event; `data` lines of one event are joined with
LF; comments and all other fields are skipped. Bytes stay bytes, so no cut can split a character.
"""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"


class EventTooLongError(Exception):
    """One event is longer than allowed."""


class Events:
    """A parser of server-sent events: fed with bytes, it returns the data of each complete event.

    Args:
        most: bytes that one event may have.
    """

    def __init__(self, *, most: int = 4 << 20) -> None:
        self._most = most
        self._rest = bytearray()  # a line that is not complete
        self._data: list[bytes] = []  # of an event that is not complete
        self._size = 0
        self._after_cr = False
        self._first = True

    def feed(self, piece: bytes) -> list[bytes]:
        """The events that `piece` completes.

        Raises:
            EventTooLongError: an event is too long.
        """
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        if piece.endswith(b"\r"):
            self._after_cr = True
        if len(self._rest) + self._size > self._most:
            raise EventTooLongError
        self._rest += piece
        if b"\n" not in piece and b"\r" not in piece:
            return []
        text = bytes(self._rest)
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = text.split(b"\n")
        self._rest = bytearray(lines.pop())
        return [event for line in lines if (event := self._line(line)) is not None]

    def end(self) -> list[bytes]:
        """The event that the end of the stream completes: some servers omit the last empty line."""
        last, self._rest = bytes(self._rest), bytearray()
        return [event for line in (last, b"") if (event := self._line(line)) is not None]

    def _line(self, line: bytes) -> bytes | None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            if not self._data:
                return None
            event, self._data, self._size = b"\n".join(self._data), [], 0
            return event
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(line)
        return None
