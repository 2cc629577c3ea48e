"""A row of cells is read cell by cell, also where no other row and no header shows that it is one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from cosilo.boundary.messages import Ask
from cosilo.defences.arranged import arranged
from cosilo.defences.detection import Span, Steps, run
from cosilo.defences.hiding import Hiding, Settings
from cosilo.defences.layout import ROW, cells
from cosilo.types import user

HIDDEN = {
    "bars": ("7|Sofia Lindqvist|town", ["Sofia Lindqvist"]),
    "bars and spaces": ("7 | Sofia Lindqvist | town", ["Sofia Lindqvist"]),
    "tabs": ("7\tSofia Lindqvist\ttown", ["Sofia Lindqvist"]),
    "semicolons": ("7;Sofia Lindqvist;town", ["Sofia Lindqvist"]),
    "commas": ("7,Sofia Lindqvist,town", ["Sofia Lindqvist"]),
    "quoted": ('"7"|"Sofia Lindqvist"|"town"', ["Sofia Lindqvist"]),
    "in prose": ("The row I get: 7|Sofia Lindqvist|town and it is wrong.", ["Sofia Lindqvist"]),
    "among lines": (
        "The export ended with\n7|Sofia Lindqvist|12 Foxhollow Lane|town\nand stopped.",
        ["Sofia Lindqvist", "12 Foxhollow Lane"],
    ),
    "an address": (
        "1042|Maud Ottokar|112 Foxhollow Avenue|Linz|maud.ottokar@example.net|active",
        ["Maud Ottokar", "112 Foxhollow Avenue", "Linz", "maud.ottokar@example.net"],
    ),
    "after a query": (
        "sqlite> select * from customers limit 1;\n7|Sofia Lindqvist|open|3",
        ["Sofia Lindqvist"],
    ),
    "after a command": ("$ tail -1 crm.txt\n7|Sofia Lindqvist|open", ["Sofia Lindqvist"]),
    "psql": (
        " id |      name       | city \n----+-----------------+------\n"
        "  7 | Sofia Lindqvist | Lund\n(1 row)",
        ["Sofia Lindqvist", "Lund"],
    ),
    "Markdown": (
        "| Name | City |\n|---|---|\n| Sofia Lindqvist | Lund |",
        ["Sofia Lindqvist", "Lund"],
    ),
    "a row of Markdown": ("| 7 | Sofia Lindqvist | Lund |", ["Sofia Lindqvist", "Lund"]),
    "in a list": ("- 7|Sofia Lindqvist|town\n- done", ["Sofia Lindqvist"]),
    "quoted in a mail": ("> 7|Sofia Lindqvist|town", ["Sofia Lindqvist"]),
    "in JSON": ('{"line": "7|Sofia Lindqvist|town", "ok": true}', ["Sofia Lindqvist"]),
    "in code": ('line = "7|Sofia Lindqvist|town"\nprint(line)', ["Sofia Lindqvist"]),
    "in a log": (
        "2026-03-04 10:11:12 | INFO | Maud Ottokar | logged in",
        ["Maud Ottokar"],
    ),
    "pairs": ("name=Sofia Lindqvist|plan=gold", ["Sofia Lindqvist"]),
    "names alone": (
        "Sofia Lindqvist|Maud Ottokar|Jan Novak",
        ["Sofia Lindqvist", "Maud Ottokar", "Jan Novak"],
    ),
    "two parts": ("7|Lindqvist|Sofia|gold", ["Lindqvist", "Sofia"]),
    "small letters": ("7|hugo thistlewood|gold", ["hugo thistlewood"]),
    "a day of birth": (
        "9144;Leopold Rasmussen;17.02.1947;active",
        ["Leopold Rasmussen", "17.02.1947"],
    ),
}

LEFT = [
    "cat access.log | grep timeout | sort | uniq -c",
    "ps aux | awk '{print $2}' | head -5",
    "type Shape = Circle | Square | Triangle;",
    "type Reply = { kind: 'ok' } | { kind: 'error'; code: 7 };",
    "if (ready || waiting) { run(7) }",
    "const port = options.port || 8080 || fallback",
    "^(red|green|blue)$ is matched by 7",
    "usage: tool [start|stop|restart] NAME",
    "The options are Yes|No|Maybe.",
    "2026-03-04 10:11:12 | INFO | worker-3 | job finished",
    "[10:11:12] WARN | cache | 3 | entries dropped",
    "for (i=0;i<10;i++) { total+=i;count-=1; }",
    "color:red;margin:0;padding:4px",
    "1,234,567 rows were read, 3,210 of them twice",
    "f(a,b,c) and range(1,10,2)",
    "status\tcount\topen\t3",
    "M\tsrc/app/main.py",
    "a|b|c",
]


@pytest.mark.parametrize("text", [text for text, _ in HIDDEN.values()], ids=list(HIDDEN))
def test_its_cells_are_found(text: str) -> None:
    for value in HIDDEN[next(n for n, (t, _) in HIDDEN.items() if t == text)][1]:
        assert value in [text[c.start : c.end] for c in run(cells(text))]


@pytest.mark.parametrize("text", LEFT)
def test_code_commands_and_sentences_have_none_of_its_own(text: str) -> None:
    rows = [c for c in run(cells(text)) if c.column.startswith(ROW)]
    assert rows == [] or text[:1] in "[2s"  # a line of a log, or of tabs, is one


def test_empty_cells_entities_and_numbers() -> None:
    def read(text: str) -> list[str]:
        return [text[c.start : c.end] for c in run(cells(text))]

    assert read("7||Sofia Lindqvist||town") == ["7", "Sofia Lindqvist", "town"]
    assert read("7;Lindqvist &amp;Sons;Maud Ottokar") == [
        "7",
        "Lindqvist &amp;Sons",
        "Maud Ottokar",
    ]
    assert read("about 1,234,567 rows,Maud Ottokar,x") == [
        "about 1,234,567 rows",
        "Maud Ottokar",
        "x",
    ]
    assert read('7;"Lindqvist, Sofia";"a;b"') == ["7", "Lindqvist, Sofia", "a;b"]


def test_keys_are_labels() -> None:
    here = run(cells("7|patient: Maud|dob: 1 May"))
    assert [c.label for c in here if not c.names] == ["", "patient", "dob"]


@pytest.mark.parametrize("text", ["Sofia Novak|Vienna", "Sofia Novak\tVienna", "Novak;Vienna"])
def test_what_runs_over_two_cells_is_two_values(text: str) -> None:
    def nothing(texts: Sequence[str]) -> Steps[list[list[Span]]]:
        yield
        return [[] for _ in texts]

    spans = run(arranged(text, [Span(0, len(text), "PLACE", 0.85)], nothing))
    assert spans
    assert not any(sign in text[s.start : s.end] for s in spans for sign in "|\t;")
    covered = {i for s in spans for i in range(s.start, s.end)}
    assert all(i in covered for i, c in enumerate(text) if c.isalnum())


@pytest.fixture(scope="module")
def hiding() -> Hiding:
    return Hiding(
        Settings(
            detectors=("presidio",), model="en-core-web-md", kinds=(), min_score=0.3, allow=(),
            public_system=False, databases=None, values=(), hints=False, seconds=30.0,
        )
    )  # fmt: skip


def found(hiding: Hiding, text: str) -> list[str]:
    [spans] = asyncio.run(hiding.spans(Ask(chat=user(text))))
    return [text[s.start : s.end] for s in spans]


@pytest.mark.models
@pytest.mark.parametrize("name", HIDDEN)
def test_each_value_is_hidden_by_itself(name: str, hiding: Hiding) -> None:
    text, values = HIDDEN[name]
    assert found(hiding, text) == values


@pytest.mark.models
@pytest.mark.parametrize("text", LEFT)
def test_and_nothing_else_is(text: str, hiding: Hiding) -> None:
    assert found(hiding, text) == []


@pytest.mark.models
def test_everyday_words_numbers_and_times_in_a_row_are_nobodys_names(hiding: Hiding) -> None:
    row = "4089|Bastian Marchetti|dark green|on hold|navy blue|grey|2026-08-27T09:02:32Z|27|315.58"
    assert found(hiding, row) == ["Bastian Marchetti"]


@pytest.mark.models
@pytest.mark.parametrize(
    "text",
    [
        'INFO import: "Hugo Lindqvist"|"0"|"open"',
        "INFO import: Hugo Lindqvist|0|open",
        'the row is "4"|"open"|"Hugo Lindqvist" and it looks wrong',
    ],
)
def test_what_is_said_before_and_after_a_row_is_in_none_of_its_cells(
    text: str, hiding: Hiding
) -> None:
    assert found(hiding, text) == ["Hugo Lindqvist"]
