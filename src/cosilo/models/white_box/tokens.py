"""Chats as a Hugging Face tokeniser's tokens, and tokens as bytes.

A reply is encoded apart from its prompt, as it is when it is generated, and what looks like a special
token in it is plain text. Needs transformers, tokenizers and jinja2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from cosilo.errors import CatalogError, RejectedError
from cosilo.models.base import Tokens
from cosilo.models.chat import chat_api
from cosilo.models.chat.pieces import piece_of
from cosilo.types import Chat, Sampling, Turn


class ChatTokens:
    """A fast tokeniser with a chat template.

    Args:
        words: a `transformers.PreTrainedTokenizerFast`.

    Raises:
        CatalogError: it has no chat template, is not a fast one, or knows no token that ends a turn.
    """

    def __init__(self, words: Any) -> None:
        from tokenizers import Tokenizer

        if getattr(words, "backend_tokenizer", None) is None:
            raise CatalogError("the model's tokeniser is no fast one: tokenizer.json is missing")
        if not words.chat_template:
            raise CatalogError(
                "the model has no chat template, so there is no way to ask it: put a "
                "chat_template.jinja into its folder"
            )
        self.words = words
        self._prompts = Tokenizer.from_str(words.backend_tokenizer.to_str())
        self._prompts.no_padding()
        self._prompts.no_truncation()
        self._replies = Tokenizer.from_str(self._prompts.to_str())
        self._replies.encode_special_tokens = True
        self._about = json.loads(self._prompts.to_str())
        decoders = json.dumps(self._about.get("decoder"))
        self._byte_level = '"ByteLevel"' in decoders
        self._strips = '"Strip"' in decoders
        self._special = {t["id"] for t in self._about["added_tokens"] if t["special"]}
        self._known: dict[int, bytes] = {}
        self.end = self._end_of_turn()

    @cached_property
    def vocabulary(self) -> str:
        """A hash of what decides which ids a text has."""
        kept = ("added_tokens", "normalizer", "pre_tokenizer", "model")
        text = json.dumps({k: self._about.get(k) for k in kept}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def prompt(self, chat: Chat) -> list[int]:
        """The tokens in front of a reply to `chat`.

        Raises:
            RejectedError: the template does not take such a chat, or it is empty.
        """
        ids: list[int] = self._prompts.encode(
            self._render(chat, True), add_special_tokens=False
        ).ids
        if not ids:
            raise RejectedError(
                "the chat is empty, so there is nothing to answer", status=400, param="messages"
            )
        return ids

    def reply(self, text: str) -> tuple[list[int], tuple[bytes, ...]]:
        """The tokens of a reply and of the end of its turn, and what each stands for."""
        found = self._replies.encode(text, add_special_tokens=False)
        pieces = tuple(self.piece(i) for i in found.ids)
        if b"".join(pieces) != text.encode():
            pieces = _cut(text, [end for _, end in found.offsets])
        return [*found.ids, self.end], (*pieces, b"")

    def tokenize(self, chat: Chat, reply: str) -> Tokens:
        """Prompt and reply as the model sees them."""
        prompt = self.prompt(chat)
        ids, pieces = self.reply(reply)
        return Tokens(np.array(prompt + ids, np.int32), len(prompt), pieces)

    def plain(self, text: str) -> Tokens:
        """`text` alone, outside any chat.

        Raises:
            RejectedError: it is empty.
        """
        ids = self._replies.encode(text, add_special_tokens=False).ids
        if not ids:
            raise RejectedError("the text is empty, so there is nothing to read")
        return Tokens(np.array(ids, np.int32), len(ids), ())

    def piece(self, token: int) -> bytes:
        """What a token adds to a reply; nothing where it is special."""
        if token not in self._known:
            self._known[token] = self._piece(token)
        return self._known[token]

    def spelt(self, ids: Sequence[int]) -> tuple[bytes, ...]:
        """What each token stands for in a reply of these alone."""
        pieces = tuple(self.piece(i) for i in ids)
        return (self.first(pieces[0]), *pieces[1:]) if pieces else ()

    def first(self, piece: bytes) -> bytes:
        """`piece` as the first of a reply: without the space that some tokenisers put in front of
        any text.
        """
        return piece.removeprefix(b" ") if self._strips else piece

    def _piece(self, token: int) -> bytes:
        text = self._prompts.id_to_token(token)
        if text is None or token in self._special:
            return b""
        return piece_of(str(text), byte_level=self._byte_level)

    def _render(self, chat: Chat, ask: bool) -> str:
        from jinja2 import TemplateError

        messages = chat_api.request(chat, Sampling(), logprobs=False)["messages"]
        try:
            return str(
                self.words.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise RejectedError(
                f"the model's chat template does not take this chat ({type(error).__name__}): its "
                f"turns are {', '.join(t.role for t in chat) or 'none'}",
                status=400,
                param="messages",
            ) from None

    def _end_of_turn(self) -> int:
        """The first special token after a reply as the template writes it; else the tokeniser's end."""
        try:
            shown = self._render((Turn("user", "a"), Turn("assistant", "zyx")), False)
        except RejectedError:
            shown = ""
        after = self._prompts.encode(shown.rpartition("zyx")[2], add_special_tokens=False).ids
        ends = [i for i in after if i in self._special]
        end = ends[0] if ends else self.words.eos_token_id
        if end is None:
            raise CatalogError("the model's tokeniser names no token that ends a reply")
        return int(end)


def _cut(text: str, ends: Sequence[int]) -> tuple[bytes, ...]:
    """`text` cut where its tokens end (in characters); the last one takes what is left."""
    cuts = [0, *ends]
    if ends:
        cuts[-1] = len(text)
    return tuple(
        text[max(cuts[: i + 1]) : max(cuts[: i + 2])].encode() for i in range(len(cuts) - 1)
    )
