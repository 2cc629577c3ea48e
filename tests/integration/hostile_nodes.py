"""What nodes can send that the SuperLink's courier must outlive: a script for Flower's environment.

One node sends objects that Flower cannot read, one content that is no record, one words longer than a
frame may have; the last asks as an owner does, at first of a coordinator that is away.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

FLOWER = Path(__file__).parents[2] / "src" / "cosilo" / "boundary" / "transports" / "flower"
sys.path.insert(0, str(FLOWER))

from couriers import superlink  # noqa: E402
from couriers.parcels import opened, parcel  # noqa: E402
from flwr.app import Array, ConfigRecord  # noqa: E402
from flwr.supercore.task_identity import TaskIdentity  # noqa: E402

UNREADABLE, NO_RECORD, LONG, OWNER = 1, 2, 3, 4
CONTENT = {
    NO_RECORD: Array("int8", (1,), "numpy.ndarray", b"x"),
    LONG: parcel({"id": "\N{SNOWMAN}" * 60_000}),
    OWNER: parcel({"id": "a" * 32}, b"asks"),
}


class Done(BaseException):
    """All has happened that the test waits for."""


class Nodes:
    """Instead of Flower's grid: each node answers at once, and always the same."""

    def __init__(self) -> None:
        self.sent: dict[str, int] = {}
        self.had: list[Any] = []

    def get_nodes(self) -> list[Any]:
        return [
            SimpleNamespace(node_id=n, public_key=b"key %d" % n, last_activated_at="now")
            for n in (UNREADABLE, NO_RECORD, LONG, OWNER)
        ]

    def push_messages(self, messages: list[Any]) -> list[str]:
        (message,) = messages
        name, node = f"m{len(self.sent)}", message.metadata.dst_node_id
        self.sent[name] = node
        if node == OWNER:
            self.had.append(opened(message.content))
            if len(self.had) == 4:
                raise Done
        return [name]

    def pull_messages(self, names: list[str]) -> list[Any]:
        if any(self.sent[name] == UNREADABLE for name in names):
            raise AttributeError("no message at all")
        return [
            SimpleNamespace(
                metadata=SimpleNamespace(reply_to_message_id=name),
                content=CONTENT[self.sent[name]],
                has_error=lambda: False,
            )
            for name in names
        ]


def main() -> None:
    for content in (CONTENT[NO_RECORD], CONTENT[LONG], ConfigRecord({"cosilo": "x"})):
        try:
            opened(content)
        except ValueError:
            continue
        raise AssertionError(content)
    asked: list[Any] = []

    def said(path: str, words: Any, body: bytes) -> Any:
        asked.append((words["owner"], words["id"], body))
        if len(asked) == 1:
            raise ConnectionError("away")
        return {"id": words["id"]}, b"answer"

    superlink.said = said
    superlink._LOOK_S = superlink._NODES_S = 0.001
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    nodes = Nodes()
    with suppress(Done):
        superlink.carry(nodes, "path")  # type: ignore[arg-type]
    answer = ({"id": "a" * 32}, b"answer")
    assert nodes.had == [({}, b""), ({}, b""), answer, answer], nodes.had
    assert asked == [("key 4", "a" * 32, b"asks")] * 3, asked


if __name__ == "__main__":
    main()
