"""Linear heads computed by real processes, three of ABY3 and two of Cheetah."""

from __future__ import annotations

import numpy as np
import pytest

from cosilo.engines.base import DATA_OWNER, HELPER, LM_OWNER, Program, Setting
from cosilo.engines.spu import environment
from cosilo.engines.spu.run import JointRun

pytestmark = pytest.mark.skipif(
    environment.found() is None, reason=f"needs the engine's environment: {environment.INSTALL}"
)


@pytest.mark.parametrize("protocol", ["aby3", "cheetah"])
async def test_a_linear_head_gives_what_it_gives_in_clear(protocol: str) -> None:
    drawn = np.random.default_rng(1)
    weights = drawn.normal(0, 0.1, (384, 10)).astype(np.float32)
    biases = drawn.normal(0, 0.1, 10).astype(np.float32)
    vectors = drawn.normal(0, 0.05, (2, 1, 384)).astype(np.float32)
    program = Program("head", {"inputs": 384, "outputs": 10, "rows": 1, "answer": "logits"})
    setting = Setting(protocol)  # type: ignore[arg-type]
    async with JointRun(program, setting) as run:
        await run.start()
        await run.compile()
        await run.link()
        linked = run.payload
        steps = [await run.share([weights, biases])]
        for vector in vectors:
            steps.append(await run.compute([vector]))
            assert np.abs(steps[-1].outputs[0] - (vector @ weights + biases)).max() < 1e-4
        steps.append(await run.end())
        spent = [sum(each.bytes_out for each in step.spent.values()) for step in steps]
        assert sum(spent) == run.payload
        assert 0 < linked < spent[0]
        assert set(steps[0].spent) == {LM_OWNER, DATA_OWNER, HELPER} - (
            {HELPER} if protocol == "cheetah" else set()
        )
        assert all(each.cpu_seconds > 0 for each in steps[1].spent.values())
