"""An owner's SuperNode, and the courier in it.

    SuperLink ── answer to the last request ──▶ courier ──▶ owner's process
              ◀── the next request ───────────          ◀──

The owner speaks first, and Flower's server does: so a message of Flower's brings the answer to what the
owner asked last, or nothing, and its reply is what the owner asks next.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from threading import Thread
from typing import Any

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode, SubStatus
from flwr.supercore.app_utils import start_parent_process_monitor
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import SuperExecAuthHttpInterceptor
from flwr.supernode.cli.flower_supernode import flower_supernode
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from .frames import said
from .parcels import SOCKET, opened, parcel
from .tasks import Make, maker, taken_on, work

app = ClientApp()


def carry(message: Message, context: Context) -> Message:
    """Take what came to the owner's process, and what that says back."""
    words, body = said(str(context.node_config[SOCKET]), *opened(message.content))
    return Message(parcel(words, body), reply_to=message)


app.query()(carry)


def main(given: dict[str, Any]) -> None:
    """A SuperNode until it is told to stop, or whoever started it is gone.

    Args:
        given: superlink, ca: the SuperLink's address, and a file; key: the owner's, as OpenSSH writes
            it; socket: of the owner's process; port: a free one.
    """
    start_parent_process_monitor(os.getppid())
    address = f"127.0.0.1:{given['port']}"
    secret = secrets.token_bytes(32)
    protected = SuperExecAuthHttpInterceptor(
        master_secret=secret,
        protected_methods={"/flwr.proto.Runtime/AcquireTask"},
    )
    make = maker(f"http://{address}")
    Thread(target=_works, args=(make, protected), daemon=True).start()
    sys.argv = [
        "flower-supernode",
        *("--superlink", given["superlink"], "--root-certificates", given["ca"]),
        *("--auth-supernode-private-key", _handed(given["key"].encode())),
        *("--isolation", "process", "--superexec-auth-secret-file", _handed(secret)),
        *("--host", "127.0.0.1", "--port", str(given["port"])),
        *("--node-config", f"{SOCKET}={json.dumps(given['socket'])}"),
    ]
    flower_supernode()


def _handed(content: bytes) -> str:
    """A path that this process reads a few bytes from, once; so no file of them is ever left behind."""
    reading, writing = os.pipe()
    with open(writing, "wb") as file:
        file.write(content)
    return f"/dev/fd/{reading}"


def _works(make: Make, protected: Any) -> None:
    try:
        work(make("SuperExec", protected), TaskType.CLIENT_APP, lambda token: _task(make, token))
    finally:
        os._exit(1)  # a SuperNode that nobody works for is none: whoever started it starts another


def _task(make: Make, token: str) -> None:
    with taken_on(make, "flwr-clientapp", token) as client:
        message, context, _, _ = pull_task_input(client)
        try:
            reply = app(message=message, context=context)
        except Exception as error:  # its class: the text may quote what it failed on
            failed = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, type(error).__name__)
            reply = Message(failed, reply_to=message)
        push_message(client, reply, context)
        push_task_output(client, context, SubStatus.COMPLETED, "")
