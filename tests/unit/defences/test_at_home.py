"""What the owner finds private in a chat: as the defences do, or by form where there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cosilo.defences.at_home import finder, with_finder
from cosilo.defences.pseudonyms import Pseudonym
from cosilo.errors import PrivacyError
from cosilo.models.kept.scripted import ScriptedModel
from cosilo.parties.data_owner import DataOwner, PrivateValue
from cosilo.parties.lm_owner import LMOwner
from cosilo.session import open_session
from cosilo.strategies.inference.ends import Large
from cosilo.types import Chat, Turn, user

OWNER = DataOwner(ScriptedModel())


async def values(owner: DataOwner, *texts: str) -> set[str]:
    assert owner.finds is not None
    return {f.value for f in await owner.finds(tuple(Turn("user", t) for t in texts))}


async def test_a_session_without_a_defence_finds_what_has_a_form() -> None:
    session = open_session(OWNER, LMOwner(ScriptedModel()), Large())
    assert await values(session.owner, "Write to jane.roe@example.org soon") == {
        "jane.roe@example.org"
    }
    assert OWNER.finds is None


@pytest.mark.parametrize("apart", [False, True])
async def test_a_defence_finds_what_it_hides(tmp_path: Path, apart: bool) -> None:
    hides = Pseudonym(
        detectors=["literals"], values=["quince"], key_file=tmp_path / "key", apart=apart
    )
    try:
        session = open_session(OWNER, LMOwner(ScriptedModel()), Large(), defences=[hides])
        assert await values(session.owner, "a quince, please") == {"quince"}
        assert await values(session.owner, "nothing", "the quince") == {"quince"}
    finally:
        await hides.close()


async def test_two_defences_find_what_either_hides(tmp_path: Path) -> None:
    hiding = [
        Pseudonym(detectors=["literals"], values=[value], key_file=tmp_path / "key")
        for value in ("quince", "medlar")
    ]
    session = open_session(OWNER, LMOwner(ScriptedModel()), Large(), defences=hiding)
    assert await values(session.owner, "quince and medlar") == {"quince", "medlar"}


async def test_an_owner_keeps_the_finder_that_it_has() -> None:
    async def own(chat: Chat) -> tuple[PrivateValue, ...]:
        return (PrivateValue("plum", "OWN"),)

    owner = with_finder(replace(OWNER, finds=own))
    assert await values(owner, "jane.roe@example.org") == {"plum"}


async def test_a_detector_that_fails_names_its_error_and_nothing_else() -> None:
    class Failing:
        async def hide(self, message: Any, vault: Any) -> Any:
            raise RuntimeError("jane.roe@example.org")

    with pytest.raises(PrivacyError, match="RuntimeError") as caught:
        await finder(Failing())(user("jane.roe@example.org"))
    assert "jane" not in str(caught.value)
    assert caught.value.__context__ is None
