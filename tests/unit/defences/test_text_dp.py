"""Words replaced at random, through the real boundary: what the LM sees, and what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from cosilo.boundary.messages import Ask, Completion, Message, Read
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.defences import text_dp
from cosilo.defences.base import Defence, defences
from cosilo.defences.text_dp import TextDP
from cosilo.errors import ConfigError, PrivacyError, UnprotectableError
from cosilo.models.encoder.word_table import WordTable, words_in
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.privacy.account import PrivacyAccount, PrivacyConfig
from cosilo.privacy.mechanisms import WordNoise
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.testing import DefenceContract
from cosilo.types import Chat, Demonstration, Generation, Sampling, ToolCall, Turn, last_user, user

LINE = (
    "the a of card bank money shop was my in lost stolen please help thanks red blue green one two "
    "three four five six seven london paris berlin rome madrid"
)
WORDS = tuple(LINE.split(" "))
SENTENCE = "My card was stolen in Berlin, please help! Account 4711-22, Ms. Kowalczyk."


def table(source: object, size: int) -> WordTable:
    rows = np.random.default_rng(3).normal(size=(len(WORDS), 6)).astype(np.float32)
    return WordTable(WORDS[:size], rows[:size])


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_dp, "word_table", table)


def make(folder: Path, **options: Any) -> TextDP:
    chosen = {"words": len(WORDS), "group": 5, "key_file": folder / "key", **options}
    return TextDP(**chosen)


class TestContract(DefenceContract):
    puts_back: ClassVar[bool] = False

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def defence(self) -> Defence:
        return make(self.folder)


async def sent(defence: Defence, chat: Chat, *, request: str = "r", **sampling: Any) -> Ask:
    seen: list[Message] = []

    async def forward(message: Message) -> Message:
        seen.append(message)
        return Completion(generation=Generation("fine"))

    ask = Ask(chat=chat, sampling=Sampling(**sampling))
    reply = await defence.guard(ask, forward, request=request)
    assert reply == Completion(generation=Generation("fine")), "nothing in it is changed"
    (message,) = seen
    assert isinstance(message, Ask)
    return message


@pytest.mark.parametrize("mechanism", ["santext", "custext", "rantext"])
async def test_only_words_of_the_vocabulary_cross(tmp_path: Path, mechanism: Any) -> None:
    defence = make(tmp_path, mechanism=mechanism, epsilon=4.0)
    said = last_user((await sent(defence, user(SENTENCE))).chat)
    assert len(said.split()) == len(words_in(SENTENCE)), "how many there are is all that is kept"
    assert set(said.split()) <= set(WORDS)
    for outside in ("4711", "22", "kowalczyk", "account", "Berlin", "!", ","):
        assert outside not in said
    assert defence.word_counts("r") == {"word": 8, "kept": 0, "unknown": 5}


async def test_what_the_vocabulary_does_not_hold_is_drawn_evenly(tmp_path: Path) -> None:
    defence = make(tmp_path, epsilon=40.0)
    names = " ".join(f"zz{i}" for i in range(3000))
    said = last_user((await sent(defence, user(names))).chat).split()
    counts = np.array([said.count(word) for word in WORDS])
    assert counts.min() > 60, counts  # 100 expected of each
    assert counts.max() < 140, counts


async def test_the_same_text_says_the_same_and_another_callers_does_not(tmp_path: Path) -> None:
    chat = user(SENTENCE)
    first = await sent(make(tmp_path), chat)
    again = await sent(make(tmp_path), (*chat, Turn("assistant", "fine"), *user("thanks")))
    assert again.chat[0] == first.chat[0], "a history that is sent again cannot be averaged"
    assert await sent(make(tmp_path), chat) == first
    other = make(tmp_path)
    other.bind(lambda request: request.encode())
    assert (await sent(other, chat, request="a")).chat != (await sent(other, chat)).chat
    assert (await sent(make(tmp_path, key_file=tmp_path / "k2"), chat)).chat != first.chat
    assert (await sent(make(tmp_path, epsilon=6.1), chat)).chat != first.chat


async def test_a_message_says_what_was_spent_on_it_where_something_is_promised(
    tmp_path: Path,
) -> None:
    santext = await sent(make(tmp_path, epsilon=2.0, kept=3), user(SENTENCE))
    assert santext.release is not None
    assert (santext.release.unit, santext.release.neighbours) == ("text", "replace")
    stated = santext.release.mechanism
    assert isinstance(stated, WordNoise)
    rows = np.log(text_dp.kernel("santext", table("", 30).vectors, 2.0).rows([*range(30), -1]))
    worst = max((a - b).max() for a in rows for b in rows)
    assert stated.words == 13
    assert stated.bound == santext.epsilon == pytest.approx(13 * worst)
    assert stated.kept == 3
    custext = await sent(make(tmp_path, mechanism="custext", epsilon=2.0), user(SENTENCE))
    assert custext.epsilon == pytest.approx(26.0)
    rantext = await sent(make(tmp_path, mechanism="rantext", epsilon=2.0), user(SENTENCE))
    assert rantext.epsilon == 0
    assert rantext.release is not None
    assert "no guarantee" in str(rantext.release.mechanism)


async def test_words_that_are_kept_are_counted_at_home_and_not_told(tmp_path: Path) -> None:
    defence = make(tmp_path, mechanism="custext", kept=10, chance=1.0)
    message = await sent(defence, user("my card was stolen in the shop"))
    said = last_user(message.chat).split()
    assert [said[i] for i in (0, 1, 2, 4, 5, 6)] == ["my", "card", "was", "in", "the", "shop"]
    assert defence.word_counts("r") == {"word": 1, "kept": 6, "unknown": 0}
    assert message.release is not None
    stated = message.release.mechanism
    assert isinstance(stated, WordNoise)
    assert stated.words == 7, "how many of them were kept would tell something of the text"


async def test_labels_and_the_tasks_own_lines_stay(tmp_path: Path) -> None:
    system = "Sort the complaint.\n\nLabels:\n- lost card"
    chat = user("my card was stolen", system=f"{system}\nThe customer is Ms. Kowalczyk.")
    message = await sent(make(tmp_path, instructions=(system,)), chat, choices=("lost card", "x"))
    assert message.sampling.choices == ("lost card", "x")
    *lines, last = message.chat[0].content.splitlines()
    assert lines == system.splitlines()
    assert set(last.split()) <= set(WORDS)
    assert len(last.split()) == 5
    alone = await sent(make(tmp_path), user("x", system=system))
    assert "complaint" not in alone.chat[0].content, "without being told so, nothing is public"


@pytest.mark.parametrize(
    ("turn", "sampling", "what"),
    [
        (Turn("user", "hi", name="Jane"), {}, "name"),
        (
            Turn("assistant", tool_calls=(ToolCall("c1", "look", '{"who": "Jane"}'),)),
            {},
            "arguments",
        ),
        (Turn("user", "hi"), {"tools": '[{"type": "function"}]'}, "tools"),
        (Turn("user", "hi"), {"response_format": '{"type": "json_object"}'}, "form"),
        (Turn("user", "hi"), {"stop": ("Jane",)}, "stop"),
        (Turn("assistant", "hi", other_texts=(("reasoning", "Jane"),)), {}, "aside"),
    ],
)
async def test_what_is_no_plain_text_is_not_sent(
    tmp_path: Path, turn: Turn, sampling: Any, what: str
) -> None:
    with pytest.raises(UnprotectableError, match=what) as caught:
        await sent(make(tmp_path), (turn,), **sampling)
    assert "Jane" not in str(caught.value)


async def test_no_other_message_passes(tmp_path: Path) -> None:
    async def forward(message: Message) -> Message:
        raise AssertionError("sent")

    with pytest.raises(PrivacyError, match="Read"):
        await make(tmp_path).guard(Read(texts=("my card",), layer=1), forward, request="r")


async def test_a_table_that_fails_sends_nothing_and_quotes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: WordTable, words: Sequence[str], unknown: int) -> list[int]:
        raise RuntimeError(" ".join(words))

    monkeypatch.setattr(WordTable, "find", broken)
    with pytest.raises(PrivacyError, match="RuntimeError") as caught:
        await sent(make(tmp_path), user("my card"))
    assert "card" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mechanism": "dp"}, "none of santext"),
        ({"epsilon": 0}, "epsilon = 0"),
        ({"group": 1}, "group = 1"),
        ({"kept": -1}, "kept = -1"),
        ({"kept": 30}, "kept = 30"),
        ({"chance": 2.0}, "chance = 2.0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        defences.create("text_dp", **{"words": 30, "group": 5, **options})


async def test_under_a_budget_of_records_nothing_is_sent_that_it_cannot_hold(
    tmp_path: Path,
) -> None:
    """ε of a text's words is none of a record's: it is not added to the book, and not let past it."""
    ledger, record = MemoryLedger(), Demonstration("1", user("x"), "y")

    async def ask(epsilon: float | None) -> None:
        config = PrivacyConfig(book=tmp_path / "book", epsilon=epsilon)
        session = open_session(
            DataOwner(ScriptedModel()),
            LMOwner(ScriptedModel()),
            strategies.create("large"),
            defences=[make(tmp_path)],
            ledger=ledger,
            account=PrivacyAccount(config, [record], spender="s"),
        )
        await session.lm.send(Ask(chat=user(SENTENCE)))

    with pytest.raises(PrivacyError, match="not by which mechanism on which records"):
        await ask(8.0)
    assert not list(ledger.entries())
    await ask(None)
    assert not (tmp_path / "book").exists()
    up, _ = ledger.entries()
    assert isinstance(up.message, Ask)
    assert "Kowalczyk" not in repr(up.message)
    assert up.message.epsilon > 0


def test_the_raw_text_never_crosses(tmp_path: Path) -> None:
    model = ScriptedModel()
    session = open_session(
        DataOwner(ScriptedModel()),
        LMOwner(model),
        strategy := strategies.create("large"),
        defences=[make(tmp_path, mechanism="rantext", epsilon=1.0)],
    )
    asyncio.run(strategy.answer(session.bind("r"), user(SENTENCE)))
    (chat,) = model.seen
    assert not {"kowalczyk", "4711", "22", "account", "ms"} & set(last_user(chat).split())


@pytest.mark.models("minilm-int8")
async def test_near_words_come_out_of_a_real_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    defence = TextDP(epsilon=12.0, words=400, key_file=tmp_path / "key")
    await defence.open()
    given = words_in("she was in the house " * 20)
    said = last_user((await sent(defence, user(" ".join(given)))).chat).split()
    kept = sum(a == b for a, b in zip(said, given, strict=True))
    assert 10 < kept < 100
