"""A joint run's processes, with a worker that computes nothing and does things wrong."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from cosilo.engines.base import JointResult, Program, Setting
from cosilo.engines.spu import party
from cosilo.engines.spu import run as running
from cosilo.engines.spu.environment import Environment
from cosilo.engines.spu.run import Deadlines, JointRun, free_memory, require_agreed
from cosilo.errors import CapabilityError, CatalogError, ConfigError, EngineError

WEIGHTS, GIVEN = [np.ones((2, 2), np.float32)], [np.ones((1, 2), np.float32)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COSILO_ENGINES", str(tmp_path))
    monkeypatch.setattr(running, "free_memory", lambda: 8 << 30)
    return tmp_path


def run(name: str, protocol: str = "aby3") -> JointRun:
    return JointRun(
        Program(name, {}),
        Setting(protocol),  # type: ignore[arg-type]
        deadlines=Deadlines(step_s=2.0 if name == "stalls" else 60.0),
        environment=Environment(Path(sys.executable), {}),
        worker=Path(__file__).with_name("scripted.py"),
    )


async def through(joint: JointRun) -> JointResult:
    await joint.start()
    await joint.compile()
    await joint.link()
    await joint.share(WEIGHTS)
    return await joint.compute(GIVEN)


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


async def test_a_run_that_goes_well_says_what_each_party_spent() -> None:
    async with run("well") as joint:
        done = await through(joint)
        assert done.outputs[0].tolist() == [0.0]
        assert {rank: spent.cpu_seconds for rank, spent in done.spent.items()} == {
            0: 0.25,
            1: 0.25,
            2: 0.25,
        }
        pids = joint.pids.values()
        assert len(set(pids)) == 3
        await joint.end()
    assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("dies", "the process of party 0 ended during 'share'"),
        ("stalls", "party 0 stalled: it was not done with 'share' within 2 s"),
        ("garbage", "party 0 said what is no frame"),
        ("no msgpack", "party 0 said what is no frame"),
        ("fails", r"party 0 failed at 'share': RuntimeError: \[31mno luck"),
        ("other", "party 0 answered 'share' with something else"),
        ("pickled", "outputs are no arrays"),
        ("text", "outputs are no arrays"),
    ],
)
async def test_a_party_that_fails_ends_all_of_them(wrong: str, said: str) -> None:
    async with run(wrong) as joint:
        with pytest.raises(EngineError, match=said):
            await through(joint)
        pids = joint.pids.values()
        if wrong not in ("pickled", "text"):
            assert not any(alive(pid) for pid in pids)  # before the run is left
            with pytest.raises(EngineError, match="has ended"):
                await joint.compute(GIVEN)
    assert not any(alive(pid) for pid in pids)


async def test_what_the_lms_owner_brings_each_time_is_handed_to_its_party_alone() -> None:
    async with run("brings") as joint:
        await joint.start()
        await joint.compile()
        await joint.link()
        await joint.share(WEIGHTS)
        with pytest.raises(ConfigError, match="arrays of party 0 are handed in where it runs"):
            await joint.compute(GIVEN)
        done = await joint.compute(GIVEN, [np.ones(3, np.float32)])
        # What was told was told by the data owner's party: it holds its own array, not what is brought.
        assert [int(output[0]) for output in done.outputs] == [1, 0]


async def test_a_program_that_is_brought_nothing_refuses_what_is_brought() -> None:
    async with run("well") as joint:
        await through(joint)
        with pytest.raises(ConfigError, match="'well' is brought nothing"):
            await joint.compute(GIVEN, GIVEN)


async def test_what_is_asked_of_a_run_that_has_ended_leaves_nothing_under_way() -> None:
    async with run("dies") as joint:
        with pytest.raises(EngineError):
            await through(joint)
        with pytest.raises(EngineError, match="has ended"):
            await joint.compile()
        with pytest.raises(EngineError, match="has ended"):
            await joint.compute(GIVEN)
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_parties_that_would_not_compute_the_same_do_not_begin() -> None:
    async with run("differs") as joint:
        with pytest.raises(EngineError, match="not the same versions"):
            await joint.start()
    with pytest.raises(EngineError, match="not the same versions"):
        require_agreed(["a", "b"])


async def test_a_model_too_large_for_the_memory_is_refused_before_it_is_compiled() -> None:
    async with run("huge") as joint:
        with pytest.raises(CapabilityError, match=r"3 parties need about [\d.]+ GB"):
            await joint.start()
        assert not any(alive(pid) for pid in joint.pids.values())


async def test_a_program_that_is_not_there_is_refused() -> None:
    async with run("unknown") as joint:
        with pytest.raises(ConfigError, match="'unknown': there is none"):
            await joint.start()


async def test_three_parties_with_two_addresses_are_refused() -> None:
    joint = JointRun(
        Program("well", {}),
        Setting(),
        ranks=(0, 1),
        environment=Environment(Path(sys.executable), {}),
        worker=Path(__file__).with_name("scripted.py"),
    )
    async with joint:
        await joint.start()
        await joint.compile()
        with pytest.raises(
            ConfigError, match="computed by 3 parties, and there are addresses of 2"
        ):
            await joint.link()


async def test_arrays_are_handed_in_where_their_owner_runs() -> None:
    async with run("well") as joint:
        await joint.start()
        await joint.compile()
        await joint.link()
        with pytest.raises(ConfigError, match="handed in where it runs"):
            await joint.share(None)


async def test_a_setting_that_cannot_be_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="deals the randomness"):
        run("well", "semi2k")


async def test_without_an_environment_nothing_starts() -> None:
    with pytest.raises(CatalogError, match="cosilo engines install spu"):
        JointRun(Program("head", {}), Setting())


def test_free_memory_is_less_than_all_memory() -> None:
    assert 0 < free_memory() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_containers_limit_is_one(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    unlimited = free_memory(tmp_path)
    (tmp_path / "memory.max").write_text(f"{5 + (1 << 20)}\n")
    assert free_memory(tmp_path) == 1 << 20 < unlimited
    (tmp_path / "memory.current").write_text(f"{1 << 40}\n")
    assert free_memory(tmp_path) == 0


def test_a_port_that_is_held_for_an_engine_is_given_to_nobody_else() -> None:
    held = running.reserved_port()
    port = held.getsockname()[1]
    with socket.socket() as another, pytest.raises(OSError, match="in use"):
        another.bind(("127.0.0.1", port))
    with socket.socket() as engine:  # as brpc listens
        engine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        engine.bind(("127.0.0.1", port))
        engine.listen()
    held.close()


def scripted_processes() -> int:
    """How many workers are children of ours, and alive."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    commands = []
    for pid in children:
        with suppress(OSError):
            commands.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    return sum(b"scripted.py" in command for command in commands)


async def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    joint = run("well")
    for waited in (0.0, 0.02, 0.1, 0.4):
        starting = asyncio.create_task(joint.start())
        await asyncio.sleep(waited)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        pids = list(joint.pids.values())
        await joint.close()
        assert not any(alive(pid) for pid in pids)
        joint = run("well")
    await joint.close()
    for _ in range(100):  # one that was just being started ends by itself
        if not scripted_processes():
            break
        await asyncio.sleep(0.05)
    assert scripted_processes() == 0


async def test_arrays_that_are_too_large_for_a_frame_are_refused_before_they_are_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(party, "LARGEST", 1 << 12)
    async with run("well") as joint:
        await joint.start()
        await joint.compile()
        await joint.link()
        with pytest.raises(EngineError, match="the arrays of 'share' have 8,"):
            await joint.share([np.ones((32, 64), np.float32)])
