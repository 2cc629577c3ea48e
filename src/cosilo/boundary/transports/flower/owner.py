"""The way of an owner to a coordinator that is reached over Flower.

    carry(payload) ── the next courier that comes takes it ──▶ SuperNode ──▶ SuperLink ──▶ coordinator
              ◀── a later one brings the answer ──────────

A SuperNode runs beside this process for as long as the way is open. Its courier finds one request at a
time here. What was taken and lost, because either end of Flower was started anew, is taken once more
under the same id, and is worked on once.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Lock, Thread

from cosilo.boundary.transports.agreed import OURS, new_id
from cosilo.boundary.transports.flower.child import FlowerProcess, free_port
from cosilo.boundary.transports.flower.couriers.frames import packed, received
from cosilo.boundary.transports.refusals import printable
from cosilo.errors import CapabilityError, ConfigError, RejectedError, UnreachableError

COURIER_WAITS_S = 30.0
"""How long a courier waits for a request until it goes back with none."""

_ENDS = 5
"""As often as a SuperNode ends before any courier came, something is wrong that no patience mends."""


@dataclass
class _Outstanding:
    """A request without an answer."""

    name: str
    payload: bytes
    answer: Future[bytes] = field(default_factory=Future)


class OverFlower:
    """A transport by the SuperLink at `superlink`.

    Args:
        superlink: HOST:PORT.
        ca: the authority that vouches for the SuperLink.
        key: this owner's key, PEM: the coordinator knows its certificate.
        python: of the environment that Flower is installed in; this one's, when empty.
        patience_s: how long a reply may take.

    Raises:
        ConfigError: the address or a file cannot be used.
    """

    remote = True

    def __init__(
        self, superlink: str, *, ca: Path, key: Path, python: str = "", patience_s: float = 600.0
    ) -> None:
        host, _, port = superlink.rpartition(":")
        if not (host and port.isdigit()):
            raise ConfigError(f"superlink = {superlink!r} is not HOST:PORT")
        if not 0 < patience_s < float("inf"):
            raise ConfigError(f"patience_s = {patience_s!r} is no time above 0")
        self.where = superlink
        self._ca, self._key = ca.absolute(), key.absolute()
        self._openssh = _openssh(self._key)
        if not self._ca.is_file():
            raise ConfigError(f"cannot read {str(ca)!r}; `cosilo host certs` makes certificates")
        self._python, self._patience_s = python, patience_s
        self._turns: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}
        self._changed = Condition()
        self._asks: _Outstanding | None = None
        self._came = False
        self._open: _Open | None = None
        self._opening = Lock()

    async def carry(self, payload: bytes, *, name: str = "") -> bytes:
        """The reply to `payload`, which the coordinator answers once however often it is taken there.

        Args:
            name: the request's id, where the caller keeps it; a new one otherwise.

        Raises:
            RejectedError: the SuperNode cannot run, or the other side speaks another version.
            UnreachableError: no answer came for as long as there is patience.
        """
        turn = self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with turn:
            node = await asyncio.to_thread(self._opened)
            asks = _Outstanding(name or new_id(), payload)
            with self._changed:
                self._asks = asks
                self._changed.notify_all()
            try:
                return await self._answered(asks, node)
            finally:
                with self._changed:
                    self._asks = None

    async def carry_stream(self, payload: bytes, *, name: str = "") -> AsyncIterator[bytes]:
        """Raises: CapabilityError: always; Flower brings whole messages."""
        raise CapabilityError("Flower carries no replies in pieces: ask for whole ones")
        yield b""

    async def close(self) -> None:
        """End the SuperNode; calling it twice is harmless."""
        await asyncio.to_thread(self._closed)

    def _opened(self) -> FlowerProcess:
        """Known also where whoever asked gives up meanwhile, so that closing ends it."""
        with self._opening:
            self._open = self._open or _Open(self)
            return self._open.node

    def _closed(self) -> None:
        with self._opening:
            opened, self._open = self._open, None
        if opened is not None:
            opened.close()

    async def _answered(self, asks: _Outstanding, node: FlowerProcess) -> bytes:
        end = time.monotonic() + self._patience_s
        answer = asyncio.wrap_future(asks.answer)
        while time.monotonic() < end:
            done, _ = await asyncio.wait({answer}, timeout=1.0)
            if done:
                return answer.result()
            if not self._came and node.ends >= _ENDS:
                raise RejectedError(f"the SuperNode does not run: {node.last}", everything=True)
        answer.cancel()
        raise UnreachableError(
            f"the coordinator behind the SuperLink at {self.where} did not answer for "
            f"{self._patience_s:g} s",
            worked=1,
        )

    def exchanged(self, words: dict[str, str], body: bytes) -> bytes:
        """What a courier is told that brings an answer: the next request, once there is one."""
        self._came = True
        with self._changed:
            asks = self._asks
            if asks is not None and words.get("id") == asks.name and not asks.answer.done():
                if error := _not_ours(words, self.where):
                    asks.answer.set_exception(error)
                else:
                    asks.answer.set_result(body)
            self._changed.wait_for(self._waiting, COURIER_WAITS_S)
            if not self._waiting():
                return packed({})
            assert self._asks is not None
            asks = self._asks
        return packed({"id": asks.name, "speaks": OURS.header}, asks.payload)

    def _waiting(self) -> bool:
        return self._asks is not None and not self._asks.answer.done()


class _Open:
    """What is there while the way is open: a socket, a SuperNode, and a folder of theirs."""

    def __init__(self, way: OverFlower) -> None:
        self._way = way
        self._folder = Path(tempfile.mkdtemp(prefix="cosilo-"))  # ours alone, and a short name
        self._listener = socket.socket(socket.AF_UNIX)
        place = str(self._folder / "owner")
        given = {"superlink": way.where, "ca": str(way._ca), "key": way._openssh, "socket": place}
        try:
            self._listener.bind(place)
            self._listener.listen()
            Thread(target=self._serve, name="flower-owner", daemon=True).start()
            self.node = FlowerProcess(
                "supernode",
                lambda: {**given, "port": free_port()},
                folder=self._folder,
                python=way._python,
            )
        except BaseException:
            self._gone()
            raise

    def close(self) -> None:
        self.node.stop()
        self._gone()

    def _gone(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(
                socket.SHUT_RDWR
            )  # closing alone leaves the thread waiting there
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.sendall(self._way.exchanged(*received(connection)))
        except (OSError, ValueError):
            pass  # the courier is gone, and another one comes


def _not_ours(words: dict[str, str], where: str) -> Exception | None:
    """Why an answer is none to take; None where it is one."""
    if words.get("failed"):
        return RejectedError(f"the coordinator at {where}: {printable(words['failed'], 500)}")
    if words.get("speaks") != OURS.header:
        return RejectedError(
            f"the coordinator at {where} speaks another version; here it is {OURS}: both sides must "
            "run versions of Cosilo that speak the same",
            everything=True,
        )
    return None


def _openssh(path: Path) -> str:
    """The key in the file `path` in the format that a SuperNode reads.

    Raises:
        ConfigError: it is none, or others can read it.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"the key {str(path)!r} can be read by others; chmod 600 it")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise ConfigError(f"{str(path)!r} holds no key, in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(
            f"{str(path)!r} is no key on a NIST curve, which is what Flower knows nodes by: "
            "`cosilo host certs` makes such"
        )
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    ).decode()
