"""Sums that hide what they are of: owners' vectors under masks that cancel; see `sums.py`."""
