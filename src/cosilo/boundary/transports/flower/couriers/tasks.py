"""Tasks of Flower's, worked on in this process by our own app.

Left to itself, a SuperNode runs whatever code the SuperLink sends it. Here it is told that somebody
else works on its tasks (`--isolation process`), and that is this: no code that came over the network is
run, and no process is started for each message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient

Make = Callable[..., RuntimeHttpClient]
"""Makes a client of the runtime API from interceptors."""

_SOON_S = 0.2


def maker(url: str, *, verify: Any = True, always: tuple[Any, ...] = ()) -> Make:
    """Makes clients of the runtime API at `url`."""

    def make(component: str, *more: Any) -> RuntimeHttpClient:
        return RuntimeHttpClient(
            url,
            interceptors=[RuntimeVersionHttpInterceptor(component_name=component), *always, *more],
            verify=verify,
            retry_invoker=make_simple_http_retry_invoker(),
        )

    return make


def work(asking: RuntimeHttpClient, kind: Any, on: Callable[[str], None]) -> None:
    """Take on tasks of `kind` as they come, each by its token; for ever."""
    while True:
        got = asking.AcquireTask(AcquireTaskRequest(supported_task_types=[kind]))
        if got.HasField("task") and got.token:
            on(got.token)
        else:
            time.sleep(_SOON_S)


@contextmanager
def taken_on(make: Make, component: str, token: str) -> Iterator[RuntimeHttpClient]:
    """A client for the task of `token`, which is under way until the context ends."""
    client = make(component, RuntimeTokenHttpInterceptor(token))
    beating = HeartbeatSender(lambda: bool(client.SendTaskHeartbeat(SendTaskHeartbeatRequest())))
    beating.start()
    try:
        yield client
    finally:
        beating.stop()
        client.close()
