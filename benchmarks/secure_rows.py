"""What a head, an MLP, one block and all of SmolLM2 cost under SPU, and how far off they are.

    python benchmarks/secure_rows.py            # head, MLP and block by ABY3, head and block by Cheetah
    python benchmarks/secure_rows.py --whole    # SmolLM2 too, in one piece

Each party is a process here. Weights and states of the block and the model are SmolLM2's, of a public
text; those of head and MLP are drawn. Shifts are calibrated on other public texts, and the ranges are
proved, before anything starts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from operator import or_
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from cosilo.engines import llama, ranges
from cosilo.engines.base import JointResult, Program, Setting
from cosilo.engines.llama import Llama
from cosilo.engines.spu.run import Deadlines, JointRun
from cosilo.models import catalog
from cosilo.parties.joint_llama import as_program, proved
from kept import Cells, Kept

LM = "smollm2-135m-instruct"
LAYER = 5
TEXTS = Path("../shared/data/spec_bench/prompts.jsonl")
ROWS = ("head aby3", "mlp aby3", "block aby3", "head cheetah", "block cheetah")
FIXED = ranges.Fixed()


def smollm2() -> tuple[Llama, Any]:
    """Its weights as the program takes them, and its tokeniser."""
    from cosilo.models.white_box import files
    from cosilo.models.white_box.plain_llama import plain_llama

    folder = files.unpack(catalog.path(LM), catalog.entry(LM).files[0].sha256)
    module = files.load_module(folder, precision="float32", device="cpu")
    return as_program(plain_llama(module)), files.load_words(folder)


def public_ids(words: Any, tokens: int, many: int) -> list[list[int]]:
    lines = TEXTS.read_text("utf-8").splitlines()
    ids = [words(json.loads(line)["turns"][0])["input_ids"] for line in lines]
    return [each[:tokens] for each in ids if len(each) >= tokens][:many]


async def joint(
    name: str, shape: dict[str, Any], protocol: str, owned: list[Any], given: list[Any]
) -> tuple[JointResult, dict[str, float]]:
    deadlines = Deadlines(step_s=3600, silent_s=1800, connect_s=120)
    setting = Setting(protocol)  # type: ignore[arg-type]
    async with JointRun(Program(name, shape), setting, deadlines=deadlines) as run:
        await run.start()
        await run.compile()
        await run.link()
        setup = await run.share([np.ascontiguousarray(array) for array in owned])
        online = await run.compute([np.ascontiguousarray(array) for array in given])
        memory = run.memory
        await run.end()
    spent = list(online.spent.values())
    return online, {
        "setup_mb": sum(one.bytes_out for one in setup.spent.values()) / 1e6,
        "online_mb": sum(one.bytes_out for one in spent) / 1e6,
        "messages": max(one.messages for one in spent),
        "cpu_s": sum(one.cpu_seconds for one in spent),
        "memory_gb": memory / 1e9,
    }


def heads(name: str, protocol: str) -> dict[str, float]:
    drawn = np.random.default_rng(0)
    vector = drawn.normal(size=(1, 384)).astype(np.float32)
    vector /= np.linalg.norm(vector)
    sizes = [384, 10] if name == "head" else [384, 256, 10]
    layers = [
        ((drawn.normal(size=(a, b)) / a**0.5).astype(np.float32), np.zeros(b, np.float32))
        for a, b in pairwise(sizes)
    ]
    ranges.require_inputs(vector, 1.0)
    nearest = ranges.require_room(ranges.mlp(layers, 1.0), FIXED)
    shape = {"inputs": 384, "hidden": 256, "outputs": 10, "rows": 1, "answer": "logits"}
    run, found = asyncio.run(
        joint(name, shape, protocol, [array for layer in layers for array in layer], [vector])
    )
    before = process_time()
    plain: Any = vector
    for number, (weights, biases) in enumerate(layers):
        plain = (np.maximum(plain, 0) if number else plain) @ weights + biases
    found["plain_cpu_s"] = process_time() - before
    found["largest_product"] = nearest.largest
    return {**found, **errors(run.outputs[0], plain)}


def block(protocol: str) -> dict[str, float]:
    model, words = smollm2()
    lower = [layer[:LAYER] for layer in (model.mixed, model.out, model.gated, model.down)]
    below = replace(model, mixed=lower[0], out=lower[1], gated=lower[2], down=lower[3])
    one = replace(
        model, mixed=model.mixed[LAYER : LAYER + 1], out=model.out[LAYER : LAYER + 1],
        gated=model.gated[LAYER : LAYER + 1], down=model.down[LAYER : LAYER + 1],
    )  # fmt: skip
    states = [llama.forward(below, model.table[ids])[0] for ids in public_ids(words, 16, 9)]
    shifts, nearest = proved(one, reduce(or_, (llama.observe(one, each) for each in states[1:])))
    owned = one.owned(starts="states", ends="states")
    shape = one.shape(16, shifts, starts="states", ends="states")
    run, found = asyncio.run(joint("llama", shape, protocol, owned, [states[0]]))
    before = process_time()
    plain, _ = llama.forward(one, states[0])
    found["plain_cpu_s"] = process_time() - before
    found["largest_product"], found["in_range"] = nearest.largest, float(run.outputs[1])
    return {**found, **errors(run.outputs[0], plain)}


def whole(tokens: int = 15, pieces: int = 1) -> dict[str, float]:
    """All of SmolLM2, some layers at a time: states between them are opened and shared again.

    A real run opens nothing; here it keeps memory small, and adds the bytes of the states.
    """
    model, words = smollm2()
    ids, *others = public_ids(words, tokens, 9)
    seen = reduce(or_, (llama.observe(model, model.table[each]) for each in others))
    shifts, nearest = proved(model, seen)
    before = process_time()
    states, _ = llama.forward(model, model.table[ids])
    plain = llama.logits(model, states[-1:])[0]
    took = process_time() - before
    rows = np.zeros((tokens, len(model.table)), np.float32)
    rows[np.arange(tokens), ids] = 1
    given: list[Any] = [rows]
    found: dict[str, float] = {}
    fits = True
    for piece in range(pieces):
        first, after = (model.layers * k // pieces for k in (piece, piece + 1))
        ends = after == model.layers
        cut = [part[first:after] for part in (model.mixed, model.out, model.gated, model.down)]
        part = replace(model, mixed=cut[0], out=cut[1], gated=cut[2], down=cut[3])
        way: dict[str, Any] = {
            "starts": "states" if piece else "tokens",
            "ends": "logits" if ends else "states",
        }
        halvings = [*shifts[2 * first : 2 * after], shifts[2 * after]]
        shape, owned = part.shape(tokens, halvings, **way), part.owned(**way)
        if ends:
            given.append(np.eye(tokens, dtype=np.float32)[-1:])
        run, spent = asyncio.run(joint("llama", shape, "aby3", owned, given))
        print("whole", piece, spent, run.outputs[1], flush=True)
        for column, value in spent.items():
            add = max if column == "memory_gb" else float.__add__
            found[column] = add(found.get(column, 0.0), float(value))
        fits = fits and bool(run.outputs[1])
        given = [run.outputs[0]]
    found["plain_cpu_s"], found["in_range"] = took, float(fits)
    found["largest_product"] = nearest.largest
    return {**found, **errors(given[0], plain)}


def errors(secure: Any, plain: Any) -> dict[str, float]:
    off = np.abs(np.asarray(secure, np.float64) - plain)
    return {
        "error": float(off.max()),
        "mean_error": float(off.mean()),
        "same_label": float(np.array_equal(np.argmax(secure, -1), np.argmax(plain, -1))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, default=Path("runs/secure_rows.json"))
    parser.add_argument("--whole", action="store_true", help="SmolLM2 as well")
    parser.add_argument("--only", help="one row")
    arguments = parser.parse_args()
    arguments.state.parent.mkdir(parents=True, exist_ok=True)
    cells = Cells(arguments.state)
    rows = [*ROWS, *(["whole aby3"] if arguments.whole else [])]
    for row in [arguments.only] if arguments.only else rows:
        if row not in cells.done:
            what, protocol = row.split()
            if what == "whole":
                cells.put(row, whole())
            else:
                cells.put(row, block(protocol) if what == "block" else heads(what, protocol))
            print(row, cells.done[row], flush=True)
    kept = Kept("secure_rows", seed=0, settings={"field": 64, "bits": 18})
    for row, found in cells.done.items():
        for column, value in found.items():
            kept.put(row, column, value)
    kept.write()


if __name__ == "__main__":
    main()
