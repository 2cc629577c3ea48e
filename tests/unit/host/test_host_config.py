"""lm.toml: what is wrong in it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosilo.errors import ConfigError
from cosilo.host.config import load_host
from cosilo.models.base import Access

FILE = """\
[model]
kind = "scripted"
exposes = "logits"
[tls]
ca = "ca.pem"
cert = "host.pem"
key = "host.key"
[clients.clinic]
exposes = "activations"
total = {usd = 5, logits = 1000}
"""


def load(folder: Path, text: str) -> object:
    path = folder / "lm.toml"
    path.write_text(text)
    return load_host(path)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lm.toml"
    path.write_text(FILE)
    config = load_host(path)
    assert config.tls.ca == tmp_path / "ca.pem"
    assert config.books == tmp_path / "host"
    assert config.clients["clinic"].total.usd == 5.0
    assert config.exposes("clinic") == Access.LOGITS.shows  # no more than its owner does


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("logits = 1000", "logit = 1000", "did you mean 'logits'"),
        ("usd = 5", "usd = -5", "usd = -5.0 is no limit"),
        ('kind = "scripted"', 'kind = "scritped"', "did you mean 'scripted'"),
        ("[clients.clinic]", '[clients."a b"]', "a certificate bears no such name"),
        ('ca = "ca.pem"\n', "", "'ca' must be given"),
        ("[tls]", "[listen]\nport = 99999\n[tls]", "port = 99999"),
        ('exposes = "logits"', "train = true", "train is for a plan's small model"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in FILE
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, FILE.replace(old, new))


def test_nobody_to_serve(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nobody could ask"):
        load(tmp_path, FILE[: FILE.index("[clients")] + "[clients]\n")
