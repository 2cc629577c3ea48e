"""A model in two hands writes what it writes in one, and with noise only states with noise cross."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cosilo.boundary.messages import Forward
from cosilo.boundary.record.ledger import MemoryLedger
from cosilo.boundary.wire import states
from cosilo.errors import (
    CapabilityError,
    ConfigError,
    PrivacyError,
    RejectedError,
    StoreError,
)
from cosilo.models.base import EVERYTHING, Shows
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.parties.lm_owner import LMOwner
from cosilo.parties.threads import Threads
from cosilo.privacy.account import PrivacyAccount, PrivacyConfig
from cosilo.privacy.mechanisms import RadialNoise
from cosilo.session import open_session
from cosilo.strategies.base import Session, strategies, stream
from cosilo.strategies.denoiser import Denoiser
from cosilo.strategies.inference.split import Split
from cosilo.types import Answer, Delta, Demonstration, Sampling, assemble, user

if TYPE_CHECKING:
    from cosilo.models.white_box.lm import TorchModel

pytest.importorskip("torch", reason="the torch extra is not installed")
pytest.importorskip("transformers", reason="the torch extra is not installed")

CHAT = user("what is the refund about?", system="Be brief.")
SHORT = Sampling(max_tokens=8)


@pytest.fixture(scope="module")
def model() -> TorchModel:
    from white_box import tiny

    return tiny(3, layers=4, scale=2.0)


def opened(
    method: Split,
    model: Any,
    *,
    large: Any = None,
    sampling: Sampling = SHORT,
    ledger: MemoryLedger | None = None,
    public: Sequence[str] = (),
    exposes: Shows = EVERYTHING,
    **owner: Any,
) -> Session:
    texts = tuple(Demonstration(str(i), user(text), "") for i, text in enumerate(public))
    return open_session(
        DataOwner(model, public=texts),
        LMOwner(large or model, exposes, **owner),
        method,
        sampling=sampling,
        ledger=ledger,
    )


def make(folder: Path, **options: Any) -> Split:
    found = strategies.create("split", **{"key_file": folder / "key", "layers": 2, **options})
    assert isinstance(found, Split)
    return found


@pytest.mark.parametrize("layers", [0, 1, 3])
async def test_without_noise_it_writes_what_the_model_writes(
    model: TorchModel, tmp_path: Path, layers: int
) -> None:
    method = make(tmp_path, layers=layers, noise=0.0)
    whole = await model.generate(CHAT, SHORT)
    answer = await method.answer(opened(method, model), CHAT)
    assert answer.text == whole.text
    assert (answer.by, answer.generation.finish_reason) == ("large", whole.finish_reason)
    assert answer.generation.completion_tokens == whole.completion_tokens
    assert answer.generation.prompt_tokens == len(model.prompt(CHAT))
    logprobs = [token.logprob for token in answer.generation.tokens]
    expected = [token.logprob for token in whole.tokens][: len(logprobs)]
    np.testing.assert_allclose(logprobs, expected, atol=0.02)


async def test_it_streams_and_stops_where_it_is_told_to(model: TorchModel, tmp_path: Path) -> None:
    method = make(tmp_path, noise=0.0)
    whole = (await method.answer(opened(method, model), CHAT)).text
    got = [item async for item in stream(method, opened(method, model), CHAT)]
    pieces = [item for item in got if isinstance(item, Delta)]
    assert assemble(pieces).text == whole
    assert len(pieces) > 2
    assert isinstance(got[-1], Answer)
    stop = whole[2:4]
    stopped = opened(method, model, sampling=replace_sampling(stop=(stop,)))
    found = [item async for item in stream(method, stopped, CHAT)]
    text = assemble([item for item in found if isinstance(item, Delta)]).text
    assert text == whole[: whole.index(stop)]


def replace_sampling(**fields: Any) -> Sampling:
    return Sampling(**{"max_tokens": 8, **fields})


async def test_it_chooses_among_labels_as_their_tokens_say(
    model: TorchModel, tmp_path: Path
) -> None:
    method = make(tmp_path, noise=0.0)
    labels = ("refund", "billing", "delivery", "refund the")
    found = await method.answer(
        opened(method, model, sampling=replace_sampling(choices=labels)), CHAT
    )
    assert found.text in labels
    (token,) = found.generation.tokens
    assert token.token == found.text
    assert token.logprob <= 0
    one = opened(
        method, model, sampling=replace_sampling(choices=("billing",)), ledger=MemoryLedger()
    )
    assert (await method.answer(one, CHAT)).text == "billing"
    assert one.totals.messages == 0, "there is nothing to ask"


async def test_at_a_temperature_it_draws_by_the_seed(model: TorchModel, tmp_path: Path) -> None:
    method = make(tmp_path, noise=0.0)

    async def drawn(seed: int, **more: Any) -> str:
        sampling = replace_sampling(temperature=2.0, seed=seed, **more)
        return (await method.answer(opened(method, model, sampling=sampling), CHAT)).text

    assert await drawn(1) == await drawn(1)
    assert len({await drawn(seed) for seed in range(4)}) > 1
    greedy = (await method.answer(opened(method, model), CHAT)).text
    assert await drawn(1, top_p=1e-6) == greedy


async def test_what_crosses_is_cut_and_has_the_noise_that_is_stated(
    model: TorchModel, tmp_path: Path
) -> None:
    ledger = MemoryLedger()
    method = make(tmp_path, noise=1.5, clip=2.0)
    await method.answer(opened(method, model, ledger=ledger), CHAT)
    ups = [e.message for e in ledger.entries() if e.direction == "up"]
    first = ups[0]
    assert isinstance(first, Forward)
    prompt = list(model.prompt(CHAT))
    seen = states.unpack_scaled(first.packed, first.count)
    from cosilo.models.base import Tokens

    (clean,) = await model.activations([Tokens(np.array(prompt, np.int32), len(prompt), ())], 2)
    np.testing.assert_allclose(seen[0], clean[0], rtol=0.02, atol=0.02)  # the same in every text
    lengths = np.linalg.norm(clean, axis=1, keepdims=True)
    cut = clean * np.minimum(1, 2.0 / lengths)
    noise = np.linalg.norm((seen - cut)[1:], axis=1)
    assert noise.mean() == pytest.approx(3.0, rel=0.1)
    assert noise.min() > 1.0
    for message in ups:
        assert isinstance(message, Forward)
        assert message.release is not None
        stated = message.release.mechanism
        assert isinstance(stated, RadialNoise)
        assert stated.eta == pytest.approx(model.width / 3.0)
        assert stated.vectors == message.count - (message is first)
        assert message.epsilon == stated.bound == pytest.approx(stated.vectors * 2 * 64 / 1.5)
        assert message.release.unit == "text"
    draws = {m.release.draw for m in ups if m.release is not None}
    assert len(draws) == len(ups)
    again = MemoryLedger()
    await method.answer(opened(method, model, ledger=again), CHAT)
    assert [e.message for e in again.entries() if e.direction == "up"] == ups, (
        "the same text says the same, so that it cannot be averaged"
    )
    other = MemoryLedger()
    elsewhere = make(tmp_path / "other", noise=1.5, clip=2.0)
    await elsewhere.answer(opened(elsewhere, model, ledger=other), CHAT)
    assert next(other.entries()).message != first


async def test_a_forgotten_thread_is_sent_again_with_the_noise_that_it_had(
    model: TorchModel, tmp_path: Path
) -> None:
    method = make(tmp_path, noise=0.3)
    kept = await method.answer(opened(method, model), CHAT)

    class Forgetful(Threads):
        def find(self, *arguments: Any) -> Any:
            return None

    ledger = MemoryLedger()
    session = opened(method, model, ledger=ledger, threads=Forgetful())
    assert (await method.answer(session, CHAT)).text == kept.text
    whole = [m for e in ledger.entries() if isinstance(m := e.message, Forward) and not m.thread]
    assert len(whole) > 2
    for a, b in pairwise(whole):
        assert b.packed.startswith(a.packed)


async def test_a_denoiser_brings_outputs_nearer_to_what_they_would_have_been(
    model: TorchModel, tmp_path: Path
) -> None:
    public = [f"the delivery {i} is about the refund of billing {i * 7} hello" for i in range(24)]
    plain = make(tmp_path, noise=0.7)
    prepared, session = await make(tmp_path, noise=0.7, denoise=24).prepare(
        opened(plain, model, public=public)
    )
    assert isinstance(prepared, Split)
    assert prepared.denoiser is not None
    assert prepared.clip is not None
    assert session.totals.messages == 48
    text = user("hello world, is the billing about the refund?")
    prompt = list(model.prompt(text))
    clean = await outputs(replace(prepared, noise=0.0, denoiser=None), session, model, prompt)
    noisy = await outputs(replace(prepared, denoiser=None), session, model, prompt)
    better = await outputs(prepared, session, model, prompt)
    assert np.square(better - clean)[1:].mean() < 0.9 * np.square(noisy - clean)[1:].mean()
    again, _ = await prepared.prepare(session)
    assert again == prepared, "what was learned stays"
    prepared.denoiser.save(tmp_path / "kept")
    back = Denoiser.load(tmp_path / "kept")
    np.testing.assert_array_equal(back.weights, prepared.denoiser.weights)
    with pytest.raises(StoreError, match="no denoiser"):
        Denoiser.load(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="denoise = 25 public texts, and the task has 24"):
        await make(tmp_path, denoise=25).prepare(session)


async def outputs(
    method: Split, session: Session, model: TorchModel, prompt: list[int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    from cosilo.strategies.split_thread import SplitThread

    point = await method._cut(model)  # type: ignore[arg-type]
    return await SplitThread(session.lm, model, point, open=1).go_on(prompt)  # type: ignore[arg-type]


async def test_what_cannot_work_is_refused_before_anything_is_sent(
    model: TorchModel, tmp_path: Path
) -> None:
    from white_box import tiny

    method = make(tmp_path)
    with pytest.raises(CapabilityError, match="needs activations"):
        opened(method, ScriptedModel())
    with pytest.raises(CapabilityError, match="needs states"):
        opened(method, model, exposes=Shows.TEXT)
    with pytest.raises(ConfigError, match=r"layers = 4 leaves nothing"):
        await make(tmp_path, layers=4).prepare(opened(method, model))
    for field in ("tools", "tool_choice", "response_format"):
        asked = opened(method, model, sampling=Sampling(**{field: "{}"}), ledger=MemoryLedger())
        with pytest.raises(RejectedError, match=field):
            await method.answer(asked, CHAT)
        assert asked.totals.messages == 0
    wider = tiny(4, layers=4, hidden=32)
    with pytest.raises(RejectedError, match="states of 64 numbers"):
        await method.answer(opened(method, model, large=wider), CHAT)
    long = opened(method, model, ledger=MemoryLedger())
    with pytest.raises(RejectedError, match="context"):
        await method.answer(long, user("word " * 600))
    assert long.totals.messages == 0


async def test_its_epsilon_is_none_of_a_record(model: TorchModel, tmp_path: Path) -> None:
    method = make(tmp_path)
    config = PrivacyConfig(book=tmp_path / "book", epsilon=1e9)
    session = open_session(
        DataOwner(model),
        LMOwner(model, EVERYTHING),
        method,
        account=PrivacyAccount(config, [Demonstration("1", user("x"), "y")], spender="s"),
    )
    with pytest.raises(PrivacyError, match="on which records"):
        await method.answer(session, CHAT)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"layers": -1}, "layers = -1"),
        ({"noise": -0.1}, "noise = -0.1"),
        ({"noise": float("nan")}, "noise = nan"),
        ({"clip": 0.0}, "clip = 0.0"),
        ({"denoise": -1}, "denoise = -1"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        strategies.create("split", **options)


async def test_behind_a_defence_that_cannot_read_states_nothing_is_sent(
    model: TorchModel, tmp_path: Path
) -> None:
    from cosilo.defences.pseudonyms import Pseudonym

    method, ledger = make(tmp_path), MemoryLedger()
    session = open_session(
        DataOwner(model),
        LMOwner(model, EVERYTHING),
        method,
        defences=[Pseudonym(detectors=("patterns",), key_file=tmp_path / "k")],
        ledger=ledger,
    )
    with pytest.raises(PrivacyError, match="cannot hide what is private in a Forward"):
        await method.answer(session, CHAT)
    assert not list(ledger.entries())
