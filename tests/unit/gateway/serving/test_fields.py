"""What becomes of the further fields of a request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cosilo.gateway.refusals import RequestError
from cosilo.gateway.serving.fields import RULES, Sorted, check_policies, fitting, sort
from cosilo.gateway.serving.points import Serving
from cosilo.models.chat.fields import CLOSED, HINTS, NUMBERS, values

SECRET = "Ottilie Katzenstein"


def sorted_out(stated: dict[str, str] | None = None, honours: bool = True, **given: Any) -> Sorted:
    raw = {name: json.dumps(value).encode() for name, value in given.items()}
    return sort(raw, stated or {}, lambda _: honours)


def refused(*args: Any, **kwargs: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        sorted_out(*args, **kwargs)
    assert caught.value.status == 400
    assert SECRET not in str(caught.value)
    return caught.value


def test_every_closed_field_has_a_rule_and_only_closed_ones_pass_by_themselves() -> None:
    assert NUMBERS.keys() | HINTS.keys() <= RULES.keys()
    assert {name for name, rule in RULES.items() if rule.policy == "pass"} <= CLOSED.keys()
    assert not {name for name, rule in RULES.items() if rule.policy == "pass" and rule.never}


def test_numbers_and_hints_pass_where_the_models_honour_them() -> None:
    found = sorted_out(
        presence_penalty=0.5, top_k=40, reasoning_effort="high", parallel_tool_calls=False,
        thinking={"type": "enabled", "budget_tokens": 99},
    )  # fmt: skip
    assert values(found.fields) == {
        "presence_penalty": 0.5, "top_k": 40, "reasoning_effort": "high",
        "parallel_tool_calls": False, "thinking": {"type": "enabled", "budget_tokens": 99},
    }  # fmt: skip
    assert found.dropped == ()


def test_where_they_do_not_a_hint_is_dropped_and_told_and_a_number_is_refused() -> None:
    assert sorted_out(honours=False, reasoning_effort="high") == Sorted((), ("reasoning_effort",))
    error = refused(honours=False, presence_penalty=0.5)
    assert (error.param, error.code) == ("presence_penalty", "unsupported_parameter")


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, r in RULES.items() for v in r.neutral])
def test_a_value_that_asks_for_nothing_is_left_out(name: str, value: object) -> None:
    assert sorted_out(honours=False, **{name: value}) == Sorted((), ())


def test_false_is_not_zero() -> None:
    assert refused(top_k=False).code == "invalid_value"


@pytest.mark.parametrize(
    "name",
    ["metadata", "prompt_cache_key", "prediction", "web_search_options", "store", "service_tier",
     "prompt_cache_retention"],
)  # fmt: skip
def test_what_holds_text_or_identifies_somebody_is_dropped_and_named(name: str) -> None:
    assert sorted_out(**{name: SECRET}) == Sorted((), (name,))


@pytest.mark.parametrize("name", ["user", "safety_identifier"])
def test_who_asks_is_used_at_home_and_not_sent(name: str) -> None:
    assert sorted_out(**{name: SECRET}) == Sorted((), ())


def test_a_point_may_let_pass_what_is_dropped_otherwise() -> None:
    found = sorted_out({"metadata": "pass"}, metadata={"for": SECRET})
    assert values(found.fields) == {"metadata": {"for": SECRET}}


def test_a_word_that_no_list_knows_passes_by_the_points_word_only() -> None:
    error = refused(reasoning_effort=SECRET)
    assert (error.param, error.code) == ("reasoning_effort", "invalid_value")
    assert sorted_out({"reasoning_effort": "pass"}, reasoning_effort="ultra").fields


def test_biases_of_tokens_are_refused_with_the_reason() -> None:
    assert "placeholders are other tokens" in str(refused(logit_bias={"50256": -100}))
    assert sorted_out({"logit_bias": "pass"}, logit_bias={"50256": -100}).fields


def test_an_unknown_field_is_refused_and_whoever_runs_the_gateway_is_told_how_to_let_it_pass() -> (
    None
):
    error = refused(guided_regex=SECRET)
    assert (error.param, error.code) == ("guided_regex", "unknown_parameter")
    assert 'guided_regex = "pass"' in str(error)
    assert sorted_out({"guided_regex": "pass"}, guided_regex="a+").fields
    assert sorted_out({"guided_regex": "drop"}, guided_regex="a+") == Sorted((), ("guided_regex",))
    assert "this point refuses" in str(refused({"verbosity": "refuse"}, verbosity="low"))


def test_a_misspelt_field_is_told_the_nearest() -> None:
    assert "did you mean 'temperature'" in str(refused(temprature=1))
    assert "did you mean 'reasoning_effort'" in str(refused(reasoning_efort="low"))


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ({"top_k": "allow"}, "none of pass"),
        ({"messages": "drop"}, "part of every request"),
        ({"a b": "drop"}, "not the name"),
        ({"audio": "pass"}, "cannot pass"),
        ({"best_of": "pass"}, "no budget"),
    ],
)
def test_policies_that_cannot_be_followed_are_refused(stated: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_policies(stated)
    with pytest.raises(ValueError, match=told):
        Serving(fields=stated)


def test_a_model_that_stands_in_gets_no_hint_that_it_does_not_know() -> None:
    fields = (("reasoning_effort", '"low"'), ("top_k", "4"))
    assert fitting(fields, lambda _: False) == Sorted((("top_k", "4"),), ("reasoning_effort",))
    assert fitting(fields, lambda _: True) == Sorted(fields, ())
