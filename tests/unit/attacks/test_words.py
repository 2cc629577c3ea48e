"""The best guesses at words that were replaced at random, against slow ones over everything."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosilo.attacks import words
from cosilo.attacks.base import Target, View
from cosilo.attacks.words import WordPosterior, likeliest, likeliest_in_text, success
from cosilo.boundary.messages import Ask, Message, encode
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.defences import text_dp
from cosilo.defences.text_dp import TextDP
from cosilo.models.encoder.word_table import WordTable
from cosilo.privacy.word_noise import CusText, kernel
from cosilo.types import user

SIZE = 40
TABLE = WordTable(
    tuple(f"word{i}" for i in range(SIZE)),
    np.random.default_rng(5).normal(size=(SIZE, 5)).astype(np.float32),
)


@pytest.fixture(autouse=True)
def _table(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (words, text_dp):
        monkeypatch.setattr(module, "word_table", lambda source, size: TABLE)


@pytest.mark.parametrize("kind", ["santext", "custext", "rantext"])
def test_no_guess_is_right_more_often(kind: str) -> None:
    made = kernel(kind, TABLE.vectors, 3.0, group=6)
    rows, prior = made.rows(range(SIZE)), TABLE.frequencies
    best = sum(max(prior[x] * rows[x, y] for x in range(SIZE)) for y in range(SIZE))
    assert success(rows, prior) == pytest.approx(best)
    naive = sum(prior[x] * rows[x, x] for x in range(SIZE))
    assert best >= naive, "guessing what came out"
    assert best >= prior.max() - 1e-12, "guessing the commonest word"
    source, source2 = random.Random(1), random.Random(2)
    truth = source.choices(range(SIZE), prior, k=3000)
    seen = made.draw(truth, source2)
    right = np.mean([a == b for a, b in zip(likeliest(rows, prior, seen), truth, strict=True)])
    slack = 0.02 if kind == "rantext" else 0.0  # its rows are an average over some radii
    assert right == pytest.approx(best, abs=4 * np.sqrt(0.25 / 3000) + slack)


def test_what_stands_around_a_word_counts_as_it_should() -> None:
    rng = np.random.default_rng(2)
    rows = rng.dirichlet(np.ones(6), size=5)
    prior = rng.dirichlet(np.ones(5))
    follows = rng.dirichlet(np.full(5, 0.4), size=5)
    for seen in ([3, 0, 5, 1], [2, 2, 4], [1], []):
        marginal = np.zeros((len(seen), 5))
        for path in itertools.product(range(5), repeat=len(seen)):
            chance = 1.0
            for i, (word, output) in enumerate(zip(path, seen, strict=True)):
                chance *= (follows[path[i - 1], word] if i else prior[word]) * rows[word, output]
            for i, word in enumerate(path):
                marginal[i, word] += chance
        expected = [int(row.argmax()) for row in marginal]
        assert likeliest_in_text(rows, prior, follows, seen) == expected
        named = np.array([True, False, True, True, False])
        expected = [int((row * named).argmax()) for row in marginal]
        assert likeliest_in_text(rows, prior, follows, seen, named=named) == expected
    assert likeliest_in_text(rows, prior, follows, [2], beam=2) == likeliest(rows, prior, [2])


async def record(folder: Path, texts: dict[str, str], **options: Any) -> View:
    defence = TextDP(words=SIZE, group=6, key_file=folder / "key", **options)
    ledger = MemoryLedger()
    for request, text in texts.items():

        async def forward(message: Message, request: str = request) -> Message:
            ledger.append(request, "up", message, encode(message))
            return message

        await defence.guard(Ask(chat=user(text)), forward, request=request)
    return View(ledger.entries)


@pytest.mark.parametrize("mechanism", ["santext", "custext", "rantext"])
async def test_it_finds_values_where_the_noise_is_weak_and_not_where_it_is_strong(
    tmp_path: Path, mechanism: Any
) -> None:
    groups = CusText(TABLE.vectors, 1.0, group=6).groups
    names = [f"word{members[-1]}" for members in groups[1:5]]
    names[1] += f" word{groups[2][-2]}"
    # Each text is another one: equal texts are drawn once.
    texts = {f"{i}": f"{'word0 ' * (i + 1)}{names[i % 4]} word0" for i in range(40)}
    targets = [Target(f"{i}#a", f"{i}", "secret:x", tuple(names)) for i in range(40)]

    async def right(epsilon: float) -> float:
        view = await record(tmp_path, texts, mechanism=mechanism, epsilon=epsilon)
        guesses = await WordPosterior().guess(view, targets)
        assert [g.target for g in guesses] == [t.id for t in targets]
        return float(np.mean([g.value == names[i % 4] for i, g in enumerate(guesses)]))

    assert await right(30.0) > 0.9
    if mechanism == "custext":
        assert await right(0.01) > 0.9, "which group it was is told whatever ε is"
    else:
        assert await right(0.01) < 0.6


async def test_without_replaced_words_it_has_its_prior(tmp_path: Path) -> None:
    pool = ("word9", "word8", "word8")
    target = Target("1#a", "1", "secret:x", pool)
    ledger = MemoryLedger()
    plain = Ask(chat=user("word9"))
    ledger.append("1", "up", plain, encode(plain))
    for view in (View(lambda: iter(())), View(ledger.entries)):
        (guess,) = await WordPosterior().guess(view, [target])
        assert (guess.value, guess.score) == ("word8", 0.0)
    several = [Target(f"1#{i}", "1", "secret:x", pool) for i in range(3)]
    found = await WordPosterior().guess(View(lambda: iter(())), several)
    assert [g.value for g in found] == ["word8", "word9", ""]


async def test_values_that_cannot_stand_there_count_for_nothing(tmp_path: Path) -> None:
    view = await record(tmp_path, {"1": "word5"}, epsilon=30.0)
    pool = ("word5 word6 word7", "?!", "word5")
    (guess,) = await WordPosterior().guess(view, [Target("1#a", "1", "secret:x", pool)])
    assert guess.value == "word5"
    (none,) = await WordPosterior().guess(view, [Target("1#b", "1", "secret:y")])
    assert none.value == ""


def test_a_word_that_nothing_known_explains_does_not_spoil_the_rest() -> None:
    rows = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # nothing known says output 2
    follows = np.full((2, 2), 0.5)
    found = likeliest_in_text(rows, np.array([0.5, 0.5]), follows, [0, 2, 1, 2, 0])
    assert (found[0], found[2], found[4]) == (0, 1, 0)
