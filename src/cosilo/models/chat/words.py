"""Maps the words of endpoints to Cosilo's: why a reply ended, and why a request was refused.

Only words of these lists are passed on. What else an endpoint writes into such a field may quote a
prompt, and stays here.
"""

from __future__ import annotations

import re

from cosilo.types import FinishReason

_FINISH: dict[FinishReason, str] = {
    "stop": "stop eos eos_token end_turn stop_sequence stop_token stop_str complete completed "
    "finished finish done",
    "length": "length max_tokens model_length max_length max_output_tokens max_new_tokens "
    "max_completion_tokens token_limit model_context_window_exceeded",
    "tool_calls": "tool_calls tool_call tool_use function_call",
    "content_filter": "content_filter content_filtered safety recitation blocklist "
    "prohibited_content spii language image_safety refusal sensitive guardrail_intervened flagged",
}
_FINISHES = {word: reason for reason, words in _FINISH.items() for word in words.split()}
_NO_REASON = frozenset(("", "null", "none", "finish_reason_unspecified"))

_CODES = """
    context_length_exceeded string_above_max_length string_below_min_length array_above_max_length
    array_below_min_length integer_above_max_value integer_below_min_value decimal_above_max_value
    decimal_below_min_value empty_array empty_string invalid_value invalid_type invalid_prompt
    unsupported_value unsupported_parameter unknown_parameter missing_required_parameter
    invalid_function_parameters invalid_json_schema invalid_request_error bad_request
    content_filter content_policy_violation model_not_found not_found_error invalid_model
    request_too_large rate_limit_exceeded rate_limit_error insufficient_quota
    billing_hard_limit_reached invalid_api_key authentication_error permission_error
    exceed_context_size_error not_supported_error unavailable_error overloaded_error api_error
    server_error internal_server_error internal_error service_unavailable engine_overloaded timeout
    timeout_error json_validate_failed tool_use_failed BadRequestError NotFoundError
    InternalServerError
"""
_PARAMETERS = """
    messages model temperature top_p seed stop max_tokens max_completion_tokens logprobs top_logprobs
    tools tool_choice response_format stream stream_options n functions function_call
    presence_penalty frequency_penalty repetition_penalty top_k min_p logit_bias parallel_tool_calls
    reasoning_effort verbosity thinking enable_thinking service_tier store metadata user
    safety_identifier prompt_cache_key prompt_cache_retention prediction web_search_options modalities
    chat_template_kwargs dimensions encoding_format input
"""
CODES = frozenset(_CODES.split())
"""The names of errors that may be told."""
PARAMETERS = frozenset(_PARAMETERS.split())

_TOO_LONG = re.compile(
    r"(?i)maximum context length|context[ _]length|context window|context size|prompt is too long"
    r"|input is too long|too many (?:input )?tokens|exceeds? the (?:maximum|model's) (?:number of )?"
    r"tokens"
)
_UNTAKEN = re.compile(
    r"(?i)(?:un(?:supported|known|recognized|expected)|extra|invalid)(?: request)? "
    r"(?:parameter|argument|field|input|keyword)s?"
    r"|not supported|not permitted|does not support|is unsupported"
)
_WORD = re.compile(r"[\"'`]([a-z_]{1,40})[\"'`]|\b([a-z]+(?:_[a-z]+)+)\b|: ([a-z]{1,40})\b")
_SAME = {"exceed_context_size_error": "context_length_exceeded"}


def finish_reason(said: str | None) -> FinishReason | None:
    """Why a reply ended; None where `said` says that it has not.

    A word that is not known here is taken for a cut: such a reply must not look whole.
    """
    if said is None:
        return None
    word = said.strip().lower()
    return None if word in _NO_REASON else _FINISHES.get(word, "length")


def code_of(code: object, kind: object, message: object) -> str:
    """The name of an endpoint's error, if it has one that may be told; else empty.

    Args:
        code, kind, message: the fields `code`, `type` and `message` of its error object. Some say only
            in words that a prompt is too long.
    """
    for name in (code, kind):
        # A kind of error says less than the words that it was told in.
        if isinstance(name, str) and name in CODES and name not in _GENERAL:
            return _SAME.get(name, name)
    if isinstance(message, str) and _TOO_LONG.search(message[:2000]):
        return "context_length_exceeded"
    if isinstance(message, str) and parameter_in(message):
        return "unsupported_parameter"
    return next((n for n in (code, kind) if isinstance(n, str) and n in _GENERAL), "")


_GENERAL = frozenset(("invalid_request_error", "bad_request", "BadRequestError", "invalid_value"))


def parameter_of(param: object, message: object = "") -> str:
    """The field of the request that an endpoint's error names: 'messages' for 'messages[3].content'.

    Args:
        message: the error's words, where some endpoints say it.
    """
    found = re.match(r"[a-z_]{1,40}", param) if isinstance(param, str) else None
    if found and found[0] in PARAMETERS:
        return found[0]
    return parameter_in(message) if isinstance(message, str) else ""


def parameter_in(message: str) -> str:
    """The field that `message` says is not taken; empty where it says no such thing, or names one that
    may not be told."""
    said = message[:2000]
    if not _UNTAKEN.search(said):
        return ""
    words = ("".join(found) for found in _WORD.findall(said))
    return next((word for word in words if word in PARAMETERS), "")
