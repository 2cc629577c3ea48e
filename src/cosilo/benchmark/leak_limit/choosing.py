"""`cosilo fit --for STRATEGY`: every candidate measured, and the one that is chosen."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosilo.benchmark.leak_limit.at_home import Remembered, Texts
from cosilo.benchmark.leak_limit.candidates import HomeLimits, LeakCandidate, chosen, point_text
from cosilo.benchmark.leak_limit.cuts import Cuts
from cosilo.benchmark.leak_limit.updates import Updates
from cosilo.errors import ConfigError, StoreError
from cosilo.models.public_text import public_texts
from cosilo.models.white_box.adapters import base_digest
from cosilo.models.white_box.lm import Precision, torch_lm

STRATEGIES = ("split_learning", "split", "federated")


@dataclass(frozen=True, kw_only=True)
class LeakTarget:
    """What is to be chosen.

    Attributes:
        model: a name of the catalog, or the path of a model's file or folder.
        text: files of public text; Python's own manual if none.
        count, length: how many sequences of how many tokens stand in for the owner's, in a step.
    """

    model: str
    strategy: str
    limits: HomeLimits
    out: Path
    text: tuple[Path, ...] = ()
    count: int = 6
    length: int = 16
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")


@dataclass(frozen=True)
class Fitted:
    """All candidates, the one that is chosen, and the plan's tables that say it, written to `file`."""

    candidates: Sequence[LeakCandidate]
    choice: LeakCandidate | None
    text: str = ""
    file: Path | None = None


def fit_to_leak(wanted: LeakTarget, *, say: Callable[[str], None]) -> Fitted:
    """Measures all candidates, each once in the folder's life, and chooses.

    Raises:
        ConfigError: no such strategy.
        CatalogError: the model is not there.
        DataError: there is too little public text.
        StoreError: the folder cannot be written.
    """
    if wanted.strategy not in STRATEGIES:
        raise ConfigError(f"--for {wanted.strategy!r}: known are {', '.join(STRATEGIES)}")
    texts = public_texts(wanted.text)
    path = Path(wanted.model)
    local = path.exists()
    found: list[LeakCandidate] = []
    for precision in wanted.precisions:
        model = torch_lm(
            "" if local else wanted.model, path if local else None, precision=precision, threads=1
        )
        public = Texts(model, texts, count=wanted.count, length=wanted.length)
        about = f"{base_digest(model)} {public.digest} {wanted.strategy}"
        known = Remembered(wanted.out / "measured.json", about)
        kind: Cuts | Updates
        if wanted.strategy == "federated":
            kind = Updates(model, public, known=known)
        else:
            kind = Cuts(model, public, trains=wanted.strategy == "split_learning", known=known)
        for candidate in kind.candidates(precision):
            found.append(candidate)
            say(f"measured {candidate.said()}")
    choice = chosen(found, wanted.limits)
    if choice is None:
        return Fitted(found, None)
    named = (
        f"path = {json.dumps(str(path.absolute()))}"
        if local
        else f"model = {json.dumps(wanted.model)}"
    )
    text = point_text(wanted.strategy, named, choice)
    file = wanted.out / "point.toml"
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {str(file)!r}: {error.strerror}") from None
    return Fitted(found, choice, text, file)
