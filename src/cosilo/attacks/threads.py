"""What steps on threads say together: a value that went up a syllable at a time is read as one."""

from __future__ import annotations

from cosilo.boundary.messages import Message, Step
from cosilo.boundary.messages.step import ThreadName
from cosilo.errors import StoreError


class ThreadReader:
    """The replies that steps, noted one after the other, spell out."""

    def __init__(self) -> None:
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

    def _name(self, begin: ThreadName, said: str) -> None:
        self._known[bytes(begin.after(said.encode()))] = (begin, said)

    def whole(self) -> dict[str, list[str]]:
        """Of each request, the replies as far as they went."""
        found: dict[str, list[str]] = {}
        for request, _, said in self._longest:
            if said:
                found.setdefault(request, []).append(said)
        return found
