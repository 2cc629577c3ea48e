"""The limits and the certificate: one sentence, and the tests behind it."""

from __future__ import annotations

from cosilo.objectives.wording import amount, wanted
from cosilo.report.data import Report
from cosilo.report.markup import Markup, tag
from cosilo.report.page.blocks import right, table
from cosilo.report.words import count
from cosilo.selection import Certificate, LimitTest

METHODS = {
    "binomial": "exact binomial",
    "hoeffding-bentkus": "Hoeffding–Bentkus",
    "betting": "betting, paired",
    "measured": "measured only",
}


def verdict(report: Report) -> Markup:
    """The limits and the certificate, as one sentence and the tests behind it."""
    certificate = report.certificate
    if report.damaged:
        items = [tag("li", f"{name}: {wrong}") for name, wrong in report.damaged.items()]
        return _verdict(
            "doubt",
            "Nothing is certified",
            "What crossed is not whole on record, and what is missing there would count as not sent.",
            tag("ul", items),
            tag(
                "p",
                "Run cosilo bench again: it answers again what is not on record, over the replies "
                "that are.",
                class_="note",
            ),
        )
    if certificate is None:
        return _verdict(
            "",
            "Nothing is certified",
            "No limits were given, so every number here is a measurement and no promise.",
            tag(
                "p",
                "Give limits in the plan, or to cosilo report with --limit NAME=VALUE and "
                "--at-least NAME=VALUE.",
                class_="note",
            ),
        )
    chosen = certificate.chosen
    sure = chosen is not None and any(t.p is not None for t in chosen.limits)
    kind, head = (
        ("good", "Certified")
        if sure
        else ("doubt", "Measured, not certified" if chosen else "Not certified")
    )
    test = chosen or certificate.nearest
    sentence = certificate.sentence()
    return _verdict(
        kind,
        head,
        f"{sentence[:1].upper()}{sentence[1:]}.",
        _limit_tests(test.point, test.limits) if test is not None else None,
        tag("p", _how(certificate), class_="note"),
        _sequence(certificate),
    )


def _verdict(kind: str, head: str, sentence: str, *more: Markup | None) -> Markup:
    return tag(
        "section",
        tag("h2", head),
        tag("p", sentence, class_="sentence"),
        *more,
        id="certificate",
        class_=f"verdict {kind}".rstrip(),
    )


def _limit_tests(point: str, tests: tuple[LimitTest, ...]) -> Markup:
    rows = []
    for test in tests:
        objective = test.limit.objective
        words = wanted(objective, test.limit.bound, test.limit.relative_to)
        rows.append(
            [
                tag("th", words, scope="row"),
                right(amount(objective, test.value)),
                right(amount(objective, test.bound)),
                right(f"{test.n:,}"),
                right("–" if test.p is None else _p(test.p)),
                tag("td", METHODS[test.method]),
                tag(
                    "td",
                    "kept" if test.holds else "missed",
                    class_="kept" if test.holds else "missed",
                ),
            ]
        )
    heads: list[str | Markup] = [
        "limit",
        *(right(h, cell="th") for h in ("found", "limit comes to", "n", "p")),
    ]
    return table([*heads, "test", "as found"], rows, label=f"Limits, tested on {point}")


def _p(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def _how(certificate: Certificate) -> str:
    return (
        f"Learn-then-Test: the order of points was fixed on the validation items, then each was "
        f"tested on {certificate.n:,} certificate items that nothing else has used, until one "
        f"failed. The probability of certifying any point that breaks a limit is at most "
        f"{100 * certificate.delta:g} %."
    )


def _sequence(certificate: Certificate) -> Markup | None:
    if not certificate.tested:
        return None
    items = [
        tag(
            "li",
            f"{test.point}: p = {_p(test.p)}, "
            + ("certified" if test.certified else "not certified, so testing stopped"),
        )
        for test in certificate.tested
    ]
    left = len(certificate.order) - len(certificate.tested)
    if left:
        items.append(tag("li", f"{count(left, 'point')} not tested"))
    return tag("details", tag("summary", "Points in the order they were tested"), tag("ol", items))
