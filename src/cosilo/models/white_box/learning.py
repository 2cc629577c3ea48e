"""A torch model that is taught: trained, trained on, and what it has learned kept in files.

Needs torch, transformers and peft.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from cosilo.errors import DataError, RejectedError
from cosilo.models.white_box import files as torch_files
from cosilo.models.white_box.batch import device_of
from cosilo.models.white_box.held import TorchHeld
from cosilo.models.white_box.layers import is_adapted
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.models.white_box.training import TrainingProgress
from cosilo.models.white_box.tuning import Tuning, merged, tuned, without_adapter
from cosilo.types import Demonstration


class TorchLearning(TorchHeld):
    """The part of a torch model that learns.

    Attributes:
        tuning: how.
        report: told how `fit` gets on.
    """

    tuning: Tuning
    report: Callable[[TrainingProgress], None] | None

    @property
    def tokens(self) -> ChatTokens:
        raise NotImplementedError

    @property
    def identity(self) -> str:
        raise NotImplementedError

    def with_module(self, module: Any) -> Self:
        raise NotImplementedError

    def fit(self, examples: Sequence[Demonstration], *, seed: int = 0) -> Self:
        """A copy trained to give the targets of `examples` as replies (the loss is on those alone,
        each by its example's weight).

        A frozen base is shared with this model, not copied. Examples longer than the context are cut
        at the start of their prompt.

        Raises:
            DataError: no examples, or none with a target.
            ModelError: the loss is not finite.
            StoreError: the checkpoints cannot be written, or are another training's.
        """
        return self._taught(examples, self.tuning, seed)

    def further(self, examples: Sequence[Demonstration], *, share: float, seed: int = 0) -> Self:
        """A copy trained on from where this one is, for `share` of the epochs; its optimiser begins
        anew, and no checkpoints are written on the way.

        Raises:
            as `fit`.
        """
        how = replace(self.tuning, epochs=self.tuning.epochs * share, checkpoints=None)
        return self._taught(examples, how, seed)

    def _taught(self, examples: Sequence[Demonstration], how: Tuning, seed: int) -> Self:
        wanted = [e for e in examples if e.target and e.weight > 0]
        if not wanted:
            raise DataError(f"none of the {len(examples)} training examples has a target")
        sequences = [self.tokens.tokenize(e.chat, e.target) for e in wanted]
        weights = [e.weight for e in wanted]
        trained = tuned(
            self.module, sequences, weights, how,
            context=self.context, seed=seed, run=self.identity, report=self.report,
        )  # fmt: skip
        return self.with_module(trained)

    def save(self, folder: Path | str) -> None:
        """Write an ordinary Hugging Face folder; an adapter becomes part of the weights.

        Raises:
            StoreError: it cannot be written; what was there stays.
        """
        torch_files.save(merged(self.module), self.tokens.words, Path(folder))

    def save_adapter(self, folder: Path | str) -> None:
        """Write the adapter alone; open it with the option `adapter`.

        Raises:
            RejectedError: the model has none.
            StoreError: it cannot be written; what was there stays.
        """
        if not is_adapted(self.module):
            raise RejectedError("the model has no adapter: it was not trained with method = 'lora'")
        torch_files.save(self.module, None, Path(folder))

    def keep(self, folder: Path) -> Mapping[str, object]:
        """An adapter alone where it has one, else the whole model."""
        if is_adapted(self.module):
            self.save_adapter(folder)
            return {"adapter": folder}
        self.save(folder)
        return {"model": "", "path": folder, "adapter": None}

    def restored(self, folder: Path) -> Self:
        """This model with the adapter, or the weights, that `keep` wrote into `folder`; a frozen base
        is shared.

        Raises:
            CatalogError: they are not there, or are another model's.
        """
        if self.tuning.method == "lora":
            return self.with_module(torch_files.load_adapter(without_adapter(self.module), folder))
        precision = str(self.module.dtype).removeprefix("torch.")
        device = str(device_of(self.module))
        torch_files.require_folder(folder)
        return self.with_module(torch_files.load_module(folder, precision=precision, device=device))
