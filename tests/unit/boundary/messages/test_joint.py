"""What messages of a joint computation say, and what crosses beside them."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from cosilo.attacks.record import texts
from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import (
    AskJoint,
    Joint,
    JointOffered,
    JointSpent,
    Message,
    decode,
    encode,
)
from cosilo.boundary.messages.joint import JointLink
from cosilo.boundary.meter import Budget, Meter, Price
from cosilo.boundary.transports.inside import InProcess
from cosilo.errors import BudgetExceededError, CosiloError, EngineError, UnexpectedReplyError
from cosilo.models.joint import Wanted

RUN = 32 * "1"
LINKS = (JointLink(0, 1, 300, 2), JointLink(1, 0, 200, 2))
JOINT = Joint(run=RUN, number=1, parties=2, most=1000)
GB = Price(usd_per_gb=1e9)  # a dollar a byte


class Computes:
    """An LM's owner whose engines sent what `links` says."""

    def __init__(self, links: tuple[JointLink, ...], fails: CosiloError | None = None) -> None:
        self.reply, self.fails = JointSpent(links=links), fails

    async def handle(self, message: Message) -> Message:
        if self.fails is not None:
            raise self.fails
        return self.reply

    def handle_stream(self, ask: object) -> object:
        raise NotImplementedError


def road(party: object, meter: Meter) -> Boundary:
    return Boundary(InProcess(party), declared=frozenset({Joint}), meter=meter)  # type: ignore[arg-type]


async def test_bytes_beside_a_message_are_counted_and_paid() -> None:
    meter, party = Meter(price=GB), Computes(LINKS)
    await road(party, meter).send(JOINT)
    up, down = len(encode(JOINT)) + 200, len(encode(party.reply)) + 300
    assert (meter.totals.bytes_up, meter.totals.bytes_down) == (up, down)
    assert meter.totals.usd == pytest.approx(up + down)
    assert meter.reserved.bytes_up == meter.reserved.bytes_down == 0


async def test_a_computation_is_refused_whose_most_is_more_than_is_left() -> None:
    for budget in (Budget(bytes_up=1000), Budget(bytes_down=1500), Budget(usd=2500.0)):
        meter = Meter(budget, price=GB)
        with pytest.raises(BudgetExceededError):
            await road(Computes(LINKS), meter).send(JOINT)
        assert meter.totals.messages == 0


@pytest.mark.parametrize("worked", [None, 0, 1])
async def test_a_computation_that_failed_is_booked_at_its_most_whatever_is_said(
    worked: int | None,
) -> None:
    meter, error = Meter(price=GB), EngineError("the link broke off")
    error.worked = worked
    with pytest.raises(EngineError):
        await road(Computes(LINKS, error), meter).send(JOINT)
    assert meter.totals.bytes_up == len(encode(JOINT)) + 1000
    assert meter.totals.bytes_down == 1000
    assert meter.totals.usd >= 2000
    assert meter.reserved.bytes_up == 0


@pytest.mark.parametrize(
    "links",
    [
        LINKS[:1],
        (*LINKS, LINKS[0]),
        (LINKS[0], JointLink(1, 2, 5)),
        (LINKS[0], JointLink(1, 0, 1001)),
    ],
)
async def test_links_that_cannot_be_are_no_reply(links: tuple[JointLink, ...]) -> None:
    with pytest.raises(UnexpectedReplyError):
        await road(Computes(links), Meter()).send(JOINT)


@pytest.mark.parametrize(
    "shape",
    ["[]", "1", "{", '{"a": {"b": 1}}', '{"a": [[[[[1]]]]]}', json.dumps({"a": [0] * 5000})],
)
def test_sizes_are_numbers_words_and_lists_of_them(shape: str) -> None:
    offered = JointOffered(offer=64 * "0", program="head", shape=shape)
    with pytest.raises(UnexpectedReplyError):
        decode(encode(offered))
    plain = replace(offered, shape='{"inputs": 384, "shifts": [[1, 0], [2, 3]], "ends": "label"}')
    assert decode(encode(plain)) == plain


def test_an_offer_is_of_what_was_wanted() -> None:
    asked = AskJoint(wanted=Wanted(program="head"))
    offered = JointOffered(offer=64 * "0", program="head", shape="{}")
    asked.check_reply(offered)
    for other in (replace(offered, program="mlp"), replace(offered, left=4)):
        with pytest.raises(ValueError, match="other"):
            asked.check_reply(other)


def test_tokens_in_clear_are_no_words_but_are_no_secret_either() -> None:
    assert JOINT.legible()
    assert not replace(JOINT, clear=(5,)).legible()
    read = replace(JOINT, clear=(5,), text="the")
    assert read.legible()
    assert texts(read) == ["the"]
    assert decode(encode(read)) == read
    with pytest.raises(UnexpectedReplyError):
        decode(encode(replace(JOINT, text="of no tokens")))
    assert replace(JOINT, tells="logits").drawn().logits == 1
    assert replace(JOINT, tells="logits", number=0).drawn().logits == 0
