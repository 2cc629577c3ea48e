"""Parameters of the scheme, and SEAL's objects as bytes. Loads TenSEAL: only in a process apart.

    q₁ ≈ 2⁵⁶   what an answer is read by: 2⁴⁶ for 1, so logits up to 2⁸ leave a spare bit
    q₂ ≈ 2⁵⁴   divided off at the end, with all that the noise says of the weights (see `head.py`)
    p  ≈ 2⁶⁰   for turning alone

170 bits in a ring of 8,192: below the 218 that the HomomorphicEncryption.org standard allows for 128
bits of security, which SEAL checks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import tenseal.sealapi as seal

from cosilo.engines.ckks.layout import RING

VECTOR_SCALE = 2.0**70
"""What 1 is in a vector: so large that all of a vector's own noise is rounded off at the end."""

WEIGHT_SCALE = 2.0**30

_BITS = (56, 54, 60)


def context() -> Any:
    parms = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    parms.set_poly_modulus_degree(RING)
    parms.set_coeff_modulus(seal.CoeffModulus.Create(RING, list(_BITS)))
    found = seal.SEALContext(parms, True, seal.SEC_LEVEL_TYPE.TC128)
    if not found.parameters_set():
        raise ValueError(found.parameters_error_message())
    return found


def element(step: int) -> int:
    """The automorphism that turns slots by `step`."""
    return pow(3, step, 2 * RING)


def saved(thing: Any) -> bytes:
    """`thing` as SEAL writes it: into a file, so into one that is in memory and has no name."""
    return _by_file(b"", thing.save)


def loaded(kind: Callable[[], Any], context: Any, data: bytes) -> Any:
    """What `saved` wrote, checked by SEAL to be valid for `context`.

    Raises:
        RuntimeError, ValueError: it is not.
    """
    thing = kind()
    _by_file(data, lambda path: thing.load(context, path))
    return thing


def require_like(cipher: Any, *, level: Any, scale: float) -> None:
    """Refuse a ciphertext of another level, size or scale.

    Raises:
        ValueError: it is one.
    """
    same_scale = abs(cipher.scale / scale - 1) < 1e-9
    if cipher.size() != 2 or not cipher.is_ntt_form() or list(cipher.parms_id()) != list(level):
        raise ValueError("a ciphertext of another form")
    if not same_scale:
        raise ValueError("a ciphertext of another scale")


def _by_file(data: bytes, work: Callable[[str], None]) -> bytes:
    fd = os.memfd_create("seal", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        work(f"/proc/self/fd/{fd}")
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)
