"""Bytes of a hostile peer, or of a file that somebody changed: read as what they should be, or refused
with one of our errors, in memory that what was asked for bounds."""

from __future__ import annotations

import asyncio
import sqlite3
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.boundary.messages import (
    SMALL,
    Ask,
    Completion,
    Message,
    Refused,
    Scores,
    decode,
    encode,
)
from cosilo.boundary.messages.base import classes
from cosilo.boundary.record.ledger import SqliteLedger
from cosilo.boundary.wire import logits, opinions, states
from cosilo.errors import BoundaryError, CosiloError, StoreError, UnexpectedReplyError
from cosilo.models.kept.replay import ReplayStore
from cosilo.types import Generation
from hostile import Found, Hostile, examine
from mutated import ENCODED, OPINIONS, PACKED, REPLY, SAMPLES, STATES, altered, changed, fattest


@st.composite
def mutated(draw: st.DrawFn, whole: Sequence[bytes]) -> bytes:
    """One of `whole`, changed here and there as a fuzzer does."""
    return changed(draw(st.sampled_from(whole)), tuple(whole), draw(st.randoms()))


@st.composite
def messages_altered(draw: st.DrawFn) -> bytes:
    """A message with some of its values replaced."""
    return altered(draw(st.sampled_from(ENCODED)), draw(st.randoms()))


def read_or_refused(read: Callable[[], object]) -> object | None:
    try:
        return read()
    except CosiloError:
        return None


@settings(max_examples=3000)
@given(mutated(ENCODED) | messages_altered())
def test_a_changed_message_is_a_message_or_refused(data: bytes) -> None:
    message = read_or_refused(lambda: decode(data))
    if isinstance(message, Message):
        assert 0 <= message.epsilon < float("inf")
        if isinstance(message, Completion):
            assert 0 <= message.generation.seconds < float("inf")
            assert all(t.logprob <= 0.01 for t in message.generation.tokens)
        if isinstance(message, Scores):
            assert all(n >= 0 for n in message.lengths)


@settings(max_examples=3000)
@given(mutated(PACKED))
def test_changed_log_probabilities_are_distributions_or_refused(data: bytes) -> None:
    top = read_or_refused(lambda: logits.unpack(data))
    if isinstance(top, logits.TopK):
        assert np.isfinite(top.logprobs).all()
        total = np.exp(top.logprobs.astype(float)).sum(axis=1) + np.exp(top.rest.astype(float))
        np.testing.assert_allclose(total, 1, atol=1e-3)
        assert top.ids is None or ((top.ids >= 0) & (top.ids < top.size)).all()


@settings(max_examples=1000)
@given(mutated([states.pack(STATES)]), st.integers(-1, 5))
def test_changed_states_are_numbers_or_refused(data: bytes, count: int) -> None:
    found = read_or_refused(lambda: states.unpack(data, count))
    if isinstance(found, np.ndarray):
        assert np.isfinite(found).all()
        assert len(found) == count


@settings(max_examples=1500)
@given(mutated([OPINIONS]))
def test_changed_opinions_are_of_their_texts_or_refused(data: bytes) -> None:
    found = read_or_refused(lambda: opinions.unpack(data, ("ab", "ca"), 8))
    if isinstance(found, opinions.PublicOpinions):
        assert [b"".join(pieces) for pieces in found.pieces] == [b"ab", b"ca"]
        assert np.isfinite(found.losses()).all()
    assert opinions.named_in(data) >= 0


def test_opinions_take_memory_by_what_was_asked_for() -> None:
    front = data_of(OPINIONS)
    for more in (zlib.compress(bytes(1 << 25), 9), b""):
        data = front + more
        assert memory_of(lambda d=data: opinions.unpack(d, ("ab", "ca"), 8)) < 2_000_000  # type: ignore[misc]


def data_of(packed: bytes) -> bytes:
    """Opinions without their cuts and spellings."""
    return packed[: opinions._HEAD.size + opinions._HEAD.unpack_from(packed)[1]]


# What no random change is likely to hit.


def packed(
    n: int, k: int, size: int, step: float, plain: bytes, more: bytes, rests: bytes,
    *, ids: bool = False, classes: bytes = b"", low: bytes = b"",
) -> bytes:  # fmt: skip
    sections = (classes, low, plain, more, rests)
    head = logits._HEAD.pack(1, int(ids), n, k, size, step, *map(len, sections))
    return head + b"".join(sections)


def huffman(symbols: bytes) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(symbols) + coder.flush()


def u2(*values: int) -> bytes:
    return np.array(values, "<u2").tobytes()


@pytest.mark.parametrize(
    "data",
    [
        packed(1, 1, 10, 10.0, huffman(b"\xff"), u2(65535), u2(40000, 0)),  # deeper than can be
        packed(1, 2, 10, 10.0, huffman(b"\xff\0"), u2(65535), u2(40000, 0)),
        packed(1, 2, 10, 10.0, huffman(b"\x05\0"), b"", u2(40000, 0)),  # no place is the top one
        packed(1, 1, 10, float("nan"), huffman(b"\0"), b"", u2(0, 0)),
        packed(1, 1, 10, float("inf"), huffman(b"\0"), b"", u2(0, 0)),
        packed(1, 1, 10, -1.0, huffman(b"\0"), b"", u2(0, 0)),
        packed(1, 0, 10, 1.0, huffman(b""), b"", u2(0, 0)),
        packed(1, 11, 10, 1.0, huffman(bytes(11)), b"", u2(0, 0)),
        packed(2, 1, 10, 1.0, huffman(b"\0\0"), b"", u2(0, 0)),  # a place without its rest
        packed(1, 1, 10, 1.0, huffman(b"\0"), b"", u2(0, 7), ids=True, classes=huffman(b"\x01")),
        packed(1, 1, 10, 1.0, huffman(b"\0"), b"", u2(0, 0), ids=True, classes=huffman(b"\x3f")),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_log_probabilities_that_cannot_be_are_refused(data: bytes) -> None:
    with pytest.raises(UnexpectedReplyError):
        logits.unpack(data)


def memory_of(read: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        read_or_refused(read)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(4096, 256), (1, 1 << 20), (1 << 20, 1), (3, 1 << 18), (16, 16)])
@pytest.mark.parametrize("ids", [False, True])
def test_few_bytes_that_stand_for_many_numbers_take_memory_in_proportion(
    ids: bool, shape: tuple[int, int]
) -> None:
    n, k = shape
    zeros = huffman(bytes(n * k))  # a bit a number, the most that bytes can stand for
    rests = np.tile(np.array([[40000, 0]], "<u2"), (n, 1)).tobytes()
    data = packed(
        n, k, k, 0.0625, zeros, b"", rests, ids=ids, classes=zeros if ids else huffman(b"")
    )
    assert memory_of(lambda: logits.unpack(data)) <= 64 * len(data) + 1_000_000
    found = logits.unpack(data)
    np.testing.assert_allclose(found.logprobs, found.logprobs[0, 0])
    assert memory_of(lambda: logits.unpack(data, most=n * k - 1)) < 2 * len(data) + 10_000
    with pytest.raises(UnexpectedReplyError, match="numbers are more than the"):
        logits.unpack(data, most=n * k - 1)


@pytest.mark.parametrize("ids", [False, True])
def test_what_may_come_takes_memory_in_proportion(ids: bool) -> None:
    rng = np.random.default_rng(1)
    top = logits.top_k(rng.normal(size=(40, 50_000)).astype(np.float32), 5_000, ids=ids)
    data = logits.pack(top)
    assert memory_of(lambda: logits.unpack(data)) <= 64 * len(data) + 1_000_000
    back = logits.unpack(data)
    np.testing.assert_allclose(back.logprobs, top.logprobs, atol=0.07)


def message(**fields: object) -> bytes:
    return msgspec.msgpack.encode(fields)


def token(logprob: float, *top: object) -> dict[str, object]:
    return {"token": "a", "logprob": logprob, "top": top}


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\xa7message\xaaCompletion\xa1x" + b"\x91" * 200_000 + b"\xc0",
        b"\x82\xa7message\xa4Read\xa1x" + b"\x81\xa1a" * 100_000 + b"\xc0",
        b"\x91" * 100_000,
        b"\x82\xa7message\xa4Read\xa5texts\xdd\xff\xff\xff\xff",
        b"\x82\xa7message\xa6States\xa6packed\xc6\xff\xff\xff\xff",
        b"\x82\xa7message\xa4Read\xa5texts\x91\xa2\xff\xfe",
        message(message="Completion", generation={"text": "x"}, epsilon=float("nan")),
        message(message="Completion", generation={"text": "x"}, epsilon=float("inf")),
        message(message="Completion", generation={"text": "x"}, epsilon=-1.0),
        message(message="Completion", generation={"text": "x", "tokens": [token(float("inf"))]}),
        message(message="Completion", generation={"text": "x", "tokens": [token(float("nan"))]}),
        message(message="Completion", generation={"text": "x", "tokens": [token(2.0)]}),
        message(message="Completion", generation={"text": "x", "tokens": [token(-1, ["a", 2.0])]}),
        message(message="Completion", generation={"text": "x", "other_texts": [["role", "x"]]}),
        message(message="Piece", delta={"tokens": [token(float("nan"))]}),
        message(message="Piece", delta={"seconds": float("inf")}),
        message(message="Piece", delta={"tool_calls": [{"index": -1}]}),
        message(message="Piece", delta={"other_texts": [["reasoning\n", "x"]]}),
        message(message="Refused", kind="x", text="x", told={"worked": -1}),
        message(message="Refused", kind="x", text="x", told={"retry_after": float("nan")}),
        message(message="Refused", kind="x", text="x", told={"retry_after": [1]}),
        message(message="Refused", kind="x", text="x", told={str(i): i for i in range(17)}),
        message(message="Completion", generation={"text": "x", "seconds": float("nan")}),
        message(message="Completion", generation={"text": "x", "seconds": -1.0}),
        message(message="Completion", generation={"text": "x", "cpu_seconds": float("inf")}),
        message(message="Scores", packed=b"", lengths=[-5], vocabulary="x"),
        message(message="Scores", packed=b"", lengths=[10**18], vocabulary="x"),
        message(message="Score", items=[], top=8),
        message(message="Score", items=[{"chat": [], "reply": ""}], temperature=float("nan")),
        message(message="Score", items=[{"chat": [], "reply": ""}], temperature=float("inf")),
        message(message="Ask", chat=[], sampling={"max_tokens": -1}),
        message(message="Ask", chat=[], sampling={"temperature": float("nan")}),
        message(message="Ask", chat=[], sampling={"top_p": 7.0}),
        message(message="Read", texts=["x"], layer=-1),
        message(message="Nothing"),
        b"",
    ],
)  # fmt: skip
def test_messages_that_cannot_be_are_refused(data: bytes) -> None:
    with pytest.raises(UnexpectedReplyError, match=r"bytes (are not|do not begin with) a known"):
        decode(data)
    assert memory_of(lambda: decode(data)) < 10 * len(data) + 1_000_000


KINDS = sorted(classes().items())


@pytest.mark.parametrize("kind", [kind for _, kind in KINDS], ids=[name for name, _ in KINDS])
def test_a_message_takes_memory_in_proportion_whatever_it_holds(kind: type[Message]) -> None:
    examples = dict(fattest(kind, 1 << 17))
    for where, data in examples.items():
        assert memory_of(lambda data=data: decode(data)) <= 64 * len(data) + 1_000_000, where
    read = [read_or_refused(lambda data=data: decode(data)) for data in examples.values()]
    assert any(read) or not examples


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (ENCODED[0] + bytes(Ask.largest), f"more than a Ask may have, {Ask.largest}"),
        (b"\x82\xa7message\xa7Refused\xa4kind\xa0" + bytes(SMALL), "more than a Refused may have"),
        (b"\x82\xa7message\xa7Nothing" + bytes(SMALL), "do not begin with a known kind"),
        (b"\x82\xa7epsilon\0" + bytes(SMALL), "do not begin with a known kind"),
    ],
    ids=["Ask", "Refused", "unknown", "its kind is not first"],
)
def test_a_message_too_long_for_its_kind_is_refused_before_it_is_read(
    data: bytes, said: str
) -> None:
    with pytest.raises(UnexpectedReplyError, match=said):
        decode(data)
    assert memory_of(lambda: decode(data)) < 20_000


def test_a_message_too_long_for_its_kind_is_not_sent() -> None:
    with pytest.raises(BoundaryError, match="more than a Refused may have") as caught:
        encode(Refused(kind="", text="x" * SMALL))
    assert caught.value.worked is None  # on what it was the reply to
    assert Completion.largest > 1 << 25  # the longest reply that a back end reads fits


def test_examples_of_the_benchmark_are_read_or_refused() -> None:
    hostile = Hostile()
    found: Found = {}
    asyncio.run(examine(hostile, range(100 * len(hostile.rows)), found))
    asyncio.run(examine(hostile, range(0, 100 * len(hostile.rows), 13), found, traced=True))
    assert sum(row["read"] + row["refused"] for row in found.values()) == 100 * len(hostile.rows)
    ways = [name for name, row in found.items() if row["read"]]
    assert {name.split(":")[0] for name in ways} == {"up", "up, in pieces", "down"}


def test_a_claim_of_usage_is_read_whatever_it_is() -> None:
    for claim in (-(10**9), -1, 2**63):
        said = Completion(generation=Generation("x", prompt_tokens=claim, completion_tokens=claim))
        assert decode(encode(said)) == said


# Files that somebody changed.


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplayStore]:
    store = ReplayStore(tmp_path_factory.mktemp("replay") / "replay.sqlite")
    yield store
    store.close()


@settings(max_examples=200)
@given(data=mutated([msgspec.msgpack.encode(REPLY)]))
def test_a_changed_answer_on_record_is_an_answer_or_refused(
    replayed: ReplayStore, data: bytes
) -> None:
    kept(replayed, data)
    found = read_or_refused(lambda: replayed.get(b"k"))
    if isinstance(found, Generation):
        assert 0 <= found.seconds < float("inf")


@pytest.mark.parametrize("value", [10**12, -1, "text", 0.5, b"\x91" * 100_000, b"\xa2\xff\xfe"])
def test_an_answer_on_record_that_is_none_is_refused(replayed: ReplayStore, value: object) -> None:
    kept(replayed, value)
    with pytest.raises(StoreError, match="damaged answer"):
        replayed.get(b"k")
    if not isinstance(value, bytes):
        with pytest.raises(StoreError, match="damaged answer"):
            replayed.get_reply(b"k")


def kept(store: ReplayStore, value: object) -> None:
    for table, column in (("answers", "answer"), ("scores", "scores")):
        store._open().execute(
            f"INSERT OR REPLACE INTO {table} (key, model, {column}) VALUES (?,?,?)",
            (b"k", "m", value),
        )


@pytest.mark.parametrize("value", [10**12, "text", 0.5, b"\x91" * 100_000, b"", b"\xa2\xff\xfe"])
def test_a_content_in_the_ledger_that_is_none_is_refused(tmp_path: Path, value: object) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.sqlite", "chain")
    asyncio.run(ledger.append("r", "up", SAMPLES[0], ENCODED[0]))
    db = sqlite3.connect(tmp_path / "ledger.sqlite")
    db.execute("UPDATE entries SET payload = ?", (value,))
    db.commit()
    db.close()
    [entry] = ledger.entries()
    with pytest.raises((StoreError, UnexpectedReplyError)):
        entry.message  # noqa: B018
    ledger.close()


def test_few_places_take_little_memory_whatever_they_claim() -> None:
    data = logits._FEW.pack(2, 16, 1024, 1 << 24) + bytes(16 * 5) + bytes(16 * 1024 // 4)
    assert memory_of(lambda: logits.unpack(data)) < 64 * len(data) + 1_000_000
    head = logits._FEW.pack(2, 1, 1, 1 << 24) + bytes([0xF0, 0, 0, 0, 0])
    long = head + b"\xff" * 100_000 + bytes(3)
    assert memory_of(lambda: logits.unpack(long)) < 64 * len(long)
    with pytest.raises(UnexpectedReplyError):
        logits.unpack(long)
