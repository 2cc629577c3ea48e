"""Three owners of unequal small models and the owner of a large one teach each other on public texts.

    python benchmarks/fedmkt.py [--seeds 0] [--rounds 2] [--minutes 60] [--cells FOLDER]

Data: four intents of ../shared/data/banking77, drawn by the seed. Of each, twelve training items are
dealt to three owners by a draw from Dirichlet(0.5), eight are public, with their targets; twelve others
are strangers to all; twenty test items, read once. The large model is SmolLM2-135M-Instruct. The small
ones are its first and last ten layers, its first and last six, neither healed, and one of other tokens:
a llama of three layers and 128 numbers, with a tokeniser of 1,000 pieces, trained on the other 73
intents. LoRA of rank 8 on the last four layers; of that one on all.

    alone       an owner's adapter, trained on its own items as in all rounds
    public      the same, and after each round on the public items' replies alone, as many steps as
                `fedmkt` has there; of the large model on these alone
    fedmkt      the strategy: of each public item the better teacher is learned from

Opinions name 32 tokens at a place. The attack `opinions` asks for each owner whether its items are told
from strangers by what it sent. Trainings and test answers are kept in --cells; a run that was stopped
goes on there. Intervals are a bootstrap of test items within intents, paired, over owners and seeds.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.attacks.base import Target, View, attacks
from cosilo.boundary.messages import Contribute, RoundState
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.wire import tensors
from cosilo.models.base import Access, models
from cosilo.models.fit.taught import TaughtLM, TaughtTerms
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.models.mutual import PublicExample
from cosilo.models.white_box.adapters import (
    Adapter,
    first_adapter,
    trained_adapter,
    upper_layers,
    usual_loss,
)
from cosilo.models.white_box.depth import without
from cosilo.models.white_box.lm import TorchModel
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.models.white_box.training import Schedule, seeded, train
from cosilo.objectives.membership import auc
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.base import strategies
from cosilo.types import Demonstration, Sampling
from dealt_intents import (
    MODEL,
    Dealt,
    Item,
    KeptWork,
    asked,
    parser,
    put_accuracies,
    whole_seeds,
    write,
)
from kept import Kept

NAMES = ("20 layers", "12 layers", "other tokens")
RANK, BATCH = 8, 6
PUBLIC, STRANGERS = 8, 12  # items of each intent
UPPER = 4
STEPS, TAUGHT = (
    15,
    12,
)  # of an owner at home and on public items, each round; of the large model, too
RATE, LARGE_RATE, SHARE, TOP = 2e-3, 1e-3, 0.5, 32
PIECES, WIDTH, PRETRAINED = 1000, 128, 600


class Seed(Dealt):
    """The data of one seed."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, len(NAMES))
        self.public = [item for left in self.left for item in left[:PUBLIC]]
        self.strangers = [item for left in self.left for item in left[PUBLIC : PUBLIC + STRANGERS]]


class Bench(KeptWork):
    @cached_property
    def large(self) -> Any:
        return models.create("torch", model=MODEL, precision="float32")

    def small(self, seed: Seed, which: int) -> Any:
        """An owner's model, as it is before anything."""
        if which == 2:
            return self.stranger(seed)
        ends = (10, 6)[which]
        module = without(self.large.module, range(ends, self.large.layers - ends))
        return TorchModel.holding(module, self.large.tokens, name=NAMES[which])

    def stranger(self, seed: Seed) -> Any:
        """A model of other tokens, trained on other intents."""
        import torch

        tokens = _tokeniser([text for text, _ in seed.others])
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=len(tokens.words), hidden_size=WIDTH, intermediate_size=3 * WIDTH,
            num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
            max_position_embeddings=512, tie_word_embeddings=True,
        )  # fmt: skip
        with seeded(seed.seed):
            module = LlamaForCausalLM(config)
        model = TorchModel.holding(module, tokens, name=NAMES[2])
        path = self.folder(seed) / "other-tokens.pt"
        if not path.exists():
            sequences = [model.tokenize(asked(text), label) for text, label in seed.others]
            plan = Schedule(
                steps=PRETRAINED, batch=16, learning_rate=2e-3, patience=0, seed=seed.seed
            )

            def made() -> Any:
                from cosilo.models.white_box.batch import reply_loss

                train(module, sequences, reply_loss, plan)
                return module.state_dict()

            state = self.timed("other tokens", made)
            torch.save(state, path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)
        module.load_state_dict(torch.load(path, weights_only=True))
        return TorchModel.holding(module.eval(), tokens, name=NAMES[2])

    def adapter(self, seed: Seed, name: str, made: Callable[[], Adapter]) -> Adapter:
        path = self.folder(seed) / f"{name}.adapter"
        if not path.exists():
            write(path, tensors.pack(self.timed(name, made).tensors))
        return Adapter(RANK, 2.0 * RANK, tensors.unpack(path.read_bytes()))

    def start(self, model: Any, which: int, seed: Seed) -> Adapter:
        layers = upper_layers(model.module, UPPER if which < 2 else None)
        return first_adapter(layers, RANK, seed=seed.seed)

    def trained(
        self, model: Any, start: Adapter, parts: list[tuple[list[Item], int, float, int]]
    ) -> Adapter:
        """`start` after so many steps on each of some sets of items, one after another."""
        loss, found = usual_loss(model.module, start), start
        for items, steps, rate, draw in parts:
            sequences = [model.tokenize(asked(text), label) for text, label in items]
            found, _ = trained_adapter(
                model.module, found, sequences,
                steps=steps, batch=BATCH, learning_rate=rate, seed=draw, loss=loss,
            )  # fmt: skip
        return found

    def together(self, seed: Seed, small: list[Any]) -> dict[str, Any]:
        """What comes of the strategy for all, what it sent, and how well the attack does."""
        folder = self.folder(seed)
        path = folder / "fedmkt.json"
        file = folder / "public.jsonl"
        rows = [{"text": asked(t)[-1].content, "target": label} for t, label in seed.public]
        file.write_text("\n".join(map(json.dumps, rows)))
        examples = [PublicExample(asked(text), label) for text, label in seed.public]
        large = TaughtLM(self.large, examples, TaughtTerms(
            steps=TAUGHT, batch=BATCH, learning_rate=LARGE_RATE, rank=RANK, upper=UPPER,
            share=SHARE, seed=seed.seed,
        ))  # fmt: skip

        async def run() -> dict[str, Any]:
            settings = FederationSettings(
                owners=tuple("abc"), rounds=self.how.rounds, method="opinions", top=TOP,
                seed=seed.seed, held_s=600.0, deadline_s=1e6,
            )  # fmt: skip
            federation = Federation(settings, folder / "federation.sqlite", mutual=large)

            async def one(which: int) -> dict[str, Any]:
                strategy = strategies.create(
                    "fedmkt", public=file, rounds=self.how.rounds, steps=STEPS, batch=BATCH,
                    learning_rate=RATE, taught_steps=TAUGHT, taught_rate=RATE, share=SHARE,
                    rank=RANK, upper=UPPER if which < 2 else 0, seed=seed.seed,
                    checkpoints=folder / f"owner-{which}",
                )  # fmt: skip
                party = LMOwner(
                    ScriptedModel(), Access.LOGITS.shows, client="abc"[which], federation=federation
                )
                items = seed.owners[which]
                owner = DataOwner(
                    small[which],
                    private=tuple(
                        Demonstration(f"{i}", asked(t), label) for i, (t, label) in enumerate(items)
                    ),
                )
                ledger = MemoryLedger()
                session = open_session(
                    owner,
                    party,
                    strategy,
                    sampling=Sampling(choices=tuple(seed.labels)),
                    ledger=ledger,
                )
                _, session = await strategy.prepare(session)
                from cosilo.models.white_box.adapters import adapter_of

                write(
                    folder / f"fedmkt-{which}.adapter",
                    tensors.pack(adapter_of(session.owner.model.module).tensors),
                )
                return await self.owner(seed, ledger, items, session)

            found = await asyncio.gather(*(one(which) for which in range(len(NAMES))))
            federation.stop()
            federation.close()
            return {"owners": found}

        if not path.exists():
            found = self.timed("fedmkt", lambda: asyncio.run(run()))
            write(path, json.dumps(found).encode())
        found = json.loads(path.read_text())
        (kept,) = (folder / "federation.mutual").glob(f"round-{self.how.rounds}-*")
        found["large"] = Adapter(RANK, 2.0 * RANK, tensors.unpack(kept.read_bytes()))
        return dict(found)

    async def owner(
        self, seed: Seed, ledger: MemoryLedger, items: list[Item], session: Any
    ) -> dict[str, Any]:
        """Bytes of what crossed, what was taught, and scores of the attack."""
        entries = list(ledger.entries())
        up = [e.message.packed for e in entries if isinstance(e.message, Contribute)]
        down = [e.message.packed for e in entries if isinstance(e.message, RoundState)]
        targets = [
            Target(f"{kind}-{i}", "", "member", chat=asked(text), label=label)
            for kind, rows in (("in", items), ("out", seed.strangers))
            for i, (text, label) in enumerate(rows)
        ]
        view = View(
            lambda: iter(entries),
            embedder=self.encoder,
            public=[(asked(text), label) for text, label in seed.public],
        )
        guesses = await attacks.create("opinions").guess(view, targets)
        (card,) = [card for card in session.cards if card.by == "fedmkt"]
        from cosilo.boundary.wire.opinions import named_in

        return {
            "up": sum(map(len, up)), "places up": sum(map(named_in, up)),
            "down": sum(map(len, down)), "places down": sum(map(named_in, down)),
            "in": [g.score for g in guesses if g.target.startswith("in")],
            "out": [g.score for g in guesses if g.target.startswith("out")],
            "tables": {name: dict(table) for name, table in card.tables.items()},
        }  # fmt: skip

    @cached_property
    def encoder(self) -> Any:
        return models.create("classifier")

    def run(self, seed: Seed) -> dict[str, Any]:
        rounds, draws = self.how.rounds, range(1, self.how.rounds + 1)
        found: dict[str, Any] = {}
        small = [self.small(seed, which) for which in range(len(NAMES))]

        def seeds(number: int) -> int:
            return (seed.seed << 16) + number

        for which, (name, model) in enumerate(zip(NAMES, small, strict=True)):
            items, start = seed.owners[which], self.start(model, which, seed)
            home = [(items, STEPS, RATE, seeds(n)) for n in draws]
            more = [(seed.public, TAUGHT, RATE, seeds(n)) for n in draws]
            arms = {
                "alone": home,
                "public": [part for pair in zip(home, more, strict=True) for part in pair],
            }
            found[f"{name} before"] = self.right(seed, f"before-{which}", model, None)
            for arm, parts in arms.items():
                made = self.adapter(
                    seed, f"{arm}-{which}", lambda m=model, s=start, p=parts: self.trained(m, s, p)
                )
                found[f"{name} {arm}"] = self.right(seed, f"{arm}-{which}", model, made)
        both = self.together(seed, small)
        for which, (name, model) in enumerate(zip(NAMES, small, strict=True)):
            path = self.folder(seed) / f"fedmkt-{which}.adapter"
            made = Adapter(RANK, 2.0 * RANK, tensors.unpack(path.read_bytes()))
            found[f"{name} fedmkt"] = self.right(seed, f"fedmkt-{which}", model, made)
        start = self.start(self.large, 0, seed)
        parts = [(seed.public, TAUGHT, LARGE_RATE, seeds(n)) for n in range(1, rounds + 1)]
        public = self.adapter(seed, "large-public", lambda: self.trained(self.large, start, parts))
        found["large before"] = self.right(seed, "large-before", self.large, None)
        found["large public"] = self.right(seed, "large-public", self.large, public)
        found["large fedmkt"] = self.right(seed, "large-fedmkt", self.large, both["large"])
        found["facts"] = both["owners"]
        return found


def _tokeniser(texts: list[str]) -> ChatTokens:
    """A byte-level tokeniser of these texts, with SmolLM2's chat template."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    inner = Tokenizer(BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=PIECES, special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        ),
    )  # fmt: skip
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    return ChatTokens(
        PreTrainedTokenizerFast(
            tokenizer_object=inner, bos_token=special[0], eos_token=special[2],
            pad_token=special[2], additional_special_tokens=[special[1]], chat_template=template,
        )
    )  # fmt: skip


def report(kept: Kept, every: list[dict[str, Any]], rounds: int) -> None:
    facts = [fact for found in every for fact in found.pop("facts")]
    whole: Mapping[str, np.ndarray] = {
        name: np.stack([found[name] for found in every]) for name in every[0]
    }
    rows = dict(whole)
    for arm in ("before", "alone", "public", "fedmkt"):
        rows[f"owners {arm}"] = np.concatenate([whole[f"{name} {arm}"] for name in NAMES])
    pairs = {
        "large: fedmkt − before": ("large fedmkt", "large before"),
        "large: fedmkt − public": ("large fedmkt", "large public"),
        "owners: fedmkt − alone": ("owners fedmkt", "owners alone"),
        "owners: fedmkt − public": ("owners fedmkt", "owners public"),
    }
    put_accuracies(kept, rows, pairs, len(every))
    for way in ("up", "down"):
        places = sum(fact[f"places {way}"] for fact in facts)
        size = sum(fact[way] for fact in facts)
        kept.put(way, "bytes a place", size / places, n=places)
        kept.put(way, "bytes an owner and round", size / (len(facts) * rounds), n=len(facts))
    # Scores of one owner are not those of another, so each is ranked within its own.
    inside, outside = [], []
    for fact in facts:
        both = np.array([*fact["in"], *fact["out"]])
        ranks = both.argsort().argsort() / len(both)
        inside.append(ranks[: len(fact["in"])])
        outside.append(ranks[len(fact["in"]) :])
    value, low, high = auc(np.concatenate(inside), np.concatenate(outside))
    n = sum(map(len, inside)) + sum(map(len, outside))
    kept.put("opinions", "AUC", value, n=n, low=low, high=high)


def main() -> None:
    how = parser(__doc__ or "", Path("/tmp/fedmkt_cells")).parse_args()
    bench = Bench(how)
    if every := whole_seeds(lambda number: bench.run(Seed(number)), how.seeds):
        kept = Kept(
            "fedmkt",
            settings={
                "rounds": how.rounds, "steps": STEPS, "taught": TAUGHT, "rank": RANK, "top": TOP,
                "share": SHARE,
            },
        )  # fmt: skip
        report(kept, every, how.rounds)
        kept.write()


if __name__ == "__main__":
    main()
