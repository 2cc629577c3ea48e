"""A value in code is written so that the code says it: SQL, XML, CSV, YAML and shell."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import subprocess
from typing import Any
from xml.etree import ElementTree

import pytest

from cosilo.types import Chat, Generation, ToolCall, user
from scripted_detectors import Make, Talk, Words, by_characters
from scripted_detectors import make as make

CODE = r"SECRET_[a-z2-7]{6}"
VALUES = [
    "O'Neil", 'Robert "Bob" Roe', "Ann & <Co>", "12 High Street, London", "Roe: the elder", "a;b\nc",
    "# x", "$HOME `id` \\", "Smith, \"A\", O'Hara & Söhne",
]  # fmt: skip


def written(make: Make, form: str, value: str, *, call: bool = False) -> str:
    """What the client gets of `form`, the same whole and in pieces."""

    def reply(chat: Chat) -> Generation:
        shown = re.findall(CODE, chat[-1].content)[0]
        text = form.replace("%s", shown)
        if call:
            return Generation("", tool_calls=(ToolCall("c", "f", json.dumps({"q": text})),))
        return Generation(text)

    talk = Talk(make(Words(**{value: "SECRET"})), reply, by_characters(1))
    chat = user(f"It is {value} here")
    whole = talk.send(chat)
    for size in (1, 3, 1000):
        talk.model.cut = by_characters(size)
        pieces = talk.stream(chat)
        assert "".join(d.text for d in pieces) == whole.text
        assert "".join(c.arguments for d in pieces for c in d.tool_calls) == "".join(
            c.arguments for c in whole.tool_calls
        )
    return json.loads(whole.tool_calls[0].arguments)["q"] if call else whole.text  # type: ignore[no-any-return]


def inside(fenced: str) -> str:
    return fenced.split("```")[1].partition("\n")[2]


def fence(language: str, code: str) -> str:
    return f"Here:\n```{language}\n{code}\n```\nDone, %s."


@pytest.mark.parametrize("value", VALUES)
class TestFences:
    def test_sql(self, make: Make, value: str) -> None:
        text = written(make, fence("sql", "SELECT 'x', '%s', \"y\""), value)
        assert sqlite3.connect(":memory:").execute(inside(text)).fetchone() == ("x", value, "y")
        assert text.endswith(f"Done, {value}.")

    def test_xml(self, make: Make, value: str) -> None:
        text = written(make, fence("xml", "<a b=\"%s\" c='%s'>%s<d/></a>"), value)
        read = ElementTree.fromstring(inside(text))
        assert read.text == value
        flat = value.replace("\n", " ")  # as XML reads attributes
        assert (read.get("b"), read.get("c")) == (flat, flat)

    def test_csv(self, make: Make, value: str) -> None:
        text = written(make, fence("csv", 'id,name,n\n1,%s,2\n%s,"to %s",3\n4,5,%s'), value)
        assert list(csv.reader(io.StringIO(inside(text))))[:4] == [
            ["id", "name", "n"], ["1", value, "2"], [value, f"to {value}", "3"], ["4", "5", value],
        ]  # fmt: skip

    def test_yaml(self, make: Make, value: str) -> None:
        yaml = pytest.importorskip("yaml")
        text = written(make, fence("yaml", 'a: %s\nl:\n  - %s\nd: "%s"\ns: 1'), value)
        assert yaml.safe_load(inside(text)) == {"a": value, "l": [value], "d": value, "s": 1}

    def test_shell(self, make: Make, value: str) -> None:
        text = written(make, fence("sh", "set -- '%s' \"%s\" %s"), value)
        script = inside(text) + "\nfor a; do printf '%s\\0' \"$a\"; done"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == f"{value}\0" * 3

    @pytest.mark.parametrize("language", ["", "python", "text", "json"])
    def test_elsewhere_it_stands_as_it_is(self, make: Make, language: str, value: str) -> None:
        assert written(make, fence(language, "x '%s' y"), value) == fence(
            language, "x '%s' y"
        ).replace("%s", value)

    def test_arguments(self, make: Make, value: str) -> None:
        sql = written(make, "SELECT '%s' FROM (SELECT 1)", value, call=True)
        assert sqlite3.connect(":memory:").execute(sql).fetchone() == (value,)
        xml = written(make, '<a b="1">%s</a>', value, call=True)
        assert ElementTree.fromstring(xml).text == value
        assert written(make, "Update O'Hara's note: '%s'", value, call=True) == (
            f"Update O'Hara's note: '{value}'"
        )


class TestWrittenAlready:
    @pytest.mark.parametrize(
        ("language", "value"),
        [
            ("sql", "O''Neil"),
            ("xml", "Ann &amp; Co"),
            ("html", "R&#228;uber"),
            ("csv", 'A ""B"" C'),
        ],
    )
    def test_a_value_that_was_found_in_code_is_not_written_twice(
        self, make: Make, language: str, value: str
    ) -> None:
        quote = {"sql": "'", "csv": '"'}.get(language, "")
        form = fence(language, f"{quote}%s{quote}")
        assert written(make, form, value) == form.replace("%s", value)


def test_a_closed_fence_and_very_long_code_change_nothing(make: Make) -> None:
    for form in (
        "```sql\nSELECT 1\n```\n'%s'",
        f"```sql\n{'-- x' * 3000}\n'%s'\n```",
        "~~~sql\n'x'\n~~~\n'%s'",
    ):
        text: Any = written(make, form, "O'Neil")
        assert text == form.replace("%s", "O'Neil")
