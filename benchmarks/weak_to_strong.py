"""SmolLM2-135M tuned on the labels of a weak model: how much of the gap to its own ceiling that brings.

    python benchmarks/weak_to_strong.py                 three seeds, all arms; resumes
    python benchmarks/weak_to_strong.py --seconds 100   stops between parts once that time is over
    python benchmarks/weak_to_strong.py --tune          what settings do on texts held out of train
    python benchmarks/weak_to_strong.py --report        the table of what is there

Task: eight intents of ../shared/data/banking77 (those of benchmarks/offsite.py). Weak: TF-IDF of words
and pairs of words with logistic regression, on three gold examples of each intent. Strong:
SmolLM2-135M-instruct with LoRA of rank 8 on its last ten layers, tuned by its owner (kind = "tunable")
on 240 other texts of train, once each, of which nobody but the arm `gold` has labels. All are asked
about 160 questions of the test split, which no setting was chosen on.

    weak        on its gold examples               retrained   weak, on its labels of the 240 texts
    strong      on the weak model's hard labels    confident   the same with the confidence loss
    gold        on the gold labels: the ceiling    untuned     the LM as it was

PGR is (arm − weak) / (gold − weak) of accuracies over all seeds together (Burns et al., arXiv
2312.09390); intervals are drawn over seeds' questions, paired.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from cosilo.models.fit.tunable import TunableLM, TuningTerms
from cosilo.models.tunable import LessonPlan, Lessons
from cosilo.models.white_box.choosing import choice_logprobs
from cosilo.models.white_box.lm import TorchModel, torch_lm
from cosilo.objectives.intervals import wilson
from cosilo.types import user
from kept import Kept, json_lines

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TOPICS = (
    "card_arrival", "lost_or_stolen_card", "exchange_rate", "top_up_failed",
    "transfer_timing", "cash_withdrawal_charge", "verify_my_identity", "request_refund",
)  # fmt: skip
SPOKEN = tuple(topic.replace("_", " ") for topic in TOPICS)
SYSTEM = "Name the topic of the customer's question."
GOLD, POOL, HELD, ASKED = 3, 30, 15, 20  # texts of each topic
SEEDS = (0, 1, 2)
LAYERS = 10
PLAN = LessonPlan(steps=30, batch=8, learning_rate=1e-3, rank=8)
CONFIDENCE = 0.5
ARMS = ("weak", "retrained", "strong", "gold", "confident", "untuned")
DRAWS = 4000
Texts = list[tuple[str, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/weak_to_strong"))
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    end = perf_counter() + arguments.seconds
    if arguments.tune:
        asyncio.run(tuned(arguments.folder, end))
        return
    if not arguments.report:
        asyncio.run(measured(arguments.folder, end))
    report(arguments.folder)


async def measured(folder: Path, end: float) -> None:
    large = strong()
    asked = questions()
    for arm in ARMS:  # so that an arm is there for all seeds before the next begins
        for seed in SEEDS:
            gold, pool, _ = drawn(seed)
            place = folder / f"{arm}-{seed}.json"
            if perf_counter() > end or place.exists():
                continue
            cpu = process_time()
            if arm == "untuned" and seed != SEEDS[0]:  # the same model on the same questions
                place.write_text((folder / f"{arm}-{SEEDS[0]}.json").read_text())
                continue
            found = await named(arm, large, gold, pool, asked, seed)
            about = {"right": [int(f == label) for f, (_, label) in zip(found, asked, strict=True)]}
            place.write_text(json.dumps(about | {"cpu_s": process_time() - cpu}))
            print(place.stem, np.mean(about["right"]), f"{process_time() - cpu:.0f} s", flush=True)


async def tuned(folder: Path, end: float) -> None:
    """Settings, on texts of train that are neither gold nor in the pool, of another seed."""
    large, seed = strong(), 100
    gold, pool, held = drawn(seed)
    for arm, changes in (
        ("weak", {}), ("retrained", {}), ("retrained", {"soft": False}), ("strong", {}),
        ("confident", {}), ("confident", {"confidence": 0.75}), ("strong", {"soft": True}),
    ):  # fmt: skip
        place = folder / f"tune-{arm}-{'-'.join(map(str, changes.values()))}.json"
        if perf_counter() > end or place.exists():
            continue
        cpu = process_time()
        found = await named(arm, large, gold, pool, held, seed, **changes)
        right = float(np.mean([f == label for f, (_, label) in zip(found, held, strict=True)]))
        place.write_text(json.dumps({"right": right}))
        print(arm, changes, right, f"{process_time() - cpu:.0f} s", flush=True)


def strong() -> TunableLM:
    model = torch_lm("smollm2-135m-instruct", precision="float32")
    return TunableLM(model, TuningTerms(layers=LAYERS))


def drawn(seed: int) -> tuple[Texts, Texts, Texts]:
    """Gold examples, the pool, and texts held out, of the train split."""
    parts: tuple[Texts, Texts, Texts] = ([], [], [])
    for label, texts in enumerate(of_topics("train")):
        order = np.random.default_rng([seed, label]).permutation(len(texts))
        start = 0
        for part, count in zip(parts, (GOLD, POOL, HELD), strict=True):
            part += [(texts[i], label) for i in order[start : start + count]]
            start += count
    return parts


def questions() -> Texts:
    return [(t, label) for label, texts in enumerate(of_topics("test")) for t in texts[:ASKED]]


def of_topics(split: str) -> list[list[str]]:
    rows = json_lines(DATA / "banking77" / f"{split}.jsonl")
    return [[row["text"] for row in rows if row["label"] == topic] for topic in TOPICS]


async def named(
    arm: str,
    large: TunableLM,
    gold: Texts,
    pool: Texts,
    asked: Texts,
    seed: int,
    *,
    confidence: float = CONFIDENCE,
    soft: bool | None = None,
) -> list[int]:
    """The topic that an arm names for each text of `asked`."""
    weak = Weak(gold, pool)
    if arm == "weak":
        return weak.named(asked)
    shares = weak.shares(pool)
    if not (arm == "retrained" if soft is None else soft):
        shares = np.eye(len(TOPICS), dtype=np.float32)[shares.argmax(1)]
    if arm == "retrained":
        return weak.retrained(pool, shares).named(asked)
    model: TorchModel = large
    if arm != "untuned":
        if arm == "gold":
            shares = np.eye(len(TOPICS), dtype=np.float32)[[label for _, label in pool]]
        lessons = Lessons(tuple(chat(t) for t, _ in pool), SPOKEN, (), shares)
        plan = LessonPlan(
            steps=PLAN.steps, batch=PLAN.batch, learning_rate=PLAN.learning_rate, rank=PLAN.rank,
            seed=seed, confidence=confidence if arm == "confident" else 0.0,
        )  # fmt: skip
        model = await large.plugged("", (await large.tune("", lessons, plan)).name)
    return chosen(model, [text for text, _ in asked])


def chosen(model: TorchModel, texts: Sequence[str]) -> list[int]:
    """The topic that constrained decoding chooses for each text, several texts at once."""
    import torch

    prompts = [model.tokens.prompt(chat(text)) for text in texts]
    replies = [model.tokens.reply(topic)[0] for topic in SPOKEN]
    found = [0] * len(texts)
    order = sorted(range(len(texts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), 16):
        group = order[start : start + 16]
        with torch.no_grad():
            rows = choice_logprobs(model.module, [prompts[i] for i in group], replies)
        for i, best in zip(group, rows.argmax(1).tolist(), strict=True):
            found[i] = best
    return found


def chat(text: str) -> Any:
    return user(text, system=SYSTEM)


class Weak:
    """TF-IDF with logistic regression; the words are those of the gold examples and the pool."""

    def __init__(self, gold: Texts, pool: Texts) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        self.words.fit([t for t, _ in gold + pool])
        self.head = regression().fit(self.seen(gold), [label for _, label in gold])

    def seen(self, texts: Texts) -> Any:
        return self.words.transform([t for t, _ in texts])

    def shares(self, texts: Texts) -> Any:
        return self.head.predict_proba(self.seen(texts)).astype(np.float32)

    def named(self, texts: Texts) -> list[int]:
        return [int(i) for i in self.head.predict(self.seen(texts))]

    def retrained(self, pool: Texts, shares: Any) -> Weak:
        """The same on its own soft labels: each text once for each label, by its share."""
        made = Weak.__new__(Weak)
        made.words = self.words
        rows = np.repeat(np.arange(len(pool)), len(TOPICS))
        made.head = regression().fit(
            self.seen(pool)[rows],
            np.tile(np.arange(len(TOPICS)), len(pool)),
            sample_weight=shares.ravel(),
        )
        return made


def regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10.0, max_iter=1000)


def report(folder: Path) -> None:
    places = {(a, s): folder / f"{a}-{s}.json" for a in ARMS for s in SEEDS}
    missing = [p.name for p in places.values() if not p.exists()]
    arms = [a for a in ARMS if all(places[a, s].exists() for s in SEEDS)]
    print(f"{len(missing)} of {len(places)} parts are missing: {', '.join(missing) or 'none'}")
    if not {"weak", "retrained", "strong", "gold"} <= set(arms):
        return
    right = {
        arm: np.array([json.loads(places[arm, s].read_text())["right"] for s in SEEDS], float)
        for arm in arms
    }
    kept = Kept("weak_to_strong", settings={
        "topics": TOPICS, "gold": GOLD * len(TOPICS), "pool": POOL * len(TOPICS), "seeds": SEEDS,
        "layers": LAYERS, "steps": PLAN.steps, "batch": PLAN.batch, "rate": PLAN.learning_rate,
        "confidence": CONFIDENCE,
    })  # fmt: skip
    count = right["weak"].size
    samples = resampled(right)
    whole = {a: float(r.mean()) for a, r in right.items()}
    for arm in arms:
        if arm == "untuned":  # one model, and the same questions for every seed
            low, high = wilson(right[arm][0].sum(), right[arm].shape[1])
            kept.put(arm, "accuracy", whole[arm], n=right[arm].shape[1], low=low, high=high)
            continue
        low, high = np.quantile([s[arm] for s in samples], [0.025, 0.975])
        kept.put(arm, "accuracy", whole[arm], n=count, low=low, high=high)
    for arm in ("retrained", "strong", "confident"):
        if arm in arms:
            low, high = np.quantile([gap(s, arm) for s in samples], [0.025, 0.975])
            kept.put(arm, "PGR", gap(whole, arm), n=count, low=low, high=high)
    for arm, beside in (
        ("strong", "retrained"),
        ("confident", "retrained"),
        ("confident", "strong"),
    ):
        if arm in arms:
            more = gap(whole, arm) - gap(whole, beside)
            low, high = np.quantile([gap(s, arm) - gap(s, beside) for s in samples], [0.025, 0.975])
            kept.put(arm, f"PGR over {beside}", more, n=count, low=low, high=high)
    kept.write()


def gap(right: dict[str, float], arm: str) -> float:
    return (right[arm] - right["weak"]) / (right["gold"] - right["weak"])


def resampled(right: dict[str, Any]) -> list[dict[str, float]]:
    """Accuracies of all arms on seeds drawn with replacement, and on questions drawn within each."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(DRAWS):
        seeds = rng.integers(0, len(SEEDS), len(SEEDS))
        some = rng.integers(0, right["weak"].shape[1], (len(SEEDS), right["weak"].shape[1]))
        found.append({a: float(r[seeds[:, None], some].mean()) for a, r in right.items()})
    return found


if __name__ == "__main__":
    main()
