"""What is computed on encrypted vectors, and what an answer says of the weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tenseal", reason="TenSEAL is not installed: pip install 'cosilo[ckks]'")

import tenseal.sealapi as seal

from cosilo.engines.ckks.head import EncryptedHead
from cosilo.engines.ckks.keys import SecretKeys
from cosilo.engines.ckks.layout import RING, SlotLayout
from cosilo.engines.ckks.seal import VECTOR_SCALE, WEIGHT_SCALE, loaded, saved

RNG = np.random.default_rng(1)
WEIGHTS = RNG.normal(size=(5, 6)) * 20
BIAS = RNG.normal(size=5)


@pytest.fixture(scope="module")
def keys() -> SecretKeys:
    return SecretKeys(SlotLayout(6, 5))


@pytest.fixture(scope="module")
def public(keys: SecretKeys) -> tuple[bytes, bytes]:
    return keys.public()


@pytest.fixture(scope="module")
def head(public: tuple[bytes, bytes]) -> EncryptedHead:
    return EncryptedHead(WEIGHTS, BIAS, *public)


def unit(count: int) -> Any:
    found = RNG.normal(size=(count, 6))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [1, 7])
def test_logits_are_those_in_clear(keys: SecretKeys, head: EncryptedHead, count: int) -> None:
    vectors = unit(count)
    found = keys.decrypt(head.logits(keys.encrypt(vectors), count), count)
    assert np.abs(found - vectors @ WEIGHTS.T - BIAS).max() <= 1e-6


def test_all_other_slots_are_empty(keys: SecretKeys, head: EncryptedHead) -> None:
    answer = loaded(seal.Ciphertext, keys._context, head.logits(keys.encrypt(unit(1)), 1))
    plain = seal.Plaintext()
    seal.Decryptor(keys._context, keys._secret).decrypt(answer, plain)
    slots = np.array(keys._encoder.decode_complex(plain))
    assert np.abs(slots[5:]).max() < 1e-6
    assert np.abs(slots.imag).max() < 1e-6


def test_without_the_secret_key_nothing_is_read(keys: SecretKeys, head: EncryptedHead) -> None:
    vectors = unit(1)
    with pytest.raises((RuntimeError, ValueError)):
        SecretKeys(SlotLayout(6, 5)).decrypt(keys.encrypt(vectors), 1)  # of another level, too
    other = SecretKeys(SlotLayout(6, 5)).decrypt(head.logits(keys.encrypt(vectors), 1), 1)
    assert np.abs(other - vectors @ WEIGHTS.T - BIAS).max() > 1


def second_half(context: Any, data: bytes) -> list[int]:
    """The first numbers of the half of a ciphertext that is multiplied with the secret key."""
    cipher = loaded(seal.Ciphertext, context, data)
    numbers = cipher.dyn_array()
    place = cipher.poly_modulus_degree() * cipher.coeff_modulus_size()
    return [numbers[place + i] for i in range(4)]


class Bare:
    """An evaluator that leaves out what makes an answer anew: rounding and, where told, zero."""

    def __init__(self, inner: Any, *, zero: bool) -> None:
        self._inner = inner
        self._zero = zero

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def add_inplace(self, into: Any, more: Any) -> None:
        if self._zero:
            self._inner.add_inplace(into, more)

    def rescale_to_next_inplace(self, cipher: Any) -> None: ...


def test_an_answer_gives_the_weights_away_unless_it_is_made_anew() -> None:
    """With one input, the product is the query's second half times the encoded weights, and a division
    of numbers by numbers gives these."""
    keys = SecretKeys(SlotLayout(1, 2))
    head = EncryptedHead(np.array([[3.25], [-7.0]]), np.zeros(2), *keys.public())
    query = keys.encrypt(np.array([[0.5]]))
    modulus = keys._context.first_context_data().parms().coeff_modulus()[0].value()
    asked = second_half(keys._context, query)

    def divided(answer: bytes) -> list[int]:
        told = second_half(keys._context, answer)
        return [pow(a, -1, modulus) * t % modulus for a, t in zip(asked, told, strict=True)]

    made_anew = divided(head.logits(query, 1))
    ((diagonal,), _) = head._plaintexts(1)
    weights = [diagonal.data(i) for i in range(4)]
    assert not set(made_anew) & set(weights)
    head._evaluator = Bare(head._evaluator, zero=False)
    assert divided(head.logits(query, 1)) == weights


def test_what_the_noise_holds_of_the_weights_is_rounded_off(
    keys: SecretKeys, public: tuple[bytes, bytes]
) -> None:
    """Of a head with the largest logits there may be."""
    weights = WEIGHTS / np.linalg.norm(WEIGHTS, axis=1, keepdims=True) * 255
    head = EncryptedHead(weights, np.zeros(5), *public)
    head._evaluator = Bare(head._evaluator, zero=True)
    answer = loaded(seal.Ciphertext, keys._context, head.logits(keys.encrypt(unit(1)), 1))
    plain = seal.Plaintext()
    seal.Decryptor(keys._context, keys._secret).decrypt(answer, plain)
    slots = np.array(keys._encoder.decode_complex(plain))
    # Weights and vectors are real, so what is imaginary is noise: a half of it, in the scale of slots.
    scale = VECTOR_SCALE * WEIGHT_SCALE
    noise = np.sqrt(2 * (slots.imag**2).mean() / RING) * scale
    step = keys._context.first_context_data().parms().coeff_modulus()[-1].value()
    assert noise < step * 2**-10


@pytest.mark.parametrize("cut", [0, 10, 100_000, -1])
def test_what_is_no_ciphertext_is_refused(keys: SecretKeys, head: EncryptedHead, cut: int) -> None:
    data = keys.encrypt(unit(1))
    with pytest.raises((RuntimeError, ValueError)):
        head.logits(data[:cut], 1)


def test_ciphertexts_of_another_level_or_scale_are_refused(
    keys: SecretKeys, head: EncryptedHead
) -> None:
    query = keys.encrypt(unit(1))
    answer = head.logits(query, 1)
    with pytest.raises(ValueError, match="another form"):
        head.logits(answer, 1)
    with pytest.raises(ValueError, match="another form"):
        keys.decrypt(query, 1)
    scaled = loaded(seal.Ciphertext, keys._context, query)
    scaled.scale = VECTOR_SCALE * 2
    with pytest.raises(ValueError, match="another scale"):
        head.logits(saved(scaled), 1)


def test_keys_that_are_none_or_others_than_needed_are_refused(
    keys: SecretKeys, public: tuple[bytes, bytes]
) -> None:
    encrypting, turning = public
    for given in (
        (b"", turning),
        (encrypting, turning[: len(turning) // 2]),
        (turning, encrypting),
    ):
        with pytest.raises((RuntimeError, ValueError)):
            EncryptedHead(WEIGHTS, BIAS, *given)
    for steps in ((1, 2), (1, 2, 5), (1, 2, 3, 4)):  # six inputs are turned by 1, 2 and 3
        layout: Any = SimpleNamespace(steps=steps)
        with pytest.raises(ValueError, match="turns need"):
            EncryptedHead(WEIGHTS, BIAS, *SecretKeys(layout).public())
