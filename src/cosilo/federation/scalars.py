"""FedKSeed: owners send one number for each of K shared directions, and no weights at all.

    directions z₁ … z_K, from a seed everybody knows
    owner: at each step one of them, g = (L(w + εz) − L(w − εz)) / 2ε,  w ← w − η g z,  G_j ← G_j + g
    all:   w ← w − η Σ_j G_j z_j,  G the weighted mean of the owners'

Qin et al., "Federated Full-Parameter Tuning of Billion-Sized Language Models with Communication Cost
under 18 Kilobytes", arXiv 2312.06353; the step is Spall's (1992), as in MeZO (arXiv 2305.17333).
Nothing is lost by the scalars: the mean of the owners' weights is exactly w moved by the mean of their
scalars.

A direction is of −1 and 1, drawn as bits of SHAKE-256, so that it is the same to the bit on every
machine; Gaussian ones have the same second moment and more variance. K scalars in four bytes go up
and K come down: 2,048 are 16.4 kB an owner and round, both ways together.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosilo.federation.updates import Doubles, Floats, Shapes, Tensors, shaped

SCALARS = "scalars"
"""What a tensor of K scalars is called."""

Signs = NDArray[np.int8]
AnyTensors = Mapping[str, NDArray[Any]]
StepLoss = Callable[[int, Tensors], float]
"""(which step of the walk, the weights) → the loss of that step's examples: a mean, so that steps are
alike; both calls of one step must see the same examples."""


@dataclass(frozen=True)
class Directions:
    """K directions in the space of some tensors.

    Attributes:
        seed: what they are drawn from; all owners of a federation have the same.
        count: K.

    Raises:
        ValueError: the seed is negative, or there is no direction.
    """

    seed: int
    count: int = 2048

    def __post_init__(self) -> None:
        if self.seed < 0 or not 1 <= self.count <= 1 << 20:
            raise ValueError(f"no {self.count!r} directions of seed {self.seed!r}")

    def signs(self, which: int, shapes: Shapes) -> dict[str, Signs]:
        """The direction of that number, from 0, by the tensors' names: −1 and 1.

        Raises:
            ValueError: there is no such direction.
        """
        if not 0 <= which < self.count:
            raise ValueError(f"direction {which!r} is not from 0 to {self.count - 1}")
        total = sum(map(math.prod, shapes.values()))
        label = b"cosilo direction|%d|%d" % (self.seed, which)
        drawn = np.frombuffer(hashlib.shake_256(label).digest(-(-total // 8)), np.uint8)
        bits = np.unpackbits(drawn, count=total).astype(np.int8)
        bits *= 2
        bits -= 1
        return shaped(bits, shapes)


def slope(
    loss: Callable[[Tensors], float], tensors: AnyTensors, along: AnyTensors, epsilon: float
) -> float:
    """How much `loss` grows for each unit of `along`, from its values on either side.

    Args:
        epsilon: how far to either side.

    Raises:
        ValueError: it is not positive, or the loss is no number there.
    """
    if not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon = {epsilon!r} is not positive and finite")
    above, below = (loss(_added(tensors, along, sign * epsilon)) for sign in (1, -1))
    found = (above - below) / (2 * epsilon)
    if not math.isfinite(found):
        raise ValueError("the loss is no number beside these weights: a smaller rate may help")
    return found


def walked(
    loss: StepLoss,
    tensors: Tensors,
    directions: Directions,
    *,
    steps: int,
    rate: float,
    epsilon: float = 1e-3,
    seed: int,
    largest: float = math.inf,
    known: Sequence[float] = (),
    note: Callable[[float], None] = lambda number: None,
) -> tuple[dict[str, Floats], Floats]:
    """An owner's round: the weights where its walk ends, and its scalars, shape (K,): what it sends.

    Args:
        rate: η; the same for all owners of a round.
        seed: what the owner's choice of directions is drawn by, of this round and owner.
        largest: a step's number is cut to this magnitude, so that one batch cannot throw the walk.
        known: the numbers of the first steps, from a walk with the same arguments that was broken off.
        note: is told the number of each further step before it is taken.

    Raises:
        ValueError: a number is out of its range, or the loss is none.
    """
    if steps < 1 or not 0 < rate < math.inf or not largest > 0:
        raise ValueError(f"no walk of {steps!r} steps with rate {rate!r}, cut at {largest!r}")
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    at: dict[str, Doubles] = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    scalars = np.zeros(directions.count)
    chosen = np.random.default_rng(seed).integers(directions.count, size=steps)
    for step, which in enumerate(chosen.tolist()):
        along = directions.signs(which, shapes)
        if step < len(known):
            number = known[step]
        else:
            number = slope(lambda w, step=step: loss(step, w), at, along, epsilon)  # type: ignore[misc]
            number = min(max(number, -largest), largest)
            note(number)
        scalars[which] += number
        for name in at:
            at[name] -= rate * number * along[name]
    return _floats(at), scalars.astype(np.float32)


def moved(
    tensors: Tensors, scalars: NDArray[np.floating], directions: Directions, *, rate: float
) -> dict[str, Floats]:
    """`tensors` − η Σ_j scalars_j z_j: where the scalars lead.

    Scalars of several rounds add up first, so an owner that comes late needs their sum alone.

    Raises:
        ValueError: there are not K scalars, or one is no number.
    """
    if scalars.shape != (directions.count,) or not np.isfinite(scalars).all():
        raise ValueError(f"scalars of shape {scalars.shape} are not {directions.count} numbers")
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    total = {name: np.zeros(tensor.shape) for name, tensor in tensors.items()}
    for which in np.flatnonzero(scalars).tolist():
        for name, along in directions.signs(which, shapes).items():
            total[name] += float(scalars[which]) * along
    return _floats({name: tensors[name] - rate * total[name] for name in tensors})


def _added(tensors: AnyTensors, along: AnyTensors, much: float) -> dict[str, Floats]:
    return _floats({name: tensors[name] + much * along[name] for name in tensors})


def _floats(tensors: AnyTensors) -> dict[str, Floats]:
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
