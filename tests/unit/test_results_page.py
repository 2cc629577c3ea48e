"""docs/results.md is what its files make it, and each of these says what made it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import kept
import page
from leaving import counted, direct, hidden

FILES = sorted(kept.RESULTS.glob("*.json"))


@pytest.mark.parametrize(("template", "made"), page.PAGES, ids=lambda p: p.name)
def test_a_page_is_what_the_files_make_it(template: Path, made: Path) -> None:
    wanted = page.made(template.read_text("utf-8"), template.name)
    assert made.read_text("utf-8") == wanted, "run python benchmarks/page.py"


def test_the_readmes_numbers_of_the_demo_are_those_that_were_kept() -> None:
    readme = (kept.ROOT / "README.md").read_text("utf-8")
    for said, point in (
        ("small model alone | ", "small"),
        ("large model alone | ", "large"),
        ("pseudonyms** | **", "cascade-calls=0.4+pseudonym"),
    ):
        assert said + page.filled(f"demo / {point} / utility | 100 .0f %") in readme
        if point != "small":  # which costs nothing
            assert page.filled(f"demo / {point} / usd_per_1k.value | .3f") in readme


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_file_says_what_made_it(path: Path) -> None:
    found = json.loads(path.read_text("utf-8"))
    assert found["command"].startswith("python benchmarks/")
    assert found["commit"]
    assert found["machine"]["processor"]
    assert found["machine"]["cores"] >= 1
    assert {"python", "cosilo", "numpy"} <= found["versions"].keys()
    assert set(found["machine"]) == {"processor", "cores", "system"}  # no host name
    for row in found["rows"].values():
        for number in row.values():
            assert ("low" in number) == ("high" in number)
            if "low" in number:
                assert number["n"] > 0
                assert number["low"] <= number["value"] <= number["high"]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept, "RESULTS", tmp_path)
    monkeypatch.setattr(kept, "ROOT", tmp_path)
    page._file.cache_clear()
    found = kept.Kept("toy", seed=3)
    found.put("a point", "share", 0.5, n=40, low=0.354, high=0.646)
    found.put("a point", "loss", -0.25)
    found.put("a point", "calls", 1234, n=5)
    found.write()
    return tmp_path


@pytest.mark.parametrize(
    ("hole", "text"),
    [
        ("toy / a point / share | 100 .1f %", "50.0 % [35.4, 64.6]"),
        ("toy / a point / share.n", "40"),
        ("toy / a point / share.value | .3f", "0.500"),
        ("toy / a point / loss | +.2f", "−0.25"),
        ("toy / a point / calls | ,", "1,234"),
        ("toy / a point / calls", "1234"),
    ],
)
def test_a_hole_is_filled(results: Path, hole: str, text: str) -> None:
    assert page.filled(hole) == text


@pytest.mark.parametrize(
    ("hole", "why"),
    [
        ("none / a / b", "no benchmarks/results/none.json"),
        ("toy / b point / share", "has a point"),
        ("toy / a point / width", "has share, loss, calls"),
        ("toy / a point / loss.n", "has no 'n'"),
        ("toy / a point / loss | 3 dots", "is no format"),
    ],
)
def test_a_hole_that_nothing_fills_is_an_error(results: Path, hole: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        page.made(f"a {{{{{hole}}}}} b")


def test_the_contents_link_to_each_section_of_each_part() -> None:
    made = page.made(
        "# R\n\n{{contents}}\n\n## One\n\n### `a b`, the first (3 %)\n\n## Two\n\n#### deep\n"
    )
    assert made.split("\n\n")[1] == (
        "* **[One](#one)**\n  * [`a b`, the first (3 %)](#a-b-the-first-3-)\n* **[Two](#two)**"
    )
    with pytest.raises(ValueError, match="'lost' is in no part"):
        page.made("{{contents}}\n\n### lost\n")


def test_links_to_the_results_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.+)$", page.PAGE.read_text("utf-8"), re.MULTILINE)
    known = {page.anchor(title) for title in titles}
    count = 0
    for path in [kept.ROOT / "README.md", *(kept.ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"results\.md#([^)]+)\)", path.read_text("utf-8")):
            assert target in known, f"{path.name}: {target}"
            count += 1
    assert count >= 10


def test_a_page_that_differs_is_found(
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    template, made = tmp_path / "t.md", tmp_path / "p.md"
    template.write_text("calls: {{toy / a point / calls}}\n")
    given = ["page.py", "--template", str(template), "--page", str(made)]
    monkeypatch.setattr("sys.argv", given)
    assert page.main() == 0
    monkeypatch.setattr("sys.argv", [*given, "--check"])
    assert page.main() == 0
    made.write_text(made.read_text().replace("1234", "1235"))
    assert page.main() == 1
    assert "+ calls: 1234" in capsys.readouterr().out


def test_what_a_placeholder_hides_is_found_in_the_text() -> None:
    text = "Ann met Ann Lee in Ulm."
    assert hidden(text, text) == set()
    sent = "PERSON_abc234 met PERSON_abc234 Lee in PLACE_zzzzz2."
    assert hidden(text, sent) == {0, 1, 2, 8, 9, 10, 19, 20, 21}
    with pytest.raises(ValueError, match="not the text"):
        hidden(text, "Bob met PERSON_abc234 in Ulm.")


def test_whole_and_in_part_are_counted_apart() -> None:
    text = "Ann Lee, 4 May, in Ulm"
    spans = [(0, 7, "PERSON", "Ann Lee"), (9, 14, "DATE_TIME", "4 May"), (19, 22, "GPE", "Ulm")]
    counts = counted([(text, spans, "PERSON_abc234 Lee, 4 May, in Ulm")])
    assert counts["whole"] == {"DATE_TIME": 1, "GPE": 1, "PERSON": 0}
    assert counts["part"] == {"PERSON": 1, "DATE_TIME": 1, "GPE": 1}
    assert [direct(counts[k]) for k in ("all", "whole", "part")] == [2, 1, 2]
