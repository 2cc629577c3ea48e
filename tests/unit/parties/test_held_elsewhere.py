"""A record says by which names another party can be asked to forget what it has."""

from __future__ import annotations

from collections.abc import Sequence

from cosilo.boundary.messages import (
    Ask,
    Body,
    Contribute,
    Forget,
    Forgotten,
    Message,
    OpenBody,
    PluggedIn,
    PlugIn,
    encode,
)
from cosilo.boundary.messages.body import BodyVersion
from cosilo.boundary.messages.forget import InFederation
from cosilo.boundary.record.ledger import Keep, MemoryLedger
from cosilo.parties.held_elsewhere import HeldElsewhere, held_elsewhere
from cosilo.types import user

OPEN = OpenBody(base=bytes(16), first=1, last=3, training=bytes(16))
ALONE = OpenBody(base=bytes(16), first=1, last=3, train=False)
BODY = Body(layers=4, rank=8, learning_rate=2e-4)
GIVEN = Contribute(federation="ef" * 16, number=2, rank=2, packed=b"x")


async def recorded(
    crossed: Sequence[tuple[str, Message, Message | None]], keep: Keep = "content"
) -> MemoryLedger:
    ledger = MemoryLedger("trial", keep=keep)
    for request, up, down in crossed:
        number = await ledger.append(request, "up", up, encode(up))
        if down is not None:
            await ledger.append(request, "down", down, encode(down), number)
    return ledger


CROSSED: list[tuple[str, Message, Message | None]] = [
    (32 * "1", Ask(chat=user("Anna")), None),
    (32 * "2", OPEN, BODY),
    (32 * "3", ALONE, BODY),
    (32 * "4", PlugIn(base=32 * "b", rank=4, alpha=8.0, packed=b""), PluggedIn(name=32 * "a")),
    (32 * "5", GIVEN, None),
    (32 * "6", Forget(forget=32 * "f", everything=True),
     Forgotten(forget=32 * "f", asked="", at=1.0, outcomes=())),
]  # fmt: skip


async def test_all_that_crossed_is_named_as_the_other_side_knows_it() -> None:
    network = await recorded([c for c in CROSSED if c[0] != 32 * "1"] + CROSSED[:1], "digest")
    held = held_elsewhere(network.entries(), (await recorded(CROSSED)).entries())
    assert held == HeldElsewhere(
        requests=tuple(32 * str(i) for i in range(1, 6)),
        federations=(InFederation(federation="ef" * 16, rounds=(2,)),),
        adapters=(32 * "a",),
        bodies=(bytes(BodyVersion.first(OPEN, BODY)).hex(),),
    )
    (message,) = held.asked(32 * "e")
    assert {name for _, name in message.named()} >= {32 * "a", "ef" * 16, 32 * "1"}
    assert b"Anna" not in encode(message)


async def test_what_is_kept_as_a_digest_names_nothing_but_requests() -> None:
    digests = await recorded(CROSSED, "digest")
    held = held_elsewhere(digests.entries(), digests.entries())
    assert len(held.requests) == 5
    assert (held.federations, held.adapters, held.bodies) == ((), (), ())
    assert HeldElsewhere().asked(32 * "e") == []
