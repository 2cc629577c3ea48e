"""Rounds go on whatever owners do: who is told what, what counts, and that nothing counts twice."""

from __future__ import annotations

import itertools
import re
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosilo.boundary.wire import tensors
from cosilo.errors import CapabilityError, ConfigError, FederationError, RejectedError
from cosilo.models.low_rank import first_matrices
from cosilo.parties.coordinating.rounds import Rounds
from federations import BASE, LAYERS, adapter, arrays, ask, enrol, settings, update

OWNERS = ("bank", "clinic", "town")


def begun(*owners: str, path: Path | None = None, **options: Any) -> Rounds:
    rounds = Rounds(settings(*owners, **options), path)
    for owner in owners:
        rounds.enrol(owner, enrol(), 0)
    return rounds


def mean(*seeds: int) -> dict[str, Any]:
    all_ = [arrays(seed) for seed in seeds]
    return {n: np.mean([a[n] for a in all_], axis=0) for n in all_[0]}


def close_to(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return found.keys() == wanted.keys() and all(
        np.allclose(found[n], wanted[n], rtol=1e-6, atol=1e-7) for n in wanted
    )


def test_two_rounds_of_three_owners() -> None:
    rounds = Rounds(settings(*OWNERS))
    first = rounds.enrol("bank", enrol(), 0)
    assert (first.rounds, first.rank, first.base) == (2, 2, BASE)
    waiting = rounds.next("bank", ask(rounds), 0)
    assert (waiting.state, waiting.waits_for, waiting.here, waiting.wanted) == (
        "wait",
        "owners",
        1,
        3,
    )
    rounds.enrol("clinic", enrol(), 0)
    rounds.enrol("town", enrol(), 0)
    assert rounds.next("bank", ask(rounds), 0).state == "open"
    for seed, owner in enumerate(OWNERS):
        assert rounds.next(owner, ask(rounds), 0).number == 1
        assert rounds.contribute(owner, update(rounds, 1, seed), 0).fate == "taken"
    second = rounds.next("town", ask(rounds), 0)
    assert (second.state, second.number, second.closed, second.of) == ("open", 2, 1, 1)
    assert close_to(adapter(second), mean(0, 1, 2))
    assert len(second.packed) == first.most
    assert rounds.next("town", ask(rounds, 1), 0).packed == b""  # it has that one
    for seed, owner in enumerate(OWNERS):
        waiting = rounds.next(owner, ask(rounds, 1), 0)
        assert rounds.contribute(owner, update(rounds, 2, 10 + seed), 0).fate == "taken"
    ended = rounds.next("bank", ask(rounds, 1), 0)
    assert (ended.state, ended.closed, ended.of) == ("ended", 2, 2)
    assert close_to(adapter(ended), mean(10, 11, 12))


def test_the_order_in_which_updates_arrive_is_nothing() -> None:
    found = set()
    for order in itertools.permutations(range(3)):
        rounds = begun(*OWNERS, rounds=1)
        for i in order:
            rounds.contribute(OWNERS[i], update(rounds, 1, i), 0)
        found.add(rounds.next("bank", ask(rounds), 0).packed)
    assert len(found) == 1


def test_updates_count_by_examples_where_that_was_agreed() -> None:
    rounds = Rounds(settings("bank", "town", rounds=1, counts=True))
    with pytest.raises(CapabilityError, match="tell_count"):
        rounds.enrol("bank", enrol(), 0)
    with pytest.raises(CapabilityError, match="tell_count"):
        rounds.enrol("bank", enrol(examples=0), 0)
    rounds.enrol("bank", enrol(examples=30), 0)
    rounds.enrol("town", enrol(examples=10), 0)
    for seed, owner in enumerate(("bank", "town")):
        rounds.contribute(owner, update(rounds, 1, seed), 0)
    one, other = arrays(0), arrays(1)
    wanted = {n: 0.75 * one[n] + 0.25 * other[n] for n in one}
    assert close_to(adapter(rounds.next("bank", ask(rounds), 0)), wanted)


def test_what_is_sent_again_counts_once() -> None:
    rounds = begun(*OWNERS)
    assert rounds.enrol("bank", enrol(), 0) == rounds.enrol("bank", enrol(), 9)
    for _ in range(3):
        assert rounds.contribute("bank", update(rounds, 1, 0), 0).fate == "taken"
    with pytest.raises(RejectedError, match="another update"):
        rounds.contribute("bank", update(rounds, 1, 5), 0)
    rounds.contribute("clinic", update(rounds, 1, 1), 0)
    rounds.contribute("town", update(rounds, 1, 2), 0)
    assert (
        rounds.contribute("bank", update(rounds, 1, 0), 0).fate == "taken"
    )  # in a closed round, too
    assert close_to(adapter(rounds.next("bank", ask(rounds), 0)), mean(0, 1, 2))
    with pytest.raises(RejectedError, match="with other settings"):
        rounds.enrol("bank", enrol(settings="others"), 0)


def test_a_round_closes_with_a_quorum_at_its_deadline_and_late_ones_are_told() -> None:
    rounds = begun(*OWNERS, quorum=2)
    rounds.contribute("bank", update(rounds, 1, 0), 1)
    rounds.contribute("town", update(rounds, 1, 2), 1)
    waiting = rounds.next("bank", ask(rounds), 50)
    assert (waiting.state, waiting.here, waiting.wanted) == ("wait", 2, 3)
    assert 0 < waiting.left <= 11
    after = rounds.next("bank", ask(rounds), 62)
    assert (after.state, after.number) == ("open", 2)
    assert close_to(adapter(after), mean(0, 2))
    late = rounds.contribute("clinic", update(rounds, 1, 1), 62)
    assert (late.fate, late.why) == ("late", "round 1 had closed")
    # It is not waited for any more; where it comes in time it counts.
    rounds.contribute("bank", update(rounds, 2, 3), 63)
    rounds.contribute("clinic", update(rounds, 2, 4), 63)
    rounds.contribute("town", update(rounds, 2, 5), 63)
    ended = rounds.next("clinic", ask(rounds, 1), 63)
    assert ended.state == "ended"
    assert close_to(adapter(ended), mean(3, 4, 5))


def test_who_missed_a_round_keeps_nobody_waiting() -> None:
    rounds = begun(*OWNERS, quorum=2)
    for owner in ("bank", "town"):
        rounds.contribute(owner, update(rounds, 1, 0), 1)
    rounds.next("bank", ask(rounds), 70)
    for owner in ("bank", "town"):
        rounds.contribute(owner, update(rounds, 2, 1), 71)
    assert rounds.next("bank", ask(rounds, 1), 71).state == "ended"


def test_a_late_joiner_takes_part_from_the_next_round_on() -> None:
    rounds = begun("bank", "clinic", "town", rounds=3, quorum=1)
    joined = Rounds(settings("bank", "clinic", "town", rounds=3, quorum=2))
    joined.enrol("bank", enrol(), 0)
    joined.enrol("clinic", enrol(), 0)
    assert joined.next("bank", ask(joined), 30).waits_for == "owners"
    assert joined.next("bank", ask(joined), 61).state == "open"  # two are enough, at the deadline
    joined.contribute("bank", update(joined, 1, 0), 62)
    joined.enrol("town", enrol(), 62)
    joined.contribute("clinic", update(joined, 1, 1), 62)  # nobody waits for the newcomer
    state = joined.next("town", ask(joined), 62)
    assert (state.state, state.number, state.of) == ("open", 2, 1)
    for seed, owner in enumerate(("bank", "clinic")):
        joined.contribute(owner, update(joined, 2, seed), 63)
    assert joined.next("bank", ask(joined, 1), 63).wanted == 3
    rounds.close()


def with_nan() -> bytes:
    number = np.float32(arrays(1)["model.q.lora_A"][0, 0])
    return tensors.pack(arrays(1)).replace(number.tobytes(), np.float32("nan").tobytes())


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no number": ({"packed": with_nan()}, "no number|not finite"),
    "no bytes": ({"packed": b"nothing"}, "no packed tensors"),
    "other layers": ({"packed": tensors.pack({"x": np.ones((2, 2), np.float32)})}, "has no tensor"),
    "a shape": (
        {"packed": tensors.pack({n: t.T for n, t in arrays(1).items()})},
        "has the shape",
    ),
    "rank 0": ({"rank": 0}, "of rank 0, and 2 is wanted"),
    "rank 3": ({"rank": 3, "packed": tensors.pack(arrays(1, 3))}, "of rank 3"),
    "too much": ({"packed": tensors.pack(arrays(1, 30))}, "more than"),
    "explodes": ({"packed": tensors.pack(arrays(1, size=1e18))}, "is above 1000"),
    "another codec": ({"packed": tensors.pack(arrays(1), "fp16")}, "codec fp16"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_used_is_dropped_and_named(what: str) -> None:
    options, why = BAD[what]
    rounds = begun(*OWNERS, quorum=2)
    rounds.contribute("bank", update(rounds, 1, 0), 0)
    bad = rounds.contribute("clinic", update(rounds, 1, 1, **options), 0)
    assert bad.fate == "dropped"
    assert re.search(why, bad.why)
    assert rounds.contribute("clinic", update(rounds, 1, 1, **options), 0) == bad
    rounds.contribute("town", update(rounds, 1, 2), 0)
    state = rounds.next("clinic", ask(rounds), 0)
    assert (state.state, state.number, state.fate, state.why) == ("open", 2, "dropped", bad.why)
    assert close_to(adapter(state), mean(0, 2))
    assert rounds.next("bank", ask(rounds), 0).fate is None


def test_a_round_that_nobody_finishes_fails_for_everyone() -> None:
    rounds = begun(*OWNERS)
    rounds.contribute("bank", update(rounds, 1, 0), 0)
    for owner in OWNERS:
        with pytest.raises(
            FederationError, match=r"round 1 had 1 good updates of the 3 that it needs"
        ):
            rounds.next(owner, ask(rounds), 61)
    with pytest.raises(FederationError, match="round 1"):
        rounds.contribute("town", update(rounds, 1, 2), 62)
    assert rounds.contribute("bank", update(rounds, 1, 0), 62).fate == "taken"
    few = begun(*OWNERS)
    for owner in OWNERS:
        few.contribute(owner, update(few, 1, 0, packed=b"?"), 0)
    with pytest.raises(FederationError, match=r"3 dropped: .* no packed tensors"):
        few.next("bank", ask(few), 0)
    alone = Rounds(settings(*OWNERS))
    alone.enrol("bank", enrol(), 0)
    with pytest.raises(FederationError, match="1 of 3 owners that it needs enrolled"):
        alone.next("bank", ask(alone), 61)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"version": 7}, r"version 7 .* version 1"),
        ({"base": "cd" * 16}, f"are {'cd' * 16}, and this federation's are {BASE}"),
        ({"layers": LAYERS[:1]}, "'model.q' among them"),
        ({"layers": LAYERS[::-1]}, "not in order"),
        ({"layers": ()}, "no layers"),
        ({"rank": 0}, "of rank 0, .* rank 2"),
    ],
)
def test_who_does_not_fit_is_refused(options: dict[str, Any], why: str) -> None:
    rounds = Rounds(settings(*OWNERS))
    rounds.enrol("bank", enrol(), 0)
    with pytest.raises(CapabilityError, match=why):
        rounds.enrol("clinic", enrol(**options), 0)


def test_strangers_and_other_federations_are_refused() -> None:
    rounds = begun(*OWNERS)
    with pytest.raises(RejectedError, match="'eve' is not one"):
        rounds.enrol("eve", enrol(), 0)
    with pytest.raises(RejectedError, match="enrol first"):
        rounds.next("eve", ask(rounds), 0)
    with pytest.raises(RejectedError, match="enrol first"):
        rounds.contribute("bank", update("ff" * 16, 1, 0), 0)
    with pytest.raises(RejectedError, match="round 2 has not begun"):
        rounds.contribute("bank", update(rounds, 2, 0), 0)
    with pytest.raises(RejectedError, match="round 1 has not closed"):
        rounds.next("bank", ask(rounds, 1), 0)
    chosen = Rounds(settings("bank", base="cd" * 16))
    with pytest.raises(CapabilityError, match="cdcd"):
        chosen.enrol("bank", enrol(), 0)


def _holds(folder: Path, packed: bytes) -> bool:
    return any(packed[-60:] in file.read_bytes() for file in folder.iterdir())


def test_no_update_is_in_any_file_when_its_round_has_closed(tmp_path: Path) -> None:
    rounds = Rounds(settings("bank", "town", rounds=2), tmp_path / "f.sqlite")
    for owner in ("bank", "town"):
        rounds.enrol(owner, enrol(), 0)
    for number in (1, 2):
        sent = update(rounds, number, number)
        rounds.contribute("bank", sent, 0)
        assert _holds(tmp_path, sent.packed)
        rounds.contribute("town", update(rounds, number, 10 + number), 0)
        assert not _holds(tmp_path, sent.packed)
    assert rounds.standing.state == "ended"


def test_no_update_is_in_any_file_when_nothing_came_of_its_round(tmp_path: Path) -> None:
    rounds = Rounds(settings("bank", "town"), tmp_path / "f.sqlite")
    for owner in ("bank", "town"):
        rounds.enrol(owner, enrol(), 0)
    sent = update(rounds, 1, 1)
    rounds.contribute("bank", sent, 0)
    assert _holds(tmp_path, sent.packed)
    rounds.contribute("town", update(rounds, 1, 0, packed=b"?"), 0)
    assert rounds.standing.state == "failed"
    assert not _holds(tmp_path, sent.packed)


def test_a_log_that_a_killed_process_left_is_emptied_at_the_next_start(tmp_path: Path) -> None:
    rounds = Rounds(settings("bank", "town"), tmp_path / "f.sqlite")
    assert (tmp_path / "f.sqlite-wal").stat().st_size > 0
    Rounds(settings("bank", "town"), tmp_path / "f.sqlite").close()
    assert (tmp_path / "f.sqlite-wal").stat().st_size == 0
    rounds.close()


def test_all_that_was_told_is_there_after_a_kill(tmp_path: Path) -> None:
    """Every call in a process of its own: the book is all that lasts."""
    path, whole = tmp_path / "f.sqlite", begun(*OWNERS)

    def anew() -> Rounds:
        return Rounds(
            settings(*OWNERS), path
        )  # the one before is left open, as a killed one leaves it

    for owner in OWNERS:
        anew().enrol(owner, enrol(), 0)
    for number in (1, 2):
        for seed, owner in enumerate(OWNERS):
            rounds = anew()
            assert rounds.next(owner, ask(rounds, number - 1), 0).state == "open"
            rounds.contribute(owner, update(rounds, number, 10 * number + seed), 0)
            whole.contribute(owner, update(whole, number, 10 * number + seed), 0)
        assert anew().contribute("bank", update(rounds, number, 10 * number), 0).fate == "taken"
    rounds = anew()
    ended = rounds.next("bank", ask(rounds, 1), 0)
    assert ended.packed == whole.next("bank", ask(whole, 1), 0).packed
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*), count(packed) FROM updates").fetchone() == (6, 0)
    assert path.stat().st_mode & 0o777 == 0o600
    other = settings(*OWNERS, rank=4, deadline_s=5.0)
    with pytest.raises(ConfigError, match=r"other settings \(rank\)"):
        Rounds(other, path)


def test_a_deadline_begins_anew_with_the_process(tmp_path: Path) -> None:
    path = tmp_path / "f.sqlite"
    rounds = begun("bank", "town", path=path)
    assert rounds.next("bank", ask(rounds), 59).left == pytest.approx(1)
    rounds.close()
    again = Rounds(settings("bank", "town"), path)
    assert again.next("bank", ask(again), 10_000).left == pytest.approx(60)


def test_an_owner_takes_no_more_than_it_says() -> None:
    rounds = begun("bank", rounds=1)
    rounds.contribute("bank", update(rounds, 1, 0), 0)
    with pytest.raises(RejectedError, match="the owner takes 10"):
        rounds.next("bank", ask(rounds, most=10), 0)


def of_ranks(rule: str, ranks: dict[str, int], **options: Any) -> tuple[Rounds, dict[str, Any]]:
    """A federation of owners with ranks of their own, and the updates that they gave to round 1."""
    rounds = Rounds(settings(*ranks, rule=rule, rank=max(ranks.values()), **options))
    given = {}
    for owner, rank in ranks.items():
        assert rounds.enrol(owner, enrol(rank=rank), 0).rank == rank
    for seed, (owner, rank) in enumerate(ranks.items()):
        given[owner] = arrays(seed, rank)
        packed = tensors.pack(given[owner])
        told = rounds.contribute(owner, update(rounds, 1, 0, rank=rank, packed=packed), 0)
        assert told.fate == "taken"
    return rounds, given


def product(matrices: dict[str, Any], layer: str) -> Any:
    return matrices[f"{layer}.lora_B"].astype(np.float64) @ matrices[f"{layer}.lora_A"]


def test_unequal_ranks_are_stacked_exactly_and_added_round_by_round() -> None:
    rounds, given = of_ranks("flora", {"bank": 1, "clinic": 3, "town": 2}, rounds=2)
    state = rounds.next("bank", ask(rounds), 0)
    assert (state.of, state.rank, state.adds) == (1, 6, True)
    for layer in ("model.k", "model.q"):
        slow = sum(product(matrices, layer) for matrices in given.values()) / 3
        assert np.allclose(product(adapter(state), layer), slow, rtol=1e-5, atol=1e-6)
    assert state.error == pytest.approx(0, abs=1e-5)
    assert len(state.packed) <= rounds.enrol("bank", enrol(rank=1), 0).most
    for owner, rank in {"bank": 1, "clinic": 3, "town": 2}.items():
        packed = tensors.pack(arrays(9, rank))
        rounds.contribute(owner, update(rounds, 2, 0, rank=rank, packed=packed), 0)
    late = rounds.next("town", ask(rounds), 0)  # it has none yet, and needs each
    assert (late.state, late.closed, late.of) == ("ended", 2, 1)
    assert rounds.next("town", ask(rounds, 1), 0).of == 2


def test_unequal_ranks_are_padded_and_the_bias_of_averages_is_told() -> None:
    rounds, _ = of_ranks("hetlora", {"bank": 1, "town": 2})
    state = rounds.next("bank", ask(rounds), 0)
    assert (state.rank, state.adds) == (2, False)
    plain = begun("bank", "town")
    for seed, owner in enumerate(("bank", "town")):
        plain.contribute(owner, update(plain, 1, seed), 0)
    error = plain.next("bank", ask(plain), 0).error
    one, other = arrays(0), arrays(1)
    off = wanted = 0.0
    for layer in ("model.k", "model.q"):
        mean_of_products = (product(one, layer) + product(other, layer)) / 2
        off += np.sum((product(mean(0, 1), layer) - mean_of_products) ** 2)
        wanted += np.sum(mean_of_products**2)
    assert error == pytest.approx(np.sqrt(off / wanted), rel=1e-4)
    assert error > 0.1
    with pytest.raises(
        CapabilityError, match="of rank 3, and this federation those of rank 1 to 2"
    ):
        rounds.enrol("bank", enrol(rank=3), 0)


def test_a_round_that_a_rule_cannot_put_together_fails_by_name() -> None:
    rounds = begun("bank", "town", rule="krum", rule_options={"hostile": 1})
    rounds.contribute("bank", update(rounds, 1, 0), 0)
    assert rounds.contribute("town", update(rounds, 1, 1), 0).fate == "taken"
    with pytest.raises(FederationError, match="nothing comes of round 1: "):
        rounds.next("bank", ask(rounds), 0)


@pytest.mark.parametrize("number", [1, 2])
def test_a_bound_is_on_how_far_updates_go_from_where_the_round_began(number: int) -> None:
    options = {"rule": "norm_bounded", "rule_options": {"largest": 0.5}}
    rounds = begun("bank", "town", **options)
    named = {name: (out, into) for name, out, into in LAYERS}
    start = first_matrices(named, 2, 0)
    for i in range(1, number + 1):
        for seed, owner in enumerate(("bank", "town")):
            rounds.contribute(owner, update(rounds, i, seed), 0)
        found = adapter(rounds.next("bank", ask(rounds, i - 1), 0))
        went = sum(np.sum((found[n].astype(np.float64) - start[n]) ** 2) for n in start)
        assert 0 < np.sqrt(went) <= 0.5 + 1e-5
        start = found


def test_what_comes_of_a_round_must_be_numbers() -> None:
    rounds = begun("bank", "town", rounds=1, largest_norm=1e300, codec="fp16")
    for owner in ("bank", "town"):
        packed = tensors.pack(arrays(1), "fp16")
        assert rounds.contribute(owner, update(rounds, 1, 0, packed=packed), 0).fate == "taken"
    assert rounds.next("bank", ask(rounds), 0).state == "ended"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"rounds": 0}, "rounds = 0"),
        ({"rank": 0}, "rank = 0"),
        ({"quorum": 4}, "quorum = 4 is not from 1 to the number of owners, 3"),
        ({"quorum": 3, "sample": 2}, "quorum = 3 is not from 1 to the number of owners, 2"),
        ({"sample": 4}, "sample = 4 is not from 1 to the number of owners that are named, 3"),
        ({"sample": 1, "owners": ()}, "sample = 1 is not from 1"),
        ({"sample": 2, "secure": True}, "secure sums the updates of all owners"),
        ({"rule": "averag"}, "did you mean 'average'"),
        ({"codec": "fp33"}, "fp33"),
        ({"rule": "krum", "rule_options": {"hostil": 1}}, "did you mean 'hostile'"),
        ({"rule": "krum", "rule_options": {"hostile": -1}}, "hostile"),
        ({"rule": "flora", "owners": ()}, "name the owners"),
        ({"owners": ("a", "a")}, "twice"),
        ({"deadline_s": float("inf")}, "deadline_s = inf"),
        ({"held_s": -1.0}, "held_s"),
    ],
)
def test_settings_are_looked_at(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        settings(*OWNERS, **options)


MANY = tuple(f"owner-{i}" for i in range(9))


def test_those_who_are_drawn_train_and_nobody_else_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "federation.sqlite"
    options = settings(*MANY, sample=3, seed=5)
    rounds = Rounds(options, path)
    first, second = options.drawn(1), options.drawn(2)
    assert len(first) == len(second) == 3
    assert first != second
    assert options.drawn(1) == settings(*MANY, sample=3, seed=5).drawn(1)
    assert rounds.waits_for(0) == first
    late = min(set(MANY) - first - second)
    for owner in [late, *sorted(first)]:
        assert rounds.standing.state == "enrolling"
        rounds.enrol(owner, enrol(), 0)
    assert rounds.waits_for(0) == first
    waiting = rounds.next(late, ask(rounds), 0)
    assert (waiting.state, waiting.waits_for, waiting.wanted) == ("wait", "updates", 3)
    with pytest.raises(RejectedError, match="not one of those drawn for round 1"):
        rounds.contribute(late, update(rounds, 1, 9), 0)
    for seed, owner in enumerate(sorted(first)):
        assert rounds.next(owner, ask(rounds), 0).state == "open"
        rounds.contribute(owner, update(rounds, 1, seed), 0)
    rounds.close()
    rounds = Rounds(options, path)  # begun again, the same are drawn
    assert rounds.waits_for(0) == second
    found = rounds.next(late, ask(rounds), 0)
    assert (found.state, found.of) == ("wait", 1)
    assert close_to(adapter(found), mean(0, 1, 2))
    for seed, owner in enumerate(sorted(second)):
        rounds.enrol(owner, enrol(), 0)
        rounds.contribute(owner, update(rounds, 2, seed), 0)
    assert rounds.standing.state == "ended"
    assert rounds.waits_for(0) == set()


def test_drawn_owners_that_do_not_come_are_missed_at_the_deadline() -> None:
    options = settings(*MANY, sample=3, quorum=2, seed=5)
    rounds = Rounds(options)
    first = sorted(options.drawn(1))
    for owner in first[:2]:
        rounds.enrol(owner, enrol(), 0)
        rounds.enrol(min(set(MANY) - set(first)), enrol(), 0)
    assert rounds.standing.state == "enrolling"
    assert rounds.waits_for(61) == set(first)  # two of three are a quorum
    assert rounds.standing.state == "open"
    for seed, owner in enumerate(first[:2]):
        rounds.contribute(owner, update(rounds, 1, seed), 62)
    assert rounds.waits_for(62) == {first[2]}
    assert rounds.waits_for(122) == options.drawn(2)


def test_settings_from_before_owners_were_drawn_are_the_same() -> None:
    assert "sample" not in settings(*OWNERS).lasting
    assert settings(*OWNERS, sample=2).lasting["sample"] == 2
