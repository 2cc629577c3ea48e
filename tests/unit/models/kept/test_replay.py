"""An answer is recorded before it is returned, and asked for once."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from cosilo.errors import OfflineError, RejectedError, StoreError, UnreachableError
from cosilo.models.base import Access, TextModel
from cosilo.models.kept.replay import ReplayModel, ReplayStore, _scores_key, request_key
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.testing import ModelContract
from cosilo.types import Delta, Generation, Sampling, Turn, assemble, user
from meaning import Meaning
from toy_lm import ToyLM

GREEDY = Sampling()
SECRET = "Ottilie Katzenstein"


class Gated:
    """Answers when told to, and knows how often it was called and cancelled."""

    name = "gated"
    access = Access.TEXT

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.started = asyncio.Event()
        self.calls = 0
        self.cancelled = 0

    async def generate(self, chat: object, sampling: Sampling) -> Generation:
        self.calls += 1
        self.started.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Generation(f"answer {self.calls}", seconds=2.5, prompt_tokens=7)

    async def close(self) -> None: ...


class TestReplayModel(ModelContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "replay.sqlite"

    def model(self) -> TextModel:
        return ReplayModel(ScriptedModel({"hello": "Hello to you."}, confidence=0.5), self.path)


async def test_second_time_is_free_and_says_what_the_first_took(tmp_path: Path) -> None:
    inner = ScriptedModel({"": "yes"}, seconds=1.25)
    first = ReplayModel(inner, tmp_path / "r.sqlite")
    told = await first.generate(user("q"), GREEDY)
    await first.close()
    second = ReplayModel(ScriptedModel({"": "other"}), tmp_path / "r.sqlite", offline=True)
    again = await second.generate(user("q"), GREEDY)
    assert again == told
    assert again.seconds == 1.25
    assert (second.hits, second.misses) == (1, 0)
    assert second.holds(user("q"), GREEDY)
    assert not second.holds(user("q2"), GREEDY)
    await second.close()


def test_recorded_answers_are_their_owners_alone(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path / "replay.sqlite")
    store.put(b"key", "model", Generation(SECRET))
    assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {0}
    store.close()


async def test_offline_refuses_and_says_nothing_private(tmp_path: Path) -> None:
    inner = ScriptedModel()
    model = ReplayModel(inner, tmp_path / "r.sqlite", offline=True)
    with pytest.raises(OfflineError) as caught:
        await model.generate(user(SECRET), GREEDY)
    with pytest.raises(OfflineError):
        _ = [d async for d in model.stream(user(SECRET), GREEDY)]
    assert SECRET not in str(caught.value)
    assert not inner.seen
    await model.close()


async def test_same_question_at_once_is_one_call(tmp_path: Path) -> None:
    inner = Gated()
    model = ReplayModel(inner, tmp_path / "r.sqlite")
    tasks = [asyncio.create_task(model.generate(user("q"), GREEDY)) for _ in range(20)]
    await inner.started.wait()
    inner.go.set()
    answers = await asyncio.gather(*tasks)
    assert {a.text for a in answers} == {"answer 1"}
    assert (model.misses, model.hits) == (1, 19)
    await model.close()


async def test_one_who_leaves_does_not_take_the_answer_from_the_others(tmp_path: Path) -> None:
    inner = Gated()
    model = ReplayModel(inner, tmp_path / "r.sqlite")
    first = asyncio.create_task(model.generate(user("q"), GREEDY))
    await inner.started.wait()
    second = asyncio.create_task(model.generate(user("q"), GREEDY))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    inner.go.set()
    assert (await second).text == "answer 1"
    assert (inner.calls, inner.cancelled) == (1, 0)
    await model.close()


async def test_when_all_leave_the_call_is_cancelled_and_can_be_made_again(tmp_path: Path) -> None:
    inner = Gated()
    model = ReplayModel(inner, tmp_path / "r.sqlite")
    tasks = [asyncio.create_task(model.generate(user("q"), GREEDY)) for _ in range(3)]
    await inner.started.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    inner.go.set()
    assert (await model.generate(user("q"), GREEDY)).text == "answer 2"
    assert inner.cancelled == 1
    await model.close()


async def test_a_failure_reaches_all_who_wait_and_records_nothing(tmp_path: Path) -> None:
    inner = ScriptedModel(fail=UnreachableError("down"))
    model = ReplayModel(inner, tmp_path / "r.sqlite")
    results = await asyncio.gather(
        *(model.generate(user("q"), GREEDY) for _ in range(3)), return_exceptions=True
    )
    assert [type(r) for r in results] == [UnreachableError] * 3
    inner.fail = None
    assert (await model.generate(user("q"), GREEDY)).text == "q"
    await model.close()


async def test_a_stream_is_recorded_before_its_last_piece_and_replayed(tmp_path: Path) -> None:
    inner = ScriptedModel({"": "one two three"}, seconds=0.5)
    model = ReplayModel(inner, tmp_path / "r.sqlite")
    pieces: list[Delta] = []
    async for piece in model.stream(user("q"), GREEDY):
        pieces.append(piece)
        assert model.holds(user("q"), GREEDY) == (piece.finish_reason is not None)
    again = [d async for d in model.stream(user("q"), GREEDY)]
    assert assemble(again) == assemble(pieces) == await model.generate(user("q"), GREEDY)
    assert len(pieces) > 2
    assert (model.misses, model.hits, len(inner.seen)) == (1, 2, 1)
    await model.close()


async def test_a_stream_that_is_left_early_records_nothing(tmp_path: Path) -> None:
    class Endless(ScriptedModel):
        closed = False

        async def stream(self, chat: object, sampling: Sampling) -> AsyncIterator[Delta]:
            try:
                while True:
                    yield Delta("x")
            finally:
                self.closed = True

    inner = Endless({"": "whole"})
    model = ReplayModel(inner, tmp_path / "r.sqlite")
    pieces = model.stream(user("q"), GREEDY)
    await anext(pieces)
    waiting = asyncio.create_task(model.generate(user("q"), GREEDY))
    await asyncio.sleep(0)
    await pieces.aclose()  # type: ignore[attr-defined]
    assert inner.closed
    assert (await waiting).text == "whole"
    await model.close()


def test_the_key_holds_everything_that_was_asked() -> None:
    base = ("m", user("q"), GREEDY)
    others = [
        ("m2", user("q"), GREEDY),
        ("m", user("q", system="s"), GREEDY),
        ("m", (Turn("assistant", "q"),), GREEDY),
        ("m", user("q"), Sampling(temperature=0.5)),
        ("m", user("q"), Sampling(choices=("a", "b"))),
        ("m", user("q"), Sampling(choices=("b", "a"))),
        ("m", user("q"), Sampling(response_format="{}")),
    ]
    keys = {request_key(*base), *(request_key(*o) for o in others)}
    assert len(keys) == len(others) + 1
    # Recorded answers must outlive this release: a changed key would mean paying for all again.
    assert request_key(*base).hex().startswith("4dcde3911a1ddc66")


def test_no_unicode_is_refused() -> None:
    with pytest.raises(RejectedError):
        request_key("m", user("\ud800"), GREEDY)


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"r\.sqlite"):
        ReplayStore(tmp_path / "r.sqlite")
    with pytest.raises(StoreError, match="nowhere"):
        ReplayStore(tmp_path / "nowhere" / "r.sqlite")


def test_a_damaged_answer_is_an_error_not_a_miss(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path / "r.sqlite")
    store.put(b"k", "m", Generation("x"))
    store.close()
    with sqlite3.connect(tmp_path / "r.sqlite") as raw:
        raw.execute("UPDATE answers SET answer = x'c1'")
    raw.close()
    store = ReplayStore(tmp_path / "r.sqlite")
    with pytest.raises(StoreError, match="damaged"):
        store.get(b"k")
    store.close()


def test_the_first_recording_stays(tmp_path: Path) -> None:
    here, there = ReplayStore(tmp_path / "r.sqlite"), ReplayStore(tmp_path / "r.sqlite")
    assert here.put(b"k", "m", Generation("first")).text == "first"
    assert there.put(b"k", "m", Generation("second")).text == "first"
    assert len(here) == len(there) == 1
    here.close()
    there.close()
    there.close()


WRITER = """
import asyncio, sys
from cosilo.models.kept.replay import ReplayModel
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.types import Sampling, user

async def main(path, tag):
    model = ReplayModel(ScriptedModel(), path)
    for i in range(1_000_000):
        await model.generate(user(f"{tag}{i % 50 if tag == 'shared' else i}"), Sampling())
        print(i, flush=True)
        if tag == "shared" and i == 49:
            break
    await model.close()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def _writer(path: Path, tag: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), tag], stdout=subprocess.PIPE, text=True
    )


def test_what_was_returned_is_there_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    writer = _writer(path, "item ")
    assert writer.stdout is not None
    returned = -1
    while returned < 40:
        returned = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.stdout.read().split()
    writer.wait()
    writer.stdout.close()
    returned = int(rest[-1]) if rest else returned
    store = ReplayStore(path)
    for i in range(returned + 1):
        assert store.get(request_key("scripted", user(f"item {i}"), GREEDY)) is not None
    store.close()


def test_two_processes_share_a_store(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    writers = [_writer(path, "shared") for _ in range(2)]
    for writer in writers:
        said, _ = writer.communicate(timeout=60)
        assert writer.returncode == 0
        assert len(said.split()) == 50
    store = ReplayStore(path)
    assert len(store) == 50
    store.close()


def test_answers_are_stored_without_what_was_asked(tmp_path: Path) -> None:
    """The file holds keys and replies; the private question is only in the hash."""
    model = ReplayModel(ScriptedModel({"Katz": "reply"}), tmp_path / "r.sqlite")
    asyncio.run(model.generate(user(SECRET), GREEDY))
    asyncio.run(model.close())
    content = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert msgspec.msgpack.encode("reply")[1:] in content
    assert SECRET.encode() not in content


async def test_logits_pass_through_and_are_refused_offline(tmp_path: Path) -> None:
    inner = ToyLM()
    tokens = inner.tokenize(user("question"), "yes")
    model = ReplayModel(inner, tmp_path / "replay.sqlite")
    assert (model.vocabulary, model.vocabulary_size) == (inner.vocabulary, inner.vocabulary_size)
    assert len((await model.logits([model.tokenize(user("question"), "yes")]))[0]) == 4
    await model.close()
    offline = ReplayModel(inner, tmp_path / "replay.sqlite", offline=True)
    with pytest.raises(OfflineError):
        await offline.logits([tokens])
    await offline.close()


async def test_states_pass_through_and_are_refused_offline(tmp_path: Path) -> None:
    inner = Meaning({})
    model = ReplayModel(inner, tmp_path / "replay.sqlite")
    tokens = model.plain("two words")
    assert [len(s) for s in await model.activations([tokens], model.layers)] == [2]
    assert model.misses == 1
    await model.close()
    offline = ReplayModel(inner, tmp_path / "replay.sqlite", offline=True)
    with pytest.raises(OfflineError, match="states"):
        await offline.activations([tokens], 1)
    await offline.close()


async def test_scores_are_kept_for_one_model_and_one_question(tmp_path: Path) -> None:
    store = ReplayStore(tmp_path / "replay.sqlite")
    model, other = ReplayModel(ToyLM(), store), ReplayModel(ToyLM(name="another"), store)
    assert model.recall(b"question") is None
    model.keep(b"question", b"scores")
    assert model.recall(b"question") == b"scores"
    assert model.recall(b"another") is None
    assert other.recall(b"question") is None
    assert (model.hits, other.hits) == (1, 0)
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        model.recall(b"question")


class Renamed(ScriptedModel):
    """A model that an earlier version knew under another identity."""

    def __init__(self, identity: str, former: str) -> None:
        super().__init__({"x": "y"})
        self.identity, self.former_identity = identity, former


async def test_what_was_recorded_under_a_former_identity_is_not_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "replay.sqlite"
    with opened(path) as store:
        store.put(request_key("old", user("x"), GREEDY), "old", Generation("as recorded"))
        store.put_scores(_scores_key("old", b"question"), "old", b"scores")
    inner = Renamed("new", "old")
    for _ in range(2):  # the second time with what the first left in the store
        model = ReplayModel(inner, path, offline=True)
        assert model.holds(user("x"), GREEDY)
        assert (await model.generate(user("x"), GREEDY)).text == "as recorded"
        assert [d.text async for d in model.stream(user("x"), GREEDY)] == ["as recorded"]
        assert model.recall(b"question") == b"scores"
        await model.close()
    assert not inner.seen


async def test_another_model_of_the_same_former_identity_has_none_of_it(tmp_path: Path) -> None:
    """The former identity may not have told the two apart."""
    path = tmp_path / "replay.sqlite"
    with opened(path) as store:
        store.put(request_key("old", user("x"), GREEDY), "old", Generation("as recorded"))
    first = ReplayModel(Renamed("one", "old"), path)
    assert (await first.generate(user("x"), GREEDY)).text == "as recorded"
    await first.close()
    second = ReplayModel(Renamed("two", "old"), path)
    assert not second.holds(user("x"), GREEDY)
    assert (await second.generate(user("x"), GREEDY)).text == "y"
    await second.close()


@pytest.mark.parametrize(
    ("recorded", "asked", "reply", "same"),
    [
        (5, 16, Generation("yes"), True),
        (15, 16, Generation("yes"), True),
        (5, 16, Generation("ye", finish_reason="length"), False),  # the limit cut it
        (5, 16, Generation(""), False),
        (16, 5, Generation("yes"), False),  # it may be longer than is allowed now
        (5, 300, Generation("yes"), False),  # labels so long were allowed as much before
    ],
)
async def test_a_choice_that_ended_within_a_lower_limit_is_not_asked_again(
    tmp_path: Path, recorded: int, asked: int, reply: Generation, same: bool
) -> None:
    path, chat, choices = tmp_path / "replay.sqlite", user("is it?"), ("yes", "no")
    model = ScriptedModel({"is it?": "new"})
    with opened(path) as store:
        before = Sampling(max_tokens=recorded, choices=choices)
        store.put(request_key(model.name, chat, before), model.name, reply)
    replay = ReplayModel(model, path)
    now = Sampling(max_tokens=asked, choices=choices)
    assert replay.holds(chat, now) is same
    assert ((await replay.generate(chat, now)).text == reply.text) is same
    assert not replay.holds(chat, replace(now, choices=("yes", "no", "perhaps")))
    free = replace(now, choices=())
    assert not replay.holds(chat, free), "a free reply may be longer where it may"
    await replay.close()


@contextmanager
def opened(path: Path) -> Iterator[ReplayStore]:
    store = ReplayStore(path)
    yield store
    store.close()
