"""From the record of a run to what a reader sees of it: tallies, leaks by kind, masked examples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from cosilo.attacks.record import texts
from cosilo.boundary.messages import Message
from cosilo.boundary.messages.base import classes
from cosilo.boundary.record.ledger import Direction, Entry
from cosilo.defences.vault import ALPHABET, CODE
from cosilo.objectives.base import Run
from cosilo.objectives.reading import Leak, reading
from cosilo.report.data import Crossed, Shown, ShownCrossing, Tally
from cosilo.report.masking import BLOCK, Masker
from cosilo.tasks.base import Example, Secret

EXAMPLES = 3
"""Messages shown in each direction, each of another item."""

LONGEST = 1200
"""Characters shown of a message."""

_PLACEHOLDER = re.compile(rf"(?<!\w)([A-Z]{{2,12}})_[{ALPHABET}]{{{CODE}}}(?!\w)")
SHARES = "shares, beside messages"
"""What bytes that engines sent each other are called among the kinds of messages."""

_TRIES = 40  # items whose messages are tried as examples


def crossed(run: Run, mask: Masker, *, refused: int = 0, quote: bool = False) -> Crossed:
    """What left the building, and came back, in `run`.

    Args:
        mask: knows the secrets of every item of the task, since messages quote one another.
        refused: items that a guard or a model refused.
        quote: show messages with their secrets masked. What is left of a text is private all the same.
    """
    found = reading(run)
    readable = found.has_content
    background = found.background_leaks if readable and run.background else ()
    # Where nobody gave secrets and none were detected, nobody knows what to mask.
    showable = quote and readable and (run.gold_secrets or mask.knows_any)
    return Crossed(
        items=len(run.items),
        asked=sum(1 for traffic in found.traffic.values() if traffic.bytes_up),
        refused=refused,
        tallies=tally(run.entries()),
        prepare=tally(run.prepare()),
        sides={name: _crossing(side) for name, side in run.sides.items()},
        replaced=_placeholders(run.entries()) if readable else {},
        secrets=_by_kind([i.example for i in run.items], found.leaks) if readable else {},
        background=_by_kind(run.background, background),
        examples=tuple(_examples(run, mask)) if showable else (),
    )


def _crossing(side: Run) -> ShownCrossing:
    found, n = reading(side), len(side.items)
    usd = sum(traffic.usd for traffic in found.traffic.values())
    return ShownCrossing(tally(side.entries()), 1000 * usd / n if found.has_content and n else None)


def tally(entries: Iterable[Entry]) -> tuple[Tally, ...]:
    """Messages and bytes by direction and kind: what went up first, then the most bytes first."""
    counts: Counter[tuple[Direction, str]] = Counter()
    sizes: Counter[tuple[Direction, str]] = Counter()
    with_shares = {k.__name__ for k in classes().values() if k.beside is not Message.beside}
    for entry in entries:
        key = entry.direction, entry.kind
        counts[key] += 1
        sizes[key] += entry.size
        if entry.direction == "down" and entry.kind in with_shares and entry.payload is not None:
            beside = entry.message.beside()
            counts.update([("up", SHARES), ("down", SHARES)])
            sizes.update({("up", SHARES): beside.up, ("down", SHARES): beside.down})
    order = sorted(counts, key=lambda key: (key[0] != "up", -sizes[key], key[1]))
    return tuple(Tally(*key, counts[key], sizes[key]) for key in order)


def _placeholders(entries: Iterable[Entry]) -> Mapping[str, int]:
    """kind → placeholders that went up, each once per item."""
    sent = {
        (entry.request, match[0], match[1].lower())
        for entry in entries
        if entry.direction == "up"
        for text in texts(entry.message)
        for match in _PLACEHOLDER.finditer(text)
    }
    return dict(Counter(kind for _, _, kind in sent).most_common())


def _by_kind(
    examples: Sequence[Example], leaks: Sequence[Sequence[Leak]]
) -> Mapping[str, tuple[int, int]]:
    """kind → (secrets that left, secrets there are), most frequent kind first."""
    held: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for example, found in zip(examples, leaks, strict=bool(leaks)):
        for secret, leak in zip(example.secrets, found, strict=True):
            held[secret.kind] += 1
            left[secret.kind] += bool(leak.how)
    return {kind: (left[kind], count) for kind, count in held.most_common()}


def _examples(run: Run, mask: Masker) -> Iterator[Shown]:
    """The first messages that can be masked, of the record or else of `prepare`."""
    own = {item.example.id: item.example.secrets for item in run.items}
    own |= {example.id: example.secrets for example in run.background}
    for entries in (run.entries, run.prepare):
        found = list(_masked(entries, own, mask))
        if found:
            yield from found
            return


def _masked(
    entries: Callable[[], Iterator[Entry]], own: Mapping[str, Sequence[Secret]], mask: Masker
) -> Iterator[Shown]:
    wanted: dict[Direction, int] = {"up": EXAMPLES, "down": EXAMPLES}
    shown: set[tuple[str, str]] = set()
    tried: set[str] = set()
    told: set[str] = set()
    for entry in entries():
        tried.add(entry.request)
        if len(tried) > _TRIES or not any(wanted.values()):
            return
        if not wanted[entry.direction] or (entry.request, entry.direction) in shown:
            continue
        id = entry.request if entry.request in own else entry.request.partition("/")[2]
        # A message of no known item may hold anything.
        text = mask(_written(entry.message, told), own=own[id]) if id in own else None
        if text:
            told.update(_systems(entry.message))
            shown.add((entry.request, entry.direction))
            wanted[entry.direction] -= 1
            yield Shown(entry.direction, entry.kind, _short(text))


def _written(message: Message, told: set[str]) -> str:
    """The message as text; a system turn that was `told` before is not told again."""
    turns = [p for p in message.passages() if p.by and p.what == "said"]
    if not turns:
        return "\n".join(texts(message))
    return "\n".join(
        f"{turn.by}: {'(as above)' if turn.by == 'system' and turn.text in told else turn.text}"
        for turn in turns
    )


def _systems(message: Message) -> Iterator[str]:
    return (p.text for p in message.passages() if p.what == "said" and p.by == "system")


def _short(text: str) -> str:
    """The beginning and the end of a long text: what is asked often stands last."""
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    head, tail = text[:half], text[-half:]
    if head.count(BLOCK) % 2:  # never cut through a block
        head = head[: head.rindex(BLOCK)]
    if tail.count(BLOCK) % 2:
        tail = tail[tail.index(BLOCK) + 1 :]
    return f"{head}\n… {len(text) - len(head) - len(tail):,} more characters …\n{tail}"
