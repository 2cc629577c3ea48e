"""What a large model may ask to have done in a document that it does not see: data, of one closed form.

    {"jobs": [{"instruction": "dates of payment", "parts": [1, 4], "findings": 3}]}

It is read and checked, and nothing in it is ever executed: an instruction is a text that passages are
looked for with, or that the small model is told.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cosilo.errors import UnexpectedReplyError
from cosilo.reasoning import spoken

MOST_JOBS, MOST_PARTS, MOST_FINDINGS, LONGEST_INSTRUCTION = 8, 64, 10, 300

_FENCED = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


class DocumentJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Look for something in some parts of the documents.

    Attributes:
        instruction: what to look for.
        parts: the numbers of the parts to look in, counted over all documents from 1.
        findings: how many findings are wanted, at most.
    """

    instruction: Annotated[str, Meta(min_length=1, max_length=LONGEST_INSTRUCTION)]
    parts: (
        Literal["all"]
        | Annotated[
            tuple[Annotated[int, Meta(ge=1)], ...], Meta(min_length=1, max_length=MOST_PARTS)
        ]
    ) = "all"
    findings: Annotated[int, Meta(ge=1, le=MOST_FINDINGS)] = 3


class JobPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Jobs of one round; none when enough was found."""

    jobs: Annotated[tuple[DocumentJob, ...], Meta(max_length=MOST_JOBS)]


_decoder = msgspec.json.Decoder(JobPlan)


def read_plan(text: str, parts: int) -> JobPlan:
    """The plan in a large model's reply.

    Args:
        parts: how many parts there are.

    Raises:
        UnexpectedReplyError: it is no such plan: other fields, too many jobs, a part that is not
            there. The text repeats nothing of it.
    """
    said = spoken(text).strip()
    if fenced := _FENCED.search(said):
        said = fenced[1].strip()
    elif "{" in said:
        said = said[said.index("{") : said.rindex("}") + 1] if "}" in said else said
    try:
        plan = _decoder.decode(said)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise UnexpectedReplyError(
            f"the large model's plan is not one of at most {MOST_JOBS} jobs, each with an "
            f"instruction of at most {LONGEST_INSTRUCTION} characters, parts and up to "
            f"{MOST_FINDINGS} findings; "
            'planner = "question" does without a plan'
        ) from None
    for job in plan.jobs:
        if job.parts != "all" and max(job.parts) > parts:
            raise UnexpectedReplyError(
                f"the large model's plan names part {max(job.parts)}, but there are {parts}"
            )
    return plan
