"""No more of a document leaves than its share, however it is asked for."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cosilo.errors import StoreError, UnprotectableError
from cosilo.strategies.documents.share import RUN, InFile, InMemory, ShareMeter, aligned, letters

WORDS = [
    f"{a}{b}{c}" for a in ("bo", "ka", "li", "mu") for b in ("ra", "te", "no") for c in "xyzwvqs"
]
DOCUMENT = " ".join(WORDS * 3) + " and the tenant leaves on the ninth of May."
SHARE = 0.1
MOST = int(SHARE * len(letters(DOCUMENT)))


def crossed(document: str, sent: list[str]) -> int:
    """Letters of `document` in stretches of `RUN` that were sent, the slow way."""
    whole, found = letters(document), set()
    for text in map(letters, sent):
        for at in range(len(whole) - RUN + 1):
            if whole[at : at + RUN] in text:
                found |= set(range(at, at + RUN))
    return len(found)


@pytest.mark.parametrize(
    "disguise",
    [
        str,
        str.upper,
        lambda t: t.replace(" ", ""),
        lambda t: " ".join(t),
        lambda t: t.replace(" ", ", "),
        lambda t: "\u200b".join(t),
        lambda t: "".join(chr(ord(c) + 0xFEE0) if "a" <= c <= "z" else c for c in t),
        lambda t: t.encode().hex(),
        lambda t: t[::-1],
    ],
)
def test_a_quotation_is_counted_in_any_dress(disguise: object) -> None:
    meter, sent = ShareMeter(SHARE), []
    words = DOCUMENT.split()
    for at in range(0, len(words), 8):  # a plan of many jobs, each for a little
        text = disguise(" ".join(words[at : at + 8]))  # type: ignore[operator]
        if meter.admit([DOCUMENT], 0, text):
            sent.append(text)
    assert sent
    assert sum(len(letters(text)) for text in sent) <= MOST + 8 * 6
    assert crossed(DOCUMENT, sent) <= MOST
    assert 0 < meter.share(DOCUMENT) <= SHARE


def test_a_changed_word_does_not_hide_its_neighbours() -> None:
    said = DOCUMENT.replace(WORDS[4], "other", 1).split()[:9]
    places, loose = aligned(letters(DOCUMENT), letters(" ".join(said)))
    assert np.all(places[: len(letters(" ".join(WORDS[:9])))])
    assert loose == 5


def test_what_stands_in_several_places_has_left_in_all_of_them() -> None:
    places, loose = aligned(letters(DOCUMENT), letters(" ".join(WORDS[:9])))
    assert int(places.sum()) == 3 * len(letters(" ".join(WORDS[:9])))
    assert loose == 0


def test_alike_to_the_slow_way_before_gaps_are_filled() -> None:
    sent = [" ".join(WORDS[3:8]), " ".join(WORDS[30:44])]
    for text in sent:
        places, _ = aligned(letters(DOCUMENT), letters(text))
        assert int(places.sum()) == crossed(DOCUMENT, [text])


def test_what_is_said_in_other_words_counts_letter_for_letter() -> None:
    meter = ShareMeter(SHARE)
    assert meter.admit([DOCUMENT], 0, "?" * 999)  # no letters, nothing said
    assert not meter.admit([DOCUMENT], 0, "u" * (MOST + 1))
    assert meter.admit([DOCUMENT], 0, "u" * (MOST - 1))
    assert not meter.admit([DOCUMENT], 0, "uu")
    assert meter.admit([DOCUMENT], 0, "u")


def test_the_same_document_counts_on_whatever_its_spaces() -> None:
    meter, text = ShareMeter(SHARE), "u" * (MOST // 2 + 1)
    assert meter.admit([DOCUMENT], 0, text)
    assert not meter.admit([DOCUMENT.upper().replace(" ", "\n")], 0, text)
    assert meter.admit([DOCUMENT + " Another paragraph, so another document."], 0, text)


def test_a_finding_counts_for_each_document_that_it_stands_in() -> None:
    meter = ShareMeter(SHARE)
    other = f"{DOCUMENT} A copy."
    quote = " ".join(WORDS[20:26])
    assert meter.admit([DOCUMENT, other], 0, quote)
    assert meter.share(other) > 0.05


def test_what_the_user_quotes_counts_and_may_be_too_much() -> None:
    meter = ShareMeter(SHARE)
    meter.begin([DOCUMENT], "what of " + " ".join(WORDS[:4]) + "?")
    assert meter.share(DOCUMENT) > 0
    with pytest.raises(UnprotectableError, match=r"share 0\.1") as caught:
        meter.begin([DOCUMENT], " ".join(WORDS[40:80]))
    assert WORDS[40] not in str(caught.value)
    meter.begin([DOCUMENT], "what of " + " ".join(WORDS[:4]) + "?")  # nothing new leaves


def test_an_empty_document_has_no_share_to_give() -> None:
    meter = ShareMeter(SHARE)
    meter.begin([""], "anything")
    assert not meter.admit([""], 0, "a finding in nothing")
    assert meter.share("") == 0


def test_the_file_is_private_counts_for_all_and_holds_no_text(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "left.sqlite"
    quote = " ".join(WORDS[60:66])

    def one(_: int) -> bool:
        return ShareMeter(SHARE, InFile(path)).admit([DOCUMENT], 0, "u" * (MOST // 4))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(one, range(12))) == 4
    assert ShareMeter(0.9, InFile(path)).admit([DOCUMENT], 0, quote)
    assert path.stat().st_mode & 0o077 == 0
    held = path.read_bytes()
    assert letters(quote).encode() not in held
    assert quote.encode() not in held


def test_without_its_file_nothing_leaves(tmp_path: Path) -> None:
    (tmp_path / "left").write_text("no database, but long enough to be seen as none" * 30)
    with pytest.raises(StoreError, match="left"):
        ShareMeter(SHARE, InFile(tmp_path / "left")).admit([DOCUMENT], 0, "a")
    assert isinstance(ShareMeter(SHARE).kept, InMemory)


def test_requests_at_once_share_one_count() -> None:
    meter = ShareMeter(SHARE)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            admitted = pool.map(
                lambda _: meter.admit([DOCUMENT], 0, "u" * (MOST // 4)), range(40), timeout=60
            )
            assert sum(admitted) == 4
    finally:
        sys.setswitchinterval(switch)
