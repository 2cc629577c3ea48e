"""Days of the year, of whatever: what HIPAA's Safe Harbor asks for and most users do not.

A date of birth is private anyway; the day of an admission, an order or a release is hidden only where a
plan says `dates = true`. A year alone stays (45 CFR 164.514(b)(2)(i)(C)).
"""

from __future__ import annotations

import re

from cosilo.defences.detection import Span, Steps, due, run
from cosilo.defences.languages.cues import MONTH as FOREIGN_MONTH

_MONTH = (
    r"(?i:january|february|march|april|may|june|july|august|september|october|november|december"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)"
)
_FORMS = tuple(
    re.compile(form, re.X)
    for form in (
        r"(?<![\w./\-])(?:19|20)\d\d(?P<by>[./\-])(?:0?[1-9]|1[0-2])(?P=by)(?:0?[1-9]|[12]\d|3[01])"
        r"(?![\w/]|[.\-]\d)",
        r"(?<![\w./\-])(?:0?[1-9]|[12]\d|3[01])(?P<by>[./\-])(?:0?[1-9]|[12]\d|3[01])(?P=by)"
        r"(?:(?:19|20)\d\d|\d\d)(?![\w/]|[.\-]\d)",
        rf"(?<!\w){_MONTH}\.?[ ](?:the[ ])?\d{{1,2}}(?:st|nd|rd|th)?(?:,?[ ](?:19|20)\d\d)?(?![\w])",
        rf"(?<![\w.])\d{{1,2}}(?:st|nd|rd|th)?[ ](?:of[ ])?{_MONTH}\b(?:\.?,?[ ](?:19|20)\d\d)?(?!\w)",
        rf"(?<![\w.])\d{{1,2}}(?:\.|er|º|°)?[ ](?:de[ ])?{FOREIGN_MONTH}\b"
        r"(?:\.?[ ](?:de[ ])?(?:19|20)\d\d)?(?!\w)",
        r"(?<![\w./\-])(?!(?:1/[2348]|2/3|3/[48]|[57]/8)\b)(?:0?[1-9]|1[0-2])/(?:0?[1-9]|[12]\d|3[01])"
        r"(?![\w/%]|[.\-]\d)",
    )
)


class DayDetector:
    """Finds days: with or without their year, in figures or with a written month."""

    def detect(self, text: str, public: str = "") -> list[Span]:
        return run(self.steps(text, public))

    def steps(self, text: str, public: str = "") -> Steps[list[Span]]:
        spans: list[Span] = []
        for form in _FORMS:
            spans += [Span(*found.span(), "EVENT_DATE", 0.9) for found in form.finditer(text)]
            if due():
                yield
        return spans
