"""A federation whose updates are private: what it keeps, what it spends by the book, who finds records.

    python benchmarks/private_federation.py [--vectors /tmp/poisoned_vectors.npz]

`federated_heads.py` says of what eight owners train a head; ten rounds of ten steps, the plain average.

* **nothing**: no noise.
* **each record**, ε = 8: every owner's steps are DP-SGD (`PrivateLoss`); a record more or less.
* **each owner**, ε = 8: every update is cut and has noise on it (`UpdateNoise`); an owner's records all
  there, or none of them.

δ is 1e-5, and ε what `PrivacyBook` says of all rounds of one owner (all have the same rate and steps).
Utility is accuracy on the test split. Membership is the area under the ROC curve of the attacks on a
published model (`loss`, `confidence`, `calibrated` with shadows): by the model that came of it all, and
by what one owner had sent in the last round, which is what the coordinator has; as many strangers of
each class as records, so that classes tell nothing. The strongest attack counts, by its mean over
seeds. Seeds draw the division, samples and noise. The rate was set on a part of the train split
(`--tune`); what gradients and updates are cut to was not tuned. Test items are read once. It resumes:
what a seed gave is kept in `--cells`.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.attacks.base import Target, View, attacks
from cosilo.federation import OwnerUpdate, rules
from cosilo.federation.private import UpdateNoise
from cosilo.models.base import Tokens
from cosilo.models.white_box.private import PrivateLoss
from cosilo.objectives.membership import auc
from cosilo.privacy.book import PrivacyBook
from cosilo.privacy.composition import composed
from cosilo.privacy.dp_sgd import noise_for_steps, release_of_steps
from cosilo.privacy.keyed_noise import KeyedNoise
from cosilo.privacy.mechanisms import Release
from cosilo.types import Demonstration, last_user, user
from federated_heads import (
    OWNERS,
    Array,
    Data,
    Head,
    Labels,
    chances,
    divided,
    nothing,
    parser,
    read,
    said,
    trained,
)
from kept import Cells, Kept

SEEDS = (0, 1, 2)
ROUNDS, STEPS, RATE = 10, 10, 100.0
EPSILON, DELTA = 8.0, 1e-5
SAMPLED, RECORD_CUT, RECORD_RATE = 0.1, 1.0, 10.0
OWNER_CUT = 10.0
ARMS = ("nothing", "each record", "each owner")
NAMED = ("loss", "confidence", "calibrated")
SHADOWS, SHADOW_STEPS = 8, 50


def record_noise() -> float:
    return noise_for_steps(EPSILON, DELTA, rate=SAMPLED, steps=ROUNDS * STEPS)


def owner_noise() -> float:
    """The least noise of an update, to a thousandth, with which all rounds keep to ε."""
    low, high = 0.1, 100.0
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        releases = [UpdateNoise(OWNER_CUT, middle, "group").release()] * ROUNDS
        (figure,) = composed(releases, DELTA)
        low, high = (middle, high) if figure.epsilon > EPSILON else (low, middle)
    return high


@dataclass(frozen=True)
class Settings:
    record_noise: float
    owner_noise: float
    record_rate: float = RECORD_RATE
    owner_cut: float = OWNER_CUT


class Steps:
    """An owner's steps of DP-SGD on a head, all rounds through."""

    def __init__(self, x: Array, y: Labels, settings: Settings, key: bytes, name: str) -> None:
        import torch

        self._x, self._y = torch.from_numpy(x), torch.from_numpy(y)
        self._rate = settings.record_rate
        self.private = PrivateLoss(
            [Tokens(np.array([place], np.int32), 1, ()) for place in range(len(x))],
            rate=SAMPLED, largest=RECORD_CUT, noise=settings.record_noise,
            draws=KeyedNoise(key), session=name, loss=self._loss,
        )  # fmt: skip

    def _loss(self, module: Any, records: Sequence[Tokens]) -> Any:
        import torch

        some = [int(record.ids[0]) for record in records]
        return torch.nn.functional.cross_entropy(module(self._x[some]), self._y[some])

    def after(self, head: Head, number: int) -> Head:
        import torch

        module = torch.nn.Linear(head["w"].shape[1], len(head["b"]))
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(head["w"]))
            module.bias.copy_(torch.from_numpy(head["b"]))
        for step in range(STEPS):
            torch.manual_seed(number * STEPS + step)
            module.zero_grad()
            self.private(module, ()).backward()
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter -= self._rate * parameter.grad
        return {
            "w": module.weight.detach().numpy().copy(),
            "b": module.bias.detach().numpy().copy(),
        }


@dataclass(frozen=True)
class Federated:
    """What came of it, what one owner sent at the end, and all that it had released."""

    head: Head
    sent: Head
    releases: list[Release]


def federated(data: Data, arm: str, seed: int, settings: Settings) -> Federated:
    owners, watched = divided(data, seed), seed % OWNERS
    average = rules.create("average")
    keys = [hashlib.sha256(f"{seed} {arm} {n}".encode()).digest() for n in range(OWNERS)]
    noise = UpdateNoise(settings.owner_cut, settings.owner_noise, "group")
    own = {
        n: Steps(data.train[items], data.labels[items], settings, keys[n], f"{seed} {n}")
        for n, items in enumerate(owners)
        if arm == "each record"
    }
    head, releases = nothing(data), []
    for number in range(ROUNDS):
        updates = []
        for n, items in enumerate(owners):
            release = None
            if arm == "each record":
                after = own[n].after(head, number)
                release = release_of_steps(
                    settings.record_noise, SAMPLED, STEPS, series="federation", draw=f"{number}"
                )
            else:
                x, y = data.train[items], data.labels[items]
                after = trained(head, x, y, steps=STEPS, rate=RATE)
            if arm == "each owner":
                after, release = noise.applied(
                    after, head, KeyedNoise(keys[n]), session=f"{seed} {number}"
                )
            if n == watched and release is not None:
                releases.append(release)
            updates.append(OwnerUpdate(f"owner {n}", 1.0, after))
        head = dict(average(updates, head).tensors)
    return Federated(head, dict(updates[watched].tensors), releases)


def booked(data: Data, seed: int, releases: Sequence[Release]) -> float:
    """ε by the book of the watched owner."""
    items = divided(data, seed)[seed % OWNERS]
    with tempfile.TemporaryDirectory() as place:
        book = PrivacyBook(Path(place) / "book.sqlite")
        number = book.data(data.texts[i] for i in items)
        for release in releases:
            book.reserve(number, release, spender="federation", epsilon=EPSILON, delta=DELTA)
        (figure,) = book.figures(number, DELTA)
        book.close()
    return figure.epsilon


# ── Membership ───────────────────────────────────────────────────────────────


class Published:
    """A head as the attacks ask it; a text is the number of its vector."""

    def __init__(self, head: Head, vectors: Array) -> None:
        self._head, self._vectors = head, vectors
        self.labels = tuple(map(str, range(len(head["b"]))))

    def probabilities(self, texts: Sequence[str]) -> Array:
        return chances(self._head, self._vectors[[int(t) for t in texts]])


class Shadows:
    """The attacker trains heads on its own texts, as a single owner would; each once."""

    def __init__(self, data: Data, vectors: Array) -> None:
        self._data, self._vectors = data, vectors
        self._known: dict[tuple[int, ...], Head] = {}

    def fit(self, examples: Sequence[Demonstration], *, seed: int = 0) -> Published:
        places = tuple(int(last_user(e.chat)) for e in examples)
        if places not in self._known:
            y = np.array([int(e.target) for e in examples])
            self._known[places] = trained(
                nothing(self._data), self._vectors[list(places)], y, steps=SHADOW_STEPS, rate=RATE
            )
        return Published(self._known[places], self._vectors)


class Attacker:
    """Tells some records from as many strangers of the same classes."""

    def __init__(self, data: Data, members: Labels) -> None:
        self.vectors = np.concatenate([data.train, data.validation])
        labels = np.concatenate([data.labels, data.validation_labels])
        inside: list[int] = []
        outside: list[int] = []
        for label in range(data.classes):
            mine = [i for i in members if data.labels[i] == label]
            others = np.flatnonzero(data.validation_labels == label) + len(data.train)
            count = min(len(mine), len(others))
            inside += mine[:count]
            outside += others[:count].tolist()
        self.records = len(inside)
        self.targets = [
            Target(str(i), "", "record", chat=user(str(i)), label=str(labels[i]))
            for i in (*inside, *outside)
        ]
        self.shadows = Shadows(data, self.vectors)

    def areas(self, head: Head) -> dict[str, float]:
        view = View(entries=lambda: iter(()), published=Published(head, self.vectors))
        found = {}
        for name in NAMED:
            options = {"shadows": SHADOWS, "learner": self.shadows} if name == "calibrated" else {}
            guesses = asyncio.run(attacks.create(name, **options).guess(view, self.targets))
            scores = np.array([guess.score for guess in guesses])
            found[name] = auc(scores[: self.records], scores[self.records :])[0]
        return found


def cell(data: Data, seed: int, settings: Settings) -> dict[str, Any]:
    """Every arm of one seed."""
    own = divided(data, seed)[seed % OWNERS]
    everyone = np.random.default_rng([seed, 2]).permutation(len(data.train))
    merged, sent = Attacker(data, everyone), Attacker(data, own)
    found: dict[str, Any] = {}
    for arm in ARMS:
        made = federated(data, arm, seed, settings)
        found[arm] = {
            "accuracy": float((said(made.head, data.test) == data.test_labels).mean()),
            "learned": float((said(made.head, data.train) == data.labels).mean()),
            "merged": merged.areas(made.head), "sent": sent.areas(made.sent),
            "epsilon": booked(data, seed, made.releases) if made.releases else None,
            "records": len(own), "targets": [len(merged.targets), len(sent.targets)],
        }  # fmt: skip
        print(seed, arm, found[arm], flush=True)
    return found


def main() -> None:
    given = parser(__doc__, Path("/tmp/private_federation.json")).parse_args()
    data = read(given.data, given.vectors)
    usual = Settings(record_noise(), owner_noise())
    print(usual, flush=True)
    if given.tune:
        for arm, name, values in (
            ("each record", "record_rate", (3.0, 10.0, 30.0, 100.0)),
            ("each owner", "owner_cut", (1.0, 10.0, 100.0)),
        ):
            for value in values:
                settings = Settings(usual.record_noise, usual.owner_noise, **{name: value})
                head = federated(data, arm, 0, settings).head
                right = (said(head, data.validation) == data.validation_labels).mean()
                print(arm, name, value, right, flush=True)
        return
    cells = Cells(given.cells)
    for seed in SEEDS:
        if str(seed) not in cells.done:
            cells.put(str(seed), cell(data, seed, usual))
    done = [cells.done[str(seed)] for seed in SEEDS]
    kept = Kept("private_federation", settings={
        "owners": OWNERS, "rounds": ROUNDS, "steps": STEPS, "rate": RATE, "seeds": list(SEEDS),
        "delta": DELTA, "sampled": SAMPLED, "record": [RECORD_CUT, RECORD_RATE],
        "owner_cut": OWNER_CUT, "shadows": SHADOWS,
    })  # fmt: skip
    kept.put("all", "majority class", data.base_rate, n=len(data.test))
    kept.put("all", "record noise", usual.record_noise)
    kept.put("all", "owner noise", usual.owner_noise)
    kept.put("all", "records", float(np.mean([each["nothing"]["records"] for each in done])))
    for at, column in enumerate(("targets, merged", "targets, sent")):
        kept.put("all", column, float(np.mean([each["nothing"]["targets"][at] for each in done])))
    for arm in ARMS:
        here = [each[arm] for each in done]
        for column in ("accuracy", "learned"):
            kept.put_mean(arm, column, [each[column] for each in here])
        less = [a["nothing"]["accuracy"] - a[arm]["accuracy"] for a in done]
        if arm != "nothing":
            kept.put_mean(arm, "drop", less)
            kept.put(arm, "epsilon", max(each["epsilon"] for each in here))
        for whose in ("merged", "sent"):
            best = max(NAMED, key=lambda n: sum(each[whose][n] for each in here))
            kept.put_mean(arm, f"AUC, {whose}", [each[whose][best] for each in here])
            for name in NAMED:
                kept.put_mean(arm, f"AUC, {whose}, {name}", [each[whose][name] for each in here])
    kept.write()


if __name__ == "__main__":
    main()
