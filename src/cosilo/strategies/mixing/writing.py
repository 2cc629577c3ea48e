"""A reply from a source of units: sampled freely, or one of several choices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from time import perf_counter

import numpy as np
from msgspec.structs import replace

from cosilo.boundary.messages.bounds import LONGEST_TOKEN
from cosilo.errors import RejectedError
from cosilo.models.asked import generator
from cosilo.models.chat.writer import Writer
from cosilo.strategies.mixing.mixture import Source
from cosilo.strategies.mixing.numbers import Row, drawn, normalised, require_drawable
from cosilo.types import Answer, Delta, Generation, Sampling, TokenLogprob, assemble, disassemble


async def answered(source: Source, sampling: Sampling) -> Answer:
    """The whole reply. It is the small model's where the large one was not asked."""
    return _answer(source, [piece async for piece in written(source, sampling)])


async def streamed(source: Source, sampling: Sampling) -> AsyncIterator[Delta | Answer]:
    """The reply in pieces, and then as a whole."""
    pieces: list[Delta] = []
    async for piece in written(source, sampling):
        pieces.append(piece)
        yield piece
    yield _answer(source, pieces)


def _answer(source: Source, pieces: Sequence[Delta]) -> Answer:
    return Answer(assemble(pieces), by="both" if source.asked else "small")


async def written(source: Source, sampling: Sampling) -> AsyncIterator[Delta]:
    """The reply in pieces. Log-probabilities are the mixture's at temperature 1; temperature and the
    like shape the mixture, not what it is made of. With `choices` the reply comes in one piece.

    Raises:
        RejectedError: something is asked for that cannot be done here, or the prompt does not fit.
        and what `Source.next` raises.
    """
    require_drawable(sampling)
    started = perf_counter()
    if sampling.choices:
        yield disassemble(
            replace(await _chosen(source, sampling), seconds=perf_counter() - started)
        )
        return
    told: list[Delta] = []
    prompt = range(await source.prompt_tokens())
    most = max(1, sampling.max_tokens)
    writer = Writer(prompt, sampling, source, most=most * LONGEST_TOKEN, tell=told.append)
    goes_on = True
    while goes_on:
        try:
            row = await source.next()
        except RejectedError:
            if not writer.count:
                raise
            goes_on = writer.finish("length")  # a context is full
        else:
            chance = writer.chance()
            unit = drawn(row, sampling, chance)
            shown = row
            while not source.fits(unit):
                row = row.copy()
                row[unit] = -np.inf
                row = normalised(row)
                unit = drawn(row, sampling, chance)
            top = _top(shown, sampling.top_logprobs)
            goes_on = writer.take(unit, unit in source.ends, float(shown[unit]), top)
            if goes_on:
                await source.take(unit)
                goes_on = source.count < most or writer.finish("length")
        for piece in told:
            if piece.finish_reason is not None:
                spent = perf_counter() - started
                piece = replace(piece, seconds=spent, completion_tokens=source.count)
            yield piece
        told.clear()


def _top(row: Row, wanted: int) -> list[tuple[int, float]]:
    if not wanted:
        return []
    likeliest = np.argsort(-row, kind="stable")[:wanted]
    return [(int(i), float(row[i])) for i in likeliest if np.isfinite(row[i])]


async def _chosen(source: Source, sampling: Sampling) -> Generation:
    """One of the choices, found where they part ways: at each parting the mixture is renormalised over
    the units that some choice goes on with, and one is drawn. A unit that all go on with is not asked
    about.
    """
    prompt = await source.prompt_tokens()
    units = {choice: source.units(choice) for choice in dict.fromkeys(sampling.choices)}
    random = generator(sampling)
    alive, depth, logprob = list(units), 0, 0.0
    while len(alive) > 1:
        ways: dict[int, list[str]] = {}  # -1: the reply ends here
        for choice in alive:
            said = units[choice]
            ways.setdefault(said[depth] if depth < len(said) else -1, []).append(choice)
        unit = next(iter(ways))
        if len(ways) > 1:
            row = await source.next()
            ends = np.logaddexp.reduce(row[list(source.ends)])
            offered = np.array([ends if way == -1 else row[way] for way in ways])
            if not np.isfinite(offered).any():
                offered = np.zeros(len(ways))
            offered = normalised(offered)
            picked = drawn(offered, sampling, float(random.random()))
            unit, logprob = list(ways)[picked], logprob + float(offered[picked])
        elif unit == -1:  # two choices of the same units
            break
        alive = ways[unit]
        if unit != -1 and len(alive) > 1:
            await source.take(unit)
        depth += 1
    choice, logprob = alive[0], min(0.0, logprob)
    shown = ((choice, logprob),) if sampling.top_logprobs else ()
    return Generation(
        choice,
        tokens=(TokenLogprob(choice, logprob, shown),),
        prompt_tokens=prompt,
        completion_tokens=len(units[choice]),
    )
