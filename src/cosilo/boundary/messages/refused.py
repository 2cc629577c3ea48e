"""Why there is no reply."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from cosilo.boundary.messages.base import SMALL, Message
from cosilo.models.base import Shows
from cosilo.types import Amount, Count

Fact = bool | Count | Amount | str | None


class Refused(Message, frozen=True, kw_only=True):
    """An error of the other party's, in place of the reply to any request.

    Attributes:
        kind: its class in `cosilo.errors`; empty for an error that is none of ours.
        text: what it says; of one that is none of ours only its class.
        told: its attributes, as `worked` and `status`.
    """

    shows: ClassVar[Shows] = Shows.TEXT
    largest: ClassVar[int] = SMALL
    kind: str
    text: str
    told: Annotated[dict[str, Fact], msgspec.Meta(max_length=16)] = msgspec.field(
        default_factory=dict
    )
