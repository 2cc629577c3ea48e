"""`federated`: of what rank an adapter, trained for how many steps, with how much noise.

    texts ─▶ steps of training ─▶ noise ─▶ the update that crosses ─▶ attacks.updates: which tokens?

The attacker is the coordinator, who has the base model, where the round began, and other texts of the
kind. It is told how many tokens there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product

import numpy as np

from cosilo.attacks.updates import first_columns, first_rows, log_shares, pursue, recovered
from cosilo.benchmark.leak_limit.at_home import (
    Remembered,
    Texts,
    cpu_ms,
    kept_for_backward,
    weights_bytes,
)
from cosilo.benchmark.leak_limit.candidates import LeakCandidate, TokenLeak
from cosilo.boundary.wire import tensors
from cosilo.errors import CosiloError
from cosilo.federation.private import UpdateNoise
from cosilo.models.base import Array
from cosilo.models.low_rank import matrix_shapes
from cosilo.models.white_box.adapters import (
    Adapter,
    first_adapter,
    layers_to_adapt,
    trained_adapter,
    with_adapter,
)
from cosilo.models.white_box.batch import reply_loss
from cosilo.models.white_box.layers import first_inputs
from cosilo.models.white_box.lm import TorchModel
from cosilo.privacy.keyed_noise import KeyedNoise

_RANKS = (2, 8)
_STEPS = (2, 8)
_NOISE = (0.0, 1e-4, 1e-3)
_CLIP = 1.0


class Updates:
    """A model's candidates for an adapter that is given to a federation."""

    def __init__(self, model: TorchModel, texts: Texts, *, known: Remembered) -> None:
        self._model, self._texts, self._known = model, texts, known
        self._layers = layers_to_adapt(model.module)
        self._inputs = first_inputs(model.module)
        self._common = log_shares(texts.common(len(self._inputs)))
        self._truth = {int(i) for s in texts.own for i in s.ids}
        likeliest = np.argsort(-self._common, kind="stable")[: len(self._truth)]
        self._base = recovered([int(i) for i in likeliest], self._truth)[0]
        self._trained: dict[tuple[int, int], tuple[Adapter, Adapter]] = {}

    def candidates(self, precision: str) -> Iterator[LeakCandidate]:
        for rank in _RANKS:
            memory, ms = self._known.get(f"{precision} rank={rank}", partial(self._costs, rank))
            size = tensors.size_of(matrix_shapes(self._layers, rank), "fp16")
            for steps, noise in product(_STEPS, _NOISE):
                leak, nats, failed = None, float("inf"), ""
                try:
                    found, of, nats = self._known.get(
                        f"{precision} rank={rank} steps={steps} noise={noise}",
                        partial(self._leak, rank, steps, noise),
                    )
                    leak = TokenLeak(int(found), int(of), self._base)
                except (CosiloError, ValueError, ArithmeticError) as error:
                    failed = type(error).__name__
                options: dict[str, object] = {"rank": rank, "steps": steps}
                if noise:
                    options |= {"noise": noise, "clip": _CLIP}
                yield LeakCandidate(
                    options, precision, int(memory), ms, size, "round", nats, leak, failed
                )

    def _costs(self, rank: int) -> list[float]:
        """[bytes, milliseconds of CPU of a step]"""
        begun = first_adapter(self._layers, rank, seed=0)
        made = with_adapter(self._model.module, begun)
        own = [p for n, p in made.named_parameters() if "lora_" in n]
        for parameter in own:
            parameter.requires_grad_(True)

        def step() -> None:
            import torch

            with torch.enable_grad():
                reply_loss(made, self._texts.own).backward()

        with kept_for_backward(made) as kept:
            step()
        numbers = sum(p.numel() for p in own)
        return [weights_bytes(self._model.module) + 16 * numbers + kept[0], cpu_ms(step)]

    def _update(self, rank: int, steps: int) -> tuple[Adapter, Adapter]:
        """(where the round began, what training made of it)"""
        if (rank, steps) not in self._trained:
            begun = first_adapter(self._layers, rank, seed=0)
            made, _ = trained_adapter(
                self._model.module, begun, self._texts.own, steps=steps, batch=len(self._texts.own)
            )
            self._trained[rank, steps] = begun, made
        return self._trained[rank, steps]

    def _leak(self, rank: int, steps: int, noise: float) -> list[float]:
        """[tokens found, tokens there were, nats lost per token to the noise]"""
        begun, made = self._update(rank, steps)
        sent: Mapping[str, Array] = made.tensors
        if noise:
            draws = KeyedNoise(bytes(32))  # of public texts: the key protects nothing here
            how = UpdateNoise(_CLIP, noise)
            sent, _ = how.applied(made.tensors, begun.tensors, draws, session="fit")
        change = {n: x - begun.tensors[n] for n, x in sent.items()}
        found = max(self._attacks(change, begun.tensors), default=0.0)
        noisy = Adapter(rank, made.alpha, sent)
        lost = self._nats(noisy) - self._nats(made) if noise else 0.0
        return [round(found * len(self._truth)), len(self._truth), lost]

    def _attacks(self, change: Mapping[str, Array], begun: Mapping[str, Array]) -> Iterator[float]:
        """The share of tokens that each way to read the update finds."""
        count = len(self._truth)
        rows = first_rows({n: x for n, x in change.items() if "lora_A" in n})
        if rows is not None and rows.any():
            told = pursue(rows, self._inputs, count=count, common=self._common)
            yield recovered(told.tokens, self._truth)[0]
        for columns, down in first_columns(change, begun):
            if columns.any():
                told = pursue(columns, self._inputs @ down.T, count=count, common=self._common)
                yield recovered(told.tokens, self._truth)[0]

    def _nats(self, adapter: Adapter) -> float:
        import torch

        with torch.no_grad():
            return float(reply_loss(with_adapter(self._model.module, adapter), self._texts.own))
