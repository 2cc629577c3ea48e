"""What a model can show, from text only to its weights.

`Access` is a ladder: each level includes those below. A strategy states the level it needs and
`require` refuses before anything is spent. `Classifier`, `Embedder` and `Trainable` stand beside
the ladder: they are things a *local* model can do besides answering. What an LM's owner shows of its
model to the other side is a set of flags, `Shows`, of which each level is a preset.
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Flag, IntEnum, auto
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeGuard, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cosilo.errors import CapabilityError, RejectedError
from cosilo.registry import Registry
from cosilo.types import Chat, Delta, Demonstration, Generation, Sampling, disassemble

Array = NDArray[np.float32]


class Access(IntEnum):
    """How much of a model its owner lets a caller see; each level includes those below."""

    TEXT = 1
    LOGPROBS = 2
    LOGITS = 3
    ACTIVATIONS = 4
    WEIGHTS = 5

    @property
    def shows(self) -> Shows:
        """What an owner shows who lets the model be seen up to this level."""
        return _UP_TO[self]


class Shows(Flag):
    """What an owner lets the other side see of its model: any of these, in any combination.

    `HEAD`: the logits of a private head, of vectors that are encrypted. `JOINT`: what comes out of a
    program that both sides compute on arrays that neither sees.

    In a plan it is the name of a level of `Access`, which stands for that level and all below, or a
    list of the names of flags.
    """

    NOTHING = 0
    TEXT = auto()
    LOGPROBS = auto()
    LOGITS = auto()
    STATES = auto()
    GRADIENTS = auto()
    EMULATOR = auto()
    WEIGHTS = auto()
    HEAD = auto()
    JOINT = auto()

    @classmethod
    def presets(cls) -> dict[str, Shows]:
        """Name in a plan → what it stands for."""
        return {level.name.lower(): level.shows for level in Access}

    def written(self) -> str | list[str]:
        """It, as it stands in a plan."""
        names = {shows: name for name, shows in self.presets().items()}
        return names.get(self) or [str(flag.name).lower() for flag in self]

    def __str__(self) -> str:
        written = self.written()
        return written if isinstance(written, str) else ", ".join(written) or "nothing"


EVERYTHING = ~Shows.NOTHING

_UP_TO: Mapping[Access, Shows] = {
    Access.TEXT: Shows.TEXT,
    Access.LOGPROBS: Shows.TEXT | Shows.LOGPROBS,
    Access.LOGITS: Shows.TEXT | Shows.LOGPROBS | Shows.LOGITS,
    Access.ACTIVATIONS: Shows.TEXT | Shows.LOGPROBS | Shows.LOGITS | Shows.STATES,
    Access.WEIGHTS: EVERYTHING,
}


@runtime_checkable
class TextModel(Protocol):
    """Anything that answers a chat.

    `generate` raises `ModelError` (never another library's exception) when it cannot.
    """

    @property
    def name(self) -> str: ...
    @property
    def access(self) -> Access: ...
    async def generate(self, chat: Chat, sampling: Sampling) -> Generation: ...
    async def close(self) -> None:
        """Give back connections and memory; calling it twice is harmless."""


class FieldsModel(TextModel, Protocol):
    """A model that honours some of `Sampling.fields`; one that does not say so honours none."""

    def honours(self, field: str) -> bool: ...


def honours(model: object, field: str) -> bool:
    """Whether `model` takes the further field of that name and does what it says."""
    takes = getattr(model, "honours", None)
    return takes is not None and bool(takes(field))


def require_honoured(model: object, sampling: Sampling) -> None:
    """Refuse further fields that `model` would ignore: the reply would be one to another request.

    Raises:
        RejectedError: it does not honour one of them; the error names it.
    """
    for name, _ in sampling.fields:
        if not honours(model, name):
            raise RejectedError(
                f"the model cannot honour {name!r}",
                status=400,
                code="unsupported_parameter",
                param=name,
            )


@runtime_checkable
class StreamingModel(TextModel, Protocol):
    def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
        """The same reply in pieces; closing the iterator cancels the work."""


@runtime_checkable
class LogprobModel(TextModel, Protocol):
    """A model whose generations carry `tokens` with log-probabilities when asked for."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """A chat and a reply to it, as one model's tokens.

    Attributes:
        ids: prompt and reply, shape (n,).
        start: the index of the reply's first token; it is at least 1.
        pieces: what each of the reply's n - start tokens stands for. They join to the reply in UTF-8;
            the token that ends the turn stands for b"".
    """

    ids: NDArray[np.int32]
    start: int
    pieces: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class NextTokens:
    """The likeliest tokens at `n` places of a text.

    Attributes:
        ids: the tokens, shape (n, k), the likeliest first.
        logprobs: their natural-log probabilities at temperature 1, shape (n, k).
        seconds, cpu_seconds: what reading took, in threads of the model's own.
    """

    ids: NDArray[np.int32]
    logprobs: Array
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def rows(self, places: slice) -> NextTokens:
        """Those at some of the places."""
        return NextTokens(self.ids[places], self.logprobs[places])


class Past(Protocol):
    """Tokens that a model has read, and what it keeps so that it need not read them again."""

    @property
    def ids(self) -> Sequence[int]:
        """The tokens."""

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""

    def crop(self, length: int) -> None:
        """Forget what stands behind the first `length` tokens."""

    def fork(self, length: int) -> Past:
        """A copy of the first `length` tokens, which goes its own way."""


class Words(Protocol):
    """How a model cuts a reply into tokens."""

    @property
    def vocabulary(self) -> str:
        """A hash of the tokeniser: where it is equal, equal texts have equal ids."""

    def cut(self, reply: str) -> tuple[Sequence[int], Sequence[bytes]]:
        """The tokens of a reply that goes on (see `unfinished`), and what each stands for, which joins
        to `reply` in UTF-8."""

    def spelt(self, ids: Sequence[int]) -> Sequence[bytes]:
        """What each token of a reply that begins with these adds to it; nothing where it is special, or
        stands for no text."""


Cut = tuple[Sequence[int], Sequence[bytes]]


def unfinished(text: str, cut: Callable[[str], Cut]) -> Cut:
    """The tokens of a text that goes on: those that `cut` makes of its beginning when a word follows.

    Some tokenisers cut white space in another way where nothing follows: GPT-2's makes two line ends of
    those in front of a word, and one token of two at the end, which no model writes there.
    """
    if text and text[-1].isspace():
        ids, pieces = cut(text + "x")
        length = len(text.encode())
        for i, end in enumerate(accumulate(map(len, pieces)), 1):
            if end == length:
                return ids[:i], pieces[:i]
    return cut(text)


_OPEN = 8  # tokens that may be parts of one character


def canonical(words: Words, ids: Sequence[int]) -> bool:
    """Whether `ids` are those that their text is cut into.

    The last few may be parts of a character that is not yet complete; they are looked at once it is.
    """
    pieces = words.spelt(ids)
    whole = whole_tokens(pieces)
    if whole is None or len(ids) - whole > _OPEN or not all(pieces):
        return False
    return list(words.cut(b"".join(pieces[:whole]).decode())[0]) == list(ids[:whole])


def whole_tokens(pieces: Sequence[bytes]) -> int | None:
    """How many of the tokens, from the first on, make up whole characters; None where no text begins
    with them."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    whole = 0
    try:
        for i, piece in enumerate(pieces):
            decoder.decode(piece)
            if not decoder.getstate()[0]:
                whole = i + 1
    except UnicodeDecodeError:
        return None
    return whole


class ThreadModel(LogprobModel, Words, Protocol):
    """A model that goes on from what it has read, token by token.

    past = None
    for token in reply:                         # each token is computed once
        past, likeliest = await model.read(past, [token], places=1, top=5)
    """

    @property
    def vocabulary_size(self) -> int:
        """How many tokens it has a probability for."""

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end a reply."""

    def prompt(self, chat: Chat) -> Sequence[int]:
        """The tokens in front of a reply to `chat`; at least one.

        Raises:
            RejectedError: the template does not take such a chat.
        """

    def piece(self, token: int) -> bytes:
        """What a token adds to a reply; nothing where it is special, or stands for no text."""

    async def read(
        self, past: Past | None, ids: Sequence[int], *, places: int, top: int, each: bool = True
    ) -> tuple[Past, NextTokens]:
        """Read `ids` after `past`, and say what is likeliest at the last `places` places.

        Place i of n is behind token len(ids) - n + i of `ids`, the last one behind all of them.

        Args:
            past: what was read before; it goes on in what is returned, and is of no use afterwards, nor
                is it when this raises.
            places: at most as many as there are `ids`.
            top: how many of the likeliest tokens are wanted at each place.
            each: without it, what stands behind the first place whose likeliest token is not the one
                that follows need not be read: fewer places come, and the past ends there.

        Raises:
            RejectedError: together they are longer than the model's context.
            ModelError: the model failed.
        """


class StatePast(Protocol):
    """States that went through a model's layers, and what it keeps so that they need not again."""

    @property
    def states(self) -> Array:
        """The states, one for each position, as they came."""

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""

    def fork(self, length: int) -> StatePast:
        """A copy of the first `length` positions, which goes its own way."""


class SplitModel(TextModel, Protocol):
    """A model whose upper layers go on from states that another computed, and give gradients back."""

    @property
    def vocabulary_size(self) -> int:
        """How many tokens it has a probability for."""

    @property
    def layers(self) -> int:
        """How many it has."""

    @property
    def width(self) -> int:
        """How many numbers a state has."""

    async def forward(
        self, past: StatePast | None, states: Array, first: int, last: int
    ) -> tuple[StatePast, Array]:
        """`states`, (n, width) after `first` layers, of positions behind `past`, after `last` layers.

        Args:
            past: of the same layers; it goes on in what is returned, as in `ThreadModel.read`.

        Raises:
            RejectedError: there are more positions than the model's context has, or it is not built so
                that layers can run by themselves.
            ModelError: the model failed.
        """

    async def predict(self, states: Array, top: int) -> NextTokens:
        """What states after all layers say is likeliest next: shapes (n, top)."""

    async def backward(self, past: StatePast, gradient: Array, first: int, last: int) -> Array:
        """From the gradient with respect to the states after `last` layers, that with respect to those
        after `first`: both (n, width), of all positions. No weight changes.

        Raises:
            ModelError: the model failed.
        """


def goes_on(model: TextModel) -> TypeGuard[ThreadModel]:
    """Whether it keeps what it has read. Asked of its class: its properties may have to load it."""
    return hasattr(type(model), "read")


def splits(model: TextModel) -> TypeGuard[SplitModel]:
    """Whether its layers can be run by themselves; asked in the same way."""
    return hasattr(type(model), "backward")


class LogitModel(LogprobModel, Protocol):
    """A model that shows what it predicted, over its whole vocabulary, for any reply.

    Calls made at the same time are computed together.
    """

    @property
    def vocabulary(self) -> str:
        """A hash of the tokeniser: where it is equal, equal texts have equal ids."""

    @property
    def vocabulary_size(self) -> int:
        """How many logits a token has: the width of the model's output."""

    def tokenize(self, chat: Chat, reply: str) -> Tokens:
        """The prompt for a reply to `chat`, then `reply` and the end of its turn."""

    def piece(self, token: int) -> bytes:
        """What a token adds to a reply; nothing where it is special, or stands for no text."""

    async def logits(self, sequences: Sequence[Tokens]) -> list[Array]:
        """What was predicted for each reply token: shapes (n_i - start_i, vocabulary_size).

        Row t is predicted from the tokens before the reply's token t. The values may be shifted by a
        constant per row, as logits are.

        Raises:
            RejectedError: a sequence is longer than the model's context.
            ModelError: the model failed.
        """


class ActivationModel(LogitModel, Protocol):
    """A model that also shows what goes on between its layers."""

    @property
    def layers(self) -> int:
        """How many it has."""

    def plain(self, text: str) -> Tokens:
        """`text` alone, outside any chat: all prompt, no reply.

        Raises:
            RejectedError: it is empty.
        """

    async def activations(self, sequences: Sequence[Tokens], layer: int) -> list[Array]:
        """The hidden state of each token after `layer` layers: shapes (n_i, hidden).

        Layer 0 is the embedding. The last layer's state is before the final norm.

        Raises:
            ConfigError: there is no such layer.
            RejectedError: a sequence is longer than the model's context.
            ModelError: the model failed.
        """


class WeightModel(ActivationModel, Protocol):
    """A model whose weights its owner holds."""

    @property
    def module(self) -> Any:
        """The `torch.nn.Module` itself, loaded; changing it changes the model."""

    def with_module(self, module: Any) -> WeightModel:
        """The same model with other weights: `module` takes the same tokens."""

    def save(self, folder: Path | str) -> None:
        """Write everything that is needed to load the model again into `folder`."""


@runtime_checkable
class Trainable(Protocol):
    def fit(self, examples: Sequence[Demonstration], *, seed: int = 0) -> Self:
        """A trained copy; the receiver is left as it was. Each example counts by its weight.

        Raises:
            DataError: no examples, or a single target where two are needed.
        """


@runtime_checkable
class Keepable(Protocol):
    def keep(self, folder: Path) -> Mapping[str, object]:
        """Write what training made of the model into `folder`, in formats that run no code.

        Returns:
            The options that its kind opens it with again; paths among them are in `folder`.
        """


@runtime_checkable
class Classifier(Protocol):
    @property
    def labels(self) -> tuple[str, ...]: ...
    def probabilities(self, texts: Sequence[str]) -> Array:
        """Calibrated class probabilities, shape (len(texts), len(labels)); rows sum to 1."""


@runtime_checkable
class Embedder(Protocol):
    def embed(self, texts: Sequence[str]) -> Array:
        """Unit-length sentence vectors, shape (len(texts), dimension)."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors of texts, and what they took.

    Attributes:
        rows: shape (n, width), as the model's owner gave them.
        prompt_tokens: what it says that it read: 0 where it says nothing, below 0 where that is no
            number.
        attempts: as in `Generation`.
    """

    rows: Array
    prompt_tokens: int = 0
    attempts: int = 1


@runtime_checkable
class EmbeddingModel(Protocol):
    """A model, mostly somebody else's, that turns texts into vectors and bills for it."""

    async def vectors(self, texts: Sequence[str], dimensions: int | None = None) -> Vectors:
        """A vector for each text.

        Args:
            dimensions: how many numbers each is to have; as many as the model makes, when unset.

        Raises:
            ModelError: it gave none.
        """


def embeds(model: object) -> TypeGuard[EmbeddingModel]:
    """Whether `model` can be asked for vectors."""
    return hasattr(model, "vectors")


def _streams(model: TextModel) -> TypeGuard[StreamingModel]:
    # isinstance of a Protocol looks at every member, which costs more than a short stream.
    return hasattr(model, "stream")


def stream(model: TextModel, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
    """`model`'s reply in pieces; one piece when the model cannot stream."""
    if _streams(model):
        return model.stream(chat, sampling)
    return _in_one_piece(model, chat, sampling)


async def _in_one_piece(model: TextModel, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
    yield disassemble(await model.generate(chat, sampling))


@overload
def require(model: TextModel, level: Literal[Access.LOGPROBS], *, by: str) -> LogprobModel: ...
@overload
def require(model: TextModel, level: Literal[Access.LOGITS], *, by: str) -> LogitModel: ...
@overload
def require(
    model: TextModel, level: Literal[Access.ACTIVATIONS], *, by: str
) -> ActivationModel: ...
@overload
def require(model: TextModel, level: Literal[Access.WEIGHTS], *, by: str) -> WeightModel: ...
@overload
def require(model: TextModel, level: Access, *, by: str) -> TextModel: ...
def require(model: TextModel, level: Access, *, by: str) -> TextModel:
    """`model`, typed as what `level` promises.

    Raises:
        CapabilityError: the model shows less; the message names who needs what.
    """
    if model.access < level:
        raise CapabilityError(
            f"{by} needs {level.name.lower()}, but {model.name!r} shows only "
            f"{model.access.name.lower()}"
        )
    return model


def require_trainable(model: TextModel, *, by: str) -> Trainable:
    """`model` as something that can be trained.

    Raises:
        CapabilityError: it cannot.
    """
    if not isinstance(model, Trainable):
        raise CapabilityError(f"{by} trains the small model, but {model.name!r} cannot be trained")
    return model


models: Registry[Named] = Registry("model")


class Named(Protocol):
    """Something that answers, or stands for what does: its name, unless it states an `identity`."""

    @property
    def name(self) -> str: ...


def identity(model: Named) -> str:
    """What decides the answers of `model`: its own `identity` where it states one, else its name.

    Two models with one identity must answer the same; recorded answers are kept under it.
    """
    stated = getattr(model, "identity", None)
    return stated if isinstance(stated, str) else model.name


def former_identity(model: Named) -> str:
    """The identity that an earlier version of Cosilo gave `model`, for answers recorded then; empty
    where it was the same."""
    stated = getattr(model, "former_identity", "")
    return stated if isinstance(stated, str) else ""
