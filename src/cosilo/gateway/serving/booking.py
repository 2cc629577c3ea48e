"""Money around a request: its most is set aside before it, what it did cost is booked after it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine

from cosilo.errors import StoreError
from cosilo.gateway.accounts.accounts import AccountStore, RequestFacts, Spend
from cosilo.gateway.refusals import refusal
from cosilo.gateway.serving.exchange import CLIENT_LEFT, Exchange
from cosilo.gateway.serving.tabs import Tab

log = logging.getLogger("cosilo.gateway")


class RequestBooks:
    """Reserves and settles, and finishes in the background what could not be settled at once.

    Args:
        tabs: of the requests under way, by id; shared with the guards of the points.
    """

    def __init__(self, store: AccountStore, tabs: dict[str, Tab]) -> None:
        self.store = store
        self.tabs = tabs
        self._background: set[asyncio.Task[None]] = set()

    async def reserve(self, x: Exchange, most: Spend, user: bytes = b"") -> Tab:
        """Set `most` aside, and open the request's tab; whoever calls it takes the tab from `tabs`.

        Raises:
            OverBudgetError: a limit of the key would be passed.
        """
        assert x.key is not None
        tab = Tab(self.store.accounts, x.key, x.id, user, local_only=x.local_only)
        await tab.reserve(most)
        x.tab = self.tabs[x.id] = tab
        return tab

    async def settle(self, x: Exchange, error: BaseException | None = None) -> None:
        """Book what was spent, whatever happened; a store that fails now is tried again later.

        Args:
            error: what ended the request, other than its answer.
        """
        assert x.tab is not None
        if x.left:
            x.outcome, x.status = "cancelled", CLIENT_LEFT
        elif isinstance(error, asyncio.CancelledError):
            x.outcome, x.status = "cancelled", 503
        elif error is not None:
            x.outcome, x.status = "error", refusal(error).status
        else:
            x.status = 200
        x.crossed = x.tab.totals
        x.spent = x.tab.spent(x.crossed)
        facts = x.record(time.perf_counter() - x.clock)
        if facts.disputes:
            log.warning(
                "request %s: %d replies of %r claimed more tokens than there can be, or no number of"
                " them; booked is the most it can be: %d in, %d out",
                x.id, facts.disputes, facts.upstream, x.spent.tokens_in, x.spent.tokens_out,
            )  # fmt: skip
        try:
            await x.tab.settle(x.spent, facts)
        except asyncio.CancelledError:
            self.later(self._again(x.tab, x.spent, facts))
            raise
        except StoreError:
            log.error("request %s could not be settled; trying again", x.id)
            self.later(self._again(x.tab, x.spent, facts))

    async def _again(self, tab: Tab, spent: Spend, facts: RequestFacts) -> None:
        """Until the store takes it; what is open at the end the next start books whole."""
        wait = 0.0
        while True:
            await asyncio.sleep(wait)
            try:
                await tab.settle(spent, facts)
                return
            except StoreError:
                wait = min(2 * wait + 0.5, 15.0)

    def later(self, work: Coroutine[None, None, None]) -> None:
        """Do `work` beside the requests."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """Finish what is still being settled, if it can be within seconds."""
        if self._background:
            _, late = await asyncio.wait(self._background, timeout=5.0)
            for task in late:
                task.cancel()
            if late:
                log.error("%d requests stay unsettled until the next start", len(late))
