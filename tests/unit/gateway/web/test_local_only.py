"""Requests that may not leave: whatever the strategy does, nothing is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cosilo.boundary.messages import Ask
from cosilo.errors import ConfigError, UnreachableError
from cosilo.gateway.accounts.accounts import Key
from cosilo.gateway.serving.points import Route, Serving
from cosilo.gateway.web.dialects import DIALECTS
from cosilo.gateway.web.dialects.base import Dialect
from cosilo.models.base import EVERYTHING, Access
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.strategies.base import Needs, Session, Strategy, strategies
from cosilo.types import Answer, Chat, Delta
from house import Failing, House, Reply, house

OPTIONS: dict[str, dict[str, Any]] = {
    "private_evolution": {"about": "mail"},
    "cascade": {"threshold": 1.0},
    "router": {"calls": 1.0},
    "retrieve": {"documents": "/nowhere", "index": "/nowhere/index"},
    "fedmkt": {"public": Path("/nowhere")},
    "decompose_tables": {"database": "/nowhere.sqlite"},
}
HEADER = [(b"x-cosilo-local-only", b"true")]


async def opened(
    name: str, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> tuple[House, list[Any]]:
    """A gateway over the strategy `name` as it is before it was prepared."""

    async def as_it_is(self: Strategy, session: Session) -> tuple[Strategy, Session]:
        return self, session

    kind = type(strategies.create(name, **OPTIONS.get(name, {})))
    monkeypatch.setattr(kind, "prepare", as_it_is)
    # These models have no threads, which is nothing to refuse here: they shall not be asked at all.
    monkeypatch.setattr("cosilo.session.requires_threads", lambda peer, *, by: None)
    large = [ScriptedModel({}, access=Access.WEIGHTS) for _ in range(2)]
    small = ScriptedModel({"hello": "From home."}, access=Access.WEIGHTS, confidence=0.2)
    h = await house(
        large=large, small=small, strategy=name, options=OPTIONS.get(name, {}), exposes=EVERYTHING,
        **more,
    )  # fmt: skip
    return h, large


async def ask(h: House, *, stream: bool = False, **more: Any) -> Reply:
    body = {"model": "cosilo/x", "messages": [{"role": "user", "content": "hello"}], **more}
    headers = body.pop("headers", HEADER)
    return await h.send("/v1/chat/completions", {**body, "stream": stream}, headers=headers)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", sorted(strategies.names()))
async def test_no_strategy_sends_anything(
    name: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    h, large = await opened(name, monkeypatch)
    told = await ask(h, stream=stream)
    assert told.status == 200
    assert told.headers["x-cosilo-processed"] == "home"
    assert (told.text if stream else told.json["choices"][0]["message"]["content"]) == "From home."
    # Nor where the way home would be the strategy itself, over the real channel.
    [point] = h.gateway.setup.points.values()
    sly = replace(point, home=point.routes[0])
    h.gateway.setup.points = {sly.model: sly}
    told = await ask(h, stream=stream)
    assert told.status in (200, 400, 403, 500, 502)
    assert not any(model.seen for model in large)
    assert h.books.used.usd == 0
    assert not list(h.books.ledgers["x"].entries())


class Sly:
    """Asks the large model in every way there is, and lives with each refusal."""

    needs = Needs(sends=frozenset({Ask}))

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        return self, session

    async def answer(self, session: Session, chat: Chat) -> Answer:
        refused = []
        for channel in (session.lm, *session.peers.values(), session.lm.bind("other")):
            for asked in (channel.send(Ask(chat=chat)), _all(channel.stream(Ask(chat=chat)))):
                try:
                    await asked
                except Exception as error:
                    refused.append(type(error).__name__)
        reply = await session.owner.model.generate(chat, session.sampling)
        return Answer(replace_text(reply, " ".join(refused)), by="small")


def replace_text(reply: Any, text: str) -> Any:
    return msgspec.structs.replace(reply, text=text)


async def _all(pieces: AsyncIterator[Delta]) -> list[Delta]:
    return [piece async for piece in pieces]


async def test_one_that_lives_with_every_refusal_gets_nothing_across() -> None:
    model = ScriptedModel({})
    h = await house(large=[model], small=ScriptedModel({}))
    [point] = h.gateway.setup.points.values()
    route = point.routes[0]
    sly = replace(point, home=Route(Sly(), route.session, route.upstreams))
    h.gateway.setup.points = {sly.model: sly}
    told = await ask(h)
    said = told.json["choices"][0]["message"]["content"].split()
    # The last two are of a request that it made up, for which nobody would pay.
    assert said == ["LocalOnlyError"] * 4 + ["UndeclaredMessageError"] * 2
    assert not model.seen


@pytest.mark.parametrize("how", ["key", "header", "body", "point"])
async def test_each_of_them_forbids_it_and_none_allows_it_again(how: str) -> None:
    model, small = ScriptedModel({"hello": "From afar."}), ScriptedModel({"hello": "From home."})
    h = await house(large=[model], small=small, serving=Serving(local_only=how == "point"))
    if how == "key":
        h.books.keys["good"] = Key(id="k1", name="test", local_only=True)
    value = b"true" if how == "header" else b"false"
    more = {"headers": [(b"x-cosilo-local-only", value)], "cosilo_local_only": how == "body"}
    for stream in (False, True):
        told = await ask(h, stream=stream, **more)
        assert (told.status, told.headers["x-cosilo-processed"]) == (200, "home")
        assert b"From home." in told.body or told.text == "From home."
    assert not model.seen
    facts = h.books.settled[0][2]
    assert (facts.by, facts.sent_to, facts.fallback, facts.lm_calls) == ("small", "", False, 0)
    [(reservation, _, _), *_] = h.books.settled
    assert reservation.most.usd == 0


async def test_without_a_model_at_home_it_is_refused_before_anything_is_booked() -> None:
    model = ScriptedModel({})
    h = await house(large=[model])
    for stream in (False, True):
        told = await ask(h, stream=stream)
        assert (told.status, told.error["code"]) == (403, "local_only")
        assert "no model at home" in told.error["message"]
    assert (model.seen, h.books.settled, h.books.open) == ([], [], {})


@pytest.mark.parametrize("value", [b"yes", b"tru", b"2"])
async def test_a_word_that_is_neither_is_refused(value: bytes) -> None:
    h = await house(small=ScriptedModel({}))
    told = await ask(h, headers=[(b"x-cosilo-local-only", value)])
    assert (told.status, told.error["param"]) == (400, "x-cosilo-local-only")
    told = await ask(h, headers=[], cosilo_local_only="true")
    assert (told.status, told.error["param"]) == (400, "cosilo_local_only")


async def test_a_point_that_could_answer_nothing_is_not_opened() -> None:
    with pytest.raises(ConfigError, match="local_only needs small"):
        await house(serving=Serving(local_only=True))


async def test_every_model_that_something_was_sent_to_is_named() -> None:
    down = Failing(fail=UnreachableError("down"))
    h = await house(large=[down, ScriptedModel({"hello": "Hello."})])
    told = await h.chat("hello")
    assert told.headers["x-cosilo-processed"] == "home, lm0 in this process, lm1 in this process"
    assert h.books.settled[0][2].sent_to == "lm0 in this process, lm1 in this process"
    told = await h.chat("hello", stream=True)
    assert b'"processed":"home, lm0 in this process, lm1 in this process"' in told.body


BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
    "/v1/completions": {"prompt": "hello"},
    "/v1/responses": {"input": "hello"},
    "/v1/messages": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 9},
}


@pytest.mark.parametrize("dialect", DIALECTS, ids=[d.endpoint for d in DIALECTS])
async def test_it_holds_for_every_shape_that_clients_speak(dialect: Dialect) -> None:
    model, small = ScriptedModel({}), ScriptedModel({"hello": "From home."})
    h = await house(large=[model], small=small)
    version = [(b"anthropic-version", b"2023-06-01")]
    body = {"model": "cosilo/x", **BODIES[dialect.path]}
    for sent, headers in ((body, HEADER), ({**body, "cosilo_local_only": True}, [])):
        for stream in (False, True):
            told = await h.send(
                dialect.path, {**sent, "stream": stream}, headers=[*version, *headers]
            )
            assert (told.status, told.headers["x-cosilo-processed"]) == (200, "home"), told.body
            assert b"home" in told.body
    assert model.seen == []
    away = await house(large=[model])
    told = await away.send(dialect.path, body, headers=[*version, *HEADER])
    assert (told.status, model.seen) == (403, [])


@pytest.mark.parametrize("said", [(b"false", b"true"), (b"true", b"false"), (b"", b"1")])
async def test_no_second_header_outdoes_one_that_forbids(
    said: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    h, large = await opened("large", monkeypatch)
    reply = await ask(h, headers=[(HEADER[0][0], value) for value in said])
    assert reply.headers["x-cosilo-processed"] == "home"
    assert not any(model.seen for model in large)


async def test_every_header_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    h, _ = await opened("large", monkeypatch)
    reply = await ask(h, headers=[(HEADER[0][0], value) for value in (b"true", b"perhaps")])
    assert (reply.status, reply.error["param"]) == (400, "x-cosilo-local-only")


@pytest.mark.parametrize(
    "fields",
    [
        '"cosilo_local_only":true,"cosilo_local_only":false',
        '"cosilo_local_only":true,"cosilo_local_only":null',
        '"cosilo_local_only":true,"\\u0063osilo_local_only":false',
        '"cosilo_local_only":false,"cosilo_local_only":true',
    ],
)
async def test_a_body_that_says_it_twice_is_refused_and_nothing_sent(fields: str) -> None:
    model, small = ScriptedModel({"hello": "From afar."}), ScriptedModel({"hello": "From home."})
    h = await house(large=[model], small=small)
    said = '"messages":[{"role":"user","content":"hello"}]'
    body = f'{{"model":"cosilo/x",{said},{fields}}}'.encode()
    told = await h.send("/v1/chat/completions", body)
    assert (told.status, told.json["error"]["code"]) == (400, "duplicate_field")
    assert "cosilo_local_only" in told.json["error"]["message"]
    assert not model.seen
    once = f'{{"model":"cosilo/x",{said},"cosilo_local_only":true}}'.encode()
    assert (await h.send("/v1/chat/completions", once)).status == 200


async def test_of_another_field_given_twice_one_value_counts_and_the_other_is_sent_nowhere() -> (
    None
):
    model = ScriptedModel({"hello": "From afar."})
    h = await house(large=[model])
    one, other = (f'"messages":[{{"role":"user","content":"{t}"}}]' for t in ("Anna", "hello"))
    told = await h.send("/v1/chat/completions", f'{{"model":"cosilo/x",{one},{other}}}'.encode())
    assert told.status == 200
    assert "Anna" not in repr(model.seen)
