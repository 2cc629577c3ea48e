"""Test classes to inherit, which check what Cosilo expects of every plug-in.

    class TestMyStrategy(StrategyContract):
        def strategy(self) -> Strategy:
            return MyStrategy()

A strategy, a defence or a model is done when its contract passes.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import math
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import ClassVar, get_args
from unittest import mock

import msgspec
import pytest
from msgspec import inspect

from cosilo.boundary.messages import (
    LARGEST,
    SMALL,
    Ask,
    Completion,
    Message,
    Request,
    decode,
    encode,
)
from cosilo.boundary.messages.base import strings
from cosilo.boundary.meter import Budget, Meter
from cosilo.boundary.record.ledger import Ledger, MemoryLedger
from cosilo.defences.base import Defence
from cosilo.errors import BudgetExceededError, CosiloError
from cosilo.models import catalog
from cosilo.models.base import EVERYTHING, Access, TextModel, stream
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.models.present import EXTRAS
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.registry import Loads
from cosilo.session import Side, open_session
from cosilo.strategies import base as strategy_base
from cosilo.strategies.base import Session, Strategy
from cosilo.testing.threads import ThreadContract as ThreadContract
from cosilo.types import Answer, Chat, Delta, Demonstration, Role, Sampling, assemble, user

LABELS = ("billing", "delivery", "refund")
CANARY = "canary-7413-zebra"


@contextlib.contextmanager
def noticing() -> Iterator[list[tuple[str, Loads]]]:
    """What is loaded in here, one entry at a time: model files that are asked for and optional packages
    that are imported, each with the package whose code did so.
    """
    noticed: list[tuple[str, Loads]] = []
    importing, finding = builtins.__import__, catalog.path

    def imports(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        root = name.partition(".")[0]
        if not level and root in EXTRAS:
            by = str((globals or {}).get("__name__", ""))
            noticed.append((by.partition(".")[0], Loads(packages=(root,))))
        return importing(name, globals, locals, fromlist, level)

    def path(name: str) -> Path:
        noticed.append(("cosilo", Loads(models=(name,))))
        return finding(name)

    with (
        mock.patch.object(builtins, "__import__", imports),
        mock.patch.object(catalog, "path", path),
    ):
        yield noticed


def assert_stated(noticed: Sequence[tuple[str, Loads]], stated: Loads, plugin: object) -> None:
    """Neither Cosilo's code nor that of `plugin`'s package loaded what is not stated, so that a run
    which lacks any of it is refused at its start.
    """
    own = {"cosilo", type(plugin).__module__.partition(".")[0]}
    found = [loads for by, loads in noticed if by in own]
    assert not {m for loads in found for m in loads.models} - set(stated.models)
    assert not {p for loads in found for p in loads.packages} - set(stated.packages)


@contextlib.contextmanager
def beating(models: Sequence[object], begun: Callable[[], object] = bool) -> Iterator[None]:
    """In here the event loop must have a turn whenever one of `models`, or of those trained from them,
    is trained or asked for vectors or probabilities from outside; `begun` is called in that turn.
    """
    loop, here = asyncio.get_running_loop(), threading.get_ident()

    def watched(work: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object, **options: object) -> object:
            own = sys._getframe(1).f_globals.get("__name__") == work.__module__
            if not own:  # a model may well call itself where it is asked for one answer
                assert threading.get_ident() != here, f"{work.__qualname__} keeps the loop waiting"
                turn = threading.Event()
                loop.call_soon_threadsafe(begun)
                loop.call_soon_threadsafe(turn.set)
                assert turn.wait(10), f"the loop stands still during {work.__qualname__}"
            return work(*arguments, **options)

        return run

    with contextlib.ExitStack() as stack:
        for kind in {type(model) for model in models}:
            for name in ("fit", "probabilities", "embed"):
                if callable(work := getattr(kind, name, None)):
                    stack.enter_context(mock.patch.object(kind, name, watched(work)))
        yield


class StrategyContract:
    """Override `strategy`; override the rest where the strategy needs something else."""

    def strategy(self) -> Strategy:
        raise AssertionError("a contract test must say which strategy it is about")

    def small(self) -> TextModel:
        return ScriptedModel({f"about {x}": x for x in LABELS}, confidence=0.8, name="small")

    def large(self) -> ScriptedModel:
        return ScriptedModel({f"about {x}": x for x in LABELS}, name="large", seconds=0.1)

    def owner(self) -> DataOwner:
        def example(i: int) -> Demonstration:
            label = LABELS[i % len(LABELS)]
            return Demonstration(f"e{i}", user(f"message {i} is about {label}"), label)

        return DataOwner(
            self.small(),
            private=tuple(example(i) for i in range(30)),
            pool=tuple(
                Demonstration(e.id, e.chat, "") for e in (example(i) for i in range(30, 45))
            ),
            calibration=tuple(example(i) for i in range(45, 75)),
        )

    def open(
        self, *, meter: Meter | None = None, ledger: Ledger | None = None, **kwargs: object
    ) -> Session:
        def side() -> LMOwner:
            return LMOwner(self.large(), exposes=Access.LOGPROBS.shows)

        strategy = self.strategy()
        others = range(1, strategy.needs.peers)
        return open_session(
            self.owner(),
            side(),
            strategy,
            sampling=Sampling(choices=LABELS),
            meter=meter,
            ledger=ledger,
            others={f"other{i}": Side(lm=side(), meter=meter, ledger=ledger) for i in others},
            **kwargs,  # type: ignore[arg-type]
        )

    def loads(self) -> Loads:
        """What may be loaded: what the strategy states, and what the models here take."""
        return self.strategy().needs.loads

    def chats(self) -> Sequence[Chat]:
        return [user(f"new message {i} is about {x}") for i, x in enumerate(LABELS)]

    def test_answers_after_prepare(self) -> None:
        async def run() -> list[Answer]:
            strategy, session = await self.strategy().prepare(self.open())
            return [
                await strategy.answer(session.bind(str(i)), c) for i, c in enumerate(self.chats())
            ]

        for answer in asyncio.run(run()):
            assert answer.text
            assert answer.by in ("small", "large", "both")
            assert answer.confidence is None or 0 <= answer.confidence <= 1

    def test_loads_only_what_it_states(self) -> None:
        async def run() -> None:
            strategy, session = await self.strategy().prepare(self.open())
            for i, chat in enumerate(self.chats()):
                await strategy.answer(session.bind(str(i)), chat)

        with noticing() as noticed:
            asyncio.run(run())
        assert_stated(noticed, self.loads(), self.strategy())

    def test_a_stream_says_what_the_answer_says(self) -> None:
        async def run() -> None:
            strategy, session = await self.strategy().prepare(self.open())
            for i, chat in enumerate(self.chats()):
                whole = await strategy.answer(session.bind(f"a{i}"), chat)
                pieces: list[Delta] = []
                last: Answer | None = None
                async for piece in strategy_base.stream(strategy, session.bind(f"s{i}"), chat):
                    assert last is None, "an Answer must be the last piece"
                    if isinstance(piece, Answer):
                        last = piece
                    else:
                        pieces.append(piece)
                assert last is not None, "a stream must end with the whole Answer"
                assert last.text == whole.text == assemble(pieces).text
                assert last.by == whole.by

        asyncio.run(run())

    def test_prepare_leaves_what_it_was_given(self) -> None:
        session, strategy = self.open(), self.strategy()
        owner, before = session.owner, repr(strategy)
        asyncio.run(strategy.prepare(session))
        assert session.owner is owner
        assert repr(strategy) == before

    def test_the_loop_goes_on_while_prepare_works(self) -> None:
        """Whoever is served meanwhile is kept waiting by nothing that the small models work out."""

        async def run() -> None:
            session = self.open()
            with beating([session.owner.model, session.owner.embedder]):
                await self.strategy().prepare(session)

        asyncio.run(run())

    def test_prepare_that_is_cancelled_can_be_begun_again(self) -> None:
        async def run() -> None:
            session, begun = self.open(), asyncio.Event()
            with beating([session.owner.model], begun.set):
                task = asyncio.create_task(self.strategy().prepare(session))
                training = asyncio.create_task(begun.wait())
                await asyncio.wait([task, training], return_when=asyncio.FIRST_COMPLETED)
                training.cancel()
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            fresh = self.open()
            one, two = await self.strategy().prepare(session), await self.strategy().prepare(fresh)
            for i, chat in enumerate(self.chats()):
                answers = [await s.answer(o.bind(str(i)), chat) for s, o in (one, two)]
                assert answers[0].text == answers[1].text

        asyncio.run(run())

    def test_sends_only_what_it_declares(self) -> None:
        ledger = MemoryLedger()

        async def run() -> None:
            strategy, session = await self.strategy().prepare(self.open(ledger=ledger))
            for i, chat in enumerate(self.chats()):
                await strategy.answer(session.bind(str(i)), chat)

        asyncio.run(run())
        declared = {kind.__name__ for kind in self.strategy().needs.sends}
        assert {e.kind for e in ledger.entries() if e.direction == "up"} <= declared

    def test_says_by_large_exactly_when_something_crossed(self) -> None:
        async def run() -> None:
            strategy, session = await self.strategy().prepare(self.open())
            for i, chat in enumerate(self.chats()):
                bound = session.bind(str(i))
                answer = await strategy.answer(bound, chat)
                assert (answer.by != "small") == (bound.totals.messages > 0)

        asyncio.run(run())

    def test_a_budget_of_nothing_sends_nothing(self) -> None:
        ledger = MemoryLedger()
        meter = Meter(Budget(messages=0))

        async def run() -> None:
            strategy, session = await self.strategy().prepare(self.open(meter=meter, ledger=ledger))
            for i, chat in enumerate(self.chats()):
                await strategy.answer(session.bind(str(i)), chat)

        with contextlib.suppress(BudgetExceededError):
            asyncio.run(run())
        assert not list(ledger.entries())
        assert meter.totals.messages == 0


class DefenceContract:
    """Override `defence` and, where it hides other things, `secret_text` and `secrets`.

    Attributes:
        puts_back: what it hides stands in the reply again; not so where it is changed for good.
    """

    puts_back: ClassVar[bool] = True

    def defence(self) -> Defence:
        raise AssertionError("a contract test must say which defence it is about")

    def loads(self) -> Loads:
        """What may be loaded: what the defence was registered with."""
        return Loads()

    def secret_text(self) -> str:
        return "Please write to jane.roe@example.org about the invoice."

    def secrets(self) -> Sequence[str]:
        return ("jane.roe@example.org",)

    def echo(self, prompt: str) -> tuple[str, str, list[str]]:
        """(reply, streamed reply, what the LM saw) when the LM repeats the prompt."""
        model = ScriptedModel()

        async def run() -> tuple[str, str]:
            strategy = strategy_base.strategies.create("large")
            session = open_session(
                DataOwner(ScriptedModel()), LMOwner(model), strategy, defences=[self.defence()]
            )
            whole = await strategy.answer(session.bind("r1"), user(prompt))
            pieces = [
                p
                async for p in strategy_base.stream(strategy, session.bind("r1"), user(prompt))
                if isinstance(p, Delta)
            ]
            return whole.text, assemble(pieces).text

        whole, streamed = asyncio.run(run())
        return whole, streamed, ["\n".join(t.content for t in chat) for chat in model.seen]

    def test_secrets_do_not_leave(self) -> None:
        for seen in self.echo(self.secret_text())[2]:
            for secret in self.secrets():
                assert secret not in seen

    def test_loads_only_what_it_states(self) -> None:
        with noticing() as noticed:
            self.echo(self.secret_text())
        assert_stated(noticed, self.loads(), self.defence())

    def test_an_echo_comes_back_exactly(self) -> None:
        text = self.secret_text()
        whole, streamed, seen = self.echo(text)
        if not self.puts_back:
            text = seen[0]
        assert whole == text
        assert streamed == text

    def test_a_failing_guard_sends_nothing(self) -> None:
        class Failing(type(self.defence())):  # type: ignore[misc]
            async def guard(self, message: Message, forward: object, *, request: str) -> Message:
                raise RuntimeError(CANARY)

        ledger = MemoryLedger()
        failing = self.defence()
        object.__setattr__(failing, "__class__", Failing)
        session = open_session(
            DataOwner(ScriptedModel()),
            LMOwner(ScriptedModel()),
            strategy_base.strategies.create("large"),
            defences=[failing],
            ledger=ledger,
        )
        with pytest.raises(CosiloError) as caught:
            asyncio.run(session.lm.send(Ask(chat=user(CANARY))))
        assert CANARY not in str(caught.value)
        assert not list(ledger.entries())


class ModelContract:
    """Override `model`; `chat` must be something it can answer."""

    def model(self) -> TextModel:
        raise AssertionError("a contract test must say which model it is about")

    def loads(self) -> Loads:
        """What may be loaded: what the model was registered with."""
        return Loads()

    def chat(self) -> Chat:
        return user("Say hello.")

    def sampling(self) -> Sampling:
        return Sampling(max_tokens=8)

    def test_answers_and_counts(self) -> None:
        async def run() -> None:
            model = self.model()
            try:
                reply = await model.generate(self.chat(), self.sampling())
            finally:
                await model.close()
                await model.close()
            assert isinstance(reply.text, str)
            assert reply.prompt_tokens >= 0
            assert reply.completion_tokens >= 0
            assert reply.seconds >= 0
            for token in reply.tokens:
                assert math.isfinite(token.logprob)
                assert token.logprob <= 1e-6
            if model.access < Access.LOGPROBS:
                assert not reply.tokens

        asyncio.run(run())

    def test_loads_only_what_it_states(self) -> None:
        async def run() -> TextModel:
            model = self.model()
            try:
                await model.generate(self.chat(), self.sampling())
            finally:
                await model.close()
            return model

        with noticing() as noticed:
            model = asyncio.run(run())
        assert_stated(noticed, self.loads(), model)

    def test_a_stream_adds_up_to_the_reply(self) -> None:
        async def run() -> None:
            model = self.model()
            try:
                whole = await model.generate(self.chat(), self.sampling())
                pieces = [d async for d in stream(model, self.chat(), self.sampling())]
            finally:
                await model.close()
            assert assemble(pieces).text == whole.text
            assert pieces[-1].finish_reason is not None

        asyncio.run(run())


class MessageContract:
    """Override `message`: every message class survives its own encoding and nothing else does, and says
    what the rest of the house needs to know of it.

    Attributes:
        fixed: strings in the message that are no text of anybody's; roles are none anyway.
    """

    fixed: frozenset[str] = frozenset()

    def message(self) -> Message:
        return Completion(generation=assemble([Delta(text="hello")]))

    def test_round_trip(self) -> None:
        message = self.message()
        assert decode(encode(message)) == message

    def test_says_how_much_and_how_many(self) -> None:
        kind = type(self.message())
        assert SMALL <= kind.largest <= LARGEST
        assert unbounded(inspect.type_info(kind)) == []

    def test_is_not_a_pickle(self) -> None:
        with pytest.raises(CosiloError):
            decode(pickle.dumps("x"))

    def test_says_what_it_shows(self) -> None:
        message = self.message()
        assert message.shows != EVERYTHING, "no owner shows everything"
        assert message.shows in message.wants()
        assert message.shown(EVERYTHING) == message

    def test_a_request_says_what_it_costs_at_most(self) -> None:
        message = self.message()
        if isinstance(message, Request):
            tokens_in, tokens_out = message.tokens_bound()
            assert tokens_in > 0
            assert tokens_out >= 0
            assert message.reply_bound(tokens_out) > 0

    def test_a_reply_takes_the_tokens_that_it_is_booked_at(self) -> None:
        message = self.message()
        if not isinstance(message, Request) and message.usage() != (0, 0):
            assert message.restated(*message.usage()) == message
            # Where what it takes follows from its content, it stays as it is.
            assert message.restated(7, 0).usage() in ((7, 0), message.usage())

    def test_other_texts_stand_in_the_places_of_all_that_it_says(self) -> None:
        message = self.message()
        if not message.replaceable:
            return
        assert message.with_passages(lambda passage: passage.text) == message
        count = len(message.passages())
        changed = message.with_passages(lambda _: CANARY)
        assert [passage.text for passage in changed.passages()] == [CANARY] * count
        bare = msgspec.structs.replace(changed, release=None)
        left = set(strings(msgspec.to_builtins(bare))) - {CANARY}
        assert left - self.fixed - set(get_args(Role)) == set()  # else `with_passages` forgets them


def unbounded(kind: inspect.Type, where: str = "") -> list[str]:
    """The fields of a message, described by `kind`, that do not declare what may stand in them: a range
    for each number, a most for each collection. Texts and bytes need none, since a message has a size.
    """
    match kind:
        case inspect.StructType(fields=fields):
            return [e for f in fields for e in unbounded(f.type, f"{where}.{f.name}")]
        case inspect.Metadata(type=inspect.IntType() | inspect.FloatType()):
            return []  # it says what it is in words: `cosilo.types.Claim`, `LogProbability`
        case inspect.Metadata(type=inner):
            return unbounded(inner, where)
        case inspect.IntType() | inspect.FloatType():
            low = kind.ge if kind.ge is not None else kind.gt
            high = kind.le if kind.le is not None else kind.lt
            return [] if low is not None and high is not None else [where]
        case inspect.VarTupleType() | inspect.ListType():
            most = [] if kind.max_length is not None else [where]
            return most + unbounded(kind.item_type, f"{where}[]")
        case inspect.DictType():
            most = [] if kind.max_length is not None else [where]
            return most + unbounded(kind.key_type, where) + unbounded(kind.value_type, where)
        case inspect.TupleType(item_types=inner) | inspect.UnionType(types=inner):
            return [e for i in inner for e in unbounded(i, where)]
        case (
            inspect.StrType() | inspect.BytesType() | inspect.BoolType() | inspect.NoneType()
            | inspect.LiteralType()
        ):  # fmt: skip
            return []
        case _:
            return [where]
