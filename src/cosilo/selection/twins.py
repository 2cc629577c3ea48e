"""Why a defended point was passed over where the same point with less defence was not.

A twin of a point has the same strategy and settings, and more defences. Whoever reads a front or a
certificate that names the undefended one asks for the other, so it is never left out without a reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from cosilo.objectives.wording import amount, label
from cosilo.selection.certificate import Certificate, PointTest
from cosilo.selection.front import dominating, violation
from cosilo.selection.points import Point, named


def passed_over(
    points: Sequence[Point],
    front: Collection[str],
    compared: Sequence[str],
    certificate: Certificate | None = None,
) -> list[str]:
    """Sentences: each defended twin of a point of the front, or of the chosen one, that is not there.

    Args:
        front: names of the points on it.
        compared: the objectives that it was made with.
    """
    told = [*_off_front(points, front, compared)]
    if certificate is not None:
        told += _not_chosen(points, certificate)
    return told


def twins(point: Point, points: Sequence[Point]) -> list[Point]:
    """The points that are `point` with more defences around it."""
    return [
        other
        for other in points
        if (other.strategy, dict(other.settings)) == (point.strategy, dict(point.settings))
        and set(other.defences) > set(point.defences)
    ]


def _off_front(
    points: Sequence[Point], front: Collection[str], compared: Sequence[str]
) -> Iterator[str]:
    shown = [point for point in points if point.name in front]
    missing = {twin.name: twin for point in shown for twin in twins(point, points)}
    for name, twin in missing.items():
        if name in front:
            continue
        better = dominating(twin, shown, compared)
        why = (
            _beaten(twin, better[0], compared)
            if better
            else "not all that is compared was measured"
        )
        yield f"{name} is not on the front: {why}"


def _beaten(point: Point, by: Point, compared: Sequence[str]) -> str:
    parts = []
    for name in compared:
        own, other = point.validation.get(name), by.validation.get(name)
        if own is None or other is None:
            continue
        shown = amount(own.objective, own.value), amount(other.objective, other.value)
        same = own.value == other.value
        parts.append(
            f"{label(own.objective)} {shown[0]}" + ("" if same else f" against {shown[1]}")
        )
    return f"{by.name} is as good or better in all that is compared ({', '.join(parts)})"


def _not_chosen(points: Sequence[Point], certificate: Certificate) -> Iterator[str]:
    taken = certificate.chosen or certificate.nearest
    if taken is None:
        return
    tested = {test.point: test for test in certificate.tested}
    for twin in twins(named(points, taken.point), points):
        yield f"{twin.name} {_why_not(twin, taken, tested.get(twin.name), points, certificate)}"


def _why_not(
    twin: Point,
    taken: PointTest,
    test: PointTest | None,
    points: Sequence[Point],
    certificate: Certificate,
) -> str:
    chosen = named(points, taken.point)
    if test is not None and not test.certified:
        return f"was tested and not certified (p = {test.p:.2g})"
    if test is None and certificate.tested:
        stopped = certificate.tested[-1].point
        return (
            f"was not tested: testing stopped at {stopped}, the first that could not be certified"
        )
    if violation(twin, certificate.limits, points) > 0:
        return "breaks a limit on the validation items"
    if certificate.chosen is None:
        return f"comes no nearer than {chosen.name}"
    own, other = (p.validation.get(certificate.prefer) for p in (twin, chosen))
    if own is None or other is None:
        return f"has no {certificate.prefer} to be chosen by"
    return (
        f"keeps the limits too; {chosen.name} was chosen for its {label(other.objective)}, "
        f"{amount(other.objective, other.value)} against {amount(own.objective, own.value)} on the "
        "validation items"
    )
