"""Model files for torch: a Hugging Face folder, an adapter folder, or a GGUF unpacked beside itself.

    x.gguf ──▶ x.gguf.unpacked/   config.json, model.safetensors (float32), tokenizer.json
                                  .unpacked.json: what it was made from, and what it must hash to

Only safetensors are loaded: the older `.bin` files are pickles, which run code. No code that comes with
a model is ever run.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from cosilo.errors import CatalogError, ConfigError, StoreError
from cosilo.models import catalog
from cosilo.models.digests import file_digest
from cosilo.models.white_box.gguf import read_tokenizer

_STAMP = ".unpacked.json"
_FORMAT = 1
_DECIDES = ("*.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "*.jinja")


def load_module(folder: Path, *, precision: str, device: str) -> Any:
    """The causal model of a Hugging Face folder, in evaluation mode.

    Raises:
        CatalogError: the folder holds none that can be loaded safely.
        ConfigError: the packages are not installed.
    """
    require_folder(folder)
    torch, transformers = _packages()
    try:
        with quiet():
            module = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=getattr(torch, precision),
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CatalogError(
            f"{str(folder)!r} cannot be loaded by transformers ({type(error).__name__}): it is "
            "broken, or of an architecture that this version does not know"
        ) from None
    return module.to(device).eval()


def load_words(folder: Path) -> Any:
    """The fast tokeniser of a Hugging Face folder.

    Raises:
        CatalogError: it has none that can be loaded.
    """
    _, transformers = _packages()
    if not (folder / "tokenizer.json").is_file():
        raise CatalogError(f"{str(folder)!r} holds no tokenizer.json")
    try:
        return transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise CatalogError(
            f"the tokeniser in {str(folder)!r} cannot be loaded ({type(error).__name__})"
        ) from None


def load_adapter(module: Any, folder: Path) -> Any:
    """`module` with the peft adapter of `folder` around it.

    Raises:
        CatalogError: the folder holds no adapter in safetensors, or one for another model.
    """
    require_adapter(folder)
    _packages()
    import peft

    try:
        with quiet():
            return peft.PeftModel.from_pretrained(module, folder, local_files_only=True).eval()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise CatalogError(
            f"the adapter in {str(folder)!r} does not fit the model ({type(error).__name__})"
        ) from None


def save(module: Any, words: Any, folder: Path) -> None:
    """Write an ordinary Hugging Face folder, or an adapter folder when `words` is None.

    Raises:
        StoreError: it cannot be written; what was in `folder` stays as it was then.
    """
    from safetensors import SafetensorError

    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        with quiet():
            module.save_pretrained(beside)
        if words is not None:
            words.save_pretrained(beside)
        _put(beside, folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(f"the model cannot be saved in {str(folder)!r}: {reason}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def unpack(gguf: Path, sha256: str = "") -> Path:
    """A folder with the weights of `gguf` in float32 and its tokeniser, made once.

    Args:
        sha256: of the file, where it is known already.

    Raises:
        CatalogError: it is no GGUF that can be unpacked.
        StoreError: there is no room for the folder.
    """
    folder = gguf.with_name(f"{gguf.name}.unpacked")
    if not os.access(gguf.parent, os.W_OK):
        folder = catalog.directory() / ".unpacked" / gguf.name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f".{folder.name}.lock")):
            if not _is_whole(folder, gguf, sha256):
                _unpack(gguf, sha256 or catalog.sha256(gguf), folder)
    except OSError as error:
        raise StoreError(f"{str(gguf)!r} cannot be unpacked: {error.strerror}") from None
    return folder


def digest(folder: Path) -> str:
    """A hash of what decides a model's answers; the source's where it was unpacked from a GGUF."""
    files = sorted({f for pattern in _DECIDES for f in folder.glob(pattern)})
    stamp = _read_stamp(folder)
    made = {folder / name: expected for name, (expected, *_) in stamp.get("files", {}).items()}
    if stamp and all(f in made and file_digest(f) == made[f] for f in files):
        return str(stamp["source"])[:16]
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.name}:{file_digest(file)};".encode())
    return whole.hexdigest()[:16]


def adapter_digest(folder: Path) -> str:
    """A hash of an adapter."""
    files = [folder / "adapter_config.json", folder / "adapter_model.safetensors"]
    found = [file_digest(f) for f in files if f.is_file()]
    return hashlib.sha256(":".join(found).encode()).hexdigest()[:16]


def require_folder(folder: Path) -> None:
    """Refuse what is no folder of safetensors.

    Raises:
        CatalogError: a file is missing, or the weights are pickles.
    """
    if not (folder / "config.json").is_file():
        raise CatalogError(f"{str(folder)!r} is no Hugging Face folder: it holds no config.json")
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(f.name for f in folder.glob("*.bin"))
        why = f"{pickles[0]} is a pickle, which can run code, so it is not loaded; " * bool(pickles)
        raise CatalogError(
            f"{str(folder)!r} holds no weights in safetensors: {why}save the model with "
            "save_pretrained of a recent transformers"
        )


def require_adapter(folder: Path) -> None:
    """Refuse what is no adapter folder in safetensors.

    Raises:
        CatalogError: a file is missing.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise CatalogError(f"{str(folder)!r} is no adapter folder: it holds no {name}")


def _unpack(gguf: Path, sha256: str, folder: Path) -> None:
    torch, transformers = _packages()
    words = read_tokenizer(gguf)
    try:
        with quiet(), redirect_stderr(io.StringIO()):  # its bar for GGUF heeds no setting
            module = transformers.AutoModelForCausalLM.from_pretrained(
                gguf.parent, gguf_file=gguf.name, dtype=torch.float32, local_files_only=True
            )
    except (OSError, ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        raise CatalogError(
            f"{str(gguf)!r} cannot be unpacked by transformers ({type(error).__name__}): it is "
            "broken, or of an architecture that this version does not know"
        ) from None
    # Its weights are plain numbers now; without this, transformers would not save them.
    module.is_quantized = False
    module.hf_quantizer = module.quantization_method = None
    if hasattr(module.config, "quantization_config"):
        del module.config.quantization_config
    save(module, words, folder)
    files = [f for f in sorted(folder.iterdir()) if f.is_file()]
    stamp = {
        "format": _FORMAT,
        "source": sha256,
        "source_facts": _facts(gguf),
        "files": {f.name: [catalog.sha256(f), *_facts(f)] for f in files},
    }
    (folder / _STAMP).write_text(json.dumps(stamp), "utf-8")


def _is_whole(folder: Path, gguf: Path, sha256: str) -> bool:
    """Whether `folder` was made from this file and nothing in it has changed since."""
    stamp = _read_stamp(folder)
    if not stamp:
        return False
    if sha256 and stamp["source"] != sha256:
        return False
    if stamp["source_facts"] != _facts(gguf) and stamp["source"] != catalog.sha256(gguf):
        return False
    for name, (expected, *facts) in stamp["files"].items():
        file = folder / name
        if not file.is_file():
            return False
        if _facts(file) != facts and catalog.sha256(file) != expected:
            return False
    return True


def _read_stamp(folder: Path) -> dict[str, Any]:
    try:
        stamp = json.loads((folder / _STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and stamp.get("format") == _FORMAT else {}


def _facts(file: Path) -> list[int]:
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


def _put(made: Path, folder: Path) -> None:
    """`made` in the place of `folder`."""
    old = folder.with_name(f".{folder.name}.old.{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars (they would run into ours) and peft's use of old names."""
    from transformers.utils import logging

    with _QUIET:
        shown = logging.is_progress_bar_enabled()
        level = logging.get_verbosity()
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                yield
        finally:
            logging.set_verbosity(level)
            if shown:
                logging.enable_progress_bar()


_QUIET = threading.RLock()  # these settings are the process's: two threads would undo each other's


PACKAGES = (
    "torch", "transformers", "peft", "gguf", "safetensors", "tokenizers", "jinja2",
)  # fmt: skip
"""What a model in torch loads, whatever its files are."""


def _packages() -> tuple[Any, Any]:
    try:
        import gguf  # noqa: F401
        import peft  # noqa: F401
        import torch
        import transformers
    except ImportError:
        raise ConfigError(
            "torch models need torch, transformers and peft; run: pip install 'cosilo[torch]'"
        ) from None
    return torch, transformers
