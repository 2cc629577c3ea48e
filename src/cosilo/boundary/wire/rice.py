"""Numbers ≥ 0 as bits, with nothing beside them but one parameter: for messages too short for a table.

Rice's code (Rice and Plaunt 1971) of a number v with parameter r: v >> r in unary, then its r low bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

LARGEST = 15
"""The largest parameter."""


def parameter(numbers: Sequence[int]) -> int:
    """The one that makes `numbers` shortest, or nearly so, of 0 to `LARGEST`: about the logarithm of
    their mean.
    """
    near = max(0, sum(numbers) // max(1, len(numbers))).bit_length()
    tried = range(max(0, min(near, LARGEST) - 2), min(near, LARGEST) + 1)
    return min(tried, key=lambda r: sum([n >> r for n in numbers]) + r * len(numbers))


def bits(numbers: Sequence[int], r: int) -> str:
    """`numbers`, as a text of the digits 0 and 1."""
    low = [format(n & ((1 << r) - 1), f"0{r}b") if r else "" for n in numbers]
    return "".join(f"{'1' * (n >> r)}0{rest}" for n, rest in zip(numbers, low, strict=True))


def packed(digits: str) -> bytes:
    """Eight binary digits a byte; the last byte is filled up with ones, which begin no number's end."""
    missing = -len(digits) % 8
    return int(digits + "1" * missing, 2).to_bytes((len(digits) + missing) // 8, "big")


def unpacked(data: bytes) -> str:
    return format(int.from_bytes(data, "big"), f"0{8 * len(data)}b") if data else ""


def numbers(digits: str, start: int, r: int) -> Iterator[tuple[int, int]]:
    """The numbers that begin at `start`, each with where the next one begins.

    Raises:
        ValueError: the digits end within a number.
    """
    at = start
    while True:
        zero = digits.index("0", at)
        end = zero + 1 + r
        if end > len(digits):
            raise ValueError("a number is cut")
        yield (zero - at) << r | (int(digits[zero + 1 : end], 2) if r else 0), end
        at = end
