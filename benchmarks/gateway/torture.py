"""Hostile JSON, hostile text and hostile framing through a gateway: what breaks, and what is not exact.

    python benchmarks/gateway/torture.py

Every file of JSONTestSuite as a body of each endpoint and wherever a request may hold any JSON; every
string of the big list of naughty strings as content, system text, tool result, argument, name and
description, in every shape, whole and streamed, without a defence, behind the pseudonym defence's
patterns and behind all its detectors, to an upstream that repeats what it was told; and the cases of
`tests/framing.py` over sockets, which are written from RFC 9112. Wrong is: a 5xx; a file that is no
JSON and not refused with 400; one that is and does not arrive byte by byte; a string that arrives or
comes back as another (unless the answer tells that it was withheld); a framing answered otherwise than
the RFC allows, or a second answer to it.
Exit code 1 when something is wrong. It takes two minutes.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import framing
import suites
from cosilo.gateway.process.config import ServerConfig
from house import house
from kept import ROOT, Kept
from listening import listening

SUITES = ROOT.parent / "shared" / "data" / "suites"
PATIENCE = 0.3  # seconds


async def framed() -> suites.Found:
    found = suites.Found()
    h = await house()
    h.gateway.bodies.seconds = PATIENCE
    async with listening(
        h.gateway, ServerConfig(header_seconds=PATIENCE, drain_seconds=1.0)
    ) as port:
        for case in framing.CASES:
            found.sent += 1
            try:
                statuses = await framing.tell(port, case)
            except TimeoutError:
                found.wrong.append(f"{case.name}: neither answered nor closed")
                continue
            found.accepted += 200 in statuses
            if why := framing.wrong(case, statuses):
                found.wrong.append(f"{case.name}: {why}")
    return found


async def main() -> int:
    if not SUITES.is_dir():
        print(f"{SUITES} is not there: the suites are shared data", file=sys.stderr)
        return 2
    kept = Kept("gateway_torture")
    wrong = 0

    async def put(row: str, *work: Awaitable[suites.Found]) -> None:
        nonlocal wrong
        parts = [await part for part in work]
        bad = [what for part in parts for what in part.wrong]
        kept.put(row, "requests", sum(part.sent for part in parts))
        kept.put(row, "answered", sum(part.accepted for part in parts))
        kept.put(row, "withheld", sum(part.withheld for part in parts))
        kept.put(row, "wrong", len(bad))
        print(
            f"{row}: {sum(p.sent for p in parts)} requests, {len(bad)} wrong", *bad[:20], sep="\n  "
        )
        wrong += len(bad)

    with tempfile.TemporaryDirectory() as folder:
        guarded = Path(folder)
        shapes = suites.SHAPES
        await put("JSON files as bodies", suites.bodies(SUITES))
        for row, at in (("without a defence", None), ("behind patterns", guarded)):
            await put(
                f"JSON files in requests, {row}",
                *(suites.json_in_places(shape, SUITES, at) for shape in shapes),
            )
            await put(
                f"naughty strings, {row}", *(suites.strings(shape, SUITES, at) for shape in shapes)
            )
        await put(
            "naughty strings, with all detectors",
            *(suites.strings(shape, SUITES, guarded, every=True) for shape in shapes),
        )
        await put("HTTP framing", framed())
    kept.write()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
