"""What a client names is forgotten: looked for among its own, noted, taken away, and told."""

from __future__ import annotations

import time
from asyncio import to_thread
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from cosilo.boundary.messages import Forget, Forgotten, decode, encode
from cosilo.boundary.messages.forget import ForgottenItem, How, Left, What
from cosilo.errors import RejectedError, StoreError
from cosilo.models.encoder.private_head import is_private_head
from cosilo.models.tunable import forgets_adapters, plugs
from cosilo.parties.encrypted import keyed
from cosilo.parties.forgets import KeptForget, Planned
from cosilo.parties.joint import begun
from cosilo.parties.serving.base import Owner, serves


@serves(Forget)
async def forget(owner: Owner, message: Forget) -> Forgotten:
    """Forgets, or tells what was forgotten before.

    Raises:
        RejectedError: this id is of another request; or what it names is worked on now, and nothing was
            taken away.
        StoreError: something cannot be taken away; what can was, and asking again goes on.
    """
    book, about = owner.forgets, (owner.client, message.forget, message.part)
    async with book.lock:
        kept = book.find(*about)
        if kept is not None and kept.asked != message.asked:
            raise RejectedError("another request to forget has this id: use a new one")
        if kept is not None and kept.answer is not None:
            answer = decode(kept.answer)
            if not isinstance(answer, Forgotten):
                raise StoreError("what was answered to this request to forget cannot be read")
            return answer
        if kept is None:
            kept = KeptForget(message.asked, await _looked_for(owner, message))
            book.plan(*about, kept)
        if is_private_head(owner.model):  # keys are kept for a while, and made of no record
            keyed(owner.model).forget(owner.client)
        if (runs := owner.joint or begun(owner.model)) is not None:
            await runs.forget(owner.client)
        outcomes = [await _taken_away(owner, planned, message) for planned in kept.planned]
        if message.everything:  # it names nothing, and is told no name that is another's
            outcomes = [outcome for outcome in outcomes if outcome.how != "nothing"]
        told = Forgotten(
            forget=message.forget,
            part=message.part,
            asked=message.asked,
            client=owner.client,
            by=owner.name,
            at=time.time(),
            outcomes=tuple(outcomes),
        )
        told = book.signed(told)
        book.answered(*about, encode(told))
        return told


async def _looked_for(owner: Owner, message: Forget) -> tuple[Planned, ...]:
    """What there is of what is named, before any of it is taken away."""
    found = await _requests(owner, message)
    found += await _adapters(owner, message)
    found += await _bodies(owner, message)
    found += _federations(owner, message)
    return tuple(found)


async def _requests(owner: Owner, message: Forget) -> list[Planned]:
    book, client = owner.forgets, owner.client
    if message.everything:
        count = book.count(client)
        return [Planned(ForgottenItem(what="request", how="deleted", count=count))] * bool(count)
    known = book.known(client, message.requests)
    here = tuple(name for name in message.requests if name in known)
    gone = tuple(name for name in message.requests if name not in known)
    found = _all("request", "deleted", here) + _all("request", "nothing", gone)
    if not await _left_in(owner, message, known):
        return found
    left = ("others were given it", *book.left_of_rounds)
    return [
        each._replace(outcome=replace(each.outcome, left=left))
        if each.outcome.how == "deleted"
        else each
        for each in found
    ]


async def _left_in(owner: Owner, message: Forget, requests: set[str]) -> bool:
    """Whether one of these requests gave something to a federation that is not asked to forget it."""
    if message.federations or requests.isdisjoint(owner.forgets.updates(owner.client)):
        return False
    federation = owner.federation
    return federation is None or await federation.part_of(owner.client) != "taken back"


async def _adapters(owner: Owner, message: Forget) -> list[Planned]:
    model, asked = owner.model, message.adapters
    if not asked and not message.everything:
        return []
    if not forgets_adapters(model):
        return _all("adapter", "cannot" if plugs(model) else "nothing", asked)
    kept = await model.adapters_of(owner.client)
    return _each("adapter", kept if message.everything else asked, kept)


async def _bodies(owner: Owner, message: Forget) -> list[Planned]:
    bodies, asked = owner.bodies, message.bodies
    if not asked and not message.everything:
        return []
    versions = {} if bodies is None else await to_thread(bodies.versions, owner.client)
    last = {name: kept[0] for first, kept in versions.items() for name in (first, *kept)}
    firsts = {name: first for first, kept in versions.items() for name in (first, *kept)}
    found = _each("body", versions if message.everything else asked, last)
    return [
        each._replace(places=tuple(firsts[n] for n in each.outcome.names if n in firsts))
        for each in found
    ]


def _federations(owner: Owner, message: Forget) -> list[Planned]:
    """What becomes of each stands in the federation's own book, where it is done."""
    named = [(each.federation, each.rounds) for each in message.federations]
    if message.everything and owner.federation is not None:
        named = [(owner.federation.name, ())]
    if message.everything and owner.federation is None and owner.forgets.updates(owner.client):
        return _all("federation", "cannot", ())  # of one that this owner no longer coordinates
    return [
        Planned(ForgottenItem(what="federation", how="nothing", names=(name,)), rounds=rounds)
        for name, rounds in named
    ]


def _each(what: What, names: Iterable[str], kept: Mapping[str, str]) -> list[Planned]:
    """One for each that there is, with its hash; one for all that there are not."""
    found = [
        Planned(ForgottenItem(what=what, how="deleted", names=(name,), count=1, before=kept[name]))
        for name in names
        if name in kept
    ]
    return found + _all(what, "nothing", tuple(name for name in names if name not in kept))


def _all(what: What, how: How, names: tuple[str, ...]) -> list[Planned]:
    count = len(names) if how != "nothing" else 0
    left: tuple[Left, ...] = ("settings",) if how == "cannot" else ()
    outcome = ForgottenItem(what=what, how=how, names=names, count=count, left=left)
    return [Planned(outcome)] if names or how == "cannot" else []


async def _taken_away(owner: Owner, planned: Planned, message: Forget) -> ForgottenItem:
    """What is told of something, once it is taken away; doing it twice does no harm."""
    outcome = planned.outcome
    if outcome.what == "federation" and outcome.how == "nothing":
        return await _taken_back(owner, planned, message)
    if outcome.how != "deleted":
        return outcome
    # What was computed of a thread says what it was made of, and which request brought that is not
    # known: a client opens again what it goes on with.
    await owner.threads.forget_all(owner.client)
    match outcome.what:
        case "request":
            left = owner.forgets.forget(owner.client, None if message.everything else outcome.names)
            how: How = "cannot" if "contents" in left else "deleted"
            return replace(outcome, how=how, left=(*left, *outcome.left))
        case "adapter" if forgets_adapters(owner.model):
            for name in outcome.names:
                await owner.model.forget_adapter(owner.client, name)
        case "body" if owner.bodies is not None:
            for first in planned.places:
                await owner.bodies.forget(owner.client, first)
        case _:  # it was there before this owner was begun with another configuration
            return replace(outcome, how="cannot", left=("settings",))
    return outcome


async def _taken_back(owner: Owner, planned: Planned, message: Forget) -> ForgottenItem:
    """What became of a client's updates in a federation."""
    (name,), book = planned.outcome.names, owner.forgets
    request, federation = f"{message.forget} {message.part}", owner.federation
    told = (
        None
        if federation is None
        else await federation.take_back(owner.client, name, request, planned.rounds)
    )
    if told is None:  # another one, which what the client gave may stand in, unless it was this one
        known = federation is not None and await federation.part_of(owner.client) != "none"
        if known or not book.updates(owner.client):
            return planned.outcome
        return replace(planned.outcome, how="cannot", count=1, left=("settings",))
    if told.how in ("nothing", "cannot"):
        return told
    book.forget(owner.client, book.rounds(owner.client))
    return replace(told, left=(*told.left, *(book.left_of_rounds if told.left else ())))
