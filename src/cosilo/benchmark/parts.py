"""The data, the two models and their owners, opened from a plan.

    small model ── remembering ──▶ DataOwner
    large model ── its owner ── Paid ── Recorded ── Timed ── Exposed

Every message to the LM's owner goes through `Recorded`, so an answer is paid for once; every one that
is not recorded goes through `Paid`, so the run's budget holds whatever the strategies do.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from cosilo.benchmark.identity import hash_of, small_identity, task_identity
from cosilo.benchmark.language import language_of
from cosilo.benchmark.plan import Plan
from cosilo.benchmark.small import remembering
from cosilo.benchmark.small_answers import SmallAnswers
from cosilo.benchmark.store import Store
from cosilo.boundary.meter import Price
from cosilo.databases import made_private
from cosilo.defences.base import defences
from cosilo.errors import ConfigError, CosiloError, DataError
from cosilo.models.base import EVERYTHING, Embedder, TextModel, require_trainable
from cosilo.models.kept.recorded import RecordedModel
from cosilo.models.kept.replay import ReplayStore
from cosilo.models.sharded import Checkpoints, placed, sharded
from cosilo.parties.around.exposed import Exposed
from cosilo.parties.around.paid import Paid, Purse
from cosilo.parties.around.recorded import Recorded
from cosilo.parties.around.timed import Timed
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.exposure import Peer
from cosilo.parties.remote import NETWORK, LargeModel, RemoteOwner, noted
from cosilo.privacy.secret_key import secret_key
from cosilo.registry import Registry, unknown
from cosilo.session import (
    ModelConfig,
    PointConfig,
    make_defences,
    make_large,
    make_model,
    owned,
    with_instructions,
)
from cosilo.strategies.base import ONE, strategies
from cosilo.tables import options_of
from cosilo.tasks.base import Task
from cosilo.tasks.config import load_task
from cosilo.types import Chosen, Demonstration, last_user

T = TypeVar("T")


@dataclass(frozen=True)
class OpenedPeer:
    """A large model's owner, and what surrounds it.

    Attributes:
        party: what a session is opened with.
        price: what it is paid from the run's budget.
        model: what it answers with.
    """

    party: Peer
    price: Price
    recorded: Recorded
    model: LargeModel

    async def close(self) -> None:
        """Cancel what is under way. A model of this process stays open."""
        await self.recorded.close()
        if isinstance(self.model, RemoteOwner):
            await self.model.close()


@dataclass(frozen=True)
class Parts:
    """The data, models and parties that all trials of a run share.

    Attributes:
        peers: the large models' owners by name, in the plan's order.
        paid: what the run pays, to all of them together.
    """

    task: Task
    owner: DataOwner
    peers: Mapping[str, OpenedPeer]
    paid: Purse
    replay: ReplayStore

    @property
    def large(self) -> OpenedPeer:
        """The first of the large models' owners."""
        return next(iter(self.peers.values()))

    def require_defences(self, point: PointConfig) -> str:
        """Refuse a point whose defences cannot be set up; returns a note on those that can, or an
        empty text.

        Raises:
            ConfigError: an option is refused, or an optional package is missing.
        """
        try:
            made = make_defences(ready(point, self.task, self.replay.path.parent))
        except CosiloError as error:
            raise type(error)(f"point {point.name!r}: {error}") from None
        known = [d.languages for d in made if d.languages]
        if not self.language or all(self.language in languages for languages in known):
            return ""
        return (
            f"the task's texts look like {self.language}, but defences look for names in "
            f"{', '.join(sorted(set(chain(*known))))}: they will miss some, and hide ordinary words"
        )

    @cached_property
    def language(self) -> str:
        """The language that most of the task's texts are in; see `language_of`."""
        return language_of(
            last_user(e.chat) for examples in self.task.splits.values() for e in examples
        )

    async def close(self) -> None:
        for peer in self.peers.values():
            await peer.close()
        self.replay.close()


@dataclass
class Loaded:
    """What a process has loaded for a plan, kept between its trials.

    Attributes:
        small: the small model, trained where the plan says so.
        large: the large models of this process, by name.
        encoder: that attackers are given; `(None,)` where they have none.
        recorded: where replies are recorded, where it is not where the plan says.
        taught: a run's folder whose stages of training may be gone on from, besides this one's own.
        keys: the folder of the run's secret keys, where it is not that of the recorded answers.
    """

    task: Task | None = None
    small: TextModel | None = None
    embedder: TextModel | None = None
    large: dict[str, TextModel] = field(default_factory=dict)
    encoder: tuple[Embedder | None] | None = None
    recorded: ReplayStore | None = None
    taught: Path | None = None
    keys: Path | None = None

    async def close(self) -> None:
        for model in (self.small, self.embedder, *self.large.values()):
            if model is not None:
                await model.close()
        self.small = self.embedder = None
        self.large = {}


def load_data(plan: Plan) -> Task:
    """The plan's task.

    Raises:
        DataError: the data are not what the plan says, or a split that is needed is empty.
    """
    task = load_task(plan.task, plan.base)
    check_splits(task)
    return task


def open_parts(plan: Plan, store: Store, loaded: Loaded, *, offline: bool = False) -> Parts:
    """Load the data and the models.

    Args:
        loaded: what is there already, to which all else is added; whoever made it closes it.
        offline: refuse every LM call whose answer is not recorded.

    Raises:
        DataError: the data are not what the plan says, or a split that is needed is empty.
        CatalogError: a model file is missing.
        CapabilityError: the small model cannot be trained, and `train` is set.
    """
    task = loaded.task = loaded.task or load_data(plan)
    if loaded.small is None:
        keys = loaded.keys or replay_path(plan, store).parent
        loaded.small = small_models(plan, task, store.path, keys, before=loaded.taught)[1]
    if plan.embedder:
        loaded.embedder = loaded.embedder or make_model(plan.embedder)
    identity = small_identity(plan, task=task_identity(plan))
    small = remembering(loaded.small, SmallAnswers(store, identity))
    embedder = loaded.embedder or loaded.small
    replay = loaded.recorded or ReplayStore(made_private(replay_path(plan, store)))
    purse, network = Purse(store, plan.budget), store.path / NETWORK
    peers = {}
    for name, config in plan.peers.items():
        model = loaded.large.get(name) or make_large(config)
        if not isinstance(model, RemoteOwner) and name not in loaded.large:
            fill(model, task)
            loaded.large[name] = model
        peers[name] = opened_peer(config, model, purse, replay, network, name=name, offline=offline)
    owner = make_owner(plan, task, small, embedder if isinstance(embedder, Embedder) else None)
    return Parts(task, owner, peers, purse, replay)


def opened_peer(
    config: ModelConfig,
    model: LargeModel,
    purse: Purse,
    replay: ReplayStore,
    network: Path,
    *,
    name: str = ONE,
    offline: bool = False,
) -> OpenedPeer:
    """The owner of `model`, which `config` describes, with all that surrounds it.

    Args:
        purse: what it is paid from.
        replay: where its replies are recorded.
        network: where what crosses to another machine is recorded.
        name: what it is called there.
        offline: refuse every message whose reply is not recorded.
    """
    if isinstance(model, RemoteOwner):
        model = noted(model, made_private(network), name)
    # What a data set has recorded was paid for by others: it is priced, but not spent.
    price = Price() if isinstance(model, RecordedModel) else config.price
    paid = Paid(owned(model, EVERYTHING, config.body), purse, price)
    recorded = Recorded(paid, replay, of=model, offline=offline)
    return OpenedPeer(Exposed(Timed(recorded), config.exposes), price, recorded, model)


def fill(model: TextModel, task: Task) -> None:
    """Give a recorded model the answers that stand in the task's data.

    Raises:
        ConfigError: no example has an answer of that model.
    """
    if not isinstance(model, RecordedModel):
        return
    known: set[str] = set()
    for examples in task.splits.values():
        known.update(name for e in examples for name in e.recorded)
        found = ((e.chat, e.recorded[model.name]) for e in examples if model.name in e.recorded)
        model.add((chat, text, seconds) for chat, (text, seconds) in found)
    if not len(model):
        raise ConfigError(f"[task.columns.recorded]: {unknown('model', model.name, known)}")


def check_splits(task: Task) -> None:
    """Refuse data that leave nothing to measure.

    Raises:
        DataError: no validation or test items.
    """
    for split in ("validation", "test"):
        if not task.splits.get(split):
            raise DataError(f"task {task.name!r} has no items in its {split!r} split")


def replay_path(plan: Plan, store: Store) -> Path:
    return plan.replay.path or store.path / "replay.sqlite"


def ready(point: PointConfig, task: Task, folder: Path) -> PointConfig:
    """`point` as it is opened on `task`: see `keyed`, and its defences know the task's own words."""
    return with_instructions(keyed(point, folder), task.instructions)


def keyed(point: PointConfig, folder: Path) -> PointConfig:
    """`point`, its strategy's and defences' keys kept in `folder` unless the plan names another place.

    Placeholders or noise derived under another key would ask the LM other questions, so the keys stay
    with the recorded answers. So do the checkpoints of a strategy that goes on from some.
    """

    def with_key(
        registry: Registry[Any], kind: str, options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        if "key_file" not in options_of(registry.get(kind)) or "key_file" in options:
            return options
        return {**options, "key_file": folder / f"{kind}.key"}

    def with_checkpoints(options: Mapping[str, Any]) -> Mapping[str, Any]:
        known = options_of(strategies.get(point.strategy))
        if "checkpoints" not in known or "checkpoints" in options:
            return options
        name = hashlib.sha256(point.name.encode()).hexdigest()[:8]  # it may be any text
        return {**options, "checkpoints": folder / "checkpoints" / f"{point.strategy}-{name}"}

    return replace(
        point,
        options=with_checkpoints(with_key(strategies, point.strategy, point.options)),
        defences=tuple(
            replace(d, options=with_key(defences, d.kind, d.options)) for d in point.defences
        ),
    )


def make_owner(plan: Plan, task: Task, small: TextModel, embedder: Embedder | None) -> DataOwner:
    """The data owner: its training items with gold targets, the rest of them as a pool without."""
    train = [e.demonstration() for e in task.splits.get("train", ())]
    first = gold(plan, train)
    rest = train if plan.small.train_items is None else train[len(first) :]
    examples = {e.id: e for split in task.splits.values() for e in split}

    def grade(demonstration: Demonstration, answer: str) -> float:
        return task.grade(examples[demonstration.id], answer)

    return DataOwner(
        model=small,
        learned=frozenset(d.id for d in first) if plan.small.train else frozenset(),
        private=tuple(first),
        chosen=_chosen(plan, len(train)),
        pool=tuple(Demonstration(d.id, d.chat, "") for d in rest),
        public=tuple(e.demonstration() for e in task.public),
        calibration=tuple(e.demonstration() for e in task.splits.get("tune", ())),
        grade=grade,
        embedder=embedder,
    )


def gold(plan: Plan, train: Sequence[T]) -> Sequence[T]:
    """Those of the training items that have gold targets: the first `train_items`."""
    return train[: plan.small.train_items]


def _chosen(plan: Plan, train: int) -> Chosen:
    """How the records with gold targets were chosen, where `train` items came through `max_items`."""
    if train >= plan.task.max_items.get("train", train + 1):
        return "sampled"
    return "first" if train >= (plan.small.train_items or train + 1) else "all"


SHARDS = "shards"
"""In a run's folder: what stages of training its small model's shards ended with."""

SHARDS_KEY = "shards.key"
"""Beside the recorded answers: which shard a record is in."""

_COMPUTES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "onnxruntime",
    "tokenizers",
    "torch",
    "transformers",
    "peft",
)

_PROCESSOR = ("model name", "flags", "CPU part", "Features")


def small_models(
    plan: Plan, task: Task, run: Path, keys: Path, *, before: Path | None = None
) -> tuple[TextModel, TextModel]:
    """The small model as it was, and trained on the owner's gold targets where the plan says so.

    Args:
        run: the folder of the run, which stages of shards are kept in.
        keys: the folder of its secret keys.
        before: the folder of a run that it is made again from.

    Raises:
        DataError: there is nothing to train on.
        CapabilityError: it cannot be trained.
    """
    model = untrained = make_model(plan.small)
    fill(model, task)
    if plan.small.shards is not None:
        recipe = hash_of([small_identity(plan, task=""), *_computed_by()])
        model = untrained = sharded(
            model,
            plan.small.shards,
            key=secret_key(keys / SHARDS_KEY),
            checkpoints=Checkpoints(
                run / SHARDS, recipe, before / SHARDS if before is not None else None
            ),
        )
    if plan.small.train:
        train = gold(plan, task.splits.get("train", ()))
        if not train:
            raise DataError("[models.small] has train = true, but there are no training items")
        trained = require_trainable(model, by="[models.small] train = true").fit(
            [e.demonstration() for e in train], seed=plan.seed
        )
        assert isinstance(trained, TextModel)
        model = trained
    return untrained, model


def shards_of(plan: Plan, task: Task, keys: Path) -> list[list[str]]:
    """The ids of the records in each shard of the small model; none where it has no shards."""
    how = plan.small.shards
    if how is None:
        return []
    train = [e.demonstration() for e in gold(plan, task.splits.get("train", ()))]
    key = secret_key(keys / SHARDS_KEY)
    return [[e.id for one in slices for e in one] for slices in placed(train, key, how)]


def _computed_by() -> Iterator[object]:
    """What numbers depend on to the bit, besides what a plan says."""
    yield platform.machine(), _processor()
    yield len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS")
    for name in _COMPUTES:
        with suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)


def _processor() -> list[str]:
    """Which processor it is and what instructions it has; `platform` says neither on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return [platform.processor()]
    return sorted({line for line in lines if line.startswith(_PROCESSOR)})
