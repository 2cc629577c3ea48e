"""A member knows its own shard alone, a record that goes moves no other, and what it never touched is
not trained again."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from cosilo.errors import CapabilityError, ConfigError, DataError, RejectedError
from cosilo.models.base import Access
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.models.sharded import (
    Checkpoints,
    Sharding,
    joined_rows,
    placed,
    sharded,
    together,
)
from cosilo.types import Chat, Demonstration, Generation, Sampling, TokenLogprob, last_user, user

KEY = b"k" * 32
RNG = random.Random(0)
EXAMPLES = [Demonstration(str(i), user(f"text {i}"), RNG.choice(["cat", "dog"])) for i in range(60)]


@dataclass
class Chain:
    """A model that is what it was trained on, in order; `work` counts what was trained."""

    seen: tuple[str, ...] = ()
    work: list[int] = field(default_factory=list)
    name: str = "chain"
    access: Access = Access.WEIGHTS

    def fit(self, examples: Sequence[Demonstration], *, seed: int = 0) -> Chain:
        return self.further(examples, share=1.0, seed=seed)

    def further(self, examples: Sequence[Demonstration], *, share: float, seed: int = 0) -> Chain:
        if not examples:
            raise DataError("nothing to learn")
        self.work.append(len(examples))
        told = f"{share:.3f} {seed}: " + " ".join(last_user(e.chat) for e in examples)
        return replace(self, seen=(*self.seen, told))

    def keep(self, folder: Path) -> Mapping[str, object]:
        (folder / "seen").write_text("\n".join(self.seen))
        return {}

    def restored(self, folder: Path) -> Chain:
        try:
            return replace(self, seen=tuple((folder / "seen").read_text().split("\n")))
        except OSError:
            raise ConfigError("it is not there") from None

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        return Generation(self.seen[-1])

    async def close(self) -> None: ...


def seen(model: object) -> list[tuple[str, ...]]:
    return [m.seen for m in model.members]  # type: ignore[attr-defined]


def at(folder: Path, recipe: str = "r", before: Path | None = None) -> Checkpoints:
    return Checkpoints(folder, recipe, before)


def test_no_other_record_moves_when_one_goes_or_comes() -> None:
    how = Sharding(count=4, slices=3)
    places = {
        e.id: (i, j)
        for i, slices in enumerate(placed(EXAMPLES, KEY, how))
        for j, some in enumerate(slices)
        for e in some
    }
    assert len(places) == len(EXAMPLES)
    assert len(set(places.values())) == 12
    shuffled = random.Random(1).sample(EXAMPLES, len(EXAMPLES))
    assert placed(shuffled, KEY, how) == placed(EXAMPLES, KEY, how)
    for gone in EXAMPLES[::7]:
        rest = placed([e for e in EXAMPLES if e is not gone], KEY, how)
        for i, slices in enumerate(placed(EXAMPLES, KEY, how)):
            assert rest[i] == [[e for e in some if e is not gone] for some in slices]
    assert placed(EXAMPLES, b"x" * 32, how) != placed(EXAMPLES, KEY, how)


def test_stages_learn_one_slice_more_each_and_as_much_together_as_one_training() -> None:
    how = Sharding(count=2, slices=3)
    made = sharded(Chain(), how, key=KEY).fit(EXAMPLES, seed=5)
    for member, slices in zip(made.members, placed(EXAMPLES, KEY, how), strict=True):
        known: list[Demonstration] = []
        told = []
        for some in slices:
            known += some
            told.append("0.500 5: " + " ".join(last_user(e.chat) for e in known))
        assert member.seen == tuple(told)  # type: ignore[attr-defined]


@pytest.mark.parametrize("slices", [1, 4])
def test_only_what_a_record_touched_is_trained_again_and_ends_as_if_it_had_never_been(
    tmp_path: Path, slices: int
) -> None:
    how = Sharding(count=4, slices=slices)
    base = Chain()
    first = sharded(base, how, key=KEY, checkpoints=at(tmp_path / "run")).fit(EXAMPLES)
    everything = len(base.work)
    for gone in EXAMPLES[::9]:
        rest = [e for e in EXAMPLES if e is not gone]
        again = Chain()
        new = tmp_path / f"without-{gone.id}"
        made = sharded(again, how, key=KEY, checkpoints=at(new, before=tmp_path / "run")).fit(rest)
        never = sharded(Chain(), how, key=KEY, checkpoints=at(tmp_path / f"never-{gone.id}"))
        assert seen(made) == seen(never.fit(rest))
        assert names(new) == names(tmp_path / f"never-{gone.id}")
        (place,) = [
            (i, j)
            for i, some in enumerate(placed(EXAMPLES, KEY, how))
            for j, one in enumerate(some)
            if gone in one
        ]
        assert len(again.work) == slices - place[1] < everything
        untouched = [i for i in range(how.count) if i != place[0]]
        assert [seen(made)[i] for i in untouched] == [seen(first)[i] for i in untouched]
        assert gone.chat[-1].content not in " ".join(
            f.read_text() for f in new.rglob("seen")
        ).split("text ")


def names(folder: Path) -> set[str]:
    return {f.name for f in folder.iterdir()}


def test_nothing_is_gone_on_from_that_came_about_otherwise(tmp_path: Path) -> None:
    how = Sharding(count=2, slices=2)
    sharded(Chain(), how, key=KEY, checkpoints=at(tmp_path)).fit(EXAMPLES)
    for key, recipe, seed, many in (
        (b"x" * 32, "r", 0, 2), (KEY, "other", 0, 2), (KEY, "r", 1, 2), (KEY, "r", 0, 3),
    ):  # fmt: skip
        base = Chain()
        told = Sharding(count=2, slices=many)
        sharded(base, told, key=key, checkpoints=at(tmp_path, recipe)).fit(EXAMPLES, seed=seed)
        assert len(base.work) == 2 * many
    base = Chain()
    damaged = sorted(tmp_path.iterdir())
    for folder in damaged:
        (folder / "seen").unlink()
    sharded(base, how, key=KEY, checkpoints=at(tmp_path)).fit(EXAMPLES)
    assert len(base.work) == 4
    base = Chain()
    sharded(base, how, key=KEY, checkpoints=at(tmp_path)).fit(EXAMPLES)
    assert base.work == []


def test_what_a_killed_process_left_half_made_is_deleted_and_nobody_elses(tmp_path: Path) -> None:
    here = socket.gethostname()
    killed, alive = tmp_path / f".old.{here}.4194303", tmp_path / f".old.{here}.{os.getppid()}"
    elsewhere = tmp_path / ".old.another-machine.4194303"
    for folder in (killed, alive, elsewhere, tmp_path / "kept"):
        folder.mkdir()
    at(tmp_path).keep("new", Chain(("one",)))
    assert {p.name for p in tmp_path.iterdir()} == {"kept", "new", alive.name, elsewhere.name}


def test_a_shard_that_teaches_nothing_has_no_say() -> None:
    made = sharded(Chain(), Sharding(count=40), key=KEY).fit(EXAMPLES[:5])
    assert 1 <= len(made.members) <= 5
    with pytest.raises(DataError):
        sharded(Chain(), Sharding(), key=KEY).fit([])
    with pytest.raises(CapabilityError, match="cannot be trained"):
        sharded(Untrainable(), Sharding(), key=KEY)
    with pytest.raises(ValueError, match="count = 0"):
        Sharding(count=0)


class Untrainable:
    name = "fixed"
    access = Access.TEXT

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        return Generation("")

    async def close(self) -> None: ...


def test_probabilities_are_averaged_or_voted_on() -> None:
    rows = [np.array([[p, 1 - p]], np.float32) for p in (0.6, 0.6, 0.0)]
    assert joined_rows(rows, "mean")[0].tolist() == pytest.approx([0.4, 0.6])
    assert joined_rows(rows, "vote")[0].tolist() == pytest.approx([2 / 3, 1 / 3], abs=1e-3)
    tie = [np.array([[p, 1 - p]], np.float32) for p in (0.9, 0.4)]
    assert joined_rows(tie, "vote")[0].argmax() == 0
    with pytest.raises(ConfigError):
        joined_rows([], "mean")


def reply(text: str, p: float) -> Generation:
    other = "dog" if text == "cat" else "cat"
    top = ((text, float(np.log(p))), (other, float(np.log(1 - p))))
    return Generation(
        text, tokens=(TokenLogprob(text, top[0][1], top),), prompt_tokens=3, seconds=1
    )


def test_replies_become_one_that_took_what_all_did() -> None:
    said = [reply("cat", 0.6), reply("cat", 0.6), reply("dog", 0.99)]
    mean = together(said, "mean", labels=("cat", "dog"))
    assert (mean.text, mean.prompt_tokens, mean.seconds) == ("dog", 9, 3)
    assert mean.tokens[0].logprob == pytest.approx(np.log((0.4 + 0.4 + 0.99) / 3), abs=1e-6)
    assert together(said, "vote", labels=("cat", "dog")).text == "cat"
    free = [Generation("a"), Generation("b"), Generation("b")]
    assert together(free, "mean").text == "b"
    assert together(free[:2], "vote").text == "a"


def test_members_that_refuse_have_no_say_and_other_errors_are_raised() -> None:
    base = ScriptedModel({})
    how = Sharding(count=2)
    made = sharded(base, how, key=KEY).fit(EXAMPLES)
    assert made.access is Access.LOGPROBS
    one, two = made.members
    assert isinstance(one, ScriptedModel)
    assert isinstance(two, ScriptedModel)
    ask = made.generate(user("text 1"), Sampling(choices=("cat", "dog")))
    assert asyncio.run(ask).text in ("cat", "dog")
    one.fail = RejectedError("not this")
    assert asyncio.run(made.generate(user("nothing"), Sampling())).text == "nothing"
    two.fail = RejectedError("nor this")
    with pytest.raises(RejectedError):
        asyncio.run(made.generate(user("x"), Sampling()))
    one.fail = None
    two.fail = OSError("gone")
    with pytest.raises(OSError, match="gone"):
        asyncio.run(made.generate(user("x"), Sampling()))
