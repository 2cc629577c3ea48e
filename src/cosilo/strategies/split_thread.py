"""A text in two hands: the layers below at home, those above at the LM's owner.

tokens ──▶ embedding, first layers ──▶ cut, noise ──Forward──▶ the LM's other layers
                                                                      │
          what it says comes next ◀── denoiser ◀─────────Outputs──────┘
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import msgspec
import numpy as np

from cosilo.boundary.channel import Channel
from cosilo.boundary.messages.forward import Forward, StatesName
from cosilo.boundary.wire import states
from cosilo.errors import (
    CapabilityError,
    ConfigError,
    RejectedError,
    UnexpectedReplyError,
    UnknownThreadError,
)
from cosilo.models.base import (
    Access,
    ActivationModel,
    Array,
    SplitModel,
    StatePast,
    TextModel,
    ThreadModel,
    Tokens,
    goes_on,
    require,
    splits,
)
from cosilo.privacy.mechanisms import RadialNoise, Release
from cosilo.privacy.radial_noise import cut_to, eta_for, radial_noise
from cosilo.privacy.secret_key import KeyedRandom
from cosilo.strategies.split_writing import HomeWriter
from cosilo.types import Delta, Sampling, user


class HomeModel(ActivationModel, ThreadModel, SplitModel, Protocol):
    """A model at home that can be cut: its tokens, its embedding, single layers, its head."""


Denoises = Callable[[Array, Array, Array], Array]
"""See `denoiser.Denoiser`."""


@dataclass(frozen=True, eq=False)
class SplitPoint:
    """Where a model is cut, and what becomes of the states there.

    Attributes:
        layers: those at home.
        noise: how long the noise is on average, as a multiple of `clip`; 0 for none.
        clip: how long a state may be; ignored without noise.
        key: what the noise is derived under: the same tokens have the same noise.
        denoiser: what the LM's outputs go through.
        until: the layers behind this one are at home, too; None where the LM has all others.
        body: the version of the adapter that the LM's owner has on its layers for this client.
    """

    layers: int
    noise: float
    clip: float
    key: bytes = field(repr=False)
    denoiser: Denoises | None = None
    until: int | None = None
    body: bytes = b""

    def eta(self, width: int) -> float:
        return eta_for(self.noise, self.clip, width)


class SplitThread:
    """A text that grows, read by the LM's upper layers.

    Args:
        channel: to the LM's owner, whose model has the layers that go on from those at home.
        open: so many of the first tokens are the same in every text, so their states go as they are.
        again: asks the LM's owner to take up an adapter that it has put away.
    """

    def __init__(
        self,
        channel: Channel,
        model: HomeModel,
        cut: SplitPoint,
        *,
        open: int = 0,
        again: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._channel = channel
        self._model = model
        self._cut = cut
        self._open = open
        self._ids: list[int] = []
        self._past: StatePast | None = None
        self._past_above: StatePast | None = None
        self._sent = b""
        self._again = again
        self._until = model.layers if cut.until is None else cut.until
        self._name = self._nothing()

    async def go_on(self, ids: Sequence[int]) -> Array:
        """Read `ids` behind what was read; the states after the model's last layer, shape (n, width).

        A thread that the LM's owner has forgotten is sent whole, once, with the noise that it had.

        Raises:
            RejectedError: the text is longer than the model's context, or the LM is another model.
            UnexpectedReplyError: the reply does not fit.
            and what `Channel.send` raises.
        """
        given = await self._below(ids)
        begun = len(self._ids)
        self._ids += ids
        noisy, noise, spent = self._protected(given, begun)
        packed = states.pack_scaled(noisy)
        forward = Forward(
            thread=bytes(self._name) if begun else b"",
            first=self._cut.layers,
            last=self._until,
            body=self._cut.body,
            count=len(ids),
            packed=packed,
        )
        if spent is not None:
            mechanism, draw = spent
            release = Release(mechanism=mechanism, neighbours="replace", unit="text", draw=draw)
            forward = msgspec.structs.replace(forward, release=release, epsilon=mechanism.bound)
        self._sent += packed
        try:
            reply = await self._channel.send(forward)
        except UnknownThreadError:
            if self._again is not None:
                await self._again()
            whole = msgspec.structs.replace(
                forward, thread=b"", count=len(self._ids), packed=self._sent
            )
            reply = await self._channel.send(whole)
            self._name = self._nothing().after(self._sent)
        else:
            self._name = self._name.after(packed)
        found = states.unpack_scaled(reply.packed, reply.count)[-len(ids) :]
        if found.shape != given.shape:
            raise UnexpectedReplyError("the large model's states are of another width")
        if self._cut.denoiser is not None:
            found = self._cut.denoiser(found, given, noise)
        return await self._above(found)

    async def reply(self, prompt: Sequence[int], sampling: Sampling) -> AsyncIterator[Delta]:
        """Read `prompt` and write what comes next, token by token.

        Raises:
            what `go_on` does.
        """
        writer = HomeWriter(self._model, sampling)
        new = prompt
        while writer.finish is None:
            token = await writer.choose((await self.go_on(new))[-1:])
            if (piece := writer.piece()) is not None:
                yield piece
            new = [] if token is None else [token]
        yield writer.last(len(prompt))

    def _nothing(self) -> StatesName:
        return StatesName(self._cut.layers, self._until, body=self._cut.body)

    async def _above(self, found: Array) -> Array:
        """`found` after the layers at home that stand above the LM's."""
        if self._until < self._model.layers:
            self._past_above, found = await self._model.forward(
                self._past_above, found, self._until, self._model.layers
            )
        return found

    async def _below(self, ids: Sequence[int]) -> Array:
        """The states of `ids` after the layers at home."""
        tokens = Tokens(np.array(ids, np.int32), len(ids), ())
        (found,) = await self._model.activations([tokens], 0)
        if self._cut.layers:
            self._past, found = await self._model.forward(self._past, found, 0, self._cut.layers)
        return found

    def _protected(
        self, given: Array, begun: int
    ) -> tuple[Array, Array, tuple[RadialNoise, str] | None]:
        """What is sent of `given`, the noise in it, and by which mechanism, with a name of the draw."""
        noise = np.zeros_like(given)
        hidden = max(0, self._open - begun)  # how many of these are sent as they are
        if not self._cut.noise or hidden >= len(given):
            return given, noise, None
        clip, eta = self._cut.clip, self._cut.eta(given.shape[1])
        cut = given.copy()
        cut[hidden:] = cut_to(given[hidden:], clip)
        read = hashlib.sha256(np.array(self._ids[:begun], "<i4").tobytes())
        for i in range(len(given)):
            read.update(np.array(self._ids[begun + i], "<i4").tobytes())
            if i >= hidden:
                source = KeyedRandom(self._key(eta), read.digest())
                noise[i] = radial_noise(source, given.shape[1], eta)
        mechanism = RadialNoise(eta=eta, clip=clip, vectors=len(given) - hidden)
        draw = hmac.new(self._key(eta), b"draw" + read.digest(), hashlib.sha256).hexdigest()
        return cut + noise, noise, (mechanism, draw)

    def _key(self, eta: float) -> bytes:
        about = f"{self._model.vocabulary} {self._cut.layers} {eta!r} {self._cut.clip!r}".encode()
        return hmac.digest(self._cut.key, about, hashlib.sha256)


USUAL = (
    "The committee met on Tuesday to talk about the new bridge. Nobody had read the report, which says "
    "that the river rises by two metres in most winters, and so they agreed to meet again in March."
)
"""A text of nobody's, by which states are measured."""


def home_model(model: TextModel, layers: int, *, by: str) -> HomeModel:
    """`model` as one that can be cut behind so many layers.

    Raises:
        CapabilityError: it cannot be cut.
        ConfigError: it has not more layers than that.
    """
    require(model, Access.ACTIVATIONS, by=by)
    if not (splits(model) and goes_on(model)):
        raise CapabilityError(
            f"{by} runs layers of the small model by themselves, and {model.name!r} cannot: the torch "
            "back end can"
        )
    home = cast(HomeModel, model)
    if layers >= home.layers:
        raise ConfigError(
            f"layers = {layers} leaves nothing to the large model: {model.name!r} has {home.layers}"
        )
    return home


def require_plain(sampling: Sampling, *, by: str) -> None:
    """Refuse, before anything is sent, what is not decided at home."""
    for name in ("tools", "tool_choice", "response_format", "fields"):
        if getattr(sampling, name):
            raise RejectedError(f"{by} writes plain text and knows no {name}", everything=True)


def same_begin(model: HomeModel, prompt: Sequence[int]) -> int:
    """1 where the first token stands in front of any text, 0 otherwise. Some models' states there are
    hundreds of times as long as all others, and without them the text is another."""
    others = (user("a"), user("b", system="c"))
    return int(all(list(model.prompt(chat))[:1] == list(prompt[:1]) for chat in others))


async def usual_length(model: HomeModel, layers: int) -> float:
    """The median length of a state after so many layers, in a text of nobody's."""
    (found,) = await model.activations([model.plain(USUAL)], layers)
    return float(np.median(np.linalg.norm(found[1:], axis=1)))
