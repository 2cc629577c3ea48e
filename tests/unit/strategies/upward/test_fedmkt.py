"""Owners of unequal tiny models and the owner of a larger one teach each other on public texts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from cosilo.boundary.messages import Contribute, Enrol, NextRound, RoundState
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.wire import opinions, tensors
from cosilo.boundary.wire.alignment import Spelling, vocabulary_of
from cosilo.errors import CapabilityError, ConfigError, DataError, FederationError, StoreError
from cosilo.federation.opinions import better, lessons, opinions_of
from cosilo.models.base import Access, Shows
from cosilo.models.fit.taught import TaughtLM, TaughtTerms
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.models.white_box.adapters import (
    Adapter,
    adapter_of,
    first_adapter,
    trained_adapter,
    upper_layers,
    with_adapter,
)
from cosilo.models.white_box.taught import predictions, taught_adapter
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies
from cosilo.types import Demonstration, Sampling, user
from mutual_pair import LABELS, mutual, public
from taught_pair import public_file, taught
from white_box import tiny

pytestmark = pytest.mark.timeout(300)

HOW: dict[str, Any] = {
    "steps": 6, "batch": 4, "learning_rate": 1e-2, "taught_steps": 3, "taught_rate": 1e-2, "rank": 2,
    "share": 0.5, "top": 16,
}  # fmt: skip
TOP = 8
OTHER = ("billing", "fund", "del", "ivery", "about")  # another tokeniser's words


def examples(of: int) -> tuple[Demonstration, ...]:
    return tuple(
        Demonstration(f"{of}-{i}", user(f"public {i}"), LABELS[i % 3]) for i in range(of, of + 8)
    )


def small(of: int) -> Any:
    """Unequal models: of two tokenisers, and of several widths."""
    return tiny(1) if of == 0 else tiny(2, words=OTHER, hidden=32)


def federation(
    *owners: str, large: Any = None, path: Path | None = None, **options: Any
) -> Federation:
    settings = {
        "owners": owners, "rounds": 2, "held_s": 5.0, "method": "opinions", "top": TOP,
    } | options  # fmt: skip
    return Federation(FederationSettings(**settings), path, mutual=large or taught())


async def prepared(
    coordinator: Federation,
    name: str,
    of: int,
    file: Path,
    *,
    exposes: Shows = Access.LOGITS.shows,
    model: Any = None,
    ledger: MemoryLedger | None = None,
    **options: Any,
) -> Session:
    made = strategies.create("fedmkt", public=file, **HOW | options)
    party = LMOwner(ScriptedModel(), client=name, federation=coordinator, exposes=exposes)
    owner = DataOwner(model or small(of), private=examples(of))
    session = open_session(owner, party, made, sampling=Sampling(choices=LABELS), ledger=ledger)
    return (await made.prepare(session))[1]


def together(
    coordinator: Federation, file: Path, owners: Sequence[int] = (0, 1), **options: Any
) -> list[Session]:
    async def run() -> list[Session]:
        try:
            return await asyncio.gather(
                *(prepared(coordinator, "ab"[of], of, file, **options) for of in owners)
            )
        finally:
            coordinator.stop()
            coordinator.close()

    return asyncio.run(run())


class ByHand:
    """One side, written out: its adapter, and what it says."""

    def __init__(self, model: Any, layers: Any, seed: int = 0) -> None:
        self.model = model
        self.tokens = [model.tokenize(e.chat, e.target) for e in public()]
        self.adapter = first_adapter(layers, 2, seed=seed)
        self.spelling = Spelling(vocabulary_of(model, public()[0].chat))

    def says(self) -> opinions.PublicOpinions:
        module, model = with_adapter(self.model.module, self.adapter), self.model
        rows = predictions(module, self.tokens)
        said = opinions_of(rows, self.tokens, model.piece, model.vocabulary, TOP)
        return opinions.unpack(opinions.pack(said), [e.target for e in public()], TOP)

    def learns(self, number: int, own: Any, others: dict[str, Any]) -> None:
        chosen = better(own.losses(), {name: said.losses() for name, said in others.items()})
        model = self.model
        found = lessons(
            self.tokens, chosen, others, self.spelling, model.vocabulary, model.vocabulary_size
        )
        self.adapter, _ = taught_adapter(
            model.module, self.adapter, found,
            share=0.5, steps=3, batch=3 if model.name == "tiny-0" else 4, learning_rate=1e-2,
            seed=number,
        )  # fmt: skip


def by_hand(rounds: int = 2) -> tuple[list[Adapter], Adapter]:
    """What comes of it for the small models and the large one, written out."""
    owners = [ByHand(small(of), upper_layers(small(of).module, None)) for of in (0, 1)]
    large = ByHand(tiny(0, layers=3), upper_layers(tiny(0, layers=3).module, None))
    before = large.says()
    for number in range(1, rounds + 1):
        said = {}
        for of, owner in enumerate(owners):
            sequences = [owner.model.tokenize(e.chat, e.target) for e in examples(of)]
            owner.adapter, _ = trained_adapter(
                owner.model.module, owner.adapter, sequences,
                steps=6, batch=4, learning_rate=1e-2, seed=number,
            )  # fmt: skip
            said["ab"[of]] = owner.says()
        large.learns(number, before, said)
        before = large.says()
        for of, owner in enumerate(owners):
            owner.learns(number, said["ab"[of]], {"large": before})
    return [owner.adapter for owner in owners], large.adapter


def test_both_sides_end_where_the_method_written_out_does(tmp_path: Path) -> None:
    path = tmp_path / "f.sqlite"
    sessions = together(federation("a", "b", path=path), public_file(tmp_path / "p"))
    smalls, large = by_hand()
    for session, wanted in zip(sessions, smalls, strict=True):
        found = adapter_of(session.owner.model.module)
        assert found.layers == wanted.layers
        assert all(np.array_equal(found.tensors[n], t) for n, t in wanted.tensors.items())
        (card,) = session.cards
        assert (card.by, card.facts["rounds"], card.facts["opinions taken"]) == ("fedmkt", 2, 2)
    folder = tmp_path / "f.mutual"
    (kept,) = folder.glob("round-2-*")
    assert kept.stat().st_mode & 0o77 == 0 == folder.stat().st_mode & 0o77
    there = tensors.unpack(kept.read_bytes())
    assert all(np.array_equal(there[n], t) for n, t in large.tensors.items())
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert not list(folder.glob("training-*"))


def test_each_side_gives_public_replies_more_than_before(tmp_path: Path) -> None:
    model = taught(steps=12)
    coordinator = federation("a", "b", large=model, rounds=3, path=tmp_path / "f.sqlite")
    sessions = together(coordinator, public_file(tmp_path / "p"), steps=25)
    for session in sessions:
        (card,) = session.cards
        table = card.tables["−log p of a public text, the large model"]
        before = opinions_of(model.predictions(None), model.sequences, model.piece, "", TOP)
        assert list(table.values())[-1] < float(np.mean(before.losses()))
        learned = card.tables["public texts that the large model knew better, and taught"]
        assert set(learned) == {"round 1", "round 2", "round 3"}


def test_no_private_text_and_no_weight_crosses(tmp_path: Path) -> None:
    ledger = MemoryLedger()
    coordinator = federation("a")
    together(coordinator, public_file(tmp_path / "p"), (0,), ledger=ledger)
    entries = list(ledger.entries())
    assert {type(e.message) for e in entries if e.direction == "up"} == {
        Enrol,
        NextRound,
        Contribute,
    }
    for entry in entries:
        if isinstance(entry.message, Contribute | RoundState) and entry.message.packed:
            said = opinions.unpack(entry.message.packed, [e.target for e in public()], TOP)
            assert said.top.logprobs.shape[1] == TOP
        elif isinstance(entry.message, Enrol):
            assert not entry.message.layers
            assert entry.message.examples is None


def test_owners_may_adapt_the_last_layers_alone(tmp_path: Path) -> None:
    (session,) = together(
        federation("a", large=taught(upper=1)), public_file(tmp_path / "p"), (0,), upper=1
    )
    assert adapter_of(session.owner.model.module).layers == upper_layers(tiny(1).module, 1)


class Dying(TaughtLM):
    """Dies in its second round."""

    def __init__(self, whole: TaughtLM) -> None:
        super().__init__(whole, whole.public, whole.terms)

    def learn(self, number: int, *args: Any) -> Any:
        if number == 2:
            raise StoreError("the disk is full")
        return super().learn(number, *args)


def test_who_began_anew_goes_on_with_the_same(tmp_path: Path) -> None:
    path, file = tmp_path / "f.sqlite", public_file(tmp_path / "p")
    options = {"checkpoints": tmp_path / "kept"}
    with pytest.raises(StoreError, match="the disk is full"):
        together(federation("a", path=path, large=Dying(taught())), file, (0,), **options)
    (again,) = together(federation("a", path=path), file, (0,), **options)
    (whole,) = together(federation("a"), file, (0,))
    found, wanted = (adapter_of(s.owner.model.module).tensors for s in (again, whole))
    assert all(np.array_equal(found[n], wanted[n]) for n in wanted)


@pytest.mark.parametrize("kept", [True, False])
def test_an_owner_that_lost_its_record_stands_where_it_stood(kept: bool, tmp_path: Path) -> None:
    """Once all rounds have closed it is told of the last one alone."""
    path, file = tmp_path / "f.sqlite", public_file(tmp_path / "p")
    options = {"checkpoints": tmp_path / "kept" if kept else None}
    (before,) = together(federation("a", path=path), file, (0,), **options)
    (again,) = together(federation("a", path=path), file, (0,), **options)
    found, wanted = (adapter_of(s.owner.model.module).tensors for s in (again, before))
    assert all(np.array_equal(found[n], wanted[n]) for n in wanted) == kept
    assert again.cards[0].facts["rounds"] == 2


def test_an_owner_with_noise_does_not_train_what_no_book_has(tmp_path: Path) -> None:
    path, file = tmp_path / "f.sqlite", public_file(tmp_path / "p")
    together(federation("a", path=path), file, (0,), noise=1.0)
    (again,) = together(federation("a", path=path), file, (0,), noise=1.0)
    assert not again.cards[0].tables.get("loss at the last step of each round, on its own examples")


def test_a_large_model_whose_adapter_is_gone_does_not_begin_again(tmp_path: Path) -> None:
    path, file = tmp_path / "f.sqlite", public_file(tmp_path / "p")
    options = {"checkpoints": tmp_path / "kept"}
    with pytest.raises(StoreError, match="full"):
        together(federation("a", path=path, large=Dying(taught())), file, (0,), **options)
    for each in (tmp_path / "f.mutual").glob("round-1-*"):
        each.unlink()
    with pytest.raises(StoreError, match="of round 1 is not in"):
        together(federation("a", path=path), file, (0,), **options)


@pytest.mark.parametrize("what", ["garbage", "another text", "a lie"])
def test_opinions_that_cannot_be_used_are_dropped_and_named(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def spoilt(update: Contribute, of: int) -> Contribute:
        if of == 0:
            return update
        if what == "garbage":
            return msgspec.structs.replace(update, packed=update.packed[:-20])
        texts = [e.target for e in public()]
        said = opinions.unpack(update.packed, texts, TOP)
        if what == "another text":
            other = said.pieces[1], *said.pieces[1:]
            spoilt = opinions.PublicOpinions(
                said.top.rows(slice(len(said.pieces[0]) - len(other[0]), None)), said.own,
                other, said.spelt, "v",
            )  # fmt: skip
            monkeypatch.setattr(opinions, "_check", lambda _: None)
            packed = opinions.pack(spoilt)
            monkeypatch.undo()
            return msgspec.structs.replace(update, packed=packed)
        own = said.top.logprobs.argmax(axis=1)  # the likeliest is said to be what stands there
        monkeypatch.setattr(opinions, "_check", lambda _: None)
        lie = opinions.PublicOpinions(said.top, own, said.pieces, said.spelt, said.vocabulary)
        packed = opinions.pack(lie)
        monkeypatch.undo()
        return msgspec.structs.replace(update, packed=packed)

    from cosilo.strategies.federating.opinions import OpinionOwner

    whole = OpinionOwner.update

    def update(self: OpinionOwner, number: int) -> Contribute:
        of = 0 if self._tokens[0].ids.tolist() == tiny(1).tokenize(
            public()[0].chat, public()[0].target
        ).ids.tolist() else 1  # fmt: skip
        return spoilt(whole(self, number), of)

    with monkeypatch.context() as patch:
        patch.setattr(OpinionOwner, "update", update)
        caplog.set_level(logging.INFO, "cosilo.federation")
        one, other = together(federation("a", "b", quorum=1), public_file(tmp_path / "p"))
    assert one.cards[0].facts["opinions taken"] == 2
    assert other.cards[0].facts["opinions taken"] == 0
    assert "no opinions of these texts" in str(other.cards[0].facts["round 1"])
    assert "the update of 'b' is dropped" in caplog.text
    assert "public 0" not in caplog.text


def test_who_may_not_take_part_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    file = public_file(tmp_path / "p")

    def refused(coordinator: Federation, match: str, **options: Any) -> None:
        try:
            with pytest.raises(CapabilityError, match=match):
                asyncio.run(prepared(coordinator, "a", 0, options.pop("file", file), **options))
        finally:
            coordinator.close()

    refused(federation("a"), "public examples are", file=public_file(tmp_path / "q", 5))
    refused(federation("a"), "exposes only", exposes=Shows.TEXT)
    refused(federation("a"), "names? 8 tokens|name 8 tokens", top=4)
    refused(federation("a"), "2 rounds, and this owner takes part in 1", rounds=1)
    plain = Federation(FederationSettings(owners=("a",), rank=2), mutual=mutual())
    refused(plain, "federated or fedcollm")
    refused(Federation(FederationSettings(owners=("a",), rank=2)), "federated or fedcollm")
    for name in ("federated", "fedcollm"):
        coordinator = federation("a")
        strategy = strategies.create(name, steps=2, rank=2)
        party = LMOwner(ScriptedModel(), client="a", federation=coordinator)
        session = open_session(DataOwner(tiny(1), private=examples(0)), party, strategy)
        with pytest.raises(CapabilityError, match="by the strategy fedmkt"):
            asyncio.run(strategy.prepare(session))
        coordinator.close()


async def test_an_owner_that_would_send_an_adapter_is_refused() -> None:
    coordinator, digest = federation("a"), opinions.digest_of(public())
    for more in ({"sums": True}, {"scalars": True}, {"rank": 2}, {"layers": (("q", 2, 2),)}):
        asked = {"base": "b", "layers": (), "rank": 0, "public": digest} | more
        with pytest.raises(CapabilityError, match="adapters stay at home"):
            await coordinator.enrol("a", Enrol(**asked))
    coordinator.close()


def test_coordinators_that_cannot_be(tmp_path: Path) -> None:
    settings = {"owners": ("a",), "method": "opinions"}
    with pytest.raises(ConfigError, match="opinions teach a large model"):
        Federation(FederationSettings(**settings))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match='method = "opinions"'):
        Federation(FederationSettings(owners=("a",)), mutual=taught())
    with pytest.raises(ConfigError, match="leave out"):
        Federation(FederationSettings(**settings), mutual=mutual())  # type: ignore[arg-type]
    for options, match in (
        ({"rule": "krum"}, "opinions are none"),
        ({"secure": True, "owners": ("a", "b")}, "leave out secure"),
        ({"counts": True}, "counts"),
        ({"top": 1}, "top = 1"),
        ({"top": 300}, "top = 300"),
    ):
        with pytest.raises(ValueError, match=match):
            FederationSettings(**settings | options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no public examples"):
        TaughtLM(tiny(0), [], TaughtTerms())
    with pytest.raises(ConfigError, match="has 2 layers"):
        taught(tiny(0), upper=5).learn(1, [], None, None)
    for options in ({"steps": 0}, {"share": 1.5}, {"upper": -1}):
        with pytest.raises(ConfigError, match="taught: "):
            TaughtTerms(**options)  # type: ignore[arg-type]
    path = tmp_path / "f.sqlite"
    federation("a", path=path).close()
    with pytest.raises(ConfigError, match=r"other settings \(taught\)"):
        federation("a", path=path, large=taught(count=5))


@pytest.mark.parametrize(
    "options",
    [{"top": 1}, {"taught_steps": 0}, {"share": 2.0}, {"rank": 0}, {"noise": -1.0}, {"upper": -1}],
)
def test_options_that_cannot_be(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        strategies.create("fedmkt", public=tmp_path, **options)


def test_public_texts_that_a_model_cannot_read(tmp_path: Path) -> None:
    file = tmp_path / "p"
    file.write_text('{"text": "%s", "target": "refund"}' % ("long " * 300))
    with pytest.raises(DataError, match=r"public example 1 has .* tokens"):
        asyncio.run(prepared(federation("a"), "a", 0, file))


def test_a_large_model_that_predicts_no_numbers_ends_the_federation(tmp_path: Path) -> None:
    broken = tiny(0, layers=3)
    with torch.no_grad():
        broken.module.model.norm.weight.fill_(float("nan"))
    with pytest.raises(FederationError, match=r"nothing comes of round 1.*no number"):
        together(federation("a", large=taught(broken)), public_file(tmp_path / "p"), (0,))


def test_noise_on_each_step_is_booked_with_what_was_said(tmp_path: Path) -> None:
    ledger = MemoryLedger()
    (session,) = together(
        federation("a"), public_file(tmp_path / "p"), (0,), ledger=ledger, noise=1.0, steps=3
    )
    sent = [e.message for e in ledger.entries() if isinstance(e.message, Contribute)]
    assert len(sent) == 2
    assert all(m.release is not None and m.release.unit == "record" for m in sent)
    assert "ε of all of its records together" in session.cards[0].facts


def test_nothing_is_learnt_of_texts_that_a_side_knows_best(tmp_path: Path) -> None:
    large = taught(tiny(0, layers=3))
    start = large.learn(1, [], None, None)
    again = large.learn(2, [], start, None)
    assert all(np.array_equal(start[n], again[n]) for n in start)
    (session,) = together(federation("a"), public_file(tmp_path / "p"), (0,), steps=60)
    learned = session.cards[0].tables["public texts that the large model knew better, and taught"]
    own = session.cards[0].tables["−log p of a public text, this owner's model"]
    there = session.cards[0].tables["−log p of a public text, the large model"]
    assert own["round 1"] < there["round 1"]
    assert learned["round 1"] < len(public())
