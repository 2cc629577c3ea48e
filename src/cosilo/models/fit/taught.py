"""A torch model that learns from what a federation's owners' models would say of public examples.

    lessons of those texts that an owner knows better ──▶ an adapter ──▶ what the model says then

The loss of a lesson is λ · −log p(target) + (1 − λ) · KL(owner ‖ model), see `white_box.taught`; of
texts that the model itself knows best nothing is learned (Fan et al., "FedMKT", arXiv 2406.02224).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from cosilo.errors import ConfigError, DataError
from cosilo.models.base import Array, Tokens, models
from cosilo.models.fit.mutual import read_public
from cosilo.models.low_rank import Floats
from cosilo.models.mutual import PublicExample, TaughtLesson
from cosilo.models.white_box import files as torch_files
from cosilo.models.white_box import lm as torch_lms
from cosilo.models.white_box.adapters import (
    Adapter,
    base_digest,
    first_adapter,
    upper_layers,
    usual_loss,
    with_adapter,
)
from cosilo.models.white_box.lm import Precision, TorchModel
from cosilo.models.white_box.taught import predictions, public_sequences, taught_adapter
from cosilo.models.white_box.upper import ReplyLossAbove
from cosilo.registry import Loads


@dataclass(frozen=True, kw_only=True)
class TaughtTerms:
    """How a model learns from owners' opinions.

    Attributes:
        steps, batch, learning_rate: of each round.
        rank: of the adapter.
        upper: it is on the last so many layers only, and a step costs what they do; on all when 0.
        share: of the targets themselves beside what a teacher says, λ.
        seed: of the training.
    """

    steps: int = 50
    batch: int = 8
    learning_rate: float = 2e-4
    rank: int = 8
    upper: int = 0
    share: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "learning_rate", "rank"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"taught: {name} = {getattr(self, name)!r} is not positive")
        if self.upper < 0 or self.seed < 0 or not 0 <= self.share <= 1:
            raise ConfigError(
                f"taught: upper = {self.upper!r} and seed = {self.seed!r} begin at 0, and share = "
                f"{self.share!r} is from 0 to 1"
            )


class TaughtLM(TorchModel):
    """The large model and the public examples; see `models.mutual.TaughtModel`.

    It answers as it does without any adapter.
    """

    def __init__(
        self, model: TorchModel, public: Sequence[PublicExample], terms: TaughtTerms
    ) -> None:
        super().__init__(
            lambda: (model.module, model.tokens),
            name=model.name,
            identity=model.identity.removeprefix("torch:"),
            parallel=model.parallel,
        )
        if not public:
            raise DataError("taught has no public examples to learn on")
        self.public, self.terms = tuple(public), terms
        self._looking = threading.Lock()
        self._settings = ""

    @property
    def settings(self) -> str:
        with self._looking:
            if not self._settings:
                about = [base_digest(self), asdict(self.terms), self.public]
                self._settings = hashlib.sha256(msgspec.json.encode(about)).hexdigest()[:32]
            return self._settings

    @cached_property
    def sequences(self) -> Sequence[Tokens]:
        return public_sequences(self, self.public)

    def predictions(self, large: Mapping[str, Floats] | None) -> Iterator[Array]:
        module = self.module
        if large is not None:
            module = with_adapter(module, self._adapter(large))
        return predictions(module, self.sequences, self._above)

    def learn(
        self,
        number: int,
        lessons: Sequence[TaughtLesson],
        large: Mapping[str, Floats] | None,
        folder: Path | None,
    ) -> Mapping[str, Floats]:
        terms = self.terms
        start = self._first if large is None else self._adapter(large)
        found, _ = taught_adapter(
            self.module,
            start,
            lessons,
            share=terms.share,
            steps=terms.steps,
            batch=terms.batch,
            learning_rate=terms.learning_rate,
            seed=(terms.seed << 16) + number,
            folder=folder,
            run=f"{self.settings} {number}",
            above=self._above,
        )
        return found.tensors

    def keep_adapter(self, large: Mapping[str, Floats], folder: Path) -> None:
        self.with_module(with_adapter(self.module, self._adapter(large))).save_adapter(folder)

    def _adapter(self, large: Mapping[str, Floats]) -> Adapter:
        return Adapter(self.terms.rank, 2.0 * self.terms.rank, large)

    @cached_property
    def _first(self) -> Adapter:
        if self.terms.upper > self.layers:
            raise ConfigError(
                f"taught: upper = {self.terms.upper}: the model has {self.layers} layers"
            )
        layers = upper_layers(self.module, self.terms.upper or None)
        return first_adapter(layers, self.terms.rank, seed=self.terms.seed)

    @cached_property
    def _above(self) -> ReplyLossAbove | None:
        loss = usual_loss(self.module, self._first)
        return loss if isinstance(loss, ReplyLossAbove) else None


def _loads(model: str) -> Loads:
    return Loads((model,) if model else (), torch_files.PACKAGES)


@models.register("taught", loads=_loads)
def taught(
    public: Path,
    model: str = "",
    path: Path | None = None,
    precision: Precision = "auto",
    device: str = "auto",
    threads: int | None = None,
    parallel: int = 16,
    steps: int = 50,
    batch: int = 8,
    learning_rate: float = 2e-4,
    rank: int = 8,
    upper: int = 0,
    share: float = 0.9,
    seed: int = 0,
) -> TaughtLM:
    """A torch model that learns from what a federation's owners' models would say of public examples.

    Args:
        public: a file of JSON lines, see `mutual.read_public`.
        model, path, precision, device, threads, parallel: as for "torch".
        steps, batch, learning_rate, rank, upper, share, seed: see `TaughtTerms`.

    Raises:
        CatalogError: the files are not there, or are not safe to load.
        ConfigError: both or neither of `model` and `path`; a number is out of its range.
        DataError: there are no public examples.
    """
    terms = TaughtTerms(
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        rank=rank,
        upper=upper,
        share=share,
        seed=seed,
    )
    plain = torch_lms.torch_lm(
        model, path, precision=precision, device=device, threads=threads, parallel=parallel
    )
    return TaughtLM(plain, read_public(public), terms)
