"""A small Llama with one large entry at the first place, and the secure program run by numpy."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import cosilo.engines
from cosilo.engines.llama import FAR, RANGE, Llama

PROGRAMS = Path(cosilo.engines.__file__).parent / "spu" / "inside"
LARGE = 20_000.0


def small_llama(layers: int = 2, seed: int = 0) -> Llama:
    """Four heads in two groups, sixteen wide, fifty words."""
    drawn = np.random.default_rng(seed)

    def some(*size: int) -> Any:
        return (drawn.normal(size=size) / np.sqrt(size[-2])).astype(np.float32)

    return Llama(
        mixed=some(layers, 16, 32),
        out=some(layers, 16, 16),
        gated=some(layers, 16, 48),
        down=some(layers, 24, 16),
        table=some(50, 16) * 7,
        gain=np.ones(16, np.float32),
        heads=4,
        groups=2,
        theta=100.0,
        eps=1e-5,
    )


def texts(seed: int, many: int = 20, tokens: int = 6) -> Any:
    """States whose first place holds one large entry, as those of real models do."""
    states = np.random.default_rng(seed).normal(size=(many, tokens, 16)).astype(np.float32)
    states[:, 0, 3] = LARGE
    return states


def shape_of(model: Llama, tokens: int, shifts: list[list[int]], **options: Any) -> dict[str, Any]:
    return {
        "tokens": tokens, "layers": model.layers, "width": model.width, "heads": model.heads,
        "groups": model.groups, "inner": model.inner, "theta": model.theta, "eps": model.eps,
        "vocabulary": len(model.table), "starts": "states", "ends": "states", "candidates": [],
        "shifts": shifts, "far": FAR, "range": RANGE, **options,
    }  # fmt: skip


def program(name: str, monkeypatch: Any) -> Any:
    """The program `name`, with numpy in the place of JAX."""
    jax, jnp, lax = ModuleType("jax"), ModuleType("jax.numpy"), ModuleType("jax.lax")
    vars(jnp).update({name: value for name, value in vars(np).items() if name[0] != "_"})
    vars(lax).update(scan=_scan, rsqrt=lambda x: 1 / np.sqrt(x))
    vars(jax).update(numpy=jnp, lax=lax)
    for module in (jax, jnp, lax):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.syspath_prepend(str(PROGRAMS))
    for loaded in [m for m in sys.modules if m.partition(".")[0] == "programs"]:
        monkeypatch.delitem(sys.modules, loaded)
    found = importlib.import_module(f"programs.{name}")
    for loaded in [m for m in sys.modules if m.partition(".")[0] == "programs"]:
        monkeypatch.delitem(sys.modules, loaded)
    return found


def _scan(step: Callable[[Any, Any], Any], carried: Any, along: Any) -> Any:
    said = []
    for each in zip(*along, strict=True):
        carried, one = step(carried, each)
        said.append(one)
    return carried, np.stack(said)
