"""Training texts written by the LM: asked for, sieved, described.

    description, label, n ──▶ LM ──▶ texts ──▶ sieve ──▶ examples
                                                 │
                        too short or long, the prompt again, a near-duplicate: dropped, counted

What goes up is the task's description with its labels, a tone to write in, about how long the owner's
texts are (one of five sizes), and texts that the LM wrote itself. Nothing here reads the owner's texts
but to measure their lengths, and how far from them the generated ones are.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field

import numpy as np

from cosilo.boundary.messages import Ask
from cosilo.boundary.meter import Totals
from cosilo.errors import DataError, RejectedError
from cosilo.models.base import Embedder, Trainable
from cosilo.parties.data_owner import DataOwner
from cosilo.reasoning import spoken
from cosilo.strategies.base import Expected, Session
from cosilo.strategies.cards import Card, Number
from cosilo.strategies.crossfit import disowned, out_of_fold
from cosilo.strategies.duplicates import Repeats, alike
from cosilo.strategies.fanout import fan_out
from cosilo.types import Chat, Demonstration, Sampling, Turn, last_user

_SYSTEM = (
    "You write training data for a text classifier. The classifier is told:\n"
    "<<<\n{description}\n>>>\n"
    "You invent texts that it will have to classify. You never answer them."
)
_ASKED = (
    "Write {count} different texts, as people would write them, that belong to the label "
    "'{label}' and to no other label, each of about {words} words. {tone}\n"
    "One text per line. No numbers, no quotation marks, no labels, nothing else."
)
_ONE = (
    "Write one text of about {words} words, as a person would write it, that belongs to the label "
    "'{label}' and to no other label. {tone}\nReply with the text alone."
)
_SHOWN = "\nThese are good examples. Write new ones, not these again:\n{texts}\n"

SIZES = (10, 20, 50, 100, 200)
"""Words of a text, about. The owner's own median is told no more closely than this."""

TONES = (
    "Be short and plain.",
    "Ask a question.",
    "Be polite and give some detail.",
    "Sound annoyed.",
    "Write casually, as in a chat.",
    "Describe what happened, then what is wanted.",
    "Use unusual words for common things.",
    "Sound worried and in a hurry.",
)
"""One is drawn for each call: at a low cost in tokens it keeps the texts from sounding alike."""


@dataclass(frozen=True)
class Synthetic:
    """A text that the LM wrote for `label`, and where it came from (a round, a way of asking)."""

    text: str
    label: str
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class WantedTexts:
    """What is asked for.

    Attributes:
        each: texts of each label.
        lines: texts asked for in one call, one a line; 1 where texts have several lines.
        temperature: of the LM.
        words: about how many a text shall have, one of `SIZES`.
    """

    each: int
    lines: int = 5
    temperature: float = 1.0
    words: int = 20

    def __post_init__(self) -> None:
        if self.each < 1 or self.lines < 1:
            raise ValueError("each and lines must be 1 or more")
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature = {self.temperature!r} is not between 0 and 2")

    def calls(self) -> int:
        """Per label."""
        return -(-self.each // self.lines)

    def exchange(self, times: int = 1) -> Expected:
        """What to expect where so many texts are asked for so many times."""
        return Expected(
            "labels",
            each=self.calls() * times,
            reads=("instructions",),
            writes=(self.lines * self.words,),
        )

    def max_tokens(self) -> int:
        return 4 * self.words * self.lines


def description(session: Session) -> str:
    """The system turn of the owner's questions: the task's instructions and its labels.

    Raises:
        DataError: the questions have different ones, so that they may hold private text; or no
            closed set of labels is known.
    """
    owner = session.owner
    if len(session.sampling.choices) < 2:
        raise DataError("texts can be generated only for a closed set of two or more labels")
    known = {
        "\n".join(t.content for t in e.chat if t.role == "system")
        for e in (*owner.private, *owner.pool, *owner.calibration)
    }
    if len(known) > 1:
        raise DataError(
            f"the task's questions have {len(known)} different system turns, which may hold private "
            "text, so no texts can be generated from them: leave 'context' out of the plan"
        )
    # Without any instructions the labels alone say what the task is.
    return next(iter(known), "") or "Labels: " + ", ".join(session.sampling.choices)


def question(
    about: str, label: str, wanted: WantedTexts, *, shown: Sequence[str] = (), tone: str = ""
) -> Chat:
    """The chat that asks for texts of `label`."""
    form = _ASKED if wanted.lines > 1 else _ONE
    asked = form.format(count=wanted.lines, label=label, words=wanted.words, tone=tone)
    if shown:
        asked = _SHOWN.format(texts="\n".join(f"- {t}" for t in shown)).strip() + "\n" + asked
    return Turn("system", _SYSTEM.format(description=about)), Turn("user", asked)


async def write(
    session: Session,
    wanted: WantedTexts,
    *,
    source: str = "",
    shown: Mapping[str, Sequence[str]] | None = None,
    tones: Sequence[str] = TONES,
    seed: int = 0,
    adapter: str = "",
) -> list[Synthetic]:
    """What the LM writes for every label, unsieved.

    Args:
        source: marks the texts; crossings are bound to `synthetic/`, source, label and call.
        shown: label → texts to show as good examples: they leave the building.
        adapter: one of the owner's that was plugged in, to write with.

    Raises:
        UnknownAdapterError: the LM's owner has no such adapter (any more).
    """
    about = description(session)
    jobs = [(label, n) for label in session.sampling.choices for n in range(wanted.calls())]

    async def one(job: tuple[str, int]) -> list[Synthetic]:
        label, n = job
        rng = random.Random(f"{seed} {source} {label} {n}")
        examples = (shown or {}).get(label, ())
        chat = question(about, label, wanted, shown=examples, tone=rng.choice(tones))
        sampling = Sampling(
            max_tokens=wanted.max_tokens(),
            temperature=wanted.temperature,
            top_p=0.95,
            seed=rng.randrange(1 << 31),
        )
        lm = session.lm.bind(f"synthetic/{source}/{label}/{n}")
        try:
            reply = (await lm.send(Ask(chat=chat, sampling=sampling, adapter=adapter))).generation
        except RejectedError as refusal:
            if refusal.everything:
                raise
            return []
        whole = reply.finish_reason != "length"
        return [
            Synthetic(t, label, source) for t in read_texts(reply.text, wanted.lines, whole=whole)
        ]

    return [text for texts in await fan_out(one, jobs) for text in texts]


_LEAD = re.compile(r"^\s*(?:[-*•–]|\(?\d{1,2}[.):])\s+")
_QUOTES = "\"'“”‘’` "


def read_texts(reply: str, lines: int, *, whole: bool) -> list[str]:
    """The texts in a reply. The last line of one that was cut off is no text."""
    reply = spoken(reply)
    if lines == 1:
        return [reply.strip().strip(_QUOTES)] if reply.strip() and whole else []
    found = [line for line in reply.splitlines() if line.strip()]
    if not whole:
        found = found[:-1]
    return [_LEAD.sub("", line).strip().strip(_QUOTES) for line in found]


@dataclass
class Sieve:
    """Lets good texts through, each once, and counts the others by why they were dropped.

    Attributes:
        words: the fewest and the most words of a text.
        known: texts that a good one does not repeat.
    """

    words: tuple[int, int]
    known: InitVar[Sequence[str]] = ()
    dropped: Counter[str] = field(default_factory=Counter)
    received: int = 0
    _repeats: Repeats = field(default_factory=Repeats)

    def __post_init__(self, known: Sequence[str]) -> None:
        for text in known:
            self._repeats.add(text)

    def __call__(self, texts: Sequence[Synthetic]) -> list[Synthetic]:
        self.received += len(texts)
        kept = []
        for text in texts:
            why = self._why_not(text)
            if why:
                self.dropped[why] += 1
            else:
                kept.append(text)
        return kept

    async def agreed(
        self,
        session: Session,
        texts: Sequence[Synthetic],
        model: Trainable,
        *,
        beside: Sequence[Demonstration] = (),
        seed: int = 0,
    ) -> list[Synthetic]:
        """`texts` without those that `model`, trained on the others, takes for another label.

        Raises:
            CapabilityError: the trained model gives no probabilities.
        """
        if len({text.label for text in texts}) < 2:
            return list(texts)
        made = examples(session, texts)
        labels, found = await asyncio.to_thread(out_of_fold, model, made, beside=beside, seed=seed)
        wrong = disowned([text.label for text in texts], labels, found)
        self.dropped["label not agreed on"] += sum(wrong)
        return [text for text, bad in zip(texts, wrong, strict=True) if not bad]

    def require_labels(self, kept: Sequence[Synthetic], labels: Sequence[str], *, by: str) -> None:
        """Refuse texts that leave a label without any.

        Raises:
            DataError: naming how many labels have none and why texts were dropped.
        """
        missing = set(labels) - {text.label for text in kept}
        if missing:
            why = ", ".join(f"{count} {what}" for what, count in self.dropped.most_common())
            raise DataError(
                f"{by} has no text for {len(missing)} of {len(labels)} labels, {min(missing)!r} among "
                f"them: {self.received} were received; dropped: {why or 'none'}"
            )

    def _why_not(self, text: Synthetic) -> str:
        words = len(text.text.split())
        if words < self.words[0]:
            return "too short"
        if words > self.words[1]:
            return "too long"
        if _repeats_prompt(text):
            return "repeats the prompt"
        return "" if self._repeats.add(text.text) else "near-duplicate"


def _repeats_prompt(text: Synthetic) -> bool:
    plain, label = _plain(text.text), _plain(text.label)
    # The words of a label may well stand in a text ("lost card"), but not as an identifier.
    named = plain == label or ("_" in text.label and text.label.casefold() in text.text.casefold())
    introduces = text.text.rstrip().endswith(":") or plain.startswith(
        ("here are", "here is a", "sure")
    )
    return named or introduces or any(alike(text.text, tone) > 0.6 for tone in TONES)


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def usual_words(owner: DataOwner) -> tuple[int, int, int]:
    """The fewest and the most words that a generated text may have, as the owner's own with room, and
    about how many it shall have, one of `SIZES`."""
    counts = [len(last_user(e.chat).split()) for e in (*owner.private, *owner.pool)]
    if not counts:
        return 3, 400, SIZES[1]
    low, middle, high = np.quantile(counts, (0.02, 0.5, 0.98))
    size = min(SIZES, key=lambda size: abs(np.log(size / max(middle, 1))))
    return min(max(2, int(low / 2)), size // 3), max(8, int(high * 1.5)), size


def examples(
    session: Session, texts: Sequence[Synthetic], *, weight: float = 1.0
) -> tuple[Demonstration, ...]:
    """`texts` as questions of the task, with their labels as targets."""
    owner = session.owner
    known = next(iter((*owner.private, *owner.pool, *owner.calibration)), None)
    system = tuple(t for t in known.chat if t.role == "system") if known else ()
    return tuple(
        Demonstration(f"synthetic-{i}", (*system, Turn("user", t.text)), t.label, weight)
        for i, t in enumerate(texts)
    )


async def card(
    by: str,
    session: Session,
    sieve: Sieve,
    kept: Sequence[Synthetic],
    *,
    asked: int,
    before: Totals,
) -> Card:
    """What a reader must know of generated data.

    Args:
        asked: how many texts the LM was asked for.
        before: what had crossed before the first of them was asked for.
    """
    spent = session.lm.totals - before
    per_kept = (
        {
            "bytes up per kept text": spent.bytes_up / len(kept),
            "bytes down per kept text": spent.bytes_down / len(kept),
            "USD per kept text": spent.usd / len(kept),
        }
        if kept
        else {}
    )
    distances = await asyncio.to_thread(_distances, session.owner, kept)
    balance = Counter(text.label for text in kept)
    shown = {text.label: text.text for text in reversed(kept)}
    return Card(
        by=by,
        title="generated data",
        facts={
            "texts asked for": asked,
            "received": sieve.received,
            "kept": len(kept),
            "LM calls": spent.messages,
            **per_kept,
            **distances,
        },
        tables={
            "dropped": dict(sieve.dropped.most_common()),
            "kept, by label": {c: balance[c] for c in session.sampling.choices},
        },
        examples=tuple(f"{label}: {text}" for label, text in list(shown.items())[:6]),
    )


def _distances(owner: DataOwner, kept: Sequence[Synthetic]) -> Mapping[str, Number]:
    """How near the kept texts come to the owner's own, beside how near those come to each other.

    Cosine distances of sentence vectors, in which 0 is the same text. A text that the LM knew from
    elsewhere would stand out as nearer than the owner's texts are to one another.
    """
    embedder = owner.embedder or owner.model
    own = [last_user(e.chat) for e in (*owner.private, *owner.pool)][:_COMPARED]
    if not isinstance(embedder, Embedder) or len(own) < 2 or not kept:
        return {}
    mine = embedder.embed(own)
    made = embedder.embed([text.text for text in kept])
    near = 1 - (made @ mine.T).max(axis=1)
    among = mine @ mine.T
    np.fill_diagonal(among, -1.0)
    return {
        "nearest own text, distance, least": float(near.min()),
        "nearest own text, distance, median": float(np.median(near)),
        "the same among own texts, median": float(np.median(1 - among.max(axis=1))),
    }


_COMPARED = 2_000
