"""Which sensitive facts leave in an agent's tool calls, their results and its memory.

    python benchmarks/pseudonyms/agents.py                        # both sets, default detectors
    python benchmarks/pseudonyms/agents.py --only persistbench    # one of them; the other's rows stay

`privacylens` (test): each case is what an agent did (calls with arguments, results) before it writes
to somebody, and the facts that it should not tell, in words of their own. It is sent as the
conversation it is: the user's instruction, a turn with each call, a turn with each result.
`persistbench` (cross_domain): each query comes with what an assistant remembers of its user; the
memories are sent in a system turn.

A fact *leaves* when four fifths of its words of five letters and more still stand in what the LM is
shown, and leaves *with a name* when a name of it (a word that it writes with a capital) stands there
too. Undefended, the same of what is sent as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cosilo.boundary.messages import Ask, Completion, Message
from cosilo.boundary.messages.passages import in_order
from cosilo.defences.hiding import DetectorName
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.objectives.intervals import wilson
from cosilo.types import Chat, Generation, ToolCall, Turn
from kept import Kept

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
_STEP = re.compile(
    r"Action: (.*?)\nAction Input: (.*?)\nObservation: (.*?)(?=\n\s*Action: |\Z)", re.S
)
_WORD = re.compile(r"[^\W_]+(?:'[a-z]+)?")
_COMMON = frozenset((
    "about", "after", "before", "being", "could", "other", "should", "their", "there", "these",
    "those", "which", "while", "would", "user", "users",
))  # fmt: skip
_NO_NAMES = frozenset((
    "A", "An", "He", "Her", "His", "It", "She", "That", "The", "Their", "There", "These", "They",
    "This", "User", "Users", "In", "On", "At", "During", "After", "All", "AM", "PM", "Mr", "Mrs",
    "Ms", "Dr", "January", "February", "March", "April", "May", "June", "July", "August",
    "September", "October", "November", "December", "Monday", "Tuesday", "Wednesday", "Thursday",
    "Friday", "Saturday", "Sunday",
))  # fmt: skip
MOST = 0.8  # share of a fact's words that must stand there


@dataclass(frozen=True)
class Case:
    chat: Chat
    facts: tuple[str, ...]


def privacylens() -> Iterator[Case]:
    for row in rows("privacylens/test.jsonl"):
        turns = [Turn("user", row["instruction"])]
        for number, (name, given, seen) in enumerate(_STEP.findall(row["trajectory"])):
            call = ToolCall(f"call_{number}", name.strip(), given.strip())
            turns.append(Turn("assistant", tool_calls=(call,)))
            turns.append(Turn("tool", seen.strip(), tool_call_id=call.id, name=name.strip()))
        yield Case(tuple(turns), tuple(row["sensitive_items"]))


def persistbench() -> Iterator[Case]:
    for row in rows("persistbench/cross_domain.jsonl"):
        memory = "What you know of the user:\n" + "\n".join(f"- {m}" for m in row["memories"])
        yield Case((Turn("system", memory), Turn("user", row["query"])), tuple(row["memories"]))


SETS = {"privacylens": privacylens, "persistbench": persistbench}


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def words(text: str) -> set[str]:
    """The words that carry meaning, cut to six letters so that forms of one count as one."""
    found = {w.casefold().removesuffix("'s") for w in _WORD.findall(text)}
    return {w[:6] for w in found - _COMMON if len(w) >= 5 or w.isdigit()}


def names(fact: str) -> set[str]:
    """What a fact calls by name."""
    found = (w.removesuffix("'s") for w in _WORD.findall(fact))
    return {w for w in found if w[0].isupper() and len(w) > 1} - _NO_NAMES


def spelled(text: str) -> set[str]:
    return {w.removesuffix("'s") for w in _WORD.findall(text)}


def leaves(fact: str, there: set[str]) -> bool:
    wanted = words(fact)
    return bool(wanted) and len(wanted & there) >= MOST * len(wanted)


async def sent(defence: Pseudonym, chat: Chat, request: str) -> str:
    """All that the LM is shown of `chat`."""
    shown: list[str] = []

    async def forward(message: Message) -> Message:
        assert isinstance(message, Ask)
        shown.extend(p.text for p in in_order(message.chat))
        return Completion(generation=Generation("ok"))

    await defence.guard(Ask(chat=chat), forward, request=request)
    return "\n".join(shown)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--only", choices=list(SETS))
    arguments.add_argument("--detectors", nargs="+", default=["presidio"])
    options = arguments.parse_args()
    detectors: list[DetectorName] = options.detectors
    chosen = [options.only] if options.only else list(SETS)
    kept = Kept("agents", settings={"detectors": detectors}, fresh=not options.only)
    with tempfile.TemporaryDirectory() as folder:
        defence = Pseudonym(detectors=detectors, key_file=Path(folder, "key"))
        for name in chosen:
            found: Counter[str] = Counter()
            for number, case in enumerate(SETS[name]()):
                plain = "\n".join(p.text for p in in_order(case.chat))
                hidden = asyncio.run(sent(defence, case.chat, f"{name} {number}"))
                for row, text in (("undefended", plain), ("defended", hidden)):
                    there, spoken = words(text), spelled(text)
                    for fact in case.facts:
                        named = names(fact) & spelled(plain)
                        found[row, "facts"] += 1
                        found[row, "named"] += bool(named)
                        if leaves(fact, there):
                            found[row, "left"] += 1
                            found[row, "left with a name"] += bool(named & spoken)
                        found[row, "names"] += len(named)
                        found[row, "names left"] += len(named & spoken)
            for row in ("undefended", "defended"):
                for what, of in (
                    ("left", "facts"), ("left with a name", "named"), ("names left", "names"),
                ):  # fmt: skip
                    count, n = found[row, what], found[row, of]
                    low, high = wilson(count, n)
                    kept.put(f"{name}, {row}", what, count / n, n=n, low=low, high=high)
                    share = f"{count / n:6.1%} [{low:.1%}, {high:.1%}]"
                    print(f"{name:13} {row:11} {what:17} {count:5}/{n:5} {share}")
            kept.write()


if __name__ == "__main__":
    main()
