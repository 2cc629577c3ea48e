"""A busy machine must not fail a property: examples have no deadline (tests have a timeout)."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("cosilo", deadline=None)
settings.load_profile("cosilo")
