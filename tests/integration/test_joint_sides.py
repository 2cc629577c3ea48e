"""A head computed by sides that share nothing but their proxies, which speak TLS to each other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from cosilo.boundary.transports import tls
from cosilo.engines.base import JointResult, Program, Setting
from cosilo.engines.spu import environment
from cosilo.engines.spu.run import Deadlines, JointRun, Reached, require_agreed
from cosilo.errors import EngineError
from cosilo.host.certificates import make_certificates

pytestmark = pytest.mark.skipif(
    environment.found() is None, reason=f"needs the engine's environment: {environment.INSTALL}"
)

PROGRAM = Program("head", {"inputs": 384, "outputs": 10, "rows": 1, "answer": "logits"})
NAMES = ("lm-owner", "data-owner")


class Sides:
    """The two sides of a run of Cheetah, each with the certificate of its name."""

    def __init__(self, folder: Path) -> None:
        make_certificates(folder / "certs", hosts=["localhost"], clients=[*NAMES, "stranger"])
        self.folder = folder / "certs"
        deadlines = Deadlines(step_s=30.0, silent_s=10.0, connect_s=8.0)
        self.runs = [
            JointRun(PROGRAM, Setting("cheetah"), ranks=(rank,), deadlines=deadlines)
            for rank in (0, 1)
        ]

    async def link(self, shows: tuple[str, str] = NAMES) -> None:
        ca = self.folder / "ca.pem"
        accept = tls.answering(
            ca, self.folder / "host-localhost.pem", self.folder / "host-localhost.key"
        )
        hellos = [await run.start() for run in self.runs]
        require_agreed([hello.agreed for hello in hellos])
        ports = []
        for run, other in zip(self.runs, reversed(NAMES), strict=True):
            await run.compile()
            ports.append(
                await run.listen(
                    accept,
                    lambda shown, other=other: tls.client_of(shown) == other,
                    host="127.0.0.1",
                )
            )
        reached = []
        for rank, name in enumerate(shows):
            cert, key = self.folder / f"client-{name}.pem", self.folder / f"client-{name}.key"
            connect = tls.asking(ca, cert, key)
            reached.append(
                {1 - rank: Reached(("127.0.0.1", ports[1 - rank]), connect, "localhost")}
            )
        await asyncio.gather(
            *(run.link("one", to) for run, to in zip(self.runs, reached, strict=True))
        )

    async def close(self) -> None:
        await asyncio.gather(*(run.close() for run in self.runs))


async def test_each_side_counts_what_it_sent_and_only_the_data_owner_is_told(
    tmp_path: Path,
) -> None:
    drawn = np.random.default_rng(2)
    weights = drawn.normal(0, 0.1, (384, 10)).astype(np.float32)
    biases = drawn.normal(0, 0.1, 10).astype(np.float32)
    vector = drawn.normal(0, 0.05, (1, 384)).astype(np.float32)
    sides = Sides(tmp_path)
    lm, data = sides.runs
    try:
        await sides.link()
        await asyncio.gather(lm.share([weights, biases]), data.share())
        at_lm, at_data = await asyncio.gather(lm.compute(), data.compute([vector]))
        assert isinstance(at_lm, JointResult)
        assert at_lm.outputs == ()
        assert np.abs(at_data.outputs[0] - (vector @ weights + biases)).max() < 1e-4
        assert set(at_lm.spent) == {0}
        assert set(at_data.spent) == {1}
        assert min(at_lm.spent[0].bytes_out, at_data.spent[1].bytes_out) > 1e6
    finally:
        await asyncio.gather(lm.end(), data.end())
        await sides.close()


async def test_a_side_that_breaks_off_ends_the_other(tmp_path: Path) -> None:
    sides = Sides(tmp_path)
    lm, data = sides.runs
    try:
        await sides.link()
        await lm.close()
        with pytest.raises(EngineError, match=r"broke off|ended"):
            await data.share()
    finally:
        await sides.close()


async def test_a_certificate_of_another_name_gets_no_link(tmp_path: Path) -> None:
    sides = Sides(tmp_path)
    try:
        with pytest.raises(EngineError):
            await sides.link(("stranger", NAMES[1]))
    finally:
        await sides.close()
