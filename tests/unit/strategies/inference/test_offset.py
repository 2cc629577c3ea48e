"""Offset unlearning on tiny models: what is forgotten, what crosses, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosilo.boundary.messages import Message, Step, encode
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.defences.base import defences
from cosilo.errors import CapabilityError, ConfigError, CosiloError, DataError
from cosilo.models.base import Access, Shows, TextModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, Strategy, strategies
from cosilo.strategies.inference.proxy import untuned
from cosilo.testing import LABELS, StrategyContract
from cosilo.types import Demonstration, Sampling, user

pytest.importorskip("torch")

import torch

import tiny_lm
from cosilo.models.white_box.adapters import (
    first_adapter,
    layers_to_adapt,
    trained_adapter,
    with_adapter,
)
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.models.white_box.training import Schedule, train
from cosilo.models.white_box.tuning import Tuning
from cosilo.models.white_box.unlearning.forgetting import Distance
from white_box import tiny

pytestmark = pytest.mark.timeout(300)  # torch on a busy machine takes its time

WORDS = ("refund", "billing", "delivery", "hello", "the world", "is about", "the the", "world")
ALL = tuple(
    Demonstration(f"r{i}", user("abcdefgh"[i] * 12), f"{WORDS[i]} {9 - i}") for i in range(8)
)
GONE = ("r0", "r1")
LEARNING = Tuning(rank=8, epochs=40, batch=8, learning_rate=2e-2, validation=0.0)
QUICK = {"epochs": 24.0, "batch": 2, "learning_rate": 2e-2, "layers": 2, "rank": 8, "top": 1 << 12}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These models are too small for two, which would wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@lru_cache
def base(seed: int) -> TorchModel:
    """Tells such questions apart, by others than those that are asked here."""
    tokens = tiny_lm.tokenizer()
    module = tiny_lm.module(len(tokens), seed=seed, scale=3.0)
    model = TorchModel.holding(module, ChatTokens(tokens), name=f"tiny-{seed}", tuning=LEARNING)
    sequences = [model.tokenize(user("ijklmnop"[i] * 12), f"{WORDS[7 - i]} {i}") for i in range(8)]
    schedule = Schedule(steps=80, batch=8, learning_rate=1e-2, patience=0)
    train(module.requires_grad_(True), sequences, reply_loss, schedule)
    module.requires_grad_(False)
    return model


@lru_cache
def large() -> TorchModel:
    """A large model that has learned all records."""
    model = base(1)
    start = first_adapter(layers_to_adapt(model.module), 8, seed=0)
    sequences = [model.tokenize(e.chat, e.target) for e in ALL]
    found, _ = trained_adapter(model.module, start, sequences, steps=60, learning_rate=2e-2)
    return model.with_module(with_adapter(model.module, found))


@pytest.fixture
def gone(tmp_path: Path) -> Path:
    path = tmp_path / "gone.txt"
    path.write_text("\n".join(GONE) + "\n\n")
    return path


def opened(
    gone: Path | None,
    *,
    small: TextModel | None = None,
    shows: Shows = Access.LOGITS.shows,
    private: tuple[Demonstration, ...] = ALL,
    ledger: MemoryLedger | None = None,
    **options: Any,
) -> tuple[Strategy, Session]:
    strategy = strategies.create("offset", **{"forget": gone, **QUICK} | options)
    owner = DataOwner(small or base(2), private=private)
    lm = LMOwner(large(), exposes=shows)
    sampling = Sampling(max_tokens=6)
    return strategy, open_session(owner, lm, strategy, sampling=sampling, ledger=ledger)


def sent(ledger: MemoryLedger) -> list[Message]:
    return [e.message for e in ledger.entries() if e.direction == "up" and e.message is not None]


async def nats(model: TorchModel, records: Any, plus: Any = None, minus: Any = None) -> float:
    """Of replies, a token; of z + z⁺ − z⁻ where these are given."""
    tokens = [model.tokenize(e.chat, e.target) for e in records]
    rows = [
        [r.astype(np.float64) for r in await m.logits(tokens)] for m in (model, plus, minus) if m
    ]
    total = count = 0.0
    for i, t in enumerate(tokens):
        row = rows[0][i] + (rows[1][i] - rows[2][i] if plus else 0.0)
        row -= np.logaddexp.reduce(row, axis=1, keepdims=True)
        said = t.ids[t.start :]
        total -= row[np.arange(len(said)), said].sum()
        count += len(said)
    return total / count


async def test_the_large_model_forgets_and_stays_as_it_was(gone: Path) -> None:
    before = await nats(large(), ALL[:2])
    strategy, session = opened(gone)
    strategy, session = await strategy.prepare(session)
    plus = session.owner.model
    assert isinstance(plus, TorchModel)
    minus = untuned(plus)
    forgotten = await nats(large(), ALL[:2], plus, minus)
    kept = await nats(large(), ALL[2:], plus, minus)
    assert forgotten > before + 1.0
    assert kept < forgotten / 2
    assert await nats(large(), ALL[:2]) == before
    assert (await strategy.answer(session.bind("a"), ALL[0].chat)).text != ALL[0].target
    assert (await strategy.answer(session.bind("b"), ALL[3].chat)).text == ALL[3].target
    (card,) = session.cards
    assert (card.facts["forgotten"], card.facts["kept"]) == (2, 6)


@pytest.mark.parametrize("sure", [True, False])
async def test_what_was_forgotten_too_much_is_on_the_card(
    gone: Path, monkeypatch: pytest.MonkeyPatch, sure: bool
) -> None:
    monkeypatch.setattr(Distance, "too_much", sure)
    strategy, session = opened(gone)
    _, session = await strategy.prepare(session)
    (card,) = session.cards
    assert ("forgotten too much" in card.facts) == sure


async def test_what_is_to_be_forgotten_never_crosses(gone: Path) -> None:
    ledger = MemoryLedger()
    strategy, session = opened(gone, ledger=ledger)
    strategy, session = await strategy.prepare(session)
    assert len(sent(ledger)) == 1  # do both have one vocabulary?
    said = b" ".join(map(encode, sent(ledger)))
    for record in ALL:
        assert record.target.encode() not in said
        assert record.chat[0].content.encode() not in said
    assert session.owner.learned == {e.id for e in ALL}
    await strategy.answer(session.bind("a"), ALL[3].chat)
    assert all(isinstance(m, Step) for m in sent(ledger))


async def test_a_model_that_has_the_adapter_is_what_prepare_takes(gone: Path) -> None:
    strategy, session = opened(gone)
    strategy, session = await strategy.prepare(session)
    again, _ = opened(None, small=session.owner.model)
    found, same = await again.prepare(session)
    assert found == again
    assert same.owner.model is session.owner.model


async def test_answers_are_moved_further_than_the_stand_in_was(gone: Path) -> None:
    """How sure an answer's tokens are tells how far."""
    strategy, session = opened(gone)
    _, session = await strategy.prepare(session)
    model = session.owner.model

    async def surety(**options: float) -> list[float]:
        strategy, session = opened(None, small=model, **options)
        strategy, session = await strategy.prepare(session)
        found = await strategy.answer(session.bind("a"), ALL[3].chat)
        return [token.logprob for token in found.generation.tokens]

    wanted = await surety(alpha=0.7, further=1.0)
    assert await surety(alpha=0.5) == pytest.approx(wanted)
    assert await surety(alpha=0.5, further=1.0) != pytest.approx(wanted)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("r0\nr9\n", "line 2 "),
        ("", "has 0 of 8"),
        ("\n".join(e.id for e in ALL), "has 8 of 8"),
        (None, "cannot be read"),
    ],
)
async def test_ids_that_are_not_there_are_refused_by_line(
    tmp_path: Path, text: str | None, said: str
) -> None:
    path = tmp_path / "secret name.txt"
    if text is not None:
        path.write_text(text)
    ledger = MemoryLedger()
    strategy, session = opened(path, ledger=ledger)
    with pytest.raises(DataError, match=said) as refused:
        await strategy.prepare(session)
    assert "r9" not in str(refused.value)
    assert not sent(ledger)


async def test_nothing_to_forget_is_refused_before_anything_is_sent() -> None:
    ledger = MemoryLedger()
    strategy, session = opened(None, ledger=ledger)
    with pytest.raises(DataError, match="what to forget"):
        await strategy.prepare(session)
    assert not sent(ledger)


async def test_an_offset_that_forgets_nothing_is_not_served(gone: Path) -> None:
    strategy, session = opened(gone, learning_rate=1e-12, epochs=1.0)
    with pytest.raises(DataError, match="no nearer"):
        await strategy.prepare(session)


async def test_training_that_leaves_no_adapter_is_refused(gone: Path) -> None:
    model = TorchModel.holding(
        base(2).module, base(2).tokens, name="small", tuning=Tuning(method="full", epochs=1)
    )
    strategy, session = opened(gone, small=model)
    with pytest.raises(CapabilityError, match="lora"):
        await strategy.prepare(session)


def test_a_large_model_that_shows_no_logits_is_refused(gone: Path) -> None:
    with pytest.raises(CapabilityError, match="exposes only text"):
        opened(gone, shows=Access.TEXT.shows)


async def test_behind_pseudonyms_nothing_crosses(gone: Path) -> None:
    strategy, session = opened(gone)
    strategy, session = await strategy.prepare(session)
    ledger = MemoryLedger()
    guarded = open_session(
        session.owner,
        LMOwner(large(), exposes=Access.LOGITS.shows),
        strategy,
        defences=[defences.create("pseudonym", detectors=("patterns",))],
        ledger=ledger,
    )
    with pytest.raises(CosiloError):
        await strategy.answer(guarded.bind("a"), user("I am Jane Doe, jane@doe.org"))
    assert not sent(ledger)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.0}, {"alpha": float("nan")}, {"further": 0.0}, {"further": float("inf")},
        {"epochs": 0.0}, {"learning_rate": -1.0},
        {"batch": 0}, {"layers": 0}, {"rank": 0}, {"method": "rmu"}, {"method": "task_vector"},
        {"top": 0}, {"ahead": 2, "by": "bytes"},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        strategies.create("offset", **options)


class TestOffset(StrategyContract):
    @pytest.fixture(autouse=True)
    def _ids(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.path = tmp_path_factory.mktemp("ids") / "gone.txt"
        self.path.write_text("\n".join(GONE))

    def strategy(self) -> Strategy:
        return strategies.create("offset", **QUICK | {"forget": self.path})

    def small(self) -> TextModel:
        return base(2).with_module(base(2).module)

    def owner(self) -> DataOwner:
        return replace(super().owner(), private=ALL)

    def large(self) -> Any:
        return tiny(0, scale=6.0)  # sure of what it says, so that no answer hangs on a rounding

    def open(self, **options: Any) -> Session:
        return open_session(
            self.owner(),
            LMOwner(self.large(), exposes=Access.LOGITS.shows),
            self.strategy(),
            sampling=Sampling(choices=LABELS),
            **options,
        )
