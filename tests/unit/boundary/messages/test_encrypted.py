"""What may cross of keys for an encrypted head."""

from __future__ import annotations

from cosilo.boundary.messages import EvaluationKeys, decode, encode
from cosilo.boundary.messages.encrypted import MOST_KEYS, PART


def test_the_most_keys_that_may_be_sent_are_read_to_their_last_part() -> None:
    """`secure_head` sends whatever is not larger."""
    count = -(-MOST_KEYS // PART)
    last = EvaluationKeys(
        name=64 * "0", part=count - 1, parts=count, turning=MOST_KEYS, packed=b"the rest"
    )
    assert decode(encode(last)) == last
