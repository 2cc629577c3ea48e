"""Which words did an owner train on? The updates that it gave a federation, read by who received them.

    Enrol, Enrolled ──▶ the adapter that everybody begins with
    RoundState      ──▶ the one that a later round begins with     Contribute − it ──▶ pursuit ──▶ words

The curious party is the coordinator. It knows the base model, and other texts of the kind: which words
are common there. What it names without a record are these, as many; see `attacks.updates` for what it
does with one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from cosilo.attacks.base import Guess, Target, View, attacks
from cosilo.attacks.updates import first_rows, log_shares, pursue
from cosilo.boundary.messages import Contribute, Enrol, Enrolled, RoundState
from cosilo.boundary.wire import opinions, tensors
from cosilo.models.base import Access, Array, WeightModel, require
from cosilo.types import user

WORDS = 256
"""How many words are named, with a record as without one."""

_KINDS = {kind.__name__ for kind in (Enrol, Enrolled, RoundState, Contribute)}


@attacks.register("update_words")
class UpdateWords:
    """Names the words that an owner's updates were made of, the surest first."""

    about: ClassVar[str] = "updates"

    async def guess(self, view: View, targets: Sequence[Target]) -> list[Guess]:
        changes = [rows for change in changes_on(view) if (rows := first_rows(change)) is not None]
        model = view.model() if changes and view.model is not None else None
        found = []
        for target in targets:
            named: list[str] = []
            if model is not None and model.access >= Access.WEIGHTS:
                own = require(model, Access.WEIGHTS, by="update_words")
                named = _words(changes, own, target.candidates)
            every = list(dict.fromkeys([*named, *target.candidates]))[:WORDS]
            found.append(Guess(target.id, "\n".join(every), 1.0 if named else 0.0))
        return found


def changes_on(view: View) -> Iterator[Mapping[str, Array]]:
    """What each update on record changed, by the names of an adapter's tensors; one that cannot be
    held against where it began is left out.
    """
    from cosilo.models.white_box.adapters import first_adapter

    began: dict[tuple[str, int], Mapping[str, Array]] = {}  # by rank and what came last
    layers: dict[str, tuple[int, int]] = {}
    told: Enrolled | None = None
    came: Mapping[str, Array] | None = None
    for entry in view.entries():
        if entry.kind not in _KINDS:
            continue
        match entry.message:
            case Enrol(layers=named):
                layers = {name: (out, into) for name, out, into in named}
            case Enrolled() as enrolled:
                told, came = enrolled, None
            case RoundState(packed=packed, adds=adds) if packed and not opinions.is_packed(packed):
                came = None if adds else tensors.unpack(packed)
            case Contribute(packed=packed, rank=rank) if told is not None and not told.opinions:
                given = tensors.unpack(packed)
                before = came
                if before is None:
                    key = (told.federation, rank)
                    if key not in began:
                        began[key] = first_adapter(layers, rank, seed=told.seed).tensors
                    before = began[key]
                if all(n in before and before[n].shape == x.shape for n, x in given.items()):
                    yield {n: x - before[n] for n, x in given.items()}
            case _:
                pass


def _words(changes: Sequence[Array], model: WeightModel, common: Sequence[str]) -> list[str]:
    """The words that the rows of all `changes` together were made of."""
    from cosilo.models.white_box.layers import first_inputs

    inputs = first_inputs(model.module)
    rows = np.concatenate([x / max(1e-30, float(np.linalg.norm(x))) for x in changes])
    counts = np.zeros(len(inputs))
    for place, word in enumerate(common, 1):  # as often as Zipf says
        for spelled in (word, f" {word}", f" {word.capitalize()}"):
            np.add.at(counts, model.plain(spelled).ids, 1000 / place)
    shares: NDArray[np.float64] = log_shares(counts)
    one, other = (model.tokenize(user(text), text).ids.tolist() for text in ("1", "x"))
    every = sorted({*one} & {*other})  # of the chat template
    found = pursue(rows, inputs, count=WORDS, known=every, common=shares)
    pieces = (model.piece(token).decode("utf-8", "ignore").strip() for token in found.tokens)
    return list(dict.fromkeys(p.casefold() for p in pieces if p.isalpha()))
