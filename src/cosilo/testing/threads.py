"""What is expected of a model that goes on from what it has read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Step
from cosilo.boundary.messages.step import ThreadName
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import RejectedError, UnknownThreadError
from cosilo.models.base import Access, NextTokens, Past, ThreadModel, canonical, whole_tokens
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.threads import Threads
from cosilo.strategies.thread import Thread
from cosilo.types import Chat, Sampling, user


class ThreadContract:
    """Override `model`: a model that goes on from what it has read, alone and at its owner's.

    `tolerance` is how far the log-probability of a token may lie from that of one pass over all tokens.
    """

    tolerance = 1e-3

    def model(self) -> ThreadModel:
        raise AssertionError("a contract test must say which model it is about")

    def chat(self) -> Chat:
        return user("Say hello.")

    def reply(self) -> str:
        return "the hello world is about"

    def thread(self, owner: LMOwner, words: ThreadModel, **options: Any) -> Thread:
        road = Boundary(InProcess(owner), declared=frozenset({Step}))
        return Thread(road, self.chat(), words, **{"top": 5, **options})

    def _run(self, check: Callable[[ThreadModel, LMOwner], Coroutine[Any, Any, None]]) -> None:
        async def run() -> None:
            model = self.model()
            try:
                await check(model, LMOwner(model, exposes=Access.LOGITS.shows))
            finally:
                await model.close()

        asyncio.run(run())

    async def _whole(self, model: ThreadModel, ids: Sequence[int]) -> dict[int, float]:
        """The likeliest tokens behind `ids`, in one pass."""
        _, found = await model.read(None, ids, places=1, top=5)
        return dict(zip(found.ids[0].tolist(), found.logprobs[0].tolist(), strict=True))

    def _same(self, found: NextTokens, row: int, whole: Mapping[int, float]) -> None:
        told = dict(zip(found.ids[row].tolist(), found.logprobs[row].tolist(), strict=True))
        assert all(abs(told[i] - whole[i]) < self.tolerance for i in told.keys() & whole.keys())
        missed = [v for i, v in {**told, **whole}.items() if not (i in told and i in whole)]
        least = min(whole.values())  # only tokens about as likely as the last may change places
        assert all(abs(v - least) < 2 * self.tolerance for v in missed)

    def test_token_by_token_it_says_what_one_pass_says(self) -> None:
        async def check(model: ThreadModel, _owner: LMOwner) -> None:
            ids = [*model.prompt(self.chat()), *model.cut(self.reply())[0]]
            _, places = await model.read(None, ids, places=3, top=5)
            past: Past | None = None
            for i, token in enumerate(ids):
                past, found = await model.read(past, [token], places=1, top=5)
                assert list(past.ids) == ids[: i + 1]
                if len(ids) - i <= 3:
                    self._same(found, 0, await self._whole(model, ids[: i + 1]))
                    self._same(places, i - len(ids) + 3, await self._whole(model, ids[: i + 1]))

        self._run(check)

    def test_a_fork_and_what_it_was_made_from_go_their_own_ways(self) -> None:
        async def check(model: ThreadModel, _owner: LMOwner) -> None:
            ids = [*model.prompt(self.chat()), *model.cut(self.reply())[0]]
            half = len(ids) - 2
            past, _ = await model.read(None, ids, places=1, top=5)
            fork = past.fork(half)
            other, found = await model.read(fork, [ids[0]], places=1, top=5)
            self._same(found, 0, await self._whole(model, [*ids[:half], ids[0]]))
            past, found = await model.read(past, [ids[1]], places=1, top=5)
            self._same(found, 0, await self._whole(model, [*ids, ids[1]]))
            past.crop(half)
            past, found = await model.read(past, [ids[2]], places=1, top=5)
            self._same(found, 0, await self._whole(model, [*ids[:half], ids[2]]))
            assert list(other.ids) == [*ids[:half], ids[0]]

        self._run(check)

    def test_where_only_the_first_refused_token_is_asked_for_all_before_it_come(self) -> None:
        async def check(model: ThreadModel, _owner: LMOwner) -> None:
            prompt = [*model.prompt(self.chat())]
            likeliest: list[int] = []
            for _i in range(3):
                _, found = await model.read(None, [*prompt, *likeliest], places=1, top=1)
                likeliest.append(int(found.ids[0, 0]))
            wrong = next(i for i in range(model.vocabulary_size) if i not in likeliest)
            ids = [*prompt, *likeliest[:2], wrong, wrong]
            past, found = await model.read(None, ids, places=5, top=1, each=False)
            assert found.ids[:3, 0].tolist() == likeliest
            assert list(past.ids) == ids[: len(past.ids)]
            assert len(past.ids) == len(prompt) - 1 + len(found.ids)

        self._run(check)

    @pytest.mark.parametrize("at_once", [1, 4])
    def test_greedy_steps_write_what_the_model_writes(self, at_once: int) -> None:
        async def check(model: ThreadModel, owner: LMOwner) -> None:
            sampling = Sampling(max_tokens=10)
            alone = await model.generate(self.chat(), sampling)
            for options in ({}, {"ids": True}):
                thread = self.thread(owner, model, **options)
                assert await self.written(thread, model, 10, at_once) == alone.text

        self._run(check)

    async def written(self, thread: Thread, model: ThreadModel, count: int, at_once: int) -> str:
        """The reply of `count` tokens that is likeliest token by token; the model itself drafts."""
        new = [(await thread.go_on()).likeliest]
        done: list[int] = []
        while not thread.ends.intersection(new) and len(done) + len(new) < count:
            most = min(at_once - 1, count - len(done) - len(new) - 1)
            drafted = await self._drafted(model, [*done, *new], most, thread.ends)
            done += new
            said = await thread.go_on(new, drafted)
            new = [*drafted[: said.accepted], said.likeliest]
        whole = [*done, *new][:count]
        ids = whole[: next((i for i, t in enumerate(whole) if t in thread.ends), count)]
        return b"".join(model.spelt(ids)).decode(errors="replace")

    async def _drafted(
        self, model: ThreadModel, said: Sequence[int], count: int, ends: frozenset[int]
    ) -> list[int]:
        drafted: list[int] = []
        past: Past | None = None
        more: Sequence[int] = [*model.prompt(self.chat()), *said]
        for _ in range(count):
            past, found = await model.read(past, more, places=1, top=1)
            token = int(found.ids[0, 0])
            if token in ends or not canonical(model, [*said, *drafted, token]):
                break
            if whole_tokens(model.spelt([*said, *drafted, token])) != len(said) + len(drafted) + 1:
                break
            drafted.append(token)
            more = [token]
        return drafted if whole_tokens(model.spelt(said)) == len(said) else []

    def test_what_was_forgotten_is_sent_again(self) -> None:
        async def check(model: ThreadModel, owner: LMOwner) -> None:
            small = replace(owner, threads=Threads(most=1))
            first, second = self.thread(small, model), self.thread(small, model)
            second._chat = user("Say it again.")
            second._begin = ThreadName(second._chat)
            await first.go_on("the hello")
            await second.go_on("the")
            again = await first.go_on(" world")
            fresh = await self.thread(owner, model).go_on("the hello world")
            assert first._channel.totals.messages == 3, "one of them came back as unknown"
            assert again.likeliest == fresh.likeliest

        self._run(check)

    def test_a_thread_of_another_client_is_as_unknown_as_none(self) -> None:
        async def check(model: ThreadModel, owner: LMOwner) -> None:
            threads = Threads()
            mine, other = (replace(owner, client=c, threads=threads) for c in ("a", "b"))
            await self.thread(mine, model).go_on("the hello")
            name = bytes(ThreadName(self.chat()).after(b"the hello"))
            told = []
            for asked in (name, bytes(16)):
                with pytest.raises(UnknownThreadError) as caught:
                    await other.handle(Step(thread=asked, text=" world"))
                told.append(str(caught.value))
            assert told[0] == told[1]
            await mine.handle(Step(thread=name, text=" world"))

        self._run(check)

    def test_ids_that_are_not_how_their_text_is_cut_are_refused(self) -> None:
        async def check(model: ThreadModel, owner: LMOwner) -> None:
            ids = tuple(model.cut(self.reply())[0])
            letters = tuple(i for c in self.reply()[:3] for i in model.cut(c)[0])
            assert ids[: len(letters)] != letters
            opening: dict[str, Any] = {
                "chat": self.chat(),
                "vocabulary": model.vocabulary,
                "top": 5,
            }
            await owner.handle(Step(ids=ids, **opening))
            for wrong in (letters, (*ids, model.vocabulary_size + 5), (*ids, min(model.ends))):
                for field in ("ids", "draft_ids"):
                    asked: dict[str, Any] = {**opening, field: wrong}
                    with pytest.raises(RejectedError, match="cuts their text"):
                        await owner.handle(Step(**asked))
            with pytest.raises(RejectedError, match="vocabulary"):
                await owner.handle(Step(ids=ids, **opening | {"vocabulary": "another"}))

        self._run(check)
