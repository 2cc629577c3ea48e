"""What the detectors of a defence find, given to the data owner: `DataOwner.finds`.

    strategy ──chat──▶ owner.finds ──▶ detectors at home ──▶ the private values in it

A strategy that has the small model write for the other side reads what was written with the same eyes
as the defences, and touches none of them.
"""

from __future__ import annotations

import secrets
from functools import cache
from typing import Protocol

from cosilo.boundary.messages import Ask
from cosilo.defences.hiding import Hiding, M, Settings
from cosilo.defences.vault import Vault
from cosilo.errors import PrivacyError
from cosilo.parties.data_owner import DataOwner, Finder, PrivateValue
from cosilo.types import Chat

_SECONDS = 60.0
_MIN_SCORE = 0.3  # both as the pseudonym defence has them by default


class Hides(Protocol):
    """Puts placeholders of a vault into a message."""

    async def hide(self, message: M, vault: Vault) -> M: ...


def finder(hiding: Hides) -> Finder:
    """What `hiding` would hide in a chat."""
    key = secrets.token_bytes(32)  # of no conversation: these placeholders are thrown away

    async def finds(chat: Chat) -> tuple[PrivateValue, ...]:
        try:
            vault = Vault(key, "")
            await hiding.hide(Ask(chat=chat), vault)
        except PrivacyError:
            raise
        except Exception as error:
            what = type(error).__name__  # its text may quote what it failed on
        else:
            return tuple(PrivateValue(issued.value, issued.kind) for issued in vault.issued)
        raise PrivacyError(f"private values could not be looked for ({what}), so nothing was sent")

    return finds


def all_of(first: Finder | None, second: Finder) -> Finder:
    """What either of two finds."""
    if first is None:
        return second

    async def finds(chat: Chat) -> tuple[PrivateValue, ...]:
        found = {f.value: f for f in (*await second(chat), *await first(chat))}
        return tuple(found.values())

    return finds


def with_finder(owner: DataOwner) -> DataOwner:
    """The owner, who looks for names and identifiers by their form, without a model, where no defence
    gave a better way.
    """
    return owner if owner.finds is not None else owner.finding(_by_form)


async def _by_form(chat: Chat) -> tuple[PrivateValue, ...]:
    return await _patterns()(chat)


@cache
def _patterns() -> Finder:
    """Made when it is first asked: most strategies never do."""
    settings = Settings(
        detectors=("patterns",),
        model="",
        kinds=(),
        min_score=_MIN_SCORE,
        allow=(),
        public_system=False,
        databases=None,
        values=(),
        hints=False,
        seconds=_SECONDS,
    )
    return finder(Hiding(settings))
