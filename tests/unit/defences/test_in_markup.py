"""An address is found as well where marks of HTML, Markdown, mails and chats stand around its lines."""

from __future__ import annotations

import asyncio

import pytest

from cosilo.boundary.messages import Ask
from cosilo.defences.hiding import Hiding, Settings
from cosilo.types import user

pytestmark = pytest.mark.models

LINES = ("Torvald Lindqvist", "118b Kestrel Lane", "Flat 3", "Bergum 4471", "Norway")
WAYS = {
    "quoted": lambda lines: "\n".join("> " + line for line in lines),
    "quoted twice": lambda lines: "\n".join("> > " + line for line in lines),
    "bullets": lambda lines: "\n".join("- " + line for line in lines),
    "stars": lambda lines: "\n".join("* " + line for line in lines),
    "headings": lambda lines: "\n".join("## " + line for line in lines),
    "bold": lambda lines: "\n".join(f"**{line}**" for line in lines),
    "paragraphs": lambda lines: "\n".join(f"<p>{line}</p>" for line in lines),
    "divisions": lambda lines: "<div>" + "</div><div class='a'>".join(lines) + "</div>",
    "breaks": lambda lines: "<br>".join(lines),
    "cells": lambda lines: "<tr><td>" + "</td><td>".join(lines) + "</td></tr>",
    "bars": lambda lines: " | ".join(lines),
    "two bars": lambda lines: " || ".join(lines),
    "blank lines": lambda lines: "\n\n".join(lines),
    "far in": lambda lines: "\n        ".join(lines),
}  # fmt: skip


@pytest.fixture(scope="module")
def hiding() -> Hiding:
    return Hiding(
        Settings(
            detectors=("presidio",), model="en-core-web-md", kinds=(), min_score=0.3, allow=(),
            public_system=False, databases=None, values=(), hints=False, seconds=30.0,
        )
    )  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_an_address(way: str, hiding: Hiding) -> None:
    text = WAYS[way](LINES)
    [spans] = asyncio.run(hiding.spans(Ask(chat=user(text))))
    hidden = {i for s in spans for i in range(s.start, s.end)}
    for line in LINES:
        start = text.index(line)
        assert all(i in hidden or text[i] == " " for i in range(start, start + len(line))), line
