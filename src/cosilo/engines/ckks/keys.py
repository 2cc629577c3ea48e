"""The data owner's keys: vectors are encrypted with them, and logits decrypted."""

from __future__ import annotations

import numpy as np
import tenseal.sealapi as seal

from cosilo.engines.ckks.layout import Floats, SlotLayout
from cosilo.engines.ckks.seal import (
    VECTOR_SCALE,
    WEIGHT_SCALE,
    context,
    element,
    loaded,
    require_like,
    saved,
)


class SecretKeys:
    """Made when it is; the secret key cannot be had from it."""

    def __init__(self, layout: SlotLayout) -> None:
        self._layout = layout
        self._context = context()
        self._encoder = seal.CKKSEncoder(self._context)
        self._maker = seal.KeyGenerator(self._context)
        self._secret = self._maker.secret_key()

    def public(self) -> tuple[bytes, bytes]:
        """The key that encrypts, and those that turn ciphertexts."""
        public, turning = seal.PublicKey(), seal.GaloisKeys()
        self._maker.create_public_key(public)
        self._maker.create_galois_keys([element(s) for s in self._layout.steps], turning)
        return saved(public), saved(turning)

    def encrypt(self, vectors: Floats) -> bytes:
        plain, cipher = seal.Plaintext(), seal.Ciphertext()
        self._encoder.encode(self._layout.spread(vectors).tolist(), VECTOR_SCALE, plain)
        seal.Encryptor(self._context, self._secret).encrypt_symmetric(plain, cipher)
        return saved(cipher)

    def decrypt(self, data: bytes, vectors: int) -> Floats:
        """The logits of so many vectors.

        Raises:
            RuntimeError, ValueError: the bytes are no answer.
        """
        cipher, plain = loaded(seal.Ciphertext, self._context, data), seal.Plaintext()
        modulus = self._context.first_context_data().parms().coeff_modulus()[-1].value()
        scale = VECTOR_SCALE * WEIGHT_SCALE / modulus
        require_like(cipher, level=self._context.last_parms_id(), scale=scale)
        seal.Decryptor(self._context, self._secret).decrypt(cipher, plain)
        slots = np.array(self._encoder.decode_double(plain))
        if not np.isfinite(slots).all():
            raise ValueError("no numbers")
        return self._layout.logits(slots, vectors)
