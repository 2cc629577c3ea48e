"""What is amiss with replies is told apart, and a point whose first ones hold no answer stops."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cosilo.benchmark.replies import FIRST, Replies, faults
from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Ask
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import UnreadableError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from cosilo.tasks.base import Task
from cosilo.tasks.config import load_task, parse_task
from cosilo.types import FinishReason, Generation, Sampling, ToolCall, user

LABELS = ("billing", "delivery", "account")


def task_of(folder: Path, kind: str = "classification") -> Task:
    rows = [
        {"text": f"message {i}", "label": LABELS[i % 3], "answer": "ABC"[i % 3], "options": LABELS}
        for i in range(150)
    ]
    (folder / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    target = {"choice": "answer", "graded": "label"}.get(kind, "label")
    table = {"kind": kind, "file": "d.jsonl", "columns": {"target": target}}
    return load_task(parse_task(table), folder)


@pytest.mark.parametrize(
    ("kind", "text", "finish", "found"),
    [
        ("classification", "delivery", "stop", ()),
        ("classification", "<think>billing?</think>delivery", "stop", ()),
        ("classification", "delivery, and then", "length", ("cut",)),
        ("classification", "", "length", ("cut", "empty")),
        ("classification", "<think>billing or", "length", ("cut", "empty")),
        ("classification", "<think>hm</think>", "stop", ("empty",)),
        ("classification", "no idea", "stop", ("unreadable",)),
        ("classification", "billing or delivery", "stop", ("unreadable",)),
        ("choice", "B", "stop", ()),
        ("choice", "delivery", "stop", ()),  # an option's text
        ("choice", "<think>A or C</think>\n\nB", "stop", ()),
        ("choice", "I cannot", "length", ("cut", "unreadable")),
        ("text", "anything", "stop", ()),
        ("text", " \n", "stop", ("empty",)),
    ],
)
def test_what_is_amiss_with_a_reply(
    tmp_path: Path, kind: str, text: str, finish: FinishReason, found: tuple[str, ...]
) -> None:
    task = task_of(tmp_path, kind)
    reply = Generation(text, finish_reason=finish)
    assert faults(task, task.splits["test"][0], reply) == found


def test_a_call_of_a_tool_is_something_said(tmp_path: Path) -> None:
    reply = Generation("", tool_calls=(ToolCall("1", "f", "{}"),))
    assert faults(task_of(tmp_path), None, reply) == ()


@pytest.mark.parametrize("kind", ["classification", "choice"])
def test_thinking_is_left_out_of_what_is_graded(tmp_path: Path, kind: str) -> None:
    task = task_of(tmp_path, kind)
    example = task.splits["test"][0]
    thought = f"<think>It could be {LABELS[0]} or {LABELS[1]}, A or B.</think>\n\n"
    assert task.grade(example, thought + example.target) == 1.0
    assert task.grade(example, thought) == 0.0
    assert task.sampling.max_tokens == 16


def road(task: Task, said: str, **options: object) -> tuple[Boundary, ScriptedModel]:
    model = ScriptedModel(lambda chat: said)
    guard = Replies(task, **{"most": 0.5, **options})  # type: ignore[arg-type]
    lm = InProcess(LMOwner(model))
    return Boundary(lm, declared=frozenset({Ask}), guards=(guard,)), model


async def ask(boundary: Boundary, task: Task, count: int) -> None:
    for example in task.splits["train"][:count]:
        await boundary.bind(f"train/{example.id}").send(Ask(chat=example.chat))


async def test_it_stops_once_most_of_the_first_hold_no_answer(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    boundary, model = road(task, "<think>Let me see")
    with pytest.raises(UnreadableError, match="20 of the first 20") as caught:
        await ask(boundary, task, 2 * FIRST)
    assert len(model.seen) == FIRST
    assert "reasoning = 2000" in str(caught.value)
    with pytest.raises(UnreadableError):  # and it stays so
        await ask(boundary, task, 1)
    assert len(model.seen) == FIRST


async def test_what_earlier_processes_got_counts(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    boundary, model = road(task, "billing", seen=FIRST, before={"unreadable": 11}, allowed=500)
    with pytest.raises(UnreadableError, match="what form an answer must have"):
        await ask(boundary, task, 1)
    assert not model.seen
    boundary, model = road(task, "billing", seen=FIRST, before={"empty": 11}, allowed=500)
    with pytest.raises(UnreadableError, match=r"reasoning = 1000 \(now 500\)"):
        await ask(boundary, task, 1)


@pytest.mark.parametrize(
    ("said", "options"), [("billing", {}), ("no idea", {"most": 1.0}), ("", {"most": 1.0})]
)
async def test_what_can_be_read_or_is_wanted_all_the_same_goes_on(
    tmp_path: Path, said: str, options: dict[str, object]
) -> None:
    task = task_of(tmp_path)
    boundary, model = road(task, said, **options)
    await ask(boundary, task, 2 * FIRST)
    assert len(model.seen) == 2 * FIRST


async def test_of_a_question_that_is_not_the_tasks_any_words_are_an_answer(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    boundary, model = road(task, "a text of the label billing or delivery")
    for i in range(2 * FIRST):
        own = Ask(chat=user("write me some texts"), sampling=Sampling(max_tokens=99))
        await boundary.bind(f"synthetic/{i}").send(own)
    assert len(model.seen) == 2 * FIRST
