"""The shapes that clients speak, each in a file of its own; `base` says what one has to say."""

from __future__ import annotations

from cosilo.gateway.web.dialects.base import Dialect
from cosilo.gateway.web.dialects.chat import ChatCompletions
from cosilo.gateway.web.dialects.completions import Completions
from cosilo.gateway.web.dialects.messages import Messages
from cosilo.gateway.web.dialects.responses import Responses

DIALECTS: tuple[Dialect, ...] = (ChatCompletions(), Completions(), Responses(), Messages())
