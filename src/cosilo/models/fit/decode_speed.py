"""How fast a GGUF file decodes on this machine and what memory that takes, in a process of its own.

    python -m cosilo.models.fit.decode_speed x.gguf 2 2048      path, threads, context

A process of its own, because memory is a process's peak, and what was loaded before would count.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from cosilo.errors import ModelError
from cosilo.models.gguf.llamacpp import LlamaCppModel
from cosilo.types import Sampling, user

_RUNS = 5
_TOKENS = 32
_PROMPT = "Tell me a long story about a lighthouse, the sea, and a clock that is always late."
_TRIES = 40
_PATIENCE = 600  # seconds


@dataclass(frozen=True)
class Speed:
    """What one request at a time takes.

    Attributes:
        ms_per_token: the median over runs of 32 tokens each, the prompt not counted.
        memory: bytes of the whole process at its peak, Python's own included.
    """

    ms_per_token: float
    memory: int


def measure(path: Path, *, threads: int, context: int) -> Speed:
    """Load and run the file in another process.

    Raises:
        ModelError: it cannot be loaded, or writes nothing that could be timed.
    """
    command = [sys.executable, "-m", __name__, str(path), str(threads), str(context)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise ModelError(f"{path.name} took more than {_PATIENCE} s to be timed") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(f"{path.name} cannot be timed: {last}")
    return Speed(**json.loads(done.stdout.splitlines()[-1]))


async def _times(model: LlamaCppModel) -> list[float]:
    """Milliseconds per token of each run; replies that end early are not counted."""
    found: list[float] = []
    for seed in range(_TRIES):
        first = last = 0.0
        count = 0
        sampling = Sampling(max_tokens=_TOKENS, temperature=1.0, seed=seed)
        async for piece in model.stream(user(_PROMPT), sampling):
            if piece.tokens:
                last = perf_counter()
                first = first or last
                count += len(piece.tokens)
        if count > _TOKENS // 2:
            found.append(1000 * (last - first) / (count - 1))
        if len(found) == _RUNS:
            break
    return found


def _main() -> int:
    path, threads, context = sys.argv[1:]
    model = LlamaCppModel(
        Path(path), n_ctx=int(context), threads=int(threads), parallel=1, prompt_cache_mib=0
    )

    async def run() -> list[float]:
        try:
            return await _times(model)
        finally:
            await model.close()

    times = asyncio.run(run())
    if not times:
        print(f"it ended each of {_TRIES} replies before {_TOKENS // 2} tokens", file=sys.stderr)
        return 1
    print(json.dumps({"ms_per_token": statistics.median(times), "memory": _peak()}))
    return 0


def _peak() -> int:
    """The most memory this process had, in bytes."""
    try:
        # Not ru_maxrss where this can be had: that one remembers the parent's memory, from before exec.
        for line in Path("/proc/self/status").read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.exit(_main())
