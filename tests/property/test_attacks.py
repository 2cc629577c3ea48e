"""The fast searches find what slow ones find, and attacks gain nothing from a record of nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.attacks.base import Target, View
from cosilo.attacks.relink import RelinkAttack, match
from cosilo.attacks.secrets import Fuzzy, Normalised, Verbatim
from cosilo.attacks.tampering import Tampering
from cosilo.boundary.messages import Ask, encode
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.matching import FuzzyPool, Pool, _distances, as_written, edits, normalised
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import Sampling, user

LETTERS = st.text("ab1 .-", max_size=14)


def levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


@given(st.text("abc", min_size=1, max_size=12), st.text("abcd", max_size=14))
def test_bit_parallel_distances_are_levenshteins(value: str, text: str) -> None:
    expected = [levenshtein(value, text[:j]) for j in range(len(text) + 1)]
    assert list(_distances(value, text)) == expected


@given(st.lists(LETTERS, max_size=5), LETTERS)
def test_pool_finds_what_stands_between_boundaries(values: list[str], text: str) -> None:
    for fold in (as_written, normalised):
        folded = fold(text)
        expected = set()
        for i, value in enumerate(values):
            wanted = fold(value).text
            spans = ((s, s + len(wanted)) for s in folded.starts)
            if wanted and any(e in folded.ends and folded.text[s:e] == wanted for s, e in spans):
                expected.add(i)
        assert Pool(values, fold).found(folded) == expected


def slow_fuzzy(value: str, text: str) -> float:
    """The best similarity of `value`, or of most of it, to any run of whole words."""
    wanted, folded = normalised(value).text, normalised(text)
    best = 0.0
    words = ["".join(w) for w in value.split()]
    for i in range(len(words)):
        for j in range(i + 1, len(words) + 1):
            part = "".join(words[i:j])
            if len(part) >= max(5, 0.6 * len(wanted)) and any(
                folded.text[s:e] == part for s in folded.starts for e in folded.ends
            ):
                best = max(best, len(part) / len(wanted))
    for start in folded.starts:
        for end in folded.ends:
            if end > start and wanted:
                distance = levenshtein(wanted, folded.text[start:end])
                if distance <= edits(wanted):
                    best = max(best, 1 - distance / len(wanted))
    return best


WORDS = st.lists(st.text("abcde", min_size=1, max_size=9), min_size=1, max_size=4).map(" ".join)


@settings(max_examples=300)
@given(st.lists(WORDS, min_size=1, max_size=4), WORDS, st.data())
def test_fuzzy_pool_finds_what_comparing_with_every_run_of_words_finds(
    values: list[str], noise: str, data: st.DataObject
) -> None:
    # A damaged copy of one value, so that near matches do occur.
    damaged = list(data.draw(st.sampled_from(values)))
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.sampled_from("abcde "))
    text = f"{noise} {''.join(damaged)} {noise}"
    found = FuzzyPool(values).found(normalised(text))
    for i, value in enumerate(values):
        assert abs(found.get(i, 0.0) - slow_fuzzy(value, text)) < 1e-9


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_matching_is_one_to_one_with_the_largest_sum(n: int, m: int, seed: int) -> None:
    from itertools import permutations

    similarity = np.random.default_rng(seed).random((n, m)).astype(np.float32)
    found = match(similarity)
    used = [j for j in found if j >= 0]
    assert len(used) == len(set(used)) == min(n, m)
    total = sum(float(similarity[i, j]) for i, j in enumerate(found) if j >= 0)
    small, large = sorted((n, m))
    table = similarity if n <= m else similarity.T
    best = max(
        sum(float(table[i, p[i]]) for i in range(small)) for p in permutations(range(large), small)
    )
    assert abs(total - best) < 1e-5


def record(texts: dict[str, str]) -> View:
    ledger = MemoryLedger()
    for request, text in texts.items():
        ask = Ask(chat=user(text))
        ledger.append(request, "up", ask, encode(ask))
    return View(ledger.entries)


async def test_relinking_messages_that_hold_nothing_is_blind_guessing() -> None:
    """Messages that tell nothing: whatever the order of items and candidates, nothing is gained."""
    n = 40
    texts = tuple(f"record number {i} about topic {i * 7 % 40}" for i in range(n))
    targets = [Target(f"{i}#record", str(i), "record", texts) for i in range(n)]
    for said in (("alpha", "beta", "gamma"), ("record", "number", "topic")):
        # Three different messages, each of a third of the items: none is common to most.
        view = record({str(i): said[i % 3] for i in range(n)})
        guesses = await RelinkAttack().guess(view, targets)
        right = sum(g.value == texts[i] for i, g in enumerate(guesses))
        assert right <= 5  # one is expected; 6 or more of 40 happen once in 1,600 times


async def test_readers_guess_the_same_from_nothing_as_from_a_record_of_nothing() -> None:
    names = ("Ann Low", "Bo High", "Ann Low", "Cy Dee")
    targets = [Target(f"{i}#0", str(i), "secret:person", names) for i in range(4)]
    for attack in (Verbatim(), Normalised(), Fuzzy()):
        empty = await attack.guess(View(lambda: iter(())), targets)
        silent = await attack.guess(record({str(i): "hello there" for i in range(4)}), targets)
        assert empty == silent
        assert {g.value for g in empty} == {"Ann Low"}


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), st.integers(0, 1000))
def test_tampering_changes_its_share_and_the_same_replies_each_time(
    share: float, seed: int
) -> None:
    party = Tampering(LMOwner(ScriptedModel()), share, seed)
    asks = [Ask(chat=user(f"question {i}"), sampling=Sampling()) for i in range(400)]
    changed = [party.changes(ask) for ask in asks]
    assert changed == [party.changes(ask) for ask in asks]
    spread = 4.5 * (share * (1 - share) / 400) ** 0.5
    assert abs(sum(changed) / 400 - share) <= spread + 1e-9
