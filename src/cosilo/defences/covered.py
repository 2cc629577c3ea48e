"""What was covered in the texts of a conversation, so that its next turn looks through what is new.

earlier turns, sent again ─▶ under the same name ─▶ their spans, as long as no new value stands there
                                                └─▶ their placeholders, and that they come back exactly
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cosilo.defences.beginnings import folded
from cosilo.defences.detection import Span
from cosilo.defences.recent import Recent


class CoveredText(NamedTuple):
    """What became of a text.

    Attributes:
        found: the spans that were found in it, without overlaps.
        covered: those that were covered.
        codes: the placeholder that was put in the place of each of these; "" where that may be another
            the next time. None at all where other spans were put.
        sure: with them in it was found to be restored exactly, and to hold no URL with one of them.
    """

    found: tuple[Span, ...]
    covered: tuple[Span, ...]
    codes: tuple[str, ...] = ()
    sure: bool = False


@dataclass
class KnownTexts:
    """The texts of one message.

    Attributes:
        name: of all of them.
        order: which comes first: turns are last, so that a later message begins as this one.
        before: what became of some of them when those were all that there was; None for the others.
        form: how placeholders were found then.
        now: what becomes of all of them; None where that is not to be kept.
    """

    name: bytes
    order: Sequence[int]
    before: Sequence[CoveredText | None]
    form: bytes = b""
    now: Sequence[CoveredText] | None = None

    def forget(self) -> None:
        """Let nothing of what was before count."""
        self.before = [None] * len(self.before)

    def codes(self, texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> dict[str, str]:
        """The placeholder that each value had, where `spans` are put in `texts`."""
        found: dict[str, str] = {}
        for was, text, here in zip(self.before, texts, spans, strict=True):
            if was is not None and was.codes and was.covered == tuple(here):
                for span, code in zip(here, was.codes, strict=True):
                    if code:
                        found[text[span.start : span.end]] = code
        return found

    def still_sure(
        self, form: bytes, shown: Sequence[Sequence[str]], spans: Sequence[Sequence[Span]]
    ) -> list[bool]:
        """Which texts are sure with `shown` in the places of `spans`, unless a placeholder stands there
        that there was not before.
        """
        return [
            was is not None
            and was.sure
            and self.form == form
            and was.covered == tuple(here)
            and was.codes == tuple(put)
            for was, put, here in zip(self.before, shown, spans, strict=True)
        ]


class EarlierTurns:
    """Keeps where values stood, what kind they were of, how sure that was, and what was put in their
    places; no text of the owner's.

    It is kept under a MAC, whose key each process draws anew, of the conversation's own key (which is
    another one for every caller), its texts and what decides what is found in them.

    Args:
        size: how many spans and texts are kept, those used last.
    """

    def __init__(self, size: int) -> None:
        self._secret = secrets.token_bytes(32)
        self._kept: Recent[bytes, tuple[tuple[CoveredText, ...], bytes]] = Recent(
            size, lambda kept: sum(1 + len(text.found) + len(text.covered) for text in kept[0])
        )

    def of(
        self,
        key: bytes,
        about: bytes,
        texts: Sequence[bytes],
        from_lm: Sequence[bool],
        in_no_turn: Sequence[bool],
    ) -> KnownTexts:
        """What is known of some texts, in a conversation whose key is `key`.

        Args:
            about: a name for what else decides which spans of a text are private.
            texts: a name for each and for the spans that were found in it.
            from_lm: which of them the LM said.
            in_no_turn: which of them stand beside the turns.
        """
        name = hashlib.blake2b(key, key=self._secret, digest_size=32)
        name.update(len(about).to_bytes(8) + about)
        order = sorted(range(len(texts)), key=lambda i: not in_no_turn[i])
        names = [b""]
        for i in order:
            name.update(len(texts[i]).to_bytes(8) + texts[i] + bytes([from_lm[i], in_no_turn[i]]))
            names.append(name.digest())
        kept = (self._kept.get(each) for each in reversed(names))
        some, form = next((found for found in kept if found is not None), ((), b""))
        before: list[CoveredText | None] = [None] * len(texts)
        for i, text in zip(order, some, strict=False):
            before[i] = text
        return KnownTexts(names[-1], order, before, form)

    def form(self, pattern: str) -> bytes:
        """A name for how placeholders are found, which may tell some of them."""
        return hashlib.blake2b(pattern.encode(), key=self._secret, digest_size=32).digest()

    def keep(
        self,
        known: KnownTexts,
        form: bytes = b"",
        spans: Sequence[Sequence[Span]] = (),
        codes: Sequence[Sequence[str]] = (),
        urls: Iterable[bool] = (),
    ) -> None:
        """Remember `known.now`.

        Args:
            form: how placeholders are found; where the texts with them came back exactly, also
            spans: what was replaced in each;
            codes: what was put there: see `CoveredText`;
            urls: whether it holds a URL with one of them.
        """
        if not known.now:
            return
        now = known.now
        if spans:
            now = [
                text._replace(codes=tuple(put), sure=all(put) and not has_urls)
                if text.covered == tuple(here)
                else text
                for text, here, put, has_urls in zip(now, spans, codes, urls, strict=True)
            ]
        self._kept.put(known.name, (tuple(now[i] for i in known.order), form))


def holds_none(texts: Iterable[str], codes: Iterable[str]) -> bool:
    """Whether no placeholder with one of `codes` can be found in `texts`, in whatever case."""
    small = folded("\n".join(texts))
    return not any(code in small for code in codes)
