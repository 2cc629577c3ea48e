"""Secure aggregation over eight owners of whom two drop out: what it costs, and what the sum tells.

    python benchmarks/secure_aggregation.py ours
    python benchmarks/secure_aggregation.py flower          # by the Python that has Flower: make flower
    python benchmarks/secure_aggregation.py attacks [--seeds 0 1 2] [--groups 8] [--cells FILE]

`ours` and `flower`: eight owners' updates, random numbers in the shapes of SmolLM2-135M's LoRA of rank
8 on all linear layers. In the first round all eight stay; in the second two send shares of their
secrets, and no update. Ours goes over HTTPS to a host in this process, behind a proxy for each owner
that counts what goes over TCP; payload are the messages without HTTP and TLS. Flower's SecAgg+ is its
own workflow and its own mod; in place of a SuperLink stands a grid that hands over each message as
Flower writes it to the wire, counted there. In both every owner is every other's neighbour, six shares
give a secret back, numbers are up to ±8 modulo 2³², and all owners weigh the same. Flower's largest
weight is an owner's (`fine`), or 1000 as its default has it, of which an owner has 60.

CPU is that of the thread that does an owner's or the coordinator's steps: masks, shares, sums, and the
coordinator's book on its disk, from which what is private is deleted; Flower's coordinator has none,
but reads and writes its messages in the same call. `exact` counts the whole numbers of the
coordinator's sum that are the sum of what the owners who stayed had before they were masked; the error
is that of the mean.

`attacks`: SmolLM2-135M, updates as in `upward_attacks.py` (LoRA of rank 8, two steps of two chats
each, SGD or AdamW, from an adapter that public training made). Of one owner's update, of the sums of
2, 4, 6 and 8 owners', and of one under its masks as the coordinator receives it: tokens found by the
pursuit that is told how many there are, beside the most common tokens; which owners, and which
records, a sum is of, by the cosine with the gradients of their chats (area under the curve; the others
are eight owners who took no part). Groups of owners do not overlap: of each owner one sum of each size
is looked at, of six that of the first.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from cosilo.boundary.messages import Enrol, NextRound, NextStep, decode
from cosilo.boundary.wire import tensors
from cosilo.federation.secure.fixed_point import FixedPoint, weighted
from cosilo.models.low_rank import matrix_shapes
from flower import RANK, layers, proxy
from kept import Kept

OWNERS, GONE, LARGEST = 8, 2, 8.0
LEFT = OWNERS - GONE
NAMES = tuple(f"owner-{of}" for of in range(OWNERS))
FIRST = 100  # the first owner's node
KEY = b"abcd"
MOD = "flwr.client.mod.secure_aggregation.secaggplus_mod"  # the package has a function of that name
STEPS = ("shares", "vector", "unmasking")
ROUNDS = {1: "all stay", 2: "two drop out"}
SHAPES = matrix_shapes({name: (out, into) for name, out, into in layers()}, RANK)
SIZE = sum(int(np.prod(shape)) for shape in SHAPES.values())
FILE = """
[listen]
port = 0
[tls]
ca = "certs/ca.pem"
cert = "certs/host-localhost.pem"
key = "certs/host-localhost.key"
[federation]
rounds = {rounds}
rank = {rank}
secure = true
quorum = {quorum}
step_s = 60
largest_norm = 1e9
{clients}
"""


def update(of: int, number: int) -> np.ndarray:
    """How far an owner's adapter goes in a round: a few thousandths, as after training."""
    return np.random.default_rng([of, number]).normal(scale=3e-3, size=SIZE)


class Spent:
    """CPU seconds of threads, by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        began = time.thread_time()
        try:
            yield
        finally:
            self.seconds[what] += time.thread_time() - began

    def counting(self, what: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            with self.on(what):
                return work(*given, **named)

        return counted


def put_round(
    kept: Kept,
    where: str,
    number: int,
    sent: dict[Any, int],
    spent: Spent,
    exact: int,
    error: float,
) -> None:
    """What a round took.

    Args:
        sent: (owner, round, step, direction) → bytes of payload.
        exact: how many of the sum's whole numbers are what they should be.
        error: the largest of the mean's numbers.
    """
    row = f"{where}, {ROUNDS[number]}"
    for way in ("up", "down"):
        each = [sum(b for (o, n, _, w), b in sent.items() if (o, n, w) == (of, number, way))
                for of in range(LEFT)]  # fmt: skip
        kept.put(row, f"bytes {way}", float(np.mean(each)), n=LEFT)
        steps = {step for _, n, step, w in sent if (n, w) == (number, way)}
        for step in sorted(steps):
            some = [b for (o, n, s, w), b in sent.items() if (n, s, w) == (number, step, way)
                    and o < LEFT]  # fmt: skip
            kept.put(row, f"{step} {way}", float(np.mean(some)), n=len(some))
    kept.put(row, "numbers", SIZE)
    kept.put(row, "exact", exact, n=SIZE + 1)
    kept.put(row, "largest error", error, n=SIZE)
    kept.put(row, "CPU of an owner", spent.seconds[f"owner {number}"] / LEFT, n=LEFT)
    kept.put(row, "CPU of the coordinator", spent.seconds[f"coordinator {number}"])
    print(row, {name: cell["value"] for name, cell in kept.rows[row].items()}, flush=True)


# ── ours ─────────────────────────────────────────────────────────────────────


class CountedWay:
    """A way to the host that counts payload by round and step."""

    def __init__(self, way: Any, of: int, sent: dict[Any, int]) -> None:
        self._way, self._of, self._sent = way, of, sent
        self.remote, self.where = True, way.where

    async def carry(self, payload: bytes, *, name: str = "") -> bytes:
        answer: bytes = await self._way.carry(payload, name=name)
        message = decode(payload)
        number = getattr(message, "number", 0)
        step = type(message).__name__
        if isinstance(message, NextRound):  # what is asked for is the last round's adapter
            number = message.have + 1 if len(answer) > 4 * SIZE else 0
        self._sent[self._of, number, step, "up"] += len(payload)
        self._sent[self._of, number, step, "down"] += len(answer)
        return answer

    async def close(self) -> None:
        await self._way.close()


async def took_part(party: Any, of: int, spent: Spent, made: dict[int, dict[int, Any]]) -> None:
    """One owner, in all rounds; the last ones leave in the last round before they send an update."""
    from cosilo.strategies.federating.summing import SumOwner

    told = await party.handle(Enrol(base="ab" * 16, layers=layers(), rank=RANK, sums=True))
    encoding = FixedPoint(told.sums.among, told.sums.largest, told.sums.bits)
    for number in ROUNDS:
        while True:
            at = await party.handle(NextRound(federation=told.federation, have=number - 1,
                gave=number - 1, most=told.most, patience=told.held))  # fmt: skip
            if at.state == "open":
                break
        mine = f"owner {number}" if of < LEFT else "those who leave"
        with spent.on(mine):
            words = encoding.encoded(weighted(update(of, number), 1.0))
            part = SumOwner(told.federation, number, told.sums, words, least=LEFT)
            message: Any = part.advertise()
        made[number][of] = words
        await party.handle(message)
        for step in STEPS:
            if step == "vector" and number == max(ROUNDS) and of >= LEFT:
                return
            state = None
            while state is None or state.step == "wait":
                state = await party.handle(NextStep(federation=told.federation, number=number,
                    step=step, among=told.sums.among, patience=told.held))  # fmt: skip
            assert state.step == step, state
            with spent.on(mine):
                message = part.answer(state)
            took = await party.handle(message)
            assert took.fate == "taken", took
        while True:
            at = await party.handle(NextRound(federation=told.federation, have=number - 1,
                gave=number, most=told.most, patience=told.held))  # fmt: skip
            if at.of == number:
                assert tensors.unpack(at.packed).keys() == SHAPES.keys()
                break


async def ours(folder: Path) -> None:
    from cosilo.boundary.transports.http import Https
    from cosilo.federation.secure import coordinator
    from cosilo.host.certificates import make_certificates
    from cosilo.host.config import load_host
    from cosilo.host.process import listening
    from cosilo.parties.coordinating.kind import NoModel
    from cosilo.parties.coordinating.sums import SumRounds
    from cosilo.parties.remote import RemoteOwner

    certs, file = folder / "certs", folder / "federation.toml"
    make_certificates(certs, hosts=["localhost"], clients=NAMES)
    clients = "\n".join(f"[clients.{name}]" for name in NAMES)
    file.write_text(
        FILE.format(rounds=len(ROUNDS), rank=RANK, quorum=LEFT, clients=clients), "utf-8"
    )
    spent, sent = Spent(), defaultdict[Any, int](int)
    made: dict[int, dict[int, Any]] = {number: {} for number in ROUNDS}
    sums: list[Any] = []

    def total(*given: Any) -> Any:
        with spent.on(f"masks {len(sums) + 1}"):
            found = whole(*given)
        sums.append(found)
        return found

    whole, coordinator.total = coordinator.total, total  # type: ignore[assignment]
    for name in ("take", "state", "go_on", "closed"):
        work = getattr(SumRounds, name)

        def counted(self: Any, *given: Any, work: Any = work, **named: Any) -> Any:
            with spent.on(f"coordinator {len(sums) + 1}"):
                return work(self, *given, **named)

        setattr(SumRounds, name, counted)
    began = time.process_time()
    over_tcp = [{"up": 0, "down": 0} for _ in NAMES]
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(listening(load_host(file), NoModel()))
        parties = []
        for of, name in enumerate(NAMES):
            between = await proxy(host.port, over_tcp[of])
            stack.callback(between.close)
            port = between.sockets[0].getsockname()[1]
            way = Https(
                f"https://localhost:{port}", ca=certs / "ca.pem",
                cert=certs / f"client-{name}.pem", key=certs / f"client-{name}.key",
            )  # fmt: skip
            parties.append(RemoteOwner(CountedWay(way, of, sent), "coordinator", ""))
        await asyncio.gather(
            *(took_part(party, of, spent, made) for of, party in enumerate(parties))
        )
        await asyncio.gather(*(party.close() for party in parties))
    kept = Kept("secure_aggregation", fresh=False)
    encoding = FixedPoint(OWNERS, LARGEST)
    for number in ROUNDS:
        there = range(OWNERS if number < max(ROUNDS) else LEFT)
        exact = sum((made[number][of] for of in there), np.zeros(SIZE + 1, encoding.dtype))
        mean = encoding.decoded(sums[number - 1])
        error = mean[:-1] / mean[-1] - np.mean([update(of, number) for of in there], axis=0)
        put_round(kept, "ours", number, sent, spent, int((exact == sums[number - 1]).sum()),
                  float(np.abs(error).max()))  # fmt: skip
        taken_away = spent.seconds.pop(f"masks {number}")
        kept.put(f"ours, {ROUNDS[number]}", "CPU of it for masks", taken_away)
    payload = sum(b for (o, _, _, _), b in sent.items() if o < LEFT)
    tcp = sum(sum(each.values()) for each in over_tcp[:LEFT])
    kept.put("ours", "of payload over TCP", tcp / payload, n=LEFT)
    kept.put("ours", "step", encoding.step)
    rest = time.process_time() - began - sum(spent.seconds.values())
    kept.put("ours", "CPU of TLS, HTTP and books, both sides", rest / len(ROUNDS), n=len(ROUNDS))
    kept.write()


# ── Flower ───────────────────────────────────────────────────────────────────


class Handed:
    """A grid that hands each message to its owner as Flower writes it to the wire, and counts.

    Args:
        apps: node → what answers.
        gone: nodes that send no update.
    """

    def __init__(
        self, apps: dict[int, Callable[[Any], Any]], gone: Sequence[int], number: int,
        sent: dict[Any, int], spent: Spent,
    ) -> None:  # fmt: skip
        self._apps, self._gone, self._number = apps, gone, number
        self._sent, self._spent = sent, spent

    def send_and_receive(self, messages: Sequence[Any], *, timeout: Any = None) -> list[Any]:
        from flwr.app import Error, Message
        from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Stage
        from flwr.common.serde import message_from_proto, message_to_proto

        found = []
        for message in messages:
            node = message.metadata.dst_node_id
            step = str(message.content.config_records[RECORD_KEY_CONFIGS]["stage"])
            written = message_to_proto(message)
            self._sent[node - FIRST, self._number, step, "down"] += written.ByteSize()
            if node in self._gone and step == Stage.COLLECT_MASKED_VECTORS:
                found.append(Message(Error(code=0, reason="gone"), reply_to=message))
                continue
            leaves = node - FIRST >= LEFT
            with self._spent.on("those who leave" if leaves else f"owner {self._number}"):
                reply = message_to_proto(self._apps[node](message_from_proto(written)))
            self._sent[node - FIRST, self._number, step, "up"] += reply.ByteSize()
            found.append(message_from_proto(reply))
        return found


class Fits:
    """A strategy of Flower's that has all owners train, and keeps the mean."""

    mean: Any = None

    def __init__(self, nodes: Sequence[int], start: Any) -> None:
        self._nodes, self._start = nodes, start

    def configure_fit(self, number: int, parameters: Any, clients: Any) -> list[Any]:
        from flwr.common import FitIns

        class Proxy:
            def __init__(self, node: int) -> None:
                self.node_id, self.cid = node, str(node)

        return [(Proxy(node), FitIns(self._start, {})) for node in self._nodes]

    def aggregate_fit(
        self, number: int, results: Any, failures: Any
    ) -> tuple[None, dict[str, Any]]:
        from flwr.common import parameters_to_ndarrays

        self.mean = parameters_to_ndarrays(results[0][1].parameters)
        return None, {}


def parts(numbers: np.ndarray) -> list[np.ndarray]:
    """The tensors of an adapter."""
    ends = np.cumsum([int(np.prod(shape)) for shape in SHAPES.values()])[:-1]
    cut = zip(np.split(numbers.astype(np.float32), ends), SHAPES.values(), strict=True)
    return [piece.reshape(shape) for piece, shape in cut]


def joined(pieces: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(piece) for piece in pieces])


class Noted:
    """A function of Flower's in `module`, and what passed through it while this is open."""

    def __init__(self, module: Any, name: str, seen: Callable[[Any], Any]) -> None:
        self._module, self._name, self._seen = module, name, seen
        self._work = getattr(module, name)
        self.found: list[np.ndarray] = []

    def __enter__(self) -> Noted:
        setattr(self._module, self._name, self._called)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self._module, self._name, self._work)

    def _called(self, *given: Any) -> Any:
        made = self._work(*given)
        self.found.append(joined(self._seen((given, made))))
        return made


def fits(node: int, number: int, examples: int) -> Callable[[Any], Any]:
    """An owner's app, behind Flower's mod."""
    from flwr.app import Context, Message, RecordDict
    from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
    from flwr.compat.common import recorddict_compat as compat

    mod: Any = import_module(MOD)
    context = Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})

    def fit(message: Any, context: Any) -> Any:
        made = ndarrays_to_parameters(parts(update(node - FIRST, number)))
        result = FitRes(Status(Code.OK, ""), made, examples, {})
        return Message(compat.fitres_to_recorddict(result, False), reply_to=message)

    return lambda message: mod.secaggplus_mod(message, context, fit)


def one_of_flowers(kept: Kept, name: str, number: int, examples: int, largest: float) -> None:
    """A round of SecAgg+."""
    from flwr.app import ArrayRecord, ConfigRecord, Context, RecordDict
    from flwr.common import ndarrays_to_parameters
    from flwr.server import LegacyContext
    from flwr.server.workflow.secure_aggregation import secaggplus_workflow as workflow

    nodes = [FIRST + of for of in range(OWNERS)]
    gone = nodes[LEFT:] if number == max(ROUNDS) else []
    spent, sent = Spent(), defaultdict[Any, int](int)
    start = parts(np.zeros(SIZE))
    strategy = Fits(nodes, ndarrays_to_parameters(start))
    state = RecordDict()
    state["config"] = ConfigRecord({"current_round": number})
    state["parameters"] = ArrayRecord(start)
    context = LegacyContext(
        Context(run_id=1, node_id=1, node_config={}, state=state, run_config={}),
        strategy=strategy,  # type: ignore[arg-type]
    )
    grid: Any = Handed({n: fits(n, number, examples) for n in nodes}, gone, number, sent, spent)
    with (
        Noted(import_module(MOD), "factor_combine", lambda passed: passed[1]) as whole,
        Noted(workflow, "factor_extract", lambda passed: passed[0][0]) as sums,
        spent.on(f"coordinator {number}"),
    ):
        workflow.SecAggPlusWorkflow(OWNERS, LEFT, clipping_range=LARGEST, max_weight=largest)(
            grid, context
        )
    for what in (f"owner {number}", "those who leave"):
        spent.seconds[f"coordinator {number}"] -= spent.seconds[what]
    if strategy.mean is None:
        raise SystemExit("SecAgg+ halted: see what it logged")
    left = [update(n - FIRST, number) for n in nodes if n not in gone]
    error = np.abs(joined(strategy.mean) - np.mean(left, axis=0)).max()
    exact = int((sum(whole.found) % (1 << 32) == sums.found[0]).sum())
    put_round(kept, f"Flower, {name}", number, sent, spent, exact, float(error))


def flower() -> None:
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    kept = Kept("secure_aggregation", fresh=False)
    for name, examples, largest in (("fine", 1, 1.0), ("default", 60, 1000.0)):
        for number in ROUNDS:
            one_of_flowers(kept, name, number, examples, largest)
    masks = [
        pseudo_rand_gen(key, 1 << 32, [(64,)])[0] for key in (bytes(28) + KEY, KEY + bytes(28))
    ]
    kept.put("Flower", "two keys, one mask", int(np.array_equal(*masks)), n=1)
    began, tries = time.process_time(), 3000
    for seed in range(tries):
        pseudo_rand_gen(seed.to_bytes(4, "little"), 1 << 32, [(4,)])
    each = (time.process_time() - began) / tries
    kept.put("Flower", "CPU days to try every seed of a mask", each * 2**32 / 86400, n=tries)
    kept.write()


# ── main ─────────────────────────────────────────────────────────────────────


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("what", choices=("ours", "flower", "attacks"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/banking77"))
    parser.add_argument("--groups", type=int, default=OWNERS, help="of a size, at most")
    parser.add_argument("--layers", type=int, default=30, help="of the model, from below")
    parser.add_argument("--cells", type=Path, default=Path("/tmp/secure_aggregation_cells.json"))
    how = parser.parse_args()
    if how.what == "ours":
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(ours(Path(folder)))
    elif how.what == "flower":
        flower()
    else:
        from secure_attacked import attacks

        attacks(how.seeds, how.data, how.cells, how.groups, how.layers)


if __name__ == "__main__":
    sys.exit(main())
