"""`cosilo` with one more kind of model, for tests that kill the process it runs in.

`line` asks an endpoint over a bare socket: nothing but the engine is under test.
"""

from __future__ import annotations

import asyncio
import json
import sys
from urllib.parse import urlsplit

from cosilo.cli import main
from cosilo.errors import RejectedError, UnreachableError
from cosilo.models.base import Access, models
from cosilo.types import Chat, Generation, Sampling


class Line:
    access = Access.TEXT
    name = identity = "line"

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url)

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        body = json.dumps({"messages": [{"role": t.role, "content": t.content} for t in chat]})
        try:
            reader, writer = await asyncio.open_connection(self.address.hostname, self.address.port)
        except OSError:
            raise UnreachableError("the endpoint is down") from None
        head = (
            f"POST {self.address.path}/chat/completions HTTP/1.1\r\nHost: x\r\n"
            f"Content-Length: {len(body.encode())}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body.encode())
        reply = await reader.read()
        writer.close()
        status, _, text = reply.partition(b"\r\n\r\n")
        code = int(status.split()[1])
        if code >= 500:
            raise UnreachableError(f"the endpoint answered {code}")
        if code >= 400:
            raise RejectedError(f"the endpoint answered {code}", everything=code in (401, 403))
        found = json.loads(text)
        usage = found["usage"]
        return Generation(
            found["choices"][0]["message"]["content"],
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
        )

    async def close(self) -> None: ...


models.register("line")(Line)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
