"""What leaves, and what comes back, when an LM repeats sentences full of personal data.

    python benchmarks/pseudonyms/round_trip.py --split train    # what detection may be improved on
    python benchmarks/pseudonyms/round_trip.py                  # the test split, 774 sentences
    python benchmarks/pseudonyms/round_trip.py --all --streams  # all; also in pieces of 1, 3, 7 B

Every sentence of `presidio_synth` goes through the real boundary and the pseudonym defence to a model
that repeats its prompt. Counted are sentences that come back exactly, sentences that come back with
somebody else's value, gold spans that the model has seen, wholly or in part (`leaving.py`), and words
outside of any gold span that it has not seen.
Several sentences share one conversation, so a value of one person could be restored into the sentence
of another.
"""

from __future__ import annotations

import argparse
import asyncio
import codecs
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cosilo.boundary.channel import Boundary
from cosilo.boundary.messages import Ask
from cosilo.boundary.transports.inside import InProcess
from cosilo.defences.hiding import DetectorName
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.models.base import Access
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import Chat, Delta, Generation, Sampling, ToolCall, ToolCallDelta, Turn, assemble
from kept import Kept
from leaving import INDIRECT, counted, keep_direct, keep_others

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "presidio_synth"
GROUP = 5  # sentences that share a conversation


@dataclass
class Echo:
    """Repeats the last turn as text and as the arguments of a tool call; in pieces of `size` bytes."""

    size: int = 0
    name: str = "echo"
    access: Access = Access.TEXT
    seen: list[str] = field(default_factory=list)

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        text = chat[-1].content
        self.seen.append(text)
        call = ToolCall("1", "note", json.dumps({"text": text}, ensure_ascii=False))
        return Generation(text, tool_calls=(call,))

    async def stream(self, chat: Chat, sampling: Sampling) -> AsyncIterator[Delta]:
        whole = await self.generate(chat, sampling)
        for piece in self._pieces(whole.text):
            yield Delta(text=piece)
        for piece in self._pieces(whole.tool_calls[0].arguments):
            yield Delta(tool_calls=(ToolCallDelta(0, arguments=piece),))
        yield Delta(finish_reason="stop")

    def _pieces(self, text: str) -> Sequence[str]:
        decoder = codecs.getincrementaldecoder("utf-8")()
        data = text.encode()
        return [decoder.decode(data[i : i + self.size]) for i in range(0, len(data), self.size)]

    async def close(self) -> None: ...


@dataclass
class Row:
    text: str
    spans: list[tuple[int, int, str, str]]


def rows(splits: Sequence[str]) -> list[Row]:
    return [
        Row(r["text"], [tuple(s) for s in r["spans"]])
        for split in splits
        for r in map(json.loads, (DATA / f"{split}.jsonl").read_text("utf-8").splitlines())
    ]


def boundary(defence: Pseudonym, model: Echo) -> Boundary:
    return Boundary(InProcess(LMOwner(model)), declared=frozenset({Ask}), guards=[defence])


async def round_trips(
    data: Sequence[Row], defence: Pseudonym, size: int
) -> tuple[int, int, list[str]]:
    """(came back exactly, came back with another sentence's value, what the model saw)."""
    model = Echo(size)
    channel = boundary(defence, model)
    exact = wrong = 0
    for i, row in enumerate(data):
        bound = channel.bind(f"conversation {i // GROUP}")
        ask = Ask(chat=(Turn("user", row.text),))
        if size:
            reply = assemble([d async for d in bound.stream(ask)])
        else:
            reply = (await bound.send(ask)).generation
        noted = json.loads(reply.tool_calls[0].arguments)["text"]
        exact += reply.text == row.text == noted
        start = i // GROUP * GROUP
        others = {
            v
            for o in data[start : start + GROUP]
            if o is not row
            for *_, v in o.spans
            if len(v) > 2
        }
        wrong += any(v in got and v not in row.text for v in others for got in (reply.text, noted))
    return exact, wrong, model.seen


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--split", default="test", choices=["train", "test"])
    arguments.add_argument("--n", type=int, default=1_500, help="sentences, from the first on")
    arguments.add_argument("--all", action="store_true", help="all 1,500 of both splits")
    arguments.add_argument("--streams", action="store_true", help="also in pieces of 1, 3, 7 bytes")
    arguments.add_argument("--detectors", nargs="+", default=["presidio"])
    options = arguments.parse_args()
    data = rows(["train", "test"]) if options.all else rows([options.split])[: options.n]
    names: list[DetectorName] = options.detectors
    with tempfile.TemporaryDirectory() as folder:
        make = lambda: Pseudonym(detectors=names, key_file=Path(folder, "key"))  # noqa: E731
        defence = make()
        asyncio.run(round_trips(data[:20], defence, 0))  # loads the model
        print(f"{len(data)} sentences, detectors {', '.join(names)}")
        name = f"round_trip_{'all' if options.all else options.split}"
        kept = Kept(name, settings={"detectors": names, "sentences to a conversation": GROUP})
        seen: list[str] = []
        for size in (0, 1, 3, 7) if options.streams else (0,):
            defence = make()
            before = time.process_time()
            exact, wrong, seen = asyncio.run(round_trips(data, defence, size))
            ms = (time.process_time() - before) / len(data) * 1e3
            how = f"in pieces of {size} bytes" if size else "whole"
            print(f"{how}: exact {exact}/{len(data)}, wrong person {wrong}, {ms:.1f} CPU-ms each")
            kept.put(how, "exact", exact, n=len(data))
            kept.put(how, "wrong person", wrong, n=len(data))
            kept.put(how, "CPU-ms", ms, n=len(data))
        counts = counted((r.text, r.spans, sent) for r, sent in zip(data, seen, strict=True))
        print("\nkind                 spans   left whole   left in part")
        for kind, n in sorted(counts["all"].items()):
            mark = " (not a direct identifier)" if kind in INDIRECT else ""
            print(f"{kind:20} {n:5} {counts['whole'][kind]:12} {counts['part'][kind]:14}{mark}")
            for what in ("whole", "part"):
                kept.put(kind, f"left {what}", counts[what][kind], n=n)
        keep_direct(counts, kept)
        keep_others(((r.text, r.spans, sent) for r, sent in zip(data, seen, strict=True)), kept)
        kept.write()


if __name__ == "__main__":
    main()
