"""What the measurements of both kinds share: texts, what a step takes, and what is remembered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from cosilo.errors import DataError, StoreError
from cosilo.models.base import Tokens
from cosilo.models.white_box.depth import plain
from cosilo.models.white_box.lm import TorchModel

_TIMED = 3


class Texts:
    """Public texts in sequences of one length: some that stand in for the owner's, others that the
    attacker knows of.

    Raises:
        DataError: there are too few.
    """

    def __init__(self, model: TorchModel, texts: Sequence[str], *, count: int, length: int) -> None:
        whole = plain(model.tokens, texts, length=length)
        if len(whole) < 2 * count + 8:
            raise DataError(
                f"the public text makes {len(whole)} sequences of {length} tokens, and {2 * count + 8} "
                "are needed: give more --text"
            )
        order = np.random.default_rng(0).permutation(len(whole))
        self.own = [whole[i] for i in order[:count]]
        self.public = [whole[i] for i in order[count : count + 40]]
        found = hashlib.sha256()
        for sequence in (*self.own, *self.public):
            found.update(np.ascontiguousarray(sequence.ids, "<i4").tobytes())
        self.digest = found.hexdigest()[:16]

    def common(self, vocabulary: int) -> np.ndarray:
        """How often each token stands in the public ones."""
        counts = np.zeros(vocabulary)
        for sequence in self.public:
            np.add.at(counts, sequence.ids, 1)
        return counts


def ids_of(sequences: Sequence[Tokens]) -> list[list[int]]:
    return [[int(i) for i in s.ids] for s in sequences]


def cpu_ms(step: Callable[[], None]) -> float:
    """Milliseconds of CPU of a step: the median of a few, after one that is not counted."""
    step()
    found = []
    for _ in range(_TIMED):
        begun = process_time()
        step()
        found.append(1000 * (process_time() - begun))
    return float(np.median(found))


@contextmanager
def kept_for_backward(module: Any) -> Iterator[list[int]]:
    """The bytes that autograd keeps in here beside the module's own weights, as one number."""
    import torch

    own = {p.data_ptr() for p in module.parameters()}
    seen: dict[int, int] = {}
    total = [0]

    def pack(tensor: Any) -> Any:
        place = tensor.untyped_storage()
        if tensor.data_ptr() not in own:
            seen[place.data_ptr()] = place.nbytes()
            total[0] = sum(seen.values())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        yield total


def weights_bytes(module: Any) -> int:
    """Bytes of a module's weights, shared ones once."""
    own = {p.data_ptr(): p.numel() * p.element_size() for p in module.parameters()}
    return sum(own.values())


class Remembered:
    """What was measured before, by name, in a file: a run that was stopped goes on from there.

    Raises:
        StoreError: the file cannot be read or written.
    """

    def __init__(self, path: Path, about: str) -> None:
        self._path, self._about = path, about
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._known = json.loads(path.read_text("utf-8")) if path.exists() else {}
        except (OSError, ValueError):
            raise StoreError(f"{str(path)!r} cannot be read; name another --out") from None

    def get(self, what: str, make: Callable[[], list[float]]) -> list[float]:
        """What was measured as `what`, or what `make` measures now."""
        key = f"{self._about} {what}"
        if key not in self._known:
            self._known[key] = make()
            beside = self._path.with_suffix(".new")
            try:
                beside.write_text(json.dumps(self._known), "utf-8")
                beside.replace(self._path)
            except OSError as error:
                raise StoreError(f"cannot write {str(self._path)!r}: {error.strerror}") from None
        found: list[float] = self._known[key]
        return found
