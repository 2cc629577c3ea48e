"""A head that its owner keeps: asked in clear it answers with a label, asked on encrypted vectors with
logits that it cannot read; in a joint computation it tells a label, and neither side sees the vector
or the logits of the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeGuard

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from cosilo.errors import CapabilityError, ConfigError
from cosilo.models.base import Access, TextModel, models
from cosilo.models.encoder.allowance import Allowance
from cosilo.models.encoder.classifier import ClassifierModel
from cosilo.models.encoder.encoder import Encoder, encoder_loads
from cosilo.models.encoder.head import PACKAGES, TrainedHead
from cosilo.models.joint import JointPart, Wanted
from cosilo.registry import Loads
from cosilo.types import Chat, Generation, Sampling


class PrivateHead:
    """A classifier whose head is its owner's, and whose encoder everybody has.

    Attributes:
        weights, bias: (labels, inputs) and (labels,), such that the softmax of logits is calibrated.
        allowance: how many answers with logits a client may have; none when None.
        clients: how many sets of evaluation keys are kept, of all clients together.
    """

    def __init__(
        self, encoder: Encoder, head: TrainedHead, allowance: Allowance | None, *, clients: int = 4
    ) -> None:
        if head.terms:
            raise ConfigError(
                "a private head may look at the vector alone, as its words cannot be encrypted: train "
                "it with features = 'embedding'"
            )
        self._classifier = ClassifierModel(encoder, features="embedding", head=head)
        self._encoder = encoder
        self._digest = head.digest()
        self.weights: NDArray[np.float64] = head.weights.astype(np.float64) / head.temperature
        self.bias: NDArray[np.float64] = head.bias.astype(np.float64) / head.temperature
        self.allowance = allowance
        self.clients = clients
        self._closing: list[Callable[[], Awaitable[None]]] = []

    @property
    def name(self) -> str:
        return "private head"

    @property
    def identity(self) -> str:
        return f"private {self._classifier.identity}"

    @property
    def access(self) -> Access:
        return Access.TEXT

    @property
    def encoder(self) -> str:
        """The identity of its encoder."""
        return self._encoder.identity

    @property
    def labels(self) -> tuple[str, ...]:
        return self._classifier.labels

    @property
    def inputs(self) -> int:
        return int(self.weights.shape[1])

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        """The label alone, of a text in clear: how sure the head is is not said."""
        return replace(await self._classifier.generate(chat, sampling), tokens=())

    def takes_part(self, wanted: Wanted) -> JointPart:
        """The head, on a vector that the data owner's encoder makes.

        Raises:
            CapabilityError: another program is wanted, for vectors of another encoder, or states.
        """
        if wanted.program != "head" or wanted.starts != "vector" or wanted.tells == "states":
            raise CapabilityError(
                "a private head takes part in the program 'head' on a vector, and tells a label, or "
                "logits"
            )
        if wanted.base != self.encoder:
            raise CapabilityError(
                f"the head is for vectors of {self.encoder!r}, not of {wanted.base!r}"
            )
        inputs, outputs = self.inputs, len(self.labels)
        numbers = (inputs + 1) * outputs
        once, each = _MOST[wanted.protocol == "aby3"]
        return JointPart(
            program="head",
            shape={"inputs": inputs, "outputs": outputs, "rows": 1, "answer": wanted.tells},
            owned=(self.weights.T.astype(np.float32), self.bias.astype(np.float32)),
            weights=self._digest,
            once=once + 40 * numbers,
            each=each + (inputs + outputs << 11),
            labels=self.labels,
            tells=wanted.tells,
            allowance=self.allowance,
        )

    def on_close(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Have `callback` called when the model is closed: what was begun with it ends with it."""
        self._closing.append(callback)

    async def close(self) -> None:
        for callback in self._closing:
            await callback()
        self._closing.clear()
        await self._classifier.close()


_MOST = {True: (1 << 18, 1 << 19), False: (1 << 20, 20 << 20)}
"""Whether three compute → bytes for sharing a head, and for an answer, beside what grows with it: a
few times what was measured (docs/secure.md). Two agree on much at the first answer."""


def is_private_head(model: TextModel) -> TypeGuard[PrivateHead]:
    return isinstance(model, PrivateHead)


def _loads(encoder: str | Path) -> Loads:
    return encoder_loads(encoder) | Loads(packages=PACKAGES)


@models.register("private_head", loads=_loads)
def private_head(
    head: Path,
    encoder: str | Path = "minilm-int8",
    threads: int = 1,
    allowance: int = 0,
    answers: Path | None = None,
    clients: int = 4,
) -> PrivateHead:
    """A trained head that its owner keeps, for vectors of a public encoder; see `secure_head`.

    Args:
        head: a folder with a trained head, as `cosilo bundle` writes one (`small/`), trained with
            features = "embedding".
        encoder: a name in the catalog, or a folder; the data owner must have the same.
        threads: used by the encoder.
        allowance: of how many encrypted vectors each client may have the logits; as many as a vector
            has numbers, and one, are the whole head, and a quarter most of it. 0 for none.
        answers: the file in which they are counted, for good.
        clients: how many sets of evaluation keys are kept, of all clients together; of too many, one of
            the client with the most goes. Each takes about 0.3 GB of memory, in a process of its own.

    Raises:
        CatalogError: the encoder is not there; the message says how to pull it.
        ConfigError: `head` holds none, or one that looks at words; an allowance without a file.
    """
    vectors = Encoder(encoder, threads=threads)
    try:
        trained = TrainedHead.load(head)
        if allowance < 0 or clients < 1:
            raise ConfigError("allowance must be 0 or more, and clients 1 or more")
        if allowance and answers is None:
            raise ConfigError(
                "an allowance needs answers = FILE, where it is counted, or a restart would begin it "
                "again"
            )
        counted = Allowance(answers, trained.digest(), allowance) if allowance and answers else None
        return PrivateHead(vectors, trained, counted, clients=clients)
    except BaseException:
        vectors.close()
        raise
