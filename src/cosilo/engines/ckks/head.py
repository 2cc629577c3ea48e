"""The LM owner's head, multiplied with vectors that it cannot read.

What comes out of the multiplication is a sum of the data owner's own ciphertexts, times weights: by
itself it gives the weights away, whatever the logits say. One answer holds all equations that it takes.

    + an encryption of zero, by the public key     its second half says nothing of the weights
    ÷ q₂, rounded                                  what the noise held of them is below 2⁻¹⁰ of a step,
                                                   beside a rounding error of about 20 steps

(the idea of de Castro, Juvekar and Vaikuntanathan, "Fast Vector Oblivious Linear Evaluation from Ring
Learning with Errors", eprint 2020/685). It holds against a data owner whose keys and vectors are what
they should be. One who sends others can have up to `RING` numbers about the weights in an answer.
"""

from __future__ import annotations

from typing import Any

import tenseal.sealapi as seal

from cosilo.engines.ckks.layout import Floats, SlotLayout, require_room
from cosilo.engines.ckks.seal import (
    VECTOR_SCALE,
    WEIGHT_SCALE,
    context,
    element,
    loaded,
    require_like,
    saved,
)


class EncryptedHead:
    """A head, and the keys of one data owner.

    Args:
        weights: (outputs, inputs); bias: (outputs,).
        public, turning: as `SecretKeys.public` gives them.

    Raises:
        ValueError: `require_room` refuses it; the keys are others than its turns need, or more.
        RuntimeError: the keys are none.
    """

    def __init__(self, weights: Floats, bias: Floats, public: bytes, turning: bytes) -> None:
        require_room(weights, bias)
        self.layout = SlotLayout(weights.shape[1], len(weights))
        self._weights, self._bias = weights, bias
        self._context = context()
        self._encoder = seal.CKKSEncoder(self._context)
        self._evaluator = seal.Evaluator(self._context)
        self._public = loaded(seal.PublicKey, self._context, public)
        self._turning = loaded(seal.GaloisKeys, self._context, turning)
        needed = [element(step) for step in self.layout.steps]
        if self._turning.size() != len(needed) or not all(map(self._turning.has_key, needed)):
            raise ValueError("not the keys that this head's turns need")
        self._plain: dict[int, tuple[list[Any], Any]] = {}

    def logits(self, data: bytes, vectors: int) -> bytes:
        """Those of the encrypted `vectors`.

        Raises:
            RuntimeError, ValueError: the bytes are no such vectors, or do not fit the keys.
        """
        cipher = loaded(seal.Ciphertext, self._context, data)
        require_like(cipher, level=self._context.first_parms_id(), scale=VECTOR_SCALE)
        diagonals, bias = self._plaintexts(vectors)
        turned = [cipher, *(self._turned(cipher, step) for step in range(1, self.layout.baby))]
        total = self._sum(turned, diagonals[: self.layout.baby])
        for first in range(self.layout.baby, self.layout.inputs, self.layout.baby):
            part = self._sum(turned, diagonals[first : first + self.layout.baby])
            self._evaluator.add_inplace(total, self._turned(part, first))
        self._evaluator.add_plain_inplace(total, bias)
        zero = seal.Ciphertext()
        seal.Encryptor(self._context, self._public).encrypt_zero(zero)
        zero.scale = total.scale
        self._evaluator.add_inplace(total, zero)
        self._evaluator.rescale_to_next_inplace(total)
        return saved(total)

    def _sum(self, turned: list[Any], diagonals: list[Any]) -> Any:
        found, *products = map(self._product, turned, diagonals)  # the last step may be shorter
        for product in products:
            self._evaluator.add_inplace(found, product)
        return found

    def _product(self, cipher: Any, plain: Any) -> Any:
        found = seal.Ciphertext()
        self._evaluator.multiply_plain(cipher, plain, found)
        return found

    def _turned(self, cipher: Any, step: int) -> Any:
        found = seal.Ciphertext()
        self._evaluator.rotate_vector(cipher, step, self._turning, found)
        return found

    def _plaintexts(self, vectors: int) -> tuple[list[Any], Any]:
        """The diagonals and the bias for so many vectors; the last ones are kept."""
        if vectors not in self._plain:
            layout = self.layout
            diagonals = [
                self._encoded(layout.diagonal(self._weights, i, vectors), WEIGHT_SCALE)
                for i in range(layout.inputs)
            ]
            bias = layout.at_outputs(self._bias, vectors)
            self._plain = {vectors: (diagonals, self._encoded(bias, VECTOR_SCALE * WEIGHT_SCALE))}
        return self._plain[vectors]

    def _encoded(self, slots: Floats, scale: float) -> Any:
        plain = seal.Plaintext()
        level = self._context.first_parms_id()
        self._encoder.encode(slots.tolist(), level, scale, plain)
        return plain
