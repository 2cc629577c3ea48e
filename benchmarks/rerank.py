"""A small energy model at home chooses among five free answers of an LM; beside one, and the majority.

    python benchmarks/rerank.py draw SAMPLES.jsonl      # ten minutes of CPU; goes on where it stopped
    python benchmarks/rerank.py choose SAMPLES.jsonl

clinc150 without its "out of scope": the LM (Qwen2.5-Coder 1.5B in bfloat16) reads the 150 names of
labels and the request, writes what it likes at temperature 1, and that is matched to the labels at
home. `draw` asks it five times about items of train and of test, drawn by seed 0; the five are
independent, and those that begin alike are computed once. `choose` learns from the items of train, the
settings by cross-validation there, and reads those of test once. Beside one sample (the first), the
majority of the five and what the energy chooses (three seeds of what is drawn while it learns) stand
the answer whose vector is nearest the request's (nothing learned), the best answer of the five
(nothing that chooses among them can do more), and what the same encoder does without any LM: a
classifier of the same items, and the nearest or likeliest of all 150 labels.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.models.base import Array
from cosilo.models.encoder.encoder import Encoder
from cosilo.models.encoder.head import train as trained_head
from cosilo.objectives import intervals
from cosilo.strategies.inference.agreement import distinct, most_agreed
from cosilo.strategies.inference.energy import Candidates, fit_energy
from cosilo.strategies.inference.rerank import encoded
from cosilo.types import Chat, Generation, user
from kept import Kept, noted

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "clinc150"
LM = "qwen2.5-coder-1.5b-instruct"
TRAIN, TEST = 256, 1024
SAMPLES, TEMPERATURE, LONGEST, BATCH = 5, 1.0, 10, 32
ROUNDS, SEEDS = 3, (0, 1, 2)

Row = Mapping[str, Any]


def rows(split: str) -> list[Row]:
    """The requests of a split that have a label, in the order in which they are asked about."""
    lines = (DATA / f"{split}.jsonl").read_text("utf-8").splitlines()
    found = [{"id": f"{split}-{i}", **json.loads(line)} for i, line in enumerate(lines)]
    return [row for row in found if row["label"] != "oos"]


@cache
def labels() -> tuple[str, ...]:
    return tuple(words(label) for label in sorted({row["label"] for row in rows("train")}))


def words(label: str) -> str:
    return label.replace("_", " ")


def chat(text: str) -> Chat:
    offered = "; ".join(labels())
    return user(
        f"Labels of what people ask an assistant for: {offered}.\n"
        f"Which one fits this request? Reply with the label alone.\nRequest: {text}"
    )


def drawn() -> list[tuple[str, Row]]:
    """The items that are asked about, each with its split."""
    rng = random.Random(0)
    train, test = rows("train"), rows("test")
    rng.shuffle(train)
    rng.shuffle(test)
    return [("train", row) for row in train[:TRAIN]] + [("test", row) for row in test[:TEST]]


# ── what the LM says ─────────────────────────────────────────────────────────


def draw(file: Path) -> None:
    import torch

    from cosilo.models.white_box.lm import torch_lm

    torch.set_num_threads(1)
    lm = torch_lm(LM, precision="bfloat16")
    todo = drawn()
    done = {row["id"] for row in noted(file)}
    with torch.inference_mode(), file.open("a") as out:
        drawing = Drawing(lm, [lm.prompt(chat(row["text"])) for _, row in todo[:8]])
        for start in range(0, len(todo), BATCH):
            part = todo[start : start + BATCH]
            if part[0][1]["id"] in done:
                continue
            found = drawing.replies([row["text"] for _, row in part], seed=start)
            for (split, row), said in zip(part, found, strict=True):
                kept = {"id": row["id"], "split": split, "text": row["text"]}
                kept |= {"label": words(row["label"]), "said": said}
                out.write(json.dumps(kept) + "\n")
            out.flush()


class Drawing:
    """Draws `SAMPLES` replies to each prompt; all prompts begin alike, which is read once."""

    def __init__(self, lm: Any, prompts: Sequence[Sequence[int]]) -> None:
        import torch

        self._lm, self._net = lm, lm.module.eval()
        places = zip(*prompts, strict=False)
        # One token less than all of it, as the kept samples were drawn: in bfloat16 that moves draws.
        alike = next(i for i, place in enumerate(places) if len(set(place)) > 1) - 1
        self._alike = alike
        read = self._net(torch.tensor([prompts[0][:alike]]), use_cache=True, logits_to_keep=1)
        self._read = [(x.keys.clone(), x.values.clone()) for x in read.past_key_values.layers]

    def replies(self, texts: Sequence[str], seed: int) -> list[list[str]]:
        import torch

        generator = torch.Generator().manual_seed(seed)
        found: list[list[list[int]]] = [[] for _ in texts]
        cache, mask, places, logits = self._begun(texts)
        # A row is a beginning that some of an item's samples share: (item, how many, tokens so far).
        shared: list[tuple[int, int, list[int]]] = [(i, SAMPLES, []) for i in range(len(texts))]
        for step in range(LONGEST):
            chances = torch.softmax(logits / TEMPERATURE, -1)
            parents, grown = [], []
            for at, (item, count, said) in enumerate(shared):
                tokens = torch.multinomial(chances[at], count, True, generator=generator).tolist()
                for token in sorted(set(tokens)):
                    many = tokens.count(token)
                    if token in self._lm.ends:
                        found[item] += [said] * many
                    elif step == LONGEST - 1:
                        found[item] += [[*said, token]] * many
                    else:
                        parents.append(at)
                        grown.append((item, many, [*said, token]))
            if not parents:
                break
            shared, chosen = grown, torch.tensor(parents)
            cache.batch_select_indices(chosen)
            mask = torch.cat([mask[chosen], torch.ones(len(shared), 1, dtype=torch.long)], 1)
            places = places[chosen] + 1
            last = torch.tensor([[said[-1]] for _, _, said in shared])
            logits = self._run(last, cache, mask, places)
        # Samples that share a beginning stand together: in another order the first is any of them.
        orders = [torch.randperm(SAMPLES, generator=generator).tolist() for _ in texts]
        return [
            [b"".join(map(self._lm.piece, said[i])).decode("utf-8", "replace") for i in order]
            for said, order in zip(found, orders, strict=True)
        ]

    def _begun(self, texts: Sequence[str]) -> tuple[Any, Any, Any, Any]:
        """Cache, mask, last places and next logits, once all prompts are read; padded on the left."""
        import torch
        from transformers import DynamicCache

        rest = [list(self._lm.prompt(chat(text)))[self._alike :] for text in texts]
        longest = max(map(len, rest))
        ids = torch.tensor([[0] * (longest - len(r)) + r for r in rest])
        own = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rest])
        mask = torch.cat([torch.ones(len(rest), self._alike, dtype=torch.long), own], 1)
        places = (mask.cumsum(1) - 1)[:, self._alike :]
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self._read):
            many = (len(rest), -1, -1, -1)
            cache.update(keys.expand(many).contiguous(), values.expand(many).contiguous(), layer)
        return cache, mask, places[:, -1:], self._run(ids, cache, mask, places)

    def _run(self, ids: Any, cache: Any, mask: Any, places: Any) -> Any:
        found = self._net(
            ids,
            attention_mask=mask,
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return found.logits[:, -1].float()


# ── which one is chosen ──────────────────────────────────────────────────────


class MiniLM:
    def __init__(self) -> None:
        self._encoder = Encoder()

    def embed(self, texts: Sequence[str]) -> Array:
        return self._encoder.embed(texts).vectors


def candidates(row: Row, encoder: MiniLM) -> Candidates | None:
    """The different answers to a request; None where no sample names a label."""
    forms = distinct([Generation(text) for text in row["said"]], labels())
    if not forms:
        return None
    features = encoded(encoder, row["text"], [*forms, (row["label"],)], closed=True)
    counts = np.array([len(places) for places in forms.values()], dtype=np.float64)
    right = np.array([form == (row["label"],) for form in forms])
    return Candidates(features[:-1], counts / counts.sum(), right, features[-1])


def named_right(row: Row, samples: slice) -> bool:
    """Whether the majority of these samples names the label."""
    replies = [Generation(text) for text in row["said"][samples]]
    at, agree = most_agreed(replies, labels())
    return bool(agree) and (row["label"],) in distinct([replies[at]], labels())


def choose(file: Path) -> None:
    encoder, items = MiniLM(), noted(file)
    train = [row for row in items if row["split"] == "train"][:TRAIN]
    test = [row for row in items if row["split"] == "test"][:TEST]
    if (len(train), len(test)) != (TRAIN, TEST):
        raise SystemExit(f"{len(train)} + {len(test)} of {TRAIN} + {TEST} items are drawn")
    learned_from = [c for c in (candidates(row, encoder) for row in train) if c is not None]
    asked = [candidates(row, encoder) for row in test]
    kept = Kept(
        "rerank",
        settings={
            "LM": LM, "precision": "bfloat16", "samples": SAMPLES, "temperature": TEMPERATURE,
            "encoder": "minilm-int8", "train": TRAIN, "test": TEST, "rounds": ROUNDS, "seeds": SEEDS,
        },
    )  # fmt: skip
    one = np.array([named_right(row, slice(0, 1)) for row in test], dtype=np.float64)
    most = np.array([named_right(row, slice(None)) for row in test], dtype=np.float64)
    share(kept, "one sample", one)
    share(kept, "majority of five", most)
    against(kept, "majority of five", most, {"one sample": one})
    seeds = []
    for seed in SEEDS:
        energy = fit_energy(learned_from, draws=SAMPLES, rounds=ROUNDS, seed=seed)
        print(f"seed {seed}: alpha {energy.alpha}, ridge {energy.ridge}, {energy.pairs} pairs")
        likely = [None if c is None else energy.adapted(c.features, c.shares) for c in asked]
        found = [
            c is not None and p is not None and bool(c.right[p.argmax()])
            for c, p in zip(asked, likely, strict=True)
        ]
        seeds.append(np.array(found, dtype=np.float64))
        share(kept, f"energy, seed {seed}", seeds[-1])
        against(
            kept, f"energy, seed {seed}", seeds[-1], {"one sample": one, "majority of five": most}
        )
    nearest = [c is not None and bool(c.right[c.features[:, -1].argmax()]) for c in asked]
    share(kept, "nearest answer", np.array(nearest, dtype=np.float64))
    against(
        kept, "energy, seed 0", seeds[0], {"nearest answer": np.array(nearest, dtype=np.float64)}
    )
    best = np.array([c is not None and bool(c.right.any()) for c in asked], dtype=np.float64)
    share(kept, "the best of the five", best)
    texts = [row["text"] for row in train]
    head = trained_head(encoder.embed(texts), texts, [row["label"] for row in train])
    texts = [row["text"] for row in test]
    guesses = head.probabilities(encoder.embed(texts), texts).argmax(axis=1)
    alone = [head.labels[g] == row["label"] for g, row in zip(guesses, test, strict=True)]
    share(kept, "classifier alone", np.array(alone, dtype=np.float64))
    every = [tuple([label]) for label in labels()]
    at_home: dict[str, list[bool]] = {
        "nearest of all labels, no LM": [],
        "energy over all labels, no LM": [],
    }
    energy = fit_energy(learned_from, draws=SAMPLES, rounds=ROUNDS, seed=SEEDS[0])
    for row in test:
        features = encoded(encoder, row["text"], every, closed=True)
        for scores, found in zip(
            (features[:, -1], features @ energy.weights), at_home.values(), strict=True
        ):
            found.append(every[int(scores.argmax())] == (row["label"],))
    for name, right in at_home.items():
        share(kept, name, np.array(right, dtype=np.float64))
        against(kept, "energy, seed 0", seeds[0], {name: np.array(right, dtype=np.float64)})
    none = [c is None for c in asked]
    share(kept, "no sample names a label", np.array(none, dtype=np.float64), column="share")
    kept.write()


def share(kept: Kept, row: str, right: np.ndarray, column: str = "accuracy") -> None:
    low, high = intervals.wilson(float(right.sum()), len(right))
    kept.put(row, column, float(right.mean()), n=len(right), low=low, high=high)
    print(f"{row}: {right.mean():.4f} [{low:.4f}, {high:.4f}]")


def against(kept: Kept, row: str, own: np.ndarray, others: Mapping[str, np.ndarray]) -> None:
    for name, other in others.items():
        low, high = intervals.difference(own, other, (-1.0, 1.0))
        gain = float((own - other).mean())
        kept.put(row, f"less {name}", gain, n=len(own), low=low, high=high)
        print(f"   less {name}: {gain:+.4f} [{low:+.4f}, {high:+.4f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=("draw", "choose"))
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    (draw if arguments.what == "draw" else choose)(arguments.file)


if __name__ == "__main__":
    main()
