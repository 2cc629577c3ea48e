"""A text in two hands: the layers below at home, those above at the LM's owner.

tokens ──▶ embedding, first layers ──▶ cut, noise ──Forward──▶ the LM's other layers
                                                                      │
          what it says comes next ◀── denoiser ◀─────────Outputs──────┘
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np

from cosilo.boundary.channel import Channel
from cosilo.boundary.messages.forward import Forward, StatesName
from cosilo.boundary.wire import states
from cosilo.errors import UnexpectedReplyError, UnknownThreadError
from cosilo.models.base import (
    ActivationModel,
    Array,
    SplitModel,
    StatePast,
    ThreadModel,
    Tokens,
)
from cosilo.privacy.mechanisms import RadialNoise, Release
from cosilo.privacy.radial_noise import cut_to, eta_for, radial_noise
from cosilo.privacy.secret_key import KeyedRandom


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
    """

    layers: int
    noise: float
    clip: float
    key: bytes
    denoiser: Denoises | None = None

    def eta(self, width: int) -> float:
        return eta_for(self.noise, self.clip, width)


class SplitThread:
    """A text that grows, read by the LM's upper layers.

    Args:
        channel: to the LM's owner, whose model has the layers that go on from those at home.
        open: so many of the first tokens are the same in every text, so their states go as they are.
    """

    def __init__(
        self, channel: Channel, model: HomeModel, cut: SplitPoint, *, open: int = 0
    ) -> None:
        self._channel = channel
        self._model = model
        self._cut = cut
        self._open = open
        self._ids: list[int] = []
        self._past: StatePast | None = None
        self._sent = b""
        self._name = StatesName(cut.layers, model.layers)

    async def go_on(self, ids: Sequence[int]) -> Array:
        """Read `ids` behind what was read; the states after the LM's last layer, shape (n, width).

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
            last=self._model.layers,
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
            whole = msgspec.structs.replace(
                forward, thread=b"", count=len(self._ids), packed=self._sent
            )
            reply = await self._channel.send(whole)
            self._name = StatesName(self._cut.layers, self._model.layers).after(self._sent)
        else:
            self._name = self._name.after(packed)
        found = states.unpack_scaled(reply.packed, reply.count)[-len(ids) :]
        if found.shape != given.shape:
            raise UnexpectedReplyError("the large model's states are of another width")
        return found if self._cut.denoiser is None else self._cut.denoiser(found, given, noise)

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
