"""Recorded answers come back as they were recorded, and only to the question they were given to."""

from __future__ import annotations

import pytest

from cosilo.errors import OfflineError
from cosilo.models.base import TextModel, models
from cosilo.models.kept.recorded import RecordedModel
from cosilo.testing import ModelContract
from cosilo.types import Sampling, user

SECRET = "Ottilie Katzenstein"


class TestRecorded(ModelContract):
    def model(self) -> TextModel:
        return RecordedModel([(self.chat(), "Hello.", 1.5)])


async def test_answer_and_seconds_are_the_recorded_ones() -> None:
    model = RecordedModel([(user("abcdefgh"), "yes!", 3.5)], name="gpt")
    reply = await model.generate(user("abcdefgh"), Sampling(temperature=1.0))
    assert (reply.text, reply.seconds) == ("yes!", 3.5)
    assert (reply.prompt_tokens, reply.completion_tokens) == (2, 1)


async def test_another_question_is_refused_without_naming_it() -> None:
    model = RecordedModel([(user("a"), "yes", 1.0)])
    with pytest.raises(OfflineError) as caught:
        await model.generate(user(SECRET), Sampling())
    assert SECRET not in str(caught.value)


async def test_the_first_of_different_answers_stays_and_the_rest_are_counted() -> None:
    model = RecordedModel([(user("a"), "1", 1.0), (user("a"), "1", 2.0)])
    model.add([(user("a"), "2", 1.0), (user("b"), "3", 1.0)])
    assert (model.duplicates, len(model)) == (1, 2)
    assert (await model.generate(user("a"), Sampling())).text == "1"


def test_identity_follows_what_is_recorded() -> None:
    one, two = RecordedModel([(user("a"), "1", 1.0)]), RecordedModel([(user("a"), "2", 1.0)])
    assert one.identity != two.identity
    assert one.identity == RecordedModel([(user("a"), "1", 1.0)]).identity


def test_a_plan_names_it() -> None:
    assert models.create("recorded", model="gpt-4.5").name == "gpt-4.5"
