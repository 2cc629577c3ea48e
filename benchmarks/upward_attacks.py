"""What the other side learns from what goes up while models are trained: updates, gradients, states.

    python benchmarks/upward_attacks.py [updates] [labels] [shared] [members] [secrecy]

SmolLM2-135M (torch, float32) and customers' questions of `banking77`, test split; how common a token
is, and what is trained in public, is from the train split.

* **updates**: the tokens of an owner's questions, found in gradients of the first layer's q, k and v,
  and in what a LoRA (rank 8, all linear layers) changed by in 1 to 8 local steps of SGD or AdamW on
  chats that end with the label, batch 2, from a first adapter (B nothing) or from one that public
  training made. By the span check where it is told how many there are; by the pursuit that is told, or
  that knows when to stop; beside it the most common tokens, which is what somebody names who has seen
  no update. The same behind codecs, and behind noise that is so many times as long as the update.
* **shared**: the same of the mean of eight owners' updates, which is all that secure aggregation
  shows; and whether one owner was among the eight.
* **labels**: the tokens that a loss was about, from its gradient at a cut behind all layers, or two or
  six before the end, with noise; where the layers behind the cut have a LoRA that the attacker lacks;
  beside it what the public model foretells without a gradient. And a rare binary label by norm and by
  cosine.
* **secrecy**: what it buys that the layers below a cut were tuned at home: tokens found from states
  with the public layers.
* **members**: which texts a LoRA was trained on, of one owner's adapter and of the mean of eight;
  beside it the same of the model that was trained on none.

What was done is kept in `--cells`, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import zlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosilo.attacks.cut_labels import PublicEnd, cosine_scores, labels_behind, norm_scores
from cosilo.attacks.states import recover
from cosilo.attacks.updates import (
    RowSpan,
    heaviest,
    likeness,
    log_shares,
    nearest,
    pursue,
    recovered,
    within,
)
from cosilo.boundary.wire.codecs import codec
from cosilo.models.base import Tokens
from cosilo.models.white_box.adapters import Adapter, adapter_of, with_adapter
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.layers import first_inputs
from cosilo.models.white_box.lm import TorchModel, torch_lm
from cosilo.models.white_box.tuning import prepared
from cosilo.objectives.intervals import mean as mean_interval
from cosilo.objectives.intervals import wilson
from cosilo.objectives.membership import auc
from cosilo.types import user
from kept import Cells, Kept, json_lines
from upward_owner import at_cut, difference, first, nats, rows_of, trained

Array = NDArray[np.float32]

STEPS, BATCH, RANK, OWNERS = (1, 2, 4, 8), 2, 8, 8
TEXTS = {1: 20, 4: 8, 16: 4}  # batches of so many texts → how many of them
NOISES = (0.1, 0.3, 1.0, 3.0)
CODECS = ("fp16", "int8", "int4", "int2", "topk:0.1", "lowrank:8")
SEEDS = (0, 1, 2)


class Bench:
    def __init__(self, data: Path) -> None:
        self.model: TorchModel = torch_lm(model="smollm2-135m-instruct", precision="float32")

        def read(split: str) -> list[tuple[str, str]]:
            found = [
                (row["text"], row["label"].replace("_", " "))
                for row in json_lines(data / f"{split}.jsonl")
            ]
            random.Random(split).shuffle(found)
            return found

        self.public, self.own = read("train"), read("test")
        self._tuned: dict[int, Any] = {}
        self._begun: dict[tuple[bool, int], Adapter] = {}

    @cached_property
    def module(self) -> Any:
        return self.model.module

    @cached_property
    def inputs(self) -> Array:
        return np.asarray(first_inputs(self.module), np.float32)

    def plain(self, text: str) -> Tokens:
        ids = self.model.plain(text).ids
        return Tokens(ids, 1, ())

    def chat(self, row: tuple[str, str]) -> Tokens:
        return self.model.tokenize(user(row[0]), row[1])

    @cached_property
    def template(self) -> list[int]:
        """The tokens that every chat has."""
        some = [set(self.chat(row).ids.tolist()) for row in self.public[:40]]
        return sorted(set.intersection(*some))

    @cached_property
    def common(self) -> NDArray[np.float64]:
        counts = np.zeros(len(self.inputs))
        for row in self.public[1000:4000]:
            np.add.at(counts, self.model.plain(row[0]).ids, 1)
        return log_shares(counts)

    def truth(self, sequences: Sequence[Tokens]) -> set[int]:
        """Their tokens that not every chat has."""
        return {int(i) for s in sequences for i in s.ids} - set(self.template)

    def known_by_heart(self, truth: set[int], known: Sequence[int] = ()) -> float:
        """How many of `truth` somebody names who names the most common tokens."""
        order = [
            int(i) for i in np.argsort(-self.common, kind="stable") if int(i) not in set(known)
        ]
        return recovered(order[: len(truth)], truth)[0]

    def found(
        self, rows: Array, truth: set[int], known: Sequence[int] = (), *, alone: bool = True
    ) -> dict[str, float]:
        """What each attack finds of `truth` in `rows`; with `alone` also where it is not told how many
        there are."""
        if not rows.any():
            nothing = {"span": 0.0, "told": 0.0}
            return nothing | {"stops": 0.0, "stops precision": 1.0} if alone else nothing
        sines = RowSpan.of(rows).sines(self.inputs)
        sines[list(known)] = 2.0
        told = pursue(rows, self.inputs, count=len(truth), known=known, common=self.common)
        said = {
            "span": recovered(nearest(sines, len(truth)), truth)[0],
            "told": recovered(told.tokens, truth)[0],
        }
        if not alone:
            return said
        stops = pursue(rows, self.inputs, known=known, common=self.common)
        recall, precision = recovered(stops.tokens, truth)
        if stops.left > 0.01:  # nothing explained it: no answer, rather than a wrong one
            recall, precision = 0.0, 1.0
        return said | {"stops": recall, "stops precision": precision}

    # ── updates ──────────────────────────────────────────────────────────────

    def gradients(self, size: int, number: int) -> dict[str, Any]:
        """Of one batch of plain texts: what each part of its full gradient says."""
        rows = self.own[number * size : (number + 1) * size]
        sequences = [self.plain(text) for text, _ in rows]
        truth = {int(i) for s in sequences for i in s.ids}
        module = self.module.requires_grad_(False)
        attention = module.get_decoder().layers[0].self_attn
        parts = {n: getattr(attention, f"{n}_proj").weight for n in ("q", "k", "v")}
        parts["embedding"] = module.get_input_embeddings().weight
        for weight in parts.values():
            weight.requires_grad_(True)
        made = torch.autograd.grad(reply_loss(module, sequences), list(parts.values()))
        module.requires_grad_(False)
        gradient = {n: g.numpy() for n, g in zip(parts, made, strict=True)}
        every = np.concatenate([gradient[n] for n in ("q", "k", "v")])
        found: dict[str, Any] = {"tokens": len(truth), "common": self.known_by_heart(truth)}
        for name, matrix in (("q", gradient["q"]), ("q, k, v", every)):
            sines = RowSpan.of(matrix).sines(self.inputs)
            recall, precision = recovered(within(sines), truth)
            found[name] = {"exact": recall, "precision": precision}
            found[name]["told"] = recovered(nearest(sines, len(truth)), truth)[0]
        found["embedding"] = {
            "told": recovered(heaviest(gradient["embedding"], len(truth)), truth)[0]
        }
        rng = np.random.default_rng(number)
        norm = max(1.0, float(np.linalg.norm(every)))
        for noise in (1e-4, 1e-3):
            seen = (every / norm + noise * rng.normal(size=every.shape)).astype(np.float32)
            sines = RowSpan.of(seen, noise=noise).sines(self.inputs)
            told = pursue(seen, self.inputs, count=len(truth), common=self.common)
            found[f"noise {noise:g}"] = {
                "exact": recovered(within(sines), truth)[0],
                "told": recovered(nearest(sines, len(truth)), truth)[0],
                "pursued": recovered(told.tokens, truth)[0],
            }
        for rank in (
            1,
            8,
        ):  # a LoRA's A: random combinations of the gradient's rows, B being public
            b = rng.normal(size=(rank, len(gradient["q"]))).astype(np.float32)
            found[f"LoRA {rank}"] = self.found(b @ gradient["q"], truth)
        return found

    def owner(
        self, rows: Sequence[tuple[str, str]], optimiser: str, begun: bool, seed: int
    ) -> tuple[Adapter, list[tuple[Adapter, list[Tokens]]]]:
        """(the adapter that an owner begins with, it and all that was read after each of STEPS)."""
        if (begun, seed) not in self._begun:
            module = prepared(self.module, method="lora", rank=RANK, seed=seed)
            if begun:  # what an earlier round made: B is no longer nothing
                public = [self.chat(row) for row in self.public[: 4 * BATCH]]
                for _ in trained(module, public, "adamw", 4, rate=1e-3, batch=BATCH):
                    pass
            self._begun[begun, seed] = adapter_of(module)
        first = self._begun[begun, seed]
        module = with_adapter(self.module, first)
        sequences = [self.chat(row) for row in rows]
        kept = []
        for step in trained(module, sequences, optimiser, len(sequences) // BATCH, batch=BATCH):
            if step in STEPS:
                kept.append((adapter_of(module), sequences[: step * BATCH]))
        return first, kept

    def updates(self, optimiser: str, begun: bool, seed: int) -> dict[str, Any]:
        rows = self.own[400 + seed * 64 : 400 + seed * 64 + BATCH * STEPS[-1]]
        first, kept = self.owner(rows, optimiser, begun, seed)
        found: dict[str, Any] = {}
        for step, (adapter, sequences) in zip(STEPS, kept, strict=True):
            truth, change = self.truth(sequences), difference(adapter, first)
            seen = self.found(rows_of(change), truth, self.template, alone=optimiser == "sgd")
            seen |= {"tokens": len(truth), "common": self.known_by_heart(truth, self.template)}
            found[str(step)] = seen
            if step == 4 and begun:
                found |= self.blurred(change, truth, seed)
        return found

    def blurred(self, change: dict[str, Array], truth: set[int], seed: int) -> dict[str, Any]:
        """The update behind codecs, and behind noise."""
        found: dict[str, Any] = {}
        for name in CODECS:
            used = codec(name)
            crossed = {
                n: used.unpack(used.pack(x), *x.shape) for n, x in change.items() if first(n)
            }
            found[name] = self.found(rows_of(crossed), truth, self.template, alone=False)
        numbers = sum(x.size for x in change.values())
        length = float(np.sqrt(sum(np.square(x).sum() for x in change.values())))
        rng = np.random.default_rng(seed)
        for noise in NOISES:
            each = noise * length / np.sqrt(numbers)
            crossed = {
                n: x + each * rng.normal(size=x.shape) for n, x in change.items() if first(n)
            }
            found[f"noise {noise:g}"] = self.found(
                rows_of(crossed), truth, self.template, alone=False
            )
        return found

    def shared(self, optimiser: str, seed: int) -> dict[str, Any]:
        """The mean of eight owners' updates after 1 and 2 steps, and eight others who took no part."""
        made: dict[int, Any] = {}
        for owner in range(2 * OWNERS):
            at = 800 + (seed * 2 * OWNERS + owner) * 2 * BATCH
            rows = self.own[at : at + 2 * BATCH]
            made[owner] = []
            if owner < OWNERS:
                before, kept = self.owner(rows, optimiser, True, seed)
                made[owner] = [(difference(a, before), s) for a, s in kept]
            # What somebody makes who has the owner's texts and the method, in an order of his own.
            random.Random(owner).shuffle(rows)
            before, again = self.owner(rows, optimiser, True, seed)
            made[owner].append((difference(again[-1][0], before), again[-1][1]))
        found: dict[str, Any] = {}
        for at, step in enumerate(STEPS[:2]):
            mean = {
                n: np.mean([made[o][at][0][n] for o in range(OWNERS)], axis=0, dtype=np.float32)
                for n in made[0][at][0]
            }
            truth = self.truth([s for o in range(OWNERS) for s in made[o][at][1]])
            seen = self.found(rows_of(mean), truth, self.template, alone=optimiser == "sgd")
            seen |= {"tokens": len(truth), "common": self.known_by_heart(truth, self.template)}
            found[str(step)] = seen
            if step == 2:
                found["owners"] = [likeness(mean, made[o][-1][0]) for o in range(2 * OWNERS)]
        return found

    # ── labels ───────────────────────────────────────────────────────────────

    @cached_property
    def end(self) -> PublicEnd:
        norm = self.module.get_decoder().norm
        head = self.module.get_output_embeddings().weight.detach().numpy()
        return PublicEnd(head, norm.weight.detach().numpy(), float(norm.variance_epsilon))

    async def labels(self, behind: int, number: int, steps: int) -> dict[str, Any]:
        """One text, cut so many layers before the end. With `steps` its layers behind the cut have a
        LoRA that was trained for so many, which the attacker lacks."""
        ids = self.model.plain(self.own[number][0]).ids.tolist()
        truth, cut = ids[1:], self.model.layers - behind
        module = self.tuned(steps) if steps else self.module
        gradient, states = at_cut(module, ids, cut, behind_cut_only=bool(steps))
        scale, rng = 1 / len(truth), np.random.default_rng(number)
        last = states
        if behind:
            _, last = await self.model.forward(None, states, cut, self.model.layers)
        logits = await self.model.predict(last, 1)
        found: dict[str, Any] = {"n": len(truth)}
        found["foretold"] = int(np.equal(logits.ids[:, 0], truth).sum())
        sizes = np.linalg.norm(gradient, axis=1, keepdims=True) / np.sqrt(gradient.shape[1])
        for noise in (0.0,) if steps else (0.0, 1.0, 3.0, 10.0):
            if behind > 2 and noise > 1:
                continue
            seen = (gradient + noise * sizes * rng.normal(size=gradient.shape)).astype(np.float32)
            if behind:
                top = self.model.layers
                said = await labels_behind(
                    self.model, self.end, seen, states, cut, top, scale=scale
                )
            else:
                said = self.end.next_tokens(seen, last, scale=scale)
            found[f"{noise:g}"] = int(np.equal(said, truth).sum())
        return found

    def tuned(self, steps: int) -> Any:
        """The model with a LoRA, trained at home on chats."""
        if steps not in self._tuned:
            module = prepared(self.module, method="lora", rank=RANK, seed=5)
            rows = self.own[2000 : 2000 + steps * BATCH]
            for _ in trained(
                module, [self.chat(row) for row in rows], "adamw", steps, rate=1e-3, batch=BATCH
            ):
                pass
            self._tuned[steps] = module.eval()
        return self._tuned[steps]

    def binary(self, seed: int) -> dict[str, Any]:
        """A classifier in two hands: one text in ten has the label. 64 numbers cross at the cut."""
        rng, embedding = np.random.default_rng(seed), self.module.get_input_embeddings().weight
        rows = self.own[:600]
        label = np.zeros(600, bool)
        label[rng.choice(600, 60, replace=False)] = True
        words = embedding.detach().numpy()
        x = np.stack([words[self.model.plain(text).ids].mean(axis=0) for text, _ in rows])
        # It can be learned: texts that have it lean in one direction.
        x += label[:, None] * rng.normal(size=x.shape[1]) * x.std() * 0.1
        x = torch.from_numpy(((x - x.mean(0)) / x.std(0)).astype(np.float32))
        torch.manual_seed(seed)
        below = torch.nn.Sequential(torch.nn.Linear(x.shape[1], 64), torch.nn.ReLU())
        above = torch.nn.Sequential(
            torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1)
        )
        y = torch.from_numpy(label.astype(np.float32))
        made = torch.optim.Adam([*below.parameters(), *above.parameters()], lr=1e-3)
        found: dict[str, Any] = {}

        def loss(states: Any, want: Any, how: str) -> Any:
            return torch.nn.functional.binary_cross_entropy_with_logits(
                above(states)[:, 0], want, reduction=how
            )

        for epoch in range(31):
            if epoch in (0, 1, 5, 30):
                states = below(x).detach().requires_grad_(True)
                (gradient,) = torch.autograd.grad(loss(states, y, "sum"), states)
                g = gradient.numpy()
                known = g[int(np.flatnonzero(label)[0])]
                for noise in (0.0, 1.0, 2.0):
                    each = noise * np.linalg.norm(g, axis=1).max() / np.sqrt(g.shape[1])
                    seen = (g + each * rng.normal(size=g.shape)).astype(np.float32)
                    for name, scores in (
                        ("norm", norm_scores(seen)),
                        ("cosine", cosine_scores(seen, known)),
                    ):
                        found[f"{epoch} {noise:g} {name}"] = auc(scores[label], scores[~label])[0]
            for start in range(0, 600, 32):
                some = slice(start, start + 32)
                made.zero_grad()
                loss(below(x[some]), y[some], "mean").backward()
                made.step()
        return found

    # ── secrecy of what lies below the cut ───────────────────────────────────

    async def secrecy(self, depth: int, steps: int, number: int) -> list[int]:
        """[tokens found, tokens] of one text: its states are the tuned layers', the candidates go
        through the public ones. All tokens before count as found."""
        ids = self.model.plain(self.own[number][0]).ids.tolist()[:16]
        home = self.model.with_module(self.tuned(steps)) if steps else self.model
        (seen,) = await home.activations([Tokens(np.array(ids, np.int32), len(ids), ())], depth)
        if home is not self.model:
            await home.close()
        words: Array = self.module.get_input_embeddings().weight.detach().numpy()
        rng = np.random.default_rng(number)

        async def some(place: int, before: Sequence[int]) -> NDArray[np.int64]:
            drawn = rng.integers(0, len(words), 100)
            likely: list[int] = []
            if before:
                _, said = await self.model.read(None, list(before), places=1, top=200)
                likely = said.ids[0].tolist()
            return np.unique([ids[place], *likely, *drawn.tolist()])

        found = await recover(self.model, words, seen, depth, some, truth=ids)
        hits = np.equal(found.ids, ids)[1:]  # the first token is in every text's states alike
        return [int(hits.sum()), len(hits)]

    # ── members ──────────────────────────────────────────────────────────────

    def members(self, seed: int) -> dict[str, Any]:
        """64 texts are trained on by one owner, or by eight with eight each; 64 are not."""
        rows = self.own[2200 + seed * 128 : 2200 + (seed + 1) * 128]
        texts = [text for text, _ in rows]
        sequences = [self.plain(text) for text in texts]
        whole = prepared(self.module, method="lora", rank=16, seed=seed)
        first = adapter_of(whole)
        for _ in trained(whole, sequences[:64] * 4, "adamw", 32, rate=5e-4, batch=8):
            pass
        each = []
        for owner in range(OWNERS):
            module = with_adapter(self.module, first)
            own = sequences[owner * 8 : owner * 8 + 8]
            for _ in trained(module, own * 4, "adamw", 4, rate=5e-4, batch=8):
                pass
            each.append(adapter_of(module))
        mean = {n: np.mean([a.tensors[n] for a in each], axis=0) for n in first.tensors}
        models = {
            "untrained": self.module,
            "one owner": whole,
            "mean of eight": with_adapter(self.module, Adapter(first.rank, first.alpha, mean)),
            "an owner of eight": with_adapter(self.module, each[0]),
        }
        said = {name: [nats(m, s) for s in sequences] for name, m in models.items()}
        found: dict[str, Any] = {}
        for name, logs in said.items():
            scores = {
                "loss": [x.mean() for x in logs],
                "zlib": [
                    x.sum() / len(zlib.compress(t.encode()))
                    for x, t in zip(logs, texts, strict=True)
                ],
                "min_k": [np.sort(x)[: max(1, round(0.2 * len(x)))].mean() for x in logs],
                "reference": [(x - y).mean() for x, y in zip(logs, said["untrained"], strict=True)],
            }
            inside = 8 if name == "an owner of eight" else 64
            for attack, values in scores.items():
                v = np.array(values)
                found[f"{name} {attack}"] = auc(v[:inside], v[64:])
        return found


async def measured(given: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    bench = Bench(given.data)
    cells = Cells(given.cells)

    async def once(key: str, work: Callable[[], Any]) -> None:
        if key not in cells.done:
            made = work()
            cells.put(key, await made if asyncio.iscoroutine(made) else made)
            print(key, json.dumps(cells.done[key])[:400], flush=True)

    parts = given.parts or ["labels", "secrecy", "updates", "shared", "members"]
    if "labels" in parts:
        for seed in range(5):
            await once(f"binary {seed}", lambda s=seed: bench.binary(s))
        for behind, texts in ((0, 12), (2, 6), (6, 3)):
            for number in range(texts):
                await once(
                    f"labels {behind} 0 {number}", lambda b=behind, n=number: bench.labels(b, n, 0)
                )
        for number in range(6):
            await once(f"labels 2 16 {number}", lambda n=number: bench.labels(2, n, 16))
    if "secrecy" in parts:
        for depth in (4, 12):
            for steps in (0, 16):
                for number in range(3):
                    await once(
                        f"secrecy {depth} {steps} {number}",
                        lambda d=depth, s=steps, n=number: bench.secrecy(d, s, n),
                    )
    if "updates" in parts:
        for size, count in TEXTS.items():
            for i in range(count):
                await once(f"gradient {size} {i}", lambda s=size, n=i: bench.gradients(s, n))
        for seed in given.seeds:
            for optimiser in ("sgd", "adamw"):
                for begun in (True, False):
                    await once(
                        f"update {optimiser} {begun} {seed}",
                        lambda o=optimiser, b=begun, s=seed: bench.updates(o, b, s),
                    )
    if "shared" in parts:
        for seed in given.seeds:
            for optimiser in ("sgd", "adamw"):
                await once(
                    f"shared {optimiser} {seed}", lambda o=optimiser, s=seed: bench.shared(o, s)
                )
    if "members" in parts:
        for seed in given.seeds:
            await once(f"members {seed}", lambda s=seed: bench.members(s))
    write(cells.done)
    await bench.model.close()


def write(done: dict[str, Any]) -> None:
    """What was found so far, as the kept file."""
    kept = Kept("upward_attacks", settings={
        "model": "smollm2-135m-instruct", "data": "banking77 test", "batch": BATCH, "rank": RANK,
        "owners": OWNERS, "sgd rate": 0.1, "adamw rate": 2e-4,
    })  # fmt: skip

    def put(row: str, column: str, values: Sequence[float]) -> None:
        found = np.array(values, np.float64)
        low, high = mean_interval(found, (0.0, 1.0)) if len(found) > 1 else (None, None)
        kept.put(row, column, float(found.mean()), n=len(found), low=low, high=high)

    def cells(prefix: str) -> list[Any]:
        return [v for k, v in sorted(done.items()) if k.startswith(prefix)]

    for size in TEXTS:
        some = cells(f"gradient {size} ")
        for name in some[0] if some else ():
            if isinstance(some[0][name], dict):
                for column in some[0][name]:
                    put(f"gradient {size}, {name}", column, [c[name][column] for c in some])
            else:
                values = [c[name] for c in some]
                kept.put(f"gradient {size}", name, float(np.mean(values)), n=len(values))
    for kind in ("update sgd True", "update sgd False", "update adamw True", "update adamw False",
                 "shared sgd", "shared adamw"):  # fmt: skip
        some = cells(kind + " ")
        for name in some[0] if some else ():
            if name == "owners":
                continue
            tokens = [c[name].get("tokens", c.get("4", {}).get("tokens", 0)) for c in some]
            for column in some[0][name]:
                values = [c[name][column] for c in some]
                if column in ("tokens", "stops precision"):
                    kept.put(f"{kind}, {name}", column, float(np.mean(values)), n=len(values))
                    continue
                hits = sum(value * n for value, n in zip(values, tokens, strict=True))
                low, high = wilson(hits, sum(tokens))
                share = hits / sum(tokens)
                kept.put(f"{kind}, {name}", column, share, n=sum(tokens), low=low, high=high)
        inside = [x for c in some for x in c.get("owners", ())[:OWNERS]]
        outside = [x for c in some for x in c.get("owners", ())[OWNERS:]]
        if inside:
            value, low, high = auc(np.array(inside), np.array(outside))
            kept.put(
                f"{kind}, owners", "auc", value, n=len(inside) + len(outside), low=low, high=high
            )
    for kind in ("labels 0 0", "labels 2 0", "labels 6 0", "labels 2 16"):
        some = cells(kind + " ")
        for column in some[0] if some else ():
            if column != "n":
                hits, n = sum(c[column] for c in some), sum(c["n"] for c in some)
                low, high = wilson(hits, n)
                kept.put(kind, column, hits / n, n=n, low=low, high=high)
    some = cells("binary ")
    for column in some[0] if some else ():
        put("binary", column, [c[column] for c in some])
    for key in [key for key in done if key.startswith("members ")]:
        for column, (value, low, high) in done[key].items():
            texts = 72 if column.startswith("an owner") else 128
            kept.put(key, column, value, n=texts, low=low, high=high)
    for depth in (4, 12):
        for steps in (0, 16):
            some = cells(f"secrecy {depth} {steps} ")
            if some:
                hits, n = (sum(part) for part in zip(*some, strict=True))
                low, high = wilson(hits, n)
                kept.put(f"secrecy {depth}", str(steps), hits / n, n=n, low=low, high=high)
    kept.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    known = ("updates", "labels", "shared", "members", "secrecy")
    parser.add_argument("parts", nargs="*", choices=[*known, []], default=[])
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/banking77"))
    parser.add_argument("--cells", type=Path, default=Path("/tmp/upward_attacks_cells.json"))
    asyncio.run(measured(parser.parse_args()))


if __name__ == "__main__":
    main()
