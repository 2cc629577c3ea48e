"""Which operating points are worth having, and which one holds what is asked: pure functions.

Nothing here runs a model. A `Point` carries what was measured; a `Limit` says what is wanted of it.
"""

from cosilo.selection.limits import Limit, parse_limit
from cosilo.selection.points import Point

__all__ = ["Limit", "Point", "parse_limit"]
