"""Where one owner stands in a federation of opinions: what it trains at home, says and is taught."""

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
import numpy as np

from cosilo.boundary.messages import Contribute, Enrol, Enrolled, NextRound, RoundState
from cosilo.boundary.messages.federate import VERSION
from cosilo.boundary.wire import opinions, tensors
from cosilo.boundary.wire.alignment import Spelling, vocabulary_of
from cosilo.boundary.wire.opinions import PublicOpinions
from cosilo.errors import CapabilityError, UnexpectedReplyError
from cosilo.federation.opinions import better, lessons, opinions_of
from cosilo.federation.updates import Tensors
from cosilo.models.base import WeightModel
from cosilo.models.mutual import PublicExample, TaughtLesson
from cosilo.models.white_box.adapters import base_digest
from cosilo.models.white_box.taught import predictions, public_sequences, taught_adapter
from cosilo.privacy.dp_sgd import owner_level
from cosilo.privacy.keyed_noise import KeyedNoise
from cosilo.privacy.mechanisms import Release
from cosilo.privacy.secret_key import secret_key
from cosilo.strategies.cards import Card
from cosilo.strategies.federating.adapters import AdapterTraining
from cosilo.strategies.federating.files import keep
from cosilo.strategies.federating.participation import Participation
from cosilo.types import Demonstration

_DELTA = 1e-5
_LOSS = struct.Struct("<d")
_OWN, _LARGE = "own", "large"


class OpinionOwner:
    """One owner's side: an adapter of its own model, which never crosses.

    Args:
        how: of the training at home.
        taught: of what is learned from the large model: steps, learning_rate and share, see
            `taught_adapter`.
        most_top: tokens that it names at a place, at most.

    Attributes:
        have: of how many closed rounds it has the large model's opinions.
        gave: the last round that it is done with.

    Raises:
        DataError: a public example does not fit the model's context.
    """

    def __init__(
        self,
        how: Participation,
        taught: tuple[int, float, float],
        most_top: int,
        model: WeightModel,
        examples: Sequence[Demonstration],
        public: Sequence[PublicExample],
        *,
        by: str,
    ) -> None:
        self.how, self.by = how, by
        self.have = self.gave = 0
        self.notes: dict[int, str] = {}
        self.fates: dict[int, str] = {}
        self.losses: dict[int, float] = {}
        self._steps, self._rate, self._share = taught
        self._most_top = most_top
        self._model, self._public = model, public
        self._tokens = public_sequences(model, public)
        self._replies = [each.target for each in public]
        self._digest = opinions.digest_of(public)
        self._base = base_digest(model)
        sequences = [model.tokenize(e.chat, e.target) for e in examples]
        self._examples = len(sequences)
        self._draws: KeyedNoise | None = None
        if how.noise:
            key = secret_key(how.key_file) if how.key_file is not None else None
            self._draws = KeyedNoise(key or secrets.token_bytes(32))
        self._training = AdapterTraining(how, model.module, sequences, self._draws)
        self._spelling = Spelling(vocabulary_of(model, public[0].chat))
        self._enrolled: Enrolled
        self._now: Tensors
        self._said: tuple[int, PublicOpinions] | None = None  # of which round, by the adapter now
        self._taught: dict[int, int] = {}
        self._public_losses: dict[str, dict[int, float]] = {_OWN: {}, _LARGE: {}}
        self._bytes = {"up": 0, "down": 0}

    def enrol(self) -> Enrol:
        how = self.how
        about: list[object] = [
            how.steps,
            how.batch,
            how.learning_rate,
            how.seed,
            how.rank,
            how.upper,
        ]
        about += [self._steps, self._rate, self._share]
        if how.noise:
            about += [how.noise, how.clip, how.noise_on]
        return Enrol(
            base=self._base,
            layers=(),
            rank=0,
            settings=hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32],
            public=self._digest,
        )

    def agree(self, enrolled: Enrolled) -> None:
        """Take part as the coordinator says, or not at all.

        Raises:
            CapabilityError: it speaks another version, has other public examples, or wants what this
                owner does not give.
        """
        terms = enrolled.opinions
        if enrolled.version != VERSION:
            raise CapabilityError(
                f"the coordinator speaks version {enrolled.version} of the exchange of federations, "
                f"and this owner version {VERSION}: install the same release on both sides"
            )
        if terms is None:
            raise CapabilityError(
                f"{self.by} sends opinions of public texts, and the federation's owners send something "
                'else: the host needs [federation] method = "opinions", or take part by the strategy '
                "federated or fedcollm"
            )
        if terms.public != self._digest:
            raise CapabilityError(
                f"this owner's public examples are {self._digest}, and the federation's "
                f"{terms.public}: all must have the same file"
            )
        if not 1 <= enrolled.rounds <= self.how.rounds:
            raise CapabilityError(
                f"the federation has {enrolled.rounds} rounds, and this owner takes part in "
                f"{self.how.rounds} at most: set rounds"
            )
        if terms.top > self._most_top:
            raise CapabilityError(
                f"the federation's owners name {terms.top} tokens at a place, and this owner "
                f"{self._most_top} at most: set top"
            )
        if enrolled.scale <= 0:
            raise CapabilityError("the federation's adapters have no scale")
        self._enrolled, self._top = enrolled, terms.top
        self._now = self._training.first(enrolled)

    def next_round(self) -> NextRound:
        """What is to do next?"""
        return NextRound(
            federation=self._enrolled.federation,
            have=self.have,
            gave=self.gave,
            most=opinions.most_bytes(self._replies, self._top),
            patience=self._enrolled.held,
            top=self._top,
            most_places=opinions.places_bound(self._replies),
        )

    def update(self, number: int) -> Contribute:
        """What its model says of the public texts after the round's training at home: the same bytes
        each time, also after a kill."""
        if self.fates.get(number) is not None or not self.have < number <= self._enrolled.rounds:
            raise UnexpectedReplyError(f"opinions for round {number} are wanted out of turn")
        release = self._of_steps(number)
        self._now = self._trained(number)
        file = self._file(number, "said")
        if file is not None and file.is_file():
            packed = file.read_bytes()
        else:
            packed = opinions.pack(self._say())
            if file is not None:
                keep(file, packed)
        self._note_said(number, opinions.unpack(packed, self._replies, self._top))
        self._bytes["up"] += len(packed)
        return Contribute(
            federation=self._enrolled.federation,
            number=number,
            rank=0,
            packed=packed,
            release=release,
        )

    def take(self, state: RoundState) -> None:
        """Learn from the large model's opinions of a closed round what it knows better.

        Raises:
            UnexpectedReplyError: they are none of these texts.
            ModelError: a loss is not finite.
        """
        number = state.of
        if not self.have < number <= self._enrolled.rounds:
            raise UnexpectedReplyError(f"opinions of round {number} came unasked")
        large = opinions.unpack(state.packed, self._replies, self._top)
        self._bytes["down"] += len(state.packed)
        if self._said is None or self._said[0] != number:
            self._begin_again(number)
        assert self._said is not None
        own = self._said[1].losses()
        self._public_losses[_LARGE][number] = float(np.mean(large.losses()))
        model = self._model
        chosen = better(own, {_LARGE: large.losses()})
        found = lessons(
            self._tokens, chosen, {_LARGE: large},
            self._spelling, model.vocabulary, model.vocabulary_size,
        )  # fmt: skip
        self._taught[number] = len(found)
        self._now = self._learned(number, found)
        self._said = None
        self.have = number

    def told(self, number: int, fate: str, why: str) -> None:
        """What became of the opinions for a round."""
        self.gave = number
        self.fates[number] = fate
        if fate != "taken":
            self.notes[number] = f"{fate}: {why}"

    def module(self, *, untuned: bool = False) -> Any:
        """The model with what came of it."""
        return self._training.module(self._now, merged=False, untuned=untuned)

    def card(self) -> Card:
        facts: dict[str, int | float | str] = {
            "rounds": self.have,
            "examples": self._examples,
            "public texts": len(self._public),
            "opinions taken": sum(fate == "taken" for fate in self.fates.values()),
            "bytes of opinions sent": self._bytes["up"],
            "bytes of opinions received": self._bytes["down"],
        }
        how = self.how
        if how.noise:
            together = owner_level(how.noise, self._examples, how.steps * max(1, self.have), _DELTA)
            facts["ε of all of its records together"] = (
                f"{together:.3g} at δ = {_DELTA:g}, of each record what the book says"
            )
        for number, why in sorted(self.notes.items()):
            facts[f"round {number}"] = why

        def by_round(values: dict[int, Any]) -> dict[str, float]:
            return {f"round {number}": round(float(v), 4) for number, v in sorted(values.items())}

        tables = {
            "public texts that the large model knew better, and taught": by_round(self._taught),
            "−log p of a public text, this owner's model": by_round(self._public_losses[_OWN]),
            "−log p of a public text, the large model": by_round(self._public_losses[_LARGE]),
            "loss at the last step of each round, on its own examples": by_round(self.losses),
        }
        return Card(
            by=self.by,
            title="mutual transfer",
            facts=facts,
            tables={name: table for name, table in tables.items() if table},
        )

    def _begin_again(self, number: int) -> None:
        """Stand where this owner stood before round `number` closed, in a process that knows nothing of
        it any more: by its files, or by training as then. What was trained with noise and was not said
        would be in what is said later, and in no book: then it goes on without."""
        said = self._file(number, "said")
        if said is not None and said.is_file():
            self._now = self._trained(number)
            self._note_said(number, opinions.unpack(said.read_bytes(), self._replies, self._top))
            return
        for before in range(number - 1, self.have, -1):
            learned = self._file(before, "learned")
            if learned is not None and learned.is_file():
                self._now = tensors.unpack(learned.read_bytes())
                break
        if not self.how.noise:
            self._now = self._trained(number)
        said_now = opinions.pack(self._say())  # rounded, as what was sent
        self._note_said(number, opinions.unpack(said_now, self._replies, self._top))

    def _note_said(self, number: int, said: PublicOpinions) -> None:
        self._said = number, said
        self._public_losses[_OWN][number] = float(np.mean(said.losses()))

    def _say(self) -> PublicOpinions:
        model = self._model
        module = self._training.module(self._now, merged=False)
        rows = predictions(module, self._tokens, self._training.above)
        return opinions_of(rows, self._tokens, model.piece, model.vocabulary, self._top)

    def _trained(self, number: int) -> Tensors:
        file = self._file(number, "update")
        if file is not None and file.is_file():
            data = file.read_bytes()
            (self.losses[number],) = _LOSS.unpack_from(data)
            return tensors.unpack(data[_LOSS.size :])
        place = None if file is None else file.with_suffix(".training")
        found, self.losses[number] = self._training.trained(
            number, self._now, place, self._session(number)
        )
        if file is not None and place is not None:
            keep(file, _LOSS.pack(self.losses[number]) + tensors.pack(found))
            shutil.rmtree(place, ignore_errors=True)
        return found

    def _learned(self, number: int, found: Sequence[TaughtLesson]) -> Tensors:
        file = self._file(number, "learned")
        if file is not None and file.is_file():
            return tensors.unpack(file.read_bytes())
        how, place = self.how, None if file is None else file.with_suffix(".learning")
        adapter, _ = taught_adapter(
            self._model.module,
            self._training.adapter(self._now),
            found,
            share=self._share,
            steps=self._steps,
            batch=how.batch,
            learning_rate=self._rate,
            seed=(how.seed << 16) + number,
            folder=place,
            run=self._session(number),
            above=self._training.above,
        )
        if file is not None and place is not None:
            keep(file, tensors.pack(adapter.tensors))
            shutil.rmtree(place, ignore_errors=True)
        return adapter.tensors

    def _of_steps(self, number: int) -> Release | None:
        """What opinions are booked as where noise is on each step of the training before them."""
        session = self._session(number)
        loss, release = self._training.private_loss(session), self.how.release(self._examples)
        if loss is None or self._draws is None or release is None:
            return None
        how = self.how
        about = f"{loss.identity} {how.steps} {how.batch} {how.learning_rate!r} {how.seed}".encode()
        draw = self._draws.named(hashlib.sha256(about + tensors.pack(self._now)).digest())
        return msgspec.structs.replace(release, series=session, draw=draw)

    def _session(self, number: int) -> str:
        return f"{self._enrolled.federation} {number}"

    def _file(self, number: int, what: str) -> Path | None:
        """Where the owner keeps what came of a round: its adapter as trained at home ("update"), what
        it "said", and its adapter once it was taught ("learned"). A federation takes an owner with one
        base, one set of public texts and one way to train, so it has one of each."""
        if self.how.checkpoints is None:
            return None
        name = hashlib.sha256(self._enrolled.federation.encode()).hexdigest()[:16]
        return self.how.checkpoints / f"round-{number}-{name}.{what}"
