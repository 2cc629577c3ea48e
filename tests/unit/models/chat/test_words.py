"""What endpoints call things: known words are told in ours, and no other."""

from __future__ import annotations

import pytest

from cosilo.models.chat.words import CODES, code_of, finish_reason, parameter_of

SECRET = "ada_lovelace"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop", "stop"), ("STOP", "stop"), ("eos", "stop"), ("end_turn", "stop"),
        ("length", "length"), ("max_tokens", "length"), ("MAX_TOKENS", "length"),
        ("model_length", "length"), ("max_output_tokens", "length"),
        ("SAFETY", "content_filter"), ("RECITATION", "content_filter"),
        ("content_filter", "content_filter"), ("refusal", "content_filter"),
        ("tool_use", "tool_calls"), ("function_call", "tool_calls"),
        # What nobody knows must not look whole.
        ("abort", "length"), ("error", "length"), ("insufficient_system_resource", "length"),
        (SECRET, "length"),
        (None, None), ("", None), ("null", None), (" NULL ", None), ("None", None),
    ],
)  # fmt: skip
def test_why_a_reply_ended(said: str | None, reason: str | None) -> None:
    assert finish_reason(said) == reason


@pytest.mark.parametrize(
    ("code", "kind", "message", "told"),
    [
        ("context_length_exceeded", "invalid_request_error", "", "context_length_exceeded"),
        (None, "invalid_request_error", "", "invalid_request_error"),
        (400, "BadRequestError", "This model's maximum context length is 9", "context_length_exceeded"),
        (400, "exceed_context_size_error", "", "context_length_exceeded"),
        (400, None, "The input token count exceeds the maximum number of tokens allowed",
         "context_length_exceeded"),
        ("invalid_request_error", None, "prompt is too long: 9 tokens > 8 maximum",
         "context_length_exceeded"),
        ("content_filter", None, "the maximum context length", "content_filter"),
        (SECRET, "ada.lovelace", SECRET, ""),
        (SECRET, "server_error", SECRET, "server_error"),
        ({"a": SECRET}, [SECRET], 5, ""),
    ],
)  # fmt: skip
def test_the_name_of_an_error(code: object, kind: object, message: object, told: str) -> None:
    assert code_of(code, kind, message) == told
    assert told == "" or told in CODES


@pytest.mark.parametrize(
    ("param", "told"),
    [
        ("messages", "messages"), ("messages[3].content", "messages"), ("tools.0", "tools"),
        ("temperature", "temperature"), (SECRET, ""), ("messages_of_ada", ""), (None, ""), (3, ""),
    ],
)  # fmt: skip
def test_the_field_an_error_is_about(param: object, told: str) -> None:
    assert parameter_of(param) == told


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("Unrecognized request argument supplied: top_k", "top_k"),
        ("Unsupported parameter: 'presence_penalty' is not supported.", "presence_penalty"),
        ("Unsupported value: 'temperature' does not support 0 with this model.", "temperature"),
        ("[{'loc': ('body', 'min_p'), 'msg': 'Extra inputs are not permitted'}]", "min_p"),
        ('Unknown parameter: "thinking".', "thinking"),
        ("property 'reasoning_effort' is unsupported", "reasoning_effort"),
        ("The prompt mentions top_k", ""),
        ("Unsupported parameter: 'ottilie_katzenstein'", ""),
        ("Ottilie is not supported by her store", ""),
    ],
)  # fmt: skip
def test_the_field_that_an_endpoint_does_not_take_is_found_in_its_words(
    message: str, field: str
) -> None:
    assert parameter_of(None, message) == field
    told = code_of(None, "invalid_request_error", message)
    assert told == ("unsupported_parameter" if field else "invalid_request_error")


def test_what_an_endpoint_says_in_its_fields_counts_for_more_than_its_words() -> None:
    assert parameter_of("seed", "Unknown parameter: 'top_k'") == "seed"
    assert code_of("model_not_found", None, "Unknown parameter: 'top_k'") == "model_not_found"
