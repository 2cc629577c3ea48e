"""A new exchange touches no file of Cosilo: message, handler, strategy and attack stand in here.

`Rank` asks the LM which of some candidates fits a question best. What the rest of the house needs to
know of it, its class says: so it is declared, metered, recorded, hidden behind pseudonyms, attacked,
tampered with and measured like the exchanges that Cosilo brings.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from cosilo.attacks.base import Guess, Target, View
from cosilo.attacks.record import replies, upstream
from cosilo.attacks.tampering import Tampering
from cosilo.boundary.messages import Ask, Message, Request, decode, encode
from cosilo.boundary.messages.bounds import FIELDS, LONGEST_TOKEN, TEMPLATE, in_utf8
from cosilo.boundary.messages.passages import Change, Passage
from cosilo.boundary.meter import Budget, Meter, Price
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.transports.inside import InProcess
from cosilo.defences.base import Defence
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.errors import (
    BudgetExceededError,
    CapabilityError,
    ConfigError,
    PrivacyError,
    UndeclaredMessageError,
    UnexpectedReplyError,
)
from cosilo.models.base import EVERYTHING, Access, Shows
from cosilo.models.kept.replay import ReplayStore
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.objectives.base import Item, Run
from cosilo.objectives.reading import reading
from cosilo.parties.around.exposed import Exposed
from cosilo.parties.around.recorded import Recorded
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.serving import Owner, serves
from cosilo.report.crossed import tally
from cosilo.session import open_session
from cosilo.strategies.base import Needs, Session
from cosilo.tasks.base import Example, Secret
from cosilo.testing import MessageContract
from cosilo.types import Answer, Chat, Count, Generation, Many, Sampling, last_user, user

# ── the exchange ─────────────────────────────────────────────────────────────


class Ranking(Message, frozen=True, kw_only=True):
    """The candidates' numbers, the best first, and why."""

    shows: ClassVar[Shows] = Shows.TEXT
    replaceable: ClassVar[bool] = True
    order: Many[Count]
    why: str
    tokens: tuple[Count, Count] = (0, 0)

    def with_passages(self, change: Change) -> Ranking:
        return msgspec.structs.replace(self, why=change(Passage(self.why)))

    def tampered(self, request: Message, lie: Callable[[str], str]) -> Ranking:
        return msgspec.structs.replace(self, order=self.order[::-1], why=lie(self.why))

    def usage(self) -> tuple[int, int]:
        return self.tokens

    def written(self) -> int:
        return in_utf8(self.why)

    def restated(self, tokens_in: int, tokens_out: int) -> Ranking:
        return msgspec.structs.replace(self, tokens=(tokens_in, tokens_out))

    def check(self) -> None:
        if sorted(self.order) != list(range(len(self.order))):
            raise ValueError("order")


class Rank(Request[Ranking], frozen=True, kw_only=True):
    """Which of `candidates` fits `about` best?"""

    reply: ClassVar[type[Message]] = Ranking
    shows: ClassVar[Shows] = Shows.TEXT
    replaceable: ClassVar[bool] = True
    about: str
    candidates: Many[str]

    def with_passages(self, change: Change) -> Rank:
        about = change(Passage(self.about, by="user"))
        candidates = tuple(change(Passage(each, "label")) for each in self.candidates)
        return msgspec.structs.replace(self, about=about, candidates=candidates)

    def tokens_bound(self) -> tuple[int, int]:
        return TEMPLATE + sum(map(in_utf8, (self.about, *self.candidates))), 64

    def reply_bound(self, tokens: int) -> int:
        return FIELDS + tokens * LONGEST_TOKEN + 9 * len(self.candidates)

    def check_reply(self, reply: Message) -> None:
        if isinstance(reply, Ranking) and len(reply.order) != len(self.candidates):
            raise ValueError("order")


@serves(Rank)
async def rank(owner: Owner, message: Rank) -> Ranking:
    chat = user(message.about, system="Which fits?\n" + "\n".join(message.candidates))
    said = await owner.model.generate(chat, Sampling(max_tokens=64))
    best = [i for i, each in enumerate(message.candidates) if each in said.text]
    rest = [i for i in range(len(message.candidates)) if i not in best]
    used = (said.prompt_tokens, said.completion_tokens)
    return Ranking(order=(*best, *rest), why=said.text, tokens=used)


@dataclass(frozen=True)
class Ranker:
    """Answers with the candidate that the LM puts first."""

    candidates: tuple[str, ...]
    needs: ClassVar[Needs] = Needs(sends=frozenset({Rank}))

    async def prepare(self, session: Session) -> tuple[Ranker, Session]:
        return self, session

    async def answer(self, session: Session, chat: Chat) -> Answer:
        ranking = await session.lm.send(Rank(about=last_user(chat), candidates=self.candidates))
        return Answer(Generation(self.candidates[ranking.order[0]]), by="large")


class Addresses:
    """Takes the first word with an @ that went up for a request."""

    about: ClassVar[str] = "secrets"

    async def guess(self, view: View, targets: Sequence[Target]) -> list[Guess]:
        found = {
            request: word
            for request, texts in upstream(view)
            for text in texts
            for word in text.split()
            if "@" in word
        }
        return [Guess(t.id, found.get(t.request, ""), float(t.request in found)) for t in targets]


# ── exchanges that say less ──────────────────────────────────────────────────


class Slopes(Message, frozen=True, kw_only=True):
    shows: ClassVar[Shows] = Shows.GRADIENTS
    packed: bytes


class Slope(Request[Slopes], frozen=True, kw_only=True):
    """Shows gradients, and holds numbers that were made of private texts."""

    reply: ClassVar[type[Message]] = Slopes
    shows: ClassVar[Shows] = Shows.GRADIENTS
    packed: bytes

    def tokens_bound(self) -> tuple[int, int]:
        return 1, 1


@serves(Slope)
async def slope(owner: Owner, message: Slope) -> Slopes:
    return Slopes(packed=message.packed)


class Mute(Request[Ranking], frozen=True, kw_only=True):
    """States nothing about itself but what it costs."""

    reply: ClassVar[type[Message]] = Ranking
    text: str = ""
    seed: int = 0

    def tokens_bound(self) -> tuple[int, int]:
        return 1, 1


@serves(Mute)
async def mute(owner: Owner, message: Mute) -> Message:
    return Slopes(packed=b"not what was asked for") if message.seed else Ranking(order=(), why="")


class Endless(Request[Ranking], frozen=True, kw_only=True):
    """Does not even state what it costs."""

    reply: ClassVar[type[Message]] = Ranking


# ── what is tested ───────────────────────────────────────────────────────────

CANDIDATES = ("card", "loan", "flat")
TEXT = "please write to anna@example.org about my loan"
SECRET = Secret("1/0", "email", "anna@example.org")
EXAMPLE = Example("1", user(TEXT), ("loan",), (SECRET,))


def model() -> ScriptedModel:
    return ScriptedModel(lambda chat: f"loan fits: {last_user(chat)}")


def hidden(tmp_path: Path) -> Pseudonym:
    return Pseudonym(detectors=("patterns",), key_file=tmp_path / "key")


def opened(
    party: Any, *defences: Defence, ledger: MemoryLedger | None = None, meter: Meter | None = None
) -> Session:
    owner = DataOwner(ScriptedModel())
    return open_session(
        owner, party, Ranker(CANDIDATES), defences=defences, ledger=ledger, meter=meter,
        transport=InProcess(party),
    )  # fmt: skip


def answered(*defences: Defence) -> tuple[MemoryLedger, Run, Session]:
    """One item answered, and its record."""
    ledger = MemoryLedger()
    meter = Meter(price=Price(usd_per_m_in=1e6, usd_per_m_out=2e6))
    session = opened(LMOwner(model()), *defences, ledger=ledger, meter=meter)
    answer = asyncio.run(Ranker(CANDIDATES).answer(session.bind("1"), EXAMPLE.chat))
    assert answer.generation.text == "loan"
    item = Item(EXAMPLE, answer, 1.0)
    return ledger, Run((item,), ledger.entries, price=meter.price), session


def test_it_crosses_and_is_metered_and_recorded() -> None:
    ledger, run, session = answered()
    up, down = ledger.entries()
    assert (up.kind, down.kind) == ("Rank", "Ranking")
    assert decode(encode(up.message)) == up.message == Rank(about=TEXT, candidates=CANDIDATES)
    assert isinstance(down.message, Ranking)
    tokens_in, tokens_out = down.message.tokens
    totals = session.lm.totals
    assert (totals.messages, totals.bytes_up, totals.bytes_down) == (1, up.size, down.size)
    assert (totals.tokens_in, totals.tokens_out) == (tokens_in, tokens_out)
    assert totals.usd == tokens_in + 2 * tokens_out > 0
    traffic = reading(run).traffic["1"]
    assert (traffic.tokens_in, traffic.usd) == (tokens_in, totals.usd)
    assert [t.kind for t in tally(ledger.entries())] == ["Rank", "Ranking"]


def test_its_budget_holds_before_anything_is_sent() -> None:
    ledger = MemoryLedger()
    session = opened(LMOwner(model()), ledger=ledger, meter=Meter(Budget(tokens_out=63)))
    with pytest.raises(BudgetExceededError, match="tokens_out would reach 64"):
        asyncio.run(Ranker(CANDIDATES).answer(session, EXAMPLE.chat))
    assert not list(ledger.entries())


class TestRank(MessageContract):
    def message(self) -> Message:
        return Rank(about=TEXT, candidates=CANDIDATES)


class TestRanking(MessageContract):
    def message(self) -> Message:
        return Ranking(order=(1, 0, 2), why="because", tokens=(3, 4))


def test_what_leaks_is_measured_and_attacked() -> None:
    ledger, run, _ = answered()
    assert [leak.how for leak in reading(run).leaks[0]] == ["verbatim"]
    target = Target("1/0", "1", "secret:email")
    (guess,) = asyncio.run(Addresses().guess(View(ledger.entries), [target]))
    assert guess.value == SECRET.value
    assert TEXT in replies(View(ledger.entries))["1"]


def test_the_pseudonym_defence_hides_it_and_puts_it_back(tmp_path: Path) -> None:
    ledger, run, session = answered(hidden(tmp_path))
    assert [leak.how for leak in reading(run).leaks[0]] == [""]
    assert not any(SECRET.value.encode() in (e.payload or b"") for e in ledger.entries())
    target = Target("1/0", "1", "secret:email")
    (guess,) = asyncio.run(Addresses().guess(View(ledger.entries), [target]))
    assert guess.value != SECRET.value
    back = asyncio.run(session.lm.send(Rank(about=TEXT, candidates=CANDIDATES)))
    assert isinstance(back, Ranking)
    assert back.why == f"loan fits: {TEXT}"
    (sent,) = [e.message for e in ledger.entries() if e.direction == "up" and e.request == ""]
    assert isinstance(sent, Rank)
    assert sent.candidates == CANDIDATES  # labels stay: nobody's secret


def test_it_is_tampered_with_as_it_says() -> None:
    ledger = MemoryLedger()
    party = Tampering(LMOwner(model()), 1.0, seed=3)
    session = opened(LMOwner(model()), ledger=ledger)
    asked = Rank(about=TEXT, candidates=CANDIDATES)
    true = asyncio.run(session.bind("1").lm.send(asked))
    told = asyncio.run(party.handle(asked))
    assert isinstance(told, Ranking)
    assert told.order == true.order[::-1]
    assert told.why in CANDIDATES  # a lie where there are labels is another label
    assert asyncio.run(party.handle(asked)) == told
    assert party.requests(ledger.entries()) == {"1"}
    assert not Tampering(LMOwner(model()), 0.0).requests(ledger.entries())


def test_its_replies_are_recorded_and_paid_for_once(tmp_path: Path) -> None:
    large = model()
    with closing(ReplayStore(tmp_path / "replay.sqlite")) as store:
        party = Exposed(Recorded(LMOwner(large, exposes=EVERYTHING), store, of=large))
        first = asyncio.run(party.handle(Rank(about=TEXT, candidates=CANDIDATES)))
        again = asyncio.run(party.handle(Rank(about=TEXT, candidates=CANDIDATES)))
    assert first == again
    assert len(large.seen) == 1


# ── what is refused ──────────────────────────────────────────────────────────


def test_an_owner_that_does_not_show_enough_refuses_before_it_works() -> None:
    owner = LMOwner(model(), exposes=Access.ACTIVATIONS.shows)
    with pytest.raises(
        CapabilityError, match=r"exposes activations and does not serve Slope .*gradients"
    ):
        asyncio.run(owner.handle(Slope(packed=b"1")))
    gradients = LMOwner(model(), exposes=Shows.GRADIENTS)
    assert asyncio.run(gradients.handle(Slope(packed=b"1"))) == Slopes(packed=b"1")
    with pytest.raises(CapabilityError, match=r"does not serve Rank .*text"):
        asyncio.run(gradients.handle(Rank(about="x", candidates=())))


def test_a_strategy_is_refused_where_its_messages_are_not_served() -> None:
    @dataclass(frozen=True)
    class Steep(Ranker):
        needs: ClassVar[Needs] = Needs(sends=frozenset({Rank, Slope}))

    owner = DataOwner(ScriptedModel())
    with pytest.raises(CapabilityError, match="Steep needs gradients of the large model"):
        open_session(owner, LMOwner(model()), Steep(CANDIDATES))


def test_what_its_class_does_not_state_is_taken_for_the_worst() -> None:
    with pytest.raises(CapabilityError, match="does not serve Mute messages that ask for logprobs"):
        asyncio.run(LMOwner(model()).handle(Mute()))
    everything = LMOwner(model(), exposes=EVERYTHING)
    assert isinstance(asyncio.run(everything.handle(Mute())), Ranking)
    assert [p.text for p in Mute(text="Anna").passages()] == ["Anna"]
    with pytest.raises(PrivacyError, match="nothing in a Mute can be replaced"):
        Mute(text="Anna").with_passages(lambda passage: "")
    with pytest.raises(CapabilityError, match="how a Slopes is tampered with"):
        asyncio.run(Tampering(everything, 1.0).handle(Slope(packed=b"1")))


def test_what_a_defence_cannot_read_is_stopped(tmp_path: Path) -> None:
    ledger = MemoryLedger()
    large = model()

    @dataclass(frozen=True)
    class Both(Ranker):
        needs: ClassVar[Needs] = Needs(sends=frozenset({Slope, Mute, Endless}))

    session = open_session(
        DataOwner(ScriptedModel()), LMOwner(large, exposes=EVERYTHING), Both(CANDIDATES),
        defences=[hidden(tmp_path)], ledger=ledger,
    )  # fmt: skip
    for message in (Slope(packed=b"made of Anna's text"), Mute(text="Anna")):
        with pytest.raises(
            PrivacyError, match=f"private in a {type(message).__name__}, so nothing"
        ):
            asyncio.run(session.lm.send(message))
    assert not list(ledger.entries())
    assert isinstance(asyncio.run(session.lm.send(Mute())), Ranking)  # it holds nothing
    with pytest.raises(CapabilityError, match="Endless does not say how many tokens it may take"):
        asyncio.run(session.lm.send(Endless()))
    with pytest.raises(UndeclaredMessageError, match="Rank was not declared"):
        asyncio.run(session.lm.send(Rank(about="x", candidates=())))
    with pytest.raises(UnexpectedReplyError, match="answered with Slopes, not Ranking"):
        asyncio.run(session.lm.send(Mute(seed=1)))


def test_what_cannot_be_is_refused_where_it_is_read() -> None:
    with pytest.raises(UnexpectedReplyError, match="not a known message"):
        decode(encode(Ranking(order=(0, 0), why="")))


def test_what_is_served_already_is_not_served_twice() -> None:
    async def another(owner: Owner, message: Ask) -> Message:
        return message

    for kind in (Ask, Rank):
        with pytest.raises(ConfigError, match=f"{kind.__name__} is served twice"):
            serves(kind)(another)
    with pytest.raises(ConfigError, match="cannot serve Ranking: it is no class of requests"):
        serves(Ranking)(another)


def test_the_recipe_on_the_page_is_what_is_tested_here() -> None:
    here = Path(__file__)
    page = (here.parents[2] / "CONTRIBUTING.md").read_text("utf-8")
    section = page.partition("**A new exchange**")[2].partition("\n**Tests.**")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    assert code in here.read_text("utf-8")
    stated = {name for row in section.splitlines() if row.startswith("| ") for name in named(row)}
    own = {n for k in (Message, Request) for n in vars(k) if not n.startswith("_")}
    # Nothing that a class can state is left out; the two are stated by what spends, message by message.
    assert own - {"epsilon", "release"} <= stated
    assert stated - {"Count", "Amount", "Many", "cosilo"} <= own | {"reply"}


def named(row: str) -> list[str]:
    return re.findall(r"`(\w+)`", row.split(" | ")[1])
