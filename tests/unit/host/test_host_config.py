"""lm.toml: what is wrong in it is named."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from cosilo.errors import ConfigError
from cosilo.host.books import KeptAnswers
from cosilo.host.certificates import make_certificates
from cosilo.host.config import ClientConfig, Listening, load_host
from cosilo.host.process import _joint_runs
from cosilo.models.base import Access, Shows
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
    files = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    served, asked = files[:2]
    (federation,) = (text for text in files if text.startswith("[federation]"))
    path = tmp_path / "lm.toml"
    path.write_text(served)
    config = load_host(path)
    assert config.clients["clinic"].day.messages == 5000
    table = tomllib.loads(asked)["models"]["large"]
    large = read_model(table, where="plan.toml", base=tmp_path)
    assert large.kind == "party"
    assert config.model is not None
    assert large.usd_per_m_in == config.model.usd_per_m_in
    others = "[clients.bank]\n[clients.town]\n"
    path.write_text(served.replace("[clients.clinic]", f"{others}[clients.clinic]") + federation)
    hosted = load_host(path).federation
    assert hosted is not None
    assert (hosted.settings.quorum, hosted.settings.rounds) == (2, 5)


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


FEDERATION = """\
[federation]
rounds = 2
[tls]
ca = "ca.pem"
cert = "host.pem"
key = "host.key"
[clients.clinic]
[clients.bank]
"""


def test_a_host_may_only_coordinate(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(FEDERATION)
    config = load_host(path)
    assert config.model is None
    assert config.exposes("clinic") is Shows.NOTHING
    assert config.federation is not None
    assert config.federation.settings.owners == ("bank", "clinic")
    assert config.federation.settings.needed == 2
    assert config.federation.file == tmp_path / "host" / "federation.sqlite"
    path.write_text(FEDERATION.replace("rounds = 2", 'state_file = "f.sqlite"\nowners = ["bank"]'))
    found = load_host(path).federation
    assert found is not None
    assert (found.file, found.settings.needed) == (tmp_path / "f.sqlite", 1)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("round = 2", r"\[federation\]: no key named 'round'; did you mean 'rounds'"),
        ("rounds = 0", r"\[federation\]: rounds = 0 is not positive"),
        ('owners = ["clinc"]', r"did you mean 'clinic'"),
        ("owners = []", "leaves nobody"),
        ("quorum = 3", "quorum = 3 is not from 1 to the number of owners, 2"),
        ('rule = "krumm"', "did you mean 'krum'"),
        ("state_file = 3", "state_file must be text"),
        ('[model]\nkind = "federation"', r"coordinates by a table \[federation\]"),
    ],
)
def test_what_is_wrong_in_a_federation_is_named(tmp_path: Path, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, FEDERATION.replace("rounds = 2", new))
    with pytest.raises(ConfigError, match=r"neither \[model\] nor \[federation\]"):
        load(tmp_path, FEDERATION.replace("[federation]\nrounds = 2\n", ""))


def test_how_long_joint_computations_may_take_is_said(tmp_path: Path) -> None:
    make_certificates(tmp_path / "certs", hosts=["localhost"], clients=["lm-owner"])
    (tmp_path / "network.toml").write_text(
        'name = "localhost"\nca = "certs/ca.pem"\n'
        'cert = "certs/host-localhost.pem"\nkey = "certs/host-localhost.key"\n'
        'client_cert = "certs/client-lm-owner.pem"\nclient_key = "certs/client-lm-owner.key"\n'
    )
    path = tmp_path / "lm.toml"
    joint = '[joint]\nnetwork = "network.toml"\n'
    path.write_text(f"{FILE}{joint}step_s = 5\nsilent_s = 4\n")
    deadlines = _joint_runs(load_host(path).joint)._deadlines
    assert (deadlines.step_s, deadlines.silent_s) == (5.0, 4.0)
    for name in ("idle_s", "step_s", "silent_s"):
        path.write_text(f"{FILE}{joint}{name} = 0\n")
        with pytest.raises(ConfigError, match=f"{name} = 0.* is no positive number"):
            load_host(path)
