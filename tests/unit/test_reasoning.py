"""What a reasoning model says in the end is read without what it thought."""

from __future__ import annotations

import time

import pytest

from cosilo.reasoning import spoken

HARMONY = (
    "<|channel|>analysis<|message|>A or B?<|end|><|start|>assistant<|channel|>final<|message|>B"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("delivery", "delivery"),
        ("  delivery\n", "  delivery\n"),  # without marks, untouched
        ("<think>It could be billing or delivery, A or B.</think>\n\ndelivery", "delivery"),
        ("<think>\n</think>\n\nB", "B"),
        ("<think>one</think> <think>two</think> B", "B"),
        ("It could be A or B.</think>\nB", "B"),  # the template wrote the beginning into the prompt
        ("<think>a <think>b</think> c</think> B", "B"),
        ("<think>It could be A or", ""),  # cut while it thought
        ("B <think>or is it", "B"),
        ("<thinking>A?</thinking>B", "B"),
        ("<reasoning>A?</reasoning>B", "B"),
        ("<thought>A?</thought>B", "B"),
        ("[THINK]A?[/THINK]B", "B"),
        ("◁think▷A?◁/think▷B", "B"),
        ("<|begin_of_thought|>A?<|end_of_thought|>B", "B"),
        ("<seed:think>A?</seed:think>B", "B"),
        (HARMONY, "B"),
        (HARMONY + "<|return|>", "B"),
        ("<|channel|>analysis<|message|>A or", ""),
        ("", ""),
    ],
)
def test_thinking_is_left_out(text: str, said: str) -> None:
    assert spoken(text) == said


@pytest.mark.parametrize(
    "mark", ["<think>", "</think>", "<think></think>", "<|channel|>", "<|end|>"]
)
def test_a_long_reply_full_of_marks_takes_linear_time(mark: str) -> None:
    def seconds(times: int) -> float:
        text = mark * times + "<think>"
        started = time.process_time()
        spoken(text)
        return time.process_time() - started

    seconds(1_000)
    assert seconds(80_000) < max(0.5, 40 * seconds(8_000))
