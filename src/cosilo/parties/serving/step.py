"""A step on a thread: cut what came, read what is new of it, say what is likeliest there."""

from __future__ import annotations

import codecs
from asyncio import to_thread
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from weakref import WeakKeyDictionary

import numpy as np

from cosilo.boundary.messages.bounds import TURN
from cosilo.boundary.messages.step import DRAFTED, Step, Steps, ThreadName
from cosilo.boundary.wire.logits import STEP, TopK, pack_few
from cosilo.errors import CapabilityError, RejectedError
from cosilo.models.base import NextTokens, Past, ThreadModel, canonical, goes_on
from cosilo.parties.serving.base import Owner, serves
from cosilo.parties.threads import KeptThread, Threads


@serves(Step)
async def step(owner: Owner, message: Step) -> Steps:
    """Goes on with a thread, or opens one.

    Raises:
        CapabilityError: the model cannot go on from what it has read.
        UnknownThreadError: the thread is not known, or is another client's.
        RejectedError: the ids are not how their text is cut, or are another vocabulary's; or the thread
            is longer than the model's context.
    """
    model, threads, client = owner.model, owner.threads, owner.client
    if not goes_on(model):
        raise CapabilityError(
            f"{owner.name}, asked to go on with a thread, needs a model that keeps what it has read; "
            f"{model.name!r} does not (the torch and llamacpp back ends do)"
        )
    if message.vocabulary and message.vocabulary != await to_thread(lambda: model.vocabulary):
        raise RejectedError(f"the ids are not of the vocabulary of {model.name!r}: send text")
    if not message.chat:
        async with threads.using(client, message.thread, KeptThread) as (kept, at):
            return await _gone_on(model, threads, message, kept, at)
    begin = ThreadName(message.chat)
    if threads.find(client, bytes(begin), KeptThread) is not None:
        async with threads.using(client, bytes(begin), KeptThread) as (kept, at):
            return await _gone_on(model, threads, message, kept, at)
    opened = KeptThread(client, begin, await to_thread(model.prompt, message.chat))
    async with opened.lock:
        return await _gone_on(model, threads, message, opened, 0)


async def _gone_on(
    model: ThreadModel, threads: Threads, step: Step, kept: KeptThread, at: int
) -> Steps:
    """The reply to `step`, which goes on from the first `at` bytes of the thread's text."""
    cut = await to_thread(_cut, model, kept, at, step)
    whole = [*kept.prompt, *cut.ids]
    places = len(cut.ids) - cut.first + 1
    known = _common(kept.past, whole)
    if at < kept.settled and known < len(kept.prompt) + bisect_right(kept.ends, kept.settled):
        # Others may still go on from what stands behind, so this is a thread of its own from here on.
        kept = KeptThread(
            kept.client, kept.begin, kept.prompt, kept.past.fork(known) if kept.past else None
        )
    have = min(known, len(kept.prompt) + cut.first - 1)
    past, kept.past = kept.past, None
    try:
        if past is not None:
            past.crop(have)
        kept.past, found = await model.read(
            past, whole[have:], places=places, top=step.top, each=step.each
        )
    except BaseException:
        threads.forget(kept)
        raise
    drafted = cut.ids[cut.first :]
    accepted = _accepted(found, drafted)
    seen = len(drafted) if step.each else accepted
    same = _alike(kept.text, cut.text)
    names = {n: length for n, length in kept.names.items() if length <= same}
    name = kept.begin.after(cut.text[: cut.settled])
    names[bytes(name)] = cut.settled
    if not cut.settled:
        names[bytes(kept.begin)] = 0
    for start, end in cut.behind(seen):
        name = name.after(cut.text[start:end])
        names[bytes(name)] = end
    kept.text, kept.ids, kept.ends, kept.settled = cut.text, cut.ids, cut.ends, cut.settled
    threads.keep(kept, names)
    shown = found if step.each else found.rows(slice(accepted, accepted + 1))
    top = likeliest(shown, model.vocabulary_size)
    before = 0 if step.chat else len(kept.prompt) + cut.before
    return Steps(
        packed=pack_few(top),
        accepted=accepted,
        lengths=tuple(end - start for start, end in cut.behind(len(drafted))) if step.draft else (),
        back=cut.back,
        spelt=tuple(map(model.piece, _named(top))) if step.spell else (),
        vocabulary=model.vocabulary if step.chat else "",
        ends=tuple(sorted(model.ends)) if step.chat else (),
        new=_billed(step, len(whole) - before),
        before=before,
    )


@dataclass(frozen=True, eq=False)
class _Cut:
    """A reply as tokens.

    Attributes:
        text: the reply, the draft included.
        ids: its tokens.
        ends: where each of them ends in `text`.
        settled: how many bytes of `text` are no draft.
        first: the first token that the draft has a part of; that of the text's end without a draft.
        before: how many tokens the text had before the step.
    """

    text: bytes
    ids: Sequence[int]
    ends: Sequence[int]
    settled: int
    first: int
    before: int

    @property
    def back(self) -> int:
        """Bytes in front of the draft that belong to its first token."""
        return self.settled - (self.ends[self.first - 1] if self.first else 0)

    def behind(self, count: int) -> list[tuple[int, int]]:
        """Where the draft's part of each of its first `count` tokens begins and ends."""
        ends = self.ends[self.first : self.first + count]
        return list(zip([self.settled, *ends], ends, strict=False))


def _cut(model: ThreadModel, kept: KeptThread, at: int, step: Step) -> _Cut:
    """The text that `step` makes of the first `at` bytes of the thread's, in tokens.

    Raises:
        RejectedError: the ids are not how their text is cut; or text was sent behind half a character.
    """
    said = kept.text[:at]
    count = bisect_right(kept.ends, at)
    if step.ids or step.draft_ids:
        begun = _of(model, said + step.text.encode())[0] if step.text else _ids(model, kept, at)
        ids: Sequence[int] = [*begun, *step.ids, *step.draft_ids]
        first = len(ids) - len(step.draft_ids)
        pieces = model.spelt(ids)
        text = b"".join(pieces)
        if not text.startswith(said) or not canonical(model, ids):
            raise RejectedError(
                "the ids are not those that the tokeniser cuts their text into: send the text itself"
            )
        if step.partial and _says(b"".join(pieces[len(begun) :])):
            raise RejectedError(
                "ids that are parts of one character hold more: send the text itself"
            )
        ends: Sequence[int] = list(accumulate(map(len, pieces)))
        settled = ends[first - 1] if first else 0
    else:
        settled = at + len(step.text.encode())
        text = said + (step.text + step.draft).encode()
        ids, ends = _extended(model, kept, text)
        first = bisect_right(ends, settled)
        if not step.draft:
            first = len(ids)
    if len(ids) - first > DRAFTED:
        raise RejectedError(
            f"the draft has {len(ids) - first} tokens; a step takes at most {DRAFTED}"
        )
    before = count + (at > (kept.ends[count - 1] if count else 0))
    return _Cut(text, ids, ends, settled, first, before)


_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_BACK = 64  # tokens among which a place between two words is looked for
_SAMPLE = ("Every word of this", " text stands for itself, and none", " is a part of another.")
_apart: WeakKeyDictionary[ThreadModel, bool] = WeakKeyDictionary()


def _words_apart(model: ThreadModel) -> bool:
    """Whether the tokeniser cuts each word by itself, as nearly all do: then a text that goes on need
    not be cut from its beginning."""
    if model not in _apart:
        parts = [i for part in _SAMPLE for i in model.cut(part)[0]]
        _apart[model] = parts == list(model.cut("".join(_SAMPLE))[0])
    return _apart[model]


def _extended(
    model: ThreadModel, kept: KeptThread, text: bytes
) -> tuple[Sequence[int], Sequence[int]]:
    """The tokens of a whole text and where they end; up to a place between two words, those that the
    thread has already."""
    count = bisect_right(kept.ends, min(_alike(kept.text, text), len(text) - 2))
    least = max(0, count - _BACK)
    while count > least:
        a, space, b = text[(end := kept.ends[count - 1]) - 1 : end + 2]
        if space == 0x20 and a in _LETTERS and b in _LETTERS and _words_apart(model):
            break
        count -= 1
    else:
        count = 0
    start = kept.ends[count - 1] if count else 0
    ids, pieces = _of(model, text[start:])
    ends = accumulate(map(len, pieces), initial=start)
    return [*kept.ids[:count], *ids], [*kept.ends[:count], *islice(ends, 1, None)]


def _ids(model: ThreadModel, kept: KeptThread, at: int) -> Sequence[int]:
    """The tokens of the first `at` bytes of the thread's text."""
    i = bisect_left(kept.ends, at)
    if at == 0:
        return ()
    if i < len(kept.ends) and kept.ends[i] == at:
        return kept.ids[: i + 1]
    return _of(model, kept.text[:at])[0]


def _of(model: ThreadModel, text: bytes) -> tuple[Sequence[int], Sequence[bytes]]:
    """The tokens of a whole text, and what each stands for."""
    try:
        return model.cut(text.decode())
    except UnicodeDecodeError:
        raise RejectedError(
            "the thread ends within a character, which only the ids of its vocabulary can complete"
        ) from None


def _says(part: bytes) -> bool:
    """Whether parts of a character hold a whole one, apart from the space in front."""
    return bool(codecs.getincrementaldecoder("utf-8")().decode(part).strip())


def _common(past: Past | None, whole: Sequence[int]) -> int:
    """How many tokens the model has read already."""
    if past is None:
        return 0
    read = past.ids
    same = min(len(read), len(whole))
    if list(read[:same]) == list(whole[:same]):
        return same
    return next(i for i in range(same) if read[i] != whole[i])


def _alike(a: bytes, b: bytes) -> int:
    """How many bytes both begin with."""
    same = min(len(a), len(b))
    if a[:same] == b[:same]:
        return same
    return next(i for i in range(same) if a[i] != b[i])


def _accepted(found: NextTokens, drafted: Sequence[int]) -> int:
    """How many drafted tokens are, one after the other, the likeliest where they stand."""
    first = found.ids[:, 0].tolist()
    for i, token in enumerate(drafted):
        if first[i] != token:
            return i
    return len(drafted)


def likeliest(found: NextTokens, size: int) -> TopK:
    """What was found, of a vocabulary of `size`, with the rest that all other tokens have together."""
    ids, logprobs = found.ids, found.logprobs.copy()
    order = np.argsort(ids, axis=1)
    left = 1.0 - np.exp(logprobs.astype(np.float64)).sum(axis=1)
    if ids.shape[1] >= size:
        left[:] = 0.0
    with np.errstate(divide="ignore"):
        rest = np.log(np.maximum(left, 0.0)).astype(np.float32)
    # What is about as likely as the likeliest would be packed as the same, and which it is be lost.
    logprobs[:, 1:] = np.minimum(logprobs[:, 1:], logprobs[:, :1] - 0.75 * STEP)
    return TopK(
        np.take_along_axis(ids, order, axis=1),
        np.take_along_axis(logprobs, order, axis=1).astype(np.float32),
        rest,
        size,
    )


def _named(top: TopK) -> list[int]:
    return [] if top.ids is None else np.unique(top.ids).tolist()


def _billed(step: Step, new: int) -> int:
    """The tokens that `step` brought. Those that an earlier word was cut into anew are not counted."""
    most = new if step.chat else step.brought() + TURN
    return max(1, min(new, most))
