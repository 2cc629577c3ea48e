"""A model that reasons before it answers is read, given room, or stopped with advice."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cosilo.cli import main

LABELS = ("billing", "delivery", "account")
WORDS = ("card", "lost", "refund", "order", "late", "parcel", "broken", "invoice", "address")
LIMIT = 100
"""Tokens this model needs to think; with fewer its reply is cut before it says anything."""


class Thinker(BaseHTTPRequestHandler):
    """Answers as it is set up to, where it is given room for its thoughts."""

    protocol_version = "HTTP/1.1"
    asked: list[dict[str, Any]]
    inline = False  # thoughts stand in the reply's text

    def log_message(self, *_: object) -> None: ...

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        text, options = body["messages"][-1]["content"], "\nA. " in body["messages"][-1]["content"]
        right = int(text.split("\n")[0].split()[-1]) % 3
        answer = "ABC"[right] if options else LABELS[right]
        thought = "It could be billing or delivery, A or B."
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        finish = "length"
        if self.inline:
            message["content"], finish = f"<think>{thought}</think>\n\n{answer}", "stop"
        elif body["max_tokens"] >= LIMIT:
            message, finish = {**message, "reasoning_content": thought, "content": answer}, "stop"
        used = {"prompt_tokens": 60, "completion_tokens": 12, "total_tokens": 72}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        data = json.dumps({"id": "1", "choices": [choice], "usage": used}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def thinker() -> Iterator[tuple[type[Thinker], str]]:
    handler = type("Handler", (Thinker,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield handler, f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


def plan_in(folder: Path, url: str, kind: str, more: str = "", top: str = "") -> Path:
    rng = random.Random(0)
    rows = [
        {
            "text": f"{' '.join(rng.choices(WORDS, k=8))} {i}",
            "label": LABELS[i % 3],
            "options": LABELS,
            "answer": "ABC"[i % 3],
        }
        for i in range(150)
    ]
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = "answer" if kind == "choice" else "label"
    path = folder / "plan.toml"
    path.write_text(
        f'name = "r"\n{top}\n[attacks]\nnames = []\ntamper_share = 0.0\n[task]\nkind = "{kind}"\n'
        f'file = "d.jsonl"\ncolumns = {{ target = "{target}" }}\n[models.small]\nkind = "scripted"\n'
        f'[models.large]\nkind = "openai"\nbase_url = "{url}"\nmodel = "thinker"\n{more}\n'
        '[[points]]\nstrategy = "large"\n'
    )
    return path


@pytest.mark.parametrize("kind", ["classification", "choice"])
def test_a_model_cut_while_it_thinks_stops_with_advice_and_goes_on_when_it_is_followed(
    kind: str,
    tmp_path: Path,
    thinker: tuple[type[Thinker], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler, url = thinker
    plan = plan_in(tmp_path, url, kind)
    assert main(["bench", str(plan), "--yes"]) == 1
    said = capsys.readouterr().err
    assert "20 of the first 20 replies of the large model hold no answer (20 cut off" in said
    assert "reasoning = 2000" in said
    paid = len(handler.asked)
    assert paid <= 20 + 8  # those under way are finished
    assert main(["bench", str(plan), "--yes"]) == 1
    assert len(handler.asked) == paid  # the same command pays for nothing more
    capsys.readouterr()

    plan_in(tmp_path, url, kind, more="reasoning = 2000")
    assert main(["bench", str(plan), "--yes"]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if " large " in line)
    assert "100" in row
    assert "test answers" not in out
    assert handler.asked[-1]["max_tokens"] == 2016


@pytest.mark.parametrize("kind", ["classification", "choice"])
def test_thoughts_in_the_text_are_not_the_answer(
    kind: str,
    tmp_path: Path,
    thinker: tuple[type[Thinker], str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler, url = thinker
    handler.inline = True
    assert main(["bench", str(plan_in(tmp_path, url, kind)), "--yes"]) == 0
    out = capsys.readouterr().out
    assert "100" in next(line for line in out.splitlines() if " large " in line)
    assert "test answers" not in out


def test_who_wants_the_numbers_all_the_same_is_told_what_they_stand_for(
    tmp_path: Path, thinker: tuple[type[Thinker], str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, url = thinker
    plan = plan_in(tmp_path, url, "classification", top="unreadable = 1.0")
    assert main(["bench", str(plan), "--yes"]) == 0
    told = r"large: of (\d+) test answers \1 cut off at the limit of tokens, \1 empty"
    assert re.search(told, " ".join(capsys.readouterr().out.split()))
    assert main(["report", str(tmp_path / "runs" / "r")]) == 0
    assert re.search(told, (tmp_path / "runs" / "r" / "report.html").read_text())
