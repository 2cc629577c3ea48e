"""`split_learning` and `split`: where to cut, in which codec, with how much noise.

    texts ─▶ first layers at home ─▶ noise, codec ─▶ states that cross ─▶ attacks.states: which tokens?
                                                         └▶ the other layers ─▶ nats lost

The attacker is the LM's owner, who has the layers at home, too: a public model's. It tries tokens
through them, one position after the other. To be quick, it tries the few that a linear map finds
likeliest, and always the right one among them, as if it had searched well: so the leak is stated rather
too high.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product

import numpy as np

from cosilo.attacks.states import Candidates, Ids, LinearBack, recover
from cosilo.benchmark.leak_limit.at_home import (
    Remembered,
    Texts,
    cpu_ms,
    ids_of,
    kept_for_backward,
    weights_bytes,
)
from cosilo.benchmark.leak_limit.candidates import LeakCandidate, TokenLeak
from cosilo.boundary.wire.states import pack_by, size_by, unpack_by
from cosilo.errors import CosiloError
from cosilo.models.base import Array
from cosilo.models.parts import PartTuning
from cosilo.models.white_box.ends import Ends
from cosilo.models.white_box.lm import TorchModel
from cosilo.privacy.radial_noise import cut_to, eta_for, radial_noise

_TRIED = 32  # tokens at each position, the right one among them
_NOISE = (0.0, 0.5, 2.0)
_CODECS = ("int8", "int4:16")
_RANKS = (4, 16)


class Cuts:
    """A model's candidates for a cut.

    Args:
        trains: the ends are trained (`split_learning`); else the model only writes (`split`).
    """

    def __init__(self, model: TorchModel, texts: Texts, *, trains: bool, known: Remembered) -> None:
        self._model, self._texts, self._trains, self._known = model, texts, trains, known
        self._embedding = np.asarray(
            model.module.get_input_embeddings().weight.detach().float().cpu().numpy(), np.float32
        )
        counts = texts.common(len(self._embedding))
        own = np.concatenate([s.ids for s in texts.own])
        self._base = float(np.mean(own == counts.argmax()))  # who says the commonest each time
        self._public: tuple[int, list[Array]] = (0, [])

    @property
    def depths(self) -> list[int]:
        """Of the head: from a single layer to half of them."""
        most = self._model.layers
        return sorted({1, max(1, most // 6), max(1, most // 3), max(1, most // 2)})

    def candidates(self, precision: str) -> Iterator[LeakCandidate]:
        ranks = _RANKS if self._trains else (0,)
        codecs = _CODECS if self._trains else ("",)
        for depth, rank in product(self.depths, ranks):
            memory, ms = self._known.get(
                f"{precision} layers={depth} rank={rank}", partial(self._costs, depth, rank)
            )
            for codec, noise in product(codecs, _NOISE):
                yield self._candidate(precision, depth, rank, codec, noise, int(memory), ms)

    def _candidate(
        self,
        precision: str,
        depth: int,
        rank: int,
        codec: str,
        noise: float,
        memory: int,
        ms: float,
    ) -> LeakCandidate:
        leak, nats, failed = None, float("inf"), ""
        try:
            found, of, nats = self._known.get(
                f"{precision} layers={depth} codec={codec} noise={noise}",
                lambda: asyncio.run(self._leak(depth, codec, noise)),
            )
            leak = TokenLeak(int(found), int(of), self._base)
        except (CosiloError, ValueError, ArithmeticError, IndexError) as error:
            failed = type(error).__name__
        options: dict[str, object] = {"layers": depth}
        if self._trains:
            options |= {"tail": 1, "rank": rank, "states_up": codec, "states_down": codec}
            options |= {"gradients_up": codec, "gradients_down": codec}
        if noise:
            options["noise"] = noise
        size = size_by(codec, 1, self._model.width) * (2 if self._trains else 1)
        return LeakCandidate(options, precision, memory, ms, size, "token", nats, leak, failed)

    def _costs(self, depth: int, rank: int) -> list[float]:
        """[bytes, milliseconds of CPU of a step at home]"""
        module, sequences = self._model.module, self._texts.own
        whole = weights_bytes(module)
        if not rank:
            return [whole, cpu_ms(lambda: asyncio.run(self._read(depth)))]
        ends = Ends(
            module, depth, self._model.layers - 1, PartTuning(rank=rank, learning_rate=1e-4)
        )
        rows = ends.below(sequences, train=False)

        async def through() -> Array:
            _, out = await self._model.forward(None, rows, depth, self._model.layers - 1)
            return out

        came = asyncio.run(
            through()
        )  # as many states of the right size; whose they are is no matter
        own = sum(p.numel() for n, p in ends.module.named_parameters() if "lora_" in n)

        def step() -> None:
            ends.below(sequences)
            above = ends.above(came, sequences)
            assert above.gradient is not None
            ends.settle(above.gradient, 0.0)

        with kept_for_backward(ends.module) as kept:
            step()
        return [whole + 16 * own + kept[0], cpu_ms(step)]

    async def _read(self, depth: int) -> None:
        for ids in ids_of(self._texts.own):
            await self._states(ids, depth)

    async def _states(self, ids: Sequence[int], depth: int) -> Array:
        _, found = await self._model.forward(None, self._embedding[list(ids)], 0, depth)
        return found

    async def _leak(self, depth: int, codec: str, noise: float) -> list[float]:
        """[tokens found, tokens there were, nats lost per token]"""
        model, width = self._model, self._model.width
        if self._public[0] != depth:  # the same for every codec and noise
            found = [await self._states(ids, depth) for ids in ids_of(self._texts.public)]
            self._public = depth, found
        public = self._public[1]
        lengths = np.linalg.norm(np.concatenate([s[1:] for s in public]), axis=1)
        clip = float(np.median(lengths)) if noise else None
        drawn = random.Random(0)

        def crossed(states: Array) -> Array:
            sent = states
            if clip is not None:
                noises = [
                    radial_noise(drawn, width, eta_for(noise, clip, width)) for _ in states[1:]
                ]
                sent = np.concatenate([states[:1], cut_to(states[1:], clip) + np.array(noises)])
            return unpack_by(codec, pack_by(codec, sent), len(sent), width)

        back = LinearBack.fit(
            np.concatenate([crossed(s)[1:] for s in public]),
            [i for ids in ids_of(self._texts.public) for i in ids[1:]],
            self._embedding,
        )
        told = of = 0
        lost: list[float] = []
        for ids in ids_of(self._texts.own):
            states = await self._states(ids, depth)
            seen = crossed(states)
            tried = _with_the_right(back.nearest(seen, _TRIED - 1), ids)
            said = await recover(
                model, self._embedding, seen, depth, tried, clip=clip, open=1, truth=ids
            )
            told += sum(a == b for a, b in zip(said.ids[1:], ids[1:], strict=True))
            of += len(ids) - 1
            lost += (
                await self._nats(seen, depth, ids) - await self._nats(states, depth, ids)
            ).tolist()
        return [told, of, float(np.mean(lost))]

    async def _nats(self, states: Array, depth: int, ids: Sequence[int]) -> Array:
        """Of each token but the first, where the other layers go on from `states`."""
        _, out = await self._model.forward(None, states, depth, self._model.layers)
        said = await self._model.predict(out[:-1], self._model.vocabulary_size)
        at = [int(np.flatnonzero(row == i)[0]) for row, i in zip(said.ids, ids[1:], strict=True)]
        return -np.asarray(said.logprobs)[np.arange(len(at)), at]


def _with_the_right(likely: Ids, ids: Sequence[int]) -> Candidates:
    """At each position the likely tokens, and the right one."""

    async def tried(place: int, _: Sequence[int]) -> Ids:
        found: Ids = np.unique(np.append(likely[place], ids[place])).astype(np.int64)
        return found

    return tried
