"""Private values in languages other than English: which language a piece is in, and what tells of a
person, a place, a date or a number there.
"""
