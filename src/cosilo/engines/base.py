"""What a joint run is: a program that parties compute on arrays of theirs that no other sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from cosilo.errors import ConfigError

Array = np.ndarray[Any, np.dtype[Any]]
LM_OWNER: Final = 0
DATA_OWNER: Final = 1
HELPER: Final = 2
"""Ranks: whose process is which. The helper of ABY3 brings nothing and is told nothing."""

_PARTIES = {"aby3": 3, "cheetah": 2, "semi2k": 2}
_SHARES = {"aby3": 2, "cheetah": 1, "semi2k": 1}  # elements of the field that one party keeps
_ROOM = 8  # bits above the point of a product, the sign's among them: less holds no activation


@dataclass(frozen=True)
class Program:
    """What is computed: a module of `spu/inside/programs`, and the sizes that its `build` is given,
    which all parties know."""

    name: str
    shape: Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """By which protocol, in which ring.

    Attributes:
        protocol: "aby3" (three parties, honest majority), "cheetah" (two parties, no dealer), or
            "semi2k" (two parties; SPU has its first party deal, who can then read everything).
        field: bits of the ring.
        bits: of them, those after the point.
        insecure: take a protocol all the same that protects nothing.
    """

    protocol: Literal["aby3", "cheetah", "semi2k"] = "aby3"
    field: Literal[32, 64, 128] = 64
    bits: int = 18
    insecure: bool = False

    @property
    def parties(self) -> int:
        return _PARTIES[self.protocol]

    def require(self) -> None:
        """Refuse what cannot be computed, or would protect nothing.

        Raises:
            ConfigError: no such protocol or field, an unsafe dealer, or too small a field.
        """
        if self.protocol not in _PARTIES:
            raise ConfigError(
                f"no protocol {self.protocol!r}; known: {', '.join(sorted(_PARTIES))}"
            )
        if self.protocol == "semi2k" and not self.insecure:
            raise ConfigError(
                "with 'semi2k' one of the two owners deals the randomness, and can read everything: "
                "take 'cheetah' (two parties) or 'aby3' (three); insecure = true runs it all the "
                "same, to compare costs"
            )
        if self.field not in (32, 64, 128):
            raise ConfigError(f"no field of {self.field} bits; known: 32, 64, 128")
        if self.bits < 1 or 2 * self.bits + _ROOM > self.field:
            raise ConfigError(
                f"products of numbers with {self.bits} bits after the point do not fit into a field of "
                f"{self.field} bits: at most {(self.field - _ROOM) // 2} leave room for them; take a "
                "larger field"
            )

    def memory(self, elements: int) -> int:
        """About how many bytes one party needs for arguments of so many elements in all: its
        shares, and as much again while they are worked on."""
        return _PROCESS + 2 * _SHARES[self.protocol] * (self.field // 8) * elements


_PROCESS = 400 << 20


class PartySpent(NamedTuple):
    """What one party spent on a stretch of a run.

    Attributes:
        bytes_out: payload that it sent on the links to the other parties, as the proxies counted it.
        messages: how many of these were messages of the protocol: no fewer than its rounds.
        cpu_seconds: of its engine process.
    """

    bytes_out: int = 0
    messages: int = 0
    cpu_seconds: float = 0.0

    def __add__(self, other: object) -> PartySpent:
        if not isinstance(other, PartySpent):
            return NotImplemented
        return PartySpent(
            self.bytes_out + other.bytes_out,
            self.messages + other.messages,
            self.cpu_seconds + other.cpu_seconds,
        )


@dataclass(frozen=True)
class JointResult:
    """One computation that came to its end.

    Attributes:
        outputs: what came out, where this side is told it; else empty.
        spent: by the parties that ran on this side, by rank.
    """

    outputs: tuple[Array, ...]
    spent: Mapping[int, PartySpent] = field(default_factory=dict)
