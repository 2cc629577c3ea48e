"""Adapters of a torch model that belong to clients: kept, found by name, merged into a copy.

    keep(client, name, adapter) ──▶ plugged(client, name): the weights, shared, that adapter merged

With a folder they lie on disk, and are there again after a restart; without, they live as long as the
process.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.errors import StoreError, UnknownAdapterError
from cosilo.models.white_box import checkpoint
from cosilo.models.white_box.adapters import Adapter, merged_with
from cosilo.models.white_box.lm import TorchModel

PLUGGED = 4
"""Models with an adapter that are kept ready, over all clients."""

_NAME = re.compile(r"[0-9a-f]{32}")

Facts = Mapping[str, float]


class ClientAdapters:
    """Those of all clients of one model.

    Args:
        most: adapters of one client; the one that was longest unused is forgotten when one more comes.
        folder: where they are kept.

    Attributes:
        lock: held while the adapters change.
    """

    def __init__(self, model: TorchModel, most: int, folder: Path | None) -> None:
        self.lock = threading.RLock()
        self._model = model
        self._most = most
        self._folder = folder
        self._own: dict[str, OrderedDict[str, tuple[Adapter, Facts]]] = {}
        self._plugged: OrderedDict[tuple[str, str], TorchModel] = OrderedDict()

    def keep(self, client: str, name: str, adapter: Adapter, facts: Facts | None = None) -> None:
        """Keep an adapter, and numbers about it.

        Raises:
            StoreError: it cannot be written.
        """
        with self.lock:
            own = self._own.setdefault(client, OrderedDict())
            own[name] = adapter, facts or {}
            own.move_to_end(name)
            if self._folder is not None:
                _write(self._file(self._folder, client, name), adapter, facts or {})
            self._forget(client, own)

    def find(self, client: str, name: str) -> tuple[Adapter, Facts]:
        """An adapter, and what was kept about it.

        Raises:
            UnknownAdapterError: no such adapter is kept for this client.
        """
        with self.lock:
            own = self._own.setdefault(client, OrderedDict())
            if name not in own and self._folder is not None and _NAME.fullmatch(name):
                file = self._file(self._folder, client, name)
                if file.exists():
                    own[name] = _read(file)
            if name not in own:
                raise UnknownAdapterError(
                    "the large model's owner has no such adapter (any more): plug it in again"
                )
            own.move_to_end(name)
            return own[name]

    async def plugged(self, client: str, name: str) -> TorchModel:
        """The model with that adapter.

        Raises:
            UnknownAdapterError: no such adapter is kept for this client.
        """
        if (found := self._plugged.get((client, name))) is not None:
            with suppress(KeyError):  # without the lock, it may be forgotten meanwhile
                self._plugged.move_to_end((client, name))
                self._own[client].move_to_end(name)
            return found
        return await asyncio.to_thread(self._plug, client, name)

    def digests(self, client: str) -> dict[str, str]:
        """The name of each adapter of this client's, and the SHA-256 of its tensors.

        Raises:
            StoreError: a file cannot be read.
        """
        with self.lock:
            names = set(self._own.get(client, ()))
            if self._folder is not None:
                there = self._file(self._folder, client, "").parent
                names |= {f.stem for f in there.glob("*.safetensors") if _NAME.fullmatch(f.stem)}
            # Read without being kept in mind, so that looking makes none of them forgotten.
            return {name: _digest(self._looked_at(client, name)) for name in sorted(names)}

    def _looked_at(self, client: str, name: str) -> Adapter:
        own = self._own.get(client, OrderedDict())
        if name in own or self._folder is None:
            return own[name][0]
        return _read(self._file(self._folder, client, name))[0]

    def drop(self, client: str, name: str) -> None:
        """Keep nothing of an adapter any longer.

        Raises:
            StoreError: its file cannot be taken away.
        """
        with self.lock:
            if self._folder is not None and _NAME.fullmatch(name):
                file = self._file(self._folder, client, name)
                try:
                    # A process that was killed may have left one half written.
                    for each in (file, *file.parent.glob(f".{file.name}.*")):
                        each.unlink(missing_ok=True)
                except OSError as error:
                    raise StoreError(
                        f"{str(file)!r} cannot be taken away: {error.strerror}"
                    ) from None
            self._plugged.pop((client, name), None)
            self._own.get(client, OrderedDict()).pop(name, None)

    async def close(self) -> None:
        for model in list(self._plugged.values()):
            await model.close()

    def _plug(self, client: str, name: str) -> TorchModel:
        with self.lock:
            if (client, name) not in self._plugged:
                merged = merged_with(self._model.module, self.find(client, name)[0])
                self._plugged[client, name] = self._model.with_module(merged)
            self._plugged.move_to_end((client, name))
            while len(self._plugged) > PLUGGED:
                self._plugged.popitem(last=False)
            return self._plugged[client, name]

    def _forget(self, client: str, own: OrderedDict[str, tuple[Adapter, Facts]]) -> None:
        """Those of a client that are too many, in memory and on disk."""
        while len(own) > self._most:
            name, _ = own.popitem(last=False)
            self._plugged.pop((client, name), None)
        if self._folder is not None:
            there = self._file(self._folder, client, "").parent
            files = sorted(
                there.glob("*.safetensors"), key=lambda f: (f.stem in own, f.stat().st_mtime)
            )
            for file in files[: -self._most]:
                file.unlink(missing_ok=True)

    @staticmethod
    def _file(folder: Path, client: str, name: str) -> Path:
        return folder / folder_of(client) / f"{name}.safetensors"


def folder_of(client: str) -> str:
    """What a client's folder is called."""
    return hashlib.sha256(client.encode()).hexdigest()[:16]


def _digest(adapter: Adapter) -> str:
    found = hashlib.sha256(repr((adapter.rank, adapter.alpha)).encode())
    for name, tensor in sorted(adapter.tensors.items()):
        found.update(name.encode())
        found.update(np.ascontiguousarray(tensor, "<f4").tobytes())
    return found.hexdigest()


def _write(file: Path, adapter: Adapter, facts: Facts) -> None:
    import torch

    tensors = {n: torch.from_numpy(np.array(t)) for n, t in adapter.tensors.items()}
    about = {"rank": adapter.rank, "alpha": adapter.alpha, "facts": dict(facts)}
    checkpoint.write(file, tensors, about)


def _read(file: Path) -> tuple[Adapter, Facts]:
    tensors, said = checkpoint.read(file)
    about: Any = said
    adapter = Adapter(about["rank"], about["alpha"], {n: t.numpy() for n, t in tensors.items()})
    return adapter, about.get("facts", {})
