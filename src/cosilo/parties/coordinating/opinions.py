"""Owners' models and the coordinator's large one say what they would of public texts, and learn from
whoever knows each text better; see `learning`.

    owners' opinions of round N ─┐ the better teacher of each text
    the large model's of N − 1 ──┴──▶ round N's adapter of the large model ──▶ its opinions: round N's

The last adapter of the large model can be opened from the folder `adapter`, by a model of kind "torch".
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from cosilo.boundary.messages.federate import OpinionTerms
from cosilo.boundary.wire import opinions, tensors
from cosilo.boundary.wire.alignment import Spelling, vocabulary_of
from cosilo.boundary.wire.opinions import PublicOpinions
from cosilo.errors import ConfigError, UnexpectedReplyError
from cosilo.federation.opinions import better, lessons, opinions_of
from cosilo.models.base import Array
from cosilo.models.mutual import TaughtModel
from cosilo.parties.coordinating.learning import RoundLearning
from cosilo.parties.coordinating.settings import FederationSettings

log = logging.getLogger("cosilo.federation")


class OpinionExchange(RoundLearning[bytes]):
    """What one federation's large model learns from owners' opinions, and what it says then.

    Args:
        top: tokens that are named at a place.
        folder, told: see `RoundLearning`.
    """

    base = ""
    """Owners may have any."""

    def __init__(
        self, model: TaughtModel, *, top: int, folder: Path | None, told: Callable[[], None]
    ) -> None:
        super().__init__(folder=folder, told=told)
        self.model, self._top = model, top
        self.replies = [each.target for each in model.public]
        self.terms = OpinionTerms(public=opinions.digest_of(model.public), top=top)

    @property
    def most(self) -> int:
        """Bytes of the longest opinions."""
        return opinions.most_bytes(self.replies, self._top)

    def lasting(self, settings: FederationSettings) -> dict[str, object]:
        """What must not change while a federation of these settings lasts.

        Raises:
            ConfigError: its owners send no opinions.
        """
        if settings.method != "opinions":
            raise ConfigError(
                'a model of kind "taught" learns from owners\' opinions: set method = "opinions" in '
                "the federation"
            )
        return {**settings.lasting, "taught": self.model.settings}

    def flaw(self, packed: bytes) -> str:
        """What is wrong with an owner's opinions; nothing where they can be used."""
        try:
            self._read(packed)
        except UnexpectedReplyError as error:
            return str(error)[:400]
        return ""

    def of(self, number: int, updates: Mapping[str, bytes], before: bytes) -> bytes | None:
        """The large model's opinions once it has learned from the owners'; None while it learns.

        Args:
            updates: owner → its opinions.
            before: the large model's of the round before; empty in the first.

        Raises:
            ModelError: a loss is not finite.
            StoreError: the large model's adapter is gone, or cannot be written.
        """
        about = hashlib.sha256(f"{number} ".encode() + before)
        for owner, packed in sorted(updates.items()):
            about.update(f"{owner} ".encode() + hashlib.sha256(packed).digest())
        key = about.hexdigest()[:16]
        return self.result(number, key, lambda work: self._learn(number, updates, before, work))

    def _learn(
        self, number: int, updates: Mapping[str, bytes], before: bytes, work: Path | None
    ) -> bytes:
        model = self.model
        large: Mapping[str, Array] | None = None
        if number > 1:
            large = tensors.unpack(self.adapter(number - 1, before))
        own = self._read(before or self._said(large))
        others = {owner: self._read(packed) for owner, packed in updates.items()}
        chosen = better(own.losses(), {owner: said.losses() for owner, said in others.items()})
        found = lessons(
            model.sequences, chosen, others, self._spelling, model.vocabulary, model.vocabulary_size
        )
        after = model.learn(number, found, large, work)
        given = self._said(after)
        self.keep(number, given, tensors.pack(after))
        if self.folder is not None:
            model.keep_adapter(after, self.folder / "adapter")
        now = self._read(given).losses()
        log.info(
            "round %d: the large model learned %d of %d public texts (%s); −log p of a text %.4f, "
            "then %.4f",
            number, len(found), len(chosen),
            ", ".join(f"{name!r} {n}" for name, n in sorted(Counter(filter(None, chosen)).items())),
            float(np.mean(own.losses())), float(np.mean(now)),
        )  # fmt: skip
        return given

    def _said(self, large: Mapping[str, Array] | None) -> bytes:
        model = self.model
        rows = model.predictions(large)
        said = opinions_of(rows, model.sequences, model.piece, model.vocabulary, self._top)
        return opinions.pack(said)

    def _read(self, packed: bytes) -> PublicOpinions:
        return opinions.unpack(packed, self.replies, self._top)

    @cached_property
    def _spelling(self) -> Spelling:
        return Spelling(vocabulary_of(self.model, self.model.public[0].chat))
