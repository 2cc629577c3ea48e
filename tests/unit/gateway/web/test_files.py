"""Files in requests of every dialect: their text goes the way of what was typed."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cosilo.gateway.accounts.accounts import Limits
from cosilo.gateway.serving.files.reader import FileReader
from cosilo.gateway.serving.points import Serving
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.session import DefenceConfig
from cosilo.types import last_user
from house import House, Reply, house
from pdfs import pdf

pytest.importorskip("pypdf", reason="needs the pdf extra")

MAIL = "ada@lovelace.example"
PNG = base64.b64encode(b"\x89PNG pixels").decode()


def url(media: str, data: bytes) -> str:
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def body(endpoint: str, media: str, data: bytes, name: str) -> dict[str, Any]:
    """A question about a file, as the clients of an endpoint send it."""
    encoded = base64.b64encode(data).decode()
    image = media.startswith("image/")
    match endpoint:
        case "chat":
            part: dict[str, Any] = {
                "type": "file", "file": {"file_data": url(media, data), "filename": name}
            }  # fmt: skip
            if image:
                part = {
                    "type": "image_url",
                    "image_url": {"url": url(media, data), "detail": "low"},
                }
            parts = [{"type": "text", "text": "Sum it up."}, part]
            return {"messages": [{"role": "user", "content": parts}]}
        case "responses":
            part = {"type": "input_file", "file_data": url(media, data), "filename": name}
            if image:
                part = {"type": "input_image", "image_url": url(media, data)}
            parts = [{"type": "input_text", "text": "Sum it up."}, part]
            return {"input": [{"role": "user", "content": parts}]}
        case _:
            source = {"type": "base64", "media_type": media, "data": encoded}
            part = {"type": "image" if image else "document", "source": source}
            part |= {} if image else {"title": name}
            parts = [{"type": "text", "text": "Sum it up."}, part]
            return {"max_tokens": 9, "messages": [{"role": "user", "content": parts}]}


PATHS = {
    "chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages",
}  # fmt: skip
HEADERS = [(b"anthropic-version", b"2023-06-01")]
every = pytest.mark.parametrize("endpoint", sorted(PATHS))


async def ask(h: House, endpoint: str, *file: Any, **more: Any) -> Reply:
    sent = {"model": "cosilo/x", **body(endpoint, *file), **more}
    return await h.send(PATHS[endpoint], sent, headers=HEADERS)


async def private(folder: Path, **settings: Any) -> tuple[House, ScriptedModel]:
    model = ScriptedModel({"Sum": "Done."})
    options = {"detectors": ["patterns"], "key_file": str(folder / "key")}
    hide = DefenceConfig("hide", "pseudonym", options)
    return await house(large=[model], around=(hide,), **settings), model


@every
async def test_the_text_of_a_pdf_and_its_name_are_guarded(endpoint: str, tmp_path: Path) -> None:
    h, model = await private(tmp_path)
    letter = pdf(f"Dear {MAIL}, your card", "Second page")
    told = await ask(h, endpoint, "application/pdf", letter, f"letter to {MAIL}.pdf")
    assert told.status == 200, told.body
    [seen] = model.seen
    said = last_user(seen)
    assert "Second page" in said
    assert "letter to " in said
    assert "lovelace" not in repr(seen)
    assert said.startswith("Sum it up.\n")
    assert h.books.used.entities


@every
async def test_a_file_of_text_is_taken_as_it_is(endpoint: str, tmp_path: Path) -> None:
    h, model = await private(tmp_path)
    told = await ask(h, endpoint, "text/csv", f"name,mail\nAda,{MAIL}\n".encode(), "people.csv")
    assert told.status == 200, told.body
    assert "name,mail\n" in last_user(model.seen[0])
    assert "lovelace" not in repr(model.seen)


@every
async def test_an_image_is_refused_and_with_a_program_its_text_is_taken(
    endpoint: str, tmp_path: Path
) -> None:
    h, model = await private(tmp_path)
    told = await ask(h, endpoint, "image/png", b"\x89PNG", "")
    assert told.status == 400
    assert "only text can be kept private" in told.body.decode()
    assert model.seen == []
    program = tmp_path / "ocr.py"
    program.write_text(f"print('Card of {MAIL}')")
    h, model = await private(
        tmp_path, reader=FileReader(ocr=[sys.executable, str(program), "{file}"])
    )
    told = await ask(h, endpoint, "image/png", b"\x89PNG", "")
    assert told.status == 200, told.body
    assert "Card of " in last_user(model.seen[0])
    assert "lovelace" not in repr(model.seen)


@every
@pytest.mark.parametrize(
    ("media", "data"),
    [
        ("application/pdf", b"no pdf"),
        ("application/pdf", b""),
        ("application/zip", b"PK"),
        ("audio/wav", b"RIFF"),
        ("text/plain", b"\xff\xfe"),
        ("application/pdf", pdf("")),
        ("application/pdf", b"%PDF-1.4 broken"),
    ],
)
async def test_what_holds_no_text_is_refused_before_anything_is_sent(
    endpoint: str, media: str, data: bytes, tmp_path: Path
) -> None:
    h, model = await private(tmp_path)
    told = await ask(h, endpoint, media, data, "x")
    assert told.status == 400, told.body
    assert (model.seen, h.books.open) == ([], {})
    assert h.books.used.usd == 0


@pytest.mark.parametrize(
    ("endpoint", "part", "where"),
    [
        ("chat", {"type": "file", "file": {"file_id": "f1"}}, "file_id"),
        ("chat", {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}, "image_url"),
        ("chat", {"type": "file", "file": {"file_data": "!"}}, "file"),
        ("chat", {"type": "input_audio", "input_audio": {"data": "AA=="}}, "content[0]"),
        ("responses", {"type": "input_file", "file_id": "f1"}, "file_id"),
        ("responses", {"type": "input_file", "file_url": "https://x.example/a.pdf"}, "file_url"),
        ("responses", {"type": "input_image", "image_url": "http://x.example/a.png"}, "image_url"),
        ("messages", {"type": "image", "source": {"type": "url", "url": "https://x/a"}}, ""),
        ("messages", {"type": "document", "source": {"type": "file", "file_id": "f1"}}, ""),
    ],
)  # fmt: skip
async def test_nothing_is_fetched(
    endpoint: str, part: dict[str, Any], where: str, tmp_path: Path
) -> None:
    h, model = await private(tmp_path)
    about = {"input": [{"role": "user", "content": [part]}]}
    if endpoint != "responses":
        about = {"messages": [{"role": "user", "content": [part]}], "max_tokens": 5}
    told = await h.send(PATHS[endpoint], {"model": "cosilo/x", **about}, headers=HEADERS)
    assert told.status == 400
    if endpoint != "messages":
        assert where in told.error["param"]
    assert model.seen == []


@pytest.mark.parametrize("role", ["system", "assistant"])
async def test_only_users_and_tools_send_files(role: str) -> None:
    h = await house()
    part = {"type": "file", "file": {"file_data": url("text/plain", b"x")}}
    told = await h.send(
        PATHS["chat"], {"model": "cosilo/x", "messages": [{"role": role, "content": [part]}]}
    )
    assert (told.status, told.error["code"]) == (400, "unsupported_content")


async def test_base64_without_a_word_on_what_it_is_goes_by_what_it_is_called() -> None:
    model = ScriptedModel({})
    h = await house(large=[model])
    for name, data, status in (
        ("notes.txt", b"one", 200), ("rows.csv", b"a,b", 200), ("a.pdf", pdf("page"), 200),
        ("", pdf("page"), 200), ("a.docx", b"PK", 400), ("", b"one", 400),
    ):  # fmt: skip
        part = {"file_data": base64.b64encode(data).decode(), "filename": name}
        content = [{"type": "file", "file": part}]
        messages = [{"role": "user", "content": content}]
        told = await h.send(PATHS["chat"], {"model": "cosilo/x", "messages": messages})
        assert told.status == status, (name, told.body)
    assert [last_user(seen).split()[-1] for seen in model.seen] == ["one", "a,b", "page", "page"]


async def test_a_tools_result_may_hold_one(tmp_path: Path) -> None:
    h, model = await private(tmp_path)
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    part = {"type": "file", "file": {"file_data": url("application/pdf", pdf(f"To {MAIL}"))}}
    messages = [
        {"role": "user", "content": "Sum"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": [part]},
    ]
    told = await h.send(PATHS["chat"], {"model": "cosilo/x", "messages": messages})
    assert told.status == 200
    assert model.seen[0][-1].content.startswith("To ")
    assert "lovelace" not in repr(model.seen)


async def test_what_a_file_says_counts_towards_what_a_point_takes() -> None:
    h = await house(serving=Serving(most_kb=0.5))
    told = await ask(h, "chat", "application/pdf", pdf("word " * 200), "x.pdf")
    assert told.status == 413
    assert json.loads(told.body)["error"]["code"] == "request_too_large"


async def test_a_request_with_a_file_is_paid_for_like_any_other(tmp_path: Path) -> None:
    h, _ = await private(tmp_path)
    assert (await ask(h, "chat", "application/pdf", pdf("some words"), "x.pdf")).status == 200
    (_, first, facts), (_, second, _) = h.books.settled
    assert (first.requests, first.tokens_in > 0, facts.outcome) == (1, True, "ok")
    assert second == type(second)()
    assert h.books.open == {}
    assert h.gateway.tabs == {}


async def test_who_may_ask_no_more_gets_no_file_read(tmp_path: Path) -> None:
    class Nobody(FileReader):
        async def pdf(self, data: bytes, where: str) -> str:
            raise AssertionError("it was read")

    h, _ = await private(tmp_path, reader=Nobody(), limits=Limits(requests_per_minute=0))
    told = await ask(h, "chat", "application/pdf", pdf("x"), "x.pdf")
    assert (told.status, h.books.settled) == (429, [])


async def test_what_fails_once_files_are_read_leaves_nothing_set_aside(tmp_path: Path) -> None:
    h, model = await private(tmp_path, limits=Limits(tokens=300))
    told = await ask(h, "chat", "application/pdf", pdf("word " * 500), "x.pdf")
    assert (told.status, told.error["code"]) == (429, "insufficient_quota")
    [(_, spent, facts)] = h.books.settled
    assert (spent.requests, spent.tokens, facts.status) == (1, 0, 429)
    assert (h.books.open, h.gateway.tabs, model.seen) == ({}, {}, [])


async def test_a_client_that_leaves_ends_the_reading(tmp_path: Path) -> None:
    started, gone, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow(FileReader):
        async def pdf(self, data: bytes, where: str) -> str:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

    h, _ = await private(tmp_path, reader=Slow())
    sent = {"model": "cosilo/x", **body("chat", "application/pdf", pdf("x"), "x.pdf")}
    waiting = asyncio.create_task(h.send(PATHS["chat"], sent, leave=gone))
    await started.wait()
    gone.set()
    await waiting
    assert ended.is_set()
    [(_, _, facts)] = h.books.settled
    assert (facts.outcome, h.books.open, h.gateway.tabs) == ("cancelled", {}, {})


async def test_no_text_can_pass_for_a_file() -> None:
    model = ScriptedModel({})
    h = await house(large=[model])
    mark = "\ue000" + "0" * 32 + "\ue000"
    parts = [
        {"type": "text", "text": mark},
        {"type": "file", "file": {"file_data": url("text/plain", mark.encode())}},
        {"type": "file", "file": {"file_data": url("application/pdf", pdf("inside"))}},
    ]
    told = await h.send(
        PATHS["chat"], {"model": "cosilo/x", "messages": [{"role": "user", "content": parts}]}
    )
    assert told.status == 200
    assert last_user(model.seen[0]) == f"{mark}\n{mark}\ninside"
