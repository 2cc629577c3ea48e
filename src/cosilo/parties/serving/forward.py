"""States go on through the LM's layers, and gradients come back."""

from __future__ import annotations

from asyncio import to_thread

import numpy as np

from cosilo.boundary.messages import Backward, Forward, Gradients, Outputs
from cosilo.boundary.messages.forward import StatesName
from cosilo.boundary.wire import states
from cosilo.boundary.wire.logits import pack_few
from cosilo.errors import CapabilityError, RejectedError
from cosilo.models.base import Array, SplitModel, splits
from cosilo.parties.serving.base import Owner, serves
from cosilo.parties.serving.step import likeliest
from cosilo.parties.threads import KeptStates, Threads


@serves(Forward)
async def forward(owner: Owner, message: Forward) -> Outputs:
    """Goes on with a thread of states, or opens one.

    Raises:
        CapabilityError: the model's layers cannot be run by themselves.
        UnknownThreadError: the thread is not known, or is another client's.
        RejectedError: the states are of another width, the layers are none of the model's, or others
            than the thread is about; or there are more positions than the model's context has.
    """
    model = await _splits(owner)
    given = states.unpack_scaled(message.packed, message.count)
    if given.shape[1] != model.width:
        raise RejectedError(
            f"states of {given.shape[1]} numbers came; the model's have {model.width}"
        )
    if not message.thread:
        points = {0: StatesName(message.first, message.last)}
        opened = KeptStates(owner.client, points, message.first, message.last)
        async with opened.lock:
            return await _gone_on(model, owner.threads, message, given, opened)
    async with owner.threads.using(owner.client, message.thread, KeptStates) as (kept, at):
        if (kept.first, kept.last) != (message.first, message.last):
            raise RejectedError("the thread is about other layers")
        if kept.past is not None and at < len(kept.past.states):
            # Others may still go on from what stands behind, so this is a thread of its own from here.
            points = {at: kept.points[at]}
            past = await to_thread(kept.past.fork, at)
            kept = KeptStates(kept.client, points, kept.first, kept.last, past)
        return await _gone_on(model, owner.threads, message, given, kept)


async def _gone_on(
    model: SplitModel, threads: Threads, message: Forward, given: Array, kept: KeptStates
) -> Outputs:
    last = model.layers if kept.last is None else kept.last
    past, kept.past = kept.past, None
    try:
        kept.past, found = await model.forward(past, given, kept.first, last)
    except BaseException:
        threads.forget(kept)
        raise
    length = len(kept.past.states)
    name = kept.points[length - message.count].after(message.packed)
    kept.points[length] = name
    threads.keep(kept, {**kept.names, bytes(name): length})
    if kept.last is not None:
        return Outputs(count=message.count, packed=states.pack_scaled(found))
    top = likeliest(await model.predict(found, message.top), model.vocabulary_size)
    return Outputs(count=message.count, packed=pack_few(top))


@serves(Backward)
async def backward(owner: Owner, message: Backward) -> Gradients:
    """From the gradient of what came back on a thread, that of what was sent.

    Raises:
        CapabilityError: the model's layers cannot be run by themselves.
        UnknownThreadError: the thread is not known, or is another client's.
        RejectedError: tokens came back on the thread, and no states; or it has other positions.
    """
    model = await _splits(owner)
    given = states.unpack_scaled(message.packed, message.count)
    async with owner.threads.using(owner.client, message.thread, KeptStates) as (kept, at):
        if kept.last is None or kept.past is None:
            raise RejectedError("no states came back on this thread, so they have no gradient")
        if given.shape != (at, model.width):
            raise RejectedError(
                f"gradients of shape {given.shape} came; the thread's states have {(at, model.width)}"
            )
        past = kept.past
        if at < len(past.states):
            past = await to_thread(past.fork, at)
        found = await model.backward(past, given, kept.first, kept.last)
    return Gradients(count=message.count, packed=states.pack_scaled(np.asarray(found)))


async def _splits(owner: Owner) -> SplitModel:
    model = owner.model
    if not splits(model):
        raise CapabilityError(
            f"{owner.name}, asked to run some layers of {model.name!r} and give gradients back, "
            "needs a model whose states and weights lie open: the torch back end has them, llama.cpp "
            "and models behind a URL show neither"
        )
    await to_thread(lambda: model.layers)  # it may have to be loaded
    return model
