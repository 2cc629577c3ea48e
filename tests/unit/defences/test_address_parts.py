"""The rest of an address of which a part was found."""

from __future__ import annotations

import time

import pytest

from cosilo.defences.address_parts import whole_addresses
from cosilo.defences.detection import Span

_KINDS = {"STRANGE": ("PERSON", 0.35)}  # a capitalised word that no vocabulary holds


def grown(text: str, *parts: tuple[str, str]) -> set[int]:
    spans = [
        Span(text.index(v), text.index(v) + len(v), *_KINDS.get(kind, (kind, 0.6)))
        for kind, v in parts
    ]
    return {i for s in (*spans, *whole_addresses(text, spans)) for i in range(s.start, s.end)}


def left(text: str, value: str, *parts: tuple[str, str]) -> str:
    """What of `value` is not hidden."""
    found, start = grown(text, *parts), text.find(value)
    if start < 0:  # these signs, wherever they stand
        return "".join(c for i, c in enumerate(text) if c in value and i not in found)
    return "".join(
        text[i] for i in range(start, start + len(value)) if i not in found and text[i].isalnum()
    )


@pytest.mark.parametrize(
    ("text", "value", "parts"),
    [
        ("It is 36 Lough Derg, isn't it?", "36 Lough Derg", [("PLACE", "Lough Derg")]),
        ("Her place, 5b Tolworth.", "5b Tolworth", [("PERSON", "Tolworth")]),
        ("Go to 85/4 Mill View now", "85/4 Mill View", [("ADDRESS", "Mill View")]),
        ("To 3-27-8 Honjin, please", "3-27-8 Honjin", [("ADDRESS", "Honjin")]),
        (
            "It is Brod 8, Velké Losiny 134 66, Slovakia.", "Brod 8, Velké Losiny 134 66, Slovakia",
            [("ADDRESS", "Brod 8"), ("PLACE", "Velké Losiny"), ("PLACE", "Slovakia")],
        ),
        ("Write to 9 Elm Hill, Trail R3P 8N1.", "9 Elm Hill, Trail R3P 8N1",
         [("ADDRESS", "9 Elm Hill, Trail")]),
        ("It is in Trg kralja Zvonimira 90.", "Trg kralja Zvonimira 90",
         [("ADDRESS", "Zvonimira 90")]),
        ("It's 0815 Lomená 44 / Flat 3 / 5512 AB / Norway.",
         "0815 Lomená 44 / Flat 3 / 5512 AB / Norway",
         [("PERSON", "Lomená"), ("PLACE", "Norway")]),
        ("To: 27, Brezova 118; Unit 6; Arad; 40 213", "27, Brezova 118; Unit 6; Arad; 40 213",
         [("PERSON", "Brezova"), ("PLACE", "Arad")]),
        ("To 9 Elm Hill - Whitby - 7741 - GB", "9 Elm Hill - Whitby - 7741 - GB",
         [("ADDRESS", "9 Elm Hill"), ("PLACE", "Whitby")]),
        ("At 9 Elm Hill\r\nFlat 2\r\nWhitby\r\n77410", "9 Elm Hill\r\nFlat 2\r\nWhitby\r\n77410",
         [("ADDRESS", "9 Elm Hill")]),
        ("Suite 14, 9 Elm Hill, Whitby", "Suite 14, 9 Elm Hill", [("ADDRESS", "9 Elm Hill")]),
        ("at Heron House, 9 Elm Hill", "Heron House, 9 Elm Hill", [("ADDRESS", "9 Elm Hill")]),
        ("THE OLD MILL, 9 ELM HILL", "THE OLD MILL, 9 ELM HILL", [("ADDRESS", "9 ELM HILL")]),
        ("Is Brezova 118, say, free?", "Brezova 118", [("STRANGE", "Brezova")]),
        ("From Lomená 44 it's not far", "Lomená 44", [("STRANGE", "Lomená")]),
        ("Ada Lind\n88b Cedars\n, Whitby\n, 21145\n, Norway", "88b Cedars\n, Whitby\n, 21145",
         [("PLACE", "Whitby"), ("PLACE", "Norway")]),
        ("Thanks\n\nKorenmarkt 43\nDeinze\n4521\nBelgium", "Korenmarkt 43\nDeinze\n4521\nBelgium",
         [("PERSON", "Korenmarkt"), ("PLACE", "Deinze"), ("PLACE", "Belgium")]),
    ],
)  # fmt: skip
def test_the_rest_is_found(text: str, value: str, parts: list[tuple[str, str]]) -> None:
    assert left(text, value, *parts) == ""


@pytest.mark.parametrize(
    ("text", "rest", "parts"),
    [
        ("Please return to 12 Elm Hill.", "Please return to", [("ADDRESS", "12 Elm Hill")]),
        ("1. Paris\n2. Rome", "1", [("PLACE", "Paris"), ("PLACE", "Rome")]),
        ("We saw 3 Germany players", "3", [("PLACE", "Germany")]),
        ("I paid $50 Visa", "50", [("ORG", "Visa")]),
        ("Come to 9 Elm Hill 3 times", "3", [("ADDRESS", "9 Elm Hill")]),
        ("Madrid 3, Leeds 1", "31", [("PLACE", "Madrid"), ("PLACE", "Leeds")]),
        ("Ada 2, Boris", "2", [("PERSON", "Ada")]),
        ("We saw Oslo 2019, Bern", "2019", [("PLACE", "Oslo"), ("PLACE", "Bern")]),
        ("9 Elm Hill\nThanks\nAda", "Thanks", [("ADDRESS", "9 Elm Hill")]),
        ("9 Elm Hill - we love it", "we love it", [("ADDRESS", "9 Elm Hill")]),
        ("9 Elm Hill; Please hurry", "Please hurry", [("ADDRESS", "9 Elm Hill")]),
        ("Total 5\nSum 12\nWhitby", "Total 5\nSum 12", [("PLACE", "Whitby")]),
    ],
)
def test_what_does_not_belong_to_it_stays(
    text: str, rest: str, parts: list[tuple[str, str]]
) -> None:
    assert left(text, rest, *parts) == "".join(c for c in rest if c.isalnum())


def test_a_long_text_takes_linear_time() -> None:
    def seconds(times: int) -> float:
        text = "9 Elm Hill, 4 Mill,\n" * times
        at = range(0, len(text), 20)
        spans = [Span(i, i + 10, "ADDRESS", 0.6) for i in at]
        before = time.process_time()
        assert list(whole_addresses(text, spans))
        return time.process_time() - before

    seconds(100)
    assert seconds(4_000) < 40 * seconds(400)
