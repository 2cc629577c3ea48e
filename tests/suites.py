"""Hostile JSON and hostile text in every place of every shape, through a gateway whose upstream repeats
what it was told: what broke, and what did not come through exactly.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cosilo.models.base import Access
from cosilo.models.remote.openai_compatible import OpenAIModel
from cosilo.session import DefenceConfig
from cosilo.types import Chat, Delta, Generation, Sampling, ToolCallDelta
from house import House, Reply, house

PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/responses",
)
LIMIT = 1 << 20  # bytes of a body
PIECE = 3  # characters of a streamed answer's pieces


class Repeater:
    """A large model that answers with a turn of the chat it was given, and keeps what it was sent."""

    name, access = "lm", Access.TEXT

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.turn = -1
        self._real = OpenAIModel("http://127.0.0.1:9/v1", "m")

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        self.bodies.append(self._real._body(chat, sampling, stream=False))
        turn = chat[self.turn]
        return Generation(turn.content, tool_calls=turn.tool_calls)

    async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
        whole = await self.generate(chat, sampling)
        for i in range(0, len(whole.text), PIECE):
            yield Delta(whole.text[i : i + PIECE])
        for index, call in enumerate(whole.tool_calls):
            yield Delta(tool_calls=(ToolCallDelta(index, call.id, call.name),))
            for i in range(0, len(call.arguments), PIECE):
                piece = call.arguments[i : i + PIECE]
                yield Delta(tool_calls=(ToolCallDelta(index, arguments=piece),))
        yield Delta(finish_reason="stop")

    async def close(self) -> None: ...


async def before(lm: Repeater, folder: Path | None, *, every: bool = False) -> House:
    """A gateway before `lm`; if there is a `folder`, with the pseudonym defence, whose key it keeps.

    Args:
        every: with all detectors that it has by default, which takes models, and not only patterns.
    """
    around: tuple[DefenceConfig, ...] = ()
    if folder is not None:
        detectors = {} if every else {"detectors": ["patterns"]}
        options = {**detectors, "key_file": str(folder / "key")}
        around = (DefenceConfig("hide", "pseudonym", options),)
    h = await house(large=[lm], around=around, sampling=Sampling(max_tokens=8))
    h.gateway.bodies.largest = h.gateway.bodies.together = LIMIT
    return h


# Where a text can stand, by the shape: a request's fields, the turn that is repeated, and what the
# upstream's chat has there.

USER = {"role": "user", "content": "hi"}


@dataclass(frozen=True)
class Place:
    """Where a text can stand.

    Attributes:
        fields: of a request that has it there.
        turn: the number of the turn that the upstream repeats.
        at: what the upstream was sent there.
        said: in what of the answer it is repeated: "text", "arguments", "name", or nowhere.
    """

    fields: Callable[[str], dict[str, Any]]
    turn: int
    at: Callable[[Any], Any]
    said: str = "text"


def _sent_call(body: Any) -> Any:
    return body["messages"][1]["tool_calls"][0]["function"]


def _sent_query(body: Any) -> Any:
    return json.loads(_sent_call(body)["arguments"])["q"]


def _sent_tool(body: Any) -> Any:
    return body["tools"][0]["function"].get("description", "")  # none says as much as an empty one


def _last(body: Any) -> Any:
    return body["messages"][-1]["content"]


def _first(body: Any) -> Any:
    return body["messages"][0]["content"]


def _chat_call(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "function", "function": function}],
    }


def _chat_places() -> dict[str, Place]:
    def of(*turns: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"messages": list(turns), **more}

    def tools(said: str) -> list[Any]:
        return [{"type": "function", "function": {"name": "f", "description": said}}]

    done = {"role": "tool", "tool_call_id": "c"}
    return {
        "content": Place(lambda s: of({"role": "user", "content": s}), -1, _last),
        "system": Place(lambda s: of({"role": "system", "content": s}, USER), 0, _first),
        "result": Place(lambda s: of(USER, _chat_call("f", "{}"), {**done, "content": s}), -1, _last),
        "argument": Place(
            lambda s: of(USER, _chat_call("f", json.dumps({"q": s})), {**done, "content": "ok"}), 1,
            _sent_query, "arguments",
        ),
        "name": Place(
            lambda s: of(USER, _chat_call(s, "{}"), {**done, "content": "ok"}), 1,
            lambda b: _sent_call(b)["name"], "name",
        ),
        "description": Place(lambda s: of(USER, tools=tools(s)), -1, _sent_tool, ""),
    }  # fmt: skip


def _message_places() -> dict[str, Place]:
    def of(*turns: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"max_tokens": 8, "messages": list(turns), **more}

    def used(name: str, given: Any) -> dict[str, Any]:
        block = {"type": "tool_use", "id": "c", "name": name, "input": given}
        return {"role": "assistant", "content": [block]}

    def result(said: str) -> dict[str, Any]:
        block = {"type": "tool_result", "tool_use_id": "c", "content": said}
        return {"role": "user", "content": [block]}

    def tools(said: str) -> list[Any]:
        return [{"name": "f", "description": said, "input_schema": {"type": "object"}}]

    return {
        "content": Place(lambda s: of({"role": "user", "content": s}), -1, _last),
        "system": Place(lambda s: of(USER, system=s or [{"type": "text", "text": s}]), 0, _first),
        "result": Place(lambda s: of(USER, used("f", {}), result(s)), -1, _last),
        "argument": Place(
            lambda s: of(USER, used("f", {"q": s}), result("ok")), 1, _sent_query, "arguments"
        ),
        "name": Place(
            lambda s: of(USER, used(s, {}), result("ok")),
            1,
            lambda b: _sent_call(b)["name"],
            "name",
        ),
        "description": Place(lambda s: of(USER, tools=tools(s)), -1, _sent_tool, ""),
    }


def _response_places() -> dict[str, Place]:
    def of(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"input": list(items), **more}

    def call(name: str, arguments: str) -> dict[str, Any]:
        return {"type": "function_call", "call_id": "c", "name": name, "arguments": arguments}

    def result(said: str) -> dict[str, Any]:
        return {"type": "function_call_output", "call_id": "c", "output": said}

    def tools(said: str) -> list[Any]:
        return [{"type": "function", "name": "f", "description": said}]

    return {
        "content": Place(lambda s: of({"role": "user", "content": s}), -1, _last),
        "system": Place(lambda s: of({"role": "system", "content": s}, USER), 0, _first),
        "result": Place(lambda s: of(USER, call("f", "{}"), result(s)), -1, _last),
        "argument": Place(
            lambda s: of(USER, call("f", json.dumps({"q": s})), result("ok")), 1, _sent_query,
            "arguments",
        ),
        "name": Place(
            lambda s: of(USER, call(s, "{}"), result("ok")), 1, lambda b: _sent_call(b)["name"], "name"
        ),
        "description": Place(lambda s: of(USER, tools=tools(s)), -1, _sent_tool, ""),
    }  # fmt: skip


# What an answer says: its text, and the names and arguments of its calls.

Said = tuple[str, list[tuple[str, Any]]]


def _chat_said(told: Reply, stream: bool) -> Said:
    if not stream:
        message = told.json["choices"][0]["message"]
        calls = [c["function"] for c in message.get("tool_calls", ())]
        return message["content"] or "", [(c["name"], json.loads(c["arguments"])) for c in calls]
    calls = {}
    for event in told.events:
        for choice in event.get("choices", ()):
            for piece in choice["delta"].get("tool_calls", ()):
                call = calls.setdefault(piece["index"], ["", ""])
                call[0] += piece["function"].get("name", "")
                call[1] += piece["function"]["arguments"]
    return told.text, [(name, json.loads(arguments)) for name, arguments in calls.values()]


def _message_said(told: Reply, stream: bool) -> Said:
    if not stream:
        blocks = told.json["content"]
        text = "".join(b["text"] for b in blocks if b["type"] == "text")
        return text, [(b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"]
    text, calls = "", {}
    for event in told.events:
        if event["type"] == "content_block_start" and event["content_block"]["type"] == "tool_use":
            calls[event["index"]] = [event["content_block"]["name"], ""]
        elif event["type"] == "content_block_delta":
            text += event["delta"].get("text", "")
            if "partial_json" in event["delta"]:
                calls[event["index"]][1] += event["delta"]["partial_json"]
    return text, [(name, json.loads(given or "{}")) for name, given in calls.values()]


def _response_said(told: Reply, stream: bool) -> Said:
    body = told.events[-1]["response"] if stream else told.json
    text = "".join(
        part["text"]
        for item in body["output"]
        if item["type"] == "message"
        for part in item["content"]
    )
    if stream:
        deltas = [e["delta"] for e in told.events if e["type"] == "response.output_text.delta"]
        assert "".join(deltas) == text
    calls = [i for i in body["output"] if i["type"] == "function_call"]
    return text, [(c["name"], json.loads(c["arguments"])) for c in calls]


@dataclass(frozen=True)
class Spoken:
    path: str
    places: dict[str, Place]
    said: Callable[[Reply, bool], Said]
    json: dict[str, bytes]  # a request with %s where any JSON may stand that is an object


_CHAT = b'{"model":"cosilo/x","messages":[{"role":"user","content":"hi"}],'
_SHAPES: dict[str, Spoken] = {
    "chat": Spoken(
        "/v1/chat/completions", _chat_places(), _chat_said,
        {
            "tool": _CHAT + b'"tools":[{"type":"function","function":{"name":"f","parameters":%s}}]}',
            "format": _CHAT + b'"response_format":{"type":"json_schema",'
            b'"json_schema":{"name":"s","schema":%s}}}',
        },
    ),
    "messages": Spoken(
        "/v1/messages", _message_places(), _message_said,
        {
            "tool": _CHAT + b'"max_tokens":8,"tools":[{"name":"f","input_schema":{"a":%s}}]}',
            "format": _CHAT + b'"max_tokens":8,"output_config":{"format":'
            b'{"type":"json_schema","schema":{"a":%s}}}}',
            "input": b'{"model":"cosilo/x","max_tokens":8,"messages":[{"role":"assistant","content":['
            b'{"type":"tool_use","id":"c","name":"f","input":{"a":%s}}]}]}',
        },
    ),
    "responses": Spoken(
        "/v1/responses", _response_places(), _response_said,
        {
            "tool": b'{"model":"cosilo/x","input":"hi","tools":[{"type":"function","name":"f",'
            b'"parameters":{"a":%s}}]}',
            "format": b'{"model":"cosilo/x","input":"hi","text":{"format":{"type":"json_schema",'
            b'"name":"s","schema":{"a":%s}}}}',
        },
    ),
}  # fmt: skip


@dataclass
class Found:
    """How many requests were sent and answered, how many answers told that a value was withheld (as it
    stands in an address, and the answer made it part of a link), and what was wrong with which.
    """

    sent: int = 0
    accepted: int = 0
    withheld: int = 0
    wrong: list[str] = field(default_factory=list)

    def note(self, told: Reply, what: str, *, right: bool) -> None:
        self.sent += 1
        self.accepted += told.status == 200
        withheld = b'"withheld":{' in told.body or "x-cosilo-withheld" in told.headers
        self.withheld += withheld
        if told.status >= 500 or not told.status or not (right or withheld):
            self.wrong.append(f"{what}: {told.status}")


def json_files(suites: Path) -> list[Path]:
    found = sorted((suites / "json_parsing").glob("*.json"))
    assert len(found) == 318
    return found


def naughty_strings(suites: Path) -> list[str]:
    found: list[str] = json.loads((suites / "naughty_strings.json").read_text("utf-8"))
    assert len(found) == 515
    return found


async def bodies(suites: Path) -> Found:
    """Every file as the body of a request to every endpoint: none is one, so each is refused."""
    found = Found()
    h = await before(Repeater(), None)
    for path in PATHS:
        for file in json_files(suites):
            told = await h.send(path, file.read_bytes() or b" ")
            found.note(told, f"{path} {file.name}", right=told.status == 400)
    return found


async def json_in_places(shape: str, suites: Path, folder: Path | None) -> Found:
    """Every file where a request may hold any JSON: what is none is refused, and what is arrives."""
    found = Found()
    lm = Repeater()
    h = await before(lm, folder)
    spoken = _SHAPES[shape]
    for place, request in spoken.json.items():
        for file in json_files(suites):
            data = file.read_bytes()
            lm.bodies.clear()
            told = await h.send(spoken.path, request.replace(b"%s", data))
            right = True
            if file.name.startswith("n_"):
                right = told.status == 400
            elif file.name.startswith("y_"):
                arrived = told.status == 200 and bool(json.loads(lm.bodies[0]))
                right = arrived and (folder is not None or _holds(lm.bodies[0], data))
            found.note(told, f"{shape} {place} {file.name}", right=right)
    return found


def _holds(body: bytes, data: bytes) -> bool:
    """Whether `data` was sent on as it came, by itself or as the JSON text of a call's arguments."""
    data = data.strip()
    return data in body or json.dumps(data.decode(), ensure_ascii=False).encode()[1:-1] in body


async def strings(
    shape: str,
    suites: Path,
    folder: Path | None,
    *,
    streams: tuple[bool, ...] = (False, True),
    every: bool = False,
) -> Found:
    """Every string in every place: it arrives as it is, and what is repeated of it comes back so."""
    found = Found()
    lm = Repeater()
    h = await before(lm, folder, every=every)
    spoken = _SHAPES[shape]
    for name, place in spoken.places.items():
        lm.turn = place.turn
        for number, text in enumerate(naughty_strings(suites)):
            for stream in streams:
                lm.bodies.clear()
                body = {"model": "cosilo/x", "stream": stream, **place.fields(text)}
                told = await h.send(spoken.path, body)
                what = f"{shape} {name} {number}{' streamed' * stream}"
                if not text and name == "name":  # a tool without a name may be refused
                    found.note(told, what, right=told.status in (200, 400))
                    continue
                found.note(told, what, right=told.status == 200 and all(
                    _exact(spoken, place, text, told, stream, lm.bodies[0], folder is not None)
                ))  # fmt: skip
    await h.gateway.close()
    return found


def _exact(
    spoken: Spoken, place: Place, text: str, told: Reply, stream: bool, body: bytes, defended: bool
) -> Iterator[bool]:
    if not defended:
        yield place.at(json.loads(body)) == text
    said, calls = spoken.said(told, stream)
    match place.said:
        case "text":
            yield said == text
        case "name":
            yield [name for name, _ in calls] == [text]
        case "arguments":
            yield [given for _, given in calls] == [{"q": text}]


SHAPES = tuple(_SHAPES)
