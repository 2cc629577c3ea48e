"""The encoder is at home, the head is the LM owner's, and neither sees what the other has.

    ckks  text ─▶ encoder ─▶ vector ─▶ encrypted ─▶ the LM owner's head ─▶ encrypted logits ─▶ label
                  at home                           in a process apart                         at home
    spu   text ─▶ encoder ─▶ vector ─▶ shares ═▶ both sides' engines ◀═ shares ◀─ the head ─▶ label
                  at home                        compute, and find the label inside            at home

The LM's owner learns that a text was asked about, and nothing of it. With "ckks" the data owner learns
its logits, which are linear in the weights: of as many texts as a vector has numbers, and one, the head
can be computed from them (`attacks.head_stealing`). So the head's owner allows each client fewer. With
"spu" the label is all that is told, and nothing has to be allowed.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from cosilo.boundary.channel import Channel
from cosilo.boundary.messages import (
    AskHead,
    EncryptedLogits,
    EncryptedVector,
    EvaluationKeys,
    HeadDescribed,
)
from cosilo.boundary.messages.bounds import TURN
from cosilo.boundary.messages.encrypted import MOST_KEYS, PART
from cosilo.clock import charge
from cosilo.engines import ranges
from cosilo.engines.base import Setting
from cosilo.engines.ckks.layout import Floats
from cosilo.engines.ckks.process import PACKAGE, HomeKeys
from cosilo.errors import (
    CapabilityError,
    ConfigError,
    OfflineError,
    RejectedError,
    UnexpectedReplyError,
    UnknownKeysError,
)
from cosilo.models.base import Embedder
from cosilo.models.joint import JointProtocol, Wanted
from cosilo.parties.network import JointNetwork
from cosilo.registry import Loads
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, strategies
from cosilo.strategies.cards import Card
from cosilo.strategies.guide import Guide
from cosilo.strategies.inference.joint_room import SENDS, JointRoom, joint_card, joint_forecast
from cosilo.types import Answer, Chat, Generation, Sampling, TokenLogprob, last_user

_KEYS = 30 << 20  # bytes of keys for a vector of 384 numbers, about
_SMALL = 1 << 14  # of a description of a head, or a part's frame


@strategies.register("secure_head")
@dataclass(frozen=True, kw_only=True)
class SecureHead:
    """The LM owner's head (`kind = "private_head"`) on the small model's vectors, which it cannot read.

    Attributes:
        engine: what hides the two from each other: "ckks", homomorphic encryption; "spu", shares that
            both sides compute on.
        protocol: with "spu", among whom: "aby3" (three parties, no two of whom put together what they
            see), "cheetah" (the two owners), "semi2k" (to compare costs: it protects nothing).
        network: with "spu", the file that says how engines on several machines reach each other; on
            this machine alone, as a trial, when unset.
        insecure: with "spu", take a protocol all the same that protects nothing.
    """

    guide: ClassVar[Guide] = Guide(
        crosses=(
            "a vector of each text, encrypted or as shares; logits come back, which the data owner "
            "alone reads, or the label"
        ),
        choose=(
            "the texts may not cross and the head may not either; the data owner reads logits, as "
            'many as the head\'s owner allows, or with engine = "spu" the label alone'
        ),
    )

    engine: Literal["ckks", "spu"] = "ckks"
    protocol: JointProtocol = "aby3"
    network: Path | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.engine == "spu":
            Setting(self.protocol, insecure=self.insecure).require()
        elif self.network is not None or self.insecure:
            raise ConfigError('network and insecure are for engine = "spu"')

    @property
    def needs(self) -> Needs:
        if self.engine == "spu":
            return Needs(sends=SENDS)
        return Needs(
            sends=frozenset({AskHead, EvaluationKeys, EncryptedVector}),
            loads=Loads(packages=(PACKAGE,)),
        )

    def forecast(self) -> Forecast:
        if self.engine == "spu":
            return joint_forecast(*_SHARED[self.protocol])
        parts, vector = math.ceil(_KEYS / PART), EncryptedVector.largest
        return (
            Expected("once", AskHead, reads=(TURN,), writes=(), size=_SMALL),
            Expected(
                "once", EvaluationKeys, total=parts, reads=(TURN,), writes=(), size=PART + _SMALL
            ),
            Expected(
                "answers", EncryptedVector, reads=(TURN,), writes=(),
                size=vector + EncryptedLogits.largest,
            ),
        )  # fmt: skip

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        """Asks what the head tells apart, makes keys, and sends those that it is computed on with.

        Raises:
            CapabilityError: the small model is no encoder, or the LM's owner has no head for it.
            ConfigError: TenSEAL is not installed.
        """
        prepared = replace(self)
        if self.engine == "spu":
            try:
                room = await prepared._heads.of(session, prepared)
            except OfflineError:  # as below
                return prepared, session
            return prepared, session.with_card(joint_card("secure_head", "private head", room.room))
        try:
            secured = await prepared._rooms.of(session)
        except OfflineError:  # a bundle is made without new calls; whoever asks first makes keys
            return prepared, session
        facts: dict[str, float | str] = {
            "engine": self.engine,
            "labels": len(secured.head.labels),
            "answers left": secured.head.left,
            "MB of keys": secured.size / 1e6,
            "CPU seconds of making keys": secured.keys.cpu_seconds,
        }
        return prepared, session.with_card(
            Card(by="secure_head", title="private head", facts=facts)
        )

    async def answer(self, session: Session, chat: Chat) -> Answer:
        """The likeliest of the labels that may be answered.

        Raises:
            BudgetExceededError: the head's owner allows no more answers.
            CapabilityError: the head is for vectors of another length.
            RejectedError: none of its labels may be answered.
        """
        if self.engine == "spu":
            return await self._computed(session, chat)
        secured = await self._rooms.of(session)
        allowed = _allowed(secured.head.labels, session.sampling)
        (vector,) = await asyncio.to_thread(secured.encoder.embed, [last_user(chat)])
        if len(vector) != secured.head.inputs:
            raise CapabilityError(
                f"the private head is for vectors of {secured.head.inputs} numbers, and those of its "
                f"encoder have {len(vector)}: its owner has put it behind another encoder than its own"
            )
        logits, took = await secured.logits(session.lm, vector.astype(np.float64))
        return Answer(_generation(secured.head.labels, allowed, logits, took), by="large")

    async def _computed(self, session: Session, chat: Chat) -> Answer:
        """The label that both sides' engines find.

        Raises:
            RejectedError: it is none of those that may be answered; which other one is likeliest then,
                nobody knows.
        """
        head = await self._heads.of(session, self)
        labels, choices = head.room.offer.labels, session.sampling.choices
        (vector,) = await asyncio.to_thread(head.encoder.embed, [last_user(chat)])
        given = np.asarray(vector, np.float32)[None]
        inputs = head.room.offer.sizes().get("inputs")
        if given.shape[1] != inputs:
            raise CapabilityError(
                f"the private head is for vectors of {inputs} numbers, and those of its encoder have "
                f"{given.shape[1]}: its owner has put it behind another encoder than its own"
            )
        ranges.require_inputs(given, ranges.LARGEST_INPUT)
        done = await head.room.compute(session.lm, [given])
        try:
            (place,) = (int(n) for n in np.asarray(done.outputs[0]).ravel())
            label = labels[place] if place >= 0 else ""
        except (ValueError, IndexError):
            label = ""
        if not label:
            raise UnexpectedReplyError("what was computed names none of the head's labels")
        if choices and label not in choices:
            raise RejectedError(
                f"the head's label is none of the {len(choices)} choices, and it tells no other"
            )
        told = Generation(label, completion_tokens=1, cpu_seconds=done.cpu_here)
        return Answer(told, by="large")

    async def close(self, session: Session) -> None:
        """Ends the run that is open, on both sides, or the process with the keys."""
        if self.engine == "spu":
            await self._heads.end(session)
        else:
            await self._rooms.close()

    @cached_property
    def _rooms(self) -> _Rooms:
        return _Rooms()

    @cached_property
    def _heads(self) -> _JointHeads:
        return _JointHeads()


@dataclass(eq=False)
class _Secured:
    """A head at an LM's owner, and the keys for it.

    Attributes:
        size: bytes of the keys that were sent.
        handed: how often they were.
        lock: held while they are.
        turn: held while the keys' process works.
    """

    encoder: Embedder
    head: HeadDescribed
    keys: HomeKeys
    sent: bytes
    name: str
    handed: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def size(self) -> int:
        return len(self.sent)

    async def hand_over(self, channel: Channel) -> None:
        """Send the keys that are computed on with."""
        parts = math.ceil(self.size / PART)
        whole = False
        for part in range(parts):
            reply = await channel.send(
                EvaluationKeys(
                    name=self.name,
                    part=part,
                    parts=parts,
                    turning=len(self.keys.turning),
                    packed=self.sent[part * PART : (part + 1) * PART],
                )
            )
            whole = reply.whole
        if not whole:
            raise UnexpectedReplyError("all keys were sent, and the head's owner lacks some")
        self.handed += 1

    async def logits(self, channel: Channel, vector: Floats) -> tuple[Floats, float]:
        """Those of `vector`, and the CPU seconds that encrypting and decrypting took."""
        handed = self.handed
        async with self.turn:  # so that what the process works in it is this vector's alone
            before = self.keys.cpu_seconds
            packed = await asyncio.to_thread(self.keys.encrypt, vector[None])
            took = self.keys.cpu_seconds - before
        query = EncryptedVector(keys=self.name, packed=packed)
        try:
            reply = await channel.send(query)
        except UnknownKeysError:
            async with self.lock:  # sent once, also where several ask meanwhile
                if self.handed == handed:
                    await self.hand_over(channel)
            reply = await channel.send(query)
        try:
            async with self.turn:
                before = self.keys.cpu_seconds
                found = await asyncio.to_thread(self.keys.decrypt, reply.packed, 1)
                took += self.keys.cpu_seconds - before
        except RejectedError:
            raise UnexpectedReplyError("the head's owner sent no logits") from None
        charge(took)
        return found[0], took


class _Rooms:
    """What was agreed with each LM's owner: asked for once, by whoever is first."""

    def __init__(self) -> None:
        self._secured: dict[str, _Secured] = {}
        self._first = asyncio.Lock()

    async def of(self, session: Session) -> _Secured:
        peer = next(iter(session.peers))
        async with self._first:
            found = self._secured.get(peer)
            if found is None or not found.keys.alive:
                found = self._secured[peer] = await _secured(session)
            return found

    async def close(self) -> None:
        async with self._first:
            for secured in self._secured.values():
                await asyncio.to_thread(secured.keys.close)


async def _secured(session: Session) -> _Secured:
    encoder, identity = _encoder(session.owner.model)
    head = await session.lm.send(AskHead(encoder=identity))
    keys = await asyncio.to_thread(HomeKeys, head.inputs, len(head.labels))
    sent = keys.turning + keys.public
    if len(sent) > MOST_KEYS:
        raise CapabilityError(
            f"a head of {head.inputs} inputs takes {len(sent) / 1e6:,.0f} MB of keys, and no more than "
            f"{MOST_KEYS / 1e6:,.0f} are sent"
        )
    made = _Secured(encoder, head, keys, sent, hashlib.sha256(sent).hexdigest())
    await made.hand_over(session.lm)
    return made


@dataclass(frozen=True)
class _JointHead:
    """A head that is computed with, and what makes vectors for it."""

    encoder: Embedder
    room: JointRoom


class _JointHeads:
    """What was agreed with each LM's owner: asked for once, by whoever is first."""

    def __init__(self) -> None:
        self._heads: dict[str, _JointHead] = {}
        self._first = asyncio.Lock()

    async def of(self, session: Session, strategy: SecureHead) -> _JointHead:
        peer = next(iter(session.peers))
        async with self._first:
            if peer not in self._heads:
                encoder, identity = _encoder(session.owner.model)
                wanted = Wanted(
                    program="head",
                    protocol=strategy.protocol,
                    insecure=strategy.insecure,
                    base=identity,
                )
                path = strategy.network
                network = None if path is None else await asyncio.to_thread(JointNetwork.load, path)
                room = await JointRoom.of(session, wanted, network)
                await room.ready(session.lm)
                self._heads[peer] = _JointHead(encoder, room)
            return self._heads[peer]

    async def end(self, session: Session) -> None:
        async with self._first:
            for peer, head in self._heads.items():
                await head.room.end(session.peers.get(peer))


_SHARED: Mapping[str, tuple[int, int]] = {
    "aby3": (1 << 20, 1 << 20),
    "cheetah": (1 << 20, 25 << 20),
    "semi2k": (1 << 20, 1 << 20),
}
"""By protocol: bytes for sharing a head and for an answer, at most; see `PrivateHead.takes_part`."""


def _encoder(model: object) -> tuple[Embedder, str]:
    """What makes `model`'s vectors, and its identity.

    Raises:
        CapabilityError: it makes none that another owner could have a head for.
    """
    identity = getattr(getattr(model, "encoder", None), "identity", None)
    if not isinstance(model, Embedder) or not isinstance(identity, str):
        raise CapabilityError(
            "secure_head needs a small model of kind 'classifier', whose encoder makes the vectors (it "
            "need not be trained)"
        )
    return model, identity


def _allowed(labels: tuple[str, ...], sampling: Sampling) -> list[int]:
    choices = sampling.choices
    allowed = [i for i, label in enumerate(labels) if not choices or label in choices]
    if not allowed:
        raise RejectedError(
            f"none of the head's {len(labels)} labels is among the {len(choices)} choices"
        )
    return allowed


def _generation(
    labels: tuple[str, ...], allowed: list[int], logits: Floats, took: float
) -> Generation:
    kept = logits[allowed]
    logprobs = kept - kept.max()
    logprobs -= np.log(np.exp(logprobs).sum())
    top = sorted(
        ((labels[i], min(0.0, float(p))) for i, p in zip(allowed, logprobs, strict=True)),
        key=lambda pair: -pair[1],
    )
    label, logprob = top[0]
    return Generation(
        label,
        tokens=(TokenLogprob(label, logprob, tuple(top)),),
        completion_tokens=1,
        cpu_seconds=took,
    )
