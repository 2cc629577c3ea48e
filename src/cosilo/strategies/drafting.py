"""What may come next in a reply, as somebody at home supposes: a small model, or a text that has it.

    the reply so far: "SELECT name FROM cus" ──▶ small model ──▶ "tomers WHERE"
                                             └─▶ look-up: the prompt says "CREATE TABLE customers ("
                                                              ──▶ "tomers ("

A draft is text: whoever checks it cuts it into tokens of its own. What a draft says crosses, whether it
is right or wrong.
"""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Sequence
from typing import Protocol

from cosilo.errors import RejectedError
from cosilo.models.base import Past, ThreadModel, whole_tokens
from cosilo.models.drawing import chances, drawn, wanted
from cosilo.types import Chat, Sampling


class Drafter(Protocol):
    async def draft(self, text: str, at: int, count: int) -> str:
        """What may come behind `text`, about `count` tokens of it; empty where nothing is supposed.

        Args:
            at: tokens that the LM has in front of it.
        """


class ModelDrafts:
    """Drafts of a small model, which goes on from what it has read.

    Args:
        sampling: of the reply. Where it is drawn, the model draws by the numbers that the LM draws by:
            the more alike the two are, the more often they draw the same token. A draft that is not
            `alike` is the likeliest text in any case.
    """

    def __init__(self, model: ThreadModel, chat: Chat, sampling: Sampling) -> None:
        self.alike = True
        self._model = model
        self._chat = chat
        self._drawn = sampling
        self._prompt: list[int] | None = None
        self._past: Past | None = None

    async def draft(self, text: str, at: int, count: int) -> str:
        try:
            return await self._drafted(text, at, count)
        except RejectedError:  # longer than this model's context: the LM writes alone
            self._past = None
            return ""

    async def _drafted(self, text: str, at: int, count: int) -> str:
        model = self._model
        sampling = self._drawn if self.alike else Sampling()
        if self._prompt is None:
            self._prompt = list(await to_thread(model.prompt, self._chat))
        said = list((await to_thread(model.cut, text))[0]) if text else []
        ids = [*self._prompt, *said]
        past, self._past = self._past, None
        have = 0
        if past is not None:
            have = min(_alike(past.ids, ids), len(ids) - 1)
            past.crop(have)
        numbers = chances(sampling, at, count)
        more: Sequence[int] = ids[have:]
        found: list[int] = []
        for i in range(count):
            past, next_ = await model.read(
                past, more, places=1, top=wanted(sampling, model.vocabulary_size)
            )
            (token,) = drawn(next_, sampling, numbers[i : i + 1])
            if token in model.ends:
                break
            found.append(token)
            more = [token]
        self._past = past
        pieces = model.spelt([*said, *found])[len(said) :]
        return b"".join(pieces[: whole_tokens(pieces) or 0]).decode()


class LookUp:
    """Drafts from texts: what stood there behind the words that the reply now ends with.

    Saxena, "Prompt Lookup Decoding" (2023); here by characters, as the LM's tokens are not known. The
    longest end of the reply that is found counts, of equals the one in the first text, there the last.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(texts)

    async def draft(self, text: str, at: int, count: int) -> str:
        texts = (*self._texts, text[:-1])
        found, length = "", _LEAST
        while length <= min(len(text), _MOST):
            end = text[-length:]
            here = next((t for t in texts if end in t), None)
            if here is None:
                break
            start = here.rfind(end) + length
            found = here[start : start + count * _CHARACTERS]
            length += 1
        return found


_LEAST, _MOST = 3, 48  # characters at the end of a reply that are looked for
_CHARACTERS = 4  # of a token, about


class InTurn:
    """The draft of the first of several that has one."""

    def __init__(self, *drafters: Drafter) -> None:
        self._drafters = drafters

    async def draft(self, text: str, at: int, count: int) -> str:
        for drafter in self._drafters:
            if found := await drafter.draft(text, at, count):
                return found
        return ""


def worded(draft: str) -> str:
    """`draft` without the word that it may have been cut in: no half of a name."""
    end = len(draft)
    while end and not draft[end - 1].isspace():
        end -= 1
    return draft[:end].rstrip() if end else ""


def _alike(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    same = min(len(a), len(b))
    return next((i for i in range(same) if a[i] != b[i]), same)
