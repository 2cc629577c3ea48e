"""A reply is recorded before it is returned, and asked for once, whatever kind of message it is."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest
from msgspec.structs import replace

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import (
    Ask,
    Completion,
    Message,
    NextRound,
    Read,
    Request,
    RoundState,
    Score,
    Scored,
    Scores,
    States,
    Step,
    encode,
)
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import (
    OfflineError,
    RejectedError,
    StoreError,
    UnexpectedReplyError,
    UnreachableError,
)
from cosilo.models.base import Access, Named, TextModel
from cosilo.models.kept.replay import ReplayStore, question_key, request_key, shred
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.around.exposed import Exposed
from cosilo.parties.around.recorded import Recorded, questions
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.thread import Thread
from cosilo.types import Chat, Delta, Generation, Sampling, TokenLogprob, assemble, user
from meaning import Meaning
from toy_lm import ToyLM
from toy_thread import ToyThreads

GREEDY = Sampling()
SECRET = "Ottilie Katzenstein"
Q = Ask(chat=user("q"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReplayStore]:
    found = ReplayStore(tmp_path / "replay.sqlite")
    yield found
    found.close()


def recorded(model: TextModel, store: ReplayStore, *, offline: bool = False) -> Recorded:
    return Recorded(LMOwner(model, exposes=Access.WEIGHTS.shows), store, of=model, offline=offline)


async def words(party: Recorded, message: Message = Q) -> str:
    reply = await party.handle(message)
    assert isinstance(reply, Completion)
    return reply.generation.text


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


async def test_second_time_is_free_and_says_what_the_first_took(store: ReplayStore) -> None:
    first = recorded(ScriptedModel({"": "yes"}, seconds=1.25), store)
    told = await first.handle(Q)
    second = recorded(ScriptedModel({"": "other"}), store, offline=True)
    again = await second.handle(Q)
    assert again == told
    assert isinstance(again, Completion)
    assert again.generation.seconds == 1.25
    assert (second.hits, second.misses) == (1, 0)
    assert second.holds(Q)
    assert not second.holds(Ask(chat=user("q2")))


async def test_offline_refuses_and_says_nothing_private(store: ReplayStore) -> None:
    inner = ScriptedModel()
    party = recorded(inner, store, offline=True)
    with pytest.raises(OfflineError) as caught:
        await party.handle(Ask(chat=user(SECRET)))
    with pytest.raises(OfflineError):
        _ = [d async for d in party.handle_stream(Ask(chat=user(SECRET)))]
    assert SECRET not in str(caught.value)
    assert not inner.seen


async def test_same_question_at_once_is_one_call(store: ReplayStore) -> None:
    inner = Gated()
    party = recorded(inner, store)
    tasks = [asyncio.create_task(words(party)) for _ in range(20)]
    await inner.started.wait()
    inner.go.set()
    assert set(await asyncio.gather(*tasks)) == {"answer 1"}
    assert (party.misses, party.hits) == (1, 19)


async def test_one_who_leaves_does_not_take_the_answer_from_the_others(store: ReplayStore) -> None:
    inner = Gated()
    party = recorded(inner, store)
    first = asyncio.create_task(words(party))
    await inner.started.wait()
    second = asyncio.create_task(words(party))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    inner.go.set()
    assert await second == "answer 1"
    assert (inner.calls, inner.cancelled) == (1, 0)


async def test_when_all_leave_the_call_is_cancelled_and_can_be_made_again(
    store: ReplayStore,
) -> None:
    inner = Gated()
    party = recorded(inner, store)
    tasks = [asyncio.create_task(words(party)) for _ in range(3)]
    await inner.started.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    inner.go.set()
    assert await words(party) == "answer 2"
    assert inner.cancelled == 1


async def test_closing_cancels_what_is_under_way(store: ReplayStore) -> None:
    inner = Gated()
    party = recorded(inner, store)
    task = asyncio.create_task(words(party))
    await inner.started.wait()
    await party.close()
    assert inner.cancelled == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not len(store)


async def test_a_failure_reaches_all_who_wait_and_records_nothing(store: ReplayStore) -> None:
    inner = ScriptedModel(fail=UnreachableError("down"))
    party = recorded(inner, store)
    results = await asyncio.gather(*(words(party) for _ in range(3)), return_exceptions=True)
    assert [type(r) for r in results] == [UnreachableError] * 3
    inner.fail = None
    assert await words(party) == "q"


async def test_a_stream_is_recorded_before_its_last_piece_and_replayed(store: ReplayStore) -> None:
    inner = ScriptedModel({"": "one two three"}, seconds=0.5)
    party = recorded(inner, store)
    pieces: list[Delta] = []
    async for piece in party.handle_stream(Q):
        pieces.append(piece)
        assert party.holds(Q) == (piece.finish_reason is not None)
    again = [d async for d in party.handle_stream(Q)]
    assert assemble(again) == assemble(pieces)
    assert Completion(generation=assemble(again)) == await party.handle(Q)
    assert len(pieces) > 2
    assert (party.misses, party.hits, len(inner.seen)) == (1, 2, 1)


async def test_a_stream_that_is_left_early_records_nothing(store: ReplayStore) -> None:
    class Endless(ScriptedModel):
        closed = False

        async def stream(self, chat: object, sampling: Sampling) -> AsyncIterator[Delta]:
            try:
                while True:
                    yield Delta("x")
            finally:
                self.closed = True

    inner = Endless({"": "whole"})
    party = recorded(inner, store)
    pieces = party.handle_stream(Q)
    await anext(pieces)
    waiting = asyncio.create_task(words(party))
    await asyncio.sleep(0)
    await pieces.aclose()
    assert inner.closed
    assert await waiting == "whole"


async def test_a_stream_that_fails_fails_for_all_who_wait(store: ReplayStore) -> None:
    class Breaking(ScriptedModel):
        async def stream(self, chat: object, sampling: Sampling) -> AsyncIterator[Delta]:
            yield Delta("x")
            raise UnreachableError("down")

    party = recorded(Breaking({"": "whole"}), store)
    pieces = party.handle_stream(Q)
    await anext(pieces)
    waiting = asyncio.create_task(words(party))
    await asyncio.sleep(0)
    for work in (anext(pieces), waiting):
        with pytest.raises(UnreachableError):
            await work
    assert party.misses == 1
    assert not party.holds(Q)


WRITER = """
import asyncio, sys
from cosilo.boundary.messages import Ask
from cosilo.models.kept.replay import ReplayStore
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.around.recorded import Recorded
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import user

async def main(path, tag):
    model, store = ScriptedModel(), ReplayStore(path)
    party = Recorded(LMOwner(model), store, of=model)
    for i in range(1_000_000):
        await party.handle(Ask(chat=user(f"{tag}{i % 50 if tag == 'shared' else i}")))
        print(i, flush=True)
        if tag == "shared" and i == 49:
            break
    store.close()

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
    with opened(path) as store:
        for i in range(returned + 1):
            assert store.get(request_key("scripted", user(f"item {i}"), GREEDY)) is not None


def test_two_processes_share_a_store(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    writers = [_writer(path, "shared") for _ in range(2)]
    for writer in writers:
        said, _ = writer.communicate(timeout=60)
        assert writer.returncode == 0
        assert len(said.split()) == 50
    with opened(path) as store:
        assert len(store) == 50


def test_answers_are_stored_without_what_was_asked(tmp_path: Path) -> None:
    """Nor with what was answered: both are hidden by a key in another file."""
    with opened(tmp_path / "r.sqlite") as store:
        party = recorded(ScriptedModel({"Katz": "reply"}), store)
        asyncio.run(words(party, Ask(chat=user(SECRET))))
    content = b"".join(p.read_bytes() for p in tmp_path.iterdir())
    assert len(content) > 0
    assert msgspec.msgpack.encode("reply")[1:] not in content
    assert SECRET.encode() not in content


def score(*replies: str, top: int = 5) -> Score:
    return Score(items=tuple(Scored(user("question"), reply) for reply in replies), top=top)


async def test_scores_are_recorded_for_one_model_and_one_question(store: ReplayStore) -> None:
    model, other = ToyLM(), ToyLM(name="another")
    party = recorded(model, store)
    first = await party.handle(score("yes", "no"))
    assert await party.handle(score("yes", "no")) == first
    assert (len(model.scored), party.hits, party.misses) == (2, 1, 1)
    await party.handle(score("yes", "no", top=3))  # another question
    assert len(model.scored) == 4
    await recorded(other, store).handle(score("yes", "no"))
    assert len(other.scored) == 2
    offline = recorded(ToyLM(), store, offline=True)
    assert await offline.handle(score("yes", "no")) == first
    with pytest.raises(OfflineError):
        await offline.handle(score("perhaps"))


async def test_states_are_recorded(store: ReplayStore) -> None:
    model = Meaning({})
    party = recorded(model, store)
    first = await party.handle(Read(texts=("a", "b")))
    assert isinstance(first, States)
    assert await party.handle(Read(texts=("a", "b"))) == first
    assert model.read == ["a", "b"]


async def test_what_is_recorded_is_no_way_around_what_is_shown(store: ReplayStore) -> None:
    """The recording holds all that was said, and each party in front of it shows what it exposes."""
    model = ScriptedModel({"q": "two words"})
    party = recorded(model, store)
    for exposes, tokens in ((Access.TEXT.shows, 0), (Access.LOGPROBS.shows, 2)):
        reply = await Exposed(party, exposes).handle(Q)
        assert isinstance(reply, Completion)
        assert len(reply.generation.tokens) == tokens
    assert len(model.seen) == 1
    kept = store.get(request_key(model.name, Q.chat, Q.sampling))
    assert kept is not None
    assert isinstance(kept.tokens[0], TokenLogprob)


class Renamed(ScriptedModel):
    """A model that an earlier version knew under another identity."""

    def __init__(self, identity: str, former: str) -> None:
        super().__init__({"x": "y"})
        self.identity, self.former_identity = identity, former


async def test_what_was_recorded_under_a_former_identity_is_not_asked_again(tmp_path: Path) -> None:
    """Answers and scores alike, as the version of 28 November 2026 wrote them."""
    path, x, scored = tmp_path / "replay.sqlite", Ask(chat=user("x")), score("yes")
    scores = Scores(packed=b"p", lengths=(4,), vocabulary="bytes")
    with opened(path) as store:
        store.put(request_key("old", user("x"), GREEDY), "old", Generation("as recorded"))
        store.put_reply(question_key("old", {"score": encode(scored)}), "old", encode(scores))
    inner = Renamed("new", "old")
    for _ in range(2):  # the second time with what the first left in the store
        with opened(path) as store:
            party = recorded(inner, store, offline=True)
            assert party.holds(x)
            assert await words(party, x) == "as recorded"
            assert [d.text async for d in party.handle_stream(x)] == ["as recorded"]
            assert await party.handle(scored) == scores
    assert not inner.seen


async def test_another_model_of_the_same_former_identity_has_none_of_it(tmp_path: Path) -> None:
    """The former identity may not have told the two apart."""
    path, x = tmp_path / "replay.sqlite", Ask(chat=user("x"))
    with opened(path) as store:
        store.put(request_key("old", user("x"), GREEDY), "old", Generation("as recorded"))
        assert await words(recorded(Renamed("one", "old"), store), x) == "as recorded"
    with opened(path) as store:
        second = recorded(Renamed("two", "old"), store)
        assert not second.holds(x)
        assert await words(second, x) == "y"


@pytest.mark.parametrize(
    ("recorded_at", "asked", "reply", "same"),
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
    tmp_path: Path, recorded_at: int, asked: int, reply: Generation, same: bool
) -> None:
    path, chat, choices = tmp_path / "replay.sqlite", user("is it?"), ("yes", "no")
    model = ScriptedModel({"is it?": "new"})
    with opened(path) as store:
        before = Sampling(max_tokens=recorded_at, choices=choices)
        store.put(request_key(model.name, chat, before), model.name, reply)
    with opened(path) as store:
        party = recorded(model, store)
        now = Sampling(max_tokens=asked, choices=choices)
        assert party.holds(Ask(chat=chat, sampling=now)) is same
        assert (await words(party, Ask(chat=chat, sampling=now)) == reply.text) is same
        other = replace(now, choices=("yes", "no", "perhaps"))
        assert not party.holds(Ask(chat=chat, sampling=other))
        free = replace(now, choices=())
        assert not party.holds(Ask(chat=chat, sampling=free)), "a free reply may be longer"


async def test_a_thread_goes_on_from_what_was_recorded_and_beyond_it(store: ReplayStore) -> None:
    """The LM's owner has none of the thread then: it is sent whole once, and goes on from there."""

    async def said(model: ToyThreads, more: Sequence[str], *, offline: bool = False) -> list[int]:
        party = recorded(model, store, offline=offline)
        road = Boundary(InProcess(party), declared=frozenset({Step}))
        thread = Thread(road, user("Why?"), top=3)
        return [(await thread.go_on(text)).likeliest for text in ("", *more)]

    first = ToyThreads()
    known = await said(first, [" the", " ref"])
    assert await said(ToyThreads(), [" the", " ref"], offline=True) == known
    again = ToyThreads()
    further = await said(again, [" the", " ref", " about", " it"])
    assert further == [*known, first.next(user("Why?"), " the ref about"), further[-1]]
    assert await said(ToyThreads(), [" the", " ref", " about", " it"], offline=True) == further
    with pytest.raises(OfflineError):
        await said(ToyThreads(), [" a"], offline=True)


class Echoed(Message, frozen=True, kw_only=True, tag="EchoedForTest"):
    text: str
    seconds: float = 0.0

    def check(self) -> None:
        if self.seconds < 0:
            raise ValueError("seconds")


class Echo(Request[Echoed], frozen=True, kw_only=True, tag="EchoForTest"):
    """An exchange that nothing in Cosilo knows."""

    reply: ClassVar[type[Message]] = Echoed
    text: str


class Next(Echo, frozen=True, kw_only=True, tag="NextForTest"):
    """One whose reply depends on what was said before."""

    def question(self) -> Mapping[str, object] | None:
        return None


class Echoing:
    """Serves them, and says how often it was asked."""

    name = "echoing"
    identity = "echoing:1"

    def __init__(self, reply: Message | None = None) -> None:
        self.asked = 0
        self._reply = reply

    async def handle(self, message: Message) -> Message:
        assert isinstance(message, Echo)
        self.asked += 1
        return self._reply or Echoed(text=f"{message.text} {self.asked}")

    def handle_stream(self, ask: Ask) -> AsyncIterator[Delta]:
        raise AssertionError


def echoing(party: Echoing, store: ReplayStore, *, offline: bool = False) -> Recorded:
    of: Named = party
    return Recorded(party, store, of=of, offline=offline)


async def test_an_exchange_of_a_plug_in_is_recorded_too(store: ReplayStore) -> None:
    party = Echoing()
    for _ in range(2):
        assert await echoing(party, store).handle(Echo(text="a")) == Echoed(text="a 1")
    assert await echoing(party, store, offline=True).handle(Echo(text="a")) == Echoed(text="a 1")
    assert party.asked == 1


async def test_what_has_no_key_goes_on_each_time_and_is_refused_offline(
    store: ReplayStore,
) -> None:
    party = Echoing()
    recording = echoing(party, store)
    assert not recording.holds(Next(text="a"))
    said = [await recording.handle(Next(text="a")) for _ in range(2)]
    assert said == [Echoed(text="a 1"), Echoed(text="a 2")]
    assert (recording.hits, recording.misses) == (0, 2)
    with pytest.raises(OfflineError):
        await echoing(party, store, offline=True).handle(Next(text="a"))
    assert party.asked == 2


async def test_a_reply_that_cannot_be_read_again_is_not_recorded(store: ReplayStore) -> None:
    party = Echoing(Echoed(text="a", seconds=-1.0))
    for _ in range(2):
        with pytest.raises(UnexpectedReplyError):
            await echoing(party, store).handle(Echo(text="a"))
    wrong = Echoing(States(packed=b""))
    for _ in range(2):
        with pytest.raises(UnexpectedReplyError, match="answered with States, not Echoed"):
            await echoing(wrong, store).handle(Echo(text="a"))
    assert (party.asked, wrong.asked) == (2, 2)
    model = ScriptedModel({"q": "yes"}, seconds=float("nan"))
    for _ in range(2):
        with pytest.raises(UnexpectedReplyError):
            await recorded(model, store).handle(Q)
    assert len(model.seen) == 2


async def test_a_damaged_recording_is_an_error_not_a_miss(store: ReplayStore) -> None:
    party = Echoing()
    for damaged in (b"\xc1", encode(States(packed=b""))):
        key = question_key(party.identity, {"score": encode(Echo(text=damaged.hex()))})
        store.put_reply(key, party.identity, damaged)
        with pytest.raises(StoreError, match="damaged"):
            await echoing(party, store).handle(Echo(text=damaged.hex()))
    assert not party.asked


async def test_chats_that_are_no_unicode_are_refused(store: ReplayStore) -> None:
    chat: Chat = user("\ud800")
    with pytest.raises(RejectedError):
        await recorded(ScriptedModel(), store).handle(Ask(chat=chat))


@contextmanager
def opened(path: Path) -> Iterator[ReplayStore]:
    store = ReplayStore(path)
    yield store
    store.close()


def test_a_reply_that_only_says_to_wait_is_not_recorded(store: ReplayStore) -> None:
    """Nor does it stand in the way of the one that comes later."""

    class Coordinator(LMOwner):
        said: ClassVar[list[str]] = ["wait", "wait", "open"]

        async def handle(self, message: Message) -> Message:
            return RoundState(state=self.said.pop(0), number=1, closed=0)  # type: ignore[arg-type]

    model = ScriptedModel()
    party = Recorded(Coordinator(model), store, of=model)
    asked = NextRound(federation="f", have=0, most=9)

    async def run() -> list[Message]:
        return [await party.handle(asked) for _ in range(5)]

    assert [m.state for m in asyncio.run(run()) if isinstance(m, RoundState)] == [
        "wait", "wait", "open", "open", "open",
    ]  # fmt: skip
    assert (party.misses, party.hits) == (3, 2)


async def test_what_was_asked_is_found_by_its_entries_and_can_be_forgotten(tmp_path: Path) -> None:
    """Also a choice of labels that an earlier version asked for with a smaller limit."""
    path, choice = tmp_path / "replay.sqlite", Sampling(max_tokens=16, choices=("yes", "no"))
    asks = [Ask(chat=user("x")), Ask(chat=user("is it?"), sampling=choice)]
    model = ScriptedModel({"x": "y", "is it?": "no"})
    with opened(path) as store:
        before = replace(choice, max_tokens=5)
        store.put(request_key(model.name, user("is it?"), before), model.name, Generation("yes"))
        await words(recorded(model, store), asks[0])
    ledger = MemoryLedger()
    for ask in asks:
        ledger.append("item", "up", ask, encode(ask))
    ledger.append("item", "down", Completion(generation=Generation("x")), b"x")
    with opened(path) as store:
        assert all(recorded(model, store).holds(ask) for ask in asks)
        keys = questions(ledger.entries(), store.models())
    assert shred(path, keys).records == 2
    with opened(path) as store:
        assert not any(recorded(model, store).holds(ask) for ask in asks)
