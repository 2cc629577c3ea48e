"""One training loop for every method: AdamW, early stopping, and checkpoints that survive `kill -9`.

    examples ── shuffled by (seed, epoch) ──▶ batch ──▶ loss ──▶ AdamW ──▶ … ──▶ best weights
                                                │
                             folder/checkpoint.safetensors, replaced whole

Step k depends on the weights and the optimiser's state before it, on `seed` and on k, and on nothing
else: the order of the examples and torch's random numbers are derived anew for each step. So a run that
was killed goes on from its checkpoint to exactly the weights it would have had.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from cosilo.errors import ConfigError, DataError, ModelError, RunBusyError, StoreError
from cosilo.models.white_box import checkpoint as torch_checkpoint
from cosilo.models.white_box.batch import device_of

T = TypeVar("T")

Loss = Callable[[Any, Sequence[T]], Any]
"""(the module, the examples of one batch) → a scalar tensor with its gradient. Torch's generator is
seeded before each step, so a loss that samples from it is repeated exactly too."""

_CHECKPOINT = "checkpoint.safetensors"


_RANDOM = threading.RLock()


@contextmanager
def seeded(seed: int, devices: Sequence[Any] = ()) -> Iterator[None]:
    """Torch's random numbers from `seed`, and afterwards as if nothing had been drawn. They are the
    process's, so that others who draw seeded ones wait meanwhile.

    Args:
        devices: those with numbers of their own, beside the processor.
    """
    import torch

    with _RANDOM, torch.random.fork_rng(list(devices)):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: of the optimiser, at most.
        batch: examples per step.
        warmup: the share of `steps` over which the learning rate rises to `learning_rate`; it then
            falls in a straight line, to nothing after the last step.
        clip: gradients are scaled down to this norm.
        validate_every: steps between two validations; there is one before the first and one after the
            last step in any case.
        patience: validations in a row without a better value before training stops; 0 never stops.
        seed: of the order of the examples and of dropout.
        checkpoint_seconds: a checkpoint is written when the last one is older than this.
    """

    steps: int
    batch: int = 8
    learning_rate: float = 2e-4
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    validate_every: int = 50
    patience: int = 3
    seed: int = 0
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "validate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, not {getattr(self, name)!r}")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate must be above 0, not {self.learning_rate!r}")
        if not 0 <= self.warmup <= 1:
            raise ConfigError(f"warmup is a share of the steps (0 to 1), not {self.warmup!r}")

    def rate(self, step: int) -> float:
        """The learning rate of `step`, counted from 0."""
        rising = round(self.warmup * self.steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return self.learning_rate * (self.steps - step) / max(1, self.steps - rising)


@dataclass(frozen=True)
class TrainingProgress:
    """After a step: how far it is. `seconds_left` is at this run's own pace, without stopping early."""

    step: int
    steps: int
    loss: float
    validation: float | None
    seconds_left: float


@dataclass
class TrainingOutcome:
    """What training did.

    Attributes:
        losses: of every step.
        validations: step → value; lower is better.
        best_step: whose weights the module has now; the last one's without a validation.
        seconds: spent in steps and validations, over all restarts.
    """

    losses: list[float] = field(default_factory=list)
    validations: dict[int, float] = field(default_factory=dict)
    best_step: int = 0
    seconds: float = 0.0

    @property
    def best(self) -> float | None:
        """The validation value of the weights that the module has now."""
        return self.validations.get(self.best_step)


def train(
    module: Any,
    examples: Sequence[T],
    loss: Loss[T],
    schedule: Schedule,
    *,
    validate: Callable[[Any], float] | None = None,
    folder: Path | None = None,
    run: str = "",
    report: Callable[[TrainingProgress], None] | None = None,
    precision: str = "float32",
    begins: Callable[[int], None] | None = None,
) -> TrainingOutcome:
    """Train those parameters of `module` that require a gradient; it ends with its best weights.

    Args:
        loss: of one batch.
        validate: what is to become small, measured on data that are not trained on; called in
            evaluation mode and without gradients.
        folder: where checkpoints lie; training goes on from the one that is there.
        run: what else decides the weights (the data, the loss), so that the checkpoints of another
            training are refused and not gone on from.
        precision: "bfloat16" computes the loss in mixed precision.
        begins: told the number of each step before its loss is computed, from 0.

    Raises:
        DataError: there are no examples.
        ConfigError: nothing in `module` is to be trained.
        ModelError: the loss or its gradient is not finite; the step before is kept as a checkpoint.
        RunBusyError: another process trains in `folder`.
        StoreError: `folder` holds another training's checkpoint, or cannot be written.
    """
    if not examples:
        raise DataError("there are no examples to train on")
    if folder is None:
        loop = _Loop(module, examples, loss, schedule, validate, None, run, precision, begins)
        return loop.run(report)
    with _alone_in(folder):
        loop = _Loop(module, examples, loss, schedule, validate, folder, run, precision, begins)
        return loop.run(report)


class _Loop:
    def __init__(
        self,
        module: Any,
        examples: Sequence[Any],
        loss: Loss[Any],
        schedule: Schedule,
        validate: Callable[[Any], float] | None,
        folder: Path | None,
        run: str,
        precision: str,
        begins: Callable[[int], None] | None,
    ) -> None:
        import torch

        self.module = module
        self.examples = examples
        self.loss = loss
        self.schedule = schedule
        self.validate = validate
        self.folder = folder
        self.precision = precision
        self.begins = begins
        self.trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
        if not self.trained:
            raise ConfigError("no parameter of the model requires a gradient: nothing to train")
        self.optimizer = torch.optim.AdamW(
            self.trained.values(), lr=0.0, weight_decay=schedule.weight_decay
        )
        self.step = 0
        self.outcome = TrainingOutcome()
        self.best: dict[str, Any] = {}
        self.run_identity = _hash(
            [
                run,
                asdict(schedule) | {"checkpoint_seconds": 0},
                precision,
                len(examples),
                [[n, list(p.shape)] for n, p in self.trained.items()],
            ]
        )

    def run(self, report: Callable[[TrainingProgress], None] | None) -> TrainingOutcome:
        was_training = self.module.training
        try:
            resumed = self.resume()
            if not resumed:
                self.validation()
            self.steps(report)
            self.restore_best()
        finally:
            self.module.train(was_training)
        return self.outcome

    def steps(self, report: Callable[[TrainingProgress], None] | None) -> None:
        schedule = self.schedule
        saved = started = perf_counter()
        first, before = self.step, self.outcome.seconds
        while self.step < schedule.steps and not self.stopped():
            value = self.one_step()
            due = self.step % schedule.validate_every == 0 or self.step == schedule.steps
            found = self.validation() if due else None
            now = perf_counter()
            self.outcome.seconds = before + now - started
            ended = self.step == schedule.steps or self.stopped()
            if self.folder and (ended or now - saved >= schedule.checkpoint_seconds):
                self.save()
                saved = now
            if report:
                each = (now - started) / (self.step - first)
                left = 0.0 if ended else each * (schedule.steps - self.step)
                report(TrainingProgress(self.step, schedule.steps, value, found, left))

    def one_step(self) -> float:
        import torch

        schedule, device = self.schedule, device_of(self.module)
        batch = [self.examples[i] for i in order(len(self.examples), schedule, self.step)]
        self.module.train()
        if self.begins:
            self.begins(self.step)
        cuda = [device] if device.type == "cuda" else []
        with seeded(int(_hash([schedule.seed, self.step]), 16) >> 1, cuda):
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                loss = self.loss(self.module, batch)
            value = float(loss.detach())
            if math.isfinite(value):
                loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained.values(), schedule.clip))
        if not math.isfinite(value) or not math.isfinite(norm):
            self.optimizer.zero_grad(set_to_none=True)
            raise ModelError(self.not_finite(value))
        for group in self.optimizer.param_groups:
            group["lr"] = schedule.rate(self.step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.outcome.losses.append(value)
        return value

    def not_finite(self, value: float) -> str:
        """Keep the weights before the bad step; the text that says so."""
        what = "its gradient is not finite" if math.isfinite(value) else f"the loss is {value}"
        kept = ""
        if self.folder and self.step:
            self.save()
            kept = f" The weights after step {self.step} are kept in {str(self.folder)!r}."
        return (
            f"training stopped at step {self.step + 1} of {self.schedule.steps}: {what}.{kept} "
            "A lower learning rate, or a longer warm-up, may do."
        )

    def validation(self) -> float | None:
        """Measure, and remember the weights if they are the best so far."""
        import torch

        if self.validate is None:
            self.outcome.best_step = self.step
            return None
        self.module.eval()
        with torch.no_grad():
            value = float(self.validate(self.module))
        if math.isnan(value):
            value = math.inf
        best = self.outcome.best
        self.outcome.validations[self.step] = value
        if best is None or value < best:
            self.outcome.best_step = self.step
            self.best = {n: p.detach().clone() for n, p in self.trained.items()}
            if self.folder:
                torch_checkpoint.write(self.best_path(), self.best)
        return value

    def stopped(self) -> bool:
        """Whether the validations since the best one are as many as `patience`."""
        since = sum(step > self.outcome.best_step for step in self.outcome.validations)
        return 0 < self.schedule.patience <= since

    def restore_best(self) -> None:
        if self.validate is None:
            self.outcome.best_step = self.step
            return
        _copy(self.best, self.trained)

    def best_path(self) -> Path:
        assert self.folder is not None
        return self.folder / f"best-{self.outcome.best_step:07d}.safetensors"

    def save(self) -> None:
        assert self.folder is not None
        state = self.optimizer.state_dict()["state"]
        tensors: dict[str, Any] = {}
        for i, (name, parameter) in enumerate(self.trained.items()):
            tensors[f"weight {name}"] = parameter.detach()
            for key in ("exp_avg", "exp_avg_sq"):
                tensors[f"{key} {name}"] = state[i][key]
        about = {"run": self.run_identity, "step": self.step, "outcome": asdict(self.outcome)}
        torch_checkpoint.write(self.folder / _CHECKPOINT, tensors, about)
        if self.validate is not None:
            for old in self.folder.glob("best-*.safetensors"):
                if old != self.best_path():
                    old.unlink(missing_ok=True)

    def resume(self) -> bool:
        """Go on from the checkpoint in `folder`; False where there is none."""
        if self.folder is None or not (self.folder / _CHECKPOINT).exists():
            return False
        tensors, about = torch_checkpoint.read(self.folder / _CHECKPOINT)
        if not isinstance(about, Mapping) or about.get("run") != self.run_identity:
            raise StoreError(
                f"{str(self.folder)!r} holds the checkpoint of another training (other data, model, "
                "loss or schedule); choose another folder, or empty this one"
            )
        self.step = int(about["step"])
        kept = about["outcome"]
        self.outcome = TrainingOutcome(**{f.name: kept[f.name] for f in fields(TrainingOutcome)})
        self.outcome.validations = {int(k): v for k, v in kept["validations"].items()}
        _copy({n: tensors[f"weight {n}"] for n in self.trained}, self.trained)
        self.load_optimizer(tensors)
        if self.validate is not None:
            self.best, _ = torch_checkpoint.read(self.best_path())
        return True

    def load_optimizer(self, tensors: Mapping[str, Any]) -> None:
        import torch

        state = self.optimizer.state_dict()
        state["state"] = {
            i: {
                "step": torch.tensor(float(self.step)),
                "exp_avg": tensors[f"exp_avg {name}"],
                "exp_avg_sq": tensors[f"exp_avg_sq {name}"],
            }
            for i, name in enumerate(self.trained)
        }
        self.optimizer.load_state_dict(state)


def order(examples: int, schedule: Schedule, step: int) -> list[int]:
    """The indices of the examples in the batch of `step`: every epoch is a shuffle of its own."""
    first = step * schedule.batch
    found: list[int] = []
    for epoch in range(first // examples, (first + schedule.batch - 1) // examples + 1):
        shuffled = np.random.default_rng([schedule.seed, epoch]).permutation(examples)
        start = max(0, first - epoch * examples)
        end = min(examples, first + schedule.batch - epoch * examples)
        found += [int(i) for i in shuffled[start:end]]
    return found


def _copy(source: Mapping[str, Any], target: Mapping[str, Any]) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in target.items():
            parameter.copy_(source[name])


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"{str(folder)!r} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise RunBusyError(f"another process trains in {str(folder)!r}") from None
    finally:
        os.close(handle)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
