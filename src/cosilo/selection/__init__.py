"""Which operating points are worth having, and which one holds what is asked: pure functions.

Nothing here runs a model. A `Point` carries what was measured; a `Limit` says what is wanted of it.
"""

from cosilo.selection.certificate import Certificate, LimitTest, PointTest, certify
from cosilo.selection.front import (
    constrained_order,
    feasible,
    hypervolume,
    lower_is_better,
    pareto_front,
    pareto_mask,
    violation,
)
from cosilo.selection.limits import Limit, parse_limit
from cosilo.selection.points import Point, named, objectives_of
from cosilo.selection.twins import passed_over

__all__ = [
    "Certificate",
    "Limit",
    "LimitTest",
    "Point",
    "PointTest",
    "certify",
    "constrained_order",
    "feasible",
    "hypervolume",
    "lower_is_better",
    "named",
    "objectives_of",
    "pareto_front",
    "pareto_mask",
    "parse_limit",
    "passed_over",
    "violation",
]
