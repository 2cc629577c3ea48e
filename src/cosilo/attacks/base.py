"""What an adversary can work out from what crossed.

An attack is given a `View` and `Target`s without their answers. It never sees a party or a task:
the import rules forbid it, so it cannot cheat by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from cosilo.boundary.record.ledger import Entry
from cosilo.models.base import Embedder, TextModel
from cosilo.registry import Registry
from cosilo.types import Chat


@dataclass(frozen=True)
class View:
    """What the attacker holds.

    Attributes:
        entries: reads the record, lazily, each time it is called.
        model: opens a public model that the attacker may use; None for none.
        embedder: a public sentence encoder the attacker may use; None for none.
        published: the data owner's trained small model, where it is given away or its answers are
            sold, as far as it is a `Classifier` or scores replies; None where nobody else holds it.
        untrained: the public model that it was trained from, where that is known and scores replies.
        public: public chats and their replies that all parties have, where what crossed is about them.
    """

    entries: Callable[[], Iterator[Entry]]
    model: Callable[[], TextModel] | None = None
    embedder: Embedder | None = None
    published: object | None = None
    untrained: object | None = None
    public: Sequence[tuple[Chat, str]] = ()


@dataclass(frozen=True)
class Target:
    """A question put to the attacker.

    Attributes:
        request: the item whose messages may hold the answer; empty when the attacker must find out.
        kind: what is asked for ("secret:person", "record", …).
        candidates: the answers to choose from; the attacker's background knowledge.
        chat, label: the text that the question is about and its label, where the attacker holds them.
    """

    id: str
    request: str
    kind: str
    candidates: tuple[str, ...] = ()
    chat: Chat = ()
    label: str = ""


@dataclass(frozen=True)
class Guess:
    """`value` with the attacker's confidence in it, 0 (none at all) to 1."""

    target: str
    value: str
    score: float


class Attack(Protocol):
    """An attack: guesses what a curious party can work out from the record.

    Attributes:
    about: what its targets are: "secrets" (values of one item), "records" (which item a message
        came from), "replies" (what the LM would answer), "model" (what the LM is like inside),
        "members" (whether preparing learned from a text, by what it sent), "published" (the same, by
        the small model it trained) or "updates" (which words the updates of a federation were made of).
    An attack that also reads what was said of `View.public` says `reads_public = True`: it is made
    where what went up is no text, too.
    """

    about: ClassVar[str]

    async def guess(self, view: View, targets: Sequence[Target]) -> list[Guess]:
        """One guess per target, in order. With an empty view it gives the attacker's prior."""


attacks: Registry[Attack] = Registry("attack")
