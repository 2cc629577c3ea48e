"""The LM writes the reply, and a small model at home drafts what comes next.

    prompt ──▶ small model ──▶ draft ─┐            ┌─▶ as much of it as the LM writes itself,
      │   or look-up in the prompt    ├─▶ the LM ──┤   and one token more
      └──────────────── once ─────────┘            └─▶ … until the reply has ended

Leviathan et al., "Fast Inference from Transformers via Speculative Decoding" (arXiv 2211.17192),
across a boundary. The LM chooses every token as it does alone, so the reply is its own, greedy and
drawn, with whatever small model: drafts cross as text and are cut by the LM's tokeniser
(`boundary.messages.verify`). A crossing brings several tokens in place of one; whether that is faster
than asking the LM for the whole goes by the round trip, both speeds and how often the drafts are right,
which `prepare` measures (`speculation`).
"""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from cosilo.boundary.messages import Ask, Verify
from cosilo.boundary.messages.verify import asked_of
from cosilo.errors import (
    CapabilityError,
    ConfigError,
    UnexpectedReplyError,
)
from cosilo.models.base import goes_on
from cosilo.strategies.base import (
    Expected,
    Forecast,
    Needs,
    Session,
    Strategy,
    Text,
    ask,
    strategies,
)
from cosilo.strategies.calibration import calibration
from cosilo.strategies.cards import Card
from cosilo.strategies.drafting import Drafter, InTurn, LookUp, ModelDrafts
from cosilo.strategies.guide import Guide
from cosilo.strategies.inference.ends import Large
from cosilo.strategies.inference.speculation import Payoff, Speeds, best, payoff, speeds_of
from cosilo.strategies.rounds import DraftedStep, rounds
from cosilo.types import Answer, Chat, Delta, Generation, Sampling, closing

USUAL, MOST = 6, 16
"""Tokens of a draft where nothing was measured, and at most."""

PROBED = 8
"""Tokens of a draft while it is measured how many are kept."""


@strategies.register("speculative")
@dataclass(frozen=True, kw_only=True)
class Speculative:
    """The LM's own reply, in fewer steps: drafts from home, kept as far as it would write them itself.

    What tools, a form, a choice of labels or log-probabilities are wanted for is asked as `large` asks.

    Attributes:
        draft: what drafts: "small", "lookup" (the prompt and the reply so far), or "both" (what is
            looked up, where anything is found).
        length: tokens of a draft, 1 to 16. Unset: chosen in `prepare`, 6 where nothing is measured.
        adaptive: two more after a draft that was kept whole, one less after another.
        documents: files that are looked up, too. What is drafted from them crosses.
        same_tokeniser: refuse an LM whose tokeniser is not the small model's.
        probe: tune items that `prepare` has answered both ways, to measure whether it pays.
        round_trip_s: seconds of a round trip to the LM; measured when unset.
        anyway: speculate even where it does not pay; then nothing is measured.
        texts: what `documents` say, read before.
    """

    guide: ClassVar[Guide] = Guide(
        crosses="every question, as the owner put it, and all that is drafted, right or wrong",
        choose=(
            "everything may cross, and the LM writes slowly beside the round trip, or its time is "
            "what is scarce"
        ),
    )

    draft: Literal["small", "lookup", "both"] = "small"
    length: int | None = None
    adaptive: bool = False
    documents: tuple[Path, ...] = ()
    same_tokeniser: bool = False
    probe: int = 4
    round_trip_s: float | None = None
    anyway: bool = False
    texts: tuple[str, ...] = ()

    needs: ClassVar[Needs] = Needs(sends=frozenset({Ask, Verify}))

    def __post_init__(self) -> None:
        if self.draft not in ("small", "lookup", "both"):
            raise ValueError(f"draft = {self.draft!r} is none of small, lookup, both")
        if self.length is not None and not 1 <= self.length <= MOST:
            raise ValueError(f"length = {self.length!r} is not between 1 and {MOST}")
        if self.probe < 1:
            raise ValueError(f"probe = {self.probe!r} is not positive")
        if self.round_trip_s is not None and not 0 <= self.round_trip_s < 3600:
            raise ValueError(f"round_trip_s = {self.round_trip_s!r} is not between 0 and an hour")
        if (self.documents or self.texts) and self.draft == "small":
            raise ValueError("documents are looked up: draft must be 'lookup' or 'both'")

    def forecast(self) -> Forecast:
        answers = self._expected(Expected("answers"))
        if self.anyway:
            return (answers,)
        tune = Expected("tune", items=self.probe)
        return (tune, self._expected(tune), answers)

    def _expected(self, asked: Expected) -> Expected:
        reads: tuple[Text | int, ...] = ("question", "answer", MOST)
        return replace(asked, message=Verify, per="answer", reads=reads, writes=(1,))

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        """Measure whether it pays.

        Raises:
            ConfigError: it does not, and `anyway` does not say to go on; or a document cannot be read.
            CapabilityError: the small model cannot draft.
            DataError: there are no tune items to measure it on.
        """
        self._drafter(session, ())
        ready = replace(self, documents=(), texts=self.texts + await to_thread(self._read))
        if self.anyway or not _on_thread(session.sampling, ()):
            return ready, session
        speeds, tokens = await ready._measured(session)
        found = best(speeds, tokens) if self.length is None else payoff(speeds, self.length, tokens)
        if not found.pays:
            raise ConfigError(
                f"speculative would take {1 / found.gain:.2f} times as long as the LM alone: "
                f"{found.tokens_per_crossing:.2f} tokens a crossing, and a round trip of "
                f"{speeds.round_trip_s:.3g} s where one below {max(0.0, found.break_even_s):.3g} s "
                "would pay; take `large`, or set anyway = true"
            )
        decided = replace(ready, length=found.length, anyway=True)
        return decided, session.with_card(_card(speeds, found))

    async def answer(self, session: Session, chat: Chat) -> Answer:
        if not _on_thread(session.sampling, chat):
            return await Large().answer(session, chat)
        async with aclosing(self._replied(session, chat)) as rounds:
            return _answer([each async for each in rounds])

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        """The reply as it grows; behind a defence in one piece, as a value may come in parts.

        Raises:
            UnexpectedReplyError: the LM's owner forgot the thread, and then told another reply.
        """
        if not _on_thread(session.sampling, chat):
            async with closing(Large().stream(session, chat)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        done, told = [], ""
        async with aclosing(self._replied(session, chat)) as rounds:
            async for each in rounds:
                done.append(each)
                longer = len(each.said) > len(told) and each.said.startswith(told)
                if longer and not (session.defended or each.reply.finish):
                    yield Delta(text=each.said[len(told) :])
                    told = each.said
        answer = _answer(done)
        if not answer.text.startswith(told):
            raise UnexpectedReplyError("the LM's owner told the beginning of another reply before")
        g = answer.generation
        yield Delta(
            text=g.text[len(told) :],
            finish_reason=g.finish_reason,
            prompt_tokens=g.prompt_tokens,
            completion_tokens=g.completion_tokens,
            seconds=g.seconds,
        )
        yield answer

    def _read(self) -> tuple[str, ...]:
        try:
            return tuple(path.read_text("utf-8") for path in self.documents)
        except (OSError, UnicodeDecodeError) as error:
            what = type(error).__name__
            raise ConfigError(
                f"a document to draft from is no file of text ({what}); documents names files in UTF-8"
            ) from None

    def _drafter(self, session: Session, chat: Chat) -> tuple[Drafter, ModelDrafts | None]:
        """What drafts, and the small model in it.

        Raises:
            CapabilityError: the small model cannot draft.
        """
        found = LookUp([*(turn.content for turn in reversed(chat)), *self.texts])
        if self.draft == "lookup" and not self.same_tokeniser:
            return found, None
        model = session.owner.model
        if not goes_on(model):
            raise CapabilityError(
                f"speculative drafts with a small model that keeps what it has read; {model.name!r} "
                "does not (the torch and llamacpp back ends do): take one, or draft = 'lookup'"
            )
        small = ModelDrafts(model, chat, session.sampling)
        if self.draft == "lookup":
            return found, small
        return (InTurn(found, small) if self.draft == "both" else small), small

    def _replied(self, session: Session, chat: Chat) -> AsyncGenerator[DraftedStep, None]:
        return self._rounds(session, chat, self.length or USUAL, adaptive=self.adaptive)

    def _rounds(
        self, session: Session, chat: Chat, count: int, *, adaptive: bool
    ) -> AsyncGenerator[DraftedStep, None]:
        """A reply, crossing by crossing.

        Raises:
            CapabilityError: the LM's tokeniser is not the small model's, where it must be.
            and what `rounds` raises.
        """
        drafter, small = self._drafter(session, chat)

        def told(vocabulary: str) -> None:
            model = session.owner.model
            if small is None or not goes_on(model):
                return
            small.alike = model.vocabulary == vocabulary
            if self.same_tokeniser and not small.alike:
                raise CapabilityError(
                    f"the LM has another tokeniser ({vocabulary}) than {model.name!r} "
                    f"({model.vocabulary}), and same_tokeniser = true asks for one; without it, drafts "
                    "are text, and the reply is the LM's own all the same"
                )

        most = MOST if adaptive else 0
        return rounds(session, chat, drafter, count=count, most=most, told=told)

    async def _measured(self, session: Session) -> tuple[Speeds, float]:
        """What both sides take, by tune items that are answered both ways; and a reply's tokens."""
        examples = calibration(session, by="speculative", least=1)[: self.probe]
        alone: list[Generation] = []
        replies: list[list[DraftedStep]] = []
        paid = {"alone": 0.0, "drafted": 0.0}
        for example in examples:
            bound = session.bind(f"tune/{example.id}")
            alone.append((await ask(bound, example.chat)).generation)
            paid["alone"] += bound.totals.usd
            bound = session.bind(f"tune/{example.id}")
            length = self.length or PROBED
            found = self._rounds(bound, example.chat, length, adaptive=False)
            async with aclosing(found) as each:
                replies.append([r async for r in each])
            paid["drafted"] += bound.totals.usd
        return speeds_of(alone, replies, self.length or PROBED, paid, self.round_trip_s)


def _on_thread(sampling: Sampling, chat: Chat) -> bool:
    """Whether a thread can be all that is wanted of the reply."""
    more = asked_of(sampling) != sampling or (chat and chat[-1].role == "assistant")
    return not more and sampling.max_tokens > 0


def _answer(rounds: Sequence[DraftedStep]) -> Answer:
    first, last = rounds[0].reply, rounds[-1].reply
    generation = Generation(
        rounds[-1].said,
        finish_reason=last.finish or "stop",
        prompt_tokens=max(0, first.new - first.drafted),
        completion_tokens=last.at,
        seconds=sum(each.reply.took for each in rounds),
    )
    return Answer(generation, by="large")


def _card(speeds: Speeds, found: Payoff) -> Card:
    return Card(
        by="speculative",
        title="whether drafts pay",
        facts={
            "tokens of a draft": found.length,
            "tokens a crossing": found.tokens_per_crossing,
            "times as fast as the LM alone": found.gain,
            "seconds of a round trip": speeds.round_trip_s,
            "seconds of a round trip that would break even": found.break_even_s,
            "seconds of the LM for a token": speeds.token_s,
            "seconds for a drafted token": speeds.draft_s,
            "times as many tokens that the LM's owner can serve": found.owner_gain,
            "times as many beside an owner who drafts": found.apart_gain,
            "times the price": found.usd,
        },
    )
