"""Scores stored trials. No model that answers is called in here, so scoring again costs no money."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from hashlib import sha256

import numpy as np

from cosilo.attacks.base import attacks
from cosilo.attacks.tampering import Tampering
from cosilo.benchmark.identity import hash_of, model_identity, plain, versions_behind
from cosilo.benchmark.parts import gold
from cosilo.benchmark.plan import Plan
from cosilo.benchmark.published import published, untrained
from cosilo.benchmark.record import chain_of
from cosilo.benchmark.rows import Result, Trial
from cosilo.benchmark.store import Store
from cosilo.boundary.messages import Ask, Message
from cosilo.boundary.meter import Price
from cosilo.boundary.transports.base import Handles
from cosilo.errors import DataError
from cosilo.models.base import Array, Embedder
from cosilo.objectives import attacked, item_values, measure_all
from cosilo.objectives.base import Run, objectives
from cosilo.objectives.reading import Entries, together
from cosilo.objectives.scoring import attack_of, made
from cosilo.session import make_model, make_strategy
from cosilo.tasks.base import Split
from cosilo.types import Chat, Delta

VERSION = 1
MEASURED: tuple[Split, ...] = ("validation", "certificate", "test")


def measuring_version(plan: Plan) -> str:
    """What the numbers depend on besides the trial: who attacks, how it is scored, prices, links."""
    prices: list[object] = [_stated(peer.price) for peer in plan.peers.values()]
    links = [plain(peer.link) for peer in plan.peers.values() if peer.link is not None]
    return hash_of(
        [
            _code(),
            {k: v for k, v in vars(plan.attacks).items() if k != "tamper_by" or v},
            prices[0] if len(prices) == 1 else prices,
            plain(plan.link),
            *links,
        ]
    )


def _stated(price: Price) -> dict[str, object]:
    """What `price` says, without the terms that it leaves out: numbers made before there were such
    terms still count."""
    added = ("usd_per_m_cached", "usd_per_hour", "longest_s", "usd_per_gb")
    return {
        f.name: getattr(price, f.name)
        for f in fields(Price)
        if f.name not in added or getattr(price, f.name) != f.default
    }


def guessing_version(plan: Plan, store: Store, trial: Trial, split: Split) -> str:
    """What the guesses of attacks on `trial` depend on: their code, what they are given, and in
    which attempts the items were answered."""
    return hash_of(
        [
            _code(),
            plan.seed,
            model_identity(plan.embedder or plan.small),
            trial.attempt,
            store.answered(trial.id, "plain", split),
        ]
    )


def _code() -> object:
    """The versions of all that attacks and scores."""
    named = [*map(attacks.get, attacks.names()), *map(objectives.get, objectives.names())]
    return [VERSION, versions_behind(*named)]


async def measure(
    plan: Plan,
    store: Store,
    task: str,
    trial: Trial,
    *,
    encoder: Embedder | None,
    again: Sequence[str] | None = (),
) -> None:
    """Attack and score `trial` on every split, and keep the numbers.

    The attacks are those of the plan, those in `again`, and any that was ever made on this trial: none
    drops another's numbers. Guesses that are on record still count unless the attacks' code changed.

    Args:
        encoder: the public sentence encoder that attackers may use; None for none.
        again: the attacks to make anew although their guesses are on record; None for all.
    """
    version = measuring_version(plan)
    planned = attacks.names() if plan.attacks.names is None else plan.attacks.names
    said = store.said(trial.id)
    model = None if said is None else published(said)
    begun = None if said is None else untrained(said)
    for split in MEASURED:
        run = load_run(plan, store, task, trial, split)
        if run.items:
            guessing = guessing_version(plan, store, trial, split)
            before = store.guesses(trial.id, split)
            there = [name for name in map(attack_of, before) if name in attacks.names()]
            names = list(dict.fromkeys([*planned, *there, *(again or ())]))
            anew = names if again is None else again
            known = {
                name: guessed
                for name, (made_with, guessed) in before.items()
                if made_with == guessing and attack_of(name) not in anew
            }
            run = await attacked(
                run,
                names=names,
                seed=plan.seed,
                model=partial(make_model, plan.small),
                embedder=encoder,
                published=model,
                untrained=begun,
                known=known,
            )
            new = {name: each for name, each in made(run).items() if name not in known}
            result = Result(tuple(measure_all(run)), item_values(run))
            store.put_guesses(trial.id, split, guessing, new)
            store.put_result(trial.id, split, version, result)


class Recalling:
    """`embedder`, asked once per text: every point's attackers read the same original texts."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: dict[bytes, Array] = {}

    def embed(self, texts: Sequence[str]) -> Array:
        """Unit-length sentence vectors, shape (len(texts), dimension)."""
        keys = [sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        new = {k: t for k, t in zip(keys, texts, strict=True) if k not in self._known}
        if new or not texts:
            vectors = self._embedder.embed(list(new.values()))
            if not texts:
                return vectors
            self._known.update(zip(new, vectors, strict=True))
        return np.stack([self._known[k] for k in keys])


def attackers_encoder(plan: Plan) -> Embedder | None:
    """The sentence encoder that an attacker is given: the plan's own, which is a public model.

    The small model's training is not in it.

    Raises:
        CatalogError: its files are not here.
    """
    model = make_model(plan.embedder or plan.small)
    return Recalling(model) if isinstance(model, Embedder) else None


def _public(plan: Plan, trial: Trial) -> tuple[tuple[Chat, str], ...]:
    """The public examples that the trial's strategy shares with other parties; none where the plan or
    the file has them no more."""
    for point in plan.points:
        shared = getattr(make_strategy(point), "shared_examples", None)
        if point.name == trial.point and shared is not None:
            with suppress(DataError):
                return tuple(shared())
    return ()


def load_run(plan: Plan, store: Store, task: str, trial: Trial, split: Split) -> Run:
    """What a measure may read of `trial` on `split`; `task` is the task's identity."""
    about = store.about(task)
    examples = store.examples(task, split)
    items = store.items(trial.id, "plain", split, examples)
    again = {i.example.id: i for i in store.items(trial.id, "tampered", split, examples)}
    train = store.examples(task, "train")
    background = (*train, *store.examples(task, "tune"))
    said = store.said(trial.id)
    named = trial.named or tuple(plan.peers)[:1]
    roads = zip(named, trial.roads("tampered"), strict=False)
    chains = [chain_of(trial.id, road) for name, road in roads if plan.tampers(name)]
    answered = store.answered(trial.id, "tampered", split)
    party = tampering(plan, Nobody())
    peers = [plan.peers[name] for name in trial.named] or [plan.large]
    run = Run(
        items=items,
        entries=lambda: iter(()),
        background=background,
        members=frozenset(e.id for e in gold(plan, train)),
        learned=frozenset(e.id for e in background if said is not None and e.id in said.learned),
        price=peers[0].price,
        link=peers[0].link or plan.link,
        # An item that was not answered again would have been answered the same.
        tampered=tuple(again.get(i.example.id, i) for i in items),
        tampered_ids=frozenset().union(
            *(party.requests(store.record(chain, split, answered)) for chain in chains)
        ),
        labels=about.labels,
        gold_secrets=about.gold_secrets,
        peak_memory=trial.memory,
        public=_public(plan, trial),
    )
    sides = [
        replace(
            run,
            entries=_entries(store, chain_of(trial.id, road), split, trial),
            prepare=_prepare(store, chain_of(trial.id, road), trial),
        )
        for road in trial.roads("plain")
    ]
    if len(sides) == 1:
        return sides[0]
    sides = [
        replace(side, price=peer.price, link=peer.link or plan.link)
        for side, peer in zip(sides, peers, strict=True)
    ]
    return replace(
        run,
        entries=together([side.entries for side in sides]),
        prepare=together([side.prepare for side in sides]),
        sides=dict(zip(trial.sides, sides, strict=True)),
    )


def _entries(store: Store, chain: str, split: Split, trial: Trial) -> Entries:
    attempts = store.answered(trial.id, "plain", split)
    return lambda: store.record(chain, split, attempts)


def _prepare(store: Store, chain: str, trial: Trial) -> Entries:
    return lambda: store.prepare_record(chain, trial.attempt, MEASURED)


class Nobody:
    """Stands in for a party where none is asked anything: scoring reads only the record."""

    async def handle(self, message: Message) -> Message:
        raise AssertionError("a measure asked a model")

    def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]:
        raise AssertionError("a measure asked a model")


def tampering(plan: Plan, party: Handles) -> Tampering:
    """The tampering party that the plan's `[attacks]` describes, in front of `party`."""
    return Tampering(party, plan.attacks.tamper_share, plan.seed)
