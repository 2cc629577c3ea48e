"""The small model asks for help without showing what is private, and finishes at home.

    question ──▶ SM writes ──▶ read at home ──▶ the LM answers ──▶ SM finishes with the original
                   └ twice something private in it: refused, or the SM answers alone

Siyan et al., "PAPILLON: Privacy Preservation from Internet-based and Local Language Model Ensembles"
(arXiv 2410.17127); the other ways to ask are those of `asking.py`. The instruction that the small model
writes by is chosen on train items, see `instructing.py`.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, cast

from msgspec.structs import replace as changed

from cosilo.boundary.messages import Ask
from cosilo.errors import CapabilityError, DataError, PrivacyError, RejectedError
from cosilo.models.base import TextModel, ThreadModel
from cosilo.models.base import stream as stream_model
from cosilo.parties.data_owner import PrivateValue
from cosilo.reasoning import spoken
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy, Text, strategies
from cosilo.strategies.fanout import fan_out
from cosilo.strategies.guide import Guide
from cosilo.strategies.inference import asking, instructing
from cosilo.strategies.inference.asking import WAYS, Way
from cosilo.strategies.inference.ends import Small
from cosilo.strategies.inference.instructing import Candidate, Tried
from cosilo.strategies.inference.leaving import (
    Private,
    PrivateReader,
    common_words,
    vocabulary_words,
)
from cosilo.strategies.inference.stand_ins import NOTHING, StandIns, cover, without_links
from cosilo.strategies.inference.writing import (
    Otherwise,
    held_back,
    lines,
    one_text,
    original_of,
    with_note,
    written,
)
from cosilo.types import (
    Answer,
    Chat,
    Delta,
    Demonstration,
    Generation,
    Sampling,
    Turn,
    assemble,
    closing,
    disassemble,
)

_VERBATIM = 12
_LISTED = "LISTED"
"""The kind of what only the small model called private."""

_WORDS_AROUND = 32  # tokens of ours around what the small model wrote
_LONGEST_NAME = 6  # words; a small model that was asked for a list may copy the whole text


@dataclass(frozen=True)
class Outgoing:
    """What may leave for one question.

    Attributes:
        texts: what the LM is asked, each in a message of its own, in this order.
        true: which of them are the owner's question; the others are there to hide it.
        stand_ins: what was put in the place of private values.
    """

    texts: tuple[str, ...]
    true: tuple[int, ...]
    stand_ins: StandIns = NOTHING


@strategies.register("rewrite")
@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """The small model writes what is asked of the LM, and finishes with the original in hand.

    Attributes:
        way: how it asks: "question" (a question without the private facts), "describe" (the kind of
            problem), "similar" (made-up cases like it, `cases` of them), "replace" (the text with other
            names for what is private), "hide" (the question among `decoys` others).
        finish: "small": the small model answers, with the LM's reply beside the original; "large": the
            LM's reply is the answer, with the owner's values where other names stood for them.
        cases: made-up cases that are asked about.
        decoys: other questions among which the true one is hidden, in random order.
        instruction: what the small model is told; unset: chosen in `prepare` by `search` items, or the
            first of our own for that way.
        shown: worked examples for it, each an original and what was written for it: private text that
            stays at home.
        search: so many tune items, at most, on which `prepare` chooses the instruction and worked
            examples, by quality less what private values the small model let through; 0 for none.
        lists: for "replace": the small model also lists what it takes for private.
        cautious: also words that are not common among the owner's records count as private: for
            originals that detectors read badly.
        shared_by: so many records must share a word for it to be common, one more where it has a
            capital.
        common: these common words; learned in `prepare` from the training and tune items where unset.
        vocabulary: words that the small model's tokeniser has as one token are common as well: so fewer
            ordinary ones are hidden.
        never: words and phrases that must not leave in any case.
        verbatim: more words in a row than these must not be the original's; no limit for "replace",
            which sends the text itself.
        otherwise: what becomes of a question for which nothing may leave: "refuse", or "small" answers.
        longest: tokens that the small model may write for the other side.
        seed: of the order in which questions are hidden, together with the original.
    """

    guide: ClassVar[Guide] = Guide(
        crosses="what the small model wrote instead of the question, read at home before it leaves",
        choose="questions need the LM's knowledge, but not the private facts in them",
    )
    needs: ClassVar[Needs] = Needs(sends=frozenset({Ask}))

    way: Way = "question"
    finish: Literal["small", "large"] = "small"
    cases: int = 2
    decoys: int = 3
    instruction: str = ""
    shown: tuple[Turn, ...] = ()
    search: int = 12
    lists: bool = True
    cautious: bool = False
    shared_by: int = 2
    common: tuple[str, ...] = ()
    vocabulary: bool = False
    never: tuple[str, ...] = ()
    verbatim: int = _VERBATIM
    otherwise: Otherwise = "refuse"
    longest: int = 160
    seed: int = 0

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise ValueError(f"way = {self.way!r} is none of {', '.join(WAYS)}")
        if self.finish not in ("small", "large"):
            raise ValueError(f"finish = {self.finish!r} is neither 'small' nor 'large'")
        if self.otherwise not in ("refuse", "small"):
            raise ValueError(f"otherwise = {self.otherwise!r} is neither 'refuse' nor 'small'")
        if self.way == "similar" and self.finish == "large":
            raise ValueError(
                "finish = 'large' does not go with way = 'similar': the LM never sees this question"
            )
        for name, least in (
            ("cases", 1),
            ("decoys", 1),
            ("verbatim", 1),
            ("longest", 1),
            ("shared_by", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)!r} is below {least}")
        if self.vocabulary and not self.cautious:
            raise ValueError(
                "vocabulary = true says which words are common: it needs cautious = true"
            )
        if self.search < 0:
            raise ValueError(f"search = {self.search!r} is negative")
        if any(not text.strip() for text in self.never):
            raise ValueError("never holds an empty text")
        if any(turn.role not in ("user", "assistant") for turn in self.shown):
            raise ValueError("shown holds a turn that is neither the user's nor the assistant's")

    @property
    def messages(self) -> int:
        """How many messages one question takes."""
        return {"similar": self.cases, "hide": self.decoys + 1}.get(self.way, 1)

    @property
    def _searches(self) -> bool:
        """Whether `prepare` chooses the instruction, where there are items enough."""
        writes = self.lists or self.way != "replace"
        return writes and not self.instruction and self.search >= instructing.FEWEST

    def forecast(self) -> Forecast:
        written = self.longest + _WORDS_AROUND
        reads: tuple[Text | int, ...] = ("question",) if self.way == "replace" else (written,)
        answers = Expected("answers", each=self.messages, reads=reads)
        if not self._searches:
            return (answers,)
        items, rounds = instructing.most(self.search, len(asking.INSTRUCTIONS[self.way]))
        return (Expected("tune", items=items, each=rounds * self.messages, reads=reads), answers)

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        found = self
        if self.cautious and not self.common:
            records = (*session.owner.private, *session.owner.calibration)
            known = common_words(records, least=self.shared_by)
            if not known:
                raise DataError(
                    "rewrite: cautious = true knows common words from the owner's records, and "
                    f"{len(records)} of them share none; give `common`, or more training or tune items"
                )
            found = replace(found, common=tuple(sorted(known)))
        if self.vocabulary:
            known = _vocabulary_of(session.owner.model).union(found.common)
            found = replace(found, common=tuple(sorted(known)), vocabulary=False)
        items = session.owner.calibration[: self.search]
        if not self._searches or len(items) < instructing.FEWEST:
            return found, session

        async def attempt(candidate: Candidate, item: Demonstration) -> Tried:
            trying = replace(found, instruction=candidate.instruction, shown=candidate.shown)
            return await trying._tried(session.bind(f"tune/{item.id}"), item)

        kept, card = await instructing.choose(
            attempt,
            asking.INSTRUCTIONS[self.way],
            items,
            lambda item: original_of(item.chat),
            by="rewrite",
        )
        found = replace(found, instruction=kept.instruction, shown=kept.shown)
        return found, session.with_card(card)

    async def _tried(self, session: Session, item: Demonstration) -> Tried:
        leak = 0.0
        try:
            private = await self.private(session, item.chat)
            leak, sent = await self.attempt(session, item.chat, private)
            if sent is None:
                return Tried(0.0, leak)
            answer = await self.finished(session, item.chat, sent)
        except (PrivacyError, RejectedError) as refusal:
            if isinstance(refusal, RejectedError) and refusal.everything:
                raise
            return Tried(0.0, leak)
        # For "replace" it is a list that it wrote, and not what was sent.
        wrote = "" if self.way == "replace" else "\n".join(sent.texts[i] for i in sent.true)
        return Tried(session.owner.grade(item, answer.text), leak, wrote, sent=True)

    async def answer(self, session: Session, chat: Chat) -> Answer:
        sent = await self.outgoing(session, chat)
        if sent is None:
            return await Small().answer(session, chat)
        return await self.finished(session, chat, sent)

    async def stream(self, session: Session, chat: Chat) -> AsyncIterator[Delta | Answer]:
        sent = await self.outgoing(session, chat)
        if sent is None:
            async with closing(Small().stream(session, chat)) as own:
                async for piece in own:
                    yield piece
            return
        if self.finish == "large":
            answer = await self.finished(session, chat, sent)
            yield disassemble(answer.generation)
            yield answer
            return
        told = await self._told(session, chat, sent)
        pieces = []
        async with closing(stream_model(session.owner.model, told, session.sampling)) as deltas:
            async for delta in deltas:
                pieces.append(delta)
                yield delta
        yield Answer(assemble(pieces), by="both")

    async def outgoing(self, session: Session, chat: Chat) -> Outgoing | None:
        """What is sent for `chat`; None where nothing may be, and the small model is to answer.

        Raises:
            PrivacyError: nothing may be, and the question is refused.
        """
        private = await self.private(session, chat)
        _, sent = await self.attempt(session, chat, private)
        if sent is None:
            held_back("rewrite", self.otherwise)
        return sent

    async def private(self, session: Session, chat: Chat) -> Private:
        """What must not leave of `chat`, nor of the worked examples."""
        replaces = self.way == "replace"
        reading = PrivateReader(
            never=self.never,
            common=frozenset(self.common) if self.cautious else None,
            verbatim=None if replaces else self.verbatim,
            fuzzy=not replaces,
        )
        shown = [(turn,) for turn in self.shown if turn.role == "user"]
        return await reading.read(session, chat, *shown)

    async def attempt(
        self, session: Session, chat: Chat, private: Private
    ) -> tuple[float, Outgoing | None]:
        """The share of the private values that stood in what the small model wrote first, and what may
        leave.
        """
        if self.way == "replace":
            return await self._replaced(session, chat, private)
        told = self.instruction or asking.INSTRUCTIONS[self.way][0]
        several = self.way == "similar"
        count = self.cases if several else 1
        task = asking.to_write(told, original_of(chat), shown=self.shown, count=count)

        def read(reply: str) -> tuple[str, ...]:
            return lines(reply)[:count] if several else (one_text(reply),)

        first, texts = await written(
            session, task, told, read, _fault(private, count), longest=self.longest
        )
        share = private.share("\n".join(first))
        if texts is None:
            return share, None
        if self.way == "hide":
            return share, await self._hidden(session, chat, texts[0], private)
        return share, Outgoing(texts, tuple(range(count)))

    async def _replaced(
        self, session: Session, chat: Chat, private: Private
    ) -> tuple[float, Outgoing | None]:
        """The text with other names for what the detectors and the small model call private."""
        original = original_of(chat)
        listed = await self._listed(session, original) if self.lists else ()
        named = [PrivateValue(value, _LISTED) for value in listed if _may_name(value)]
        missed = private.share(cover(original, named)[0])
        text, stand_ins = cover(original, (*private.findings, *named))
        return missed, None if private.fault(text) else Outgoing((text,), (0,), stand_ins)

    async def _listed(self, session: Session, original: str) -> tuple[str, ...]:
        told = self.instruction or asking.INSTRUCTIONS[self.way][0]
        task = asking.to_write(told, original, shown=self.shown, count=1)
        sampling = Sampling(max_tokens=self.longest, seed=session.sampling.seed)
        return lines(spoken((await session.owner.model.generate(task, sampling)).text))

    async def _hidden(
        self, session: Session, chat: Chat, question: str, private: Private
    ) -> Outgoing | None:
        def read(reply: str) -> tuple[str, ...]:
            return tuple(line for line in lines(reply) if line != question)[: self.decoys]

        question = " ".join(question.split())  # of one line, as the others are
        _, others = await written(
            session,
            asking.to_write_decoys(question, self.decoys),
            asking.DECOYS,
            read,
            _fault(private, self.decoys),
            longest=self.longest,
        )
        if others is None:
            return None
        texts = [question, *others]
        # Who knows the seed but not the original learns nothing of the order.
        drawn = hashlib.sha256(
            f"{self.seed}\0{original_of(chat)}".encode(errors="replace")
        ).digest()
        random.Random(drawn).shuffle(texts)
        return Outgoing(tuple(texts), (texts.index(question),))

    async def finished(self, session: Session, chat: Chat, sent: Outgoing) -> Answer:
        """The answer, with the LM's replies to what is `sent`."""
        if self.finish == "large":
            (reply,) = await self._replies(session, sent)
            text = sent.stand_ins.put_back(spoken(reply.text))
            return Answer(_as_text(reply, text), by="both")
        told = await self._told(session, chat, sent)
        reply = await session.owner.model.generate(told, session.sampling)
        return Answer(reply, by="both")

    async def _told(self, session: Session, chat: Chat, sent: Outgoing) -> Chat:
        """The original, and what the LM said."""
        replies = await self._replies(session, sent)
        said = tuple(sent.stand_ins.put_back(without_links(spoken(r.text))) for r in replies)
        asked = tuple(sent.texts[i] for i in sent.true)
        return with_note(chat, asking.note(self.way, asked, said))

    async def _replies(self, session: Session, sent: Outgoing) -> tuple[Generation, ...]:
        """The LM's replies to the true ones of the questions; all of them are asked."""
        wanted = session.sampling
        sampling = Sampling(
            max_tokens=wanted.max_tokens,
            temperature=wanted.temperature,
            top_p=wanted.top_p,
            seed=wanted.seed,
            choices=wanted.choices if self.finish == "large" else (),
        )

        async def one(text: str) -> Generation:
            asks = Ask(chat=asking.asked(self.way, text), sampling=sampling)
            return (await session.lm.send(asks)).generation

        replies = await fan_out(one, sent.texts)
        return tuple(replies[i] for i in sent.true)


def _fault(private: Private, count: int) -> Callable[[tuple[str, ...]], str]:
    """Why `count` texts may not leave."""

    def fault(texts: tuple[str, ...]) -> str:
        if len(texts) < count:
            return f"these are not {count} lines" if count > 1 else "it is empty"
        return next(filter(None, map(private.fault, texts)), "")

    return fault


def _vocabulary_of(model: TextModel) -> frozenset[str]:
    """The words that its tokeniser has as one token."""
    if not (hasattr(type(model), "spelt") and hasattr(type(model), "vocabulary_size")):
        raise CapabilityError(
            f"rewrite: vocabulary = true reads the small model's own vocabulary, and {model.name!r} "
            "shows none; use a model of this process (torch or gguf), or leave it out"
        )
    local = cast(ThreadModel, model)
    return vocabulary_words(local.spelt(range(local.vocabulary_size)))


def _may_name(listed: str) -> bool:
    """Whether a line of the small model's list may be a name or a number, and no sentence."""
    return len(listed) > 1 and len(listed.split()) <= _LONGEST_NAME


def _as_text(reply: Generation, text: str) -> Generation:
    """The LM's reply as the answer: its words, and nothing that it might have called."""
    kept = reply.tokens if text == reply.text else ()  # they spell the text that it was
    return changed(reply, text=text, tokens=kept, tool_calls=(), other_texts=(), extra="")
