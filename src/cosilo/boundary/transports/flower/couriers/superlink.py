"""The coordinator's SuperLink, and the courier in it.

Nodes reach the SuperLink's fleet API, with their registered keys, and nothing else of it: what starts
runs and hands out tasks answers this process alone.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import ssl
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
from flwr.app import Context, Message
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, fab_to_proto, run_from_proto
from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest
from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.app_utils import start_parent_process_monitor
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink import extensions
from flwr.superlink.cli.flower_superlink import flower_superlink
from flwr.superlink.grid import HttpGrid
from starlette.middleware import Middleware

from .frames import Words, said
from .parcels import SOCKET, opened, parcel
from .tasks import Make, maker, taken_on, work

PROJECT = """\
[project]
name = "cosilo-couriers"
version = "1.0.0"
description = "Carries Cosilo's messages, as bytes, between owners and a coordinator."
license = "Apache-2.0"
dependencies = ["flwr==1.41.0"]

[tool.flwr.app]
publisher = "cosilo"

[tool.flwr.app.components]
serverapp = "couriers.superlink:app"
clientapp = "couriers.supernode:app"

[tool.flwr.app.config]
cosilo-socket = ""
"""
KEY = "cosilo-key"
"""The header that this process shows the SuperLink."""

_FLEET = "/v1/fleet/"
_LONGEST = (1 << 28) + (1 << 20)  # bytes of a request to the SuperLink: a message, and room
_LOOK_S = 0.2
_NODES_S = 1.0
_AT_ONCE = 256

app = ServerApp()


def carry_on(grid: Grid, context: Context) -> None:
    """Carry between nodes and the coordinator's process, for ever."""
    carry(grid, str(context.run_config[SOCKET]))


app.main()(carry_on)


def carry(grid: Grid, path: str) -> None:
    """Carry between the nodes of `grid` and the process that listens at `path`, for ever.

    To each node one message at a time: the answer to its owner's last request, or nothing, so that it
    says what it asks. A node that was started anew is sent nothing once more: its owner asks again.
    """
    asked: dict[str, int] = {}
    waits: dict[int, Future[tuple[Words, bytes]]] = {}
    since: dict[int, str] = {}
    keys: dict[int, bytes] = {}
    looked = 0.0

    def send(node: int, words: Words | None = None, body: bytes = b"") -> None:
        (sent,) = grid.push_messages([Message(parcel(words or {}, body), node, "query")])
        if sent:
            asked[sent] = node

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while True:
            if time.monotonic() - looked >= _NODES_S:
                looked = time.monotonic()
                for node in grid.get_nodes():
                    keys[node.node_id] = node.public_key
                    anew = since.get(node.node_id) != node.last_activated_at
                    if anew:
                        since[node.node_id] = node.last_activated_at
                        asked = {m: n for m, n in asked.items() if n != node.node_id}
                    elif node.node_id in asked.values():
                        continue
                    if node.node_id not in waits:
                        send(node.node_id)
            for reply in _replies(grid, asked):
                node_id = asked.pop(reply.metadata.reply_to_message_id, None)
                if node_id is None or reply.has_error():
                    continue  # it is asked again at the next look
                try:
                    words, body = opened(reply.content)
                except Exception:  # whatever a node made of it is not the end of everybody's
                    continue
                if not words.get("id"):
                    send(node_id)
                    continue
                words["owner"] = keys[node_id].decode()
                waits[node_id] = pool.submit(_answered, path, words, body)
            for node_id in [node for node, answer in waits.items() if answer.done()]:
                send(node_id, *waits.pop(node_id).result())
            time.sleep(_LOOK_S)


def _replies(grid: Grid, asked: dict[str, int]) -> list[Message]:
    """What has come. A reply that cannot be read is none, and not the end of everybody's."""
    if not asked:
        return []
    try:
        return list(grid.pull_messages(list(asked)))
    except Exception:  # of any class: Flower makes objects of whatever a node sent
        found: list[Message] = []
        for each in list(asked):
            try:
                found += grid.pull_messages([each])
            except Exception:
                del asked[each]
        return found


def _answered(path: str, words: Words, body: bytes) -> tuple[Words, bytes]:
    """What the process that listens at `path` answers; nothing where it fails, so that the owner asks
    again."""
    try:
        return said(path, words, body)
    except (OSError, ValueError):
        return {}, b""


class OnlyFleet:
    """Before all of the SuperLink's HTTP: its fleet API for everybody, the rest for who shows `key`."""

    def __init__(self, app: Any, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            return None
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            ours = hmac.compare_digest(headers.get(KEY.encode(), b""), self._key)
            if not (ours or scope["path"].startswith(_FLEET)):
                return await _refuse(send, 404)
            length = headers.get(b"content-length", b"")
            told = length.isdigit() and b"transfer-encoding" not in headers
            if not ours and not (told and int(length) <= _LONGEST):
                return await _refuse(send, 413)
        await self._app(scope, receive, send)
        return None


async def _refuse(send: Any, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class _Shown:
    """Shows the key with each request."""

    def __init__(self, key: str) -> None:
        self._key = key

    def intercept(self, context: Any, call_next: Any) -> httpx.Response:
        context.request.headers[KEY] = self._key
        return call_next(context)  # type: ignore[no-any-return]


def main(given: dict[str, Any]) -> None:
    """A SuperLink until it is told to stop, or whoever started it is gone.

    Args:
        given: host, port, ca, cert, key: where it listens, and its files; socket: of the coordinator's
            process; owners: public keys, PEM.
    """
    start_parent_process_monitor(os.getppid())
    logging.disable(logging.INFO)  # a line for each request
    key = secrets.token_hex(32)
    middleware = Middleware(OnlyFleet, key=key)
    extensions.get_middleware = lambda: (middleware,)
    Thread(target=_works, args=(given, key), daemon=True).start()
    sys.argv = [
        "flower-superlink",
        *("--host", given["host"], "--port", str(given["port"])),
        *("--ssl-ca-certfile", given["ca"], "--ssl-certfile", given["cert"]),
        *("--ssl-keyfile", given["key"], "--enable-supernode-auth", "--isolation", "process"),
        "--disable-runtime-dependency-installation",
    ]
    flower_superlink()


def _works(given: dict[str, Any], key: str) -> None:
    try:
        verify = ssl.create_default_context(cafile=given["ca"])
        verify.check_hostname = False  # it is on this machine, whatever its certificate calls it
        local = "127.0.0.1" if given["host"] in ("0.0.0.0", "") else given["host"]
        url = f"https://{f'[{local}]' if ':' in local else local}:{given['port']}"
        _begun(url, verify, key, given["owners"])
        said(given["socket"], {"ready": "yes"})
        make = maker(url, verify=verify, always=(_Shown(key),))
        work(
            make("SuperExec"),
            TaskType.SERVER_APP,
            lambda token: _task(make, token, given["socket"]),
        )
    except BaseException as error:
        print(f"the courier stops: {type(error).__name__}", file=sys.stderr, flush=True)
    finally:
        os._exit(1)  # a SuperLink that nobody works for is none: whoever started it starts another


def _begun(url: str, verify: ssl.SSLContext, key: str, owners: list[str]) -> None:
    """Once the SuperLink answers: register the owners' keys, and start the run."""
    with httpx.Client(verify=verify) as client:
        while True:
            try:
                client.get(f"{url}/health", headers={KEY: key})
                break
            except httpx.TransportError:
                time.sleep(_LOOK_S)
    control = ControlHttpClient(
        url,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr"), _Shown(key)],
        verify=verify,
    )
    for public in owners:
        control.RegisterNode(RegisterNodeRequest(public_key=public.encode()))
    here = Path(__file__).parent
    files: dict[str, Any] = {f"couriers/{f.name}": f.read_bytes() for f in here.glob("*.py")}
    content, _ = build_fab_from_files({"pyproject.toml": PROJECT.encode(), **files})
    control.StartRun(StartRunRequest(fab=fab_to_proto(Fab("", content, {}))))
    control.close()


def _task(make: Make, token: str, socket: str) -> None:
    with taken_on(make, "flwr-serverapp", token) as client:
        got = client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id = got.task_id
        TaskIdentity.run_id = got.run.run_id
        TaskIdentity.node_id = got.context.node_id
        context = context_from_proto(got.context)
        context.run_config = {SOCKET: socket}
        grid = HttpGrid(token=token)
        grid._client = client
        grid.set_run(run_from_proto(got.run))
        app(grid=grid, context=context)
        client.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.COMPLETED, details=""))
