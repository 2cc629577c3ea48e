from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cosilo.errors import ConfigError
from cosilo.privacy.accountant import secret_noise
from cosilo.privacy.secret_key import KeyedRandom, secret_key

KEY = bytes(range(32))


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.key"
    key = secret_key(path)
    assert len(key) == 32
    assert secret_key(path) == key
    assert path.stat().st_mode & 0o077 == 0
    assert [p.name for p in path.parent.iterdir()] == ["a.key"]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    secret_key(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        secret_key(path)


def test_key_and_context_fix_the_draws() -> None:
    def draws(key: bytes, context: bytes) -> list[float]:
        source = KeyedRandom(key, context)
        source.seed(7)
        return [source.random() for _ in range(5)]

    assert draws(KEY, b"a") == draws(KEY, b"a")
    assert len({*draws(KEY, b"a"), *draws(KEY, b"b"), *draws(KEY[::-1], b"a")}) == 15


@pytest.mark.parametrize("bits", [1, 53, 256, 257, 1000])
def test_bits_are_as_many_as_asked_for_and_all_used(bits: int) -> None:
    source = KeyedRandom(KEY, b"bits")
    seen = 0
    for _ in range(64):
        drawn = source.getrandbits(bits)
        assert 0 <= drawn < 1 << bits
        seen |= drawn
    assert seen == (1 << bits) - 1


def test_keyed_noise_is_gaussian_and_repeats() -> None:
    from scipy.stats import kstest

    drawn = secret_noise(4000, 3.0, KeyedRandom(KEY, b"noise"))
    assert kstest(drawn / 3.0, "norm").pvalue > 1e-6
    assert np.array_equal(drawn, secret_noise(4000, 3.0, KeyedRandom(KEY, b"noise")))
