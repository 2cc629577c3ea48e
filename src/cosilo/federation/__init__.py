"""The mathematics of a federation, on named arrays: what owners' updates become.

    updates.py    one owner's update, and what can be wrong with it
    rules.py      how updates are put together; `low_rank.py` for unequal ranks, `robust.py` against
                  hostile owners
    momentum.py   how far owners go on where that leads
    scalars.py    updates that are one number for each of many shared directions
    private.py    an update cut to a length, with noise, and what it is booked as
    secure/       sums that hide what they are of

Nothing here talks: coordinators and strategies call it.
"""

from __future__ import annotations

from cosilo.federation import low_rank as low_rank
from cosilo.federation import robust as robust
from cosilo.federation.momentum import ServerStep as ServerStep
from cosilo.federation.rules import Aggregate as Aggregate
from cosilo.federation.rules import AggregationRule as AggregationRule
from cosilo.federation.rules import require_securable as require_securable
from cosilo.federation.rules import rules as rules
from cosilo.federation.updates import OwnerUpdate as OwnerUpdate
from cosilo.federation.updates import vetted as vetted
