"""A trial: one point is prepared, answers what is left of every split, and is measured.

    open_point ─▶ prepare ─▶ answer each split ─▶ again, replies tampered with ─▶ heads ─▶ measure
                                │ item by item
                                └──▶ the folder's store, its ledger, the recorded answers

All that a trial writes is in one folder. Where that folder is the run's own, nothing is left to do
afterwards; where it is another, the run takes it in.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from cosilo.benchmark import loads
from cosilo.benchmark.answering import Answering, Commit, Lying
from cosilo.benchmark.identity import settings_of, task_identity
from cosilo.benchmark.measure import (
    attackers_encoder,
    load_run,
    measure,
    measuring_version,
    tampering,
)
from cosilo.benchmark.noting import LentNotes, Notes, note_stages
from cosilo.benchmark.parts import (
    Loaded,
    Parts,
    load_data,
    open_parts,
    ready,
    replay_path,
    shards_of,
)
from cosilo.benchmark.plan import Plan
from cosilo.benchmark.progress import RunSpent
from cosilo.benchmark.published import said_by
from cosilo.benchmark.record import Survey, chain_of, note_heads
from cosilo.benchmark.replies import Replies
from cosilo.benchmark.roads import Roads
from cosilo.benchmark.rows import Pass, Trial
from cosilo.benchmark.store import Store
from cosilo.boundary.meter import Budget
from cosilo.boundary.transports.inside import InProcess
from cosilo.clock import Stopwatch, peak_memory, reset_peak_memory
from cosilo.errors import (
    BudgetExceededError,
    CosiloError,
    OfflineError,
    PrivacyBudgetError,
    StoreError,
    UnreachableError,
    of_point,
)
from cosilo.models.base import TextModel
from cosilo.models.present import require_present
from cosilo.objectives.base import Item
from cosilo.objectives.scoring import learned_by, some
from cosilo.privacy.account import PrivacyAccount
from cosilo.session import ModelConfig, PointConfig, account_of, make_strategy, with_book
from cosilo.strategies.base import Session, Strategy, close
from cosilo.tasks.base import Example, Split

ANSWERED: tuple[Split, ...] = ("validation", "certificate", "test")
"""What a point is answered on; `train` and `tune` belong to the strategies."""


@dataclass(frozen=True)
class Outcome:
    """How far a point came.

    Attributes:
        error: why it is not done; None when it is.
    """

    point: PointConfig
    trial: str
    error: CosiloError | None = None


class Watch(Protocol):
    """Is told how a trial goes."""

    def begun(self, point: PointConfig, todo: Mapping[Split, Sequence[Example]]) -> None:
        """`point` begins, with these items to answer."""

    def answered(self, items: int, spent: RunSpent) -> None:
        """`items` more answers are kept; `spent` is what the folder's trials have cost."""

    def note(self, text: str) -> None:
        """Something a reader should know; never private text."""


class Trials:
    """The trials of a plan that one process works on, one after another, in one folder.

    Args:
        store: of the folder, opened for writing.
        offline: make no LM call; what is not recorded is an error.
        loaded: what is loaded already; all else is added, and left there.
        keys: the folder of the secret keys; that of the recorded answers where none is given.
        lineage: the folder whose lineage notes what they make; None where whoever lent the folder has
            noted it.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        watch: Watch,
        *,
        offline: bool = False,
        loaded: Loaded | None = None,
        keys: Path | None = None,
        lineage: Path | None = None,
    ) -> None:
        self.plan = plan
        self.store = store
        self.task_id = task_identity(plan)
        self.record = Survey()
        """What is wrong with the folder's record: what it lacks counts as not answered."""
        self._watch = watch
        self._offline = offline
        self._loaded = loaded or Loaded()
        self._keys = keys or replay_path(plan, store).parent
        self._loaded.keys = self._loaded.keys or keys
        self._lineage = lineage
        self._parts: Parts | None = None
        self._lm_down: CosiloError | None = None

    def parts(self) -> Parts:
        """The data and the models, loaded when they are first asked for.

        Raises:
            what `open_parts` does.
        """
        if self._parts is None:
            self._note_shards()
            self._parts = open_parts(self.plan, self.store, self._loaded, offline=self._offline)
        return self._parts

    async def close(self) -> None:
        """Let go of the models; they are loaded again when they are asked for."""
        if self._parts is not None:
            parts, self._parts = self._parts, None
            await parts.close()

    def left(self, id: str, which: Pass, split: Split) -> list[Example]:
        """The items of `split` that the trial called `id` has not answered."""
        done = self.store.answered(id, which, split).keys() - self.record.lacking(id, which, split)
        return [e for e in self.parts().task.splits.get(split, ()) if e.id not in done]

    def note(self, point: PointConfig, id: str) -> Notes | LentNotes:
        """Note in the lineage all that the trial called `id` is about to make; in a folder that was
        lent for it, that is done already.

        Raises:
            StoreError: it cannot be noted, and so must not be made.
        """
        splits = {s: [e.id for e in found] for s, found in self.parts().task.splits.items()}
        if self._lineage is None:
            return LentNotes(self.store.path, splits)
        notes = Notes(self._lineage, self.task_id, splits)
        sends = bool(make_strategy(point).needs.sends)
        notes.trial(id, point, plan=self.plan, store=self.store, sends=sends)
        return notes

    def _note_shards(self) -> None:
        """Note what the stages of the small model's shards are kept of, before they are trained."""
        if (
            self._lineage is None
            or self.plan.small.shards is None
            or self._loaded.small is not None
        ):
            return
        task = self._loaded.task = self._loaded.task or load_data(self.plan)
        note_stages(self._lineage, self.task_id, shards_of(self.plan, task, self._keys))

    async def run(self, point: PointConfig, id: str) -> Outcome:
        """Finish the trial called `id` of `point`: what is answered or measured is not done again.

        Raises:
            StoreError: nothing can be kept any more. What else goes wrong is in the outcome.
        """
        trial = self.store.trial(id) or Trial(
            id, point.name, json.dumps(settings_of(self.plan, point))
        )
        if trial.state != "done":
            trial, error = await self._tried(point, replace(trial, point=point.name))
            self.store.put_trial(trial)
            if error is not None:
                self._watch.note(of_point(point.name, error))
                return Outcome(point, id, error)
        if self.store.result(id, "test", measuring_version(self.plan)) is None:
            if self._loaded.encoder is None:
                require_present(loads.scoring(self.plan))
                self._loaded.encoder = (attackers_encoder(self.plan),)
            (encoder,) = self._loaded.encoder
            await measure(self.plan, self.store, self.task_id, trial, encoder=encoder)
        return Outcome(point, id)

    async def _tried(self, point: PointConfig, trial: Trial) -> tuple[Trial, CosiloError | None]:
        """The trial as far as it got, and what stopped it."""
        try:
            return replace(await self._answer(point, trial), state="done", error=""), None
        except BudgetExceededError as error:
            return replace(trial, state="unaffordable", error=str(error)), error
        except StoreError:  # nothing more can be kept: the run ends here
            raise
        except CosiloError as error:
            if isinstance(error, UnreachableError | OfflineError) and self._lm_down is None:
                self._lm_down = error
            return replace(trial, state="failed", error=str(error)), error

    async def _answer(self, point: PointConfig, trial: Trial) -> Trial:
        """Prepare the point and answer what is left of every split, plain and tampered with."""
        parts, store = self.parts(), self.store
        sends = bool(make_strategy(point).needs.sends)
        if sends and self._lm_down is not None:
            raise type(self._lm_down)(f"not tried: {self._lm_down}")
        todo = {s: self.left(trial.id, "plain", s) for s in ANSWERED}
        self._watch.begun(point, todo)
        reset_peak_memory()
        notes = self.note(point, trial.id)
        account = self._account(point)
        async with AsyncExitStack() as held:
            roads = Roads(self.plan, point, trial, "plain", store)
            held.callback(roads.close)
            strategy, session = roads.open(
                ready(point, parts.task, self._keys),
                parts,
                account=account,
                watch=[self._heard(trial, peer) for peer in roads.peers.values()],
            )
            begun = session.owner
            watch = Stopwatch()
            try:
                strategy, session = await strategy.prepare(session)
            finally:
                store.add_preparing(trial.id, watch.read())
            held.push_async_callback(close, strategy, session)
            session = await asyncio.to_thread(with_book, session, account)
            notes.prepared(trial.id, point, strategy, begun, session.owner)
            trial = replace(trial, attempt=roads.attempt)
            store.put_trial(trial)
            store.put_cards(trial.id, "plain", session.cards)
            if self.plan.attacks.published:
                trial = replace(trial, memory=max(trial.memory, peak_memory()))
                await self._listen(trial, session, None if begun.learned else begun.model)
                reset_peak_memory()  # attackers take their own
            for split, examples in todo.items():
                commit = self._committing(trial, "plain", split, roads)
                await self._answering(strategy, session, split, commit, trial).run(examples)
        liars = [name for name in roads.peers if self.plan.tampers(name)]
        if sends and liars and self.plan.attacks.tamper_share > 0:
            await self._tamper(point, trial, liars)
        note_heads(store, trial)
        if refused := sum(store.refused(trial.id, split) for split in ANSWERED):
            self._watch.note(
                f"{point.name}: {refused} items got no answer, because a defence or a model refused "
                "them; they count as answered wrongly"
            )
        return replace(trial, memory=max(trial.memory, peak_memory()))

    async def _listen(self, trial: Trial, session: Session, before: TextModel | None) -> None:
        """Keep what the small model says for those who will attack it, where it was trained; and what
        the model `before` says, which had learned nothing yet."""
        owner, splits = session.owner, self.parts().task.splits
        if not owner.learned:
            return
        run = load_run(self.plan, self.store, self.task_id, trial, "test")
        inside = learned_by(replace(run, learned=owner.learned & {e.id for e in run.background}))
        asked = [e for s in ANSWERED for e in some(splits.get(s, ()))]
        members = some([e for e in run.background if e.id in inside])
        examples = [*members, *asked]
        said = await said_by(owner.model, owner.learned, examples, before=before)
        if said is not None:
            self.store.put_said(trial.id, said)

    async def _tamper(self, point: PointConfig, trial: Trial, liars: Sequence[str]) -> None:
        """Answer again, with a party in between that changes a share of the LM's replies.

        Where nothing crossed in `prepare`, only the items whose replies are changed can differ.
        """
        parts, store = self.parts(), self.store
        names = trial.sides or liars
        roads_of_liars = [
            road for name, road in zip(names, trial.roads("plain"), strict=True) if name in liars
        ]
        chains = [chain_of(trial.id, road) for road in roads_of_liars]
        learned = any(
            True for c in chains for _ in store.prepare_record(c, trial.attempt, ANSWERED)
        )
        todo: dict[Split, list[Example]] = {}
        for split in ANSWERED:
            left = self.left(trial.id, "tampered", split)
            if not learned:
                attempts = store.answered(trial.id, "plain", split)
                party = tampering(self.plan, parts.large.party)
                changed = [party.requests(store.record(c, split, attempts)) for c in chains]
                left = [e for e in left if any(e.id in some for some in changed)]
            todo[split] = left
        if not any(todo.values()):
            return
        async with AsyncExitStack() as held:
            roads = Roads(self.plan, point, trial, "tampered", store)
            held.callback(roads.close)
            strategy, session = roads.open(
                ready(point, parts.task, self._keys),
                parts,
                account=self._account(point),
                transports={
                    name: InProcess(Lying(tampering(self.plan, parts.peers[name].party)))
                    for name in liars
                },
            )
            try:
                strategy, session = await strategy.prepare(session)
            except PrivacyBudgetError as error:
                raise PrivacyBudgetError(
                    f"{error}. With replies tampered with, the point is prepared anew, which spends as "
                    "much again: leave room for it, or set [attacks] tamper_share = 0"
                ) from None
            held.push_async_callback(close, strategy, session)
            store.put_cards(trial.id, "tampered", session.cards)
            for split, examples in todo.items():
                commit = self._committing(trial, "tampered", split, roads)
                await self._answering(strategy, session, split, commit, trial).run(examples)

    def _answering(
        self, strategy: Strategy, session: Session, split: Split, commit: Commit, trial: Trial
    ) -> Answering:
        return Answering(
            self.parts().task,
            strategy,
            session,
            split,
            commit=commit,
            concurrency=self.plan.concurrency,
            proved=self.store.proved(trial.id),
            budget=self.plan.request_budget.budget,
            tried=any(self.store.answered(trial.id, "plain", s) for s in ANSWERED),
        )

    def _account(self, point: PointConfig) -> PrivacyAccount | None:
        spender = f"{self.plan.name}/{point.name}"
        return account_of(self.plan.privacy, self.parts().owner, spender=spender)

    def _heard(self, trial: Trial, peer: ModelConfig) -> Replies:
        """The guard that checks whether the trial's first replies can be read; replies of earlier
        processes count.
        """
        seen, before = self.store.replies(trial.id)
        return Replies(
            self.parts().task,
            most=self.plan.unreadable,
            allowed=peer.price.reasoning,
            seen=seen,
            before=before,
        )

    def _committing(self, trial: Trial, which: Pass, split: Split, roads: Roads) -> Commit:
        def commit(items: Sequence[tuple[Item, str]]) -> None:
            ids = [item.example.id for item, _ in items]
            marks = roads.marks(split, ids)
            self.store.add_items(trial.id, which, split, roads.attempt, items, marks)
            if which == "plain":
                paid = self.parts().paid
                self._watch.answered(len(items), RunSpent(paid.calls, paid.totals.usd))

        return commit


async def run_trial(
    plan: Plan,
    point: PointConfig,
    folder: Path,
    allowance: Budget,
    *,
    trial: str,
    watch: Watch,
    loaded: Loaded | None = None,
    keys: Path | None = None,
    offline: bool = False,
) -> Outcome:
    """Finish the trial called `trial` of `point` in `folder`, where all that is known of it lies and
    all that becomes of it is written.

    Args:
        allowance: what may be spent, whatever the plan allows its whole run.
        watch: is told how it goes.
        loaded: what earlier trials of the plan have loaded, which this one adds to; whoever made it
            closes it.
        keys: the folder of the run's secret keys.
        offline: make no LM call; what is not recorded is an error.

    Raises:
        CosiloError: the trial cannot begin, or nothing can be kept. What goes wrong in it is in the
            outcome.
    """
    store = Store(folder, write=True)
    kept = loaded or Loaded()
    plan = replace(plan, budget=allowance)
    trials = Trials(plan, store, watch, offline=offline, loaded=kept, keys=keys)
    try:
        return await trials.run(point, trial)
    finally:
        await trials.close()
        if loaded is None:
            await kept.close()
        store.close()
