"""Made-up reports for the tests of `cosilo.report`: what runs look like, without running any."""

from __future__ import annotations

import numpy as np

from cosilo.boundary.meter import Price, Totals
from cosilo.objectives import intervals
from cosilo.objectives.base import Item, Link, Measurement, Objective
from cosilo.objectives.reliability import reliability
from cosilo.report.data import Cost, Crossed, ModelFacts, Report, Shown, Tally, TaskFacts
from cosilo.selection import Limit, Point, certify, pareto_front
from cosilo.tasks.base import Example
from cosilo.types import Answer, Generation

UTILITY = Objective("utility", "utility", "max", "share")
PRIVACY = Objective("privacy", "privacy", "min", "share")
LEAK = Objective("entity_leak", "privacy", "min", "share")
USD = Objective("usd_per_1k", "efficiency", "min", "USD per 1,000 requests", bounds=None)
CALLS = Objective("calls", "efficiency", "min", "share")
LATENCY = Objective("latency_p95_ms", "efficiency", "min", "ms", bounds=None, quantile=0.95)
FIDELITY = Objective("exposure", "exposure", "min", "share")
DROP = Objective("integrity", "integrity", "min", "share")
FRONT = ("utility", "privacy", "usd_per_1k")

POINTS = (
    # name, strategy, defences, settings, utility, share of items asked, share of secrets seen
    ("small", "small", (), {}, 0.842, 0.0, 0.0),
    ("large", "large", (), {}, 0.941, 1.0, 0.97),
    ("large + pseudonym", "large", ("pseudonym",), {}, 0.935, 1.0, 0.03),
    ("cascade calls=0.2", "cascade", (), {"calls": 0.2}, 0.905, 0.2, 0.21),
    ("cascade calls=0.4", "cascade", (), {"calls": 0.4}, 0.936, 0.4, 0.39),
    ("cascade calls=0.4 + pseudonym", "cascade", ("pseudonym",), {"calls": 0.4}, 0.931, 0.4, 0.012),
    ("router calls=0.3", "router", (), {"calls": 0.3}, 0.899, 0.3, 0.31),
    ("router calls=0.3 + pseudonym", "router", ("pseudonym",), {"calls": 0.3}, 0.893, 0.3, 0.01),
    ("distil_labels", "distil_labels", ("pseudonym",), {"items": 400}, 0.878, 0.0, 0.0),
    ("supericl + pseudonym", "supericl", ("pseudonym",), {"demos": 8}, 0.938, 1.0, 0.031),
)


def measured(objective: Objective, value: float, n: int, baseline: float | None, note: str = ""):
    if objective.bounds is None:
        return Measurement(objective, value, n, 0.93 * value, 1.09 * value, baseline, note)
    low, high = intervals.wilson(value * n, n)
    return Measurement(objective, value, n, min(low, value), max(high, value), baseline, note)


def point(at: int, name: str, strategy: str, defences, settings, utility, asked, seen) -> Point:
    rng = np.random.default_rng(at)

    def all_of(n: int, shift: float) -> dict[str, Measurement]:
        move = float(rng.normal(0, shift))
        found = (
            measured(UTILITY, min(max(utility + move, 0), 1), n, 0.118),
            measured(PRIVACY, min(max(seen + move / 3, 0), 1), n, 0.02, "strongest attack: fuzzy"),
            measured(LEAK, min(max(seen + move / 4, 0), 1), n, 0.0),
            measured(USD, 0.61 * asked, n, None),
            measured(CALLS, asked, n, None),
            measured(LATENCY, 12 + 1180 * min(asked * 1.2, 1), n, None),
            measured(FIDELITY, 0.3 + 0.4 * asked, n, 0.31),
            measured(DROP, 0.09 * asked, n, 0.0),
        )
        return {m.objective.name: m for m in found}

    items = 300
    return Point(
        id=f"{at:016x}",
        name=name,
        strategy=strategy,
        defences=defences,
        settings=settings,
        validation=all_of(240, 0.008),
        test=all_of(400, 0.006),
        certificate={
            "utility": (rng.random(items) < utility).astype(float),
            "privacy": (rng.random(items) < seen).astype(float),
            "usd_per_1k": np.where(rng.random(items) < asked, 0.61, 0.0),
        },
    )


def crossing(point: Point, asked: float, seen: float) -> Crossed:
    items, secrets = 400, 820
    count = round(items * asked)
    up = "user: Please send my new card to ▇address▇, the old one is gone. ▇person▇, account ▇iban▇"
    hidden = "pseudonym" in point.defences
    prepared = point.strategy in ("distil_labels", "cascade", "router")
    tallies = (
        Tally("up", "Ask", count, count * 412),
        Tally("down", "Completion", count, count * 96),
    )
    prepare = (Tally("up", "Ask", 200, 82_400), Tally("down", "Completion", 200, 19_200))
    return Crossed(
        items=items,
        asked=count,
        refused=2 if hidden and count else 0,
        tallies=tallies if count else (),
        prepare=prepare if prepared else (),
        replaced={"person": 310, "iban": 122, "address": 88} if hidden and count else {},
        secrets={
            "person": (round(seen * 410), 410),
            "address": (round(seen * 140), 140),
            "iban": (0 if hidden else round(seen * secrets / 6), 160),
            "amount": (round(seen * 110), 110),
        },
        background={"person": (round(seen * 96), 190), "iban": (0, 70)} if prepared else {},
        examples=(
            Shown("up", "Ask", "system: You are a bank's service desk. One word.\n" + up),
            Shown("up", "Ask", "user: ▇person▇ says that ▇amount▇ has not arrived <b>yet</b>"),
            Shown("down", "Completion", "card"),
        )
        if count or prepared
        else (),
    )


def cost(asked: float, strategy: str) -> Cost:
    prepared = strategy in ("distil_labels", "cascade", "router")
    return Cost(
        items=400,
        calls=asked,
        tokens_in=131 * asked,
        tokens_out=3.2 * asked,
        usd=0.00061 * asked,
        local_seconds=0.0061,
        network_seconds=0.041 * asked,
        lm_seconds=0.71 * asked,
        p50_seconds=0.006 if asked < 0.5 else 0.74,
        p95_seconds=(12 + 1180 * min(asked * 1.2, 1)) / 1000,
        cpu_seconds=0.0058,
        peak_memory=412_000_000,
        prepare=Totals(messages=200, bytes_up=82_400, bytes_down=19_200, tokens_in=26_000,
                       tokens_out=640, usd=0.12) if prepared else Totals(),
        prepare_seconds=142.0 if prepared else 0.0,
    )  # fmt: skip


def report(rows=POINTS, *, limits=((UTILITY, 0.95, "large"), (PRIVACY, 0.05, None))) -> Report:
    """A report on `rows`; `limits` are (objective, bound, relative to)."""
    points = tuple(point(at, *row) for at, row in enumerate(rows))
    rng = np.random.default_rng(7)
    sure = rng.beta(5, 1.4, 400)
    right = (rng.random(400) < sure**1.25).astype(float)
    items = [
        Item(Example(str(i), (), ("",)), Answer(Generation(""), "small", float(s)), float(r))
        for i, (s, r) in enumerate(zip(sure, right, strict=True))
    ]
    diagram = reliability(items)
    asked = tuple(Limit(*limit) for limit in limits)
    front = pareto_front(points, FRONT) if points else []
    return Report(
        title="desk",
        task=TaskFacts(
            name="desk",
            kind="classification",
            items={"train": 600, "tune": 200, "validation": 240, "certificate": 300, "test": 400},
            labels=10,
        ),
        models=(
            ModelFacts(
                role="small",
                name="MiniLM-L6 int8 + head",
                access="logprobs",
                kind="classifier",
                licence="Apache-2.0",
            ),
            ModelFacts(
                role="large",
                name="qwen2.5-coder-1.5b-instruct-q4_k_m",
                access="text",
                kind="llamacpp",
                licence="Apache-2.0",
                price=Price(2.5, 10.0),
            ),
        ),
        link=Link(),
        points=points,
        front=frozenset(p.name for p in front),
        front_objectives=FRONT,
        hypervolume=0.5312,
        reference={"utility": 0.0, "privacy": 1.0, "usd_per_1k": 0.61},
        limits=asked,
        certificate=certify(points, asked) if asked and points else None,
        crossed={p.name: crossing(p, *row[5:]) for p, row in zip(points, rows, strict=True)},
        costs={p.name: cost(row[5], p.strategy) for p, row in zip(points, rows, strict=True)},
        reliability={"small model alone, test items": diagram} if diagram else {},
        versions={"cosilo": "0.1.0", "python": "3.11.2", "numpy": "2.3.5", "xllamacpp": "0.2.4"},
        seed=0,
        commands=("cosilo bench plan.toml --yes", "cosilo report runs/desk"),
        made="23 November 2026",
    )
