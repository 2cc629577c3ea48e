"""Looking for private values in a process of its own: what is hidden, and what becomes of a detector
that fails, hangs or takes its process with it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cosilo.boundary.messages import Ask
from cosilo.defences.apart import Apart, Elsewhere
from cosilo.defences.hiding import Hiding, Settings
from cosilo.defences.vault import Vault
from cosilo.errors import ConfigError, PrivacyError
from cosilo.types import Turn, last_user, user

# Imported by every Python that has this file's folder in its path, before anything else.
DETECTORS = """
import os, time
from cosilo.defences import hiding, looking, patterns
steps = patterns.PatternDetector.steps
def broken(self, text, public=""):
    if "BOOM" in text: raise RuntimeError("failed on " + text)
    if "MEMO" in text: raise MemoryError(text)
    if "EXIT" in text: raise SystemExit(text)
    if "SLOW" in text: time.sleep(600)
    if "SPIN" in text: sum(range(10**14))
    if "DIE" in text: os.kill(os.getpid(), 9)
    return (yield from steps(self, text, public))
patterns.PatternDetector.steps = broken
together = hiding.Hiding.read_together
def noted(self, several, scope, turn):
    if log := os.environ.get("COSILO_TEST_TOGETHER"):
        with open(log, "a") as file: file.write(f"{len(several)}\\n")
    return together(self, several, scope, turn)
hiding.Hiding.read_together = noted
if os.environ.get("COSILO_TEST_GROWTH"):
    looking._MOST_GROWTH = -1
"""
ADA = "I am Mr. Ada Lovelace, ada@lovelace.example."


def settings(**given: Any) -> Settings:
    usual: dict[str, Any] = {
        "detectors": ("patterns",), "model": "", "kinds": (), "min_score": 0.3, "allow": (),
        "public_system": False, "databases": None, "values": (), "hints": False, "seconds": 30.0,
    }  # fmt: skip
    return Settings(**(usual | given))


@asynccontextmanager
async def opened(**given: Any) -> AsyncIterator[Elsewhere]:
    elsewhere = Elsewhere(settings(**given))
    await elsewhere.open()
    try:
        yield elsewhere
    finally:
        await elsewhere.close()


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(DETECTORS)
    path = os.pathsep.join((str(tmp_path), *sys.path[1:]))
    monkeypatch.setenv("PYTHONPATH", path)


async def said(elsewhere: Elsewhere, text: str, vault: Vault | None = None) -> str:
    """What the LM would be shown of `text`."""
    hidden = await elsewhere.hide(Ask(chat=user(text)), vault or Vault(b"key", "c"))
    return last_user(hidden.chat)


async def pid() -> int:
    child = await Apart.shared()._ready()
    return child._process.pid


async def test_it_hides_what_is_hidden_here() -> None:
    here = Hiding(settings())
    chat = (Turn("user", ADA), Turn("assistant", "Hi, Ada Lovelace"), Turn("user", f"{ADA} " * 500))
    asks = [Ask(chat=chat), Ask(chat=user("Ada Lovelace and PERSON_abcdef")), Ask(chat=user(""))]
    ours, theirs = Vault(b"key", "c"), Vault(b"key", "c")
    async with opened() as elsewhere:
        for ask in asks:  # one conversation: what is issued goes on
            expected = await here.hide(ask, ours)
            found = await elsewhere.hide(ask, theirs)
            assert found == expected
            assert theirs.issued == ours.issued
            assert theirs.counts == ours.counts
            for before, after in zip(ask.chat, found.chat, strict=True):
                assert theirs.restore(after.content) == before.content


async def test_very_many_values_come_back() -> None:
    text = "\n".join(f"a{i}@lovelace.example" for i in range(3_000))
    vault = Vault(b"key", "c")
    async with opened() as elsewhere:
        hidden = await said(elsewhere, text, vault)
    assert "lovelace" not in hidden
    assert vault.counts == {"EMAIL": 3_000}
    assert vault.restore(hidden) == text


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize(("what", "name"), [("BOOM", "RuntimeError"), ("MEMO", "MemoryError")])
async def test_of_a_failing_detector_the_class_is_told_and_nothing_else(
    what: str, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with opened() as elsewhere:
        first = await pid()
        with pytest.raises(PrivacyError) as caught:
            await said(elsewhere, f"{what} {ADA}")
        assert name in str(caught.value)
        assert "Ada" not in str(caught.value)
        assert "Lovelace" not in await said(elsewhere, ADA)
        assert await pid() == first
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("what", ["DIE", "EXIT"])
async def test_a_death_fails_the_message_that_caused_it_and_no_other(
    what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with opened() as elsewhere:
        first = await pid()
        others = [asyncio.create_task(said(elsewhere, f"{ADA} " * 400)) for _ in range(3)]
        with pytest.raises(PrivacyError):
            await said(elsewhere, f"{what} {ADA}")
        for hidden in await asyncio.gather(*others):
            assert "Lovelace" not in hidden
        assert "Lovelace" not in await said(elsewhere, ADA)
        assert await pid() != first
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("what", ["SLOW", "SPIN"])
async def test_a_hanging_detector_is_ended_and_keeps_nobody_waiting(what: str) -> None:
    elsewhere = Elsewhere(settings(seconds=20.0))
    hasty = Elsewhere(settings(seconds=0.3))
    await elsewhere.open()
    await hasty.open()
    first = await pid()
    began = asyncio.get_running_loop().time()
    hangs = asyncio.create_task(said(hasty, f"{what} {ADA}"))
    await asyncio.sleep(0)  # it is sent first
    other = asyncio.create_task(said(elsewhere, ADA))
    with pytest.raises((TimeoutError, PrivacyError)):
        await hangs
    assert asyncio.get_running_loop().time() - began < 5
    assert "Lovelace" not in await other
    assert await pid() != first
    await hasty.close()
    await elsewhere.close()


@pytest.mark.usefixtures("hostile")
async def test_one_that_was_killed_from_outside_is_replaced_before_anybody_asks() -> None:
    async with opened() as elsewhere:
        first = await pid()
        os.kill(first, signal.SIGKILL)
        ended = (await Apart.shared()._ready())._reading
        await asyncio.wait([ended])
        assert await pid() != first
        assert "Lovelace" not in await said(elsewhere, ADA)


@pytest.mark.usefixtures("hostile")
async def test_one_that_has_grown_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSILO_TEST_GROWTH", "1")
    async with opened() as elsewhere:
        for _ in range(3):
            assert "Lovelace" not in await said(elsewhere, ADA)


async def test_who_leaves_does_not_go_on_costing() -> None:
    async with opened() as elsewhere:
        task = asyncio.create_task(said(elsewhere, f"{ADA} " * 20_000))
        assert "Lovelace" not in await said(elsewhere, ADA)  # by now the long one has begun
        child = await Apart.shared()._ready()
        assert len(child._jobs) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not child._jobs
        async with asyncio.timeout(5):
            assert "Lovelace" not in await said(elsewhere, ADA)


async def test_a_short_message_is_not_kept_waiting_by_a_long_one() -> None:
    done: list[str] = []

    async def hide(name: str, text: str) -> None:
        await said(elsewhere, text)
        done.append(name)

    async with opened() as elsewhere:
        await asyncio.gather(hide("long", f"{ADA} " * 4_000), hide("short", ADA))
    assert done == ["short", "long"]


async def test_settings_share_a_process_and_the_last_to_close_ends_it() -> None:
    async with opened() as one:
        number = await pid()
        async with opened(kinds=("EMAIL",)) as two:
            assert await pid() == number
            assert "Ada Lovelace" in await said(two, ADA)
            assert "Ada Lovelace" not in await said(one, ADA)
        assert "Ada Lovelace" not in await said(one, ADA)
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
    with pytest.raises(PrivacyError):
        await said(one, ADA)
    async with opened() as again:
        assert "Lovelace" not in await said(again, ADA)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"detectors": ("presidio",), "model": "/no/such/model"}, "detector|model|presidio"),
        ({"detectors": ("literals",), "databases": "/no/such/folder"}, "no SQLite database"),
    ],
)
async def test_what_cannot_be_loaded_is_said_when_it_is_opened(
    given: dict[str, Any], why: str
) -> None:
    elsewhere = Elsewhere(settings(**given))
    with pytest.raises(ConfigError, match=why):
        await elsewhere.open()
    assert not Apart.shared()._users


async def test_it_opens_when_it_is_first_used() -> None:
    elsewhere = Elsewhere(settings())
    for hidden in await asyncio.gather(*(said(elsewhere, ADA) for _ in range(4))):
        assert "Lovelace" not in hidden
    assert Apart.shared()._users == 1
    await elsewhere.close()
    with pytest.raises(PrivacyError):
        await said(elsewhere, ADA)
    assert Apart.shared()._users == 0


@pytest.mark.usefixtures("hostile")
async def test_settings_that_cannot_be_loaded_harm_no_others() -> None:
    async with opened() as elsewhere:
        with pytest.raises(ConfigError):
            async with opened(detectors=("literals",), databases="/no/such/folder"):
                pass
        with pytest.raises(PrivacyError):
            await said(elsewhere, "DIE")
        assert "Lovelace" not in await said(elsewhere, ADA)  # by a process that began anew


async def test_what_cannot_be_loaded_hides_nothing() -> None:
    elsewhere = Elsewhere(settings(detectors=("literals",), databases="/no/such/folder"))
    for _ in range(2):
        with pytest.raises(ConfigError):
            await said(elsewhere, ADA)
    await elsewhere.close()
    assert Apart.shared()._users == 0


def test_it_does_not_outlive_a_parent_that_was_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent("""
            import asyncio
            from tests.integration.test_apart import opened, pid
            async def main():
                async with opened():
                    print(await pid(), flush=True)
                    await asyncio.Event().wait()
            asyncio.run(main())
        """)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((os.getcwd(), *sys.path[1:]))},
    )  # fmt: skip
    assert parent.stdout is not None
    with parent:
        watch = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
    try:
        assert select.select([watch], [], [], 10)[0]  # readable once the process has ended
    finally:
        os.close(watch)


def others(count: int) -> list[str]:
    return [f"I am Mr. Ada Lovelace, no {i}: {'a' * i}@lovelace.example." for i in range(count)]


@pytest.mark.usefixtures("hostile")
async def test_what_waits_is_read_together_and_hidden_as_if_it_was_read_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "together"
    monkeypatch.setenv("COSILO_TEST_TOGETHER", str(log))
    texts = others(16)
    async with opened() as elsewhere:
        keys = [f"key{i % 2}".encode() for i in range(16)]
        vaults = [Vault(key, text) for key, text in zip(keys, texts, strict=True)]
        found = await asyncio.gather(*map(said, [elsewhere] * 16, texts, vaults))
    assert [int(n) for n in log.read_text().split()] == [8, 8]  # those of one caller
    for key, text, hidden, vault in zip(keys, texts, found, vaults, strict=True):
        alone = await Hiding(settings()).hide(Ask(chat=user(text)), Vault(key, text))
        assert hidden == last_user(alone.chat)
        assert vault.restore(hidden) == text


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize(("what", "place"), [("BOOM", 0), ("BOOM", 2), ("DIE", 0), ("DIE", 2)])
async def test_of_those_read_together_only_the_one_that_fails_fails(what: str, place: int) -> None:
    texts = others(5)
    texts[place] = f"{what} {ADA}"
    async with opened() as elsewhere:
        found = await asyncio.gather(
            *(said(elsewhere, text, Vault(b"key", text)) for text in texts), return_exceptions=True
        )
    for i, hidden in enumerate(found):
        if i == place:
            assert isinstance(hidden, PrivacyError)
        else:
            assert isinstance(hidden, str)
            assert "Lovelace" not in hidden


@pytest.mark.usefixtures("hostile")
async def test_a_long_text_and_one_alone_wait_for_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "together"
    monkeypatch.setenv("COSILO_TEST_TOGETHER", str(log))
    async with opened() as elsewhere:
        await said(elsewhere, ADA)
        await asyncio.gather(*(said(elsewhere, f"{text} " * 200) for text in others(3)))
        assert not log.exists()
        done: list[str] = []

        async def noted(name: str, text: str) -> None:
            await said(elsewhere, text, Vault(b"key", name))
            done.append(name)

        long = " ".join(others(40)) * 40
        await asyncio.gather(noted("long", long), *(noted(text, text) for text in others(8)))
    assert done[-1] == "long"


@pytest.mark.usefixtures("hostile")
async def test_one_that_nobody_waits_for_any_more_keeps_no_others_waiting() -> None:
    texts = others(6)
    async with opened() as elsewhere:
        tasks = [asyncio.create_task(said(elsewhere, t, Vault(b"key", t))) for t in texts]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all("Lovelace" not in str(hidden) for hidden in found[1::2])
        assert "Lovelace" not in await said(elsewhere, ADA)
