"""A private head answers on vectors that it cannot read, as often as its owner allows each client."""

from __future__ import annotations

from asyncio import to_thread

from cosilo.boundary.messages import (
    AskHead,
    EncryptedLogits,
    EncryptedVector,
    EvaluationKeys,
    HeadDescribed,
    KeysTaken,
)
from cosilo.boundary.messages.encrypted import MOST_LABELS
from cosilo.engines.ckks.layout import require_room
from cosilo.errors import CapabilityError, RejectedError
from cosilo.models.encoder.allowance import Allowance
from cosilo.models.encoder.private_head import PrivateHead, is_private_head
from cosilo.parties.encrypted import keyed
from cosilo.parties.serving.base import Owner, serves


@serves(AskHead)
async def ask_head(owner: Owner, message: AskHead) -> HeadDescribed:
    """What the head tells apart.

    Raises:
        CapabilityError: the owner has no private head, one of another encoder, or allows no logits.
    """
    head, allowance = _head(owner)
    if message.encoder != head.encoder:
        raise CapabilityError(
            f"{owner.name}'s head is for vectors of {head.encoder!r}, not of {message.encoder!r}"
        )
    try:
        require_room(head.weights, head.bias)
    except ValueError as error:
        raise CapabilityError(f"{owner.name}'s head cannot be encrypted with: {error}") from None
    if len(head.labels) > MOST_LABELS:
        raise CapabilityError(
            f"{owner.name}'s head tells {len(head.labels):,} labels apart, and no more than "
            f"{MOST_LABELS:,} can be told"
        )
    left = await to_thread(allowance.left, owner.client)
    return HeadDescribed(labels=head.labels, inputs=head.inputs, left=left)


@serves(EvaluationKeys)
async def take_keys(owner: Owner, message: EvaluationKeys) -> KeysTaken:
    """Takes a part of a client's keys.

    Raises:
        RejectedError: they are none for this head.
    """
    head, _ = _head(owner)
    return KeysTaken(whole=await keyed(head).take(owner.client, message))


@serves(EncryptedVector)
async def logits(owner: Owner, message: EncryptedVector) -> EncryptedLogits:
    """Encrypted logits of an encrypted vector, which counts whatever comes of it.

    Raises:
        UnknownKeysError: its keys are not here; nothing is counted, unless they went while it was.
        BudgetExceededError: the client has had all the answers that it may have.
        RejectedError: it is no vector.
    """
    head, allowance = _head(owner)
    heads = keyed(head)
    heads.require(owner.client, message.keys)
    await to_thread(allowance.take, owner.client)
    packed, took = await heads.logits(owner.client, message.keys, message.packed)
    if len(packed) > EncryptedLogits.largest:
        raise RejectedError("an answer of another size")
    return EncryptedLogits(packed=packed, took=took)


def _head(owner: Owner) -> tuple[PrivateHead, Allowance]:
    model = owner.model
    if not is_private_head(model):
        raise CapabilityError(
            f"{owner.name} computes on no encrypted vectors: a model of kind 'private_head' does"
        )
    if model.allowance is None:
        raise CapabilityError(
            f"{owner.name} gives no logits of its head: its owner may allow some (`allowance`)"
        )
    return model, model.allowance
