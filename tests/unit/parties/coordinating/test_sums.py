"""A coordinator sums what it cannot see: drop-outs, kills, owners who do not keep to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import federations
from cosilo.boundary.messages import Contribute, Masked, NextStep, SumState
from cosilo.boundary.messages.federate_sums import Unmasking
from cosilo.errors import CapabilityError, ConfigError, FederationError, PrivacyError, RejectedError
from cosilo.federation.secure.fixed_point import FixedPoint, weighted
from cosilo.federation.updates import flat, shaped
from cosilo.models.low_rank import first_matrices
from cosilo.parties.coordinating.rounds import Rounds
from cosilo.parties.coordinating.transferring import Transfer
from cosilo.strategies.federating.summing import SumOwner

OWNERS = ("bank", "clinic", "harbour", "town")
LAYERS = {name: (out, into) for name, out, into in federations.LAYERS}
BEGUN = first_matrices(LAYERS, federations.RANK, 0)
STEPS = ("shares", "vector", "unmasking")


def settings(**options: Any) -> Any:
    return federations.settings(*OWNERS, **{"secure": True, "quorum": 3, "rounds": 1} | options)


class Federation:
    """Owners and a coordinator; each call may be one of a process that was killed since the last."""

    def __init__(self, folder: Path | None = None, *, killed: bool = False, **options: Any) -> None:
        self.folder, self.killed = folder, killed
        self.settings = settings(**options)
        self._rounds = self.anew()
        for owner in OWNERS:
            self.terms = {
                **getattr(self, "terms", {}),
                owner: self.rounds.enrol(owner, federations.enrol(sums=True), 0).sums,
            }
        self.begin(1)

    def begin(self, number: int) -> None:
        """Owners go on to a round, each with the same way as in the first."""
        self.number = number
        self.owners = {owner: self.owner(owner) for owner in OWNERS}
        self.said: dict[tuple[str, str], Any] = {}
        self.states: dict[str, SumState] = {}

    def anew(self) -> Rounds:
        return Rounds(self.settings, self.folder and self.folder / "f.sqlite")

    @property
    def rounds(self) -> Rounds:
        if self.killed:
            self._rounds = self.anew()  # the one before is left open, as a killed one leaves it
        return self._rounds

    @property
    def name(self) -> str:
        return self._rounds.standing.name

    def owner(self, owner: str, *, number: int | None = None, share: float = 1.0) -> SumOwner:
        """`owner`, as a process begins it."""
        number = self.number if number is None else number
        terms = self.terms[owner]
        encoding = FixedPoint(terms.among, terms.largest, terms.bits)
        words = encoding.encoded(weighted(way(owner), share))
        file = self.folder and self.folder / f"{owner}-{number}.sum"
        return SumOwner(self.name, number, terms, words, least=3, file=file)

    def give(self, owner: str, message: Any, now: float = 1.0) -> Any:
        before = self.said.setdefault((owner, type(message).__name__), message)
        assert before == message  # never anything else, whoever was killed
        self.rounds.give(owner, message, now)
        return self.rounds.give(owner, message, now)  # also where it had not heard

    def advertise(self, without: Collection[str] = (), now: float = 1.0) -> None:
        for owner in OWNERS:
            if owner not in without:
                assert self.give(owner, self.owners[owner].advertise(), now).fate == "taken"

    def step(self, step: Any, without: Collection[str] = (), now: float = 1.0) -> None:
        for owner in OWNERS:
            if owner not in without:
                self.answer(owner, step, now)

    def answer(self, owner: str, step: Any, now: float = 1.0) -> Any:
        part = self.owners[owner]
        if self.killed:  # it begins anew, and hears again what it had been told
            part = self.owners[owner] = self.owner(owner)
            part.advertise()
            for earlier in STEPS[: STEPS.index(step)]:
                part.answer(self.state(owner, earlier, now))
        state = self.state(owner, step, now)
        assert state.step == step, state
        told = self.give(owner, part.answer(state), now)
        assert told.fate == "taken", told
        return told

    def state(self, owner: str, step: Any, now: float = 1.0) -> SumState:
        asked = NextStep(federation=self.name, number=self.number, step=step, among=len(OWNERS))
        return self.rounds.step(owner, asked, now)

    def adapter(self, now: float = 1.0) -> dict[str, Any]:
        state = self.rounds.next("bank", federations.ask(self._rounds), now)
        assert state.state == "ended"
        return federations.adapter(state)


def way(owner: str) -> Any:
    found = federations.arrays(OWNERS.index(owner))
    return flat(found) - flat(BEGUN)


def mean(*owners: str, weights: Collection[float] = ()) -> dict[str, Any]:
    found = np.average([way(owner) for owner in owners], axis=0, weights=list(weights) or None)
    return shaped(flat(BEGUN) + found, {n: t.shape for n, t in BEGUN.items()})


def close_to(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(np.allclose(found[n], wanted[n], atol=1e-6) for n in wanted)


def contents(folder: Path) -> list[Any]:
    with sqlite3.connect(folder / "f.sqlite") as db:
        query = "SELECT step, count(*) FROM sum_parts WHERE content IS NOT NULL GROUP BY step"
        return db.execute(query).fetchall()


def run(one: Federation, gone: dict[str, str]) -> None:
    """A round in which owners drop out, each before a step; then time passes."""
    without: list[str] = []
    now = 1.0
    for step in ("advert", *STEPS):
        missing = [owner for owner, at in gone.items() if at == step]
        without += missing
        if step == "advert":
            one.advertise(without, now)
        else:
            one.step(step, without, now)
        if missing:
            rounds = one.rounds  # one process, which sees the deadline begin and end
            rounds.next("bank", federations.ask(one._rounds, gave=1), now)
            now += 122
            rounds.next("bank", federations.ask(one._rounds, gave=1), now)


def test_a_round_gives_the_mean_of_updates_and_the_file_none_of_them(tmp_path: Path) -> None:
    one = Federation(tmp_path)
    assert one.state("bank", "shares").step == "wait"
    run(one, {})
    assert close_to(one.adapter(), mean(*OWNERS))
    assert contents(tmp_path) == [("advert", 4)]
    files = [p.read_bytes() for p in tmp_path.glob("f.sqlite*")]
    for owner in OWNERS:
        for kind, least in (("Masked", 60), ("HandShares", 100)):
            said = one.said[owner, kind]
            content = said.vector if kind == "Masked" else said.sealed[0][1]
            assert not any(content[:least] in data for data in files)
        words = FixedPoint(4, 8.0).encoded(weighted(way(owner), 1.0))
        assert not any(words.tobytes()[:40] in data for data in files)


def test_a_sum_goes_on_by_momentum_as_it_is_written_out(tmp_path: Path) -> None:
    one = Federation(tmp_path, killed=True, rounds=2, momentum=0.5, server_rate=0.4)
    run(one, {})
    one.begin(2)
    run(one, {})
    first = 0.4 * np.mean([way(owner) for owner in OWNERS], axis=0)
    second = first + 0.4 * (0.5 * first / 0.4 + np.mean([way(owner) for owner in OWNERS], axis=0))
    wanted = shaped(flat(BEGUN) + second, {n: t.shape for n, t in BEGUN.items()})
    assert close_to(one.adapter(), wanted)


@pytest.mark.parametrize("step", ["advert", *STEPS])
def test_who_drops_out_before_a_step_is_left_out_of_the_sum(step: str) -> None:
    one = Federation()
    run(one, {"harbour": step})
    left = OWNERS if step == "unmasking" else ("bank", "clinic", "town")
    assert close_to(one.adapter(500), mean(*left))


@pytest.mark.parametrize(
    ("gone", "why"),
    [
        ({"bank": "advert", "town": "advert"}, "2 good adverts of the 3 that it needs"),
        ({"bank": "shares", "town": "shares"}, "2 good owners' shares of the 3"),
        ({"bank": "vector", "town": "vector"}, "2 good masked updates of the 3"),
        ({"bank": "unmasking", "town": "unmasking"}, "2 good owners' shares for taking"),
        ({"bank": "advert", "town": "vector"}, "2 good masked updates of the 3"),
    ],
)
def test_a_round_that_too_few_finish_frees_nothing(
    tmp_path: Path, gone: dict[str, str], why: str
) -> None:
    one = Federation(tmp_path)
    with pytest.raises(FederationError, match=f"{why}.*no update was seen"):
        run(one, gone)
    assert contents(tmp_path) in ([("advert", 4)], [("advert", 2)], [("advert", 3)])
    with pytest.raises(FederationError, match="without a result"):
        one.state("clinic", "unmasking", 999)


def test_whoever_is_killed_between_any_two_steps_says_the_same(tmp_path: Path) -> None:
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    whole = Federation(tmp_path / "whole")
    run(whole, {"clinic": "vector"})
    killed = Federation(tmp_path / "killed", killed=True)
    run(killed, {"clinic": "vector"})
    found, wanted = killed.adapter(500), whole.adapter(500)
    assert all(np.array_equal(found[n], wanted[n]) for n in wanted)
    with sqlite3.connect(tmp_path / "killed" / "f.sqlite") as db:
        assert db.execute("SELECT owner, fate FROM updates ORDER BY owner").fetchall() == [
            ("bank", "taken"), ("harbour", "taken"), ("town", "taken"),
        ]  # fmt: skip


def test_weights_are_in_the_sum_alone() -> None:
    options = {"counts": True, "most_examples": 100}
    one = Federation(**options)
    assert one.terms["bank"].most_examples == 100
    shares = (1.0, 0.25, 0.5, 0.01)
    one.owners = {o: one.owner(o, share=w) for o, w in zip(OWNERS, shares, strict=True)}
    run(one, {})
    assert close_to(one.adapter(), mean(*OWNERS, weights=shares))


# ── owners who do not keep to it ─────────────────────────────────────────────


def replaced(message: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(message, **changes)


def test_an_advert_of_another_owners_keys_or_of_another_owner_is_dropped() -> None:
    one = Federation()
    good = one.owners["bank"].advertise()
    one.give("bank", good)
    mine = one.owners["clinic"].advertise()
    for advert, why in (
        (good.advert, "another owner than it is"),
        (replaced(mine.advert, mask_key=good.advert.mask_key), "advertised before"),
        (replaced(mine.advert, content=good.advert.content), "advertised before"),
        (replaced(mine.advert, share_key=bytes(32)), "keys is none"),
    ):
        fresh = Federation()
        fresh.give("bank", replaced(good, federation=fresh.name))
        told = fresh.rounds.give("clinic", replaced(mine, federation=fresh.name, advert=advert), 1)
        assert told.fate == "dropped"
        assert why in told.why
    with pytest.raises(RejectedError, match=r"something else .* round 1 \(advert\): one counts"):
        one.rounds.give("bank", one.owner("bank").advertise(), 1)  # its state was lost
    assert one.rounds.give("bank", good, 1).fate == "taken"


def test_an_advert_of_an_earlier_round_is_dropped() -> None:
    one = Federation(rounds=2)
    run(one, {})
    again = replaced(one.said["bank", "Advertise"], number=2)
    told = one.rounds.give("bank", again, 1)
    assert (told.fate, told.why.split(",")[0]) == (
        "dropped",
        "one of its keys was advertised before",
    )


BAD: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "too few shares": ("shares", lambda m: replaced(m, sealed=m.sealed[1:])),
    "shares for itself": (
        "shares",
        lambda m: replaced(m, sealed=(("clinic", bytes(148)), *m.sealed[1:])),
    ),
    "a short vector": ("vector", lambda m: replaced(m, vector=m.vector[4:])),
    "another's key": (
        "unmasking",
        lambda m: replaced(m, shares=Unmasking(own=m.shares.own, keys=(("bank", bytes(66)),))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_used_drops_its_owner_out(what: str) -> None:
    step, change = BAD[what]
    one = Federation()
    one.advertise()
    for at in STEPS:
        if at == step:
            message = one.owners["clinic"].answer(one.state("clinic", at))
            assert one.rounds.give("clinic", change(message), 1).fate == "dropped"
        one.step(at, [] if STEPS.index(at) < STEPS.index(step) else ["clinic"])
    left = OWNERS if step == "unmasking" else ("bank", "harbour", "town")
    assert close_to(one.adapter(), mean(*left))
    fate = one.rounds.next("clinic", federations.ask(one._rounds, gave=1), 1).fate
    assert fate == (None if step == "unmasking" else "dropped")


def test_one_owners_wrong_shares_are_left_out() -> None:
    one = Federation()
    one.advertise()
    one.step("shares")
    one.step("vector")
    message = one.owners["clinic"].answer(one.state("clinic", "unmasking"))
    lies = tuple((name, bytes(66)) for name, _ in message.shares.own)
    lie = replaced(message, shares=Unmasking(own=lies))
    assert one.rounds.give("clinic", lie, 1).fate == "taken"
    one.step("unmasking", ["clinic"])
    assert close_to(one.adapter(), mean(*OWNERS))


def test_steps_have_an_order() -> None:
    one = Federation()
    one.advertise(["town"])
    early = one.owner("town")
    advert = early.advertise()
    masked = Masked(federation=one.name, number=1, vector=b"")
    with pytest.raises(RejectedError, match="waits for advert, not for vector yet"):
        one.rounds.give("bank", masked, 1)
    one.rounds.next("bank", federations.ask(one._rounds, gave=1), 62)
    assert one.rounds.give("town", advert, 62).fate == "late"
    assert one.state("town", "shares", 62).step == "over"
    with pytest.raises(RejectedError, match="not enrol"):
        one.rounds.give("eve", replaced(advert), 62)
    update = Contribute(federation=one.name, number=1, rank=2, packed=b"")
    with pytest.raises(RejectedError, match="could be seen: set secure = true"):
        one.rounds.contribute("bank", update, 62)
    plain = Rounds(federations.settings(*OWNERS))
    plain.enrol("bank", federations.enrol(), 0)
    with pytest.raises(RejectedError, match="sums none"):
        plain.give("bank", replaced(advert, federation=plain.standing.name), 0)


def test_who_would_be_seen_and_who_would_not_do_not_meet() -> None:
    with pytest.raises(CapabilityError, match="set secure = true"):
        Rounds(settings()).enrol("bank", federations.enrol(), 0)
    with pytest.raises(CapabilityError, match=r"needs \[federation\] secure = true"):
        Rounds(federations.settings(*OWNERS)).enrol("bank", federations.enrol(sums=True), 0)


@pytest.mark.parametrize("options", [{"secure": True}, {"secure": False, "method": "scalars"}])
def test_no_large_model_learns_from_what_is_no_adapter_or_is_not_seen(options: Any) -> None:
    with pytest.raises(ConfigError, match="leave out secure, and method"):
        Rounds(settings(**options), transfer=unteachable())


@pytest.mark.parametrize("options", [{"momentum": 0.5}, {"server_rate": 0.5}])
def test_no_large_model_teaches_where_its_teaching_would_be_repeated(options: Any) -> None:
    with pytest.raises(ConfigError, match="repeat what the large model taught"):
        Rounds(settings(secure=False, **options), transfer=unteachable())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"rule": "median"}, "'median' reads each owner's update"),
        ({"rule": "krum"}, "'krum' reads each"),
        ({"rule": "trimmed_mean"}, "'trimmed_mean' reads each"),
        ({"rule": "norm_bounded"}, "'norm_bounded' reads each"),
        ({"rule": "flora"}, "'flora' reads each"),
        ({"rule": "hetlora"}, "'hetlora' reads each"),
        ({"owners": (), "quorum": None}, "name two or more"),
        ({"quorum": 1}, "would show one owner's update"),
        ({"counts": True}, "most_examples"),
        ({"secure_bits": 16}, "32 or 64"),
        ({"secure_largest": 0.0}, "largest"),
        ({"step_s": 0}, "step_s"),
    ],
)
def test_settings_that_sums_cannot_have_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        settings(**options)


def test_a_federation_that_began_before_there_were_sums_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "f.sqlite"
    Rounds(federations.settings(*OWNERS), path).close()
    with sqlite3.connect(path) as db:
        text = db.execute("SELECT settings FROM federation").fetchone()[0]
        kept = {k: v for k, v in msgspec.json.decode(text).items() if "secure" not in k}
        db.execute("UPDATE federation SET settings = ?", (msgspec.json.encode(kept).decode(),))
    Rounds(federations.settings(*OWNERS), path).close()


# ── a coordinator that does not keep to it ───────────────────────────────────


def shown(one: Federation, owner: str, upto: str) -> SumOwner:
    """An owner that has done all steps before `upto`."""
    part = one.owners[owner]
    for step in STEPS[: STEPS.index(upto)]:
        part.answer(one.state(owner, step))
    return part


def test_an_owner_that_began_anew_gives_no_shares_of_both_secrets_of_another(
    tmp_path: Path,
) -> None:
    one = Federation(tmp_path)
    one.advertise()
    one.step("shares")
    one.step("vector")
    state = one.state("bank", "unmasking")
    first = one.owners["bank"].answer(state)
    lie = replaced(state, owners=tuple(o for o in state.owners if o != "town"))
    for begun in (one.owners["bank"], one.owner("bank")):
        if begun is not one.owners["bank"]:
            for step in STEPS[:2]:
                begun.answer(one.state("bank", step))
        with pytest.raises(PrivacyError, match="for another owners left before"):
            begun.answer(lie)
        assert begun.answer(state) == first


def test_an_owner_joins_one_roster_with_itself_once_and_enough_others() -> None:
    one = Federation()
    one.advertise()
    state = one.state("bank", "shares")
    a = state.adverts
    late = Federation()
    for lie, why in (
        (replaced(state, threshold=2), "made of 2 owners' updates, and 3 were agreed"),
        (replaced(state, adverts=a[:1], threshold=3), "two owners or more"),
        (replaced(state, adverts=(a[0], *a)), "each once"),
        (replaced(state, adverts=(*a[:3], replaced(a[3], mask_key=a[1].mask_key))), "two keys"),
        (replaced(state, adverts=a[1:]), "as it advertised|than it advertised"),
        (
            replaced(state, adverts=(late.owners["bank"].advertise().advert, *a[1:])),
            "than it advertised",
        ),
    ):
        with pytest.raises(PrivacyError, match=why):
            one.owners["bank"].answer(lie)
    good = one.owners["bank"].answer(state)
    put = replaced(a[3], mask_key=late.owners["town"].advertise().advert.mask_key)
    with pytest.raises(PrivacyError, match="for another roster before"):
        one.owners["bank"].answer(replaced(state, adverts=(*a[:3], put)))
    assert one.owners["bank"].answer(state) == good


def test_an_owner_masks_for_one_set_of_owners_and_never_too_few() -> None:
    one = Federation()
    one.advertise()
    one.step("shares")
    part = shown(one, "bank", "vector")
    state = one.state("bank", "vector")
    with pytest.raises(PrivacyError, match="2 owners shared, and 3 are needed"):
        part.answer(replaced(state, owners=("bank", "town")))
    part.answer(state)
    with pytest.raises(PrivacyError, match="for another owners who shared"):
        part.answer(replaced(state, owners=("bank", "clinic", "town")))


def test_a_state_of_another_update_or_sum_is_not_gone_on_from(tmp_path: Path) -> None:
    one = Federation(tmp_path)
    one.owners["bank"].advertise()
    file = tmp_path / "bank-1.sum"
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(PrivacyError, match="is of another update"):
        one.owner("bank", share=0.5).advertise()
    other = one.owner("town")
    other._file = file
    with pytest.raises(Exception, match="is of another sum"):
        other.advertise()
    file.write_bytes(b"?")
    with pytest.raises(Exception, match="out of the round"):
        one.owner("bank").advertise()


def unteachable() -> Transfer:
    """Where a large model would learn, that is not looked at before it is refused."""
    model: Any = object()
    return Transfer(model, scale=2.0, codec="fp32", folder=None, told=lambda: None)
