"""An owner's updates are taken back: what stands is as if it had never given them, or not called so."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cosilo.boundary.messages.forget import ForgottenItem
from cosilo.boundary.wire import tensors
from cosilo.errors import FederationError, RejectedError
from cosilo.parties.coordinating.book import FederationBook
from cosilo.parties.coordinating.rounds import Rounds
from federations import LAYERS, RANK, ask, enrol, settings, update

OWNERS = ("bank", "clinic", "harbour", "town")
LEFT = ("bank", "clinic", "harbour")


def trained(owner: str, number: int, start: dict[str, Any] | None, codec: str = "fp32") -> bytes:
    """What an owner makes of where its round begins: the same for the same."""
    rng = np.random.default_rng([number, sum(map(ord, owner))])
    made = {}
    for name, out, into in LAYERS:
        for key, shape in ((f"{name}.lora_A", (RANK, into)), (f"{name}.lora_B", (out, RANK))):
            own = rng.normal(size=shape).astype(np.float32)
            before = 0 if start is None else start[key][: shape[0], : shape[1]]
            made[key] = (0.5 * own + np.float32(0.9) * before).astype(np.float32)
    return tensors.pack(made, codec)


class Trial:
    """Owners that follow what they are told, whatever becomes of rounds."""

    def __init__(
        self, path: Path | None = None, owners: Sequence[str] = OWNERS, **how: Any
    ) -> None:
        self.how: dict[str, Any] = {"rounds": 4, **how}
        self.path, self.named = path, owners
        self.rounds = Rounds(settings(*owners, **self.how), path)
        self.owners = list(owners)
        self.epochs = dict.fromkeys(owners, 0)
        self.starts: dict[str, dict[str, Any] | None] = dict.fromkeys(owners)
        self.have = dict.fromkeys(owners, 0)
        for owner in owners:
            self.rounds.enrol(owner, enrol(), 0)

    def again(self) -> None:
        """As a process that was killed begins again."""
        if self.path is not None:
            self.rounds.close()
            self.rounds = Rounds(settings(*self.named, **self.how), self.path)

    def turn(self, owner: str, now: float = 0) -> str:
        """One owner asks what is to do, and does it."""
        epoch = self.epochs[owner]
        state = self.rounds.next(owner, ask(self.rounds, self.have[owner], epoch=epoch), now)
        if state.state == "back":
            self.epochs[owner] = self.rounds.enrol(owner, enrol(epoch=state.epoch), now).epoch
            self.starts[owner], self.have[owner] = None, 0
            return self.turn(owner, now)
        if state.packed:
            found = tensors.unpack(state.packed)
            self.starts[owner], self.have[owner] = None if state.adds else found, state.of
            if self.have[owner] < state.closed:
                return self.turn(owner, now)
        if state.state == "open":
            packed = trained(owner, state.number, self.starts[owner], self.rounds.settings.codec)
            message = update(self.rounds, state.number, 0, packed=packed, epoch=epoch)
            assert self.rounds.contribute(owner, message, now).fate == "taken"
        return state.state

    def run(self, until: int = 99, turns: Sequence[str] = ()) -> None:
        """To the end, or until so many rounds have closed, and then some more turns."""
        while self.closed < until and self.rounds.standing.state == "open":
            for owner in self.owners:
                self.turn(owner)
        for owner in turns:
            self.turn(owner)

    @property
    def closed(self) -> int:
        return self.rounds.standing.closed

    def leave(
        self, owner: str = "town", rounds: Sequence[int] = (), name: str = "r"
    ) -> ForgottenItem:
        told = self.rounds.take_back(owner, name, rounds)
        if told.how not in ("nothing", "cannot") and owner in self.owners:
            self.owners.remove(owner)
        return told

    def adapters(self) -> list[bytes]:
        return [self.rounds._book.closed(n).packed for n in range(1, self.closed + 1)]  # type: ignore[union-attr]


def never(owners: Sequence[str] = LEFT, **how: Any) -> list[bytes]:
    """What comes of it where only these take part."""
    trial = Trial(owners=owners, **how)
    trial.run()
    return trial.adapters()


@pytest.mark.parametrize("closed", [0, 1, 2, 4])
@pytest.mark.parametrize("keep", [0, 1, 4])
def test_what_is_trained_again_is_what_it_would_have_been(closed: int, keep: int) -> None:
    trial = Trial(keep_updates=keep)
    trial.run(until=closed, turns=("bank", "town") if closed < 4 else ())
    told = trial.leave()
    stands = 1 if keep >= closed > 0 else 0
    assert told.how == (
        "deleted" if not closed else "redone" if stands == closed else "rolled back"
    )
    assert (told.first, told.last) == ((1, closed) if closed else (0, 0))
    assert trial.closed == stands
    trial.run()
    assert trial.rounds.standing.state == "ended"
    assert trial.adapters() == never(keep_updates=keep)


def test_who_came_late_takes_back_what_came_after() -> None:
    trial = Trial(quorum=3, deadline_s=60.0)
    trial.owners.remove("town")
    for owner in LEFT:
        trial.turn(owner)
    trial.rounds.next("bank", ask(trial.rounds, 0), 61.0)
    assert trial.closed == 1
    trial.owners.insert(0, "town")  # nobody waits for it, so it is there first
    first = trial.adapters()
    trial.run(until=3)
    assert trial.leave(rounds=(3, 2)).first == 2
    assert trial.adapters() == first
    trial.run()
    assert trial.adapters() == never(quorum=3)


def test_what_others_were_given_of_rounds_taken_back_before_is_told_too() -> None:
    """Its rounds are gone with another owner's, and what was told of them is not."""
    trial = Trial()
    trial.run(until=2)
    assert trial.leave("town").left == ("others were given it",)
    assert trial.closed == 0
    told = trial.leave("harbour")
    assert (told.how, told.first, told.left) == ("deleted", 0, ("others were given it",))


@pytest.mark.parametrize("closed", [3, 4])
def test_put_together_again_it_is_called_approximate(closed: int) -> None:
    trial = Trial(keep_updates=4, forgets="approximately")
    trial.run(until=closed)
    with_it = trial.adapters()
    told = trial.leave()
    assert (told.how, told.first, told.last) == ("approximate", 1, closed)
    assert trial.closed == closed
    assert told.left == ("others were given it",)
    apart = never(keep_updates=4)
    assert trial.adapters()[0] == apart[0], "no one's update of round 1 had learned from its own"
    assert trial.adapters()[1] not in (with_it[1], apart[1])
    trial.run()
    assert trial.rounds.standing.state == "ended"


def test_the_last_round_is_exact_either_way() -> None:
    late = Trial(quorum=3, keep_updates=1, forgets="approximately", rounds=2)
    late.owners.remove("town")
    for owner in LEFT:
        late.turn(owner)
    late.rounds.next("bank", ask(late.rounds, 0), 61.0)
    late.owners.insert(0, "town")
    late.run()
    told = late.leave()
    assert (told.how, told.first, told.last) == ("redone", 2, 2)
    assert late.rounds.standing.state == "ended"
    assert late.adapters() == never(quorum=3, rounds=2, keep_updates=1)


def test_it_is_done_once_and_told_again(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "f.sqlite")
    trial.run(until=2)
    told = trial.leave()
    trial.run(until=1)
    trial.again()
    assert trial.leave() == told
    assert trial.closed == 1, "the rounds since then stand"
    assert trial.leave(name="another").how == "nothing"
    trial.run()
    assert trial.adapters() == never()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_leaves_all_of_it_or_nothing(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(tmp_path / "f.sqlite", keep_updates=1)
    trial.run(until=2, turns=("clinic", "town"))
    stood = trial.adapters()

    class Killed(BaseException): ...

    inner = FederationBook.take_back

    def dies(*args: Any) -> None:
        if moment == "after":
            inner(*args)
        raise Killed

    with monkeypatch.context() as now:
        now.setattr(FederationBook, "take_back", dies)
        with pytest.raises(Killed):
            trial.leave()
    trial.again()
    assert trial.adapters() == (stood if moment == "before" else [])
    assert trial.leave().how == "rolled back"
    trial.again()
    trial.run()
    assert trial.adapters() == never(keep_updates=1)


def test_nothing_of_it_is_in_the_file(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "f.sqlite", keep_updates=4)
    trial.run(until=2, turns=("town", "bank"))
    mine = [trained("town", n, trial.starts["town"]) for n in (3,)]
    adapters = trial.adapters()
    own = [u.packed for n in (1, 2) for u in trial.rounds._book.updates(n, with_bytes=True)
           if u.owner == "town"]  # fmt: skip
    whole = b"".join(p.read_bytes() for p in sorted(tmp_path.iterdir()))
    pieces = [packed[200:260] for packed in (*mine, *adapters, *own) if packed]
    assert len(pieces) == 5
    assert all(piece in whole for piece in pieces)
    trial.leave()
    whole = b"".join(p.read_bytes() for p in sorted(tmp_path.iterdir()))
    assert not any(piece in whole for piece in pieces)


def test_updates_are_kept_as_long_as_was_said(tmp_path: Path) -> None:
    def kept(number: int) -> int:
        return sum(
            u.packed is not None for u in trial.rounds._book.updates(number, with_bytes=True)
        )

    trial = Trial(keep_updates=2)
    assert trial.rounds.enrol("bank", enrol(), 0).keeps == 2
    trial.run(until=3)
    assert [kept(n) for n in (1, 2, 3)] == [0, 4, 4]
    trial = Trial()
    trial.run(until=1)
    assert (kept(1), trial.rounds.enrol("bank", enrol(), 0).keeps) == (0, 0)


def test_what_was_made_before_it_is_late(tmp_path: Path) -> None:
    trial = Trial()
    trial.run(until=2)
    stale = update(trial.rounds, 1, 7)
    trial.leave()
    told = trial.rounds.contribute("bank", stale, 0)
    assert (told.fate, told.why) == ("late", "rounds were taken back since it was made")
    ended = trial.rounds.next("bank", ask(trial.rounds, 2), 0)
    assert (ended.state, ended.closed, ended.epoch) == ("back", 0, 1)


def test_who_left_is_gone(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "f.sqlite")
    trial.run(until=1)
    trial.leave()
    for _ in range(2):
        with pytest.raises(RejectedError, match="has left this federation"):
            trial.rounds.next("town", ask(trial.rounds, 1), 0)
        with pytest.raises(RejectedError, match="has left this federation"):
            trial.rounds.enrol("town", enrol(), 0)
        trial.again()


def test_too_few_are_left() -> None:
    trial = Trial(quorum=4)
    trial.run(until=2)
    told = trial.leave()
    assert told.how == "rolled back"
    assert trial.closed == 0
    with pytest.raises(FederationError, match="too few are left"):
        trial.turn("bank")
    ended = Trial(quorum=4, rounds=1, keep_updates=1)
    ended.run()
    assert ended.leave().how == "rolled back", "three good updates are fewer than its quorum"


def test_an_ended_federation_goes_on_for_who_comes(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "f.sqlite", rounds=2)
    trial.run()
    assert trial.rounds.standing.state == "ended"
    trial.leave()
    assert (trial.rounds.standing.state, trial.closed) == ("open", 0)
    trial.again()
    trial.run()
    assert trial.adapters() == never(rounds=2)


def test_settings_may_forbid_it_and_that_is_told() -> None:
    trial = Trial(forgets="no")
    trial.run(until=1)
    told = trial.leave()
    assert (told.how, told.left) == ("cannot", ("settings",))
    assert trial.closed == 1
    assert trial.rounds.take_back("nobody", "r", ()).how == "nothing"


def test_of_who_is_not_in_it_there_is_nothing() -> None:
    trial = Trial(owners=LEFT)
    trial.run(until=1)
    assert trial.leave("town").how == "nothing"
    assert trial.leave("bank", rounds=(3,)).how == "nothing"
    assert trial.closed == 1
    enrolled = Trial(owners=LEFT)
    assert enrolled.leave("bank").how == "deleted"
    assert [m.owner for m in enrolled.rounds._book.members()] == ["clinic", "harbour"]


def test_a_file_from_before_there_was_forgetting_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "f.sqlite"
    trial = Trial(path)
    trial.run(until=1)
    trial.rounds.close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE taken_back")
        (text,) = db.execute("SELECT settings FROM federation").fetchone()
        old = {k: v for k, v in msgspec.json.decode(text).items() if k != "keep_updates"}
        db.execute("UPDATE federation SET settings = ?", (msgspec.json.encode(old).decode(),))
    db.close()
    trial.rounds = Rounds(settings(*OWNERS, rounds=4), path)
    assert trial.leave().how == "rolled back"


def test_updates_of_sums_are_not_kept() -> None:
    with pytest.raises(ValueError, match="with secure there are none"):
        settings(*OWNERS, secure=True, keep_updates=1)
