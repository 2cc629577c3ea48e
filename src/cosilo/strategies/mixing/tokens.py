"""Models of one vocabulary, mixed token by token.

    text so far ─┬─▶ models at home ──▶ all their log-probabilities ─┐
                 │                                                   ├─▶ mixture ─▶ next token
                 └─ Step ─▶ LM ─ Steps ─▶ its likeliest, completed ──┘

A token that was drawn in another cut than the tokeniser's is cut anew with the text around it, on both
sides, as a thread is named by its text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cosilo.errors import CapabilityError
from cosilo.models.base import canonical, whole_tokens
from cosilo.strategies.mixing.mixture import Mixture
from cosilo.strategies.mixing.numbers import Row, completed, normalised
from cosilo.strategies.mixing.reading import HomeReader, pieces_of
from cosilo.strategies.thread import Thread


class TokenSource:
    """The reply's tokens.

    Args:
        thread: of the prompt that the LM is to see; its `words` are those of the models at home.
        readers: the models at home, each in front of its own prompt.
        ahead: tokens that are drafted at home and asked about together with what is new.
        by: who mixes, for errors.
    """

    def __init__(
        self,
        mixture: Mixture,
        thread: Thread,
        readers: Sequence[HomeReader],
        *,
        ahead: int,
        by: str,
    ) -> None:
        self._asked = 0
        self._mixture = mixture
        self._thread = thread
        self._readers = readers
        self._words = readers[0].model
        self._ahead = ahead
        self._by = by
        self._ids: list[int] = []  # the reply, in its tokeniser's cut
        self._text = b""
        self._new: list[int] = []  # tokens that the LM's owner has not been told
        self._found: dict[bytes, Row] = {}  # text → what the LM says behind it, of a draft
        pieces = pieces_of(self._words)
        # A special token that ends nothing stands for no text, so nobody could be told of it.
        self._silent = [
            i for i, piece in enumerate(pieces) if not piece and i not in self._words.ends
        ]

    @property
    def ends(self) -> Sequence[int]:
        return sorted(self._words.ends | self._thread.ends)

    @property
    def asked(self) -> int:
        return self._asked

    @property
    def count(self) -> int:
        return len(self._ids)

    def piece(self, token: int) -> bytes:
        return self._words.piece(token) if self._text else self._words.spelt([token])[0]

    def first(self, piece: bytes) -> bytes:
        return piece

    def units(self, text: str) -> Sequence[int]:
        return self._words.cut(text)[0]

    async def prompt_tokens(self) -> int:
        return await self._readers[0].prompt_tokens()

    async def next(self) -> Row:
        """What comes next.

        Raises:
            CapabilityError: the large model has another vocabulary.
            and what models, the thread and its channel raise.
        """
        homes = [await reader.at(self._ids) for reader in self._readers]
        if self._mixture.asks(homes):
            self._asked += 1
            row = self._mixture.joined(await self._large(homes), homes)
        else:
            row = self._mixture.alone(homes)
        row = row.copy()
        row[self._silent] = -np.inf
        return normalised(row)

    def fits(self, unit: int) -> bool:
        return unit in self.ends or whole_tokens(self._words.spelt([*self._ids, unit])) is not None

    async def take(self, unit: int) -> None:
        self._new.append(unit)
        ids = [*self._ids, unit]
        pieces = self._words.spelt(ids)
        self._text = b"".join(pieces)
        whole = whole_tokens(pieces) or 0
        cut = self._words.cut(b"".join(pieces[:whole]).decode())[0]
        self._ids = [*cut, *ids[whole:]]

    async def _large(self, homes: Sequence[Row]) -> Row:
        """What the LM says behind the reply so far."""
        if self._text in self._found:
            return self._found.pop(self._text)
        self._found = {}
        prior = homes[self._mixture.prior]
        draft = await self._drafted(homes)
        said = await self._thread.go_on(self._new, draft, each=bool(draft))
        if draft and said.back:
            draft, said = [], await self._thread.go_on()
        self._new = []
        if self._thread.shared is False:
            raise CapabilityError(
                f"{self._by} mixes models token by token, which takes one vocabulary: "
                f"{self._words.name!r} has another than the large model; by = 'bytes' works across"
            )
        text, ids = self._text, list(self._ids)
        pieces = self._words.spelt([*ids, *draft])[len(ids) :]
        for place, (token, piece, length) in enumerate(
            zip(draft, pieces, said.lengths, strict=False), start=1
        ):
            if len(piece) != length:  # cut otherwise, so what follows is not behind these tokens
                break
            text, ids = text + piece, [*ids, token]
            theirs = await self._readers[self._mixture.prior].at(ids)
            self._found[text] = completed(said.top, place, theirs)
        return completed(said.top, 0, prior)

    async def _drafted(self, homes: Sequence[Row]) -> list[int]:
        """The tokens that the models at home would write by themselves."""
        ids, drafted = list(self._ids), list[int]()
        if whole_tokens(self._words.spelt(ids)) != len(ids):
            return []
        while len(drafted) < self._ahead:
            row = self._mixture.alone(homes).copy()
            row[self._silent] = -np.inf
            token = int(np.argmax(row))
            more = [*ids, token]
            whole = whole_tokens(self._words.spelt(more)) == len(more)
            if token in self.ends or not whole or not canonical(self._words, more):
                break
            drafted.append(token)
            ids = more
            homes = [await reader.at(ids) for reader in self._readers]
        return drafted
