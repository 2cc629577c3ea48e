"""What was covered in the texts of a conversation, so that its next turn looks through what is new.

earlier turns, sent again ─▶ under the same name ─▶ their spans, as long as no new value stands there
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from cosilo.defences.detection import Span
from cosilo.defences.recent import Recent

CoveredText = tuple[tuple[Span, ...], tuple[Span, ...]]
"""The spans that were found in a text, without overlaps, and those that were covered."""


@dataclass
class KnownTexts:
    """The texts of one message.

    Attributes:
        names: of its first text, of its first two, and so on.
        before: what was covered in the first of them when they were all that there was.
        now: what is covered in all of them; None where that is not to be kept.
    """

    names: Sequence[bytes]
    before: tuple[CoveredText, ...]
    now: tuple[CoveredText, ...] | None = None


class EarlierTurns:
    """Keeps where values stood, what kind they were of and how sure that was; no text.

    It is kept under a MAC, whose key each process draws anew, of the conversation's own key (which is
    another one for every caller), its texts and what was found in them.

    Args:
        size: how many spans and texts are kept, those used last.
    """

    def __init__(self, size: int) -> None:
        self._secret = secrets.token_bytes(32)
        self._kept: Recent[bytes, tuple[CoveredText, ...]] = Recent(
            size, lambda texts: sum(1 + len(found) + len(covered) for found, covered in texts)
        )

    def of(
        self,
        key: bytes,
        texts: Sequence[str],
        found: Sequence[Sequence[Span]],
        from_lm: Sequence[bool],
    ) -> KnownTexts:
        """What is known of `texts`, in a conversation whose key is `key`."""
        name = hashlib.blake2b(key, key=self._secret, digest_size=32)
        names = []
        by_lm = from_lm or [False] * len(texts)
        for text, here, said in zip(texts, found, by_lm, strict=True):
            written = text.encode(errors="surrogatepass")
            name.update(msgspec.msgpack.encode((written, here, said)))
            names.append(name.digest())
        kept = (self._kept.get(each) for each in reversed(names))
        return KnownTexts(names, next((some for some in kept if some is not None), ()))

    def keep(self, known: KnownTexts) -> None:
        if known.now is not None and known.names:
            self._kept.put(known.names[-1], known.now)
