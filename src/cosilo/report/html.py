"""The report as one HTML file that needs nothing else: no network, no fonts, no images.

The Content-Security-Policy inside it allows exactly this style sheet and this script, by their
hashes. Everything that came with the run is escaped by `markup`, or is JSON that cannot end its
element.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path

from cosilo.errors import StoreError
from cosilo.report.axes import default_axes
from cosilo.report.data import Report
from cosilo.report.markup import Markup, joined, tag, trusted
from cosilo.report.page.costs import confidence, costs
from cosilo.report.page.crossings import crossings
from cosilo.report.page.facts import facts, provenance
from cosilo.report.page.front import drawn_from, front
from cosilo.report.page.made_from import lineage_section
from cosilo.report.page.points import no_points, points
from cosilo.report.page.preparing import preparing
from cosilo.report.page.verdict import verdict
from cosilo.report.private_file import private_file

_LINEAGE = "What was made from the records"


def write_html(report: Report, path: Path) -> None:
    """Write the report to `path`, for its owner alone to read.

    Raises:
        StoreError: the file cannot be written.
    """
    write_page(html(report), path)


def write_page(text: str, path: Path) -> None:
    """Write a page to `path`, for its owner alone to read.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        private_file(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"cannot write the report {str(path)!r}: {error.strerror}") from None


def html(report: Report) -> str:
    """The whole report as HTML, style sheet and script included."""
    script = _part("script.js")
    axes = default_axes(report) if report.points else None
    body = joined(
        tag(
            "header",
            tag(
                "div",
                "Cosilo: large and small models, working together across silos",
                class_="over",
            ),
            tag("h1", report.title),
            facts(report),
            _contents(report, axes is not None),
        ),
        tag(
            "main",
            verdict(report),
            front(report, axes) if axes else None,
            points(report) if report.points else no_points(report),
            crossings(report),
            preparing(report),
            costs(report),
            confidence(report),
            _made_from(report),
            provenance(report),
        ),
        tag("footer", "Made by Cosilo. This file is whole: it asks no network for anything."),
        tag("script", trusted(_json(drawn_from(report, *axes))), id="data", type="application/json")
        if axes
        else None,
        tag("script", trusted(script)) if axes else None,
    )
    return whole_page(f"{report.title}: Cosilo report", body, script)


def whole_page(title: str, body: Markup, script: str = "") -> str:
    """A whole page with the report's style sheet.

    Args:
        script: the one that `body` has, which alone may run.
    """
    style = _part("style.css")
    runs = f"script-src '{_hash(script)}'; " if script else ""
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; {runs}base-uri 'none'; form-action 'none'"
    )
    made = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=policy),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="referrer", content="no-referrer"),
            tag("title", title),
            tag("style", trusted(style)),
        ),
        tag("body", body),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{made}\n"


def _contents(report: Report, has_front: bool) -> Markup:
    links = [
        ("certificate", "Certificate", True),
        ("front", "Front", has_front),
        ("points", "Points", True),
        ("left", "What left the building", bool(report.crossed)),
        ("preparing", "What preparing found", bool(report.prepared)),
        ("cost", "Cost and latency", bool(report.costs)),
        ("confidence", "Confidence", bool(report.reliability)),
        ("lineage", _LINEAGE, report.made_from is not None),
        ("made", "How this was made", True),
    ]
    shown = [tag("a", words, href=f"#{id}") for id, words, there in links if there]
    return tag("nav", shown, aria_label="Contents")


def _made_from(report: Report) -> Markup | None:
    if report.made_from is None:
        return None
    return lineage_section(
        "lineage",
        _LINEAGE,
        report.made_from,
        "From left to right: the records, what was made from them, and what was made from that. What a "
        "request to forget changed stays in the picture with what became of it. Whatever could read a "
        "set counts as made from all of it.",
    )


def _json(data: object) -> str:
    # "<" could end the script element; the others are what JSON and JavaScript disagree on.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _part(name: str) -> str:
    return files("cosilo.report.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
