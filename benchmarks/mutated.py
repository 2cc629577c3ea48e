"""What a hostile peer may send: real messages changed here and there, and ones that take much memory.

    SAMPLES ─ changed ─▶ bytes that are nearly a message
    fattest(Ask) ─────▶ bytes of an Ask in which one field holds as many small things as fit

Every class of messages must have a sample here; tests/contracts/test_messages.py says which has none.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import msgspec
import numpy as np
from msgspec import inspect

from cosilo.boundary.messages import (
    Advertise,
    Ask,
    AskHead,
    AskJoint,
    Backward,
    Body,
    CloseJoint,
    Completion,
    Contribute,
    Contributed,
    Embed,
    Embeddings,
    EncryptedLogits,
    EncryptedVector,
    Enrol,
    Enrolled,
    EvaluationKeys,
    Forget,
    Forgotten,
    Forward,
    Gradients,
    HandShares,
    HeadDescribed,
    Joint,
    JointClosed,
    JointOffered,
    JointOpened,
    JointSpent,
    KeysTaken,
    Lend,
    Lent,
    Masked,
    Message,
    NextRound,
    NextStep,
    OpenBody,
    OpenJoint,
    Outputs,
    Piece,
    PluggedIn,
    PlugIn,
    Read,
    Refused,
    RoundState,
    Score,
    Scored,
    Scores,
    States,
    Step,
    Steps,
    SumState,
    Tune,
    Tuned,
    Unmask,
    Verified,
    Verify,
    encode,
)
from cosilo.boundary.messages.federate import OpinionTerms, SumTerms, WalkTerms
from cosilo.boundary.messages.federate_sums import Advert, Unmasking
from cosilo.boundary.messages.forget import ForgottenItem, InFederation
from cosilo.boundary.messages.joint import Address, JointLink
from cosilo.boundary.messages.lend import Described
from cosilo.boundary.wire import logits, opinions, states, tensors, weights
from cosilo.boundary.wire.codecs import codec
from cosilo.models.joint import Wanted
from cosilo.privacy.mechanisms import Release, SampledGaussian
from cosilo.types import (
    Delta,
    Generation,
    Sampling,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Turn,
    user,
)

_RNG = np.random.default_rng(0)
TOP = logits.top_k(_RNG.normal(size=(12, 300)).astype(np.float32), 8)
SORTED = logits.top_k(_RNG.normal(size=(12, 300)).astype(np.float32) * 9, 8, ids=False)
SPREAD = logits.top_k(_RNG.normal(size=(3, 90)).astype(np.float32) * 2000, 90)
ADAPTER = tensors.pack(
    {
        "model.q.lora_A": _RNG.normal(size=(2, 4)).astype(np.float32),
        "model.q.lora_B": _RNG.normal(size=(8, 2)).astype(np.float32),
    }
)
STATES = _RNG.normal(size=(2, 32)).astype(np.float32)
VECTORS = _RNG.normal(size=(2, 8)).astype("<f4")
FEW = logits.top_k(_RNG.normal(size=(4, 3000)).astype(np.float32) * 3, 8)
SCALED = states.pack_scaled(STATES)
HALF = codec("fp16").pack(STATES)
WEIGHTS = weights.pack_weights({"m": STATES, "v": STATES[0]}, "int8")
SAID, STANDS = opinions.spoken(
    _RNG.normal(size=(6, 300)).astype(np.float32), 8, np.array([97, 98, 0, 99, 97, 0], np.int32)
)
_SPELT = {i: bytes([i]) if i in (97, 98, 99) else b"x%d" % i * (i > 0) for i in range(300)}
OPINIONS = opinions.pack(
    opinions.PublicOpinions(
        SAID,
        STANDS,
        ((b"a", b"b", b""), (b"c", b"a", b"")),
        {int(i): _SPELT[int(i)] for i in np.unique(SAID.ids)},
        "v",
    )
)
PACKED = [logits.pack(top) for top in (TOP, SORTED, SPREAD)]
PACKED += [logits.pack_few(FEW), logits.pack_few(FEW.rows(np.array([1])))]

TOKEN = TokenLogprob("It", -0.5, (("It", -0.5), ("A", -1.5)))
CALL = ToolCall("c1", "look", '{"a": [1, 2]}')
REPLY = Generation(
    "It is a refund.",
    tokens=(TOKEN,),
    tool_calls=(CALL,),
    prompt_tokens=30,
    completion_tokens=5,
    seconds=0.3,
    other_texts=(("reasoning", "Money went back."),),
)
ASK = Ask(
    chat=(Turn("user", "Where is my money?"), Turn("assistant", tool_calls=(CALL,))),
    sampling=Sampling(choices=("refund", "fee"), top_logprobs=3, tools='[{"a": 1}]'),
    epsilon=0.5,
)
SCORE = Score(
    items=(Scored(user("Where is it?"), "yes"), Scored(user("r"), "no, it is not")),
    top=8,
    pieces=True,
)
READ = Read(texts=("one", "two"), layer=3)
STEP = Step(chat=user("q"), text="yes", draft="and", top=8, each=True, spell=True)
STEPS = Steps(
    packed=PACKED[3],
    accepted=2,
    lengths=(1, 1, 1),
    back=1,
    spelt=tuple(b"x%d" % i for i in range(len(np.unique(FEW.ids)))),
    vocabulary="v",
    ends=(2,),
    new=4,
    before=900,
)
PIECES = (
    Piece(delta=Delta("It is", tokens=(TOKEN,))),
    Piece(
        delta=Delta(tool_calls=(ToolCallDelta(0, "c1", "look"), ToolCallDelta(0, arguments="{}")))
    ),
    Piece(delta=Delta(other_texts=(("reasoning", "Money."),), extra='{"a": 1}')),
    Piece(delta=Delta(finish_reason="stop", prompt_tokens=30, completion_tokens=5, seconds=0.3)),
)
WANTED = Wanted(program="head", base="minilm-int8", tells="logits", candidates=(3, 4))
ADVERT = Advert(
    owner="bank", mask_key=bytes(32), share_key=bytes(range(32)), content=bytes(32), own=bytes(32)
)
RELEASE = Release(
    mechanism=SampledGaussian(noise=1.1, rate=0.01, steps=9), unit="group", series="s", draw="d"
)
SAMPLES: tuple[Message, ...] = (
    ASK,
    Completion(generation=REPLY),
    *PIECES,
    Refused(kind="UnreachableError", text="busy", told={"worked": 1, "retry_after": 2.5, "code": "x"}),
    SCORE,
    Scores(
        packed=PACKED[0],
        lengths=(5, 7),
        vocabulary="v",
        pieces=((b"a",) * 5, (b"b",) * 7),
        spelt=tuple(b"x%d" % i for i in range(len(np.unique(TOP.ids)))),
    ),
    READ,
    Embed(texts=("one", "two"), dimensions=8),
    Embeddings(packed=VECTORS.tobytes(), prompt_tokens=9),
    States(packed=states.pack(STATES), prompt_tokens=9),
    STEP,
    Step(thread=bytes(16), ids=(3, 300), draft_ids=(4,), held=90),
    STEPS,
    msgspec.structs.replace(ASK, epsilon=0.5, release=RELEASE),
    Ask(chat=user("q"), sampling=Sampling(fields=(("min_p", "0.1"), ("user", '"u1"')))),
    Forward(first=1, last=3, count=2, packed=SCALED),
    Forward(thread=bytes(16), first=1, count=2, packed=SCALED, top=8),
    Outputs(count=2, packed=SCALED),
    Enrol(base="ab" * 16, layers=(("model.q", 8, 4),), rank=2, examples=30, settings="cd"),
    Enrolled(
        version=1, federation="ef" * 16, base="ab" * 16, rounds=3, rule="average", rank=2, scale=2.0,
        codec="fp32", seed=1, counts=True, most=4096, held=20.0,
    ),
    NextRound(federation="ef" * 16, have=1, most=4096, patience=20.0),
    Enrol(base="ab" * 16, layers=(), rank=0, settings="cd", public="ef" * 16),
    Enrolled(
        version=1, federation="ef" * 16, base="ab" * 16, rounds=3, rule="average", rank=0, scale=2.0,
        codec="fp32", seed=1, counts=False, most=4096, held=20.0, teaches=True,
        opinions=OpinionTerms(public="ef" * 16, top=8),
    ),
    NextRound(federation="ef" * 16, have=1, most=4096, patience=20.0, top=8, most_places=40),
    RoundState(state="open", number=2, closed=1, of=1, packed=OPINIONS),
    Contribute(federation="ef" * 16, number=2, rank=0, packed=OPINIONS),
    RoundState(state="open", number=2, closed=1, of=1, packed=ADAPTER, rank=2, adds=True),
    RoundState(state="wait", number=1, closed=0, waits_for="updates", here=1, wanted=3, left=9.5),
    RoundState(state="ended", number=2, closed=2, fate="dropped", why="its norm is too large"),
    RoundState(state="back", number=2, closed=1, epoch=1),
    Contribute(
        federation="ef" * 16, number=2, rank=2, packed=ADAPTER,
        release=Release(mechanism=SampledGaussian(noise=1.0, rate=0.1, steps=8)),
    ),
    Enrol(base="ab" * 16, layers=(("model.q", 8, 4),), rank=2, sums=True, scalars=True),
    Enrolled(
        version=1, federation="ef" * 16, base="ab" * 16, rounds=3, rule="average", rank=2, scale=2.0,
        codec="fp32", seed=1, counts=True, most=4096, held=20.0,
        sums=SumTerms(
            owner="bank", among=3, threshold=2, largest=8.0, bits=32, most_examples=1000,
        ),
        walk=WalkTerms(directions=2048, rate=1e-3),
    ),
    Advertise(federation="ef" * 16, number=1, advert=ADVERT),
    HandShares(federation="ef" * 16, number=1, sealed=(("clinic", bytes(148)),)),
    Masked(federation="ef" * 16, number=1, vector=bytes(range(40))),
    Unmask(
        federation="ef" * 16, number=1,
        shares=Unmasking(own=(("bank", bytes(66)),), keys=(("clinic", bytes(66)),)),
    ),
    NextStep(federation="ef" * 16, number=1, step="vector", among=3, patience=20.0),
    SumState(step="shares", adverts=(ADVERT,), threshold=2),
    SumState(step="unmasking", owners=("bank",), sealed=(("bank", bytes(148)),)),
    SumState(step="wait", here=1, wanted=3, left=9.5),
    SumState(step="over", why="its vector came late"),
    Contributed(fate="late", why="round 2 had closed"),
    Backward(thread=bytes(16), count=2, packed=SCALED),
    Gradients(count=2, packed=SCALED),
    Forward(first=1, last=3, count=2, packed=HALF, lengths=(1, 1), codec="fp16", back="fp16", width=32,
            body=bytes(20)),
    Backward(thread=bytes(16), count=2, packed=HALF, codec="fp16", back="fp16", width=32,
             body=bytes(20)),
    OpenBody(base=bytes(16), first=1, last=3, training=bytes(16), seed=4, at=bytes(20)),
    Body(layers=4, rank=8, learning_rate=2e-4),
    Verify(chat=user("q"), sampling=Sampling(max_tokens=9, stop=("end",)), draft="yes", whole=True),
    Verify(chat=user("q"), thread=bytes(16), draft="yes and no", held=90, whole=True),
    Verified(thread=bytes(16), text=" and", at=3, drafted=2, accepted=1, vocabulary="v", new=4),
    Ask(chat=user("q"), adapter=32 * "a"),
    Lend(part=1, most=1 << 20, vocabulary=16 * "b", aligned_to=32 * "a"),
    Lent(
        part=0, parts=1, size=len(WEIGHTS), digest=64 * "d", packed=WEIGHTS,
        about=Described(config="{}", base=32 * "b", kept=(0, 1, 3), ends=1, whole=3.5, alone=4.5),
    ),
    PlugIn(base=32 * "b", rank=4, alpha=8.0, packed=WEIGHTS),
    PluggedIn(name=32 * "a"),
    AskHead(encoder="minilm-int8"),
    HeadDescribed(labels=("card", "loan"), inputs=384, left=9),
    EvaluationKeys(name=64 * "c", part=1, parts=2, turning=9, packed=bytes(range(40))),
    KeysTaken(whole=True),
    EncryptedVector(keys=64 * "c", packed=bytes(range(40))),
    EncryptedLogits(packed=bytes(range(40)), took=0.25),
    AskJoint(wanted=WANTED),
    JointOffered(
        offer=64 * "d", program="head", shape='{"inputs":384,"shifts":[[1,2],[0,3]]}',
        labels=("card", "loan"), left=4, once=1 << 20, each=1 << 16,
    ),
    OpenJoint(
        offer=64 * "d", wanted=WANTED, run=32 * "1", agreed=64 * "a", at=Address("data.example", 8500),
        tls=True,
    ),
    JointOpened(run=32 * "1", agreed=64 * "a", at=Address("lm.example", 8501),
                helper=Address("127.0.0.1", 8600)),
    Joint(run=32 * "1", number=2, tells="logits", parties=2, most=1 << 20, clear=(5, 6), text="hi"),
    JointSpent(links=(JointLink(0, 1, 99, 2), JointLink(1, 0, 88, 3)), took=0.5),
    CloseJoint(run=32 * "1"),
    JointClosed(),
    Tune(
        chats=(user("hi there", system="be kind"), user("hi again")), choices=("yes", "no"),
        shares=((900, 100), (0, 7)), steps=4, batch=2, learning_rate=1e-3, rank=4,
        confidence=0.5,
    ),
    Tuned(name=32 * "a", first=2.0, last=1.0, prompt_tokens=99),
    Forget(
        forget=32 * "f", part=1, requests=(32 * "1", 32 * "2"), adapters=(32 * "a",),
        federations=(InFederation(federation="ef" * 16, rounds=(2, 3)),), bodies=(40 * "b",),
    ),
    Forget(forget=32 * "f", everything=True),
    Forgotten(
        forget=32 * "f", part=1, asked=64 * "c", client="clinic", by="lm-owner", at=1.7e9,
        outcomes=(
            ForgottenItem(what="request", how="deleted", names=(32 * "1",), count=1, left=("digests",)),
            ForgottenItem(what="federation", how="redone", names=("ef" * 16,), count=1, before=64 * "d",
                    after=64 * "e", first=2, last=3, left=("others were given it",)),
            ForgottenItem(what="body", how="nothing", names=(40 * "b",)),
        ),
        chain=(bytes(range(99)),), signature=bytes(70),
    ),
)  # fmt: skip
ENCODED = tuple(encode(m) for m in SAMPLES)

ODD = (
    b"\xdd\xff\xff\xff\xff",  # four that claim more elements, pairs, bytes or characters than there are
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\x7f\xff\xff\xff",
    b"\xcb\x7f\xf8" + bytes(6),  # NaN
    b"\xcb\x7f\xf0" + bytes(6),  # infinity
    b"\xcb\xff\xf0" + bytes(6),
    b"\x91" * 50,
    b"\x81\xa1a" * 20,
    b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + bytes(7),
    b"\xc0",
    b"\xa2\xff\xfe",  # no UTF-8
)
"""What msgpack allows and nobody means."""


def changed(whole: bytes, others: tuple[bytes, ...], rng: random.Random) -> bytes:
    """`whole` with bytes changed, cut out, put in, or taken from another."""
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randint(0, len(data))
        match rng.randrange(6):
            case 0:
                data[at : at + 1] = rng.randbytes(1)
            case 1:
                data[at : at + rng.randint(1, 8)] = b""
            case 2:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            case 3:
                data[at : at + rng.randint(0, 9)] = rng.choice(ODD)
            case 4:
                other = rng.choice(others)
                data[at:] = other[rng.randint(0, len(other)) :]
            case _:
                number = rng.choice((0, 1, 2**16, 2**24, 2**31, 2**32 - 1))
                data[at : at + 4] = number.to_bytes(4, rng.choice(("little", "big")))
    return bytes(data)


VALUES: tuple[Any, ...] = (
    -1, 0, 1, 7, 255, 2**24, 2**31, 2**53, 2**63, 2**64 - 1, -(2**63),
    -0.5, 0.5, 1e-9, 1e308, 5e-324, float("nan"), float("inf"), -float("inf"),
    "", "x", "stop", "reasoning", "\x00\x1b[2J", "\N{GRINNING FACE}" * 50, "9" * 400, b"", b"\xff" * 9,
    None, True, False, [], {}, [[]], [0], [""], ["x", 0], {"": 0},
)  # fmt: skip


def altered(whole: bytes, rng: random.Random) -> bytes:
    """`whole`, which is msgpack, with a few of its values replaced by others, repeated or left out."""
    said = msgspec.msgpack.decode(whole)
    for _ in range(rng.choice((1, 1, 2, 4))):
        inner = said
        while True:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(inner[key], dict | list) and rng.random() < 0.8:
                inner = inner[key]
                continue
            match rng.randrange(8):
                case 0:
                    del inner[key]
                case 1 if isinstance(inner, list):
                    inner[key:key] = [inner[key]] * rng.choice((1, 2, 40))
                case 2 if isinstance(inner, dict):
                    inner[rng.choice(("x", "", "message", "epsilon", "told"))] = inner.pop(key)
                case _:
                    kind = (int, float) if isinstance(inner[key], int | float) else type(inner[key])
                    alike = [v for v in VALUES if isinstance(v, kind)]
                    inner[key] = deepcopy(rng.choice(alike if rng.random() < 0.7 else VALUES))
            break
    return msgspec.msgpack.encode(said)


def fattest(kind: type[Message], size: int) -> Iterator[tuple[str, bytes]]:
    """Messages of `kind` of about `size` bytes, or of as many as it may have, each with one of its
    collections full of the smallest things that it may hold: (where, encoded)."""
    for where, value in _full(inspect.type_info(kind), min(size, kind.largest - 1024)):
        yield where, msgspec.msgpack.encode(value)


_SMALL: dict[type, tuple[Any, ...]] = {
    inspect.StrType: ("", "a", "é"),
    inspect.BytesType: (b"", b"a"),
    inspect.IntType: (0, 1000, 100_000),
    inspect.FloatType: (0, 0.001),
    inspect.BoolType: (True,),
    inspect.NoneType: (None,),
}


_HASH = re.compile(r"\[0-9a-f\]\{(\d+)")
"""A pattern of so many hexadecimal digits, or of so many and more."""


def _full(kind: Any, size: int) -> Iterator[tuple[str, Any]]:
    """Values of `kind` as long as `size` allows in one place: (where, value)."""
    match kind:
        case inspect.StructType():
            needed = {f.encode_name: _least(f.type) for f in kind.fields if f.required}
            if kind.tag_field is not None:
                needed = {kind.tag_field: kind.tag, **needed}
            for field in kind.fields:
                for where, value in _full(field.type, size):
                    yield f".{field.encode_name}{where}", {**needed, field.encode_name: value}
        case inspect.VarTupleType() | inspect.ListType():
            most = kind.max_length or size
            for item in _smallest(kind.item_type):
                count = min(most, size // len(msgspec.msgpack.encode(item)))
                yield f"[{item!r}]", [item] * count
            for where, value in _full(kind.item_type, size):
                yield f"[0]{where}", [value]
        case inspect.TupleType():
            least = [_least(i) for i in kind.item_types]
            for n, inner in enumerate(kind.item_types):
                for where, value in _full(inner, size):
                    yield f".{n}{where}", [*least[:n], value, *least[n + 1 :]]
        case inspect.DictType():
            count = min(kind.max_length or size, size // 4)
            least = _least(kind.value_type)
            yield "{}", {f"{i:x}": least for i in range(count)}
        case inspect.UnionType():
            for inner in kind.types:
                yield from _full(inner, size)
        case inspect.StrType(max_length=most):
            count = min(size - 4, (most or size) - 1)
            yield "(ascii and one that is not)", "a" * count + "\N{GRINNING FACE}"
        case inspect.Metadata():
            yield from _full(kind.type, size)
        case _:
            return


def _least(kind: Any) -> Any:
    return next(iter(_smallest(kind)))


def _smallest(kind: Any) -> Iterator[Any]:
    """Small values of `kind`, as they are encoded."""
    match kind:
        case inspect.StructType():
            fields = {f.encode_name: _least(f.type) for f in kind.fields if f.required}
            yield {kind.tag_field: kind.tag, **fields} if kind.tag_field else fields
        case inspect.VarTupleType() | inspect.ListType():
            least = [_least(kind.item_type)]
            yield least * (kind.min_length or 0)
            yield least
        case inspect.TupleType():
            for n in range(3):
                yield [(list(_smallest(i)) * 3)[n] for i in kind.item_types]
        case inspect.DictType():
            yield {}
        case inspect.UnionType():
            for inner in kind.types:
                yield from _smallest(inner)
        case inspect.LiteralType():
            yield from kind.values
        case inspect.Metadata():
            yield from _smallest(kind.type)
        case inspect.StrType(pattern=pattern) if pattern and (found := _HASH.search(pattern)):
            yield "0" * int(found[1])
        case inspect.StrType(pattern=pattern) if pattern and "|" in pattern:
            yield pattern[pattern.index("(") + 1 : pattern.index("|")]  # the first of its words
        case inspect.StrType(pattern=pattern) if pattern:
            yield pattern[pattern.index("[") + 1]  # one of its letters
        case inspect.BytesType(min_length=least) if least:
            yield bytes(least)
        case inspect.IntType(ge=lowest) | inspect.FloatType(ge=lowest) if lowest:
            yield lowest
        case inspect.FloatType(gt=0):
            yield 1
        case _:
            yield from _SMALL[type(kind)]
