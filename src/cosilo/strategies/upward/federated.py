"""Many owners train one adapter together, and none of their data leaves.

    owner: train the adapter on its own examples ── Contribute ──▶ coordinator: put all of them together
           ▲                                                                       │
           └──────────────────────────── the round's adapter ◀─────────────────────┘

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data" (FedAvg,
arXiv 1602.05629), on LoRA adapters as in Zhang et al. (FedIT, arXiv 2305.05644). Written for one owner:
it speaks to the coordinator alone, which may be a `cosilo host` or, to try it out, one in the process.
An update is not harmless: texts can be read out of gradients, and of adapters trained for few steps.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar, Literal

from cosilo.boundary.messages import Contribute, Enrol, Enrolled, NextRound, RoundState
from cosilo.boundary.messages.federate import VERSION
from cosilo.boundary.wire import tensors
from cosilo.boundary.wire.codecs import codec
from cosilo.boundary.wire.tensors import TensorLimits
from cosilo.errors import (
    CapabilityError,
    DataError,
    RejectedError,
    StoreError,
    UnexpectedReplyError,
)
from cosilo.federation.low_rank import truncated
from cosilo.federation.private import UpdateNoise
from cosilo.federation.updates import Floats
from cosilo.models.base import Access, Tokens, WeightModel, require
from cosilo.models.low_rank import matrix_shapes
from cosilo.models.white_box import files as torch_files
from cosilo.models.white_box.adapters import (
    Adapter,
    base_digest,
    first_adapter,
    layers_to_adapt,
    merged_with,
    trained_adapter,
    with_adapter,
)
from cosilo.privacy.keyed_noise import KeyedNoise
from cosilo.privacy.secret_key import secret_key
from cosilo.registry import Loads
from cosilo.strategies.base import (
    Expected,
    Forecast,
    Needs,
    Session,
    Strategy,
    forecast,
    strategies,
    unshared,
)
from cosilo.strategies.cards import Card
from cosilo.strategies.guide import Guide
from cosilo.types import Answer, Chat, Demonstration

_SOON_S = 1.0  # a coordinator that says "wait" at once is asked again after this
_LOSS = struct.Struct("<d")
_LARGEST = (1 << 28) - (1 << 16)  # bytes of an adapter, so that a message can hold it


@strategies.register("federated")
@dataclass(frozen=True, kw_only=True)
class Federated:
    """Train an adapter of the small model with other owners, then go on with another strategy.

    Attributes:
        rounds: takes part in a federation of so many rounds at most.
        steps, batch, learning_rate: of the training at home, in each round.
        rank: of the adapter; the federation's, or less where its rule takes several ranks.
        noise: the standard deviation of Gaussian noise on what is sent, over `clip`; none when 0.
        clip: with noise, how far an update may be from where its round began (Euclidean norm, over all
            numbers).
        protects: whom the ε that is booked is for: each "record", or all of this owner's together, a
            "group".
        key_file: the key that noise is drawn under, so that an update sent again is one release; a run
            has one of its own.
        tell_count: tell the coordinator how many examples there are, where it weighs updates by that.
        then: the strategy that answers with what came of it.
        then_options: that strategy's options.
        seed: of the training.
        checkpoints: a folder from which an interrupted training goes on; a run has one of its own.
    """

    guide: ClassVar[Guide] = Guide(
        direction="upward",
        crosses=(
            "an adapter trained on the owner's examples, once a round; back comes what all owners' "
            "became; nothing while answering"
        ),
        choose=(
            "several owners have the same task and too few examples each, share a base model, and "
            "may not pool their data"
        ),
    )

    rounds: int = 20
    steps: int = 50
    batch: int = 8
    learning_rate: float = 2e-4
    rank: int = 8
    noise: float = 0.0
    clip: float = 1.0
    protects: Literal["record", "group"] = "group"
    key_file: Path | None = None
    tell_count: bool = False
    then: str = "small"
    then_options: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0
    checkpoints: Path | None = None

    def __post_init__(self) -> None:
        for name in ("rounds", "steps", "batch", "learning_rate", "rank"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not positive")
        if self.noise < 0:
            raise ValueError(f"noise = {self.noise!r} is negative")
        self.update_noise  # noqa: B018 — says what cannot be

    def next(self) -> Strategy:
        """The strategy that answers, not prepared."""
        return strategies.create(self.then, **self.then_options)

    @property
    def update_noise(self) -> UpdateNoise | None:
        """What an update is made private with."""
        if not self.noise:
            return None
        return UpdateNoise(self.clip, self.noise, self.protects)

    @property
    def needs(self) -> Needs:
        after = self.next().needs
        return replace(
            after,
            sends=after.sends | {Enrol, NextRound, Contribute},
            small=Access.WEIGHTS,
            trainable=True,
            loads=after.loads | Loads(packages=torch_files.PACKAGES),
        )

    def forecast(self) -> Forecast:
        def once(message: Any, total: int) -> Expected:
            return Expected("once", message, total=total, reads=(1,), writes=())

        own = (once(Enrol, 1), once(Contribute, self.rounds), once(NextRound, 4 * self.rounds))
        return (*own, *unshared(forecast(self.next())))

    async def answer(self, session: Session, chat: Chat) -> Answer:
        raise ValueError("federated only prepares: answer with the strategy prepare returns")

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        model = require(session.owner.model, Access.WEIGHTS, by="federated")
        examples = [e for e in session.owner.private if e.target and e.weight > 0]
        if not examples:
            raise DataError(
                "federated has no examples with targets to train on, so nothing to give"
            )
        owner = await asyncio.to_thread(_Owner, self, model, examples)
        enrolled = await session.lm.send(owner.enrol())
        owner.agree(enrolled)
        if (noise := self.update_noise) is not None and session.account is not None:
            await session.account.require([noise.release()] * enrolled.rounds)
        await self._rounds(session, owner, enrolled)
        trained = model.with_module(await asyncio.to_thread(owner.module))
        taught = session.owner.taught(trained, examples, further=True)
        session = replace(session, owner=taught).with_card(owner.card())
        return await self.next().prepare(session)

    async def _rounds(self, session: Session, owner: _Owner, enrolled: Enrolled) -> None:
        while True:
            asked = monotonic()
            state = await session.lm.send(
                NextRound(
                    federation=enrolled.federation,
                    have=owner.have,
                    gave=owner.gave,
                    most=enrolled.most,
                    patience=enrolled.held,
                )
            )
            if state.packed:
                await asyncio.to_thread(owner.take, state)
            if state.fate not in (None, "taken"):
                owner.notes[state.closed] = f"{state.fate}: {state.why}"
            if state.state == "ended" and owner.have == state.closed > 0:
                return
            if state.state == "open" and owner.have == state.closed:
                update = await asyncio.to_thread(owner.update, state.number)
                try:
                    told = await session.lm.send(update)
                except RejectedError as error:
                    owner.told(state.number, "refused", str(error))
                else:
                    owner.told(state.number, told.fate, told.why)
            elif not state.packed and monotonic() - asked < _SOON_S:
                await asyncio.sleep(_SOON_S)


class _Owner:
    """One owner's side of a federation: what it trains from, and what became of that."""

    def __init__(
        self, how: Federated, model: WeightModel, examples: Sequence[Demonstration]
    ) -> None:
        self.how = how
        self.have = self.gave = 0
        self.losses: dict[int, float] = {}
        self.notes: dict[int, str] = {}
        self.fates: dict[int, str] = {}
        self.errors: dict[int, float] = {}
        self._base = base_digest(model)
        self._module = model.module
        self._layers = layers_to_adapt(model.module)
        self._sequences: list[Tokens] = [model.tokenize(e.chat, e.target) for e in examples]
        self._targets = len({e.target for e in examples})
        self._enrolled: Enrolled
        self._from: Adapter
        self._merged = False
        self._up = 0
        self._draws: KeyedNoise | None = None
        if how.noise:
            key = secret_key(how.key_file) if how.key_file is not None else None
            self._draws = KeyedNoise(key or secrets.token_bytes(32))

    def enrol(self) -> Enrol:
        how = self.how
        about = [how.steps, how.batch, how.learning_rate, how.seed]
        if how.noise:
            about += [how.noise, how.clip]
        return Enrol(
            base=self._base,
            layers=tuple((n, out, into) for n, (out, into) in sorted(self._layers.items())),
            rank=how.rank,
            examples=len(self._sequences) if how.tell_count else None,
            settings=hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32],
        )

    def agree(self, enrolled: Enrolled) -> None:
        """Take part as the coordinator says, or not at all.

        Raises:
            CapabilityError: it speaks another version, has another base model, or wants what this owner
                does not give.
        """
        how = self.how
        if enrolled.version != VERSION:
            raise CapabilityError(
                f"the coordinator speaks version {enrolled.version} of the exchange of federations, "
                f"and this owner version {VERSION}: install the same release on both sides"
            )
        if enrolled.base != self._base:
            raise CapabilityError(
                f"this owner's base model and tokeniser are {self._base}, and the federation's "
                f"{enrolled.base}: all owners must have the same"
            )
        if not 1 <= enrolled.rounds <= how.rounds:
            raise CapabilityError(
                f"the federation has {enrolled.rounds} rounds, and this owner takes part in "
                f"{how.rounds} at most: set rounds"
            )
        if enrolled.rank != how.rank:
            raise CapabilityError(
                f"the federation's adapters have rank {enrolled.rank}, and this owner's {how.rank}"
            )
        if enrolled.most > _LARGEST or enrolled.scale <= 0:
            raise CapabilityError("the federation's adapters are too large, or have no scale")
        try:
            codec(enrolled.codec)
        except ValueError as error:
            raise CapabilityError(
                f"the federation packs adapters as nobody here can: {error}"
            ) from None
        self._enrolled = enrolled
        self._from = self._first()

    def take(self, state: RoundState) -> None:
        """Go on from the adapter of a closed round.

        Raises:
            UnexpectedReplyError: it is none of this model's.
        """
        if not self.have < state.of <= self._enrolled.rounds:
            raise UnexpectedReplyError(f"the adapter of round {state.of} came unasked")
        rank, packing = state.rank, self._enrolled.codec
        shapes = matrix_shapes(self._layers, rank)
        if not rank or tensors.size_of(shapes, packing) > self._enrolled.most:
            raise UnexpectedReplyError(f"an adapter of rank {rank} came, and none was agreed on")
        found = tensors.unpack(state.packed, limits=TensorLimits.of(shapes, codecs=(packing,)))
        if {name: t.shape for name, t in found.items()} != shapes:
            raise UnexpectedReplyError("the round's adapter is one of another model")
        if state.adds:
            adapter = Adapter(rank, self._enrolled.scale * rank, found)
            self._module = merged_with(self._module, adapter)
            self._from, self._merged = self._first(), True
        else:
            own = min(rank, self.how.rank)
            self._from = Adapter(own, self._enrolled.scale * own, truncated(found, own))
            self._merged = False
        if state.error is not None:
            self.errors[state.of] = state.error
        self.have = state.of

    def update(self, number: int) -> Contribute:
        """The update for a round: the same bytes each time, also after a kill."""
        how = self.how
        if self.fates.get(number) is not None or not self.have < number <= self._enrolled.rounds:
            raise UnexpectedReplyError(f"an update for round {number} is wanted out of turn")
        sent, release = self._trained(number), None
        federation, noise = self._enrolled.federation, how.update_noise
        if noise is not None and self._draws is not None:
            about = f"{federation} {number}"
            sent, release = noise.applied(sent, self._from.tensors, self._draws, session=about)
        packed = tensors.pack(sent, self._enrolled.codec)
        self._up += len(packed)
        return Contribute(
            federation=federation, number=number, rank=how.rank, packed=packed, release=release
        )

    def _trained(self, number: int) -> Mapping[str, Floats]:
        how, place = self.how, self._place(number)
        if place is not None and (kept := place.with_suffix(".update")).is_file():
            data = kept.read_bytes()
            (self.losses[number],) = _LOSS.unpack_from(data)
            return tensors.unpack(data[_LOSS.size :])
        adapter, outcome = trained_adapter(
            self._module,
            self._from,
            self._sequences,
            steps=how.steps,
            batch=how.batch,
            learning_rate=how.learning_rate,
            seed=(how.seed << 16) + number,
            folder=place,
        )
        self.losses[number] = outcome.losses[-1]
        if place is not None:
            data = _LOSS.pack(self.losses[number]) + tensors.pack(adapter.tensors)
            _keep(place.with_suffix(".update"), data)
            shutil.rmtree(place, ignore_errors=True)
        return adapter.tensors

    def told(self, number: int, fate: str, why: str) -> None:
        """What became of the update for a round."""
        self.gave = number
        self.fates[number] = fate
        if fate != "taken":
            self.notes[number] = f"{fate}: {why}"

    def module(self) -> Any:
        """The model with what came of the federation."""
        return self._module if self._merged else with_adapter(self._module, self._from)

    def card(self) -> Card:
        facts: dict[str, int | float | str] = {
            "rounds": self.have,
            "examples": len(self._sequences),
            "updates taken": sum(fate == "taken" for fate in self.fates.values()),
            "bytes of updates": self._up,
        }
        if self._targets == 1:
            facts["of its own classes"] = "one: all of this owner's examples have the same target"
        for number, why in sorted(self.notes.items()):
            facts[f"round {number}"] = why
        tables: dict[str, dict[str, float]] = {}
        if self.losses:
            tables["loss at the last step of each round, on its own examples"] = {
                f"round {number}": round(last, 4) for number, last in sorted(self.losses.items())
            }
        if self.errors:
            tables["what came of a round, off the mean of the updates' products, of its norm"] = {
                f"round {number}": round(error, 6) for number, error in sorted(self.errors.items())
            }
        return Card(by="federated", title="federation", facts=facts, tables=tables)

    def _first(self) -> Adapter:
        scale, rank = self._enrolled.scale, self.how.rank
        return first_adapter(self._layers, rank, alpha=scale * rank, seed=self._enrolled.seed)

    def _place(self, number: int) -> Path | None:
        """Where the training of a round is kept, and then its update, so that the run can be opened
        again without training: one from another adapter, or of another base, is another."""
        if self.how.checkpoints is None:
            return None
        start = tensors.pack(self._from.tensors)
        about = f"{self._enrolled.federation} {number}".encode()
        name = hashlib.sha256(about + start).hexdigest()[:16]
        return self.how.checkpoints / f"round-{number}-{name}"


def _keep(path: Path, data: bytes) -> None:
    """Write `data`, whole or not at all, for its owner alone to read.

    Raises:
        StoreError: it cannot be written.
    """
    new = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise StoreError(f"{str(path)!r} cannot be written: {error.strerror}") from None
