"""What an owner takes part in a federation with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from cosilo.federation.private import UpdateNoise, in_sum
from cosilo.privacy.dp_sgd import release_of_steps
from cosilo.privacy.mechanisms import Release


@dataclass(frozen=True, kw_only=True)
class Participation:
    """How an owner trains, and what of it may leave.

    Attributes:
        rounds: takes part in a federation of so many rounds at most.
        steps, batch, learning_rate: of the training at home, in each round.
        method: what is sent: the "adapter" that was trained, or "scalars", one number for each shared
            direction that it was moved along (FedKSeed), 8 kB; as the federation has it.
        epsilon: with scalars, how far to either side the loss is looked at.
        rank: of the adapter; the federation's, or less where its rule takes several ranks.
        upper: the adapter is on the last so many layers only, as the other owners have it, and a step
            costs what they do; on all layers when 0.
        noise: the standard deviation of Gaussian noise, over `clip`; none when 0.
        noise_on: where noise goes: on the "update" that is sent, or on the gradient of each "step" of
            training (DP-SGD), where it costs a record less; `batch` is then how many records a step
            draws on average, each with the same chance.
        clip: with noise, how far an update may be from where its round began (Euclidean norm, over all
            numbers), or with noise on steps how long a record's gradient may be.
        protects: whom the ε that is booked is for: each "record", or all of this owner's together, a
            "group"; noise on steps protects records.
        key_file: the key that noise is drawn under, so that an update sent again is one release; a run
            has one of its own.
        secure: take part only where the coordinator sees the sum of all updates and none of them
            (secure aggregation), and needs no trust not to look.
        least_owners: with `secure`, a sum is of so many owners' updates at least; of two, each knows
            the other's.
        relied_on: with `secure` and `noise`, so many owners in each sum, this one among them, are
            relied on to add such noise and to keep it to themselves: ε is booked for what the sum says,
            with the square root of that many times the noise.
        kept_updates: the coordinator may keep updates of so many rounds that have closed, so that one
            that is to be forgotten can be left out; of none when 0, and then it deletes them.
        tell_count: tell the coordinator how many examples there are, where it weighs updates by that.
        seed: of the training.
        checkpoints: a folder from which an interrupted training goes on; a run has one of its own.
    """

    name: ClassVar[str] = "federated"
    taught: ClassVar[bool] = False
    """Whether it takes part where a large model of the coordinator's learns from what comes of it."""

    rounds: int = 20
    steps: int = 50
    batch: int = 8
    learning_rate: float = 2e-4
    method: Literal["adapter", "scalars"] = "adapter"
    epsilon: float = 1e-3
    rank: int = 8
    upper: int = 0
    noise: float = 0.0
    noise_on: Literal["update", "step"] = "update"
    clip: float = 1.0
    protects: Literal["record", "group"] = "group"
    key_file: Path | None = None
    secure: bool = False
    least_owners: int = 3
    relied_on: int = 1
    kept_updates: int = 0
    tell_count: bool = False
    seed: int = 0
    checkpoints: Path | None = None

    def __post_init__(self) -> None:
        for name in ("rounds", "steps", "batch", "learning_rate", "rank", "epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not positive")
        for name in ("noise", "upper", "kept_updates"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)!r} is negative")
        if self.least_owners < 2 or self.relied_on < 1:
            raise ValueError(
                f"least_owners = {self.least_owners!r}, relied_on = {self.relied_on!r}: two at least, "
                "and one"
            )
        in_sums = self.secure and self.noise and self.noise_on == "update"
        if self.relied_on > 1 and not in_sums:
            raise ValueError(
                "relied_on is for noise in sums: set secure = true and noise on the update, or leave "
                "it out"
            )
        if self.noise_on == "step" and self.method == "scalars":
            raise ValueError('noise_on = "step" is for gradients, and scalars have none')
        if self.noise_on == "step" and (not self.noise or self.protects != "record"):
            raise ValueError(
                'noise_on = "step" adds noise for each record: set noise, and protects = "record"'
            )
        self.update_noise  # noqa: B018 — says what cannot be

    @property
    def update_noise(self) -> UpdateNoise | None:
        """What an update is made private with, once it is trained."""
        if not self.noise or self.noise_on == "step":
            return None
        return UpdateNoise(self.clip, self.noise, self.protects)

    def rate(self, examples: int) -> float:
        """With noise on steps: the chance of each example to be drawn in one."""
        return min(1.0, self.batch / examples)

    def release(self, examples: int) -> Release | None:
        """What one update is booked as, without which draw it is of; None where nothing is promised."""
        if self.noise and self.noise_on == "step":
            return release_of_steps(self.noise, self.rate(examples), self.steps)
        noise = self.update_noise
        return None if noise is None else in_sum(noise, self.relied_on)
