"""What steps on threads say together: a value that went up a syllable at a time is read as one.

A draft (`Verify`) is read with the end of the reply that it goes on: where the LM wrote half of a value
and the draft the other half, the draft has said the value.
"""

from __future__ import annotations

from cosilo.boundary.messages import Message, Step, Verified, Verify
from cosilo.boundary.messages.step import ThreadName
from cosilo.errors import StoreError

BEFORE = 64
"""Characters in front of a draft that are read with it."""


class ThreadReader:
    """The replies that steps, noted one after the other, spell out."""

    def __init__(self) -> None:
        self._replies: dict[bytes, str] = {}  # name → the reply up to there
        self._going_on: dict[str, str] = {}  # request → the reply that its last draft goes on
        self._drafts: dict[str, dict[str, None]] = {}  # request → drafts, each with what it goes on
        self._known: dict[bytes, tuple[ThreadName, str]] = {}  # name → the thread up to there
        self._longest: dict[tuple[str, bytes, str], None] = {}  # request, chat, reply

    def note(self, request: str, message: Message) -> None:
        """Take in a message that belongs to `request`.

        Raises:
            StoreError: it holds token ids or states, of which nobody can say here what they mean.
        """
        if not message.legible():
            raise StoreError(
                f"the record holds a {type(message).__name__} of token ids or states, and what text "
                "they stand for cannot be read here, so nobody knows what left"
            )
        if isinstance(message, Verify | Verified):
            self._draft(request, message)
        if not isinstance(message, Step):
            return
        begin, said = ThreadName(message.chat), ""
        if not message.chat and message.thread in self._known:
            begin, said = self._known[message.thread]
        elif not message.chat:
            return  # what it goes on from is not on record; its own text is read by itself
        chat = bytes(begin)
        self._longest.pop((request, chat, said), None)
        self._name(begin, said)
        said += message.text
        self._name(begin, said)
        self._longest[request, chat, said + message.draft] = None
        for letter in message.draft:  # any part of a draft can be what the next step goes on from
            said += letter
            self._name(begin, said)

    def _draft(self, request: str, message: Verify | Verified) -> None:
        if isinstance(message, Verified):
            self._replies[message.thread] = self._going_on.get(request, "") + message.text
            return
        said = self._replies.pop(message.thread, "") if message.thread else ""
        self._going_on[request] = "" if message.whole else said
        if message.draft and not message.whole:  # which says the reply itself
            self._drafts.setdefault(request, {})[said[-BEFORE:] + message.draft] = None

    def _name(self, begin: ThreadName, said: str) -> None:
        self._known[bytes(begin.after(said.encode()))] = (begin, said)

    def whole(self) -> dict[str, list[str]]:
        """Of each request, the replies as far as they went."""
        found: dict[str, list[str]] = {}
        for request, _, said in self._longest:
            if said:
                found.setdefault(request, []).append(said)
        for request, drafts in self._drafts.items():
            found.setdefault(request, []).extend(drafts)
        return found
