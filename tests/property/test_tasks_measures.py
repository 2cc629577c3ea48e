"""The tasks' own mathematics against slow, obvious versions."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from cosilo.tasks.extraction import span_f1
from cosilo.tasks.results import same_result
from cosilo.tasks.splits import divide, same_text, sample, without_leaks
from cosilo.tasks.text import common_subsequence, rouge_l

words = st.lists(st.sampled_from("abcde"), max_size=40)


def slow_common_subsequence(a: list[str], b: list[str]) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i][j] = (
                table[i - 1][j - 1] + 1 if x == y else max(table[i - 1][j], table[i][j - 1])
            )
    return table[-1][-1]


@given(words, words)
def test_the_common_subsequence(a: list[str], b: list[str]) -> None:
    assert common_subsequence(a, b) == slow_common_subsequence(a, b)


@given(st.text(max_size=40), st.text(max_size=40))
def test_rouge_l_is_symmetric_and_a_share(a: str, b: str) -> None:
    assert rouge_l(a, b) == rouge_l(b, a)
    assert 0 <= rouge_l(a, b) <= 1
    assert rouge_l(a, a) == 1


cells = st.one_of(st.none(), st.integers(-2, 2), st.sampled_from(["a", "b"]), st.just(0.5))


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    width = draw(st.integers(1, 3))
    row = st.tuples(*[cells] * width)
    return draw(st.lists(row, max_size=4)), draw(st.lists(row, max_size=4))


@given(tables(), st.booleans())
@settings(max_examples=400)
def test_results_are_compared_as_brute_force_does(
    pair: tuple[list[tuple[object, ...]], list[tuple[object, ...]]], ordered: bool
) -> None:
    gold, found = pair

    def plain(rows: list[tuple[object, ...]], columns: tuple[int, ...]) -> list[str]:
        shown = [repr(tuple(row[i] for i in columns)) for row in rows]
        return shown if ordered else sorted(shown)

    width = range(len(gold[0]) if gold else 0)
    expected = len(gold) == len(found) and any(
        plain(found, columns) == plain(gold, tuple(width))
        for columns in itertools.permutations(width)
    )
    assert same_result(gold, found, ordered=ordered) == expected


@given(tables(), st.randoms(use_true_random=False))
def test_shuffled_rows_and_columns_are_the_same_result(
    pair: tuple[list[tuple[object, ...]], list[tuple[object, ...]]], rng: object
) -> None:
    import random

    assert isinstance(rng, random.Random)
    gold, _ = pair
    order = list(range(len(gold[0]) if gold else 0))
    rng.shuffle(order)
    rows = [tuple(row[i] for i in order) for row in gold]
    rng.shuffle(rows)
    assert same_result(gold, rows, ordered=False)


pairs = st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from("abc")), max_size=6)


@given(pairs, pairs)
def test_span_f1_is_that_of_matched_pairs(
    wanted: list[tuple[str, str]], found: list[tuple[str, str]]
) -> None:
    import json

    def text(spans: list[tuple[str, str]]) -> str:
        return json.dumps({name: [v for n, v in spans if n == name] for name, _ in spans})

    left = list(found)
    hits = 0
    for pair in wanted:
        if pair in left:
            left.remove(pair)
            hits += 1
    expected = 2 * hits / (len(wanted) + len(found)) if wanted or found else 1.0
    assert abs(span_f1(text(wanted), text(found)) - expected) < 1e-12


texts = st.lists(st.text("aB c,", min_size=1, max_size=6), min_size=40, max_size=120)
SHARES = {"train": 0.5, "tune": 0.5}


@given(texts)
def test_a_division_parts_no_twins_and_loses_nothing(items: list[str]) -> None:
    varied = [f"{n} {text}" for n, text in enumerate(items)] + [f"{n}" for n in range(40)]
    found = divide(varied, same_text, SHARES, seed=0)  # type: ignore[arg-type]
    assert sorted(x for part in found.values() for x in part) == sorted(varied)
    homes = [{same_text(x) for x in part} for part in found.values()]
    assert not homes[0] & homes[1]


@given(st.lists(st.integers(0, 20)), st.lists(st.integers(0, 20)), st.lists(st.integers(0, 20)))
def test_no_text_is_left_in_two_splits(train: list[int], tune: list[int], test: list[int]) -> None:
    kept, dropped = without_leaks({"train": train, "tune": tune, "test": test}, str)
    assert kept["test"] == test
    assert kept["tune"] == [x for x in tune if x not in test]
    assert kept["train"] == [x for x in train if x not in test and x not in tune]
    assert sum(dropped.values()) == len(train) + len(tune) - len(kept["train"]) - len(kept["tune"])


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.integers(1, 60))
def test_a_sample_keeps_shares_within_one(classes: list[str], most: int) -> None:
    items = [(c, n) for n, c in enumerate(classes)]
    chosen = sample(items, most, key=str, stratum=lambda item: item[0], seed=0)
    assert len(chosen) == min(most, len(items))
    assert chosen == sorted(chosen, key=lambda item: item[1])
    for c in set(classes):
        share = classes.count(c) * min(1, most / len(items))
        assert abs(sum(item[0] == c for item in chosen) - share) < 1
