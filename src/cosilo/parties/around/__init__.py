"""What surrounds the owner of an LM: handlers around handlers.

    Exposed ▶ Timed ▶ Recorded ▶ Paid ▶ LMOwner, or one behind a URL

Each is given the owner it surrounds as `inner` and answers the same messages, so any of them goes
around any owner, and none needs to know what a message says.
"""
