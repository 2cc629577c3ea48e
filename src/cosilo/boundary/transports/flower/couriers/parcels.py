"""What of Cosilo's is in a message of Flower's: one record of words and bytes, no arrays, no pickle."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import ConfigRecord, RecordDict

from .frames import MOST_BODY, Words

RECORD = "cosilo"
SOCKET = "cosilo-socket"
"""What a node's configuration, and a run's, call the socket that Cosilo's process listens at."""

_WORDS = ("id", "speaks", "failed", "seconds")
_LONGEST = 4096  # characters of all of them: a frame has room for these, however they are encoded


def parcel(words: Mapping[str, str], body: bytes = b"") -> RecordDict:
    """A message's content."""
    return RecordDict({RECORD: ConfigRecord({**words, "body": body})})


def opened(content: object) -> tuple[Words, bytes]:
    """The words and bytes in a message's content, which whoever sent it made as it liked.

    Raises:
        ValueError: it holds something else, or more than a frame may have.
    """
    record = content.get(RECORD) if isinstance(content, RecordDict) else None
    if not isinstance(record, ConfigRecord):
        raise ValueError("a message that is none of Cosilo's")
    words = {name: record[name] for name in _WORDS if name in record}
    body = record.get("body")
    if not isinstance(body, bytes) or not all(isinstance(w, str) for w in words.values()):
        raise ValueError("a message that is none of Cosilo's")
    if len(body) > MOST_BODY or sum(map(len, words.values())) > _LONGEST:
        raise ValueError("a message that is longer than any of Cosilo's")
    return words, body
