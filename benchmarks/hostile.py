"""Real messages, packed log-probabilities and states, changed a million times: each is read as what it
should be, or refused with one of our errors.

    python benchmarks/hostile.py --count 1000000 --state /tmp/hostile.json

Example number i is drawn from seed i, so a run that is cut off goes on where it was, and what went
wrong can be made again: --first i --count 1. It stops at the first exception that is not ours.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cosilo.boundary.messages import (
    Ask,
    Completion,
    Message,
    Read,
    Score,
    Scored,
    Scores,
    States,
    decode,
    encode,
)
from cosilo.boundary.wire import logits, states
from cosilo.errors import CosiloError
from cosilo.types import Generation, Sampling, TokenLogprob, ToolCall, Turn, user

EVERY = 10_000
"""Examples after which the state is written."""


def subjects() -> list[tuple[str, bytes, Callable[[bytes], None]]]:
    """What is changed, and what reads it and looks at the result."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 300)).astype(np.float32)
    packed = [
        logits.pack(logits.top_k(rows, 8)),
        logits.pack(logits.top_k(rows * 9, 8, ids=False)),
        logits.pack(logits.top_k(rows[:3, :90] * 2000, 90)),
    ]
    seen = states.pack(rng.normal(size=(3, 32)).astype(np.float32))
    call = ToolCall("c1", "look", '{"a": [1, 2]}')
    reply = Generation("It is.", (TokenLogprob("It", -0.5, (("It", -0.5),)),), (call,))
    messages: list[Message] = [
        Ask(
            chat=(Turn("user", "Where?"), Turn("assistant", tool_calls=(call,))),
            sampling=Sampling(choices=("refund", "fee"), top_logprobs=3, tools='[{"a": 1}]'),
            epsilon=0.5,
        ),
        Completion(generation=reply),
        Score(items=(Scored(user("q"), "yes"), Scored(user("r"), "no")), top=8, pieces=True),
        Scores(packed=packed[0], lengths=(5, 7), vocabulary="v", pieces=((b"a", b"b"),)),
        Read(texts=("one", "two"), layer=3),
        States(packed=seen, prompt_tokens=9),
    ]
    found = [(type(m).__name__, encode(m), _message) for m in messages]
    found += [(f"log-probabilities {i}", data, _distributions) for i, data in enumerate(packed)]
    return [*found, ("states", seen, _states)]


def _message(data: bytes) -> None:
    found = decode(data)
    assert 0 <= found.epsilon < float("inf")


def _distributions(data: bytes) -> None:
    top = logits.unpack(data)
    assert np.isfinite(top.logprobs).all()
    total = np.exp(top.logprobs.astype(float)).sum(axis=1) + np.exp(top.rest.astype(float))
    assert (np.abs(total - 1) < 1e-3).all()


def _states(data: bytes) -> None:
    assert np.isfinite(states.unpack(data, 3)).all()


def changed(whole: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """`whole` with bytes changed, cut out, put in, or taken from another."""
    data = bytearray(whole)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randint(0, len(data))
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = rng.randbytes(1)
            case 1:
                data[at : at + rng.randint(1, 8)] = b""
            case 2:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            case 3:
                other = rng.choice(others)
                data[at:] = other[rng.randint(0, len(other)) :]
            case _:
                number = rng.choice([0, 1, 2**16, 2**24, 2**31, 2**32 - 1])
                data[at : at + 4] = number.to_bytes(4, rng.choice(["little", "big"]))
    return bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--state", type=Path, help="where it goes on, and how far it came")
    given = parser.parse_args()
    warnings.simplefilter("error")
    first, counts = given.first, Counter[str]()
    if given.state and given.state.exists():
        before = json.loads(given.state.read_text())
        first, counts = before["next"], Counter(before["counts"])
    parts = subjects()
    others = [data for _, data, _ in parts]
    started = time.process_time()
    for i in range(first, given.first + given.count):
        rng = random.Random(i)
        name, whole, look = parts[i % len(parts)]
        try:
            look(changed(whole, others, rng))
            counts[f"{name}: read"] += 1
        except CosiloError:
            counts[f"{name}: refused"] += 1
        except BaseException:
            print(f"example {i} of {name}:")
            raise
        if given.state and (i + 1) % EVERY == 0:
            given.state.write_text(json.dumps({"next": i + 1, "counts": counts}))
    for name, count in sorted(counts.items()):
        print(f"{name:28} {count:9,}")
    print(f"{sum(counts.values()):,} examples, {time.process_time() - started:.0f} s of CPU now")


if __name__ == "__main__":
    main()
