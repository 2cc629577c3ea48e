"""How a reply is drawn: what the engine is told, and how one of several choices is picked."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from cosilo.models.chat.fields import values
from cosilo.types import Sampling


def drawn_by(sampling: Sampling, context: int) -> dict[str, Any]:
    """The engine's names for `sampling.fields`. Penalties count all of the text so far, and what a
    token's probability is compared with is that at the temperature, as in vLLM."""
    given = values(sampling.fields)
    penalties = given.keys() & {"presence_penalty", "frequency_penalty", "repetition_penalty"}
    body: dict[str, Any] = {name: given[name] for name in given if name != "repetition_penalty"}
    if "repetition_penalty" in given:
        body["repeat_penalty"] = given["repetition_penalty"]
    if penalties:
        body["repeat_last_n"] = context  # all that there can be
    if body.get("top_k") == -1:
        body["top_k"] = 0  # all of them
    samplers = ["penalties"] * bool(penalties) + ["temperature"]
    samplers += [name for name in ("min_p", "top_k") if name in given]
    return {**body, "samplers": [*samplers, "top_p"]}


def picked(found: Sequence[float], sampling: Sampling) -> int:
    if sampling.temperature <= 0:
        return max(range(len(found)), key=found.__getitem__)
    weights = [p ** (1 / sampling.temperature) for p in found]
    return random.Random(sampling.seed).choices(range(len(found)), weights)[0]


def log_of(probability: float) -> float:
    return math.log(max(probability, 1e-30)) if probability < 1 else 0.0
