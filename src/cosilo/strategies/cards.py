"""What preparing a strategy found: carried in the session, kept with the trial, shown in the report.

    prepare ──▶ session.with_card(Card) ──▶ next prepare ──▶ … ──▶ runner ──▶ store ──▶ report

A card is read by whoever gets the report: it holds counts, and texts only where they are nobody's
private ones (made by the LM, or public).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Number = int | float


@dataclass(frozen=True, kw_only=True)
class Card:
    """One result of preparing a strategy, as the report shows it.

    Attributes:
        by: the strategy.
        title: what it is about, e.g. "labels of the large model".
        facts: name → value; a name says its unit, e.g. "bytes up per kept example".
        tables: title → row → number, e.g. "dropped" → filter → how many.
        warning: what whoever reads the report must not miss; it stands there in red.
        examples: texts that may be shown to anybody: synthetic or public ones.
    """

    by: str
    title: str
    facts: Mapping[str, Number | str] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Number]] = field(default_factory=dict)
    examples: tuple[str, ...] = ()
    warning: str = ""
