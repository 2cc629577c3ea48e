"""A causal language model that shows everything up to its weights, over transformers and peft.

    calls ──▶ queue ──▶ those of one kind that wait together ──▶ one batch in one thread ──▶ results

A batch is made of what waits when the one before ends; nobody waits for a batch to fill.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np

from cosilo.errors import (
    CatalogError,
    ConfigError,
    CosiloError,
    ModelError,
    RejectedError,
)
from cosilo.models import catalog
from cosilo.models.asked import generator, require_plain, too_long
from cosilo.models.base import Access, Array, Tokens, models, require_honoured
from cosilo.models.chat.writer import Writer
from cosilo.models.digests import file_digest
from cosilo.models.plain_llama import JointTerms
from cosilo.models.white_box import files as torch_files
from cosilo.models.white_box.batch import device_of, has_bfloat16, pad, predict, together
from cosilo.models.white_box.decoding import score, write
from cosilo.models.white_box.joint import TorchJoint
from cosilo.models.white_box.layers import layers_of, states
from cosilo.models.white_box.learning import TorchLearning
from cosilo.models.white_box.parts import TorchParts
from cosilo.models.white_box.split import TorchSplit
from cosilo.models.white_box.threads import TorchThreads
from cosilo.models.white_box.tokens import ChatTokens
from cosilo.models.white_box.training import TrainingProgress
from cosilo.models.white_box.tuning import Tuning
from cosilo.registry import Loads
from cosilo.types import (
    Chat,
    Delta,
    Generation,
    Sampling,
    TokenLogprob,
    assemble,
    disassemble,
)

T = TypeVar("T")
Precision = Literal["auto", "float32", "bfloat16"]

_BATCH_TOKENS = 4096  # padded tokens of the sequences that are computed together
_LOGIT_VALUES = 1 << 27  # half a gigabyte of logits at once


class TorchModel(TorchThreads, TorchSplit, TorchParts, TorchJoint, TorchLearning):
    """A model on every rung of the ladder; loaded when first used.

    Replies carry the log-probability of each token. With `Sampling.choices` the reply is one of them
    and has one token: the choice, with the probability of each under the free model, its end included,
    given that one of them is said; at a temperature above 0 the choice is drawn by `seed`.

    The same request gives the same reply in nearly all cases, not in all: which requests are computed
    together moves the logits by a little.

    Args:
        load: gives the module and its tokeniser; called once, in the model's own thread.
        identity: see `base.identity`; by default a hash of the weights.
        parallel: replies that are written together.
        report: told how `fit` gets on.
        joint: what its owner lets others compute jointly with it.
    """

    def __init__(
        self,
        load: Callable[[], tuple[Any, ChatTokens]],
        *,
        name: str,
        identity: str = "",
        parallel: int = 16,
        tuning: Tuning | None = None,
        report: Callable[[TrainingProgress], None] | None = None,
        joint: JointTerms | None = None,
    ) -> None:
        if parallel < 1:
            raise ConfigError(f"parallel must be 1 or more, not {parallel}")
        self.parallel = parallel
        self.tuning = tuning or Tuning()
        self.report = report
        self.joint = joint
        self._at_close = []
        self._name = name
        self._identity = identity
        self._load = load
        self._loaded: tuple[Any, ChatTokens] | None = None
        self._loading = threading.Lock()
        self._pending: list[_Job] = []
        self._worker: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None

    @classmethod
    def holding(cls, module: Any, tokens: ChatTokens, *, name: str, **options: Any) -> TorchModel:
        """A model of a module that is in memory already; `options` are the constructor's."""
        model = cls(lambda: (module, tokens), name=name, **options)
        model._opened()
        return model

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> str:
        """Its content: a hash of the files it was loaded from, or of its weights as they are now."""
        return f"torch:{self._identity or _weights_digest(self.module)}"

    @property
    def access(self) -> Access:
        return Access.WEIGHTS

    @property
    def module(self) -> Any:
        return self._opened()[0]

    @property
    def tokens(self) -> ChatTokens:
        """Its tokeniser, loaded with it."""
        return self._opened()[1]

    @property
    def vocabulary(self) -> str:
        return self.tokens.vocabulary

    @property
    def vocabulary_size(self) -> int:
        return int(self.module.get_output_embeddings().weight.shape[0])

    @property
    def context(self) -> int:
        """Tokens of prompt and reply together, at most."""
        return int(getattr(self.module.config, "max_position_embeddings", 1 << 20))

    @property
    def layers(self) -> int:
        return len(layers_of(self.module))

    def plain(self, text: str) -> Tokens:
        return self.tokens.plain(text)

    def tokenize(self, chat: Chat, reply: str) -> Tokens:
        return self.tokens.tokenize(chat, reply)

    def with_module(self, module: Any) -> TorchModel:
        """This model with other weights; `module` must take the same tokens."""
        return TorchModel.holding(
            module,
            self.tokens,
            name=self.name,
            parallel=self.parallel,
            tuning=self.tuning,
            report=self.report,
            joint=self.joint,
        )

    def honours(self, field: str) -> bool:
        """Whether it draws by a further field; a choice of labels is scored, whatever they say."""
        return field in ("top_k", "min_p")

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        """The reply.

        Raises:
            RejectedError: the chat does not fit the context, or something is asked for that this
                back end cannot do.
            CatalogError: the model cannot be loaded.
            ModelError: it failed.
        """
        require_honoured(self, sampling)
        require_plain(sampling)
        if sampling.choices:
            choice = await self._run(_Job("choose", (chat, sampling)))
            assert isinstance(choice, Generation)
            return choice
        pieces: list[Delta] = []
        writer = await self._run(_Job("write", (chat, sampling), tell=pieces.append))
        return msgspec.structs.replace(
            assemble(pieces), seconds=writer.seconds, cpu_seconds=writer.cpu_seconds * _threads()
        )

    async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
        """The reply in pieces. Closing it takes the reply out of its batch.

        Raises:
            what `generate` does.
        """
        require_honoured(self, sampling)
        require_plain(sampling)
        if sampling.choices:
            yield disassemble(await self.generate(chat, sampling))
            return
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Delta] = asyncio.Queue()

        def tell(piece: Delta) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, piece)

        work = asyncio.ensure_future(self._run(_Job("write", (chat, sampling), tell=tell)))
        work.add_done_callback(lambda _: queue.put_nowait(Delta()))
        try:
            while not work.done() or not queue.empty():
                piece = await queue.get()
                if piece.finish_reason is not None:
                    writer = await work
                    yield msgspec.structs.replace(piece, seconds=writer.seconds)
                elif piece != Delta():
                    yield piece
            await work
        finally:
            work.cancel()
            await asyncio.wait([work])

    async def logits(self, sequences: Sequence[Tokens]) -> list[Array]:
        """What was predicted for each reply token: float32, (n_i - start_i, vocabulary_size)."""
        return await self._arrays("logits", sequences, 0)

    async def activations(self, sequences: Sequence[Tokens], layer: int) -> list[Array]:
        """The hidden states after `layer` layers: float32, (n_i, hidden); 0 is the embedding."""
        return await self._arrays("activations", sequences, layer)

    async def close(self) -> None:
        for callback in self._at_close:
            await callback()
        self._at_close.clear()
        thread, self._thread = self._thread, None
        for job in self._pending:
            job.future.cancel()
        if thread is not None:
            await asyncio.to_thread(thread.shutdown)

    def _opened(self) -> tuple[Any, ChatTokens]:
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    async def _arrays(self, kind: str, sequences: Sequence[Tokens], layer: int) -> list[Array]:
        jobs = [_Job(kind, s, layer=layer) for s in sequences]
        return list(await asyncio.gather(*map(self._run, jobs)))

    async def _apart(self, work: Callable[[], T]) -> T:
        found: T = await self._run(_Job("apart", work))
        return found

    async def _run(self, job: _Job) -> Any:
        loop = asyncio.get_running_loop()
        job.future = loop.create_future()
        self._pending.append(job)
        if self._worker is None:
            # In a context of its own: the batch is nobody's alone, and states its time per reply.
            self._worker = loop.create_task(self._work(), context=Context())
        return await job.future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="torch")
        batch: list[_Job] = []
        try:
            await asyncio.sleep(0)  # one turn of the loop: those who call at once come along
            while self._pending:
                batch = self._next()
                try:
                    found = await loop.run_in_executor(self._thread, self._compute, batch)
                except Exception as error:
                    found = [_failure(error)] * len(batch)
                for job, result in zip(batch, found, strict=True):
                    job.finish(result)
        finally:
            for job in (*batch, *self._pending):
                job.future.cancel()
            self._pending = []
            self._worker = None

    def _next(self) -> list[_Job]:
        """The first job and those that can be computed with it; they leave the queue."""
        self._pending = [job for job in self._pending if not job.future.done()]
        first = self._pending[:1]
        same = [j for j in self._pending if first and (j.kind, j.layer) == first[0].batch]
        chosen = same[: self.parallel] if first and first[0].kind in ("write", "choose") else same
        taken = set(map(id, chosen))
        self._pending = [job for job in self._pending if id(job) not in taken]
        return chosen

    def _compute(self, jobs: Sequence[_Job]) -> Sequence[Any]:
        """One result per job, in the model's thread; an error of one is no other's."""
        import torch

        if not jobs:
            return []
        self._opened()
        with torch.no_grad():
            match jobs[0].kind:
                case "write":
                    return self._written(jobs)
                case "choose":
                    return [self._one(self._chosen, job) for job in jobs]
                case "logits":
                    return self._computed(jobs, self._logits)
                case "apart":
                    return [self._one(lambda job: job.payload(), job) for job in jobs]
                case _:
                    layer = jobs[0].layer
                    return self._computed(jobs, lambda s: states(self.module, s, layer))

    def _one(self, work: Callable[[_Job], Any], job: _Job) -> Any:
        if job.future.done():
            return None
        try:
            return work(job)
        except CosiloError as error:
            return error

    def _written(self, jobs: Sequence[_Job]) -> list[Any]:
        writers = [self._one(self._writer, job) for job in jobs]
        write(self.module, [w for w in writers if isinstance(w, Writer)], self._ends())
        return writers

    def _writer(self, job: _Job) -> Writer:
        chat, sampling = job.payload
        prompt = self.tokens.prompt(chat)
        room = self.context - len(prompt)
        if room < 1:
            raise too_long(
                f"the prompt has {len(prompt)} tokens, and the model's context {self.context}"
            )
        return Writer(
            prompt,
            sampling,
            self.tokens,
            most=max(1, min(sampling.max_tokens, room)),
            tell=job.tell,
            left=lambda: job.future.done(),
            done=lambda writer: job.future.get_loop().call_soon_threadsafe(job.finish, writer),
        )

    def _ends(self) -> frozenset[int]:
        stated = getattr(self.module.generation_config, "eos_token_id", None)
        ends = stated if isinstance(stated, list) else [stated]
        return frozenset({self.tokens.end, *(int(e) for e in ends if e is not None)})

    def _chosen(self, job: _Job) -> Generation:
        wall, cpu = perf_counter(), thread_time()
        chat, sampling = job.payload
        choices = tuple(dict.fromkeys(sampling.choices))
        prompt = self.tokens.prompt(chat)
        replies = [self.tokens.reply(choice)[0] for choice in choices]
        longest = len(prompt) + max(map(len, replies))
        if longest > self.context:
            raise too_long(
                f"prompt and choice have {longest} tokens, and the model's context {self.context}"
            )
        scores = np.array(score(self.module, prompt, replies), np.float64)
        logprobs = scores - np.logaddexp.reduce(scores)
        picked = _picked(logprobs, sampling)
        ranked = sorted(range(len(choices)), key=lambda i: -logprobs[i])
        shown = tuple((choices[i], min(0.0, float(logprobs[i]))) for i in ranked)
        token = TokenLogprob(choices[picked], min(0.0, float(logprobs[picked])), shown)
        return Generation(
            choices[picked],
            tokens=(token,),
            prompt_tokens=len(prompt),
            completion_tokens=len(replies[picked]),
            seconds=perf_counter() - wall,
            cpu_seconds=(thread_time() - cpu) * _threads(),
        )

    def _computed(
        self, jobs: Sequence[_Job], work: Callable[[Sequence[Tokens]], list[Array]]
    ) -> list[Any]:
        """The results of `work`, on groups of sequences of similar length."""
        found: list[Any] = [None] * len(jobs)
        fitting: list[int] = []
        for i, job in enumerate(jobs):
            if len(job.payload) > self.context:
                found[i] = RejectedError(
                    f"a sequence has {len(job.payload)} tokens, and the model's context "
                    f"{self.context}"
                )
            else:
                fitting.append(i)
        most = min(_BATCH_TOKENS, max(1, _LOGIT_VALUES // self.vocabulary_size))
        for group in together([jobs[i].payload for i in fitting], most):
            chosen = [fitting[g] for g in group]
            for i, array in zip(chosen, work([jobs[i].payload for i in chosen]), strict=True):
                found[i] = array
        return found

    def _logits(self, sequences: Sequence[Tokens]) -> list[Array]:
        batch = pad(sequences, device_of(self.module))
        rows = predict(self.module, batch).float()
        return [
            np.ascontiguousarray(row[counted].cpu().numpy())
            for row, counted in zip(rows, batch.counted, strict=True)
        ]


@dataclass(eq=False)
class _Job:
    """A call that waits: what it wants, and where the result goes."""

    kind: str
    payload: Any
    layer: int = 0
    tell: Callable[[Delta], None] = lambda piece: None
    future: asyncio.Future[Any] = field(init=False, repr=False)

    @property
    def batch(self) -> tuple[str, int]:
        return self.kind, self.layer

    def finish(self, result: Any) -> None:
        """Hand the caller its result, unless it has left or has one."""
        if self.future.done():
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


def _picked(logprobs: Any, sampling: Sampling) -> int:
    if sampling.temperature <= 0:
        return int(np.argmax(logprobs))
    weights = np.exp((logprobs - logprobs.max()) / sampling.temperature)
    rng = generator(sampling)
    return int(rng.choice(len(weights), p=weights / weights.sum()))


def _failure(error: Exception) -> Exception:
    """`error` as one of ours, without its text."""
    if isinstance(error, CosiloError):
        return error
    return ModelError(f"the torch model failed: {type(error).__name__}")


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())


def _weights_digest(module: Any) -> str:
    import torch

    found = hashlib.sha256()
    for name, parameter in module.named_parameters():
        flat = parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        found.update(name.encode())
        found.update(memoryview(flat.numpy()))
    return found.hexdigest()[:16]


def _loads(model: str) -> Loads:
    return Loads((model,) if model else (), torch_files.PACKAGES)


@models.register("torch", loads=_loads)
def torch_lm(
    model: str = "",
    path: Path | None = None,
    adapter: Path | None = None,
    precision: Precision = "auto",
    device: str = "auto",
    threads: int | None = None,
    parallel: int = 16,
    method: Literal["lora", "full"] = "lora",
    rank: int = 8,
    epochs: float = 3.0,
    batch: int = 8,
    learning_rate: float | None = None,
    checkpoints: Path | None = None,
    joint: JointTerms | None = None,
) -> TorchModel:
    """A model in this process that shows logits, activations and weights, and can be trained.

    Args:
        model: a name in the catalog; or else
        path: a Hugging Face folder with safetensors, or a GGUF file.
        adapter: a folder with a peft adapter for it.
        precision: what it computes in; bfloat16 where the machine has it, when "auto".
        device: "cpu", "cuda", …; a GPU where there is one, when "auto".
        threads: of torch, for the whole process.
        parallel: replies that are written together.
        method, rank, epochs, batch, learning_rate, checkpoints: how it is trained, see `Tuning`.
        joint: what its owner lets others compute jointly with it (`exposes` has "joint" then), see
            `JointTerms`.

    Raises:
        CatalogError: the files are not there, or are not safe to load.
        ConfigError: both or neither of `model` and `path`.
    """
    if bool(model) == (path is not None):
        raise ConfigError("model 'torch' needs either model (a catalog name) or path")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be 1 or more, not {threads!r}")
    source = path if path is not None else catalog.path(model)
    known = catalog.entry(model).files[0].sha256 if model else ""
    if not source.exists():
        raise CatalogError(f"{str(source)!r} is not there")
    if source.is_dir():
        torch_files.require_folder(source)
    if adapter is not None:
        torch_files.require_adapter(adapter)
    tuning = Tuning(
        method=method,
        rank=rank,
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        checkpoints=checkpoints,
    )

    def load() -> tuple[Any, ChatTokens]:
        import torch

        if threads:
            torch.set_num_threads(threads)
        place = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        kind = precision if precision != "auto" else "float32"
        if precision == "auto" and has_bfloat16():
            kind = "bfloat16"
        folder = source if source.is_dir() else torch_files.unpack(source, digest)
        module = torch_files.load_module(folder, precision=kind, device=place)
        if adapter is not None:
            module = torch_files.load_adapter(module, adapter)
        return module, ChatTokens(torch_files.load_words(folder))

    digest = torch_files.digest(source) if source.is_dir() else known or file_digest(source)
    parts = [digest[:16], precision]
    if adapter is not None:
        parts.append(torch_files.adapter_digest(adapter))
    return TorchModel(
        load, name=model or source.stem, identity=":".join(parts), parallel=parallel, tuning=tuning,
        joint=joint,
    )  # fmt: skip
