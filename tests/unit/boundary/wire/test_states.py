"""States keep their direction in two bytes a number, and no bytes pass for states that are none."""

from __future__ import annotations

import numpy as np
import pytest

from cosilo.boundary.wire import states
from cosilo.errors import UnexpectedReplyError


def test_directions_survive_and_lengths_do_not() -> None:
    rng = np.random.default_rng(0)
    given = rng.normal(size=(5, 96)).astype(np.float32) * np.logspace(-6, 6, 5)[:, None]
    given[:, 3] *= 500  # as language models have it
    found = states.unpack(states.pack(given.astype(np.float32)), 5)
    np.testing.assert_allclose(np.sqrt((found**2).mean(axis=1)), 1.0, rtol=1e-3)
    cosine = (found * given).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(given, axis=1)
    np.testing.assert_allclose(cosine, 1.0, atol=1e-6)
    assert len(states.pack(given.astype(np.float32))) == 5 * 96 * 2


def test_a_state_of_zeros_stays_one() -> None:
    assert not states.unpack(states.pack(np.zeros((2, 8), np.float32)), 2).any()


@pytest.mark.parametrize(
    ("packed", "count"), [(b"", 1), (b"\0" * 7, 1), (b"\0" * 8, 3), (b"\0" * 8, 0)]
)
def test_bytes_that_are_not_as_many_states_are_refused(packed: bytes, count: int) -> None:
    with pytest.raises(UnexpectedReplyError, match="hidden states"):
        states.unpack(packed, count)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    packed = np.array([[1.0, value]], "<f2").tobytes()
    with pytest.raises(UnexpectedReplyError, match="no number"):
        states.unpack(packed, 1)


@pytest.mark.parametrize(
    ("scale", "value"),
    [(np.nan, 1.0), (np.inf, 0.0), (1.0, np.nan), (0.0, np.inf), (3e38, 6e4), (-1.0, 1.0)],
)
def test_what_is_no_number_is_refused_with_its_length_too(scale: float, value: float) -> None:
    packed = np.array([scale], "<f4").tobytes() + np.array([1.0, value], "<f2").tobytes()
    with pytest.raises(UnexpectedReplyError, match="no number"):
        states.unpack_scaled(packed, 1)
