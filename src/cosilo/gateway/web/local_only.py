"""Whether a request may leave for a large model. Its key, its point, a header or a field of its body
can say that it may not; none of them can allow what another forbids.
"""

from __future__ import annotations

from collections.abc import Mapping

from cosilo.gateway.refusals import RequestError
from cosilo.gateway.web.http import Scope

FIELD = "cosilo_local_only"
_HEADER = b"x-cosilo-local-only"
_SAID = {b"": False, b"false": False, b"0": False, b"true": True, b"1": True}


def said_in_header(scope: Scope) -> bool:
    """Whether the header `x-cosilo-local-only` forbids it.

    Raises:
        RequestError: it is neither true nor false.
    """
    said = [value for name, value in scope["headers"] if name == _HEADER]
    # All are read before one is believed: none can be wrong unnoticed, or outdo another.
    return any([_read(value.strip().lower(), _HEADER.decode()) for value in said])


def said_in_body(others: Mapping[str, bytes]) -> tuple[bool, Mapping[str, bytes]]:
    """Whether the field `cosilo_local_only` among these forbids it, and the other fields.

    Raises:
        RequestError: it is neither true nor false.
    """
    if FIELD not in others:
        return False, others
    rest = {name: value for name, value in others.items() if name != FIELD}
    return _read(others[FIELD], FIELD), rest


def _read(value: bytes, name: str) -> bool:
    try:
        return _SAID[value]
    except KeyError:
        raise RequestError(f"{name} must be true or false", param=name) from None
