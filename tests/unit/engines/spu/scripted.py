"""A worker that computes nothing: what it does wrong, and when, its program's name says."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Any

import msgspec


def _of(number: int) -> Any:
    return ("<i4", [1], number.to_bytes(4, "little"))


def main(socket_: socket.socket) -> None:
    stream = socket_.makefile("rwb")
    wrong = ""
    while head := stream.read(8):
        frame: dict[str, Any] = msgspec.msgpack.decode(
            stream.read(int.from_bytes(head, "big")), type=dict
        )
        do = frame["do"]
        wrong = frame.get("program", wrong)
        said: dict[str, Any] = {"said": do, "cpu_s": 0.25, "memory": 1 << 20}
        if do == "hello":
            said |= {"versions": {"spu": "1"}, "sources": "a", "sizes": [[[2, 2]], [[1, 2]]]}
            if wrong == "differs":
                said["sources"] = str(os.getpid())
            if wrong == "huge":
                said["sizes"] = [[[1 << 20, 1 << 20]], [[1, 2]]]
            if wrong == "brings":
                said["sizes"].append([[3]])
            if wrong == "unknown":
                said["refused"] = "there is none of that name"
        elif do == "compile":
            said |= {"digest": "d", "sees": "data owner"}
        elif do in ("share", "run") and any(part["arrays"] for part in frame["parts"]):
            if wrong == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if wrong == "stalls":
                os.kill(os.getpid(), signal.SIGSTOP)
            if wrong == "garbage":
                stream.write(b"\xff" * 64)
                stream.flush()
            if wrong == "no msgpack":
                stream.write((3).to_bytes(8, "big") + b"\xc1\xc1\xc1")
                stream.flush()
            if wrong == "fails":
                said = {"said": "failed", "error": "RuntimeError: \x1b[31mno\x00 luck"}
            if wrong == "other":
                said["said"] = "end"
        if do == "run" and wrong == "brings":
            said["arrays"] = [_of(len(part["arrays"])) for part in frame["parts"]]
        elif do == "run":
            kind = {"pickled": "|O8", "text": "<U1"}.get(wrong, "<f4")
            array = (kind, [1], bytes(8 if kind == "|O8" else 4))
            said["arrays"] = [array]
        body = msgspec.msgpack.encode(said)
        stream.write(len(body).to_bytes(8, "big") + body)
        stream.flush()


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
