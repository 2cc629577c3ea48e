"""What becomes of the further fields of a request: passed on, dropped, or a reason to refuse it.

    fields of the body ──▶ neutral? ──▶ the point's policy, else ours ──▶ pass    in `Sampling.fields`
                             │                                        ──▶ drop    named to the client
                             └─▶ left out                             ──▶ refuse  400, and what would do

What passes is a number or a word of a short list, or its texts go through the point's defences like all
others (`Ask.with_passages`): a policy decides what is sent on, and never that it is sent unread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, NamedTuple

import msgspec

from cosilo.gateway.refusals import RequestError
from cosilo.models.chat.fields import HINTS, is_closed, written
from cosilo.types import FurtherFields

Policy = Literal["pass", "drop", "refuse"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is done with a field where the point's table says nothing.

    Attributes:
        policy: for one that passes, as long as it is closed and the point's models honour it.
        unhonoured: what is done instead of passing it where they do not.
        neutral: values that ask for nothing.
        why: what the client is told when it is refused.
        never: why no policy can let it pass; empty where one can.
        quiet: that it was dropped is not told: it is used at home.
    """

    policy: Policy
    unhonoured: Policy = "refuse"
    neutral: tuple[object, ...] = ()
    why: str = ""
    never: str = ""
    quiet: bool = False


_CHANGES = "ignoring it would change the answer"

RULES: Mapping[str, Rule] = {
    "presence_penalty": Rule(policy="pass", neutral=(0,)),
    "frequency_penalty": Rule(policy="pass", neutral=(0,)),
    "repetition_penalty": Rule(policy="pass", neutral=(1,)),
    "top_k": Rule(policy="pass", neutral=(0, -1)),
    "min_p": Rule(policy="pass", neutral=(0,)),
    "parallel_tool_calls": Rule(policy="pass", neutral=(True,)),
    "reasoning_effort": Rule(policy="pass", unhonoured="drop"),
    "verbosity": Rule(policy="pass", unhonoured="drop", neutral=("medium",)),
    "enable_thinking": Rule(policy="pass", unhonoured="drop"),
    "thinking": Rule(policy="pass", unhonoured="drop"),
    # These say who asks, or what about, or what is to be kept of it, and nothing about the answer.
    "user": Rule(policy="drop", quiet=True),
    "safety_identifier": Rule(policy="drop", quiet=True),
    "metadata": Rule(policy="drop"),
    "store": Rule(policy="drop", neutral=(False,)),
    "service_tier": Rule(policy="drop", neutral=("auto", "default")),
    "prompt_cache_key": Rule(policy="drop"),
    "prompt_cache_retention": Rule(policy="drop"),
    "prompt_cache_options": Rule(policy="drop"),
    "client_metadata": Rule(policy="drop"),
    "prediction": Rule(policy="drop"),
    "web_search_options": Rule(policy="drop"),
    "logit_bias": Rule(
        policy="refuse",
        neutral=({},),
        why="it names tokens of one model's vocabulary, and placeholders are other tokens than what "
        "they stand for",
    ),
    "modalities": Rule(
        policy="refuse", neutral=(["text"],), never="only text can be kept private"
    ),
    "audio": Rule(policy="refuse", never="only text can be kept private"),
    "functions": Rule(policy="refuse", neutral=([],), never="tools say the same"),
    "function_call": Rule(policy="refuse", neutral=("none",), never="tool_choice says the same"),
    "best_of": Rule(policy="refuse", neutral=(1,), never="no budget could hold"),
    "echo": Rule(policy="refuse", neutral=(False,), never="chats are continued, not texts"),
    "suffix": Rule(policy="refuse", neutral=("",), never="chats are continued, not texts"),
    "dimensions": Rule(policy="refuse", never="it belongs to embeddings"),
}  # fmt: skip
"""The fields that are known."""

_UNKNOWN = Rule(policy="refuse")
_INSIDE = Rule(policy="drop", never="a message is sent as what it says, and nothing beside that")
"""For fields within messages, `messages.colour`: clients send replies back as they came."""

_MESSAGES = ("messages.", "system.", "input.")

_OWN = (
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n",
    "stop", "seed", "stream", "stream_options", "logprobs", "top_logprobs", "tools", "tool_choice",
    "response_format",
)  # fmt: skip
"""What a request says by itself: no policy changes it."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class Sorted(NamedTuple):
    """Which fields of a request are passed on, and the names of those that were left out."""

    fields: FurtherFields
    dropped: tuple[str, ...]


NO_FIELDS = Sorted((), ())


def _rule(name: str) -> Rule:
    return RULES.get(name) or (_INSIDE if name.startswith(_MESSAGES) else _UNKNOWN)


def check_policies(stated: Mapping[str, str]) -> None:
    """Refuse policies that cannot be followed.

    Raises:
        ValueError: no policy, the name of no field, or one that cannot pass.
    """
    for name, policy in stated.items():
        if policy not in ("pass", "drop", "refuse"):
            raise ValueError(f"fields: {name} = {policy!r} is none of pass, drop and refuse")
        if name in _OWN:
            raise ValueError(f"fields: {name!r} is part of every request, so no policy is for it")
        if not _NAME.fullmatch(name):
            raise ValueError(f"fields: {name!r} is not the name of a field")
        if policy == "pass" and (never := _rule(name).never):
            raise ValueError(f"fields: {name!r} cannot pass: {never}")


def sort(
    given: Mapping[str, bytes], stated: Mapping[str, str], honours: Callable[[str], bool]
) -> Sorted:
    """What becomes of the fields in `given`, JSON by their names.

    Args:
        stated: the point's policies.
        honours: whether the point's models do what the field of that name says.

    Raises:
        RequestError: one is refused; the text says why, and quotes no value.
    """
    passed: list[tuple[str, str]] = []
    dropped: list[str] = []
    for name in sorted(given):
        value = _parsed(given[name])
        rule = _rule(name)
        # 0 == False in Python, and not in JSON.
        if any(value == n and isinstance(value, bool) == isinstance(n, bool) for n in rule.neutral):
            continue
        policy = stated.get(name, rule.policy)
        if policy == "pass":
            text = written(value)
            if name not in stated and not is_closed(name, text):
                raise RequestError(
                    f"{name}: this is not a value that it can have",
                    param=name,
                    code="invalid_value",
                )
            if honours(name):
                passed.append((name, text))
                continue
            policy = rule.unhonoured
        if policy == "refuse":
            raise _refused(name, rule, stated)
        if not rule.quiet:
            dropped.append(name)
    return Sorted(tuple(passed), tuple(dropped))


def _parsed(data: bytes) -> object:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        raise RequestError(
            "the body is not JSON in UTF-8, or nested too deeply", code="invalid_json"
        ) from None


def _refused(name: str, rule: Rule, stated: Mapping[str, str]) -> RequestError:
    shown = name[:64]
    if name not in RULES and name not in stated:
        near = [n for n in get_close_matches(shown, (*_OWN, *RULES), n=1) if n != shown]
        hint = f"; did you mean {near[0]!r}?" if near else ""
        how = ""
        if _NAME.fullmatch(name) and name not in _OWN:
            how = (
                f'; whoever runs the gateway can let it pass with {shown} = "pass" in the point\'s '
                "table of fields"
            )
        return RequestError(
            f"{shown!r} is not a field of this request{hint or how}",
            param=shown, code="unknown_parameter",
        )  # fmt: skip
    if stated.get(name) == "refuse":
        why = "this point refuses it"
    elif rule.policy == "pass" or stated.get(name) == "pass":
        why = f"the models of this point cannot honour it, and {_CHANGES}"
    else:
        why = rule.why or rule.never or _CHANGES
    return RequestError(
        f"{name}: not supported with this value: {why}", param=name, code="unsupported_parameter"
    )


def fitting(fields: FurtherFields, honours: Callable[[str], bool]) -> Sorted:
    """`fields` without the hints that another model than the first cannot honour."""
    dropped = tuple(name for name, _ in fields if name in HINTS and not honours(name))
    return Sorted(tuple(f for f in fields if f[0] not in dropped), dropped)
