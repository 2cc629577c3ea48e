"""A reply on a thread: the model reads a draft in one go, and writes what it would have written.

    so far: Th│e      draft: │ ref│und│ is      chosen at each place: │ ref│unds│ …
                                                  ──▶ " ref" stays, "unds" is the model's own

At each place the model chooses as it would alone, by the likeliest token or by the reply's own random
numbers, and a drafted token stays where it is the one that was chosen. Nothing is accepted or refused
by chance, so the reply is that of the model alone, token for token, whatever was drafted
(Leviathan et al., "Fast Inference from Transformers via Speculative Decoding", arXiv 2211.17192, for
greedy decoding; for sampling see docs/decisions/0046).
"""

from __future__ import annotations

import codecs
import hashlib
from asyncio import to_thread
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from time import perf_counter
from typing import Literal

import msgspec
import numpy as np

from cosilo.boundary.messages.step import DRAFTED, NAME
from cosilo.boundary.messages.verify import Verified, Verify
from cosilo.errors import CapabilityError, RejectedError, UnknownThreadError
from cosilo.models.base import Past, ThreadModel, goes_on
from cosilo.models.drawing import chances, drawn, wanted
from cosilo.parties.serving.base import Owner, serves
from cosilo.parties.threads import KeptState
from cosilo.types import Chat, Sampling


@dataclass(eq=False)
class KeptReply(KeptState):
    """A reply that the model writes, as far as it has come.

    Attributes:
        name: a hash of what it is a reply to, and then of each of its tokens.
        prompt: the tokens in front of it.
        whole: what is told is all of it, to the end of a word.
        past: what the model has read: all but the last token.
        ids: its tokens.
        text: it as text, what is held back included.
        told: how many characters of it are not.
    """

    prompt: Sequence[int]
    sampling: Sampling
    whole: bool
    past: Past | None = None
    ids: list[int] = field(default_factory=list)
    text: str = ""
    told: int = 0
    finish: Literal["", "stop", "length"] = ""

    def __post_init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def size(self) -> int:
        own = super().size + 4 * len(self.text) + 16 * (len(self.prompt) + len(self.ids))
        return own + (self.past.size if self.past is not None else 0)

    @property
    def amid(self) -> bool:
        """Whether it ends within a character."""
        return bool(self._decoder.getstate()[0])

    def name(self) -> bytes:
        about = hashlib.blake2b(digest_size=NAME, person=b"cosilo reply")
        for part in (self.prompt, self.ids):
            about.update(np.array([len(part), *part], np.int64).tobytes())
        about.update(msgspec.msgpack.encode((self.sampling, self.whole)))
        return about.digest()

    def take(self, token: int, model: ThreadModel) -> None:
        """The reply's next token; after it the reply may have ended."""
        self.ids.append(token)
        if token in model.ends:
            self.text += self._decoder.decode(b"", final=True)
            self.finish = "stop"
            return
        last = len(self.ids) >= self.sampling.max_tokens
        self.text += self._decoder.decode(model.spelt(self.ids)[-1], final=last)
        found = [self.text.find(s, self.told) for s in self.sampling.stop if s]
        if stops := [at for at in found if at >= 0]:
            self.text = self.text[: min(stops)]
            self.finish = "stop"
        elif last:
            self.finish = "length"

    def full(self) -> None:
        """There is no room for more."""
        self.text += self._decoder.decode(b"", final=True)
        self.finish = "length"

    def tell(self) -> str:
        """What is told now."""
        before, self.told = self.told, len(self.text)
        if not self.finish:
            self.told -= begun(self.text[before:], self.sampling.stop)
            if (
                self.whole and self.told
            ):  # a word whose beginning is told could be half a placeholder
                self.told = max(before, self._last_space())
        return self.text[: self.told] if self.whole else self.text[before : self.told]

    def _last_space(self) -> int:
        return next((i for i in range(self.told, 0, -1) if self.text[i - 1].isspace()), 0)

    def ahead(self, draft: str) -> str:
        """What `draft` says of what is not yet written; nothing where it says other than what is."""
        if self.whole:
            known = self.text[: self.told]
            if draft.startswith(known):
                draft = draft[len(known) :]
            else:  # a defence has hidden something that the model made up
                at = draft.rfind(known[-_KNOWN:])
                draft = draft[at + _KNOWN :] if at >= 0 else ""
        held = self.text[self.told :]
        if self.amid or not draft.startswith(held):
            return ""
        return draft[len(held) :]


_KNOWN = 24  # characters before a draft that tell where in a whole reply it begins


def begun(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of `text` could be the beginning of a stop string."""
    return max(
        (n for s in stops for n in range(1, min(len(s), len(text) + 1)) if text.endswith(s[:n])),
        default=0,
    )


@serves(Verify)
async def verify(owner: Owner, message: Verify) -> Verified:
    """Goes on with a reply, or begins one.

    Raises:
        CapabilityError: the model cannot go on from what it has read.
        UnknownThreadError: the thread is not known, or is another client's.
        RejectedError: the prompt is longer than the model's context.
    """
    model, threads, client = owner.model, owner.threads, owner.client
    if not goes_on(model):
        raise CapabilityError(
            f"{owner.name}, asked to go on with a reply, needs a model that keeps what it has read; "
            f"{model.name!r} does not (the torch and llamacpp back ends do)"
        )
    if message.thread:
        try:
            async with threads.using(client, message.thread, KeptReply) as (kept, _):
                return await _gone_on(owner, model, message, kept)
        except UnknownThreadError:
            if not message.chat:
                raise
    opened = await to_thread(_opened, model, client, message.chat, message)
    async with opened.lock:
        said = await _gone_on(owner, model, message, opened)
        vocabulary = await to_thread(lambda: model.vocabulary)
        return msgspec.structs.replace(said, vocabulary=vocabulary)


def _opened(model: ThreadModel, client: str, chat: Chat, message: Verify) -> KeptReply:
    if message.sampling.max_tokens < 1:
        raise RejectedError("max_tokens = 0: there is no reply to go on with", param="max_tokens")
    return KeptReply(client, model.prompt(chat), message.sampling, message.whole)


async def _gone_on(owner: Owner, model: ThreadModel, message: Verify, kept: KeptReply) -> Verified:
    started = perf_counter()
    threads, before = owner.threads, len(kept.past.ids) if kept.past is not None else 0
    try:
        drafted = await to_thread(_cut, model, kept, kept.ahead(message.draft))
        drafted = drafted[: max(0, kept.sampling.max_tokens - len(kept.ids) - 1)]
        try:
            chosen = await _chosen(model, kept, drafted)
        except RejectedError:  # no room for these in the model's context, and perhaps for no more
            if not (drafted or kept.ids):
                raise
            drafted = []
            chosen = await _last(model, kept)
    except BaseException:
        threads.forget(kept)
        raise
    accepted = 0
    for i, token in enumerate(chosen):
        kept.take(token, model)
        right = i < len(drafted) and drafted[i] == token
        accepted += right
        if kept.finish or not right:
            break
    read = len(kept.prompt) + len(kept.ids) - 1
    text = kept.tell()
    total = max(before + 1, len(kept.past.ids) if kept.past is not None else 0)
    if kept.past is not None:
        kept.past.crop(read)
    if not kept.finish:
        threads.keep(kept, {kept.name(): len(kept.ids)})
    else:
        threads.forget(kept)
    return Verified(
        thread=kept.name() if not kept.finish else b"",
        text=text,
        finish=kept.finish,
        at=len(kept.ids),
        drafted=len(drafted),
        accepted=accepted,
        new=total - before,
        before=before,
        own=len(chosen) and 1,
        took=perf_counter() - started,
    )


async def _chosen(model: ThreadModel, kept: KeptReply, drafted: Sequence[int]) -> list[int]:
    """The tokens that the model writes behind what it has, and behind each of those drafted."""
    sampling = kept.sampling
    numbers = chances(sampling, len(kept.ids), len(drafted) + 1)
    written = [*kept.prompt, *kept.ids]
    have = len(kept.past.ids) if kept.past is not None else 0
    past, kept.past = kept.past, None
    kept.past, found = await model.read(
        past,
        [*written[have:], *drafted],
        places=len(drafted) + 1,
        top=wanted(sampling, model.vocabulary_size),
        each=sampling.temperature > 0,
    )
    return drawn(found, sampling, numbers[: len(found.ids)] if numbers else ())


async def _last(model: ThreadModel, kept: KeptReply) -> list[int]:
    """The token that the model writes behind what it has; none where its context is full, which ends
    the reply.

    Raises:
        RejectedError: not even the prompt fits.
    """
    try:
        return await _chosen(model, kept, ())
    except RejectedError:
        if not kept.ids:
            raise
        kept.full()
        return []


def _cut(model: ThreadModel, kept: KeptReply, ahead: str) -> list[int]:
    """The tokens that `ahead` is cut into where it stands, behind the reply's own."""
    if not ahead:
        return []
    pieces = model.spelt(kept.ids)[-_BEFORE:]
    for count in range(len(pieces), 0, -1):
        try:
            last = b"".join(pieces[-count:]).decode()
        except UnicodeDecodeError:
            continue
        ids, cut = model.cut(last + ahead)
        ends = list(accumulate(map(len, cut)))
        if (at := len(last.encode())) in ends:
            return list(ids[ends.index(at) + 1 :])[:DRAFTED]
        break
    return list(model.cut(ahead)[0])[:DRAFTED]


_BEFORE = 16  # of the reply's tokens that may have a say in how what follows is cut
