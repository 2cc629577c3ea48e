"""A trial's roads to its other sides: for each a chain in the ledger, a meter and a price."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cosilo.benchmark.parts import Parts
from cosilo.benchmark.plan import Plan
from cosilo.benchmark.record import chain_of
from cosilo.benchmark.rows import Mark, Pass, Road, Trial
from cosilo.benchmark.store import Store
from cosilo.boundary.meter import Meter
from cosilo.boundary.record.ledger import SqliteLedger
from cosilo.boundary.transports.base import Transport
from cosilo.defences.base import Defence
from cosilo.privacy.account import PrivacyAccount
from cosilo.session import PointConfig, Side, open_point
from cosilo.strategies.base import Session, Strategy
from cosilo.tasks.base import Split


class Roads:
    """The roads of one pass of `trial`, to the peers that its `point` speaks to; where nothing crosses,
    to the plan's first.

    Attributes:
        attempt: of the trial; the same on each road, however far its chain has come.
    """

    def __init__(
        self, plan: Plan, point: PointConfig, trial: Trial, which: Pass, store: Store
    ) -> None:
        self.peers = plan.peers_of(point) or dict([next(iter(plan.peers.items()))])
        self._which = which
        self._ledgers: dict[Road, SqliteLedger] = {}
        for road in trial.roads(which):
            # Items are named by a hash of their content, so what they are called is hidden as well.
            chain = chain_of(trial.id, road)
            self._ledgers[road] = SqliteLedger(store.ledger_path, chain, hide_names=True)
        self.attempt = max(ledger.attempt for ledger in self._ledgers.values())
        for ledger in self._ledgers.values():
            ledger.attempt = self.attempt

    def open(
        self,
        point: PointConfig,
        parts: Parts,
        *,
        account: PrivacyAccount | None = None,
        watch: Sequence[Defence] = (),
        transports: Mapping[str, Transport] | None = None,
    ) -> tuple[Strategy, Session]:
        """The strategy of `point`, `ready`, and a session to prepare it in.

        Args:
            account: books what messages spent, to whomever.
            watch: a guard for each road.
            transports: instead of the usual ones, by the name of the peer.
        """
        sides = {
            name: Side(
                lm=parts.peers[name].party,
                transport=(transports or {}).get(name),
                meter=Meter(price=config.price),
                ledger=ledger,
                watch=watch[at : at + 1],
            )
            for at, ((name, config), ledger) in enumerate(
                zip(self.peers.items(), self._ledgers.values(), strict=True)
            )
        }
        (name, first), *others = sides.items()
        return open_point(
            point,
            parts.owner,
            first.lm,
            sampling=parts.task.sampling,
            meter=first.meter,
            ledger=first.ledger,
            transport=first.transport,
            account=account,
            watch=first.watch,
            name=name,
            others=dict(others),
        )

    def marks(self, split: Split, ids: Iterable[str]) -> dict[tuple[Road, str], Mark]:
        """Where each chain stands now, for each of these items of `split`."""
        return {
            (road, id): Mark(*ledger.head, ledger.sent(f"{split}/{id}"))
            for road, ledger in self._ledgers.items()
            for id in ids
        }

    def close(self) -> None:
        for ledger in self._ledgers.values():
            ledger.close()
