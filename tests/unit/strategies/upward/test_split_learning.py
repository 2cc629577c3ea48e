"""What `split_learning` refuses, and when."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("peft", reason="the torch extra is not installed")

from cosilo.attacks.states import every, recover
from cosilo.boundary.messages import Backward, Forward, decode
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import CapabilityError, ConfigError, DataError, RejectedError
from cosilo.models.base import EVERYTHING, Access, Shows
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.bodies import BodyTuning, ClientBodies
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.types import Answer, Demonstration, Sampling, user
from white_box import SHORT, owner, tiny

TUNING = BodyTuning(rank=2, learning_rate=1e-2)


def opened(
    folder: Path,
    *,
    small: Any = None,
    large: Any = None,
    exposes: Shows = EVERYTHING,
    tuning: BodyTuning | None = TUNING,
    has: DataOwner | None = None,
    **options: Any,
) -> tuple[Any, Session, MemoryLedger]:
    usual = {"layers": 1, "rank": 2, "batch": 4, "items": 8, "key_file": folder / "key"}
    method = strategies.create("split_learning", **{**usual, **options})
    bodies = None if tuning is None else ClientBodies(tuning)
    lm = LMOwner(large or tiny(1, layers=4), exposes, bodies=bodies)
    ledger = MemoryLedger()
    party = has or owner(small or tiny(1, layers=4))
    return method, open_session(party, lm, method, sampling=SHORT, ledger=ledger), ledger


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": -1}, "negative"),
        ({"layers": 0, "tail": 0}, "nothing at home"),
        ({"rank": 0}, "rank = 0"),
        ({"learning_rate": float("nan")}, "not positive and finite"),
        ({"states_up": "mp3"}, "states_up: no codec named"),
        ({"gradients_down": "topk:7"}, "gradients_down: no codec"),
        ({"noise": float("inf")}, "noise"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_are_refused_by_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=says):
        strategies.create("split_learning", **options)


@pytest.mark.parametrize("count", [3, 8, 9, 500])
@pytest.mark.parametrize("epochs", [0.5, 1.0, 3.0])
def test_no_more_steps_than_were_expected(count: int, epochs: float) -> None:
    method: Any = strategies.create("split_learning", batch=8, epochs=epochs)
    for kind in (Forward, Backward):
        said = [e for e in method.forecast() if e.message is kind and e.about != "answers"]
        most = sum(e.count({"gold": count, "once": 1}[e.about]) for e in said)
        assert method._steps(count) <= most <= method._steps(count) + 4


async def test_an_owner_that_shows_no_gradients_is_refused_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    with pytest.raises(CapabilityError, match="gradients"):
        opened(tmp_path, exposes=Access.ACTIVATIONS.shows)


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"tuning": None}, CapabilityError, "trains no adapters.*body = false"),
        ({"large": tiny(2, layers=4)}, RejectedError, "different models"),
        ({"large": tiny(1, layers=3)}, RejectedError, "different models"),
        ({"large": tiny(1, layers=4, words=("a", "b"))}, RejectedError, "different models"),
    ],
)
async def test_what_the_other_side_refuses_costs_one_message(
    tmp_path: Path, options: dict[str, Any], kind: type[Exception], says: str
) -> None:
    method, session, ledger = opened(tmp_path, **options)
    with pytest.raises(kind, match=f"(?s){says}"):
        await method.prepare(session)
    assert [e.kind for e in ledger.entries() if e.direction == "up"] == ["OpenBody"]


async def test_what_is_refused_at_home_sends_nothing(tmp_path: Path) -> None:
    empty = DataOwner(tiny(1, layers=4))
    unlabelled = replace(empty, private=(Demonstration("a", user("b"), ""),))
    for has in (empty, unlabelled):
        method, session, ledger = opened(tmp_path, has=has)
        with pytest.raises(DataError, match="there are none"):
            await method.prepare(session)
        assert not list(ledger.entries())
    method, session, ledger = opened(tmp_path, layers=3)
    with pytest.raises(ConfigError, match="leaves nothing to the large model"):
        await method.prepare(session)
    fitted = tiny(1, layers=4).fit(owner(count=2).private)
    method, session, ledger = opened(tmp_path, small=fitted)
    with pytest.raises(ConfigError, match="an adapter already"):
        await method.prepare(session)
    assert not list(ledger.entries())
    with pytest.raises(CapabilityError, match="weights"):
        opened(tmp_path, small=ScriptedModel())


async def test_texts_longer_than_the_context_are_cut_and_one_class_is_learned(
    tmp_path: Path,
) -> None:
    small = tiny(1, layers=4, context=64)
    long = tuple(Demonstration(str(i), user("about " * 200), "the refund") for i in range(4))
    method, session, _ = opened(
        tmp_path, small=small, large=tiny(1, layers=4, context=64),
        has=DataOwner(small, private=long), epochs=3, learning_rate=1e-2,
    )  # fmt: skip
    found, after = await method.prepare(session)
    (card,) = after.cards
    assert card.facts["different replies"] == 1
    assert card.facts["loss at the last step"] < card.facts["loss at the first step"]
    assert card.facts["tokens of all examples"] == 4 * 64
    again, _ = await found.prepare(session)
    assert again is found, "what was learned before is not learned again"


async def test_answers_come_from_both_hands_and_after_the_owner_came_back(tmp_path: Path) -> None:
    tuning = replace(TUNING, folder=tmp_path / "adapters")
    method, session, _ = opened(tmp_path, tuning=tuning, epochs=20, learning_rate=2e-2)
    found, session = await method.prepare(session)
    greedy = replace(session, sampling=Sampling(max_tokens=6))
    said = await found.answer(greedy, user("about 3"))
    assert said.by == "both"
    assert "refund" in said.text
    method, session, ledger = opened(
        tmp_path, tuning=tuning, small=session.owner.model, trained=found.trained,
        version=found.version, **{"epochs": 20, "learning_rate": 2e-2},
    )  # fmt: skip
    pieces = [
        piece
        async for piece in method.stream(
            replace(session, sampling=Sampling(max_tokens=6)), user("about 3")
        )
    ]
    assert isinstance(pieces[-1], Answer)
    assert pieces[-1].text == said.text
    kinds = [e.kind for e in ledger.entries() if e.direction == "up"]
    assert kinds.count("OpenBody") == 1
    with pytest.raises(RejectedError, match="plain text"):
        await found.answer(replace(session, sampling=Sampling(tools="[]")), user("about 3"))


async def test_after_another_training_the_noise_on_a_text_is_another(tmp_path: Path) -> None:
    first = []
    for trained in ("aa" * 16, "aa" * 16, "bb" * 16):
        method, session, ledger = opened(
            tmp_path, body=False, tuning=None, trained=trained, noise=0.5, clip=4.0
        )
        await method.answer(replace(session, sampling=Sampling(max_tokens=1)), user("about 3"))
        first.append(next(e.message for e in ledger.entries() if isinstance(e.message, Forward)))
    assert first[0] == first[1], "the same text says the same, so that it cannot be averaged"
    assert first[0].packed != first[2].packed
    assert first[0].release.draw != first[2].release.draw


@pytest.mark.parametrize("codec", ["fp16", "int4"])
async def test_who_knows_the_first_layers_reads_the_examples_in_the_record(
    tmp_path: Path, codec: str
) -> None:
    """Said plainly in the strategy's text: no codec hides what states say."""
    method, session, ledger = opened(tmp_path, states_up=codec, items=4, batch=2)
    await method.prepare(session)
    sent = [decode(e.payload or b"") for e in ledger.entries() if e.direction == "up"]
    first = next(message for message in sent if isinstance(message, Forward))
    model = tiny(1, layers=4)  # the curious side's own copy of a public model
    embedding = model.module.get_input_embeddings().weight.detach().numpy()
    right = count = 0
    known = [model.tokenize(e.chat, e.target).ids[:-1] for e in owner(model).private[:4]]
    for seen in first.arrays():
        found = await recover(model, embedding, seen, 1, every(len(embedding)))
        truth = max(
            known, key=lambda ids: sum(a == b for a, b in zip(ids, found.ids, strict=False))
        )
        right += sum(a == b for a, b in zip(truth, found.ids, strict=True))
        count += len(found.ids)
    assert right >= 0.95 * count
