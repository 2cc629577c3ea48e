"""Owners go on from where a round's updates lead, and a part of the last step: whoever is killed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosilo.boundary.wire import tensors
from cosilo.errors import ConfigError, FederationError
from cosilo.models.low_rank import first_matrices
from cosilo.parties.coordinating.rounds import Rounds
from federations import LAYERS, arrays, ask, enrol, settings, update

OWNERS = ("bank", "clinic", "town")


def begun(*owners: str, **options: Any) -> Rounds:
    rounds = Rounds(settings(*owners, **options))
    for owner in owners:
        rounds.enrol(owner, enrol(), 0)
    return rounds


def after_rounds(path: Path | None = None, *, killed: bool = False, **options: Any) -> list[bytes]:
    """What came of each of four rounds, with a coordinator that begins anew at every message, or one
    that does not."""
    given = settings(*OWNERS, rounds=4, **options)
    rounds = Rounds(given, path)
    for owner in OWNERS:
        rounds.enrol(owner, enrol(), 0)
    found = []
    for number in range(1, 5):
        for seed, owner in enumerate(OWNERS):
            if killed:
                rounds = Rounds(
                    given, path
                )  # the one before is left open, as a killed one leaves it
            packed = tensors.pack(arrays(10 * number + seed), options.get("codec", "fp32"))
            rounds.contribute(owner, update(rounds, number, 0, packed=packed), 0)
        found.append(rounds.next("bank", ask(rounds, number - 1), 0).packed)
    return found


@pytest.mark.parametrize("rule", ["average", "median", "krum", "norm_bounded"])
@pytest.mark.parametrize("codec", ["fp32", "fp16"])
def test_momentum_is_the_same_to_the_bit_in_a_coordinator_that_is_killed(
    tmp_path: Path, rule: str, codec: str
) -> None:
    options: dict[str, Any] = {"rule": rule, "codec": codec, "momentum": 0.7, "server_rate": 0.6}
    undisturbed = after_rounds(**options)
    assert after_rounds(tmp_path / "f.sqlite", killed=True, **options) == undisturbed
    assert undisturbed[1:] != after_rounds(**options | {"momentum": 0.0})[1:]


def test_rounds_go_on_by_momentum_as_it_is_written_out() -> None:
    at = {n: t.astype(float) for n, t in first_matrices(dict_of(LAYERS), 2, 0).items()}
    velocity = {n: np.zeros_like(t) for n, t in at.items()}
    for number, packed in enumerate(after_rounds(momentum=0.7, server_rate=0.6), 1):
        average = mean(*(arrays(10 * number + seed) for seed in range(3)))
        for n in at:
            velocity[n] = 0.7 * velocity[n] + (average[n] - at[n])
            at[n] = at[n] + 0.6 * velocity[n]
        found = tensors.unpack(packed)
        assert all(np.allclose(found[n], at[n], rtol=1e-5, atol=1e-5) for n in at)


def mean(*updates: dict[str, Any]) -> dict[str, Any]:
    return {n: np.mean([update[n] for update in updates], axis=0) for n in updates[0]}


def dict_of(layers: Any) -> dict[str, tuple[int, int]]:
    return {name: (out, into) for name, out, into in layers}


def test_without_momentum_no_bit_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    found = after_rounds()

    def stepped(self: Any, made: Any, before: Any, earlier: Any) -> Any:
        assert earlier is None
        return made

    monkeypatch.setattr(type(settings()), "stepped", stepped)
    assert after_rounds() == found


def test_a_step_that_leads_too_far_ends_the_federation_by_name() -> None:
    rounds = begun("bank", "town", rounds=3, largest_norm=60.0, server_rate=9.0)
    for seed, owner in enumerate(("bank", "town")):
        assert rounds.contribute(owner, update(rounds, 1, seed), 0).fate == "taken"
    with pytest.raises(
        FederationError, match=r"momentum and server_rate lead .* its norm, .* is above 60; smaller"
    ):
        rounds.next("bank", ask(rounds), 0)
    rounds = begun("bank", "town", rounds=1, server_rate=1e300)
    for seed, owner in enumerate(("bank", "town")):
        rounds.contribute(owner, update(rounds, 1, seed), 0)
    with pytest.raises(FederationError, match="holds what is no number; smaller ones may help"):
        rounds.next("bank", ask(rounds), 0)


def test_other_momentum_is_another_federation_and_none_is_as_before_there_was_any(
    tmp_path: Path,
) -> None:
    path = tmp_path / "f.sqlite"
    Rounds(settings(*OWNERS), path).close()
    with sqlite3.connect(path) as db:
        text = json.loads(db.execute("SELECT settings FROM federation").fetchone()[0])
        kept = {k: v for k, v in text.items() if k not in ("momentum", "server_rate")}
        db.execute("UPDATE federation SET settings = ?", (json.dumps(kept),))
    Rounds(settings(*OWNERS), path).close()
    with pytest.raises(ConfigError, match=r"other settings \(momentum, server_rate\)"):
        Rounds(settings(*OWNERS, momentum=0.5, server_rate=0.5), path)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"momentum": 1.0}, "momentum = 1.0 is not from 0 to below 1"),
        ({"momentum": -0.1}, "momentum = -0.1"),
        ({"momentum": float("nan")}, "momentum = nan"),
        ({"server_rate": 0.0}, "server_rate = 0.0 is not positive and finite"),
        ({"server_rate": float("inf")}, "server_rate = inf"),
        ({"server_rate": float("nan")}, "server_rate = nan"),
        ({"momentum": 0.5, "rule": "flora"}, "what comes of flora is added to weights"),
        ({"server_rate": 0.5, "rule": "flora"}, "no step to go on with"),
        ({"momentum": 0.5, "rule": "hetlora"}, "hetlora fills up smaller ranks with zeros"),
        ({"momentum": 0.5, "method": "scalars"}, "momentum and server_rate are of adapters"),
    ],
)
def test_steps_that_make_no_sense_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        settings(*OWNERS, **options)
