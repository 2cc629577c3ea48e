"""The way to another machine: which URLs and files it takes, and how pieces are cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosilo.boundary.transports.agreed import END, Pieces, framed, is_id, new_id
from cosilo.boundary.transports.http import Https
from cosilo.boundary.transports.tls import client_of
from cosilo.errors import ConfigError, UnexpectedReplyError
from cosilo.host.certificates import make_certificates


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://lm.example", "would send in clear to another machine"),
        ("http://192.0.2.7:80", "would send in clear to another machine"),
        ("https://lm.example", "takes ca, cert and key"),
        ("ftp://lm.example", "must begin with https://"),
        ("https://user:word@lm.example", "no user"),
        ("https://lm.example/v1", "must end with the host's name"),
        ("lm.example", "must begin with https://"),
    ],
)
def test_a_url_that_is_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Https(url)


def test_without_tls_to_this_machine_or_where_it_is_said() -> None:
    for url in ("http://127.0.0.1:80", "http://[::1]:80", "http://localhost"):
        Https(url)
    Https("http://lm.example", plain=True)


def test_files_that_are_no_certificates(tmp_path: Path) -> None:
    make_certificates(tmp_path, hosts=["localhost"], clients=["a"])
    ca, cert, key = (tmp_path / name for name in ("ca.pem", "client-a.pem", "client-a.key"))
    Https("https://localhost", ca=ca, cert=cert, key=key)
    with pytest.raises(ConfigError, match="no certificate and its key"):
        Https("https://localhost", ca=ca, cert=tmp_path / "host-localhost.pem", key=key)
    with pytest.raises(ConfigError, match="cannot read"):
        Https("https://localhost", ca=ca, cert=cert, key=tmp_path / "none")
    with pytest.raises(ConfigError, match="holds no certificates"):
        Https("https://localhost", ca=key, cert=cert, key=key)
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others"):
        Https("https://localhost", ca=ca, cert=cert, key=key)


@given(st.lists(st.binary(min_size=1, max_size=40)), st.integers(1, 9))
def test_pieces_come_out_as_they_went_in_however_they_are_cut(sent: list[bytes], size: int) -> None:
    data = b"".join(map(framed, sent)) + END
    pieces, found = Pieces(), []
    for start in range(0, len(data), size):
        assert not pieces.ended
        found += list(pieces.feed(data[start : start + size]))
    assert found == sent
    assert pieces.ended


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", END + b"x"])
def test_pieces_that_are_none(data: bytes) -> None:
    with pytest.raises(UnexpectedReplyError):
        list(Pieces().feed(data))


def test_ids() -> None:
    assert is_id(new_id())
    assert len({new_id() for _ in range(100)}) == 100
    for wrong in ("", "g" * 32, "A" * 32, "a" * 31, "a" * 33):
        assert not is_id(wrong)


def test_who_a_certificate_names() -> None:
    common = ((("commonName", "clinic"),),)
    assert client_of({"subject": common}) == "clinic"
    uri = (("URI", "cosilo:client:ward"), ("URI", "https://x"))
    assert client_of({"subject": common, "subjectAltName": uri}) == "ward"
    two = (("URI", "cosilo:client:a"), ("URI", "cosilo:client:b"))
    assert client_of({"subject": common, "subjectAltName": two}) == ""
    assert client_of(None) == ""
