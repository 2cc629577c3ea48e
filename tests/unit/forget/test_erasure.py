"""A certificate of erasure says how far it got, names nobody, and shows when it was altered."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from cosilo.errors import ConfigError
from cosilo.forget.erasure import SIGNING, checked, signed, statement, write
from cosilo.lineage.requests import Evidence, ForgetRequest, ForgetStep, Method, StepState

DONE = ForgetStep(
    method=Method.DELETE, place="a", state=StepState.DONE, evidence=Evidence(what="rows", count=2)
)
OPEN = ForgetStep(method=Method.ASK, place="b", state=StepState.OPEN, deadline=9.0)


def made(folder: Path, *steps: ForgetStep) -> Path:
    request = ForgetRequest(id="ab" * 16, at=1.0, records=1, steps=steps)
    told = statement(request, [b"\1" * 16], ended=2.0, verification={"seconds": 1.0})
    write(signed(told, folder), folder / "erasure.json")
    return folder / "erasure.json"


def test_it_is_erased_only_when_nothing_stands(tmp_path: Path) -> None:
    assert checked(made(tmp_path, DONE))["erased"]
    for standing in (OPEN, ForgetStep(method=Method.NONE, state=StepState.UNREACHABLE)):
        found = checked(made(tmp_path, DONE, standing))
        assert not found["erased"]
        assert found["standing"] == 1
    assert found["records"] == ["01" * 16]


def test_what_anybody_signed_is_no_certificate_where_it_says_too_little(tmp_path: Path) -> None:
    whole = json.loads(made(tmp_path, DONE).read_text())
    for name in ("request", "records", "steps", "erased", "standing"):
        write(signed({k: v for k, v in whole.items() if k not in (name, "signature")}, tmp_path),
              tmp_path / "less.json")  # fmt: skip
        with pytest.raises(ConfigError, match=f"does not say '{name}'"):
            checked(tmp_path / "less.json")


def test_whatever_is_altered_shows(tmp_path: Path) -> None:
    path = made(tmp_path, DONE, OPEN)
    whole = json.loads(path.read_text())
    assert stat.S_IMODE((tmp_path / SIGNING).stat().st_mode) == 0o600
    for name in whole:
        broken = {**whole, name: "x" if isinstance(whole[name], str) else 7}
        path.write_text(json.dumps(broken))
        with pytest.raises(ConfigError):
            checked(path)
        path.write_text(json.dumps({k: v for k, v in whole.items() if k != name}))
        with pytest.raises(ConfigError):
            checked(path)
    path.write_text(json.dumps({**whole, "more": 1}))
    with pytest.raises(ConfigError, match="was altered"):
        checked(path)
    path.write_text(json.dumps(whole))
    assert checked(path, key=whole["key"])["key"] == whole["key"]
    (tmp_path / "other").mkdir()
    other = json.loads(made(tmp_path / "other", DONE).read_text())["key"]
    with pytest.raises(ConfigError, match="another key"):
        checked(path, key=other)
