"""What a model at home refuses, and how a reply is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from cosilo.errors import RejectedError
from cosilo.models.asked import generator, require_plain, too_long
from cosilo.types import Sampling


@pytest.mark.parametrize("seed", [0, 7, -5, -(1 << 63), (1 << 63) - 1])
def test_any_seed_that_a_client_may_send_draws_and_always_the_same(seed: int) -> None:
    first, again = (generator(Sampling(seed=seed)).random(3).tolist() for _ in range(2))
    assert first == again
    if seed >= 0:
        assert first == np.random.default_rng(seed).random(3).tolist()


def test_what_the_caller_asks_for_has_a_status_and_a_field() -> None:
    long = too_long("9 tokens")
    assert (long.status, long.code, long.param) == (400, "context_length_exceeded", "messages")
    with pytest.raises(RejectedError, match="no tools") as caught:
        require_plain(Sampling(tools="[]"))
    assert (caught.value.status, caught.value.param) == (400, "tools")
