"""The page is whole, says the truth, and nothing that came with a run can break out of its place."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import made_up
from cosilo.errors import StoreError
from cosilo.objectives.base import Measurement
from cosilo.report.data import Crossed, Report, Shown
from cosilo.report.html import html, write_html
from cosilo.report.markup import Markup, tag
from cosilo.selection import Point
from pages import HOSTILE, Page


def data_in(page: Page) -> dict:
    scripts = dict(zip((a.get("id") for a in page.of("script")), page.texts["script"], strict=True))
    return json.loads(scripts["data"])


@pytest.fixture(scope="module")
def report() -> Report:
    return made_up.report()


@pytest.fixture(scope="module")
def page(report: Report) -> Page:
    return Page(html(report))


def test_every_element_is_closed(page: Page) -> None:
    assert page.open == []


def test_the_file_asks_for_nothing(report: Report, page: Page) -> None:
    for name, attributes in page.elements:
        assert name not in ("link", "img", "iframe", "object", "embed", "base", "form")
        for attribute, value in attributes.items():
            assert attribute not in ("src", "style", "srcset", "action")
            assert not attribute.startswith("on")
            if attribute == "href":
                assert value is not None
                assert value.startswith("#")
    text = html(report)
    assert "@import" not in text
    assert not re.search(r"url\(|https?://(?!www\.w3\.org/2000/svg)", text)


def test_the_policy_allows_exactly_the_style_and_the_script_inside(page: Page) -> None:
    policy = next(
        a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    code = [
        text
        for text, a in zip(page.texts["script"], page.of("script"), strict=True)
        if a.get("type") != "application/json"
    ]
    allowed = {
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (*code, *page.texts["style"])
    }
    assert set(re.findall(r"sha256-([^']+)", policy)) == allowed


def hostile(report: Report) -> Report:
    """The report with hostile text wherever a run, a plan or a data set can put some."""
    points = []
    for point in report.points:
        found = {
            name: replace(m, note=HOSTILE, objective=replace(m.objective, unit=f"share {HOSTILE}"))
            for name, m in point.test.items()
        }
        points.append(
            replace(
                point,
                name=f"{point.name} {HOSTILE}",
                strategy=f"{point.strategy} {HOSTILE}",
                defences=(HOSTILE,),
                settings={HOSTILE: HOSTILE},
                test=found,
            )
        )
    old = {p.name: q.name for p, q in zip(report.points, points, strict=True)}
    bad = Crossed(
        items=1,
        asked=1,
        secrets={HOSTILE: (1, 2)},
        replaced={HOSTILE: 1},
        examples=(Shown("up", HOSTILE, f"{HOSTILE} ▇{HOSTILE}▇ {HOSTILE}"),),
    )
    return replace(
        report,
        title=HOSTILE,
        task=replace(report.task, name=HOSTILE, kind=HOSTILE, notes=(HOSTILE,)),
        models=tuple(
            replace(m, name=HOSTILE, licence=HOSTILE, kind=HOSTILE) for m in report.models
        ),
        points=tuple(points),
        front=frozenset(old[name] for name in report.front),
        limits=(),
        certificate=None,
        crossed={name: bad for name in old.values()},
        costs={old[name]: cost for name, cost in report.costs.items()},
        reliability=dict.fromkeys([HOSTILE], next(iter(report.reliability.values()))),
        unfinished={HOSTILE: HOSTILE},
        notes=(HOSTILE,),
        versions={HOSTILE: HOSTILE},
        commands=(HOSTILE,),
        made=HOSTILE,
    )


def test_hostile_names_stay_text(report: Report, page: Page) -> None:
    bad = Page(html(hostile(report)))
    assert bad.open == []
    assert {name for name, _ in bad.elements} <= {name for name, _ in page.elements}
    assert len(bad.of("script")) == 2
    assert all(not a.startswith("on") for _, attributes in bad.elements for a in attributes)
    assert "alert(1)" in bad.texts["h1"][0]  # as text
    assert all("alert(1)" in point["name"] for point in data_in(bad)["points"])


def test_every_number_of_the_test_split_stands_in_the_table(report: Report, page: Page) -> None:
    cells = page.texts["td"]
    for point in report.points:
        assert any(text.startswith(point.name) for text in page.texts["th"])
    assert any(text.startswith("94.6") and "91.9 – 96.4" in text for text in cells)


def test_numbers_that_are_none_do_not_break_the_data(report: Report) -> None:
    first = report.points[0]
    odd = replace(first.test["utility"], value=float("nan"))
    open_ended = replace(first.test["usd_per_1k"], low=float("-inf"), high=float("inf"))
    point = replace(first, test={**first.test, "utility": odd, "usd_per_1k": open_ended})
    data = data_in(Page(html(replace(report, points=(point, *report.points[1:])))))
    assert "utility" not in data["points"][0]["test"]
    assert data["points"][0]["test"]["usd_per_1k"][1:3] == [None, None]


def test_the_page_says_when_secrets_were_detected_only(report: Report, page: Page) -> None:
    assert "given with the data" in page.texts["header"][0]
    detected = Page(html(replace(report, task=replace(report.task, gold_secrets=False))))
    assert "detected, not given" in detected.texts["header"][0]
    assert "lower bound" in detected.texts["main"][0]
    assert "lower bound" not in page.texts["main"][0]


def test_the_page_says_when_no_secret_is_known(report: Report) -> None:
    bare = {name: replace(c, secrets={}, background={}) for name, c in report.crossed.items()}
    task = replace(report.task, gold_secrets=False)
    page = Page(html(replace(report, task=task, crossed=bare)))
    assert "none given, none detected" in page.texts["header"][0]
    assert "says only what re-linking finds" in page.texts["main"][0]


def test_a_certified_point_is_said_and_marked() -> None:
    report = made_up.report(limits=((made_up.UTILITY, 0.85, None), (made_up.PRIVACY, 0.15, None)))
    assert report.certificate is not None
    assert report.chosen in report.certificate.certified
    page = Page(html(report))
    sentence = report.certificate.sentence()
    assert f"{sentence[0].upper()}{sentence[1:]}." in page.texts["p"]
    assert page.texts["h2"][0] == "Certified"
    chosen = [p["name"] for p in data_in(page)["points"] if p["chosen"]]
    assert chosen == [report.chosen]
    assert data_in(page)["chosen"] == "certified"


def test_a_point_that_was_only_measured_is_not_called_certified() -> None:
    report = made_up.report(limits=((made_up.LATENCY, 900.0, None), (made_up.USD, 0.5, None)))
    measured = replace(
        report,
        points=tuple(replace(p, certificate={}) for p in report.points),
    )
    from cosilo.selection import certify

    measured = replace(measured, certificate=certify(measured.points, measured.limits))
    assert measured.chosen is not None
    page = Page(html(measured))
    assert page.texts["h2"][0] == "Measured, not certified"
    assert data_in(page)["chosen"] == "chosen"


def test_without_limits_nothing_is_promised() -> None:
    page = Page(html(made_up.report(limits=())))
    assert page.texts["h2"][0] == "Nothing is certified"
    # What `cosilo select` was told is kept nowhere, so the page must not send its reader there.
    assert "to cosilo report with --limit NAME=VALUE" in html(made_up.report(limits=()))


def test_an_empty_run_is_a_page_too() -> None:
    empty = replace(made_up.report((), limits=()), unfinished={"large": "the endpoint is down"})
    page = Page(html(empty))
    assert page.open == []
    assert "the endpoint is down" in page.texts["main"][0]
    assert page.of("script") == []


def test_a_number_beyond_its_limit_is_marked(page: Page) -> None:
    marked = [text for text in page.texts["td"] if text.startswith("✗")]
    assert any("97.2" in text for text in marked)  # large leaks
    assert any("84.1" in text for text in marked)  # small is not good enough
    assert not any("94.6" in text for text in marked)


def test_what_left_is_said_with_its_masked_places(page: Page) -> None:
    assert "774 of 820 secrets left" in page.texts["summary"][2]
    assert "asked for 400 of 400" in page.texts["summary"][2]
    masks = [a for a in page.of("span") if a.get("class") == "mask"]
    assert masks
    assert "<b>yet</b>" in "".join(page.texts["pre"])


def test_one_objective_makes_no_front_but_a_page(report: Report) -> None:
    points = tuple(
        Point(p.id, p.name, p.strategy, validation=_only(p.validation), test=_only(p.test))
        for p in report.points
    )
    page = Page(html(replace(report, points=points, limits=(), certificate=None)))
    assert page.open == []
    assert "front" not in {a.get("id") for a in page.of("section")}


def _only(found) -> dict[str, Measurement]:
    return {"utility": found["utility"]}


def test_a_page_that_cannot_be_written_is_a_clear_error(tmp_path: Path, report: Report) -> None:
    with pytest.raises(StoreError, match="cannot write the report"):
        write_html(report, tmp_path / "missing" / "report.html")
    write_html(report, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html(report)


def test_markup_escapes_all_but_markup() -> None:
    made = tag("p", "<b>", Markup("<i>"), None, ["&", Markup("</i>")], title='"x"', hidden=True)
    assert made == '<p title="&quot;x&quot;" hidden>&lt;b&gt;<i>&amp;</i></p>'
    assert tag("p", "a\x00b") == "<p>a�b</p>"
