"""Runs made by hand: what each item sent, what came back, and how it was graded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from cosilo.boundary.messages import Ask, Completion, encode
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.objectives.base import Item, Run
from cosilo.tasks.base import Example, Secret
from cosilo.types import Answer, Generation, user


@dataclass
class Crossing:
    """One item: its own text and secrets, what was sent for it (None: nothing), and the reply."""

    text: str
    secrets: Sequence[tuple[str, str]] = ()
    sent: str | None = None
    reply: str = "yes"
    target: str = "yes"
    grade: float = 1.0
    by: str = "large"
    confidence: float | None = None
    suspect: bool = False
    abstained: bool = False
    tokens: tuple[int, int] = (10, 1)
    lm_seconds: float = 0.0
    epsilon: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def example(id: str, crossing: Crossing) -> Example:
    secrets = tuple(Secret(f"{id}/{k}", *s) for k, s in enumerate(crossing.secrets))
    return Example(id, user(crossing.text), (crossing.target,), secrets)


def send(
    ledger: MemoryLedger, request: str, text: str, reply: Generation, *, epsilon: float = 0.0
) -> None:
    ask = Ask(chat=user(text, system="Answer with yes or no."), epsilon=epsilon)
    ledger.append(request, "up", ask, encode(ask))
    completion = Completion(generation=reply)
    ledger.append(request, "down", completion, encode(completion))


MakeRun = Callable[..., Run]


@pytest.fixture
def crossing() -> type[Crossing]:
    return Crossing


@pytest.fixture
def make_run() -> MakeRun:
    def make(
        crossings: Sequence[Crossing],
        *,
        background: Sequence[Crossing] = (),
        keep: Any = "content",
        **options: Any,
    ) -> Run:
        ledger, prepare = MemoryLedger(keep=keep), MemoryLedger(keep=keep)
        items = []
        for k, c in enumerate(crossings):
            reply = Generation(
                c.reply,
                prompt_tokens=c.tokens[0],
                completion_tokens=c.tokens[1],
                seconds=c.lm_seconds,
            )
            if c.sent is not None:
                send(ledger, str(k), c.sent, reply, epsilon=c.epsilon)
            answer = Answer(
                reply,
                by=c.by,  # type: ignore[arg-type]
                confidence=c.confidence,
                suspect=c.suspect,
                abstained=c.abstained,
            )
            items.append(Item(example(str(k), c), answer, c.grade, c.seconds, c.cpu_seconds))
        for k, c in enumerate(background):
            if c.sent is not None:
                reply = Generation(c.reply, prompt_tokens=5)
                send(prepare, f"pool/b{k}", c.sent, reply, epsilon=c.epsilon)
        examples = tuple(example(f"b{k}", c) for k, c in enumerate(background))
        return Run(tuple(items), ledger.entries, prepare.entries, examples, **options)

    return make
