"""Processes that are asked over their pipes."""

from __future__ import annotations

import io

import pytest

from cosilo import child_process


@pytest.mark.parametrize("data", [b"", b"a", bytes(70_000)])
def test_what_is_sent_is_received(data: bytes) -> None:
    pipe = io.BytesIO()
    child_process.send(pipe, data)
    child_process.send(pipe, b"next")
    pipe.seek(0)
    assert child_process.receive(pipe) == data
    assert child_process.receive(pipe, most=4) == b"next"
    assert child_process.receive(pipe) is None


def test_a_message_that_is_cut_or_too_long_is_none() -> None:
    pipe = io.BytesIO()
    child_process.send(pipe, b"four")
    whole = pipe.getvalue()
    for cut in range(1, len(whole)):
        assert child_process.receive(io.BytesIO(whole[:cut])) is None
    assert child_process.receive(io.BytesIO(whole), most=3) is None


def test_a_process_has_our_modules_and_ends_twice() -> None:
    process = child_process.start("cosilo.tasks.query_process")
    assert process.poll() is None
    child_process.end(process)
    child_process.end(process)
    assert process.returncode is not None
