"""The head learns, is calibrated, is the same for the same data, and survives its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cosilo.errors import ConfigError, DataError
from cosilo.models.encoder.head import TrainedHead, train


def cloud(
    n: int, *, classes: int = 3, noise: float = 0.6, seed: int = 0
) -> tuple[np.ndarray, list[str]]:
    """Unit vectors around one centre per class, and their labels."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, 16))
    y = rng.integers(classes, size=n)
    x = centres[y] / np.linalg.norm(centres[y], axis=1, keepdims=True)
    x = x + rng.normal(size=x.shape) * noise / 4 * 1.5
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x.astype(np.float32), [f"label {k}" for k in y]


def blank(n: int) -> list[str]:
    return ["same text"] * n


def log_loss(head: TrainedHead, x: np.ndarray, texts: list[str], y: list[str]) -> float:
    p = head.probabilities(x, texts)
    return float(-np.log(p[np.arange(len(y)), [head.labels.index(t) for t in y]]).mean())


def test_it_tells_classes_apart() -> None:
    x, y = cloud(300)
    head = train(x, blank(300), y, features="embedding")
    other, truth = cloud(300, seed=1)
    p = head.probabilities(other, blank(300))
    assert p.shape == (300, 3)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    right = np.mean([head.labels[i] == t for i, t in zip(p.argmax(axis=1), truth, strict=True)])
    assert right > 0.8
    assert head.validation is not None
    assert abs(head.validation.accuracy - right) < 0.08


def test_examples_count_by_their_weight() -> None:
    x, y = cloud(300)
    wrong = [f"label {(int(label[-1]) + 1) % 3}" for label in y]
    both, said = np.concatenate([x, x]), [*y, *wrong]

    def accuracy(weights: list[float] | None) -> float:
        head = train(both, blank(600), said, weights=weights, features="embedding")
        p = head.probabilities(x, blank(300))
        return float(np.mean([head.labels[i] == t for i, t in zip(p.argmax(1), y, strict=True)]))

    assert accuracy([1.0] * 300 + [0.01] * 300) > 0.8
    assert accuracy([0.01] * 300 + [1.0] * 300) < 0.2
    plain = train(x, blank(300), y, features="embedding")
    assert (
        plain.digest()
        == train(x, blank(300), y, weights=[1.0] * 300, features="embedding").digest()
    )


def test_its_confidence_is_its_accuracy_on_new_data() -> None:
    """Without the temperature this head is off by more: the second assertion says so."""
    x, y = cloud(250, noise=1.6)
    head = train(x, blank(250), y, features="embedding")
    other, truth = cloud(4000, noise=1.6, seed=1)
    p = head.probabilities(other, blank(4000))
    right = np.mean([head.labels[i] == t for i, t in zip(p.argmax(axis=1), truth, strict=True)])
    assert abs(p.max(axis=1).mean() - right) < 0.05
    for factor in (0.4, 2.5):
        bent = TrainedHead(head.labels, head.weights, head.bias, head.temperature * factor)
        assert log_loss(head, other, blank(4000), truth) < log_loss(bent, other, blank(4000), truth)


def test_two_classes_agree_with_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    x, y = cloud(200, classes=2)
    head = train(x, blank(200), y, features="embedding")
    assert head.validation is not None
    reference = LogisticRegression(C=head.validation.strength, tol=1e-6, max_iter=2000).fit(x, y)
    plain = TrainedHead(head.labels, head.weights, head.bias, 1.0)
    np.testing.assert_allclose(
        plain.probabilities(x, blank(200)), reference.predict_proba(x), atol=0.02
    )


def test_ngrams_are_used_where_they_help_and_not_where_they_do_not() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(120, 16)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    y = [("refund", "delivery")[i % 2] for i in range(120)]
    told = [f"please see to my {t} number {rng.integers(9)} now" for t in y]
    by_words = train(noise, told, y)
    assert by_words.validation is not None
    assert by_words.validation.features == "embedding+tfidf"
    assert by_words.validation.accuracy > 0.95
    x, y2 = cloud(120, noise=0.2)
    by_vector = train(x, [f"word{i} other{i}" for i in range(120)], y2)
    assert by_vector.validation is not None
    assert by_vector.validation.accuracy > 0.95


def test_same_data_same_head_and_another_seed_another_split() -> None:
    x, y = cloud(120)
    texts = [f"text {t} {i % 7}" for i, t in enumerate(y)]
    one, two = train(x, texts, y, seed=1), train(x, texts, y, seed=1)
    assert one.digest() == two.digest()
    assert train(x, texts, y, seed=2).temperature != one.temperature


@pytest.mark.parametrize("features", ["embedding", "embedding+tfidf"])
def test_a_saved_head_answers_the_same(tmp_path: Path, features: str) -> None:
    x, y = cloud(90)
    texts = [f"the {t} was late on day {i % 5}" for i, t in enumerate(y)]
    head = train(x, texts, y, features=features)  # type: ignore[arg-type]
    head.save(tmp_path / "head")
    back = TrainedHead.load(tmp_path / "head")
    assert back.digest() == head.digest()
    assert back.validation == head.validation
    new = [*texts[:20], "something else ünï \0"]
    vectors = np.concatenate([x[:20], x[:1]])
    np.testing.assert_array_equal(
        back.probabilities(vectors, new), head.probabilities(vectors, new)
    )


def test_no_head_in_the_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no trained head"):
        TrainedHead.load(tmp_path)
    x, y = cloud(30)
    train(x, blank(30), y, features="embedding").save(tmp_path)
    for held in (b"PK\x03\x04 no more", b""):
        (tmp_path / "head.npz").write_bytes(held)
        with pytest.raises(ConfigError, match="no trained head"):
            TrainedHead.load(tmp_path)


def test_a_pickle_in_its_place_is_not_run(tmp_path: Path) -> None:
    x, y = cloud(30)
    train(x, blank(30), y, features="embedding").save(tmp_path)
    arrays = np.array([print], dtype=object)
    np.savez(tmp_path / "head.npz", weights=arrays, bias=arrays, allow_pickle=True)
    with pytest.raises(ConfigError, match="no trained head"):
        TrainedHead.load(tmp_path)


def test_what_cannot_be_learnt_is_said() -> None:
    x, _ = cloud(30)
    with pytest.raises(DataError, match="no examples"):
        train(x[:0], [], [])
    with pytest.raises(DataError, match="same target"):
        train(x, blank(30), ["a"] * 30)
    with pytest.raises(DataError, match="different targets"):
        train(x, blank(30), [str(i) for i in range(30)])


def test_rare_classes_are_kept() -> None:
    x, y = cloud(40)
    y[0] = "only once"
    head = train(x, blank(40), y)
    assert "only once" in head.labels
    tiny = train(x[:2], blank(2), ["a", "b"])
    assert tiny.validation is None
    np.testing.assert_allclose(tiny.probabilities(x[:2], blank(2)).sum(axis=1), 1, atol=1e-5)


def test_a_large_set_is_searched_on_a_part_and_scored_on_all() -> None:
    x, y = cloud(2600)
    head = train(x, blank(2600), y, features="embedding")
    assert head.validation is not None
    assert head.validation.items == 2600


def test_no_texts_no_rows() -> None:
    x, y = cloud(30)
    assert train(x, blank(30), y).probabilities(x[:0], []).shape == (0, 3)
