"""A large model that follows rules: an OpenAI-compatible server for the recipes in docs/clients.

    python benchmarks/clients/scripted_lm.py [PORT]        # prints its port; runs until it is ended

It answers what a model would that does as it is told, and always the same, so that a recipe's output
can stand in its page:

* tools, and the last turn is the user's: it calls them, once for each value that it was told. A value
  is what the gateway puts in a private value's place (`PERSON_abc234`), so the call shows whether the
  value comes back. A tool with a property of numbers gets the numbers of the text.
* the last turn is a tool's: `Done: ` and what the tools said.
* a JSON schema: an object of that schema, filled with the values and numbers of the text.
* else: `Noted: ` and the last turn's text.

`GET /seen` gives the bodies of all requests, as they came.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VALUE = re.compile(r"\b[A-Z]{2,}_[a-z2-7]{4,10}\b")
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\w)")
PIECE = 7  # characters of a streamed piece: placeholders are cut

SEEN: list[str] = []


def answer(body: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The text and the tool calls with which the last turn of `body` is answered."""
    last = body["messages"][-1]
    text = said(last.get("content"))
    if last["role"] == "tool":
        results = []
        for turn in reversed(body["messages"]):
            if turn["role"] != "tool":
                break
            results.append(said(turn["content"]))
        return "Done: " + "; ".join(reversed(results)), []
    tools = body.get("tools") or []
    if tools and body.get("tool_choice", "auto") != "none":
        made = [call for tool in tools for call in calls(tool["function"], text)]
        return "", made if body.get("parallel_tool_calls", True) else made[:1]
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema = form["json_schema"]["schema"]
        return json.dumps(filled(schema, schema, *held(text))), []
    if form.get("type") == "json_object":
        return json.dumps({"values": VALUE.findall(text)}), []
    return f"Noted: {text}", []


def calls(function: dict[str, Any], text: str) -> Iterator[dict[str, Any]]:
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    values, numbers = held(text)
    texts = [p for p in schema.get("properties", {}).values() if p.get("type") == "string"]
    for one in values if len(texts) == 1 and values else [None]:
        chosen = values if one is None else iter([one])
        arguments = filled(schema, schema, chosen, numbers)
        yield {"name": function["name"], "arguments": json.dumps(arguments)}


def held(text: str) -> tuple[Iterator[str], Iterator[str]]:
    """The values and the numbers of `text`, each once, in order."""
    return iter(dict.fromkeys(VALUE.findall(text))), iter(NUMBER.findall(text))


def filled(
    schema: dict[str, Any], root: dict[str, Any], values: Iterator[str], numbers: Iterator[str]
) -> Any:
    if "$ref" in schema:
        named = root
        for name in schema["$ref"].removeprefix("#/").split("/"):
            named = named[name]
        return filled(named, root, values, numbers)
    for some in ("anyOf", "oneOf"):
        if some in schema:
            return filled(schema[some][0], root, values, numbers)
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        return {name: filled(p, root, values, numbers) for name, p in properties.items()}
    if kind == "array":
        return [filled(schema["items"], root, iter([value]), numbers) for value in values]
    if kind in ("integer", "number"):
        found = next(numbers, "0")
        return float(found) if kind == "number" else int(float(found))
    return False if kind == "boolean" else next(values, "")


def said(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content)
    return content or ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/seen":
            self._send(json.dumps(SEEN).encode())
        else:
            self._send(json.dumps({"object": "list", "data": [{"id": "lm"}]}).encode())

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        SEEN.append(raw.decode())
        body = json.loads(raw)
        if self.path.endswith("/embeddings"):
            self._send(json.dumps(embedded(body)).encode())
            return
        text, made = answer(body)
        numbered = [
            {"id": f"call_{i}", "type": "function", "function": function}
            for i, function in enumerate(made)
        ]
        usage = {
            "prompt_tokens": max(1, len(raw) // 4),
            "completion_tokens": max(1, len(text) // 4),
        }
        usage["total_tokens"] = sum(usage.values())
        ended = "tool_calls" if numbered else "stop"
        head = {"id": "x", "created": 1, "model": body["model"]}
        if not body.get("stream"):
            message = {"role": "assistant", "content": text or None}
            if numbered:
                message["tool_calls"] = numbered
            choice = {"index": 0, "message": message, "finish_reason": ended}
            whole = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
            self._send(json.dumps(whole).encode())
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        head["object"] = "chat.completion.chunk"
        for delta in deltas(text, numbered):
            self._event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        self._event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": ended}]})
        self._event({**head, "choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _event(self, value: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")

    def log_message(self, format: str, *args: object) -> None: ...


def deltas(text: str, called: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": ""}
    for at in range(0, len(text), PIECE):
        yield {"content": text[at : at + PIECE]}
    for i, call in enumerate(called):
        function = call["function"]
        named = {"name": function["name"], "arguments": ""}
        yield {"tool_calls": [{"index": i, **call, "function": named}]}
        for at in range(0, len(function["arguments"]), PIECE):
            part = {"arguments": function["arguments"][at : at + PIECE]}
            yield {"tool_calls": [{"index": i, "function": part}]}


def embedded(body: dict[str, Any]) -> dict[str, Any]:
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [
        {"object": "embedding", "index": i, "embedding": [len(t) / 100, t.count(" ") / 10, 1.0]}
        for i, t in enumerate(texts)
    ]
    spent = sum(len(t) for t in texts) // 4
    usage = {"prompt_tokens": spent, "total_tokens": spent}
    return {"object": "list", "model": body["model"], "data": data, "usage": usage}


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
