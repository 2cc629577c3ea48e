"""What the LM would have made of states without noise, from what it made of them with it.

    noisy output, clean input, noise ──▶ linear map, learned on public texts ──▶ clean output

Whoever added the noise knows it, and the LM's owner does not (Mai et al., "Split-and-Denoise", arXiv
2310.09130, whose denoiser is a transformer; this one is a ridge regression on the same three).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import StoreError
from cosilo.models.base import Array

_PENALTY = 1e-2
_FILE = "denoiser.npz"
_PARTS = ("weights", "means", "scales", "mean", "scale")


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A linear map of standardised numbers.

    Attributes:
        weights: shape (3 × width, width).
        means, scales: of the inputs, shape (3 × width).
        mean, scale: of the outputs, shape (width).
    """

    weights: Array
    means: Array
    scales: Array
    mean: Array
    scale: Array

    @classmethod
    def fit(cls, noisy: Array, given: Array, noise: Array, wanted: Array) -> Denoiser:
        """The map that makes `wanted` of the others best; each has shape (n, width)."""
        inputs = np.concatenate([noisy, given, noise], axis=1).astype(np.float64)
        means, scales = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
        mean, scale = wanted.mean(axis=0), wanted.std(axis=0) + 1e-6
        x = (inputs - means) / scales
        y = (wanted - mean) / scale
        square = x.T @ x + _PENALTY * len(x) * np.eye(x.shape[1])
        weights = np.linalg.solve(square, x.T @ y)
        return cls(*(part.astype(np.float32) for part in (weights, means, scales, mean, scale)))

    def __call__(self, noisy: Array, given: Array, noise: Array) -> Array:
        """The clean outputs, as far as they can be told: shape (n, width)."""
        inputs = (np.concatenate([noisy, given, noise], axis=1) - self.means) / self.scales
        found: NDArray[np.float32] = (inputs @ self.weights * self.scale + self.mean).astype(
            np.float32
        )
        return found

    def save(self, folder: Path) -> None:
        """Write it into `folder`.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            np.savez(folder / _FILE, **{name: getattr(self, name) for name in _PARTS})
        except OSError as error:
            place = repr(str(folder))
            raise StoreError(f"the denoiser cannot be kept in {place}: {error.strerror}") from None

    @classmethod
    def load(cls, folder: Path) -> Denoiser:
        """What `save` has written.

        Raises:
            StoreError: it is not there or damaged.
        """
        try:
            with np.load(folder / _FILE, allow_pickle=False) as kept:
                parts = [np.asarray(kept[name], np.float32) for name in _PARTS]
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            what = type(error).__name__
            raise StoreError(f"{str(folder)!r} holds no denoiser ({what})") from None
        width = parts[3].size
        shapes = [(3 * width, width), (3 * width,), (3 * width,), (width,), (width,)]
        if [part.shape for part in parts] != shapes:
            raise StoreError(f"{str(folder)!r} holds no denoiser: its parts do not fit together")
        return cls(*parts)
