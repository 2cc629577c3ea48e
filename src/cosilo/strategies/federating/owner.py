"""Where one owner stands in a federation."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from cosilo.boundary.messages import Contribute, Enrol, Enrolled, NextRound, RoundState
from cosilo.boundary.messages.federate import VERSION
from cosilo.boundary.wire import tensors
from cosilo.boundary.wire.codecs import codec
from cosilo.boundary.wire.tensors import TensorLimits
from cosilo.errors import CapabilityError, UnexpectedReplyError
from cosilo.federation.private import in_sum
from cosilo.federation.rules import require_securable
from cosilo.federation.secure.fixed_point import FixedPoint, weighted
from cosilo.federation.secure.sums import in_epoch
from cosilo.federation.updates import Tensors, flat
from cosilo.models.base import Tokens, WeightModel
from cosilo.models.white_box.adapters import base_digest
from cosilo.privacy.dp_sgd import owner_level
from cosilo.privacy.keyed_noise import KeyedNoise
from cosilo.privacy.mechanisms import Release
from cosilo.privacy.secret_key import secret_key
from cosilo.strategies.cards import Card
from cosilo.strategies.federating.adapters import AdapterTraining
from cosilo.strategies.federating.files import keep
from cosilo.strategies.federating.participation import Participation
from cosilo.strategies.federating.scalars import ScalarTraining
from cosilo.strategies.federating.summing import SumOwner
from cosilo.types import Demonstration

_DELTA = 1e-5
_LOSS = struct.Struct("<d")
_LARGEST = (1 << 28) - (1 << 16)  # bytes of an adapter, so that a message can hold it


class FederationOwner:
    """One owner's side of a federation: what it trains from, and what became of that.

    Attributes:
        have: of how many closed rounds it has what came of them.
        gave: the last round that it is done with.
        epoch: how often rounds were taken back.
        notes: round → what was wrong with its update.
    """

    def __init__(
        self, how: Participation, model: WeightModel, examples: Sequence[Demonstration]
    ) -> None:
        self.how = how
        self.have = self.gave = self.epoch = 0
        self.losses: dict[int, float] = {}
        self.notes: dict[int, str] = {}
        self.fates: dict[int, str] = {}
        self.errors: dict[int, float] = {}
        self._base = base_digest(model)
        sequences: list[Tokens] = [model.tokenize(e.chat, e.target) for e in examples]
        self._examples = len(sequences)
        self._draws: KeyedNoise | None = None
        if how.noise:
            key = secret_key(how.key_file) if how.key_file is not None else None
            self._draws = KeyedNoise(key or secrets.token_bytes(32))
        self._training: AdapterTraining | ScalarTraining
        if how.method == "scalars":
            self._training = ScalarTraining(how, model.module, sequences)
        else:
            self._training = AdapterTraining(how, model.module, sequences, self._draws)
        self._targets = len({e.target for e in examples})
        self._enrolled: Enrolled
        self._from: Tensors
        self._merged = False
        self._given = 0
        self._up = 0
        self._encoding: FixedPoint

    def enrol(self) -> Enrol:
        how = self.how
        about: list[object] = [how.steps, how.batch, how.learning_rate, how.seed]
        if how.noise:
            about += [how.noise, how.clip]
        if how.noise_on == "step":
            about += [how.noise_on]
        if how.method == "scalars":
            about += [how.method, how.epsilon]
        if how.secure:
            about += ["secure", how.relied_on]
        layers = self._training.layers
        return Enrol(
            base=self._base,
            layers=tuple((n, out, into) for n, (out, into) in sorted(layers.items())),
            rank=how.rank,
            examples=self._examples if how.tell_count else None,
            settings=hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32],
            sums=how.secure,
            scalars=how.method == "scalars",
            epoch=self.epoch,
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
        if enrolled.keeps > how.kept_updates:
            raise CapabilityError(
                f"the coordinator keeps owners' updates of the last {enrolled.keeps} rounds, and this "
                f"owner allows {how.kept_updates}: set kept_updates, or the host's keep_updates"
            )
        if enrolled.opinions is not None:
            raise CapabilityError(
                "the federation's owners send opinions of public texts, and no adapters: take part by "
                "the strategy fedmkt"
            )
        if enrolled.base != self._base:
            raise CapabilityError(
                f"this owner's base model and tokeniser are {self._base}, and the federation's "
                f"{enrolled.base}: all owners must have the same"
            )
        if enrolled.teaches and not how.taught:
            raise CapabilityError(
                "a large model of the coordinator's would learn from what comes of each round: take "
                "part by the strategy fedcollm, if it may"
            )
        if how.taught and not enrolled.teaches:
            raise CapabilityError(
                f"{how.name} takes part where a large model learns with the owners, and the "
                'coordinator has none: [model] kind = "mutual" beside [federation] is one, or take '
                "part by the strategy federated"
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
        if (enrolled.walk is not None) != (how.method == "scalars"):
            raise CapabilityError(
                "the federation's updates are of another kind than this owner's: set method"
            )
        if how.secure:
            self._check_sums(enrolled)
        elif enrolled.sums is not None:
            raise CapabilityError("the federation sums in secret: set secure = true")
        self._enrolled, self.epoch = enrolled, enrolled.epoch
        self._from, self._merged = self._training.first(enrolled), False

    def begin_again(self, epoch: int) -> None:
        """Rounds were taken back: know of none, until the coordinator tells what stands. What was given
        before counts as given: this owner gives no more updates than `rounds`."""
        self.epoch = epoch
        self.have = self.gave = 0
        self.fates, self.losses, self.errors = {}, {}, {}
        self.notes = {}

    @property
    def enrolled(self) -> Enrolled:
        """What this owner takes part in."""
        return self._enrolled

    def _check_sums(self, enrolled: Enrolled) -> None:
        how, terms = self.how, enrolled.sums
        if terms is None:
            raise CapabilityError(
                "the coordinator would see this owner's updates, and secure = true forbids it: the "
                "host needs [federation] secure = true"
            )
        require_securable(enrolled.rule)
        if terms.threshold < max(how.least_owners, how.relied_on):
            raise CapabilityError(
                f"the federation makes sums of {terms.threshold} updates, and this owner wants those "
                f"of {max(how.least_owners, how.relied_on)} in each: the host's quorum must be larger, "
                "or least_owners and relied_on smaller"
            )
        if enrolled.counts and (how.relied_on > 1 or not terms.most_examples):
            raise CapabilityError(
                "the federation weighs updates, and then owners' noise has several sizes: leave "
                "relied_on out, or counts"
            )
        if enrolled.counts and how.update_noise is not None and not how.tell_count:
            raise CapabilityError(
                "the federation weighs updates, so how many examples owners have is in the sum, and "
                "without noise: no ε is for that; set tell_count = true, or leave counts out"
            )
        try:
            self._encoding = FixedPoint(terms.among, terms.largest, terms.bits)
        except ValueError as error:
            raise CapabilityError(f"the federation's sums have no room: {error}") from None

    def next_round(self) -> NextRound:
        """What is to do next?"""
        return NextRound(
            federation=self._enrolled.federation,
            have=self.have,
            gave=self.gave,
            most=self._enrolled.most,
            patience=self._enrolled.held,
            epoch=self.epoch,
        )

    def take(self, state: RoundState) -> None:
        """Go on from the adapter of a closed round.

        Raises:
            UnexpectedReplyError: it is none of this model's.
        """
        if not self.have < state.of <= self._enrolled.rounds:
            raise UnexpectedReplyError(f"the adapter of round {state.of} came unasked")
        rank, packing = state.rank, self._enrolled.codec
        shapes = self._training.shapes(rank)
        if not rank or tensors.size_of(shapes, packing) > self._enrolled.most:
            raise UnexpectedReplyError(f"an adapter of rank {rank} came, and none was agreed on")
        found = tensors.unpack(state.packed, limits=TensorLimits.of(shapes, codecs=(packing,)))
        if {name: t.shape for name, t in found.items()} != shapes:
            raise UnexpectedReplyError("the round's adapter is one of another model")
        self._from, self._merged = self._training.begun(state, found), state.adds
        if state.error is not None:
            self.errors[state.of] = state.error
        self.have = state.of

    def update(self, number: int) -> Contribute:
        """The update for a round: the same bytes each time, also after a kill."""
        self._in_turn(number)
        how = self.how
        sent, release = self._trained(number), self._of_steps(number)
        federation, noise = self._enrolled.federation, how.update_noise
        if noise is not None and self._draws is not None:
            about = self._session(number)
            sent, release = noise.applied(sent, self._from, self._draws, session=about)
        packed = tensors.pack(sent, self._enrolled.codec)
        self._up += len(packed)
        return Contribute(
            federation=federation,
            number=number,
            rank=how.rank,
            packed=packed,
            release=release,
            epoch=self.epoch,
        )

    def summed(self, number: int) -> SumOwner:
        """The update for a round, for a sum that hides it.

        Raises:
            ValueError: it holds numbers that the sum has no room for; nothing was sent.
        """
        self._in_turn(number)
        how, enrolled, terms = self.how, self._enrolled, self._enrolled.sums
        assert terms is not None
        found, release = self._trained(number), self._of_steps(number)
        noise = how.update_noise
        if noise is not None and self._draws is not None:
            about = self._session(number)
            way, drawn = noise.way(
                found, self._from, self._draws, session=about, step=self._encoding.step
            )
            release = msgspec.structs.replace(
                in_sum(noise, how.relied_on), series=drawn.series, draw=drawn.draw
            )
        else:
            way = flat(found) - flat(self._from)
        share = min(1.0, self._examples / terms.most_examples) if enrolled.counts else 1.0
        place = self._place(number)
        part = SumOwner(
            enrolled.federation,
            number,
            terms,
            self._encoding.encoded(weighted(way, share)),
            least=max(how.least_owners, how.relied_on),
            release=release,
            file=None if place is None else place.with_suffix(".sum"),
            epoch=self.epoch,
        )
        self._up += part.size
        return part

    def _of_steps(self, number: int) -> Release | None:
        """What an update is booked as where noise is on each step of its training."""
        session = self._session(number)
        loss, release = self._training.private_loss(session), self.how.release(self._examples)
        if loss is None or self._draws is None or release is None:
            return None
        how = self.how
        about = f"{loss.identity} {how.steps} {how.batch} {how.learning_rate!r} {how.seed}".encode()
        draw = self._draws.named(hashlib.sha256(about + tensors.pack(self._from)).digest())
        return msgspec.structs.replace(release, series=session, draw=draw)

    def _session(self, number: int) -> str:
        return f"{in_epoch(self._enrolled.federation, self.epoch)} {number}"

    def _in_turn(self, number: int) -> None:
        if self.fates.get(number) is not None or not self.have < number <= self._enrolled.rounds:
            raise UnexpectedReplyError(f"an update for round {number} is wanted out of turn")
        if self._given >= self.how.rounds:
            raise CapabilityError(
                f"rounds were taken back, and this owner has given {self._given} updates, which is as "
                "many as it takes part with: set rounds"
            )

    def _trained(self, number: int) -> Tensors:
        place = self._place(number)
        if place is not None and (kept := place.with_suffix(".update")).is_file():
            data = kept.read_bytes()
            (self.losses[number],) = _LOSS.unpack_from(data)
            return tensors.unpack(data[_LOSS.size :])
        found, self.losses[number] = self._training.trained(
            number, self._from, place, self._session(number)
        )
        if place is not None:
            data = _LOSS.pack(self.losses[number]) + tensors.pack(found)
            keep(place.with_suffix(".update"), data)
            shutil.rmtree(place, ignore_errors=True)
        return found

    def told(self, number: int, fate: str, why: str) -> None:
        """What became of the update for a round."""
        self.gave = number
        self._given += 1
        self.fates[number] = fate
        if fate != "taken":
            self.notes[number] = f"{fate}: {why}"

    def module(self, *, untuned: bool = False) -> Any:
        """The model with what came of the federation; with an adapter that can be taken off, where it
        is needed `untuned`, too."""
        return self._training.module(self._from, merged=self._merged, untuned=untuned)

    def card(self) -> Card:
        facts: dict[str, int | float | str] = {
            "rounds": self.have,
            "examples": self._examples,
            "updates taken": sum(fate == "taken" for fate in self.fates.values()),
            "bytes of updates": self._up,
        }
        if self.epoch:
            facts["rounds were taken back"] = f"{self.epoch} times; what stands here is since then"
        how = self.how
        if how.noise_on == "step":
            together = owner_level(how.noise, self._examples, how.steps * max(1, self.have), _DELTA)
            facts["ε of all of its records together"] = (
                f"{together:.3g} at δ = {_DELTA:g}, of each record what the book says"
            )
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
        return Card(by=self.how.name, title="federation", facts=facts, tables=tables)

    def _place(self, number: int) -> Path | None:
        """Where the training of a round is kept, and then its update, so that the run can be opened
        again without training: one from another adapter, or of another base, is another."""
        if self.how.checkpoints is None:
            return None
        start = tensors.pack(self._from)
        about = self._session(number).encode()
        name = hashlib.sha256(about + start).hexdigest()[:16]
        return self.how.checkpoints / f"round-{number}-{name}"
