"""The LM outlines from an instruction without its context; the small model fills in at home."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cosilo.boundary.messages import Ask
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.errors import ConfigError, PrivacyError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner, PrivateValue
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies, stream
from cosilo.strategies.inference.sketch import Sketch
from cosilo.types import Answer, Chat, Delta, Generation, Sampling, Turn, assemble, last_user, user

FORM = "Write a letter that comforts a friend.\n\nIt is for Ada Lovelace, whose cat died in Rome."
OUTLINE = "1. Say that you are sorry.\n2. Remember the cat.\n- Offer help."


def small(chat: Chat) -> str:
    told = last_user(chat)
    if told.startswith("Say in one sentence"):
        return "Write a letter of comfort."
    if "Write only the part" in told:
        return f"({told.rsplit(': ', 1)[1]}"
    return "Dear Ada, …" if "- Remember the cat." in told else "By myself."


class Study:
    def __init__(
        self, says: Callable[[Chat], str] = small, outline: str = OUTLINE, **options: Any
    ) -> None:
        async def finds(chat: Chat) -> tuple[PrivateValue, ...]:
            said = " ".join(turn.content for turn in chat)
            return tuple(PrivateValue(v, "PERSON") for v in ("Ada Lovelace",) if v in said)

        self.small = ScriptedModel(says)
        self.large = ScriptedModel(lambda _: outline)
        self.ledger = MemoryLedger()
        self.sampling: Sampling = options.pop("sampling", Sampling(max_tokens=60))
        self.owner = DataOwner(self.small, finds=finds)
        self.strategy = Sketch(**options)

    def open(self) -> Session:
        return open_session(
            self.owner, LMOwner(self.large), self.strategy, ledger=self.ledger,
            sampling=self.sampling,
        )  # fmt: skip

    async def answer(self, chat: Chat | str = FORM) -> Answer:
        chat = user(chat) if isinstance(chat, str) else chat
        whole = await self.strategy.answer(self.open().bind("a"), chat)
        pieces: list[Delta] = []
        streamed: Answer | None = None
        async for piece in stream(self.strategy, self.open().bind("b"), chat):
            if isinstance(piece, Answer):
                streamed = piece
            else:
                pieces.append(piece)
        assert streamed is not None
        assert whole.text == streamed.text == assemble(pieces).text
        assert whole.by == streamed.by
        return whole

    @property
    def left(self) -> str:
        sent = [e.message for e in self.ledger.entries() if e.direction == "up"]
        assert len(sent) == 2
        assert sent[0] == sent[1]
        assert isinstance(sent[0], Ask)
        assert sent[0].sampling == Sampling(max_tokens=self.sampling.max_tokens)
        (turn,) = sent[0].chat
        return turn.content


async def test_an_instruction_crosses_and_the_outline_is_filled_in_at_home() -> None:
    study = Study()
    answer = await study.answer()
    assert (answer.text, answer.by) == ("Dear Ada, …", "both")
    assert study.left.startswith("Write a letter of comfort.\n\nDo not write it. Give an outline")
    filling = last_user(study.small.seen[1])
    assert filling.startswith(FORM)
    assert "- Say that you are sorry.\n- Remember the cat.\n- Offer help." in filling


async def test_a_part_of_the_form_is_the_instruction() -> None:
    study = Study(split="marker")
    await study.answer()
    assert study.left.startswith("Write a letter that comforts a friend.\n\nDo not write it.")
    assert all("Say in one sentence" not in last_user(chat) for chat in study.small.seen)


async def test_the_system_turn_is_the_instruction() -> None:
    study = Study(split="system")
    await study.answer(user("It is for Ada Lovelace", system="Comfort a friend."))
    assert study.left.startswith("Comfort a friend.\n\nDo not write it.")


@pytest.mark.parametrize(
    ("options", "chat"),
    [
        ({"split": "marker"}, user("no marker in it")),
        ({"split": "marker"}, user("Write to Ada Lovelace.\n\nHer cat died.")),
        ({"split": "marker"}, (Turn("assistant", "Yes?"),)),
        ({"split": "system"}, user("no system turn")),
        ({"split": "system"}, user("To Ada Lovelace", system="Ada is your friend.")),
        ({"split": "marker", "verbatim": 3}, user("her cat died in Rome\n\nher cat died in Rome")),
        ({"split": "marker", "never": ("cat",)}, user("of a cat\n\nand more")),
        ({}, ()),
    ],
)
async def test_an_instruction_that_is_none_or_private_does_not_leave(
    options: dict[str, Any], chat: Chat
) -> None:
    study = Study(lambda _: "", **options)
    with pytest.raises(PrivacyError, match="sketch"):
        await study.strategy.answer(study.open(), chat)
    assert not list(study.ledger.entries())
    at_home = Study(lambda _: "", otherwise="small", **options)
    assert (await at_home.answer(chat)).by == "small"
    assert not list(at_home.ledger.entries())


@pytest.mark.parametrize("says", ["", "For Ada Lovelace.", None])
async def test_a_small_model_that_ignores_its_task_sends_nothing(says: str | None) -> None:
    study = Study(lambda chat: last_user(chat) if says is None else says)
    with pytest.raises(PrivacyError):
        await study.strategy.answer(study.open(), user(FORM))
    assert not list(study.ledger.entries())


async def test_points_are_expanded_side_by_side() -> None:
    together = asyncio.Barrier(3)

    class Waiting(ScriptedModel):
        """Writes no part before all of them are asked for."""

        async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
            if "Write only the part" in last_user(chat):
                assert sampling.max_tokens == 20
                await together.wait()
            return await super().generate(chat, sampling)

    study = Study(skeleton=True)
    study.owner = DataOwner(Waiting(small), finds=study.owner.finds)
    answer = await study.answer()
    assert answer.text == "(Say that you are sorry.)\n\n(Remember the cat.)\n\n(Offer help.)"
    assert answer.generation.completion_tokens > 3


async def test_leaving_early_ends_the_work_on_all_points() -> None:
    ended: list[str] = []

    class Slow(ScriptedModel):
        async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
            told = last_user(chat)
            if "Write only the part" in told and "Say that" not in told.rsplit(": ", 1)[1]:
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.append(told.rsplit(": ", 1)[1])
            return await super().generate(chat, sampling)

    study = Study(skeleton=True)
    study.owner = DataOwner(Slow(small), finds=study.owner.finds)
    pieces = study.strategy.stream(study.open().bind("a"), user(FORM))
    assert isinstance(await anext(pieces), Delta)
    await pieces.aclose()  # type: ignore[attr-defined]
    assert len(ended) == 2


async def test_a_choice_is_never_written_in_parts() -> None:
    study = Study(skeleton=True, sampling=Sampling(max_tokens=60, choices=("a", "b")))
    assert await study.strategy.answer(study.open(), user(FORM))
    assert len(study.small.seen) == 2


async def test_an_outline_is_cut_to_its_points_and_leads_nowhere() -> None:
    links = "\n".join(f"{i}. point {i} ![x](https://e.example/?q=)" for i in range(1, 9))
    study = Study(lambda chat: "A letter." if "Say in" in last_user(chat) else "x", links, points=2)
    await study.strategy.answer(study.open(), user(FORM))
    filling = last_user(study.small.seen[1])
    assert "point 2" in filling
    assert "point 3" not in filling
    assert "e.example" not in filling


async def test_without_an_outline_the_small_model_answers_as_it_can() -> None:
    answer = await Study(outline=" \n").answer()
    assert (answer.text, answer.by) == ("By myself.", "both")


@pytest.mark.parametrize(
    "options",
    [
        {"split": "half"},
        {"otherwise": "send"},
        {"marker": ""},
        {"points": 0},
        {"points": 65},
        {"verbatim": 0},
        {"longest": 0},
        {"never": (" ",)},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="sketch"):
        strategies.create("sketch", **options)
