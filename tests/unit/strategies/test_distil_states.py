"""What the LM's states tell apart, the small model learns to; the gold labels stay at home."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bag import Bag
from cosilo.boundary.messages import Ask, Read, States
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import CapabilityError, ConfigError, DataError, UnexpectedReplyError
from cosilo.models.base import Access, Shows
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.strategies.downward.distil_states import reduced, together
from cosilo.types import Demonstration, Sampling, user
from meaning import Meaning

FRUITS = ["apple", "pear", "plum", "cherry", "grape", "melon", "fig", "lime"]
TOOLS = ["saw", "drill", "file", "plane", "vice", "clamp", "level", "chisel"]
MEANS = dict.fromkeys(FRUITS, "fruit") | dict.fromkeys(TOOLS, "tool")
GOLD = [(w, "eat") for w in FRUITS[:3]] + [(w, "make") for w in TOOLS[:3]]
"""The small model sees three words of each kind with labels; the pool has them beside all others."""


def owner(count: int = 60) -> DataOwner:
    rng = np.random.default_rng(0)
    private = [
        Demonstration(f"g{i}", user(f"the {word} please {i}"), label)
        for i, (word, label) in enumerate(GOLD * 3)
    ]
    pool = []
    for i in range(count):
        words = rng.choice((FRUITS, TOOLS)[i % 2], 2, replace=False)
        pool.append(Demonstration(f"p{i}", user(f"{words[0]} and {words[1]} for {i}"), ""))
    return DataOwner(Bag(), private=tuple(private), pool=tuple(pool))


def opened(
    lm: Any = None, *, of: DataOwner | None = None, exposes: Shows = Access.ACTIVATIONS.shows,
    ledger: MemoryLedger | None = None, **options: Any,
) -> tuple[Any, Session]:  # fmt: skip
    how = strategies.create("distil_states", **options)
    sampling = Sampling(choices=("eat", "make"))
    party = LMOwner(lm or Meaning(MEANS), exposes=exposes)
    return how, open_session(of or owner(), party, how, sampling=sampling, ledger=ledger)


UNSEEN = [*FRUITS[3:], *TOOLS[3:]]
RIGHT = ["eat"] * 5 + ["make"] * 5


def said(model: Any) -> list[str]:
    rows = model.probabilities(UNSEEN)
    return [model.labels[i] for i in rows.argmax(axis=1)]


async def test_words_without_a_label_are_learned_from_the_states() -> None:
    how, session = opened(trust=1.0)
    _, taught = await how.prepare(session)
    assert said(taught.owner.model) == RIGHT
    alone = Bag().fit(session.owner.private)
    assert len(set(said(alone))) == 1  # by itself it knows none of these words
    facts = taught.cards[-1].facts
    assert facts["gold texts read"] == 18
    assert facts["pool texts read"] == 60
    assert facts["accuracy of the states' head on gold, held out"] == 1.0


async def test_texts_cross_in_their_frame_and_labels_do_not() -> None:
    ledger = MemoryLedger()
    lm = Meaning(MEANS)
    how, session = opened(lm, ledger=ledger, frame="It says {text} : ")
    await how.prepare(session)
    up = [e.message for e in ledger.entries() if e.direction == "up"]
    down = [e.message for e in ledger.entries() if e.direction == "down"]
    assert all(isinstance(m, Read) for m in up)
    assert all(isinstance(m, States) for m in down)
    texts = [t for m in up if isinstance(m, Read) for t in m.texts]
    assert len(texts) == 78
    assert all(t.startswith("It says ") and t.endswith(" : ") for t in texts)
    assert not any("eat" in t or "make" in t for t in texts)
    assert session.lm.totals.tokens_in == sum(len(t.split()) for t in lm.read)
    assert session.lm.totals.tokens_out == 0


async def test_so_many_pool_items_are_read() -> None:
    lm = Meaning(MEANS)
    how, session = opened(lm, items=7)
    _, taught = await how.prepare(session)
    assert taught.cards[-1].facts["pool texts read"] == 7
    assert len(lm.read) == 25


async def test_a_layer_that_knows_nothing_yet_teaches_nothing() -> None:
    how, session = opened(layer=1, trust=1.0)
    _, taught = await how.prepare(session)
    assert taught.cards[-1].facts["accuracy of the states' head on gold, held out"] < 1.0


async def test_without_trust_the_states_change_nothing() -> None:
    how, session = opened(trust=0.0)
    _, taught = await how.prepare(session)
    other, again = opened(Meaning(dict.fromkeys(MEANS, "thing")), trust=0.0)
    _, blind = await other.prepare(again)
    texts = ["apple", "saw", "plum and fig"]
    np.testing.assert_array_equal(
        taught.owner.model.probabilities(texts), blind.owner.model.probabilities(texts)
    )


async def test_a_model_that_shows_no_states_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(
        CapabilityError, match="needs states of the large model, but lm-owner exposes only"
    ):
        opened(exposes=Access.LOGITS.shows)
    how, session = opened(ScriptedModel())  # an owner that says it shows more than its model can
    with pytest.raises(CapabilityError, match="activations"):
        await how.prepare(session)


@pytest.mark.parametrize(("private", "pool"), [(True, False), (False, True)])
async def test_gold_and_a_pool_are_both_needed(private: bool, pool: bool) -> None:
    whole = owner()
    part = DataOwner(
        Bag(), private=whole.private if private else (), pool=whole.pool if pool else ()
    )
    lm = Meaning(MEANS)
    how, session = opened(lm, of=part)
    with pytest.raises(DataError, match="gold examples and a pool"):
        await how.prepare(session)
    assert not lm.read


async def test_states_of_another_number_of_texts_are_refused() -> None:
    class Short(LMOwner):
        async def handle(self, message: Any) -> Any:
            return States(packed=b"\0" * 6)

    how = strategies.create("distil_states")
    session = open_session(
        owner(),
        Short(Meaning(MEANS), exposes=Access.ACTIVATIONS.shows),
        how,
        sampling=Sampling(choices=("eat", "make")),
    )
    with pytest.raises(UnexpectedReplyError, match="hidden states"):
        await how.prepare(session)


@pytest.mark.parametrize(
    "options",
    [{"items": 0}, {"frame": "no place"}, {"frame": "{text}{text}"}, {"layer": -1},
     {"trust": -0.1}, {"sharpness": 0.0}, {"weight": 0.0}],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        strategies.create("distil_states", **options)


def test_it_asks_for_nothing_in_words_unless_what_follows_does() -> None:
    assert strategies.create("distil_states").needs.sends == {Read}
    assert strategies.create("distil_states", then="cascade").needs.sends == {Read, Ask}


def test_channels_count_alike_and_rows_have_length_one() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 12)).astype(np.float32)
    loud = x.copy()
    loud[:, 4] *= 1000
    loud += 7
    np.testing.assert_allclose(np.abs(reduced(loud)), np.abs(reduced(x)), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(reduced(x, 5), axis=1), 1, atol=1e-5)
    assert reduced(x, 5).shape == (50, 5)
    whole = reduced(x)
    unit = (x - x.mean(0)) / x.std(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(whole @ whole.T, unit @ unit.T, atol=1e-4)  # a rotation


def test_views_are_multiplied_and_small_shares_dropped() -> None:
    own = np.array([[0.6, 0.4, 0.0], [0.98, 0.01, 0.01]])
    told = np.array([[0.2, 0.8, 0.0], [0.5, 0.25, 0.25]])
    both = together(own, told, 1.0)
    assert both[0] == pytest.approx([0.12 / 0.44, 0.32 / 0.44, 0])
    assert both[1] == pytest.approx([1, 0, 0])
    assert together(own, told, 0.0)[0] == pytest.approx([0.6, 0.4, 0])
    sharp = together(own, told, 1.0, 2.0)[0]
    assert sharp == pytest.approx([0.12**2 / (0.12**2 + 0.32**2), 0.32**2 / (0.12**2 + 0.32**2), 0])
