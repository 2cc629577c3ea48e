"""What a run really pays for, and the budget that holds for all of it.

The boundary's meter says what a strategy costs; an answer that another trial already paid for
counts there again, as it should. Here every call is counted that reaches the LM for the first time.
It is booked in the run's own file before it is made, so that the budget also holds across restarts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from time import perf_counter

from cosilo.benchmark.store import Store
from cosilo.boundary.messages import Ask, Completion, encode
from cosilo.boundary.meter import Budget, Meter, Price, Totals
from cosilo.models.base import (
    Access,
    ActivationModel,
    Array,
    LogitModel,
    TextModel,
    Tokens,
    former_identity,
    identity,
    require,
)
from cosilo.types import Chat, Generation, Sampling


class Busy:
    """Seconds in which at least one piece of work was under way; entered once for each piece."""

    def __init__(self) -> None:
        self._under_way = 0
        self._since = self._before = 0.0

    def __enter__(self) -> None:
        if not self._under_way:
            self._since = perf_counter()
        self._under_way += 1

    def __exit__(self, *_: object) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._before += perf_counter() - self._since

    @property
    def seconds(self) -> float:
        return self._before + (perf_counter() - self._since if self._under_way else 0.0)


class Paid:
    """`model`, each of its calls booked in `store` and kept inside `budget`."""

    def __init__(self, model: TextModel, store: Store, budget: Budget, price: Price) -> None:
        self.model = model
        self.price = price
        self._store = store
        self._meter = Meter(budget, price=price)
        self._meter.totals = store.paid()
        self.calls = 0  # of this process
        self.busy = Busy()

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def identity(self) -> str:
        return identity(self.model)

    @property
    def former_identity(self) -> str:
        return former_identity(self.model)

    @property
    def access(self) -> Access:
        return self.model.access

    @property
    def totals(self) -> Totals:
        """Everything this run has paid, by earlier processes too."""
        return self._meter.totals

    def promise(self, usd: float) -> None:
        """Spend at most `usd` from now on, whatever more the plan's budget allows: what was
        confirmed as the most a run can cost is the most it can cost."""
        most = (self.totals.usd + usd) * (1 + 1e-9)  # sums of the same amounts, in another order
        given = self._meter.budget.usd
        totals = self.totals
        budget = replace(self._meter.budget, usd=most if given is None else min(given, most))
        self._meter = Meter(budget, price=self.price)
        self._meter.totals = totals

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        """The model's reply.

        Raises:
            BudgetExceededError: it might cost more than the run has left; nothing was asked.
        """
        ask = Ask(chat=chat, sampling=sampling)
        size = len(encode(ask))
        reservation = self._meter.reserve(ask, size)
        cost, started, number = Totals(), perf_counter(), None
        try:
            number = self._store.pay(reservation)
            self.calls += 1
            cost = reservation
            try:
                with self.busy:
                    generation = await self.model.generate(chat, sampling)
            except BaseException as error:
                cost = self._meter.lost(ask, size, error)
                raise
            reply = Completion(generation=generation)
            cost = self._meter.cost(ask, size, reply, len(encode(reply)))
        finally:
            self._meter.settle(reservation, cost)
            if number is not None:
                self._store.settle(number, cost, perf_counter() - started)
        return generation

    @property
    def vocabulary(self) -> str:
        return self._logits.vocabulary

    @property
    def vocabulary_size(self) -> int:
        return self._logits.vocabulary_size

    def tokenize(self, chat: Chat, reply: str) -> Tokens:
        return self._logits.tokenize(chat, reply)

    def piece(self, token: int) -> bytes:
        return self._logits.piece(token)

    async def logits(self, sequences: Sequence[Tokens]) -> list[Array]:
        """The model's logits; reading is paid for by the token like a prompt.

        Raises:
            BudgetExceededError: it would cost more than the run has left; nothing was asked.
        """
        return await self._reading(sequences, self._logits.logits)

    @property
    def layers(self) -> int:
        return self._activations.layers

    def plain(self, text: str) -> Tokens:
        return self._activations.plain(text)

    async def activations(self, sequences: Sequence[Tokens], layer: int) -> list[Array]:
        """The model's states; paid for as `logits` are.

        Raises:
            what `logits` does.
        """
        model = self._activations
        return await self._reading(sequences, lambda given: model.activations(given, layer))

    async def _reading(
        self,
        sequences: Sequence[Tokens],
        work: Callable[[Sequence[Tokens]], Awaitable[list[Array]]],
    ) -> list[Array]:
        """What `work` finds in `sequences`, booked before it begins."""
        tokens = sum(map(len, sequences))
        cost = Totals(messages=1, tokens_in=tokens, usd=self.price.usd(tokens, 0))
        self._meter.hold(cost)
        started, number = perf_counter(), None
        try:
            number = self._store.pay(cost)
            self.calls += 1
            with self.busy:
                return await work(sequences)
        finally:
            self._meter.settle(cost, cost)
            if number is not None:
                self._store.settle(number, cost, perf_counter() - started)

    @property
    def _activations(self) -> ActivationModel:
        return require(self.model, Access.ACTIVATIONS, by="reading texts")

    @property
    def _logits(self) -> LogitModel:
        return require(self.model, Access.LOGITS, by="scoring replies")

    async def close(self) -> None:
        await self.model.close()
