"""lm.toml: what is wrong in it is named."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from cosilo.errors import ConfigError
from cosilo.host.books import KeptAnswers
from cosilo.host.config import ClientConfig, Listening, load_host
from cosilo.models.base import Access
from cosilo.session import read_model

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


PAGE = Path(__file__).parents[3] / "docs" / "host.md"


def test_the_files_on_the_page_are_read(tmp_path: Path) -> None:
    served, asked = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    path = tmp_path / "lm.toml"
    path.write_text(served)
    config = load_host(path)
    assert config.clients["clinic"].day.messages == 5000
    table = tomllib.loads(asked)["models"]["large"]
    large = read_model(table, where="plan.toml", base=tmp_path)
    assert large.kind == "party"
    assert large.usd_per_m_in == config.model.usd_per_m_in


def test_what_the_page_says_of_defaults() -> None:
    page, listen, answers = PAGE.read_text("utf-8"), Listening(), KeptAnswers()
    assert f"({listen.max_body_bytes >> 20} MB)" in page
    assert f"({listen.connections})" in page
    for seconds in (listen.linger_seconds, listen.drain_seconds, listen.body_seconds):
        assert f"({seconds:g})" in page
    assert f"`seconds` ({answers.seconds:g}), `count` ({answers.count})" in page
    assert f"at_once` ({ClientConfig().at_once})" in page


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
