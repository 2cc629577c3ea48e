"""One owner's side of a federation: what it agrees to, what it trains, what it sends of that.

participation.py   what an owner takes part with, as a plan says it
owner.py           where it stands: what it trains from, what became of its updates
adapters.py        training an adapter at home
scalars.py         steps along shared directions, of which an owner sends one number each
summing.py         the owner's part in a sum that hides what it is of
files.py           what must be there after a `kill -9`
"""
