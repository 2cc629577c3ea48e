"""Why there is no reply."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from cosilo.boundary.messages.base import Message
from cosilo.models.base import Shows


class Refused(Message, frozen=True, kw_only=True):
    """An error of the other party's, in place of the reply to any request.

    Attributes:
        kind: its class in `cosilo.errors`; empty for an error that is none of ours.
        text: what it says; of one that is none of ours only its class.
        told: its attributes, as `worked` and `status`.
    """

    shows: ClassVar[Shows] = Shows.TEXT
    kind: str
    text: str
    told: dict[str, bool | int | float | str | None] = msgspec.field(default_factory=dict)
