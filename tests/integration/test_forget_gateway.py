"""`cosilo forget STORE` forgets requests of a gateway in SQLite and PostgreSQL, and the record stays
whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.audited import WORDS, faults, fill
from tests.integration.audited import secret as secret
from tests.integration.audited import url as url

from cosilo.cli import main
from cosilo.errors import StoreError
from cosilo.forget import gateway_store
from cosilo.gateway.accounts.keys import read_secret
from cosilo.gateway.record.audit import open_record


@pytest.fixture
def beside(url: str, tmp_path: Path) -> Path:
    """Where the certificate is."""
    if not url.startswith("postgresql:"):
        return Path(url)
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


def forget(url: str, secret: Path, beside: Path, *ids: str, more: tuple[str, ...] = ()) -> int:
    whom = secret.parent / "whom.txt"
    whom.write_text("\n".join(ids) + "\n")
    where = ["--secret", str(secret), "--beside", str(beside)]
    return main(["forget", url, *(["--ids", f"@{whom}"] if ids else []), *where, *more])


def left_of(url: str, secret: Path) -> dict[str, bool]:
    """Request → whether anything tells what was in its messages."""
    with open_record(url, secret=read_secret(secret, make=False)) as record:
        return {
            left.request: any(e.payload or e.content_digest for e in left.entries)
            for left in record.left()
        }


def certificate(beside: Path) -> dict[str, object]:
    (path,) = beside.glob("erasure-*.json")
    assert main(["forget", "verify", str(path)]) == 0
    return dict(json.loads(path.read_text()))


def test_requests_are_forgotten_and_the_record_stays_whole(
    url: str, secret: Path, beside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(url, secret, keep="content")
    capsys.readouterr()
    assert forget(url, secret, beside, "request-1", more=("--plan",)) == 0
    assert "crypto-shredded: sealed content" in capsys.readouterr().out
    assert all(left_of(url, secret).values())
    assert forget(url, secret, beside, "request-1", "nobody's", "", "request-3") == 2
    said = capsys.readouterr().err
    assert "1 line holds an id that no request on record has (line 2)" in said
    assert "x-request-id" in said
    assert "column" not in said
    assert "nobody's" not in said
    assert all(left_of(url, secret).values())
    assert forget(url, secret, beside, "request-1", "request-3") == 0
    said = capsys.readouterr().out
    assert "request-1" not in said
    assert "2 messages were sent to large models" in said
    assert left_of(url, secret) == {f"request-{i}": i in (0, 2) for i in range(4)}
    assert faults(url, secret) == []
    assert main(["audit", "verify", url, "--secret", str(secret)]) == 0
    told = certificate(beside)
    states = {step["method"]: step["state"] for step in told["steps"]}  # type: ignore[attr-defined]
    assert states == {
        "crypto-shredded": "done", "verified": "done", "cannot be reached": "cannot be reached"
    }  # fmt: skip
    assert not told["erased"], "what large models have of it is not known"
    assert WORDS not in json.dumps(told)
    assert not list(beside.glob(".forget-*"))
    capsys.readouterr()
    assert main(["forget", "status", url, "--beside", str(beside)]) == 0
    assert "not erased" in capsys.readouterr().out
    assert forget(url, secret, beside) == 2
    kept = {path: path.read_bytes() for path in beside.glob("erasure-*.json")}
    capsys.readouterr()
    for more in ((), ("--plan",)):
        assert forget(url, secret, beside, "request-1", more=more) == 0
        said = capsys.readouterr().out.splitlines()
        first = "1 request was forgotten before: nothing is left to do there"
        assert said == [first, f"certificate: {next(iter(kept))}"]
    assert forget(url, secret, beside, "request-1", "nobody's") == 2
    assert {path: path.read_bytes() for path in beside.glob("erasure-*.json")} == kept
    assert forget(url, secret, beside, "request-1", "request-2") == 0
    assert "1 request was forgotten before" in capsys.readouterr().out
    assert len(list(beside.glob("erasure-*.json"))) == 2
    assert left_of(url, secret) == {f"request-{i}": i == 0 for i in range(4)}


@pytest.mark.parametrize("where", ["_shredded", "_verify"])
def test_stopped_anywhere_the_same_command_goes_on(
    url: str, secret: Path, beside: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(url, secret, keep="content")

    def stops(*_: object) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as now:
        now.setattr(gateway_store, where, stops)
        assert forget(url, secret, beside, "request-1") == 4
    assert not list(beside.glob("erasure-*.json"))
    assert main(["forget", "status", url, "--beside", str(beside)]) == 1
    assert forget(url, secret, beside, "request-1") == 0
    assert left_of(url, secret)["request-1"] is False
    assert not list(beside.glob(".forget-*"))
    certificate(beside)


def test_what_has_no_key_is_called_guessable(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, inner = tmp_path / "store", gateway_store._shredded
    fill(str(store), secret)
    monkeypatch.setattr(
        gateway_store, "_shredded", lambda *given: replace(inner(*given), guessable=2)
    )
    assert forget(str(store), secret, store, "request-1") == 0
    (step,) = [s for s in certificate(store)["steps"] if s["method"] == "crypto-shredded"]  # type: ignore[attr-defined]
    assert step["state"] == "cannot be reached"
    assert step["note"].startswith("2 messages of an earlier version")


def test_a_copy_that_somebody_put_there_is_an_open_step(tmp_path: Path, secret: Path) -> None:
    store = tmp_path / "store"
    fill(str(store), secret, keep="content")
    (store / "notes.txt").write_text(f"{WORDS} 1")
    assert forget(str(store), secret, store, "request-1") == 1
    assert not certificate(store)["erased"]
    (store / "notes.txt").unlink()
    assert forget(str(store), secret, store) == 0
    assert {s["state"] for s in certificate(store)["steps"]} == {"done", "cannot be reached"}  # type: ignore[attr-defined]


def test_a_store_in_postgresql_takes_a_folder_and_says_no_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["forget", "postgresql://a:hunter22@db/x", "--ids", "@x"]) == 2
    said = capsys.readouterr().err
    assert "--beside" in said
    assert "hunter22" not in said
    home = gateway_store.GatewayHome("postgresql://a:hunter22@db/x", Path("/tmp"))
    assert home.place == "postgresql://db/x"
