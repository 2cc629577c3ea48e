"""How well the router ranks questions by what the large model gains (Mixtral → GPT-4, recorded).

    python benchmarks/routellm.py [--data ../shared/data/routellm_mmlu]
    python benchmarks/routellm.py --letters LETTERS.jsonl     # of the questions in that file alone

The router learns on the train split (penalty by cross-validation) and the test split is read once.
APGR is the area under performance gap recovered against share of calls (Ong et al., arXiv 2406.18665,
§2.3): 0 is the small model, 1 the large one, a random router gets 0.5. Beside it stand a random
router, the prompt's length, and ridge regression on TF-IDF. Intervals are percentile bootstraps over
the test questions (2,000 resamples, seed 0), paired for the differences.

`--letters` reads, of some of the questions, what Qwen2.5-Coder-1.5B says of the letters A to D (lines
`{"id": "train/…", "letters": [four log-probabilities]}`, taken in an order drawn by a hash of the ids).
How sure that makes it of its own letter is one more view; whether and with what penalty it is used is
chosen on the train questions. The small model whose grades these are, Mixtral, shows no probabilities
in these data, so the letters are another, smaller model's.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosilo.models.kept.recorded import RecordedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.inference.certainty import certainty
from cosilo.strategies.inference.gain import fit_gain
from cosilo.strategies.inference.router import Router
from cosilo.types import Demonstration, user
from kept import Kept, json_lines

Floats = NDArray[np.float64]
RESAMPLES = 2000


def gains(rows: list[dict[str, object]]) -> Floats:
    return np.array(
        [float(bool(r["large_correct"])) - float(bool(r["small_correct"])) for r in rows]
    )


def apgr(scores: Floats, gain: Floats) -> float:
    """Area under PGR over the share of calls, the highest scores being called first."""
    order = np.argsort(-scores, kind="stable")
    recovered = np.concatenate([[0.0], np.cumsum(gain[order])]) / gain.sum()
    return float(np.trapezoid(recovered, np.linspace(0, 1, len(recovered))))


async def router_scores(train: list[dict[str, object]], prompts: list[str]) -> Floats:
    """Expected gains by the same code that a plan runs."""
    examples = tuple(
        Demonstration(str(i), user(str(r["prompt"])), "right") for i, r in enumerate(train)
    )

    def recorded(column: str) -> RecordedModel:
        answers = (
            (e.chat, "right" if r[column] else "wrong", 0.0)
            for e, r in zip(examples, train, strict=True)
        )
        return RecordedModel(answers, name=column)

    session = open_session(
        DataOwner(recorded("small_correct"), calibration=examples),
        LMOwner(recorded("large_correct")),
        Router(),
    )
    prepared, _ = await Router().prepare(session)
    assert isinstance(prepared, Router)
    return prepared.expected_gain(prompts)


def letter_scores(
    train: list[dict[str, object]], prompts: list[str], own: list[Floats]
) -> dict[str, Floats]:
    """Expected gains with and without the letters' certainty, `own` being that of train and of test."""
    found = {}
    for name, view in (("cosilo router", None), ("router with the letter", own[0])):
        texts = [str(r["prompt"]) for r in train]
        model, _ = fit_gain(texts, gains(train), certainty=view)
        print(f"{name}: certainty is read: {model.reads_certainty}")
        found[name] = model.predict(prompts, own[1])
    # The certainty alone, nothing learned: where it is least the large model is asked first.
    return found | {"least sure of its letter": -own[1][:, 0]}


def tfidf_ridge(train: list[dict[str, object]], prompts: list[str]) -> Floats:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    fitted = Ridge(alpha=10).fit(words.fit_transform([r["prompt"] for r in train]), gains(train))
    return np.asarray(fitted.predict(words.transform(prompts)), dtype=np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/routellm_mmlu"))
    parser.add_argument("--letters", type=Path)
    arguments = parser.parse_args()
    train, test = (json_lines(arguments.data / f"{s}.jsonl") for s in ("train", "test"))
    own: list[Floats] = []
    if arguments.letters:
        letters = {str(r["id"]): r["letters"] for r in json_lines(arguments.letters)}
        for name, rows in (("train", train), ("test", test)):
            rows[:] = [r for r in rows if f"{name}/{r['id']}" in letters]
            own.append(certainty([letters[f"{name}/{r['id']}"] for r in rows]))  # type: ignore[misc]
    prompts = [str(r["prompt"]) for r in test]
    gain = gains(test)
    rng = np.random.default_rng(0)
    scores = {
        "random": rng.random(len(test)),
        "prompt length": np.array([float(len(p)) for p in prompts]),
        "TF-IDF ridge": tfidf_ridge(train, prompts),
    }
    if own:
        scores |= letter_scores(train, prompts, own)
    else:
        scores["cosilo router"] = asyncio.run(router_scores(train, prompts))
    ours = "router with the letter" if own else "cosilo router"
    picks = rng.integers(0, len(test), (RESAMPLES, len(test)))
    samples = {n: np.array([apgr(s[p], gain[p]) for p in picks]) for n, s in scores.items()}
    print(f"test n = {len(test)}, train n = {len(train)}")
    kept = Kept(
        "letters" if own else "routellm",
        seed=0,
        settings={"train": len(train), "resamples": RESAMPLES},
    )
    for name, score in scores.items():
        low, high = np.percentile(samples[name], [2.5, 97.5])
        print(f"{name:14s} APGR {apgr(score, gain):.3f} [{low:.3f}, {high:.3f}]")
        kept.put(name, "APGR", apgr(score, gain), n=len(test), low=low, high=high)
    for name in scores:
        if name == ours:
            continue
        difference = samples[ours] - samples[name]
        low, high = np.percentile(difference, [2.5, 97.5])
        value = apgr(scores[ours], gain) - apgr(scores[name], gain)
        print(f"{ours} − {name:14s} {value:+.3f} [{low:+.3f}, {high:+.3f}]")
        kept.put(ours, f"less {name}", value, n=len(test), low=low, high=high)
    kept.write()


if __name__ == "__main__":
    main()
