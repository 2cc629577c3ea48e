"""Owners of tiny models train one adapter together, each speaking to the coordinator alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")

from cosilo.boundary.messages import Contribute, Enrolled, RoundState
from cosilo.boundary.meter import Budget, Meter
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.wire import tensors
from cosilo.errors import (
    BudgetExceededError,
    CapabilityError,
    ConfigError,
    DataError,
    FederationError,
    ModelError,
    PrivacyBudgetError,
    UnexpectedReplyError,
)
from cosilo.federation.rules import rules
from cosilo.federation.updates import OwnerUpdate
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.models.white_box.adapters import (
    adapter_of,
    first_adapter,
    layers_to_adapt,
    trained_adapter,
    upper_layers,
)
from cosilo.models.white_box.layers import is_adapted, layers_of
from cosilo.models.white_box.tuning import mean_loss
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.privacy.mechanisms import Gaussian
from cosilo.session import open_session
from cosilo.strategies.base import Session, Strategy, strategies
from cosilo.strategies.upward.federated import Federated
from cosilo.types import Demonstration, Sampling, user
from white_box import tiny

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

LABELS = ("refund", "billing", "delivery")
HOW: dict[str, Any] = {"steps": 3, "batch": 4, "learning_rate": 1e-2, "rank": 2}


def examples(of: int, count: int = 8) -> tuple[Demonstration, ...]:
    """Each owner's own: mostly one class."""
    return tuple(
        Demonstration(f"{of}-{i}", user(f"about {i % 5}"), LABELS[of if i % 4 else (of + 1) % 3])
        for i in range(count)
    )


def federation(*owners: str, path: Path | None = None, **options: Any) -> Federation:
    given = {"owners": owners, "rounds": 2, "rank": 2, "held_s": 5.0}
    return Federation(FederationSettings(**given | options), path)


def opened(
    coordinator: Any, name: str, of: int = 0, *, small: Any = None, **options: Any
) -> tuple[Strategy, Session]:
    strategy = strategies.create("federated", **HOW | options)
    party = coordinator
    if isinstance(coordinator, Federation):
        party = LMOwner(ScriptedModel(), client=name, federation=coordinator)
    owner = DataOwner(small or tiny(1), private=examples(of))
    return strategy, open_session(owner, party, strategy, sampling=Sampling(choices=LABELS))


async def prepared(coordinator: Any, name: str, of: int = 0, **options: Any) -> Session:
    strategy, session = opened(coordinator, name, of, **options)
    return (await strategy.prepare(session))[1]


def by_hand(owners: int, rounds: int) -> dict[str, Any]:
    """What comes of the federation, written out."""
    model = tiny(1)
    adapter = first_adapter(layers_to_adapt(model.module), 2, alpha=4.0, seed=0)
    for number in range(1, rounds + 1):
        found = [
            trained_adapter(
                model.module, adapter, [model.tokenize(e.chat, e.target) for e in examples(of)],
                steps=3, batch=4, learning_rate=1e-2, seed=number,
            )[0]
            for of in range(owners)
        ]  # fmt: skip
        updates = [OwnerUpdate(str(of), 1.0, a.tensors) for of, a in enumerate(found)]
        adapter = replace(adapter, tensors=rules.create("average")(updates).tensors)
    return dict(adapter.tensors)


def test_three_owners_end_with_one_adapter_that_knows_all_classes() -> None:
    async def run() -> list[Session]:
        coordinator = federation("a", "b", "c")
        try:
            return await asyncio.gather(
                *(prepared(coordinator, name, of) for of, name in enumerate("abc"))
            )
        finally:
            coordinator.close()

    sessions = asyncio.run(run())
    found = [adapter_of(s.owner.model.module).tensors for s in sessions]
    wanted = by_hand(3, 2)
    for tensors_ in found:
        assert all(np.array_equal(tensors_[n], wanted[n]) for n in wanted)
    model = tiny(1)
    everything = [model.tokenize(e.chat, e.target) for of in range(3) for e in examples(of)]
    alone, _ = opened(federation("x"), "x")
    assert alone.needs.trainable
    before = mean_loss(model.module, everything)
    assert mean_loss(sessions[0].owner.model.module, everything) < before
    (card,) = sessions[0].cards
    assert (card.facts["rounds"], card.facts["updates taken"]) == (2, 2)
    assert sessions[0].owner.learned == {e.id for e in examples(0)}


def test_owners_may_adapt_the_last_layers_alone() -> None:
    async def run(**options: Any) -> list[Session]:
        coordinator = federation("a", "b")
        try:
            return await asyncio.gather(
                prepared(coordinator, "a", 0, upper=1), prepared(coordinator, "b", 1, **options)
            )
        finally:
            coordinator.close()

    model = tiny(1)
    one, other = (adapter_of(s.owner.model.module) for s in asyncio.run(run(upper=1)))
    assert one.layers == upper_layers(model.module, 1)
    assert len(one.layers) < len(layers_to_adapt(model.module))
    assert all(np.array_equal(one.tensors[n], other.tensors[n]) for n in one.tensors)
    with pytest.raises(CapabilityError, match="adapts other layers than this federation, 'model"):
        asyncio.run(run())
    count = len(layers_of(model.module))
    with pytest.raises(
        ConfigError, match=f"upper = {count + 1}: the small model has {count} layers"
    ):
        asyncio.run(prepared(federation("a"), "a", upper=count + 1))


def test_what_crosses_is_an_adapter_a_round_and_nothing_to_answer() -> None:
    async def run() -> tuple[MemoryLedger, int]:
        coordinator, ledger = federation("a"), MemoryLedger()
        strategy = strategies.create("federated", **HOW)
        owner = DataOwner(tiny(1), private=examples(0))
        party = LMOwner(ScriptedModel(), client="a", federation=coordinator)
        session = open_session(
            owner, party, strategy, ledger=ledger, sampling=Sampling(choices=LABELS)
        )
        strategy, session = await strategy.prepare(session)
        before = session.totals.messages
        answer = await strategy.answer(session.bind("1"), user("about 1"))
        assert answer.by == "small"
        assert answer.text in LABELS
        coordinator.close()
        return ledger, session.totals.messages - before

    ledger, more = asyncio.run(run())
    assert more == 0
    kinds = [entry.kind for entry in ledger.entries() if entry.direction == "up"]
    assert kinds == ["Enrol", "NextRound", "Contribute", "NextRound", "Contribute", "NextRound"]
    shapes = {n: t.shape for n, t in by_hand(1, 1).items()}
    net = tensors.size_of(shapes)
    sizes = [e.size for e in ledger.entries()]
    assert sum(sizes) < 1.05 * 4 * net + 4000  # two up, two down, and what is said beside


def test_an_owner_that_was_killed_while_training_sends_the_same_bytes(tmp_path: Path) -> None:
    sent: list[bytes] = []

    class KilledError(Exception): ...

    class Coordinator(LMOwner):
        async def handle(self, message: Any) -> Any:
            if isinstance(message, Contribute):
                sent.append(message.packed)
                if len(sent) == 1:
                    raise ModelError("killed before it was heard")
            return await super().handle(message)

    async def once(coordinator: Federation, folder: Path) -> Session:
        party = Coordinator(ScriptedModel(), client="a", federation=coordinator)
        return await prepared(party, "a", checkpoints=folder)

    coordinator = federation("a", path=tmp_path / "f.sqlite")
    with pytest.raises(ModelError, match="killed"):
        asyncio.run(once(coordinator, tmp_path / "own"))
    (kept,) = (tmp_path / "own").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    steps: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        from cosilo.models.white_box import training

        step = training._Loop.one_step
        patch.setattr(
            training._Loop, "one_step", lambda self: steps.append(self.step) or step(self)
        )
        session = asyncio.run(once(coordinator, tmp_path / "own"))
    coordinator.close()
    assert sent[0] == sent[1]
    assert steps == [0, 1, 2]  # those of the second round alone
    assert {path.suffix for path in (tmp_path / "own").iterdir()} == {".update"}
    found, wanted = adapter_of(session.owner.model.module).tensors, by_hand(1, 2)
    assert all(np.array_equal(found[n], wanted[n]) for n in wanted)


def test_an_owner_that_comes_when_all_is_over_gets_what_came_of_it() -> None:
    async def run() -> tuple[Session, Session]:
        coordinator = federation(quorum=1)  # anybody may come
        first = await prepared(coordinator, "a")
        late = await prepared(coordinator, "b", 1)
        coordinator.close()
        return first, late

    first, late = (adapter_of(s.owner.model.module).tensors for s in asyncio.run(run()))
    assert all(np.array_equal(first[n], late[n]) for n in first)


def test_owners_of_unequal_ranks_have_the_exact_mean_merged_into_their_weights() -> None:
    given: list[tuple[int, dict[str, Any]]] = []

    class Hearing(LMOwner):
        async def handle(self, message: Any) -> Any:
            if isinstance(message, Contribute):
                given.append((message.number, tensors.unpack(message.packed)))
            return await super().handle(message)

    async def run() -> list[Session]:
        coordinator = federation("a", "b", rule="flora", rank=3)
        try:
            return await asyncio.gather(
                *(
                    prepared(
                        Hearing(ScriptedModel(), client=n, federation=coordinator), n, i, rank=i + 2
                    )
                    for i, n in enumerate("ab")
                )
            )
        finally:
            coordinator.close()

    one, other = asyncio.run(run())
    name = "model.layers.0.mlp.up_proj"
    base = tiny(1).module.get_submodule(name).weight.detach().numpy().astype(np.float64)
    for _, matrices in given:  # scale 2, each of two owners half
        base = base + matrices[f"{name}.lora_B"].astype(np.float64) @ matrices[f"{name}.lora_A"]
    for session in (one, other):
        module = session.owner.model.module
        assert not is_adapted(module)
        assert np.allclose(module.get_submodule(name).weight.detach().numpy(), base, atol=1e-5)
    assert len(given) == 4
    table = one.cards[0].tables[
        "what came of a round, off the mean of the updates' products, of its norm"
    ]
    assert table["round 2"] == pytest.approx(0, abs=1e-5)


def test_an_owner_of_a_smaller_rank_goes_on_with_its_part() -> None:
    async def run() -> list[Session]:
        coordinator = federation("a", "b", rule="hetlora", rank=3)
        try:
            return await asyncio.gather(
                *(prepared(coordinator, n, i, rank=i + 2) for i, n in enumerate("ab"))
            )
        finally:
            coordinator.close()

    small, large = (adapter_of(s.owner.model.module) for s in asyncio.run(run()))
    assert (small.rank, large.rank, small.scale) == (2, 3, large.scale)
    for layer in small.layers:
        assert np.array_equal(
            small.tensors[f"{layer}.lora_A"], large.tensors[f"{layer}.lora_A"][:2]
        )


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"base": "ff" * 16}, CapabilityError, f"{'ff' * 16}: all owners must have the same"),
        ({"rank": 4}, CapabilityError, "of rank 2, and this federation those of rank 4: set rank"),
        ({"rounds": 30}, CapabilityError, "has 30 rounds, and this owner takes part in 20"),
        ({"counts": True}, CapabilityError, "tell_count = true"),
        ({"owners": ("b",)}, ModelError, "'a' is not one of"),
        ({"owners": ("a", "b"), "deadline_s": 0.05}, FederationError, "1 of 2 owners"),
    ],
)
def test_it_takes_part_only_as_agreed(options: Any, error: Any, why: str) -> None:
    async def run() -> None:
        coordinator = federation(*options.pop("owners", ("a",)), **options)
        try:
            await prepared(coordinator, "a")
        finally:
            coordinator.close()

    with pytest.raises(error, match=why):
        asyncio.run(run())


class Lying(LMOwner):
    """A coordinator that answers with what `lies` makes of its replies."""

    lies: Any = staticmethod(lambda reply: reply)

    async def handle(self, message: Any) -> Any:
        return type(self).lies(await super().handle(message))


def changed(kind: type, **changes: Any) -> Any:
    def lie(reply: Any) -> Any:
        return msgspec.structs.replace(reply, **changes) if isinstance(reply, kind) else reply

    return lie


OTHER = tensors.pack({"x": np.ones((2, 2), np.float32)})


@pytest.mark.parametrize(
    ("lie", "error", "why"),
    [
        (changed(Enrolled, version=9), CapabilityError, "version 9 .* version 1"),
        (changed(Enrolled, base="00"), CapabilityError, "federation's 00"),
        (changed(Enrolled, rank=9), CapabilityError, "rank 9, and this owner's 2"),
        (changed(Enrolled, codec="fp33"), CapabilityError, "fp33"),
        (changed(Enrolled, most=1 << 30), CapabilityError, "too large"),
        (changed(RoundState, state="open", number=7), UnexpectedReplyError, "out of turn"),
        (
            changed(RoundState, closed=1, of=1, packed=OTHER, rank=2),
            UnexpectedReplyError,
            "another model",
        ),
        (
            changed(RoundState, closed=1, of=1, packed=OTHER, rank=60000),
            UnexpectedReplyError,
            "of rank 60000 came",
        ),
        (
            changed(RoundState, closed=99, of=99, packed=OTHER, rank=2),
            UnexpectedReplyError,
            "round 99 came unasked",
        ),
        (
            changed(RoundState, closed=1, of=1, packed=bytes(1 << 20), rank=2),
            UnexpectedReplyError,
            "larger than was agreed",
        ),
    ],
)
def test_a_coordinator_that_lies_is_refused(lie: Any, error: Any, why: str) -> None:
    class Liar(Lying):
        lies = staticmethod(lie)

    async def run() -> None:
        coordinator = federation("a", "b")
        party = Liar(ScriptedModel(), client="a", federation=coordinator)
        await LMOwner(ScriptedModel(), client="b", federation=coordinator).handle(
            (await _enrol()).enrol()
        )
        try:
            await prepared(party, "a")
        finally:
            coordinator.close()

    async def _enrol() -> Any:
        from cosilo.strategies.federating.owner import FederationOwner

        return FederationOwner(Federated(**HOW), tiny(1), examples(0))

    with pytest.raises(error, match=why):
        asyncio.run(run())


def test_without_examples_nothing_is_sent() -> None:
    strategy, session = opened(federation("a"), "a")
    ledger = MemoryLedger()
    bare = replace(session.owner, private=(Demonstration("1", user("x"), ""),))
    party = LMOwner(ScriptedModel(), client="a")
    session = open_session(bare, party, strategy, ledger=ledger)
    with pytest.raises(DataError, match="no examples with targets"):
        asyncio.run(strategy.prepare(session))
    assert not list(ledger.entries())


def test_noise_is_booked_and_an_update_sent_again_is_one_release(tmp_path: Path) -> None:
    sent: list[Contribute] = []

    class Hearing(LMOwner):
        async def handle(self, message: Any) -> Any:
            if isinstance(message, Contribute):
                sent.append(message)
            return await super().handle(message)

    async def once(name: str, **options: Any) -> None:
        coordinator = federation("a", path=tmp_path / f"{name}.sqlite", rounds=1)
        party = Hearing(ScriptedModel(), client="a", federation=coordinator)
        await prepared(party, "a", noise=0.01, clip=0.5, **options)
        coordinator.close()

    own = {"key_file": tmp_path / "own.key", "checkpoints": tmp_path / "own"}
    asyncio.run(once("one", **own))
    asyncio.run(once("two"))
    plain = by_hand(1, 1)
    first = first_adapter(layers_to_adapt(tiny(1).module), 2, alpha=4.0, seed=0).tensors
    for message in sent:
        release = message.release
        assert release is not None
        assert (release.unit, release.mechanism) == (
            "group",
            Gaussian(sigma=0.005, sensitivity=0.5),
        )
        found = tensors.unpack(message.packed)
        way = np.concatenate([(plain[n] - first[n]).ravel() for n in plain])
        cut = way * min(1.0, 0.5 / np.linalg.norm(way))
        noise = np.concatenate([(found[n] - first[n]).ravel() for n in plain]) - cut
        assert noise.std() == pytest.approx(0.005, rel=0.05)
        assert abs(np.corrcoef(noise, cut)[0, 1]) < 0.05
    assert sent[0].packed != sent[1].packed  # noise of its own
    with pytest.raises(ConfigError, match="noise = -1"):
        strategies.create("federated", noise=-1)
    with pytest.raises(ConfigError, match="largest = 0"):
        strategies.create("federated", noise=1.0, clip=0)


def test_noise_that_the_book_cannot_bear_is_not_sent() -> None:
    class Empty:
        async def require(self, releases: Any) -> None:
            assert len(releases) == 2
            raise PrivacyBudgetError("spent")

    ledger = MemoryLedger()

    async def run() -> None:
        coordinator = federation("a")
        strategy = strategies.create("federated", **HOW, noise=1.0)
        party = LMOwner(ScriptedModel(), client="a", federation=coordinator)
        owner = DataOwner(tiny(1), private=examples(0))
        session = open_session(owner, party, strategy, ledger=ledger, account=Empty())  # type: ignore[arg-type]
        try:
            await strategy.prepare(session)
        finally:
            coordinator.close()

    with pytest.raises(PrivacyBudgetError):
        asyncio.run(run())
    assert {entry.kind for entry in ledger.entries()} == {"Enrol", "Enrolled"}


def test_an_owner_of_one_class_is_told_so() -> None:
    async def run() -> Session:
        coordinator = federation("a")
        strategy, session = opened(coordinator, "a")
        one = tuple(
            replace(e, target="refund") if False else Demonstration(e.id, e.chat, "refund")
            for e in session.owner.private
        )
        session = replace(session, owner=replace(session.owner, private=one))
        _, session = await strategy.prepare(session)
        coordinator.close()
        return session

    (card,) = asyncio.run(run()).cards
    assert "same target" in str(card.facts["of its own classes"])


def test_a_budget_stops_it_before_it_speaks() -> None:
    async def run() -> None:
        coordinator = federation("a")
        strategy = strategies.create("federated", **HOW)
        party = LMOwner(ScriptedModel(), client="a", federation=coordinator)
        session = open_session(
            DataOwner(tiny(1), private=examples(0)), party, strategy,
            meter=Meter(Budget(messages=2)),
        )  # fmt: skip
        try:
            await strategy.prepare(session)
        finally:
            coordinator.close()

    with pytest.raises(BudgetExceededError):
        asyncio.run(run())


def test_an_update_that_is_refused_ends_nothing() -> None:
    async def run() -> Session:
        coordinator = federation("a")
        await prepared(coordinator, "a", seed=0)
        again = await prepared(coordinator, "a", seed=0)
        coordinator.close()
        return again

    (card,) = asyncio.run(run()).cards
    assert (card.facts["rounds"], card.facts["updates taken"]) == (2, 0)


@pytest.mark.parametrize("name", ["rounds", "steps", "batch", "learning_rate", "rank"])
def test_options_are_looked_at(name: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=f"{name} = 0 is not positive"):
        strategies.create("federated", **{name: 0})


@pytest.mark.parametrize("name", ["noise", "upper"])
def test_options_are_not_negative(name: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=f"{name} = -1 is negative"):
        strategies.create("federated", **{name: -1})
