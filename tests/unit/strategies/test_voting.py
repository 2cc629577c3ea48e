"""What votes are worth, learned from known answers, and what an ensemble makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from cosilo.boundary.meter import Meter, Price
from cosilo.errors import CapabilityError, ConfigError, UnreachableError
from cosilo.models.base import Access
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import Side, open_session
from cosilo.strategies.base import Session
from cosilo.strategies.inference.ensemble import Ensemble
from cosilo.strategies.inference.stacking import Stacking
from cosilo.strategies.inference.voting import (
    ABSENT,
    Ballot,
    DawidSkene,
    Ints,
    affordable,
)
from cosilo.types import Chat, Demonstration, Sampling, last_user, user

LABELS = ("red", "green", "blue")


def drawn(accuracies: tuple[float, ...], n: int = 300, seed: int = 0) -> tuple[Ballot, Ints]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 3, n)
    votes = np.stack(
        [
            np.where(rng.random(n) < a, targets, (targets + rng.integers(1, 3, n)) % 3)
            for a in accuracies
        ],
        axis=1,
    )
    return Ballot(votes, np.zeros((n, 3)), 3), targets


def right(found: DawidSkene | Stacking, ballot: Ballot, targets: Ints) -> float:
    return float((found.posterior(ballot).argmax(axis=1) == targets).mean())


@pytest.mark.parametrize("kind", [DawidSkene, Stacking])
def test_a_good_model_outweighs_two_poor_ones(kind: type[DawidSkene] | type[Stacking]) -> None:
    ballot, targets = drawn((0.95, 0.4, 0.4))
    new, answers = drawn((0.95, 0.4, 0.4), seed=1)
    assert right(kind.fit(ballot, targets), new, answers) > 0.9


def test_one_who_always_says_the_next_answer_is_as_good_as_one_who_is_right() -> None:
    ballot, targets = drawn((1.0,))
    turned = Ballot((ballot.votes + 1) % 3, ballot.view, 3)
    assert right(DawidSkene.fit(turned, targets), turned, targets) == 1


def test_independent_votes_count_in_full() -> None:
    """Against Bayes' rule written out, with matrices that are known."""
    ballot, targets = drawn((0.8, 0.7, 0.6), n=6000)
    fitted = DawidSkene.fit(ballot, targets)
    assert fitted.votes == 1.0
    (found,) = fitted.posterior(Ballot(np.array([[0, 1, 1]]), np.zeros((1, 3)), 3))
    odds = np.array([0.8 * 0.15 * 0.2, 0.1 * 0.7 * 0.6, 0.1 * 0.15 * 0.2])
    assert found == pytest.approx(odds / odds.sum(), abs=0.03)


def test_copies_of_one_model_do_not_count_anew() -> None:
    ballot, targets = drawn((0.7,))
    copies = Ballot(np.repeat(ballot.votes, 6, axis=1), ballot.view, 3)
    assert DawidSkene.fit(copies, targets).votes < 1


def test_who_is_absent_says_nothing() -> None:
    ballot, targets = drawn((0.9, 0.6))
    fitted = DawidSkene.fit(ballot, targets)
    absent = ballot.votes.copy()
    absent[:, 0] = ABSENT
    alone = DawidSkene(fitted.evidence[1:], fitted.votes, fitted.view, fitted.prior)
    assert np.allclose(
        fitted.posterior(Ballot(absent, ballot.view, 3)), alone.posterior(ballot.among([1]))
    )


def test_the_small_models_view_is_weighed_in() -> None:
    ballot, targets = drawn((0.6,))
    view = np.log(np.where(np.eye(3)[targets] == 1, 0.9, 0.05))
    seen = Ballot(ballot.votes, view, 3)
    assert right(DawidSkene.fit(seen, targets), seen, targets) == 1


@pytest.mark.parametrize("kind", [DawidSkene, Stacking])
def test_what_was_learned_comes_back_from_its_folder(
    kind: type[DawidSkene] | type[Stacking], tmp_path: Path
) -> None:
    ballot, targets = drawn((0.8, 0.6))
    fitted = kind.fit(ballot, targets)
    fitted.save(tmp_path)
    assert np.array_equal(kind.load(tmp_path).posterior(ballot), fitted.posterior(ballot))
    with pytest.raises(ConfigError, match="holds no votes' worth"):
        kind.load(tmp_path / "elsewhere")


def test_who_is_asked_fits_the_price() -> None:
    ballot, targets = drawn((0.95, 0.7, 0.7))
    assert affordable(ballot, targets, [10.0, 1.0, 1.0], None)[0] == 0
    assert set(affordable(ballot, targets, [10.0, 1.0, 1.0], 2.0)) == {1, 2}
    assert affordable(ballot, targets, [10.0, 1.0, 1.0], 0.5) == []


def test_who_adds_nothing_is_not_asked() -> None:
    ballot, targets = drawn((0.95,))
    noise = np.random.default_rng(5).integers(0, 3, (300, 1))
    both = Ballot(np.concatenate([ballot.votes, noise], axis=1), ballot.view, 3)
    assert affordable(both, targets, [1.0, 1.0], None) == [0]


def item(i: int) -> Demonstration:
    return Demonstration(str(i), user(f"item {i}"), LABELS[i % 3])


def knows(share: int) -> Callable[[Chat], str]:
    """Right about items whose number, taken by tens, is below `share`."""

    def says(chat: Chat) -> str:
        i = int(last_user(chat).split()[-1])
        return LABELS[i % 3] if i * 7 % 10 < share else LABELS[(i + 1) % 3]

    return says


class Down(ScriptedModel):
    async def generate(self, chat: Chat, sampling: Sampling) -> object:  # type: ignore[override]
        raise UnreachableError("the large model is away")


def opened(models: Mapping[str, ScriptedModel], strategy: Ensemble) -> Session:
    sides = {
        name: Side(
            lm=LMOwner(model, exposes=Access.LOGPROBS.shows), meter=Meter(price=Price(usd, usd))
        )
        for (name, model), usd in zip(models.items(), (100.0, 10.0, 10.0), strict=False)
    }
    (name, first), *others = sides.items()
    owner = DataOwner(
        ScriptedModel(knows(6), confidence=0.6), calibration=tuple(item(i) for i in range(120))
    )
    return open_session(
        owner,
        first.lm,
        strategy,
        meter=first.meter,
        sampling=Sampling(choices=LABELS),
        name=name,
        others=dict(others),
    )


THREE = {
    "good": ScriptedModel(knows(9)),
    "poor": ScriptedModel(knows(3)),
    "worse": ScriptedModel(knows(2)),
}


@pytest.mark.parametrize("method", ["dawid_skene", "stacking"])
async def test_an_ensemble_learns_whom_to_believe(method: str) -> None:
    strategy = Ensemble(method=method)  # type: ignore[arg-type]
    prepared, session = await strategy.prepare(opened(THREE, strategy))
    answers = [
        await prepared.answer(session.bind(str(i)), user(f"item {i}")) for i in range(1200, 1230)
    ]
    good = sum(a.text == LABELS[i % 3] for i, a in enumerate(answers, 1200))
    assert good >= 26
    assert all(0 <= (a.confidence or 0) <= 1 for a in answers)
    (card,) = session.cards
    assert "good" in str(card.facts["asked"])
    assert card.tables["right on tune items"]["good"] == pytest.approx(0.9)


async def test_a_limit_on_the_price_leaves_the_dear_one_out() -> None:
    strategy = Ensemble(method="dawid_skene", usd_per_1k=0.2)
    prepared, session = await strategy.prepare(opened(THREE, strategy))
    assert isinstance(prepared, Ensemble)
    assert "good" not in prepared.asked
    before = session.peers["good"].totals.messages
    await prepared.answer(session.bind("x"), user("item 3000"))
    assert session.peers["good"].totals.messages == before
    low = Ensemble(method="dawid_skene", usd_per_1k=1e-5)
    with pytest.raises(ConfigError, match="usd_per_1k = 1e-05 is below what"):
        await low.prepare(opened(THREE, low))


async def test_what_is_in_doubt_is_abstained_from() -> None:
    split = {"a": ScriptedModel({"item": "red"}), "b": ScriptedModel({"item": "green"})}
    strategy = Ensemble(sure=0.6)
    answer = await strategy.answer(opened(split, strategy).bind("x"), user("item 1"))
    assert answer.abstained
    assert answer.text == ""
    assert answer.confidence == pytest.approx(0.5)


async def test_a_share_of_wrong_answers_can_be_promised() -> None:
    agreeing = {
        "a": ScriptedModel(knows(9)),
        "b": ScriptedModel(knows(9)),
        "c": ScriptedModel(knows(5)),
    }
    strategy = Ensemble(wrong=0.2)
    prepared, session = await strategy.prepare(opened(agreeing, strategy))
    assert isinstance(prepared, Ensemble)
    assert prepared.sure <= 1
    assert "at most 20 % of the answers given are wrong" in str(session.cards[-1].facts["promise"])
    hopeless = {name: ScriptedModel(knows(1)) for name in "ab"}
    never, told = await Ensemble(wrong=0.2).prepare(opened(hopeless, Ensemble(wrong=0.2)))
    assert (await never.answer(told.bind("x"), user("item 1"))).abstained
    assert "nothing is answered" in str(told.cards[-1].facts["promise"])


async def test_what_is_promised_is_promised_of_what_answers() -> None:
    """What votes are worth is learned from other items than those that the promise is shown with."""
    strategy = Ensemble(method="dawid_skene", wrong=0.3)
    prepared, session = await strategy.prepare(opened(THREE, strategy))
    assert isinstance(prepared, Ensemble)
    whom, promise = session.cards
    shown = int(promise.facts["items that it was shown with"])
    assert whom.facts["tune items"] == 60
    assert shown <= 60
    assert 0 < prepared.sure <= 1


async def test_one_of_several_may_be_away_where_that_is_allowed() -> None:
    away = {"a": ScriptedModel({"item": "red"}), "b": Down(), "c": ScriptedModel({"item": "red"})}
    with pytest.raises(UnreachableError):
        await Ensemble().answer(opened(away, Ensemble()).bind("x"), user("item 1"))
    strategy = Ensemble(missing=1)
    answer = await strategy.answer(opened(away, strategy).bind("x"), user("item 1"))
    assert answer.text == "red"
    assert answer.confidence == pytest.approx(2 / 3)
    nobody = {"a": Down(), "b": Down()}
    many = Ensemble(missing=5)
    with pytest.raises(UnreachableError):
        await many.answer(opened(nobody, many).bind("x"), user("item 1"))


async def test_learning_needs_a_closed_set_of_answers() -> None:
    strategy = Ensemble(method="dawid_skene")
    session = opened(THREE, strategy)
    free = Session(session.owner, session.lm, Sampling(), peers=session.peers)
    with pytest.raises(CapabilityError, match="closed set of answers"):
        await strategy.prepare(free)
    assert session.totals.messages == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sure": -0.1}, "sure"),
        ({"sure": 0.5, "wrong": 0.1}, "one of sure and wrong"),
        ({"wrong": 1.5}, "wrong"),
        ({"usd_per_1k": 1.0}, "give a method that learns"),
        ({"usd_per_1k": -1.0, "method": "stacking"}, "below 0"),
        ({"missing": -1}, "missing"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ensemble(**options)  # type: ignore[arg-type]


def test_nothing_is_left_out_when_an_item_is() -> None:
    """The left-out evidence against counting again without the item."""
    from cosilo.strategies.inference import voting

    ballot, targets = drawn((0.8, 0.5), n=25)
    fast = voting._left_out(ballot, targets, 4.0)
    for i in range(25):
        rest = np.delete(np.arange(25), i)
        evidence = voting._evidence(ballot.of(rest), targets[rest], 4.0)
        slow = sum(evidence[m][:, ballot.votes[i, m]] for m in range(2))
        assert fast[i] == pytest.approx(slow)
    assert math.isfinite(float(fast.sum()))
