from __future__ import annotations

import pytest

from cosilo.engines.base import PartySpent, Setting
from cosilo.errors import ConfigError


@pytest.mark.parametrize("protocol", ["aby3", "cheetah"])
def test_what_protects_is_taken_as_it_is(protocol: str) -> None:
    Setting(protocol).require()  # type: ignore[arg-type]


def test_a_dealer_who_could_read_everything_is_refused_unless_asked_for() -> None:
    with pytest.raises(ConfigError, match="deals the randomness"):
        Setting("semi2k").require()
    Setting("semi2k", insecure=True).require()


def test_a_protocol_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="'aby4'; known: aby3, cheetah, semi2k"):
        Setting("aby4").require()  # type: ignore[arg-type]


@pytest.mark.parametrize(("field", "most"), [(32, 12), (64, 28), (128, 60)])
def test_bits_that_leave_products_no_room_are_refused(field: int, most: int) -> None:
    Setting(field=field, bits=most).require()  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"at most {most} leave room"):
        Setting(field=field, bits=most + 1).require()  # type: ignore[arg-type]


def test_the_shares_of_smollm2_need_about_four_gigabytes_a_party() -> None:
    assert 4e9 < Setting("aby3").memory(134_515_008) < 5.2e9
    assert Setting("cheetah").memory(10**9) < Setting("aby3").memory(10**9)


def test_what_is_spent_adds_up() -> None:
    assert PartySpent(1, 2, 0.5) + PartySpent(10, 20, 1.0) == PartySpent(11, 22, 1.5)
