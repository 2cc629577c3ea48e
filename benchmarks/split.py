"""A model in two hands: what noise on its states costs, and which tokens are found all the same.

    python benchmarks/split.py [--data ../shared/data/banking77] [--cells /tmp/split_cells.json]

SmolLM2-135M (torch, float32) is cut behind 1, 8 and 24 of its 30 layers; states of chats with
customers' questions (`banking77`, test split) cross with noise of five lengths, as multiples of the
median length of a state. **What it costs**: nats of the question's own tokens, and how often the
likeliest next token is the whole model's; the same behind a denoiser that was learned on train texts,
and for a linear map of the states at home alone, which asks nobody. **What is found** of the
question's tokens: by the nearest row of the embedding; by a linear map learned on train texts; by
running candidates through the layers at home (`attacks.states`), as if all tokens before had been
found: the 300 likeliest next tokens, 100 others and the true one are tried, so that the share is what
an attacker who searches well gets; and on a few positions the whole vocabulary is. Three draws of the
noise. What was done is kept in `--cells`, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosilo.attacks.states import LinearBack, nearest_rows
from cosilo.models.base import Tokens
from cosilo.models.white_box.lm import TorchModel, torch_lm
from cosilo.objectives.intervals import mean as mean_interval
from cosilo.objectives.intervals import wilson
from cosilo.privacy.radial_noise import cut_to, eta_for, radial_noise
from cosilo.strategies.denoiser import Denoiser
from cosilo.strategies.split_thread import usual_length
from cosilo.types import user
from kept import Kept

DEPTHS, NOISES, SEEDS = (1, 8, 24), (0.0, 0.5, 1.0, 2.0, 4.0), (0, 1, 2)
PUBLIC, TEXTS, TRIED, OTHERS, WHOLE = 40, 8, 300, 100, 3
Array = NDArray[np.float32]


class Bench:
    def __init__(self, model: TorchModel, data: Path) -> None:
        self.model = model
        self.embedding: Array = model.module.get_input_embeddings().weight.detach().float().numpy()

        def read(split: str, most: int) -> list[list[int]]:
            lines = (data / f"{split}.jsonl").read_text("utf-8").splitlines()
            texts = [json.loads(line)["text"] for line in lines]
            random.Random(split).shuffle(texts)
            return [list(model.prompt(user(text))) for text in texts[:most]]

        self.public, self.texts = read("train", PUBLIC), read("test", TEXTS)
        # Where a question's own tokens begin and end: what all chats have in common is the template's.
        first, second = self.texts[0], self.texts[1]
        self.begin = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
        pairs = zip(reversed(first), reversed(second), strict=False)
        self.end = next(i for i, (a, b) in enumerate(pairs) if a != b)
        self.clips: dict[int, float] = {}

    async def states(self, ids: Sequence[int], depth: int) -> Array:
        tokens = Tokens(np.array(ids, np.int32), len(ids), ())
        (found,) = await self.model.activations([tokens], depth)
        return found

    async def clip(self, depth: int) -> float:
        if depth not in self.clips:
            self.clips[depth] = await usual_length(self.model, depth)  # type: ignore[arg-type]
        return self.clips[depth]

    def noised(self, given: Array, clip: float, noise: float, name: str) -> tuple[Array, Array]:
        """What crosses of `given`, and the noise in it; the first position as it is."""
        drawn = np.zeros_like(given)
        if not noise:
            return given, drawn
        source, eta = random.Random(name), eta_for(noise, clip, given.shape[1])
        for i in range(1, len(given)):
            drawn[i] = radial_noise(source, given.shape[1], eta)
        cut = np.concatenate([given[:1], cut_to(given[1:], clip)])
        return cut + drawn, drawn

    async def above(self, seen: Array, depth: int) -> Array:
        _, found = await self.model.forward(None, seen, depth, self.model.layers)
        return found

    async def said(self, out: Array, ids: Sequence[int]) -> tuple[list[float], list[int]]:
        """Nats of each of the question's tokens, and the likeliest token in its place."""
        size = self.model.vocabulary_size
        places = range(self.begin, len(ids) - self.end)
        said = await self.model.predict(out[self.begin - 1 : len(ids) - self.end - 1], size)
        nats, best = [], []
        for row, place in enumerate(places):
            at = int(np.flatnonzero(said.ids[row] == ids[place])[0])
            nats.append(-float(said.logprobs[row, at]))
            best.append(int(said.ids[row, 0]))
        return nats, best

    async def cost(self, depth: int, noise: float) -> dict[str, Any]:
        clip = await self.clip(depth)
        learned: Denoiser | None = None
        if noise:
            rows = []
            for i, ids in enumerate(self.public):
                given = await self.states(ids, depth)
                seen, drawn = self.noised(given, clip, noise, f"public {i}")
                clean, noisy = await self.above(given, depth), await self.above(seen, depth)
                rows.append((noisy[1:], given[1:], drawn[1:], clean[1:]))
            learned = Denoiser.fit(*(np.concatenate(part) for part in zip(*rows, strict=True)))
        found: dict[str, Any] = {"nats": [], "same": 0, "denoised": [], "denoised_same": 0, "n": 0}
        for i, ids in enumerate(self.texts):
            given = await self.states(ids, depth)
            _, whole = await self.said(await self.above(given, depth), ids)
            for seed in SEEDS if noise else SEEDS[:1]:
                seen, drawn = self.noised(given, clip, noise, f"{seed} {i}")
                out = await self.above(seen, depth)
                nats, best = await self.said(out, ids)
                found["nats"] += nats
                found["same"] += sum(a == b for a, b in zip(best, whole, strict=True))
                found["n"] += len(nats)
                if learned is not None:
                    out = np.concatenate([out[:1], learned(out, given, drawn)[1:]])
                    nats, best = await self.said(out, ids)
                    found["denoised"] += nats
                    found["denoised_same"] += sum(a == b for a, b in zip(best, whole, strict=True))
        return found

    async def alone(self, depth: int) -> dict[str, Any]:
        """What a linear map of the home's own states makes of the LM's outputs, without asking it."""
        given, clean = [], []
        for ids in self.public:
            below = await self.states(ids, depth)
            given.append(below[1:])
            clean.append((await self.above(below, depth))[1:])
        x, y = np.concatenate(given), np.concatenate(clean)
        learned, found = Denoiser.fit(0 * x, x, 0 * x, y), {"same": 0, "n": 0}
        for ids in self.texts:
            below = await self.states(ids, depth)
            out = await self.above(below, depth)
            _, whole = await self.said(out, ids)
            _, best = await self.said(learned(0 * below, below, 0 * below), ids)
            found["same"] += sum(a == b for a, b in zip(best, whole, strict=True))
            found["n"] += len(best)
        return found

    async def weak(self, depth: int, noise: float) -> dict[str, int]:
        clip = await self.clip(depth)
        rows = []
        for i, ids in enumerate(self.public):
            seen, _ = self.noised(await self.states(ids, depth), clip, noise, f"public {i}")
            rows.append(seen[1:])
        known = [token for ids in self.public for token in ids[1:]]
        back = LinearBack.fit(np.concatenate(rows), known, self.embedding)
        found = {"rows": 0, "linear": 0, "n": 0}
        for i, ids in enumerate(self.texts):
            own = ids[self.begin : len(ids) - self.end]
            for seed in SEEDS if noise else SEEDS[:1]:
                seen, _ = self.noised(await self.states(ids, depth), clip, noise, f"{seed} {i}")
                here = seen[self.begin : len(ids) - self.end]
                near = nearest_rows(self.embedding, here)
                mapped = back.nearest(here, 1)[:, 0].tolist()
                found["rows"] += sum(a == b for a, b in zip(near, own, strict=True))
                found["linear"] += sum(a == b for a, b in zip(mapped, own, strict=True))
                found["n"] += len(own)
        return found

    async def strong(self, number: int, whole: bool) -> dict[str, list[int]]:
        """Of one text: for each depth and noise how many of its tokens were found, and of how many.
        The candidates go through all depths at once, and are compared with every noise."""
        ids = self.texts[number]
        crossed = {}
        for depth in DEPTHS:
            given, clip = await self.states(ids, depth), await self.clip(depth)
            for noise in NOISES:
                for seed in SEEDS if noise else SEEDS[:1]:
                    name = f"{seed} {number}"
                    crossed[depth, noise, seed] = self.noised(given, clip, noise, name)[0]
        found: dict[str, list[int]] = {}
        rng = np.random.default_rng(number)
        places = range(self.begin, len(ids) - self.end)
        for place in places[:WHOLE] if whole else places:
            before = ids[:place]
            past, said = await self.model.read(None, before, places=1, top=TRIED)
            tried = rng.integers(0, len(self.embedding), OTHERS)
            some = np.unique([ids[place], *said.ids[0].tolist(), *tried.tolist()])
            if whole:
                some = np.arange(len(self.embedding))
            far: dict[tuple[int, float, int], list[Array]] = {}
            steps = [d for d in (0, *DEPTHS) if d < DEPTHS[-1] and not (whole and d >= DEPTHS[0])]
            pasts = {}
            for low, high in zip(steps, DEPTHS, strict=False):
                below = await self.states(before, low)
                pasts[low], _ = await self.model.forward(None, below, low, high)
            for start in range(0, len(some), 128):
                made = self.embedding[some[start : start + 128]]
                for low, high in zip(steps, DEPTHS, strict=False):
                    made = await self.model.alternatives(pasts[low], made, low, high)
                    for key, seen in crossed.items():
                        if key[0] == high:
                            here = made if not key[1] else cut_to(made, await self.clip(high))
                            far.setdefault(key, []).append(
                                np.linalg.norm(here - seen[place], axis=1)
                            )
            for key, parts in far.items():
                best = int(some[int(np.concatenate(parts).argmin())])
                hits = found.setdefault(f"{key[0]} {key[1]:g}", [0, 0])
                hits[0] += best == ids[place]
                hits[1] += 1
            del past
        return found


async def measured(given: argparse.Namespace) -> None:
    bench = Bench(torch_lm(model="smollm2-135m-instruct"), given.data)
    done: dict[str, Any] = json.loads(given.cells.read_text()) if given.cells.exists() else {}

    async def once(key: str, work: Any) -> Any:
        if key not in done:
            done[key] = await work()
            given.cells.write_text(json.dumps(done))
            print(
                key,
                {k: v for k, v in done[key].items() if k not in ("nats", "denoised")},
                flush=True,
            )
        return done[key]

    for number in range(TEXTS):
        await once(f"strong {number}", lambda n=number: bench.strong(n, False))
    for depth in DEPTHS:
        await once(f"alone {depth}", lambda d=depth: bench.alone(d))
        for noise in NOISES:
            await once(f"cost {depth} {noise:g}", lambda d=depth, x=noise: bench.cost(d, x))
            await once(f"weak {depth} {noise:g}", lambda d=depth, x=noise: bench.weak(d, x))
    await once("whole 0", lambda: bench.strong(0, True))

    kept = Kept("split", settings={
        "model": "smollm2-135m-instruct", "texts": TEXTS, "public": PUBLIC, "tried": TRIED + OTHERS,
        "seeds": list(SEEDS),
    })  # fmt: skip
    for depth in DEPTHS:
        for noise in NOISES:
            row = f"{depth}, {noise:g}"
            cost, weak = done[f"cost {depth} {noise:g}"], done[f"weak {depth} {noise:g}"]
            for name, values in (("nats", cost["nats"]), ("denoised", cost["denoised"])):
                if values:
                    low, high = mean_interval(np.array(values), None)
                    kept.put(row, name, float(np.mean(values)), n=len(values), low=low, high=high)
            alone = done[f"alone {depth}"]
            share(kept, row, "alone", alone["same"], alone["n"])
            share(kept, row, "same", cost["same"], cost["n"])
            if noise:
                share(kept, row, "denoised_same", cost["denoised_same"], cost["n"])
                kept.put(row, "epsilon", 2 * bench.model.width / noise)
            share(kept, row, "rows", weak["rows"], weak["n"])
            share(kept, row, "linear", weak["linear"], weak["n"])
            parts = [done[f"strong {number}"][f"{depth} {noise:g}"] for number in range(TEXTS)]
            share(kept, row, "strong", *(sum(part) for part in zip(*parts, strict=True)))
            if f"{depth} {noise:g}" in done["whole 0"]:
                share(kept, row, "whole", *done["whole 0"][f"{depth} {noise:g}"])
    kept.write()
    await bench.model.close()


def share(kept: Kept, row: str, column: str, hits: int, n: int) -> None:
    low, high = wilson(hits, n)
    kept.put(row, column, hits / n, n=n, low=low, high=high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/banking77"))
    parser.add_argument("--cells", type=Path, default=Path("/tmp/split_cells.json"))
    asyncio.run(measured(parser.parse_args()))


if __name__ == "__main__":
    main()
