"""What the large model is asked about tables that it does not see."""

from __future__ import annotations

import re

from cosilo.strategies.tables.private import HiddenCells, PrivateDatabase
from cosilo.types import Chat, Turn

PLAN_FORM = (
    "You translate questions into SQL for SQLite. Reply with one SELECT statement and nothing else."
)
_HELD_FORM = (
    "Words such as :value_a stand for values that you are not told. Use them in the statement as they "
    "are, as bound parameters."
)
_CREATES = re.compile(r"\bCREATE\s+(?:TABLE|VIEW)\b", re.I)
_SIGNS = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?(?:\*/|\Z)|[();]", re.S)


def asked_of_tables(database: PrivateDatabase, chat: Chat) -> tuple[Chat, HiddenCells]:
    """`chat` as it may leave: a digest where the schema stood (or in front), and placeholders where
    cell values stood.

    Raises:
        PrivacyError: a cell value would leave all the same.
    """
    before, after, there = "", "", False
    turns = []
    for turn in chat:
        if turn.role == "system":
            head, tail, found = _parted(turn.content)
            before, after, there = f"{before}\n{head}", f"{after}\n{tail}", there or found
        else:
            turns.append(turn)
    # The digest comes first, so that all prompts about a database begin alike: the LM has read that.
    hidden = database.hide([database.digest(), before, after, *(turn.content for turn in turns)])
    digest, before, after, *said = (text.strip() for text in hidden.texts)
    head = before if there else f"{before}\n{PLAN_FORM}\n\nSchema:".strip()
    system = f"{head}\n{digest}" + (f"\n\n{after}" if after else "")
    named = _named(hidden, said, (before, after))
    if named:
        system += f"\n\n{_HELD_FORM}\n{named}"
    database.no_cells(before, after, digest, *said)
    written = [Turn(turn.role, text) for turn, text in zip(turns, said, strict=True)]
    return (Turn("system", system), *written), hidden


def _named(hidden: HiddenCells, said: list[str], notes: tuple[str, ...]) -> str:
    """What may be known of the placeholders outside the schema: the columns they are values of."""
    text = "\n".join((*said, *notes))
    lines = []
    for name, columns in hidden.columns.items():
        if re.search(rf"{name}(?!\w)", text):
            what = f" is a value of {' or '.join(columns[:3])}" if columns else " is a value"
            lines.append(name + what)
    return "\n".join(lines)


def _parted(text: str) -> tuple[str, str, bool]:
    """What stands before and after the schema's statements in `text`, and whether there are any."""
    starts = [m.start() for m in _CREATES.finditer(text)]
    if not starts:
        return text, "", False
    depth, opened = 0, False
    for sign in _SIGNS.finditer(text, starts[-1]):
        depth += (sign[0] == "(") - (sign[0] == ")")
        opened = opened or depth > 0
        if sign[0] == ";" or (opened and depth == 0):
            end = sign.end()
            rest = re.match(r"[^\S\n]*;", text[end:])
            return text[: starts[0]], text[end + (rest.end() if rest else 0) :], True
    return text[: starts[0]], "", True
