"""What one owner contributes to a round, and what can be wrong with it.

Arrays are named. An adapter's are pairs: `LAYER.lora_A` of shape (rank, in), `LAYER.lora_B` of shape
(out, rank), and what they add to the layer's weights is scale · B A (Hu et al., arXiv 2106.09685), with
one scale for all owners of a federation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosilo.models.low_rank import A as A
from cosilo.models.low_rank import B as B
from cosilo.models.low_rank import Floats as Floats

Doubles = NDArray[np.float64]
Tensors = Mapping[str, Floats]
Shapes = Mapping[str, tuple[int, ...]]
Pairs = dict[str, tuple[Floats, Floats]]


@dataclass(frozen=True, eq=False)
class OwnerUpdate:
    """What one owner contributed to a round.

    Attributes:
        owner: its name.
        weight: how much it counts beside the others; more than 0.
        tensors: the weights that it trained, by name; all of them, not how they changed.

    Raises:
        ValueError: the weight is not positive and finite.
    """

    owner: str
    weight: float
    tensors: Tensors

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(f"the weight {self.weight!r} of {self.owner!r} is not positive")


def pairs_of(tensors: Tensors) -> Pairs:
    """The two matrices (A, B) of each layer of an adapter, in the order of the layers' names.

    Raises:
        ValueError: the tensors are no such pairs.
    """
    found: Pairs = {}
    for name in sorted(tensors):
        layer = name.removesuffix(A)
        if layer == name:
            continue
        a, b = tensors[name], tensors.get(layer + B)
        if b is None or a.ndim != 2 or b.ndim != 2 or len(a) != b.shape[1]:
            raise ValueError(f"the matrices of {layer!r} are no pair of one rank")
        found[layer] = a, b
    if 2 * len(found) != len(tensors):
        raise ValueError(f"{len(tensors)} tensors are no pairs of an adapter's matrices")
    return found


def flat(tensors: Tensors) -> Doubles:
    """All numbers as one vector, the tensors in the order of their names."""
    return np.concatenate([tensors[n].astype(np.float64).ravel() for n in sorted(tensors)])


def shaped(vector: NDArray[Any], shapes: Shapes) -> dict[str, NDArray[Any]]:
    """The tensors of these shapes that `vector` is the numbers of, in the order of their names.

    Raises:
        ValueError: it has more or fewer.
    """
    names = sorted(shapes)
    ends = np.cumsum([math.prod(shapes[name]) for name in names])
    parts = np.split(vector, ends[:-1])
    return {name: part.reshape(shapes[name]) for name, part in zip(names, parts, strict=True)}


def product_norm(tensors: Tensors, scale: float = 1.0) -> float:
    """‖scale · B A‖, in the Frobenius norm over all layers of an adapter together.

    Raises:
        ValueError: the tensors are no pairs.
    """
    total = 0.0
    for a, b in pairs_of(tensors).values():
        wide, tall = a.astype(np.float64), b.astype(np.float64)
        total += float(np.sum((tall.T @ tall) * (wide @ wide.T)))  # tr(BᵀB AAᵀ), rank × rank
    return scale * math.sqrt(max(0.0, total))


def distance_norm(tensors: Tensors, before: Tensors | None = None) -> float:
    """The Euclidean norm of all numbers together; of their difference to `before` where it is given."""
    total = 0.0
    for name, tensor in tensors.items():
        numbers = tensor.astype(np.float64)
        if before is not None:
            numbers = numbers - before[name]
        total += float(np.sum(np.square(numbers)))
    return math.sqrt(total)


def vetted(
    tensors: Tensors,
    shapes: Shapes,
    *,
    largest_norm: float = math.inf,
    scale: float = 1.0,
) -> str:
    """What is wrong with tensors that came as an update, in words that its owner and a log may read;
    empty where nothing is.

    Args:
        shapes: of each tensor that it must have; it may have no others.
        largest_norm: what `product_norm`, with this `scale`, may be at most; of what is no adapter the
            Euclidean norm.
    """
    if missing := sorted(shapes.keys() - tensors.keys()):
        return f"it has no tensor {missing[0]!r}"
    if more := sorted(tensors.keys() - shapes.keys()):
        return f"it has a tensor {more[0]!r} that there is not"
    for name in sorted(shapes):
        if tensors[name].shape != shapes[name]:
            return f"its tensor {name!r} has the shape {tensors[name].shape}, not {shapes[name]}"
    for name in sorted(shapes):
        if not np.isfinite(tensors[name]).all():
            return f"its tensor {name!r} holds what is no number"
    adapter = any(name.endswith((A, B)) for name in shapes)
    norm = product_norm(tensors, scale) if adapter else distance_norm(tensors)
    if not norm <= largest_norm:
        return f"its norm, {norm:.4g}, is above {largest_norm:g}"
    return ""


def in_order(updates: Sequence[OwnerUpdate]) -> list[OwnerUpdate]:
    """`updates` by their owners' names: sums of numbers depend on the order, so there is one.

    Raises:
        ValueError: there are none, or two of one owner.
    """
    found = sorted(updates, key=lambda update: update.owner)
    if not found:
        raise ValueError("there are no updates to put together")
    if len({update.owner for update in found}) < len(found):
        raise ValueError("an owner has two updates in one round")
    return found


def shares(updates: Sequence[OwnerUpdate]) -> list[float]:
    """Each update's weight, of all weights together."""
    total = math.fsum(update.weight for update in updates)
    return [update.weight / total for update in updates]


def of_one_shape(updates: Sequence[OwnerUpdate], rule: str) -> Shapes:
    """The shapes of the updates' tensors.

    Raises:
        ValueError: they differ, and `rule` cannot put them together.
    """
    shapes = {name: tensor.shape for name, tensor in updates[0].tensors.items()}
    for update in updates:
        if shapes != {name: tensor.shape for name, tensor in update.tensors.items()}:
            raise ValueError(
                f"the updates of {updates[0].owner!r} and {update.owner!r} have other shapes, and "
                f"{rule} needs the same: let all owners have one rank, or use flora or hetlora"
            )
    return shapes
