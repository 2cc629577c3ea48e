"""The classifier answers with calibrated labels, gathers calls into batches, and says why it cannot."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from cosilo.errors import CatalogError, ConfigError, DataError, ModelError, RejectedError
from cosilo.models import catalog
from cosilo.models.base import Access, Classifier, Embedder, TextModel, Trainable, models
from cosilo.models.encoder.classifier import ClassifierModel
from cosilo.models.encoder.encoder import MAX_CHARACTERS, Embedded, Encoder
from cosilo.models.encoder.head import TrainedHead
from cosilo.registry import Loads
from cosilo.testing import ModelContract
from cosilo.types import Demonstration, Generation, Sampling, Turn, last_user, user

LABELS = ("billing", "delivery", "refund")
SECRET = "Ottilie Katzenstein"
real = pytest.mark.models


class Letters:
    """Stands in for the encoder: letter counts as the vector. Knows its batches."""

    threads = 1
    folder = Path("letters")
    identity = "letters"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.fail: Exception | None = None
        self.seconds = 0.0  # that encoding takes, a word
        self.begun = threading.Event()
        self.go: threading.Event | None = None

    def embed(self, texts: Sequence[str]) -> Embedded:
        self.batches.append(len(texts))
        if self.go is not None:
            self.begun.set()
            self.go.wait(10)
        if self.fail is not None:
            raise self.fail
        rows = np.array(
            [[t.lower().count(c) + 0.1 for c in "abcdefghijklmnopqrstuvwxyz"] for t in texts]
        )
        rows = rows.reshape(len(texts), 26)
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        took = tuple(self.seconds * len(t.split()) for t in texts)
        return Embedded(rows.astype(np.float32), tuple(len(t.split()) for t in texts), took, took)

    def close(self) -> None: ...


def examples(n: int = 60) -> list[Demonstration]:
    return [
        Demonstration(f"e{i}", user(f"message {i} is about {LABELS[i % 3]}"), LABELS[i % 3])
        for i in range(n)
    ]


@cache
def head() -> TrainedHead | None:
    return ClassifierModel(Letters()).fit(examples()).head  # type: ignore[arg-type]


def trained(encoder: object = None) -> ClassifierModel:
    return ClassifierModel(encoder or Letters(), head=head())  # type: ignore[arg-type]


class TestClassifierModel(ModelContract):
    def model(self) -> TextModel:
        return trained()

    def loads(self) -> Loads:
        return models.loads("classifier")


def test_it_is_what_strategies_ask_for() -> None:
    model = ClassifierModel(Letters())  # type: ignore[arg-type]
    assert isinstance(model, TextModel)
    assert isinstance(model, Classifier)
    assert isinstance(model, Embedder)
    assert isinstance(model, Trainable)
    assert model.labels == ()


async def test_the_reply_is_the_label_with_the_probability_of_each() -> None:
    model = trained()
    reply = await model.generate(user("it is about refund"), Sampling())
    (token,) = reply.tokens
    assert reply.text == token.token == "refund"
    assert dict(token.top).keys() == set(LABELS)
    assert token.top[0] == ("refund", token.logprob)
    assert sum(math.exp(p) for _, p in token.top) == pytest.approx(1, abs=1e-5)
    row = model.probabilities(["it is about refund"])[0]
    assert math.exp(token.logprob) == pytest.approx(row[model.labels.index("refund")], abs=1e-5)
    assert reply.prompt_tokens == 4
    assert reply.seconds > 0


async def test_a_reply_takes_what_encoding_its_own_text_took() -> None:
    """Whoever encoded it: a point is no quicker for coming after another."""
    encoder = Letters()
    model = trained(encoder)
    encoder.seconds = 3.0
    short, long = await asyncio.gather(
        model.generate(user("one two"), Sampling()), model.generate(user("a b c d e"), Sampling())
    )
    for reply, least in ((short, 6.0), (long, 15.0)):
        assert least < reply.seconds < least + 2
        assert least < reply.cpu_seconds < least + 2


def test_identity_is_the_content_of_the_encoder_too(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("model.onnx", "tokenizer.json"):
        (folder / name).write_bytes(b"weights")
    before = ClassifierModel(Encoder(folder), head=head())
    assert before.identity == ClassifierModel(Encoder(folder), head=head()).identity
    (folder / "model.onnx").write_bytes(b"Weights")
    after = ClassifierModel(Encoder(folder), head=head())
    assert after.identity != before.identity
    # What was recorded when only the name counted is still found.
    assert after.former_identity == f"classifier:mine:{head().digest()}"


async def test_only_the_last_user_turn_counts() -> None:
    model = trained()
    chat = (
        Turn("system", "billing billing"),
        Turn("user", "about billing"),
        Turn("assistant", "billing"),
        Turn("user", "about delivery"),
        Turn("assistant", "billing"),
    )
    reply = await model.generate(chat, Sampling())
    assert reply.text == "delivery"


async def test_choices_rule_labels_out() -> None:
    model = trained()
    reply = await model.generate(
        user("it is about refund"), Sampling(choices=("billing", "delivery", "unknown"))
    )
    assert reply.text in ("billing", "delivery")
    assert sum(math.exp(p) for _, p in reply.tokens[0].top) == pytest.approx(1)
    with pytest.raises(RejectedError, match="none of the classifier's 3 labels"):
        await model.generate(user("x"), Sampling(choices=("a",)))


async def test_calls_at_once_are_one_batch_and_those_behind_it_the_next() -> None:
    encoder = Letters()
    model = trained(encoder)
    encoder.batches.clear()
    encoder.go = threading.Event()
    ask = [asyncio.create_task(model.generate(user(f"about {x}"), Sampling())) for x in LABELS]
    await asyncio.to_thread(encoder.begun.wait, 10)
    ask += [asyncio.create_task(model.generate(user("about refund"), Sampling())) for _ in "12345"]
    await asyncio.sleep(0)
    encoder.go.set()
    replies = await asyncio.gather(*ask)
    assert [r.text for r in replies] == [*LABELS, *["refund"] * 5]
    assert encoder.batches == [3, 5]


async def test_one_who_leaves_does_not_stop_the_batch() -> None:
    encoder = Letters()
    model = trained(encoder)
    encoder.go = threading.Event()
    gone = asyncio.create_task(model.generate(user("about refund"), Sampling()))
    stays = asyncio.create_task(model.generate(user("about billing"), Sampling()))
    await asyncio.to_thread(encoder.begun.wait, 10)
    gone.cancel()
    encoder.go.set()
    assert (await stays).text == "billing"
    assert (await model.generate(user("about delivery"), Sampling())).text == "delivery"


async def test_a_failure_is_a_model_error_without_the_text_and_the_next_call_works() -> None:
    encoder = Letters()
    model = trained(encoder)
    encoder.fail = RuntimeError(SECRET)
    results = await asyncio.gather(
        *(model.generate(user(SECRET), Sampling()) for _ in range(3)), return_exceptions=True
    )
    for result in results:
        assert isinstance(result, ModelError)
        assert SECRET not in str(result)
    encoder.fail = None
    assert (await model.generate(user("about billing"), Sampling())).text == "billing"


async def test_untrained_it_says_so() -> None:
    model = ClassifierModel(Letters())  # type: ignore[arg-type]
    with pytest.raises(RejectedError, match="not trained"):
        await model.generate(user("x"), Sampling())
    with pytest.raises(RejectedError, match="not trained"):
        model.probabilities(["x"])
    assert model.embed(["x"]).shape == (1, 26)


def test_fit_leaves_the_receiver_and_refuses_what_it_cannot_learn() -> None:
    model = ClassifierModel(Letters())  # type: ignore[arg-type]
    assert model.fit(examples()).labels == LABELS
    assert model.labels == ()
    with pytest.raises(DataError, match="no examples"):
        model.fit([])
    with pytest.raises(DataError, match="same target"):
        model.fit(examples()[::3])
    with pytest.raises(DataError, match="has a target"):
        model.fit([Demonstration("e", user("x"), "")])


def test_identity_follows_the_training() -> None:
    one, two = (ClassifierModel(Letters()).fit(examples(n)) for n in (60, 30))  # type: ignore[arg-type]
    assert one.identity != two.identity
    assert one.identity == trained().identity


def test_it_works_in_one_loop_after_another() -> None:
    model = trained()

    async def ask() -> Generation:
        return await model.generate(user("about refund"), Sampling())

    assert asyncio.run(ask()).text == asyncio.run(ask()).text == "refund"


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"model\.onnx"):
        Encoder(tmp_path)
    with pytest.raises(ConfigError, match="threads"):
        Encoder(tmp_path, threads=0)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(catalog.path("minilm-int8"))


@real
def test_vectors_know_what_is_alike(encoder: Encoder) -> None:
    v = encoder.embed(["A man is eating food.", "Someone eats a meal.", "The stock fell."]).vectors
    assert v.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(v, axis=1), 1, atol=1e-5)
    assert v[0] @ v[1] > 0.5 > 0.2 > v[0] @ v[2]


@real
def test_a_vector_is_the_same_alone_and_in_any_batch() -> None:
    texts = [f"sentence {'very ' * (i % 9)}number {i}" for i in range(40)]
    together = Encoder().embed(texts).vectors
    alone = np.concatenate([Encoder().embed([t]).vectors for t in texts[:3]])
    np.testing.assert_array_equal(together[:3], alone)


@real
def test_a_short_text_is_not_padded_to_a_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, shapes = Encoder(), []
    read = encoder._pooled
    monkeypatch.setattr(
        encoder, "_pooled", lambda some: shapes.append([len(w) for w in some]) or read(some)
    )
    encoder.embed([*(f"yes {i}" for i in range(20)), "so it is " * 40, "and so it was " * 32])
    assert sorted(map(len, shapes)) == [2, 4, 16]
    assert all(max(lengths) <= 1.5 * min(lengths) + 8 for lengths in shapes)


@real
def test_known_texts_are_not_run_again_and_memory_is_bounded() -> None:
    encoder = Encoder(remember=3)
    first = encoder.embed(["a", "b", "a"]).vectors
    encoder._pooled = None  # type: ignore[assignment,method-assign] # any run would fail now
    np.testing.assert_array_equal(encoder.embed(["b", "a"]).vectors, first[[1, 0]])
    del encoder._pooled  # type: ignore[attr-defined]
    encoder.embed(["c", "d", "e", "f"])
    assert len(encoder._known) == 3


@real
def test_a_megabyte_is_read_in_part(monkeypatch: pytest.MonkeyPatch, encoder: Encoder) -> None:
    monkeypatch.setattr("cosilo.models.encoder.encoder.MAX_WINDOWS", 2)
    start, middle = "start " * 254, "middle " * 150_000
    last = (MAX_CHARACTERS - len(start)) // len("middle ") % 254
    first_and_last = encoder.embed([start + "middle " * last])
    huge = encoder.embed([start + middle])
    assert huge.tokens == first_and_last.tokens == (256 + last + 2,)
    np.testing.assert_array_equal(huge.vectors, first_and_last.vectors)


@real
def test_odd_texts_have_vectors(encoder: Encoder) -> None:
    v = encoder.embed(["", "\0\0", "\ud800 broken", "ünï 漢字 🙂", " \n"]).vectors
    assert np.isfinite(v).all()
    assert v.shape == (5, 384)


@real
def test_a_remembered_text_states_what_encoding_it_took() -> None:
    encoder = Encoder()
    first = encoder.embed(["a short text", "a text that is a good deal longer " * 20])
    again = encoder.embed(["a text that is a good deal longer " * 20, "new", "a short text"])
    assert again.seconds[0] == first.seconds[1] > first.seconds[0] == again.seconds[2] > 0
    assert again.cpu_seconds[0] == first.cpu_seconds[1] > 0
    encoder.close()


@real
async def test_two_heads_on_one_encoder_take_the_same_time() -> None:
    encoder = Encoder()
    lessons = [Demonstration(str(i), user(f"{w} {i}"), w) for i in range(8) for w in ("yes", "no")]
    chat = user("a question of some length that neither has read " * 10)
    untaught = ClassifierModel(encoder)
    replies = [
        await untaught.fit(lessons, seed=seed).generate(chat, Sampling()) for seed in (0, 1, 2)
    ]
    encoded = encoder.embed([last_user(chat)])
    assert all(reply.seconds >= encoded.seconds[0] for reply in replies)
    encoder.close()


@real
async def test_the_real_thing_learns_from_a_plan(tmp_path: Path) -> None:
    model = models.create("classifier")
    assert isinstance(model, ClassifierModel)
    assert model.access is Access.LOGPROBS
    phrases = {
        "refund": ["I want my money back", "please reimburse me", "return the payment to my card"],
        "delivery": ["where is my parcel", "the courier never came", "my package is late"],
    }
    demonstrations = [
        Demonstration(f"{label}{i}{j}", user(f"{'Hello, ' * j}{phrase}"), label)
        for label, several in phrases.items()
        for i, phrase in enumerate(several)
        for j in range(3)
    ]
    taught = model.fit(demonstrations)
    reply = await taught.generate(user("The shipment has still not arrived."), Sampling())
    assert reply.text == "delivery"
    assert reply.cpu_seconds > 0
    taught.save(tmp_path / "head")
    again = models.create("classifier", head=tmp_path / "head")
    assert (
        await again.generate(user("The shipment has still not arrived."), Sampling())
    ).tokens == (reply.tokens)
    await taught.close()
    await again.close()
