"""Whether what a run loads is here: model files of the catalog, and optional packages.

Asked before anything runs, so that all that is missing is named at once, with what brings it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from cosilo.errors import CatalogError, ConfigError
from cosilo.models import catalog
from cosilo.registry import Loads

EXTRAS: Mapping[str, str] = {
    "onnxruntime": "local",
    "scipy": "local",
    "sklearn": "local",
    "threadpoolctl": "local",
    "tokenizers": "local",
    "xllamacpp": "local",
    "gguf": "torch",
    "jinja2": "torch",
    "peft": "torch",
    "safetensors": "torch",
    "torch": "torch",
    "transformers": "torch",
    "presidio_analyzer": "pii",
    "spacy": "pii",
    "pyarrow": "data",
    "optuna": "bench",
    "uvicorn": "gateway",
    "pypdf": "pdf",
    "psycopg": "postgres",
    "dp_accounting": "dp",
    "ray": "ray",
    "flwr": "flower",
    "tenseal": "ckks",
}
"""Optional packages, as they are imported, and the extra of Cosilo's that installs each."""


def missing(loads: Loads) -> Loads:
    """What of `loads` is not here.

    Raises:
        CatalogError: there is no model of that name; the message gives the nearest.
    """
    return Loads(
        tuple(name for name in loads.models if not catalog.is_here(name)),
        tuple(name for name in loads.packages if find_spec(name) is None),
    )


def require_present(loads: Loads) -> None:
    """Refuse to go on without any of `loads`.

    Raises:
        CatalogError: model files are missing; the message names all, and the command that fetches them.
        ConfigError: packages are missing; the message names all, and the command that installs them.
    """
    absent = missing(loads)
    said = []
    if absent.models:
        size = sum(catalog.entry(name).size for name in absent.models)
        what = "model" if len(absent.models) == 1 else "models"
        names = " ".join(absent.models)
        said.append(f"{what} not here: {', '.join(absent.models)} ({size / 1e6:,.0f} MB); "
                    f"run: cosilo models pull {names}")  # fmt: skip
    if absent.packages:
        said.append(f"not installed: {', '.join(absent.packages)}; run: {install(absent.packages)}")
    if said:
        raise (CatalogError if absent.models else ConfigError)("\n        ".join(said))


def install(packages: tuple[str, ...]) -> str:
    """The command that installs optional packages, for whoever has Cosilo itself."""
    extras = dict.fromkeys(EXTRAS[name] for name in packages if name in EXTRAS)
    others = [name for name in packages if name not in EXTRAS]
    return "pip install " + " ".join(
        [*([f"'cosilo[{','.join(extras)}]'"] if extras else []), *others]
    )
