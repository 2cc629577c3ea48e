"""Hostile clients: fuzzed heads, bodies, encodings and manners, against a gateway on loopback.

    python benchmarks/gateway/fuzz.py --turns 10 -n 10000 --out fuzz.jsonl
    python benchmarks/gateway/fuzz.py http://127.0.0.1:8400 --key … --model cosilo/x --pid PID -n 10000

The first form starts a gateway and a mock upstream of its own, sends as many turns as are not yet in
the file, each with the next seed, and goes on where it was stopped.

What must hold: the process stays the same and answers a good request at the end; a 5xx answer says
which cause it has; its memory stays within `--most-mb` of where it began. Requests are drawn from
`--seed`, so a finding can be repeated. Exit code 1 when something did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[2]))

from loadgen import rss_mb

POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses",
         "/v1/messages")  # fmt: skip
PATHS = (*POSTS, "/v1/models", "/v1/responses/resp_1", "/healthz", "/readyz", "/metrics", "/ui",
         "/ui/login", "/ui/data", "/", "/v1", "/v1/models/x", "/%00", "/..%2f", "*", "//",
         "/v1/chat/completions/", "/\\xff", "/a" * 3000, "http://x/", "?")  # fmt: skip
METHODS = ("POST", "POST", "POST", "POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH",
           "CONNECT", "BREW", "post", "")  # fmt: skip
NASTY = ("", "\x00", "\x00" * 50, "é", "漢字" * 30, "\U0001f469‍\U0001f4bb", "‮abc", "\ud800", "a" * 5000,
         "<EMAIL_1>", "{{7*7}}", "%s%n", "' OR 1=1 --", "\r\n\r\n", "data: [DONE]\n\n", "\\u0000",
         "⟦PERSON_1⟧", "null", "NaN", "-1")  # fmt: skip
NUMBERS = (0, -1, 1, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0, 0.5, 17, float("inf"), float("nan"))
FIELDS = ("model", "messages", "temperature", "top_p", "n", "stop", "seed", "stream", "stream_options",
          "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs", "tools", "tool_choice",
          "response_format", "logit_bias", "user", "metadata", "prompt", "input", "encoding_format",
          "dimensions", "echo", "best_of", "suffix", "functions", "role", "content", "x", "type",
          "instructions", "reasoning", "text", "include", "call_id", "output", "system",
          "thinking")  # fmt: skip
CAUSES = {"overloaded", "store_unavailable", "privacy_guard_failed", "upstream_unreachable",
          "upstream_rejected", "upstream_timeout", "upstream_unavailable"}  # fmt: skip


class Fuzz:
    """Draws requests; the same seed draws the same ones."""

    def __init__(self, seed: int, key: str, model: str) -> None:
        self.random = random.Random(seed)
        self.key = key
        self.model = model

    def value(self, depth: int = 0) -> Any:
        r = self.random
        kind = r.randrange(8 if depth < 4 else 5)
        if kind < 2:
            return r.choice(NASTY)
        if kind == 2:
            return r.choice(NUMBERS)
        if kind == 3:
            return r.choice((None, True, False))
        if kind == 4:
            return "".join(chr(r.randrange(1, 0xD7FF)) for _ in range(r.randrange(20)))
        if kind == 5:
            return [self.value(depth + 1) for _ in range(r.randrange(5))]
        return {r.choice((*FIELDS, *NASTY)): self.value(depth + 1) for _ in range(r.randrange(5))}

    def good(self) -> dict[str, Any]:
        r = self.random
        name = "messages" if r.random() < 0.8 else "input"
        return {
            "model": self.model,
            name: [{"role": "user", "content": r.choice(NASTY) or "hi"}],
            "stream": r.random() < 0.3,
            "max_tokens": 4,
        }

    def body(self) -> bytes:
        r = self.random
        kind = r.randrange(12)
        if kind == 0:
            return r.randbytes(r.randrange(300))
        if kind == 1:
            return r.choice((b"[", b'{"a":', b'{"messages":[')) * r.choice((50, 5000, 200_000))
        if kind == 2:
            text = json.dumps(self.good()).encode()
            return text[: r.randrange(len(text))]
        if kind == 3:
            text = bytearray(json.dumps(self.good()).encode())
            for _ in range(r.randrange(1, 6)):
                text[r.randrange(len(text))] = r.randrange(256)
            return bytes(text)
        if kind == 4:
            return json.dumps(self.value()).encode("utf-8", "surrogatepass")
        if kind == 5:
            turn = {"role": "user", "content": "word " * r.choice((10, 20_000))}
            return json.dumps({**self.good(), "messages": [turn] * r.choice((1, 50))}).encode()
        found = self.good()
        for _ in range(r.randrange(4)):
            found[r.choice(FIELDS)] = self.value()
        return json.dumps(found, ensure_ascii=r.random() < 0.5).encode("utf-8", "surrogatepass")

    def request(self) -> tuple[list[bytes], str]:
        """The pieces a client sends, and its manner: "ask", "eof" (says that
        it has ended), "leave" (hangs up) or "slow"."""
        r = self.random
        path = r.choice(PATHS) if r.random() < 0.25 else r.choice(POSTS)
        method = r.choice(METHODS) if r.random() < 0.15 else "POST"
        body = self.body()
        version = r.choice(("HTTP/1.1",) * 20 + ("HTTP/1.0", "HTTP/9.9", "HTTP", ""))
        lines = [f"{method} {path} {version}".encode("utf-8", "surrogatepass"), b"host: x"]
        if r.random() < 0.95:
            lines.append(b"authorization: Bearer " + self.key.encode())
        else:
            lines.append(
                b"authorization: " + r.choice((b"", b"Bearer", b"Basic eDp5", r.randbytes(30)))
            )
        if r.random() < 0.1:
            lines += [
                b"x-%d: %s" % (i, b"y" * r.choice((1, 1000))) for i in range(r.choice((5, 120)))
            ]
        if r.random() < 0.05:
            lines.append(r.randbytes(r.randrange(60)))
        if r.random() < 0.03:
            lines.append(b"content-encoding: gzip")
        if r.random() < 0.03:
            lines += [b"connection: upgrade", b"upgrade: websocket"]
        if r.random() < 0.03:
            lines.append(b"expect: 100-continue")
        framing = r.randrange(20)
        if framing == 0:
            lines.append(b"transfer-encoding: chunked")
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        elif framing == 1:
            lines.append(b"transfer-encoding: chunked")
            body = r.choice((b"zz\r\n", b"ffffffffffffffff\r\n", b"-1\r\n", b"5\r\nab")) + body
        elif framing == 2:
            lines.append(
                b"content-length: " + r.choice((b"-1", b"x", b"9" * 30, b"0", b"1e3", b""))
            )
        elif framing == 3:
            lines += [b"content-length: %d" % len(body), b"transfer-encoding: chunked"]
        elif framing == 4:
            lines += [b"content-length: %d" % len(body), b"content-length: %d" % (len(body) + 1)]
        else:
            lines.append(b"content-length: %d" % len(body))
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        # What is framed wrongly may never be whole: then the client says that it has ended.
        plain = "ask" if framing > 4 else "eof"
        manner = r.choice((plain,) * 16 + ("leave", "leave", "slow", "pipeline"))
        whole = head + body
        if manner == "pipeline":
            return [whole * 3], "leave"
        if manner == "leave":
            whole = whole[: r.randrange(1, len(whole) + 1)]
        if manner == "slow":
            cuts = sorted(r.randrange(len(whole)) for _ in range(4))
            ends = [*cuts, len(whole)]
            return [whole[a:b] for a, b in zip([0, *cuts], ends, strict=True)], "slow"
        return [whole], manner

    def huge(self) -> tuple[list[bytes], str]:
        """A body of 50 MB, which is refused without being held."""
        size = 50 << 20
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.key}\r\n"
        ).encode()
        piece = b"x" * (1 << 20)
        if self.random.random() < 0.5:
            return [head + b"content-length: %d\r\n\r\n" % size, *[piece] * 50], "ask"
        chunk = b"%x\r\n%s\r\n" % (len(piece), piece)
        return [head + b"transfer-encoding: chunked\r\n\r\n", *[chunk] * 50, b"0\r\n\r\n"], "ask"


async def send(host: str, port: int, pieces: list[bytes], manner: str) -> tuple[int, bytes]:
    """The status (0: the connection was closed without one) and what followed."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return -1, b""
    try:
        for piece in pieces:
            writer.write(piece)
            if manner == "slow":
                await asyncio.sleep(0.01)
            await writer.drain()
        if manner == "leave":
            return 0, b""
        if manner != "ask":
            writer.write_eof()
        data = await asyncio.wait_for(reader.read(1 << 16), 30)
    except (ConnectionError, OSError):
        return 0, b""
    except TimeoutError:
        return -2, b""
    finally:
        writer.close()
    found = re.match(rb"HTTP/1\.[01] (\d{3})", data)
    return (int(found[1]) if found else 0), data


async def run(
    url: str,
    key: str,
    model: str,
    *,
    count: int,
    seed: int,
    pid: int,
    concurrency: int,
    huge_every: int,
) -> tuple[Counter[str], list[str], float]:
    """Send `count` requests; what came back, what did not hold, and the most memory above the start."""
    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise SystemExit("hostile clients stay on loopback")
    assert parts.port is not None
    host, port = parts.hostname, parts.port
    fuzz = Fuzz(seed, key, model)
    statuses: Counter[str] = Counter()
    faults: list[str] = []
    begun = rss_mb(pid)
    peak = begun
    left = count

    async def client() -> None:
        nonlocal left, peak
        while left > 0:
            left -= 1
            number = count - left
            drawn = fuzz.huge() if huge_every and number % huge_every == 0 else fuzz.request()
            status, data = await send(host, port, *drawn)
            statuses[str(status)] += 1
            if status == -1:
                faults.append(f"request {number}: no connection")
                await asyncio.sleep(0.1)
            if status == -2:
                faults.append(f"request {number}: no answer within 30 s")
            if status >= 500:
                code = re.search(rb'"code":"(\w+)"', data)
                cause = code[1].decode() if code else "none"
                statuses[f"{status} {cause}"] += 1
                if cause not in CAUSES:
                    faults.append(f"request {number}: {status} with cause {cause}")
            if number % 200 == 0:
                try:
                    peak = max(peak, rss_mb(pid))
                except OSError:
                    faults.append(f"request {number}: the process is gone")
                    left = 0
                    return

    await asyncio.gather(*(client() for _ in range(concurrency)))
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    good = head.encode() + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body
    status, _ = await send(host, port, [good], "ask")
    if status != 200:
        faults.append(f"a good request at the end got {status}")
    return statuses, faults, peak - begun


def report(count: int, seed: int, statuses: Counter[str], faults: list[str], grown: float) -> str:
    return json.dumps({
        "requests": count, "seed": seed, "grown_mb": round(grown, 1), "statuses": dict(statuses),
        "faults": faults[:20],
    })  # fmt: skip


def turns(a: argparse.Namespace) -> list[str]:
    """Turn after turn against one gateway of our own; what did not hold in any turn ever made."""
    from tests.integration.gateway import mocking, serving, upstream

    done = a.out.read_text().splitlines() if a.out.exists() else []
    with tempfile.TemporaryDirectory(prefix="cosilo-fuzz-") as name, mocking() as mock:
        config = upstream("lm", mock, "ok", retries=0)
        config += '[[points]]\nname = "ok"\nstrategy = "large"\nlarge = "lm"\n'
        with serving(Path(name), config) as gateway:
            key = gateway.key()
            begun = rss_mb(gateway.pid)
            for seed in range(len(done), a.turns):
                statuses, faults, peak = asyncio.run(
                    run(
                        gateway.root, key, "cosilo/ok", count=a.count, seed=seed, pid=gateway.pid,
                        concurrency=min(a.concurrency, 64), huge_every=a.huge_every,
                    )
                )  # fmt: skip
                grown = rss_mb(gateway.pid) - begun
                if max(grown, peak) > a.most_mb:
                    faults.append(f"memory grew by {max(grown, peak):.0f} MB")
                done.append(report(a.count, seed, statuses, faults, grown))
                a.out.write_text("".join(line + "\n" for line in done))
                print(done[-1], flush=True)
    return [fault for line in done for fault in json.loads(line)["faults"]]


def once(a: argparse.Namespace) -> list[str]:
    statuses, faults, grown = asyncio.run(
        run(
            a.url, a.key, a.model, count=a.count, seed=a.seed, pid=a.pid,
            concurrency=min(a.concurrency, 64), huge_every=a.huge_every,
        )
    )  # fmt: skip
    if grown > a.most_mb:
        faults.append(f"memory grew by {grown:.0f} MB")
    print(report(a.count, a.seed, statuses, faults, grown))
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description="Hostile clients against a gateway on loopback.")
    parser.add_argument("url", nargs="?", help="of a gateway that runs; else --turns and --out")
    parser.add_argument("--key")
    parser.add_argument("--model")
    parser.add_argument("--pid", type=int)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, help="a line for each turn; turns in it are not repeated"
    )
    parser.add_argument("-n", "--count", type=int, default=10_000)
    parser.add_argument("-c", "--concurrency", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--huge-every", type=int, default=2000, help="one body of 50 MB in so many; 0: none"
    )
    parser.add_argument("--most-mb", type=float, default=150, help="memory it may grow by")
    a = parser.parse_args()
    if a.url is None and a.out is None:
        parser.error("give the URL of a gateway, or --turns and --out")
    if a.url is not None and None in (a.key, a.model, a.pid):
        parser.error("a gateway that runs needs --key, --model and --pid")
    faults = once(a) if a.url is not None else turns(a)
    for fault in faults[:20]:
        print(fault, file=sys.stderr)
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
