"""States go on through the LM's layers, and gradients come back; a client's adapter takes its steps."""

from __future__ import annotations

from asyncio import to_thread

import numpy as np

from cosilo.boundary.messages import Backward, Body, Forward, Gradients, OpenBody, Outputs
from cosilo.boundary.wire import states
from cosilo.boundary.wire.logits import pack_few
from cosilo.errors import CapabilityError, RejectedError, UnknownThreadError
from cosilo.models.base import Array, SplitModel, splits
from cosilo.models.parts import PartModel, has_parts
from cosilo.parties.bodies import ClientBodies, KeptBatch, KeptBody
from cosilo.parties.serving.base import Owner, serves
from cosilo.parties.serving.step import likeliest
from cosilo.parties.threads import KeptStates


@serves(Forward)
async def forward(owner: Owner, message: Forward) -> Outputs:
    """Goes on with a thread of states, or opens one.

    Raises:
        CapabilityError: the model's layers cannot be run by themselves.
        UnknownThreadError: the thread, or the version of the adapter, is not known, or is another
            client's.
        RejectedError: the states are of another width, the layers are none of the model's, or others
            than the thread or the adapter is about; or there are more positions than the model's
            context has.
    """
    model = await _splits(owner)
    given = states.unpack_by(message.codec, message.packed, message.count, message.width)
    if given.shape[1] != model.width:
        raise RejectedError(
            f"states of {given.shape[1]} numbers came; the model's have {model.width}"
        )
    if message.lengths:
        return await _several(owner, model, message, given)
    if not message.thread:
        points = {0: message.opening}
        opened = KeptStates(owner.client, points, message.first, message.last, message.body)
        async with opened.lock:
            return await _gone_on(owner, model, message, given, opened)
    async with owner.threads.using(owner.client, message.thread, KeptStates) as (kept, at):
        there = (kept.first, kept.last, kept.body)
        if there != (message.first, message.last, message.body):
            raise RejectedError(
                "the thread is about other layers, or another version of an adapter"
            )
        if kept.past is not None and at < len(kept.past.states):
            # Others may still go on from what stands behind, so this is a thread of its own from here.
            points = {at: kept.points[at]}
            past = await to_thread(kept.past.fork, at)
            kept = KeptStates(kept.client, points, kept.first, kept.last, kept.body, past)
        return await _gone_on(owner, model, message, given, kept)


async def _gone_on(
    owner: Owner, model: SplitModel, message: Forward, given: Array, kept: KeptStates
) -> Outputs:
    threads = owner.threads
    last = model.layers if kept.last is None else kept.last
    past, kept.past = kept.past, None
    try:
        if kept.body:
            adapter = _adapter(owner, kept.body, kept.first, last)
            async with adapter.lock:
                if kept.body != bytes(adapter.now):
                    raise UnknownThreadError("the adapter has taken a step since")
                kept.past, found = await adapter.part.go_on(past, given)
        else:
            kept.past, found = await model.forward(past, given, kept.first, last)
    except BaseException:
        threads.forget(kept)
        raise
    length = len(kept.past.states)
    name = kept.points[length - message.count].after(message.packed)
    kept.points[length] = name
    threads.keep(kept, {**kept.names, bytes(name): length})
    if kept.last is not None:
        return Outputs(count=message.count, packed=states.pack_by(message.back, found))
    top = likeliest(await model.predict(found, message.top), model.vocabulary_size)
    return Outputs(count=message.count, packed=pack_few(top))


async def _several(owner: Owner, model: SplitModel, message: Forward, given: Array) -> Outputs:
    """Several texts' states through the layers, kept until their gradient comes."""
    last = model.layers if message.last is None else message.last
    if message.body:
        adapter = _adapter(owner, message.body, message.first, last)
        async with adapter.lock:
            if message.body not in adapter.versions:
                raise UnknownThreadError("the adapter has taken steps since")
            part = adapter.part
            passed = await adapter.forward(message.body, given, message.lengths)
    else:
        part = await _with_parts(owner, model).part(message.first, last, None)
        passed = await part.forward(given, message.lengths)
    kept = KeptBatch(owner.client, part, message.body, passed)
    name = bytes(message.opening.after(message.packed))
    owner.threads.keep(kept, {name: message.count})
    return Outputs(count=message.count, packed=states.pack_by(message.back, passed.out))


@serves(Backward)
async def backward(owner: Owner, message: Backward) -> Gradients:
    """From the gradient of what came back on a thread, that of what was sent; where it names a version
    of an adapter, that takes a step.

    Raises:
        CapabilityError: the model's layers cannot be run by themselves.
        UnknownThreadError: the thread is not known, or is another client's.
        RejectedError: tokens came back on the thread, and no states; or it has other positions, or is
            about another version.
    """
    model = await _splits(owner)
    given = message.array()
    threads = owner.threads
    if threads.find(owner.client, message.thread, KeptBatch) is not None:
        async with threads.using(owner.client, message.thread, KeptBatch) as (batch, at):
            _require_shape(given, (at, model.width))
            if message.body != batch.body:
                raise RejectedError("the thread is about another version of an adapter")
            packed = await _back(owner, message, batch, given)
            threads.keep(batch, batch.names)  # it is smaller now
            return Gradients(count=message.count, packed=packed)
    async with threads.using(owner.client, message.thread, KeptStates) as (kept, at):
        if kept.last is None or kept.past is None or kept.body:
            raise RejectedError("no states came back on this thread that have a gradient here")
        _require_shape(given, (at, model.width))
        past = kept.past
        if at < len(past.states):
            past = await to_thread(past.fork, at)
        found = await model.backward(past, given, kept.first, kept.last)
    return Gradients(count=message.count, packed=states.pack_by(message.back, np.asarray(found)))


async def _back(owner: Owner, message: Backward, batch: KeptBatch, given: Array) -> bytes:
    if not message.body:
        return states.pack_by(message.back, await batch.part.backward(batch.passed, given))
    bodies = _bodies(owner)
    adapter = bodies.find(owner.client, message.body)
    async with adapter.lock:
        if message.body not in adapter.versions:
            raise UnknownThreadError("the adapter has taken steps since")
        return await adapter.step(message, batch, bodies.tuning.steps)


@serves(OpenBody)
async def open_body(owner: Owner, message: OpenBody) -> Body:
    """Says whether the model is the client's, and begins an adapter or takes one up.

    Raises:
        CapabilityError: the model's layers cannot be trained, or this owner trains none.
        RejectedError: the client has another model or tokeniser, or as many adapters as it may.
        UnknownThreadError: the version that it has come to is not there.
    """
    model = _with_parts(owner, await _splits(owner))
    if message.train:
        _bodies(owner)
    if message.base != await model.base_digest():
        raise RejectedError(
            "the two sides have different models or tokenisers (their hashes differ), and layers of "
            "one go on from no other's: both must load the same files",
            everything=True,
        )
    if message.last > model.layers:
        raise RejectedError(f"there are no layers up to {message.last}: it has {model.layers}")
    if not message.train:
        return Body(layers=model.layers)
    return await _bodies(owner).open(owner.client, model, message)


def _require_shape(given: Array, there: tuple[int, int]) -> None:
    if given.shape != there:
        raise RejectedError(
            f"gradients of shape {given.shape} came; the thread's states have {there}"
        )


def _adapter(owner: Owner, name: bytes, first: int, last: int) -> KeptBody:
    adapter = _bodies(owner).find(owner.client, name)
    if (adapter.first, adapter.last) != (first, last):
        raise RejectedError("the adapter is on other layers")
    return adapter


def _bodies(owner: Owner) -> ClientBodies:
    if owner.bodies is None:
        raise CapabilityError(
            f"{owner.name} trains no adapters for its clients: its owner can allow it ([model.body] in "
            "its configuration), or train without it (body = false)"
        )
    return owner.bodies


def _with_parts(owner: Owner, model: SplitModel) -> PartModel:
    if not has_parts(model):
        raise CapabilityError(
            f"{owner.name} cannot take several texts at a time with {model.name!r}"
        )
    return model


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
