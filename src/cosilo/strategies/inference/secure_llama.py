"""One answer of a Llama that neither side shows the other: what `secure_forward` and `secure_adapter`
have in common.

    chat ─▶ tokens ─▶ filled up to a public length ══ joint computation ══▶ the likeliest ─▶ label

The label is found inside, so that no logit is told. Choices are told apart by their first tokens.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

from cosilo.boundary.channel import Channel
from cosilo.engines import llama
from cosilo.engines.base import Array
from cosilo.engines.spu.run import Deadlines
from cosilo.errors import (
    CapabilityError,
    OfflineError,
    RejectedError,
    UnexpectedReplyError,
)
from cosilo.models.base import TextModel, ThreadModel, goes_on
from cosilo.models.joint import Wanted
from cosilo.parties.network import JointNetwork
from cosilo.strategies.base import Forecast, Session
from cosilo.strategies.inference.joint_room import Computed, JointRoom, joint_card, joint_forecast
from cosilo.strategies.split_thread import require_plain
from cosilo.types import Answer, Chat, Generation, Sampling

ROOMS = 2
"""Runs that a strategy keeps open, at most: one for each length and set of choices."""

_OFFERS = 64  # that are known without asking again


@dataclass(frozen=True, kw_only=True)
class SecureLlama:
    """A strategy that computes jointly with a Llama: how its runs are opened, and that it ends them.

    Attributes:
        protocol: "aby3" (a third party helps) or "cheetah" (two parties).
        lengths: so many tokens a text is filled up to: one or two lengths.
        step_s: seconds that sharing the weights, or one computation, may take.
        network: the file that says how engines reach each other; a trial on one machine without.
    """

    protocol: Literal["aby3", "cheetah"] = "aby3"
    lengths: tuple[int, ...] = (32,)
    step_s: float = 600.0
    network: Path | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(set(self.lengths)) == len(self.lengths) <= ROOMS:
            raise ValueError(
                f"lengths = {list(self.lengths)!r} is not one or two different lengths"
            )
        if not all(2 <= length <= 1 << 12 for length in self.lengths):
            raise ValueError(f"lengths = {list(self.lengths)!r} are not from 2 to 4,096")
        if not 0 < self.step_s < 1e6:
            raise ValueError(f"step_s = {self.step_s!r} is no positive number of seconds")

    async def close(self, session: Session) -> None:
        """Ends the runs that are open, on both sides."""
        await self._rooms.end(session)

    @property
    def most_runs(self) -> int:
        """At the same time."""
        return ROOMS

    @cached_property
    def _rooms(self) -> Rooms:
        return Rooms(self)


class Rooms:
    """The joint rooms of one prepared strategy, by owner and by what is wanted. Of too many
    runs, the one that was used longest ago is ended before another is opened, once nothing is computed
    in it: each holds shares of all weights, at every party.
    """

    def __init__(self, options: SecureLlama) -> None:
        self._options = options
        self._network = JointNetwork.load(options.network) if options.network else None
        self._rooms: OrderedDict[tuple[str, Wanted], JointRoom] = OrderedDict()
        # May have a run, with the peer it is at; the one used longest ago first.
        self._placed: dict[JointRoom, str] = {}
        self._turn, self._placing = asyncio.Lock(), asyncio.Lock()
        self.base = ""  # the identity of what is at home, worked out once

    async def of(self, session: Session, wanted: Wanted) -> JointRoom:
        """The room for it at the session's LM owner, asked for when it is new.

        Raises:
            CapabilityError: the LM's owner takes no part in that.
            UnexpectedReplyError: it offers something else.
        """
        peer = next(iter(session.peers))
        async with self._turn:
            room = self._rooms.get((peer, wanted))
            if room is None:
                deadlines = Deadlines(
                    step_s=self._options.step_s, silent_s=min(self._options.step_s, 600.0)
                )
                place = partial(self._place, peer)
                room = await JointRoom.of(
                    session, wanted, self._network, deadlines=deadlines, place=place
                )
                _require_offer(room)
                self._rooms[peer, wanted] = room
                while len(self._rooms) > _OFFERS:
                    self._rooms.popitem(last=False)  # its run, where it has one, is still placed
            self._rooms.move_to_end((peer, wanted))
            if room in self._placed:
                self._placed[room] = self._placed.pop(room)
            return room

    async def end(self, session: Session) -> None:
        """End both sides of all runs; of one at an owner that is none of the session's, this side."""
        while self._placed:
            room, peer = next(iter(self._placed.items()))
            await room.end(session.peers.get(peer))
            self._placed.pop(room, None)

    async def _place(self, peer: str, room: JointRoom, channel: Channel) -> None:
        """Wait until `room` may open a run. Whoever has a place keeps it through a fault, and waits for
        nobody: else two could wait for each other."""
        if room in self._placed:
            return
        async with self._placing:
            while len(self._placed) >= self._options.most_runs:
                oldest = next(iter(self._placed))
                idle = next((other for other in self._placed if not other.busy), oldest)
                await idle.end(channel if self._placed.get(idle) == peer else None)
                self._placed.pop(idle, None)
            self._placed[room] = peer


@dataclass(frozen=True)
class Prompt:
    """A text as it is computed on.

    Attributes:
        ids: its tokens, as many as there are.
        length: the public one that they are filled up to, those in clear apart.
        candidates: the first tokens of the choices; none where the next token is wanted.
        before: so many of the first tokens cross in clear.
    """

    ids: tuple[int, ...] = field(repr=False)
    length: int
    candidates: tuple[int, ...]
    before: int = 0

    @property
    def clear(self) -> tuple[int, ...]:
        return self.ids[: self.before]

    @property
    def filled(self) -> list[int]:
        return llama.filled(self.ids[self.before :], self.length)

    @property
    def place(self) -> Array:
        return llama.place(len(self.ids) - self.before - 1, self.length)


def home_words(model: TextModel, *, by: str) -> ThreadModel:
    """The small model, for its tokens.

    Raises:
        CapabilityError: it does not show them.
    """
    if not goes_on(model):
        raise CapabilityError(
            f"{by} cuts texts into tokens at home, by the tokeniser of a small model of kind 'torch' "
            f"or 'llamacpp'; {model.name!r} shows none"
        )
    return model


def prompt_of(
    words: ThreadModel,
    chat: Chat,
    sampling: Sampling,
    lengths: Sequence[int],
    *,
    by: str,
    before: int = 0,
) -> Prompt:
    """`chat` as tokens, and the choices.

    Args:
        before: so many tokens cross in clear.

    Raises:
        RejectedError: it is too long, choices begin alike, or something else than one is wanted.
    """
    require_plain(sampling, by=by)
    ids = tuple(words.prompt(chat))
    length = llama.length_for(len(ids) - before, lengths)
    return Prompt(ids, length, first_tokens(words, sampling.choices, by=by), before)


def first_tokens(words: ThreadModel, choices: Sequence[str], *, by: str) -> tuple[int, ...]:
    """The first token of each choice.

    Raises:
        RejectedError: one has none, or two have the same.
    """
    found = [tuple(words.cut(choice)[0][:1]) for choice in choices]
    if len(set(found)) < len(found) or () in found:
        raise RejectedError(
            f"{by} tells choices apart by their first token, and some of these {len(choices)} begin "
            "with the same one: give them names that begin differently",
            everything=True,
        )
    return tuple(token for (token,) in found)


def answer_of(
    words: ThreadModel, choices: Sequence[str], prompt: Prompt, computed: Computed
) -> Answer:
    """The choice, or the next token, that was found.

    Raises:
        RejectedError: the text's states were unlike those of the public texts.
        UnexpectedReplyError: it is no number of a choice.
    """
    number, fits = (int(output) for output in computed.outputs)
    if not fits:
        raise RejectedError(
            "the states of this text are larger or smaller than those of the public texts that the "
            "LM's owner is calibrated on, so that the result may be wrong, and is none: more of such "
            "texts in calibrated_on would do"
        )
    if prompt.candidates:
        if not 0 <= number < len(prompt.candidates):
            raise UnexpectedReplyError("the joint computation gave no number of a choice")
        text, ended = choices[number], True
    else:
        text, ended = words.piece(number).decode("utf-8", "replace"), number in words.ends
    generation = Generation(
        text,
        finish_reason="stop" if ended else "length",
        prompt_tokens=len(prompt.ids),
        completion_tokens=1,
        cpu_seconds=computed.cpu_here,
    )
    return Answer(generation, by="large")


def forecast(lengths: Sequence[int], *, once: int, each: int) -> Forecast:
    """What is sent, at most, with a run for each length.

    Args:
        once, each: bytes that cross beside the messages, of a run and of an answer.
    """
    return tuple(
        replace(expected, total=len(lengths)) if expected.about == "once" else expected
        for expected in joint_forecast(once, each)
    )


async def opened(session: Session, rooms: Rooms, wanted: Sequence[Wanted], *, by: str) -> Session:
    """The session with a card of what setting each run up took. Where no new call may be made, whoever
    asks first opens them."""
    try:
        with suppress(OfflineError):
            for each in wanted:
                room = await rooms.of(session, each)
                await room.ready(session.lm)
                behind = f" behind {each.before} in clear" if each.before else ""
                title = f"joint computation, texts of {each.tokens} tokens{behind}"
                session = session.with_card(joint_card(by, title, room))
    except BaseException:
        await rooms.end(session)  # nobody is given them
        raise
    return session


def _require_offer(room: JointRoom) -> None:
    """Refuse an offer of something else than was wanted.

    Raises:
        UnexpectedReplyError: it is one.
    """
    wanted, sizes = room.wanted, {"before": 0, **room.offer.sizes()}
    expected: dict[str, object] = {
        "tokens": wanted.tokens,
        "before": wanted.before,
        "starts": wanted.starts,
        "ends": "label",
        "candidates": list(wanted.candidates) if wanted.starts == "tokens" else [],
    }
    if wanted.layers:
        expected["layers"] = wanted.layers
    if wanted.starts == "states" and wanted.candidates:
        expected["vocabulary"] = len(wanted.candidates)
    wrong = [name for name, value in expected.items() if sizes.get(name) != value]
    if wrong:
        raise UnexpectedReplyError(
            f"the LM's owner offers a computation of other {', '.join(wrong)} than was wanted"
        )
