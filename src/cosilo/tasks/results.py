"""When two query results are the same."""

from __future__ import annotations

from collections.abc import Sequence


def same_result(
    gold: Sequence[Sequence[object]], found: Sequence[Sequence[object]], *, ordered: bool
) -> bool:
    """Whether two results hold the same rows.

    Rows are compared as multisets (as lists when `ordered`), numbers to 10 significant digits,
    columns in any order but all of them: more or fewer columns are another result.
    """
    if len(gold) != len(found):
        return False
    if not gold:
        return True
    a = [tuple(map(_cell, row)) for row in gold]
    b = [tuple(map(_cell, row)) for row in found]
    if len(a[0]) != len(b[0]):
        return False
    columns_a, columns_b = list(zip(*a, strict=True)), list(zip(*b, strict=True))

    def signature(column: tuple[object, ...]) -> tuple[object, ...]:
        return column if ordered else tuple(sorted(column, key=_rank))

    wanted = [signature(c) for c in columns_a]
    offered = [signature(c) for c in columns_b]
    if sorted(map(repr, wanted)) != sorted(map(repr, offered)):
        return False
    if ordered:  # equal columns, row by row: any order of the columns gives equal rows
        return True
    goal = sorted(a, key=_rank_row)
    tries = _MOST_PERMUTATIONS

    def match(chosen: tuple[int, ...]) -> bool:
        nonlocal tries
        if tries <= 0:
            return False
        if len(chosen) == len(wanted):
            tries -= 1
            return sorted((tuple(row[i] for i in chosen) for row in b), key=_rank_row) == goal
        return any(
            match((*chosen, i))
            for i in range(len(offered))
            if i not in chosen and offered[i] == wanted[len(chosen)]
        )

    return match(())


_MOST_PERMUTATIONS = 1000
"""Columns with the very same values can be matched in many ways; past this many, not equal."""


def _cell(value: object) -> object:
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return repr(value)
        whole = round(value)
        return whole if abs(value - whole) <= 1e-12 * abs(value) + 1e-12 else float(f"{value:.10g}")
    return value


def _rank(value: object) -> tuple[int, float, str]:
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, int | float):
        return (1, float(value), repr(value))
    return (2 if isinstance(value, str) else 3, 0.0, repr(value))


def _rank_row(row: Sequence[object]) -> tuple[tuple[int, float, str], ...]:
    return tuple(map(_rank, row))
