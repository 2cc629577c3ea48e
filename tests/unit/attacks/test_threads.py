"""A value that left a syllable at a time is found; what nobody can read gives no number."""

from __future__ import annotations

import pytest

from cosilo.attacks.base import Target, View
from cosilo.attacks.record import spoken, upstream
from cosilo.attacks.secrets import Verbatim
from cosilo.attacks.threads import ThreadReader
from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Step, Verify
from cosilo.boundary.messages.step import ThreadName
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import StoreError
from cosilo.models.base import Access
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.thread import Thread
from cosilo.types import Sampling, user
from toy_thread import ToyThreads


def opened(request: str, ledger: MemoryLedger, **options: bool) -> Thread:
    owner = LMOwner(ToyThreads(), exposes=Access.LOGITS.shows)
    road = Boundary(InProcess(owner), declared=frozenset({Step}), ledger=ledger, request=request)
    return Thread(road, user("Who?"), ToyThreads(), top=3, **options)


async def test_what_went_up_in_parts_is_read_as_one() -> None:
    ledger = MemoryLedger()
    first = opened("r1", ledger)
    for part in ("An", "na B", "erg"):
        await first.go_on(part)
    drafting = opened("r2", ledger)
    await drafting.go_on("Do")
    await drafting.go_on("", "ra Xyz")
    await drafting.go_on("ra E")
    await drafting.go_on("k")
    view = View(ledger.entries)
    said = [pieces for request, pieces in upstream(view) if request == "r1"]
    assert said[-1] == ["Anna Berg"]
    assert "Dora Ek" in spoken(view)["r2"]
    assert "Dora Xyz" in spoken(view)["r2"], "what was drafted went up, too"
    people = ("Anna Berg", "Dora Ek", "Carl Öst")
    targets = [Target(f"t{r}", r, "name", people) for r in ("r1", "r2")]
    guesses = await Verbatim().guess(view, targets)
    assert [g.value for g in guesses] == ["Anna Berg", "Dora Ek"]


async def test_a_draft_is_read_with_the_reply_that_it_goes_on() -> None:
    """The LM writes bytes that are no text, so only what was drafted can be a name."""
    ledger = MemoryLedger()
    owner = LMOwner(ToyThreads())
    road = Boundary(InProcess(owner), declared=frozenset({Verify}), ledger=ledger, request="r1")
    first = await road.send(Verify(chat=user("Who?"), sampling=Sampling(max_tokens=9)))
    await road.send(Verify(thread=first.thread, draft="Anna Berg"))
    whole = Verify(chat=user("Who?"), sampling=Sampling(max_tokens=9), draft="Dora Ek", whole=True)
    await road.bind("r2").send(whole)
    view = View(ledger.entries)
    assert [pieces for request, pieces in upstream(view)][-1] == [first.text + "Anna Berg"]
    assert spoken(view)["r1"].endswith(first.text + "Anna Berg")
    assert "Dora Ek" in spoken(view)["r2"]


def test_a_step_goes_on_from_any_part_of_a_draft() -> None:
    chat = user("Who?")
    reader = ThreadReader()
    reader.note("r1", Step(chat=chat, text="Do", draft="ra Xyz"))
    accepted = bytes(ThreadName(chat).after(b"Dora "))
    reader.note("r1", Step(thread=accepted, text="Ek"))
    assert reader.whole() == {"r1": ["Dora Xyz", "Dora Ek"]}
    reader.note("r2", Step(thread=bytes(16), text="of a thread that is not on record"))
    assert "r2" not in reader.whole()


async def test_ids_are_text_that_nobody_can_read_here() -> None:
    ledger = MemoryLedger()
    thread = opened("r1", ledger, ids=True)
    await thread.go_on()
    assert list(upstream(View(ledger.entries)))
    await thread.go_on(ToyThreads().cut(" the")[0])
    with pytest.raises(StoreError, match="token ids"):
        list(upstream(View(ledger.entries)))
    with pytest.raises(StoreError, match="token ids"):
        spoken(View(ledger.entries))
