"""Whatever is claimed, no reply is booked at more than was reserved for it, nor below nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cosilo.boundary.messages import Ask, Completion, encode
from cosilo.boundary.meter import Meter, Price
from cosilo.errors import UnreachableError
from cosilo.types import Generation, Sampling, user

RATE = st.floats(0, 100)
COUNT = st.integers(-(2**62), 2**62) | st.integers(0, 200)
CLAIMS = st.builds(
    Generation,
    st.text(max_size=40).filter(lambda text: text.isprintable()),
    prompt_tokens=COUNT,
    completion_tokens=COUNT,
    cached_tokens=COUNT,
    seconds=st.floats(0, 1e9),
    attempts=st.integers(-5, 20),
)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    per_prompt = draw(RATE)
    return Price(
        per_prompt,
        draw(RATE),
        reasoning=draw(st.integers(0, 500)),
        attempts=draw(st.integers(1, 5)),
        usd_per_m_cached=draw(st.none() | st.floats(0, per_prompt)),
        usd_per_hour=draw(RATE),
        longest_s=draw(st.floats(0.1, 600)),
        usd_per_gb=draw(RATE),
    )


@given(prices(), CLAIMS, st.integers(1, 200))
def test_a_bill_is_within_its_reservation(price: Price, claim: Generation, tokens: int) -> None:
    ask = Ask(chat=user("hello"), sampling=Sampling(max_tokens=tokens))
    size, reply = len(encode(ask)), Completion(generation=claim)
    meter = Meter(price=price)
    most = meter.reserve(ask, size)
    down = min(len(encode(reply)), most.bytes_down)
    bill = price.bill(meter.once(most, ask), reply, down)
    assert 0 <= bill.spent.usd <= most.usd * (1 + 1e-9)
    assert bill.spent.tokens_in <= most.tokens_in
    assert bill.spent.tokens_out <= most.tokens_out
    assert (
        bill.spent == price.bill(price.once(ask, size), reply, down).spent or not price.usd_per_gb
    )
    lost = meter.lost(ask, size, UnreachableError("late"))
    assert lost.usd <= most.usd * (1 + 1e-9)
