"""A GGUF model inside this process, over llama.cpp (the `xllamacpp` wheel).

    chat ──▶ slots that decode together, each with its prefix cache ──▶ reply, log-probabilities
    chat + choices ──▶ trie.py ──▶ the probability of every choice, one prompt pass in most cases

The engine answers with log-probabilities of the free model, before any grammar masks it; they would not
be those of a choice. So choices are not generated under a grammar but scored (see `trie`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cosilo.errors import CatalogError, ConfigError, ModelError, RejectedError
from cosilo.models import catalog
from cosilo.models.asked import too_long
from cosilo.models.base import Access, models, require_honoured
from cosilo.models.busy import Busy, Share
from cosilo.models.chat import chat_api
from cosilo.models.chat.fields import NUMBERS
from cosilo.models.chat.tool_pieces import ToolPieces
from cosilo.models.digests import file_digest
from cosilo.models.gguf import trie
from cosilo.models.gguf.drawing import drawn_by, log_of, picked
from cosilo.models.gguf.threads import LlamaCppThreads
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

_TOP = 20  # alternatives shown per token at most
_BIAS = 100.0  # lifts the tokens of interest above all others; the rest is then worth e^-100


def usable_cores() -> int:
    """How many cores this process may run on, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LlamaCppModel(LlamaCppThreads):
    """A GGUF model; loaded when first asked.

    Replies carry the log-probability of each token. With `Sampling.choices` the reply is one of them
    and has one token: the choice, its log-probability among the choices, and all of them as
    alternatives; at a temperature above 0 the choice is drawn by `seed`.

    The same request gives the same reply at temperature 0 in nearly all cases, not in all: which
    requests are decoded together moves the logits by a little.

    Args:
        path: a GGUF file.
        n_ctx: tokens of prompt and reply together, for each of `parallel` requests at once.
        threads: of the engine; by default as many as the cores this process may use, because threads
            that share a core wait for one another.
        prompt_cache_mib: memory for prompts that may come again, in MiB.
        reasoning: see `llamacpp`.
        identity: see `base.identity`; by default the file's name and the hash of its content.

    Raises:
        CatalogError: no such file, or no GGUF.
        ConfigError: a number that must be positive is not.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str = "",
        identity: str = "",
        n_ctx: int = 4096,
        threads: int | None = None,
        parallel: int = 4,
        prompt_cache_mib: int = 512,
        reasoning: int = 0,
    ) -> None:
        self.path = path
        self.n_ctx = n_ctx
        self.threads = threads if threads is not None else usable_cores()
        self.parallel = parallel
        self.prompt_cache_mib = prompt_cache_mib
        self.reasoning = reasoning
        for option in ("n_ctx", "threads", "parallel"):
            if getattr(self, option) < 1:
                raise ConfigError(f"{option} must be 1 or more, not {getattr(self, option)}")
        if reasoning < 0:
            raise ConfigError(f"reasoning must be 0 or more, not {reasoning}")
        _require_gguf(path)
        self._name = name or path.stem
        self._identity = identity or f"{path.name}:{file_digest(path)[:16]}"
        self._of_file = not identity
        self._engine: _Engine | None = None
        self._opening = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None
        self._stops: set[threading.Event] = set()

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> str:
        thinks = f":{self.reasoning}" if self.reasoning else ""
        return f"llamacpp:{self._identity}{thinks}"

    @cached_property
    def former_identity(self) -> str:
        """The identity in earlier versions, which hashed samples of the file, not all of it; empty
        for a file of the catalog.
        """
        return (
            f"llamacpp:{self.path.name}:{_sampled(self.path)}"
            if self._of_file and not self.reasoning
            else ""
        )

    @property
    def access(self) -> Access:
        return Access.LOGPROBS

    def honours(self, field: str) -> bool:
        """Whether it draws by a further field; a choice of labels is scored, whatever they say."""
        return field in NUMBERS

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        """The reply.

        Raises:
            RejectedError: the prompt is longer than the context, or the engine refuses the request.
            CatalogError: the file cannot be loaded.
            ModelError: the engine failed.
        """
        require_honoured(self, sampling)
        if sampling.choices:
            return await self._run(lambda stop: self._choose(chat, sampling, stop))
        body = self._body(chat, sampling)

        def write(stop: threading.Event) -> Generation:
            pieces: list[Delta] = []
            share = self._opened().chat(body, pieces.append, stop)
            _require_end(pieces)
            return msgspec.structs.replace(assemble(pieces), cpu_seconds=share.seconds)

        return await self._run(write)

    async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
        """The reply in pieces. Closing it stops the engine at its next token.

        Raises:
            what `generate` does.
        """
        require_honoured(self, sampling)
        if sampling.choices:
            yield disassemble(await self.generate(chat, sampling))
            return
        body = self._body(chat, sampling)
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Delta | None] = asyncio.Queue()

        def put(piece: Delta | None) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, piece)

        def write(stop: threading.Event) -> None:
            try:
                self._opened().chat(body, put, stop)
            finally:
                put(None)

        work = asyncio.ensure_future(self._run(write))
        held: list[Delta] = []  # the piece that ends the reply, until its usage has come too
        try:
            while (piece := await queue.get()) is not None:
                if piece.finish_reason is not None or held:
                    held.append(piece)
                elif piece != Delta():
                    yield piece
            await work
            _require_end(held)
            yield chat_api.last_piece(held)
        finally:
            work.cancel()
            await asyncio.wait([work])

    async def close(self) -> None:
        for stop in list(self._stops):
            stop.set()
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.close)

    async def _run(self, work: Callable[[threading.Event], T]) -> T:
        """`work` in a thread; its `stop` is set when the caller leaves. At most `parallel` at once."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.parallel, thread_name_prefix="llamacpp")
        stop = threading.Event()
        self._stops.add(stop)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, stop)
        finally:
            stop.set()
            self._stops.discard(stop)

    def _opened(self) -> _Engine:
        with self._opening:
            if self._engine is None:
                self._engine = _Engine(
                    self.path, self.n_ctx, self.threads, self.parallel, self.prompt_cache_mib
                )
            return self._engine

    def _body(self, chat: Chat, sampling: Sampling) -> dict[str, Any]:
        body = chat_api.request(chat, sampling, logprobs=True, reasoning=self.reasoning)
        body["top_logprobs"] = min(_TOP, max(1, sampling.top_logprobs))
        # Its own defaults also cut the distribution (top_k = 40, min_p = 0.05), which nobody asked for:
        # at temperature 1 a reply is a draw of the model's.
        body["samplers"] = ["temperature", "top_p"]
        if sampling.fields:
            body |= drawn_by(sampling, self.n_ctx)
        return body

    def _choose(self, chat: Chat, sampling: Sampling, stop: threading.Event) -> Generation:
        engine = self._opened()
        choices = tuple(dict.fromkeys(sampling.choices))
        pieces = [engine.tokens(choice) for choice in choices]
        base = chat_api.request(chat, Sampling(max_tokens=1), logprobs=True)
        asked = [0, 0.0, 0.0]  # prompt tokens, seconds, CPU seconds

        def ask(said: bytes, tokens: Sequence[int]) -> list[float]:
            if stop.is_set():
                raise ModelError("nobody waits for this reply any more")
            known, reply, share = engine.next_token(base, said.decode(), tokens)
            asked[0] = max(asked[0], reply.prompt_tokens)
            asked[1] += reply.seconds
            asked[2] += share.seconds
            return [known.get(token, 0.0) for token in tokens]

        clash = any(a != b and b[: len(a)] == a for a in pieces for b in pieces)
        end = engine.end_token() if clash else -1
        found = trie.probabilities(pieces, end, ask)
        chosen = picked(found, sampling)
        order = sorted(range(len(choices)), key=lambda i: -found[i])
        return Generation(
            choices[chosen],
            tokens=(
                TokenLogprob(
                    choices[chosen],
                    log_of(found[chosen]),
                    tuple((choices[i], log_of(found[i])) for i in order),
                ),
            ),
            prompt_tokens=int(asked[0]),
            completion_tokens=len(pieces[chosen]),
            seconds=asked[1],
            cpu_seconds=asked[2],
        )


class _Engine:
    """llama.cpp with a model loaded. Its calls block, and may be made from several threads at once."""

    def __init__(
        self, path: Path, n_ctx: int, threads: int, parallel: int, prompt_cache_mib: int
    ) -> None:
        # Threads that wait at OpenMP's barriers would spin; where cores are shared, that costs ten
        # times the work itself (measured beside a busy core: 11 CPU seconds, not 1.4, for 64 tokens).
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        try:
            import xllamacpp
        except ImportError:
            raise ConfigError(
                "GGUF models need xllamacpp; run: pip install 'cosilo[local]'"
            ) from None
        self._key = secrets.token_hex(16)
        options = xllamacpp.CommonParams()
        options.model.path = str(path)
        options.n_ctx = n_ctx * parallel
        options.n_parallel = parallel
        options.n_gpu_layers = 0
        for pool in (options.cpuparams, options.cpuparams_batch):
            pool.n_threads = threads
            pool.poll = (
                0  # threads that wait must not spin: the cores are shared with the small model
            )
        options.cache_prompt = True
        options.cache_ram_mib = prompt_cache_mib
        options.warmup = False
        options.verbosity = -1  # its log would quote prompts
        options.ui = False
        options.endpoint_slots = False
        options.api_keys = [self._key]  # it also listens on the loopback interface
        try:
            with Busy.noticing(threads) as self._busy:
                self._server: Any = xllamacpp.Server(options)
        except RuntimeError:
            raise CatalogError(
                f"{str(path)!r} cannot be loaded by llama.cpp: it is broken, of a kind this version "
                "does not know, or there is not enough memory"
            ) from None
        place = self._server.listening_address.removeprefix("http://")
        self._http = HTTPConnection(place, timeout=30)
        weakref.finalize(self, self._http.close)
        self._asking = threading.Lock()
        self._tokens: dict[str, tuple[trie.Piece, ...]] = {}
        self._end: int | None = None

    def chat(
        self, body: dict[str, Any], tell: Callable[[Delta], None], stop: threading.Event
    ) -> Share:
        """Write a reply, piece by piece, until its end or until `stop` is set."""
        failure: list[Exception] = []
        calls = ToolPieces()

        def piece(data: dict[str, Any]) -> bool:
            try:
                tell(chat_api.chunk(data, calls))
                return stop.is_set()
            except Exception as error:  # the engine would swallow it
                failure.append(error)
                return True

        with self._busy.share() as share, _translated():
            streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
            self._server.handle_chat_completions(streamed, piece)
            if failure:
                raise failure[0]
        return share

    def next_token(
        self, base: dict[str, Any], said: str, tokens: Sequence[int]
    ) -> tuple[dict[int, float], Delta, Share]:
        """The probabilities of `tokens` after `said`, relative to one another."""
        body = {
            **base,
            "messages": [
                *base["messages"],
                *([{"role": "assistant", "content": said}] if said else []),
            ],
            "temperature": 1.0,
            "top_k": len(tokens),
            "samplers": ["top_k", "temperature"],
            "logit_bias": [[token, _BIAS] for token in tokens],
            "post_sampling_probs": True,
            "top_logprobs": len(tokens),
        }
        with self._busy.share() as share, _translated():
            reply = self._server.handle_chat_completions(body)
            usage = chat_api.chunk({k: v for k, v in reply.items() if k != "choices"})
        try:
            shown = reply["choices"][0]["logprobs"]["content"][0]["top_probs"]
            return {int(t["id"]): float(t["prob"]) for t in shown}, usage, share
        except (KeyError, IndexError, TypeError, ValueError):
            raise ModelError("llama.cpp showed no probabilities for the next token") from None

    def tokens(self, text: str) -> tuple[trie.Piece, ...]:
        """The tokens that `text` is written with at the start of a reply."""
        if text not in self._tokens:
            found = self._post("/tokenize", {"content": text, "with_pieces": True})["tokens"]
            self._tokens[text] = tuple((int(t["id"]), _bytes(t["piece"])) for t in found)
        return self._tokens[text]

    def prompt_tokens(self, chat: Chat) -> list[int]:
        """The prompt for a reply to `chat`, as the engine itself makes it."""
        messages = chat_api.request(chat, Sampling(), logprobs=False)["messages"]
        prompt = self._post("/apply-template", {"messages": messages})["prompt"]
        return self._cut({"content": prompt, "add_special": True, "parse_special": True})

    def reply_tokens(self, text: str) -> list[int]:
        """`text` as a reply, in which nothing is special."""
        return self._cut({"content": text, "add_special": False, "parse_special": False})

    def _cut(self, body: dict[str, Any]) -> list[int]:
        found: list[int] = self._post("/tokenize", body)["tokens"]
        if not all(type(i) is int for i in found):
            raise ModelError("llama.cpp gave no tokens")
        return found

    def likeliest(self, ids: Sequence[int], top: int) -> list[tuple[int, float]]:
        """The tokens that are likeliest behind `ids`, with their log-probabilities, best first."""
        body = {
            "prompt": list(ids),
            "max_tokens": 1,
            "temperature": 0.0,
            # Where half a character is drawn nothing is shown, so a whole one is; what is shown is what
            # the model says, before any bias.
            "logit_bias": [[self.tokens("a")[0][0], _BIAS]],
            "logprobs": top,
            "cache_prompt": True,
        }
        with (
            _translated()
        ):  # its share of the time is not asked for: to find it out takes a twentieth
            reply = self._server.handle_completions(body)
            chat_api.chunk(
                {k: v for k, v in reply.items() if k != "choices"}
            )  # raises what it reports
        try:
            shown = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            return [(int(t["id"]), max(-1e4, float(t["logprob"]))) for t in shown]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ModelError("llama.cpp showed no probabilities for the next token") from None

    def end_token(self) -> int:
        """The token that ends a reply, found by having the engine say `a` under a grammar that
        allows nothing else: it is the last token.
        """
        if self._end is None:
            body = {
                "messages": [{"role": "user", "content": "a"}],
                "grammar": 'root ::= "a"',
                "max_tokens": 8,
                "logprobs": True,
                "top_logprobs": 1,
            }
            with _translated():
                reply = self._server.handle_chat_completions(body)
                self._end = int(reply["choices"][0]["logprobs"]["content"][-1]["id"])
        return self._end

    def close(self) -> None:
        self._http.close()
        self._server = None

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        """The engine's own HTTP interface, on this machine and behind a key: labels go over it, and the
        texts of threads, to be cut; the engine writes none of it down.
        """
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        with (
            self._asking
        ):  # one connection, which stays: to make one costs as much as to cut a text
            for again in (True, False):
                try:
                    self._http.request("POST", path, json.dumps(body), headers)
                    reply = self._http.getresponse()
                    data = reply.read()
                    if reply.status != 200:
                        raise ValueError
                    return json.loads(data)
                except (OSError, ValueError, HTTPException) as error:
                    self._http.close()
                    if (
                        isinstance(error, ValueError) or not again
                    ):  # else it had been idle for too long
                        raise ModelError(
                            f"llama.cpp cannot tokenise: {type(error).__name__}"
                        ) from None


class _translated:  # noqa: N801 — reads as a word where it is used
    """Turns what the engine raises or reports into our errors, without its text."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        match error:
            case chat_api.ReportedError(kind="context_length_exceeded"):
                raise too_long(
                    "the prompt is longer than the model's context; a larger n_ctx may help"
                ) from None
            case chat_api.ReportedError():
                refused = f"llama.cpp refused the request: {error.kind}"
                if 400 <= error.code < 500:
                    raise RejectedError(refused, status=error.code) from None
                raise ModelError(refused) from None
            case chat_api.MalformedReplyError():
                raise ModelError(f"llama.cpp gave no reply that can be read: {error}") from None
            case ValueError() | RuntimeError() | TypeError():
                raise RejectedError(
                    f"llama.cpp refused the request: {type(error).__name__}"
                ) from None


def _require_end(pieces: Sequence[Delta]) -> None:
    if not any(piece.finish_reason for piece in pieces):
        raise ModelError("llama.cpp stopped before the reply was complete")


def _bytes(piece: str | list[int]) -> bytes:
    return piece.encode() if isinstance(piece, str) else bytes(piece)


def _require_gguf(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise CatalogError(f"model file {str(path)!r} cannot be read: {error.strerror}") from None
    if magic != b"GGUF":
        raise CatalogError(f"{str(path)!r} is no GGUF file")


_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16


def _sampled(path: Path) -> str:
    """A hash of a file's size and of blocks all over it."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for i in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def _loads(model: str) -> Loads:
    return Loads((model,) if model else (), ("xllamacpp",))


@models.register("llamacpp", loads=_loads)
def llamacpp(
    model: str = "",
    path: Path | None = None,
    n_ctx: int = 4096,
    threads: int | None = None,
    parallel: int = 4,
    prompt_cache_mib: int = 512,
    reasoning: int = 0,
) -> LlamaCppModel:
    """A GGUF model inside this process, over llama.cpp.

    Args:
        model: a name in the catalog; or else
        path: a GGUF file.
        n_ctx: tokens of prompt and reply together, for each request.
        threads: all cores by default.
        parallel: requests that are decoded together.
        prompt_cache_mib: memory for prompts that may come again, in MiB.
        reasoning: tokens the model may think of before it answers, on top of the answer's; inside the
            estimate and every budget. A choice of labels is scored, and takes none.

    Raises:
        CatalogError: the model is not there; the message says how to pull it.
        ConfigError: both or neither of `model` and `path`.
    """
    numbers: dict[str, Any] = {
        "n_ctx": n_ctx,
        "threads": threads,
        "parallel": parallel,
        "prompt_cache_mib": prompt_cache_mib,
        "reasoning": reasoning,
    }
    if bool(model) == (path is not None):
        raise ConfigError("model 'llamacpp' needs either model (a catalog name) or path (a GGUF)")
    if path is not None:
        return LlamaCppModel(path, **numbers)
    file = catalog.path(model)
    if file.suffix != ".gguf":
        raise ConfigError(f"model {model!r} of the catalog is no GGUF: {catalog.entry(model).kind}")
    digest = catalog.entry(model).files[0].sha256
    return LlamaCppModel(file, name=model, identity=digest, **numbers)
