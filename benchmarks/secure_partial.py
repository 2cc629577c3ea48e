"""What it costs to compute on the private part of a prompt alone in secret, and what other splits tell.

    python benchmarks/secure_partial.py                   # needs 9 GB, and two hours
    python benchmarks/secure_partial.py --whole 20 --cut 6
    python benchmarks/secure_partial.py --parts bytes     # some of it; only all of it is kept

Prompts of 64 tokens: a public text, a sentence with a span whose place is known, another public text;
the same span begins at each eighth. The LM's owner is curious: it has the layers, and reads what
crosses.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import or_
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.defences.at_home import finder
from cosilo.defences.hiding import Hiding, Settings
from cosilo.engines import llama, prefix
from cosilo.engines.base import Program, Setting
from cosilo.engines.llama import Llama
from cosilo.engines.partial import clear_tokens
from cosilo.engines.spu.run import Deadlines, JointRun
from cosilo.objectives import intervals
from cosilo.parties.joint_llama import proved
from cosilo.types import user
from kept import Cells, Kept
from secure_partial_attacked import DEPTHS, Attacker
from secure_partial_picture import draw
from secure_rows import LAYER, errors, public_ids, smollm2

TOKENS = 64
BEGINS = tuple(range(8, TOKENS, 8))
MANY = {"PERSON": 8, "STREET_ADDRESS": 4, "DATE_TIME": 4, "ZIP_CODE": 4}
"""How many prompts have a span of which kind."""
SPAN = range(2, 7)  # tokens of a span
PIECES = 3
PARTS = ("bytes", "whole", "attacks", "detected")
SPANS = Path("../shared/data/presidio_synth")
FIRST = 1  # <|im_start|>


@dataclass(frozen=True)
class Prompt:
    """What stands left of a span, the span, and what stands right of it, as tokens."""

    left: list[int]
    span: list[int]
    right: list[int]
    kind: str

    def beginning(self, at: int) -> list[int]:
        """The prompt whose span begins at token `at`."""
        return [FIRST, *self.left[-(at - 1) :], *self.span, *self.right][:TOKENS]


def prompts(words: Any) -> list[Prompt]:
    """Drawn in the order of the files: no value twice."""
    around = iter(public_ids(words, 2 * TOKENS, 2 * sum(MANY.values())))
    found: list[Prompt] = []
    seen: set[str] = set()
    lines = [
        json.loads(line)
        for split in ("train", "test")
        for line in (SPANS / f"{split}.jsonl").read_text("utf-8").splitlines()
    ]
    for kind, many in MANY.items():
        left = many
        for line in lines:
            text = line["text"]
            encoded = words(text, return_offsets_mapping=True)
            ids, places = encoded["input_ids"], encoded["offset_mapping"]
            for start, end, its, value in line["spans"]:
                on = [i for i, (a, b) in enumerate(places) if a < end and b > start]
                if its != kind or value in seen or len(on) not in SPAN or not left:
                    continue
                seen.add(value)
                left -= 1
                before, after = next(around), next(around)
                a, b = on[0], on[-1] + 1
                found.append(Prompt([*before, *ids[:a]], ids[a:b], [*ids[b:], *after], kind))
                break
    return found


class Bench:
    def __init__(self, cells: Cells, cut: int) -> None:
        self.cells, self.cut = cells, cut
        self.model, self.words = smollm2()
        self.prompts = prompts(self.words)
        texts = public_ids(self.words, TOKENS, 80)[-24:]  # none of those around the spans
        self.public = [[FIRST, *ids[: TOKENS - 1]] for ids in texts]

    @cached_property
    def shifts(self) -> list[list[int]]:
        """How often states are halved: ranges are proved for public texts."""
        states = (self.model.table[ids] for ids in self.public)
        return proved(self.model, reduce(or_, (llama.observe(self.model, s) for s in states)))[0]

    def part(self, first: int, after: int) -> Llama:
        """Some of its layers."""
        model = self.model
        return replace(
            model,
            mixed=model.mixed[first:after],
            out=model.out[first:after],
            gated=model.gated[first:after],
            down=model.down[first:after],
        )

    def below(self, ids: Sequence[int], layers: int) -> Any:
        """States after so many layers."""
        states = self.model.table[list(ids)]
        return llama.forward(self.part(0, layers), states)[0] if layers else states

    def shape(
        self, first: int, after: int, before: int, tokens: int, **ends: Any
    ) -> dict[str, Any]:
        halvings = [*self.shifts[2 * first : 2 * after], self.shifts[2 * after]]
        return {**self.part(first, after).shape(tokens, halvings, **ends), "before": before}

    # ── bytes by shape ───────────────────────────────────────────────────────

    def block(self, before: int, tokens: int) -> dict[str, float]:
        """One block in secret, behind so many places in clear."""
        ids = self.prompts[0].beginning(before or BEGINS[-1])[: before + tokens]
        one, states = self.part(LAYER, LAYER + 1), self.below(ids, LAYER)
        clear = list(prefix.keys_and_values(one, states[:before])) if before else None
        shape = self.shape(LAYER, LAYER + 1, before, tokens, starts="states", ends="states")
        owned = one.owned(starts="states", ends="states")
        ((outputs, found),) = asyncio.run(computed(shape, owned, [([states[before:]], clear)]))
        plain = llama.forward(one, states)[0][before:]
        return {**found, "in_range": float(outputs[1]), **errors(outputs[0], plain)}

    def ends(self, tokens: int, tells: str) -> dict[str, float]:
        """The same block from tokens to logits, or to the label: what the two ends cost beside it."""
        ids = self.prompts[0].beginning(BEGINS[-1])[:tokens]
        one = self.part(0, 1)
        shape = self.shape(0, 1, 0, tokens, starts="tokens", ends=tells)
        owned = one.owned(starts="tokens", ends="label")
        given = [one_hot(ids, len(one.table)), np.eye(tokens)[-1:]]
        ((_, found),) = asyncio.run(computed(shape, owned, [(given, None)]))
        return found

    def bytes(self) -> None:
        for before in (0, *BEGINS):
            self.once(f"block {before}", lambda b=before: self.block(b, TOKENS - b))
        self.once("block alone 8", lambda: self.block(0, 8))
        for tokens, tells in ((8, "logits"), (64, "logits"), (8, "label")):
            self.once(f"ends {tokens} {tells}", lambda t=tokens, e=tells: self.ends(t, e))

    # ── SmolLM2 on the private rest ──────────────────────────────────────────

    def order(self) -> list[int]:
        """The prompts' numbers: one of each kind, then the next of each."""
        kinds = [prompt.kind for prompt in self.prompts]
        return sorted(range(len(kinds)), key=lambda k: (kinds[:k].count(kinds[k]), k))

    def whole(self, many: int) -> None:
        """All layers on the last eighth, in pieces: states between them are opened and shared again.

        A real run opens nothing; here it keeps memory small, and adds the bytes of the states.
        """
        before = BEGINS[-1]
        tokens, layers = TOKENS - before, self.model.layers
        for piece in range(PIECES):
            first, after = (layers * k // PIECES for k in (piece, piece + 1))
            waiting = [k for k in self.order()[:many] if f"{piece} {k}" not in self.cells.done]
            if waiting:
                asyncio.run(self.piece(piece, first, after, before, tokens, waiting))

    async def piece(
        self, piece: int, first: int, after: int, before: int, tokens: int, waiting: list[int]
    ) -> None:
        part, ends = self.part(first, after), after == self.model.layers
        way: dict[str, Any] = {
            "starts": "states" if piece else "tokens",
            "ends": "logits" if ends else "states",
        }
        owned, shape = part.owned(**way), self.shape(first, after, before, tokens, **way)
        work = []
        for k in waiting:
            ids = self.prompts[k].beginning(before)
            given = [one_hot(ids[before:], len(part.table))]
            if piece:
                given = [np.array(self.cells.done[f"{piece - 1} {k}"]["states"])]
            if ends:
                given.append(np.eye(tokens)[-1:])
            clear = prefix.keys_and_values(part, self.below(ids[:before], first))
            work.append((given, list(clear)))
        found = computed_each(shape, owned, work)
        async for k, (outputs, spent) in numbered(waiting, found):
            cell = {**spent, "in_range": float(outputs[1])}
            if ends:
                ids = self.prompts[k].beginning(before)
                states, _ = llama.forward(self.model, self.model.table[ids])
                cell |= errors(outputs[0], llama.logits(self.model, states[-1:])[0])
            else:
                cell["states"] = outputs[0].tolist()
            self.put(f"{piece} {k}", cell)

    # ── attacks ──────────────────────────────────────────────────────────────

    def attacks(self) -> None:
        """Each cell: what was said of the span, as tokens."""
        attacker = Attacker(self.model, self.words)
        begin, order = BEGINS[-1], self.order()
        texts = {k: prompt.beginning(begin) for k, prompt in enumerate(self.prompts)}
        ends = {k: begin + len(prompt.span) for k, prompt in enumerate(self.prompts)}

        def plainly(k: int) -> dict[str, Any]:
            ids, end, kind = texts[k], ends[k], self.prompts[k].kind
            before, after = ids[:begin], ids[end:]
            hidden = attacker.with_placeholder(ids, begin, end, kind)
            return {
                "prefix": attacker.guessed(before, end - begin),
                "pseudonym": attacker.beside_placeholder(before, end - begin, after, k),
                "answer": attacker.next(ids),
                "pseudonym answer": attacker.next(hidden),
            }

        def in_clear(k: int) -> dict[str, Any]:
            said, off = attacker.read(texts[k], begin, ends[k])
            return {"said": said, "off": off}

        def public(depth: int) -> tuple[Any, list[int]]:
            states = [self.below(ids, depth)[1:] for ids in self.public]
            return np.concatenate(states), [i for ids in self.public for i in ids[1:]]

        def cut(k: int, depth: int) -> dict[str, Any]:
            seen = self.below(texts[k], depth)
            work = attacker.from_states(seen, depth, texts[k], begin, ends[k], public)
            return {"said": asyncio.run(work)}

        def shared() -> dict[str, Any]:
            found = attacker.shared([prompt.span for prompt in self.prompts])
            return {"two": [two for two, _ in found], "three": [three for _, three in found]}

        self.once("shares", shared)
        for k in order:
            self.once(f"plainly {k}", lambda k=k: plainly(k))
        for k in order:
            self.once(f"reads {k}", lambda k=k: in_clear(k))
        for depth in DEPTHS:
            for k in order[: self.cut]:
                self.once(f"states {depth} {k}", lambda k=k, d=depth: cut(k, d))

    # ── where the detectors cut ──────────────────────────────────────────────

    def detected(self) -> None:
        """How many tokens of each prompt may be in clear by what `pseudonym` would hide of it."""
        settings = Settings(
            detectors=("presidio",), model="en-core-web-md", kinds=(), min_score=0.3, allow=(),
            public_system=False, databases=None, values=(), hints=False, seconds=60.0, dates=True,
        )  # fmt: skip
        finds = finder(Hiding(settings))

        def encoded(text: str) -> list[int]:
            return list(self.words(text)["input_ids"])

        async def cuts() -> dict[str, Any]:
            cut = []
            for prompt in self.prompts:
                text = self.words.decode(prompt.beginning(BEGINS[-1])[1:])
                values = [each.value for each in await finds(user(text))]
                cut.append(1 + clear_tokens(text, encoded(text), values, encoded))
            return {"cut": cut}

        self.once("detected", lambda: asyncio.run(cuts()))

    # ── what came out ────────────────────────────────────────────────────────

    def megabytes(self, begin: int, tokens: float, layers: int | None = None) -> float:
        """Of so many layers, all by default, on `tokens` behind `begin` places in clear, and both ends.

        Of 64 tokens in all a block's bytes are a line in those in secret; so are the ends'.
        """
        done = self.cells.done
        block = np.interp(
            tokens,
            [TOKENS - b for b in (*reversed(BEGINS), 0)],
            [done[f"block {b}"]["online"] for b in (*reversed(BEGINS), 0)],
        )
        if tokens < TOKENS - BEGINS[-1]:
            last, one = (done[f"block {b}"]["online"] for b in BEGINS[:-3:-1])
            block = last + (one - last) / (BEGINS[-1] - BEGINS[-2]) * (tokens - TOKENS + BEGINS[-1])
        few = done["ends 8 logits"]["online"] - done["block alone 8"]["online"]
        many = done["ends 64 logits"]["online"] - done["block 0"]["online"]
        ends = few + (many - few) * (tokens - 8) / (64 - 8)
        return float((layers or self.model.layers) * block + ends) / 1e6

    def write(self) -> None:
        kept = Kept("secure_partial", seed=0, settings={"tokens": TOKENS, "field": 64, "bits": 18})
        done, spans = self.cells.done, [prompt.span for prompt in self.prompts]
        full = self.megabytes(0, TOKENS)
        for begin in (0, *BEGINS):
            megabytes = self.megabytes(begin, TOKENS - begin)
            kept.put(f"begins at {begin}", "online_mb", megabytes)
            kept.put(f"begins at {begin}", "share", megabytes / full)
            kept.put(f"begins at {begin}", "block_error", done[f"block {begin}"]["error"])
        label = (done["ends 8 label"]["online"] - done["ends 8 logits"]["online"]) / 1e6
        kept.put("label", "online_mb", label)
        last_eighth = self.megabytes(BEGINS[-1], TOKENS - BEGINS[-1])
        kept.put("label", "share", (last_eighth + label) / (full + label))
        whole = [k for k in self.order() if f"{PIECES - 1} {k}" in done]
        if whole:
            self.put_whole(kept, whole)
        guessed = {k: done[f"plainly {k}"]["prefix"] for k in range(len(spans))}
        mean, last = float(np.mean([len(span) for span in spans])), TOKENS - BEGINS[-1]
        splits: dict[str, tuple[float, dict[int, list[int]]]] = {
            "guess": (0.0, guessed),
            "frequent": (0.0, self.frequent()),
            "clear": (0.0, dict(enumerate(spans))),
            "secret": (full, self.either(guessed, done["shares"]["two"])),
            "suffix": (
                self.megabytes(BEGINS[-1], last),
                self.either(guessed, done["shares"]["two"]),
            ),
            "pseudonym": (0.0, {k: done[f"plainly {k}"]["pseudonym"] for k in guessed}),
            "span": (self.megabytes(BEGINS[-1], mean), self.said("reads")),
        }
        for depth in DEPTHS:
            cost = self.megabytes(BEGINS[-1], last, depth)
            splits[f"first {depth}"] = (cost, self.said(f"states {depth}"))
        for name, (megabytes, said) in splits.items():
            self.put_split(kept, name, megabytes, said, guessed)
        answers = [done[f"plainly {k}"] for k in guessed]
        same = np.array([a["answer"] == a["pseudonym answer"] for a in answers])
        low, high = intervals.wilson(float(same.sum()), len(same))
        kept.put("pseudonym", "same", float(same.mean()), n=len(same), low=low, high=high)
        cut = np.array(done["detected"]["cut"])
        kept.put("detected", "covered", float((cut <= BEGINS[-1]).mean()), n=len(cut))
        kept.put("detected", "tokens", float(np.mean(TOKENS - cut)), n=len(cut))
        kept.write()
        draw()

    def put_whole(self, kept: Kept, whole: list[int]) -> None:
        done = self.cells.done
        each = [[done[f"{piece} {k}"] for piece in range(PIECES)] for k in whole]
        # States are told to the data owner and shared again between pieces: no part of a real run.
        row, last = "whole", TOKENS - BEGINS[-1]
        sums = [sum(cell["online"] for cell in cells) / 1e6 for cells in each]
        kept.put(row, "online_mb", float(np.mean(sums)), n=len(whole))
        kept.put(row, "off_by", float(np.mean(sums)) / self.megabytes(BEGINS[-1], last) - 1)
        kept.put(row, "share", float(np.mean(sums)) / self.megabytes(0, TOKENS), n=len(whole))
        kept.put(row, "cpu_s", float(np.mean([sum(c["cpu_s"] for c in cells) for cells in each])))
        kept.put(row, "setup_mb", sum(cell["setup"] for cell in each[0]) / 1e6)
        ends = [cells[-1] for cells in each]
        kept.put(row, "error", max(cell["error"] for cell in ends), n=len(whole))
        kept.put(row, "same", float(np.mean([cell["same_label"] for cell in ends])), n=len(whole))
        fits = [min(cell["in_range"] for cell in cells) for cells in each]
        kept.put(row, "in_range", float(np.mean(fits)), n=len(whole))

    def said(self, attack: str) -> dict[int, list[int]]:
        """What it said of each prompt that it was tried on."""
        cells = self.cells.done
        names = {k: f"{attack} {k}" for k in range(len(self.prompts))}
        return {k: cells[name]["said"] for k, name in names.items() if name in cells}

    def either(
        self, guessed: dict[int, list[int]], shared: list[list[int]]
    ) -> dict[int, list[int]]:
        """Tokens that the guess or the shares have right: more than who has to choose between them."""
        return {
            k: [b if b == token else a for a, b, token in zip(one, shared[k], span, strict=True)]
            for k, one in guessed.items()
            if (span := self.prompts[k].span)
        }

    def frequent(self) -> dict[int, list[int]]:
        """Of each span the token that the other spans of its kind have most often, each time."""
        found = {}
        for k, prompt in enumerate(self.prompts):
            others = [
                p.span for n, p in enumerate(self.prompts) if n != k and p.kind == prompt.kind
            ]
            ((token, _),) = Counter(t for span in others for t in span).most_common(1)
            found[k] = [token] * len(prompt.span)
        return found

    def put_split(
        self,
        kept: Kept,
        name: str,
        megabytes: float,
        said: dict[int, list[int]],
        guessed: dict[int, list[int]],
    ) -> None:
        """Tokens found, and of those that the guess misses, those found."""
        spans = {k: np.array(self.prompts[k].span) for k in said}
        found = {k: np.array(said[k]) == spans[k] for k in said}
        right = np.array([found[k].sum() for k in said], np.float64)
        tokens = np.array([len(spans[k]) for k in said], np.float64)
        low, high = intervals.bootstrap(
            lambda weights: weights @ right / (weights @ tokens), len(said), bounds=(0.0, 1.0)
        )
        kept.put(name, "online_mb", megabytes)
        kept.put(name, "found", right.sum() / tokens.sum(), n=int(tokens.sum()), low=low, high=high)
        kept.put(name, "spans", float(np.mean(right == tokens)), n=len(said))
        missed = {k: np.array(guessed[k]) != spans[k] for k in said}
        more = sum(int((found[k] & missed[k]).sum()) for k in said)
        of = sum(int(each.sum()) for each in missed.values())
        low, high = intervals.clopper_pearson(more, of)
        kept.put(name, "more", more / of, n=of, low=low, high=high)

    def once(self, name: str, work: Any) -> None:
        if name not in self.cells.done:
            self.put(name, work())

    def put(self, name: str, found: Any) -> None:
        self.cells.put(name, found)
        shown = {column: value for column, value in found.items() if column != "states"}
        print(name, json.dumps(shown), flush=True)


def one_hot(ids: Sequence[int], many: int) -> Any:
    rows = np.zeros((len(ids), many), np.float32)
    rows[np.arange(len(ids)), ids] = 1
    return rows


async def numbered(names: Sequence[int], found: Any) -> Any:
    names_left = iter(names)
    async for each in found:
        yield next(names_left), each


async def computed(shape: dict[str, Any], owned: list[Any], work: list[Any]) -> list[Any]:
    return [each async for each in computed_each(shape, owned, work)]


async def computed_each(shape: dict[str, Any], owned: list[Any], work: list[Any]) -> Any:
    """Outputs and what was spent, of each (given, brought): the weights are shared once."""
    deadlines = Deadlines(step_s=3600, silent_s=1800, connect_s=120)
    async with JointRun(Program("llama", shape), Setting("aby3"), deadlines=deadlines) as run:
        await run.start()
        await run.compile()
        await run.link()
        setup = await run.share(owned)
        once = sum(one.bytes_out for one in setup.spent.values())
        for given, brought in work:
            done = await run.compute(given, brought)
            spent = list(done.spent.values())
            yield (
                done.outputs,
                {
                    "online": sum(one.bytes_out for one in spent),
                    "messages": max(one.messages for one in spent),
                    "cpu_s": sum(one.cpu_seconds for one in spent),
                    "setup": once,
                    "memory_gb": run.memory / 1e9,
                },
            )
        await run.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--cells", type=Path, default=Path("runs/secure_partial.json"))
    parser.add_argument("--whole", type=int, default=20, help="prompts that are computed on whole")
    parser.add_argument("--cut", type=int, default=20, help="prompts whose states are inverted")
    told = parser.parse_args()
    told.cells.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench(Cells(told.cells), told.cut)
    for part in told.parts:
        bench.whole(told.whole) if part == "whole" else getattr(bench, part)()
    if told.parts == PARTS:
        bench.write()


if __name__ == "__main__":
    main()
