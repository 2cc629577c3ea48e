"""An emulator is lent, part by part, and what was tuned through it is plugged in."""

from __future__ import annotations

from asyncio import to_thread

from cosilo.boundary.messages import Lend, Lent, PluggedIn, PlugIn
from cosilo.boundary.messages.lend import PART, Described, parts_of
from cosilo.boundary.wire.tensors import TensorLimits, unpack
from cosilo.boundary.wire.weights import pack_weights, unpack_weights
from cosilo.errors import CapabilityError, RejectedError, UnexpectedReplyError
from cosilo.models.lent import LendingModel, Loan, lends
from cosilo.parties.serving.base import Owner, serves


@serves(Lend)
async def lend(owner: Owner, message: Lend) -> Lent:
    """A part of the emulator, which is made where nobody has asked for it before.

    Raises:
        CapabilityError: the owner lends none, the other side has another tokeniser, or the emulator is
            larger than it takes, or better than is lent.
        UnknownAdapterError: it is to be aligned to an adapter that the owner has not.
        RejectedError: it has no such part.
    """
    model = _lender(owner)
    if message.vocabulary != await to_thread(lambda: model.vocabulary):
        raise CapabilityError(
            f"{owner.name}'s model has another tokeniser than the emulator would be tuned with; the "
            "small model must have the large one's"
        )
    loan = await model.lend(owner.client, message.aligned_to, pack_weights, unpack_weights)
    size = len(loan.packed)
    if size > message.most:
        raise CapabilityError(
            f"{owner.name}'s emulator has {size / 1e6:,.1f} MB, and the other side takes no more than "
            f"{message.most / 1e6:,.1f}"
        )
    if message.part >= parts_of(size):
        raise RejectedError(f"the emulator has {parts_of(size)} parts")
    return Lent(
        part=message.part,
        parts=parts_of(size),
        size=size,
        digest=await to_thread(lambda: loan.digest),
        packed=loan.packed[message.part * PART : (message.part + 1) * PART],
        about=_described(loan) if message.part == 0 else None,
    )


@serves(PlugIn)
async def plug_in(owner: Owner, message: PlugIn) -> PluggedIn:
    """Takes an adapter of this client's.

    Raises:
        CapabilityError: the owner lends no emulator, and so takes no adapters.
        RejectedError: it is for another model, of other layers or shapes than were lent, of a larger
            rank than is taken, or no numbers.
    """
    model = _lender(owner)
    layers = await to_thread(lambda: model.tunable)
    rank = min(message.rank, model.largest_rank)
    numbers = sum(rank * (out + into) for out, into in layers.values())
    limits = TensorLimits(tensors=2 * len(layers), numbers=numbers)
    try:
        tensors = await to_thread(lambda: unpack(message.packed, limits=limits))
    except UnexpectedReplyError:
        raise RejectedError(
            f"{len(message.packed)} bytes are no adapter of rank {rank} or less for the layers that "
            "were lent"
        ) from None
    name = await model.plug_in(owner.client, message.base, message.rank, message.alpha, tensors)
    return PluggedIn(name=name)


def _lender(owner: Owner) -> LendingModel:
    if not lends(owner.model):
        raise CapabilityError(
            f"{owner.name} lends no emulator of {owner.model.name!r}: a model of kind 'lending' does"
        )
    return owner.model


def _described(loan: Loan) -> Described:
    return Described(
        config=loan.config,
        base=loan.base,
        kept=loan.kept,
        ends=loan.ends,
        whole=loan.whole,
        alone=loan.alone,
    )
