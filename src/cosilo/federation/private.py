"""An update with noise: what one owner sends is private whoever sees it, the coordinator included.

    trained − before ── cut to a length C ── + N(0, σ²) ──▶ before + that, and the Release to be booked

Nothing is known of how a record moves an update but that this stays within C: so one record more or
less moves it by 2C at most, and all of the owner's records together, against an owner that has none and
sends what it began with, by C. DP-SGD (`privacy.dp_sgd`) spends less on a record for the same noise, as
it looks at each; an owner does one or the other.

Where a sum of n owners is all that is seen (`secure`), the noise in it is √n times as large, and what
that says of one of them so much less; but an owner can rely only on the others that do as they say.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from cosilo.federation.updates import Doubles, Floats, Tensors, flat, shaped
from cosilo.privacy.keyed_noise import KeyedNoise
from cosilo.privacy.mechanisms import Gaussian, Release, Unit


@dataclass(frozen=True)
class UpdateNoise:
    """Clipping and Gaussian noise on an owner's update.

    Attributes:
        largest: C, the Euclidean norm that the way from the round's beginning is cut to.
        noise: σ / C.
        unit: whom the release is booked for: each "record", or the "group" that all of the owner's
            records are.

    Raises:
        ValueError: one of them is out of range.
    """

    largest: float
    noise: float
    unit: Unit = "record"

    def __post_init__(self) -> None:
        if not 0 < self.largest < math.inf or not 0 < self.noise < math.inf:
            raise ValueError(
                f"largest = {self.largest!r} and noise = {self.noise!r}: both positive"
            )
        if self.unit not in ("record", "group"):
            raise ValueError(f"noise on an update protects a record or a group, no {self.unit!r}")

    @property
    def sigma(self) -> float:
        return self.noise * self.largest

    def release(self, *, series: str = "", draw: str = "") -> Release:
        """What one update is booked as, for one record (or all of the owner's) added or removed."""
        moved = 2 * self.largest if self.unit == "record" else self.largest
        return Release(
            mechanism=Gaussian(sigma=self.sigma, sensitivity=moved),
            unit=self.unit, series=series, draw=draw,
        )  # fmt: skip

    def applied(
        self, tensors: Tensors, before: Tensors, draws: KeyedNoise, *, session: str
    ) -> tuple[dict[str, Floats], Release]:
        """The update that is sent, and its release.

        The noise is drawn by the owner's key, the session and the update: made again after a kill, it
        is the same release; another update of the same session has other noise and is another one.

        Args:
            session: names the federation and the round.

        Raises:
            ValueError: the tensors are not those of `before`, or hold what is no number.
        """
        way, release = self.way(tensors, before, draws, session=session)
        noisy = shaped(way, {name: start.shape for name, start in before.items()})
        return {n: (before[n] + part).astype(np.float32) for n, part in noisy.items()}, release

    def way(
        self,
        tensors: Tensors,
        before: Tensors,
        draws: KeyedNoise,
        *,
        session: str,
        step: float = 0.0,
    ) -> tuple[Doubles, Release]:
        """From `before` to the update that is sent, all numbers in a row; see `applied`.

        Args:
            step: a power of two that each number is a multiple of, so that a sum rounds nothing.

        Raises:
            ValueError: as `applied`; or the noise is not a thousand steps large.
        """
        if {n: t.shape for n, t in tensors.items()} != {n: t.shape for n, t in before.items()}:
            raise ValueError("an update has other tensors than the round began with")
        way = flat(tensors) - flat(before)
        if not np.isfinite(way).all():
            raise ValueError("an update holds what is no number, so nothing is sent of it")
        norm = float(np.linalg.norm(way))
        way *= min(1.0, self.largest / norm) if norm else 1.0
        content = hashlib.sha256(way.astype("<f8").tobytes()).digest()
        stated = f"{session}|{self.largest!r}|{self.noise!r}".encode()
        context = hashlib.sha256(b"an update|" + stated + content).digest()
        noisy = draws.added(way, self.sigma, context, step=step)
        return noisy, self.release(series=session[:200], draw=draws.named(context))


def in_sum(noise: UpdateNoise, honest: int) -> Release:
    """What the sum of updates says of one owner, where so many owners that keep to it added their noise
    and nothing but the sum is seen. Those who drop out before the sum take their noise with them, and
    whoever knows another owner's noise can take it away: neither counts.

    Raises:
        ValueError: there is none.
    """
    if honest < 1:
        raise ValueError(f"{honest!r} owners add no noise")
    alone = noise.release()
    assert isinstance(alone.mechanism, Gaussian)
    mechanism = Gaussian(
        sigma=noise.sigma * math.sqrt(honest), sensitivity=alone.mechanism.sensitivity
    )
    return Release(mechanism=mechanism, unit=noise.unit)
