"""What is printed fits, is whole, and can be written."""

from __future__ import annotations

import io

import pytest

from cosilo.report.screen import Column, Screen, ScreenRow, spelt, wrapped


def table(width: int | None, *, limits: str = "5 usd, 1000 tokens per day, only desk") -> str:
    out = io.StringIO()
    columns = [
        Column(("name",)),
        Column(("limits",), wraps=True),
        Column(("spent", "$"), right=True),
    ]
    rows = [
        ScreenRow("k_0123456789abcdef", ("ward-7", limits, "1.25")),
        ScreenRow("k_fedcba9876543210", ("a name of several words", "none", "1,000.5")),
    ]
    Screen(out, width=width).table("id", columns, rows)
    return out.getvalue()


@pytest.mark.parametrize("width", [30, 45, 60, 80, 120, None])
def test_a_table_fits_and_every_word_is_whole(width: int | None) -> None:
    said = table(width)
    if width is not None:
        assert max(map(len, said.splitlines())) <= width
    words = said.replace(":", " ").split()
    expected = ("k_0123456789abcdef", "k_fedcba9876543210", "ward-7", "1.25", "1,000.5", "tokens")
    for word in expected:
        assert word in words


def test_a_table_takes_the_first_way_that_fits() -> None:
    wide = table(None).splitlines()
    assert len(wide) == 4  # two of the heading, one a row
    assert wide[1].split() == ["id", "name", "limits", "$"]
    assert wide[2].endswith("only desk     1.25")
    assert [line[:2] for line in table(45).splitlines()].count("k_") == 2
    assert "limits: 5 usd," in table(30)


def test_numbers_stand_under_one_another() -> None:
    first, second = table(None).splitlines()[2:]
    assert len(first) == len(second)


def test_a_word_longer_than_the_line_stays_whole() -> None:
    assert wrapped("a " + "x" * 50 + " b", 20) == ["a", "x" * 50, "b"]


def test_paragraphs_keep_what_they_begin_with() -> None:
    out = io.StringIO()
    Screen(out, width=24).say("    a line of words that is too long\nnext", indent=2)
    assert out.getvalue() == "    a line of words that\n      is too long\nnext\n"


@pytest.mark.parametrize(
    ("text", "encoding", "said"),
    [
        ("80.2–87.4", "utf-8", "80.2–87.4"),
        ("80.2–87.4", "latin-1", "80.2-87.4"),
        ("0.95 × large", "latin-1", "0.95 × large"),
        ("0.95 × large", "ascii", "0.95 x large"),
        ("ε ≤ 4, ≥ 2 …", "ascii", "epsilon <= 4, >= 2 ..."),
        ("% ↑, −3", "ascii", "% ^, -3"),
        ("Größe", "ascii", r"Gr\xf6\xdfe"),
        ("Größe", "latin-1", "Größe"),
        ("名前", "latin-1", r"\u540d\u524d"),
    ],
)
def test_what_cannot_be_written_is_spelt_out(text: str, encoding: str, said: str) -> None:
    assert spelt(text, encoding) == said


def test_wide_characters_take_two_columns() -> None:
    out = io.StringIO()
    rows = [ScreenRow("名前", ("1",)), ScreenRow("name", ("2",))]
    Screen(out, width=40).table("", [Column(("n",), right=True)], rows)
    assert out.getvalue() == "      n\n名前  1\nname  2\n"


def test_a_terminal_has_a_width_and_a_pipe_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    for terminal, lines in ((False, 1), (True, 2)):
        out = io.StringIO()
        out.isatty = lambda terminal=terminal: terminal  # type: ignore[method-assign]
        Screen(out).say("one two three four five")
        assert len(out.getvalue().splitlines()) == lines
