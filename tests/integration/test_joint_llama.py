"""Layers of a Llama by three real processes: what has room is right, and what has none is noticed."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

import pytest

from cosilo.engines.base import Program, Setting
from cosilo.engines.llama import forward, observe, shifts
from cosilo.engines.prefix import keys_and_values
from cosilo.engines.ranges import require_faithful
from cosilo.engines.spu import environment
from cosilo.engines.spu.run import JointRun
from cosilo.errors import ConfigError
from joint_llama import shape_of, small_llama, texts

pytestmark = pytest.mark.skipif(
    environment.found() is None, reason=f"needs the engine's environment: {environment.INSTALL}"
)


async def run(halvings: list[list[int]], states: Any) -> Any:
    model = small_llama(layers=1)
    shape = shape_of(model, 6, halvings)
    async with JointRun(Program("llama", shape), Setting("aby3")) as joint:
        await joint.start()
        await joint.compile()
        await joint.link()
        await joint.share([model.mixed, model.out, model.gated, model.down])
        return (await joint.compute([states])).outputs


async def test_a_block_is_right_where_there_is_room_and_an_overflow_is_noticed() -> None:
    """The overflow is at the first place; the last, where a token is read, keeps its likeliest one."""
    model = small_llama(layers=1)
    public, private = texts(0), texts(9)[0]
    halvings = shifts(reduce(or_, (observe(model, states) for states in public)))
    plain, _ = forward(model, private)

    found, fits = await run(halvings, private)
    assert bool(fits)
    assert require_faithful(found, plain, 0.01) < 0.01

    wrapped, fits = await run([[0, 0]] * 3, private)
    assert (wrapped[-1] @ model.table.T).argmax() == (plain[-1] @ model.table.T).argmax()
    assert not bool(fits)
    with pytest.raises(ConfigError, match="a product leaves the ring"):
        require_faithful(wrapped, plain, 0.01)


async def test_behind_a_prefix_in_clear_a_suffix_is_right_each_time() -> None:
    """Keys and values of the prefix are brought anew to each computation; weights are shared once."""
    model = small_llama(layers=1)
    public = texts(0)
    halvings = shifts(reduce(or_, (observe(model, states) for states in public)))
    shape = shape_of(model, 2, halvings, before=4)
    async with JointRun(Program("llama", shape), Setting("aby3")) as joint:
        await joint.start()
        await joint.compile()
        await joint.link()
        await joint.share([model.mixed, model.out, model.gated, model.down])
        for private in texts(9, many=2):
            clear = keys_and_values(model, private[:4])
            found, fits = (await joint.compute([private[4:]], clear)).outputs
            assert bool(fits)
            assert require_faithful(found, forward(model, private)[0][4:], 0.01) < 0.01
