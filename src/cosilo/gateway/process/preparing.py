"""Points prepared in a process of their own, while this one serves.

    SIGHUP ─▶ a new process: reads the configuration, prepares each point ─▶ a folder, a bundle each
                                                                               │
    this one: reads the configuration, opens what was prepared, then swaps ◀───┘

A strategy that trains for minutes so takes nothing from those who are served. What cannot be written
down is prepared here after all, off the event loop. When the process fails, the points before go on.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Protocol

from cosilo.boundary.record.ledger import Ledger
from cosilo.bundle import Bundle, is_bundle, kept_model, read_bundle, spelt_out, write
from cosilo.errors import ConfigError, CosiloError
from cosilo.gateway.process.config import Layout, PointParts
from cosilo.gateway.serving.exchange import Setup
from cosilo.gateway.serving.points import Recipe, ServedPoint, open_recipe
from cosilo.session import make_model

_SAID = "cosilo: "
_LONGEST = 2_000  # characters of why it failed


class Preparer(Protocol):
    """Knows how a configuration's points are prepared elsewhere."""

    def command(self, folder: Path) -> Sequence[str]:
        """The process that prepares the points and writes them into `folder`."""

    def layout(self, folder: Path) -> Layout:
        """The configuration, its points as they were prepared into `folder`."""


async def prepared(preparer: Preparer) -> Path:
    """A folder of the points, prepared in a process of their own; whoever gets it deletes it.

    Raises:
        ConfigError: the process failed; the message says why, in its own words.
    """
    folder = Path(mkdtemp(prefix="cosilo-prepared-"))
    process: asyncio.subprocess.Process | None = None
    try:
        process = await asyncio.create_subprocess_exec(
            *preparer.command(folder),
            stdin=asyncio.subprocess.PIPE,  # it ends when this one does
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stderr is not None
        said = await process.stderr.read()
        if await process.wait():
            raise ConfigError(_why(said, process.returncode))
        return folder
    except BaseException:
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _why(said: bytes, code: int | None) -> str:
    """Why a process failed: only what it says for this purpose, as anything else may quote."""
    lines = said.decode("utf-8", "replace").splitlines()
    told = [line.removeprefix(_SAID) for line in lines if line.startswith(_SAID)]
    return told[-1][:_LONGEST] if told else f"preparing its points failed (exit code {code})"


def with_prepared(layout: Layout, folder: Path) -> Layout:
    """`layout`, its points as `write_points` left them in `folder`."""

    def load() -> PointParts:
        parts = layout.load()
        recipes = [_adopted(r, folder / str(i)) for i, r in enumerate(parts.recipes)]
        return replace(parts, recipes=recipes)

    return replace(layout, load=load)


def _adopted(recipe: Recipe, folder: Path) -> Recipe:
    if not is_bundle(folder):
        return recipe
    bundle = read_bundle(folder)
    if bundle.point.name != recipe.name:
        raise ConfigError("the configuration changed while it was read; it is to be read once more")
    config = replace(recipe.config, strategy=bundle.point.strategy, options=bundle.point.options)
    owner = recipe.owner
    if "small" in bundle.models:
        owner = replace(owner, model=make_model(bundle.models["small"]))
    return replace(recipe, config=config, owner=owner, answers={})


async def write_points(parts: PointParts, ledger: Callable[..., Ledger], folder: Path) -> None:
    """Prepare each point of `parts` and write it into a folder of its own in `folder`; one that cannot
    be written down is left out.

    Raises:
        CosiloError: a point cannot be prepared.
    """
    points: dict[str, ServedPoint] = {}
    try:
        for i, recipe in enumerate(parts.recipes):
            point = await open_recipe(
                recipe,
                parts.upstreams,
                tabs={},
                ledger=ledger(recipe.name),
                beside=partial(ledger, recipe.name),
            )
            points[point.model] = point
            out = folder / str(i)
            out.mkdir(mode=0o700)
            try:
                _write(point, recipe, out)
            except ConfigError:
                shutil.rmtree(out)
    finally:
        await Setup(points, parts.upstreams).close()


def _write(point: ServedPoint, recipe: Recipe, folder: Path) -> None:
    route = point.routes[0]
    model = route.session.owner.model
    models = {}
    if model is not recipe.owner.model:
        if recipe.small is None:
            raise ConfigError("the trained small model cannot be written down")
        models["small"] = kept_model(recipe.small, model, folder / "small")
    served = spelt_out(route.strategy, recipe.config)
    write(Bundle(point=replace(served, defences=()), models=models), folder)


def be_gentle() -> None:
    """Give way to those who serve, and end with the process that waits for this one."""
    os.nice(10)

    def wait() -> None:
        while os.read(
            0, 1 << 10
        ):  # not through `sys.stdin`, whose lock would outlive the main thread
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def told(error: Exception) -> str:
    """What may be said of `error` where others read it."""
    ours = isinstance(error, CosiloError) and not error.quoted
    return f"{_SAID}{error if ours else type(error).__name__}"
