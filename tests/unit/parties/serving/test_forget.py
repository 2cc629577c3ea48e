"""An owner forgets what a client names of its own, once, and says what there was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cosilo.boundary.messages import Ask, Forget, Forgotten
from cosilo.boundary.messages.forget import ForgottenItem, InFederation
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import RejectedError, StoreError, UnknownAdapterError, UnknownThreadError
from cosilo.models.base import EVERYTHING
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.forgets import MemoryForgets
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.to_forget import ask_to_forget
from cosilo.types import user

NAME, OTHER = 32 * "a", 32 * "b"


class Plugging(ScriptedModel):
    """Answers with adapters that are but names."""

    def __init__(self, **kept: str) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {("clinic", NAME): 64 * "1", ("other", OTHER): "2"}
        self.fails = 0

    async def plugged(self, client: str, name: str) -> ScriptedModel:
        if (client, name) not in self.kept:
            raise UnknownAdapterError("no such adapter (any more): plug it in again")
        return ScriptedModel({"": "adapted"})

    async def adapters_of(self, client: str) -> dict[str, str]:
        return {name: digest for (of, name), digest in self.kept.items() if of == client}

    async def forget_adapter(self, client: str, name: str) -> None:
        if self.fails:
            self.fails -= 1
            raise StoreError("the disk is full")
        self.kept.pop((client, name), None)


def asked(**named: Any) -> Forget:
    return Forget(**{"forget": 32 * "f", **named})


async def told(owner: LMOwner, message: Forget) -> tuple[ForgottenItem, ...]:
    answer = await owner.handle(message)
    assert isinstance(answer, Forgotten)
    message.check_reply(answer)
    return answer.outcomes


async def test_an_adapter_is_gone_and_nobody_answers_by_it() -> None:
    model = Plugging()
    owner = LMOwner(model, client="clinic")
    ask = Ask(chat=user("x"), adapter=NAME)
    await owner.handle(ask)
    assert await told(owner, asked(adapters=(NAME,))) == (
        ForgottenItem(what="adapter", how="deleted", names=(NAME,), count=1, before=64 * "1"),
    )
    with pytest.raises(UnknownAdapterError, match="no such adapter"):
        await owner.handle(ask)
    assert ("other", OTHER) in model.kept


async def test_anothers_is_nothing_and_looks_like_what_never_was() -> None:
    model = Plugging()
    owner = LMOwner(model, client="clinic")
    theirs = await told(owner, asked(adapters=(OTHER,)))
    never = await told(owner, asked(forget=32 * "e", adapters=(32 * "c",)))
    assert theirs == (ForgottenItem(what="adapter", how="nothing", names=(OTHER,)),)
    assert never == (ForgottenItem(what="adapter", how="nothing", names=(32 * "c",)),)
    assert ("other", OTHER) in model.kept


async def test_the_same_request_has_the_same_answer() -> None:
    model = Plugging()
    owner = LMOwner(model, client="clinic")
    first = await owner.handle(asked(adapters=(NAME,)))
    model.kept["clinic", NAME] = "again"
    assert await owner.handle(asked(adapters=(NAME,))) == first
    assert ("clinic", NAME) in model.kept, "what came after it is another request's affair"
    with pytest.raises(RejectedError, match="use a new one"):
        await owner.handle(asked(adapters=(OTHER,)))
    assert (await told(owner, asked(part=1, adapters=(OTHER,))))[0].how == "nothing"


async def test_what_was_planned_is_told_after_a_fault() -> None:
    model, book = Plugging(), MemoryForgets()
    owner = LMOwner(model, client="clinic", forgets=book)
    model.kept["clinic", OTHER] = 64 * "3"
    model.fails = 1
    message = asked(adapters=(NAME, OTHER))
    with pytest.raises(StoreError, match="disk is full"):
        await owner.handle(message)
    del model.kept["clinic", NAME]  # as a process would leave it that was killed after the first
    begun_again = LMOwner(model, client="clinic", forgets=book)
    found = await told(begun_again, message)
    assert [(o.names, o.how, o.before[:1]) for o in found] == [
        ((NAME,), "deleted", "1"),
        ((OTHER,), "deleted", "3"),
    ]
    assert await model.adapters_of("clinic") == {}


async def test_everything_is_what_there_is() -> None:
    model = Plugging()
    found = await told(LMOwner(model, client="clinic"), asked(everything=True))
    assert [(o.what, o.names) for o in found] == [("adapter", (NAME,))]
    assert await told(LMOwner(ScriptedModel(), client="clinic"), asked(everything=True)) == ()


async def test_everything_names_no_federation_that_the_client_is_not_in() -> None:
    federation = Federation(FederationSettings(rounds=1, rank=2, owners=("other",), quorum=1))
    try:
        owner = LMOwner(ScriptedModel(), client="clinic", federation=federation)
        assert await told(owner, asked(everything=True)) == ()
        named = asked(forget=32 * "e", federations=(InFederation(federation=federation.name),))
        assert [o.how for o in await told(owner, named)] == ["nothing"]
    finally:
        federation.close()


class GaveUpdates(MemoryForgets):
    """Of a client that gave an update by the request NAME and a question by OTHER."""

    def known(self, client: str, names: Sequence[str]) -> set[str]:
        return {NAME, OTHER} & set(names)

    def updates(self, client: str) -> list[str]:
        return [NAME]


@pytest.fixture(params=[True, False])
def federation(request: pytest.FixtureRequest) -> Iterator[Federation | None]:
    """One that nobody enrolled in yet, or none."""
    made = Federation(FederationSettings(owners=("clinic",))) if request.param else None
    yield made
    if made is not None:
        made.close()


async def test_an_update_whose_federation_is_not_named_is_not_called_gone(
    federation: Federation | None,
) -> None:
    book = GaveUpdates(left_of_rounds=("others' records",))
    owner = LMOwner(Plugging(), client="clinic", federation=federation, forgets=book)
    (found,) = await told(owner, asked(requests=(NAME,)))
    assert (found.how, found.left) == ("deleted", ("others were given it", "others' records"))
    (found,) = await told(owner, asked(forget=32 * "d", requests=(OTHER,)))
    assert (found.how, found.left) == ("deleted", ())


async def test_a_federation_that_is_no_longer_here_cannot_be_taken_back(
    federation: Federation | None,
) -> None:
    named = InFederation(federation=32 * "9")
    for book, how in ((GaveUpdates(), "cannot"), (MemoryForgets(), "nothing")):
        owner = LMOwner(Plugging(), client="clinic", federation=federation, forgets=book)
        (found,) = await told(owner, asked(federations=(named,)))
        assert found.how == how
        every = await told(owner, asked(forget=32 * "e", everything=True))
        cannot = how == "cannot" and federation is None
        assert [o.how for o in every if o.what == "federation"] == ["cannot"] * cannot


async def test_who_keeps_nothing_has_nothing_of_any_name() -> None:
    owner = LMOwner(ScriptedModel(), client="clinic")
    message = asked(
        requests=(32 * "1",), adapters=(NAME,), bodies=(40 * "b",),
        federations=(InFederation(federation="ef"),),
    )  # fmt: skip
    found = await told(owner, message)
    assert {o.how for o in found} == {"nothing"}
    assert not (await owner.handle(message)).stands  # type: ignore[attr-defined]


async def test_who_cannot_forget_says_so() -> None:
    class Old(ScriptedModel):
        async def plugged(self, client: str, name: str) -> ScriptedModel:
            return self

    for message in (asked(adapters=(NAME,)), asked(everything=True)):
        answer = await LMOwner(Old(), client="clinic").handle(message)
        assert isinstance(answer, Forgotten)
        assert [outcome.how for outcome in answer.outcomes] == ["cannot"]
        assert answer.stands


async def test_asking_leaves_open_what_was_not_answered() -> None:
    model = Plugging()
    model.fails = 1
    way = InProcess(LMOwner(model, client="clinic"))
    message = asked(adapters=(NAME,))
    first = await ask_to_forget(way, message, until=100.0, trust=None)
    assert not isinstance(first, Forgotten)
    assert "disk is full" in first.why
    assert (first.late(99.0), first.late(101.0)) == (False, True)
    again = await ask_to_forget(way, message, until=100.0, trust=None)
    assert isinstance(again, Forgotten)


def files(folder: Path) -> list[str]:
    return [str(place) for place in folder.rglob("*") if place.is_file()]


async def test_real_adapters_go_from_memory_and_disk(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    import lent
    import taught
    from cosilo.boundary.messages import Tune, Tuned

    model = taught.tunable(checkpoints=tmp_path)
    tune = Tune(
        chats=(user("about 1"), user("about 2")), choices=("billing", "delivery"),
        shares=((1000, 0), (250, 750)), steps=2, batch=2, learning_rate=1e-2, rank=2,
    )  # fmt: skip
    owner, other = (LMOwner(model, client=name) for name in ("clinic", "other"))
    tuned, theirs = [await party.handle(tune) for party in (owner, other)]
    assert isinstance(tuned, Tuned)
    assert isinstance(theirs, Tuned)
    ask = Ask(chat=user("about 1"), sampling=lent.SAMPLING, adapter=tuned.name)
    await owner.handle(ask)  # merged into a copy, which is kept ready
    assert len(files(tmp_path)) == 2
    begun_again = LMOwner(taught.tunable(checkpoints=tmp_path), client="clinic")
    for party in (begun_again, owner):  # one has it on disk alone, then one in memory alone
        found = await told(party, asked(adapters=(tuned.name, theirs.name)))
        assert [o.how for o in found] == ["deleted", "nothing"]
        with pytest.raises(UnknownAdapterError):
            await party.handle(ask)
    assert [file for file in files(tmp_path) if tuned.name in file] == []
    assert [file for file in files(tmp_path) if theirs.name in file], "the other client's"
    assert isinstance(await other.handle(tune), Tuned)


async def test_an_emulator_is_aligned_no_more_often_for_having_forgotten() -> None:
    pytest.importorskip("torch")
    import lent

    lender = lent.lender(alignments=1)
    lender._alignments["clinic"] = {NAME}
    lender._aligned["clinic", NAME] = object()  # type: ignore[assignment]
    await lender.forget_adapter("clinic", NAME)
    assert ("clinic", NAME) not in lender._aligned
    assert len(lender._alignments["clinic"]) == 1
    assert NAME not in lender._alignments["clinic"]


@pytest.mark.parametrize("begun_again", [False, True], ids=["in memory", "from disk"])
async def test_a_body_goes_by_any_of_its_names(tmp_path: Path, begun_again: bool) -> None:
    pytest.importorskip("peft")
    from tests.unit.parties.test_bodies import TUNING, Client

    from cosilo.parties.bodies import ClientBodies
    from white_box import tiny

    model = tiny(3, layers=4)
    tuning = type(TUNING)(rank=2, learning_rate=1e-2, folder=tmp_path)
    bodies = ClientBodies(tuning)
    client, other = (Client(model, bodies, name) for name in ("clinic", "other"))
    for each in (client, other):
        await each.opened(seed=5)
        await each.step(0)
        await each.step(1)
    now = bytes(client.now or b"").hex()
    if begun_again:
        bodies = ClientBodies(tuning)
    owner = LMOwner(model, EVERYTHING, client="clinic", bodies=bodies)
    found = await told(owner, asked(bodies=(now, 40 * "0")))
    assert found[0] == ForgottenItem(what="body", how="deleted", names=(now,), count=1, before=now)
    assert found[1].how == "nothing"
    left = files(tmp_path)
    assert left
    assert all("client-other" in file for file in left)
    with pytest.raises(UnknownThreadError, match="training begins anew"):
        await Client(model, bodies, "clinic").opened(seed=5, at=bytes.fromhex(now))
    assert bytes(other.now or b"").hex() in str(bodies.versions("other"))
