"""A private head on encrypted vectors, on banking77 and clinc150: its costs, and what answers tell.

    python benchmarks/secure_head.py                      both data sets, 1,000 test items each; resumes
    python benchmarks/secure_head.py --data banking77 --items 2000 --alone 100
    python benchmarks/secure_head.py --joint 200 --protocols aby3 cheetah    of the first data set

The head is trained on 4,000 of the training texts ("members"); 1,000 are texts of the same kind that
it never saw, and up to 4,000 others train the head that gives attacks on membership their base rate.

    packed    as many vectors in a ciphertext as fit, through the engine's processes: is each label the
              one in clear, how far are logits off
    alone     one text after the other through strategy, boundary and ledger: bytes, USD, CPU of both
    joint     one text after the other under SPU, where the label is found inside: is it the one in
              clear; bytes of all links, messages, CPU of both owners, USD
    stealing  the head from logits, and from labels, of so many queries, on texts not asked about
    members   AUC of the loss, of the entropy, and of the label alone, on the head and on the other one
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from cosilo.attacks.head_stealing import compared, solved, trained
from cosilo.boundary.messages import JointSpent
from cosilo.boundary.meter import Meter, Price
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.engines.ckks.process import HomeKeys, HostedHead
from cosilo.models.base import Shows
from cosilo.models.encoder.classifier import ClassifierModel
from cosilo.models.encoder.encoder import Encoder
from cosilo.models.encoder.head import TrainedHead
from cosilo.models.encoder.private_head import private_head
from cosilo.objectives import intervals, membership
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.encrypted import keyed
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.inference.secure_head import SecureHead
from cosilo.types import user
from kept import Cells, Kept, json_lines

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = ("banking77", "clinc150")
QUERIES = (24, 96, 192, 384, 385, 1000)
MEMBERS, ATTACKED = 4000, 1000
STRENGTH = 30.0
PROTOCOLS = ("aby3", "cheetah")
DEAR = 40  # items under Cheetah, whose answers take ten times the CPU
USD_PER_GB, USD_PER_CPU_HOUR = 0.09, 0.05
OUT_OF_SCOPE = "oos"


class Split:
    """The texts of a data set as vectors, and the heads that are trained on some of them."""

    def __init__(self, name: str, items: int, seed: int) -> None:
        self.encoder = Encoder(remember=40_000)
        rng = np.random.default_rng(seed)
        learn, test = self._rows(name, "train"), self._rows(name, "test")
        learn = [learn[i] for i in rng.permutation(len(learn))]
        test = [test[i] for i in rng.permutation(len(test))[:items]]
        self.members, self.others = learn[:MEMBERS], learn[MEMBERS : MEMBERS + ATTACKED]
        self.rest = learn[MEMBERS + ATTACKED : 2 * MEMBERS + ATTACKED]
        self.test = test
        self.labels = tuple(sorted({label for _, label in learn}))

    def _rows(self, name: str, part: str) -> list[tuple[str, str]]:
        found = [(row["text"], row["label"]) for row in json_lines(DATA / name / f"{part}.jsonl")]
        return [row for row in found if row[1] != OUT_OF_SCOPE]

    def vectors(self, rows: list[tuple[str, str]]) -> Any:
        return self.encoder.embed([text for text, _ in rows]).vectors

    def places(self, rows: list[tuple[str, str]]) -> Any:
        place = {label: i for i, label in enumerate(self.labels)}
        return np.array([place[label] for _, label in rows])

    def head(self, rows: list[tuple[str, str]]) -> TrainedHead:
        """Logistic regression of a fixed strength."""
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=STRENGTH, max_iter=300, tol=1e-3)
        model.fit(self.vectors(rows), self.places(rows))
        weights, bias = (part.astype(np.float32) for part in (model.coef_, model.intercept_))
        return TrainedHead(self.labels, weights, bias, 1.0)


def scaled(head: TrainedHead) -> tuple[Any, Any]:
    """Weights and bias, as a private head computes with them."""
    weights, bias = (part.astype(np.float64) for part in (head.weights, head.bias))
    return weights / head.temperature, bias / head.temperature


def packed(split: Split, head: TrainedHead) -> tuple[dict[str, Any], Any]:
    """Figures, and the logits as the data owner reads them."""
    weights, bias = scaled(head)
    vectors = split.vectors(split.test).astype(np.float64)
    keys = HomeKeys(vectors.shape[1], len(weights))
    hosted = HostedHead(weights, bias, keys.public, keys.turning)
    made, set_up = keys.cpu_seconds, hosted.cpu_seconds
    read = []
    for first in range(0, len(vectors), keys.layout.fits):
        some = vectors[first : first + keys.layout.fits]
        padded = np.zeros(
            (keys.layout.fits, vectors.shape[1])
        )  # else other plaintexts for the last
        padded[: len(some)] = some
        answer = hosted.logits(keys.encrypt(padded), len(padded))
        read.append(keys.decrypt(answer, len(padded))[: len(some)])
    found, clear = np.concatenate(read), vectors @ weights.T + bias
    right = split.places(split.test)
    return {
        "n": len(vectors),
        "clear": int((clear.argmax(1) == right).sum()),
        "encrypted": int((found.argmax(1) == right).sum()),
        "same": int((found.argmax(1) == clear.argmax(1)).sum()),
        "error": float(np.abs(found - clear).max()),
        "fits": keys.layout.fits,
        "keys_mb": (len(keys.public) + len(keys.turning)) / 1e6,
        "keys_cpu": made,
        "set_up_cpu": set_up,
        "head_cpu": (hosted.cpu_seconds - set_up) / len(vectors),
        "home_cpu": (keys.cpu_seconds - made) / len(vectors),
    }, found


async def alone(split: Split, head: TrainedHead, items: int) -> dict[str, Any]:
    """One text after the other, the whole way."""
    with tempfile.TemporaryDirectory() as folder:
        head.save(Path(folder) / "head")
        model = private_head(
            Path(folder) / "head", allowance=items, answers=Path(folder) / "answers.sqlite"
        )
        meter = Meter(price=Price(usd_per_gb=USD_PER_GB))
        session = open_session(
            DataOwner(ClassifierModel(split.encoder)),
            LMOwner(model, Shows.TEXT | Shows.HEAD),
            SecureHead(),
            meter=meter,
        )
        strategy, session = await SecureHead().prepare(session)
        before, began = session.totals, perf_counter()
        home, same = 0.0, 0
        for number, (text, _) in enumerate(split.test[:items]):
            answer = await strategy.answer(session.bind(str(number)), user(text))
            clear = head.probabilities(split.vectors([(text, "")]), [text])
            same += answer.text == head.labels[int(clear.argmax())]
            home += answer.generation.cpu_seconds
        took, crossed = perf_counter() - began, session.totals - before
        (hosted,) = keyed(model)._heads.values()
        cpu = hosted.head.cpu_seconds / items
        keyed(model).close()
        return {
            "n": items,
            "same": same,
            "up": crossed.bytes_up / items,
            "down": crossed.bytes_down / items,
            "head_cpu": cpu,
            "home_cpu": home / items,
            "wall": took / items,
            "usd": (crossed.usd / items + (cpu + home / items) / 3600 * USD_PER_CPU_HOUR) * 1000,
        }


async def joint(split: Split, head: TrainedHead, items: int, protocol: Any) -> dict[str, Any]:
    """One text after the other, computed by both sides' engines: in a trial, which holds all shares."""
    with tempfile.TemporaryDirectory() as folder:
        head.save(Path(folder) / "head")
        model = private_head(Path(folder) / "head")
        strategy = SecureHead(engine="spu", protocol=protocol)
        meter, ledger = Meter(price=Price(usd_per_gb=USD_PER_GB)), MemoryLedger()
        session = open_session(
            DataOwner(ClassifierModel(split.encoder)),
            LMOwner(model, Shows.TEXT | Shows.JOINT),
            strategy,
            meter=meter,
            ledger=ledger,
        )
        prepared, session = await strategy.prepare(session)
        (card,) = session.cards
        before = session.totals
        places, usd = split.places(split.test[:items]), []
        home, same, right = 0.0, 0, 0
        for number, (text, _) in enumerate(split.test[:items]):
            begun = session.totals.usd
            answer = await prepared.answer(session.bind(str(number)), user(text))
            clear = head.probabilities(split.vectors([(text, "")]), [text])
            same += answer.text == head.labels[int(clear.argmax())]
            right += answer.text == split.labels[places[number]]
            home += answer.generation.cpu_seconds
            usd.append(session.totals.usd - begun)
        crossed = session.totals - before
        spent = [e.message for e in ledger.entries() if e.kind == JointSpent.__name__][1:]
        links = [link for each in spent if isinstance(each, JointSpent) for link in each.links]
        took = sum(each.seconds() for each in spent)
        await model.close()
        shared = card.facts["MB of shares of the weights, all parties"]
        return {
            "n": items,
            "same": same,
            "right": right,
            "up": crossed.bytes_up / items,
            "down": crossed.bytes_down / items,
            "all": sum(link.bytes for link in links) / items,
            "first": sum(spent[0].beside()),
            "messages": sum(link.messages for link in links if 1 in (link.sender, link.receiver))
            / items,
            "shared_mb": shared,
            "head_cpu": took / items,
            "home_cpu": home / items,
            "usd": (sum(usd) + (took + home) / 3600 * USD_PER_CPU_HOUR) / items * 1000,
        }


def stealing(split: Split, head: TrainedHead, logits: Any, how: str, n: int) -> dict[str, float]:
    """The head from the first `n` answers, beside the true one on texts that it was not asked about."""
    weights, bias = scaled(head)
    asked = split.vectors(split.test[:n]).astype(np.float64)
    told = logits[:n]
    if how == "labels":
        stolen = trained(asked, told.argmax(axis=1), len(weights))
    else:
        stolen = solved(asked, told)
    theft = compared(weights, bias, stolen, split.vectors(split.rest).astype(np.float64))
    return {**vars(theft), "n": len(split.rest)}


def members(split: Split, head: TrainedHead, other: TrainedHead) -> dict[str, Any]:
    """AUC of each attack on what each head answers; each with its interval."""
    found: dict[str, Any] = {}
    inside, outside = split.members[:ATTACKED], split.others[:ATTACKED]
    for which, whose in (("head", head), ("other head", other)):
        scores: dict[str, list[Any]] = {}
        for rows in (inside, outside):
            clear = whose.probabilities(split.vectors(rows), [text for text, _ in rows])
            likely = np.clip(clear.astype(np.float64), 1e-12, 1.0)
            right = split.places(rows)
            for name, values in (
                ("loss", np.log(likely[np.arange(len(rows)), right])),
                ("entropy", (likely * np.log(likely)).sum(axis=1)),
                ("label", (likely.argmax(axis=1) == right).astype(float)),
            ):
                scores.setdefault(name, []).append(values)
        for name, (in_, out) in scores.items():
            found[f"{which}, {name}"] = [float(x) for x in membership.auc(in_, out)]
    return {"n": len(inside), **found}


def measured(
    name: str, cells: Cells, items: int, single: int, seed: int, jointly: dict[str, int]
) -> None:
    split: Split | None = None
    head = other = None

    def ready() -> tuple[Split, TrainedHead, TrainedHead]:
        nonlocal split, head, other
        if split is None:
            split = Split(name, items, seed)
        if head is None or other is None:
            head, other = split.head(split.members), split.head(split.rest)
        return split, head, other

    key = f"{name}, {items}"
    if f"{key}, packed" not in cells.done:
        made, mine, _ = ready()
        figures, logits = packed(made, mine)
        np.save(cells.path.with_name(f"{cells.path.stem}_{name}_{items}.npy"), logits)
        cells.put(f"{key}, packed", figures)
    if f"{key}, alone {single}" not in cells.done:
        made, mine, _ = ready()
        cells.put(f"{key}, alone {single}", asyncio.run(alone(made, mine, single)))
    for protocol, count in jointly.items():
        if f"{key}, {protocol} {count}" not in cells.done:
            made, mine, _ = ready()
            cells.put(f"{key}, {protocol} {count}", asyncio.run(joint(made, mine, count, protocol)))
    if jointly:
        report_joint(cells, key, seed, jointly)
    if f"{key}, members" not in cells.done:
        cells.put(f"{key}, members", members(*ready()))
    for n in QUERIES:
        for how in ("logits", "labels"):
            if n > items or f"{key}, {how} {n}" in cells.done:
                continue
            made, mine, _ = ready()
            logits = np.load(cells.path.with_name(f"{cells.path.stem}_{name}_{items}.npy"))
            cells.put(f"{key}, {how} {n}", stealing(made, mine, logits, how, n))
            print(name, how, n, cells.done[f"{key}, {how} {n}"], flush=True)


def report_joint(cells: Cells, key: str, seed: int, jointly: dict[str, int]) -> None:
    """A file of its own, so that it is there long before the thefts are."""
    kept = Kept("secure_head_joint", seed=seed, settings={"items": jointly})
    for protocol, count in jointly.items():
        done = cells.done[f"{key}, {protocol} {count}"]
        low, high = intervals.wilson(done["right"], count)[-2:]
        kept.put(protocol, "right", done["right"] / count, n=count, low=low, high=high)
        kept.put(protocol, "same label", done["same"] / count, n=count)
        for column in ("up", "down", "all", "messages", "head_cpu", "home_cpu", "usd"):
            kept.put(protocol, column, done[column], n=count)
        for column in ("first", "shared_mb"):
            kept.put(protocol, column, done[column])
    kept.write()


def report(cells: Cells, items: int, single: int, seed: int, names: list[str]) -> None:
    kept = Kept("secure_head", seed=seed, settings={"items": items, "alone": single})
    for name in names:
        key = f"{name}, {items}"
        batch, one = cells.done[f"{key}, packed"], cells.done[f"{key}, alone {single}"]
        n = batch["n"]
        for column in ("clear", "encrypted"):
            low, high = intervals.wilson(batch[column], n)[-2:]
            kept.put(name, column, batch[column] / n, n=n, low=low, high=high)
        kept.put(name, "same label", batch["same"] / n, n=n)
        for column in ("error", "fits", "keys_mb", "keys_cpu", "set_up_cpu"):
            kept.put(name, column, batch[column])
        for column in ("head_cpu", "home_cpu"):
            kept.put(name, f"packed {column}", batch[column], n=n)
        for column in ("up", "down", "head_cpu", "home_cpu", "wall", "usd"):
            kept.put(name, f"alone {column}", one[column], n=one["n"])
        kept.put(name, "alone same label", one["same"] / one["n"], n=one["n"])
        found = cells.done[f"{key}, members"]
        for column, value in found.items():
            if column != "n":
                kept.put(name, column, value[0], n=found["n"], low=value[1], high=value[2])
        for n in QUERIES:
            for how in ("logits", "labels"):
                if theft := cells.done.get(f"{key}, {how} {n}"):
                    row, count = f"{name}, {how} of {n}", int(theft["n"])
                    hits = round(theft["agreement"] * count)
                    low, high = intervals.wilson(hits, count)[-2:]
                    kept.put(row, "agreement", theft["agreement"], n=count, low=low, high=high)
                    kept.put(row, "base rate", theft["base_rate"], n=count)
                    kept.put(row, "weight error", theft["weight_error"])
    kept.write()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--alone", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=Path, default=Path("runs/secure_head.json"))
    parser.add_argument(
        "--joint", type=int, default=200, help="items under SPU, of the first data set"
    )
    parser.add_argument("--protocols", nargs="*", choices=PROTOCOLS, default=list(PROTOCOLS))
    told = parser.parse_args()
    jointly = {p: told.joint if p == "aby3" else min(told.joint, DEAR) for p in told.protocols}
    told.cells.parent.mkdir(parents=True, exist_ok=True)
    cells = Cells(told.cells)
    for name in told.data:
        some = jointly if name == told.data[0] else {}
        measured(name, cells, told.items, told.alone, told.seed, some)
    report(cells, told.items, told.alone, told.seed, told.data)


if __name__ == "__main__":
    main()
