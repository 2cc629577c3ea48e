"""Every word of a chat is replaced at random before it crosses; nothing is put back.

    Ask ─▶ words, without case and signs ─▶ a draw for each ─▶ the LM ─▶ reply, as it came
            └ anything else than plain texts: UnprotectableError, and nothing was sent

The mechanisms, their papers and what they promise stand in `privacy.word_noise`. Draws are derived
under a key from the text, so that who asks the same again says the same again and spends nothing more,
and a turn that every request of a conversation repeats cannot be averaged.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec

from cosilo.boundary.channel import Handler, StreamHandler
from cosilo.boundary.messages import Ask, Embed, Message
from cosilo.boundary.messages.passages import Passage
from cosilo.defences.base import Defence, defences
from cosilo.defences.recent import Recent
from cosilo.errors import CosiloError, PrivacyError, UnprotectableError
from cosilo.models.encoder.encoder import encoder_loads
from cosilo.models.encoder.word_table import WordTable, word_table, words_in
from cosilo.privacy.mechanisms import Release, WordNoise
from cosilo.privacy.secret_key import KeyedRandom, secret_key
from cosilo.privacy.word_noise import UNKNOWN, WordKernel, check, kernel
from cosilo.registry import Loads
from cosilo.types import Delta, closing

_REMEMBERED = 10_000
_BYTES_A_SECOND = 5_000  # of RANTEXT, which draws as many numbers for a word as vectors are wide


def _loads(encoder: str | Path) -> Loads:
    return encoder_loads(encoder)


@defences.register("text_dp", loads=_loads)
class TextDP(Defence):
    """Replaces each word at random by another of a public vocabulary. What is left of a text is how
    many words it had, and what the mechanism lets through; case, signs and space are not sent, and a
    word or number that the vocabulary does not hold becomes any other. The labels of a constrained
    reply and the task's own instructions stay as they are; what is no plain text (tool calls, forms,
    names of speakers) is refused.

    Options:
    mechanism: "santext" (ε for each unit of distance between two words), "custext" (ε within groups of
        near words, and no protection of which group it is), "rantext" (promises nothing; its ε is
        a setting). The same number means different things: see `docs/threat-model.md`, and compare them
        by what the attack `words` gets.
    epsilon: of one word, above 0 and up to 40. A text of n words spends n times as much.
    group: words that stand for each other in "custext", at least.
    kept: the commonest so many words of the vocabulary are not protected ("santext+", "custext+").
    chance: how often such a word stays as it is.
    words: the vocabulary's commonest so many are in use; a millisecond each to begin with.
    encoder: whose vocabulary and vectors: a name in the catalog, or a folder.
    instructions: texts that are the task's own, by default what the plan (or the point's `system` in a
        gateway) says; their lines stay as they are in a system turn.
    key_file: the key that draws are derived under; made when it is not there.
    """

    def __init__(
        self,
        mechanism: Literal["santext", "custext", "rantext"] = "santext",
        epsilon: float = 6.0,
        group: int = 20,
        kept: int = 0,
        chance: float = 1.0,
        words: int = 6000,
        encoder: str | Path = "minilm-int8",
        instructions: Sequence[str] = (),
        key_file: Path = Path(".cosilo/text_dp.key"),
    ) -> None:
        if mechanism not in ("santext", "custext", "rantext"):
            raise ValueError(f"mechanism = {mechanism!r} is none of santext, custext, rantext")
        check(epsilon)
        if not 2 <= group <= words:
            raise ValueError(f"group = {group!r} is not between 2 and words = {words!r}")
        if not 0 <= kept < words:
            raise ValueError(f"kept = {kept!r} is not between 0 and words = {words!r}")
        if not 0 <= chance <= 1:
            raise ValueError(f"chance = {chance!r} is not between 0 and 1")
        self._stated = WordNoise(
            kind=mechanism,
            epsilon=epsilon,
            words=0,
            kept=kept,
            chance=chance if kept else 1.0,
            group=group if mechanism == "custext" else 0,
            vocabulary=(str(encoder)[-200:], words),
        )
        self._encoder = encoder
        lines = (line.strip() for text in instructions for line in text.splitlines())
        self._instructions = frozenset(line for line in lines if line)
        self._key_file = Path(key_file)
        self._caller: Callable[[str], bytes] = lambda _: b""
        self._word_counts: Recent[str, Mapping[str, int]] = Recent(_REMEMBERED)

    async def open(self) -> None:
        await asyncio.to_thread(lambda: (self._kernel, self._key))

    def most_bytes(self, seconds: float) -> float:
        return seconds * _BYTES_A_SECOND

    def bind(self, caller: Callable[[str], bytes]) -> None:
        """Derive draws also under what `caller` says of a request: whose it is, where a gateway serves
        several, so that equal texts of two of them cannot be linked."""
        self._caller = caller

    def word_counts(self, request: str) -> Mapping[str, int]:
        """Of `request`'s texts how many words were replaced under the mechanism ("word"), how many were
        among those that are not protected ("kept"), and how many the vocabulary does not hold
        ("unknown"). The other side is told their sum alone. Empty for a request that is unknown or
        long past."""
        return self._word_counts.get(request) or {}

    async def guard(self, message: Message, forward: Handler, *, request: str) -> Message:
        """Replace and send.

        Raises:
            UnprotectableError: there is more in it than plain texts; nothing was sent.
            PrivacyError: its words could not be replaced.
        """
        return await forward(await self._replaced(message, request))

    async def guard_stream(
        self, ask: Ask, forward: StreamHandler, *, request: str
    ) -> AsyncIterator[Delta]:
        async with closing(forward(await self._replaced(ask, request))) as deltas:
            async for delta in deltas:
                yield delta

    async def _replaced(self, message: Message, request: str) -> Ask:
        if not isinstance(message, Ask):
            error = UnprotectableError if isinstance(message, Embed) else PrivacyError
            raise error(
                f"the text_dp defence replaces the words of chats, and this is a "
                f"{type(message).__name__}, so nothing was sent"
            )
        other = sorted({p.what for p in message.passages()} - {"said", "label"})
        if other:
            raise UnprotectableError(
                "the text_dp defence replaces words of plain chats, and this one holds more: "
                f"{', '.join(other)}; nothing was sent"
            )
        caller = self._caller(request)
        try:
            replaced, counts = await asyncio.to_thread(self._work, message, caller)
        except CosiloError:
            raise
        except Exception as error:  # its text may quote what it failed on
            what = type(error).__name__
            raise PrivacyError(
                f"words could not be replaced ({what}), so nothing was sent"
            ) from None
        self._word_counts.put(request, counts)
        return replaced

    def _work(self, ask: Ask, caller: bytes) -> tuple[Ask, Mapping[str, int]]:
        key = hmac.digest(self._key, caller + msgspec.msgpack.encode(self._stated), hashlib.sha256)
        texts = _Texts(self._kernel, self._table, key, self._stated.kept, self._instructions)
        replaced = ask.with_passages(texts.change)
        words = sum(texts.counts.values())
        bound = self._kernel.bound
        spent = None if bound is None else bound * words
        release = Release(
            mechanism=msgspec.structs.replace(self._stated, words=words, bound=spent),
            neighbours="replace",
            unit="text",
            draw=hmac.new(key, b"\0".join(texts.seen), hashlib.sha256).hexdigest(),
        )
        return msgspec.structs.replace(
            replaced, epsilon=spent or 0.0, release=release
        ), texts.counts

    @cached_property
    def _key(self) -> bytes:
        return secret_key(self._key_file)

    @cached_property
    def _table(self) -> WordTable:
        return word_table(self._encoder, self._stated.vocabulary[1])

    @cached_property
    def _kernel(self) -> WordKernel:
        s = self._stated
        return kernel(
            s.kind, self._table.vectors, s.epsilon, group=s.group, kept=s.kept, chance=s.chance
        )


class _Texts:
    """Replaces the words of one message's texts, and counts them."""

    def __init__(
        self,
        mechanism: WordKernel,
        table: WordTable,
        key: bytes,
        kept: int,
        instructions: frozenset[str],
    ) -> None:
        self._mechanism = mechanism
        self._table = table
        self._key = key
        self._kept = kept
        self._instructions = instructions
        self.counts = {"word": 0, "kept": 0, "unknown": 0}
        self.seen: list[bytes] = []

    def change(self, passage: Passage) -> str:
        if passage.what == "label":
            return passage.text
        if passage.by != "system":
            return self._replaced(passage.text)
        return "\n".join(
            line if not line.strip() or line.strip() in self._instructions else self._replaced(line)
            for line in passage.text.splitlines()
        )

    def _replaced(self, text: str) -> str:
        words = words_in(text)
        said = " ".join(words).encode(errors="surrogatepass")
        self.seen.append(said)
        found = self._table.find(words, UNKNOWN)
        for word in found:
            self.counts[self._what(word)] += 1
        drawn = self._mechanism.draw(found, KeyedRandom(self._key, said))
        return " ".join(self._table.words[word] for word in drawn)

    def _what(self, word: int) -> str:
        if word == UNKNOWN:
            return "unknown"
        return "kept" if word < self._kept else "word"
