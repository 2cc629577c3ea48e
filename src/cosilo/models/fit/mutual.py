"""A torch model that learns from a small one and teaches it, on public examples that its owner holds.

    small model, with the adapter of a round ──next-token distributions──▶ the large model's adapter
    large model, with its own adapter        ──next-token distributions──▶ the small model's adapter

Each loss is −log p(target) + weight × T² KL(teacher ‖ student), over all places of the target and the
whole vocabulary: of one model the teacher is the other as it was when the round's adapters came
together (Fan et al., "FedCoLLM", arXiv 2411.11707; mutual learning, Zhang et al., arXiv 1706.00384). A
teacher's distributions are taken as they are, from its logits, and carry no gradient; the student's do.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cosilo.errors import CapabilityError, ConfigError, DataError
from cosilo.models.base import Tokens, models
from cosilo.models.low_rank import A, Floats
from cosilo.models.mutual import Exchanged
from cosilo.models.mutual import PublicExample as PublicExample
from cosilo.models.white_box import files as torch_files
from cosilo.models.white_box import lm as torch_lms
from cosilo.models.white_box.adapters import (
    Adapter,
    base_digest,
    first_adapter,
    layers_to_adapt,
    trained_adapter,
    with_adapter,
)
from cosilo.models.white_box.batch import device_of, pad, predict
from cosilo.models.white_box.lm import Precision, TorchModel
from cosilo.models.white_box.losses import Teacher, divergence
from cosilo.models.white_box.training import TrainingOutcome
from cosilo.registry import Loads
from cosilo.types import Turn


@dataclass(frozen=True, kw_only=True)
class MutualTerms:
    """How two models learn from each other.

    Attributes:
        steps, batch: of each exchange, for both.
        learning_rate, small_learning_rate: of the large and of the small model's adapter.
        rank: of the large model's adapter.
        weight: of the other model's opinion beside the target; 0 learns from the targets alone.
        temperature: of both distributions.
        seed: of the training.
    """

    steps: int = 50
    batch: int = 8
    learning_rate: float = 2e-4
    small_learning_rate: float = 2e-4
    rank: int = 8
    weight: float = 1.0
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        positive = {"steps", "batch", "learning_rate", "small_learning_rate", "rank", "temperature"}
        for name, value in asdict(self).items():
            if not (value > 0 if name in positive else value >= 0):
                raise ConfigError(f"mutual: {name} = {value!r} is not positive")


class MutualLM(TorchModel):
    """The large model, the owners' small one beside it; see `models.mutual.MutualModel`.

    It answers as the large model without any adapter.
    """

    def __init__(
        self,
        large: TorchModel,
        small: TorchModel,
        public: Sequence[PublicExample],
        terms: MutualTerms,
    ) -> None:
        super().__init__(
            lambda: (large.module, large.tokens),
            name=large.name,
            identity=large.identity.removeprefix("torch:"),
            parallel=large.parallel,
        )
        if not public:
            raise DataError("mutual has no public examples to learn on")
        self.small, self.public, self.terms = small, public, terms
        self._found: tuple[str, str] | None = None
        self._looking = threading.Lock()

    @property
    def small_base(self) -> str:
        return self._digests()[0]

    @property
    def settings(self) -> str:
        return self._digests()[1]

    def exchange(
        self,
        number: int,
        small: Mapping[str, Floats],
        scale: float,
        large: Mapping[str, Floats] | None,
        folder: Path | None,
    ) -> Exchanged:
        self._digests()  # says whether they can be taught by one another
        terms = self.terms
        rank = min(len(t) for name, t in small.items() if name.endswith(A))
        below = Adapter(rank, scale * rank, small)
        if large is None:
            above = first_adapter(layers_to_adapt(self.module), terms.rank, seed=terms.seed)
        else:
            above = Adapter(terms.rank, 2.0 * terms.rank, large)
        shared = min(self.vocabulary_size, self.small.vocabulary_size)
        taught: dict[str, tuple[Adapter, TrainingOutcome]] = {}
        for name, student, own, teacher, other, rate in (
            ("small", self.small, below, self, above, terms.small_learning_rate),
            ("large", self, above, self.small, below, terms.learning_rate),
        ):
            sequences = [student.tokenize(e.chat, e.target) for e in self.public]
            teaching = with_adapter(teacher.module, other) if terms.weight else None
            taught[name] = trained_adapter(
                student.module,
                own,
                sequences,
                steps=terms.steps,
                batch=terms.batch,
                learning_rate=rate,
                seed=(terms.seed << 16) + number,
                folder=None if folder is None else folder / name,
                run=f"{self.settings} {number} {_digest(other)}",
                loss=partial(mutual_loss, teaching, terms.weight, terms.temperature, shared),
            )
        return Exchanged(
            taught["small"][0].tensors,
            taught["large"][0].tensors,
            {name: (found.losses[0], found.losses[-1]) for name, (_, found) in taught.items()},
        )

    def keep_adapter(self, large: Mapping[str, Floats], folder: Path) -> None:
        rank = self.terms.rank
        self.with_module(with_adapter(self.module, Adapter(rank, 2.0 * rank, large))).save_adapter(
            folder
        )

    async def close(self) -> None:
        await self.small.close()
        await super().close()

    def _digests(self) -> tuple[str, str]:
        """Of the small model, and of all settings.

        Raises:
            CapabilityError: the two models have other tokenisers.
        """
        with self._looking:
            if self._found is None:
                if self.vocabulary != self.small.vocabulary:
                    raise CapabilityError(
                        f"{self.name!r} and the owners' small model {self.small.name!r} have other "
                        "tokenisers, so neither's distributions are of the other's tokens: take a "
                        "small model of the large one's family"
                    )
                small = base_digest(self.small)
                public = [(e.chat, e.target) for e in self.public]
                about = [small, base_digest(self), asdict(self.terms), public]
                found = hashlib.sha256(msgspec.json.encode(about)).hexdigest()
                self._found = small, found[:32]
            return self._found


def mutual_loss(
    teacher: Any,
    weight: float,
    temperature: float,
    shared: int,
    module: Any,
    sequences: Sequence[Tokens],
) -> Any:
    """The mean over the targets' places: a scalar with its gradient.

    Args:
        teacher: a module that is not trained; None where its opinion does not count.
        weight: of its opinion.
        shared: ids below this are the tokeniser's, in both models; a head may have more rows.
    """
    import torch
    from torch.nn.functional import cross_entropy

    batch = pad(sequences, device_of(module))
    logits = predict(module, batch)[batch.counted].float()
    loss = cross_entropy(logits, batch.targets[batch.counted])
    if teacher is None:
        return loss
    with torch.no_grad():
        there = predict(teacher, batch)[batch.counted].float()[:, :shared]
        opinion = Teacher(None, (there / temperature).log_softmax(1), None)
    far = divergence(logits[:, :shared], opinion, temperature=temperature)
    return loss + weight * far.mean()


def read_public(path: Path) -> list[PublicExample]:
    """Public examples of a file of JSON lines: `text`, `target`, and `system` where there is one.

    Raises:
        DataError: it cannot be read, holds nothing, or a line is something else; it says which.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"public examples in {str(path)!r} cannot be read: {error}") from None
    found = []
    for at, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            texts = [row[key] for key in ("system", "text", "target") if key in row]
            system, text, target = row.get("system", ""), row["text"], row["target"]
        except (ValueError, KeyError, TypeError, AttributeError):
            texts, system, text, target = [None], "", "", ""
        if not all(isinstance(each, str) for each in texts) or not (text and target):
            raise DataError(
                f"{path.name}, line {at}: not an object with a text and a target that are not empty"
            )
        turns = (Turn("system", system),) if system else ()
        found.append(PublicExample((*turns, Turn("user", text)), target))
    if not found:
        raise DataError(f"{str(path)!r} holds no public examples")
    return found


def _digest(adapter: Adapter) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(adapter.tensors.items()):
        found.update(name.encode() + tensor.tobytes())
    return found.hexdigest()[:16]


def _loads(model: str, small_model: str) -> Loads:
    named = tuple(dict.fromkeys(name for name in (model, small_model) if name))
    return Loads(named, torch_files.PACKAGES)


@models.register("mutual", loads=_loads)
def mutual(
    public: Path,
    model: str = "",
    path: Path | None = None,
    small_model: str = "",
    small_path: Path | None = None,
    precision: Precision = "auto",
    device: str = "auto",
    threads: int | None = None,
    parallel: int = 16,
    steps: int = 50,
    batch: int = 8,
    learning_rate: float = 2e-4,
    small_learning_rate: float = 2e-4,
    rank: int = 8,
    weight: float = 1.0,
    temperature: float = 1.0,
    seed: int = 0,
) -> MutualLM:
    """A torch model that learns from what a federation's small model became, and teaches it.

    Args:
        public: a file of JSON lines, see `read_public`.
        model, path, precision, device, threads, parallel: the large model, as for "torch".
        small_model, small_path: the model that owners train adapters of.
        steps, batch, learning_rate, small_learning_rate, rank, weight, temperature, seed: see
            `MutualTerms`.

    Raises:
        CatalogError: the files are not there, or are not safe to load.
        ConfigError: both or neither of `model` and `path`; a number is out of its range.
        DataError: there are no public examples.
    """
    terms = MutualTerms(
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        small_learning_rate=small_learning_rate,
        rank=rank,
        weight=weight,
        temperature=temperature,
        seed=seed,
    )
    made: Callable[..., TorchModel] = partial(
        torch_lms.torch_lm, precision=precision, device=device, threads=threads, parallel=parallel
    )
    if bool(small_model) == (small_path is not None):
        raise ConfigError("model 'mutual' needs either small_model (a catalog name) or small_path")
    large, small = made(model, path), made(small_model, small_path)
    return MutualLM(large, small, read_public(public), terms)
