"""A large model of kind "federation": no model at all, but the coordinator of a federation.

In a plan it stands where the other side does, in this process: one owner tries out alone what many do
over the network. A `cosilo host` has a table [federation] for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cosilo.errors import ConfigError, RejectedError
from cosilo.models.base import Access, models
from cosilo.parties.coordinating.federation import Federation
from cosilo.parties.coordinating.settings import FederationSettings
from cosilo.registry import Loads
from cosilo.tables import check
from cosilo.types import Chat, Generation, Sampling

FEDERATION = "federation"


class NoModel:
    """What a coordinator answers chats with: nothing."""

    def __init__(self, name: str = FEDERATION) -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def access(self) -> Access:
        return Access.TEXT

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        """Raises: RejectedError: always."""
        raise RejectedError(
            "the other side coordinates a federation and has no large model to ask", everything=True
        )

    async def close(self) -> None: ...


class Coordinating(NoModel):
    """No model, and the federation in its place."""

    def __init__(self, settings: FederationSettings, path: Path | None, mutual: Any = None) -> None:
        super().__init__()
        self._mutual = mutual
        self.federation = Federation(settings, path, mutual=mutual)
        # Another federation gives other answers, so one that is forgotten with the process has replies
        # of its own.
        self.identity = f"federation/{self.federation.name}"

    async def close(self) -> None:
        self.federation.stop()
        self.federation.close()
        if self._mutual is not None:
            await self._mutual.close()


def _loads(
    model: str,
    path: Path | None,
    small_model: str,
    small_path: Path | None,
    public: Path | None,
    method: str,
) -> Loads:
    if public is None:
        return Loads()
    if method == "opinions":
        return models.loads("taught", {"model": model, "public": public})
    return models.loads("mutual", {"model": model, "small_model": small_model, "public": public})


@models.register(FEDERATION, loads=_loads)
def federation(
    rounds: int = 3,
    rule: str = "average",
    rule_options: Mapping[str, object] | None = None,
    quorum: int | None = None,
    deadline_s: float = 3600.0,
    rank: int = 8,
    scale: float = 2.0,
    codec: str = "fp32",
    seed: int = 0,
    counts: bool = False,
    largest_norm: float = 1000.0,
    base: str = "",
    held_s: float = 20.0,
    method: Literal["adapter", "scalars", "opinions"] = "adapter",
    top: int = 32,
    directions: int = 2048,
    rate: float = 1e-3,
    momentum: float = 0.0,
    server_rate: float = 1.0,
    keep_updates: int = 0,
    forgets: Literal["again", "approximately", "no"] = "again",
    state_file: Path | None = None,
    public: Path | None = None,
    model: str = "",
    path: Path | None = None,
    small_model: str = "",
    small_path: Path | None = None,
    mutual: Mapping[str, object] | None = None,
) -> Coordinating:
    """The coordinator of a federation in this process; for `large` only.

    Args:
        state_file: where the federation lives; without one it is forgotten with the process, and a run
            that took part cannot be opened again.
        rounds, rule, rule_options, quorum, deadline_s, rank, scale, codec, seed, counts, largest_norm,
            base, held_s, method, top, directions, rate, momentum, server_rate, keep_updates,
            forgets: see `FederationSettings`.
        public, model, path, small_model, small_path, mutual: with `public` the coordinator has a large
            model, which learns from what comes of each round and teaches it: as for the kind "mutual",
            its other options in `mutual`; with method = "opinions" as for the kind "taught".

    Raises:
        ConfigError: a setting is out of its range, or `state_file` is that of another federation; a
            model is named without `public`.
    """
    try:
        settings = FederationSettings(
            rounds=rounds, rule=rule, rule_options=rule_options or {},
             quorum=quorum, deadline_s=deadline_s, rank=rank, scale=scale,
            codec=codec, seed=seed, counts=counts, largest_norm=largest_norm, base=base, held_s=held_s,
            method=method, top=top, directions=directions, rate=rate, momentum=momentum,
            server_rate=server_rate,
            keep_updates=keep_updates, forgets=forgets,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"federation: {error}") from None
    named = {"model": model, "path": path, "small_model": small_model, "small_path": small_path}
    if public is None:
        if mutual or any(named.values()):
            raise ConfigError(
                "federation: a large and a small model learn from each other on public"
            )
        return Coordinating(settings, state_file)
    kind = "mutual"
    if method == "opinions":
        kind = "taught"
        if small_model or small_path is not None:
            raise ConfigError("federation: owners who send opinions have small models of their own")
        del named["small_model"], named["small_path"]
    options = check(
        models.get(kind), {**(mutual or {}), "public": public}, where="federation: mutual"
    )
    return Coordinating(settings, state_file, models.create(kind, **options | named))
