"""Every strategy that ships keeps the strategy contract."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from a_writer import WordEmbedder, writes
from bag import Bag
from cosilo.gateway.process.config import _Served
from cosilo.models.base import Access, TextModel
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import Session, Strategy, strategies
from cosilo.strategies.inference.gain import fit_gain
from cosilo.tables import options_of
from cosilo.testing import LABELS, StrategyContract
from cosilo.types import Chat, Sampling, last_user, user
from private_heads import data_owner, needs_tenseal, owner_of, private_head


class TestSmall(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("small")


class TestLarge(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("large")


class TestEnsemble(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("ensemble")


class TestEnsembleThatLearns(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("ensemble", method="dawid_skene", sure=0.3)


class TestEnsembleThatCompares(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("ensemble", method="pairwise")

    def owner(self) -> DataOwner:
        return replace(super().owner(), embedder=WordEmbedder())


class TestAutomix(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("automix", calls=0.5)


class TestRerank(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("rerank", samples=3)

    def owner(self) -> DataOwner:
        return replace(super().owner(), embedder=WordEmbedder())


@needs_tenseal
class TestSecureHead(StrategyContract):
    folder: Path

    @pytest.fixture(autouse=True)
    def _counted_in(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def strategy(self) -> Strategy:
        return strategies.create("secure_head")

    def owner(self) -> DataOwner:
        return data_owner()

    def open(self, **options: Any) -> Session:
        lm = owner_of(private_head(self.folder))
        sampling = Sampling(choices=LABELS)
        return open_session(self.owner(), lm, self.strategy(), sampling=sampling, **options)


class TestSelfConsistency(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("rerank", judge="majority")


class TestCascadeThatPromises(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("cascade", wrong=0.2)


class TestRouterThatPromises(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("router", wrong=0.2)


class TestCascadeChoosesItsThreshold(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("cascade")


class TestCascadeWithAShareOfCalls(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("cascade", calls=0.5)


class TestCascadeThatAlwaysAsks(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("cascade", threshold=1.0)


class TestRouter(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("router", calls=0.5)

    def test_the_gain_is_learned_off_the_loop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        threads: list[int] = []

        def fit(*arguments: Any, **options: Any) -> Any:
            threads.append(threading.get_ident())
            return fit_gain(*arguments, **options)

        monkeypatch.setattr("cosilo.strategies.inference.router.fit_gain", fit)
        asyncio.run(self.strategy().prepare(self.open()))
        assert len(threads) == 1
        assert threading.get_ident() not in threads


class TestRouterByCertainty(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("router", calls=0.5, certainty=True)


class TestInferDP(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("infer_dp")


class TestDecompose(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("decompose", planner="question")

    def chats(self) -> list[Chat]:
        return [
            user(f"message {i}: what is it?\n<document>{'It is late. ' * 40}about {x}.</document>")
            for i, x in enumerate(LABELS)
        ]

    def large(self) -> ScriptedModel:
        return ScriptedModel(lambda chat: "billing" if "It is late" in str(chat) else "refund")


class TestRetrieve(StrategyContract):
    @pytest.fixture(autouse=True)
    def documents(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "documents"
        self.folder.mkdir()
        for i, label in enumerate(LABELS):
            (self.folder / f"{i}.txt").write_text(f"{'It is late. ' * 20}What is about {label}.")

    def strategy(self) -> Strategy:
        index = str(self.folder.parent / "index")
        return strategies.create("retrieve", documents=str(self.folder), index=index)


class TestSuperICL(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("supericl")


class TestRewrite(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("rewrite")


class TestRewriteThatReplaces(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("rewrite", way="replace", finish="large", cautious=True)


class TestSketch(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("sketch")


class TestFederated(StrategyContract):
    """A federation of one, its coordinator in this process."""

    @pytest.fixture(autouse=True)
    def torch(self) -> None:
        pytest.importorskip("torch")

    def strategy(self) -> Strategy:
        return strategies.create("federated", steps=2, batch=4, rank=2, learning_rate=1e-2)

    def small(self) -> TextModel:
        from white_box import tiny

        return tiny(1)

    def open(self, **options: Any) -> Session:
        settings = FederationSettings(rounds=1, rank=2)
        lm = LMOwner(self.large(), federation=Federation(settings))
        return open_session(
            self.owner(), lm, self.strategy(), sampling=Sampling(choices=LABELS), **options
        )


class TestFedCoLLM(TestFederated):
    """The same, with a large model that learns with it."""

    def strategy(self) -> Strategy:
        return strategies.create("fedcollm", steps=2, batch=4, rank=2, learning_rate=1e-2)

    def open(self, **options: Any) -> Session:
        from mutual_pair import mutual

        federation = Federation(FederationSettings(rounds=1, rank=2), mutual=mutual())
        lm = LMOwner(self.large(), federation=federation)
        return open_session(
            self.owner(), lm, self.strategy(), sampling=Sampling(choices=LABELS), **options
        )


class TestFedMKT(TestFederated):
    """One owner, and a large model that learns from what its own says of public texts."""

    @pytest.fixture(autouse=True)
    def public(self, torch: None, tmp_path: Path) -> None:
        from taught_pair import public_file

        self.file = public_file(tmp_path / "public.jsonl")

    def strategy(self) -> Strategy:
        return strategies.create(
            "fedmkt", public=self.file, steps=2, batch=4, rank=2, taught_steps=2, learning_rate=1e-2
        )

    def open(self, **options: Any) -> Session:
        from taught_pair import taught

        settings = FederationSettings(rounds=1, method="opinions", top=8)
        federation = Federation(settings, mutual=taught())
        lm = LMOwner(self.large(), exposes=Access.LOGITS.shows, federation=federation)
        return open_session(
            self.owner(), lm, self.strategy(), sampling=Sampling(choices=LABELS), **options
        )


class TestDistilLabels(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("distil_labels")


class TestDistilThenCascade(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("distil_labels", then="cascade", then_options={"calls": 0.3})


class TestZeroGen(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("zerogen", each=4)

    def small(self) -> TextModel:
        return Bag()

    def large(self) -> ScriptedModel:
        return ScriptedModel(texts, name="large")


class TestProGen(TestZeroGen):
    def strategy(self) -> Strategy:
        return strategies.create("progen", each=8, rounds=2)


class TestFuseGen(TestZeroGen):
    def strategy(self) -> Strategy:
        return strategies.create("fusegen", each=16, rounds=2)


class TestNarrowLabels(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("narrow_labels", items=6, candidates=2)

    def small(self) -> TextModel:
        return Bag()


class TestParaphrase(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("paraphrase", each=2)

    def small(self) -> TextModel:
        return Bag()

    def large(self) -> ScriptedModel:
        return ScriptedModel(lambda chat: f"{last_user(chat).split()[-1]} in other words\nor so")


class TestStepByStep(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("step_by_step")


def texts(chat: Chat) -> str:
    """Four texts on the label that the last turn asks for."""
    label = last_user(chat).partition("label '")[2].partition("'")[0]
    return "\n".join(f"{label} {label}s {n * 'un'}{label} {n}" for n in range(1, 5))


class TestPrivateEvolution(StrategyContract):
    def strategy(self) -> Strategy:
        return strategies.create("private_evolution", about="a message", each=8, rounds=2)

    def large(self) -> ScriptedModel:
        return ScriptedModel(writes)

    def owner(self) -> DataOwner:
        return replace(super().owner(), embedder=WordEmbedder())


def test_every_registered_strategy_is_under_contract() -> None:
    covered = {
        "small", "large", "cascade", "automix", "router", "ensemble", "decompose", "supericl",
        "infer_dp", "rewrite", "sketch", "rerank", "secure_head",
        # by real engines, in tests/integration/test_secure_llama.py
        "secure_adapter", "secure_forward",
        "retrieve",
        "distil_labels", "step_by_step", "zerogen", "progen", "fusegen",
        "narrow_labels", "paraphrase", "private_evolution",
        # asks for plans, in tests/unit/strategies/test_decompose_tables.py
        "decompose_tables",
        # on tiny models with weights, in tests/unit/strategies
        "distil_logits", "distil_across",
        # on threads, there too
        "fusion", "offset", "proxy",
        # with an LM that shows states, there too
        "distil_states", "split", "split_learning",
        # with one that goes on from what it has read, there too
        "speculative",
        # with one whose owner lends an emulator, there too
        "offsite",
        # with one whose owner tunes for clients, there too
        "weak_to_strong", "crosslm",
        # with a coordinator, there too
        "federated", "fedcollm", "fedmkt",
    }  # fmt: skip
    assert set(strategies.names()) == covered


@pytest.mark.parametrize("name", strategies.names())
def test_no_option_is_called_like_a_key_of_a_point(name: str) -> None:
    """A served point's own keys stand in one table with the strategy's options, and would hide them."""
    served = {field.name for field in fields(_Served)}
    assert not served & options_of(strategies.get(name)).keys()
