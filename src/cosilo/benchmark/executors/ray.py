"""Workers on a Ray cluster, each an actor.

Every node must see the run's folder, the data and the model files at the paths that they have here, and
hold the same version of Cosilo. A worker on this machine uses the run's recorded answers themselves;
one on another is given a copy of them, as SQLite's files cannot be shared between machines.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import cosilo
from cosilo.benchmark.executors.base import (
    Ended,
    Job,
    Worker,
    WorkerLostError,
    WorkerState,
    machine,
)
from cosilo.errors import ConfigError


class Cluster:
    """Starts workers on the Ray cluster at `address`; empty for the one that Ray finds by itself.

    Raises:
        ConfigError: Ray is not installed, or no cluster is there.
    """

    def __init__(self, address: str = "") -> None:
        try:
            import ray
        except ImportError:
            raise ConfigError("--on ray needs Ray: pip install 'cosilo[ray]'") from None
        self._ray: Any = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            try:
                ray.init(
                    address=address or "auto", log_to_driver=True, logging_level=logging.WARNING
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                why = str(error).partition("\n")[0]
                raise ConfigError(
                    f"no Ray cluster at {address or 'auto'!r}: {why} (`ray start --head` begins one)"
                ) from None
        self._actor: Any = ray.remote(num_cpus=1, max_restarts=0)(_Actor)

    @property
    def cpus(self) -> int:
        return int(self._ray.cluster_resources().get("CPU", 1))

    async def worker(self) -> Worker:
        actor = self._actor.remote()
        try:
            version, where = await actor.about.remote()
        except self._ray.exceptions.RayError as error:
            raise ConfigError(f"a worker cannot be started: {type(error).__name__}") from None
        if version != cosilo.__version__:
            raise ConfigError(
                f"a node of the cluster has Cosilo {version}, and here is {cosilo.__version__}"
            )
        return _Remote(self._ray, actor, here=where == machine())

    async def close(self) -> None:
        if self._ours:
            await asyncio.to_thread(self._ray.shutdown)


class _Actor:
    """Runs in a process of the cluster's."""

    def __init__(self) -> None:
        self._state = WorkerState()

    def about(self) -> tuple[str, str]:
        return cosilo.__version__, machine()

    def work(self, job: Job) -> Ended:
        if not job.folder.is_dir():
            raise ConfigError(f"a node of the cluster does not see {str(job.folder)!r}")
        return self._state.work(job)


class _Remote:
    def __init__(self, ray: Any, actor: Any, *, here: bool) -> None:
        self._ray = ray
        self._actor = actor
        self.here = here

    async def run(self, job: Job) -> Ended:
        if not self.here:  # the book of ε is a file of this machine
            away = replace(job.plan.privacy, here=False)
            job = replace(job, plan=replace(job.plan, privacy=away))
        try:
            ended = await self._actor.work.remote(job)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(cause := error.cause, ConfigError):
                raise cause from None
            raise
        except self._ray.exceptions.RayError as error:
            raise WorkerLostError(type(error).__name__) from None
        assert isinstance(ended, Ended)
        return ended

    async def close(self) -> None:
        self._ray.kill(self._actor)
