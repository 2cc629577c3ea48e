"""What the data owner knows of its own model."""

from __future__ import annotations

from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner
from cosilo.types import Demonstration, user


def test_weights_remember_what_they_had_learned_before_and_a_new_head_does_not() -> None:
    owner = DataOwner(ScriptedModel(), learned=frozenset({"old"}))
    lessons = [Demonstration("new", user("text"), "label")]
    trained = ScriptedModel()
    assert owner.taught(trained, lessons, further=True).learned == {"old", "new"}
    assert owner.taught(trained, lessons, further=False).learned == {"new"}
    assert owner.taught(trained, lessons, further=False).model is trained
