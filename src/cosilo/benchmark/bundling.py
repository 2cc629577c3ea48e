"""Make a bundle from a point of a run: prepare it again from recorded answers, then write it to a
folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import cosilo
from cosilo.benchmark.noting import note_made, of_file
from cosilo.benchmark.reopen import Reopened, reopen
from cosilo.benchmark.results import opened
from cosilo.bundle import SEVERAL, Bundle, kept_model, making, spelt_out, write
from cosilo.errors import ConfigError
from cosilo.lineage.artifacts import ArtifactKind
from cosilo.models.base import TextModel
from cosilo.models.kept.recorded import RecordedModel
from cosilo.parties.around.exposed import Exposed
from cosilo.privacy.secret_key import secret_key
from cosilo.session import ModelConfig, PointConfig, Side, open_point
from cosilo.strategies.base import Strategy, close
from cosilo.strategies.inference.ends import Large
from cosilo.strategies.inference.ensemble import Ensemble
from cosilo.types import Demonstration, Turn, last_user

NOT_MEASURED = "not measured"
MEMBERSHIP = "model_membership"

_TELLING = 12
"""Characters from which a text of the owner's that stands in the instructions is no coincidence."""


@dataclass(frozen=True)
class Made:
    """A bundle that was written.

    Attributes:
        about: what the bundle says of itself.
    """

    about: Mapping[str, str]


async def make_bundle(
    run: Path, point: str, out: Path, *, with_examples: bool = False, with_models: bool = False
) -> Made:
    """Write the point called `point` of the run in the folder `run` to the folder `out`.

    Args:
        with_examples: also where prompts hold the owner's examples.
        with_models: copy the model files into it.

    Raises:
        ConfigError: `out` exists, there is no such point, its prompts hold examples, or it needs what
            cannot be written down.
        DataError: the run's data are needed and not there.
    """
    note_bundle(run, point, out)
    with making(out) as folder:
        found = reopen(run, [point])
        async with AsyncExitStack() as held:
            held.push_async_callback(found.close)
            config = found.points[0]
            large = {
                name: Exposed(found.recorded[name], found.plan.peers[name].exposes)
                for name in found.speaks_to(config)
            }
            (first, lm), *others = large.items()
            strategy, session = open_point(
                config,
                found.owner,
                lm,
                sampling=found.task.sampling,
                name=first,
                others={name: Side(lm=other) for name, other in others},
            )
            strategy, session = await strategy.prepare(session.bind(f"prepare/{point}"))
            held.push_async_callback(close, strategy, session)
            served = spelt_out(strategy, config)
            if not with_examples:
                _refuse_examples(found, strategy, point)
            models = _models(found, list(large), strategy, session.owner.model, folder)
            owner = session.owner
            trained = owner.model is not found.untrained and "small" in models
            about = {
                "strategy": config.strategy,
                "cosilo": cosilo.__version__,
                "small model": _learned(len(owner.learned)) if trained else "as it was",
                MEMBERSHIP: _membership(run, point) if trained else "no private training",
            }
            bundle = Bundle(
                point=replace(served, defences=_with_keys(config, folder)),
                models=models,
                sampling=found.task.sampling,
                system=found.system,
                budget=found.plan.request_budget.budget,
                about=about,
            )
            write(bundle, folder, with_models=with_models)
    return Made(about)


def note_bundle(run: Path, point: str, out: Path) -> None:
    """Note in the run's lineage that `point` is about to be written to `out`.

    Raises:
        ConfigError: there is no run, or no such point.
        StoreError: it cannot be noted.
    """
    with opened(run) as results:
        trial = results.trial(point).id
    artifact = of_file(ArtifactKind.BUNDLE, out, run, made_by=f"cosilo bundle, point {point}")
    note_made(run, artifact, [trial])


def _learned(count: int) -> str:
    return f"trained on {count} examples of the owner's" if count else "trained"


def _refuse_examples(found: Reopened, strategy: Strategy, point: str) -> None:
    """Refuse a point whose prompts tell the owner's examples.

    Raises:
        ConfigError: they do.
    """
    shown = is_dataclass(strategy) and any(
        _holds_examples(getattr(strategy, f.name)) for f in fields(strategy)
    )
    texts = (last_user(e.chat) for s in found.task.splits.values() for e in s)
    if shown or any(len(text) >= _TELLING and text in found.system for text in texts):
        raise ConfigError(
            f"the prompts of point {point!r} hold examples of yours, which would be in the bundle word "
            "for word; --with-examples includes them"
        )


def _holds_examples(value: Any) -> bool:
    if isinstance(value, Turn | Demonstration):
        return True
    if isinstance(value, Mapping):
        return any(map(_holds_examples, value.values()))
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and any(map(_holds_examples, value))
    )


def _models(
    found: Reopened, large: Sequence[str], strategy: Strategy, small: TextModel, folder: Path
) -> dict[str, ModelConfig]:
    """The models that the point is served with; a trained small one is written into `folder`.

    Raises:
        ConfigError: one of them cannot be had without the run.
    """
    plan, models = found.plan, {}
    alone = isinstance(strategy, Ensemble) and not strategy.uses_small
    if not (alone or isinstance(strategy, Large)):  # these ask no small model
        models["small"] = _small(found, small, folder)
    if strategy.needs.sends:
        if any(isinstance(found.peers[name], RecordedModel) for name in large):
            raise ConfigError("the large model's answers stand in the data: nobody can ask it more")
        several = len(large) > 1
        models |= {f"{SEVERAL}{name}" if several else "large": plan.peers[name] for name in large}
    if plan.embedder is not None:
        models["embedder"] = plan.embedder
    return models


def _small(found: Reopened, model: TextModel, folder: Path) -> ModelConfig:
    config = found.plan.small
    if isinstance(model, RecordedModel):
        raise ConfigError("the small model's answers stand in the data: nobody can ask it more")
    if model is found.untrained:
        return config
    return kept_model(config, model, folder / "small")


def _with_keys(config: PointConfig, folder: Path) -> tuple[Any, ...]:
    """The point's defences, their keys in `folder`: the same values keep the same placeholders."""
    around = []
    for number, defence in enumerate(config.defences):
        options = dict(defence.options)
        if isinstance(key := options.get("key_file"), Path):
            target = folder / "keys" / f"{number}-{defence.kind}.key"
            target.parent.mkdir(mode=0o700, exist_ok=True)
            if key.is_file():
                target.touch(mode=0o600)
                target.write_bytes(secret_key(key))
            else:
                secret_key(target)  # nothing was ever hidden under the run's own
            options["key_file"] = target
        around.append(replace(defence, options=options))
    return tuple(around)


def _membership(run: Path, point: str) -> str:
    """How well its records can be told from others by the small model, as the run measured it."""
    with opened(run) as results:
        measured = {p.name: p.test for p in results.points}.get(point, {})
    if MEMBERSHIP not in measured:
        return NOT_MEASURED
    m = measured[MEMBERSHIP]
    return f"AUC {m.value:.3f} [{m.low:.3f}, {m.high:.3f}], n = {m.n}; {m.note}"
