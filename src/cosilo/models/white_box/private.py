"""DP-SGD as a loss: the gradient that comes of it is private, and everything around it stays as it is.

    step ── each record with chance `rate` ──▶ its own gradient, cut to a length ──▶ mean + noise

The loss of a step is a number whose gradient is that noisy mean, so any training loop and optimiser can
be put around it: what they do with it is done to a private thing. Records are drawn here, independently
(Poisson), and not by the loop, whose batches say only that a step is due. (Abadi et al., arXiv
1607.00133; gradients one record after the other, so any model will do.) Needs torch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cosilo.models.base import Tokens
from cosilo.models.white_box.batch import reply_loss

Doubles = NDArray[np.float64]


class Draws(Protocol):
    """Secret draws that a context fixes; see `privacy.keyed_noise.KeyedNoise`."""

    def uniforms(self, size: int, context: bytes) -> Doubles: ...

    def added(self, values: Doubles, sigma: float, context: bytes) -> Doubles: ...


class PrivateLoss:
    """A loss for `training.train`, to be used with one training alone.

    Its value is the mean loss of the records that were drawn, which is not private and stays at home.
    Booked is `privacy.dp_sgd.release_of_steps(noise, rate, steps)`.

    Args:
        records: all of the owner's: the loop's own batches are not looked at.
        rate: the chance of each to be drawn in a step.
        largest: the Euclidean norm that a record's gradient is cut to.
        noise: the noise's standard deviation over `largest`.
        draws: of the owner's key.
        session: names the training among all of that key's.
        loss: of one record, its own gradient taken.

    Raises:
        ValueError: there are no records, or a number is out of range.
    """

    def __init__(
        self,
        records: Sequence[Tokens],
        *,
        rate: float,
        largest: float,
        noise: float,
        draws: Draws,
        session: str,
        loss: Callable[[Any, Sequence[Tokens]], Any] = reply_loss,
    ) -> None:
        if not records or not 0 < rate <= 1:
            raise ValueError(f"of {len(records)} records none is drawn at rate {rate!r}")
        if not 0 < largest < math.inf or not 0 < noise < math.inf:
            raise ValueError(f"largest = {largest!r} and noise = {noise!r}: both positive")
        self.records, self.rate = records, rate
        self.largest, self.noise = largest, noise
        self._draws, self._loss = draws, loss
        # Of other records the draws are others, so that two trainings have nothing in common.
        about = hashlib.sha256(f"{session}|{rate!r}|{largest!r}|{noise!r}".encode())
        for record in records:
            about.update(f"|{record.start} {len(record)}|".encode())
            about.update(np.ascontiguousarray(record.ids, "<i4").tobytes())
        self._about = about.digest()

    @property
    def identity(self) -> str:
        """A hash of the session, the numbers and the records."""
        return self._about.hex()

    def __call__(self, module: Any, batch: Sequence[Tokens]) -> Any:
        """A scalar whose gradient is the step's noisy mean gradient."""
        import torch

        trained = [p for p in module.parameters() if p.requires_grad]
        # The loop seeds torch's numbers for each step, so this names the step, also when begun again.
        # The weights are in it, too: another training on the same records has other draws.
        step = torch.randint(1 << 62, (1,)).item()
        flat = torch.cat([p.detach().float().cpu().reshape(-1) for p in trained]).numpy()
        weights = hashlib.sha256(np.ascontiguousarray(flat, "<f4").tobytes()).digest()
        context = b"%d|%b|%b" % (step, weights, self._about)
        drawn = self._draws.uniforms(len(self.records), b"records|" + context) < self.rate
        total = np.zeros(len(flat))
        losses = []
        for place in np.flatnonzero(drawn).tolist():
            value = self._loss(module, [self.records[place]])
            parts = torch.autograd.grad(value, trained, allow_unused=True)
            gradient = np.concatenate([
                np.zeros(p.numel()) if g is None else g.detach().double().cpu().numpy().ravel()
                for g, p in zip(parts, trained, strict=True)
            ])  # fmt: skip
            norm = float(np.linalg.norm(gradient))
            if not math.isfinite(norm):
                continue  # it adds nothing, whatever the others do
            total += gradient * min(1.0, self.largest / norm) if norm else 0.0
            losses.append(float(value.detach()))
        noisy = self._draws.added(total, self.noise * self.largest, b"noise|" + context)
        noisy /= self.rate * len(self.records)
        surrogate, at = torch.zeros((), device=trained[0].device), 0
        for parameter in trained:
            part = torch.from_numpy(noisy[at : at + parameter.numel()])
            at += parameter.numel()
            part = part.reshape(parameter.shape).to(parameter.device, torch.float32)
            surrogate = surrogate + (parameter.float() * part).sum()
        mean = math.fsum(losses) / len(losses) if losses else 0.0
        return surrogate - surrogate.detach() + mean
