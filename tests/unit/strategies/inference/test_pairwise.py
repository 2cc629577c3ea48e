"""An ensemble that compares answers two by two: what it learns, what it needs, what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from a_writer import WordEmbedder
from cosilo.errors import CapabilityError, ConfigError, UnreachableError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import Side, open_session
from cosilo.strategies.base import Session
from cosilo.strategies.inference.ensemble import Ensemble
from cosilo.strategies.inference.pairs import Answers, option
from cosilo.strategies.inference.pairwise import PairRanker
from cosilo.types import Chat, Demonstration, Sampling, last_user, user

LABELS = ("refund", "billing", "parcel")
Says = Callable[[Chat], str]


def about(i: int) -> str:
    return f"request {i} about my {LABELS[i % 3]}"


def right(chat: Chat) -> str:
    return next(label for label in LABELS if label in last_user(chat))


def wrong(chat: Chat) -> str:
    return LABELS[(LABELS.index(right(chat)) + 1) % 3]


def alternating(chat: Chat) -> str:
    return (right if int(last_user(chat).split()[1]) % 2 else wrong)(chat)


def opened(
    says: Mapping[str, Says],
    *,
    choices: tuple[str, ...] = LABELS,
    encoder: bool = True,
    count: int = 40,
) -> Session:
    sides = {name: Side(lm=LMOwner(ScriptedModel(of))) for name, of in says.items()}
    (name, first), *others = sides.items()
    examples = tuple(
        Demonstration(str(i), user(about(i)), LABELS[i % 3] if choices else "")
        for i in range(count)
    )

    def grade(example: Demonstration, reply: str) -> float:
        return float(reply.removeprefix("It is a ").strip(".") in last_user(example.chat))

    owner = DataOwner(
        ScriptedModel(wrong),
        calibration=examples,
        embedder=WordEmbedder() if encoder else None,
        grade=grade,
    )
    return open_session(
        owner,
        first.lm,
        Ensemble(),
        sampling=Sampling(choices=choices),
        name=name,
        others=dict(others),
    )


TWO_WRONG: Mapping[str, Says] = {"a": wrong, "b": wrong, "c": right}


async def test_the_better_answer_is_found_where_most_are_wrong() -> None:
    strategy = Ensemble(method="pairwise", own=False)
    prepared, session = await strategy.prepare(opened(TWO_WRONG))
    for i in range(100, 112):
        answer = await prepared.answer(session.bind(str(i)), user(about(i)))
        assert (answer.text, answer.by) == (LABELS[i % 3], "large")
        assert (answer.confidence or 0) > 0.5
    (card,) = session.cards
    assert card.facts["pairs learned from"] == 40


async def test_texts_are_compared_too_and_learned_from_their_grades() -> None:
    says = {name: (lambda chat, of=of: f"It is a {of(chat)}.") for name, of in TWO_WRONG.items()}
    prepared, session = await Ensemble(method="pairwise").prepare(opened(says, choices=()))
    answer = await prepared.answer(session.bind("x"), user(about(101)))
    assert (answer.text, answer.by) == ("It is a parcel.", "both")


async def test_in_whatever_order_the_models_come_the_same_is_answered() -> None:
    says: Mapping[str, Says] = {"a": wrong, "b": alternating, "c": right}
    found = set()
    for order in permutations(says):
        strategy = Ensemble(method="pairwise")
        prepared, session = await strategy.prepare(opened({name: says[name] for name in order}))
        answers = [
            await prepared.answer(session.bind(str(i)), user(about(i))) for i in range(60, 70)
        ]
        found.add(tuple((a.text, a.confidence) for a in answers))
    assert len(found) == 1


async def test_who_is_away_only_has_no_vote() -> None:
    def away(chat: Chat) -> str:
        raise UnreachableError("the large model is away")

    prepared, _ = await Ensemble(method="pairwise", own=False, missing=1).prepare(opened(TWO_WRONG))
    later = opened({**TWO_WRONG, "b": away})
    answer = await prepared.answer(later.bind("x"), user(about(101)))
    assert answer.text == LABELS[101 % 3]


async def test_what_is_in_doubt_is_abstained_from() -> None:
    strategy = Ensemble(method="pairwise", own=False, sure=0.999999)
    prepared, session = await strategy.prepare(opened(TWO_WRONG))
    assert (await prepared.answer(session.bind("x"), user(about(101)))).abstained


async def test_a_promise_is_shown_with_items_that_nothing_was_learned_from() -> None:
    strategy = Ensemble(method="pairwise", own=False, wrong=0.3)
    prepared, session = await strategy.prepare(opened(TWO_WRONG, count=120))
    learned, promise = session.cards
    assert learned.facts["tune items"] == 60
    assert int(promise.facts["items that it was shown with"]) <= 60
    assert isinstance(prepared, Ensemble)
    assert 0 < prepared.sure <= 1


async def test_without_an_encoder_nothing_is_asked() -> None:
    session = opened(TWO_WRONG, encoder=False)
    with pytest.raises(CapabilityError, match="embedder"):
        await Ensemble(method="pairwise").prepare(session)
    assert session.totals.messages == 0


def test_it_does_not_learn_whom_to_pay() -> None:
    with pytest.raises(ValueError, match="pairwise does not learn"):
        Ensemble(method="pairwise", usd_per_1k=1.0)


async def test_empty_answers_are_no_answers() -> None:
    session = opened({"a": lambda _: "", "b": lambda _: ""})
    with pytest.raises(CapabilityError, match="all the answers are empty"):
        await Ensemble(method="pairwise", own=False).prepare(session)


async def test_where_no_answer_is_better_votes_are_counted() -> None:
    never: Mapping[str, Says] = {
        "a": wrong,
        "b": wrong,
        "c": lambda c: LABELS[(LABELS.index(right(c)) + 2) % 3],
    }
    prepared, session = await Ensemble(method="pairwise", own=False).prepare(opened(never))
    answer = await prepared.answer(session.bind("x"), user(about(101)))
    assert answer.text == wrong(user(about(101)))
    assert (answer.confidence or 0) < 0.1


def test_what_was_learned_comes_back_from_its_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def drawn() -> Answers:
        vectors = rng.normal(size=(4, 5))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Answers(
            vectors[0], vectors[1:], np.array([0.5, 0.3, 0.2]), np.array([1.0, 0.0, 0.5])
        )

    items = [drawn() for _ in range(12)]
    fitted = PairRanker.fit(items)
    fitted.save(tmp_path)
    again = PairRanker.load(tmp_path)
    assert np.array_equal(again.margins(items[0]), fitted.margins(items[0]))
    assert again.choose(items[0]) == fitted.choose(items[0])
    with pytest.raises(ConfigError, match="no learned ranker"):
        PairRanker.load(tmp_path / "elsewhere")


def test_a_letter_is_read_as_the_option_under_it() -> None:
    asked = "Which one?\n\nA. a refund of 3. or more\nB) the bill\n(C) neither"
    assert [option(letter, asked) for letter in "ABCD"] == [
        "a refund of 3. or more",
        "the bill",
        "neither",
        None,
    ]
