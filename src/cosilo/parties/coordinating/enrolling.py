"""Who may take part in a federation, and what it is told then."""

from __future__ import annotations

import json

from cosilo.boundary.messages import Enrol, Enrolled
from cosilo.boundary.messages.federate import VERSION, OpinionTerms, SumTerms, WalkTerms
from cosilo.boundary.wire import tensors
from cosilo.errors import CapabilityError, RejectedError
from cosilo.models.low_rank import Layers
from cosilo.parties.coordinating.book import Standing
from cosilo.parties.coordinating.settings import FederationSettings


def require_enrollable(
    owner: str,
    message: Enrol,
    settings: FederationSettings,
    at: Standing,
    opinions: OpinionTerms | None = None,
) -> None:
    """Refuse an owner that cannot take part.

    Args:
        opinions: what owners send opinions of, where they do.

    Raises:
        CapabilityError: it speaks another version, has another base model, or other layers; it trains
            adapters of another rank; it does not say how many examples it has, and must; it has other
            public examples.
        RejectedError: it is not one of the owners.
    """
    if message.version != VERSION:
        raise CapabilityError(
            f"the owner speaks version {message.version} of the exchange of federations, and the "
            f"coordinator version {VERSION}: install the same release on both sides"
        )
    if settings.owners and owner not in settings.owners:
        raise RejectedError(f"{owner!r} is not one of this federation's owners", everything=True)
    if opinions is not None or message.public:
        return _check_public(message, opinions)
    _check_base(message, at)
    several = settings.ranks != "one"
    if not (1 <= message.rank <= settings.rank if several else message.rank == settings.rank):
        raise CapabilityError(
            f"the owner trains adapters of rank {message.rank}, and this federation those of rank "
            f"{'1 to ' * several}{settings.rank}: set rank"
        )
    if settings.secure != message.sums:
        raise CapabilityError(
            "the coordinator sees no owner's update, only their sum: set secure = true"
            if settings.secure
            else "the coordinator would see this owner's updates, and it does not want that: the "
            "host needs [federation] secure = true, or the owner secure = false"
        )
    if (settings.method == "scalars") != message.scalars:
        raise CapabilityError(
            f"this federation's updates are of method = \"{settings.method}\", and the owner's are "
            "not: set method"
        )
    if settings.counts and not (message.examples or settings.secure):
        raise CapabilityError(
            "this federation weighs updates by how many examples an owner has, and the owner does "
            "not say, or has none: set tell_count = true, or let each owner count the same"
        )


def told_to(
    message: Enrol,
    settings: FederationSettings,
    at: Standing,
    layers: Layers,
    *,
    sums: SumTerms | None,
    teaches: bool,
    opinions: OpinionTerms | None = None,
    most: int = 0,
) -> Enrolled:
    """What an owner takes part in.

    Args:
        layers: of the base model.
        sums: how updates are summed, where the coordinator sees none of them.
        teaches: a large model of the coordinator's learns with the owners.
        opinions: what owners send opinions of, where they do, and
        most: bytes of the longest.
    """
    return Enrolled(
        version=VERSION,
        federation=at.name,
        base=at.base if opinions is None else message.base,
        rounds=settings.rounds,
        rule=settings.rule,
        rank=message.rank,
        scale=settings.scale,
        codec=settings.codec,
        seed=settings.seed,
        counts=settings.counts,
        most=most
        or tensors.size_of(settings.shapes(layers, settings.largest_rank), settings.codec),
        held=settings.held_s,
        sums=sums,
        teaches=teaches,
        epoch=at.epoch,
        keeps=settings.keep_updates,
        walk=WalkTerms(directions=settings.directions, rate=settings.rate)
        if settings.method == "scalars"
        else None,
        opinions=opinions,
    )


def said_of(message: Enrol) -> str:
    """All that an owner said of itself, as text."""
    about = [message.base, message.rank, message.examples, message.settings]
    if message.public:
        about.append(message.public)
    return json.dumps(about)


def _check_public(message: Enrol, opinions: OpinionTerms | None) -> None:
    if opinions is None:
        raise CapabilityError(
            "the owner sends opinions of public texts, and this federation's owners send something "
            "else: take part by another strategy, federated or fedcollm"
        )
    if not message.public:
        raise CapabilityError(
            "this federation's owners send opinions of public texts, and the owner something else: "
            "take part by the strategy fedmkt"
        )
    if message.public != opinions.public:
        raise CapabilityError(
            f"the owner's public examples are {message.public}, and this federation's "
            f"{opinions.public}: all must have the same file"
        )
    if message.layers or message.rank or message.sums or message.scalars:
        raise CapabilityError(
            "the owner would send an adapter, or sum it in secret, and adapters stay at home here"
        )


def _check_base(message: Enrol, at: Standing) -> None:
    if at.base and message.base != at.base:
        raise CapabilityError(
            f"the owner's base model and tokeniser are {message.base}, and this federation's are "
            f"{at.base}: all owners must have the same"
        )
    if not message.layers or list(message.layers) != sorted(set(message.layers)):
        raise CapabilityError("the owner names no layers to adapt, or not in order")
    if at.layers and message.layers != at.layers:
        other = next(iter(set(message.layers) ^ set(at.layers)))
        raise CapabilityError(
            f"the owner adapts other layers than this federation, {other[0]!r} among them"
        )
