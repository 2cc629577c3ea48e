"""The one place where things are put together: what the benchmark and the gateway share."""

from __future__ import annotations

from collections.abc import Sequence

from cosilo.boundary.channel import Boundary
from cosilo.boundary.ledger import Ledger
from cosilo.boundary.meter import Meter
from cosilo.boundary.transport import InProcess, Transport
from cosilo.defences.base import Defence
from cosilo.errors import CapabilityError
from cosilo.models.base import require, require_trainable
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.base import Session, Strategy
from cosilo.types import Sampling


def open_session(
    owner: DataOwner,
    lm: LMOwner,
    strategy: Strategy,
    *,
    defences: Sequence[Defence] = (),
    sampling: Sampling | None = None,
    meter: Meter | None = None,
    ledger: Ledger | None = None,
    transport: Transport | None = None,
) -> Session:
    """A session in which `strategy` can be prepared and can answer.

    Args:
        defences: outermost first.
        transport: how messages reach `lm`; within the process by default.

    Raises:
        CapabilityError: a model shows less than the strategy needs; nothing has been sent.
    """
    needs, who = strategy.needs, type(strategy).__name__
    require(owner.model, needs.small, by=who)
    if needs.trainable:
        require_trainable(owner.model, by=who)
    if needs.sends and lm.exposes < needs.large:
        raise CapabilityError(
            f"{who} needs {needs.large.name.lower()} of the large model, but {lm.name} exposes "
            f"only {lm.exposes.name.lower()}"
        )
    for defence in defences:
        owner = defence.protect(owner)
    boundary = Boundary(
        transport or InProcess(lm),
        declared=needs.sends,
        guards=defences,
        meter=meter,
        ledger=ledger,
    )
    return Session(owner, boundary, sampling or Sampling())
