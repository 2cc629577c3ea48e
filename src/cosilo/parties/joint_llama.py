"""A Llama's owner takes part in a joint computation where every number is shown to have room, or not.

    public texts ─▶ states before each norm ─▶ shifts ─┐
    weights ───────────────────────────────────────────┴─▶ bounds ─▶ room? ─▶ JointPart, or a refusal
    tokens in clear ─▶ keys and values of theirs ─▶ brought to one computation

What was seen on the public texts is kept beside other things that can be worked out again, under the
weights, the texts and the version of the code.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.caches import cache_folder
from cosilo.engines import llama, prefix, ranges
from cosilo.engines.llama import Llama, StatesSeen
from cosilo.errors import CapabilityError, ConfigError, DataError, RejectedError
from cosilo.models.base import Array
from cosilo.models.joint import Brings, JointPart, Wanted
from cosilo.models.plain_llama import JointTerms, PlainLlama, PlainLlamaModel

VERSION = 1

FIXED = ranges.Fixed()

_TEXTS = 2  # public texts, at least
_OFF = (
    1e-2  # by so much logits of the arrays may differ from the model's, beside the largest of them
)


def part_of(model: PlainLlamaModel, wanted: Wanted) -> JointPart:
    """What the owner of `model` brings to what is wanted. Takes a while, in a thread of the caller's.

    Raises:
        CapabilityError: its owner takes no part in that, or numbers could leave the ring.
        ConfigError: it cannot be calibrated.
        RejectedError: with its tokens in clear one text is too long.
    """
    terms = model.joint
    if terms is None:
        raise CapabilityError(
            "the LM's owner computes nothing jointly with its model: it may say on what terms, with "
            "joint = { calibrated_on = FILE }"
        )
    _require_offered(terms, wanted)
    first = 0 if wanted.starts == "tokens" else model.layers - wanted.layers
    if first < 0:
        raise CapabilityError(f"the LM has {model.layers} layers, so not the last {wanted.layers}")
    _require_same(model, wanted, first)
    weights = model.plain_llama(first)
    if wanted.starts == "tokens" and weights.head is not weights.table:
        raise CapabilityError(
            "the LM's head has weights of its own, and a whole forward has one table for head and "
            "embedding; its last layers can be computed jointly (secure_adapter)"
        )
    vocabulary = len(weights.table)
    if len(set(wanted.candidates)) < len(wanted.candidates) or any(
        token >= vocabulary for token in wanted.candidates
    ):
        raise CapabilityError(f"the candidates are no different tokens of the LM's {vocabulary:,}")
    seen = _seen(model, weights, terms, first)
    found = as_program(weights, () if wanted.starts == "tokens" else wanted.candidates)
    halvings, _ = proved(found, seen)
    chosen = wanted.candidates if wanted.starts == "tokens" else ()
    shape = found.shape(
        wanted.tokens, halvings, starts=_starts(wanted), ends="label", candidates=chosen
    )
    if wanted.before:
        shape["before"] = wanted.before
    owned = found.owned(starts=_starts(wanted), ends="label")
    once, each = llama.traffic(shape, owned, wanted.protocol)
    named = f"{model.identity} {first} {wanted.candidates}"
    return JointPart(
        program="llama",
        shape=shape,
        owned=tuple(owned),
        weights=hashlib.sha256(named.encode()).hexdigest(),
        once=once,
        each=each,
        field=64,
        bits=FIXED.fraction,
        brings=_bringing(shape) if wanted.before else None,
    )


def _bringing(about: Mapping[str, Any]) -> Brings:
    """What is brought to a computation of shape `about`, behind its tokens in clear."""
    before, vocabulary = about["before"], about["vocabulary"]
    sizes = {name: about[name] for name in ("heads", "groups", "theta", "eps")}

    def brings(owned: tuple[Array, ...], clear: tuple[int, ...]) -> tuple[Array, ...]:
        if len(clear) != before or max(clear) >= vocabulary:
            raise RejectedError(
                f"a run of this offer goes on from {before} tokens of the LM's in clear, and was told "
                f"{len(clear)}, or others"
            )
        mixed, out, gated, down, table, gain = owned
        found = Llama(mixed, out, gated, down, table, gain, **sizes)
        keys, values = prefix.keys_and_values(found, table[list(clear)])
        try:
            ranges.require_room(prefix.bounds(found, keys, values), FIXED)
        except ConfigError:  # it is this text's, and no fault of the configuration
            raise RejectedError(
                "keys or values of the tokens in clear are too large for numbers of the joint run, so "
                "that the result would be wrong, and is none"
            ) from None
        return keys.astype(np.float32), values.astype(np.float32)

    return brings


def as_program(weights: PlainLlama, candidates: Sequence[int] = ()) -> Llama:
    """`weights` as the program takes them; with candidates, only their rows of the head."""
    return Llama(
        mixed=weights.mixed,
        out=weights.out,
        gated=weights.gated,
        down=weights.down,
        table=weights.head[list(candidates)] if candidates else weights.head,
        gain=weights.gain,
        heads=weights.heads,
        groups=weights.groups,
        theta=weights.theta,
        eps=weights.eps,
    )


def proved(model: Llama, seen: StatesSeen) -> tuple[list[list[int]], ranges.Bound]:
    """How often states are halved, and the bound that comes nearest to the ring's.

    Raises:
        ConfigError: a product could leave the ring; nothing was sent.
    """
    halvings = llama.shifts(seen)
    found = llama.bounds(model, seen, halvings)
    llama.require_far(found)
    return halvings, ranges.require_room(found, FIXED)


def _starts(wanted: Wanted) -> llama.Starts:
    return "tokens" if wanted.starts == "tokens" else "states"


def _require_offered(terms: JointTerms, wanted: Wanted) -> None:
    offered = [
        *(["all layers, from tokens"] if terms.whole else []),
        *([f"its last {terms.layers}, from states"] if terms.layers else []),
    ]
    asked = (wanted.program, wanted.starts, wanted.layers)
    if asked not in {
        *([("llama", "tokens", 0)] if terms.whole else []),
        *([("llama", "states", terms.layers)] if terms.layers else []),
    }:
        raise CapabilityError(
            f"of its layers the LM's owner computes jointly {' and '.join(offered)}: `joint` in its "
            "configuration says so"
        )
    if wanted.tells != "label":
        raise CapabilityError(
            "the LM's owner tells the likeliest token of a joint run, and no logits"
        )
    if wanted.before and wanted.starts != "tokens":
        raise CapabilityError(
            "only a run that begins with tokens goes on from others in clear: states of all tokens are "
            "made at home"
        )
    if wanted.tokens < 2 or wanted.before + wanted.tokens > terms.tokens:
        says = (
            f"the LM's owner computes texts of up to {terms.tokens} tokens jointly, and not of "
            f"{wanted.before + wanted.tokens}"
        )
        if wanted.before and 2 <= wanted.tokens <= terms.tokens:
            raise RejectedError(f"{says}: a text whose part in clear is shorter would do")
        raise CapabilityError(says)


def _require_same(model: PlainLlamaModel, wanted: Wanted, first: int) -> None:
    if wanted.starts == "tokens":
        if wanted.base != model.vocabulary:
            raise CapabilityError("the tokeniser at home is not that of the LM")
    elif wanted.base != model.below(first):
        raise CapabilityError(
            f"the first {first} layers at home are not those of the LM, so its last {wanted.layers} "
            "cannot go on from their states: both must begin with the same base model, and an adapter "
            f"of the LM owner's may change its last {wanted.layers} layers alone"
        )


def _seen(model: PlainLlamaModel, weights: PlainLlama, terms: JointTerms, first: int) -> StatesSeen:
    """What states of the public texts are like before each norm, measured once."""
    prompts = model.public_prompts()
    if len(prompts) < _TEXTS:
        raise DataError(
            f"{str(terms.calibrated_on)!r} holds {len(prompts)} texts, and ranges are measured on "
            f"{_TEXTS} at least: one a line"
        )
    about = json.dumps([VERSION, llama.VERSION, model.identity, first, terms.tokens, prompts])
    file = cache_folder() / "ranges" / f"{hashlib.sha256(about.encode()).hexdigest()}.json"
    if (kept := _read(file)) is not None:
        return kept
    whole = as_program(weights)
    rows = [llama.filled(ids, terms.tokens) for ids in prompts]
    states = [model.states_after(ids, first) for ids in rows]
    ids = prompts[0]
    after, _ = llama.forward(whole, states[0])
    expected = model.said_after(ids)
    found = llama.logits(whole, after[len(ids) - 1])
    if not np.abs(found - expected).max() <= _OFF * max(1.0, float(np.abs(expected).max())):
        raise CapabilityError(
            "the LM's weights as plain arrays say other things than the model itself: it has something "
            "that no program computes"
        )
    seen = reduce(or_, (llama.observe(whole, each) for each in states))
    _write(file, seen)
    return seen


def _read(file: Path) -> StatesSeen | None:
    try:
        said = json.loads(file.read_text("utf-8"))
        return StatesSeen(*(np.array(said[name], np.float64) for name in _NAMES))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(file: Path, seen: StatesSeen) -> None:
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    file.parent.mkdir(parents=True, exist_ok=True)
    beside.write_text(json.dumps({name: getattr(seen, name).tolist() for name in _NAMES}), "utf-8")
    beside.replace(file)


_NAMES = ("least", "most", "largest")
