"""Tensors in a safetensors file that is whole or not there, whatever happens while it is written.

Format: https://github.com/huggingface/safetensors (a length, a JSON header, the bytes). It is written
here and not by its library so that memory is not doubled and a full disk is an `OSError`.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cosilo.errors import StoreError

_DTYPES = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float64": "F64",
    "int64": "I64",
    "int32": "I32",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def write(path: Path, tensors: Mapping[str, Any], about: object = None) -> None:
    """Replace `path` by a file with `tensors`, and with `about` (JSON) beside them.

    Raises:
        StoreError: it cannot be written (a full disk, no permission); what was there stays.
    """
    header: dict[str, object] = {"__metadata__": {"about": json.dumps(about)}}
    at = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[str(tensor.dtype).removeprefix("torch.")],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What was learned from private texts is its owner's alone to read.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(handle, "wb") as file:
            file.write(struct.pack("<Q", len(head)) + head)
            for tensor in tensors.values():
                file.write(_bytes(tensor))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(
            f"{str(path)!r} ({at / 1e6:,.1f} MB) cannot be written: {error.strerror}{_free(path)}"
        ) from None


def read(path: Path) -> tuple[dict[str, Any], Any]:
    """The tensors of a file, and what was written beside them.

    Raises:
        StoreError: it cannot be read, or is no such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "null"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (OSError, SafetensorError, ValueError):
        raise StoreError(f"{str(path)!r} cannot be read as a safetensors file") from None


def _bytes(tensor: Any) -> memoryview:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())


def _free(path: Path) -> str:
    try:
        return f" ({shutil.disk_usage(path.parent).free / 1e6:,.1f} MB are free there)"
    except OSError:
        return ""
