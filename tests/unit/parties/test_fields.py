"""A further field that a model would ignore is refused, not ignored."""

from __future__ import annotations

import pytest

from cosilo.boundary.messages import Ask
from cosilo.errors import RejectedError
from cosilo.models.chat.fields import canonical
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.lm_owner import LMOwner
from cosilo.types import Sampling, user

ASK = Ask(chat=user("q"), sampling=Sampling(fields=canonical({"min_p": 0.5})))


class Drawing(ScriptedModel):
    def honours(self, field: str) -> bool:
        return field == "min_p"


async def test_a_model_that_honours_it_is_asked() -> None:
    assert await LMOwner(Drawing()).handle(ASK)


async def test_one_that_does_not_say_so_is_not_asked() -> None:
    model = ScriptedModel()
    with pytest.raises(RejectedError, match="min_p") as caught:
        await LMOwner(model).handle(ASK)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "min_p")
    with pytest.raises(RejectedError, match="min_p"):
        [piece async for piece in LMOwner(model).handle_stream(ASK)]
    assert not model.seen
