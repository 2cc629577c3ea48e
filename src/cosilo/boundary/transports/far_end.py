"""What bytes that came back are taken for: a reply, a piece of one, or what was refused."""

from __future__ import annotations

from typing import TypeVar

from cosilo.boundary.messages import (
    Completion,
    Message,
    Piece,
    Refused,
    Request,
    decode,
)
from cosilo.boundary.transports.refusals import raised
from cosilo.errors import UnexpectedReplyError
from cosilo.types import Delta

M = TypeVar("M", bound=Message)


class Arrived:
    """What has come of a reply in pieces.

    Args:
        quoted: it comes from a party in other hands.
    """

    def __init__(self, *, quoted: bool) -> None:
        self._quoted = quoted
        self._size, self._ended = 0, False

    def take(self, data: bytes) -> Delta:
        """The piece in `data`.

        Raises:
            CosiloError: the other party refused to go on, with the error that it had.
            UnexpectedReplyError: it is none, or the reply has no end.
        """
        delta = _received(data, Piece, quoted=self._quoted).delta
        self._size += len(data)
        if self._size > Completion.largest or (self._ended and delta.finish_reason):
            raise UnexpectedReplyError("the reply went on and on")
        self._ended = self._ended or delta.finish_reason is not None
        return delta


def reply_in(data: bytes, message: Message, *, quoted: bool) -> Message:
    """The reply in `data` to `message`.

    Args:
        quoted: it comes from a party in other hands.

    Raises:
        CosiloError: the other party refused, with the error that it had.
        UnexpectedReplyError: it is none, or another than was asked for.
    """
    if not isinstance(message, Request):
        return _received(data, Message, quoted=quoted)
    reply = _received(data, message.reply, quoted=quoted)
    try:
        message.check_reply(reply)
    except ValueError as error:
        raise UnexpectedReplyError(
            f"the other party's {type(reply).__name__} is not what was asked for: {error}"
        ) from None
    return reply


def _received(data: bytes, wanted: type[M], *, quoted: bool) -> M:
    """The message in `data`, which must be of the class `wanted`."""
    found = decode(data)
    if isinstance(found, wanted):
        return found
    if isinstance(found, Refused):
        raise raised(found, quoted=quoted)
    raise UnexpectedReplyError(
        f"the other party answered with {type(found).__name__}, not {wanted.__name__}"
    )
