"""A sentence encoder on ONNX Runtime: text in, one unit vector out.

    text ──▶ word pieces ──▶ windows of 254 ──▶ encoder ──▶ mean over all pieces ──▶ length 1

Mean pooling as the model was trained (Reimers and Gurevych 2019, arXiv 1908.10084). A text's vector
depends on that text only: it is the same alone and in any batch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import numpy as np

from cosilo.errors import CatalogError, ConfigError, ModelError
from cosilo.models import catalog
from cosilo.models.base import Array
from cosilo.models.digests import folder_digest
from cosilo.registry import Loads

MAX_CHARACTERS = 100_000
"""Of a longer text, only the start is read."""
MAX_WINDOWS = 16
"""Of a text with more windows, so many are read, evenly spread, the first and the last among them."""
_WINDOW = 254  # the model takes 256, two of which mark the start and the end
_BATCH = 16
_MOST_PADDED = 1.5  # how many times as long as the shortest of its batch the longest may be

_Marked = tuple[int, list[int]]  # of which text, and its pieces with the marks


@dataclass(frozen=True)
class Embedded:
    """Vectors, shape (n, dimension), and of each text how many word pieces were read and what encoding
    it took: also where its vector was remembered, so that who asks second does not look quicker."""

    vectors: Array
    tokens: tuple[int, ...]
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class _Known:
    """One text's part of an `Embedded`."""

    vector: Array
    tokens: int
    seconds: float
    cpu_seconds: float


class Encoder:
    """The encoder in `folder` (`model.onnx`, `tokenizer.json`); loaded when first used.

    The vectors of the last `remember` texts are kept in memory. Safe to use from several threads.

    Args:
        source: a name in the catalog, or a folder.
        threads: threads of ONNX Runtime.
        remember: how many vectors to keep; 20,000 take about 35 MB besides the texts' hashes.

    Raises:
        CatalogError: the files are not there or not what they claim to be.
        ConfigError: fewer than one thread.
    """

    def __init__(
        self, source: str | Path = "minilm-int8", *, threads: int = 1, remember: int = 20_000
    ) -> None:
        if threads < 1:
            raise ConfigError(f"threads must be 1 or more, not {threads}")
        self.threads = threads
        self._remember = remember
        self.folder = source if isinstance(source, Path) else _folder(source)
        for name in ("model.onnx", "tokenizer.json"):
            if not (self.folder / name).is_file():
                raise CatalogError(f"encoder folder {str(self.folder)!r} holds no {name!r}")
        self._lock = threading.Lock()
        self._session: Any = None
        self._tokenizer: Any = None
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def embed(self, texts: Sequence[str]) -> Embedded:
        """One unit vector per text.

        Raises:
            ConfigError: onnxruntime or tokenizers is not installed.
            ModelError: the model cannot be run.
        """
        with self._lock:
            new = list(dict.fromkeys(t for t in texts if t not in self._known))
            fresh = dict(zip(new, self._run(new), strict=True)) if new else {}
            found = [fresh[t] if t in fresh else self._known[t] for t in texts]
            for text in texts:
                self._known[text] = fresh.get(text) or self._known[text]
                self._known.move_to_end(text)
            while len(self._known) > self._remember:
                self._known.popitem(last=False)
        vectors = np.stack([f.vector for f in found]) if found else np.zeros((0, 384), np.float32)
        return Embedded(
            vectors,
            tuple(f.tokens for f in found),
            tuple(f.seconds for f in found),
            tuple(f.cpu_seconds for f in found),
        )

    @cached_property
    def identity(self) -> str:
        """Its folder's name, and, where it is none of the catalog's, a hash of all that is in it."""
        name = self.folder.name
        if name in catalog.entries() and self.folder == catalog.directory() / name:
            return name
        return f"{name}:{folder_digest(self.folder)[:16]}"

    def close(self) -> None:
        """Give back the memory; the next use loads again."""
        with self._lock:
            self._session = self._tokenizer = None
            self._known.clear()

    def _run(self, texts: Sequence[str]) -> list[_Known]:
        """The vector of each text; the time of the batch is shared out among the texts by the word
        pieces read.
        """
        self._load()
        wall, cpu = perf_counter(), thread_time()
        windows = [(i, w) for i, text in enumerate(texts) for w in self._windows(text)]
        windows.sort(key=lambda window: len(window[1]))  # like lengths together: see `_batches`
        sums: list[Any] = [0.0] * len(texts)
        counts = [0] * len(texts)
        for batch in _batches(windows):
            for (i, window), pooled in zip(batch, self._pooled([w for _, w in batch]), strict=True):
                sums[i] = sums[i] + pooled
                counts[i] += len(window)
        units = [_unit(total) for total in sums]
        read = sum(counts)
        wall, cpu = (perf_counter() - wall) / read, (thread_time() - cpu) * self.threads / read
        return [_Known(unit, n, wall * n, cpu * n) for unit, n in zip(units, counts, strict=True)]

    def _windows(self, text: str) -> list[list[int]]:
        readable = text[:MAX_CHARACTERS].encode("utf-8", "replace").decode()
        pieces = self._tokenizer.encode(readable, add_special_tokens=False).ids
        all_ = [pieces[i : i + _WINDOW] for i in range(0, max(len(pieces), 1), _WINDOW)]
        if len(all_) > MAX_WINDOWS:
            picked = np.linspace(0, len(all_) - 1, MAX_WINDOWS).round().astype(int)
            all_ = [all_[i] for i in picked]
        start, end = self._tokenizer.token_to_id("[CLS]"), self._tokenizer.token_to_id("[SEP]")
        return [[start, *window, end] for window in all_]

    def _pooled(self, windows: Sequence[Sequence[int]]) -> Array:
        """The sum of the vectors of each window's pieces, shape (len(windows), dimension)."""
        ids = np.zeros((len(windows), max(map(len, windows))), np.int64)
        mask = np.zeros_like(ids)
        for row, window in enumerate(windows):
            ids[row, : len(window)] = window
            mask[row, : len(window)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        try:
            hidden = self._session.run(None, inputs)[0]
        except Exception as error:
            raise ModelError(f"the sentence encoder failed: {type(error).__name__}") from None
        pooled: Array = (hidden * mask[..., None].astype(np.float32)).sum(axis=1)
        return pooled

    def _load(self) -> None:
        if self._session is not None:
            return
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ConfigError(
                f"the sentence encoder needs {error.name}; run: pip install 'cosilo[local]'"
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
            session = onnxruntime.InferenceSession(
                str(self.folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise CatalogError(
                f"the encoder in {str(self.folder)!r} cannot be loaded: {type(error).__name__}"
            ) from None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer, self._session = tokenizer, session


def encoder_loads(source: str | Path) -> Loads:
    """What an `Encoder` of `source` loads."""
    packages = ("onnxruntime", "tokenizers")
    if isinstance(source, Path) or _is_folder(source):
        return Loads(packages=packages)
    return Loads((source,), packages)


def _folder(source: str) -> Path:
    return Path(source) if _is_folder(source) else catalog.path(source)


def _is_folder(source: str) -> bool:
    return source not in catalog.entries() and Path(source).is_dir()


def _batches(windows: Sequence[_Marked]) -> Iterator[list[_Marked]]:
    """`windows`, which come by length, in batches whose longest is not much longer than the others:
    each is padded to it, and what is padded is computed too."""
    batch: list[_Marked] = []
    for window in windows:
        if batch and (len(batch) == _BATCH or len(window[1]) > _MOST_PADDED * len(batch[0][1]) + 8):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _unit(vector: Array) -> Array:
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
