"""Layers of a torch model with an adapter in training: see `models.parts`.

    rows of all texts, (n, width) ─▶ one padded batch ─▶ layers ─▶ rows again

Padding stands behind a text, where no position of it looks, so that what comes out is what each text
gives by itself. Needs torch, transformers and peft.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.errors import ConfigError, RejectedError, StoreError
from cosilo.models.base import Array, StatePast
from cosilo.models.parts import PartTuning, Passed
from cosilo.models.white_box import checkpoint
from cosilo.models.white_box.adapters import (
    base_digest,
    first_adapter,
    layers_to_adapt,
    with_adapter,
)
from cosilo.models.white_box.batch import device_of
from cosilo.models.white_box.held import T, TorchHeld, finite_array
from cosilo.models.white_box.layers import is_adapted
from cosilo.models.white_box.split import TorchSplit, between

Apart = Callable[[Callable[[], Any]], Awaitable[Any]]

_MOMENTS = ("exp_avg", "exp_avg_sq")


class AdapterInTraining:
    """An adapter on some layers of a model, and AdamW's memory of its gradients.

    Args:
        module: its base is what the adapter is around; it is shared, and stays as it is.
        layers: the numbers of the layers.

    Attributes:
        module: the whole model with the adapter; the same object through all steps.
        steps: taken so far.

    Raises:
        ConfigError: there are no such layers, or the model has an adapter already.
    """

    def __init__(self, module: Any, layers: Iterable[int], how: PartTuning) -> None:
        import torch

        if is_adapted(module):
            raise ConfigError(
                "the model has an adapter already, which a second one cannot go around: merge it into "
                "the weights first (save it as a folder of its own)"
            )
        chosen = layers_to_adapt(module, layers)
        if not chosen:
            raise ConfigError("there is no layer to train an adapter on")
        self.how = how
        self.module = with_adapter(module, first_adapter(chosen, how.rank, seed=how.seed))
        self.trained = {n: p for n, p in self.module.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.trained.values(), lr=how.learning_rate, weight_decay=0.0
        )
        self.steps = 0

    def step(self, rate: float | None = None) -> bool:
        """Take the gradients that have gathered downhill, at `rate` in place of the usual one; False
        where they are not finite, and nothing has changed then."""
        import torch

        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.how.clip)
        finite = bool(torch.isfinite(norm))
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = self.how.learning_rate if rate is None else rate
            self.optimizer.step()
            self.steps += 1
        self.forget()
        return finite

    def forget(self) -> None:
        """Drop the gradients that have gathered."""
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """Copies of all that decides the next step, by name."""
        import torch

        found: dict[str, Any] = {"steps": torch.tensor([self.steps])}
        kept = self.optimizer.state_dict()["state"]
        for i, (name, parameter) in enumerate(self.trained.items()):
            found[f"weight {name}"] = parameter.detach().clone()
            if i in kept:
                found |= {f"{key} {name}": kept[i][key].clone() for key in _MOMENTS}
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as at `state`.

        Raises:
            StoreError: it is another adapter's.
        """
        import torch

        for name, parameter in self.trained.items():
            kept = state.get(f"weight {name}")
            if kept is None or kept.shape != parameter.shape:
                raise StoreError("the adapter that was kept is of other layers or another rank")
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(state[f"weight {name}"])
        self.steps = int(state["steps"][0])
        made = self.optimizer.state_dict()
        made["state"] = {
            i: {"step": torch.tensor(float(self.steps))}
            | {key: state[f"{key} {name}"].clone() for key in _MOMENTS}
            for i, name in enumerate(self.trained)
            if f"{_MOMENTS[0]} {name}" in state
        }
        self.optimizer.load_state_dict(made)


class TorchPassed:
    """A batch that went through layers.

    Attributes:
        given: the rows that went in.
        graph: what came out, as a tensor that knows how; None once it was gone back through.
        edits: how often the weights had been changed then.
        out: what came out.
    """

    def __init__(self, given: Any, lengths: Sequence[int], graph: Any, edits: int) -> None:
        self.given = given
        self.lengths = lengths
        self.graph = graph
        self.edits = edits
        self.out = finite_array(graph)
        self.layers_size = 0

    @property
    def size(self) -> int:
        held = 2 * self.out.nbytes
        return held + (self.layers_size if self.graph is not None else 0)


class TorchPart:
    """Some layers of a model.

    Args:
        apart: runs work in the model's own thread.
        training: of the adapter on them; None where they stay as they are.
    """

    def __init__(
        self,
        module: Any,
        first: int,
        last: int,
        context: int,
        apart: Apart,
        training: AdapterInTraining | None,
    ) -> None:
        self._module = module if training is None else training.module
        self._first, self._last = first, last
        self._context = context
        self._apart = apart
        self._training = training
        self._edits = 0
        self._alone = _Alone(self._module, context, apart)

    async def forward(self, states: Array, lengths: Sequence[int]) -> TorchPassed:
        if max(lengths) > self._context:
            raise RejectedError(
                f"a text has {max(lengths)} positions, and the model's context {self._context}"
            )

        def work() -> TorchPassed:
            import torch

            dtype = next(self._module.parameters()).dtype
            rows = torch.from_numpy(np.array(states, np.float32))
            given = rows.to(device_of(self._module), dtype).requires_grad_()
            made = TorchPassed(given, lengths, self._through(given, lengths), self._edits)
            made.layers_size = self._size(lengths)
            return made

        found: TorchPassed = await self._apart(work)
        return found

    def _through(self, given: Any, lengths: Sequence[int]) -> Any:
        import torch

        with torch.enable_grad():
            return rows_through(self._module, given, lengths, self._first, self._last)

    def _size(self, lengths: Sequence[int]) -> int:
        """About what going back through the layers needs."""
        config = self._module.config
        wide = 12 * config.hidden_size + 6 * getattr(config, "intermediate_size", 0)
        return int(4 * len(lengths) * max(lengths) * wide * (self._last - self._first))

    async def backward(self, passed: Passed, gradient: Array) -> Array:
        return await self._back(passed, gradient, train=False)

    async def step(self, passed: Passed, gradient: Array) -> Array:
        return await self._back(passed, gradient, train=True)

    async def _back(self, passed: Passed, gradient: Array, *, train: bool) -> Array:
        assert isinstance(passed, TorchPassed)

        def work() -> Array:
            import torch

            graph, passed.graph = passed.graph, None
            if graph is None or passed.edits != self._edits:
                graph = self._through(passed.given, passed.lengths)
            wanted = torch.from_numpy(np.array(gradient, np.float32)).to(graph)
            training = self._training if train else None
            others = list(training.trained.values()) if training is not None else []
            found, *own = torch.autograd.grad(graph, [passed.given, *others], wanted)
            made = finite_array(found)  # before any weight has changed
            if training is not None:
                for parameter, grad in zip(others, own, strict=True):
                    parameter.grad = grad
                self._edits += 1
                if not training.step():
                    raise RejectedError(
                        f"step {training.steps + 1} was dropped: the gradient of the adapter on the "
                        "large model's layers is not finite",
                        code="dropped",
                    )
            return made

        found: Array = await self._apart(work)
        return found

    async def go_on(self, past: StatePast | None, states: Array) -> tuple[StatePast, Array]:
        return await self._alone.forward(past, states, self._first, self._last)

    async def state(self) -> Mapping[str, Any]:
        assert self._training is not None
        found: Mapping[str, Any] = await self._apart(self._training.state)
        return found

    async def restore(self, state: Mapping[str, Any]) -> None:
        training = self._training
        assert training is not None
        self._edits += 1
        await self._apart(lambda: training.restore(state))

    async def write(self, path: Path, reply: bytes, about: object) -> None:
        import torch

        training = self._training
        assert training is not None
        said = torch.frombuffer(bytearray(reply or b"\0"), dtype=torch.uint8)
        await self._apart(
            lambda: checkpoint.write(path, {**training.state(), "reply": said}, about)
        )

    async def read(self, path: Path) -> tuple[Mapping[str, Any], bytes, Any]:
        def work() -> tuple[Mapping[str, Any], bytes, Any]:
            tensors, about = checkpoint.read(path)
            if "reply" not in tensors or "steps" not in tensors:
                raise StoreError(f"{str(path)!r} is no version of an adapter")
            return tensors, tensors.pop("reply").numpy().tobytes(), about

        found: tuple[Mapping[str, Any], bytes, Any] = await self._apart(work)
        return found


class _Alone(TorchSplit):
    """One text at a time through a module that changes between texts."""

    def __init__(self, module: Any, context: int, apart: Apart) -> None:
        self._module, self._context, self._work = module, context, apart

    @property
    def module(self) -> Any:
        return self._module

    @property
    def context(self) -> int:
        return self._context

    async def _apart(self, work: Callable[[], T]) -> T:
        found: T = await self._work(work)
        return found


class TorchParts(TorchHeld):
    """The part of a torch model that serves `PartModel`."""

    _digest: bytes | None = None

    async def base_digest(self) -> bytes:
        if self._digest is None:
            model: Any = self
            self._digest = bytes.fromhex(await self._apart(lambda: base_digest(model)))
        return self._digest

    async def part(self, first: int, last: int, how: PartTuning | None) -> TorchPart:
        def work() -> TorchPart:
            between(self.module, first, last)  # refuses what cannot be cut so
            training = None
            if how is not None:
                training = AdapterInTraining(self.module, range(first, last), how)
            return TorchPart(self.module, first, last, self.context, self._apart, training)

        return await self._apart(work)


def rows_through(module: Any, rows: Any, lengths: Sequence[int], first: int, last: int) -> Any:
    """`rows`, (n, width), of texts of these lengths, one after the other, after layer `last`."""
    if first == last:
        return rows
    there = places(lengths, rows.device)
    padded = rows.new_zeros((*there.shape, rows.shape[1]))
    padded = padded.index_put((there,), rows)
    made = between(module, first, last)(inputs_embeds=padded, use_cache=False)
    return made.last_hidden_state[there]


def places(lengths: Sequence[int], device: Any = "cpu") -> Any:
    """Which places of a padded batch hold a position of a text, shape (texts, longest)."""
    import torch

    sizes = torch.tensor(lengths, device=device)
    return torch.arange(max(lengths), device=device)[None] < sizes[:, None]
