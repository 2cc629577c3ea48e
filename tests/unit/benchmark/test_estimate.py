"""What a run will cost is an upper bound: shared questions once, recorded answers free."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from cosilo.benchmark.estimate import Estimate, Pace, estimate, measured_pace
from cosilo.benchmark.parts import Loaded, Parts, open_parts
from cosilo.benchmark.plan import Plan, parse_plan
from cosilo.benchmark.store import Store
from cosilo.boundary.messages import Ask, Completion, Message, Request
from cosilo.boundary.meter import Totals
from cosilo.defences.base import Defence, defences
from cosilo.models.base import Access
from cosilo.parties.around.paid import Paid
from cosilo.parties.lm_owner import LMOwner
from cosilo.strategies.base import Expected, Forecast, Needs, Session, Strategy
from cosilo.tasks.base import Split
from cosilo.types import Answer, Chat, Generation, Sampling

PLAN = """
name = "desk"
concurrency = 4
[task]
kind = "classification"
train = "train.jsonl"
tune = "tune.jsonl"
validation = "validation.jsonl"
certificate = "certificate.jsonl"
test = "test.jsonl"
[models.small]
kind = "scripted"
[models.large]
kind = "scripted"
usd_per_m_in = 1e6
"""
SIZES: dict[Split, int] = {"train": 8, "tune": 6, "validation": 4, "certificate": 4, "test": 4}
ANSWERED: tuple[Split, ...] = ("validation", "certificate", "test")


class Idle(Defence):
    """Guards nothing."""


@pytest.fixture(autouse=True, scope="module")
def idle() -> None:
    if "idle" not in defences.names():
        defences.register("idle")(Idle)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, size in SIZES.items():
        rows = [{"text": f"{split} {i}", "label": "ab"[i % 2]} for i in range(size)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def opened(folder: Path, points: str) -> tuple[Plan, Parts, Store]:
    plan = parse_plan(PLAN + points, folder / "p.toml")
    store = Store(folder / "run", write=True)
    return plan, open_parts(plan, store, Loaded()), store


async def cost(folder: Path, points: str, *, ask: bool = False) -> Estimate:
    plan, parts, store = opened(folder, points)
    if ask:
        for example in parts.task.splits["test"]:
            await parts.large.party.handle(Ask(chat=example.chat, sampling=parts.task.sampling))
    work = [(p, [(s, parts.task.splits[s]) for s in ANSWERED]) for p in plan.points]
    found = estimate(plan, parts, work, pace=None)
    await parts.close()
    store.close()
    return found


def point(strategy: str, more: str = "") -> str:
    return f'[[points]]\nstrategy = "{strategy}"\n{more}\n'


@pytest.mark.parametrize(
    ("points", "calls"),
    [
        (point("small"), 0),
        (point("large"), 12),
        (point("cascade", "calls = 0.5"), 6),
        (point("cascade"), 18),  # every tune item, too
        (point("router", "calls = 0.25"), 6 + 3),
        (point("distil_labels"), 8),
        (point("distil_labels", "items = 3"), 3),
        (point("zerogen", "each = 12"), 2 * 3),  # five a call, for each of two labels
        (point("large") + point("cascade", "calls = 0.5"), 12),  # they share their answers
        (point("large") + point("router") + point("cascade"), 18),
        (point("large", 'defences = [[], ["idle"]]'), 24),  # behind a defence other words are sent
        (point("large") + point("supericl"), 24),
        (point("distil_logits"), 8 + 8 + 1),  # replies, their scores, and which vocabulary it is
        (point("distil_logits", "items = 3\non_policy = 0.5\nsteps = 10\nbatch = 2"), 3 + 3 + 21),
        (point("distil_logits", "gold = true"), 8 + 1),
        (point("distil_across", "items = 5"), 5 + 5),
        (point("distil_across", "items = 5\nweight = 0"), 5),
        (point("distil_states", "items = 3"), 8 + 3),  # the gold texts are read, too
        (point("paraphrase"), 8),
        (point("paraphrase", "items = 5"), 5),
    ],
)
async def test_calls_are_bounded(folder: Path, points: str, calls: int) -> None:
    found = await cost(folder, points)
    assert found.calls == calls
    assert (found.usd > 0) == (calls > 0)
    assert found.tokens_in == pytest.approx(found.usd)
    assert found.usd_most >= 3 * found.usd


class Costly:
    """Answers at the full length allowed, and is billed a token for each byte of the prompt."""

    name, access = "costly", Access.TEXT

    async def generate(self, chat: Chat, sampling: Sampling) -> Generation:
        tokens_in, tokens_out = Ask(chat=chat, sampling=sampling).tokens_bound()
        return Generation("a", prompt_tokens=tokens_in, completion_tokens=tokens_out, attempts=3)

    async def close(self) -> None: ...


async def test_the_most_it_can_cost_covers_every_attempt_at_its_longest(folder: Path) -> None:
    plan, parts, store = opened(folder, point("large"))
    price = replace(parts.large.price, attempts=3)
    paid = Paid(LMOwner(Costly()), parts.paid, price)
    parts = replace(parts, peers={"large": replace(parts.large, price=price)})
    examples = parts.task.splits["test"]
    found = estimate(plan, parts, [(plan.points[0], [("test", examples)])], pace=None)
    for example in examples:
        await paid.handle(Ask(chat=example.chat, sampling=parts.task.sampling))
    assert found.usd < parts.paid.totals.usd <= found.usd_most
    await parts.close()
    store.close()


async def test_what_a_model_may_think_is_in_the_estimate(folder: Path) -> None:
    large = (
        'kind = "openai"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "m"\nusd_per_m_out = 1e6\n'
    )
    found = []
    for reasoning in (0, 1000):
        text = PLAN.replace('kind = "scripted"\nusd_per_m_in = 1e6', large)
        plan = parse_plan(
            f"{text}reasoning = {reasoning}\n" + point("large"), folder / f"{reasoning}.toml"
        )
        store = Store(folder / f"run-{reasoning}", write=True)
        parts = open_parts(plan, store, Loaded())
        work = [(p, [(s, parts.task.splits[s]) for s in ANSWERED]) for p in plan.points]
        found.append(estimate(plan, parts, work, pace=None))
        await parts.close()
        store.close()
    without, given = found
    assert given.tokens_out - without.tokens_out == 1000 * given.calls
    assert given.usd_most - without.usd_most == pytest.approx(5 * 1000 * given.calls)  # 4 retries


async def test_the_small_models_time_counts(folder: Path) -> None:
    plan, parts, store = opened(folder, point("small") + point("cascade") + point("distil_labels"))
    work = [(p, [(s, parts.task.splits[s]) for s in ANSWERED]) for p in plan.points]
    found = estimate(plan, parts, work, pace=None, small=5.0)
    assert found.small_minutes == pytest.approx(5 * (12 + 12) / 60)  # anew where it is trained
    assert found.trains
    await parts.close()
    store.close()


async def test_recorded_answers_are_free(folder: Path) -> None:
    found = await cost(folder, point("large"), ask=True)
    assert (found.calls, found.recorded) == (8, 4)


async def test_a_model_that_takes_no_time_takes_no_minutes(folder: Path) -> None:
    assert (await cost(folder, point("large"))).minutes == 0


async def test_minutes_come_from_the_calls_made_before(folder: Path) -> None:
    plan, parts, store = opened(folder, point("large"))
    assert await measured_pace(plan, parts, store) is None  # it would have to be paid
    for seconds in (90.0, 8.0, 8.0):  # the first loaded the model
        store.settle(store.pay(Totals(messages=1)), Totals(messages=1), seconds)
    pace = await measured_pace(plan, parts, store)
    assert pace == Pace(2.0)  # four at once
    work = [(plan.points[0], [("test", parts.task.splits["test"])])]
    assert estimate(plan, parts, work, pace=pace).minutes == pytest.approx(4 * 2 / 60)
    await parts.close()
    store.close()


async def test_a_local_model_is_tried_out_after_it_has_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, parts, store = opened(folder, point("large"))
    monkeypatch.setattr("cosilo.benchmark.estimate.LOCAL", ("scripted",))

    async def handle(message: Message) -> Message:
        asked.append(message)
        return Completion(generation=Generation("a"))

    asked: list[Message] = []
    times = iter((10.0, 16.0))
    monkeypatch.setattr(parts.large.recorded, "handle", handle)
    monkeypatch.setattr("cosilo.benchmark.estimate.perf_counter", lambda: next(times))
    monkeypatch.setattr("cosilo.benchmark.estimate.process_time", lambda: 0.5 * len(asked))
    monkeypatch.setattr("cosilo.benchmark.estimate.usable_cores", lambda: 2)
    pace = await measured_pace(plan, parts, store)
    assert len(asked) == 8  # four to load it and to fill its slots, four that are timed
    assert pace == Pace(1.5, share=2 / 12)
    await parts.close()
    store.close()


def said(**more: object) -> str:
    given = dict(
        calls=3, recorded=2, tokens_in=10, tokens_out=5, usd=0.5, usd_most=2.001, minutes=8.0
    )
    return str(Estimate(**{**given, **more}))  # type: ignore[arg-type]


def test_it_says_so_in_one_line() -> None:
    busy = said(measured=True, share=0.25)
    assert "8.0 min of LM time (as measured so far, on a busy machine; 2.0 min on one" in busy
    assert "at most 3 LM calls (2 more are recorded and free), about" in said()
    assert "at most 3 LM calls, about" in said(recorded=0)
    assert "about $0.50 and at most $2.01" in said()
    assert "about $0.00012 and at most $0.0035;" in said(usd=0.000123, usd_most=0.0034001)
    assert "out, $0;" in said(usd=0.0, usd_most=0.0)
    assert "1.5 min of the small model's" in said(small_minutes=1.5)
    assert said(trains=True).endswith("and what it takes to train it")
    assert said(calls=0) == "no LM call to make (2 answers are recorded)"
    assert said(calls=0, small_minutes=1.5).endswith("; 1.5 min of the small model's")


async def test_points_that_ask_the_same_look_a_question_up_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, parts, store = opened(folder, point("large") + point("cascade") + point("supericl"))
    looked: list[Message] = []

    def holds(message: Message) -> bool:
        looked.append(message)
        return False

    monkeypatch.setattr(parts.large.recorded, "holds", holds)
    work = [(p, [(s, parts.task.splits[s]) for s in ANSWERED]) for p in plan.points]
    estimate(plan, parts, work, pace=None)
    assert len(looked) == len(set(looked)) > 0
    await parts.close()
    store.close()


class Echo(Request[Completion], frozen=True, kw_only=True):
    """A kind of message that only this file knows."""

    reply = Completion


@dataclass(frozen=True)
class Echoing:
    """Sends three of them for every fifth answer, and as many as there are labels before."""

    needs: ClassVar[Needs] = Needs(sends=frozenset({Echo}))

    def forecast(self) -> Forecast:
        return (
            Expected("answers", Echo, share=0.2, each=3, reads=("question", 10), writes=(7,)),
            Expected("labels", Echo, reads=(100,), writes=()),
            Expected("gold", Echo, total=40, reads=(1,), writes=("target",)),
        )

    async def prepare(self, session: Session) -> tuple[Strategy, Session]:
        return self, session

    async def answer(self, session: Session, chat: Chat) -> Answer:
        raise NotImplementedError


async def test_a_new_kind_of_message_is_forecast_by_its_strategy_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosilo.benchmark.estimate.make_strategy", lambda point: Echoing())
    plan, parts, store = opened(folder, point("large"))
    asked = [e.chat for s in ANSWERED for e in parts.task.splits[s]]
    question = sum(len(t.content) for chat in asked for t in chat) / len(asked) / 3.5 + 8
    found = estimate(
        plan,
        parts,
        [(plan.points[0], [(s, parts.task.splits[s]) for s in ANSWERED])],
        pace=None,
    )
    assert found.calls == 3 * 3 + 2 + 40  # each split's share is rounded up
    assert found.tokens_in == pytest.approx(9 * (question + 10) + 2 * 100 + 40, abs=9)
    assert found.tokens_out == pytest.approx(9 * 7 + 40 / 3.5, abs=1)  # a target has one byte
    await parts.close()
    store.close()


SEVERAL = (
    PLAN.partition("[models.large]")[0]
    + """
[models.large.a]
kind = "scripted"
name = "a"
usd_per_m_in = 1e6
[models.large.b]
kind = "scripted"
name = "b"
usd_per_m_in = 2e6
usd_per_hour = 3600
longest_s = 10
usd_per_gb = 1e9
"""
)


async def several(folder: Path, points: str, *, held: str = "") -> Estimate:
    plan = parse_plan(SEVERAL + points, folder / "p.toml")
    store = Store(folder / "run", write=True)
    parts = open_parts(plan, store, Loaded())
    for example in parts.task.splits["test"] if held else ():
        ask = Ask(chat=example.chat, sampling=parts.task.sampling)
        await parts.peers[held].party.handle(ask)
    work = [(p, [(s, parts.task.splits[s]) for s in ANSWERED]) for p in plan.points]
    found = estimate(plan, parts, work, pace=None)
    await parts.close()
    store.close()
    return found


async def test_each_of_several_large_models_is_estimated_at_its_own_price(folder: Path) -> None:
    one = await several(folder, '[[points]]\nstrategy = "large"\n')
    other = await several(folder, '[[points]]\nstrategy = "large"\npeers = ["b"]\n')
    both = await several(folder, '[[points]]\nstrategy = "ensemble"\n')
    assert (one.calls, other.calls, both.calls) == (12, 12, 24)
    assert both.usd == pytest.approx(one.usd + other.usd)
    assert both.usd_most == pytest.approx(one.usd_most + other.usd_most)
    assert other.usd_most > 2 * one.usd_most + 12 * 10  # its seconds and its bytes cost, too
    shared = await several(
        folder,
        '[[points]]\nstrategy = "large"\npeers = [["a"], ["b"]]\n[[points]]\nstrategy = "ensemble"\n',
    )
    assert shared.calls == 24  # each question is asked of each once


async def test_what_one_of_several_has_answered_is_free_of_that_one(folder: Path) -> None:
    found = await several(folder, '[[points]]\nstrategy = "ensemble"\n', held="b")
    assert (found.calls, found.recorded) == (20, 4)


async def test_the_most_covers_what_every_term_of_a_price_takes(folder: Path) -> None:
    found = await several(folder, '[[points]]\nstrategy = "large"\npeers = ["b"]\n')
    plan = parse_plan(SEVERAL + '[[points]]\nstrategy = "ensemble"\n', folder / "p.toml")
    store = Store(folder / "other", write=True)
    parts = open_parts(plan, store, Loaded())
    price = parts.peers["b"].price
    most = sum(
        price.bound(Ask(chat=e.chat, sampling=parts.task.sampling)).usd
        for split in ANSWERED
        for e in parts.task.splits[split]
    )
    assert most <= found.usd_most
    await parts.close()
    store.close()


async def test_bytes_of_what_is_no_text_are_told_where_they_are_many(folder: Path) -> None:
    found = await cost(folder, point("secure_head", 'engine = "spu"'))
    answers = sum(SIZES[s] for s in ANSWERED)
    assert answers << 20 <= found.bulk < (answers + 3) << 20
    assert f"at most {found.bulk / 1e6:,.0f} MB of what is no text, " in str(found)
    assert "no text" not in str(await cost(folder, point("large")))
    assert "no text" not in str(replace(found, bulk=999_999))
