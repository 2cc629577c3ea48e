"""Certificates for a trial: what is written, and what is never overwritten."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cosilo.cli import main
from cosilo.errors import ConfigError
from cosilo.host.certificates import make_certificates


def test_keys_are_their_owners_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "certs"
    assert main(["host", "certs", str(folder), "--client", "clinic", "--host", "::1"]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert {p.name for p in written} == {
        "ca.pem", "ca.key", "host-__1.pem", "host-__1.key", "client-clinic.pem", "client-clinic.key"
    }  # fmt: skip
    assert {stat.S_IMODE(p.stat().st_mode) for p in written if p.suffix == ".key"} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_is_overwritten_and_the_authority_stays(tmp_path: Path) -> None:
    make_certificates(tmp_path, hosts=["localhost"], clients=["a"])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r"client-a\.pem' is there already"):
        make_certificates(tmp_path, hosts=[], clients=["b", "a"])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    written = make_certificates(tmp_path, hosts=[], clients=["b"])
    assert [path.name for path in written] == ["client-b.pem", "client-b.key"]


@pytest.mark.parametrize("name", ["", "../a", "a b", "a" * 65, "-a"])
def test_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a client"):
        make_certificates(tmp_path / "new", hosts=[], clients=[name])
    assert not (tmp_path / "new").exists()


def test_an_authority_that_is_half_there(tmp_path: Path) -> None:
    make_certificates(tmp_path, hosts=[], clients=[])
    (tmp_path / "ca.key").unlink()
    with pytest.raises(ConfigError, match=r"ca\.pem and ca\.key are needed"):
        make_certificates(tmp_path, hosts=["localhost"], clients=[])
